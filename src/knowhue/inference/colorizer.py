"""The colorizer: colours and a calibrated class for an image of any size in one call."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from knowhue.arguments import checked_arguments
from knowhue.config import MAX_SATURATION
from knowhue.errors import ArgumentError, ConfigError, few, should_be
from knowhue.images.image import ComputedBy, Image, flattened, require_image
from knowhue.images.reading import read_image, weigh_image
from knowhue.images.writing import OPENRASTER, encode_layers, encode_with_notes
from knowhue.inference.colour_distribution import (
    LARGEST_SCALE,
    PREDICTION_SCALES,
    ColourDistribution,
    SeveralSizes,
    require_sample,
)
from knowhue.inference.description import model_as_used
from knowhue.inference.hint_spreading import MOST_CHROMA, SIDE_PX, corrections
from knowhue.inference.hints import Hint, Strokes
from knowhue.inference.judgement import Judgement, judge_image
from knowhue.inference.networks import (
    COLOUR_LOGITS,
    FloatArray,
    Network,
    Predictions,
    open_network,
    require_task,
)
from knowhue.inference.pixels import (
    LONGEST,
    SHORTEST_PX,
    PaintStats,
    chroma_lines,
    enlarge,
    network_input,
    paint,
)
from knowhue.inference.recipes import RecipeDescription, require_supported
from knowhue.inference.reference import AlbumColour, Reference, adapt_to_album, make_reference, take_colours
from knowhue.runs import BUILT_IN
from knowhue.storage import replacing

MAP_CODES = 5
"""Gray levels of the uncertainty map per CIELAB unit."""
VIEW_SCALES = (1.0, 1.5, 2.0)
"""Multiples of the network's size at which `spread_over_views` predicts."""
_SHARED_OPTIONS = ("saturation", "unknown_below")
"""Options that apply to everything that is coloured, including videos and archives."""


class ColorizeOptions(NamedTuple):
    """Options of a colouring."""

    hints: Sequence[Hint] = ()
    """points with a colour; the saturation does not change them"""
    saturation: float = 1.0
    """factor of the predicted chroma, 0 to 4"""
    uncertainty: bool = False
    """whether to compute `Colorized.uncertainty`, which takes one more prediction, or six"""
    unknown_below: float | None = None
    """probability below which the class is `unknown`; None: the model's own limit"""
    strokes: Strokes | None = None
    """painted colours; the saturation does not change them"""
    reference: Reference | None = None
    """a colour photo that lends its colours where it shows the same things, see `Colorizer.reference`"""
    sample: int = 1
    """number of the answer, 1 to `MOST_ANSWERS`; 1 is the model's own, others are drawn from a fixed random stream, see
    `ColourDistribution.sample`"""
    album: AlbumColour | None = None
    """mean colour of an album, towards which the predicted chroma is moved, see `reference.adapt_to_album`"""

    def changed(self) -> list[str]:
        """Names of the options that differ from their defaults."""
        options = self._replace(hints=tuple(self.hints))
        return [
            name for name, value in ColorizeOptions()._asdict().items() if getattr(options, name) != value
        ]

    def require_shared(self, what: str, remedy: str) -> None:
        """Raise a `ConfigError` if an option does not apply to a video or an archive, `what`."""
        if refused := [f"`{name}`" for name in self.changed() if name not in _SHARED_OPTIONS]:
            raise ConfigError(
                f"`options` of {what} should hold only `saturation` and `unknown_below`. Found {few(refused)}. {remedy}"
            )


class Colorized(NamedTuple):
    """A coloured image and its judgement."""

    image: Image
    """with the lightness, depth, transparency and metadata of the original"""
    judgement: Judgement
    uncertainty: FloatArray | None = None
    """(h, w), CIELAB units, at the network's size; None unless requested. For a head of 313 colours, the mean distance
    between its answer and a colour drawn from its distribution, see `ColourDistribution.uncertainty`; for other heads,
    the standard deviation over views, see `spread_over_views`"""
    fast: bool = False
    """whether the model predicted at one size although it can at several"""

    def uncertainty_map(self) -> Image:
        """The uncertainty as a gray image of the original's size: 5 gray levels per CIELAB unit, up to 51 units."""
        assert self.uncertainty is not None
        height, width = self.image.pixels.shape[:2]
        codes = (enlarge(self.uncertainty, height, width) * MAP_CODES).clip(0, 255).round().astype(np.uint8)
        return Image.of(codes[..., None])


