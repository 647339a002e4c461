"""What other papers would say of the same differences: probabilities with a region of equivalence, and relative gains.

Secondary readings of what a verdict has decided, never verdicts of their own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from knowhue.statistics.crossed import Crossed


class Beliefs(NamedTuple):
    """Posterior probabilities that a mean difference is worse by what matters, too small to matter, better by it."""

    worse: float
    equal: float
    better: float


def beliefs(found: Crossed, sesoi: float, lower_is_better: bool, level: float) -> Beliefs:
    """Return what a flat prior makes of a mean difference, with +-sesoi as region of practical equivalence.

    The posterior is Student's t around the estimate with the standard error and the degrees of freedom of the interval
    at `level`, so its central part of that size is the interval itself. Without a variance of images it is the
    correlated Bayesian t test of Benavoli et al. (2017) with correlation 0, as `baycomp` has it: seeds are independent.

    Args:
        found: the difference, after minus before, and what chance leaves of it.
        sesoi: the smallest effect of interest, above 0, in the metric's unit.
        lower_is_better: whether a negative difference is an improvement.
        level: of the interval that the verdict rests on; it says which chance is the widest.

    >>> from knowhue.statistics.crossed import Part
    >>> seeds = Crossed(-0.5, 10, 2, Part(0.01, 9), Part(0.0, 1), Part(0.0, 9))
    >>> [round(each, 3) for each in beliefs(seeds, 0.25, lower_is_better=True, level=0.95)]
    [0.0, 0.017, 0.983]
    """
    part = found.widest(level)
    if part.variance == 0:
        below, above = float(found.estimate < -sesoi), float(found.estimate > sesoi)
    else:
        scale = part.variance**0.5
        below = float(special.stdtr(part.freedom, (-sesoi - found.estimate) / scale))
        # by the mirrored tail: 1 minus what is nearly 1 has no digits left
        above = float(special.stdtr(part.freedom, (found.estimate - sesoi) / scale))
    worse, better = (above, below) if lower_is_better else (below, above)
    return Beliefs(worse, max(1 - worse - better, 0.0), better)


def delta_m(scores: Sequence[ArrayLike], lower_is_better: Sequence[bool]) -> NDArray[np.float64] | None:
    """Return by seed the mean relative gain over tasks, as papers report it (Maninis et al. 2019, equation 3).

    `1/T sum_t (-1)^(lower is better) (multi_t - single_t) / single_t`: positive is better, 0.01 is one per cent.

    Args:
        scores: of each task, (seeds, 2), single-task and multi-task.
        lower_is_better: of each task.

    Returns:
        (seeds,); None where a single-task score is not above 0, for a relative gain means nothing then.

    Raises:
        ValueError: there is no task, or tasks have other numbers of seeds.

    >>> delta_m([[[10.0, 9.0]], [[0.5, 0.51]]], [True, False]).round(3).tolist()
    [0.06]
    """
    tables = np.asarray([np.asarray(each, float) for each in scores])
    if tables.ndim != 3 or tables.shape[2] != 2 or len(tables) != len(lower_is_better):
        raise ValueError(
            "`scores` should be one table (seeds, 2) a task, all of the same seeds, with a direction each. "
            f"Found `scores.shape = {tables.shape}` and {len(lower_is_better)} directions."
        )
    single, multi = tables[..., 0], tables[..., 1]
    if not (single > 0).all():
        return None
    signs = np.where(lower_is_better, -1.0, 1.0)[:, None]
    return (signs * (multi - single) / single).mean(axis=0)
