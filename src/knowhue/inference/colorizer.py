"""Colours and a calibrated class for a picture of any size, in one call."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from knowhue.errors import ConfigError
from knowhue.inference.files.media import read_picture
from knowhue.inference.files.picture import Picture
from knowhue.inference.glimpse import glimpse
from knowhue.inference.hints import Hint, corrections
from knowhue.inference.judgement import Judgement, judge
from knowhue.inference.networks.network import Answers, FloatArray, Network
from knowhue.inference.networks.opening import BUILT_IN, open_network
from knowhue.inference.pixels import Reach, paint
from knowhue.inference.uncertainty import spread_over_views
from knowhue.inference.upsampling import chroma_lines


class Wishes(NamedTuple):
    """What a user may ask of a colouring.

    Attributes:
        hints: points with a colour, which stays as it is at any saturation.
        saturation: what the predicted chroma is multiplied by, 0 and up.
        uncertainty: whether to say where the colours are unsure; six more looks at the picture.
        unknown_below: probability below which the class is `unknown`; None leaves it to the model.
    """

    hints: Sequence[Hint] = ()
    saturation: float = 1.0
    uncertainty: bool = False
    unknown_below: float | None = None


class Colorized(NamedTuple):
    """A coloured picture, and what is to be said of it.

    Attributes:
        picture: with the lightness, depth, transparency and metadata of the original.
        judgement: class, colourfulness, warnings.
        uncertainty: standard deviation of a*b* over views (h, w), CIELAB units, at the network's size; None unless
            asked for.
    """

    picture: Picture
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

    def colorize(self, source: Picture | Path | bytes, wishes: Wishes = Wishes()) -> Colorized:  # noqa: B008
        """Colour and classify a picture.

        Args:
            source: a picture, its file, or the bytes of one.
            wishes: hints, saturation, uncertainty.

        Raises:
            PictureError: the file cannot be read as a picture.
            ConfigError: the model has no colour head.
        """
        self.require("colour")
        picture = source if isinstance(source, Picture) else read_picture(source)
        seen = self.look(picture)
        return self.finish(picture, seen, self.predict([seen])[0], wishes)

    def classify(self, source: Picture | Path | bytes, unknown_below: float | None = None) -> Judgement:
        """Classify a picture without colouring it.

        Raises:
            PictureError: the file cannot be read as a picture.
            ConfigError: the model has no class head.
        """
        self.require("class")
        picture = source if isinstance(source, Picture) else read_picture(source)
        answer = self.predict([self.look(picture)])[0]
        return self._judge(answer, picture, None, Wishes(unknown_below=unknown_below))

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

    def look(self, picture: Picture, scale: float = 1.0) -> FloatArray:
        """L* (h, w) of a picture at the network's size, or at `scale` times it."""
        return glimpse(picture.pixels, round(scale * self.network.description.size_px))

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
        picture: Picture,
        seen: FloatArray,
        answer: Answers,
        wishes: Wishes = Wishes(),  # noqa: B008
    ) -> Colorized:
        """Bring predicted chroma to the picture: full size, hints, exact lightness; then judge."""
        assert answer.chroma is not None  # `require` is called first
        chroma, added = answer.chroma[0], None
        if wishes.hints:
            lines = chroma_lines(chroma, seen, "guided", wishes.saturation)
            added = corrections(picture.pixels, lines, wishes.hints)
        pixels, reach = paint(picture.pixels, chroma, seen, saturation=wishes.saturation, added=added)
        judgement = self._judge(answer, picture, reach, wishes)
        uncertainty = self._uncertainty(picture) if wishes.uncertainty else None
        return Colorized(picture._replace(pixels=pixels), judgement, uncertainty)

    def _judge(self, answer: Answers, picture: Picture, reach: Reach | None, wishes: Wishes) -> Judgement:
        return judge(
            self.network.description,
            None if answer.probabilities is None else answer.probabilities[0],
            float(answer.novelty[0]),
            reach,
            picture.origin.notes,
            wishes.unknown_below,
            wishes.saturation,
        )

    def _uncertainty(self, picture: Picture) -> FloatArray:
        def chroma(lightness: FloatArray) -> FloatArray:
            found = self.network.predict(lightness).chroma
            assert found is not None
            return found

        return spread_over_views(chroma, lambda scale: self.look(picture, scale))
