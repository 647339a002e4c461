"""Every command once with valid input and with small or replaced work: arguments, output and files."""

import inspect
import json
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import pytest
import typer
from pydantic import Field
from synthetic_study import write_study
from typer.testing import CliRunner

from knowhue import __version__
from knowhue.apps import cli, program
from knowhue.config import Config
from knowhue.locks import locked
from knowhue.plan import make_plan
from knowhue.presets import load_config
from knowhue.report.figures import FIGURES
from knowhue.runs import STUDY_SCHEMA
from knowhue.storage import write_json

TINY = [
    *("images.drawn_count=20", "images.size_px=16", "images.min_per_class=1", "encoder.weights=none"),
    *("training.batch_size=4", "training.shift_px=2", "training.precision=float32"),
    *("training.heads.epochs=1", "training.finetune.epochs=1", "evaluation.networks=[]"),
]
DRAWN = ["--preset", "demo", *(part for setting in TINY for part in ("--set", setting))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study folder in which one arm was trained by the command."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["knowhue", "train", *DRAWN, "--arm", "class", "--out", str(out)])
        with pytest.raises(SystemExit) as ended:
            program.main()
    assert ended.value.code == 0
    return out


def run_folder(out: Path) -> Path:
    (run,) = (out / "class").iterdir()
    return run


@pytest.mark.parametrize("changed", [["--set", "colour.width=8"], ["--arm", "oracle"]])
def test_a_stray_run_does_not_join_a_study(knowhue, tmp_path, changed):
    plan, out = make_plan(load_config("demo", settings=TINY), seeds=[0]), tmp_path / "study"
    write_json(out / "study.json", {**STUDY_SCHEMA, "hash": "0" * 64, **plan.model_dump(mode="json")})
    code, _, err = knowhue("train", *DRAWN, "--out", out, *changed)
    assert (code, err.count("\n")) == (2, 1)
    assert "holds a study, and `" in err
    assert [each.name for each in out.iterdir()] == ["study.json"]


@pytest.mark.parametrize("command", ["study", "compare", "plan", "train", "prepare"])
def test_a_setting_without_effect_is_refused_before_work(knowhue, make_folder, tmp_path, command):
    photos, out = make_folder({"a": 2, "b": 2}), tmp_path / "out"
    folder = [] if command == "plan" else ["--out", out]
    code, _, err = knowhue(command, photos, "--set", "images.drawn_count=30", *folder)
    assert (code, err.count("\n"), out.exists()) == (2, 1, False)
    assert "`images.drawn_count` should be left at 1500 unless `images.source` is drawn" in err


@pytest.mark.parametrize(
    "command", [["study", "--arms", "class"], ["plan", "--arms", "class"], ["train", "--arm", "class"]]
)
def test_a_setting_of_a_task_that_no_arm_has_is_refused_on_the_command_line(
    knowhue, make_folder, tmp_path, command
):
    photos = make_folder({"a": 2, "b": 2})
    code, _, err = knowhue(*command, photos, "--set", "colour.width=8")
    assert (code, err.count("\n")) == (2, 1)
    assert "unless `tasks.names` is a list with colour (set by --arms or --arm)" in err
    (tmp_path / "shared.yaml").write_text("colour: {width: 8}")  # a file may serve other studies, too
    assert knowhue("plan", photos, "--arms", "class", "--config", tmp_path / "shared.yaml")[0] == 0
    # replaces the preset, which other commands use too
    _, printed, _ = knowhue("config", "--preset", "poster")
    (tmp_path / "poster.yaml").write_text(printed)
    for options in (["--preset", "poster"], ["--config", tmp_path / "poster.yaml"]):
        assert knowhue("plan", photos, "--arms", "class", *options)[0] == 0


def test_version(knowhue):
    assert knowhue("--version") == (0, f"knowhue {__version__}\n", "")


@pytest.mark.parametrize(
    ("command", "panels"),
    [
        ("study", ["Settings", "Design of the study", "Where the work is done"]),
        ("plan", ["Settings", "Design of the study", "Power"]),
        ("prepare", ["Settings", "Where the work is done"]),
        ("compare", ["Settings", "Design of the study", "Where the work is done"]),
        ("colorize", ["Where the work is done", "Choosing colours", "Rarely needed"]),
        ("export", ["Rarely needed"]),
        ("verdict", ["Rarely needed"]),
        ("score", ["Scores by networks, which need torch and time", "Rarely needed"]),
        ("serve", ["Rarely needed"]),
    ],
)
def test_what_is_rarely_needed_stands_in_panels_below_the_main_options(command, panels):
    parameters = typer.main.get_command(cli.app).commands[command].params
    options = [each for each in parameters if each.param_type_name == "option"]
    found = list(dict.fromkeys(each.rich_help_panel for each in options if each.rich_help_panel))
    assert [panel.partition(":")[0] for panel in found] == panels
    assert sum(not each.rich_help_panel for each in options) <= 7
    assert all(each.help for each in options)


def test_commands_that_share_options_share_their_help():
    commands = typer.main.get_command(cli.app).commands
    shared = {name: next(p.help for p in commands[name].params if p.name == "preset") for name in COMMANDS}
    assert len(set(shared.values())) == 1


COMMANDS = ("study", "plan", "compare", "prepare", "train", "config")


class Few(program.Options):
    first: Annotated[program.Rare[int | None], Field(ge=1, le=9)] = None
    """how
    many"""
    set_: list[str] | None = None
    """a setting. May be repeated"""


class More(Few):
    file: Annotated[str, typer.Argument()]
    """a file of any name"""
    is_fast: Annotated[bool, Field(description="soon")] = False


def test_fields_of_a_class_are_the_options_of_a_command_those_of_its_base_first_and_rare_ones_last():
    @program.with_options
    def command(given: More):
        """Words."""
        return given

    assert command.__doc__ == "Words."
    assert list(inspect.signature(command).parameters) == ["set_", "file", "is_fast", "first"]
    odd = "photo\udcff.jpg"  # a byte that is no UTF-8
    assert command(first=2, set_=None, file=odd, is_fast=True).file == odd
    one = typer.Typer()
    one.command()(command)
    set_, file, is_fast, first = typer.main.get_command(one).params[:4]
    assert (first.opts, first.help, first.rich_help_panel) == (["--first"], "How many.", "Rarely needed")
    ends = [CliRunner().invoke(one, ["f", "--first", number]).exit_code for number in ("9", "10")]
    assert ends == [0, 2]
    assert (set_.opts, set_.help) == (["--set"], "A setting. May be repeated.")
    assert (file.param_type_name, file.required, file.help) == ("argument", True, "A file of any name.")
    assert (is_fast.opts, is_fast.secondary_opts, is_fast.help) == (["--is-fast"], [], "Soon.")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["/usr/bin/knowhue", "study", "my photos"], "knowhue study 'my photos'"),
        (["/lib/knowhue/__main__.py", "plan", "--seeds", "2"], "python -m knowhue plan --seeds 2"),
    ],
)
def test_the_command_is_recorded_as_a_reader_would_type_it(monkeypatch, argv, line):
    monkeypatch.setattr(sys, "argv", argv)
    assert cli.command_line() == line


