"""How many seeds a claim needs, and what a number of seeds can show: decided before any run.

Effects are in paired standard deviations: d_z = mean paired difference / its standard deviation.
"""

import math
from collections.abc import Callable

from scipy import optimize, stats

LARGEST = 10_000
"""More seeds than this are reported as no number of seeds."""


def power(n: int, effect: float, alpha: float) -> float:
    """Return the chance that a two-sided paired t test rejects.

    The squared statistic follows the noncentral F with 1 and n - 1 degrees of freedom and noncentrality n d_z²,
    which is the noncentral t with both tails counted.

    Args:
        n: seeds, at least 2.
        effect: d_z, of either sign.
        alpha: level, 0 to 1.

    Raises:
        ValueError: there are fewer than 2 seeds, or the level is not within 0..1.

    >>> round(power(20, 0.66, 0.05), 2)
    0.8
    """
    _check_seeds(n)
    _check_share(alpha, "alpha")
    return _rejection_rate(n, effect, alpha)


def seeds_needed(effect: float, alpha: float, power: float = 0.8, largest: int = LARGEST) -> int | None:
    """Return the fewest seeds with which an effect is found with this power; None above `largest`.

    >>> seeds_needed(0.53, 0.05), seeds_needed(0.0, 0.05)
    (30, None)
    """
    _check_share(alpha, "alpha")
    _check_share(power, "power")
    return _fewest(lambda n: _rejection_rate(n, effect, alpha) >= power, largest)


def detectable_effect(n: int, alpha: float, power: float = 0.8) -> float:
    """Return the smallest d_z that n seeds find with this power.

    Raises:
        ValueError: there are fewer than 2 seeds, or the power is not between the level and 1.

    >>> round(detectable_effect(10, 0.05), 2)
    1.0
    """
    _check_seeds(n)
    _check_share(alpha, "alpha")
    if not alpha < power < 1:
        raise ValueError(f"`power` should be between `alpha = {alpha}` and 1. Found `power = {power}`.")
    high = 1.0
    while _rejection_rate(n, high, alpha) < power:
        high *= 2
    found = optimize.root_scalar(
        lambda effect: _rejection_rate(n, effect, alpha) - power, bracket=(0.0, high)
    )
    return float(found.root)


def equivalence_seeds(
    margin_in_sd: float, alpha: float, power: float = 0.8, largest: int = LARGEST
) -> int | None:
    """Return the fewest seeds with which two one-sided t tests show equivalence; None above `largest`.

    The true difference is taken as 0, so the two sides fail equally often: power is 2 P(one side rejects) - 1,
    each by the noncentral t. What this leaves out, samples in which neither side rejects, is below 1e-5
    at a power of 80 %, and makes the number never too small (Phillips 1990).

    Args:
        margin_in_sd: the margin over the paired standard deviation.
        alpha: level of each side.
        power: chance of showing equivalence.
        largest: more seeds than this are None.

    >>> equivalence_seeds(0.5, 0.05)
    36
    """
    _check_share(alpha, "alpha")
    _check_share(power, "power")
    if not margin_in_sd > 0:
        raise ValueError(f"`margin_in_sd` should be above 0. Found `margin_in_sd = {margin_in_sd}`.")

    def shown(n: int) -> bool:
        critical = stats.t.isf(alpha, n - 1)
        return bool(2 * stats.nct.sf(critical, n - 1, margin_in_sd * math.sqrt(n)) - 1 >= power)

    return _fewest(shown, largest)


def noether_seeds(probability: float = 0.75, alpha: float = 0.05, power: float = 0.95) -> int:
    """Return the seeds of each arm that tell P(multi better than single) from 1/2 (Noether 1987).

    `((z(1 - alpha) + z(power)) / (√6 (1/2 - probability)))²`, rounded up: Noether's formula for the rank-sum
    test with two equal arms and a one-sided level, as Bouthillier et al. 2021 use it. Their 29 for 0.75 is at level
    0.05 and a power of 0.95, not 0.8, which would need 17.

    >>> noether_seeds(), noether_seeds(power=0.8)
    (29, 17)
    """
    _check_share(alpha, "alpha")
    _check_share(power, "power")
    if not 0 <= probability <= 1 or probability == 0.5:
        raise ValueError(f"`probability` should be in 0..1, not 1/2. Found `probability = {probability}`.")
    quantiles = stats.norm.isf(alpha) + stats.norm.ppf(power)
    return math.ceil(quantiles**2 / (6 * (probability - 0.5) ** 2))


def _rejection_rate(n: int, effect: float, alpha: float) -> float:
    if effect == 0:
        return alpha
    return float(stats.ncf.sf(stats.f.isf(alpha, 1, n - 1), 1, n - 1, n * effect**2))


def _fewest(enough: Callable[[int], bool], largest: int) -> int | None:
    """Return the smallest n in 2..largest that is enough, given that every larger n is enough too."""
    if not enough(largest):
        return None
    low, high = 1, largest
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _check_seeds(n: int) -> None:
    if n < 2:
        raise ValueError(f"`n` should be at least 2. Found `n = {n}`.")


def _check_share(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ValueError(f"`{name}` should be between 0 and 1. Found `{name} = {value}`.")
