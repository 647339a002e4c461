"""What every way of running a model offers, whatever runs it: arrays in, arrays out."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from knowhue.description import Description

FloatArray = NDArray[np.float32]


class Answers(NamedTuple):
    """What a network says of B pictures; None for a head that it lacks.

    Attributes:
        chroma: a*b* (B, h, w, 2), CIELAB units.
        probabilities: (B, classes), calibrated, of `description.classes`.
        novelty: (B,), distance from the training pictures; 1 is the limit of the usual.
    """

    chroma: FloatArray | None
    probabilities: FloatArray | None
    novelty: FloatArray


class Network(Protocol):
    """A model that is ready to predict; safe to call from several threads."""

    description: Description
    runtime: str

    def predict(self, lightness: FloatArray) -> Answers:
        """Answer for L* (B, h, w), 0 to 100; any h and w."""
        ...
