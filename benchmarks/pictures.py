"""The figures of README and docs/model.md: old photos in gray and as coloured by the built-in model.

Writes `docs/first.jpg` and `docs/old_photos.jpg` from the photos listed in `SHEETS` (sources: docs/model.md).

    python benchmarks/pictures.py FOLDER
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from knowhue.images.image import to_rgb8
from knowhue.images.reading import read_image
from knowhue.inference.colorizer import ColorizeOptions, Colorizer

GIRLS, BOATS, MUSICIAN = "deoldify_1860Girls", "stdlib_nagasaki-boats", "deoldify_1867MusicianConstantinople"
ALPS, CANYON, HOUSE = "stdlib_french-alpine-landscape", "stdlib_black-canyon", "stdlib_dust-bowl-home"
SPHINX, GIRL, SAMURAI = "deoldify_1870sSphinx", "deoldify_1870Girl", "deoldify_1860sSamauris"
BIPLANE, LESSON = "stdlib_airplane-from-above", "deoldify_1850Geography"
SHEETS = {
    "first.jpg": (920, ((GIRLS, GIRL),)),
    "old_photos.jpg": (
        1200,
        ((GIRLS, BOATS, MUSICIAN), (ALPS, CANYON), (HOUSE, SPHINX, GIRL), (SAMURAI, BIPLANE, LESSON)),
    ),
}
"""For each file: its width, and the photos of each row."""
GAP, QUALITY = 8, 88


def main() -> None:
    """Colour the photos and write the sheets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the photos")
    folder = parser.parse_args().folder
    colorizer = Colorizer.load()
    for name, (width, rows) in SHEETS.items():
        lines = [in_line([pair_of(colorizer, folder, photo) for photo in row], width) for row in rows]
        gap = np.full((GAP, width, 3), 255, np.uint8)
        sheet = np.concatenate([part for line in lines for part in (line, gap)][:-1])
        target = Path(__file__).parent.parent / "docs" / name
        Image.fromarray(sheet).save(target, quality=QUALITY, optimize=True)
        print(f"{target}: {sheet.shape[1]} x {sheet.shape[0]}")


def pair_of(colorizer: Colorizer, folder: Path, name: str) -> Image.Image:
    """A photo in gray and in colour, side by side."""
    image = read_image(next(folder.glob(f"{name}.*")))
    gray, coloured = (
        Image.fromarray(to_rgb8(colorizer.colorize(image, ColorizeOptions(saturation=each)).image))
        for each in (0.0, 1.0)
    )
    pair = Image.new("RGB", (2 * coloured.width + 2, coloured.height), "white")
    pair.paste(gray, (0, 0))
    pair.paste(coloured, (coloured.width + 2, 0))
    return pair


def in_line(pairs: list[Image.Image], width: int) -> np.ndarray:
    """Pairs side by side at equal height, with the given total width."""
    room = width - GAP * (len(pairs) - 1)
    height = round(room / sum(each.width / each.height for each in pairs))
    line = Image.new("RGB", (width, height), "white")
    left = 0.0
    for each in pairs:
        wide = each.width / each.height * height
        line.paste(each.resize((round(wide), height), Image.Resampling.LANCZOS), (round(left), 0))
        left += wide + GAP
    return np.asarray(line)


if __name__ == "__main__":
    main()
