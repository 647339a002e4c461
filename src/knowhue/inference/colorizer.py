"""Colours and a calibrated class for an image of any size, in one call."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from knowhue.errors import ConfigError
from knowhue.images.image import Image
from knowhue.images.reading import read_image
from knowhue.inference.glimpse import glimpse
from knowhue.inference.hints import Hint, corrections
from knowhue.inference.judgement import Judgement, judge
from knowhue.inference.networks import BUILT_IN, Answers, FloatArray, Network, open_network
from knowhue.inference.pixels import PaintStats, paint
from knowhue.inference.uncertainty import spread_over_views
from knowhue.inference.upsampling import chroma_lines


class ColorizeOptions(NamedTuple):
    """What a user may ask of a colouring.

    Attributes:
        hints: points with a colour, which stays as it is at any saturation.
        saturation: what the predicted chroma is multiplied by, 0 and up.
        uncertainty: whether to say where the colours are unsure; six more looks at the image.
        unknown_below: probability below which the class is `unknown`; None leaves it to the model.
    """

    hints: Sequence[Hint] = ()
    saturation: float = 1.0
    uncertainty: bool = False
    unknown_below: float | None = None


class Colorized(NamedTuple):
    """A coloured image, and what is to be said of it.

    Attributes:
        image: with the lightness, depth, transparency and metadata of the original.
        judgement: class, colourfulness, warnings.
        uncertainty: standard deviation of a*b* over views (h, w), CIELAB units, at the network's size; None unless
            asked for.
    """

    image: Image
    judgement: Judgement
    uncertainty: FloatArray | None = None


class Colorizer:
    """A model that is ready to colour and to classify. Threads may share one.

    >>> colorizer = Colorizer.load()
    >>> colorizer.network.description.name
    'built-in'
    """

    def __init__(self, network: Network) -> None:
        self.network = network

    @classmethod
    def load(cls, source: str | Path = BUILT_IN) -> "Colorizer":
        """Open a model: `built-in`, an exported file, a folder for the hub, or a run folder exported once.

        Raises:
            WeightsError: there is none, or it cannot be read.
        """
        return cls(open_network(source))

    def colorize(
        self,
        source: Image | Path | bytes,
        options: ColorizeOptions = ColorizeOptions(),  # noqa: B008
    ) -> Colorized:
        """Colour and classify an image.

        Args:
            source: an image, its file, or the bytes of one.
            options: hints, saturation, uncertainty.

        Raises:
            ImageError: the file cannot be read as an image.
            ConfigError: the model has no colour head.
        """
        self.require("colour")
        image = source if isinstance(source, Image) else read_image(source)
        seen = self.look(image)
        return self.finish(image, seen, self.predict([seen])[0], options)

    def classify(self, source: Image | Path | bytes, unknown_below: float | None = None) -> Judgement:
        """Classify an image without colouring it.

        Raises:
            ImageError: the file cannot be read as an image.
            ConfigError: the model has no class head.
        """
        self.require("class")
        image = source if isinstance(source, Image) else read_image(source)
        answer = self.predict([self.look(image)])[0]
        return self._judge(answer, image, None, ColorizeOptions(unknown_below=unknown_below))

    def require(self, task: str) -> None:
        """Make sure, before work, that the model can do a task.

        Raises:
            ConfigError: it has no head for it.
        """
        description = self.network.description
        if task not in description.tasks:
            raise ConfigError(
                f"`model` should have a {task} head. Found `{description.name}`, trained for "
                f"{' and '.join(description.tasks)} alone; a run of the arm `multi` has both."
            )

    def look(self, image: Image, scale: float = 1.0) -> FloatArray:
        """L* (h, w) of an image at the network's size, or at `scale` times it."""
        return glimpse(image.pixels, round(scale * self.network.description.size_px))

    def predict(self, seen: Sequence[FloatArray]) -> list[Answers]:
        """Answer for several glimpses, those of one shape together; the answers have B = 1."""
        answers: dict[int, Answers] = {}
        for shape in {each.shape for each in seen}:
            places = [place for place, each in enumerate(seen) if each.shape == shape]
            together = self.network.predict(np.stack([seen[place] for place in places]))
            for row, place in enumerate(places):
                alone = (None if part is None else part[row : row + 1] for part in together)
                answers[place] = Answers(*alone)  # pyright: ignore[reportArgumentType]
        return [answers[place] for place in range(len(seen))]

    def finish(
        self,
        image: Image,
        seen: FloatArray,
        answer: Answers,
        options: ColorizeOptions = ColorizeOptions(),  # noqa: B008
    ) -> Colorized:
        """Bring predicted chroma to the image: full size, hints, exact lightness; then judge."""
        assert answer.chroma is not None  # `require` is called first
        chroma, added = answer.chroma[0], None
        if options.hints:
            lines = chroma_lines(chroma, seen, "guided", options.saturation)
            added = corrections(image.pixels, lines, options.hints)
        pixels, painted = paint(image.pixels, chroma, seen, saturation=options.saturation, added=added)
        judgement = self._judge(answer, image, painted, options)
        uncertainty = self._uncertainty(image) if options.uncertainty else None
        return Colorized(image._replace(pixels=pixels), judgement, uncertainty)

    def _judge(
        self, answer: Answers, image: Image, painted: PaintStats | None, options: ColorizeOptions
    ) -> Judgement:
        return judge(
            self.network.description,
            None if answer.probabilities is None else answer.probabilities[0],
            float(answer.novelty[0]),
            painted,
            image.origin.notes,
            options.unknown_below,
            options.saturation,
        )

    def _uncertainty(self, image: Image) -> FloatArray:
        def chroma(lightness: FloatArray) -> FloatArray:
            found = self.network.predict(lightness).chroma
            assert found is not None
            return found

        return spread_over_views(chroma, lambda scale: self.look(image, scale))
