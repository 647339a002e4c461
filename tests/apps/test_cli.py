"""The command line: its imports, its messages and its exit codes."""

import io
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from knowhue.apps import cli
from knowhue.apps.program import OTHER_NAMES, OTHER_OPTIONS, app
from knowhue.plan import make_plan
from knowhue.presets import load_config
from knowhue.runs import STUDY_SCHEMA, write_config, write_status
from knowhue.storage import write_json

COMMANDS = [
    *("study", "plan", "status", "prepare", "train", "evaluate", "report", "config"),
    *("colorize", "models", "export", "serve"),
]


def test_starting_imports_nothing_heavy():
    heavy = (
        "torch",
        "timm",
        "kornia",
        "matplotlib",
        "accelerate",
        "scipy",
        "pandas",
        "datasets",
        "pyvips",
        "numba",
        "PIL",
    )
    code = (
        f"import sys, knowhue.apps.cli; print(sorted(set({heavy}) & set(sys.modules)))\n"
        "import knowhue.apps.planning, knowhue.report.page\n"  # what a study imports before it says anything
        "print(sorted({'torch', 'matplotlib', 'scipy.stats'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


@pytest.mark.parametrize("command", [[], *([c] for c in COMMANDS)])
def test_help(knowhue, command):
    code, out, _ = knowhue(*command, "--help")
    assert code == 0
    assert "Usage" in out


def test_every_command_is_listed_in_the_help(knowhue):
    _, out, _ = knowhue("--help")
    assert [name for name in COMMANDS if name not in out] == []
    registered = {c.name or c.callback.__name__ for c in cli.app.registered_commands}
    assert set(COMMANDS) <= registered
    order = [c.name or c.callback.__name__ for c in cli.app.registered_commands]
    assert order[:3] == ["study", "compare", "plan"]


TINY = ["images.size_px=16", "images.min_per_class=2", "encoder.weights=none", "training.batch_size=2"]
SET = [part for setting in TINY for part in ("--set", setting)]


def errs(result, *parts):
    """The error of a command that ended as it should: one message, code 2, no traceback."""
    code, _, err = result
    assert code == 2
    assert "Traceback" not in err
    messages = [line for line in err.splitlines() if line.startswith("knowhue: ")]
    assert len(messages) == 1
    assert [part for part in parts if part not in err] == []
    return err


def test_an_empty_folder_is_told_before_weights_that_are_missing(knowhue, tmp_path):
    (tmp_path / "empty").mkdir()
    weights = ("--set", f"encoder.weights={tmp_path / 'none.safetensors'}")
    errs(knowhue("study", tmp_path / "empty", "--out", tmp_path / "out", *weights), "no images in <class>/")


@pytest.mark.parametrize("command", ["prepare", "train", "study"])
def test_bad_images(knowhue, make_folder, tmp_path, command):
    def refuse(name, *parts):
        errs(
            knowhue(command, *([tmp_path / name] if name else []), "--out", tmp_path / f"out-{name}", *SET),
            *parts,
        )

    (tmp_path / "empty").mkdir()
    refuse("nowhere", "nowhere: no such folder")
    refuse("empty", "no images in <class>/", "--preset demo")
    refuse("", "`images.path` should name a folder of images")
    make_folder({"cat": 5}, root="one")
    refuse("one", "at least 2 classes", "Found 1: cat")
    make_folder({"cat": 5, "dog": 2}, root="few")
    refuse("few", "at least 2 usable train images", "dog 1")
    text = make_folder({"cat": 5, "dog": 1}, root="text")
    for number in range(3):
        (text / "dog" / f"text{number}.jpg").write_text("no image")
    refuse("text", "Left out: 3 unreadable")


@pytest.mark.parametrize("command", ["prepare", "train", "study", "config"])
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--preset", "paper"], ["`--preset` should be one of", "Found `--preset paper`"]),
        (["--set", "trainning.x=1"], ["`trainning` is not a setting"]),
        (["--preset", "demo", "--set", "preset=demo"], ["`preset` is not a setting"]),
        (["--set", "training.batch_size=many"], ["`training.batch_size` should be a whole number", "many"]),
        (["--set", "arms=colour"], ["`arms` should be a list such as `[a, b]`. Found `arms = colour`."]),
        (["--set", "training=3"], ["`training` should be a section of `key: value` lines"]),
        (["--set", "seed"], ["`--set` should look like"]),
        (
            ["--config", "nowhere.yaml"],
            ["nowhere.yaml: no such file or directory; --config takes a YAML file"],
        ),
        (["--start-from", "built-on"], ["Found no file `built-on`. Did you mean `built-in`?"]),
        (
            ["--start-from", "built-in", "--set", "colour.width=9"],
            ["`colour.width` should be", "as in `built-in`"],
        ),
    ],
)
def test_bad_settings(knowhue, command, arguments, parts):
    errs(knowhue(command, *arguments), *parts)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--set", "training.shift_px=16"], ["`training.shift_px` should be below"]),
        (
            ["--set", "colour.discriminator_layers=5"],
            ["`colour.discriminator_layers` should give at least 2"],
        ),
        (["--set", "encoder.name=vgg"], ["`encoder.name` should be one of", "vgg"]),
        (["--set", "colour.decoder=palette"], ["`colour.decoder` should be one of auto", "palette"]),
        (["--set", "encoder.weights=nowhere.pth"], ["Found no file `nowhere.pth`"]),
        (["--set", "encoder.weights=package"], ["No pip package has the weights of `resnet18`"]),
        (["--arm", "both"], ["`--arm` should be one of", "Found `--arm both`"]),
    ],
)
def test_settings_that_do_not_serve(knowhue, make_folder, tmp_path, arguments, parts):
    photos = make_folder({"cat": 5, "dog": 5})
    errs(
        knowhue("train", photos, "--out", tmp_path / "out", *SET, "--set", "training.shift_px=2", *arguments),
        *parts,
    )


