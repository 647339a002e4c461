"""Three splits in a whole study: for training, for validation and tuning, and for reporting."""

import csv
import re

import numpy as np
import pytest

from knowhue.data.prepare import kept_rows
from knowhue.errors import ConfigError
from knowhue.plan import make_plan
from knowhue.presets import edit
from knowhue.report.findings import find
from knowhue.report.reading import read_study
from knowhue.report.tables import TABLES
from knowhue.runs import damaged_files, read_config, read_log
from knowhue.storage import read_json, write_json
from knowhue.study import run_study
from knowhue.training.run import evaluate_run, train

SHARES = {"images__drawn_count": 40, "images__test_share": 0.25, "images__validation_share": 0.2}
QUICK = {
    "training__heads__epochs": 1, "training__finetune__epochs": 1, "evaluation__networks": [],
    "evaluation__perceptual": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def quick(tiny):
    return tiny(**SHARES, **QUICK)


@pytest.fixture(scope="module")
def studies(quick, tmp_path_factory):
    """A tuning study, and the reporting study with the chosen settings."""
    home = tmp_path_factory.mktemp("splits")
    run_study(make_plan(quick, ["class", "multi"], (0,), is_tuning=True), home / "tuning")
    report = make_plan(quick, ["class", "multi"], (5,), tuned_on_seeds=(0,))
    run_study(report, home / "report", tuned_on=home / "tuning")
    return home / "tuning", home / "report"


def scored_paths(folder):
    with next((folder / "multi").glob("*/per_image.csv")).open(newline="") as file:
        return [row["path"] for row in csv.DictReader(file)]


@pytest.mark.parametrize(("which", "split"), [(0, "validation"), (1, "test")])
def test_final_numbers_are_of_the_reporting_split_and_say_so(studies, which, split):
    study = studies[which]
    expected = [row["path"] for row in kept_rows(study / "images") if row["split"] == split]
    images = len(expected)
    assert images == 10
    assert scored_paths(study) == expected
    for path in (*study.glob("*/*/scores.json"), *study.glob("heads/*/*/scores.json")):
        assert (read_json(path)["split"], read_json(path)["images"]) == (split, images)
    results = read_json(study / "results.json")
    assert results["splits"] == {"scores": split, "epochs": "validation"}
    assert f"{images} {split} images" in (study / "report.html").read_text()


def test_epochs_are_watched_on_validation_whatever_is_reported(studies):
    tuning, report = studies
    for study in studies:
        log = read_log(next((study / "multi").iterdir()))
        assert all("accuracy" in entry["validation"] for entry in log)
    assert (
        read_json(tuning / "images" / "prepared.json")["fingerprint"]
        == (read_json(report / "images" / "prepared.json")["fingerprint"])
    )
    last = read_log(next((tuning / "multi").iterdir()))[-1]["validation"]["ab_l1"]
    (scores,) = (tuning / "multi").glob("*/scores.json")
    assert read_json(scores)["metrics"]["ab_l1"] == pytest.approx(last, rel=1e-4)


def test_samples_and_baselines_are_of_the_reporting_split(studies):
    _, report = studies
    rows = list(kept_rows(report / "images"))
    with np.load(report / "images" / "samples.npz") as truth:
        assert {rows[i]["split"] for i in truth["index"]} == {"test"}
    with np.load(next((report / "multi").glob("*/extremes.npz"))) as extremes:
        assert {rows[i]["split"] for i in extremes["index"]} == {"test"}


def test_accuracy_after_the_heads_stands_beside_that_after_fine_tuning(studies):
    _, report = studies
    (head,) = (report / "heads" / "class").glob("*/scores.json")
    scores = read_json(head)["metrics"]
    seed = read_json(report / "results.json")["arms"]["class"]["seeds"]["5"]
    assert seed["after_heads"] == scores
    assert seed["metrics"]["balanced_accuracy"] is not None
    rows = TABLES["after_heads"].text(find(read_study(report)))[1:]
    assert [row[0] for row in rows] == ["Single-task classification", "Multi-task"]


def test_evaluating_again_gives_the_same_scores(studies, monkeypatch):
    for study in studies:
        (folder,) = (study / "multi").iterdir()
        before = read_json(folder / "scores.json")
        monkeypatch.chdir(folder)
        evaluate_run(".")
        assert read_json(folder / "scores.json")["metrics"] == pytest.approx(before["metrics"], rel=1e-4)
        assert read_json(folder / "scores.json")["split"] == before["split"]


@pytest.mark.usefixtures("without_figures")
def test_a_run_that_was_scored_otherwise_before_its_study_is_scored_as_the_others_are(quick, tmp_path):
    plan, before = (
        make_plan(quick, ["colour", "class", "multi"]),
        edit(quick, {"evaluation": {"split": "validation"}}),
    )
    folder = train(before, tmp_path, "class")
    weights = (folder / "model.safetensors").read_bytes()
    deployed = folder / "colorizer.safetensors"
    deployed.touch()
    assert read_json(folder / "scores.json")["split"] == "validation"
    told = []
    run_study(plan, tmp_path, report=told.append)
    notes = [event["text"] for event in told if event["stage"] == "note"]
    assert (
        sum(
            "scored on the validation split, not the test split, so it is scored again" in each
            for each in notes
        )
        == 2
    )
    study = read_study(tmp_path)
    runs = [run for arm in study.runs for run in study.of(arm)]
    assert {(run.state, run.scores["split"]) for run in runs} == {("finished", "test")}
    assert len({tuple(row["path"] for row in run.images) for run in runs}) == 1
    alone, both = (study.runs[arm][0].scores["after_heads"] for arm in ("class", "multi"))
    assert alone.items() <= both.items()
    assert (folder / "model.safetensors").read_bytes() == weights
    assert not deployed.exists()  # its card has the old scores
    assert read_config(folder).evaluation.split == "auto"
    assert not damaged_files(folder)

    # and a report that is made before says so, and compares nothing
    write_json(folder / "scores.json", {**read_json(folder / "scores.json"), "split": "validation"})
    assert (
        "were scored on the validation split, and the plan reports on the test split"
        in read_study(tmp_path).faults[0]
    )


def test_a_run_is_scored_anew_by_what_is_measured_now(quick, tmp_path):
    folder = train(quick, tmp_path, "colour")
    assert "recognition" not in read_json(folder / "scores.json")
    told = []
    asked = edit(quick, {"evaluation": {"recognition": True, "networks": ["lite0"]}})
    for expected in (1, 0):  # the second call has nothing to do
        told.clear()
        assert train(asked, tmp_path, "colour", told.append) == folder
        notes = [
            event["text"] for event in told if event["stage"] == "note" and "scored again" in event["text"]
        ]
        assert len(notes) == expected
    assert 0 <= read_json(folder / "scores.json")["recognition"]["lite0"]["accuracy"] <= 1


def test_tuning_study_gives_no_verdict_and_says_what_it_is(studies):
    tuning, report = studies
    results = read_json(tuning / "results.json")
    assert results["study"]["purpose"] == "tuning"
    assert "No verdict from a tuning study: over 1 seed" in results["answers"]["class"]
    assert "tuning study" in (tuning / "report.html").read_text()
    assert "tuning study" not in (report / "report.html").read_text()
    page = (report / "report.html").read_text()
    assert "Settings were tuned on seed 0, none of which is reported, and on none of the test images" in page
    assert read_json(report / "results.json")["study"]["tuned_on"]["seeds"] == [0]


def test_what_was_found_of_tuning_is_kept_by_a_command_that_goes_on_without_naming_it(quick, studies):
    tuning, report = studies
    before = read_json(report / "study.json")["tuned_on"]
    assert before == {
        "study": read_json(tuning / "study.json")["hash"], "seeds": [0], "test_images_seen": 0,
        "near_duplicate_bits": quick.images.duplicate_distance_bits,
    }  # fmt: skip
    run_study(make_plan(quick, ["class", "multi"], (5,), tuned_on_seeds=(0,)), report)
    assert read_json(report / "study.json")["tuned_on"] == before


@pytest.mark.parametrize(("which", "split"), [(0, "validation"), (1, "test")])
def test_captions_name_the_split_that_reports(studies, which, split):
    other = {"validation": "test", "test": "validation"}[split]
    page = (studies[which] / "report.html").read_text()
    captions = {
        caption.split(". ", 1)[1]: caption
        for caption in re.findall(r"<b>(Figure \d+\. .*?)</figcaption>", page, re.DOTALL)
    }
    for title in ("Sample images", "Class by class", "Confusion", "Calibration", "Best and worst"):
        (caption,) = (text for name, text in captions.items() if name.startswith(title))
        assert re.search(rf"\b{split} (images|split)", caption)
        assert not re.search(rf"\b{other} (images|split)", caption)
    assert f"on these {other} images. p:" not in page


def test_tuned_settings_without_a_test_split_are_refused_before_training(tiny, tmp_path):
    plan = make_plan(tiny(**QUICK), ["class"], (5,), tuned_on_seeds=(0,))
    with pytest.raises(ConfigError, match=r"should report on a test split.*Found none.*test_share"):
        run_study(plan, tmp_path / "study")
    assert not list((tmp_path / "study").glob("class/*"))


@pytest.mark.parametrize("size_px", [32, 48])
def test_test_images_that_were_tuned_on_are_refused(tiny, studies, tmp_path, size_px):
    config = tiny(**{**SHARES, **QUICK, "images__split_seed": 3, "images__size_px": size_px})
    plan = make_plan(config, ["class"], (5,), tuned_on_seeds=(0,))
    with pytest.raises(ConfigError, match=r"should not be among those .* used\. Found \d+ of them"):
        run_study(plan, tmp_path / "study", tuned_on=studies[0])


@pytest.mark.parametrize("seeds", [(0, 1), ()])
def test_seeds_of_another_tuning_study_are_refused(quick, studies, tmp_path, seeds):
    plan = make_plan(quick, ["class"], (5,), tuned_on_seeds=seeds)
    with pytest.raises(ConfigError, match=r"`tuned_on_seeds` should be the seeds of .*: 0\. Found"):
        run_study(plan, tmp_path / "study", tuned_on=studies[0])


def test_a_study_that_reports_is_not_one_to_tune_by(quick, studies, tmp_path):
    plan = make_plan(quick, ["class"], (6,), tuned_on_seeds=(5,))
    with pytest.raises(ConfigError, match="should be the folder of a tuning study"):
        run_study(plan, tmp_path / "study", tuned_on=studies[1])
