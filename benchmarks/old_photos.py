"""How faded, grainy and flat old photos are; the strengths of `data.loaders.degrade` are based on these measurements.

At the network's size: black and white point (1 and 99 % of the pixels), mean, standard deviation, and grain in the
smoothest quarter of the photo (Immerkaer 1996, "Fast noise variance estimation"), all in L*.

    python benchmarks/old_photos.py FOLDER [FOLDER ...] [--size 96]
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.ndimage import convolve, uniform_filter

from knowhue.color import FloatArray
from knowhue.images.image import SUFFIXES
from knowhue.images.reading import read_image
from knowhue.inference.pixels import network_input

COLUMNS = ("black", "white", "mean", "deviation", "grain")
LAPLACIANS = np.array([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])
"""Difference of two Laplacians: its response is small for structure, about 6 s for noise of standard deviation s."""


def measure(lightness: FloatArray) -> tuple[float, ...]:
    """The values of `COLUMNS` for one photo, L* (h, w)."""
    answer = np.abs(convolve(lightness.astype(np.float64), LAPLACIANS))[1:-1, 1:-1]
    grain = np.sqrt(np.pi / 2) / 6 * np.percentile(uniform_filter(answer, 9), 25)
    black, white = np.percentile(lightness, (1, 99))
    return black, white, float(lightness.mean()), float(lightness.std()), float(grain)


def main() -> None:
    """Print the 10, 50 and 90 % quantiles of each folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", help="folders of photos")
    parser.add_argument("--size", type=int, default=96, help="the network's size, in pixels")
    args = parser.parse_args()
    print(f"{'':40}" + "".join(f"{each:>12}" for each in COLUMNS))
    for folder in args.folders:
        files = sorted(each for each in folder.iterdir() if each.suffix.lower() in SUFFIXES)
        found = np.array([measure(network_input(read_image(each).pixels, args.size)) for each in files])
        for share in (10, 50, 90):
            values = np.percentile(found, share, axis=0)
            name = f"{folder.name}, {len(files)} photos, {share} %"
            print(f"{name:40}" + "".join(f"{each:12.1f}" for each in values))


if __name__ == "__main__":
    main()
