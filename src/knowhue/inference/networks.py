"""Open models: find the file for a name, choose its runtime, and check its predictions.

Importing this module does not import torch: ONNX models run without it.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from knowhue.color import COLOUR_STRIDE, FloatArray, chroma_bins
from knowhue.errors import ConfigError, RunError, WeightsError, did_you_mean, lines_of, quoted, shown
from knowhue.inference.description import KEY, Description, read_description
from knowhue.runs import (
    BUILT_IN,
    BUILT_IN_FILE,
    DEPLOYED,
    WEIGHTS,
    finished_run,
    is_hub_folder,
    path_hint,
    read_status,
)
from knowhue.storage import file_kind, replacing

if TYPE_CHECKING:
    from torch import Tensor

    from knowhue.inference.recipes import RecipeDescription
    from knowhue.models.multitask import Deployed, DeployedOutput

_CHECKSUM = "knowhue-sha256"
COLOUR_LOGITS, FEATURES = "colour_logits", "features_"
"""Names of activations: the logits of 313 colours; the encoder's feature map, a prefix followed by its stride."""
LARGEST_CHROMA = 10_000.0
"""CIELAB units, far beyond the 134 of sRGB; larger values would overflow later."""
_RANGES = {
    "chroma": (-LARGEST_CHROMA, LARGEST_CHROMA),
    "probabilities": (-0.01, 1.01),
    "novelty": (-np.inf, np.inf),
}
"""Least and largest values of each output; activations must only be finite."""
_TRIAL: FloatArray = np.tile(np.linspace(0, 100, 47, dtype=np.float32), (2, 32, 1))
"""Two small images (2, 32, 47), not square and not a multiple of any stride wide."""


class Predictions(NamedTuple):
    """A network's output for B images; None for a head that it lacks."""

    chroma: FloatArray | None
    """a*b* (B, h, w, 2), CIELAB units"""
    probabilities: FloatArray | None
    """(B, classes), calibrated, in the order of `description.classes`"""
    novelty: FloatArray | None
    """(B,), distance from the training images; above 1 is unusual. None for third-party models"""
    activations: Mapping[str, FloatArray] = MappingProxyType({})
    """requested intermediate results, (B, C, rows, columns): `features_8` is the encoder's feature map of stride 8, a
    value for each 8 x 8 pixels of L*; `colour_logits` are the logits of the 313 colours, stride 4. They cover L* with
    its lower and right edges repeated up to whole multiples of the coarsest stride"""

    @property
    def colours(self) -> FloatArray:
        """The chroma of a network that is known to have a colour head."""
        assert self.chroma is not None
        return self.chroma


class Network(Protocol):
    """A model that is ready to predict; thread-safe."""

    runtime: str
    activation_names: tuple[str, ...]
    """activations that `predict` can return"""
    uses_one_core: bool
    """whether `predict` works on one core, for B images as long as for one after the other"""

    @property
    def description(self) -> "Description | RecipeDescription": ...

    def predict(self, lightness: FloatArray, names: Sequence[str] = ()) -> Predictions:
        """Predict for L* (B, h, w), 0 to 100, of any h and w, and return the activations `names`, too.

        A `ConfigError` if the model has no activation of such a name; a `WeightsError` if a prediction is invalid, see
        `check_predictions`, or takes too much memory, or, except for the built-in model, too long.
        """
        ...


def require_task(task: str, tasks: Sequence[str], model: str) -> None:
    """Raise a `ConfigError` if a model has no head for a task."""
    if task not in tasks:
        raise ConfigError(
            f"`model` should have a {task} head. Found `{model}`, trained for {' and '.join(tasks)} alone; a run of "
            "the arm `multi` has both."
        )


def require_activations(names: Sequence[str], network: Network) -> None:
    """Raise a `ConfigError` if a model lacks some activations."""
    if missing := [name for name in names if name not in network.activation_names]:
        raise ConfigError(
            f"`model` should give {' and '.join(missing)}. Found `{network.description.name}`, which gives "
            f"{', '.join(network.activation_names) or 'no activations'}. Use another model, or export its run again."
        )


