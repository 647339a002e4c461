"""What libvips does not do for TIFF files: choose the page that is the image, and read and write EXIF."""

import io
import struct
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image as Pillow
from PIL import TiffImagePlugin

from knowhue.images.image import Metadata

File = io.FileIO | io.BytesIO
Directory = dict[int, tuple[int, ...]]

_NEW_SUBFILE, _SUBFILE, _PHOTOMETRIC, _SUB_IFDS, _DNG_VERSION = 254, 255, 262, 330, 50706
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType (TIFF 6.0, page 36)
_OLD_REDUCED = 2
_SENSOR = frozenset({32803, 34892})
"""Photometric interpretations of a sensor: colour filter array, linear raw (DNG 1.7, chapter 4)."""
_RAW_MARKS = {(8, b"CR"), (8, b"IIII"), (8, b"MMMM")}
"""What Canon and Phase One write behind the first eight bytes of what is a TIFF otherwise."""
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Unsigned types of TIFF and BigTIFF by number; 13 and 18 are offsets of directories."""
# a hostile file may link directories in a circle, or name numbers without end
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
        return {"page": self.page, "subifd": self.sub} if self != FIRST_PAGE else {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know."""
        if self.sub >= 0:
            return ("the full-size image; what comes before it is a preview",)
        return (f"page {self.page + 1}; what comes before it is a preview",) if self.page else ()


FIRST_PAGE = Choice()


def choose_page(file: File) -> Choice:
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
    return FIRST_PAGE


def _is_sensors(directory: Directory) -> bool:
    return _DNG_VERSION in directory or bool(_SENSOR.intersection(directory.get(_PHOTOMETRIC, ())))


def _is_whole(directory: Directory) -> bool:
    if _NEW_SUBFILE in directory:
        return not directory[_NEW_SUBFILE][0] & (_REDUCED | _MASK)
    return directory.get(_SUBFILE) != (_OLD_REDUCED,)


def _pages(file: File, head: bytes) -> Iterator[list[Directory]]:
    """Each page's directory and the further ones that it names."""
    order = "<" if head[:2] == b"II" else ">"
    is_big = struct.unpack(f"{order}H", head[2:4])[0] == 43
    at = struct.unpack(f"{order}Q", head[8:16])[0] if is_big else struct.unpack(f"{order}I", head[4:8])[0]
    known: set[int] = set()
    while at and at not in known and len(known) < _MOST_DIRECTORIES:
        main, following = _read_directory(file, at, order, is_big)
        places = [place for place in main.get(_SUB_IFDS, ()) if place and place not in known]
        known.update((at, *places))
        yield [main, *(_read_directory(file, place, order, is_big)[0] for place in places)]
        at = following


def _read_directory(file: File, at: int, order: str, is_big: bool) -> tuple[Directory, int]:
    """The entries of a directory that matter here, and where the next one is (TIFF 6.0, section 2; BigTIFF)."""
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


def _read(file: File, at: int, form: str) -> tuple[int, ...]:
    return struct.unpack(form, _bytes(file, at, struct.calcsize(form)))


def _bytes(file: File, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


# EXIF, which libvips neither reads from TIFF files nor writes to them

_INNER = (0x8769, 0x8825)  # EXIF's own directory, and that of the place
_TEXTS = (0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
"""Maker, model, software, time, artist, copyright: what EXIF keeps in an image's main directory."""
_ASCII, _SHORT, _LONG = 2, 3, 4


def exif_of_tiff(file: File) -> bytes | None:
    """The EXIF of the first page of a TIFF file, as JPEG has it; None if there is none that can be read."""
    file.seek(0)
    try:
        # not Pillow's `open`, which has a limit of its own
        with TiffImagePlugin.TiffImageFile(file) as image:
            whole = image.getexif()
            found = Pillow.Exif()
            found.update({tag: str(whole[tag]).encode("latin-1") for tag in _TEXTS if tag in whole})
            for tag in _INNER:
                found.get_ifd(tag).update(whole.get_ifd(tag))
            return found.tobytes() if dict(found) or any(map(found.get_ifd, _INNER)) else None
    except Exception:  # damaged metadata are no reason to refuse the pixels, which another library reads
        return None


def with_exif(data: bytes, metadata: Metadata) -> bytes:
    """Put EXIF into a TIFF file that libvips wrote: little-endian, one page, below 4 GB.

    The main directory is written anew behind the end of the file (TIFF 6.0, section 2), so that nothing else moves.
    """
    block = dict(metadata).get("exif-data")
    if not isinstance(block, bytes) or data[:4] != b"II*\0":
        return data
    exif = Pillow.Exif()
    try:
        exif.load(block)
        directories = {tag: dict(exif.get_ifd(tag)) for tag in _INNER}
    except Exception:  # as above
        return data
    entries = _entries(data)
    for own, main in ((0xA002, 256), (0xA003, 257)):  # width and height, which turning may have exchanged
        if own in directories[_INNER[0]]:
            form = "<H" if entries[main][2] == _SHORT else "<I"
            directories[_INNER[0]][own] = struct.unpack_from(form, entries[main], 8)[0]
    for tag, values in directories.items():
        if values:
            # all that an offset points at begins at an even byte (TIFF 6.0, section 2)
            data += b"\0" * (len(data) % 2)
            entries[tag] = struct.pack("<HHII", tag, _LONG, 1, len(data))
            data += _directory_bytes(values, len(data))
    for tag in set(_TEXTS) & set(exif) - set(entries):
        text = str(exif[tag]).encode("latin-1") + b"\0"  # as Pillow decoded it: byte by byte
        data += b"\0" * (len(data) % 2)
        # up to four bytes lie in the entry itself, in place of their offset
        value = text.ljust(4, b"\0") if len(text) <= 4 else struct.pack("<I", len(data))
        entries[tag] = struct.pack("<HHI", tag, _ASCII, len(text)) + value
        data += text if len(text) > 4 else b""
    data += b"\0" * (len(data) % 2)
    # entries must rise by tag; a zero offset says that no page follows
    directory = struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


def _entries(data: bytes) -> dict[int, bytes]:
    """The main directory: 12 bytes an entry, by tag."""
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    rows = (data[place : place + 12] for place in range(start + 2, start + 2 + 12 * count, 12))
    return {struct.unpack_from("<H", row)[0]: row for row in rows}


def _directory_bytes(values: dict[int, object], offset: int) -> bytes:
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in values.items():
        directory[tag] = value
        try:
            directory.tobytes(offset)
        except Exception:  # damaged: a value that is none of its type's
            del directory[tag]
    return directory.tobytes(offset)