@pytest.mark.parametrize("command", ["prepare", "train", "study", "compare", "plan"])
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["images.source=drawn", "images.drawn_count=3"], "`images.drawn_count` should be at least 55"),
        (["images.source=imagenet", "images.path=."], "`images.wordnet_ids` should map"),
        (["images.source=huggingface"], "`images.path` should name the Hugging Face dataset"),
    ],
)
def test_settings_of_images_are_checked_before_weights_are_loaded(knowhue, command, arguments, part):
    weights = ["--set", "encoder.weights=nowhere.pth"]
    errs(knowhue(command, *weights, *(word for each in arguments for word in ("--set", each))), part)


@pytest.mark.parametrize("command", ["prepare", "train", "study"])
def test_folder_that_cannot_be_written(knowhue, make_folder, tmp_path, command):
    (tmp_path / "file").touch()
    photos = make_folder({"cat": 5, "dog": 5})
    errs(
        knowhue(command, photos, "--out", tmp_path / "file" / "out", *SET),
        "Cannot write",
        "Name another folder",
    )


@pytest.mark.parametrize("command", ["prepare", "train", "study", "compare"])
def test_a_folder_of_other_files_is_no_folder_of_a_study(knowhue, make_folder, tmp_path, command):
    photos = make_folder({"cat": 5, "dog": 5})
    before = sorted(tmp_path.rglob("*"))
    said = f"Found `--out {photos}`, which holds cat, dog. Name another folder."
    errs(knowhue(command, photos, "--out", photos, *SET), "`--out` should be the folder of a study", said)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "begun" / "images").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".lock").touch()  # of a command that was killed
    (tmp_path / "noted").mkdir()
    for name in ("log.txt", "study.yaml"):
        (tmp_path / "noted" / name).touch()
    for out in ("begun", "empty", "noted", "new"):
        wrong = ["--set", "trainning.x=1"]
        errs(knowhue(command, photos, "--out", tmp_path / out, *wrong), "`trainning` is not a setting")


def test_prepare_says_what_it_did_and_keeps_it_when_later_images_fail(knowhue, make_folder, tmp_path):
    photos, out = make_folder({"cat": 5, "dog": 5}), tmp_path / "out"
    (photos / "cat" / "text.jpg").write_text("no image")
    code, printed, err = knowhue("prepare", photos, "--out", out, *SET)
    assert code == 0
    assert "train: cat 4, dog 4" in printed
    assert "cat/text.jpg" in (out / "images" / "manifest.csv").read_text()
    assert "1 of 11 images left out (1 unreadable); see images/manifest.csv" in err
    before = np.load(out / "images" / "images.npy")
    for path in (photos / "dog").iterdir():
        Image.new("RGB", (8, 8)).save(path)
    errs(knowhue("prepare", photos, "--out", out, *SET), "dog 0", "near-gray")
    assert np.array_equal(np.load(out / "images" / "images.npy"), before)


