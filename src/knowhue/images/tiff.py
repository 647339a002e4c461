"""Directories of TIFF files and of EXIF: which page is the image, and EXIF, which libvips leaves out of TIFF files."""

import io
import re
import struct
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from knowhue.errors import ImageError, few
from knowhue.images.containers import Beside, File, without_unit
from knowhue.images.image import Resolution

_NEW_SUBFILE, _SUBFILE, _PHOTOMETRIC, _SUB_IFDS, _EXTRA_SAMPLES, _DNG_VERSION = 254, 255, 262, 330, 338, 50706
_WANTED = (_NEW_SUBFILE, _SUBFILE, _PHOTOMETRIC, _SUB_IFDS, _EXTRA_SAMPLES, _DNG_VERSION)
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType (TIFF 6.0, page 36)
_OLD_REDUCED = 2
_TRANSPARENCY = (1, 2)
"""Extra samples that are: associated with the colours, or not (TIFF 6.0, page 31). An infrared channel is none."""
_SENSOR = frozenset({32803, 34892})
"""Photometric interpretations of a sensor: colour filter array, linear raw (DNG 1.7, chapter 4)."""
_RAW_MARKS = {(8, b"CR"), (8, b"IIII"), (8, b"MMMM")}
"""What Canon and Phase One write behind the first eight bytes of what is a TIFF otherwise."""
_TYPE_BYTES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), 1)) | dict.fromkeys((16, 17, 18), 8)
"""Size of a value by the number of its type."""
_WORD_BYTES = _TYPE_BYTES | {5: 4, 10: 4}
"""What is turned together where bytes stand the other way round; rationals are two words."""
_UNDEFINED, _CFA_PATTERN = 7, 0xA302
_TABLES = (_CFA_PATTERN, 0x8828, 0xA20C)
"""Of a sensor's colours, by one byte each; and of fractions below names of their columns: OECF, spatial frequencies."""
_WIDE_TEXT = b"UNICODE\0"
"""How a comment in UTF-16 begins, in the order of the file, whose type says bytes (CIPA DC-008, 4.6.6)."""
_WHOLE = (1, 3, 4, 13, 16, 18)
"""Types of whole numbers without a sign; 13 and 18 are offsets of directories."""
_OF_BIG_TIFF = 16
"""Types from this on are of BigTIFF alone."""
# a hostile file may link directories in a circle, let them overlap, or name numbers without end
_MOST_DIRECTORIES, _MOST_ENTRIES, _MOST_VALUES = 256, 1 << 16, 64
_DAMAGE = (struct.error, OverflowError, OSError)


RAW = "it is a camera's raw file, of which only a preview could be read; develop it, and save it as TIFF or JPEG"


class Entry(NamedTuple):
    """What a directory says by one of its tags."""

    kind: int
    """type of the values"""
    number: int
    """of values"""
    value: bytes
    """in little-endian order whatever the file's; empty if it is damaged"""

    @property
    def numbers(self) -> list[int]:
        """The values; none if they are no whole numbers without a sign."""
        return (
            np.frombuffer(self.value, f"<u{_TYPE_BYTES[self.kind]}").tolist() if self.kind in _WHOLE else []
        )


Directory = dict[int, Entry]
"""Entries by tag."""
Tree = dict[int, "Entry | Tree"]
"""The same with the further directories that it names."""


def _numbers(directory: Directory, tag: int) -> list[int]:
    return directory[tag].numbers if tag in directory else []


