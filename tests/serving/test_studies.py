"""The data that the page receives about study folders during training."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import colorizer
from fastapi.testclient import TestClient
from PIL import Image

from knowhue.config import Config
from knowhue.metric_table import METRIC_NAMES, SHARES
from knowhue.plan import BASELINE_NAMES, Plan, make_plan
from knowhue.runs import STUDY_SCHEMA, run_folder, write_log
from knowhue.serving.api import make_app
from knowhue.serving.settings import ServerSettings
from knowhue.serving.studies import CHARTS, study_progress
from knowhue.storage import write_json


@pytest.fixture
def plan() -> Plan:
    return make_plan(Config(), seeds=(0, 1))


@pytest.fixture
def study(tmp_path: Path, plan: Plan) -> Path:
    folder = tmp_path / "small"
    write_json(folder / "study.json", {**STUDY_SCHEMA, "hash": "0" * 64, **plan.model_dump(mode="json")})
    return folder


def log_scores(
    study: Path, plan: Plan, arm: str, seed: int, *scores: dict[str, Any], frozen: int = 0
) -> None:
    log = [
        {
            "phase": "heads" if epoch <= frozen else "finetune",
            "epoch": epoch,
            "seconds": 1.0,
            "validation": score,
        }
        for epoch, score in enumerate(scores, start=1)
    ]
    write_log(run_folder(study, arm, plan.run_config(arm, seed)), log)


def curves_of(study: Path, arm: str) -> dict[str, Any]:
    return {chart["metric"]: chart["curves"][arm] for chart in study_progress(study)["charts"]}


def test_a_study_that_has_not_begun_names_all_of_its_runs(study, plan):
    found = study_progress(study)
    assert (found["name"], found["ended"], found["runs"], found["seeds"]) == ("small", 0, 6, (0, 1))
    assert [each["name"] for each in found["arms"]] == list(plan.arms)
    assert {each["name"]: each["kind"] for each in found["arms"]} == {
        "colour": "single",
        "class": "single",
        "multi": "multi",
    }
    assert all(cell["state"] == "missing" for each in found["arms"] for cell in each["cells"])
    assert [chart["metric"] for chart in found["charts"]] == ["ab_l1", "balanced_accuracy"]
    for chart in found["charts"]:
        assert chart["level"] is None
        assert chart["curves"] == {"colour": [], "class": [], "multi": []}
    assert not found["has_report"]
    json.dumps(found)


def test_curves_begin_with_the_epochs_of_the_heads_one_a_run(study, plan):
    scores = [{"ab_l1": 14.0 - k, "balanced_accuracy": 0.3} for k in range(3)]
    log_scores(study, plan, "multi", 0, *scores, frozen=2)
    log_scores(study, plan, "multi", 1, scores[0])
    assert curves_of(study, "multi") == {
        "ab_l1": [[14.0, 13.0, 12.0], [14.0]],
        "balanced_accuracy": [[0.3, 0.3, 0.3], [0.3]],
    }


def test_a_metric_that_an_arm_does_not_have_is_no_curve(study, plan):
    log_scores(study, plan, "colour", 0, {"ab_l1": 14.0})
    assert curves_of(study, "colour") == {"ab_l1": [[14.0]], "balanced_accuracy": []}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            {
                "gray": {"ab_l1": 13.1, "validation": {"ab_l1": 14.256}},
                "majority_class": {"balanced_accuracy": 0.3, "validation": {"balanced_accuracy": 0.25}},
            },
            [14.256, 0.25],
        ),
        ({"gray": {"ab_l1": 13.1, "validation": {"ab_l1": None}}, "majority_class": {}}, [None, None]),
        ({}, [None, None]),
    ],
)
def test_scores_without_a_model_are_told_once_there_are_any(study, written, expected):
    write_json(study / "baselines.json", written)
    assert [chart["level"] for chart in study_progress(study)["charts"]] == expected


def test_every_chart_is_of_a_metric_and_a_baseline_that_studies_score():
    tasks = ("colour", "class")
    for chart, task in zip(CHARTS, tasks, strict=True):
        assert chart["metric"] in METRIC_NAMES[task]
        assert chart["baseline"] in BASELINE_NAMES[task]
        assert (chart["scale"] == 100) == (chart["metric"] in SHARES) == (chart["unit"] == " %")


def test_a_folder_that_is_no_study_is_named_with_the_reason_and_harms_no_other(study, tmp_path):
    (tmp_path / "empty").mkdir()
    app = make_app(
        {"fake": colorizer()}, ServerSettings(workers=1, studies=(tmp_path / "empty", study)), with_page=True
    )
    with TestClient(app, base_url="http://localhost") as client:
        empty, good = client.get("/page/studies.json").json()
    assert empty.keys() == {"name", "problem"}
    assert empty["problem"].startswith("Not shown: ")
    assert str(tmp_path) not in empty["problem"]
    assert good["runs"] == 6


def test_a_log_that_is_damaged_is_said(study, plan):
    log_scores(study, plan, "multi", 0, {"ab_l1": 14.0})
    (run_folder(study, "multi", plan.run_config("multi", 0)) / "log.jsonl").write_text("{")
    problem = study_progress(study)["problem"]
    assert "log" in problem
    assert str(study.parent) not in problem


def test_samples_and_reports_are_served_once_there_are_any(study, plan):
    tiles = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)
    app = make_app({"fake": colorizer()}, ServerSettings(workers=1, studies=(study,)), with_page=True)
    with TestClient(app, base_url="http://localhost") as client:
        for place in ("0/report.html", "0/truth.png", "1/report.html"):
            answer = client.get(f"/page/studies/{place}")
            assert answer.status_code == 404
            assert "study" in answer.json()["error"]
        (study / "images").mkdir()
        np.savez(study / "images" / "samples.npz", gray=tiles, truth=tiles, label=[1, 0, -1])
        write_json(study / "images" / "prepared.json", {"classes": ["coral_reef", "shark"]})
        run = run_folder(study, "multi", plan.run_config("multi", 1))
        run.mkdir(parents=True)
        np.savez(run / "samples.npz", rgb=tiles)
        (study / "report.html").write_text("<h1>Report</h1>")
        shown = client.get("/page/studies.json").json()[0]
        rows = shown["samples"]
        assert shown["classes"] == ["shark", "coral_reef", ""]
        assert list(rows) == ["gray", "multi", "truth"]
        assert all(version.isdecimal() for version in rows.values())
        for row in rows:
            answer = client.get(f"/page/studies/0/{row}.png")
            strip = np.asarray(Image.open(io.BytesIO(answer.content)))
            assert np.array_equal(strip, np.concatenate(list(tiles), axis=1))
        assert client.get("/page/studies/0/colour.png").status_code == 404
        report = client.get("/page/studies/0/report.html")
        assert report.text == "<h1>Report</h1>"
        assert "sandbox" in report.headers["content-security-policy"]
        assert "script-src" not in report.headers["content-security-policy"]
        has_it = {"if-none-match": report.headers["etag"]}
        again = client.get("/page/studies/0/report.html", headers=has_it)
        assert again.status_code == 304
        assert again.headers["content-security-policy"] == report.headers["content-security-policy"]