def test_tuning_is_planned_apart_from_reporting(knowhue, make_folder, tmp_path):
    photos = make_folder({"cat": 1, "dog": 1})
    code, printed, _ = knowhue("plan", photos, "--tuning", "--seeds", "2")
    assert code == 0
    assert "purpose: tuning" in printed
    for name, purpose in (("tuning", "tuning"), ("other", "report")):
        (tmp_path / name).mkdir()
        described = {**STUDY_SCHEMA, "purpose": purpose, "seeds": [0, 1], "arms": {}, "config": {}}
        write_json(tmp_path / name / "study.json", described)
    errs(knowhue("plan", photos, "--tuned-on", tmp_path / "tuning"), "Found 0 in both", "--set seed=2")
    refused = knowhue(
        "study",
        photos,
        *SET,
        "--tuned-on",
        tmp_path / "tuning",
        "--set",
        "seed=2",
        "--out",
        tmp_path / "runs" / "rep",
    )
    errs(refused, "should report on a test split")
    assert not (tmp_path / "runs").exists()
    errs(knowhue("plan", photos, "--tuned-on", tmp_path / "other"), "should be the folder of a tuning study")
    code, printed, _ = knowhue("plan", photos, "--tuned-on", tmp_path / "tuning", "--set", "seed=2")
    assert code == 0
    assert "tuned_on_seeds:" in printed


def test_run_or_study_that_is_not_there(knowhue, tmp_path):
    errs(knowhue("evaluate", tmp_path), "should be the folder of a finished run")
    code, _, err = knowhue("report", tmp_path / "nowhere")
    assert code == 2
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["studdy"], "Usage"),
        (["train", "--arms", "x"], "Usage"),
        (
            ["study", "--seeds", "0"],
            "`--seeds` should be greater than or equal to 1. Found `--seeds = 0`.",
        ),
    ],
)
def test_a_command_or_option_that_there_is_not_or_a_number_out_of_its_range_is_refused(
    knowhue, arguments, said
):
    code, _, err = knowhue(*arguments)
    assert code == 2
    assert said in err


def test_of_several_inputs_the_folder_is_to_be_named(knowhue):
    code, out, err = knowhue("colorize", "a.jpg", "b.jpg", "--fast", "c.jpg")
    assert (code, out) == (2, "")
    found = " ".join(err.replace("│", " ").split())
    assert "One input at a time. Found also b.jpg, c.jpg. Name the folder that holds them." in found


OURS = {theirs: ours for ours, names in OTHER_NAMES.items() for theirs in names.split()}


@pytest.mark.parametrize("name", OURS)
def test_what_other_programs_call_a_command_is_told_in_our_name(knowhue, name):
    code, _, err = knowhue(name, "photo.jpg")
    assert code == 2
    assert f"No such command '{name}'. Did you mean '{OURS[name]}'?" in " ".join(
        err.replace("│", " ").split()
    )


def test_a_shell_that_completes_what_others_call_a_command_sees_no_error():
    line = {"_KNOWHUE_COMPLETE": "complete_bash", "COMP_WORDS": "knowhue demo --", "COMP_CWORD": "2"}
    found = CliRunner().invoke(app, env=line, prog_name="knowhue")
    assert not isinstance(found.exception, Exception)


def test_no_command_is_hidden_by_what_others_call_it():
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert not names & OURS.keys()
    assert OTHER_NAMES.keys() <= names


def test_config_prints_what_config_reads(knowhue, tmp_path):
    from knowhue.presets import load_config

    code, out, _ = knowhue("config", "--preset", "demo", "--set", "seed=5")
    (tmp_path / "settings.yaml").write_text(out)
    assert code == 0
    assert load_config(files=[tmp_path / "settings.yaml"]) == load_config("demo", settings=["seed=5"])


