"""Reads and writes CSV; written text never runs as a spreadsheet formula. All CSV of the project goes through here."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_RUNS = re.compile(r"\s*['=+\-@|%＝＋－＠]|[\t\r\n\0]")
"""The start of text that a spreadsheet would run as a formula (OWASP, CSV injection), or that has the mark already."""
_MARK = "'"
_SPLITS = re.compile(r"""[",;\s]""")
"""Characters at which some spreadsheets split a cell; the standard library's writer does not quote a lone return."""
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_QUOTED_NOTHING = '""'
_SEPARATORS = ",;\t"
_NO_TEXT = f"{_SEPARATORS} \r\n"


def to_csv(rows: Iterable[Sequence[Any]]) -> str:
    r"""Return rows as CSV, the header first.

    Text that a spreadsheet would run as a formula gets a leading apostrophe; numbers stay as they are.

    >>> to_csv([["class", "error"], ["=cmd|calc", -0.5]])
    "class,error\n'=cmd|calc,-0.5\n"
    """
    return "".join(csv_lines(rows))


def csv_lines(rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    return (f"{','.join(map(_cell, row)) or _QUOTED_NOTHING}\n" for row in rows)


def from_csv(text: str) -> list[tuple[int, dict[str, str]]]:
    r"""Read a table, or raise a `ValueError`: each row by the header's names, with its row number as in a spreadsheet.

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
            raise ValueError(f"row {number} has {len(row)} cells, but row {header_row} has {len(header)}")
        found.append((number, dict(zip(header, row, strict=True))))
    return found


def table_rows(file: TextIO) -> Iterator[tuple[int, Sequence[str]]]:
    r"""Read a table from any source, separated by commas, semicolons, tabs, or as declared in a first line `sep=;`.

    Each row comes with its number as in a spreadsheet. Empty rows are counted but left out. The line `sep=;` is not
    counted as a row, because Excel, which writes it, does not count it. Text that is not CSV raises a `ValueError`.

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


def read_rows(lines: Iterable[str], separator: str = ",") -> Iterator[Sequence[str]]:
    """Read CSV, or raise a `ValueError`, row by row, for a file opened with `newline=""`; inverts `to_csv`."""
    return (_without_marks(row) for row in _marked_rows(lines, separator))


def csv_columns(lines: Iterable[str]) -> dict[str, Sequence[str]]:
    r"""Read CSV of `to_csv` by column, which is faster than by row.

    Raises:
        ValueError: the text is not CSV, or a row has another number of cells than the header.

    >>> csv_columns(["class,error\n", "'=cmd|calc,-0.5\n"])
    {'class': ['=cmd|calc'], 'error': ('-0.5',)}
    """
    rows = _marked_rows(lines)
    header = _without_marks(next(rows, []))
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    return dict(zip(header, map(_without_marks, columns), strict=True))


def _marked_rows(lines: Iterable[str], separator: str = ",") -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines, delimiter=separator, strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _without_marks(cells: Sequence[str]) -> Sequence[str]:
    # most cells have no mark, and checking each one would take longer than reading them
    return [cell.removeprefix(_MARK) for cell in cells] if _MARK in "".join(cells) else cells


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    if isinstance(value, str) and _RUNS.match(text) and not _NUMBER.fullmatch(text):
        text = f"{_MARK}{text}"
    return '"' + text.replace('"', '""') + '"' if _SPLITS.search(text) else text
