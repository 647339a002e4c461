"""Numbers of seeds: the protocol's table, parity with the noncentral t, and the power that is really had."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from knowhue.statistics.power import detectable_effect, equivalence_seeds, noether_seeds, power, seeds_needed

levels = st.sampled_from([0.001, 0.01, 0.025, 0.05, 0.2])
MONTE_CARLO = 20_000


@pytest.mark.parametrize(
    ("seeds", "at_5", "at_2_5"),
    [(5, 1.68, 2.05), (7, 1.27, 1.49), (10, 1.00, 1.14), (20, 0.66, 0.74), (30, 0.53, 0.59)],
)
def test_the_table_of_the_protocol(seeds: int, at_5: float, at_2_5: float):
    assert [round(detectable_effect(seeds, alpha), 2) for alpha in (0.05, 0.025)] == [at_5, at_2_5]


def test_the_other_numbers_of_the_protocol():
    assert equivalence_seeds(0.5, 0.05) == 36
    assert noether_seeds(0.75, alpha=0.05, power=0.95) == 29


@given(st.integers(2, 60), st.floats(0.05, 2.5), levels)
@settings(deadline=None, max_examples=100)
def test_power_is_two_tails_of_the_noncentral_t(n: int, effect: float, alpha: float):
    critical, shift = stats.t.isf(alpha / 2, n - 1), effect * math.sqrt(n)
    near = stats.nct.sf(critical, n - 1, shift)
    assert near - 1e-9 <= power(n, effect, alpha) <= near + stats.norm.cdf(-shift) * alpha + 1e-9
    if shift < 3:  # above, scipy's far tail is not a number
        assert power(n, effect, alpha) == pytest.approx(near + stats.nct.cdf(-critical, n - 1, shift))


def chance_of_equivalence(n: int, margin: float, alpha: float) -> float:
    """By integrating over the sample's standard deviation, with no approximation."""
    critical = stats.t.isf(alpha, n - 1)

    def at(spread: float) -> float:
        free = margin * math.sqrt(n) - critical * spread / math.sqrt(n - 1)
        return float(stats.chi.pdf(spread, n - 1) * (2 * stats.norm.cdf(free) - 1))

    return integrate.quad(at, 0, margin * math.sqrt(n * (n - 1)) / critical, limit=200)[0]


@pytest.mark.parametrize("alpha", [0.025, 0.05])
@pytest.mark.parametrize("margin", [0.3, 0.5, 1.0, 2.0])
def test_equivalence_seeds_are_the_fewest_by_integration(margin: float, alpha: float):
    found = equivalence_seeds(margin, alpha)
    assert found is not None
    assert (
        chance_of_equivalence(found - 1, margin, alpha) < 0.8 <= chance_of_equivalence(found, margin, alpha)
    )


@given(st.floats(0.1, 3), levels, st.sampled_from([0.5, 0.8, 0.95]))
@settings(deadline=None, max_examples=40)
def test_seeds_needed_are_the_fewest(effect: float, alpha: float, wanted: float):
    found = seeds_needed(effect, alpha, wanted)
    assert found is not None
    assert power(found, effect, alpha) >= wanted
    assert found == 2 or power(found - 1, effect, alpha) < wanted
    assert seeds_needed(-effect, alpha, wanted) == found
    assert seeds_needed(effect, alpha, wanted, largest=max(2, found - 1)) == (2 if found == 2 else None)


@given(st.integers(2, 100), levels, st.sampled_from([0.5, 0.8, 0.95]))
@settings(deadline=None, max_examples=40)
def test_detectable_effect_has_the_power_asked_for(n: int, alpha: float, wanted: float):
    effect = detectable_effect(n, alpha, wanted)
    assert power(n, effect, alpha) == pytest.approx(wanted, abs=1e-6)
    assert detectable_effect(n + 1, alpha, wanted) < effect


def test_no_effect_is_found_at_the_level_and_never_needs_a_number():
    assert power(10, 0.0, 0.05) == 0.05
    assert power(10, 1e-6, 0.05) == pytest.approx(0.05)
    assert seeds_needed(0.0, 0.05) is None
    assert seeds_needed(0.001, 0.05) is None
    assert equivalence_seeds(0.001, 0.05) is None


def test_a_planted_effect_is_found_as_often_as_promised():
    d = np.random.default_rng(3).normal(0.66, 1.0, (MONTE_CARLO, 20))
    found = np.mean(stats.ttest_1samp(d, 0, axis=1).pvalue <= 0.05)
    assert found == pytest.approx(power(20, 0.66, 0.05), abs=3.5 * math.sqrt(0.16 / MONTE_CARLO))


def test_noether_seeds_give_the_rank_sum_test_its_power():
    """Two normal arms with P(better) = 3/4; the test is at the one-sided level."""
    generator = np.random.default_rng(4)
    shift = math.sqrt(2) * stats.norm.ppf(0.75)
    multi, single = generator.normal(shift, 1, (4000, 29)), generator.normal(0, 1, (4000, 29))
    p = stats.mannwhitneyu(multi, single, alternative="greater", axis=1, method="asymptotic").pvalue
    assert np.mean(p <= 0.05) == pytest.approx(0.95, abs=0.02)


def test_noether_is_symmetric_and_needs_more_for_less():
    assert noether_seeds(0.25) == noether_seeds(0.75)
    assert noether_seeds(0.6) > noether_seeds(0.75) > noether_seeds(1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power(1, 1.0, 0.05), r"`n` should be at least 2\. Found `n = 1`\."),
        (lambda: power(5, 1.0, 0.0), r"`alpha` should be between 0 and 1\. Found `alpha = 0.0`\."),
        (lambda: seeds_needed(1.0, 0.05, 1.0), r"`power` should be between 0 and 1\. Found `power = 1.0`\."),
        (lambda: detectable_effect(5, 0.05, 0.01), r"`power` should be between `alpha = 0.05` and 1\. Found"),
        (lambda: equivalence_seeds(0.0, 0.05), r"`margin_in_sd` should be above 0\. Found"),
        (
            lambda: noether_seeds(0.5),
            r"`probability` should be in 0\.\.1, not 1/2\. Found `probability = 0.5`\.",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()
