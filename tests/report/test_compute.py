"""Scores are compared at equal images, at equal time, and as one model against two."""

import math
from pathlib import Path
from typing import Any

import pytest
from synthetic_study import METRICS, change, run_of, table_text, write_study

from knowhue.report.conditions import clock, deployment, equal_time, paired_table
from knowhue.report.findings import Findings, find
from knowhue.report.reading import read_study
from knowhue.report.study import Run, Study
from knowhue.report.tables import TABLES
from knowhue.report.text import difference, ends_text, number

METRIC = {"colour": "ab_l1", "class": "balanced_accuracy"}


def run(arm: str, seconds: list[Any], seed: int = 0, looked: float = 0.0, **scores: list[Any]) -> Run:
    """A run whose epochs took `seconds` and ended with these scores."""
    log = tuple(
        {"epoch": i + 1, "seconds": spent, "validation": {name: each[i] for name, each in scores.items()}}
        | ({"diagnostics": [{"seconds": looked / 2}, {"seconds": looked / 2}]} if looked else {})
        for i, spent in enumerate(seconds)
    )
    return Run(arm, seed, "finished", log=log, scores={"metrics": {k: v[-1] for k, v in scores.items()}})


def study(*runs: Run) -> Study:
    arms = dict.fromkeys(each.arm for each in runs)
    table = {arm: {each.seed: each for each in runs if each.arm == arm} for arm in arms}
    return Study({}, table, metrics=METRICS)


def three(seed: int = 0) -> tuple[Run, ...]:
    """Single tasks of 30 and 15 seconds; multi-task takes 40 and moves by one a second."""
    return (
        run("colour", [10, 10, 10], seed, ab_l1=[20.0, 15.0, 12.0]),
        run("class", [5, 5, 5], seed, balanced_accuracy=[0.5, 0.6, 0.7]),
        run("multi", [10, 10, 20], seed, ab_l1=[40.0, 30.0, 10.0], balanced_accuracy=[0.5, 0.6, 0.8]),
    )


def test_the_clock_leaves_out_what_diagnostics_took():
    assert clock(run("multi", [10, 12], looked=2.0, ab_l1=[1, 1])).tolist() == [8, 18]
    assert clock(run("multi", [10, None], ab_l1=[1, 1])).tolist() == []
    assert clock(Run("multi", 0)).tolist() == []


def test_equal_time_reads_the_longer_training_where_the_shorter_one_ended():
    colour, class_ = paired_table(study(*three()), equal_time)
    assert (colour["single"], colour["multi"]) == pytest.approx((12.0, 20.0))
    assert (colour["seconds"], colour["single_seconds"], colour["multi_seconds"]) == (30, 30, 40)
    assert (colour["epochs"], colour["of"], colour["multi_cut"]) == (2.5, 3, 1)
    assert class_["multi"] == pytest.approx(0.55)
    assert class_["epochs"] == 1.5


def test_where_multi_task_is_faster_the_single_task_is_cut():
    slow = run("colour", [20, 20, 20], ab_l1=[30.0, 20.0, 10.0])
    (row,) = paired_table(study(slow, three()[2]), equal_time)
    assert (row["single"], row["multi"]) == pytest.approx((20.0, 10.0))
    assert (row["seconds"], row["multi_cut"], row["epochs"]) == (40, 0, 3)


def test_time_pairs_by_seed_with_a_t_interval():
    runs = [
        each
        for seed, single in enumerate((11.0, 12.0, 13.0))
        for each in (run("colour", [1], seed, ab_l1=[single]), run("multi", [1], seed, ab_l1=[10.0]))
    ]
    (row,) = paired_table(study(*runs), equal_time)
    assert row["seeds"] == (0, 1, 2)
    assert row["difference"] == pytest.approx(-2)
    assert row["interval"] == pytest.approx((-2 - 2.48414, -2 + 2.48414), abs=1e-4)