def test_train_leaves_a_finished_run_and_evaluate_scores_it_again(knowhue, trained):
    run = run_folder(trained)
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    before = json.loads((run / "scores.json").read_text())["metrics"]
    code, said, _ = knowhue("evaluate", run)
    assert code == 0
    assert "Accuracy: " in said
    assert said.splitlines()[-1] == f"Run: {run}"
    assert json.loads((run / "scores.json").read_text())["metrics"] == before


def test_the_same_train_command_has_nothing_left_to_do(knowhue, trained):
    weights = {path: path.stat().st_mtime_ns for path in run_folder(trained).iterdir()}
    code, said, _ = knowhue("train", *DRAWN, "--arm", "class", "--out", trained)
    assert (code, said.splitlines()[-1]) == (0, f"Run: {run_folder(trained)}")
    assert {path: path.stat().st_mtime_ns for path in run_folder(trained).iterdir()} == weights


def test_a_run_that_starts_from_another_says_so(knowhue, trained, tmp_path):
    source = str(run_folder(trained))
    settings = [part for part in TINY if not part.startswith("encoder.weights")]
    options = ["--preset", "demo", *(part for setting in settings for part in ("--set", setting))]
    code, out, _ = knowhue("config", *options, "--start-from", source)
    assert (code, "with_heads: true" in out, source in out) == (0, True, True)
    code, out, err = knowhue(
        "train", *options, "--arm", "class", "--start-from", source, "--out", tmp_path / "out"
    )
    assert code == 0
    assert f"Started from `{source}`" in err + out
    (run,) = (tmp_path / "out" / "class").iterdir()
    _, out, _ = knowhue("models", run)
    assert "of its class head, coral_reef, jellyfish, penguin, shark, starfish." in out


