"""Published third-party colorizers, from ONNX files that the user has: their inputs and outputs.

The table holds facts from the authors' code, but no weights:

- `siggraph17`, `eccv16`: https://github.com/richzhang/colorization: `colorizers/base_color.py` scales L* and a*b*
  inside the network, `util.py` stretches images to 256 x 256. https://github.com/clibdev/colorization exports them with
  these inputs and outputs (`export.py`).
- `ddcolor`: https://github.com/piddnad/DDColor: `ddcolor/pipeline.py` stretches to 512 x 512 and passes the gray of
  each L* as RGB, 0 to 1; `ddcolor/model.py` normalises it inside; `scripts/export_onnx.py` exports that.
- `deoldify`: https://github.com/jantic/DeOldify: `deoldify/filters.py` and `dataset.py` stretch to a square and scale
  input and output as for ImageNet. https://github.com/instant-high/deoldify-onnx (`convert_to_onnx.py`) moves that into
  the file, which therefore takes and gives RGB, 0 to 255, at 256 x 256. We take a*b* of its output, the authors the
  chroma of YUV.

Every model gets the image stretched to a square, as its authors do; a file with a fixed input size gets that size.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from knowhue.color import FloatArray, lab_to_linear, linear_to_srgb, srgb_to_lab
from knowhue.config import Task
from knowhue.errors import ConfigError, WeightsError, one_of, shown
from knowhue.inference.description import DEFAULT_UNKNOWN_BELOW
from knowhue.inference.networks import LARGEST_CHROMA, Predictions, require_activations
from knowhue.inference.pixels import enlarge

if TYPE_CHECKING:
    from knowhue.inference.onnx_network import Session


class Recipe(NamedTuple):
    """Input and output of a kind of model."""

    input: Literal["lightness", "gray"]
    """`lightness`: L* in one channel; `gray`: the sRGB gray of each L* in three"""
    input_white: float
    """value of white in the input"""
    output: Literal["chroma", "rgb"]
    """`chroma`: a*b* in CIELAB units; `rgb`: sRGB"""
    output_white: float
    """value of white in an `rgb` output"""
    side_px: int
    """side of the square input, pixels, if the file has no fixed size"""
    paper: str


RECIPES = {
    "siggraph17": Recipe(
        "lightness", 100, "chroma", 1, 256,
        "Zhang et al., Real-Time User-Guided Image Colorization with Learned Deep Priors, SIGGRAPH 2017",
    ),
    "eccv16": Recipe(
        "lightness", 100, "chroma", 1, 256, "Zhang, Isola and Efros, Colorful Image Colorization, ECCV 2016"
    ),
    "ddcolor": Recipe(
        "gray", 1, "chroma", 1, 512,
        "Kang et al., DDColor: Towards Photo-Realistic Image Colorization via Dual Decoders, ICCV 2023",
    ),
    "deoldify": Recipe("gray", 255, "rgb", 255, 256, "Antic, DeOldify, 2018"),
}  # fmt: skip
CHANNELS = {"lightness": 1, "gray": 3, "chroma": 2, "rgb": 3}
"""Channels of the kinds of input and output."""
UNSUPPORTED = {
    "hints": "its colours are the model's alone",
    "strokes": "its colours are the model's alone",
    "reference": "it gives no feature maps to match a photo by",
    "uncertainty": "it gives one answer, at one size",
    "sample": "it gives one answer",
    "unknown_below": "it has no class",
}
"""Options of a colouring that no recipe supports, and why."""
_SECONDS_A_PIXEL = 1e-3  # these networks have up to a hundred times as many weights as ours
_LEAST_SPAN = 0.1  # share of the RGB range that the output for black to white must span


@dataclass(frozen=True)
class RecipeDescription:
    """What is known of a third-party model, whose file has no description: it colours."""

    recipe: str
    """one of `RECIPES`"""
    sha256: str
    """checksum of its file, 64 hex digits"""
    shape: tuple[int, int]
    """height and width of its input, pixels"""
    tasks: ClassVar[tuple[Task, ...]] = ("colour",)
    classes: ClassVar[tuple[str, ...]] = ()
    images: ClassVar[Mapping[str, int | str]] = {}
    metrics: ClassVar[Mapping[str, Any]] = {}
    unknown_below: ClassVar[float] = DEFAULT_UNKNOWN_BELOW
    licences: ClassVar[str] = ""

    @property
    def name(self) -> str:
        return f"{self.recipe} (SHA-256 {self.sha256})"

    @property
    def size_px(self) -> int:
        return min(self.shape)

    def fingerprint(self) -> str:
        """Identifies the file and the recipe, on which the colours depend."""
        return f"{self.recipe}-{self.sha256}"


class RecipeNetwork:
    """A third-party model, run by ONNX Runtime; thread-safe."""

    runtime = "onnx"
    activation_names = ()
    uses_one_core = False

    def __init__(self, session: "Session", description: RecipeDescription, batch: int | None) -> None:
        """Use a session whose input holds `batch` images; None: any number."""
        self.description = description
        self._recipe = RECIPES[description.recipe]
        self._session = session
        self._batch = batch

    def predict(self, lightness: FloatArray, names: Sequence[str] = ()) -> Predictions:
        """See `Network`; L* is resized to the model's size, and there are no activations."""
        require_activations(names, self)
        (own_height, own_width), (_, height, width) = self.description.shape, lightness.shape
        resized = np.stack([enlarge(each, own_height, own_width) for each in lightness])
        step = self._batch or len(resized)
        answers = [self._chroma(resized[start : start + step]) for start in range(0, len(resized), step)]
        chroma = [enlarge(each, height, width) for each in np.concatenate(answers)]
        return Predictions(np.stack(chroma), None, None)

    def _chroma(self, lightness: FloatArray) -> FloatArray:
        """a*b* (B, h', w', 2) for L* (B, h, w)."""
        answer = self.answer(lightness)
        if self._recipe.output == "chroma":
            return np.ascontiguousarray(np.moveaxis(answer, 1, -1))
        codes = np.moveaxis(answer / np.float32(self._recipe.output_white), 1, -1).clip(0, 1)
        return srgb_to_lab(codes)[..., 1:].astype(np.float32)

    def answer(self, lightness: FloatArray) -> FloatArray:
        """The model's raw output, (B, 2 or 3, h', w'), for L* (B, h, w), 0 to 100, of its own size."""
        (output,) = (each.name for each in self._session.outputs)
        (name,) = (each.name for each in self._session.inputs)
        (found,) = self._session.run([output], {name: model_input(self._recipe, lightness)})
        expected = len(lightness), CHANNELS[self._recipe.output]
        if found.ndim != 4 or found.shape[:2] != expected or not found.size:
            raise self._unfit(f"an output of shape {(*expected, 'h', 'w')}", f"shape {found.shape}")
        # not `> LARGEST_CHROMA`, which is false for NaN
        if not (np.abs(found) <= LARGEST_CHROMA).all():
            raise self._unfit(
                f"an output with finite numbers up to {LARGEST_CHROMA:g}",
                f"{found.flat[np.abs(found).argmax()]:g}",
            )
        return found

    def _unfit(self, expected: str, found: str) -> WeightsError:
        return WeightsError(
            f"A model of the recipe `{self.description.recipe}` should return {expected}. Found {found}. Use another "
            "file, or the recipe of this one."
        )


