"""The tidy table alone is enough for a contrast and a family of tests, without runs or folders."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from knowhue.report.contrasts import BOTH, contrast, family_tests, image_differences
from knowhue.report.study import Run, Score, ScoreTable
from knowhue.statistics.crossed import crossed
from knowhue.statistics.paired import sign_flip_p

ABOUT = {"ab_l1": {"better": "lower"}, "accuracy": {"better": "higher", "unit": "share"}}
LABELS = ("coral", "slug")


def totals(differences, metric: str = "ab_l1", level: float = 12.0) -> list[Score]:
    """Rows of two arms that differ by these, seed by seed."""
    return [
        Score(arm, seed, metric, level + seed / 100 + gap * (arm == "multi"))
        for seed, gap in enumerate(differences)
        for arm in ("colour", "multi")
    ]


def of_images(scores: np.ndarray, arm: str, metric: str = "ab_l1") -> list[Score]:
    """Rows of single images, (seeds, images), whose classes take turns."""
    return [
        Score(arm, seed, metric, float(scores[seed, image]), LABELS[image % 2], image)
        for seed, image in product(range(scores.shape[0]), range(scores.shape[1]))
    ]


@pytest.mark.parametrize("shuffle", range(3))
def test_a_contrast_is_the_same_whatever_the_order_of_the_rows(shuffle: int):
    gaps = np.random.default_rng(0).normal(size=9)
    rows = totals(gaps)
    np.random.default_rng(shuffle).shuffle(rows)  # type: ignore[arg-type]
    found = contrast(ScoreTable([Score(*row) for row in rows], ABOUT), "ab_l1", "colour", "multi")
    assert found is not None
    assert found.seeds == tuple(range(9))
    assert found.differences == pytest.approx(gaps)
    assert found.p == sign_flip_p(gaps)
    expected = stats.t.interval(0.95, 8, gaps.mean(), stats.sem(gaps))
    assert (found.bounds(0.95).interval, found.bounds(0.95).over) == (pytest.approx(expected), "seeds")


def test_swapped_arms_turn_the_difference_and_nothing_else():
    table = ScoreTable(totals([0.3, -0.1, 0.2, 0.4]), ABOUT)
    there, back = (contrast(table, "ab_l1", *arms) for arms in (("colour", "multi"), ("multi", "colour")))
    assert there is not None
    assert back is not None
    assert back.estimate == pytest.approx(-there.estimate)
    assert back.p == there.p
    low, high = there.bounds(0.9).interval
    assert back.bounds(0.9).interval == pytest.approx((-high, -low))
    assert there.better != back.better


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_leaves_its_seed_out(value: float):
    rows = [*totals([0.1, 0.2, 0.3]), Score("colour", 3, "ab_l1", 12.0), Score("multi", 3, "ab_l1", value)]
    found = contrast(ScoreTable(rows, ABOUT), "ab_l1", "colour", "multi")
    assert found is not None
    assert found.seeds == (0, 1, 2)


def test_arms_without_a_common_seed_or_metric_have_no_contrast():
    table = ScoreTable([Score("colour", 0, "ab_l1", 1.0), Score("multi", 1, "ab_l1", 1.0)], ABOUT)
    assert contrast(table, "ab_l1", "colour", "multi") is None
    assert contrast(table, "accuracy", "colour", "multi") is None


def test_declared_scores_count_in_contrasts_and_never_among_the_finished():
    declared = [Score("multi", 2, "ab_l1", 20.0)]
    rows = [*totals([0.1, 0.2]), Score("colour", 2, "ab_l1", 12.0)]
    table = ScoreTable(rows, ABOUT, declared)
    found = contrast(table, "ab_l1", "colour", "multi")
    assert found is not None
    assert found.scores[2].tolist() == [12.0, 20.0]
    assert found.diverged == (("multi", 2),)
    assert found.images is None
    assert sorted(table.finished("multi", "ab_l1")) == [0, 1]
    assert sorted(table.scores("multi", "ab_l1")) == [0, 1, 2]


def test_with_scores_of_single_images_the_interval_is_that_of_the_crossed_table():
    generator = np.random.default_rng(1)
    before, after = generator.normal(12, 1, (2, 8, 30))
    rows = [*of_images(before, "colour"), *of_images(after, "multi")]
    rows += [Score("colour", s, "ab_l1", float(before[s].mean())) for s in range(8)]
    rows += [Score("multi", s, "ab_l1", float(after[s].mean())) for s in range(8)]
    found = contrast(ScoreTable(rows, ABOUT), "ab_l1", "colour", "multi")
    parts = crossed(after - before)
    assert found is not None
    assert parts is not None
    assert found.bounds(0.975).over == BOTH
    assert found.bounds(0.975).interval == pytest.approx(parts.interval(0.975))


def test_of_a_class_only_its_images_count_and_balanced_accuracy_groups_them():
    right = (np.random.default_rng(2).random((2, 3, 40)) < 0.7).astype(float)
    table = ScoreTable(
        [*of_images(right[0], "class", "accuracy"), *of_images(right[1], "multi", "accuracy")], ABOUT
    )
    arms = ("class", "multi")
    coral = image_differences(table, "accuracy", arms, (0, 1, 2), "coral")
    assert coral is not None
    np.testing.assert_array_equal(coral.differences, (right[1] - right[0])[:, ::2])
    grouped = image_differences(table, "balanced_accuracy", arms, (0, 1, 2))
    assert grouped is not None
    assert grouped.binary
    np.testing.assert_array_equal(grouped.groups, np.arange(40) % 2)


def test_runs_of_other_images_are_not_paired_image_by_image():
    rows = [Score("colour", 0, "ab_l1", 1.0, "", 3), Score("multi", 0, "ab_l1", 1.0, "", 4)]
    assert image_differences(ScoreTable(rows, ABOUT), "ab_l1", ("colour", "multi"), (0,)) is None


def test_a_family_is_adjusted_as_scipy_does_and_one_seed_has_no_p():
    several = {
        name: contrast(ScoreTable(totals(gaps), ABOUT), "ab_l1", "colour", "multi")
        for name, gaps in {
            "clear": [0.5, 0.6, 0.7, 0.4, 0.5, 0.6, 0.5, 0.7],
            "open": [0.1, -0.2, 0.3, -0.1, 0.2, -0.3, 0.1, 0.1],
        }.items()
    }
    single = contrast(ScoreTable(totals([0.5]), ABOUT), "ab_l1", "colour", "multi")
    found = family_tests({**several, "single": single, "missing": None})
    assert list(found) == ["clear", "open", "single"]
    expected = stats.false_discovery_control([found["clear"].p, found["open"].p])
    assert [found[name].p_adjusted for name in several] == pytest.approx(expected.tolist())
    assert (found["single"].p, found["single"].p_adjusted, found["single"].is_clear) == (None, None, False)
    # significant by the seeds alone, which is not enough for a mark
    assert found["clear"].p_adjusted < 0.05
    assert not found["clear"].is_clear


def test_images_without_a_label_count_in_no_metric_of_classes():
    rows = (
        {"index": 0, "label": "", "ab_l1": 3.0, "correct": None},
        {"index": 1, "label": "a", "correct": 1.0},
    )
    found = list(Run("multi", 0, "finished", images=rows).image_scores())
    assert [(row.metric, row.image, row.label) for row in found] == [("ab_l1", 0, ""), ("accuracy", 1, "a")]
