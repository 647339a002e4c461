"""Files get there whole or not at all."""

import json

import pytest

from knowhue.errors import RunError
from knowhue.presets import load_config
from knowhue.runs import has_ended, read_config, read_log, require_writable, run_folder, write_log
from knowhue.storage import write_json


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
