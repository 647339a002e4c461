"""Paired differences, multi-task minus single-task, one per seed: intervals, tests, effect sizes, multiple testing.

Most functions take only `differences`, (seeds,), in the metric's own unit. All raise `ValueError` for arguments that
are not finite, of another shape or out of range. If all differences are equal there is no spread: a function that needs
one returns None, and one whose result has a limit returns the limit.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import product
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from knowhue.statistics import LEVEL

Interval = tuple[float, float]
Differences = NDArray[np.floating] | Sequence[float]
Name = TypeVar("Name", bound=Hashable)

EXACT_SEEDS = 40
"""Most seeds for which every sign pattern is counted; with more, `RANDOM_PATTERNS` are drawn."""
RANDOM_PATTERNS = 2**20
_ROWS_AT_ONCE = 256
"""Studies per matrix product; with a dozen seeds, all their sign patterns take 4 MB."""
_ROUNDING = 1e-12
"""Relative rounding error below which differences count as equal."""
_TIE = 1e-9
"""Relative difference below which two sums are tied: far above rounding errors, far below measured differences."""
_DIGITS = 13
"""Significant digits kept of a score; equal scores that were summed in another order agree in more."""
_LEAST_ROUNDED = 1e-200
"""Scores up to this size are not rounded, because the power of ten needed for smaller ones can overflow."""


class Share(NamedTuple):
    """Number of seeds on one side, out of how many, with the Wilson interval of their share."""

    count: int  # pyright: ignore[reportIncompatibleMethodOverride] - hides tuple.count, which nothing uses
    of: int
    share: float
    interval: Interval


def seed_differences(before: ArrayLike, after: ArrayLike) -> NDArray[np.float64]:
    """Return after minus before by seed, rounded to the digits that scores have, so that a tie is exactly 0.

    >>> seed_differences([0.84, 0.3, 0.1 + 0.2], [0.83, 0.1 + 0.2, 0.3]).tolist()
    [-0.01, 0.0, 0.0]
    """
    scores = np.array([before, after], float)
    gaps: NDArray[np.float64] = scores[1] - scores[0]
    largest = float(np.abs(scores[np.isfinite(scores)]).max(initial=0.0))
    if largest <= _LEAST_ROUNDED:
        return gaps
    return np.round(gaps, _DIGITS - math.ceil(math.log10(largest))) + 0.0  # -0.0 becomes 0.0


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None if a value is missing, so that a failed run is not averaged away."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def t_interval(differences: Differences, confidence: float = LEVEL) -> Interval | None:
    """Return Student's t interval of the mean; None with fewer than 2 seeds.

    >>> [round(end, 3) for end in t_interval([1.0, 2.0, 3.0])]
    [-0.484, 4.484]
    """
    d = _checked(differences)
    if len(d) < 2:
        return None
    if _constant(d):
        return float(d[0]), float(d[0])
    half = special.stdtrit(len(d) - 1, (1 + confidence) / 2) * d.std(ddof=1) / math.sqrt(len(d))
    return float(d.mean() - half), float(d.mean() + half)


def bounded_interval(values: Differences, limits: Interval) -> Interval | None:
    """Return `t_interval` of a quantity with limits, such as a share; None if the interval would exceed a limit.

    Values that spread that far are not normal or too few, and an interval cut off at the limit would not cover.

    >>> bounded_interval([0.1, 0.9], (0, 1)) is None, bounded_interval([0.5, 0.5, 0.5], (0, 1))
    (True, (0.5, 0.5))
    """
    found = t_interval(values)
    return found if found is not None and limits[0] <= found[0] and found[1] <= limits[1] else None


def sign_flip_p(differences: Differences) -> float:
    """Return the two-sided p of the sign-flip (randomisation) test of the mean (Fisher 1935, section 21).

    Under the null hypothesis multi and single can be swapped within a seed, so all 2^n sign patterns are equally
    likely: p is the share of patterns whose |mean| is at least the observed one, ties included; zeros are kept.
    It is exact up to `EXACT_SEEDS` seeds; with more, 2^20 patterns drawn with a fixed seed give (k + 1) / (m + 1),
    which is also valid (Phipson and Smyth 2010).

    >>> sign_flip_p([0.3, 0.1, 0.2, 0.4, 0.2])
    0.0625
    """
    d = _checked(differences)
    # sums that differ only by rounding are ties
    threshold = abs(d.sum()) - _TIE * np.abs(d).sum()
    if threshold <= 0:
        return 1.0
    # if all signs agree, only the observed pattern and its mirror image are as extreme
    if (d > 0).all() or (d < 0).all():
        return 2.0 ** (1 - len(d))
    if len(d) > EXACT_SEEDS:
        return (_random_patterns_beyond(d, threshold) + 1) / (RANDOM_PATTERNS + 1)
    # searching the sums of one half for those of the other takes 2^(n/2) sums of each instead of 2^n
    left, right = map(_signed_sums, np.array_split(d, 2))
    above = len(right) * len(left) - int(np.searchsorted(right, threshold - left).sum())
    return 2 * above / 2 ** len(d)  # twice, because mirror images are as extreme


def sign_flip_p_of_few(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `sign_flip_p` of each row, (studies, seeds) with a dozen seeds at most, by counting all patterns.

    >>> sign_flip_p_of_few(np.array([[0.3, 0.1, 0.2, 0.4, 0.2], [0.3, -0.1, 0.2, -0.4, 0.1]])).tolist()
    [0.0625, 1.0]
    """
    # the first sign is fixed, because mirror images are as extreme
    signs = np.array([(1.0, *others) for others in product((1.0, -1.0), repeat=differences.shape[1] - 1)])
    threshold = np.abs(differences.sum(axis=1)) - _TIE * np.abs(differences).sum(axis=1)
    p = np.empty(len(differences))
    for first in range(0, len(p), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        p[rows] = np.mean(np.abs(differences[rows] @ signs.T) >= threshold[rows, None], axis=1)
    return p


def bca_interval(differences: Differences, resamples: int = 9999, seed: int = 0) -> Interval | None:
    """Return the BCa bootstrap interval of the mean (Efron 1987); None with fewer than 2 seeds or if all are equal.

    It is a check for 20 seeds or more: at nominal 95 %, it covers 84 % with 5 seeds and 91 % with 10.

    >>> low, high = bca_interval([1.0, 2.0, 3.0, 4.0, 10.0])
    >>> low < 4.0 < high
    True
    """
    from scipy import stats

    d = _checked(differences)
    if len(d) < 2 or _constant(d):
        return None
    found = stats.bootstrap(
        (d,), np.mean, confidence_level=LEVEL, n_resamples=resamples, method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def hedges_dz(differences: Differences) -> float | None:
    """Return the mean in paired standard deviations, corrected for small-sample bias (Hedges 1981).

    `mean / sd * J(n - 1)` with the exact `J(f) = Γ(f/2) / (√(f/2) Γ((f-1)/2))`. None if the standard deviation is 0,
    and with fewer than 3 seeds, where the expectation does not exist and J is 0.

    >>> round(hedges_dz([1.0, 2.0, 3.0]), 4)
    1.1284
    """
    d = _checked(differences)
    # squares of differences as small as 1e-200 underflow to 0
    if len(d) < 3 or _constant(d) or not d.std():
        return None
    half = (len(d) - 1) / 2
    # logarithms, because gamma itself overflows beyond 171
    correction = math.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / math.sqrt(half)
    return float(d.mean() / d.std(ddof=1) * correction)


def wilson_interval(count: int, of: int) -> Interval:
    """Return the score interval of a proportion (Wilson 1927).

    >>> [round(end, 3) for end in wilson_interval(7, 10)]
    [0.397, 0.892]
    """
    if not 0 <= count <= of or of == 0:
        raise ValueError(f"`count` should be in 0..of, and `of` above 0. Found `count = {count}, of = {of}`.")
    from scipy import stats

    low, high = stats.binomtest(count, of).proportion_ci(LEVEL, method="wilson")
    return float(low), float(high)


def wins(differences: Differences, lower_is_better: bool) -> Share:
    """Count the seeds with which multi-task is better; a tie does not count.

    >>> wins([0.2, 0.0, -0.1, 0.4], lower_is_better=False)[:3]
    (2, 4, 0.5)
    """
    return sided_share(-_checked(differences), 0.0, lower_is_better)


def sided_share(differences: Differences, margin: float, lower_is_better: bool) -> Share:
    """Count the seeds with which multi-task is worse by more than a margin (negative transfer).

    >>> sided_share([0.2, 0.0, 0.83 - 0.93, -0.4], margin=0.1, lower_is_better=False)[:3]
    (1, 4, 0.25)
    """
    d = _checked(differences)
    if not margin >= 0:
        raise ValueError(f"`margin` should be at least 0. Found `margin = {margin}`.")
    # a difference that equals the margin up to rounding does not exceed it
    tie = _TIE * (margin + float(np.abs(d).max(initial=0.0)))
    count = int(np.count_nonzero((d if lower_is_better else -d) - margin > tie))
    interval = wilson_interval(count, len(d))  # first, because it refuses 0 seeds
    return Share(count, len(d), count / len(d), interval)


def flips(before: ArrayLike, after: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return by seed the share of images that became wrong and the share that became right, each (seeds,).

    Their difference is the change of accuracy, in which they cancel. Both arguments are (seeds, images), 1 where
    the class is right and else 0.

    >>> [share.tolist() for share in flips([[1, 1, 0, 0]], [[0, 1, 1, 1]])]
    [[0.25], [0.5]]
    """
    first, second = _right_or_wrong({"before": before, "after": after}, ("seeds", "images"))
    return (first > second).mean(axis=1), (first < second).mean(axis=1)


def _right_or_wrong(answers: Mapping[str, ArrayLike], axes: Sequence[str]) -> list[NDArray[np.float64]]:
    (one, first), (other, second) = ((name, np.asarray(each, float)) for name, each in answers.items())
    if first.ndim != len(axes) or first.shape != second.shape or not first.size:
        raise ValueError(
            f"`{one}` and `{other}` should be of one shape ({', '.join(axes)}), not empty. "
            f"Found `{one}.shape = {first.shape}, {other}.shape = {second.shape}`."
        )
    for name, values in ((one, first), (other, second)):
        odd = values[(values != 0) & (values != 1)]
        if odd.size:
            raise ValueError(f"`{name}` should be 0 or 1 everywhere. Found `{odd[0]}`.")
    return [first, second]


class McNemar(NamedTuple):
    """Images that only the first or only the second model has right; two-sided p of no difference."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """Return McNemar's (1947) exact test of two models' answers on the same images.

    It is the binomial test on the images where they differ. Both arguments are (images,), 1 where right and else 0.
    Images count as independent; `clustered_mean` allows for clusters.

    >>> mcnemar([1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0])
    McNemar(only_first=6, only_second=0, p=0.03125)
    """
    from scipy import stats

    before, after = _right_or_wrong({"first": first, "second": second}, ("images",))
    one, other = int((before > after).sum()), int((before < after).sum())
    p = float(stats.binomtest(one, one + other).pvalue) if one + other else 1.0
    return McNemar(one, other, p)


def benjamini_hochberg(p: Mapping[Name, float]) -> dict[Name, float]:
    """Adjust p values to control the expected share of false discoveries (Benjamini and Hochberg 1995).

    It serves secondary metrics, classes and arms; the primary questions split alpha instead (`statistics.verdicts`).

    >>> benjamini_hochberg({"psnr": 0.01, "ssim": 0.04, "fid": 0.04})
    {'psnr': 0.03, 'ssim': 0.04, 'fid': 0.04}
    """
    from scipy import stats

    adjusted = stats.false_discovery_control(list(p.values())) if p else ()
    return dict(zip(p, map(float, adjusted), strict=True))


def _checked(differences: Differences) -> NDArray[np.float64]:
    d = np.asarray(differences, float)
    if d.ndim != 1 or not np.isfinite(d).all():
        raise ValueError(
            f"`differences` should be finite, of shape (seeds,). Found `differences = {d.tolist()}`."
        )
    return d


def _constant(d: NDArray[np.float64]) -> bool:
    """Whether all are equal up to rounding, as 0.82 - 0.8 and 0.81 - 0.79."""
    return bool(np.ptp(d) <= _ROUNDING * np.abs(d).max())


def _signed_sums(d: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 2^n sums of ±d, ascending."""
    sums = np.zeros(1)
    for value in np.abs(d):
        sums = np.concatenate((sums - value, sums + value))
        # both parts are sorted, so a stable sort only merges them: half the time of one sort at the end
        sums.sort(kind="stable")
    return sums


def _random_patterns_beyond(d: NDArray[np.float64], threshold: float, chunk: int = 2**14) -> int:
    """Count the drawn sign patterns whose |sum| reaches the threshold."""
    # a fixed seed, so that repeated reports give the same p
    generator = np.random.default_rng(0)
    count = 0
    # in chunks, because all patterns of 50 seeds would take 400 MB as floats
    for _ in range(RANDOM_PATTERNS // chunk):
        signs = 2 * generator.integers(0, 2, (chunk, len(d)), dtype=np.int8) - 1
        count += int(np.count_nonzero(np.abs(signs @ d) >= threshold))
    return count