@pytest.mark.parametrize("name", ["photos", "2024", "1e5", "null", "old: new", "[raw]"])
def test_folder_of_any_name(name):
    settings = cli.SettingsOptions(images=name, preset="poster").settings()
    assert (settings.images.source, settings.images.path) == ("folder", name)


def test_settings_go_over_the_named_folder():
    settings = cli.SettingsOptions(images="photos", preset="demo", set_=["images.source=imagenet"]).settings()
    assert (settings.images.source, Path(settings.images.path)) == ("imagenet", Path("photos"))


@pytest.fixture(params=["Ctrl-C", "SIGTERM"])
def interrupted(request, knowhue, monkeypatch, make_folder, tmp_path):
    """A command that is stopped with Ctrl-C or SIGTERM."""

    def interrupt(*_, **__):
        if request.param == "Ctrl-C":  # whose signal a shell lets processes in the background ignore
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("knowhue.data.prepare.prepare", interrupt)
    ended = knowhue("prepare", make_folder({"cat": 5, "dog": 5}), "--out", tmp_path / "out")
    return {"Ctrl-C": 130, "SIGTERM": 143}[request.param], *ended


def test_interrupted_command_has_the_shells_code(interrupted):
    expected, code, _, err = interrupted
    assert code == expected
    assert "Traceback" not in err


def test_interrupted_command_says_how_to_go_on(interrupted):
    assert interrupted[3].endswith("knowhue: stopped. The same command resumes it.\n")


