"""The README's commands exist, and its Python code works as described."""

import inspect
import re
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

import knowhue
from knowhue.apps.cli import app
from knowhue.plan import Plan
from knowhue.presets import PRESETS, load_config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAIN = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")


def python_of(page):
    """The Python code of the README, in order."""
    return re.findall(r"```python\n(.*?)```", page, flags=re.S)


def test_the_study_in_python_runs(monkeypatch):
    (block,) = python_of(TRAIN)
    real, asked = inspect.signature(knowhue.run_study), []
    monkeypatch.setattr(knowhue, "run_study", lambda *a, **k: asked.append(real.bind(*a, **k)), raising=False)
    exec(compile(block, "train.md", "exec"), {})
    (call,) = asked
    assert isinstance(call.arguments["plan"], Plan)
    assert call.arguments["plan"].seeds == tuple(range(7))


def test_the_colouring_of_the_readme_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.arange(240, dtype=np.uint8).reshape(12, 20)).save("photo.jpg")
    (block,) = python_of(README)
    exec(compile(block, "README.md", "exec"), {})
    with Image.open("colour.png") as made:
        assert made.size == (20, 12)
    label, probability, *_ = capsys.readouterr().out.split()
    assert label == "unknown"
    assert 0 < float(probability) < 0.5


def test_what_the_readme_shows_of_a_photo_is_what_is_printed(tmp_path):
    (shown,) = re.findall(r"```\n\$ (knowhue colorize .*?)```", README, flags=re.S)
    command, *expected = shown.strip().split("\n")
    source = command.split()[2]
    done = CliRunner().invoke(app, ["colorize", str(ROOT / source), "-o", str(tmp_path / "colour.jpg")])
    assert done.exit_code == 0
    printed = done.stdout.replace(str(ROOT) + "/", "").replace(str(tmp_path) + "/", "")
    assert printed.strip().split("\n")[-len(expected) :] == expected


def test_every_command_is_in_the_readme():
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"^\| `knowhue (\w+)`", README, flags=re.M)) == commands


def test_the_readme_is_read_in_five_minutes():
    assert len(README.splitlines()) <= 150


def test_settings_and_presets_of_readme_and_training_page_exist():
    for preset in re.findall(r"--preset ([\w-]+)", README + TRAIN):
        assert preset in PRESETS
    for setting in re.findall(r"--set ([\w.]+=[\w.]+)", README + TRAIN):
        load_config(settings=[setting.replace("0..1", "0.5")])


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M)


def test_linked_files_exist():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert "://" in link or (page.parent / link).exists(), f"{page.name}: {link}"
