"""Clusters on one machine for the tests of engines."""

import os
from pathlib import Path

import fake_slurm
import pytest


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A study folder, with the commands of a fake Slurm cluster on the PATH."""
    pytest.importorskip("submitit", reason="submitit is not installed")
    fake_slurm.install(tmp_path / "slurm")
    monkeypatch.setenv("PATH", str(tmp_path / "slurm"), prepend=os.pathsep)
    # jobs import their functions from this folder
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.setattr("knowhue.engines.executor.POLL_SECONDS", 0.1)
    return tmp_path / "study"


@pytest.fixture(scope="module")
def ray():
    """Ray on this machine, started once."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield
        ray.shutdown()
