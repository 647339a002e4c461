"""A comparison from its settings to its report: run, interrupted, gone on with, refused."""

import json

import pytest

from knowhue.apps.cli import main
from knowhue.comparison import run
from knowhue.comparison.asked import make_comparison
from knowhue.comparison.collect import runs_of
from knowhue.errors import RunError
from knowhue.presets import edit
from knowhue.storage import read_json

METHODS = ("l1", "gan", "palette-ab")


class Interrupted(Exception):
    """Somebody pulled the plug."""


@pytest.fixture(scope="module")
def asked(tiny):
    config = tiny(training__heads__epochs=1, training__finetune__epochs=1, colour__width=4)
    small = {"width": 4, "multipliers": (1, 2), "sample_steps": 2}
    config = edit(
        config, {"colour": {"palette": small}, "evaluation": {"perceptual": (), "networks": ("lite0",)}}
    )
    return make_comparison(config, METHODS, seeds=(0, 1))


@pytest.fixture(scope="module")
def compared(asked, tmp_path_factory):
    root = tmp_path_factory.mktemp("compared")
    calls = []

    def interrupt(event):
        calls.append(event["stage"])
        if calls.count("cell") == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        run.compare(asked, root, report=interrupt)
    begun = {path.parent for path in root.glob("*/seed-*/status.json")}
    stamps = {path: (path / "status.json").stat().st_mtime_ns for path in begun}
    page = run.compare(asked, root, description={"command": "knowhue compare"})
    assert all((path / "status.json").stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert page == root / "comparison.html"
    return root


def test_every_method_ran_with_every_seed_in_both_regimes(compared):
    found = read_json(compared / "comparison.json")
    cells = {(r["regime"], r["method"], r["seed"]) for r in found["runs"] if r["state"] == "finished"}
    assert cells == {(g, m, s) for g in ("images", "clock") for m in METHODS for s in (0, 1)}
    for each in found["runs"]:
        assert {"ab_l1", "ciede2000", "fd_lite0", "recognition"} <= {
            k for k, v in each["scores"].items() if v is not None
        }
        assert ("diversity" in each["scores"]) == (each["method"] == "palette-ab")
        assert min(each["cost"][name] for name in ("train_s", "predict_s_per_image", "parameters")) > 0
        assert (compared / each["samples"]).is_file()


def test_images_are_equal_first_and_seconds_then(compared):
    found = read_json(compared / "comparison.json")
    seen = {r["cost"]["images_seen"] for r in found["runs"] if r["regime"] == "images"}
    assert len(seen) == 1
    seconds = [r["cost"]["train_s"] for r in found["runs"] if (r["regime"], r["method"]) == ("images", "gan")]
    assert found["regimes"]["clock"]["budget_s"] == pytest.approx(sum(seconds) / 2, abs=0.02)
    assert found["regimes"]["clock"]["epochs"]["gan"] == [1, 1]  # what sets the budget keeps its epochs


def test_gray_and_true_images_stand_beside(compared):
    baselines = read_json(compared / "comparison.json")["baselines"]
    assert baselines["gray"]["chroma_ratio"] == 0
    assert 0 <= baselines["gray"]["recognition"] <= 1
    assert 0 <= baselines["real"]["recognition"] <= 1


def test_the_report_holds_every_method_and_nothing_from_elsewhere(compared):
    page = (compared / "comparison.html").read_text()
    assert all(method in page for method in METHODS)
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert json.loads((compared / "comparison-results.json").read_text())["reference"] == "gan"


def test_status_and_report_know_a_comparison(compared, capsys, monkeypatch, tmp_path):
    for command in (["status", str(compared)], ["report", str(compared), "--figures", str(tmp_path)]):
        monkeypatch.setattr("sys.argv", ["knowhue", *command])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.count("6 of 6 cells have ended") == 2
    assert f"Report: {compared / 'comparison.html'}" in said
    assert {path.name for path in tmp_path.iterdir()} == {
        "trade_off.png", "samples_images.png", "samples_clock.png",
    }  # fmt: skip


def test_a_diverged_reference_sets_no_budget(asked, compared, tmp_path):
    plan = asked.at_equal_images()
    for folder in runs_of(plan, "gan", compared):
        copy = tmp_path / folder.relative_to(compared)
        copy.mkdir(parents=True)
        (copy / "log.jsonl").write_text((folder / "log.jsonl").read_text())
        (copy / "status.json").write_text('{"state": "diverged"}')
    with pytest.raises(RunError, match=r"`gan` diverged with every seed.*--budget.*--out"):
        run._equal_clock(asked, plan, tmp_path)


def test_another_comparison_in_the_same_folder_is_refused(compared, asked):
    other = asked.model_copy(update={"seeds": (0, 1, 2)})
    with pytest.raises(
        RunError, match=r"holds another comparison, frozen on .*: seeds would differ\..*--out"
    ):
        run.compare(other, compared)


def test_the_same_call_repeats_nothing(compared, asked, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in compared.rglob("status.json")}
    run.compare(asked, compared)
    assert {path: path.stat().st_mtime_ns for path in compared.rglob("status.json")} == before
