"""Scores of models on photos that were not used for training, at full size, next to gray and the mean colour.

Every photo is converted to gray at its own lightness and coloured by `Colorizer`, as `knowhue colorize` does.
Intervals: 95 % over photos, by a bootstrap of 2,000 draws. Mean colour: of these photos. Named: photos whose class is
not `unknown`, and the share of these that is correct. Calibration: the expected calibration error, and the value below
which it is for 95 of 100 perfectly calibrated models with the same confidences. Uncertainty: Spearman's correlation of
the map with the true error, over the pixels of all photos at the network's size. Skin: pixels with the hue and chroma
of skin in the middle of portraits, by lightness.

    python benchmarks/world.py MODEL [MODEL ...] --photos FOLDER [--limit 200] [--saturations .8,1] [--degraded]
"""

import argparse
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from knowhue.color import colourfulness, lab_to_rgb, rgb_to_lab
from knowhue.data.loaders import degrade, draw_damage, grain, to_rgb
from knowhue.evaluation.calibration import calibration_error
from knowhue.evaluation.evaluate import ab_l1, mean_chroma
from knowhue.evaluation.similarity import ciede2000
from knowhue.images.image import SUFFIXES, Image
from knowhue.images.reading import read_image
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.judgement import is_novel
from knowhue.runs import UNKNOWN
from knowhue.tensors import RGB, Chroma, Lightness

DRAWS = 2000
CPU = torch.device("cpu")
SKIN_HUE, SKIN_CHROMA = (25, 80), (8, 45)
"""Range of hue, in degrees, and of chroma, in CIELAB units."""
SKIN_GROUPS = ((0, 40), (40, 60), (60, 101))
"""Ranges of L*."""
PORTRAITS = ("portrait", "child", "person")


class Photo(NamedTuple):
    """A photo and the gray image that a model gets."""

    label: str
    """the name of its folder"""
    lightness: Lightness
    """L* of the photo, (1, 1, H, W)"""
    chroma: Chroma
    """its a*b*"""
    gray: Image
    """the gray image to colour"""


def main() -> None:
    """Print a table for the baselines and for every model."""
    args = read_arguments()
    files = sorted(each for each in args.photos.glob("*/*") if each.suffix.lower() in SUFFIXES)
    if args.limit:
        files = random.Random(0).sample(files, args.limit)
    photos = [read_photo(each, number, args.degraded) for number, each in enumerate(files)]
    mean = torch.stack([each.chroma.mean((2, 3)) for each in photos]).mean(0)[..., None, None]
    print(f"{len(photos)} photos{', degraded' if args.degraded else ''}\n")
    print(f"{'':24}{'a*b* error':>22}{'CIEDE2000':>22}{'chroma':>8}{'colourfulness':>15}{'better':>16}")
    gray = [score(each, torch.zeros_like(each.chroma)) for each in photos]
    show("gray", gray, gray)
    show("mean colour", [score(each, mean.expand_as(each.chroma)) for each in photos], gray)
    for name in args.models:
        colorizer = Colorizer.load(name, fast=args.fast)
        for saturation in args.saturations:
            rows = [judge(colorizer, each, saturation) for each in photos]
            show(f"{name[-18:]} x{saturation:g}", rows, gray)
        show_classes(rows)
        show_skin(rows)
        if args.uncertain:
            show_uncertainty(colorizer, photos[: args.uncertain])


def read_photo(path: Path, number: int, degraded: bool) -> Photo:
    """A photo, split into lightness and chroma, and its gray."""
    rgb = to_rgb(read_image(path).pixels[None], CPU)
    lightness, chroma = rgb_to_lab(rgb)
    seen = lightness
    if degraded:
        seen = degrade(lightness, rgb, draw_damage(number, 0, 1, 1.0), grain(number, 0, 0, lightness.shape))
    return Photo(path.parent.name, lightness, chroma, Image.of(codes(lab_to_rgb(seen, 0 * chroma))))


def codes(rgb: RGB) -> NDArray[np.uint8]:
    """(1, 3, H, W) of 0 to 1 to pixels (H, W, 3)."""
    return np.ascontiguousarray((255 * rgb[0]).round().byte().permute(1, 2, 0).numpy())


def judge(colorizer: Colorizer, photo: Photo, saturation: float) -> dict[str, Any]:
    """Scores of a model's colouring and class for a photo."""
    found = colorizer.colorize(photo.gray, ColorizeOptions(saturation=saturation))
    chroma = rgb_to_lab(to_rgb(found.image.pixels[None], CPU))[1]
    named = {"label": photo.label, "named": found.judgement.label, "probability": found.judgement.probability}
    best = next(iter(found.judgement.probabilities), None)
    return (
        score(photo, chroma)
        | named
        | {"correct": int(best == photo.label), "novel": is_novel(found.judgement.novelty)}
    )


def score(photo: Photo, chroma: Chroma) -> dict[str, Any]:
    """Scores of a colouring, a*b* (1, 2, H, W)."""
    true_rgb, rgb = (lab_to_rgb(photo.lightness, each) for each in (photo.chroma, chroma))
    return {
        "error": ab_l1(chroma, photo.chroma).item(),
        "ciede2000": ciede2000(photo.lightness, chroma, photo.chroma).item(),
        "chroma": mean_chroma(chroma).item(),
        "chroma_true": mean_chroma(photo.chroma).item(),
        "colourfulness": colourfulness(255 * rgb).item(),
        "colourfulness_true": colourfulness(255 * true_rgb).item(),
        "skin": skin_errors(photo, chroma) if photo.label in PORTRAITS else None,
    }


