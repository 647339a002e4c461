"""Reliability of what is reported with a colouring: uncertainty against the true error, novelty against other images.

    python benchmarks/trust.py IMAGES --model RUN [--others FOLDER] [--images 100]

`IMAGES` are colour photos of the kind that the model was trained on, but not its training images; `FOLDER` holds images
of another kind.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.stats import rankdata, spearmanr

from knowhue.color import rgb_to_lab
from knowhue.images.image import SUFFIXES
from knowhue.images.reading import read_image
from knowhue.images.vips import shrink
from knowhue.inference.colorizer import Colorizer, spread_over_views
from knowhue.inference.pixels import working_size

FIFTHS = np.linspace(0, 1, 6)
EVERY = 37  # only every so many pixels are used, because neighbours are correlated


def main() -> None:
    """Measure both and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="folder of colour photos")
    parser.add_argument("--model", default="built-in", help="built-in, a run folder, or an exported file")
    parser.add_argument("--others", type=Path, help="folder of images of another kind")
    parser.add_argument("--images", dest="count", type=int, default=100, help="number of images per folder")
    args = parser.parse_args()
    colorizer = Colorizer.load(args.model, fast=True)
    found = [measure(colorizer, path) for path in some(args.images, args.count)]
    unsure, error = (np.concatenate([each[k].ravel()[::EVERY] for each in found]) for k in (0, 1))
    print(f"uncertainty and true error, Spearman: pixels {spearmanr(unsure, error)[0]:.2f}, ", end="")
    means = np.array([[each[k].mean() for k in (0, 1)] for each in found])
    print(f"images {spearmanr(*means.T)[0]:.2f} ({len(found)} images)")
    edges = np.quantile(unsure, FIFTHS)
    for low, high in pairwise(edges):
        inside = (unsure >= low) & (unsure <= high)
        print(f"  uncertainty {low:5.1f} to {high:5.1f}: mean error {error[inside].mean():5.1f} CIELAB units")
    if args.others:
        usual = np.array([each[2] for each in found])
        others = np.array([novelty(colorizer, path) for path in some(args.others, args.count)])
        ranks = rankdata(np.r_[usual, others])[len(usual) :]
        area = (ranks.sum() - len(others) * (len(others) + 1) / 2) / (len(usual) * len(others))
        print(f"novelty: area under the curve {area:.2f}; reported as unlike the training images: ", end="")
        print(f"{(usual > 1).mean():.0%} of the same kind, {(others > 1).mean():.0%} of {len(others)} others")


def some(folder: Path, count: int) -> list[Path]:
    """Evenly spaced images of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return files[:: max(1, len(files) // count)]


def measure(colorizer: Colorizer, path: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """Uncertainty and true error (h, w), in CIELAB units, and novelty of a colour photo."""
    import torch

    image = read_image(path)
    size = working_size(*image.pixels.shape[:2], colorizer.network.description.size_px)
    small = torch.from_numpy(shrink(image.pixels, *size)).permute(2, 0, 1)[None].clip(0, 1)
    truth = rgb_to_lab(small.expand(-1, 3, -1, -1))[1][0].permute(1, 2, 0).numpy()
    answer = colorizer.predict([colorizer.network_input(image)])[0]
    unsure = spread_over_views(
        lambda seen: colorizer.network.predict(seen).chroma,  # pyright: ignore[reportArgumentType]
        lambda scale: colorizer.network_input(image, scale),
    )
    return unsure, np.linalg.norm(answer.chroma[0] - truth, axis=-1), float(answer.novelty[0])  # pyright: ignore


def novelty(colorizer: Colorizer, path: Path) -> float:
    """Novelty: distance from the training images, above 1 if unlike them."""
    return float(colorizer.predict([colorizer.network_input(read_image(path))])[0].novelty[0])


if __name__ == "__main__":
    main()
