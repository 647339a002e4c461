"""Whether class probabilities mean what they say: 15 bins, their mean gap, and a temperature that mends it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BINS = 15
DECIMALS = 5
"""Of a probability as it is written: the bins are those of the written ones, so that anybody finds the same again."""
TARGET_ACCURACY = 0.85
"""Share of the named classes that are to be right."""
FEWEST_FOR_TARGET = 100
"""Labelled images from which that share can be told."""
_FOLDS = 5
_BOUNDS = (-3.0, 3.0)  # of the logarithm of the temperature: 1/20 to 20


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


def calibration_bins(rows: Sequence[Mapping[str, Any]]) -> list[Bin]:
    """Sort labelled images, whose `correct` is not None, by `probability` into bins, as Guo et al. 2017 do.

    >>> calibration_bins([{"probability": 0.9, "correct": 1}])[13].images
    1
    """
    labelled = [row for row in rows if row["correct"] is not None]
    return _bins(*(np.array([row[name] for row in labelled], float) for name in ("probability", "correct")))


def _bins(probability: NDArray[np.floating], correct: NDArray[np.generic]) -> list[Bin]:
    edges = np.linspace(0, 1, BINS + 1)
    probability = probability.round(DECIMALS)
    # an edge belongs to the bin below it, and 0 to the first
    place = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, BINS - 1)
    rounded, bins = edges.round(6).tolist(), []
    for number in range(BINS):
        inside = place == number
        means = (float(each[inside].mean()) if inside.any() else None for each in (probability, correct))
        bins.append(Bin(rounded[number], rounded[number + 1], int(inside.sum()), *means))
    return bins


def calibration_error(rows: Sequence[Mapping[str, Any]]) -> float:
    """Expected calibration error, 0 to 1 (Guo et al. 2017, equation 3); NaN without a labelled image."""
    return _mean_gap(calibration_bins(rows))


def _mean_gap(bins: Sequence[Bin]) -> float:
    """Between probability and accuracy of the bins, by images."""
    total = sum(each.images for each in bins)
    gaps = sum(each.images * abs((each.confidence or 0.0) - (each.accuracy or 0.0)) for each in bins)
    return gaps / total if total else float("nan")


def fit_temperature(logits: NDArray[np.floating], label: NDArray[np.integer]) -> float:
    """The temperature T > 0 that makes softmax(logits / T) give the labels the greatest likelihood.

    Guo et al. 2017, section 4.2. `logits` are (images, classes), `label` (images,).

    >>> fit_temperature(np.log([[0.9, 0.1]] * 9 + [[0.9, 0.1]]), np.array([0] * 9 + [1])).__round__(2)
    1.0
    """

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(label)), label].mean())

    # over the logarithm T stays positive, and 1/2 is as far from 1 as 2 is
    found: Any = minimize_scalar(loss, bounds=_BOUNDS, method="bounded")
    return float(np.exp(found.x))


def fit_unknown_below(
    probability: NDArray[np.floating], correct: NDArray[np.bool_], least: float = 0.5
) -> float:
    """The probability from which on a class may be named: of those that reach it, `TARGET_ACCURACY` are right.

    Selective classification by the greatest probability (Geifman and El-Yaniv 2017), as many images as can be named.
    Below `least` none is named however right it was; it is also the answer for too few images to tell. The answer is 1
    where no probability is high enough.

    >>> round(fit_unknown_below(np.linspace(0.3, 1, 200), np.arange(200) >= 120), 2)
    0.67
    """
    if len(probability) < FEWEST_FOR_TARGET:
        return least
    order = np.argsort(-probability, kind="stable")
    right = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    # the last of equal probabilities stands for all of them
    is_last = np.append(np.diff(probability[order]) < 0, True)
    reached = np.flatnonzero((right >= TARGET_ACCURACY) & is_last)
    return max(least, float(probability[order[reached[-1]]])) if len(reached) else 1.0


def judge_temperature(logits: NDArray[np.floating], label: NDArray[np.integer]) -> tuple[float, float]:
    """Expected calibration error without and with a temperature, both on images that it was not fitted on.

    Each fifth of the images, every fifth one, is judged with the temperature fitted on the other four.
    """
    # not in blocks: sources list their images class by class
    fold = np.arange(len(label)) % _FOLDS
    fitted = np.empty(len(label))
    for number in range(_FOLDS):
        inside, others = fold == number, fold != number
        fitted[inside] = fit_temperature(logits[others], label[others])
    return _error(logits, label), _error(logits / fitted[:, None], label)


def _error(logits: NDArray[np.floating], label: NDArray[np.integer]) -> float:
    probability = np.exp(log_softmax(logits, axis=1))
    return _mean_gap(_bins(probability.max(1), probability.argmax(1) == label))
