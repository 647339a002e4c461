"""Colours and a calibrated class for an image of any size, in one call."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from knowhue.arguments import checked_arguments
from knowhue.config import MOST_SATURATION
from knowhue.errors import ArgumentError, ConfigError
from knowhue.images.image import ComputedBy, Image, Pixels, flattened, require_image
from knowhue.images.reading import read_image, weigh_image
from knowhue.images.writing import OPENRASTER, encode_layers, encode_with_notes
from knowhue.inference.colour_distribution import (
    LARGEST_SIZE,
    SEEN_AT,
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
from knowhue.inference.reference import AlbumColour, Reference, drawn_to, make_reference, take_colours
from knowhue.runs import BUILT_IN
from knowhue.storage import replacing

MAP_CODES = 5
"""Of the map of uncertainty, gray levels a CIELAB unit."""
SCALES = (1.0, 1.5, 2.0)
"""Of the network's size, at which `spread_over_views` predicts."""
EVERYWHERE = ("saturation", "unknown_below")
"""Options that go with whatever is coloured, videos and archives too."""


class ColorizeOptions(NamedTuple):
    """What a user may ask of a colouring."""

    hints: Sequence[Hint] = ()
    """points with a colour, which stays as it is at any saturation"""
    saturation: float = 1.0
    """what the predicted chroma is multiplied by, 0 to 4"""
    uncertainty: bool = False
    """whether to say where the colours are unsure; one more prediction, or six, see `Colorized`"""
    unknown_below: float | None = None
    """probability below which the class is `unknown`; None leaves it to the model"""
    strokes: Strokes | None = None
    """painted colours, which stay as hints do"""
    reference: Reference | None = None
    """a colour photo whose colours are taken where it shows the same, see `Colorizer.reference`"""
    sample: int = 1
    """which of several answers, 1 to `MOST_ANSWERS`; 1 is the model's own, others are drawn, see
    `ColourDistribution.sample`, the same each time"""
    album: AlbumColour | None = None
    """the colour of an album, towards which the predicted chroma is drawn, see `reference.drawn_to`"""

    def changed(self, but: Collection[str] = ()) -> list[str]:
        """Names of the options, `but` some, that are not as they are by default."""
        given = self._replace(hints=tuple(self.hints))
        usual = ColorizeOptions()._asdict().items()
        return [name for name, value in usual if name not in but and getattr(given, name) != value]


class Colorized(NamedTuple):
    """A coloured image, and the judgement of it."""

    image: Image
    """with the lightness, depth, transparency and metadata of the original"""
    judgement: Judgement
    """class, colourfulness, warnings"""
    uncertainty: FloatArray | None = None
    """(h, w), CIELAB units, at the network's size; None unless asked for. Of a head of 313 colours the mean distance
    from its answer to the colours that it thinks possible, see `ColourDistribution.uncertainty`; of others the standard
    deviation over views, see `spread_over_views`"""
    fast: bool = False
    """whether it was seen at one size by a model that sees photos at several"""

    def uncertainty_map(self) -> Image:
        """The uncertainty as a gray image of the original's size: 5 codes a CIELAB unit, up to 51 units."""
        assert self.uncertainty is not None
        height, width = self.image.pixels.shape[:2]
        codes = (enlarge(self.uncertainty, height, width) * MAP_CODES).clip(0, 255).round().astype(np.uint8)
        return Image.of(codes[..., None])


