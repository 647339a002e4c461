"""Calibration of class probabilities: reliability bins, expected calibration error, and temperature scaling."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BINS = 15  # number of bins, equally wide, from 0 to 1
DECIMALS = 5
"""Decimals of probabilities in files; bins use the rounded values, so that they can be reproduced from the files."""
TARGET_ACCURACY = 0.85  # accuracy to be reached among the images whose class is named
FEWEST_FOR_TARGET = 100  # fewest labelled images from which this accuracy is estimated
_FOLDS = 5
_BOUNDS = (-3.0, 3.0)  # of the logarithm of the temperature: 1/20 to 20


class Bin(NamedTuple):
    """Labelled images whose probability of the predicted class is in (lower, upper].

    `confidence` is the mean of these probabilities, `accuracy` the share of correct predictions; both are None without
    images.
    """

    lower: float
    upper: float
    images: int
    confidence: float | None
    accuracy: float | None


def calibration_bins(rows: Sequence[Mapping[str, Any]]) -> list[Bin]:
    """Sort labelled images (`correct` is not None) into bins by `probability` (Guo et al. 2017).

    >>> calibration_bins([{"probability": 0.9, "correct": 1}])[13].images
    1
    """
    labelled = [row for row in rows if row["correct"] is not None]
    return _bins(*(np.array([row[name] for row in labelled], float) for name in ("probability", "correct")))


def _bins(probability: NDArray[np.floating], correct: NDArray[np.generic]) -> list[Bin]:
    edges = np.linspace(0, 1, BINS + 1)
    probability = probability.round(DECIMALS)
    # an edge belongs to the bin below it, except 0
    index = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, BINS - 1)
    rounded, bins = edges.round(6).tolist(), []
    for i in range(BINS):
        inside = index == i
        means = (float(values[inside].mean()) if inside.any() else None for values in (probability, correct))
        bins.append(Bin(rounded[i], rounded[i + 1], int(inside.sum()), *means))
    return bins


def calibration_error(rows: Sequence[Mapping[str, Any]]) -> float:
    """Expected calibration error, 0 to 1 (Guo et al. 2017, equation 3); NaN without labelled images."""
    return _mean_gap(calibration_bins(rows))


def _mean_gap(bins: Sequence[Bin]) -> float:
    """Mean over the images of the gap between their bin's confidence and accuracy."""
    total = sum(each.images for each in bins)
    gaps = sum(each.images * abs((each.confidence or 0.0) - (each.accuracy or 0.0)) for each in bins)
    return gaps / total if total else float("nan")


def fit_temperature(logits: NDArray[np.floating], label: NDArray[np.integer]) -> float:
    """Fit the temperature T > 0 that maximises the likelihood of the labels under softmax(logits / T).

    Guo et al. 2017, section 4.2. `logits` are (images, classes), `label` (images,).

    >>> fit_temperature(np.log([[0.9, 0.1]] * 9 + [[0.9, 0.1]]), np.array([0] * 9 + [1])).__round__(2)
    1.0
    """

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(label)), label].mean())

    # over the logarithm, which keeps T positive and treats T and 1 / T symmetrically
    result: Any = minimize_scalar(loss, bounds=_BOUNDS, method="bounded")
    return float(np.exp(result.x))


def fit_unknown_below(
    probability: NDArray[np.floating], correct: NDArray[np.bool_], least: float = 0.5
) -> float:
    """Fit the lowest probability at which a class is named: images that reach it have accuracy `TARGET_ACCURACY`.

    Selective classification by the highest probability (Geifman and El-Yaniv 2017) with the largest coverage. `least`
    is the lower limit of the result, and the result for fewer than `FEWEST_FOR_TARGET` images; the result is 1 if no
    threshold reaches the accuracy.

    >>> round(fit_unknown_below(np.linspace(0.3, 1, 200), np.arange(200) >= 120), 2)
    0.67
    """
    if len(probability) < FEWEST_FOR_TARGET:
        return least
    order = np.argsort(-probability, kind="stable")
    accuracy = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    # a threshold includes all images of equal probability, so only the last of them is a candidate
    is_last = np.append(np.diff(probability[order]) < 0, True)
    reached = np.flatnonzero((accuracy >= TARGET_ACCURACY) & is_last)
    return max(least, float(probability[order[reached[-1]]])) if len(reached) else 1.0


def judge_temperature(logits: NDArray[np.floating], label: NDArray[np.integer]) -> tuple[float, float]:
    """Expected calibration errors without and with a temperature, by five-fold cross-validation."""
    # interleaved folds, because sources list images class by class
    fold = np.arange(len(label)) % _FOLDS
    temperature = np.empty(len(label))
    for i in range(_FOLDS):
        held_out = fold == i
        temperature[held_out] = fit_temperature(logits[~held_out], label[~held_out])
    return _error(logits, label), _error(logits / temperature[:, None], label)


def _error(logits: NDArray[np.floating], label: NDArray[np.integer]) -> float:
    probability = np.exp(log_softmax(logits, axis=1))
    return _mean_gap(_bins(probability.max(1), probability.argmax(1) == label))
