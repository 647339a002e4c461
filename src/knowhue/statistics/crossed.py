"""Intervals over two populations: seeds and images are both treated as random samples.

An interval over seeds holds the images fixed, and one over images holds the trained models fixed; each ignores the
other source of variation. Here every score belongs to a (seed, image) pair, and both sources count.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from knowhue.statistics.paired import Interval


class Part(NamedTuple):
    """A variance component of the estimate, with its degrees of freedom."""

    variance: float
    freedom: float


class Crossed(NamedTuple):
    """A mean difference over seeds and images, and its variance components."""

    estimate: float
    """mean over seeds and images, multi minus single"""
    seeds: int
    images: int
    over_seeds: Part
    """variance of the estimate with the images held fixed"""
    over_images: Part
    """variance of the estimate with the trained models held fixed"""
    residual: Part
    """variance that neither seeds nor images explain; both other parts contain it"""

    def interval(self, level: float) -> Interval:
        """Return the interval over the populations of seeds and of images.

        The variance of the grand mean is `over_seeds + over_images - residual` (two-way layout with random rows and
        columns, Cornfield and Tukey 1956); the t quantile has Satterthwaite's (1946) degrees of freedom.
        It is never narrower than Student's t interval over the seeds alone or over the images alone.
        """
        half = _half_width(self.widest(level), level)
        return float(self.estimate - half), float(self.estimate + half)

    def widest(self, level: float) -> Part:
        """Return the variance and degrees of freedom behind `interval` at this level."""
        # without subtracting the residual (Owen's pigeonhole bootstrap, 2007) coverage is up to 99 % at nominal 95 %
        both = self.over_seeds.variance + self.over_images.variance - self.residual.variance
        parts = (self.over_seeds, self.over_images, self.residual)
        # a difference of estimated variances may come out below 0
        found = [*parts[:2], Part(max(both, 0.0), _satterthwaite(both, parts))]
        # sampling both populations cannot give a narrower interval than sampling one
        return max(found, key=lambda part: _half_width(part, level))

    @property
    def components(self) -> tuple[float, float, float]:
        """Standard deviations of one seed, of one image, and of the residual of one (seed, image) pair."""
        rest = self.residual.variance
        seed = self.seeds * max(self.over_seeds.variance - rest, 0.0)
        image = self.images * max(self.over_images.variance - rest, 0.0)
        return seed**0.5, image**0.5, (self.seeds * self.images * rest) ** 0.5


def _half_width(part: Part, level: float) -> float:
    return float(special.stdtrit(part.freedom, (1 + level) / 2) * part.variance**0.5)


def crossed(differences: ArrayLike, groups: ArrayLike | None = None, binary: bool = False) -> Crossed | None:
    """Decompose the variance of a table of differences into parts for seeds, images and the residual.

    Args:
        differences: (seeds, images), multi minus single, on the same images for all seeds.
        groups: (images,), class of each image; the estimate is then the mean over classes of the class means, as in
            balanced accuracy, with the classes fixed. None: all images have the same weight.
        binary: whether the scores are 0 or 1. The variance over images then counts one more image in each direction
            that changes as much as the image that changes most (after Bonett and Price 2012): models that agree on all
            these images may differ on others, and a sample in which few images change often misses those that would.

    Returns:
        None with fewer than 2 seeds, fewer than 2 images in any class, or a missing score.

    >>> scores = np.add.outer([0.1, 0.2, 0.3], [0.0, 0.1, 0.2, 0.3])
    >>> [round(end, 3) for end in crossed(scores).interval(0.95)]
    [0.102, 0.598]
    """
    by_class = _by_class(differences, groups, fewest_seeds=2)
    if by_class is None:
        return None
    centres = np.mean([block.mean(axis=1) for block in by_class], axis=0)
    # in a mean over k classes, each class's variance has the weight 1 / k^2
    residual = _sum([_residual(block, 1 / len(by_class) ** 2) for block in by_class])
    seeds, images = len(centres), sum(block.shape[1] for block in by_class)
    over_seeds = Part(float(centres.var(ddof=1)) / seeds, seeds - 1)
    return Crossed(float(centres.mean()), seeds, images, over_seeds, _over_images(by_class, binary), residual)


def image_interval(
    differences: ArrayLike, level: float, groups: ArrayLike | None = None, binary: bool = False
) -> Interval | None:
    """Return Student's t interval over images of the means over seeds; it applies to these trained models only.

    Arguments are those of `crossed`; one seed is enough. None with fewer than 2 images in any class, or a missing
    score.
    """
    by_class = _by_class(differences, groups, fewest_seeds=1)
    if by_class is None:
        return None
    half = _half_width(_over_images(by_class, binary), level)
    centre = float(np.mean([block.mean() for block in by_class]))
    return centre - half, centre + half


def _by_class(
    differences: ArrayLike, groups: ArrayLike | None, fewest_seeds: int
) -> list[NDArray[np.float64]] | None:
    """Return the table of each class; None with fewer seeds, fewer than 2 images in a class, or a missing score."""
    d = np.asarray(differences, float)
    if d.ndim != 2:
        raise ValueError(
            f"`differences` should be of shape (seeds, images). Found `differences.shape = {d.shape}`."
        )
    labels = np.zeros(d.shape[1], int) if groups is None else np.asarray(groups)
    if labels.shape != d.shape[1:]:
        raise ValueError(f"`groups` should be of shape {d.shape[1:]}. Found `groups.shape = {labels.shape}`.")
    blocks = [d[:, labels == label] for label in np.unique(labels)]
    fewest_images = min((block.shape[1] for block in blocks), default=0)
    return blocks if len(d) >= fewest_seeds and fewest_images >= 2 and np.isfinite(d).all() else None


def _over_images(by_class: Sequence[NDArray[np.float64]], binary: bool) -> Part:
    share = 1 / len(by_class) ** 2
    images = [block.mean(axis=0) for block in by_class]
    found = _sum([Part(share * float(each.var(ddof=1)) / len(each), len(each) - 1) for each in images])
    if not binary:
        return found
    most = max(float(np.abs(each).max()) for each in images)
    # 1 / k from splitting two images over k classes, 1 / k^2 from the mean over classes
    more = sum(variance_of_two_more(most, len(each)) for each in images) / len(images) ** 3
    return found._replace(variance=found.variance + more)


def variance_of_two_more(most: float, count: int) -> float:
    """Return the variance that two more changing images would add to the mean of a binary score.

    After Bonett and Price (2012): an interval keeps a width even where all of a few images agree. `most` is the
    largest change of an image or of a cluster of images; if none changes, the added ones are assumed to change by 1.

    >>> round(variance_of_two_more(0.0, 20), 6)
    0.005
    """
    return 2 * ((most or 1.0) / count) ** 2


def _residual(block: NDArray[np.float64], share: float) -> Part:
    rest = block - block.mean(axis=0) - block.mean(axis=1, keepdims=True) + block.mean()
    freedom = (block.shape[0] - 1) * (block.shape[1] - 1)
    return Part(share * float(np.square(rest).sum()) / freedom / block.size, freedom)


def _sum(parts: Sequence[Part]) -> Part:
    total = float(sum(part.variance for part in parts))
    return Part(total, _satterthwaite(total, parts))


def _satterthwaite(variance: float, parts: Sequence[Part]) -> float:
    """Return the degrees of freedom of a sum or difference of independent variances; at least 1."""
    spread = sum(part.variance**2 / part.freedom for part in parts)
    return max(variance**2 / spread, 1.0) if spread > 0 else sum(part.freedom for part in parts)
