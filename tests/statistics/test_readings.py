"""Secondary readings against formulas written anew."""

import itertools

import numpy as np
import pytest
from scipy import integrate, stats

from knowhue.statistics.crossed import Crossed, Part, crossed
from knowhue.statistics.verdicts import beliefs, delta_m


def over_seeds(d):
    """What contrasts make of differences without scores of single images."""
    d = np.asarray(d, float)
    return Crossed(
        d.mean(), len(d), 2, Part(d.var(ddof=1) / len(d), len(d) - 1), Part(0, 1), Part(0, len(d) - 1)
    )


def correlated_t_test(d, rope, rho):
    """Benavoli et al. 2017, section 4.1: P(left), P(rope), P(right) of n differences with correlation rho."""
    n, mean = len(d), np.mean(d)
    scale = np.sqrt(np.var(d, ddof=1) * (1 / n + rho / (1 - rho)))
    left, right = stats.t.cdf(-rope, n - 1, mean, scale), 1 - stats.t.cdf(rope, n - 1, mean, scale)
    return left, 1 - left - right, right


@pytest.mark.parametrize("seed", range(6))
def test_without_a_variance_of_images_it_is_the_correlated_t_test_with_correlation_0(seed):
    rng = np.random.default_rng(seed)
    d, rope = rng.normal(rng.normal(0, 0.5), 0.4, rng.integers(3, 30)), 0.25
    left, rope_, right = correlated_t_test(d, rope, 0.0)
    assert beliefs(over_seeds(d), rope, lower_is_better=False, level=0.95) == pytest.approx(
        (left, rope_, right)
    )
    assert beliefs(over_seeds(d), rope, lower_is_better=True, level=0.95) == pytest.approx(
        (right, rope_, left)
    )


def test_images_that_all_differ_alike_change_nothing():
    d = np.random.default_rng(0).normal(0.1, 0.3, 9)
    table = crossed(np.repeat(d[:, None], 50, axis=1))
    assert table is not None
    assert beliefs(table, 0.2, False, 0.95) == pytest.approx(beliefs(over_seeds(d), 0.2, False, 0.95))


def test_over_images_the_interval_of_the_verdict_is_the_central_part_of_the_posterior():
    rng = np.random.default_rng(1)
    found = crossed(rng.normal(0.1, 1, (1, 60)) + rng.normal(0, 0.2, (9, 1)) + rng.normal(0, 0.5, (9, 60)))
    assert found is not None
    for level in (0.9, 0.975):
        low, high = found.interval(level)
        # a region from -high to high, seen from the estimate, leaves a tail of (1 - level) / 2 above
        centred = found._replace(estimate=0.0)
        tails = beliefs(centred, (high - low) / 2, False, level)
        assert tails == pytest.approx(((1 - level) / 2, level, (1 - level) / 2))


def test_probabilities_are_the_integrals_of_the_density():
    found = Crossed(0.3, 10, 40, Part(0.04, 9), Part(0.09, 39), Part(0.01, 351))
    part = found.widest(0.95)
    density = stats.t(part.freedom, 0.3, part.variance**0.5).pdf
    edges = (-np.inf, -0.25, 0.25, np.inf)
    expected = [integrate.quad(density, *ends)[0] for ends in itertools.pairwise(edges)]
    assert beliefs(found, 0.25, False, 0.95) == pytest.approx(expected, abs=1e-7)
    assert part.variance > 0.09  # both chances count


@pytest.mark.parametrize(("estimate", "expected"), [(0.1, (0, 1, 0)), (0.3, (0, 0, 1)), (-0.3, (1, 0, 0))])
def test_without_any_spread_it_is_certain(estimate, expected):
    assert beliefs(over_seeds([estimate] * 8), 0.25, False, 0.95) == expected


def test_far_tails_keep_their_digits():
    tiny = beliefs(over_seeds(5 + np.linspace(-0.01, 0.01, 30)), 0.1, False, 0.95)
    assert 0 < tiny.worse < 1e-50
    assert tiny.better == pytest.approx(1)


def test_delta_m_is_the_formula_of_the_papers():
    rng = np.random.default_rng(2)
    error, accuracy = rng.uniform(10, 13, (7, 2)), rng.uniform(0.4, 0.9, (7, 2))
    expected = [
        100 / 2 * (-(e[1] - e[0]) / e[0] + (a[1] - a[0]) / a[0]) for e, a in zip(error, accuracy, strict=True)
    ]
    found = delta_m([error, accuracy], [True, False])
    assert found is not None
    assert (100 * found).tolist() == pytest.approx(expected)


def test_delta_m_of_scores_that_are_no_ratios_is_none_and_of_other_shapes_refused():
    assert delta_m([[[0.0, 1.0]]], [True]) is None
    assert delta_m([[[-3.0, -2.0]]], [False]) is None
    with pytest.raises(ValueError, match="one table"):
        delta_m([[[1.0, 1.0]]], [True, False])