class Colorizer:
    """A model that is ready to colour and to classify. Threads may share one.

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
        """what whoever opened it should know, in words"""
        # here alone it is decided at how many sizes photos are seen
        self._several = network if isinstance(network, SeveralSizes) else None
        self._network_at_one_size = network.network if isinstance(network, SeveralSizes) else network
        description = network.description
        # of a run without its folder, for what is written may be published
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
        """Open a model: `built-in`, an exported file, a folder for the hub, or a run folder exported once.

        Args:
            source: of the model.
            recipe: how another's `.onnx` file is used, such as `ddcolor`, see `recipes.RECIPES`.
            sha256: that another's file must have; None for any.
            fast: whether a head of 313 colours sees each photo at one size, not at three: a third of the
                network's time, and more blotches. Other heads always do, which `notes` then says.

        Raises:
            WeightsError: there is none, or it cannot be read, or another's is none of that recipe or checksum.
            ConfigError: there is no such recipe.
        """
        network = open_network(source, recipe, sha256)
        several = cls(SeveralSizes(network) if COLOUR_LOGITS in network.activation_names else network)
        return several.at_one_size() if fast else several

    @property
    def sizes(self) -> int:
        """At how many sizes a photo is seen."""
        return 1 if self._several is None else len(SEEN_AT)

    @property
    def fast(self) -> bool:
        """Whether photos are seen at one size, though the model could see them at several."""
        return self._several is None and COLOUR_LOGITS in self.network.activation_names

    def at_one_size(self) -> "Colorizer":
        """The same model, fast, see `load`."""
        if self._several is not None:
            return Colorizer(self._network_at_one_size)
        name = self.network.description.name
        return Colorizer(
            self._network_at_one_size, [f"`fast` changes nothing: `{name}` sees a photo once anyway"]
        )

    def weigh(self, source: Path | bytes, colour: bool = True) -> int:
        """Bytes that an image holds while it is coloured, or named alone, about; 0 if it is none. Never fails."""
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
            source: an image, its file, or the bytes of one.
            options: hints, saturation, uncertainty.

        Raises:
            ImageError: the file cannot be read as an image.
            ConfigError: the model has no colour head, or cannot do what the options ask for.
        """
        self.require_options(options)
        image = _image(source)
        coarse = self.network_input(image)
        return self.finish(image, coarse, self.predict([coarse])[0], options)

    @checked_arguments
    def classify(self, source: Image | str | Path | bytes, unknown_below: float | None = None) -> Judgement:
        """Classify an image without colouring it.

        Raises:
            ImageError: the file cannot be read as an image.
            ConfigError: the model has no class head, or `unknown_below` is no probability.
        """
        self.require("class")
        options = ColorizeOptions(unknown_below=unknown_below)
        _require_ranges(options)
        image = _image(source)
        return self.judge(image, self.predict_classes([self.class_input(image)])[0], options)

    def require(self, task: str) -> None:
        """Raise a `ConfigError`, before work, where the model has no head for a task."""
        require_task(task, self.network.description.tasks, self.network.description.name)

    def require_options(self, options: ColorizeOptions) -> None:
        """Raise a `ConfigError`, before work, where the model cannot colour as asked, or a number is out of range."""
        self.require("colour")
        _require_ranges(options)
        description = self.network.description
        if isinstance(description, RecipeDescription):
            require_supported(description.recipe, {name: name for name in options.changed()})
        require_sample(options.sample, self.network)

    def network_input(self, image: Image, scale: float = 1.0) -> FloatArray:
        """L* (h, w) of an image at the network's size, or at `scale` times it; over white, as in training."""
        return self._input_of(flattened(image), scale)

    def _input_of(self, pixels: Pixels, scale: float = 1.0) -> FloatArray:
        description = self.network.description
        if isinstance(description, RecipeDescription):  # it sees one shape, into which images are stretched
            return network_input(pixels, description.shape)
        if self._several is not None:
            scale *= LARGEST_SIZE
        # at the largest size, too, a small network's own is the least that there is
        return network_input(pixels, round(scale * max(description.size_px, SHORTEST_PX)))

    @checked_arguments
    def reference(self, source: Image | str | Path | bytes, name: str | None = None) -> Reference:
        """A colour photo, made ready once for this model to take colours from.

        Args:
            source: an image, its file, or the bytes of one.
            name: that messages call it by; None is a file's path.

        Raises:
            ImageError: the file cannot be read as an image.
            ConfigError: it has no colours, or the model gives no feature maps.
        """
        if name is None:
            name = str(source) if isinstance(source, str | Path) else "the reference"
        return make_reference(_image(source, name), self._network_at_one_size, name)

    def class_input(self, image: Image) -> FloatArray:
        """L* (h, w) that a class takes: of several sizes the network's own, made as it is for colours."""
        lightness = self.network_input(image)
        return lightness if self._several is None else self._several.at_one_size(lightness[None])[0]

    def predict_classes(self, inputs: Sequence[FloatArray]) -> list[Predictions]:
        """As `predict`, for what `class_input` makes."""
        return self.at_one_size().predict(inputs)

    def predict(self, inputs: Sequence[FloatArray]) -> list[Predictions]:
        """Predict for several network inputs, those of one shape together; each of the answers has B = 1."""
        answers: dict[int, Predictions] = {}
        for shape in {each.shape for each in inputs}:  # a batch has one shape
            places = [place for place, each in enumerate(inputs) if each.shape == shape]
            together = self.network.predict(np.stack([inputs[place] for place in places]))
            for row, place in enumerate(places):
                answers_of_all = together[:3]  # without activations, of which none were asked
                alone = (None if part is None else part[row : row + 1] for part in answers_of_all)
                answers[place] = Predictions(*alone)  # pyright: ignore[reportArgumentType]
        return [answers[place] for place in range(len(inputs))]

    def finish(
        self,
        image: Image,
        coarse: FloatArray,
        answers: Predictions,
        options: ColorizeOptions = ColorizeOptions(),
    ) -> Colorized:
        """Bring predicted chroma to an image: full size, hints, exact lightness; then judge it."""
        chroma, added, found = answers.colours[0], None, None
        if options.sample != 1:
            chroma = self.distribution(coarse).sample(options.sample)
        if options.album is not None:
            chroma = drawn_to(options.album, chroma)
        if options.reference is not None:
            chroma, found = take_colours(
                flattened(image), coarse, chroma, options.reference, self._network_at_one_size
            )
        # colours follow the edges of the pixels that are painted, whatever shines through them
        guide = coarse if image.alpha is None else self._input_of(image.pixels)
        if options.hints or options.strokes is not None:
            # hints correct what is painted without them, so they are met at any saturation
            lines = chroma_lines(chroma, guide, options.saturation)
            fine = network_input(image.pixels, min(SIDE_PX, *image.pixels.shape[:2]), oversampling=1)
            added = corrections(image.pixels, fine, lines, options.hints, options.strokes)
        pixels, painted = paint(image.pixels, chroma, guide, saturation=options.saturation, added=added)
        uncertainty = self._uncertainty(image, coarse) if options.uncertainty else None
        coloured = Image(pixels, image.alpha, image.origin._replace(computed_by=self._computed_by))
        judgement = self.judge(image, answers, options, painted)
        if found is not None:
            judgement = judgement.with_reference(found)
        return Colorized(coloured, judgement, uncertainty, self.fast)

    def judge(
        self, image: Image, answers: Predictions, options: ColorizeOptions, painted: PaintStats | None = None
    ) -> Judgement:
        """Class, novelty and warnings of an image, and of its colours where it was painted."""
        return judge_image(
            self.network.description,
            None if answers.probabilities is None else answers.probabilities[0],
            None if answers.novelty is None else float(answers.novelty[0]),
            painted,
            image.origin.notes,
            options.unknown_below,
            options.saturation,
        )

    def distribution(self, coarse: FloatArray) -> ColourDistribution:
        """What a head of 313 colours says of L* (h, w), see `network_input`; a `ConfigError` without such a head."""
        return ColourDistribution.of(self.network, coarse)

    def _uncertainty(self, image: Image, coarse: FloatArray) -> FloatArray:
        if COLOUR_LOGITS in self.network.activation_names:
            return self.distribution(coarse).uncertainty()
        return spread_over_views(
            lambda lightness: self.network.predict(lightness).colours,
            lambda scale: self.network_input(image, scale),
        )


