"""Cost of a study as the number of images grows: CPU time and memory of each stage, and the exponents of their growth.

    python benchmarks/growth.py [--counts 1000 10000 100000] [--stages prepare,heads,finetune,report] [--folder FOLDER]
    python benchmarks/growth.py --tars --size 64 --counts 1000000 --stages prepare,finetune,report
        --set images.validation_share=.001 --set supervision.image_share=.002
    python benchmarks/growth.py --near --counts 10000 100000 1000000
    python benchmarks/growth.py --cores [--counts 5000] [--side 640]

Images are synthetic and dissimilar: each is a different colour gradient with waves over it. A fifth is used for
validation, unless a setting changes this. Each stage is a command: `prepare`; `heads`, which computes the frozen
features of EfficientNet-Lite0 and trains a colour and a class head on them for one epoch; `finetune`, one epoch of both
tasks; `report` of the last of these. The two that train load the result of `prepare`, and evaluate at the end. `--tars`
packs 10,000 images into each file, as WebDataset does. Memory is the peak resident size, including pages of files,
which the system can reclaim, and in brackets without them; the growth is that of the latter. `--near` measures only the
search for near-duplicates, among random hashes. `--cores` prepares photos of `--side` pixels on one core and on all,
with threads and with processes (`--workers`), alternately, and prints the ratios.
"""

import argparse
import io
import math
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from multiprocessing import Pool
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import numpy as np
from PIL import Image

from knowhue.config import Images
from knowhue.data.checks import close_pairs

CLASSES = 5
A_FOLDER = 2000
"""Files per directory; more slow some file systems down."""
A_TAR = 10_000


class Cost(NamedTuple):
    """Cost of one command: CPU and wall-clock seconds, peak memory in MB with and without pages of files."""

    cpu_s: float
    wall_s: float
    peak_mb: float
    own_mb: float


Stage = Callable[[Path, Path, Sequence[str]], Cost]
"""A function of the images, the folder of all stages, and settings as options."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", help="numbers of images")
    parser.add_argument("--size", type=int, default=32, help="side of the prepared images, pixels")
    parser.add_argument("--side", type=int, help="side of the images on disk, pixels")
    parser.add_argument("--folder", type=Path, help="folder in which images and studies are kept")
    parser.add_argument("--stages", default=",".join(STAGES), help="stages to measure, separated by commas")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="setting of every stage")
    parser.add_argument("--tars", action="store_true", help="images in tars instead of files")
    parser.add_argument("--near", action="store_true", help="measure only the search for near-duplicates")
    parser.add_argument("--cores", action="store_true", help="compare preparing on one core and on all")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if args.near:
            search(args.counts or [10_000, 100_000])
        elif args.cores:
            compare_cores(folder, (args.counts or [5000])[0], args.side or 640)
        else:
            stages, counts = args.stages.split(","), args.counts or [1000, 10_000, 100_000]
            if problem := what_is_missing(stages, [folder / f"study-{count}" for count in counts]):
                parser.error(f"--stages {args.stages}: {problem}")
            grow(folder, counts, stages, args)


def what_is_missing(stages: Sequence[str], studies: Sequence[Path]) -> str:
    """A problem with the stages: an unknown one, or one whose input no earlier stage or call has made."""
    for place, stage in enumerate(stages):
        if stage not in STAGES:
            return f"`{stage}` is no stage; choose from {', '.join(STAGES)}"
        needs = STANDS_ON.get(stage, {})
        made = [
            name in stages[:place] or all((study / folder).is_dir() for study in studies)
            for name, folder in needs.items()
        ]
        if needs and not any(made):
            return f"`{stage}` needs {' or '.join(needs)}: add it before, or set the --folder of a call that made it"
    return ""


def grow(folder: Path, counts: Sequence[int], stages: Sequence[str], args: argparse.Namespace) -> None:
    """Run every stage with every number of images."""
    costs = defaultdict(list)
    for count in counts:
        make, kind = (make_tars, "tars") if args.tars else (make_images, "images")
        images = make(folder / f"{kind}-{count}", count, args.side or args.size)
        source = ["images.source=webdataset"] if args.tars else []
        settings = _options(f"images.size_px={args.size}", *SETTINGS, *source, *args.settings)
        for stage in stages:
            cost = STAGES[stage](images, folder / f"study-{count}", settings)
            costs[stage].append(cost)
            memory = f"{cost.peak_mb:10.0f} MB ({cost.own_mb:.0f})"
            print(f"{count:>9,} {stage:10}{cost.cpu_s:10.1f} s CPU {memory}", flush=True)
    if len(counts) > 1:
        print("exponents of growth with the number of images, between the last two:")
        for stage, (*_, one, other) in costs.items():
            cpu, memory = (
                _power(counts, getattr(one, what), getattr(other, what)) for what in ("cpu_s", "own_mb")
            )
            print(f"{stage:10} CPU {cpu:5.2f}   memory {memory:5.2f}")


def search(counts: Sequence[int]) -> None:
    """Print the CPU time of finding hashes within `images.duplicate_distance_bits`, upright and mirrored."""
    bits = Images().duplicate_distance_bits
    for count in counts:
        drawn = np.random.default_rng(0).integers(0, 2**64, (2, count), dtype=np.uint64)
        started = time.process_time()
        close_pairs(*drawn, bits)
        print(f"{count:>9,} hashes: {time.process_time() - started:.2f} s CPU", flush=True)


def _power(counts: Sequence[int], one: float, other: float) -> float:
    return math.log(other / one) / math.log(counts[-1] / counts[-2])


def _prepare(images: Path, out: Path, settings: Sequence[str]) -> Cost:
    shutil.rmtree(out, ignore_errors=True)
    return run("prepare", str(images), *settings, "--out", str(out / "prepared"))


def _study(name: str, heads: int, finetune: int) -> Stage:
    def measure(images: Path, out: Path, settings: Sequence[str]) -> Cost:
        shutil.rmtree(out / name, ignore_errors=True)
        shutil.copytree(out / "prepared", out / name, copy_function=os.link)
        epochs = _options(f"training.heads.epochs={heads}", f"training.finetune.epochs={finetune}")
        arms = ("--arms", "multi", "--seeds", "1")
        return run("study", str(images), *arms, *settings, *epochs, "--out", str(out / name))

    return measure


def _report(images: Path, out: Path, settings: Sequence[str]) -> Cost:
    del images, settings
    trained = [out / name for name in ("finetune", "heads") if (out / name).is_dir()]
    return run("report", str(trained[0]))


STAGES: dict[str, Stage] = {
    "prepare": _prepare,
    "heads": _study("heads", 1, 0),
    "finetune": _study("finetune", 0, 1),
    "report": _report,
}
STANDS_ON = {
    "heads": {"prepare": "prepared"},
    "finetune": {"prepare": "prepared"},
    "report": {"finetune": "finetune", "heads": "heads"},
}
"""For each stage, the stages of which it needs one, with the folders they make."""
SETTINGS = (
    "encoder.name=tf_efficientnet_lite0", "encoder.weights=package",
    "evaluation.every_epochs=0", "evaluation.networks=[]", "evaluation.gradient_batches=0",
    "evaluation.diagnose_every_steps=0",
)  # fmt: skip


def _options(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def run(*arguments: str, cores: int | None = None) -> Cost:
    """Run one knowhue command and measure it from outside; its output is shown only if it fails."""
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
    sampler = Sampler(process.pid)
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(output)
    wall_s = time.monotonic() - started
    return Cost(used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss / 1024, sampler.most_kb / 1024)


class Sampler(Thread):
    """Samples the memory of a process without pages of files, five times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.most_kb, self._status = 0, Path(f"/proc/{pid}/status")
        self.start()

    def run(self) -> None:
        while True:
            try:
                lines = self._status.read_text().splitlines()
            except OSError:
                return
            sizes = [int(line.split()[1]) for line in lines if line.startswith("RssAnon")]
            self.most_kb = max([self.most_kb, *sizes])
            time.sleep(0.2)