@pytest.mark.parametrize(
    "single",
    [
        run("colour", [4, 4], ab_l1=[12.0, 11.0]),
        run("colour", [10, None], ab_l1=[12.0, 11.0]),
        run("colour", [10, 10], ab_l1=[12.0, None]),
        run("colour", [10, 10], ab_l1=[12.0, math.nan]),
    ],
    ids=["over before the first epoch", "no seconds", "no last score", "last score not a number"],
)
def test_what_cannot_be_read_at_equal_time_has_no_row(single: Run):
    data = study(single, three()[2])
    assert paired_table(data, equal_time) == []
    rows = TABLES["equal_time"].text(Findings(data, {}, [], {}))
    assert rows[1][2:6] == ["–"] * 4


def test_one_model_against_two():
    found = deployment(study(*three(0), *three(1)))
    assert [(row["what"], row["one"], row["several"]) for row in found[:3]] == [
        ("encoders", 1, 2), ("heads", 2, 2), ("seconds", 40, 45),
    ]  # fmt: skip
    assert [row["seeds"] for row in found[3:]] == [(0, 1), (0, 1)]
    assert [row["difference"] for row in found[3:]] == pytest.approx([-2.0, 0.1])


def test_deployment_counts_the_seeds_that_all_arms_finished():
    found = deployment(study(*three(0), *three(1)[1:]))
    assert found[3]["seeds"] == (0,)
    assert found[3]["interval"] is None


def test_a_missing_arm_leaves_headers_and_dashes():
    data = study(*three()[::2])
    assert deployment(data) == []
    assert len(table_text(data, "deployment")) == 1
    rows = TABLES["equal_images"].rows(find(data))
    assert [each["question"] for each in rows if "single" in each] == ["colour"]
    assert table_text(data, "equal_images")[2] == ["Classification", "Balanced accuracy, %", *["–"] * 4, 0]


def test_unknown_seconds_and_scores_are_dashes_in_deployment():
    colour, _, multi = three()
    unknown = run("class", [5, None, 5], balanced_accuracy=[0.5, 0.6, None])
    found = deployment(study(colour, unknown, multi))
    assert (found[2]["one"], found[2]["several"]) == (40, None)
    assert [row["question"] for row in found[3:]] == ["colour"]
    assert table_text(study(colour, unknown, multi), "deployment")[3] == ["Training", "40.0 s", "–", "–"]


def test_nothing_is_matched_without_two_numbers():
    assert paired_table(study(*three()), lambda *_: ({0: (1.0, math.nan)}, {})) == []
    assert ends_text(None, (0.0, 1.0)) == "–"


def test_equal_images_is_what_was_reported_a_diverged_run_as_declared(tmp_path: Path):
    write_study(tmp_path, seeds=(0, 1))
    change(run_of(tmp_path, "multi", 1) / "status.json", lambda status: status.update(state="diverged"))
    data = read_study(tmp_path)
    colour, _ = TABLES["equal_images"].rows(find(data))
    assert colour["seeds"] == (0, 1)
    assert colour["multi"] == pytest.approx((data.runs["multi"][0].metric("ab_l1") + 15.6) / 2)  # type: ignore[operator]


def test_rows_are_text(eight_seeds: Path):
    data = read_study(eight_seeds)
    for rows in (
        table_text(data, "equal_images"),
        table_text(data, "equal_time"),
        table_text(data, "deployment"),
    ):
        assert len({len(row) for row in rows}) == 1
        assert len(rows) > 2
        assert all(isinstance(cell, str | int) and cell != "–" for row in rows for cell in row)
    assert table_text(data, "deployment")[1] == ["Encoders per image", 1, 2, "−1"]
    assert table_text(data, "deployment")[3][1:] == ["32.0 s", "1 min 4 s", "−50 %"]


def test_no_interval_of_a_difference_of_shares_reaches_beyond_one():
    pairs = {0: (0.0, 0.9), 1: (0.9, 0.3)}
    colour, classes = paired_table(study(*three()), lambda *_: (pairs, {}))
    assert classes["interval"] is None
    assert colour["interval"][1] > 1


def test_a_score_that_is_no_number_is_written_as_that():
    assert number(math.nan) == "nan"
    assert difference(math.nan, 1.0) == difference(1.0, math.nan) == "nan"
    assert ends_text(12.0, (math.nan, 1.0)) == "nan to +1.00"
