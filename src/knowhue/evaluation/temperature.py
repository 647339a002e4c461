"""One number that makes class probabilities mean what they say (Guo et al. 2017, section 4.2)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from knowhue.evaluation.calibration import calibration_error

FOLDS = 5
BOUNDS = (-3.0, 3.0)  # of the logarithm: 1/20 to 20


def fit_temperature(logits: NDArray[np.floating], label: NDArray[np.integer]) -> float:
    """The temperature T > 0 that makes softmax(logits / T) give the labels the greatest likelihood.

    Args:
        logits: (images, classes).
        label: (images,), class indices.

    >>> fit_temperature(np.log([[0.9, 0.1]] * 9 + [[0.9, 0.1]]), np.array([0] * 9 + [1])).__round__(2)
    1.0
    """

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(label)), label].mean())

    found: Any = minimize_scalar(loss, bounds=BOUNDS, method="bounded")
    return float(np.exp(found.x))


def judge_temperature(logits: NDArray[np.floating], label: NDArray[np.integer]) -> tuple[float, float]:
    """Expected calibration error without and with a temperature, both on images that it was not fitted on.

    Each fifth of the images, every fifth one, is judged with the temperature fitted on the other four.
    """
    fold = np.arange(len(label)) % FOLDS
    fitted = np.empty(len(label))
    for number in range(FOLDS):
        inside, others = fold == number, fold != number
        fitted[inside] = fit_temperature(logits[others], label[others])
    return _error(logits, label), _error(logits / fitted[:, None], label)


def _error(logits: NDArray[np.floating], label: NDArray[np.integer]) -> float:
    probability = np.exp(log_softmax(logits, axis=1))
    named = probability.argmax(1)
    rows = [
        {"probability": float(row[k]), "correct": int(k == y)}
        for row, k, y in zip(probability, named, label, strict=True)
    ]
    return calibration_error(rows)
