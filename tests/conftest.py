"""Fixtures that many tests share: tiny images, settings and workspaces, which take milliseconds.

Imports that need torch are inside the fixtures, because pytest's main process and many tests don't need it.
"""

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from empty_figures import empty_figures
from knowhue.config import Config
from knowhue.presets import edit
from small_encoder import SMALL_ENCODER, add_small_encoder
from small_features import use_small_features

if TYPE_CHECKING:
    from knowhue.data.prepare import Prepared
    from knowhue.training.engine import Workspace

# set before torch is imported, so that sums have the same order on every machine
os.environ["OMP_NUM_THREADS"] = "1"
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

TINY: dict[str, Any] = {
    "images": {"source": "drawn", "size_px": 32, "drawn_count": 20, "min_per_class": 1},
    "encoder": {"name": SMALL_ENCODER, "weights": "none"},
    "colour": {"width": 4, "discriminator_width": 4, "discriminator_layers": 2},
    "evaluation": {"gradient_batches": 0, "diagnose_every_steps": 0},
    "training": {
        "batch_size": 12,  # one step an epoch
        "shift_px": 2,
        "precision": "float32",
        "heads": {"epochs": 2, "learning_rate": 1e-3},
        "finetune": {"epochs": 2},
    },
}

MakeFolder = Callable[..., Path]
_MEMORY = Path("/dev/shm")


def pytest_configure() -> None:
    """Keep temporary files in memory where it has room for them; creating one on a disk takes up to a millisecond.

    A run writes a hundred thousand files, of which about a gigabyte exists at the same time. `TMPDIR` overrides this.
    """
    has_room = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 4 << 30
    if "TMPDIR" not in os.environ and has_room:
        os.environ["TMPDIR"] = str(_MEMORY)  # for processes that tests start, too
        tempfile.tempdir = None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect tests without garbage collection, which took a third of the time and finds nothing to free."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()  # later collections skip these objects too
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long tests first, because a slow file that starts last leaves the other processes idle."""
    long = ("studies", "browser", "equality", "tests", "inference", "engines", "training", "report")
    items.sort(
        key=lambda item: long.index(folder) if (folder := item.path.parent.name) in long else len(long)
    )


@pytest.fixture(scope="session", autouse=True)
def _without_fsync() -> Iterator[None]:
    """Don't wait for the disk: no test cuts the power, and training waited longer than it computed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        patch.setattr("numpy.memmap.flush", lambda _: None)
        yield


@contextmanager
def _without_figures() -> Iterator[None]:
    from matplotlib.figure import Figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("knowhue.report.page.FIGURES", empty_figures())
        patch.setattr("knowhue.report.methods.comparison_figures", lambda _: {"trade_off": Figure((1, 1))})
        yield


@pytest.fixture
def without_figures() -> Iterator[None]:
    """Write reports without figures, which take most of the time of a small study.

    Reports that module fixtures write still have figures; use `module_without_figures` for them.
    """
    with _without_figures():
        yield


@pytest.fixture(scope="module")
def module_without_figures() -> Iterator[None]:
    """Write all reports of a module without figures, also those that its fixtures write."""
    with _without_figures():
        yield


@pytest.fixture(scope="session")
def _small_features() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        use_small_features(patch)
        yield


@pytest.fixture(scope="session")
def _scenes_once() -> Iterator[None]:
    """Draw each scene once per process, because most studies have the same ones."""
    from knowhue.data import drawn

    known = cache(drawn.draw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn, "draw", lambda *which: known(*which).copy())
        yield


@pytest.fixture(scope="session")
def tiny(_small_features: None, _scenes_once: None) -> Callable[..., Config]:
    """The tiny configuration with some settings changed: `tiny(training__batch_size=2, seed=1)`."""
    add_small_encoder()

    def make(**changes: Any) -> Config:
        config = edit(Config(), TINY)
        for name, value in changes.items():
            nested: Any = value
            for part in reversed(name.split("__")):
                nested = {part: nested}
            config = edit(config, nested)
        return config

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Write images of coloured noise, and return their root: `make_folder({"train/cat": 3, "val/cat": 1})`."""

    def make(layout: Mapping[str, int], root: str = "photos", size_px: int = 24, seed: int = 0) -> Path:
        generator = np.random.default_rng(seed)
        for folder, count in layout.items():
            home = tmp_path / root / folder
            home.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                noise = generator.integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
                Image.fromarray(noise).save(home / f"{number:02d}.png")
        return tmp_path / root

    return make


@pytest.fixture
def make_prepared() -> "Callable[..., Prepared]":
    """Prepared images of noise, in memory only; every fourth is for validation, with `test` half of these for test."""
    from knowhue.data.prepare import Prepared

    def make(
        count: int = 16,
        size_px: int = 32,
        classes: int = 2,
        unlabelled: int = 0,
        seed: int = 0,
        test: bool = False,
    ) -> Prepared:
        generator = np.random.default_rng(seed)
        label = (np.arange(count) + np.arange(count) // 4) % classes
        split = np.where(np.arange(count) % 4 != 3, "train", "validation")
        if test:
            split[7::8] = "test"
        label[np.flatnonzero(split == "train")[:unlabelled]] = -1
        return Prepared(
            classes=tuple("abcdefgh"[:classes]),
            rgb=generator.integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8),
            label=label,
            split=split,
            paths=tuple(f"noise/{i}.png" for i in range(count)),
            fingerprint=f"noise-{count}-{size_px}-{classes}-{unlabelled}-{seed}-{test}",
        )

    return make


@pytest.fixture
def make_work(tmp_path: Path, make_prepared: "Callable[..., Prepared]") -> "Callable[..., Workspace]":
    """A workspace with prepared noise in its own folder: `make_work(config, "first")`."""
    from knowhue.training.engine import Engine, Workspace

    def make(config: Config, name: str = "study", report: Any = lambda _: None, **prepared: Any) -> Workspace:
        return Workspace(tmp_path / name, Engine(config.training), make_prepared(**prepared), report)

    return make


@pytest.fixture
def small_disk():
    """Limit every file to 4,000 bytes; the system refuses longer writes by Python and native code."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