class Colorizer:
    """A model, ready to colour and to classify. It can be shared between threads.

    >>> colorizer = Colorizer.load()
    >>> colorizer.network.description.name
    'built-in'
    """

    def __init__(self, network: Network | SeveralSizes, notes: Sequence[str] = ()) -> None:
        if not hasattr(network, "description"):
            raise ArgumentError(
                f"`network` should be an open model. Found `network = {network!r}`. `Colorizer.load` opens one."
            )
        self.network = network
        self.notes = tuple(notes)
        """remarks for the user who opened the model"""
        self._several = network if isinstance(network, SeveralSizes) else None
        self._network_at_one_size = network.network if isinstance(network, SeveralSizes) else network
        description = network.description
        # without the run's folder: the written file may be published
        name = model_as_used(description.name.partition(", of ")[0], self.fast)
        self._computed_by = ComputedBy(name, description.fingerprint())

    @classmethod
    @checked_arguments
    def load(
        cls,
        source: str | Path = BUILT_IN,
        recipe: str | None = None,
        sha256: str | None = None,
        fast: bool = False,
    ) -> "Colorizer":
        """Open a model.

        Args:
            source: `built-in`; a file that `knowhue export` made, `.safetensors` or `.onnx`; a hub folder; a run or
                study folder that has been exported once; with a recipe, a third party's `.onnx` file.
            recipe: how to use a third party's `.onnx` file, such as `ddcolor`, see `recipes.RECIPES`.
            sha256: checksum that the third party's file must have; None: any.
            fast: whether a head of 313 colours predicts at one size instead of three: a third of the network's time,
                and more blotches. Other heads always predict at one size; `notes` then says so.

        Raises:
            WeightsError: the model is missing or unreadable, does not match the recipe or the checksum, or predicts
                invalid values.
            ConfigError: there is no such recipe, or a checksum is given without one.
            ExtraError: the model needs a package that is not installed.
        """
        network = open_network(source, recipe, sha256)
        several = cls(SeveralSizes(network) if COLOUR_LOGITS in network.activation_names else network)
        return several.at_one_size() if fast else several

    @property
    def sizes(self) -> int:
        """Number of sizes at which the model predicts for a photo."""
        return 1 if self._several is None else len(PREDICTION_SCALES)

    @property
    def fast(self) -> bool:
        """Whether the model predicts at one size although it can at several."""
        return self._several is None and COLOUR_LOGITS in self.network.activation_names

    def at_one_size(self) -> "Colorizer":
        """The same model with `fast`, see `load`."""
        if self._several is not None:
            return Colorizer(self._network_at_one_size)
        note = f"`fast` changes nothing: `{self.network.description.name}` predicts at one size anyway"
        return Colorizer(self._network_at_one_size, [note])

    def weigh(self, source: Path | bytes, colour: bool = True) -> int:
        """Approximate memory in bytes to colour an image, or only to classify it; 0 if it is no image. Never raises."""
        held_bytes, shape = weigh_image(source)
        if not (held_bytes and colour) or self._several is None:
            return held_bytes
        return held_bytes + self._several.answer_bytes(*(shape or (1, LONGEST)))

    @checked_arguments
    def colorize(
        self, source: Image | str | Path | bytes, options: ColorizeOptions = ColorizeOptions()
    ) -> Colorized:
        """Colour and classify an image.

        Args:
            source: an image, its file, or the bytes of a file.
            options: hints, saturation and others.

        Raises:
            ImageError: the file cannot be read as an image.
            ConfigError: the model has no colour head or does not support an option.
        """
        self.require_options(options)
        image = _read(source)
        coarse = self.network_input(image)
        return self.finish(image, coarse, self.predict([coarse])[0], options)

    @checked_arguments
    def classify(self, source: Image | str | Path | bytes, unknown_below: float | None = None) -> Judgement:
        """Classify an image without colouring it.

        Raises:
            ImageError: the file cannot be read as an image.
            ConfigError: the model has no class head, or `unknown_below` is not within 0 to 1.
        """
        self.require("class")
        options = ColorizeOptions(unknown_below=unknown_below)
        _require_ranges(options)
        image = _read(source)
        return self.judge(image, self.predict_classes([self.class_input(image)])[0], options)

    def require(self, task: str) -> None:
        """Raise a `ConfigError` if the model has no head for a task."""
        require_task(task, self.network.description.tasks, self.network.description.name)

    def require_options(self, options: ColorizeOptions) -> None:
        """Raise a `ConfigError` if the model does not support an option, or a number is out of range."""
        self.require("colour")
        _require_ranges(options)
        description = self.network.description
        if isinstance(description, RecipeDescription):
            require_supported(description.recipe, {name: name for name in options.changed()})
        require_sample(options.sample, self.network)

    def network_input(self, image: Image, scale: float = 1.0) -> FloatArray:
        """L* (h, w) of an image over white, as in training, at `scale` times the network's size."""
        pixels, description = flattened(image), self.network.description
        if isinstance(description, RecipeDescription):  # images are stretched to the model's fixed shape
            return network_input(pixels, description.shape)
        if self._several is not None:
            scale *= LARGEST_SCALE
        # the minimum applies before scaling, so that sizes keep their ratio for a small network, too
        return network_input(pixels, round(scale * max(description.size_px, SHORTEST_PX)))

    @checked_arguments
    def reference(self, source: Image | str | Path | bytes, name: str | None = None) -> Reference:
        """Prepare a colour photo, once, for this model to take colours from.

        Args:
            source: an image, its file, or the bytes of a file.
            name: of the photo in messages; None: its path.

        Raises:
            ImageError: the file cannot be read as an image.
            ConfigError: the photo has no colours, or the model gives no feature maps.
        """
        if name is None:
            name = str(source) if isinstance(source, str | Path) else "the reference"
        return make_reference(_read(source, name), self._network_at_one_size, name)

    def class_input(self, image: Image) -> FloatArray:
        """L* (h, w) to classify an image: at the network's own size, resized as for predicting its colours."""
        lightness = self.network_input(image)
        return lightness if self._several is None else self._several.at_one_size(lightness[None])[0]

    def predict_classes(self, inputs: Sequence[FloatArray]) -> list[Predictions]:
        """Like `predict`, for inputs from `class_input`."""
        return self.at_one_size().predict(inputs)

    def predict(self, inputs: Sequence[FloatArray]) -> list[Predictions]:
        """Predict for several network inputs, in one batch per shape; each of the results has B = 1."""
        answers: dict[int, Predictions] = {}
        for shape in {each.shape for each in inputs}:
            indices = [index for index, each in enumerate(inputs) if each.shape == shape]
            batch = self.network.predict(np.stack([inputs[index] for index in indices]))
            for row, index in enumerate(indices):
                parts = (None if part is None else part[row : row + 1] for part in batch[:3])
                answers[index] = Predictions(*parts)  # pyright: ignore[reportArgumentType]
        return [answers[index] for index in range(len(inputs))]

    def finish(
        self,
        image: Image,
        coarse: FloatArray,
        answers: Predictions,
        options: ColorizeOptions = ColorizeOptions(),
    ) -> Colorized:
        """Paint predicted chroma and hints on the full-size image, keep its exact lightness, and judge the result.

        `coarse` is the L* (h, w) that the network saw, from `network_input`, and `answers` are its predictions for this
        image alone, from `predict`.
        """
        chroma, added, found = answers.colours[0], None, None
        if options.sample != 1:
            chroma = ColourDistribution.of(self.network, coarse).sample(options.sample)
        if options.album is not None:
            chroma = adapt_to_album(options.album, chroma)
        if options.reference is not None:
            chroma, found = take_colours(
                flattened(image), coarse, chroma, options.reference, self._network_at_one_size
            )
        # colours follow the edges of the painted pixels themselves, not those seen over white
        guide = coarse if image.alpha is None else self.network_input(Image(image.pixels))
        if options.hints or options.strokes is not None:
            # hints correct the painted colours, so they are exact at any saturation
            lines = chroma_lines(chroma, guide, options.saturation)
            fine = network_input(image.pixels, min(SIDE_PX, *image.pixels.shape[:2]), oversampling=1)
            added = corrections(image.pixels, fine, lines, options.hints, options.strokes)
        pixels, painted = paint(image.pixels, chroma, guide, saturation=options.saturation, added=added)
        uncertainty = self._uncertainty(image, coarse) if options.uncertainty else None
        coloured = Image(pixels, image.alpha, image.origin._replace(computed_by=self._computed_by))
        judgement = self.judge(image, answers, options, painted, found)
        return Colorized(coloured, judgement, uncertainty, self.fast)

    def judge(
        self,
        image: Image,
        answers: Predictions,
        options: ColorizeOptions,
        painted: PaintStats | None = None,
        found_in_reference: float | None = None,
    ) -> Judgement:
        """Class, novelty and warnings of an image; also statistics of its colours if it was painted."""
        return judge_image(
            self.network.description,
            None if answers.probabilities is None else answers.probabilities[0],
            None if answers.novelty is None else float(answers.novelty[0]),
            painted,
            image.origin.notes,
            options.unknown_below,
            options.saturation,
            found_in_reference,
        )

    def _uncertainty(self, image: Image, coarse: FloatArray) -> FloatArray:
        if COLOUR_LOGITS in self.network.activation_names:
            return ColourDistribution.of(self.network, coarse).uncertainty()
        return spread_over_views(
            lambda lightness: self.network.predict(lightness).colours,
            lambda scale: self.network_input(image, scale),
        )


