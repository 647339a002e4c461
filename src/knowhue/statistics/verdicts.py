"""Verdicts on paired differences: helps, hurts, equivalent or inconclusive, and by how much.

A difference is claimed only if the exact sign-flip test and the interval over seeds and images agree. Each of k primary
questions has the level `alpha / k` for both kinds of claims (difference, equivalence), because only one kind can be
false.

Probabilities with a region of equivalence and relative gains, as other papers report them, are secondary analyses and
never verdicts.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from knowhue.statistics import ALPHA, MIN_SEEDS
from knowhue.statistics.crossed import Crossed
from knowhue.statistics.paired import Interval

POWER = 0.8
"""Power at which the number of needed seeds is computed."""
_MOST_SEEDS = 10_000
"""Largest number of seeds that is tried."""
_ROUNDING = 1e-9
"""Relative difference below which scores count as equal, so that .99 is exactly one point below 1."""


class Word(StrEnum):
    """The possible verdicts on a question, in the order in which they are tried."""

    NO_VERDICT = "no verdict"
    CANNOT_TELL = "cannot tell"
    HELPS = "helps, by what matters"
    HURTS = "hurts, by what matters"
    HELPS_LITTLE = "helps, by less than what matters"
    HURTS_LITTLE = "hurts, by less than what matters"
    HELPS_UNKNOWN_SIZE = "helps; whether it matters is not shown"
    HURTS_UNKNOWN_SIZE = "hurts; whether it matters is not shown"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"

    @property
    def direction(self) -> str:
        """`helps`, `hurts`, or empty."""
        found = self.value[:5]
        return found if found in ("helps", "hurts") else ""

    @property
    def is_small(self) -> bool:
        """Whether the interval at 1 - 2 alpha shows that the difference is smaller than what matters."""
        return self in (Word.HELPS_LITTLE, Word.HURTS_LITTLE, Word.EQUIVALENT)


class Needed(NamedTuple):
    """Seeds that a new study with as many images would need, and the range of that number, as the spread is uncertain.

    None means that not even 10,000 seeds are enough.
    """

    seeds: int | None
    low: int | None
    high: int | None


def question_alpha(alpha: float, questions: int) -> float:
    """Return the level of one question: alpha divided by the number of questions.

    >>> question_alpha(0.05, 2)
    0.025
    """
    return alpha / max(questions, 1)


def fewest_seeds(alpha: float) -> int:
    """Return the fewest seeds that allow a verdict at the level of one question.

    >>> fewest_seeds(0.05), fewest_seeds(0.025), fewest_seeds(0.001)
    (8, 8, 11)
    """
    # the smallest p of n seeds is 2^(1 - n); 1e-9 absorbs rounding if alpha is a power of 2
    return max(MIN_SEEDS, 1 + math.ceil(-math.log2(alpha) - 1e-9))


def is_clear(seeds: int, p: float | None, interval: Interval | None, alpha: float = ALPHA) -> bool:
    """Return whether a difference that no question asks about is shown.

    `p` is adjusted for all differences of the same table; `interval` is the one at 1 - alpha over seeds and images.

    >>> is_clear(8, 0.03, (0.1, 0.4)), is_clear(7, 0.03, (0.1, 0.4)), is_clear(8, 0.03, (-0.1, 0.4))
    (True, False, False)
    """
    rejected = seeds >= fewest_seeds(alpha) and p is not None and p <= alpha
    return rejected and interval is not None and (interval[0] > 0 or interval[1] < 0)


def at_limit(
    levels: tuple[float, float], best: float, sesoi: float, floors: Iterable[float], lower_is_better: bool
) -> str:
    """Return why a metric cannot tell two arms apart; empty if it can.

    `ceiling`: both levels are within one smallest effect of the metric's best value (infinite if it has none).
    `floor`: each of them is no better than some trivial baseline.

    >>> at_limit((0.99, 1.0), 1.0, 0.01, [0.2], False), at_limit((0.2, 0.1), 1.0, 0.01, [0.2], False)
    ('ceiling', 'floor')
    """
    if all(beside_margin(abs(level - best), sesoi, level) <= 0 for level in levels):
        return "ceiling"
    known = list(floors)
    lost = (any(not_better(level, floor, lower_is_better) for floor in known) for level in levels)
    return "floor" if all(lost) else ""


def beside_margin(size: float, sesoi: float, scale: float = 0.0) -> int:
    """Compare a difference with the smallest effect: -1 if below, 1 if above, 0 if equal up to rounding.

    `size` is the size of the difference, or the improvement, where a loss counts as below. `scale` is one of the levels
    that were subtracted, because rounding errors grow with them.

    >>> beside_margin(0.98 - 0.97, 0.01, 0.98), beside_margin(0.009, 0.01), beside_margin(0.011, 0.01)
    (0, -1, 1)
    """
    beyond = size - sesoi
    return 0 if abs(beyond) <= _ROUNDING * (sesoi + abs(scale)) else 1 if beyond > 0 else -1


def not_better(level: float, floor: float, lower_is_better: bool) -> bool:
    """Return whether a score is no better than that of a trivial baseline, up to rounding.

    >>> not_better(0.1 + 0.2, 0.3, lower_is_better=False)
    True
    """
    gain = floor - level if lower_is_better else level - floor
    return gain <= _ROUNDING * max(abs(level), abs(floor))


def judge(
    seeds: int, p: float, interval: Callable[[float], Interval | None], sesoi: float, alpha: float,
    lower_is_better: bool, complete: bool = True, at_limit: bool = False, scale: float = 0.0,
) -> Word:  # fmt: skip
    """Judge one question.

    Args:
        seeds: number of seeds that both arms have.
        p: exact two-sided sign-flip p over these seeds.
        interval: returns the interval of the mean difference at a confidence level, over seeds and images
            (`Crossed.interval`), or None.
        sesoi: smallest effect of interest, in the metric's unit.
        alpha: level of this question, see `question_alpha`.
        lower_is_better: whether a negative difference is an improvement.
        complete: whether all primary questions have all their seeds.
        at_limit: whether the metric cannot tell the arms apart, see `at_limit`.
        scale: larger level of the two arms, for rounding.

    >>> judge(10, 0.002, lambda level: (-1.2, -0.8), 0.25, 0.025, lower_is_better=True).value
    'helps, by what matters'
    """
    # two one-sided tests at alpha are equivalent to the interval at 1 - 2 alpha lying within the margin
    outer, inner = interval(1 - alpha), interval(1 - 2 * alpha)
    if not complete or seeds < fewest_seeds(alpha):
        return Word.NO_VERDICT
    if at_limit:
        return Word.CANNOT_TELL
    if outer is None or inner is None:
        return Word.INCONCLUSIVE
    small = beside_margin(max(map(abs, inner)), sesoi, scale) < 0
    if p <= alpha and (outer[0] > 0 or outer[1] < 0):
        place = 0 if beside_margin(min(map(abs, outer)), sesoi, scale) > 0 else 1 if small else 2
        helps = (outer[1] < 0) == lower_is_better
        helping = (Word.HELPS, Word.HELPS_LITTLE, Word.HELPS_UNKNOWN_SIZE)
        return (helping if helps else (Word.HURTS, Word.HURTS_LITTLE, Word.HURTS_UNKNOWN_SIZE))[place]
    return Word.EQUIVALENT if small else Word.INCONCLUSIVE


def needed(found: Crossed, sesoi: float, alpha: float) -> Needed:
    """Return the seeds that a new study needs to tell an effect of `sesoi` from none, at 80 % power.

    It must find such an effect if there is one, and show equivalence if there is none, on as many images. The range (5
    to 95 %) comes from the chi-square distribution of the variance of a seed's mean over these images, which includes a
    part of the residual; with eight seeds that variance is known to a factor of two at best.
    """
    from scipy import stats

    seed, image, rest = found.components
    over_seeds = seed**2 + rest**2 / found.images
    freedom = found.seeds - 1
    # the upper quantile gives the lower end of the range
    low, high = (over_seeds * freedom / float(each) for each in stats.chi2.ppf((0.95, 0.05), freedom))
    return Needed(*(_seeds(each, image, found.images, sesoi, alpha) for each in (over_seeds, low, high)))


def more_images_needed(found: Crossed) -> bool:
    """Whether images contribute more variance than seeds, so that more seeds would help little."""
    seed, image, _ = found.components
    return image**2 / found.images > seed**2 / found.seeds


def _seeds(over_seeds: float, image: float, images: int, sesoi: float, alpha: float) -> int | None:
    """Return the fewest seeds that are enough; every larger number is enough too.

    `over_seeds` is the variance of a seed's mean over these images.
    """

    def enough(n: int) -> bool:
        total = over_seeds / n + image**2 / images
        if total == 0:
            return True
        # relative variances, because squares of the absolute ones may underflow
        of_seeds, of_images = over_seeds / n / total, image**2 / images / total
        freedom = 1 / (of_seeds**2 / (n - 1) + of_images**2 / (images - 1))
        found = special.stdtrit(freedom, 1 - alpha / 2) + special.ndtri(POWER)
        # both one-sided tests must succeed, so each may fail in half of the cases that POWER allows
        equal = special.stdtrit(freedom, 1 - alpha) + special.ndtri((1 + POWER) / 2)
        return bool(sesoi / math.sqrt(total) >= max(found, equal))

    counts = range(fewest_seeds(alpha), _MOST_SEEDS + 1)
    place = bisect_left(counts, True, key=enough)
    return counts[place] if place < len(counts) else None


class Posterior(NamedTuple):
    """Posterior probabilities that multi-task is worse by what matters, practically equal, better by what matters."""

    worse: float
    equal: float
    better: float


def posterior(found: Crossed, sesoi: float, lower_is_better: bool, level: float) -> Posterior:
    """Return posterior probabilities under a flat prior, with ±sesoi as region of practical equivalence.

    The posterior is Student's t around the estimate with the standard error and degrees of freedom of the interval at
    `level`, so its central `level` is that interval. Without a variance over images it is the correlated Bayesian t
    test of Benavoli et al. (2017) with correlation 0, because seeds are independent; `baycomp` implements the same.

    >>> from knowhue.statistics.crossed import Part
    >>> seeds = Crossed(-0.5, 10, 2, Part(0.01, 9), Part(0.0, 1), Part(0.0, 9))
    >>> [round(each, 3) for each in posterior(seeds, 0.25, lower_is_better=True, level=0.95)]
    [0.0, 0.017, 0.983]
    """
    part = found.widest(level)
    scale = part.variance**0.5
    if scale <= _ROUNDING * sesoi:
        beyond = beside_margin(abs(found.estimate), sesoi) > 0
        below, above = float(beyond and found.estimate < 0), float(beyond and found.estimate > 0)
    else:
        below = float(special.stdtr(part.freedom, (-sesoi - found.estimate) / scale))
        # the mirrored tail, because 1 minus a number near 1 loses all digits
        above = float(special.stdtr(part.freedom, (found.estimate - sesoi) / scale))
    worse, better = (above, below) if lower_is_better else (below, above)
    return Posterior(worse, max(1 - worse - better, 0.0), better)


def delta_m(scores: Sequence[ArrayLike], lower_is_better: Sequence[bool]) -> NDArray[np.float64] | None:
    """Return by seed the mean relative gain over tasks, Δm (Maninis et al. 2019, equation 3).

    `1/T sum_t (-1)^(lower is better) (multi_t - single_t) / single_t`: positive is better, 0.01 is one per cent.

    `scores` holds for each task the scores of single-task and multi-task, (seeds, 2). None if a single-task score is
    not above 0, because a relative gain is then undefined.

    >>> delta_m([[[10.0, 9.0]], [[0.5, 0.51]]], [True, False]).round(3).tolist()
    [0.06]
    """
    gains = []
    for table, is_lower_better in zip(scores, lower_is_better, strict=True):
        single, multi = np.asarray(table, float).T
        if not (single > 0).all():
            return None
        gains.append((single - multi if is_lower_better else multi - single) / single)
    return np.mean(gains, axis=0)
