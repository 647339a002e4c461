"""Is an image recognised from its colours? A linear probe on true-colour images, asked about colourings."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from knowhue.evaluation.features import Features
from knowhue.storage import read_arrays, replacing

Labels = NDArray[np.int64]
_LEVEL = 1e-4
PENALTY = 100.0
"""Of 0.1 to 10,000, what recognised true images best in five-fold cross-validation of the training part alone."""


class Probe(NamedTuple):
    """Multinomial logistic regression on standardised features.

    Attributes:
        mean: of the training features, (D,).
        deviation: the same, (D,), 1 where a feature never varies.
        weight: (D, classes).
        bias: (classes,).
    """

    mean: Features
    deviation: Features
    weight: Features
    bias: Features

    def predict(self, features: Features) -> Labels:
        """(N, D) to the most probable class of each, (N,)."""
        return (((features - self.mean) / self.deviation) @ self.weight + self.bias).argmax(1)

    def save(self, path: Path) -> None:
        """Keep it as arrays by name."""
        with replacing(path, "wb") as file:
            np.savez(file, **self._asdict())

    @classmethod
    def load(cls, path: Path) -> "Probe":
        """Read what `save` kept.

        Raises:
            DamagedError: it is not as it was written.
        """
        found = read_arrays(path)
        return cls(*(found[name] for name in cls._fields))


def fit_probe(features: Features, labels: Labels, classes: int, penalty: float = PENALTY) -> Probe:
    """Fit by L-BFGS in float64, to convergence, as Kornblith, Shlens and Le (CVPR 2019) compare networks by.

    The loss is the mean cross-entropy plus `penalty |weight|^2 / (2 N)`: the usual one of C = 1 / penalty. Features
    are standardised first, so that it presses on all alike. It is convex, so there is one answer.

    Args:
        features: (N, D), of true-colour images.
        labels: (N,), 0 to classes - 1, or -1 where unknown, which are left out.
        classes: each needs an image.
        penalty: above 0.

    Raises:
        ValueError: a class without any labelled image.
    """
    known = labels >= 0
    x, y = np.asarray(features[known], np.float64), labels[known]
    missing = sorted({*range(classes)} - {*y.tolist()})
    if missing:
        raise ValueError(
            f"`labels` should hold every class from 0 to {classes - 1}. Found none of {missing}."
        )
    mean, deviation = x.mean(0), x.std(0)
    deviation[deviation <= 1e-12 * np.abs(mean)] = 1.0  # constant, but for rounding
    x = np.hstack(((x - mean) / deviation, np.ones((len(x), 1))))
    truth = np.eye(classes)[y]

    def loss(flat: Features) -> tuple[float, Features]:
        return penalised_entropy(flat.reshape(x.shape[1], classes), x, truth, penalty)

    start = np.zeros(x.shape[1] * classes)
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "gtol": 1e-7, "ftol": 0}
    )
    if np.abs(found.jac).max() > _LEVEL:
        raise ValueError(
            f"The probe should have come to rest. Found a slope of {np.abs(found.jac).max():.1e}."
        )
    solved = found.x.reshape(x.shape[1], classes)
    return Probe(mean, deviation, solved[:-1], solved[-1])


def penalised_entropy(
    solved: Features, x: Features, truth: Features, penalty: float
) -> tuple[float, Features]:
    """What `fit_probe` minimises, and its gradient, flat.

    Args:
        solved: (D + 1, classes), the biases last; they are not penalised.
        x: (N, D + 1), the last column ones.
        truth: (N, classes), one-hot.
        penalty: of the weights.
    """
    scores, weight = x @ solved, np.vstack((solved[:-1], np.zeros((1, solved.shape[1]))))
    value = -(truth * log_softmax(scores, axis=1)).sum() + penalty * (weight**2).sum() / 2
    gradient = x.T @ (softmax(scores, axis=1) - truth) + penalty * weight
    return float(value / len(x)), gradient.ravel() / len(x)


def recognised(probe: Probe, features: Features, labels: Labels) -> dict[str, Any]:
    """How often the probe gives a colouring its image's class: "semantic interpretability".

    So Zhang, Isola and Efros (ECCV 2016, section 3.2) ask whether colours make sense, with a VGG network on all of
    ImageNet; here a classifier of the study's own classes that has never seen a colouring.

    Args:
        probe: fitted to true-colour images.
        features: (N, D), of the colourings.
        labels: (N,), -1 where unknown, which do not count.

    Returns:
        `accuracy` and `balanced_accuracy`, 0 to 1 or None without labels, over `labelled` images.
    """
    known = labels >= 0
    if not known.any():
        return {"accuracy": None, "balanced_accuracy": None, "labelled": 0}
    truth = labels[known]
    right = probe.predict(features[known]) == truth
    each = [right[truth == label].mean() for label in np.unique(truth)]
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean(each)),
        "labelled": int(known.sum()),
    }
