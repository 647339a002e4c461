"""The best of several epochs is better than the last one by what was planted."""

import math
from pathlib import Path
from typing import Any

import pytest
from synthetic_study import table_text

from knowhue.report.conditions import best_epochs
from knowhue.report.reading import read_study
from knowhue.report.study import Run, Study


def run(arm: str, seed: int, metric: str, values: list[Any], state: str = "finished") -> Run:
    log = tuple({"epoch": i + 1, "validation": {metric: value}} for i, value in enumerate(values))
    return Run(arm, seed, state, log=log)


def study(*runs: Run) -> Study:
    arms = dict.fromkeys(each.arm for each in runs)
    return Study({}, {arm: {each.seed: each for each in runs if each.arm == arm} for arm in arms})


def test_planted_optimism_is_found_in_the_direction_of_better():
    low = [run("colour", seed, "ab_l1", [14.0, 12.0 - seed, 12.5]) for seed in (0, 1, 2)]
    high = [run("class", seed, "balanced_accuracy", [0.5, 0.75, 0.7]) for seed in (0, 1)]
    colour, class_ = best_epochs(study(*low, *high))
    assert (colour["arm"], colour["seeds"], colour["epochs"]) == ("colour", (0, 1, 2), (2, 2, 2))
    assert (colour["last"], colour["best"], colour["difference"]) == pytest.approx((12.5, 11.0, 1.5))
    assert colour["interval"] == pytest.approx((1.5 - 4.30265 / 3**0.5, 1.5 + 4.30265 / 3**0.5), abs=1e-4)
    assert class_["difference"] == pytest.approx(0.05)


def test_a_run_that_is_best_at_its_end_has_none_and_a_tie_is_of_the_first():
    (row,) = best_epochs(study(run("class", 0, "balanced_accuracy", [0.5, 0.84, 0.7, 0.8400000000000001])))
    assert row["difference"] == pytest.approx(0, abs=1e-12)
    assert row["epochs"] == (2,)
    assert row["interval"] is None


@pytest.mark.parametrize("hole", [None, math.nan])
def test_missing_scores_are_passed_over_but_not_the_last_one(hole: Any):
    (row,) = best_epochs(
        study(run("colour", 0, "ab_l1", [hole, 12.0, 13.0]), run("colour", 1, "ab_l1", [9.0, hole]))
    )
    assert (row["seeds"], row["difference"]) == ((0,), 1.0)


def test_an_unfinished_run_and_an_empty_log_have_no_row():
    assert (
        best_epochs(study(run("colour", 0, "ab_l1", [9.0, 12.0], "diverged"), Run("class", 0, "finished")))
        == []
    )
    assert len(table_text(study(), "best_epochs")) == 1


def test_rows_are_text_of_every_arm_and_metric(eight_seeds: Path):
    rows = table_text(read_study(eight_seeds), "best_epochs")
    assert [row[:2] for row in rows[1:]] == [
        ["Single-task classification", "Balanced accuracy, %"],
        ["Single-task colouring", "Mean absolute error of a*b*, CIELAB units"],
        ["Multi-task", "Mean absolute error of a*b*, CIELAB units"],
        ["Multi-task", "Balanced accuracy, %"],
    ]
    assert {len(row) for row in rows} == {8}
    assert all(row[-1] == 8 and row[6].startswith("epoch") for row in rows[1:])