def compare_cores(folder: Path, count: int, side: int) -> None:
    """Print the seconds of `prepare` on one core and on all; each is the minimum of three alternating runs."""
    images, out = make_images(folder / f"images-{count}-{side}", count, side), folder / "prepared"
    available = len(os.sched_getaffinity(0))
    ways = {
        "on one core": (1, []),
        f"on {available}, with threads": (available, []),
        f"on {available}, with processes": (available, ["--workers", str(available)]),
    }
    found = defaultdict(list)
    for _ in range(3):
        for way, (cores, options) in ways.items():
            shutil.rmtree(out, ignore_errors=True)
            cost = run("prepare", str(images), *options, "--out", str(out), cores=cores)
            found[way].append(cost.wall_s)
    least = {way: min(seconds) for way, seconds in found.items()}
    print(f"prepare {count:,} images of {side} px")
    for way, seconds in least.items():
        print(f"{way}: {seconds:.1f} s, {least['on one core'] / seconds:.2f} times as fast as on one core")


def make_images(folder: Path, count: int, side: int) -> Path:
    """Write `folder/<class>/<part>/*.jpg`, unless the folder exists."""
    if not folder.is_dir():
        with Pool() as pool:
            pool.starmap(
                _make_part,
                [(folder, at, min(A_FOLDER, count - at), side) for at in range(0, count, A_FOLDER)],
            )
    return folder


def make_tars(folder: Path, count: int, side: int) -> Path:
    """Write `folder/*.tar` with `A_TAR` images each, unless the folder exists."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for first in range(0, count, A_TAR):
            with tarfile.open(folder / f"{first // A_TAR:05d}.tar", "w") as tar:
                for index in range(first, min(first + A_TAR, count)):
                    for suffix, content in (("jpg", _jpeg(index, side)), ("cls", b"%d" % (index % CLASSES))):
                        member = tarfile.TarInfo(f"{index:07d}.{suffix}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
    return folder


def _make_part(folder: Path, first: int, count: int, side: int) -> None:
    for index in range(first, first + count):
        target = folder / f"class-{index % CLASSES}" / f"{first:07d}"
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{index:07d}.jpg").write_bytes(_jpeg(index, side))


def _jpeg(index: int, side: int) -> bytes:
    y, x = np.mgrid[:side, :side] / side
    draw = np.random.default_rng(index)
    light, pixels = 0, np.empty((side, side, 3))
    for _ in range(6):
        across, down, phase = draw.uniform(-4, 4), draw.uniform(-4, 4), draw.uniform(0, 2 * np.pi)
        light = light + np.cos(2 * np.pi * (across * x + down * y) + phase)
    for channel in range(3):
        pixels[..., channel] = 128 + draw.uniform(-60, 60) + 60 * (x - y) * draw.uniform(-1, 1) + 12 * light
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=92)
    return file.getvalue()


if __name__ == "__main__":
    main()