def test_a_trained_run_is_described_and_refused_where_it_does_not_colour(knowhue, trained, tmp_path):
    code, said, err = knowhue("models", run_folder(trained))
    assert code == 0
    assert "Making" in err
    assert "  tasks: class" in said
    assert "  classes: coral reef, jellyfish, penguin, shark, starfish" in said
    (tmp_path / "photo.png").write_bytes(b"")
    assert knowhue("colorize", tmp_path / "photo.png", "--model", run_folder(trained))[0] == 2


@pytest.mark.usefixtures("without_figures")
def test_report_is_made_from_the_folders_and_its_figures_are_replaced_only_if_asked(
    knowhue, tmp_path, monkeypatch
):
    study = write_study(tmp_path / "study")
    code, said, _ = knowhue("report", study, "--figures", tmp_path / "talk")
    assert code == 0
    *figures, report = said.splitlines()
    assert report.startswith(f"Report: {study}")
    drawn = sorted((tmp_path / "talk").glob("*.png"))
    assert [f"Figure: {path}" for path in drawn] == sorted(figures)
    assert len(drawn) > 5
    monkeypatch.setattr("knowhue.report.figures.FIGURES", {"setup": FIGURES["setup"]})
    setup = tmp_path / "talk" / "setup.png"
    setup.write_bytes(b"precious")
    code, said, err = knowhue("report", study, "--figures", tmp_path / "talk")
    assert (code, said, "already exists" in err) == (2, "", True)
    assert setup.read_bytes() == b"precious"
    assert knowhue("report", study, "--figures", tmp_path / "talk", "--overwrite")[0] == 0
    assert setup.read_bytes() != b"precious"


@pytest.mark.parametrize("option", ["--paper", "--figures"])
def test_a_reports_files_are_not_written_among_those_of_the_study(knowhue, tmp_path, option):
    study = write_study(tmp_path / "study")
    before = sorted(study.rglob("*"))
    code, _, err = knowhue("report", study, option, study)
    assert (code, "holds a run or a study" in err) == (2, True)
    assert sorted(study.rglob("*")) == before


def test_status_shows_every_cell(knowhue, tmp_path):
    plan = make_plan(Config(), ["colour", "class"], range(2))
    described = {**STUDY_SCHEMA, "hash": "ab" * 32, **plan.model_dump(mode="json", by_alias=True)}
    write_json(tmp_path / "study.json", described)
    code, said, _ = knowhue("status", tmp_path)
    assert code == 0
    assert said.splitlines() == [
        "plan abababababab, 2 arms x 2 seeds",
        " seed  colour  class",
        "    0       ·      ·",
        "    1       ·      ·",
        "· not started",
        "0 of 4 runs are done",
    ]