def check_predictions(answers: Predictions, description: Description, lightness: FloatArray) -> Predictions:
    """Return valid predictions; a `WeightsError` if one is missing, out of range or of the wrong shape."""
    count, height, width = lightness.shape
    shapes: dict[str, tuple[int, ...]] = {"novelty": (count,)}
    if "colour" in description.tasks:
        shapes["chroma"] = count, height, width, 2
    if "class" in description.tasks:
        shapes["probabilities"] = count, len(description.classes)
    for name in _RANGES:
        values, shape = getattr(answers, name), shapes.get(name)
        found = None if values is None else values.shape
        if found != shape:
            raise _misfit(f"`{name}` of shape {shape} as its description says", f"shape {found}")
        if values is not None:
            _check_range(name, values)
    for name, values in answers.activations.items():
        channels = len(chroma_bins()) if name == COLOUR_LOGITS else "channels"
        is_map = values.ndim == 4 and len(values) == count and values.size
        if is_map and name == COLOUR_LOGITS:
            rows, columns = (COLOUR_STRIDE * cells for cells in values.shape[2:])
            is_map = values.shape[1] == channels and rows >= height and columns >= width
        if not is_map:
            wanted = f"`{name}` of shape ({count}, {channels}, rows, columns), for all of the image"
            raise _misfit(wanted, f"shape {values.shape}")
        _check_range(name, values)
    return answers


def _check_range(name: str, values: FloatArray) -> None:
    low, high = _RANGES.get(name, (-np.inf, np.inf))
    # min and max of an array with a NaN are NaN, which no limit includes
    ends = np.array([values.min(), values.max()])
    if not (np.isfinite(ends) & (ends >= low) & (ends <= high)).all():
        is_valid = np.isfinite(values) & (values >= low) & (values <= high)
        limits = f" of {round(low):g} to {round(high):g}" if np.isfinite(low) else ""
        raise WeightsError(
            f"The model should return `{name}` with finite numbers{limits}. Found {values[~is_valid].flat[0]:g}. Its "
            "training may have diverged; train its run again, or use another model."
        )


def _misfit(wanted: str, found: str) -> WeightsError:
    return WeightsError(
        f"The model should return {wanted}. Found {found}. Export its run again, or use another model."
    )


def open_network(
    source: str | Path = BUILT_IN, recipe: str | None = None, sha256: str | None = None
) -> Network:
    """Open a model by its file type, and try it once; arguments and errors like `Colorizer.load`."""
    if sha256 is not None and recipe is None:
        raise ConfigError("`sha256` is for a third-party file: name its recipe, too.")
    if recipe is not None:
        from knowhue.inference.recipes import find_recipe_file, open_recipe

        return open_recipe(find_recipe_file(source, recipe), recipe, sha256)
    path = find_model(source)
    network = _open_built_in(path) if str(source) == BUILT_IN else OPENERS[path.suffix.lower()](path)
    try:  # report invalid predictions now, not at the first image
        network.predict(_TRIAL)
    except WeightsError as error:
        raise WeightsError(f"`{path}` cannot be used. {error}") from None
    return network


def find_model(source: str | Path) -> Path:
    """The file of a model, by its name or path; a `WeightsError` if there is none or it is of another kind."""
    if str(source) == BUILT_IN:
        return BUILT_IN_FILE
    path = Path(source)
    if os.path.isdir(source):  # unlike `Path.is_dir`, it raises nothing for a long name
        return _find_in_folder(path)
    exists = os.path.exists(source)
    if not exists or path.suffix.lower() not in OPENERS:
        name = shown(str(source), 200)
        found = f"`{name}`.{path_hint(path)}" if exists else f"no `{name}`.{did_you_mean(name, [BUILT_IN])}"
        raise WeightsError(
            f"`model` should be `{BUILT_IN}`, the folder of a run or a study, or a {' or '.join(OPENERS)} file that "
            f"`knowhue export` made. Found {found}"
        )
    return path


def needs_deployment(source: str | Path) -> Path | None:
    """The finished run at `source` if it has not been exported yet, else None."""
    path = Path(source)
    if str(source) == BUILT_IN or not os.path.isdir(path) or _exported(path):
        return None
    try:
        run = finished_run(path)
    except RunError:
        return None  # `find_model` reports the problem
    return None if _exported(run) else run


def _exported(path: Path) -> Path | None:
    """The model file of an exported run or of a hub folder, or None."""
    if (path / DEPLOYED).exists() and read_status(path).get("state") != "diverged":
        return path / DEPLOYED
    return path / WEIGHTS if is_hub_folder(path) else None


def _find_in_folder(path: Path) -> Path:
    if (run := needs_deployment(path)) is not None:
        raise WeightsError(
            f"`{run}` should be exported once, which calibrates its class probabilities: "
            f"`knowhue export {quoted(run)}`, or `knowhue.deploy(Path({str(run)!r}))`."
        )
    try:
        return _exported(path) or finished_run(path) / DEPLOYED
    except RunError as error:
        raise WeightsError(str(error)) from None