def test_an_interrupted_video_or_photo_leaves_nothing_behind(knowhue, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("knowhue.inference.video.require_video", lambda _: None)
    monkeypatch.setattr("knowhue.inference.video.colorize_video", interrupt)
    (tmp_path / "video.mp4").touch()
    code, _, err = knowhue("colorize", tmp_path / "video.mp4", "-o", tmp_path / "colour.mp4")
    assert code == 130
    assert err.endswith("knowhue: stopped. The same command resumes it.\n")
    assert list(tmp_path.iterdir()) == [tmp_path / "video.mp4"]
    Image.new("L", (8, 8)).save(tmp_path / "photo.png")
    # a photo is known for one when libraries are loaded
    for at in ("knowhue.apps.use.open_model", "knowhue.images.reading.is_image"):
        monkeypatch.setattr(at, interrupt)
        code, _, err = knowhue("colorize", tmp_path / "photo.png")
        assert code == 130
        assert err.endswith("knowhue: stopped. The same command resumes it.\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png", "video.mp4"]


WRONG = [
    (["colorize", "p.png", "--saturation", "inf"], "saturation"),
    (["colorize", "p.png", "--saturation", "nan"], "saturation"),
    (["colorize", "p.png", "--unknown-below", "nan"], "unknown-below"),
    *(
        (arguments, "Is a shell variable not set?")
        for arguments in (
            ["colorize", ""],
            ["colorize", ".", "--out", ""],
            ["colorize", ".", "--out="],
            ["export", " "],
            ["models", ""],
            ["score", ".", "--truth", ""],
            ["study", "photos", "--out="],
            ["verdict", "-o", "", "t.csv"],
        )
    ),
    (["models", "bulit-in"], "Did you mean `built-in`?"),
    (["plan", "photos", "--seeds", "99999999999"], "seeds"),
    (["study", "photos", "--workers", "99999999"], "workers"),
    (["compare", "photos", "--seeds", "99999999999"], "seeds"),
    (["compare", "photos", "--budget", "inf"], "budget"),
    (["compare", "photos", "--methods", ","], "`--methods` should be some of"),
    (["compare", "photos", "--methods", "l1,l1"], "each once"),
    (["plan", "photos", "--arms", ","], "`--arms` should be some of"),
    (["plan", "photos", "--arms", "colour,colour"], "each once"),
    *(
        (["plan", "photos", "--grid", grid], "`--grid` should be")
        for grid in ("nan", "inf", "0", "-1", "1,1", "1,,2", ",")
    ),
    (
        ["plan", "photos", "--images", "30", "--image-sd", "class=1", "--seed-sd", "clas=1"],
        "Did you mean `class`?",
    ),
    (
        ["plan", "photos", "--images", "30", "--image-sd", "class=1", "--seed-sd", "class=nan"],
        "standard deviations",
    ),
    (["plan", "photos", "--preset", "postr"], "Did you mean `poster`?"),
    (["plan", "photos", "--arms", "colour,mulit"], "Did you mean `multi`?"),
    (["compare", "photos", "--methods", "l1,gann"], "Did you mean `gan`?"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_wrong_values_are_refused_before_work(knowhue, make_folder, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    make_folder({"cat": 1, "dog": 1})
    Image.new("L", (8, 8)).save("p.png")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = knowhue(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "study --epochs 3",
            "No such option: --epochs. Instead: --set training.heads.epochs=3 --set training.fine",
        ),
        ("train --seed=1", "No such option: --seed. Instead: --set seed=1."),
        ("colorize a.jpg --force", "No such option: --force. Instead: --overwrite."),
        ("colorize a.jpg --gpu", "No such option: --gpu. Instead: Training and exported models use a GPU"),
        ("study --resume", "No such option: --resume. Instead: --out with the same folder resumes where"),
        ("serve -v", "No such option: -v. Instead: All progress and all warnings are always shown."),
        ("pack --metric x", "No such option: --metric. There are --out, --overwrite."),
        ("evaluate --metric x", "No such option: --metric. There are none besides --help."),
        ("help", "No such command 'help'. Did you mean '--help'?"),
        ("version", "No such command 'version'. Did you mean '--version'?"),
    ],
)
def test_what_other_programs_call_an_option_is_answered_with_ours(command, said):
    found = CliRunner().invoke(app, command.split(), env={"COLUMNS": "200"})
    assert found.exit_code == 2
    assert said in " ".join(found.output.replace("│", " ").split())


def test_an_option_is_named_only_where_a_command_has_it():
    for command in (
        "colorize a.jpg --epochs 3",
        "status a --force",
        "models --lr 1",
        "models --resume",
    ):
        assert "Instead" not in CliRunner().invoke(app, command.split()).output


def test_settings_that_stand_in_for_options_of_others_are_settings():
    from knowhue.presets import load_config

    written = [each.split()[1::2] for each in OTHER_OPTIONS if each.startswith("--set ")]
    assert len(written) == 5
    for settings in written:
        load_config(settings=settings)


@pytest.fixture
def studied(monkeypatch, make_folder, tmp_path):
    """The arguments of `knowhue study`, which does no work here."""
    asked = []

    def run_study(plan, out, executor, description, *_):
        asked.append((plan, description))
        out.mkdir()

    monkeypatch.setattr("knowhue.study.run_study", run_study)
    said = SimpleNamespace(lines=["", "?", "  −0.57: to +0.01"])
    monkeypatch.setattr("knowhue.report.reading.read_study", lambda folder: folder)
    monkeypatch.setattr("knowhue.report.results.conclude", lambda study: said)
    return asked


def test_a_study_from_a_plan_records_no_preset(knowhue, make_folder, tmp_path, studied):
    photos = make_folder({"cat": 1, "dog": 1})
    code, plan, _ = knowhue("plan", photos, "--preset", "demo", "--seeds", "2")
    assert code == 0
    (tmp_path / "plan.yaml").write_text(plan, encoding="utf-8")
    assert knowhue("study", "--plan", tmp_path / "plan.yaml", "--out", tmp_path / "planned")[0] == 0
    assert knowhue("study", photos, "--preset", "demo", "--seeds", "2", "--out", tmp_path / "asked")[0] == 0
    (planned, described), (asked, told) = studied
    assert planned.hash({}) == asked.hash({})
    assert "preset" not in described
    assert told["preset"] == "demo"
    assert (described["name"], told["name"]) == ("planned", "asked")


@pytest.mark.parametrize("damage", [False, True])
def test_a_studys_own_file_is_known_by_what_it_holds(knowhue, tmp_path, studied, damage):
    plan = make_plan(load_config("demo"), ["colour"])
    copy = tmp_path / "copy.json"
    write_json(copy, {**STUDY_SCHEMA, "hash": "0" * 64, **plan.model_dump(mode="json")})
    if damage:
        copy.write_text(copy.read_text()[:-20])
        said = f"`{copy}` is damaged", "restore the file, or begin a study in another folder"
        errs(knowhue("study", "--plan", copy, "--out", tmp_path / "out"), *said)
        return
    assert knowhue("study", "--plan", copy, "--out", tmp_path / "out")[0] == 0
    ((asked, _),) = studied
    assert asked.hash({}) == plan.hash({})
    # no plan that has its name
    copy.write_text('{"name": "knowhue-study", "arms": 3}')
    assert "damaged" not in knowhue("study", "--plan", copy, "--out", tmp_path / "out")[2]
    # a file that was emptied is a plan no more
    (tmp_path / "study.json").touch()
    errs(knowhue("study", "--plan", tmp_path / "study.json", "--out", tmp_path / "out"), "is damaged")
    # and no other file by its name
    code, text, _ = knowhue("plan", "--preset", "demo", "--arms", "colour")
    assert code == 0
    (tmp_path / "study.json").write_text(text, encoding="utf-8")
    assert knowhue("study", "--plan", tmp_path / "study.json", "--out", tmp_path / "other")[0] == 0


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "empty.yaml",
            "",
            "the file is empty; --plan takes a study file, as `knowhue plan` prints it, or `study.json` of",
        ),
        (
            "results.json",
            '{"schema": 1, "questions": 2}',
            "the file has `schema`, `questions`, so it is not a study file; ",
        ),
        ("settings.yaml", "training: {}", "of a study's folder. Use --config for a file of settings"),
        ("nothere.json", None, "no such file or directory; --plan takes a study file"),
        ("model.onnx", "x", "not a study file. It is a model"),
    ],
)
def test_what_is_no_study_file_is_said_with_what_is_one(knowhue, tmp_path, studied, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    errs(knowhue("study", "--plan", tmp_path / name, "--out", tmp_path / "out"), f"{name}: ", said)
    assert studied == []


@pytest.mark.parametrize("more", [["--preset", "poster"], ["--seeds", "2"], ["--set", "seed=1"], ["photos"]])
def test_a_plan_leaves_nothing_to_be_asked_beside_it(knowhue, tmp_path, studied, more):
    (tmp_path / "plan.yaml").write_text("seeds: [0]")
    errs(
        knowhue("study", *more, "--plan", tmp_path / "plan.yaml"),
        "describes the whole study: images, settings, arms and seeds",
    )
    assert studied == []


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_the_answers_of_a_study_are_told_in_any_encoding(
    knowhue, make_folder, tmp_path, studied, monkeypatch, encoding
):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stream)
        code, *_ = knowhue("study", make_folder({"cat": 1, "dog": 1}), *SET, "--out", tmp_path / "out")
    assert code == 0
    stream.flush()
    sign = "−" if encoding == "utf-8" else "-"
    assert f"{sign}0.57: to +0.01" in stream.buffer.getvalue().decode(encoding)


