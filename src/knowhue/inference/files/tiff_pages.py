"""Which directory of a TIFF file is the image: not its preview, nor the sensor's values of a camera's raw file."""

import io
import struct
from collections.abc import Iterator
from typing import NamedTuple

_NEW_SUBFILE, _SUBFILE, _PHOTOMETRIC, _SUB_IFDS, _DNG_VERSION = 254, 255, 262, 330, 50706
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType (TIFF 6.0, page 36)
_OLD_REDUCED = 2
_SENSOR = frozenset({32803, 34892})
"""Photometric interpretations of a sensor: colour filter array, linear raw (DNG 1.7, chapter 4)."""
_RAW_MARKS = {(8, b"CR"), (8, b"IIII"), (8, b"MMMM")}
"""What Canon and Phase One write behind the first eight bytes of what is a TIFF otherwise."""
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_MOST_DIRECTORIES, _MOST_ENTRIES, _MOST_VALUES = 256, 1024, 64


class Choice(NamedTuple):
    """The directory to read.

    Attributes:
        page: counted from 0.
        sub: which of the page's own further directories, counted from 0; -1 for none.
        is_raw: whether the file is a camera's raw file, whose images are previews.
    """

    page: int = 0
    sub: int = -1
    is_raw: bool = False

    @property
    def options(self) -> dict[str, int]:
        """Of libvips' loader."""
        return {"page": self.page, "subifd": self.sub} if self != Choice() else {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know."""
        if self.sub >= 0:
            return ("the full-size image; what comes before it is a preview",)
        return (f"page {self.page + 1}; what comes before it is a preview",) if self.page else ()


def choose_page(file: io.FileIO | io.BytesIO) -> Choice:
    """Find the image: the first directory that is neither a preview nor a mask, else the very first.

    The file is left at its beginning. Damage is left to the decoder.
    """
    try:
        file.seek(0)
        head = file.read(16)
        pages = list(_pages(file, head))
    except (struct.error, OverflowError, OSError):
        pages, head = [], b""
    finally:
        file.seek(0)
    each_one = [directory for page in pages for directory in page]
    if any(head[place:].startswith(mark) for place, mark in _RAW_MARKS) or any(map(_is_sensors, each_one)):
        return Choice(is_raw=True)
    for number, (main, *subs) in enumerate(pages):
        if _is_whole(main):
            return Choice(number)
        whole = next((k for k, sub in enumerate(subs) if _is_whole(sub)), None)
        if whole is not None:
            return Choice(number, whole)
    return Choice()


Directory = dict[int, tuple[int, ...]]


def _is_sensors(directory: Directory) -> bool:
    return _DNG_VERSION in directory or bool(_SENSOR.intersection(directory.get(_PHOTOMETRIC, ())))


def _is_whole(directory: Directory) -> bool:
    if _NEW_SUBFILE in directory:
        return not directory[_NEW_SUBFILE][0] & (_REDUCED | _MASK)
    return directory.get(_SUBFILE) != (_OLD_REDUCED,)


def _pages(file: io.FileIO | io.BytesIO, head: bytes) -> Iterator[list[Directory]]:
    """Each page's directory and the further ones that it names."""
    order = "<" if head[:2] == b"II" else ">"
    is_big = struct.unpack(f"{order}H", head[2:4])[0] == 43
    at = struct.unpack(f"{order}Q", head[8:16])[0] if is_big else struct.unpack(f"{order}I", head[4:8])[0]
    seen: set[int] = set()
    while at and at not in seen and len(seen) < _MOST_DIRECTORIES:
        main, following = _directory(file, at, order, is_big)
        places = [place for place in main.get(_SUB_IFDS, ()) if place and place not in seen]
        seen.update((at, *places))
        yield [main, *(_directory(file, place, order, is_big)[0] for place in places)]
        at = following


def _directory(file: io.FileIO | io.BytesIO, at: int, order: str, is_big: bool) -> tuple[Directory, int]:
    """What is asked here of a directory, and where the next one is (TIFF 6.0, section 2; BigTIFF)."""
    count_type, entry_type, next_type, room = ("Q", "HHQ8s", "Q", 8) if is_big else ("H", "HHI4s", "I", 4)
    count = _read(file, at, order + count_type)[0]
    if count > _MOST_ENTRIES:
        raise struct.error
    entry = struct.Struct(order + entry_type)
    at += struct.calcsize(order + count_type)
    rows = _bytes(file, at, entry.size * count)
    found: Directory = {}
    for tag, kind, values, inline in entry.iter_unpack(rows):
        if (
            tag in (_NEW_SUBFILE, _SUBFILE, _PHOTOMETRIC, _SUB_IFDS, _DNG_VERSION)
            and kind in _TYPES
            and values
        ):
            form = f"{order}{min(values, _MOST_VALUES)}{_TYPES[kind]}"
            size = struct.calcsize(form)
            place = struct.unpack(order + next_type, inline)[0]
            found[tag] = struct.unpack(form, inline[:size]) if size <= room else _read(file, place, form)
    following = _read(file, at + len(rows), order + next_type)[0]
    return found, following


def _read(file: io.FileIO | io.BytesIO, at: int, form: str) -> tuple[int, ...]:
    return struct.unpack(form, _bytes(file, at, struct.calcsize(form)))


def _bytes(file: io.FileIO | io.BytesIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)
