"""Output of commands: no control characters, one line per message, and no failure if the encoding lacks a character."""

import contextlib
import errno
import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import knowhue.apps.cli  # noqa: F401  whose commands join the app before it is replaced
from knowhue.__main__ import load_and_run
from knowhue.apps import program, progress, use
from knowhue.errors import minus
from knowhue.inference.colorizer import Colorizer
from knowhue.metric_table import METRICS

HOSTILE = {
    "escape": "red\x1b[31m",
    "title": "\x1b]0;owned\x07",
    "carriage return": "a\rb",
    "newline": "a\nb",
    "tab": "a\tb",
    "backspace": "a\x08\x08b",
    "override": "\u202egnp.exe",
    "C1": "\x9b31m",
    "separator": "a\u2028b",
    "no UTF-8": b"\xff\xfe".decode("utf-8", "surrogateescape"),
}
STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Stream(io.TextIOWrapper):
    """A standard output of some encoding."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.fixture
def stream(monkeypatch):
    def make(encoding: str) -> Stream:
        made = Stream(encoding)
        monkeypatch.setattr(sys, "stdout", made)
        program.replace_unencodable_output()
        return made

    return make


@given(st.text())
def test_a_printable_text_is_one_line_that_steers_nothing(text):
    shown = program.printable(text)
    assert not STEERING.search(shown)
    assert "\n" not in shown
    assert shown == program.printable(shown)


@pytest.mark.parametrize(
    "text", ["Straße", "海 葵", "a b", "é", "👨‍👩‍👧", "نمی‌دانم", "−0.57 to +0.01", "50 %"]
)
def test_what_people_write_stays(text):
    assert program.printable(text) == text


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "Möwe 海.jpg"), ("latin-1", r"Möwe \u6d77.jpg"), ("ascii", r"M\u00f6we \u6d77.jpg")],
)
def test_json_shows_the_letters_that_an_encoding_has(stream, encoding, shown):
    written = stream(encoding)
    program.say_json("Möwe 海.jpg")
    assert written.text() == f'"{shown}"\n'


@given(st.text(st.characters()), st.sampled_from(["utf-8", "cp1252", "latin-1", "ascii", "cp437"]))
def test_json_is_one_line_that_every_encoding_takes_and_every_reader_reads_back(text, encoding):
    written = Stream(encoding)
    with contextlib.redirect_stdout(written):
        program.say_json({"path": text})
    line = written.text()
    assert json.loads(line) == {"path": text}
    assert not STEERING.search(line.removesuffix("\n"))
    assert line.count("\n") == 1


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "cp437", "shift_jis", "utf-8", "utf-16"])
def test_no_encoding_makes_a_line_fail(stream, encoding):
    written = stream(encoding)
    program.say("−0.57 to ±1 → 海 “x” … 3 × 4 ≤ 5", *HOSTILE.values())
    lines = written.text().splitlines()
    assert len(lines) == 1 + len(HOSTILE)
    if encoding == "ascii":
        assert lines[0] == r'-0.57 to +/-1 -> \u6d77 "x" ... 3 x 4 <= 5'


@pytest.fixture(scope="module")
def built_in():
    return Colorizer.load()


@pytest.fixture
def odd_folder(tmp_path):
    """A valid image under each odd name, and other files."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in HOSTILE.values():
        Image.fromarray(np.full((8, 8), 99, np.uint8)).save(folder / "good.png")
        os.rename(folder / "good.png", folder / f"{name}.png")
    (folder / "self.png").symlink_to("self.png")
    (folder / "there.png").symlink_to("back.png")
    (folder / "back.png").symlink_to("there.png")
    (folder / "broken.png").symlink_to("nowhere\x1b[31m")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "home").symlink_to(".")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe.png")
    return folder


def test_odd_names_links_and_pipes_get_a_line_each_and_the_rest_is_coloured(
    knowhue, odd_folder, tmp_path, monkeypatch, built_in
):
    monkeypatch.setattr(use, "open_model", lambda *_: built_in)
    code, said, err = knowhue("colorize", odd_folder, "-o", tmp_path / "out")
    assert code == 1
    assert said.startswith(f"{len(HOSTILE)} images coloured")
    assert not STEERING.search(said + err)
    for bad in ("self.png", "there.png", "back.png", "broken.png", "zero.png", "pipe.png"):
        assert len([line for line in said.splitlines() if line.startswith(f"    {bad}: ")]) == 1
    made = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert made == {f"{name}.png" for name in HOSTILE.values()}


