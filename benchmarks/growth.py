"""What a study costs as its images grow: CPU time and memory of each stage, and the power that they grow by.

    python benchmarks/growth.py [--counts 1000 10000 100000] [--stages prepare,heads,finetune,report] [--folder FOLDER]
    python benchmarks/growth.py --cores [--counts 5000] [--side 640]

Images are made up, so that none resembles another: each is a colour gradient of its own with waves over it. A fifth
validates. Stages are commands of their own: `prepare`; `heads`, which are EfficientNet-Lite0's frozen features and one
epoch of a colour and a class head on them; `finetune`, one epoch of both tasks; `report`. Both that train evaluate at
their end. `--cores` prepares photos of `--side` pixels on one core and on all, in turns, and prints the ratio.
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from multiprocessing import Pool
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

CLASSES = 5
A_FOLDER = 2000
"""Files of one directory; more of them slow some file systems down."""


class Cost(NamedTuple):
    """Of one command: seconds of CPU and by the clock, megabytes at its peak, with those of its workers."""

    cpu_s: float
    wall_s: float
    peak_mb: float


Stage = Callable[[Path, Path, int], Cost]
"""Of the images, where its study goes, the side of the prepared images."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+")
    parser.add_argument("--size", type=int, default=32, help="side of the prepared images, pixels")
    parser.add_argument("--side", type=int, help="side of the images on disk, pixels")
    parser.add_argument(
        "--folder", type=Path, help="where images and studies go; deleted at the end otherwise"
    )
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--cores", action="store_true", help="prepare on one core against all")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        if asked.cores:
            compare_cores(folder, (asked.counts or [5000])[0], asked.side or 640)
        else:
            grow(folder, asked)


def grow(folder: Path, asked: argparse.Namespace) -> None:
    """Every stage at every number of images."""
    counts, costs = asked.counts or [1000, 10_000, 100_000], defaultdict(list)
    for count in counts:
        images = make_images(folder / f"images-{count}", count, asked.side or asked.size)
        for stage in asked.stages.split(","):
            cost = STAGES[stage](images, folder / f"study-{count}", asked.size)
            costs[stage].append(cost)
            print(f"{count:>9,} {stage:10}{cost.cpu_s:10.1f} s CPU {cost.peak_mb:10.0f} MB", flush=True)
    if len(counts) > 1:
        print("grow by the power of the number of images, between the last two:")
        for stage, (*_, one, other) in costs.items():
            cpu, memory = (
                _power(counts, getattr(one, what), getattr(other, what)) for what in ("cpu_s", "peak_mb")
            )
            print(f"{stage:10} CPU {cpu:5.2f}   memory {memory:5.2f}")


def _power(counts: Sequence[int], one: float, other: float) -> float:
    return math.log(other / one) / math.log(counts[-1] / counts[-2])


def _prepare(images: Path, out: Path, size: int) -> Cost:
    shutil.rmtree(out, ignore_errors=True)
    return run("prepare", str(images), *_settings(size), "--out", str(out / "heads"))


def _study(name: str, heads: int, finetune: int) -> Stage:
    def measure(images: Path, out: Path, size: int) -> Cost:
        epochs = (f"training.heads.epochs={heads}", f"training.finetune.epochs={finetune}")
        arms = ("--arms", "multi", "--seeds", "1")
        return run("study", str(images), *arms, *_settings(size, *epochs), "--out", str(out / name))

    return measure


STAGES: dict[str, Stage] = {
    "prepare": _prepare,
    "heads": _study("heads", 1, 0),
    "finetune": _study("finetune", 0, 1),
    "report": lambda _, out, size: run("report", str(out / "heads")),
}


def _settings(size: int, *more: str) -> list[str]:
    settings = (
        f"images.size_px={size}", "training.shift_px=2", "encoder.name=tf_efficientnet_lite0",
        "encoder.weights=package", "evaluation.every_epochs=0", "evaluation.networks=[]",
        "evaluation.gradient_batches=0", "evaluation.diagnose_every_steps=0", *more,
    )  # fmt: skip
    return [part for setting in settings for part in ("--set", setting)]


def run(*arguments: str, cores: int | None = None) -> Cost:
    """One command of knowhue, measured from outside; its words are shown only where it fails."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "knowhue", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if cores is not None:
        os.sched_setaffinity(process.pid, set(range(cores)))
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(output)
    return Cost(used.ru_utime + used.ru_stime, time.monotonic() - started, used.ru_maxrss / 1024)


def compare_cores(folder: Path, count: int, side: int) -> None:
    """Seconds of `prepare` on one core and on all, three times in turns; the least of each counts."""
    images, found = make_images(folder / f"images-{count}-{side}", count, side), {}
    available = len(os.sched_getaffinity(0))
    for _ in range(3):
        for cores in (1, available):
            out = folder / "prepared"
            shutil.rmtree(out, ignore_errors=True)
            found.setdefault(cores, []).append(
                run("prepare", str(images), "--out", str(out), cores=cores).wall_s
            )
    one, all_ = min(found[1]), min(found[available])
    print(
        f"prepare {count:,} images of {side} px: {one:.1f} s on one core, {all_:.1f} s on {available}: {one / all_:.2f}"
    )


def make_images(folder: Path, count: int, side: int) -> Path:
    """`folder/<class>/<part>/*.jpg`, unless they are there."""
    if not folder.is_dir():
        with Pool() as pool:
            pool.starmap(
                _make_part,
                [(folder, at, min(A_FOLDER, count - at), side) for at in range(0, count, A_FOLDER)],
            )
    return folder


def _make_part(folder: Path, first: int, count: int, side: int) -> None:
    y, x = np.mgrid[:side, :side] / side
    for index in range(first, first + count):
        draw = np.random.default_rng(index)
        light, pixels = 0, np.empty((side, side, 3))
        for _ in range(6):
            across, down, phase = draw.uniform(-4, 4), draw.uniform(-4, 4), draw.uniform(0, 2 * np.pi)
            light = light + np.cos(2 * np.pi * (across * x + down * y) + phase)
        for channel in range(3):
            pixels[..., channel] = (
                128 + draw.uniform(-60, 60) + 60 * (x - y) * draw.uniform(-1, 1) + 12 * light
            )
        target = folder / f"class-{index % CLASSES}" / f"{first:07d}"
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target / f"{index:07d}.jpg", quality=92)


if __name__ == "__main__":
    main()
