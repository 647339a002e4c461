"""What is said of one colouring: its class, how colourful it is, and what a user should know before trusting it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from knowhue.description import Description
from knowhue.inference.networks.network import FloatArray
from knowhue.inference.pixels import Reach

UNKNOWN = "unknown"
STILL_GRAY = 4.0
"""Mean chroma, CIELAB units, below which a picture looks gray."""
OFTEN_REDUCED = 0.25


class Judgement(NamedTuple):
    """What the model says of a picture, and what is to be said of that.

    Attributes:
        label: the most probable class, `unknown` if none is probable enough, None without a class head.
        probability: calibrated, of the most probable class.
        probabilities: of all classes, most probable first.
        novelty: distance from the training pictures; above 1 the picture is unlike them.
        chroma: mean of C*, CIELAB units.
        colourfulness: Hasler and Suesstrunk 2003, as published.
        reduced: share of pixels whose chroma was reduced to fit sRGB at their lightness.
        warnings: in words.
    """

    label: str | None
    probability: float | None
    probabilities: dict[str, float]
    novelty: float
    chroma: float | None
    colourfulness: float | None
    reduced: float | None
    warnings: tuple[str, ...]

    def as_record(self) -> dict[str, Any]:
        """Plain values with few digits, for JSON."""
        values = self._asdict() | {"warnings": list(self.warnings)}
        return {key: _rounded(value) for key, value in values.items()}


def judge(
    description: Description,
    probabilities: FloatArray | None,
    novelty: float,
    reach: Reach | None,
    notes: Sequence[str] = (),
    unknown_below: float | None = None,
) -> Judgement:
    """Put what a network and the painting found into words.

    Args:
        description: of the network.
        probabilities: (classes,), or None without a class head.
        novelty: distance from the training pictures.
        reach: what painting found; None where nothing was painted.
        notes: what reading the picture found.
        unknown_below: probability below which the class is `unknown`; the description's if None.
    """
    label = probability = None
    ranked: dict[str, float] = {}
    if probabilities is not None:
        order = np.argsort(-probabilities, kind="stable")
        ranked = {description.classes[k]: float(probabilities[k]) for k in order}
        probability = float(probabilities[order[0]])
        limit = description.unknown_below if unknown_below is None else unknown_below
        label = description.classes[order[0]] if probability >= limit else UNKNOWN
    return Judgement(
        label,
        probability,
        ranked,
        novelty,
        None if reach is None else reach.chroma,
        None if reach is None else reach.colourfulness,
        None if reach is None else reach.reduced,
        (*notes, *_doubts(novelty, reach)),
    )


def _doubts(novelty: float, reach: Reach | None) -> list[str]:
    doubts = []
    if novelty > 1:
        doubts.append(
            f"unlike the pictures that the model was trained on (distance {novelty:.1f}, usual up to 1): colours "
            "and class are guesses"
        )
    if reach is not None and reach.chroma < STILL_GRAY:
        doubts.append(f"still nearly gray (mean chroma {reach.chroma:.1f}): the model found little to colour")
    if reach is not None and reach.reduced > OFTEN_REDUCED:
        doubts.append(
            f"{reach.reduced:.0%} of the pixels were given colours that sRGB cannot show at their lightness; "
            "their chroma was reduced"
        )
    return doubts


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    return {key: _rounded(each) for key, each in value.items()} if isinstance(value, dict) else value