@pytest.mark.parametrize("name", HOSTILE)
def test_one_photo_of_an_odd_name(knowhue, odd_folder, tmp_path, monkeypatch, built_in, name):
    monkeypatch.setattr(use, "open_model", lambda *_: built_in)
    photo = odd_folder / f"{HOSTILE[name]}.png"
    for arguments in ([], ["--overwrite", "--json"]):
        code, said, err = knowhue("colorize", photo, *arguments)
        assert code == 0
        assert not STEERING.search(said + err)
    assert json.loads(said)["output"] == str(photo.with_name(f"{HOSTILE[name]}-colour.png"))
    code, said, err = knowhue("colorize", odd_folder / f"{HOSTILE[name]}.gif")
    assert (code, err.count("\n"), bool(STEERING.search(err))) == (2, 1, False)


def test_a_folder_that_cannot_be_read_is_one_line(knowhue, odd_folder, tmp_path, monkeypatch, built_in):
    (odd_folder / "closed").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):  # others ask by number
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(use, "open_model", lambda *_: built_in)
    code, said, _ = knowhue("colorize", odd_folder, "-o", tmp_path / "out")
    assert (code, "    closed: unreadable folder: Permission denied" in said) == (1, True)
    assert said.startswith(f"{len(HOSTILE)} images coloured")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_classes_are_shown_safely(knowhue, tmp_path, monkeypatch, built_in, name):
    class Renamed:
        runtime, predict = built_in.network.runtime, built_in.network.predict
        activation_names = built_in.network.activation_names
        description = built_in.network.description.model_copy(
            update={
                "classes": (HOSTILE[name], *built_in.network.description.classes[1:]),
                "name": HOSTILE[name],
                "licence": HOSTILE[name],
            }
        )

    monkeypatch.setattr(use, "open_model", lambda *_: Colorizer(Renamed()))
    Image.fromarray(np.full((8, 8), 99, np.uint8)).save(tmp_path / "p.png")
    shown = knowhue("models")[1] + knowhue("colorize", tmp_path / "p.png")[1]
    assert not STEERING.search(shown)
    assert program.printable(HOSTILE[name]) in shown


def test_progress_shows_names_as_they_are_and_steers_nothing():
    from rich.console import Console

    written = Stream("cp1252")
    written.reconfigure(errors=program.ERRORS)
    plain = progress.PlainProgress(Console(file=written, width=200))
    plain({"stage": "note", "text": "\x1b[31m[bold]海[/] −1"})
    assert written.text().splitlines()[-1].split("s", 1)[1].strip() == r"\x1b[31m[bold]\u6d77[/] -1"


def run(*arguments, encoding, **options):
    return subprocess.run(
        [sys.executable, "-m", "knowhue", *map(str, arguments)],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        check=False,
        **options,
    )


def test_a_real_pipe_of_latin_1(make_folder, tmp_path):
    """As a Windows pipe or a Latin-1 locale would have it; a plan names the folder so that it is read back."""
    make_folder({"cat": 1, "dog": 1}, root="海−")
    done = run("plan", tmp_path / "海−", encoding="cp1252")
    assert (done.returncode, done.stderr) == (0, b"")
    (tmp_path / "plan.yaml").write_bytes(done.stdout)
    from knowhue.settings_text import read_yaml

    assert read_yaml(tmp_path / "plan.yaml")["config"]["images"]["path"] == str(tmp_path / "海−")
    done = run("colorize", tmp_path / "海.png", encoding="ascii")
    assert (done.returncode, done.stderr.count(b"\n"), b"Traceback" in done.stderr) == (2, 1, False)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_told_with_unit_and_direction(name):
    metric = METRICS[name]
    line = program.score_line(name, 0.5, (0.25, 0.75))
    assert line.startswith(f"{metric.title}: ")
    assert name not in line.split(": ", 1)[1]
    assert ("lower is better" in line, "higher is better" in line) == (
        metric.better == "lower",
        metric.better == "higher",
    )
    unit = f" {minus(program.unit_in_words(name))} "
    assert ("50.0 % [25.0 % to 75.0 %]" if metric.unit == "share" else unit) in line


def test_what_is_no_number_has_no_unit():
    shown = program.score_line("ab_l1", None)
    assert shown == "Mean absolute error of a*b*: not a number (lower is better)"


def test_what_pillow_says_of_damaged_metadata_does_not_reach_the_terminal(monkeypatch):
    monkeypatch.setattr("sys.argv", ["knowhue", "--version"])
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with pytest.raises(SystemExit):
            program.main()
        for module in ("PIL.TiffImagePlugin", "somebody.else"):
            warnings.warn_explicit("Metadata Warning", UserWarning, "file.py", 1, module=module)
    assert len(shown) == 1


