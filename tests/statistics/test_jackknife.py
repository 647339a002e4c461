"""The jackknife over groups: known values, groups that stay whole, bias that goes away."""

import numpy as np
import pytest

from knowhue.statistics import FEWEST_IMAGES
from knowhue.statistics.clustered import GROUPS, clustered_mean, deal_groups, jackknifed

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