def skin_errors(photo: Photo, chroma: Chroma) -> list[tuple[float, int]]:
    """Sum of errors and number of skin-coloured pixels in the middle of a portrait, for each of `SKIN_GROUPS`."""
    height, width = chroma.shape[2:]
    middle = (slice(height // 5, height * 4 // 5), slice(width // 4, width * 3 // 4))
    true, own, lightness = photo.chroma[0][:, *middle], chroma[0][:, *middle], photo.lightness[0, 0][middle]
    hue, vividness = torch.atan2(true[1], true[0]).rad2deg(), torch.hypot(true[0], true[1])
    is_skin = (
        (hue > SKIN_HUE[0])
        & (hue < SKIN_HUE[1])
        & (vividness > SKIN_CHROMA[0])
        & (vividness < SKIN_CHROMA[1])
    )
    error = (own - true).abs().mean(0)
    groups = [is_skin & (lightness >= low) & (lightness < high) for low, high in SKIN_GROUPS]
    return [(error[each].sum().item(), int(each.sum())) for each in groups]


def show(name: str, rows: list[dict[str, Any]], gray: list[dict[str, Any]]) -> None:
    """Print a line of scores."""
    values = {key: np.array([row[key] for row in rows]) for key in rows[0] if isinstance(rows[0][key], float)}
    better = np.array([own["error"] < other["error"] for own, other in zip(rows, gray, strict=True)], float)
    gap = values["colourfulness"].mean() - values["colourfulness_true"].mean()
    ratio = values["chroma"].mean() / values["chroma_true"].mean()
    cells = f"{interval(values['error']):>22}{interval(values['ciede2000']):>22}{ratio:8.2f}{gap:+15.1f}"
    print(f"{name:24}{cells}{interval(100 * better, 0):>16}", flush=True)


def interval(values: NDArray[np.floating], digits: int = 2) -> str:
    """Mean and 95 % bootstrap interval over photos."""
    draws = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    low, high = np.percentile(values[draws].mean(1), (2.5, 97.5))
    return f"{values.mean():.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def show_classes(rows: list[dict[str, Any]]) -> None:
    """Print the accuracy, the shares of named and unlike photos, and the calibration error."""
    named = [row for row in rows if row["named"] not in (None, UNKNOWN)]
    right = sum(row["named"] == row["label"] for row in named)
    confidences = np.array([row["probability"] for row in rows])
    generator = np.random.default_rng(0)
    perfect = [
        calibration_error(
            [{"probability": p, "correct": int(u < p)} for p, u in zip(confidences, each, strict=True)]
        )
        for each in generator.random((500, len(rows)))
    ]
    shares = [np.mean([row["correct"] for row in rows]), len(named) / len(rows), right / max(len(named), 1)]
    shares.append(np.mean([row["novel"] for row in rows]))
    correct, of_all, of_named, unlike = (f"{100 * each:.1f} %" for each in shares)
    print(
        f"classes: {correct} correct; named {of_all}, {of_named} of these correct; unlike {unlike}; calibration "
        f"error {calibration_error(rows):.3f}, below {np.percentile(perfect, 95):.3f} if perfect"
    )


def show_skin(rows: list[dict[str, Any]]) -> None:
    """Print the error on skin by lightness."""
    found = np.array([row["skin"] for row in rows if row["skin"]])
    if len(found):
        parts = [
            f"L* {low} to {high}: {sums[0] / max(sums[1], 1):.2f} ({sums[1]:.0f} pixels)"
            for (low, high), sums in zip(SKIN_GROUPS, found.sum(0), strict=True)
        ]
        print("skin, a*b* error: " + "; ".join(parts))


def show_uncertainty(colorizer: Colorizer, photos: list[Photo]) -> None:
    """Print the rank correlation of the uncertainty with the true error."""
    spread, error = [], []
    for photo in photos:
        found = colorizer.colorize(photo.gray, ColorizeOptions(uncertainty=True))
        off = (rgb_to_lab(to_rgb(found.image.pixels[None], CPU))[1] - photo.chroma).norm(dim=1)
        size = found.uncertainty.shape
        spread.append(found.uncertainty.reshape(-1))
        error.append(torch.nn.functional.adaptive_avg_pool2d(off[None], size).reshape(-1).numpy())
    correlation = spearmanr(np.concatenate(spread), np.concatenate(error)).statistic
    print(f"uncertainty: Spearman {correlation:.2f} with the error, pixels of {len(photos)} photos")


def read_arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="built-in, a run folder that was exported, or a file")
    parser.add_argument("--photos", type=Path, required=True, help="folder with <class>/*.jpg")
    parser.add_argument("--limit", type=int, default=0, help="number of randomly drawn photos; 0 is all")
    parser.add_argument(
        "--saturations",
        type=lambda text: [float(each) for each in text.split(",")],
        default=[1.0],
        help="saturations, separated by commas",
    )
    parser.add_argument(
        "--degraded", action="store_true", help="colour copies that are degraded like old photos"
    )
    parser.add_argument("--fast", action="store_true", help="predict at one size, like `--fast` of knowhue")
    parser.add_argument(
        "--uncertain",
        type=int,
        default=0,
        help="number of photos whose uncertainty is compared with the error",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