class Directories:
    """The directories of a file or of EXIF (TIFF 6.0, section 2; BigTIFF), as long as they have not too many entries.

    Methods raise what `struct.unpack` does where the file ends early.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._entries = 0
        self._size_bytes = file.seek(0, io.SEEK_END)
        head = _bytes(file, 0, 4)
        self._order = "<" if head[:2] == b"II" else ">"
        self._is_big = struct.unpack(f"{self._order}H", head[2:])[0] == 43
        self.first: int = self._number(8, "Q") if self._is_big else self._number(4, "I")

    def pages(self) -> Iterator[list[Directory]]:
        """Each page's directory and the further ones that it names."""
        at, known = self.first, set[int]()
        while at and at not in known and len(known) < _MOST_DIRECTORIES:
            main, link = self.read(at, _WANTED, _MOST_VALUES)
            places = [place for place in _numbers(main, _SUB_IFDS) if place and place not in known]
            known.update((at, *places))
            yield [main, *map(self._readable, places)]
            at = self._number(link, "Q" if self._is_big else "I")

    def _readable(self, at: int) -> Directory:
        """A directory; a preview's if it cannot be read, which is never chosen."""
        with suppress(*_DAMAGE):
            return self.read(at, _WANTED, _MOST_VALUES)[0]
        return {_NEW_SUBFILE: Entry(1, 1, bytes([_REDUCED]))}

    def read(self, at: int, tags: Container[int], most: int | None = None) -> tuple[Directory, int]:
        """What a directory says by some tags, of each by `most` values, and where the link to the next one stands.

        Raises:
            ImageError: its values overlap so much that a small file would fill the memory; or there are too many
                entries, with those of the directories before it.
        """
        count_type, place_type, place_bytes = ("Q", "Q", 8) if self._is_big else ("H", "I", 4)
        row = struct.Struct(f"{self._order}HH{place_type}{place_bytes}s")
        count = min(self._number(at, count_type), self._size_bytes // row.size)
        at += struct.calcsize(count_type)
        self._entries += count
        if self._entries > _MOST_ENTRIES:
            raise ImageError(f"its directories have {self._entries:,} entries, more than {_MOST_ENTRIES:,}")
        rows = _bytes(self._file, at, row.size * count)
        named_bytes, found = 0, dict[int, tuple[int, int, int]]()
        for tag, kind, number, inline in row.iter_unpack(rows[: len(rows) // row.size * row.size]):
            at += row.size
            size, place = number * _TYPE_BYTES.get(kind, 0), at - place_bytes
            if size > place_bytes:
                place = struct.unpack(self._order + place_type, inline)[0]
                if size <= self._size_bytes - place:
                    named_bytes += size  # what reaches beyond the end is read by nobody
            if tag in tags:
                found[tag] = kind, number if most is None else min(number, most), place
        if named_bytes > self._size_bytes:
            raise ImageError(f"a directory in it names {named_bytes:,} bytes, more than the file has")
        return {tag: self._entry(tag, *each) for tag, each in found.items()}, at

    def _entry(self, tag: int, kind: int, number: int, place: int) -> Entry:
        size = number * _TYPE_BYTES.get(kind, 0)
        value = _bytes(self._file, place, size) if place + size <= self._size_bytes else b""
        parts = _inner_words(tag, value, self._order) if kind == _UNDEFINED else []
        turned, at = b"", 0
        for part, word in parts or [(len(value), _WORD_BYTES.get(kind, 1))]:
            words = np.frombuffer(value[at : at + part], f"{self._order}u{word}")
            turned += words.astype(words.dtype.newbyteorder("<"), copy=False).tobytes()
            at += part
        return Entry(kind, number, turned)

    def tree(self, at: int, tags: Container[int], levels: int = 2) -> Tree:
        """What a directory says by some tags, and those within it by any; not what is damaged."""
        found: Tree = {}
        for tag, entry in self.read(at, tags)[0].items():
            if tag in _INNER:
                with suppress(ImageError, IndexError, *_DAMAGE):
                    if levels:
                        found[tag] = self.tree(entry.numbers[0], range(1 << 16), levels - 1)
            elif entry.value and entry.kind < _OF_BIG_TIFF:
                found[tag] = entry
        return found

    def _number(self, at: int, form: str) -> int:
        return struct.unpack(self._order + form, _bytes(self._file, at, struct.calcsize(form)))[0]


def _bytes(file: File, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


def _inner_words(tag: int, value: bytes, order: str) -> list[tuple[int, int]]:
    """Within what EXIF types as bytes (CIPA DC-008, 4.6.5, 4.6.6): how many are numbers of how many bytes, in order."""
    if value.startswith(_WIDE_TEXT):
        return [(len(_WIDE_TEXT), 1), (len(value) - len(_WIDE_TEXT), 2)] if len(value) % 2 == 0 else []
    if tag not in _TABLES or len(value) < 4:
        return []
    columns, rows = struct.unpack_from(f"{order}2H", value)
    fractions = 8 * columns * rows if tag != _CFA_PATTERN else 0
    between = len(value) - 4 - fractions
    return [(4, 2), (between, 1), (fractions, 4)] if between >= 0 else []


class Choice(NamedTuple):
    """The directory to read."""

    options: Mapping[str, int] = MappingProxyType({})
    """of libvips' loader; none for the directory that every decoder reads"""
    alpha: int | None = 0
    """which of the channels beside its colours is transparency"""
    notes: tuple[str, ...] = ()
    """what a user should know"""


def choose_page(file: File) -> Choice:
    """Find the image: the first directory that is neither a preview nor a mask, else the very first.

    Damage is left to the decoder.

    Raises:
        ImageError: it is a camera's raw file, its directories have too many entries, or one would fill the memory.
    """
    pages, head = [], _bytes(file, 0, 16)
    with suppress(*_DAMAGE):
        pages.extend(Directories(file).pages())
    each_one = [directory for page in pages for directory in page]
    if any(head[place:].startswith(mark) for place, mark in _RAW_MARKS) or any(map(_is_sensors, each_one)):
        raise ImageError(RAW)
    for page, directories in enumerate(pages):
        for sub, directory in enumerate(directories, -1):
            if _is_whole(directory):
                if (page, sub) == (0, -1):
                    return Choice(alpha=_alpha(directory))
                named = f"page {page + 1}" if sub < 0 else "the full-size image"
                note = f"{named}; what comes before it is a preview"
                return Choice({"page": page, "subifd": sub}, _alpha(directory), (note,))
    return Choice(alpha=_alpha(pages[0][0]) if pages else 0)


def _alpha(directory: Directory) -> int | None:
    """Which of the further channels is transparency: the first that is called so; the first where none is named."""
    kinds = _numbers(directory, _EXTRA_SAMPLES)
    return next((k for k, kind in enumerate(kinds) if kind in _TRANSPARENCY), None) if kinds else 0


def _is_sensors(directory: Directory) -> bool:
    return _DNG_VERSION in directory or not _SENSOR.isdisjoint(_numbers(directory, _PHOTOMETRIC))


def _is_whole(directory: Directory) -> bool:
    if kinds := _numbers(directory, _NEW_SUBFILE):
        return not kinds[0] & (_REDUCED | _MASK)
    return _numbers(directory, _SUBFILE) != [_OLD_REDUCED]


# EXIF

_EXIF, _GPS, _INTEROPERABILITY = 0x8769, 0x8825, 0xA005
_INNER = (_EXIF, _GPS, _INTEROPERABILITY)
_DESCRIPTION, _ORIENTATION = 0x010E, 0x0112
_RESOLUTION, _RESOLUTION_UNIT = (0x011A, 0x011B), 0x0128
_INCH, _CENTIMETRE = 2, 3
_GEOGRAPHIC = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
"""GeoTIFF 1.1: scale, points, transformation, keys; GDAL's metadata and the value that means nothing."""
_FIELDS = (
    0x010D, _DESCRIPTION, 0x010F, 0x0110, 0x011D, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298,
    0x0151, 0x4746, 0x4749, 0x800D, 0x9003, 0x9213, *range(0x9C9B, 0x9CA0),
)  # fmt: skip
"""What says in an image's main directory what it shows, and not how it is stored: names of document and page,
description, maker, model, software, time, artist, computer, copyright; target printer, rating, ImageID, time of the
photo, ImageHistory, Windows' title to subject."""
_OF_LAYOUT = re.compile(rb"ImageJ=|\s*(<\?xml[^>]*>\s*(<!--.*?-->\s*)?)?<OME[\s>]|\{\"shape\": ", re.DOTALL)
"""How descriptions begin by which ImageJ, OME and tifffile find their images in the file that was read."""
_SILENT = (
    33723, 34377, 34675, *range(32995, 32999), *range(34016, 34030), *range(34908, 34911), 37439, 50341, 59932, 59933,
)  # fmt: skip
"""Private tags that are read elsewhere (IPTC, Photoshop's blocks, profile), or of which nobody misses anything: how
pixels of SGI, HDR prepress and faxes are stored, data for printers (PrintIM), Windows' padding."""
_NAMES = {37724: "Photoshop's layers (37724)", 52545: "content credentials (C2PA, 52545)"}
_SHORT, _LONG, _RATIONAL = 3, 4, 5
_HEAD = b"Exif\0\0II*\0\x08\0\0\0"


GEOGRAPHY = "geotiff"
"""Name of what a TIFF file says by GeoTIFF, as a block of its own that is laid out as EXIF is."""


def _of_exif(block: bytes) -> Directories:
    return Directories(io.BytesIO(block.removeprefix(b"Exif\0\0")))


def _said(block: bytes, tags: Container[int]) -> Directory:
    """What the main directory of EXIF says by some tags; nothing if it is empty or damaged."""
    # not by a reader of all values: those of a hostile block overlap, and fill the memory
    with suppress(ImageError, *_DAMAGE):
        directories = _of_exif(block)
        return directories.read(directories.first, tags)[0]
    return {}


def exif_orientation(block: bytes) -> int | None:
    """1 to 8 by EXIF (CIPA DC-008, 4.6.5.1.6); None if it says none."""
    found = _numbers(_said(block, (_ORIENTATION,)), _ORIENTATION)
    return found[0] if found and 1 <= found[0] <= 8 else None


def exif_resolution(block: bytes) -> Resolution | None:
    """That of the image as it is stored, by EXIF (CIPA DC-008, 4.6.5.1.9); None if it says none."""
    said = _said(block, (*_RESOLUTION, _RESOLUTION_UNIT))
    values = [said[tag].value for tag in _RESOLUTION if tag in said and said[tag].kind == _RATIONAL]
    ratios = np.frombuffer(b"".join(values), "<u4").reshape(-1, 2).tolist()
    if len(ratios) != 2 or 0 in ratios[0] + ratios[1]:
        return None
    across, down = (top / bottom for top, bottom in ratios)
    unit, *_ = _numbers(said, _RESOLUTION_UNIT) or [_INCH]
    mm = {_INCH: 25.4, _CENTIMETRE: 10}.get(unit)
    return without_unit(across, down) if mm is None else (across / mm, down / mm)


def exif_without_thumbnail(block: bytes) -> bytes:
    """EXIF whose second directory, the thumbnail's (CIPA DC-008, 4.5.4), is cut off; damaged EXIF as it is."""
    with suppress(ImageError, *_DAMAGE):
        directories = _of_exif(block)
        start = len(block) - len(block.removeprefix(b"Exif\0\0"))
        link = start + directories.read(directories.first, ())[1]
        # only the link to it goes: cutting bytes out would shift what the other offsets point at
        if link + 4 <= len(block):
            return block[:link] + bytes(4) + block[link + 4 :]
    return block


def of_tiff(file: File) -> Beside:
    """The EXIF of the first page of a TIFF file, as JPEG has it, and its GeoTIFF; none that cannot be read."""
    with suppress(ImageError, *_DAMAGE):
        directories, notes = Directories(file), list[str]()
        found = directories.tree(directories.first, (*_FIELDS, *_INNER, *_GEOGRAPHIC, _ORIENTATION))
        turned = found.pop(_ORIENTATION, Entry(_SHORT, 1, b"\1\0"))
        geography: Tree = {tag: found.pop(tag) for tag in _GEOGRAPHIC if tag in found}
        # what is turned lies elsewhere than its scale and its points say
        if geography and isinstance(turned, Entry) and turned.numbers != [1]:
            geography = {}
            notes.append("its GeoTIFF, of the image before it was turned, was left out")
        if isinstance(text := found.get(_DESCRIPTION), Entry) and _OF_LAYOUT.match(text.value):
            del found[_DESCRIPTION]
            notes.append("its description, of where images lie in the file that was read, was left out")
        told = {*_FIELDS, *_INNER, *_GEOGRAPHIC, *_SILENT}
        private = directories.read(directories.first, range(1 << 15, 1 << 16), most=0)[0].keys() - told
        if private:
            named = few([_NAMES.get(tag, tag) for tag in sorted(private)])
            notes.append(f"private tags of the TIFF were left out: {named}")
        blocks = {"exif-data": found, GEOGRAPHY: geography}
        metadata = tuple((name, _HEAD + _laid_out(tree, 8)) for name, tree in blocks.items() if tree)
        return Beside(metadata=metadata, notes=tuple(notes))
    return Beside()


def with_exif(data: bytes, fields: Mapping[str, bytes], has_resolution: bool) -> bytes:
    """Put EXIF and GeoTIFF into a TIFF file that libvips wrote: little-endian, one page, below 4 GB.

    A resolution, which TIFF 6.0 asks for, is said to have no unit where there is none.
    The main directory is written anew behind the end of the file (TIFF 6.0, section 2), so that nothing else moves.
    """
    if data[:4] != b"II*\0" or (has_resolution and not fields):
        return data
    start = struct.unpack_from("<I", data, 4)[0] + 2
    count = struct.unpack_from("<H", data, start - 2)[0]
    rows = [data[place : place + 12] for place in range(start, start + 12 * count, 12)]
    entries = {struct.unpack_from("<H", row)[0]: row for row in rows}
    told = _tree_of(fields.get("exif-data", b""), (*_FIELDS, *_INNER))
    told = {tag: each for tag, each in told.items() if tag not in entries}
    if isinstance(inner := told.get(_EXIF), dict):
        for own, main in ((0xA002, 256), (0xA003, 257)):  # width and height, which turning may have exchanged
            if own in inner:
                inner[own] = Entry(_LONG, 1, entries[main][8:])  # a short one has two bytes of 0 behind it
    told |= _tree_of(fields.get(GEOGRAPHY, b""), _GEOGRAPHIC)
    if not has_resolution:
        square = Entry(_RATIONAL, 1, struct.pack("<II", 1, 1))
        told |= dict.fromkeys(_RESOLUTION, square) | {_RESOLUTION_UNIT: Entry(_SHORT, 1, b"\1\0")}
    data += b"\0" * (len(data) % 2)
    added, values = _rows(told, len(data))
    entries |= added
    # entries must rise by tag; a zero offset says that no page follows
    directory = struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return data[:4] + struct.pack("<I", len(data + values)) + data[8:] + values + directory


def _tree_of(block: bytes, tags: Container[int]) -> Tree:
    """What a block says by some tags; nothing if it is empty or damaged."""
    with suppress(ImageError, *_DAMAGE):
        directories = _of_exif(block)
        return directories.tree(directories.first, tags)
    return {}


def _laid_out(tree: Tree, at: int) -> bytes:
    """A directory that begins at an even byte, with its values and those within it behind it."""
    rows, values = _rows(tree, at + 6 + 12 * len(tree))
    return struct.pack("<H", len(rows)) + b"".join(rows.values()) + bytes(4) + values


def _rows(tree: Tree, at: int) -> tuple[dict[int, bytes], bytes]:
    """Entries of 12 bytes by tag, ascending, and what they point at, which is to begin at an even byte."""
    rows, values = dict[int, bytes](), bytearray()
    for tag, each in sorted(tree.items()):
        place = at + len(values)
        more = _laid_out(each, place) if isinstance(each, dict) else each.value
        kind, number = (_LONG, 1) if isinstance(each, dict) else each[:2]
        if isinstance(each, dict) or len(more) > 4:
            values += more + b"\0" * (len(more) % 2)  # all begin at even bytes (TIFF 6.0, section 2)
            more = struct.pack("<I", place)
        rows[tag] = struct.pack("<HHI4s", tag, kind, number, more)
    return rows, bytes(values)
