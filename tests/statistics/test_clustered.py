"""Clustered means and the jackknife over groups: formulas, simulation and verdicts."""

import numpy as np
import pytest
from scipy import stats

from knowhue.statistics import FEWEST_IMAGES
from knowhue.statistics.clustered import (
    GROUPS,
    ClusteredMean,
    Nearness,
    clustered_mean,
    deal_groups,
    jackknifed,
    judge_nearness,
)
from knowhue.statistics.paired import t_interval


def test_without_clusters_it_is_students_t():
    d = np.random.default_rng(0).normal(0.3, 1, 40)
    found = clustered_mean(d)
    assert found.interval(0.95) == pytest.approx(t_interval(d))
    assert found.p == pytest.approx(stats.ttest_1samp(d, 0).pvalue)


def test_clusters_of_one_are_no_clusters_and_whole_copies_add_nothing():
    d = np.random.default_rng(1).normal(0.3, 1, 20)
    alone = clustered_mean(d)
    assert clustered_mean(d, list(range(20)))[1:] == pytest.approx(alone[1:])
    copied = clustered_mean(np.tile(d, 5), list(range(20)) * 5)
    assert copied == pytest.approx(alone)
    assert clustered_mean(np.tile(d, 5)).error < 0.5 * alone.error  # what would be claimed without them


def test_it_is_the_sandwich_of_a_regression_on_a_constant():
    random = np.random.default_rng(2)
    clusters = random.integers(0, 9, 50)
    d = random.normal(size=50) + clusters
    ones = np.ones((50, 1))
    bread = np.linalg.inv(ones.T @ ones)
    scores = [ones[clusters == each].T @ (d - d.mean())[clusters == each] for each in np.unique(clusters)]
    meat = sum(np.outer(each, each) for each in scores)
    expected = (bread @ meat @ bread)[0, 0] * 9 / 8
    found = clustered_mean(d, clusters.tolist())
    assert (found.error**2, found.freedom) == (pytest.approx(expected), 8)


def test_order_does_not_matter_and_a_swap_flips_the_sign_exactly():
    random = np.random.default_rng(3)
    first, second, clusters = random.normal(size=60), random.normal(size=60), list(range(12)) * 5
    one, other = clustered_mean(first - second, clusters), clustered_mean(second - first, clusters)
    assert (one.estimate, one.error, one.p) == (-other.estimate, other.error, other.p)


@pytest.mark.parametrize("groups", [0, 25])
def test_no_difference_is_claimed_at_the_nominal_rate(groups):
    random, claims, covered = np.random.default_rng(4), 0, 0
    for _ in range(1000):
        clusters = np.repeat(np.arange(groups), 8) if groups else np.arange(200)
        d = random.normal(size=200) + (random.normal(size=groups)[clusters] if groups else 0)
        found = clustered_mean(d, clusters.tolist() if groups else ())
        low, high = found.interval(0.95)
        covered, claims = covered + (low <= 0 <= high), claims + (found.p <= 0.05)
    # within four standard errors of .05, and intervals and p agree
    assert abs(claims / 1000 - 0.05) < 4 * (0.05 * 0.95 / 1000) ** 0.5
    assert claims + covered == 1000


def test_few_images_tell_nothing_and_equal_ones_all():
    alone = clustered_mean([0.5])
    few = clustered_mean([-1.0, -1.0001] * 9 + [-1.0])
    assert (few.interval(0.95), few.p, few.estimate) == (None, 1.0, pytest.approx(-1, abs=1e-3))
    assert (alone.interval(0.95), alone.p) == (None, 1.0)
    assert clustered_mean([0.5, 0.7] * 10, ["a"] * 20).interval(0.95) is None
    assert clustered_mean([0.1] * 20) == (0.1, 0.0, 19)
    assert (clustered_mean([0.1] * 20).p, clustered_mean([0.0] * 20).p) == (0.0, 1.0)


@pytest.mark.parametrize("values", [[], [[1.0]], [float("nan")]])
def test_other_values_are_refused(values):
    with pytest.raises(ValueError, match="`values` should be finite"):
        clustered_mean(values)


def test_clusters_of_another_length_are_refused():
    with pytest.raises(ValueError, match="as many `clusters`"):
        clustered_mean([1.0, 2.0], ["a"])


WORDS = [
    (-0.5, 0.1, True, Nearness.NEARER),
    (0.5, 0.1, True, Nearness.FARTHER),
    (0.5, 0.1, False, Nearness.NEARER),
    (-0.1, 0.01, True, Nearness.NEARER_LITTLE),
    (0.1, 0.01, True, Nearness.FARTHER_LITTLE),
    (0.01, 0.05, True, Nearness.AS_NEAR),
    (0.2, 0.2, True, Nearness.CANNOT_TELL),
]


