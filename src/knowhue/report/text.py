"""Numbers as text: digits, signs, units, p values, times and counts; their tables as lines for a terminal."""

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import zip_longest
from textwrap import wrap
from typing import Any, Literal, NamedTuple

import numpy as np

from knowhue.errors import minus, spaced
from knowhue.metric_table import METRICS
from knowhue.plan import Question
from knowhue.statistics.paired import Interval, mean

MISSING = "–"
_ROUNDING_PLACES = 6
"""A difference that is 0 to this many digits beyond the shown ones is a rounding error."""
_MOST_PLACES = 10
_MOST = 1e10
"""Numbers with more decimal places, or as large as this, are written as a power of ten, to fit into tables."""
_LEAST = 1e-15
"""A number smaller than this is a rounding error."""
TERMINAL_WIDTH = 80
"""Longest line of a table in a terminal, in characters."""
_TITLE_WIDTH, _CELL_WIDTH = 24, 26
"""Longest lines of the first and of other columns there, so that two of them fit next to the first."""


class TableCell(NamedTuple):
    """A cell of a table, with a second line `below`, which is bold if it is `clear`."""

    value: str
    below: str = ""
    clear: bool = False


def number(value: float | None, unit: str = "", like: float | None = None) -> str:
    """Return a number as text, shares in per cent, with as many decimal places as `like` gets (default: the number).

    >>> number(0.8412, "share"), number(13.2071), number(0.5123), number(-0.00021), number(None)
    ('84.1', '13.21', '0.512', '−0.00021', '–')
    >>> number(1.25e-12), number(-1.25e21)
    ('1.25e−12', '−1.25e21')
    >>> number(-1.379), number(-1.379, like=-1.804)
    ('−1.379', '−1.38')
    """
    if value is None:
        return MISSING
    scale = 100 if unit == "share" else 1
    return _format(scale * value, _places(unit, value if like is None else like))


def difference(single: float | None, multi: float | None, unit: str = "") -> str:
    """Return multi minus single as signed text, with as many decimal places as the larger of the two.

    >>> difference(12.01, 11.85), difference(0.8, 0.82, "share"), difference(0.8, 0.8, "share")
    ('−0.16', '+2.0', '0.0')
    """
    if single is None or multi is None:
        return MISSING
    return _signed([multi - single], unit, max(single, multi, key=abs))[0]


def ends_text(level: float | None, interval: Interval | None, unit: str = "") -> str:
    """Return the interval of a difference as text, with at least as many decimal places as `level` gets.

    >>> ends_text(0.8, (-0.01, 0.02), "share"), ends_text(12.0, (0.002, 0.03)), ends_text(12.0, None)
    ('−1.0 to +2.0', '+0.002 to +0.030', '–')
    """
    return MISSING if level is None or interval is None else " to ".join(_signed(interval, unit, level))


def with_spread(values: Sequence[float | None], unit: str = "", like: float | None = None) -> str:
    """Return mean ± standard deviation over seeds, or the mean alone of one seed. For `like` see `number`.

    >>> with_spread([2.0, 4.0]), with_spread([2.0]), with_spread([2.0, None])
    ('3.00 ± 1.41', '2.00', '–')
    """
    centre = mean(values)
    if centre is None or len(values) < 2:
        return number(centre, unit, like)
    spread = float(np.std(np.array(values, float), ddof=1))
    return f"{number(centre, unit, like)} ± {number(spread, unit, centre if like is None else like)}"


def signed(values: Sequence[float], places: int) -> list[str]:
    """Return differences as signed text, all with as many decimal places as the smallest needs to show a digit.

    Args:
        values: differences of one sentence or interval, in the shown unit.
        places: least number of decimal places.

    >>> signed([0.0021, 0.034], 2), signed([-0.16], 2), signed([0.0], 2), signed([-0.004, 0.0], 1)
    (['+0.002', '+0.034'], ['−0.16'], ['0.00'], ['−0.004', '0.000'])
    >>> signed([-2e21, 0.0], 2)
    ['−2.00e21', '0']
    """
    # `not <=` instead of `>`, so that NaN is not shown as no difference
    counts = [not abs(value) <= 10.0 ** -(places + _ROUNDING_PLACES) for value in values]
    for value, count in zip(values, counts, strict=True):
        while count and not round(abs(value), places):  # a difference is never rounded to 0
            places += 1
    most = max(map(abs, values), default=0.0)
    nothing = "0" if _by_power_of_ten(most, places) else f"{0:.{places}f}"
    texts = (_format(value, places, most, "+").replace("+nan", "nan") for value in values)
    return [text if count else nothing for text, count in zip(texts, counts, strict=True)]


