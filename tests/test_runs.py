"""Files get there whole or not at all."""

import json
import math

import pytest

from knowhue.errors import RunError
from knowhue.presets import load_config
from knowhue.runs import (
    has_ended,
    read_config,
    read_json,
    read_log,
    replacing,
    require_writable,
    run_folder,
    write_json,
    write_log,
)


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_file_is_replaced_when_all_is_written(tmp_path, mode):
    path = tmp_path / "new" / "file"
    for content in ("first", "second"):
        with replacing(path, mode) as file:
            file.write(content if mode == "w" else content.encode())
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == content
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_interrupted_writing_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def write():
        with replacing(path) as file:
            file.write("half of the n")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_full_disk_is_said(tmp_path):
    with (
        pytest.raises(RunError, match=r"No space left on device\. Free some space"),
        replacing(tmp_path / "file"),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunError, match=r"Cannot write `.*file/below/x\.json`: .*--out"),
        replacing(tmp_path / "file" / "below" / "x.json"),
    ):
        pytest.fail("nothing to write to")


@pytest.mark.parametrize("value", [math.nan, math.inf, [1, {"a": -math.inf}]])
def test_what_json_cannot_hold_is_refused(tmp_path, value):
    write_json(tmp_path / "file.json", "old")
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == "old"


@pytest.mark.parametrize("content", ["", "{", "\x00"])
def test_file_that_is_not_ours(tmp_path, content):
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(RunError, match=r"file\.json` should be a file written by knowhue"):
        read_json(tmp_path / "file.json")


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(
        RunError, match=r"file\.json` should be there\. Found none: is `.*` the folder you meant"
    ):
        read_json(tmp_path / "file.json")


def test_writable_folder_is_left_as_it_was(tmp_path):
    require_writable(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="Cannot write"):
        require_writable(tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("status", "ended"),
    [(None, False), ("running", False), ("finished", True), ("diverged", True)],
)
def test_a_run_has_ended_when_its_status_says_so(tmp_path, status, ended):
    if status:
        write_json(tmp_path / "status.json", {"state": status})
    assert has_ended(tmp_path) is ended


def test_log_reads_back(tmp_path):
    assert read_log(tmp_path) == []
    epochs = [
        {"phase": phase, "epoch": n, "train": {"l1": 0.1 + n}}
        for n, phase in enumerate(["heads", "finetune"])
    ]
    write_log(tmp_path, epochs)
    assert read_log(tmp_path) == epochs
    assert read_log(tmp_path, "finetune") == epochs[1:]
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == epochs


def test_configuration_reads_back(tmp_path):
    config = load_config("demo", settings=["seed=3", "class.label_smoothing=0.1"])
    write_json(tmp_path / "config.json", config.model_dump(mode="json"))
    assert read_config(tmp_path) == config


def test_runs_of_other_settings_have_other_folders(tmp_path):
    first, second = load_config("demo"), load_config("demo", settings=["training.shift_px=1"])
    assert run_folder(tmp_path, "multi", first) == run_folder(tmp_path, "multi", load_config("demo"))
    assert run_folder(tmp_path, "multi", first) != run_folder(tmp_path, "multi", second)
    assert run_folder(tmp_path, "multi", first).name.startswith("seed-0-")