def test_status_says_who_has_stopped_without_a_word(knowhue, tmp_path, tiny):
    plan = make_plan(tiny(), ["colour"], [0])
    write_json(tmp_path / "study.json", {**STUDY_SCHEMA, "hash": "ab" * 32, **plan.model_dump(mode="json")})
    holder = {"what": "arm colour", "user": "ada", "host": "n2", "pid": 7, "since": "2001-09-09 01:00 UTC"}
    write_json(tmp_path / "colour" / "seed-0-abc" / ".lock", {**holder, "job": "slurm 14"})
    os.utime(tmp_path / "colour" / "seed-0-abc" / ".lock", (1e9, 1e9))
    code, said, _ = knowhue("status", tmp_path)
    assert code == 0
    assert said.splitlines()[-1] == (
        "colour/seed-0-abc: no sign of life since 2001-09-09 01:46 UTC; started by ada@n2, process 7, slurm "
        "14, at 2001-09-09 01:00 UTC (arm colour)"
    )


def test_status_of_a_study_whose_images_are_still_prepared_says_who_does(knowhue, tmp_path):
    with locked(tmp_path / "study", "study"):
        code, said, _ = knowhue("status", tmp_path / "study")
    assert code == 0
    first, second = said.splitlines()
    assert first == "no plan yet; it is written when the images are prepared"
    assert (second.startswith("study: "), second.endswith("(study)")) == (True, True)
    code, _, err = knowhue("status", tmp_path / "nowhere")
    assert code == 2
    assert err.endswith("Found nothing there. Is the path right?\n")


def concludes(monkeypatch, *lines):
    """A study that is only made up says so much at its end."""
    monkeypatch.setattr("knowhue.report.reading.read_study", lambda folder: folder)
    monkeypatch.setattr("knowhue.report.results.conclude", lambda study: SimpleNamespace(lines=lines))


NO_WEIGHTS = ("--set", "encoder.weights=none")
"""For tests without a network, which is asked for weights before anything else."""


def test_compare_passes_on_what_was_asked(knowhue, make_folder, tmp_path, monkeypatch):
    calls = []

    def run(plan, out, executor, description, report, tuned_on):
        calls.append((plan, out, executor, description))
        return out / "report.html"

    monkeypatch.setattr("knowhue.study.run_study", run)
    concludes(monkeypatch, "", "| a |", "| b |")
    chosen = [
        "--methods",
        "l1,gan",
        "--reference",
        "l1",
        "--seeds",
        "2",
        "--budget",
        "9",
        "--set",
        "seed=4",
        *NO_WEIGHTS,
    ]
    photos = make_folder({"cat": 1, "dog": 1})
    code, said, _ = knowhue("compare", photos, *chosen, "--workers", "2", "--out", tmp_path / "out")
    assert (code, said) == (0, f"\n| a |\n| b |\n\nReport: {tmp_path / 'out' / 'report.html'}\n")
    ((plan, out, executor, description),) = calls
    assert (plan.planned_arms, plan.reference, list(plan.seeds)) == (["l1", "gan"], "l1", [4, 5])
    assert (out, executor.workers) == (tmp_path / "out", 2)
    assert "--reference l1" in description["command"]


def test_a_study_passes_on_its_plan_and_its_tuning_study(knowhue, make_folder, tmp_path, monkeypatch):
    calls = []

    def run_study(plan, out, executor, description, report, tuned_on):
        calls.append((plan, executor, tuned_on))
        out.mkdir()
        return out / "report.html"

    monkeypatch.setattr("knowhue.study.run_study", run_study)
    concludes(monkeypatch, "", "Does it?", "  No: it does not.")
    photos = make_folder({"cat": 1, "dog": 1})
    options = ["--arms", "colour,multi", "--seeds", "3", "--grid", "1,100", "--workers", "2", *NO_WEIGHTS]
    code, said, _ = knowhue("study", photos, *options, "--out", tmp_path / "out")
    assert code == 0
    assert "  No: it does not." in said.splitlines()
    ((plan, executor, tuned_on),) = calls
    assert list(plan.seeds) == [0, 1, 2]
    assert {"colour", "multi"} <= set(plan.arms)
    assert len(plan.arms) == 4  # and two weights of the grid
    assert (executor.workers, tuned_on) == (2, None)


