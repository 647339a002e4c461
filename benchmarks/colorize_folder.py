"""Speed of colouring a folder, as a ratio to decoding and encoding it; then the job is killed and resumed.

The floor reads and writes the same files with the same code and the same number of threads, once before and once after
the colouring; start-up is excluded. The job is then run again as a separate program and killed with SIGKILL at random
moments: every image must be complete, have one line in the ledger, be made only once, and equal that of the
uninterrupted job.

    python benchmarks/colorize_folder.py [2000] [--width 800] [--height 600] [--model built-in] [--kills 6]
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from knowhue.images.reading import read_image
from knowhue.images.writing import write_image
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.folder import colorize_folder
from knowhue.inference.ledger import LEDGER
from knowhue.inference.listing import list_folder
from knowhue.inference.pipeline import Limits

ENCODERS = 4
WARM = 16


class Cost(NamedTuple):
    """Wall-clock seconds, and CPU seconds of all cores; the latter hardly depend on other processes."""

    wall: float
    cpu: float


def main() -> None:
    """Measure, then kill."""
    args = _read_arguments()
    if args.job:
        _colour(args, *map(Path, args.job))
        return
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        root = Path(folder)
        names = make_images(root / "in", args.count, args.width, args.height)
        costs = measure(args, root, names)
        for name, cost in costs.items():
            print(
                f"{name:22}{args.count / cost.wall:9.1f} images/s{cost.wall:9.1f} s{cost.cpu:9.1f} s of CPU"
            )
        floors = [cost for name, cost in costs.items() if name.startswith("floor")]
        for what, ours, floor in zip(("clock", "cores"), costs["coloured"], np.mean(floors, 0), strict=True):
            print(f"over the floor, {what}: {ours / floor:.2f}")
        wrong = hunt(args, root, names)
    print(f"{args.kills} kills; missing, incomplete, repeated or different: {wrong or 'none'}")
    sys.exit(1 if wrong else 0)


def make_images(folder: Path, count: int, width: int, height: int) -> list[str]:
    """Write different images with the spectrum of photos (amplitude 1/f), in folders of 100; return their names."""
    generator = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(2 * height)[:, None], np.fft.rfftfreq(2 * width)[None])
    frequency[0, 0] = np.inf
    encoders = []
    for _ in range(ENCODERS):
        phase = np.exp(2j * np.pi * generator.random((3, *frequency.shape)))
        noise = np.fft.irfft2(phase / frequency, (2 * height, 2 * width))
        encoders.append((128 + 45 * noise / noise.std()).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
    names = []
    for number in range(count):
        encoder = encoders[generator.integers(ENCODERS)]
        top, left = generator.integers(height), generator.integers(width)
        names.append(f"{number // 100:03}/{number:06}.jpg")
        (folder / names[-1]).parent.mkdir(parents=True, exist_ok=True)
        crop = encoder[top : top + height, left : left + width]
        Image.fromarray(crop).save(folder / names[-1], quality=90)
    return names


def measure(args: argparse.Namespace, root: Path, names: list[str]) -> dict[str, Cost]:
    """Measure the floor, the colouring, and the floor again."""

    def floor(out: str) -> None:
        def copy(name: str) -> None:
            target = root / out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_image(read_image(root / "in" / name), target)

        with ThreadPoolExecutor(args.threads) as pool:
            list(pool.map(copy, names))

    warm = make_images(root / "warm", WARM, args.width, args.height)
    assert len(warm) == WARM
    _colour(args, root / "warm", root / "warmed")
    return {
        "floor before": _cost(lambda: floor("floor-before")),
        "coloured": _cost(lambda: _colour(args, root / "in", root / "uninterrupted")),
        "floor after": _cost(lambda: floor("floor-after")),
    }


def hunt(args: argparse.Namespace, root: Path, names: list[str]) -> list[str]:
    """Kill the job at random moments, then let it finish; return the names of images that are wrong."""
    out, generator = root / "hunted", random.Random(args.seed)
    command = [sys.executable, __file__, "--job", str(root / "in"), str(out), "--model", args.model]
    moments: dict[str, int] = {}
    wrong: set[str] = set()
    for kill in range(args.kills):
        done = _lines(out)
        aim = done + generator.randint(1, max(2 * (len(names) - done) // (args.kills - kill + 1), 1))
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while _lines(out) < aim and process.poll() is None:
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        wrong |= _changed(out, moments)
        print(f"killed with {_lines(out)} lines, {len(moments)} images in place", flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wrong |= _changed(out, moments)
    listed = [json.loads(line)["path"] for line in (out / LEDGER).read_text().splitlines()]
    wrong |= {name for name in names if listed.count(name) != 1 or name not in moments}
    wrong |= {name for name in names if _differs(out / name, root / "uninterrupted" / name)}
    wrong |= {str(path) for path in out.rglob(".*")}
    return sorted(wrong)


def _changed(out: Path, moments: dict[str, int]) -> set[str]:
    """Images that were made twice since `moments`, or are incomplete; new ones are added to `moments`."""
    wrong = set()
    for path in out.glob("[!.]*/*.jpg"):
        name = path.relative_to(out).as_posix()
        made = path.stat().st_mtime_ns
        if name not in moments:
            with Image.open(path) as image:
                image.load()  # an incomplete file raises
        if moments.setdefault(name, made) != made:
            wrong.add(name)
    return wrong


def _differs(one: Path, other: Path) -> bool:
    """Whether two images differ by more than the rounding in batches of other sizes, which JPEG can amplify locally."""
    if one.read_bytes() == other.read_bytes():
        return False
    values = [np.asarray(Image.open(path)).astype(int) for path in (one, other)]
    return bool(np.abs(values[0] - values[1]).mean() > 0.02)


def _lines(out: Path) -> int:
    path = out / LEDGER
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _colour(args: argparse.Namespace, source: Path, out: Path) -> None:
    summary = colorize_folder(
        Colorizer.load(args.model), list_folder(source, out), limits=Limits(args.threads)
    )
    assert not summary.failed, summary.lines()


def _cost(work: Callable[[], None]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=2000, help="number of images")
    parser.add_argument("--width", type=int, default=800, help="width of the images, in pixels")
    parser.add_argument("--height", type=int, default=600, help="height of the images, in pixels")
    parser.add_argument("--model", default="built-in", help="built-in, a run folder, or an exported file")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="number of threads")
    parser.add_argument("--kills", type=int, default=6, help="number of kills")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the kills")
    parser.add_argument("--scratch", help="folder for the images; by default the system's temporary folder")
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
