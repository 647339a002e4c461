"""Tiny images, settings and work that many tests share; everything here takes milliseconds.

What imports torch does so when it is used: pytest's own process, which hands tests out, and tests of much else do not.
"""

import gc
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from knowhue.config import Config
from knowhue.presets import edit
from small_encoder import SMALL_ENCODER, add_small_encoder
from undrawn import undrawn_figures

if TYPE_CHECKING:
    from torch import Tensor, device

    from knowhue.data.prepare import Prepared
    from knowhue.training.engine import Workspace

# before torch is imported: sums in one order on every machine
os.environ["OMP_NUM_THREADS"] = "1"
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

TINY: dict[str, Any] = {
    "images": {"source": "drawn", "size_px": 32, "drawn_count": 20, "min_per_class": 1},
    "encoder": {"name": SMALL_ENCODER, "weights": "none"},
    "colour": {"width": 4, "discriminator_width": 4, "discriminator_layers": 2},
    "evaluation": {"gradient_batches": 1},
    "training": {
        "batch_size": 4,
        "shift_px": 2,
        "precision": "float32",
        "heads": {"epochs": 2, "learning_rate": 1e-3},
        "finetune": {"epochs": 2},
    },
}

MakeFolder = Callable[..., Path]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What collecting makes lives as long as the process: looking through it for garbage took a third of its time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()  # nor is it looked through while tests run
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole studies first: a file of a minute that is begun last leaves the other processes idle."""
    long = ("equality", "tests", "engines", "training", "browser", "inference", "report")
    items.sort(
        key=lambda item: long.index(folder) if (folder := item.path.parent.name) in long else len(long)
    )


@pytest.fixture(scope="session", autouse=True)
def _without_waiting_for_the_disk() -> Iterator[None]:
    """No test cuts the power, and only then does it matter what the disk has: training waited more than it computed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        patch.setattr("numpy.memmap.flush", lambda _: None)
        yield


@contextmanager
def _without_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("knowhue.report.page.FIGURES", undrawn_figures())
        yield


@pytest.fixture
def without_figures() -> Iterator[None]:
    """Reports are written without figures, whose drawing takes most of a small study: for tests of anything else.

    Not those that fixtures of modules write, which are made before.
    """
    with _without_figures():
        yield


@pytest.fixture(scope="module")
def module_without_figures() -> Iterator[None]:
    """The same for all of a module, also for what its fixtures write."""
    with _without_figures():
        yield


@pytest.fixture(scope="session")
def _features_once() -> Iterator[None]:
    """EfficientNet-Lite0 looks at the same few images in study after study: each batch is computed once a process."""
    from knowhue.evaluation.features import NETWORKS, ImageNetwork

    def opened(file: str | None, device: "device") -> ImageNetwork:
        network, kept = lite0.open(file, device), {}

        def features(rgb: "Tensor") -> "Tensor":
            key = (rgb.shape, hashlib.sha256(rgb.cpu().numpy().tobytes()).digest())
            if key not in kept:
                kept[key] = network.compute(rgb)
            return kept[key].clone()

        return network._replace(compute=features)

    lite0 = NETWORKS["lite0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "lite0", lite0._replace(open=opened))
        yield


@pytest.fixture(scope="session")
def tiny(_features_once: None) -> Callable[..., Config]:
    """The tiny configuration with changes by dotted name: `tiny(training__batch_size=2, seed=1)`."""
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
    """Write coloured noise: `make_folder({"train/cat": 3, "val/cat": 1})` returns the root."""

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
    """Prepared images of noise that were never on disk; every fourth is for validation (or test)."""
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
    """Workspace on prepared noise below a folder of its own: `make_work(config, "first")`."""
    from knowhue.training.engine import Engine, Workspace

    def make(config: Config, name: str = "study", report: Any = lambda _: None, **prepared: Any) -> Workspace:
        return Workspace(tmp_path / name, Engine(config.training), make_prepared(**prepared), report)

    return make


@pytest.fixture
def small_disk():
    """Files may hold 4,000 bytes: beyond that the system refuses every writer, in whatever language it is written."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