_RANGES = {
    "saturation": (0, MOST_SATURATION, f"0 (gray) to {MOST_SATURATION}, and 1 leaves colours as they are"),
    "unknown_below": (0, 1, "a probability from 0 to 1"),
}


def _require_ranges(options: ColorizeOptions) -> None:
    for name, (low, high, wanted) in _RANGES.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise ConfigError(f"`{name}` should be {wanted}. Found `{name} = {value:g}`.")
    album = options.album
    if album is not None and not all(abs(each) <= MOST_CHROMA for each in album):
        raise ConfigError(
            f"`album` should have a and b within -{MOST_CHROMA:,} to {MOST_CHROMA:,}. Found `album = {album}`."
        )


def _image(source: Image | str | Path | bytes, name: str | None = None) -> Image:
    if not isinstance(source, Image):
        return read_image(source, name=name)
    require_image(source)
    return source


@checked_arguments
def write_colorized(original: Image, coloured: Image, target: str | Path) -> list[str]:
    """Write a coloured image, or it and its original as layers, whole or not at all; what could not be held.

    The suffix `.ora` means OpenRaster layers, the gray photo below its colours; others are as for `write_image`.

    Raises:
        ConfigError: nothing is written by that suffix, or the image is too long for it.
        RunError: the file cannot be written.
    """
    target = Path(target)
    data, notes = encode_colorized(original, coloured, target.suffix)
    with replacing(target, "wb") as file:
        file.write(data)
    return notes


def encode_colorized(original: Image, coloured: Image, suffix: str) -> tuple[bytes, list[str]]:
    """The bytes of what `write_colorized` writes, and what they could not hold."""
    if suffix.lower() != OPENRASTER:
        return encode_with_notes(coloured, suffix)
    return encode_layers(original._replace(pixels=_grayscale(original.pixels)), coloured)


def _grayscale(pixels: Pixels) -> Pixels:
    """Gray of the same lightness; gray pixels as they are, code by code."""
    if (pixels == pixels[..., :1]).all():
        return pixels
    no_chroma = np.zeros((1, 1, 2), np.float32)
    return paint(pixels, no_chroma, no_chroma[..., 0])[0]


def spread_over_views(
    predict: Callable[[FloatArray], FloatArray], input_at: Callable[[float], FloatArray]
) -> FloatArray:
    """Standard deviation of a*b* over views of one image, sqrt(var a* + var b*) (h, w) at scale 1, CIELAB units.

    The views are the image at 1, 1.5 and 2 times the network's size, L* (h, w) by `input_at`, each as it is and
    mirrored, L* (B, h, w) to a*b* (B, h, w, 2) by `predict`. What the network is sure of does not depend on them;
    test-time augmentation (Wang et al. 2019) takes their spread as the uncertainty.
    """
    shape = input_at(1.0).shape
    views = []
    for scale in SCALES:
        lightness = input_at(scale)
        upright, mirrored = predict(np.stack([lightness, lightness[:, ::-1]]))  # one shape: one batch
        views += [enlarge(view, *shape) for view in (upright, mirrored[:, ::-1])]
    return np.sqrt(np.var(np.stack(views), axis=0).sum(-1)).astype(np.float32)
