"""The mean over clustered images, such as those of one folder: its interval, its p and what it says of two systems."""

from collections import Counter
from collections.abc import Hashable, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from knowhue.statistics import FEWEST_IMAGES
from knowhue.statistics.crossed import variance_of_two_more
from knowhue.statistics.paired import Interval
from knowhue.statistics.verdicts import beside_margin


class ClusteredMean(NamedTuple):
    """A mean and its uncertainty."""

    estimate: float
    """unweighted mean over all values"""
    error: float
    """its standard error; infinite where there are too few values or clusters"""
    freedom: int

    def interval(self, level: float) -> Interval | None:
        """Return Student's t interval; None where the error is infinite."""
        if not np.isfinite(self.error):
            return None
        half = float(special.stdtrit(self.freedom, (1 + level) / 2)) * self.error
        return self.estimate - half, self.estimate + half

    @property
    def p(self) -> float:
        """Two-sided p of a mean of 0."""
        if self.estimate == 0 or not np.isfinite(self.error):
            return 1.0
        if self.error == 0:
            return 0.0
        return float(2 * special.stdtr(self.freedom, -abs(self.estimate) / self.error))


def clustered_mean(
    values: ArrayLike, clusters: Sequence[Hashable] = (), binary: bool = False
) -> ClusteredMean:
    """Return the mean of values whose errors may be correlated within clusters but not between them.

    The variance is that of Liang and Zeger (1986) with the factor G / (G - 1) for G clusters, with G - 1 degrees of
    freedom (Cameron and Miller 2015); it is unreliable with fewer than about ten clusters. Without clusters each value
    is its own cluster, which gives Student's t interval. The error is infinite with fewer than `FEWEST_IMAGES` values,
    or with one cluster.

    Args:
        values: (N,), finite, one per image.
        clusters: (N,), the cluster of each value; empty if the values are independent.
        binary: whether the values are differences of answers that are right or wrong; the variance then counts two
            more changing images, see `crossed.variance_of_two_more`.

    >>> [round(end, 3) for end in clustered_mean([1.0, 3.0] * 10).interval(0.95)]
    [1.52, 2.48]
    >>> clustered_mean([1.0, 3.0] * 10, ["a", "b"] * 10).freedom
    1
    >>> clustered_mean([-1.0, -1.0001]).interval(0.95)
    >>> [round(end, 3) for end in clustered_mean([0.0] * 20, binary=True).interval(0.95)]
    [-0.148, 0.148]
    """
    x = np.asarray(values, float)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all() or len(clusters) not in (0, len(x)):
        raise ValueError(
            f"`values` should be finite, of shape (N,), with as many `clusters` or none. Found `values.shape = "
            f"{x.shape}, len(clusters) = {len(clusters)}`."
        )
    centre = float(x.mean())
    off, change = x - centre, x
    if len(clusters):
        numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
        members = [numbers[name] for name in clusters]
        off, change = (np.bincount(members, weights=each) for each in (off, change))
    count = len(off)
    if count < 2 or len(x) < FEWEST_IMAGES:
        return ClusteredMean(centre, float("inf"), 0)
    if np.ptp(x) == 0:  # a rounding error of the mean is not spread
        centre, off = float(x[0]), np.zeros(count)
    variance = float((off**2).sum()) * count / (count - 1) / len(x) ** 2
    if binary:
        variance += variance_of_two_more(float(np.abs(change).max()), len(x))
    return ClusteredMean(centre, variance**0.5, count - 1)


class Nearness(StrEnum):
    """The possible results of comparing two systems by one measure."""

    UNKNOWN = "too few images to tell"
    NEARER = "nearer"
    FARTHER = "farther"
    NEARER_LITTLE = "nearer, by less than what matters"
    FARTHER_LITTLE = "farther, by less than what matters"
    AS_NEAR = "as near"
    CANNOT_TELL = "cannot tell"


def judge_nearness(
    mean: ClusteredMean, margin: float, alpha: float, questions: int, lower_is_better: bool
) -> Nearness:
    """Judge the mean difference between two systems.

    Each question has the level alpha / questions for both kinds of claims. A system is nearer if p is at most that
    level; both are as near if the interval at 1 - 2 alpha / questions lies within the margin, the smallest difference
    that matters (two one-sided tests).

    >>> judge_nearness(ClusteredMean(-0.5, 0.1, 99), 0.25, 0.05, 1, lower_is_better=True).value
    'nearer'
    """
    inner = mean.interval(1 - 2 * alpha / questions)
    if inner is None:
        return Nearness.UNKNOWN
    is_small = beside_margin(max(map(abs, inner)), margin) < 0
    if mean.p <= alpha / questions:
        if (mean.estimate < 0) == lower_is_better:
            return Nearness.NEARER_LITTLE if is_small else Nearness.NEARER
        return Nearness.FARTHER_LITTLE if is_small else Nearness.FARTHER
    return Nearness.AS_NEAR if is_small else Nearness.CANNOT_TELL


GROUPS = 20
"""Groups of the jackknife; more would take longer, and Student's t of 19 degrees of freedom is hardly wider."""


def deal_groups(count: int, clusters: Sequence[Hashable] = ()) -> NDArray[np.int64]:
    """Return the group of each image, (N,): at most `GROUPS` groups of about equal size.

    Fewer than `FEWEST_IMAGES` images are one group, which gives no interval. A cluster is never split, and the largest
    clusters are dealt first; without clusters, neighbours stay together.

    >>> deal_groups(40)[:5].tolist(), deal_groups(20, ["a", "b", "b", "c"] * 5)[:4].tolist()
    ([0, 0, 1, 1, 2], [1, 0, 0, 2])
    """
    if count < FEWEST_IMAGES:
        return np.zeros(count, np.int64)
    if not len(clusters):
        return np.arange(count) * GROUPS // count
    sizes = np.zeros(min(GROUPS, len(set(clusters))), np.int64)
    group: dict[Hashable, int] = {}
    for name, size in Counter(clusters).most_common():
        group[name] = int(sizes.argmin())
        sizes[group[name]] += size
    return np.array([group[name] for name in clusters])


def jackknifed(estimate: float, left_out: NDArray[np.float64], sizes: NDArray[np.int64]) -> ClusteredMean:
    """Correct an estimate for its bias of order 1 / N (Quenouille 1956), and estimate its standard error.

    This is the delete-a-group jackknife for groups of unequal sizes by Busing, Meijer and van der Leeden (Statistics
    and Computing 9, 1999, equations 5 to 8). A Frechet distance of N images is too large, by an amount of order
    1 / N; a bootstrap doubles that bias, the jackknife removes it.

    Args:
        estimate: from all images.
        left_out: (G,), the estimate without each group.
        sizes: (G,), the number of images in each group; with fewer than two groups the error is infinite.
    """
    if len(sizes) < 2:
        return ClusteredMean(estimate, float("inf"), 0)
    times = sizes.sum() / sizes
    pseudo = times * estimate - (times - 1) * left_out
    corrected = float((pseudo / times).sum())
    variance = float(((pseudo - corrected) ** 2 / (times - 1)).mean())
    return ClusteredMean(corrected, variance**0.5, len(sizes) - 1)