def test_one_is_not_many(knowhue, make_folder, tmp_path):
    plan = make_plan(load_config("demo"), ["colour"])
    write_json(tmp_path / "study.json", {**STUDY_SCHEMA, "hash": "0" * 64, **plan.model_dump(mode="json")})
    code, out, _ = knowhue("status", tmp_path)
    assert code == 0
    assert out.splitlines()[0].endswith(", 1 arm x 1 seed")


def test_a_run_one_folder_deeper_is_named(knowhue, tmp_path):
    run = tmp_path / "study" / "class" / "seed-0-1a2b3c4d"
    write_config(run, load_config("demo"))
    write_status(run, {"state": "finished"})
    errs(knowhue("models", tmp_path / "study" / "class"), f"Name one, such as {run}")


def test_completion_of_the_shell_is_offered(knowhue):
    _, out, _ = knowhue("--help")
    assert "--install-completion" in out


def test_a_file_that_cannot_be_reached_is_one_line(knowhue, monkeypatch):
    def fail(*_):
        raise PermissionError(13, "Permission denied", "secret\x1b[31m.json")

    monkeypatch.setattr("knowhue.apps.cli.load_config", fail)
    code, _, err = knowhue("config")
    assert (code, err) == (2, "knowhue: secret\\x1b[31m.json: permission denied\n")


def test_the_power_of_one_seed_is_none(knowhue, make_folder):
    stated = ["--seed-sd", "colour=.1", "--image-sd", "colour=1", "--images", "100"]
    code, out, _ = knowhue("plan", make_folder({"cat": 1, "dog": 1}), *stated)
    assert code == 0
    assert "colour: 1 seed gives no verdict" in out
