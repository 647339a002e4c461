"""CPU time and memory of `knowhue score`: of an image, apart by what it is spent on, and of many.

    python benchmarks/score.py [--images 200] [--side 256]

Made on the spot: smooth images with noise as PNG, and paler colourings of them. CPU seconds are of this process in one
thread, as a ratio to decoding the two files of an image; the goal is 5,000 images of one system in 5 minutes on two
cores, that is 120 ms of CPU an image, with the rows that are always there measured before (`cached`).
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from knowhue.images.reading import read_image
from knowhue.scoring import measures
from knowhue.scoring.measures import measure_image, see
from knowhue.scoring.pairing import pair
from knowhue.scoring.parts import measure_rows
from knowhue.scoring.protocols import PROTOCOLS, Protocol


def write(folder: Path, count: int, side: int, share: float) -> Path:
    """Images of a seed each, whose colour is kept by a share."""
    folder.mkdir()
    down, across = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    for number in range(count):
        random = np.random.default_rng(number)
        weights = random.uniform(0.1, 0.9, (3, 3))
        planes = [0.2 * a + 0.5 * b * down + 0.4 * c * across for a, b, c in weights]
        pixels = np.stack(planes, -1) + random.uniform(0, 0.05, (side, side, 3))
        gray = pixels.mean(-1, keepdims=True)
        codes = (255 * (gray + share * (pixels - gray)).clip(0, 1)).round().astype(np.uint8)
        Image.fromarray(codes).save(folder / f"{number:05}.png", compress_level=1)
    return folder


def cpu_ms(run: Callable[[], object], repeats: int = 20) -> float:
    """Milliseconds of CPU a call, the best of three rounds."""
    run()
    rounds = []
    for _ in range(3):
        began = time.process_time()
        for _ in range(repeats):
            run()
        rounds.append(1000 * (time.process_time() - began) / repeats)
    return min(rounds)


def of_an_image(truth: Path, made: Path) -> None:
    """What one image of one system costs."""
    paths = truth / "00000.png", made / "00000.png"
    pixels = [read_image(path).pixels for path in paths]
    true, colouring = (see(each) for each in pixels)
    protocol = PROTOCOLS["original"]
    steps = {
        "decode both files": lambda: [read_image(path) for path in paths],
        "L*a*b* of both": lambda: [see(each) for each in pixels],
        "SSIM": lambda: measures._tiled_ssim(colouring.rgb, true.rgb),
        "CIEDE2000": lambda: measures.distance(colouring, true),
        "all that is measured": lambda: measure_image(colouring, true, protocol),
    }
    found = {name: cpu_ms(run) for name, run in steps.items()}
    for name, milliseconds in found.items():
        print(
            f"  {name:<22}{milliseconds:7.1f} ms  {milliseconds / found['decode both files']:5.1f} x decoding"
        )


def of_many(truth: Path, systems: list[Path], protocol: Protocol, cache: Path) -> None:
    """What all images cost with nothing measured before, and one system with the truth's rows measured before."""
    count = len(list(truth.iterdir()))
    for title, chosen in (("nothing cached", systems[:1]), ("cached", systems[1:2])):
        began = time.process_time()
        measure_rows(pair(truth, [str(each) for each in chosen]), protocol, cache, 1)
        milliseconds = 1000 * (time.process_time() - began) / count
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        minutes = milliseconds * 5000 / 1000 / 60 / 2
        cost = f"{milliseconds:6.1f} ms of CPU an image, 5,000 in {minutes:.1f} min on two cores"
        print(f"  {title:<16}{cost}; {peak:.0f} MiB")


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=256)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        truth = write(base / "truth", given.images, given.side, 1.0)
        systems = [write(base / f"system-{share}", given.images, given.side, share) for share in (0.5, 0.7)]
        print(f"one image of {given.side} px:")
        of_an_image(truth, systems[0])
        print(f"{given.images} images of {given.side} px, protocol stretch-256:")
        of_many(truth, systems, PROTOCOLS["stretch-256"], base / "cache")


if __name__ == "__main__":
    main()
