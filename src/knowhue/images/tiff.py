"""Directories of TIFF files and EXIF: which page is the image, and EXIF, which libvips neither reads nor writes."""

import io
import re
import struct
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from knowhue.errors import ImageError, few
from knowhue.images.containers import EXIF_HEAD, File, FileInfo, resolution_of
from knowhue.images.image import Resolution

_NEW_SUBFILE, _SUBFILE, _PHOTOMETRIC, _SUB_IFDS, _EXTRA_SAMPLES, _DNG_VERSION = 254, 255, 262, 330, 338, 50706
_PAGE_TAGS = (_NEW_SUBFILE, _SUBFILE, _PHOTOMETRIC, _SUB_IFDS, _EXTRA_SAMPLES, _DNG_VERSION)
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType (TIFF 6.0, page 36)
_OLD_REDUCED = 2
_TRANSPARENCY = (1, 2)
"""Extra sample types with transparency: premultiplied or not (TIFF 6.0, page 31). Others are, for example, infrared."""
_SENSOR = frozenset({32803, 34892})
"""Photometric interpretations of sensor values: colour filter array, linear raw (DNG 1.7, chapter 4)."""
_RAW_MARKS = {(8, b"CR"), (8, b"IIII"), (8, b"MMMM")}
"""Position and bytes by which raw files of Canon and Phase One differ from other TIFF files."""
_TYPE_BYTES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), 1)) | dict.fromkeys((16, 17, 18), 8)
"""Bytes of a value, by type number."""
_WORD_BYTES = _TYPE_BYTES | {5: 4, 10: 4}
"""Bytes of a word, the unit of byte order, by type number; rationals are two words."""
_UNDEFINED, _CFA_PATTERN = 7, 0xA302
_TABLE_TAGS = (_CFA_PATTERN, 0x8828, 0xA20C)
"""Tags of tables: sensor colours, a byte each, and column names followed by fractions (OECF, spatial frequencies)."""
_UTF_16_PREFIX = b"UNICODE\0"
"""Prefix of a comment in UTF-16, in the file's byte order, although its type is bytes (CIPA DC-008, 4.6.6)."""
_UNSIGNED = {1: "u1", 3: "<u2", 4: "<u4", 5: "<u4", 13: "<u4", 16: "<u8", 18: "<u8"}
"""NumPy types of unsigned integers and fractions of them, by type number; 13 and 18 are offsets of directories."""
_FIRST_BIG_TIFF_TYPE = 16  # first of the types that only BigTIFF has
# a malicious file can link directories in a circle, let them overlap, or claim any number of values
_MOST_DIRECTORIES, _MOST_ENTRIES, _MOST_VALUES = 256, 1 << 16, 64
_DAMAGE = (struct.error, OverflowError, OSError)
RAW = "it is a camera's raw file, of which only a preview could be read; develop it, and save it as TIFF or JPEG"


class Entry(NamedTuple):
    """The values of a tag in a directory."""

    kind: int
    """type number of the values"""
    number: int
    """number of values"""
    value: bytes
    """the values, little-endian whatever the file's byte order; empty if damaged"""


Directory = dict[int, Entry]  # entries by tag
Tree = dict[int, "Entry | Tree"]  # entries by tag, with trees in place of offsets of further directories


def _numbers(directory: Mapping[int, Any], tag: int) -> list[int]:
    """The values of a tag if they are unsigned integers or fractions (two numbers each); empty otherwise."""
    entry = directory.get(tag)
    if not isinstance(entry, Entry) or entry.kind not in _UNSIGNED:
        return []
    return np.frombuffer(entry.value, _UNSIGNED[entry.kind]).tolist()