SERVED = [
    ([], {"built-in": "built-in"}),
    (["--model", "runs/photos.safetensors"], {"photos": "runs/photos.safetensors"}),
    (["--model", "new=a.onnx", "--model", "old=b.onnx"], {"new": "a.onnx", "old": "b.onnx"}),
]


@pytest.mark.parametrize(("arguments", "paths"), SERVED)
def test_serve_opens_models_by_name_and_says_where_it_listens(
    knowhue, monkeypatch, tmp_path, arguments, paths
):
    calls = []
    monkeypatch.chdir(tmp_path)
    for path in paths.values():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()

    def run(models, settings, announce, page, stopping):
        calls.append((models, settings, page))
        announce("http://127.0.0.1:1234")
        stopping()

    def named(choice):
        return SimpleNamespace(network=SimpleNamespace(description=SimpleNamespace(name=choice.model)))

    monkeypatch.setattr("knowhue.apps.serve.open_model", named)
    monkeypatch.setattr("knowhue.serving.run.serve", run)
    code, said, err = knowhue("serve", *arguments, "--port", "0", "--no-page", "--queue-length", "3")
    assert (code, said) == (0, "Knowhue is at http://127.0.0.1:1234\n")
    lines = [f"{name}: {path}" for name, path in paths.items() if name != path]
    assert err.splitlines() == [
        f"Opening {', '.join(paths.values())} ...",
        *lines,
        "Stopping; accepted requests are finished first ...",
        "Knowhue has stopped.",
    ]
    ((models, settings, page),) = calls
    assert list(models) == list(paths)
    assert (settings.port, settings.queue_length, page) == (0, 3, False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "=x.onnx"], "should be NAME=PATH or a path"),
        (["--model", "x="], "should be NAME=PATH or a path"),
        (["--model", "a/x.onnx", "--model", "b/x.onnx"], "Found `x` twice"),
        (["--recipe", "ddcolor"], "should be NAME=RECIPE, where NAME is built-in, as --model names them"),
        (["--model", "a=x.onnx", "--recipe", "a=dcolor"], "Did you mean `ddcolor`?"),
        (
            ["--study", "nowhere"],
            "nowhere: no such folder; --study names the folder of a study, which may be empty",
        ),
        (["--token", "short"], "16"),
    ],
)
def test_serve_refuses_before_a_model_is_opened(knowhue, monkeypatch, arguments, said):
    monkeypatch.setattr("knowhue.apps.serve.open_model", lambda _: pytest.fail("a model was opened"))
    code, out, err = knowhue("serve", *arguments)
    assert (code, out, said in err) == (2, "", True)
    assert len(err.splitlines()) == 1


def test_serve_says_before_a_model_is_opened_that_the_port_is_taken(knowhue, monkeypatch):
    monkeypatch.setattr("knowhue.apps.serve.open_model", lambda _: pytest.fail("a model was opened"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, out, err = knowhue("serve", "--port", other.getsockname()[1])
    assert (code, out, "Cannot listen on 127.0.0.1 port" in err) == (2, "", True)
    assert len(err.splitlines()) == 1


def test_a_folder_that_holds_no_study_yet_is_served_and_said(knowhue, monkeypatch, tmp_path):
    monkeypatch.setattr("knowhue.apps.serve._serve", lambda *_: None)
    code, _, err = knowhue("serve", "--study", tmp_path)
    assert (code, err) == (
        0,
        f"{tmp_path} holds no study yet: the page shows it once `knowhue study` has begun there\n",
    )
    (tmp_path / "study.json").touch()
    assert knowhue("serve", "--study", tmp_path)[2] == ""
