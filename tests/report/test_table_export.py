"""A study exported as a table and read again has the same scores and verdicts."""

import csv
import itertools

import numpy as np
import pytest
from synthetic_study import change, results_of, run_of, write_study

from knowhue.errors import TableError
from knowhue.metric_table import METRICS
from knowhue.report.reading import read_study
from knowhue.report.results import conclude
from knowhue.report.table_export import COLUMNS, dictionary_path, dictionary_rows, study_rows, write_table
from knowhue.report.table_study import TableOptions, notices, read_table

QUESTIONS = {"colour": "ab_l1", "class": "balanced_accuracy"}
SECONDARY = (
    "metric",
    "mean",
    "interval",
    "level",
    "over",
    "p",
    "p_adjusted",
    "clear",
    "seeds",
    "exploratory",
)


def there_and_back(folder, tmp_path, suffix=".csv"):
    """`results.json` of the study, and of its table."""
    study, path = read_study(folder), tmp_path / f"runs{suffix}"
    assert write_table(study, path) == sum(1 for _ in study_rows(study))
    return results_of(study), conclude(
        read_table([path], TableOptions(alpha=study.settings["alpha"]))
    ).results


def assert_alike(own, back):
    assert back["verdicts"] == {QUESTIONS[name]: word for name, word in own["verdicts"].items()}
    for question, metric in QUESTIONS.items():
        assert back["tests"][metric] == own["tests"][question]
    # in the order of the rows, not of `metrics.json`
    for found in (own, back):
        found["secondary"].sort(key=lambda row: row["metric"])
    for kind in SECONDARY:
        assert [row[kind] for row in back["secondary"]] == [row[kind] for row in own["secondary"]]
    assert back["baselines"] == own["baselines"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_verdicts_are_the_same_to_the_last_digit(eight_seeds, tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    own, back = there_and_back(eight_seeds, tmp_path, suffix)
    assert own["verdicts"]["colour"].startswith("helps")
    assert own["tests"]["colour"]["quoted"]["over"] == "seeds and images"
    assert_alike(own, back)


def test_the_secondary_metrics_are_those_of_the_study(tmp_path):
    folder = write_study(tmp_path / "study", seeds=tuple(range(8)), gain=0.5)
    change(folder / "study.json", lambda study: study["questions"]["colour"].update(secondary=[]))
    change(folder / "study.json", lambda study: study["questions"]["class"].update(secondary=["accuracy"]))
    own, back = there_and_back(folder, tmp_path)
    exploratory = {row["metric"]: row["exploratory"] for row in own["secondary"]}
    assert (exploratory["ciede2000"], exploratory["accuracy"]) == (True, False)
    assert_alike(own, back)


def test_a_distance_between_sets_is_tested_where_a_question_asks_alone(eight_seeds, tmp_path):
    for arm, seed in itertools.product(("class", "colour", "multi"), range(8)):
        more = {"distribution": {"kd_lite0": {"value": 0.01 * seed}, "fid": {"value": 9.0 + seed}}}
        change(run_of(eight_seeds, arm, seed) / "scores.json", lambda scores, more=more: scores.update(more))
    own, back = there_and_back(eight_seeds, tmp_path)
    assert_alike(own, back)
    assert not {"kd_lite0", "fid"} & {row["metric"] for row in back["secondary"]}
    asked = TableOptions(metrics=("fid",), sesoi={"fid": 1.0}, against="colour", arms=("multi",))
    assert list(conclude(read_table([tmp_path / "runs.csv"], asked)).results["tests"]) == ["fid"]


def test_so_they_are_of_one_seed_of_other_arms_and_of_a_study_with_runs_that_did_not_end(one_seed, tmp_path):
    assert_alike(*there_and_back(one_seed, tmp_path))
    arms = ("class", "colour", "multi", "oracle", "placebo-labels")
    folder = write_study(tmp_path / "study", seeds=tuple(range(8)), arms=arms, gain=0.4)
    assert_alike(*there_and_back(folder, tmp_path))
    change(run_of(folder, "multi", 3) / "status.json", lambda status: status.update(state="running"))
    change(run_of(folder, "colour", 5) / "status.json", lambda status: status.update(state="diverged"))
    own, back = there_and_back(folder, tmp_path)
    assert own["verdicts"] == {"colour": "no verdict", "class": "no verdict"}
    assert own["tests"]["colour"]["differences"][4] < -1  # as declared
    assert_alike(own, back)


def test_a_baseline_that_was_shown_to_a_classifier_comes_back_with_its_share(tmp_path):
    folder = write_study(tmp_path / "study", seeds=(0, 1))
    shown_to = {"lite0": {"accuracy": 0.25}}
    change(folder / "baselines.json", lambda found: found["gray"].update(recognition=shown_to))
    _, back = there_and_back(folder, tmp_path)
    assert back["baselines"]["gray"]["recognition"] == 0.25


def test_a_seed_that_no_arm_has_finished_is_missing_from_the_verdict_too(tmp_path):
    folder = write_study(tmp_path / "study", seeds=tuple(range(9)), gain=0.4)
    for arm in ("class", "colour", "multi"):
        change(run_of(folder, arm, 8) / "status.json", lambda status: status.update(state="running"))
    own, back = there_and_back(folder, tmp_path)
    assert own["verdicts"]["colour"] == "no verdict"
    assert_alike(own, back)


def test_another_alpha_is_given_as_an_option(eight_seeds, tmp_path):
    study = read_study(eight_seeds)
    write_table(study, tmp_path / "t.csv")
    strict = conclude(read_table([tmp_path / "t.csv"], TableOptions(alpha=0.001))).results
    assert {test["alpha"] for test in strict["tests"].values()} == {0.0005}
    assert set(strict["verdicts"].values()) == {"no verdict"}  # 8 seeds reach .008 at best


def test_a_tuning_study_gives_no_verdict_by_its_table_either(tmp_path):
    folder = write_study(tmp_path / "study", seeds=tuple(range(8)), gain=0.4)
    change(folder / "study.json", lambda study: study.update(purpose="tuning"))
    change(folder / "study.json", lambda study: study["config"]["evaluation"].update(split="validation"))
    write_table(read_study(folder), tmp_path / "t.csv")
    with pytest.raises(TableError, match=r"no row of a finished run \(\d+ of `tuning`\)"):
        read_table([tmp_path / "t.csv"], TableOptions())


def test_every_number_of_the_runs_stands_in_the_table_once(one_seed, tmp_path):
    write_table(read_study(one_seed), tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    keys = [tuple(row[name] for name in ("arm", "seed", "metric", "image", "class")) for row in rows]
    assert len(set(keys)) == len(keys)
    with (run_of(one_seed, "multi") / "per_image.csv").open(newline="", encoding="utf-8") as file:
        images = [float(row["ab_l1"]) for row in csv.DictReader(file)]
    own = [row for row in rows if (row["arm"], row["metric"]) == ("multi", "ab_l1")]
    assert [float(row["value"]) for row in own if row["image"]] == images
    (total,) = [row for row in own if not row["image"] and not row["class"]]
    assert float(total["value"]) == pytest.approx(np.mean(images))
    asked = tuple(total[name] for name in ("unit", "better", "sesoi", "against", "split"))
    assert asked == ("CIELAB units", "lower", "0.25", "colour", "validation")


def test_the_dictionary_explains_every_column_metric_and_question(one_seed, tmp_path):
    write_table(read_study(one_seed), tmp_path / "t.csv")
    with dictionary_path(tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = {(row["kind"], row["name"]): row for row in csv.DictReader(file)}
    assert [name for kind, name in rows if kind == "column"] == list(COLUMNS)
    assert all(row["meaning"] for row in rows.values())
    assert rows["metric", "accuracy"]["better"] == "higher"
    assert "smallest effect of interest 0.25 CIELAB units" in rows["question", "colour"]["meaning"]
    assert len(rows["plan", "hash"]["meaning"]) == 64


def test_distances_and_what_no_direction_is_better_of_are_known_in_the_table_and_to_its_verdict(tmp_path):
    folder, values = write_study(tmp_path / "study", seeds=(0, 1)), {"fd_lite0": {"value": 9.5}}
    for arm, seed in itertools.product(("class", "colour", "multi"), (0, 1)):
        more = {"distribution": values, "recognition": {"lite0": {"accuracy": 0.5}}}
        change(run_of(folder, arm, seed) / "scores.json", lambda scores, more=more: scores.update(more))
        change(
            run_of(folder, arm, seed) / "scores.json",
            lambda scores: scores["metrics"].update(chroma_ratio=0.9, speed=3),
        )
    study = read_study(folder)
    rows = {name: rest for name, kind, *rest in dictionary_rows(study) if kind == "metric"}
    for name in ("fd_lite0", "recognition", "chroma_ratio"):
        assert rows[name] == [METRICS[name].title, METRICS[name].unit, METRICS[name].better]
    write_table(study, tmp_path / "t.csv")
    assert notices(read_table([tmp_path / "t.csv"], TableOptions())) == [
        "Not compared, because neither direction is better: chroma_ratio.",
        "Not compared without --sesoi, because they are distances between sets of images: fd_lite0.",
        "Not compared, because it is not known whether more or less is better (--better): speed.",
    ]


def test_images_without_a_score_leave_their_metric_without_rows_of_images(tmp_path):
    folder = write_study(tmp_path / "study", seeds=tuple(range(8)), gain=0.4)
    path = run_of(folder, "multi", 2) / "per_image.csv"
    first, second, *rest = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([first, second.rsplit(",", 1)[0] + ",", *rest]) + "\n", encoding="utf-8")
    own, back = there_and_back(folder, tmp_path)
    assert own["tests"]["colour"]["quoted"]["over"] == "seeds"
    assert back["tests"]["ab_l1"] == own["tests"]["colour"]


@pytest.mark.parametrize("kept", [0, 1, -5])
def test_runs_whose_file_of_images_is_gone_or_cut_leave_no_table_that_is_refused(tmp_path, kept):
    folder = write_study(tmp_path / "study", seeds=tuple(range(8)), gain=0.4)
    path = run_of(folder, "multi", 2) / "per_image.csv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if kept:
        path.write_text("".join(lines[:kept]), encoding="utf-8")
    else:
        path.unlink()
    own, back = there_and_back(folder, tmp_path)
    assert own["tests"]["colour"]["quoted"]["over"] == "seeds"
    assert_alike(own, back)