class Directories:
    """Reader of the directories of a TIFF file or of EXIF (TIFF 6.0, section 2; BigTIFF).

    Methods raise `struct.error` if the file is truncated, and `ImageError` if directories have too many entries.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._entries = 0
        self._size_bytes = file.seek(0, io.SEEK_END)
        head = _bytes(file, 0, 4)
        self._order = "<" if head[:2] == b"II" else ">"
        is_big = struct.unpack(f"{self._order}H", head[2:])[0] == 43
        self._count, self._place, self._place_bytes = ("Q", "Q", 8) if is_big else ("H", "I", 4)
        self.first = self._number(self._place_bytes, self._place)

    def pages(self) -> Iterator[list[Directory]]:
        """For each page, its directory and the subdirectories (SubIFDs) of that."""
        at, known = self.first, set[int]()
        while at and at not in known and len(known) < _MOST_DIRECTORIES:
            main, link = self.read(at, _PAGE_TAGS, _MOST_VALUES)
            places = [place for place in _numbers(main, _SUB_IFDS) if place and place not in known]
            known.update((at, *places))
            yield [main, *map(self._read_or_preview, places)]
            at = self._number(link, self._place)

    def _read_or_preview(self, at: int) -> Directory:
        """A directory; an unreadable one is marked as a preview, so that it is never chosen."""
        with suppress(*_DAMAGE):
            return self.read(at, _PAGE_TAGS, _MOST_VALUES)[0]
        return {_NEW_SUBFILE: Entry(1, 1, bytes([_REDUCED]))}

    def read(self, at: int, tags: Container[int], most: int | None = None) -> tuple[Directory, int]:
        """Entries of some tags of a directory, at most `most` values each, and the position of the link to the next.

        Raises:
            ImageError: its values together are longer than the file, which could fill the memory; or the directories
                read so far have too many entries.
        """
        row = struct.Struct(f"{self._order}HH{self._place}{self._place_bytes}s")
        count = min(self._number(at, self._count), self._size_bytes // row.size)
        at += struct.calcsize(self._count)
        self._entries += count
        if self._entries > _MOST_ENTRIES:
            raise ImageError(f"its directories have {self._entries:,} entries, more than {_MOST_ENTRIES:,}")
        rows = _bytes(self._file, at, row.size * count)
        named_bytes, found = 0, dict[int, tuple[int, int, int]]()
        for tag, kind, number, inline in row.iter_unpack(rows[: len(rows) // row.size * row.size]):
            at += row.size
            size, place = number * _TYPE_BYTES.get(kind, 0), at - self._place_bytes
            if size > self._place_bytes:
                (place,) = struct.unpack(self._order + self._place, inline)
                if size <= self._size_bytes - place:
                    named_bytes += size  # values that extend beyond the file are never read
            if tag in tags:
                found[tag] = kind, number if most is None else min(number, most), place
        if named_bytes > self._size_bytes:
            raise ImageError(f"a directory in it names {named_bytes:,} bytes, more than the file has")
        return {tag: self._entry(tag, *each) for tag, each in found.items()}, at

    def _entry(self, tag: int, kind: int, number: int, place: int) -> Entry:
        size = number * _TYPE_BYTES.get(kind, 0)
        value = _bytes(self._file, place, size) if place + size <= self._size_bytes else b""
        parts = _undefined_parts(tag, value, self._order) if kind == _UNDEFINED else []
        swapped, at = b"", 0
        for size, word in parts or [(len(value), _WORD_BYTES.get(kind, 1))]:
            words = np.frombuffer(value[at : at + size], f"{self._order}u{word}")
            swapped += words.astype(words.dtype.newbyteorder("<"), copy=False).tobytes()
            at += size
        return Entry(kind, number, swapped)

    def tree(self, at: int, tags: Container[int], levels: int = 2) -> Tree:
        """Entries of some tags of a directory, and all of the directories within it; damaged ones are left out."""
        found: Tree = {}
        directory, _ = self.read(at, tags)
        for tag, entry in directory.items():
            if tag in _INNER:
                with suppress(ImageError, IndexError, *_DAMAGE):
                    if levels:
                        found[tag] = self.tree(_numbers(directory, tag)[0], range(1 << 16), levels - 1)
            elif entry.value and entry.kind < _FIRST_BIG_TIFF_TYPE:
                found[tag] = entry
        return found

    def _number(self, at: int, form: str) -> int:
        return struct.unpack(self._order + form, _bytes(self._file, at, struct.calcsize(form)))[0]


def _bytes(file: File, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


def _undefined_parts(tag: int, value: bytes, order: str) -> list[tuple[int, int]]:
    """Sizes of parts with words of several bytes in an EXIF value of type `undefined` (CIPA DC-008, 4.6.5, 4.6.6)."""
    if value.startswith(_UTF_16_PREFIX) and len(value) % 2 == 0:
        return [(len(_UTF_16_PREFIX), 1), (len(value) - len(_UTF_16_PREFIX), 2)]
    if tag not in _TABLE_TAGS or len(value) < 4:
        return []
    columns, rows = struct.unpack_from(f"{order}2H", value)
    fractions = 8 * columns * rows if tag != _CFA_PATTERN else 0
    between = len(value) - 4 - fractions
    return [(4, 2), (between, 1), (fractions, 4)] if between >= 0 else []


class PageChoice(NamedTuple):
    """The directory to read."""

    options: Mapping[str, int] = MappingProxyType({})
    """options of libvips' loader; empty for the first directory, which all decoders read"""
    alpha: int | None = 0
    """index of the transparency among the channels after the colours; None if there is none"""
    notes: tuple[str, ...] = ()
    """sentences for the user"""


