"""Diagnostics are summed up as planted, and said to foretell the transfer only where they do."""

import math
from pathlib import Path
from typing import Any

import pytest
from synthetic_study import table_text

from knowhue.report.diagnostics import DIAGNOSTICS, diagnosed, diagnostic_means, predictions
from knowhue.report.reading import read_study
from knowhue.report.study import Run, Study

SEVEN = (0.3, -0.1, 0.7, 0.2, -0.4, 0.5, 0.1)


def look(cosine: float | None = 0.1, **more: Any) -> dict[str, Any]:
    usual = {
        "cosine_pixel": cosine, "cosine_adversarial": -0.2, "cosine_colour": cosine,
        "norm_class": 2.0, "norm_pixel": 0.3, "norm_adversarial": 0.4,
        "affinity_class_to_colour": 0.01, "affinity_colour_to_class": -0.02, "seconds": 1.0,
    }  # fmt: skip
    return usual | more


def multi(seed: int, looks: list[dict[str, Any]], score: float = 12.0, state: str = "finished") -> Run:
    log = (
        {"phase": "heads", "seconds": 100.0},
        {"phase": "finetune", "seconds": 10.0, "diagnostics": looks[:1]},
        {"phase": "finetune", "seconds": 10.0, "diagnostics": looks[1:]},
    )
    return Run("multi", seed, state, log=log, scores={"metrics": {"ab_l1": score}})


def colour(seed: int) -> Run:
    return Run("colour", seed, "finished", scores={"metrics": {"ab_l1": 12.0}})


def study(*runs: Run) -> Study:
    arms = dict.fromkeys(each.arm for each in runs)
    return Study({}, {arm: {each.seed: each for each in runs if each.arm == arm} for arm in arms})


def planted(transfer: tuple[float, ...] = SEVEN, sign: int = 1) -> Study:
    """The cosine of a seed is by how much multi-task is better there."""
    pairs = [(colour(s), multi(s, [look(sign * gain)], 12.0 - gain)) for s, gain in enumerate(transfer)]
    return study(*(run for pair in pairs for run in pair))


def by_name(data: Study, question: str = "colour") -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in predictions(data) if each["question"] == question}


def test_one_run_is_summed_up():
    looks = [look(0.5, affinity_class_to_colour=0.1), look(-0.1), look(-0.1, affinity_class_to_colour=-9.0)]
    found = diagnosed(study(multi(3, looks)), "multi")[3]
    assert found["cosine_pixel"] == pytest.approx(0.1)
    assert found["conflict_pixel"] == pytest.approx(2 / 3)
    assert found["conflict_adversarial"] == 1
    assert found["norm_ratio"] == pytest.approx(4)  # 2 over the hypotenuse of 0.3 and 0.4
    assert found["affinity_class_to_colour"] == 0.01  # the median stays what a bad step is not
    assert found["cost"] == pytest.approx(3 / 20)


@pytest.mark.parametrize("hole", [None, math.nan])
def test_missing_values_are_passed_over(hole: Any):
    plain = {name: hole for name in look() if "adversarial" in name} | {"norm_class": hole}
    found = diagnosed(study(multi(0, [look(0.3), look(hole, **plain)])), "multi")[0]
    assert found["cosine_pixel"] == pytest.approx(0.3)
    assert found["norm_ratio"] == pytest.approx(4)
    none = diagnosed(study(multi(0, [look(hole, **plain)])), "multi")[0]
    assert none["cosine_pixel"] is none["norm_ratio"] is none["cosine_adversarial"] is None


def test_plain_regression_has_no_adversarial_row():
    alone = {name: value for name, value in look().items() if "adversarial" not in name}
    found = {each["name"]: each for each in diagnostic_means(study(multi(0, [alone])))}
    assert "cosine_adversarial" not in found
    assert found["norm_ratio"]["mean"] == pytest.approx(2 / 0.3)
    assert found["norm_ratio"]["interval"] is None


