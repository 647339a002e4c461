"""Colour hints as users write them: a point on the command line, a table of points, strokes on a transparent image."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageColor

from knowhue.color import srgb_to_lab
from knowhue.csv_text import from_csv
from knowhue.errors import ConfigError, did_you_mean, few, system_reason
from knowhue.images.image import Image
from knowhue.images.reading import read_image
from knowhue.inference.hints import Hint, Strokes

MOST_HINTS_OF_AN_IMAGE = 500
MOST_SAMPLES = 1 << 17
"""Pixels of strokes that are looked at: several for each point of the grid on which their colours spread."""
_COLUMNS = ("file", "x", "y", "colour")
_JSON = '[{"x": 120, "y": 80, "colour": "#c83232"}]'
_ANYWHERE = 10**9  # a size in which every pixel lies
_GOLDEN = 0.618034  # multiples of it, less their whole part, are spread evenly

_HINT = re.compile(r"\s*([^,=]+),([^,=]+)=(.+)")
_FORMS = (
    "`120,80=#c83232` (pixels from the top left), `30%,40%=orange` (fractions of width and height), "
    "or `30%,40%=gray` for no colour"
)


def parse_hint(text: str, width: int, height: int) -> Hint:
    """Read a hint as it is written on the command line.

    Args:
        text: `X,Y=COLOUR`; X and Y count whole pixels from 0, or are percentages of width and height; COLOUR is
            anything that CSS writes without transparency: `#c83232`, `rgb(200, 50, 50)`, `orange`.
        width: of the image, pixels.
        height: of the image, pixels.

    Raises:
        ConfigError: it is not so written, no such colour, or outside the image.

    >>> hint = parse_hint("30%,40=#c83232", 600, 400)
    >>> [round(value, 4) for value in hint]
    [0.3, 0.1013, 58.1958, 36.489]
    """
    found = _HINT.fullmatch(text)
    if found is None:
        raise ConfigError(f"A hint should be {_FORMS}. Found `{text}`.")
    across, down, colour = (part.strip() for part in found.groups())
    return Hint(_fraction(across, width, text), _fraction(down, height, text), *_chroma_of(colour, text))


def read_hints(file: Path) -> dict[str, list[str]]:
    """Hints from a table, as `parse_hint` reads them, by the name of their image; of no name where none is given.

    Args:
        file: .csv with a header, or .json with a list of objects: `x`, `y`, `colour`, and for a folder `file`, an
            image's path below it with `/`.

    Raises:
        ConfigError: the file cannot be read, has other columns, or a line is no hint.
    """
    hints: dict[str, list[str]] = {}
    for place, row in enumerate(_rows(file), 1):
        text = f"{row['x']},{row['y']}={row['colour']}"
        try:
            parse_hint(text, _ANYWHERE, _ANYWHERE)  # whose image is not read yet
        except ConfigError as error:
            raise ConfigError(f"{file}, hint {place}: {error}") from None
        hints.setdefault(str(row.get("file") or ""), []).append(text)
    for name, texts in hints.items():
        if len(texts) > MOST_HINTS_OF_AN_IMAGE:
            raise ConfigError(
                f"{file} should have up to {MOST_HINTS_OF_AN_IMAGE} hints for an image. Found {len(texts)} for "
                f"`{name}`. Paint them as --strokes."
            )
    return hints


def read_strokes(file: Path, width: int, height: int) -> Strokes:
    """Strokes from a file, see `strokes_of`.

    Raises:
        ConfigError: it has another size, no transparency, or nothing opaque.
        ImageError: the file cannot be read as an image.
    """
    return strokes_of(read_image(file), str(file), width, height)


def strokes_of(image: Image, name: str, width: int, height: int) -> Strokes:
    """Strokes on a transparent image as large as the photo: where it is opaque, its colour is asked for.

    Of very many pixels `MOST_SAMPLES` are taken, spread evenly.

    Args:
        image: with the strokes.
        name: that messages call it by.
        width: of the photo, pixels.
        height: of the photo, pixels.

    Raises:
        ConfigError: it has another size, no transparency, or nothing opaque.
    """
    pixels, alpha, _ = image
    if pixels.shape[:2] != (height, width):
        found = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise ConfigError(f"{name} should be as large as the photo, {width} x {height}. Found {found}.")
    if alpha is None:
        raise ConfigError(
            f"{name} has no transparency; paint strokes on a transparent layer, and save that alone"
        )
    places = np.flatnonzero(alpha > np.iinfo(alpha.dtype).max // 2)
    if not len(places):
        raise ConfigError(f"{name} is transparent everywhere; paint strokes on it, or leave it out")
    if len(places) > MOST_SAMPLES:
        steps = np.arange(MOST_SAMPLES)
        # not every n-th, which could be one column of the image
        places = places[((steps + steps * _GOLDEN % 1) * len(places) / MOST_SAMPLES).astype(int)]
    rows, columns = np.divmod(places, width)
    rgb = np.broadcast_to(pixels[rows, columns], (len(places), 3)) / np.iinfo(pixels.dtype).max
    chroma = srgb_to_lab(rgb)[:, 1:]
    chroma[np.ptp(rgb, axis=1) == 0] = 0  # gray is exactly no colour
    return Strokes((columns + 0.5) / width, (rows + 0.5) / height, chroma)


def _rows(file: Path) -> list[dict[str, Any]]:
    is_json = file.suffix.lower() == ".json"
    try:
        text = file.read_text(encoding="utf-8-sig")  # spreadsheets begin with a mark of the encoding
        rows = json.loads(text) if is_json else from_csv(text.strip())
    except OSError as error:
        raise ConfigError(f"{file}: {system_reason(error)}") from None
    except (ValueError, RecursionError):  # JSON of many brackets
        raise ConfigError(
            f"{file}: no table of hints; write .csv with a header and as many cells in each line, or .json"
        ) from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        form = (
            f"a list of objects, {_JSON}" if is_json else f"one a line below a header `{','.join(_COLUMNS)}`"
        )
        raise ConfigError(f"{file}: no hints; write {form}")
    for place, row in enumerate(rows, 1):
        unknown, missing = [name for name in row if name not in _COLUMNS], {*_COLUMNS[1:]} - row.keys()
        if unknown or missing:
            meant = "".join(did_you_mean(name, _COLUMNS) for name in unknown[:1])
            raise ConfigError(
                f"{file}, hint {place}: the columns should be {', '.join(_COLUMNS)} (`file` may be left out), parted "
                f"by commas. Found {few([f'`{name}`' for name in row])}.{meant}"
            )
    return rows


def _fraction(text: str, side: int, whole: str) -> float:
    """A coordinate to 0..1; pixel k is meant at its centre."""
    if re.fullmatch(r"[+-]?\d+(\.\d+)?%", text):
        fraction = float(text[:-1]) / 100
    elif re.fullmatch(r"[+-]?\d+(\.0+)?", text):  # tables write whole numbers so where a cell is empty
        fraction = (int(float(text)) + 0.5) / side
    else:
        raise ConfigError(f"A hint should be {_FORMS}. Found `{text}` in `{whole}`.")
    if not 0 <= fraction <= 1:
        raise ConfigError(
            f"A hint should lie in the image, 0 to {side - 1} pixels or 0% to 100%. Found `{text}` in `{whole}`."
        )
    return fraction


def _chroma_of(colour: str, whole: str) -> tuple[float, float]:
    """a* and b* of a CSS colour."""
    try:
        rgb = ImageColor.getrgb(colour)
    except ValueError:
        rgb = ()
    if len(rgb) != 3 or not all(0 <= code <= 255 for code in rgb):
        raise ConfigError(
            f"A hint should name an opaque colour as CSS does, `#c83232`, `rgb(200, 50, 50)` or `orange`. "
            f"Found `{colour}` in `{whole}`."
        )
    _, a, b = srgb_to_lab(np.array(rgb) / 255).tolist()
    return (0.0, 0.0) if len(set(rgb)) == 1 else (a, b)