def choose_page(file: File) -> PageChoice:
    """Choose the first directory that is neither a preview nor a mask, or else the first.

    Damage is left to the decoder to report. A camera's raw file, and too long directories, are an `ImageError`.
    """
    pages, head = [], _bytes(file, 0, 16)
    with suppress(*_DAMAGE):
        pages.extend(Directories(file).pages())
    each_one = [directory for page in pages for directory in page]
    is_raw = any(head[place:].startswith(mark) for place, mark in _RAW_MARKS)
    of_sensor = (
        _DNG_VERSION in each or not _SENSOR.isdisjoint(_numbers(each, _PHOTOMETRIC)) for each in each_one
    )
    if is_raw or any(of_sensor):
        raise ImageError(RAW)
    for page, directories in enumerate(pages):
        for sub, directory in enumerate(directories, -1):
            if _is_full_image(directory):
                if (page, sub) == (0, -1):
                    return PageChoice(alpha=_alpha(directory))
                named = f"page {page + 1}" if sub < 0 else "the full-size image"
                note = f"{named}; what comes before it is a preview"
                return PageChoice({"page": page, "subifd": sub}, _alpha(directory), (note,))
    return PageChoice(alpha=_alpha(pages[0][0]) if pages else 0)


def _alpha(directory: Directory) -> int | None:
    """Index of transparency among the extra channels: the first of that type, or 0 if no types are given."""
    kinds = _numbers(directory, _EXTRA_SAMPLES)
    return next((k for k, kind in enumerate(kinds) if kind in _TRANSPARENCY), None) if kinds else 0