def test_an_interruption_that_python_drops_comes_again(monkeypatch):
    class Removed:
        def __del__(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "unraisablehook", program.resend_interruption)
    # processes that pytest hands tests to ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        Removed()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(30)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("loaded", ["typer", "knowhue.config", "knowhue.apps.cli"])
def test_a_program_that_is_stopped_while_it_loads_says_so(loaded):
    code = f"""
import runpy, signal, sys

class Stopping:
    def find_spec(self, name, *_):
        if name == {loaded!r}:
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Stopping())
sys.argv = ["knowhue", "--version"]
runpy.run_module("knowhue", run_name="__main__")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr.strip()) == (130, "", "knowhue: stopped.")


def test_a_second_ctrl_c_adds_nothing_to_what_the_first_one_said():
    code = """
import atexit, runpy, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)
atexit.register(signal.raise_signal, signal.SIGINT)
sys.argv = ["knowhue", "--version"]
runpy.run_module("knowhue", run_name="__main__")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (-signal.SIGINT, "")


def test_the_installed_program_begins_where_the_module_does():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, name = project["project"]["scripts"]["knowhue"].partition(":")
    assert getattr(importlib.import_module(module), name) is load_and_run


def test_at_the_end_nobody_waits_until_garbage_is_looked_for():
    code = (
        "import atexit, gc, sys; from knowhue.apps import program; sys.argv = ['knowhue', '--version']\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000)); program.main()"  # the first one runs last
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "True"


MEANT = " Write a point for a decimal comma, nothing between thousands, and 0.015 for 1.5 %."


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("plan --seeds 0", "`--seeds` should be greater than or equal to 1. Found `--seeds = 0`."),
        ("plan --seeds 10001", "`--seeds` should be less than or equal to 10000. Found `--seeds = 10001`."),
        ("plan --seeds 1,000", f"`--seeds` should be a whole number. Found `--seeds = 1,000`.{MEANT}"),
        ("plan --seeds x", "`--seeds` should be a whole number. Found `--seeds = x`."),
        ("colorize x --shards 0", "`--shards` should be greater than or equal to 1. Found `--shards = 0`."),
        (
            "colorize x --saturation=7",
            "`--saturation` should be less than or equal to 4. Found `--saturation = 7`.",
        ),
        ("compare --budget 0", "`--budget` should be greater than or equal to 0.001. Found `--budget = 0`."),
        ("verdict x --alpha y", "`--alpha` should be a number. Found `--alpha = y`."),
        ("verdict x --alpha 0,1", f"`--alpha` should be a number. Found `--alpha = 0,1`.{MEANT}"),
    ],
)
def test_an_option_says_which_numbers_it_takes(knowhue, given, said):
    assert knowhue(*given.split()) == (2, "", f"knowhue: {said}\n")


class FullDisk(io.StringIO):
    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_only_what_printing_meets_is_told_of_standard_output(knowhue, monkeypatch):
    monkeypatch.setattr(program, "app", lambda **_: os.close(-1))
    assert knowhue()[::2] == (2, "knowhue: bad file descriptor\n")
    monkeypatch.setattr(program, "app", lambda **_: program.say("a line"))
    monkeypatch.setattr(sys, "stdout", FullDisk())
    assert knowhue()[::2] == (2, "knowhue: standard output: no space left on device\n")


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("score our --truth truth --reference our -o x.html", "Found `truth`"),
        ("colorize out --out out", "Found `out`"),
        ("colorize g.png --model model -o x.png", "`model`"),
        ("verdict runs.csv --against against --sesoi acc=1", "Found `against`"),
        ("colorize g.png --model=recipe --recipe=ddcolor -o x.png", "Found `recipe`"),
    ],
)
def test_a_value_that_is_called_like_its_option_is_shown_as_typed(
    knowhue, tmp_path, monkeypatch, command, found
):
    monkeypatch.chdir(tmp_path)
    for folder in ("our", "out", "model"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (16, 16), "red").save(tmp_path / folder / "a.png")
    Image.new("L", (16, 16), 99).save(tmp_path / "g.png")
    (tmp_path / "runs.csv").write_text(
        "arm,seed,acc\n" + "".join(f"{arm},{n},0.{n}\n" for arm in "ab" for n in range(3))
    )
    code, _, err = knowhue(*command.split())
    assert (code, found in err) == (2, True), err
