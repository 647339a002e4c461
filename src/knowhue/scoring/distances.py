"""What chance leaves of the distances of sets, and of the difference of two systems': a jackknife over groups."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.evaluation.features import (
    Features,
    frechet_between,
    gaussian_of,
    kernel_diagonal,
    kernel_sum,
    triangle,
)
from knowhue.statistics.clustered import ClusteredMean
from knowhue.statistics.jackknife import jackknifed

PER_FEATURE = 2
"""Images for each feature that a Frechet distance needs for an interval: with fewer its bias is not of order 1 / N."""


class LeftOut(NamedTuple):
    """A distance of all images, and without each group of them, (G,)."""

    whole: float
    without: NDArray[np.float64]


class Truth:
    """The true images' side of every distance, made once.

    Args:
        features: (N, D).
        groups: (N,), see `deal_groups`.
    """

    def __init__(self, features: Features, groups: NDArray[np.int64]) -> None:
        self.features = features
        self.rows = [np.flatnonzero(groups == number) for number in range(groups.max() + 1)]
        self.sizes = np.array([len(each) for each in self.rows])
        triangles = self.triangles(features)
        self.gaussians = [gaussian_of(each) for each in _subsets(triangles)]
        self.sums = _group_sums(features, features, self.rows)

    def triangles(self, features: Features) -> list[NDArray[np.float64]]:
        """Of each group."""
        return [triangle(features[each]) for each in self.rows]

    def frechet(self, features: Features) -> LeftOut | None:
        """The Frechet distance; None where a group leaves fewer than `PER_FEATURE` images a feature, too few."""
        if len(features) - self.sizes.max() < PER_FEATURE * features.shape[1]:
            return None
        own = map(gaussian_of, _subsets(self.triangles(features)))
        values = [frechet_between(*two) for two in zip(own, self.gaussians, strict=True)]
        return LeftOut(values[0], np.array(values[1:]))

    def kernel(self, features: Features) -> LeftOut | None:
        """The kernel distance over pairs of different images; None where no pair would be left.

        Lemma 6 of Gretton et al. (JMLR 2012), equation 4, for x and y that come in pairs: an image and its own
        colouring are no two draws, and with them the distance is too small by about 1 / N.
        """
        if self.sizes.sum() - self.sizes.max() < 2:
            return None
        across = _group_sums(features, self.features, self.rows)
        sums = _group_sums(features, features, self.rows) + self.sums - across - across.T
        total, counts = sums.sum(), self.sizes.sum() - self.sizes
        kept = total - sums.sum(0) - sums.sum(1) + np.diag(sums)
        count = self.sizes.sum()
        return LeftOut(float(total / (count * (count - 1))), kept / (counts * (counts - 1)))


LEAVE_OUT: Mapping[str, Callable[[Truth, Features], LeftOut | None]] = {
    "fd_lite0": Truth.frechet,
    "kd_lite0": Truth.kernel,
    "fid": Truth.frechet,
    "kid": Truth.kernel,
}
"""By the distances of `features.DISTANCES`."""


def _subsets(triangles: Sequence[NDArray[np.float64]]) -> list[Sequence[NDArray[np.float64]]]:
    """All, and all but each."""
    return [triangles, *([*triangles[:number], *triangles[number + 1 :]] for number in range(len(triangles)))]


def _group_sums(x: Features, y: Features, rows: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """(G, G): the sum of the kernel over pairs of a row of one group and another row of another."""
    found = np.array([[kernel_sum(x[one], y[other]) for other in rows] for one in rows])
    diagonal = kernel_diagonal(x, y)
    return found - np.diag([diagonal[each].sum() for each in rows])


def corrected(own: LeftOut, sizes: NDArray[np.int64], reference: LeftOut | None = None) -> ClusteredMean:
    """The corrected distance, or that of a system minus the reference's, and its error."""
    if reference is None:
        return jackknifed(own.whole, own.without, sizes)
    return jackknifed(own.whole - reference.whole, own.without - reference.without, sizes)
