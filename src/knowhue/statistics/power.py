"""Power analysis before any run: the rule of the verdict is applied to simulated studies."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from knowhue.statistics.crossed import Crossed, Part
from knowhue.statistics.paired import sign_flip_p, sign_flip_p_of_few
from knowhue.statistics.verdicts import POWER, Word, judge

STUDIES = 4000
"""Number of simulated studies; a power of .8 is then known to .013 (95 %)."""
_LARGEST = 64.0
"""Largest effect that is tried, in multiples of the unit."""
_ALWAYS_EXACT, _NEVER_EXACT = 12, 20
"""Seeds up to which every study has an exact p, and beyond which every study has the t test's p.

The t test's power is within .005 there, and the simulation knows it to .013. In between, p is exact for studies whose
t-test p is within the factor `_FAR` of the level."""
_FAR = 4.0


class Variances(NamedTuple):
    """Standard deviations of the paired differences, in the metric's unit."""

    seed: float
    """of a seed's mean over infinitely many images"""
    image: float
    """of an image's mean over infinitely many seeds"""
    residual: float = 0.0
    """of the remainder of one (seed, image) pair"""


class Design(NamedTuple):
    """Seeds, test images, smallest effect of interest and share of alpha of a question."""

    seeds: int
    images: int
    sesoi: float
    alpha: float


def chances(
    design: Design, effect: float, variances: Variances, studies: int = STUDIES, seed: int = 0
) -> dict[Word, float]:
    """Return the share of simulated studies that reach each verdict of `judge`.

    A study is simulated by the quantities that its verdict depends on: the means of its seeds, the variance over images
    and the residual variance, which are independent of each other if scores are normal.

    `effect` is the true mean difference over all seeds and images; negative is better. Every effect uses the same
    draws, so that power grows with it.

    >>> found = chances(Design(10, 250, 0.25, 0.025), 0.0, Variances(0.076, 1.45), studies=200)
    >>> sum(found.values())
    1.0
    """
    means, half_widths = _imagined(design, variances, studies, seed)
    words = _words(design, means + effect, half_widths)
    return {word: words.count(word) / studies for word in Word if word in words}


def claimed(found: dict[Word, float], direction: str = "helps") -> float:
    """Return the share of studies that claim `helps` (or `hurts`), by any amount."""
    return sum(share for word, share in found.items() if word.direction == direction)


def smallest_effect(design: Design, variances: Variances) -> float | None:
    """Return the smallest difference, in the metric's unit, that is found with `POWER`; None if none is."""
    scale = (
        variances.seed**2 / design.seeds
        + variances.image**2 / design.images
        + variances.residual**2 / design.seeds / design.images
    ) ** 0.5
    return _smallest(
        lambda effect: claimed(chances(design, -effect * scale, variances, STUDIES // 2)) >= POWER, scale
    )


def sign_flip_power(seeds: int, effect: float, alpha: float, studies: int = STUDIES) -> float:
    """Return the power of the exact two-sided sign-flip test with 2 or more seeds, for an effect in units of d_z.

    Images are held fixed.

    >>> sign_flip_power(7, 1.87, 0.025) > sign_flip_power(7, 1.33, 0.025)
    True
    """
    # the same noise for every effect, so that power grows with the effect and bisection works
    noise = np.random.default_rng(0).normal(size=(studies, seeds))
    return float(np.mean(_near_p(noise + effect, alpha) <= alpha))


@lru_cache(maxsize=8)  # both questions of a plan have the same seeds and level
def sign_flip_effect(seeds: int, alpha: float, studies: int = STUDIES) -> float | None:
    """Return the smallest d_z that the exact sign-flip test finds with `POWER`; None if none is."""
    # the smallest p that this number of seeds can give
    if 2.0 ** (1 - seeds) > alpha:
        return None
    return _smallest(lambda effect: sign_flip_power(seeds, effect, alpha, studies) >= POWER)


def _smallest(enough: Callable[[float], bool], unit: float = 1.0) -> float | None:
    """Return the smallest effect for which `enough(effect / unit)` holds, to a hundredth of `unit`, by bisection."""
    low, high = 0.0, 1.0
    while not enough(high):
        low, high = high, 2 * high
        if high > _LARGEST:
            return None
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high * unit


def _words(
    design: Design, means: NDArray[np.float64], half_widths: Mapping[float, NDArray[np.float64]]
) -> list[Word]:
    """Return the verdict of each study, from its means by seed and the half-widths of its interval at each level."""
    centres = means.mean(axis=1)
    # if the interval over seeds and images contains 0, p does not matter
    p, excludes_0 = np.ones(len(means)), np.abs(centres) > half_widths[1 - design.alpha]
    p[excludes_0] = _near_p(means[excludes_0], design.alpha)
    ends = {
        level: list(zip((centres - half).tolist(), (centres + half).tolist(), strict=True))
        for level, half in half_widths.items()
    }
    seeds, _, sesoi, alpha = design
    return [
        judge(seeds, each, lambda level, study=study: ends[level][study], sesoi, alpha, lower_is_better=True)
        for study, each in enumerate(p.tolist())
    ]


def _near_p(means: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Return the sign-flip p of each study, or its t-test p where both are on the same side of the level."""
    count, seeds = means.shape
    if seeds <= _ALWAYS_EXACT:
        return sign_flip_p_of_few(means)
    spread = means.var(axis=1, ddof=1)
    varied = spread > 0
    # if all seeds are equal, only two sign patterns are as extreme: the observed one and its mirror image
    p = np.full(count, 2.0 ** (1 - seeds))
    statistic = np.abs(means[varied].mean(axis=1)) / (spread[varied] / seeds) ** 0.5
    p[varied] = 2 * special.stdtr(seeds - 1, -statistic)
    if seeds <= _NEVER_EXACT:
        for study in np.flatnonzero(varied & (alpha / _FAR < p) & (p < alpha * _FAR)):
            p[study] = sign_flip_p(means[study])
    return p


@lru_cache(maxsize=2)  # every effect that is tried uses the same studies
def _imagined(
    design: Design, variances: Variances, studies: int, seed: int
) -> tuple[NDArray[np.float64], Mapping[float, NDArray[np.float64]]]:
    """Return the means of each study's seeds without an effect, and the half-widths of its interval at each level."""
    generator = np.random.default_rng(seed)
    n, m = design.seeds, design.images
    image, rest = variances.image**2, variances.residual**2
    means = generator.normal(size=(studies, n)) * np.sqrt(variances.seed**2 + rest / m)
    # all seeds share the test images, so their contribution is drawn once per study
    means += generator.normal(size=(studies, 1)) * np.sqrt(image / m)
    freedom = (n - 1) * (m - 1)
    # variances of normal samples follow a chi-square distribution over its degrees of freedom
    columns = (image + rest / n) * generator.chisquare(m - 1, studies) / (m - 1) / m
    cells = rest * generator.chisquare(freedom, studies) / freedom / (n * m)
    # from the same means as the sign-flip test, as in a real study
    rows = means.var(axis=1, ddof=1) / n
    parts = zip(rows.tolist(), columns.tolist(), cells.tolist(), strict=True)
    tables = [Crossed(0.0, n, m, Part(r, n - 1), Part(c, m - 1), Part(e, freedom)) for r, c, e in parts]
    levels = (1 - design.alpha, 1 - 2 * design.alpha)
    return means, {level: np.array([table.interval(level)[1] for table in tables]) for level in levels}
