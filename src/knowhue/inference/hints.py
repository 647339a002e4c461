"""Colours from a user: points on the command line, a table of points, strokes on a transparent image."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from knowhue.color import srgb_to_lab
from knowhue.csv_text import from_csv
from knowhue.errors import ConfigError, did_you_mean, few, first_line, raise_problems, shown, system_reason
from knowhue.images.image import Image
from knowhue.images.reading import weigh_image
from knowhue.settings_text import parse_json, plain_name


class Hint(NamedTuple):
    """A point and its colour; the lightness stays that of the image."""

    x: float
    """fraction of the width from the left, 0 to 1"""
    y: float
    """fraction of the height from the top, 0 to 1"""
    a: float
    """a*, CIELAB units"""
    b: float
    """b*, CIELAB units; a* = b* = 0 is gray"""


class Strokes(NamedTuple):
    """The n painted pixels of a strokes image and their colours; the lightness stays that of the image."""

    x: NDArray[np.floating]
    """fractions of the width from the left (n,), 0 to 1"""
    y: NDArray[np.floating]
    """fractions of the height from the top (n,), 0 to 1"""
    chroma: NDArray[np.floating]
    """a*b* (n, 2), CIELAB units"""


MOST_HINTS_OF_AN_IMAGE = 500
MOST_SAMPLES = 1 << 17
"""Most pixels of strokes that are used: several for each point of the grid on which their colours spread."""
_COLUMNS = ("file", "x", "y", "colour")
_GOLDEN = 0.618034  # the fractional parts of its multiples are evenly spread

_LAYER = "paint strokes on a transparent layer, and save that alone"
_HINT = re.compile(r"\s*([^,=]+),([^,=]+)=(.+)")
_FORMS = (
    "`120,80=#c83232` (pixels from the top left), `30%,40%=orange` (fractions of width and height), "
    "or `30%,40%=gray` for no colour"
)


class TableHint(str):
    """A hint from a table, in the form of the command line."""

    place = ""
    """where it is, for messages, such as `hints.csv, row 3`"""


def parse_hint(text: str, width: int, height: int) -> Hint:
    """Parse a hint in the form of the command line.

    Args:
        text: `X,Y=COLOUR`; X and Y are whole pixels from 0, or percentages of width and height; COLOUR is an
            opaque CSS colour: `#c83232`, `rgb(200, 50, 50)`, `orange`.
        width: of the image, pixels.
        height: of the image, pixels.

    Raises:
        ConfigError: the text has another form, names no colour, or lies outside the image.

    >>> hint = parse_hint("30%,40=#c83232", 600, 400)
    >>> [round(value, 4) for value in hint]
    [0.3, 0.1013, 58.1958, 36.489]
    """
    found = _HINT.fullmatch(text)
    if found is None:
        raise ConfigError(f"A hint should be {_FORMS}. Found `{shown(text)}`.")
    across, down, colour = (part.strip() for part in found.groups())
    return Hint(_fraction(across, width, text), _fraction(down, height, text), *_chroma_of(colour, text))


def parse_hints(texts: Iterable[str], width: int, height: int) -> tuple[Hint, ...]:
    """Parse the hints of an image like `parse_hint`; a `ConfigError` lists all problems."""
    found, problems = _parse_all(texts, width, height)
    raise_problems(problems)
    return tuple(found)


def _parse_all(texts: Iterable[str], width: int, height: int) -> tuple[list[Hint], list[str]]:
    found, problems = list[Hint](), list[str]()
    first_at: dict[tuple[float, float], tuple[Hint, str]] = {}
    for text in texts:
        place = f"{text.place}: " if isinstance(text, TableHint) else ""
        try:
            hint = parse_hint(text, width, height)
        except ConfigError as error:
            problems.append(f"{place}{error}")
            continue
        # spreading would average them to a third colour
        first, first_text = first_at.setdefault(hint[:2], (hint, text))
        if hint != first:
            both = f"`{shown(first_text)}` and `{shown(text)}`"
            problems.append(f"{place}A point should have one colour. Found {both}.")
        found.append(hint)
    return found, problems


def match_hints(
    hints: Mapping[str, Sequence[str]], images: Mapping[str, Path], source: Path
) -> dict[str, list[str]]:
    """Check the hints of many images before the first is coloured, reading only the images' headers.

    `hints` and `images`, texts and files, are by the path below the folder `source`. The hints are returned by the keys
    of `images`; on macOS a key can spell accents differently than a table does. A `ConfigError` lists all hints that
    name no image, cannot be parsed, or lie outside their image.
    """
    by_plain_name = {plain_name(name): name for name in images} if hints else {}
    found: dict[str, list[str]] = {}
    problems = []
    for given, texts in hints.items():
        name, shape = given if given in images else by_plain_name.get(plain_name(given)), None
        if name is None:
            what = f"`{shown(given)}`.{did_you_mean(given, images)}" if given else "one without a name."
            problems.append(f"Hints should name an image of `{source}`, by its path below it. Found {what}")
        else:
            found.setdefault(name, []).extend(texts)
            shape = weigh_image(images[name]).shape  # an unreadable image is reported when it is coloured
        height, width = shape or (10**9, 10**9)  # a size that contains every pixel
        of_image = f"{shown(name or given)}: " if name or given else ""
        problems += [f"{of_image}{problem}" for problem in _parse_all(texts, width, height)[1]]
    raise_problems(problems)
    return found


def read_hints(file: Path) -> dict[str, list[TableHint]]:
    """Read hints from a table, by the name of their image, "" if the table names none.

    The table is .csv with a header, or .json with a list of objects: `x`, `y`, `colour`, and for a folder `file`, an
    image's path below it with `/`. A `ConfigError` if it cannot be read, or has other columns or too many hints for an
    image. `parse_hints` checks the hints themselves once the size of the image is known.
    """
    hints: dict[str, list[TableHint]] = {}
    for place, row in _rows(file):
        hint = TableHint(f"{row['x']},{row['y']}={row['colour']}")
        hint.place = place
        hints.setdefault(str(row.get("file") or ""), []).append(hint)
    for name, texts in hints.items():
        if len(texts) > MOST_HINTS_OF_AN_IMAGE:
            of_image = f" for `{shown(name)}`" if name else ""
            raise ConfigError(
                f"{file} should have up to {MOST_HINTS_OF_AN_IMAGE} hints for an image. Found {len(texts)}{of_image}. "
                "Paint them as --strokes."
            )
    return hints


def strokes_of(image: Image, name: str, width: int, height: int) -> Strokes:
    """Strokes from a transparent image as large as the photo: its opaque pixels give colours.

    If there are too many, `MOST_SAMPLES` evenly spread ones are taken. A `ConfigError` calls the image `name`: it has
    another size, no transparency, no opaque pixels, or is opaque and gray everywhere.
    """
    pixels, alpha, _ = image
    if pixels.shape[:2] != (height, width):
        found = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise ConfigError(f"{name} should be as large as the photo, {width} x {height}. Found {found}.")
    if alpha is None:
        raise ConfigError(f"{name} has no transparency; {_LAYER}")
    places = np.flatnonzero(alpha > np.iinfo(alpha.dtype).max // 2)
    if not len(places):
        raise ConfigError(f"{name} is transparent everywhere; paint strokes on it, or leave it out")
    if len(places) == alpha.size and (pixels == pixels[..., :1]).all():
        raise ConfigError(f"{name} is opaque and gray everywhere, which would make the photo gray; {_LAYER}")
    if len(places) > MOST_SAMPLES:
        steps = np.arange(MOST_SAMPLES)
        # not every n-th pixel, which could be those of one column
        places = places[((steps + steps * _GOLDEN % 1) * len(places) / MOST_SAMPLES).astype(int)]
    rows, columns = np.divmod(places, width)
    rgb = np.broadcast_to(pixels[rows, columns], (len(places), 3)) / np.iinfo(pixels.dtype).max
    chroma = srgb_to_lab(rgb)[:, 1:]
    chroma[np.ptp(rgb, axis=1) == 0] = 0  # gray is exactly 0, without rounding
    return Strokes((columns + 0.5) / width, (rows + 0.5) / height, chroma)


def _rows(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a table with their places: the row in a spreadsheet, or the number in a list from 1 on."""
    is_json = file.suffix.lower() == ".json"
    try:
        text = file.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
        found = _numbered(parse_json(text)) if is_json else from_csv(text)
    except OSError as error:
        raise ConfigError(f"{file}: {system_reason(error)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not text in UTF-8; save the table as .csv or .json in UTF-8") from None
    except ValueError as error:
        fault = f"{file}: no table of hints ({first_line(error)}); write .csv with a header, or .json"
        raise ConfigError(fault) from None
    if not found:
        header, example = ",".join(_COLUMNS), '[{"x": 120, "y": 80, "colour": "#c83232"}]'
        raise ConfigError(
            f"{file}: no hints; write one per line below a header `{header}`, or in .json a list of objects, {example}"
        )
    if not is_json and (problem := _column_problem(found[0][1], "columns")):  # every row has the same
        raise ConfigError(f"{file}: {problem}")
    placed = [(f"{file}, {'hint' if is_json else 'row'} {number}", row) for number, row in found]
    raise_problems(
        [f"{place}: {problem}" for place, row in placed if (problem := _column_problem(row, "keys"))]
    )
    return placed


