"""Synthetic studies that several tests read."""

from pathlib import Path

import pytest
from synthetic_study import write_study


@pytest.fixture(scope="session")
def one_seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study of one seed; tests must not change it."""
    return write_study(tmp_path_factory.mktemp("one") / "demo")


@pytest.fixture(scope="session")
def eight_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study of eight seeds in which multi-task helps; tests must not change it."""
    return write_study(tmp_path_factory.mktemp("eight") / "demo", seeds=tuple(range(8)), gain=0.5)
