"""Whether a class probability means what it says: 15 bins of equal width, and their mean gap."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

BINS = 15


class Bin(NamedTuple):
    """The labelled images whose probability of the named class is in (lower, upper].

    `confidence` is the mean of that probability, `accuracy` the share that is right; both None where there
    is no image.
    """

    lower: float
    upper: float
    images: int
    confidence: float | None
    accuracy: float | None


def reliability(rows: Sequence[Mapping[str, Any]]) -> list[Bin]:
    """Sort labelled images by probability into bins, as Guo et al. 2017 do.

    Args:
        rows: with `probability` of the named class, 0 to 1, and `correct`, None for an unlabelled image.

    >>> reliability([{"probability": 0.9, "correct": 1}])[13].images
    1
    """
    labelled = [row for row in rows if row["correct"] is not None]
    probability = np.array([row["probability"] for row in labelled], float)
    correct = np.array([row["correct"] for row in labelled], float)
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, BINS - 1)
    return [
        Bin(lower, upper, int(inside.sum()), _mean(probability[inside]), _mean(correct[inside]))
        for lower, upper, inside in zip(
            edges[:-1].round(6).tolist(),
            edges[1:].round(6).tolist(),
            (place == number for number in range(BINS)),
            strict=True,
        )
    ]


def calibration_error(rows: Sequence[Mapping[str, Any]]) -> float:
    """Expected calibration error: mean gap between probability and accuracy of the bins, by images; 0 to 1.

    Guo et al. 2017, equation 3. NaN without a labelled image.
    """
    bins = [each for each in reliability(rows) if each.confidence is not None and each.accuracy is not None]
    total = sum(each.images for each in bins)
    gaps = sum(each.images * abs((each.confidence or 0.0) - (each.accuracy or 0.0)) for each in bins)
    return gaps / total if total else float("nan")


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