def _numbered(value: Any) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a list, numbered from 1; [] if the value is not a list of objects."""
    rows = value if isinstance(value, list) else []
    return list(enumerate(rows, 1)) if all(isinstance(row, dict) for row in rows) else []


def _column_problem(row: Mapping[str, Any], what: str) -> str:
    unknown, missing = [name for name in row if name not in _COLUMNS], {*_COLUMNS[1:]} - row.keys()
    if not unknown and not missing:
        return ""
    return (
        f"the {what} should be {', '.join(_COLUMNS)} (`file` can be left out). Found "
        f"{few([f'`{shown(name)}`' for name in row])}.{''.join(did_you_mean(name, _COLUMNS) for name in unknown)}"
    )


def _fraction(text: str, side: int, whole: str) -> float:
    """Parse a coordinate to 0..1; a whole number means the centre of that pixel."""
    if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?%", text):
        fraction = float(text[:-1]) / 100
    elif re.fullmatch(r"[+-]?[0-9]+(\.0+)?", text):  # pandas writes 120.0 beside empty cells
        fraction = (float(text) + 0.5) / side
    else:
        raise ConfigError(f"A hint should be {_FORMS}. Found `{shown(text)}` in `{shown(whole)}`.")
    if not 0 <= fraction <= 1:
        room = "0% to 100%" if text.endswith("%") else f"0 to {side - 1} pixels"
        raise ConfigError(
            f"A hint should lie in the image, {room}. Found `{shown(text)}` in `{shown(whole)}`."
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
            f"Found `{shown(colour)}` in `{shown(whole)}`.{did_you_mean(colour, ImageColor.colormap)}"
        )
    _, a, b = srgb_to_lab(np.array(rgb) / 255).tolist()
    return (0.0, 0.0) if len(set(rgb)) == 1 else (a, b)
