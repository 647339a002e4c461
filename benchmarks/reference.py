"""Effect of `--reference` on the error: another view of the same scene, a photo of the same kind, an unrelated one.

Photos of the validation split, on which the model was tuned, are converted to gray and coloured by `Colorizer` as
`knowhue colorize` does, without a reference and with each of these:

- same scene: the photo's longer side is divided so that the photo gets two thirds from one end and the reference two
  thirds from the other, which makes half of what is coloured visible in the reference; the reference is up to a quarter
  smaller (never larger), with another exposure (codes to a power of .74 to 1.35);
- the same mirrored;
- same kind: another photo of the same class;
- unrelated: a photo of another class.

The error is the mean absolute difference of a*b* from the truth over the whole coloured photo, including parts that are
not in the reference. The ratio is that of the mean errors with and without a reference, with 95 % intervals over photos
by a bootstrap of 2,000 draws; found is the mean share of the photo that was found in the reference. The constants of
`knowhue.inference.reference` were tuned on the first 120 photos, which `--skip 120` leaves out.

    python benchmarks/reference.py PHOTOS --prepared STUDY/images [--model built-in] [--skip 120] [--sheet FILE]
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow

from knowhue.color import lab_to_rgb, rgb_to_lab
from knowhue.data.loaders import to_rgb
from knowhue.images.image import Image, Pixels
from knowhue.images.reading import read_image
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.storage import read_csv

SHARE = 2 / 3
DRAWS = 2000
CPU = torch.device("cpu")
SHEET_PX = 150


class Case(NamedTuple):
    """The true colours and the gray version of a photo, and its references by name."""

    true: Pixels
    gray: Pixels
    references: dict[str, Pixels]


def main() -> None:
    """Print a line for each kind of reference, and draw the sheet if its file is given."""
    args = read_arguments()
    rows = read_csv(args.prepared / "manifest.csv")
    labels = {each["path"]: each["label"] for each in rows if each["split"] == "validation"}
    paths = np.random.default_rng(0).permutation(sorted(labels))[args.skip :][: args.limit]
    colorizer = Colorizer.load(args.model)
    errors: dict[str, list[float]] = {}
    found: dict[str, list[float]] = {}
    sheet: list[Pixels] = []
    for number, path in enumerate(paths, args.skip):
        case = make_case(args.photos, str(path), labels, number)
        made = colour(colorizer, case)
        for name, (pixels, share) in made.items():
            errors.setdefault(name, []).append(error(pixels, case.true))
            found.setdefault(name, []).append(share)
        if len(sheet) < args.rows:
            sheet.append(row_of(case, made))
    if args.sheet:
        Pillow.fromarray(np.vstack(sheet)).save(args.sheet)
    show(errors, found, colorizer.network.description.name)


def show(errors: dict[str, list[float]], found: dict[str, list[float]], model: str) -> None:
    """Print a line for each kind of reference."""
    without = np.array(errors[""])
    print(f"{len(without)} photos; {model}; error without a reference {without.mean():.2f}")
    for name, values in errors.items():
        if not name:
            continue
        low, high = np.percentile(ratios(np.array(values), without), (2.5, 97.5))
        print(
            f"{name:12} error {np.mean(values):5.2f}; ratio {np.mean(values) / without.mean():.3f} "
            f"({low:.3f} to {high:.3f}); found {np.mean(found[name]):.0%}"
        )


def read_arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="folder of the original photos")
    parser.add_argument(
        "--prepared", type=Path, required=True, help="prepared images, whose manifest lists the photos"
    )
    parser.add_argument("--model", default="built-in", help="built-in, a run folder, or an exported file")
    parser.add_argument(
        "--skip", type=int, default=0, help="photos to leave out, such as those used for tuning"
    )
    parser.add_argument("--limit", type=int, default=400, help="largest number of photos")
    parser.add_argument("--sheet", type=Path, help="image of the first photos: gray, and with each reference")
    parser.add_argument("--rows", type=int, default=12, help="photos on the sheet")
    return parser.parse_args()


def make_case(folder: Path, path: str, labels: dict[str, str], number: int) -> Case:
    """One photo and its references; random choices depend only on its number."""
    generator = np.random.default_rng([1, number])
    whole = read_image(folder / path).pixels
    true, other = two_views(whole, generator)
    lightness, chroma = rgb_to_lab(to_rgb(true[None], CPU))
    gray = codes(lab_to_rgb(lightness, 0 * chroma)[0].permute(1, 2, 0).numpy())
    alike = [each for each, label in labels.items() if label == labels[path] and each != path]
    unlike = [each for each, label in labels.items() if label != labels[path]]
    references = {"same scene": other, "mirrored": np.ascontiguousarray(other[:, ::-1])}
    for name, those in (("same kind", alike), ("unrelated", unlike)):
        references[name] = read_image(folder / str(generator.choice(those))).pixels
    return Case(true, gray, references)


def two_views(whole: Pixels, generator: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Two thirds of a photo from one end, and two thirds from the other end, resized and with another exposure."""
    axis = int(whole.shape[1] >= whole.shape[0])
    length = whole.shape[axis]
    kept = round(SHARE * length)
    views = [np.take(whole, range(start, start + kept), axis) for start in (0, length - kept)]
    if generator.random() < 0.5:
        views.reverse()
    power, scale = np.exp(generator.uniform((-0.3, -0.3), (0.3, 0)))
    exposed = Pillow.fromarray(codes((views[1] / 255) ** power))
    size = round(scale * exposed.width), round(scale * exposed.height)
    return np.ascontiguousarray(views[0]), np.array(exposed.resize(size, Pillow.Resampling.LANCZOS))


def codes(rgb: NDArray[np.floating]) -> Pixels:
    """8-bit codes of sRGB values from 0 to 1."""
    return np.ascontiguousarray((255 * rgb).round().astype(np.uint8))


def colour(colorizer: Colorizer, case: Case) -> dict[str, tuple[Pixels, float]]:
    """The photo coloured without a reference (key "") and with each one, and its share found in the reference."""
    gray = Image.of(case.gray)
    options = {
        name: ColorizeOptions(reference=colorizer.reference(Image.of(each)))
        for name, each in case.references.items()
    }
    made = {name: colorizer.colorize(gray, each) for name, each in {"": ColorizeOptions(), **options}.items()}
    return {
        name: (each.image.pixels, each.judgement.found_in_reference or 0.0) for name, each in made.items()
    }


def error(pixels: Pixels, true: Pixels) -> float:
    """Mean absolute difference of a*b*, in CIELAB units."""
    first, second = (rgb_to_lab(to_rgb(each[None], CPU))[1] for each in (pixels, true))
    return (first - second).abs().mean().item()


def ratios(errors: NDArray[np.float64], without: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ratios of mean errors over photos drawn with replacement."""
    drawn = np.random.default_rng(0).integers(0, len(errors), (DRAWS, len(errors)))
    return errors[drawn].mean(1) / without[drawn].mean(1)


def row_of(case: Case, made: dict[str, tuple[Pixels, float]]) -> Pixels:
    """A row of the sheet: gray, truth, without a reference, and each reference with its result."""
    pictures = [case.gray, case.true, made[""][0]]
    for name, reference in case.references.items():
        pictures += [reference, made[name][0]]
    return np.hstack([np.asarray(Pillow.fromarray(each).resize((SHEET_PX, SHEET_PX))) for each in pictures])


if __name__ == "__main__":
    main()