def _is_full_image(directory: Directory) -> bool:
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
"""GeoTIFF 1.1: scale, tie points, transformation, keys; GDAL's metadata and no-data value."""
_DESCRIPTIVE = (
    0x010D, _DESCRIPTION, 0x010F, 0x0110, 0x011D, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298,
    0x0151, 0x4746, 0x4749, 0x800D, 0x9003, 0x9213, *range(0x9C9B, 0x9CA0),
)  # fmt: skip
"""Tags of the main directory that describe the image, not its storage: document name, description, make, model, page
name, software, time, artist, host computer, copyright; target printer, rating, ImageID, time of the photo,
ImageHistory, and Windows' title to subject."""
_LAYOUT = re.compile(rb"ImageJ=|\s*(<\?xml[^>]*>\s*(<!--.*?-->\s*)?)?<OME[\s>]|\{\"shape\": ", re.DOTALL)
"""Beginnings of descriptions by which ImageJ, OME and tifffile locate images in the file that was read."""
_IGNORED = (
    33723, 34377, 34675, *range(32995, 32999), *range(34016, 34030), *range(34908, 34911), 37439, 50341, 59932, 59933,
)  # fmt: skip
"""Private tags that are left out without a note: those read elsewhere (IPTC, Photoshop's blocks, profile), pixel
storage of SGI, HDR prepress and fax files, printer data (PrintIM), Windows' padding."""
_NAMES = {37724: "Photoshop's layers (37724)", 52545: "content credentials (C2PA, 52545)"}
_SHORT, _LONG, _RATIONAL = 3, 4, 5
_HEAD = EXIF_HEAD + b"II*\0\x08\0\0\0"
GEOGRAPHY = "geotiff"  # name of the metadata block with GeoTIFF tags; its layout is that of EXIF


def _read_tree(block: bytes, tags: Container[int]) -> Tree:
    """Entries of some tags of a metadata block; none if it is empty or damaged."""
    # other tags are not read: the values of a malicious block can overlap and fill the memory
    with suppress(ImageError, *_DAMAGE):
        directories = Directories(io.BytesIO(block.removeprefix(EXIF_HEAD)))
        return directories.tree(directories.first, tags)
    return {}


def exif_orientation(block: bytes) -> int | None:
    """Orientation 1 to 8 (CIPA DC-008, 4.6.5.1.6); None if EXIF gives none."""
    found = _numbers(_read_tree(block, (_ORIENTATION,)), _ORIENTATION)
    return found[0] if found and 1 <= found[0] <= 8 else None


def exif_resolution(block: bytes) -> Resolution | None:
    """Resolution of the image before it is turned upright (CIPA DC-008, 4.6.5.1.9); None if EXIF gives none."""
    entries = _read_tree(block, (*_RESOLUTION, _RESOLUTION_UNIT))
    terms = [number for tag in _RESOLUTION for number in _numbers(entries, tag)]
    if len(terms) != 4 or 0 in terms:
        return None
    across, down = terms[0] / terms[1], terms[2] / terms[3]
    unit, *_ = _numbers(entries, _RESOLUTION_UNIT) or [_INCH]
    return resolution_of(across, down, {_INCH: 25.4, _CENTIMETRE: 10}.get(unit))


def exif_without_thumbnail(block: bytes) -> bytes:
    """EXIF without its second directory, the thumbnail's (CIPA DC-008, 4.5.4); damaged EXIF is returned unchanged."""
    with suppress(ImageError, *_DAMAGE):
        tiff = block.removeprefix(EXIF_HEAD)
        directories = Directories(io.BytesIO(tiff))
        link = len(block) - len(tiff) + directories.read(directories.first, ())[1]
        # only the link is removed, because removing bytes would invalidate the other offsets
        if link + 4 <= len(block):
            return block[:link] + bytes(4) + block[link + 4 :]
    return block


def tiff_info(file: File) -> FileInfo:
    """EXIF, as a block like that of a JPEG, and GeoTIFF of a TIFF file's first page; nothing if unreadable."""
    with suppress(ImageError, *_DAMAGE):
        directories, info = Directories(file), FileInfo()
        found = directories.tree(directories.first, (*_DESCRIPTIVE, *_INNER, *_GEOGRAPHIC, _ORIENTATION))
        is_turned = _numbers(found, _ORIENTATION) not in ([], [1])
        found.pop(_ORIENTATION, None)
        geography: Tree = {tag: found.pop(tag) for tag in _GEOGRAPHIC if tag in found}
        # its scale and tie points do not apply to an image that is turned upright
        if geography and is_turned:
            geography = {}
            info.notes.append("its GeoTIFF was left out because the image was turned upright")
        if isinstance(text := found.get(_DESCRIPTION), Entry) and _LAYOUT.match(text.value):
            del found[_DESCRIPTION]
            info.notes.append(
                "its description was left out because it applies to the layout of the original file"
            )
        handled = {*_DESCRIPTIVE, *_INNER, *_GEOGRAPHIC, *_IGNORED}
        private = directories.read(directories.first, range(1 << 15, 1 << 16), most=0)[0].keys() - handled
        if private:
            named = few([_NAMES.get(tag, tag) for tag in sorted(private)])
            info.notes.append(f"private tags of the TIFF were left out: {named}")
        blocks = {"exif-data": found, GEOGRAPHY: geography}
        info.metadata = {name: _HEAD + _encode_directory(tree, 8) for name, tree in blocks.items() if tree}
        return info
    return FileInfo()