def p_text(p: float | None) -> str:
    """Return a p value or a probability as text; only an exact 1 is shown as 1, and 0 never.

    >>> p_text(0.0156), p_text(0.0001), p_text(0.9999), p_text(1.0), p_text(None)
    ('0.016', '<0.001', '>0.999', '1.000', '–')
    """
    if p is None or p < 0.0005:
        return MISSING if p is None else "<0.001"
    return ">0.999" if 0.9995 <= p < 1 else f"{p:.3f}"


def p_words(p: float) -> str:
    """Return a p value as part of a sentence.

    >>> p_words(0.0156), p_words(0.0001)
    ('= .016', 'below .001')
    """
    return "below .001" if p < 0.0005 else f"= {p:.3f}".replace("0.", ".")


def duration(seconds: float | None) -> str:
    """Return a duration as text.

    >>> duration(12.34), duration(754), duration(7384)
    ('12.3 s', '12 min 34 s', '2 h 3 min')
    """
    if seconds is None:
        return MISSING
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    minutes, hours = whole // 60, whole // 3600
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {whole % 60} s"


def seconds_text(seconds: float) -> str:
    """Return seconds as text, without unit: whole from 10, with at least one digit that is not 0.

    >>> seconds_text(45.2), seconds_text(3.14), seconds_text(0.38)
    ('45', '3.1', '0.4')
    """
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.1g}"


def terminal_table(rows: Sequence[Sequence[TableCell]]) -> list[str]:
    """Return the lines of a table, header first; columns that do not fit into 80 characters follow in further blocks.

    Each block repeats the first column. `*` marks what is `clear`.

    >>> cells = [["", "p"], ["L1", "12.0"], ["GAN", "9.5"]]
    >>> terminal_table([[TableCell(each) for each in row] for row in cells])
    ['        p', 'L1   12.0', 'GAN   9.5']
    """
    first, *others = (_wrapped_column(cells, not at) for at, cells in enumerate(zip(*rows, strict=True)))
    blocks = [[first]]
    for column in others:
        width = sum(2 + _width(each) for each in blocks[-1]) + _width(column)
        if len(blocks[-1]) > 1 and width > TERMINAL_WIDTH:
            blocks.append([first])
        blocks[-1].append(column)
    return [line for place, block in enumerate(blocks) for line in ([""] * bool(place) + _aligned(block))]


def _wrapped_column(cells: Sequence[TableCell], is_first: bool) -> list[list[str]]:
    """Return the lines of each cell; the head is wrapped to the width of the others, if its words fit."""
    head, *body = cells
    indent, most = ("  ", _TITLE_WIDTH) if is_first else ("", _CELL_WIDTH)
    found = [
        wrap(cell.value, most, subsequent_indent=indent, break_on_hyphens=False)
        + wrap(cell.below + "*" * cell.clear, most, initial_indent=indent, break_on_hyphens=False)
        for cell in body
    ]
    longest = max(map(len, head.value.split()), default=1)
    return [wrap(head.value, max(_width(found), longest)), *found]


def _width(column: Sequence[Sequence[str]]) -> int:
    return max((len(line) for lines in column for line in lines), default=0)


def _aligned(columns: Sequence[Sequence[Sequence[str]]]) -> list[str]:
    """Return lines in which the first column is aligned to the left, the others to the right."""
    first, *widths = map(_width, columns)
    lines = (line for row in zip(*columns, strict=True) for line in zip_longest(*row, fillvalue=""))
    return ["  ".join([head.ljust(first), *map(str.rjust, line, widths)]).rstrip() for head, *line in lines]


def plain(value: object) -> str:
    """Return the number of a setting without trailing zeros.

    >>> plain(100.0), plain(0.5), plain(None)
    ('100', '0.5', '–')
    """
    return f"{value:g}" if isinstance(value, int | float) else MISSING


