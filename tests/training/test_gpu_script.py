"""`benchmarks/gpu.py` also runs on a CPU; a failure is one line and does not stop the other checks."""

import importlib.util
from pathlib import Path

import pytest
import torch  # noqa: F401 before a test replaces `find_spec`, which torch calls while it is imported


@pytest.fixture
def gpu():
    path = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
    spec = importlib.util.spec_from_file_location("gpu_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_failure_is_told_in_a_line_and_stops_nothing(gpu, monkeypatch, tmp_path, capsys):
    def fail(_):
        raise RuntimeError("no kernel image\nfor this card")

    monkeypatch.setitem(gpu.CHECKS, "study", fail)
    monkeypatch.setitem(gpu.CHECKS, "resume", lambda _: "equal")
    bench = gpu.Bench(tmp_path, 40)
    assert [gpu._try(name, bench, seconds=1e9) for name in ("study", "resume")] == [False, True]
    first, second = capsys.readouterr().out.splitlines()
    assert "FAILED" in first
    assert "RuntimeError: no kernel image for this card" in first
    assert "passed" in second


def test_no_check_begins_after_the_time(gpu, tmp_path, capsys):
    assert not gpu._try("study", gpu.Bench(tmp_path, 40), seconds=-1.0)
    assert "skipped" in capsys.readouterr().out


def test_missing_packages_are_named(gpu, monkeypatch):
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None if name == "kornia" else object())
    assert gpu._machine().startswith("missing packages: kornia\ntorch ")


def test_images_are_prepared_anywhere(gpu, tmp_path):
    assert gpu.check_prepare(gpu.Bench(tmp_path, 60)).endswith("images of 64 pixels")