def _require_ranges(options: ColorizeOptions) -> None:
    saturation, limit, album = options.saturation, options.unknown_below, options.album
    if not 0 <= saturation <= MAX_SATURATION:
        wanted = f"0 (gray) to {MAX_SATURATION}, and 1 leaves colours as they are"
        raise ConfigError(should_be("saturation", wanted, saturation))
    if limit is not None and not 0 <= limit <= 1:
        raise ConfigError(should_be("unknown_below", "a probability from 0 to 1", limit))
    if album is not None and not all(abs(each) <= MOST_CHROMA for each in album):
        wanted = f"an a and a b within -{MOST_CHROMA:,} to {MOST_CHROMA:,}"
        raise ConfigError(should_be("album", wanted, album))


def _read(source: Image | str | Path | bytes, name: str | None = None) -> Image:
    if not isinstance(source, Image):
        return read_image(source, name=name)
    require_image(source)
    return source


@checked_arguments
def write_colorized(original: Image, coloured: Image, target: str | Path) -> list[str]:
    """Write a coloured image, or it and its original as layers, whole or not at all.

    The suffix `.ora` means OpenRaster layers, the gray photo below its colours; for others see `write_image`.

    Returns:
        Notes on what the format could not hold.

    Raises:
        ConfigError: the format is not supported, or the image is too large for it.
        RunError: the file cannot be written.
    """
    target = Path(target)
    data, notes = encode_colorized(original, coloured, target.suffix)
    with replacing(target, "wb") as file:
        file.write(data)
    return notes


