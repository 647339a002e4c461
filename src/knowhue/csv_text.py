"""Tables as CSV text that a spreadsheet shows and never runs; the only place where CSV is made or read."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_RUNS = re.compile(r"\s*['=+\-@|%＝＋－＠]|[\t\r\n\0]")
"""How text begins that a spreadsheet takes for a formula (OWASP, CSV injection), or that is marked already."""
_MARK = "'"
_SPLITS = re.compile(r"""[",;\s]""")
"""Signs at which some spreadsheet would cut a cell; the standard library's writer leaves a lone return unquoted."""
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_QUOTED_NOTHING = '""'
_SEPARATORS = ",;\t"
_NO_TEXT = f"{_SEPARATORS} \r\n"


def to_csv(rows: Iterable[Sequence[Any]]) -> str:
    r"""Write rows, the header first.

    Text that a spreadsheet would run as a formula gets an apostrophe before it; numbers are left alone.

    >>> to_csv([["class", "error"], ["=cmd|calc", -0.5]])
    "class,error\n'=cmd|calc,-0.5\n"
    """
    return "".join(csv_lines(rows))


def csv_lines(rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    return (f"{','.join(map(_cell, row)) or _QUOTED_NOTHING}\n" for row in rows)


def from_csv(text: str) -> list[tuple[int, dict[str, str]]]:
    r"""Read anybody's table: each row by the header's names, with its number as a spreadsheet counts rows.

    Raises:
        ValueError: a row has more or fewer cells than the header, which has a name twice, or the text is no CSV.

    >>> from_csv("class,error\n\n'=cmd|calc,-0.5\n")
    [(3, {'class': '=cmd|calc', 'error': '-0.5'})]
    """
    rows = table_rows(io.StringIO(text, newline=""))
    header_row, header = next(rows, (1, []))
    if twice := [name for name in header if header.count(name) > 1]:
        raise ValueError(f"two columns are named {twice[0]}")
    found = []
    for number, row in rows:
        if len(row) != len(header):
            raise ValueError(
                f"row {number} has another number of cells than row {header_row}: {len(row)}, not {len(header)}"
            )
        found.append((number, dict(zip(header, row, strict=True))))
    return found


def table_rows(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    r"""Read anybody's table, whatever it separates cells by: many a spreadsheet takes other than commas.

    Each row comes with its number as a spreadsheet counts them. Rows without text are counted and left out; a first
    line `sep=;`, which is Excel's own, is no row, as it is none there.

    Raises:
        ValueError: it is no CSV.

    >>> [list(table_rows(io.StringIO(text))) for text in ("x;y,z\n", "\nx,y;z\n", "sep=;\nx,y\n")]
    [[(1, ['x;y', 'z'])], [(2, ['x', 'y;z'])], [(1, ['x,y'])]]
    """
    first = file.readline(2**16)
    declared = _SEPARATOR_LINE.fullmatch(first)
    if declared is None:
        while first and not first.strip(_NO_TEXT):
            first = file.readline(2**16)
        file.seek(0)
    separator = declared[1] if declared else next((each for each in _SEPARATORS if each in first), ",")
    number = 0
    try:
        for number, row in enumerate(read_rows(file, separator), 1):
            if any(cell.strip() for cell in row):
                yield number, row
    except ValueError as error:
        raise ValueError(f"row {number + 1}: {error}") from None


def read_rows(lines: Iterable[str], separator: str = ",") -> Iterator[list[str]]:
    """Read anybody's CSV, a file opened with `newline=""`, row by row, and ours as it went into `to_csv`.

    Raises:
        ValueError: it is no CSV.
    """
    try:
        for row in csv.reader(lines, delimiter=separator, strict=True):
            # most rows have none, and to look at cell by cell takes longer than to read them
            yield [cell.removeprefix(_MARK) for cell in row] if _MARK in "".join(row) else row
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    if isinstance(value, str) and _RUNS.match(text) and not _NUMBER.fullmatch(text):
        text = f"{_MARK}{text}"
    return '"' + text.replace('"', '""') + '"' if _SPLITS.search(text) else text