def model_input(recipe: Recipe, lightness: FloatArray) -> FloatArray:
    """A model's input, (B, 1 or 3, h, w), for L* (B, h, w), 0 to 100.

    >>> model_input(RECIPES["deoldify"], np.full((1, 1, 1), 100, np.float32)).round().tolist()
    [[[[255.0]], [[255.0]], [[255.0]]]]
    """
    if recipe.input == "lightness":
        values = lightness / 100
    else:
        flat = lightness.ravel()
        # the three channels of gray are equal, so one is enough
        light = lab_to_linear(flat, np.zeros((2, flat.size), flat.dtype))[1]
        values = linear_to_srgb(light.clip(0, 1)).reshape(lightness.shape)
    values = (values * recipe.input_white).astype(np.float32)
    return np.repeat(values[:, None], CHANNELS[recipe.input], axis=1)


def require_supported(recipe: str, options: Mapping[str, str]) -> None:
    """Raise a `ConfigError` if an option, by name and by how messages show it, is in `UNSUPPORTED`."""
    for name, text in options.items():
        if name in UNSUPPORTED:
            raise ConfigError(
                f"`{text}` is more than the recipe `{recipe}` can do: {UNSUPPORTED[name]}. Leave it out, or use one "
                "of Knowhue's own models."
            )


