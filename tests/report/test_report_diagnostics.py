"""Diagnostics are summarised correctly, and predict transfer only if they really do."""

import math
from pathlib import Path
from typing import Any

import pytest
from synthetic_study import run_of, table_text, write_study

from knowhue.report.diagnostics import (
    DIAGNOSTICS,
    diagnostic_means,
    gradient_table,
    gradient_warnings,
    predictions,
    run_diagnostics,
)
from knowhue.report.page import write_report
from knowhue.report.reading import read_study
from knowhue.report.study import Run, Study
from knowhue.storage import read_json, write_json

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
    found = run_diagnostics(study(multi(3, looks)), "multi")[3]
    assert found["cosine_pixel"] == pytest.approx(0.1)
    assert found["conflict_pixel"] == pytest.approx(2 / 3)
    assert found["conflict_adversarial"] == 1
    assert found["norm_ratio"] == pytest.approx(4)  # 2 over the hypotenuse of 0.3 and 0.4
    assert found["affinity_class_to_colour"] == 0.01  # the median stays what a bad step is not
    assert found["cost"] == pytest.approx(3 / 20)


@pytest.mark.parametrize("hole", [None, math.nan])
def test_missing_values_are_passed_over(hole: Any):
    plain = {name: hole for name in look() if "adversarial" in name} | {"norm_class": hole}
    found = run_diagnostics(study(multi(0, [look(0.3), look(hole, **plain)])), "multi")[0]
    assert found["cosine_pixel"] == pytest.approx(0.3)
    assert found["norm_ratio"] == pytest.approx(4)
    none = run_diagnostics(study(multi(0, [look(hole, **plain)])), "multi")[0]
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
    assert (found["seeds"], found["word"]) == (7, "yes")


def test_the_wrong_sign_foretells_nothing():
    found = by_name(planted(sign=-1))["cosine_pixel"]
    assert found["correlation"] == pytest.approx(-1)
    assert found["word"] == "no"


def test_what_is_the_same_for_all_seeds_foretells_nothing():
    found = by_name(planted())
    assert (found["cosine_adversarial"]["correlation"], found["cosine_adversarial"]["word"]) == (None, "no")
    assert found["norm_ratio"]["word"] == found["affinity_colour_to_class"]["word"] == "nothing expected"


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
    assert list(run_diagnostics(data, "multi")) == [0, 1]


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
        "yes",
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


def shares(pixel: float, adversarial: float, class_: float | None = None):
    norms = ({} if class_ is None else {"class": class_}) | {"pixel": pixel, "adversarial": adversarial}
    return {"batches": 4, "norms": norms, "shares": {k: v / sum(norms.values()) for k, v in norms.items()}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_study(tmp_path, seeds=(0, 1))
    for seed, adversarial in ((0, 0.04), (1, 0.06)):
        found = {"fork": shares(0.95, adversarial, 1.0), "end": shares(0.5, 0.5, 1.0)}
        write_json(run_of(tmp_path, "multi", seed) / "gradient_shares.json", found)
    return tmp_path


def test_means_over_seeds_by_arm_and_moment(folder: Path):
    table = gradient_table(read_study(folder))
    assert list(table) == ["multi"]
    assert table["multi"]["fork"]["norms"] == pytest.approx(
        {"class": 1.0, "pixel": 0.95, "adversarial": 0.05}
    )
    assert table["multi"]["fork"]["adversarial_of_colour"] == pytest.approx(0.05)
    assert table["multi"]["end"]["shares"] == pytest.approx(
        {"class": 0.5, "pixel": 0.25, "adversarial": 0.25}
    )
    assert table["multi"]["end"]["seeds"] == 2


@pytest.mark.usefixtures("without_figures")
def test_the_page_and_the_results_show_them(folder: Path):
    page = write_report(folder).read_text()
    assert "What trained the encoder" in page
    rows = table_text(read_study(folder), "gradients")
    assert rows[1] == ["Multi-task", "before", "50.0", "47.5", "2.5", "5.0", 2]
    assert read_json(folder / "results.json")["gradients"]["multi"]["end"]["adversarial_of_colour"] == 0.5


def test_a_gan_that_is_as_good_as_off_is_warned_of(folder: Path):
    ((who, what),) = gradient_warnings(read_study(folder))
    assert who == "Multi-task"
    assert "of the colour gradient at the encoder is 5.0 % before fine-tuning" in what
    assert "below 10 %: the GAN has hardly any effect" in what


def test_a_gan_that_pulls_is_not_warned_of(folder: Path):
    for seed in (0, 1):
        found = {"fork": shares(0.8, 0.2, 1.0), "end": shares(0.8, 0.2, 1.0)}
        write_json(run_of(folder, "multi", seed) / "gradient_shares.json", found)
    assert gradient_warnings(read_study(folder)) == []


def test_plain_regression_has_no_adversarial_share(folder: Path):
    for seed in (0, 1):
        alone = {"batches": 4, "norms": {"pixel": 1.0}, "shares": {"pixel": 1.0}}
        write_json(run_of(folder, "colour", seed) / "gradient_shares.json", {"fork": alone, "end": alone})
    rows = table_text(read_study(folder), "gradients")
    assert ["Single-task colouring", "after", "–", "100.0", "–", "–", 2] in rows


def test_a_study_without_them_shows_no_table(one_seed: Path):
    assert gradient_table(read_study(one_seed)) == {}
    assert "What trained the encoder" not in write_report(one_seed).read_text()


def test_all_arms_whose_gan_is_as_good_as_off_are_named_in_one_warning(folder: Path):
    for seed in (0, 1):
        low = shares(0.97, 0.03, 0.0)
        write_json(run_of(folder, "colour", seed) / "gradient_shares.json", {"fork": low, "end": low})
    ((who, what),) = gradient_warnings(read_study(folder))
    assert who == "Single-task colouring, Multi-task"
    assert "is 3.0 to 5.0 % before and 3.0 % after fine-tuning" in what