@pytest.mark.parametrize(("estimate", "error", "lower", "word"), WORDS)
def test_every_word_is_said(estimate, error, lower, word):
    assert judge_nearness(ClusteredMean(estimate, error, 99), 0.25, 0.05, 2, lower) is word


def test_no_spread_is_known_of_few_images():
    assert judge_nearness(clustered_mean([0.5] * 19), 0.25, 0.05, 1, True) is Nearness.UNKNOWN


def test_answers_that_agree_on_all_images_are_not_shown_to_be_as_near():
    """With 20 images the share of those that would differ may still be .14, by the rule of three."""
    same = clustered_mean([0.0] * 20, binary=True)
    assert same.interval(0.95)[1] > 0.14
    assert judge_nearness(same, 0.01, 0.05, 1, lower_is_better=False) is Nearness.CANNOT_TELL
    many = clustered_mean([0.0] * 2000, binary=True)
    assert judge_nearness(many, 0.01, 0.05, 1, lower_is_better=False) is Nearness.AS_NEAR


def test_two_more_images_are_counted_by_clusters_where_these_change_together():
    values, clusters = [1.0] * 10 + [0.0] * 90, [f"{number // 10}" for number in range(100)]
    plain, more = (clustered_mean(values, clusters, binary=each) for each in (False, True))
    assert more.error**2 - plain.error**2 == pytest.approx(2 * (10 / 100) ** 2)
    assert more.estimate == plain.estimate
    alone = clustered_mean(values, binary=True).error ** 2 - clustered_mean(values).error ** 2
    assert alone == pytest.approx(2 / 100**2)


VALUES = np.random.default_rng(0).exponential(size=400)


def left_out(groups, statistic, values=VALUES):
    return np.array([statistic(values[groups != number]) for number in range(groups.max() + 1)])


def test_of_a_mean_it_is_the_mean_and_its_error_over_groups():
    groups = deal_groups(len(VALUES))
    found = jackknifed(VALUES.mean(), left_out(groups, np.mean), np.bincount(groups))
    means = np.array([VALUES[groups == number].mean() for number in range(GROUPS)])
    assert found.estimate == pytest.approx(VALUES.mean())
    assert found.error == pytest.approx(means.std(ddof=1) / GROUPS**0.5)
    assert found.freedom == GROUPS - 1


def test_unequal_groups_give_about_the_error_over_clusters():
    clusters = np.repeat(np.arange(60), np.random.default_rng(1).integers(1, 14, 60))
    values = np.random.default_rng(2).normal(size=60)[clusters] + 0.1 * np.random.default_rng(3).normal(
        size=len(clusters)
    )
    groups = deal_groups(len(values), clusters.tolist())
    found = jackknifed(values.mean(), left_out(groups, np.mean, values), np.bincount(groups))
    assert found.estimate == pytest.approx(values.mean())
    assert found.error == pytest.approx(clustered_mean(values, clusters.tolist()).error, rel=0.3)


def test_the_bias_of_a_variance_goes():
    groups = deal_groups(40)
    few = VALUES[:40]
    found = jackknifed(few.var(), left_out(groups, np.var, few), np.bincount(groups))
    assert found.estimate == pytest.approx(few.var(ddof=1), rel=0.01)
    assert few.var() < 0.98 * found.estimate


def test_clusters_stay_whole_and_groups_are_alike_in_size():
    clusters = [f"class{number % 50}" for number in range(1003)]
    groups = deal_groups(len(clusters), clusters)
    assert all(len({groups[n] for n in range(1003) if clusters[n] == name}) == 1 for name in set(clusters))
    assert np.ptp(np.bincount(groups, minlength=GROUPS)) <= 21
    assert deal_groups(100, ["a", "b"] * 50).max() == 1


def test_few_images_or_one_group_tell_nothing():
    assert deal_groups(FEWEST_IMAGES - 1).max() == 0
    assert jackknifed(3.0, np.array([np.nan]), np.array([40])).interval(0.95) is None


def test_what_touches_the_margin_is_not_below_it_however_it_is_rounded():
    same = clustered_mean([0.03 - 0.02] * 20)  # 0.00999... for 0.01
    assert same.estimate < 0.01
    assert judge_nearness(same, 0.01, 0.05, 1, lower_is_better=True) is Nearness.FARTHER