def encode_colorized(original: Image, coloured: Image, suffix: str) -> tuple[bytes, list[str]]:
    """The bytes of the file that `write_colorized` writes, and its notes."""
    if suffix.lower() != OPENRASTER:
        return encode_with_notes(coloured, suffix)
    gray = original.pixels
    if not (gray == gray[..., :1]).all():
        no_chroma = np.zeros((1, 1, 2), np.float32)
        gray = paint(gray, no_chroma, no_chroma[..., 0])[0]
    return encode_layers(original._replace(pixels=gray), coloured)


def spread_over_views(
    predict: Callable[[FloatArray], FloatArray], input_at: Callable[[float], FloatArray]
) -> FloatArray:
    """Standard deviation of a*b* over views of one image, sqrt(var a* + var b*) (h, w) at scale 1, CIELAB units.

    The views are the image at 1, 1.5 and 2 times the network's size, each upright and mirrored. `input_at` gives L*
    (h, w) at a scale; `predict` maps L* (B, h, w) to a*b* (B, h, w, 2). Test-time augmentation (Wang et al. 2019) takes
    the spread over views as the uncertainty: a confident prediction does not depend on the view.
    """
    shape = input_at(1.0).shape
    views = []
    for scale in VIEW_SCALES:
        lightness = input_at(scale)
        upright, mirrored = predict(np.stack([lightness, lightness[:, ::-1]]))
        views += [enlarge(view, *shape) for view in (upright, mirrored[:, ::-1])]
    return np.sqrt(np.var(np.stack(views), axis=0).sum(-1)).astype(np.float32)
