"""What every way of running a model offers, whatever runs it: arrays in, arrays out, checked."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from knowhue.description import Description
from knowhue.errors import WeightsError

FloatArray = NDArray[np.float32]
LARGEST_CHROMA = 10_000.0
"""CIELAB units; sRGB holds up to 134, and what is far beyond cannot be computed with."""


class Answers(NamedTuple):
    """What a network says of B images; None for a head that it lacks.

    Attributes:
        chroma: a*b* (B, h, w, 2), CIELAB units.
        probabilities: (B, classes), calibrated, of `description.classes`.
        novelty: (B,), distance from the training images; 1 is the limit of the usual.
    """

    chroma: FloatArray | None
    probabilities: FloatArray | None
    novelty: FloatArray


class Network(Protocol):
    """A model that is ready to predict; safe to call from several threads."""

    description: Description
    runtime: str

    def predict(self, lightness: FloatArray) -> Answers:
        """Answer for L* (B, h, w), 0 to 100; any h and w.

        Raises:
            WeightsError: the model answers what none should, see `checked`.
        """
        ...


def checked(answers: Answers, description: Description, lightness: FloatArray) -> Answers:
    """The same answers, if each is there, of its shape and within its range: weights may be anybody's, or diverged.

    Raises:
        WeightsError: one is not.
    """
    count, height, width = lightness.shape
    shapes: dict[str, tuple[int, ...]] = {"novelty": (count,)}
    if "colour" in description.tasks:
        shapes["chroma"] = (count, height, width, 2)
    if "class" in description.tasks:
        shapes["probabilities"] = (count, len(description.classes))
    for name, values in answers._asdict().items():
        _check_shape(name, values, shapes)
    limits = {
        "novelty": (-np.inf, np.inf),
        "chroma": (-LARGEST_CHROMA, LARGEST_CHROMA),
        "probabilities": (-0.01, 1.01),
    }
    for name in shapes:
        _check_range(name, getattr(answers, name), *limits[name])
    return answers


def _check_shape(name: str, values: FloatArray | None, shapes: Mapping[str, tuple[int, ...]]) -> None:
    found = None if values is None else values.shape
    if found != shapes.get(name):
        raise WeightsError(
            f"The model should answer `{name}` of shape {shapes.get(name)} as its description says. Found shape "
            f"{found}. Export its run again, or use another model."
        )


def _check_range(name: str, values: FloatArray, low: float, high: float) -> None:
    if not np.isfinite(values).all() or values.min(initial=0) < low or values.max(initial=0) > high:
        wrong = values[~(np.isfinite(values) & (values >= low) & (values <= high))]
        raise WeightsError(
            f"The model should answer `{name}` with finite numbers{_within(low, high)}. Found {wrong.flat[0]:g}. Its "
            "training may have diverged; train its run again, or use another model."
        )


def _within(low: float, high: float) -> str:
    return f" of {round(low):g} to {round(high):g}" if np.isfinite(low) else ""
