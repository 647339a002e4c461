"""The interval that speaks for the method: both the seeds and the pictures are samples of many more.

An interval over seeds holds the pictures fixed, one over pictures holds the trained models fixed; each leaves
the other's chance out. Here a score belongs to a (seed, picture) pair and both chances count.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from knowhue.statistics.paired import Interval


class _Part(NamedTuple):
    """A variance of the estimate and how well it is known."""

    variance: float
    freedom: int


def crossed_interval(
    differences: ArrayLike, groups: ArrayLike | None = None, confidence: float = 0.95
) -> Interval | None:
    """Return the interval of the mean difference over the populations of seeds and of pictures.

    Two-way layout with random rows and columns (Cornfield and Tukey 1956): the variance of the grand mean is
    `s²_seeds / n + s²_pictures / m - s²_residual / (n m)`, from the variances of row means, of column means and of
    what neither explains; the last is in both the others, so it is taken out once. The estimate is never below
    either one-way variance, which are its lower bounds, and the t quantile has Satterthwaite's (1946)
    degrees of freedom. The sum without the subtraction, as in Owen's (2007) pigeonhole bootstrap, covers
    up to 99 % at nominal 95 %.

    Args:
        differences: (seeds, pictures) multi minus single, of one set of pictures for all seeds.
        groups: (pictures,) class of each picture: the estimate is then the mean over classes of the class means,
            as in balanced accuracy, with the classes fixed. None: all pictures count the same.
        confidence: nominal coverage.

    Returns:
        Lower and upper end; None with fewer than 2 seeds, 2 pictures (of any class), or a score missing.

    Raises:
        ValueError: the shapes do not fit.

    >>> scores = np.add.outer([0.1, 0.2, 0.3], [0.0, 0.1, 0.2, 0.3])
    >>> [round(end, 3) for end in crossed_interval(scores)]
    [0.127, 0.573]
    """
    d = np.asarray(differences, float)
    classes = _columns(d, groups)
    if len(d) < 2 or min(map(len, classes), default=0) < 2 or not np.isfinite(d).all():
        return None
    by_class = [d[:, columns] for columns in classes]
    centres = np.mean([block.mean(axis=1) for block in by_class], axis=0)
    variance, freedom = _variance(centres, by_class)
    half = stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(variance)
    return float(centres.mean() - half), float(centres.mean() + half)


def _columns(d: NDArray[np.float64], groups: ArrayLike | None) -> list[NDArray[np.intp]]:
    """Return the columns of each class."""
    if d.ndim != 2:
        raise ValueError(
            f"`differences` should be of shape (seeds, pictures). Found `differences.shape = {d.shape}`."
        )
    labels = np.zeros(d.shape[1], int) if groups is None else np.asarray(groups)
    if labels.shape != d.shape[1:]:
        raise ValueError(f"`groups` should be of shape {d.shape[1:]}. Found `groups.shape = {labels.shape}`.")
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def _variance(centres: NDArray[np.float64], by_class: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Return the variance of the estimate and its degrees of freedom."""
    n, share = len(centres), 1 / len(by_class) ** 2
    seeds = _Part(centres.var(ddof=1) / n, n - 1)
    pictures = [
        _Part(share * block.mean(axis=0).var(ddof=1) / block.shape[1], block.shape[1] - 1)
        for block in by_class
    ]
    residual = [_residual(block, share) for block in by_class]
    total_pictures, total_residual = (sum(part.variance for part in parts) for parts in (pictures, residual))
    both = seeds.variance + total_pictures - total_residual
    one_way = max(seeds.variance, total_pictures)
    if both > one_way:
        return both, _satterthwaite(both, [seeds, *pictures, *residual])
    return one_way, _satterthwaite(one_way, [seeds] if seeds.variance == one_way else pictures)


def _residual(block: NDArray[np.float64], share: float) -> _Part:
    """Return what neither a seed nor a picture explains, as variance of the mean of this class."""
    rest = block - block.mean(axis=0) - block.mean(axis=1, keepdims=True) + block.mean()
    freedom = (block.shape[0] - 1) * (block.shape[1] - 1)
    return _Part(share * float(np.square(rest).sum()) / freedom / block.size, freedom)


def _satterthwaite(variance: float, parts: Sequence[_Part]) -> float:
    """Return the degrees of freedom of a sum (or difference) of independent variances; 1 where all are 0."""
    spread = sum(part.variance**2 / part.freedom for part in parts)
    return variance**2 / spread if spread > 0 else 1.0