def require_recipe(recipe: str, sha256: str | None = None) -> None:
    """Raise a `ConfigError` if there is no such recipe, or a checksum is not 64 hex digits."""
    if recipe not in RECIPES:
        raise ConfigError(one_of("recipe", recipe, RECIPES))
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ConfigError(f"`sha256` should be 64 hex digits. Found `sha256 = {shown(sha256)}`.")


def find_recipe_file(source: str | Path, recipe: str) -> Path:
    """The file for a recipe; a `ConfigError` if there is no such recipe, a `WeightsError` if it is no ONNX file."""
    require_recipe(recipe)
    path = Path(source)
    is_onnx = path.suffix.lower() == ".onnx"
    if not is_onnx or not os.path.isfile(path):  # unlike `Path.is_file`, it raises nothing for a long name
        found = f"{'no file ' * is_onnx}`{shown(str(source), 200)}`"
        raise WeightsError(
            f"`model` should be a third-party .onnx file for the recipe `{recipe}`. Found {found}."
        )
    return path


def open_recipe(path: Path, recipe: str, sha256: str | None = None) -> RecipeNetwork:
    """Open a third-party model without running code from it or reading other files; raises like `Colorizer.load`."""
    from knowhue.inference.onnx_network import open_session, read_bytes, refuse_unsafe

    require_recipe(recipe, sha256)
    data = read_bytes(path)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise WeightsError(
            f"`{path}` should have the SHA-256 {sha256.lower()}. Found {found}: it is damaged or another file."
        )
    refuse_unsafe(data, path)
    session = open_session(data, path, seconds_a_pixel=_SECONDS_A_PIXEL)
    shape, batch = _signature(session, recipe, path)
    network = RecipeNetwork(session, RecipeDescription(recipe, found, shape), batch)
    _try_out(network, path)
    return network


def _signature(session: "Session", recipe: str, path: Path) -> tuple[tuple[int, int], int | None]:
    """Height and width of a graph's input, and its batch size; None: any."""
    expected = RECIPES[recipe]
    fits = len(session.inputs) == len(session.outputs) == 1 and all(
        each.type == "tensor(float)"
        and len(each.shape) == 4
        and (each.shape[1] == channels or not isinstance(each.shape[1], int))
        for each, channels in (
            (session.inputs[0], CHANNELS[expected.input]),
            (session.outputs[0], CHANNELS[expected.output]),
        )
    )
    batch, _, *sides = session.inputs[0].shape if fits else (0, 0, 0, 0)
    is_empty = any(isinstance(side, int) and side < 1 for side in sides)
    if not fits or is_empty or (isinstance(batch, int) and batch != 1):
        raise WeightsError(
            f"`{path}` should take one float tensor (1, {CHANNELS[expected.input]}, h, w) and give one "
            f"(1, {CHANNELS[expected.output]}, h, w), as the recipe `{recipe}` does. Found {session.signature}. "
            "Use the recipe of this file, or export it as docs/colorize.md says."
        )
    height, width = (side if isinstance(side, int) else expected.side_px for side in sides)
    return (height, width), batch if isinstance(batch, int) else None


def _try_out(network: RecipeNetwork, path: Path) -> None:
    """Run a model once, on a ramp from black to white, and check its output."""
    recipe, (height, width) = RECIPES[network.description.recipe], network.description.shape
    ramp = np.broadcast_to(np.linspace(0, 100, width, dtype=np.float32), (1, height, width))
    try:
        answer = network.answer(ramp)
    except WeightsError as error:
        raise WeightsError(f"`{path}` cannot be used. {error}") from None
    low, high = float(answer.min()), float(answer.max())
    if recipe.output == "rgb" and high - low < _LEAST_SPAN * recipe.output_white:
        raise WeightsError(
            f"`{path}` should return RGB of 0 to {recipe.output_white:g}, as the recipe `{network.description.recipe}` "
            f"does. Found {low:.3g} to {high:.3g} for black to white: it was exported without its scaling. Export it "
            "as docs/colorize.md says."
        )