def titled(title: str, unit: str) -> str:
    """Return a metric's title with its unit, `%` for shares; without a unit that repeats the title.

    >>> titled("Accuracy", "share"), titled("CIEDE2000", "CIEDE2000 units"), titled("PSNR", "dB")
    ('Accuracy, %', 'CIEDE2000', 'PSNR, dB')
    >>> titled("SSIM", "-1 to 1")
    'SSIM, −1 to 1'
    """
    shown = "" if unit.startswith(title) else "%" if unit == "share" else unit
    return f"{title}, {minus(shown)}" if shown else title


def seeds_text(seeds: Iterable[int]) -> str:
    """Return a list of seeds as text.

    >>> seeds_text([3]), seeds_text([0, 1, 2]), seeds_text([0, 3])
    ('seed 3', 'seeds 0 to 2', 'seeds 0, 3')
    """
    return span(seeds, "seed ", "seeds ")


def span(numbers: Iterable[int], one: str = "", several: str = "") -> str:
    """Return a list of whole numbers as text, consecutive ones as `first to last`."""
    known = sorted(set(numbers))
    if len(known) == 1:
        return f"{one}{known[0]}"
    together = known[-1] - known[0] + 1 == len(known) > 2
    return several + (f"{known[0]} to {known[-1]}" if together else ", ".join(map(str, known)))


class Measure(NamedTuple):
    """The format of a primary metric: a share in per cent, and a difference of shares in percentage points."""

    title: str
    unit: str
    difference_unit: str
    scale: float
    places: int

    def titled(self, unit: str) -> str:
        return titled(self.title, unit)

    def level(self, value: float) -> str:
        return _format(self.scale * value, self.places)

    def signed(self, value: float) -> str:
        return signed([self.scale * value], self.places)[0]

    def amount(self, value: float) -> str:
        return f"{self.signed(value).lstrip('+−')} {self.difference_unit}".strip()

    def ends(self, interval: Interval) -> str:
        """Return the interval of a difference as text; an end other than 0 is never rounded to 0."""
        return " to ".join(signed([self.scale * end for end in interval], self.places))

    def adds_up(self, levels: tuple[float, float], difference: float) -> bool:
        """Whether the shown difference is that of the shown levels; each number is rounded on its own."""
        texts = [*map(self.level, levels), self.signed(difference)]
        before, after, between = (Decimal(text.replace("−", "-")) for text in texts)
        return after - before == between


def about_metric(metrics: Mapping[str, Mapping[str, Any]], metric: str) -> Mapping[str, Any]:
    """Return title, unit and direction of a metric, from the study's `metrics.json` where it has them."""
    known = METRICS.get(metric)
    return (known._asdict() if known else {}) | dict(metrics.get(metric, {}))


def measure(metrics: Mapping[str, Mapping[str, Any]], spec: Question) -> Measure:
    """Return the format of a question's metric, with decimal places for two digits of the smallest effect."""
    about = about_metric(metrics, spec.metric)
    title, unit = str(about.get("title", spaced(spec.metric).capitalize())), about.get("unit", "")
    scale, shown, between = (100, "%", "points") if unit == "share" else (1, unit, unit)
    return Measure(title, shown, between, scale, max(1 - math.floor(math.log10(scale * spec.sesoi)), 0))


def _signed(values: Sequence[float], unit: str, like: float) -> list[str]:
    scale = 100 if unit == "share" else 1
    return signed([scale * value for value in values], _places(unit, like))


def _places(unit: str, like: float) -> int:
    """Return the number of decimal places; for small numbers, enough to show two digits."""
    size = abs(like)
    if unit == "share" or size >= 100:
        return 1
    if not size >= _LEAST:  # also true of NaN
        return 3
    return 2 if size >= 1.5 else max(3, 1 - math.floor(math.log10(size)))


def _format(value: float, places: int, like: float | None = None, sign: Literal["z", "+"] = "z") -> str:
    """Return a number with so many decimal places, or as a power of ten if `like` (default: the number) needs one.

    `sign` is Python's format option: with "z", a number that rounds to 0 has no sign.
    """
    form = ".2e" if _by_power_of_ten(value if like is None else like, places) else f".{places}f"
    return f"{value:{sign}{form}}".replace("e+", "e").replace("-", "−")


def _by_power_of_ten(value: float, places: int) -> bool:
    return places > _MOST_PLACES or abs(value) >= _MOST