def test_means_are_over_seeds():
    found = diagnostic_means(
        study(*(multi(seed, [look(value)]) for seed, value in enumerate((0.1, 0.2, 0.3))))
    )
    (row,) = [each for each in found if each["name"] == "cosine_colour"]
    assert (row["seeds"], row["lowest"], row["highest"]) == ((0, 1, 2), 0.1, 0.3)
    assert row["mean"] == pytest.approx(0.2)
    assert row["interval"] == pytest.approx((0.2 - 0.248414, 0.2 + 0.248414), abs=1e-5)


def test_a_diagnostic_that_is_the_transfer_foretells_it():
    found = by_name(planted())["cosine_pixel"]
    assert found["correlation"] == pytest.approx(1)
    assert found["p"] == pytest.approx(
        2 / math.factorial(7)
    )  # exact: of 5040 pairings one is as good, one as bad
    assert (found["seeds"], found["word"]) == (7, "yes in sign")


def test_the_wrong_sign_foretells_nothing():
    found = by_name(planted(sign=-1))["cosine_pixel"]
    assert found["correlation"] == pytest.approx(-1)
    assert found["word"] == "no"


def test_what_is_the_same_for_all_seeds_foretells_nothing():
    found = by_name(planted())
    assert (found["cosine_adversarial"]["correlation"], found["cosine_adversarial"]["word"]) == (None, "no")
    assert found["norm_ratio"]["word"] == found["affinity_colour_to_class"]["word"] == "no promise"


def test_more_seeds_than_can_be_counted_out_are_drawn():
    found = by_name(planted(tuple(0.1 * i for i in range(12))))["cosine_pixel"]
    assert found["correlation"] == pytest.approx(1)
    assert found["p"] == pytest.approx(2 / 10_000)


def test_six_seeds_give_no_correlation():
    found = by_name(planted(SEVEN[:6]))["cosine_pixel"]
    assert (found["seeds"], found["correlation"], found["p"], found["word"]) == (
        6,
        None,
        None,
        "too few seeds",
    )


def test_a_question_without_pairs_has_too_few_seeds():
    assert {each["word"] for each in by_name(planted(), "class").values()} == {"too few seeds"}


def test_a_running_run_is_not_counted_and_a_diverged_one_is():
    data = study(
        multi(0, [look()]), multi(1, [look()], state="diverged"), multi(2, [look()], state="running")
    )
    assert list(diagnosed(data, "multi")) == [0, 1]


def test_a_log_without_diagnostics_gives_headers_alone(eight_seeds: Path):
    data = read_study(eight_seeds)
    assert predictions(data) == diagnostic_means(data) == []
    tables = (table_text(data, "predictions"), table_text(data, "diagnostics"))
    assert [len(table) for table in tables] == [1, 1]


def test_rows_are_text():
    data = planted()
    tables = (table_text(data, "predictions"), table_text(data, "diagnostics"))
    assert [len(table) for table in tables] == [1 + 2 * len(DIAGNOSTICS), 2 + len(DIAGNOSTICS)]
    assert all(len({len(row) for row in table}) == 1 for table in tables)
    assert tables[0][1] == [
        "Cosine, cross-entropy and pixel loss",
        "Colouring",
        "+1.00",
        "<0.001",
        7,
        "yes in sign",
    ]


@pytest.mark.parametrize("name", ["conflict_pixel", "cosine_pixel", "norm_ratio"])
def test_no_interval_over_seeds_leaves_what_a_diagnostic_can_be(name):
    """Steps in conflict: all of them in one seed, and none in another."""
    data = study(*(multi(seed, [look(value, norm_class=norm)])
                   for seed, (value, norm) in enumerate(((-0.99, 0.01), (0.9, 9.0), (-0.98, 0.1)))))  # fmt: skip
    found = {each["name"]: each for each in diagnostic_means(data)}[name]
    assert found["interval"] is None
    rows = {row[0]: row for row in table_text(data, "diagnostics")}
    assert rows[DIAGNOSTICS[name].title][2] == "none: too few seeds"
