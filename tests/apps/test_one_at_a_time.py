"""Every command that writes into a folder refuses, in one line and before any work, a folder that is in use."""

from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from knowhue.config import Config
from knowhue.locks import LOCK
from knowhue.runs import write_config
from knowhue.storage import write_json

TINY = ["--preset", "demo", "--set", "images.drawn_count=55", "--set", "encoder.weights=none"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "photos" / "a.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("command", ["study", "compare", "train", "prepare"])
def test_commands_that_train(knowhue, tmp_path, command):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / LOCK):
        code, _, error = knowhue(command, *TINY, "--out", tmp_path / "out")
    assert code == 2
    said, refused = error.strip().splitlines()
    assert said.endswith("starting: loading libraries")
    assert "is in use by another process. Wait" in refused
    assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]


def test_evaluate(knowhue, tmp_path):
    run = tmp_path / "study" / "multi" / "seed-0-1a2b3c4d"
    run.mkdir(parents=True)
    write_config(run, Config())
    write_json(run / "status.json", {"state": "finished"})
    with FileLock(tmp_path / "study" / LOCK):
        code, _, error = knowhue("evaluate", run)
    assert (code, "study` is in use" in error) == (2, True)


def test_colorize_folder(knowhue, photos, tmp_path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / LOCK):
        code, _, error = knowhue("colorize", photos, "-o", tmp_path / "out")
    assert (code, "out` is in use" in error) == (2, True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]


@pytest.mark.parametrize(("to", "name"), [("safetensors", "m.safetensors"), ("hub-folder", "m")])
def test_export_of_the_same_file_but_not_of_others_beside_it(knowhue, tmp_path, to, name):
    with FileLock(tmp_path / f".{name}.lock"):
        code, _, error = knowhue("export", "built-in", "--to", to, "-o", tmp_path / name)
        assert (code, "is in use" in error) == (2, True)
        code, _, error = knowhue("export", "built-in", "-o", tmp_path / "other.safetensors")
        assert (code, "knowhue:" in error) == (0, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{name}.lock", "other.safetensors"]