def add_exif(data: bytes, fields: Mapping[str, bytes], has_resolution: bool) -> bytes:
    """Add EXIF and GeoTIFF to a TIFF file that libvips wrote: little-endian, one page, below 4 GB.

    TIFF 6.0 requires a resolution; if it is unknown, 1 without a unit is written. The main directory is written again
    at the end of the file, where it may be (TIFF 6.0, section 2), so that nothing else moves.
    """
    if data[:4] != b"II*\0" or (has_resolution and not fields):
        return data
    start = struct.unpack_from("<I", data, 4)[0] + 2
    count = struct.unpack_from("<H", data, start - 2)[0]
    rows = [data[place : place + 12] for place in range(start, start + 12 * count, 12)]
    entries = {struct.unpack_from("<H", row)[0]: row for row in rows}
    tree = _read_tree(fields.get("exif-data", b""), (*_DESCRIPTIVE, *_INNER))
    tree = {tag: each for tag, each in tree.items() if tag not in entries}
    if isinstance(inner := tree.get(_EXIF), dict):
        for exif, main in ((0xA002, 256), (0xA003, 257)):  # width and height, which can have been swapped
            if exif in inner:
                inner[exif] = Entry(_LONG, 1, entries[main][8:])  # a SHORT is followed by two zero bytes
    tree |= _read_tree(fields.get(GEOGRAPHY, b""), _GEOGRAPHIC)
    if not has_resolution:
        square = Entry(_RATIONAL, 1, struct.pack("<II", 1, 1))
        tree |= dict.fromkeys(_RESOLUTION, square) | {_RESOLUTION_UNIT: Entry(_SHORT, 1, b"\1\0")}
    data += b"\0" * (len(data) % 2)
    added, values = _encode_entries(tree, len(data))
    entries |= added
    # entries must be sorted by tag; a zero offset means that no page follows
    directory = struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return data[:4] + struct.pack("<I", len(data + values)) + data[8:] + values + directory


def _encode_directory(tree: Tree, at: int) -> bytes:
    """The bytes of a directory at an even position, followed by its values and inner directories."""
    rows, values = _encode_entries(tree, at + 6 + 12 * len(tree))
    return struct.pack("<H", len(rows)) + b"".join(rows.values()) + bytes(4) + values


def _encode_entries(tree: Tree, at: int) -> tuple[dict[int, bytes], bytes]:
    """Entries of 12 bytes by tag, ascending, and the values that they point to, which begin at the even byte `at`."""
    rows, values = dict[int, bytes](), bytearray()
    for tag, each in sorted(tree.items()):
        place = at + len(values)
        more = _encode_directory(each, place) if isinstance(each, dict) else each.value
        kind, number = (_LONG, 1) if isinstance(each, dict) else each[:2]
        if isinstance(each, dict) or len(more) > 4:
            values += more + b"\0" * (len(more) % 2)  # values begin at even positions (TIFF 6.0, section 2)
            more = struct.pack("<I", place)
        rows[tag] = struct.pack("<HHI4s", tag, kind, number, more)
    return rows, bytes(values)
