"""CPU time and memory of `knowhue score`: per image, by its parts, and for many images.

    python benchmarks/score.py [--images 200] [--side 256] [--many 50000]

Inputs are generated: smooth images with noise as PNG, and paler colourings of them. CPU seconds are those of this
process in one thread, as ratios to decoding the two files of an image. The goal is 5,000 images of one system, with all
rows that are always there, in 5 minutes on two cores without a cache, which is 120 ms of CPU per image; "each row
alone" is the baseline: every row by the formulas of `similarity` over whole images, with nothing shared between rows.
`--many` holds the scores of so many images, generated without files, writes every output but the page, and prints the
peak memory.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from knowhue.color import chroma_bins, colourfulness, srgb_to_lab
from knowhue.evaluation.similarity import ciede2000, psnr, ssim
from knowhue.images.image import Pixels
from knowhue.images.reading import read_image
from knowhue.scoring import parts
from knowhue.scoring.files import image_rows, to_json
from knowhue.scoring.measures import (
    distance,
    in_one_colour,
    measure_image,
    nearest_bins,
    prepare_image,
    ssim_from_windows,
)
from knowhue.scoring.page import to_latex
from knowhue.scoring.pairing import Pairs, Stored, System, pair
from knowhue.scoring.parts import Portion, measure_rows
from knowhue.scoring.protocols import PROTOCOLS, Protocol
from knowhue.scoring.table import make_scores
from knowhue.storage import write_csv, write_json


def write(folder: Path, count: int, side: int, share: float) -> Path:
    """Write images, each with its own seed, with their colour scaled by `share`."""
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
    """Milliseconds of CPU per call, the minimum of three rounds."""
    run()
    rounds = []
    for _ in range(3):
        began = time.process_time()
        for _ in range(repeats):
            run()
        rounds.append(1000 * (time.process_time() - began) / repeats)
    return min(rounds)


def alone(colouring: Pixels, truth: Pixels) -> list[object]:
    """The baseline: the measures of two images by the formulas over whole images."""
    rgb = [np.moveaxis(each, -1, 0)[None] / 255 for each in (colouring, truth)]
    (l1, c1), (l2, c2) = ((lab[:, :1], lab[:, 1:]) for lab in (np.moveaxis(srgb_to_lab(each / 255), -1, 0)[None]
                          for each in (colouring, truth)))  # fmt: skip
    off = np.hypot(*(c1 - c2)[0])
    bins = nearest_bins()[tuple(np.rint(c2[0]).astype(int) + 128)]
    counts = np.bincount(
        (bins * 152 + np.minimum(np.ceil(off), 151).astype(int)).ravel(), minlength=313 * 152
    )
    vivid = [colourfulness(255 * each, absolute) for each in rgb for absolute in (False, True)]
    return [
        psnr(*rgb),
        ssim(*rgb),
        ciede2000(l2, c1, c2, l1),
        abs(c1 - c2).mean(),
        abs(l1 - l2).mean(),
        counts,
        vivid,
    ]


def of_an_image(truth: Path, made: Path) -> None:
    """Cost of one image of one system, and of all rows of an image."""
    paths = truth / "00000.png", made / "00000.png"
    pixels = [read_image(path).pixels for path in paths]
    true, colouring = (prepare_image(each) for each in pixels)
    protocol = PROTOCOLS["original"]
    rows = [
        pixels[1],
        in_one_colour(true),
        in_one_colour(true, (3.0, 9.0)),
        *(parts._as_jpeg(pixels[0], q) for q in (75, 95)),
    ]

    def together() -> None:
        beside = prepare_image(pixels[0])
        for each in rows:
            measure_image(prepare_image(each), beside, protocol)
        measure_image(beside, beside, protocol)

    steps = {
        "decode both files": lambda: [read_image(path) for path in paths],
        "L*a*b* of both": lambda: [prepare_image(each) for each in pixels],
        "SSIM": lambda: ssim_from_windows(colouring.rgb[0], *true.windows),
        "CIEDE2000": lambda: distance(colouring, true),
        "all that is measured": lambda: measure_image(colouring, true, protocol),
        "six rows": together,
        "six rows, each alone": lambda: [alone(each, pixels[0]) for each in (*rows, pixels[0])],
    }
    found = {name: cpu_ms(run) for name, run in steps.items()}
    for name, milliseconds in found.items():
        ratio = milliseconds / found["decode both files"]
        print(f"  {name:<22}{milliseconds:7.1f} ms  {ratio:5.1f} x decoding")
    print(f"  together / alone: {found['six rows'] / found['six rows, each alone']:.2f}")


def of_many(truth: Path, systems: list[Path], protocol: Protocol, cache: Path) -> None:
    """Cost of all images without a cache, and of a system when the rows of the true images are cached."""
    count = len(list(truth.iterdir()))
    for title, chosen in (("nothing cached", systems[:1]), ("cached", systems[1:2])):
        began = time.process_time()
        measure_rows(pair(truth, [str(each) for each in chosen]), protocol, cache, 1)
        milliseconds = 1000 * (time.process_time() - began) / count
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        minutes = milliseconds * 5000 / 1000 / 60 / 2
        cost = f"{milliseconds:6.1f} ms of CPU per image, 5,000 in {minutes:.1f} min on two cores"
        print(f"  {title:<16}{cost}; {peak:.0f} MiB")


def of_very_many(count: int, folder: Path) -> None:
    """Peak memory for the scores of so many images, with random values, until all outputs but the page are written."""
    random, black = np.random.default_rng(0), prepare_image(np.zeros((16, 16, 3), np.uint8))
    columns, _ = measure_image(black, black, PROTOCOLS["original"])

    def made_up(part: Portion, **_: object) -> parts.RowArrays:
        places = np.sort(random.choice(len(chroma_bins()) * 152, 20_000, replace=False))
        own = {row: {name: random.uniform(size=len(part.names)) for name in columns} for row in part.rows}
        return {
            row: {**each, "_places": places, "_counts": np.full(20_000, 200)} for row, each in own.items()
        }

    parts._cached_rows = made_up
    stored = {
        f"class{n % 1000:03}/{n:08}": Stored(folder / f"{n:08}.png", f"{n:064}", "PNG") for n in range(count)
    }
    systems = tuple(
        System(name, {name: (file,) for name, file in stored.items()}) for name in ("ours", "theirs")
    )
    pairs = Pairs(stored, systems, tuple(name.partition("/")[0] for name in stored), ())
    scores = make_scores(
        pairs, PROTOCOLS["stretch-256"], measure_rows(pairs, PROTOCOLS["stretch-256"], folder, 1)
    )
    write_csv(folder / "score.per_image.csv", image_rows(scores))
    write_json(folder / "score.json", to_json(scores))
    to_latex(scores)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"scores of {count} images, two systems, random values: {peak:.0f} MiB")


def main() -> None:
    """Print the cost of one image and of many."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200, help="number of generated images")
    parser.add_argument("--side", type=int, default=256, help="side of the images, in pixels")
    parser.add_argument(
        "--many", type=int, default=0, help="number of images whose scores are held in memory; 0 skips this"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        truth = write(base / "truth", given.images, given.side, 1.0)
        systems = [write(base / f"system-{share}", given.images, given.side, share) for share in (0.5, 0.7)]
        print(f"one image of {given.side} px:")
        of_an_image(truth, systems[0])
        print(f"{given.images} images of {given.side} px, protocol stretch-256:")
        of_many(truth, systems, PROTOCOLS["stretch-256"], base / "cache")
        if given.many:
            of_very_many(given.many, base)


if __name__ == "__main__":
    main()
