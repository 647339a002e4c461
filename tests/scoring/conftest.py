"""True images, and their colourings by two systems."""

from pathlib import Path
from typing import NamedTuple

import pytest
from score_folders import colourings, true_images, write_images


class Folders(NamedTuple):
    truth: Path
    ours: Path
    theirs: Path


@pytest.fixture
def folders(tmp_path) -> Folders:
    true = true_images()
    return Folders(
        write_images(tmp_path / "truth", true),
        write_images(tmp_path / "ours", colourings(true, 0.8)),
        write_images(tmp_path / "theirs", colourings(true, 0.4, seed=50)),
    )
