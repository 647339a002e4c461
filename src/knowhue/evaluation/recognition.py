"""Is an image recognised from its colours? A linear probe fitted to true-colour images, applied to colourings."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.evaluation.features import Features
from knowhue.storage import read_arrays, write_arrays

Labels = NDArray[np.int64]
PENALTY = 100.0
"""Of 0.1 to 10,000, what recognised true images best in five-fold cross-validation of the training split alone."""


class Probe(NamedTuple):
    """Multinomial logistic regression on standardised features.

    `mean` and `deviation` of the training features, (D,), 1 where one never varies; `weight` (D, classes), `bias`
    (classes,).
    """

    mean: Features
    deviation: Features
    weight: Features
    bias: Features

    def predict(self, features: Features) -> Labels:
        """(N, D) to the most probable class of each, (N,)."""
        return (((features - self.mean) / self.deviation) @ self.weight + self.bias).argmax(1)

    def save(self, path: Path) -> None:
        # scikit-learn's own object would be pickled, and a pickle may run code
        write_arrays(path, self._asdict())

    @classmethod
    def load(cls, path: Path) -> "Probe":
        """Read what `save` kept.

        Raises:
            DamagedError: it is not as it was written.
        """
        found = read_arrays(path)
        return cls(*(found[name] for name in cls._fields))


def fit_probe(features: Features, labels: Labels, classes: int, penalty: float = PENALTY) -> Probe:
    """Fit in float64, to convergence, as Kornblith, Shlens and Le (CVPR 2019) compare networks; by scikit-learn.

    The loss is the mean cross-entropy plus `penalty |weight|^2 / (2 N)`: the usual one of C = 1 / penalty. Features
    are standardised first. It is convex, so there is one answer.

    Args:
        features: (N, D), of true-colour images.
        labels: (N,), 0 to classes - 1, or -1 where unknown, which are left out.
        classes: 2 or more; each needs an image.
        penalty: above 0.

    Raises:
        ValueError: a class without any labelled image.
    """
    from sklearn.linear_model import LogisticRegression  # a second to import
    from sklearn.preprocessing import StandardScaler

    known = labels >= 0
    x, y = np.asarray(features[known], np.float64), labels[known]
    missing = sorted({*range(classes)} - {*y.tolist()})
    if missing:
        raise ValueError(
            f"`labels` should hold every class from 0 to {classes - 1}. Found none of {missing}."
        )
    # so that the penalty presses on all features alike
    scaler = StandardScaler().fit(x)
    # of two classes scikit-learn fits the difference of their weights, whose square is twice the sum of theirs
    strength = (2 if classes == 2 else 1) / penalty
    fitted = LogisticRegression(C=strength, tol=1e-7, max_iter=2000).fit(scaler.transform(x), y)
    weight, bias = fitted.coef_.T, fitted.intercept_
    if classes == 2:
        weight, bias = np.hstack((-weight, weight)) / 2, np.hstack((-bias, bias)) / 2
    return Probe(np.asarray(scaler.mean_), np.asarray(scaler.scale_), weight, bias)


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
    truth = labels[labels >= 0]
    if not len(truth):
        return {"accuracy": None, "balanced_accuracy": None, "labelled": 0}
    right = probe.predict(features[labels >= 0]) == truth
    each = [right[truth == label].mean() for label in np.unique(truth)]
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean(each)),
        "labelled": len(truth),
    }
