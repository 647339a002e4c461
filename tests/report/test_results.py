"""A study folder is read in any state, and the names in its results are stable."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_study import CLASSES, PARTS, change, results_of, run_of, scores_of, write_study

from knowhue.errors import DamagedError, RunError
from knowhue.metric_table import METRICS
from knowhue.plan import read_plan
from knowhue.report.integrity import cells_sentence, warnings
from knowhue.report.page import write_report
from knowhue.report.reading import read_images, read_study
from knowhue.report.results import conclude, read_results
from knowhue.runs import write_config
from knowhue.storage import write_json


def test_reads_what_the_contract_says(one_seed: Path):
    study = read_study(one_seed)
    run = study.runs["multi"][0]
    assert study.classes == CLASSES
    assert run.finished
    assert run.same_settings
    assert len(run.log) == 10
    assert run.images[0]["correct"] in (0.0, 1.0)
    assert run.samples["rgb"].dtype.name == "uint8"
    assert "rgb" not in study.runs["class"][0].samples


@pytest.mark.parametrize("cell", [" ", "much"])
def test_a_score_of_an_image_that_is_no_number_is_told_of_its_file(tmp_path: Path, cell: str):
    path = tmp_path / "per_image.csv"
    path.write_text(f"index,path,label,ab_l1,correct\n0,a.png,sea,,1\n1,b.png,sea,{cell},false\n", "utf-8")
    with pytest.raises(DamagedError, match=r"per_image\.csv.*no scores of images"):
        read_images(path)


def test_results_have_the_documented_paths(one_seed: Path):
    table = json.loads(json.dumps(results_of(read_study(one_seed)), allow_nan=False))
    assert set(table) == {
        "study", "answers", "verdicts", "arms", "baselines", "metrics", "timing", "settings", "tests",
        "secondary", "splits", "gradients", "schema", "probabilities", "delta_m",
    }  # fmt: skip
    assert table["arms"]["colour"]["seeds"]["0"]["metrics"]["ab_l1"] == pytest.approx(12, abs=0.2)
    assert table["arms"]["multi"]["mean"]["balanced_accuracy"] > 0.7
    assert "ab_l1" not in table["arms"]["class"]["mean"]
    assert table["baselines"]["mean_colour"]["ab_l1"] == 15.1
    assert table["timing"]["multi"] == {"heads": 12.5, "finetune": 45.5, "evaluate": 1.25}
    assert table["timing"]["total"] == pytest.approx(
        3 * 46.75 + 25
    )  # two heads of 12.5 s, once, though multi starts from both
    assert table["settings"]["encoder"]["name"] == "tf_efficientnet_lite0"
    assert table["study"]["hash"] == read_plan(one_seed).hash(PARTS)
    assert all(sentence.endswith(".") for sentence in table["answers"].values())


def test_mean_is_over_finished_seeds(eight_seeds: Path):
    arm = results_of(read_study(eight_seeds))["arms"]["colour"]
    values = [seed["metrics"]["ab_l1"] for seed in arm["seeds"].values()]
    assert arm["finished"] == len(values) == 8
    assert arm["mean"]["ab_l1"] == pytest.approx(math.fsum(values) / 8)


@pytest.mark.parametrize("state", ["running", "diverged"])
def test_a_run_that_did_not_finish_stays_in_sight(tmp_path: Path, state: str):
    write_study(tmp_path, seeds=(0, 1))
    change(run_of(tmp_path, "multi", 1) / "status.json", lambda status: status.update(state=state))
    table = results_of(read_study(tmp_path))
    assert table["arms"]["multi"]["seeds"]["1"]["state"] == state
    assert table["arms"]["multi"]["finished"] == 1
    said = "seed 1 (not finished)" if state == "running" else "as declared: multi-task seed 1."
    assert said in table["answers"]["colour"]


def test_levels_of_a_row_have_the_digits_of_the_larger_of_both_arms(tmp_path: Path):
    write_study(tmp_path, seeds=(0, 1))
    levels = {"colour": -1.379, "multi": -1.803}
    for arm, level in levels.items():
        for seed in (0, 1):
            change(
                run_of(tmp_path, arm, seed) / "scores.json",
                lambda scores, level=level: scores["metrics"].update(mean_b=level),
            )
    change(tmp_path / "baselines.json", lambda baselines: baselines["gray"].update(mean_b=0.0031))
    change(tmp_path / "metrics.json", lambda metrics: metrics.update(mean_b=METRICS["mean_b"]._asdict()))
    (row,) = [each for name, each in scores_of(read_study(tmp_path), "colour").items() if "b*, blue" in name]
    shown = [row[name] for name in ("Single-task", "Multi-task", "Difference", "Gray")]
    assert shown == ["−1.38 ± 0.00", "−1.80 ± 0.00", "−0.42", "0.00"]


def test_a_null_score_makes_the_mean_null(tmp_path: Path):
    write_study(tmp_path, seeds=(0, 1))
    change(run_of(tmp_path, "multi") / "scores.json", lambda scores: scores["metrics"].update(psnr=None))
    assert results_of(read_study(tmp_path))["arms"]["multi"]["mean"]["psnr"] is None


def test_a_run_not_started_is_missing(tmp_path: Path):
    write_study(tmp_path)
    change(tmp_path / "study.json", lambda study: study.update(seeds=[0, 1]))
    assert read_study(tmp_path).runs["class"][1].state == "missing"


def test_a_run_with_other_settings_is_marked(tmp_path: Path):
    write_study(tmp_path)
    change(tmp_path / "study.json", lambda study: study["config"]["training"].update(batch_size=16))
    assert not read_study(tmp_path).runs["multi"][0].same_settings


def test_runs_that_changed_places_are_no_runs_of_their_arms(tmp_path: Path):
    write_study(tmp_path, seeds=(0, 1))
    plan = read_plan(tmp_path)
    for arm, seed in plan.cells:
        write_config(run_of(tmp_path, arm, seed), plan.run_config(arm, seed))
    assert all(run.finished for own in read_study(tmp_path).runs.values() for run in own.values())
    places = run_of(tmp_path, "multi"), run_of(tmp_path, "colour")
    places[0].rename(tmp_path / "moved")
    places[1].rename(places[0])
    (tmp_path / "moved").rename(places[1])
    shutil.copytree(run_of(tmp_path, "class", 0), run_of(tmp_path, "class", 1), dirs_exist_ok=True)
    study = read_study(tmp_path)
    found = {cell for cell in plan.cells if not study.runs[cell[0]][cell[1]].same_settings}
    assert found == {("multi", 0), ("colour", 0), ("class", 1)}
    assert cells_sentence(study).endswith("3 finished, 3 run with other settings.")
    told = [what for who, what in warnings(study) if who == "Multi-task, seed 0"]
    assert told == ["was trained with other settings, or another seed, than this study's; train it again."]


def test_only_study_json_is_needed(tmp_path: Path):
    write_study(tmp_path / "whole")
    (tmp_path / "study.json").write_bytes((tmp_path / "whole" / "study.json").read_bytes())
    assert read_study(tmp_path).runs["multi"][0].state == "missing"


def test_no_study_is_an_error_that_names_the_file(tmp_path: Path):
    with pytest.raises(RunError, match=r"study\.json"):
        read_study(tmp_path)


def test_the_report_never_loads_torch(one_seed: Path, tmp_path: Path):
    code = (
        "import sys, pathlib; import knowhue.report.page;"
        "assert 'matplotlib' not in sys.modules;"
        "from knowhue.report.page import write_report;"
        f"write_report(pathlib.Path({str(tmp_path / 'study')!r}));"
        "sys.exit('torch' in sys.modules)"
    )
    shutil.copytree(one_seed, tmp_path / "study")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.usefixtures("without_figures")
def test_results_carry_a_schema_and_another_is_refused_in_one_line(tmp_path: Path):
    write_report(write_study(tmp_path))
    path = tmp_path / "results.json"
    assert read_results(path)["schema"] == {"name": "knowhue-results", "version": 1}
    for other in ({"name": "knowhue-results", "version": 2}, None):
        write_json(path, {"schema": other} if other else {})
        with pytest.raises(RunError, match=r"results\.json: .*make it again with `knowhue report`") as caught:
            read_results(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("arms", "asked"), [(("class",), False), (("class", "multi"), True)])
def test_a_study_that_asks_nothing_says_so(tmp_path: Path, arms: tuple[str, ...], asked: bool):
    lines = conclude(read_study(write_study(tmp_path, arms=arms))).lines
    assert any("No question: one needs" in line for line in lines) is not asked
    assert any("Is classifying easier" in line for line in lines) is asked
