"""How different the samples of `--samples` are, and how near the best of them is to the truth.

Photos are converted to gray at their own lightness and coloured at full size, as `knowhue colorize` does. Best of K:
among the first K samples, the one nearest to the truth by a*b* error and by CIEDE2000, as chosen by a user who knows
the truth. For comparison: the same random field drawn independently at every pixel, and the model's prediction at other
saturations. Diversity: mean CIEDE2000 between two of the first four samples. Intervals: 95 % over photos, by a
bootstrap.

    python benchmarks/samples.py MODEL --photos FOLDER [--limit 60] [--sheet SHEET.jpg]
"""

import argparse
import random
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image as Picture
from world import CPU, Photo, interval, read_photo

from knowhue.color import FloatArray, rgb_to_lab
from knowhue.data.loaders import to_rgb
from knowhue.evaluation.evaluate import ab_l1, mean_chroma
from knowhue.evaluation.similarity import ciede2000
from knowhue.images.image import SUFFIXES, Pixels
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.colour_distribution import FIELD_STRENGTH, ColourDistribution, field
from knowhue.tensors import Chroma

COUNTS = (1, 2, 4, 8)
DIVERSE_OF = 4
SATURATIONS = (1.0, 0.5, 1.5, 0.75, 1.25, 0.25, 1.75, 2.0)
NO_REACH = 1e-6
"""Reach of a random field whose pixels are independent."""
SHEET_OF = 8
"""Number of photos on the sheet."""


def smooth(distribution: ColourDistribution) -> list[FloatArray]:
    """Samples as `knowhue colorize` gives them."""
    return [distribution.sample(number) for number in range(1, COUNTS[-1] + 1)]


def by_pixel(distribution: ColourDistribution) -> list[FloatArray]:
    """Samples with the same strength, correlation of colours and random streams, but independent pixels."""
    lightness = np.zeros(distribution.logits.shape[1:], np.float32)
    added = (FIELD_STRENGTH * field(lightness, number, reach=NO_REACH) for number in range(2, COUNTS[-1] + 1))
    return [distribution.answer(), *map(distribution.answer, added)]


def saturated(distribution: ColourDistribution) -> list[FloatArray]:
    """The model's prediction, paler and more vivid."""
    return [np.float32(factor) * distribution.answer() for factor in SATURATIONS]


WAYS: dict[str, Callable[[ColourDistribution], list[FloatArray]]] = {
    "samples": smooth,
    "noise by pixel": by_pixel,
    "saturations": saturated,
}


class Scores(NamedTuple):
    """Scores of a photo's samples."""

    error: list[float]
    ciede2000: list[float]
    diversity: float
    chroma: float


def main() -> None:
    """Print the scores of each method, and write a sheet of the samples."""
    args = read_arguments()
    torch.set_num_threads(1)
    files = sorted(each for each in args.photos.glob("*/*") if each.suffix.lower() in SUFFIXES)
    files = random.Random(0).sample(files, args.limit) if args.limit else files
    photos = [read_photo(each, number, degraded=False) for number, each in enumerate(files)]
    colorizer = Colorizer.load(args.model)
    print(f"{len(photos)} photos, {args.model}\n")
    for way, answers in WAYS.items():
        painted = [paint_all(colorizer, each, answers) for each in photos]
        show(way, [score(each, pixels) for each, pixels in zip(photos, painted, strict=True)])
        if args.sheet and answers is smooth:
            write_sheet(painted[:SHEET_OF], args.sheet)


def paint_all(
    colorizer: Colorizer, photo: Photo, answers: Callable[[ColourDistribution], Sequence[FloatArray]]
) -> list[Pixels]:
    """The photo painted with each sample."""
    coarse = colorizer.network_input(photo.gray)
    found = colorizer.predict([coarse])[0]
    return [
        colorizer.finish(photo.gray, coarse, found._replace(chroma=chroma[None])).image.pixels
        for chroma in answers(ColourDistribution.of(colorizer.network, coarse))
    ]


def score(photo: Photo, painted: Sequence[Pixels]) -> Scores:
    """Errors of each sample, diversity of the first ones, and mean chroma of all."""
    chroma: list[Chroma] = [rgb_to_lab(to_rgb(each[None], CPU))[1] for each in painted]
    differences = [
        ciede2000(photo.lightness, one, other).item() for one, other in combinations(chroma[:DIVERSE_OF], 2)
    ]
    return Scores(
        [ab_l1(each, photo.chroma).item() for each in chroma],
        [ciede2000(photo.lightness, each, photo.chroma).item() for each in chroma],
        float(np.mean(differences)),
        float(np.mean([mean_chroma(each).item() for each in chroma])),
    )


def show(way: str, scores: Sequence[Scores]) -> None:
    """Print the diversity, chroma and best-of-K errors of a method."""
    mean = np.mean([each.chroma for each in scores])
    print(
        f"{way}: diversity {interval(np.array([each.diversity for each in scores]))}, mean chroma {mean:.1f}"
    )
    for name in ("error", "ciede2000"):
        rows = np.array([getattr(each, name) for each in scores])
        cells = [f"{count}: {interval(rows[:, :count].min(1))}" for count in COUNTS]
        print(
            f"  {'a*b* error' if name == 'error' else 'CIEDE2000'}, best of " + "; ".join(cells), flush=True
        )


def write_sheet(rows: Sequence[Sequence[Pixels]], path: Path) -> None:
    """Write an image with a row for each photo, its samples side by side."""
    height = 144
    strips = []
    for answers in rows:
        pictures = [Picture.fromarray(each) for each in answers]
        width = round(height * pictures[0].width / pictures[0].height)
        strips.append(np.concatenate([np.asarray(each.resize((width, height))) for each in pictures], 1))
    widest = max(each.shape[1] for each in strips)
    padded = [np.pad(each, ((0, 4), (0, widest - each.shape[1]), (0, 0))) for each in strips]
    Picture.fromarray(np.concatenate(padded)).save(path)


def read_arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="built-in, a run folder that was exported, or a file")
    parser.add_argument("--photos", type=Path, required=True, help="folder with <class>/*.jpg")
    parser.add_argument("--limit", type=int, default=0, help="number of randomly drawn photos; 0 is all")
    parser.add_argument("--sheet", type=Path, help="image of the samples of the first photos")
    return parser.parse_args()


if __name__ == "__main__":
    main()