class TorchNetwork:
    """Runs in float32, on `device` if given, else on a GPU if there is one."""

    runtime = "torch"
    uses_one_core = False

    def __init__(self, module: "Deployed", description: Description, device: str | None = None) -> None:
        import torch

        self.description = description
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.module = module.to(self.device).eval()
        self.activation_names = module.activation_names

    def predict(self, lightness: FloatArray, names: Sequence[str] = ()) -> Predictions:
        """See `Network`."""
        import torch

        require_activations(names, self)
        with torch.inference_mode():
            answer: DeployedOutput = self.module(torch.from_numpy(lightness)[:, None].to(self.device))
        chroma = None if answer.chroma is None else _to_numpy(answer.chroma.permute(0, 2, 3, 1))
        probabilities = None if answer.probabilities is None else _to_numpy(answer.probabilities)
        activations = {name: _to_numpy(answer.activations[name]) for name in names}
        answers = Predictions(chroma, probabilities, _to_numpy(answer.novelty), activations)
        return check_predictions(answers, self.description, lightness)


def open_torch(path: Path) -> TorchNetwork:
    """Open a safetensors file that `knowhue export` made, without running code from it; raises like `read_model`."""
    description, weights = read_model(path, "pt")
    return TorchNetwork(build_deployed(description, weights, f"`{path}`"), description)


def read_model(path: Path, framework: Literal["pt", "np"]) -> tuple[Description, dict[str, Any]]:
    """A model's description and its weights, as torch tensors, `pt`, or numpy arrays, `np`.

    A `WeightsError` if the file is damaged, or not a safetensors file that `knowhue export` made.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework) as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        found = str(error) if isinstance(error, OSError) else file_kind(path) or str(error)
        fault = f"`{path}` should be a readable safetensors file. Found: {found}. Copy or export it again."
        raise WeightsError(fault) from None
    text = metadata.get(KEY)
    description = read_description(text, path)
    if metadata.get(_CHECKSUM, "") not in ("", _checksum(text or "", weights)):
        raise WeightsError(f"`{path}` is damaged: its checksum does not match. Copy or export it again.")
    return description, weights


def save_model(path: Path, description: Description, weights: "Mapping[str, Tensor]") -> None:
    """Write one safetensors file with everything that predicting needs; a `RunError` if it cannot be written."""
    from safetensors.torch import save

    text = description.model_dump_json()
    with replacing(path, "wb") as file:
        file.write(save(dict(weights), {"format": "pt", KEY: text, _CHECKSUM: _checksum(text, weights)}))


def _checksum(description: str, weights: Mapping[str, Any]) -> str:
    """SHA-256 of a description as stored, and of all tensors or arrays with their names."""
    digest = hashlib.sha256(description.encode())
    # sorted, because a file can list its tensors in another order
    for name, values in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(values.tobytes() if isinstance(values, np.ndarray) else _bytes(values))
    return digest.hexdigest()


def _bytes(tensor: "Tensor") -> memoryview:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().data  # numpy has no bfloat16


def build_deployed(description: Description, weights: "Mapping[str, Tensor]", name: str) -> "Deployed":
    """Build the described model with these weights, in float32; a `WeightsError` if they do not fit."""
    import torch

    from knowhue.models.multitask import Deployed, build_model

    # no pretrained weights are downloaded, because the file holds the encoder's, too
    encoder = description.config.encoder.model_copy(update={"weights": "none"})
    config = description.config.model_copy(update={"encoder": encoder})
    try:
        # allocate no memory until the shapes match: a file can describe enormous ones
        with torch.device("meta"):
            model = build_model(config, max(len(description.classes), 2), seeded=False)
            module = Deployed(
                model, description.temperature, description.references, description.novelty_limit
            )
        expected = module.state_dict()
        # copied, because the file is memory-mapped and might be replaced
        state = {
            key: tensor.to(expected.get(key, tensor).dtype, copy=True) for key, tensor in weights.items()
        }
        module.load_state_dict(state, assign=True)  # `meta` tensors have no memory to copy into
    except (RuntimeError, OverflowError, TypeError) as error:
        found = " ".join(lines_of(error)[:2])[:300]
        raise WeightsError(
            f"{name} should hold the weights that it describes. Found: {found}. Export its run again."
        ) from None
    return module.to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]


def _to_numpy(tensor: "Tensor") -> FloatArray:
    return tensor.float().contiguous().cpu().numpy()


def _open_onnx(path: Path) -> Network:
    from knowhue.inference.onnx_network import open_onnx

    return open_onnx(path)


def _open_built_in(path: Path) -> Network:
    """Run the graph beside the weights by ONNX Runtime, which starts in a tenth of torch's time."""
    from knowhue.inference.onnx_network import open_graph

    return open_graph(path.with_suffix(".onnx"), *read_model(path, "np"))


OPENERS: dict[str, Callable[[Path], Network]] = {".safetensors": open_torch, ".onnx": _open_onnx}
