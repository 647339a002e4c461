"""What libvips does not do for TIFF files: choose the page that is the image, and read and write EXIF."""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from PIL import Image as Pillow
from PIL import TiffImagePlugin

from knowhue.errors import ImageError
from knowhue.images.image import Metadata

File = io.FileIO | io.BytesIO
Directory = dict[int, tuple[int, ...]]

_NEW_SUBFILE, _SUBFILE, _PHOTOMETRIC, _SUB_IFDS, _EXTRA_SAMPLES, _DNG_VERSION = 254, 255, 262, 330, 338, 50706
_EXIF, _GPS = 0x8769, 0x8825
_WANTED = frozenset({
    _NEW_SUBFILE, _SUBFILE, _PHOTOMETRIC, _SUB_IFDS, _EXTRA_SAMPLES, _DNG_VERSION, _EXIF, _GPS,
})  # fmt: skip
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType (TIFF 6.0, page 36)
_OLD_REDUCED = 2
_TRANSPARENCY = (1, 2)
"""Extra samples that are: associated with the colours, or not (TIFF 6.0, page 31). An infrared channel is none."""
_SENSOR = frozenset({32803, 34892})
"""Photometric interpretations of a sensor: colour filter array, linear raw (DNG 1.7, chapter 4)."""
_RAW_MARKS = {(8, b"CR"), (8, b"IIII"), (8, b"MMMM")}
"""What Canon and Phase One write behind the first eight bytes of what is a TIFF otherwise."""
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Unsigned types of TIFF and BigTIFF by number; 13 and 18 are offsets of directories."""
_TYPE_BYTES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), 1)) | dict.fromkeys((16, 17, 18), 8)
# a hostile file may link directories in a circle, let them overlap, or name numbers without end
_MOST_DIRECTORIES, _MOST_ENTRIES, _MOST_VALUES = 256, 1 << 16, 64
_UNREADABLE = (struct.error, OverflowError, OSError)


RAW = "it is a camera's raw file, of which only a preview could be read; develop it, and save it as TIFF or JPEG"


class Choice(NamedTuple):
    """The directory to read, and what it says of the channels beside its colours."""

    page: int = 0
    """counted from 0"""
    sub: int = -1
    """which of the page's own further directories, -1 for none"""
    extra_samples: tuple[int, ...] = ()
    """of each further channel: 1 or 2 if it is transparency, 0 if it is something else; empty where nothing is said"""

    @property
    def is_first(self) -> bool:
        """Whether it is the directory that every decoder reads."""
        return (self.page, self.sub) == (0, -1)

    @property
    def options(self) -> dict[str, int]:
        """Of libvips' loader."""
        return {} if self.is_first else {"page": self.page, "subifd": self.sub}

    @property
    def alpha(self) -> int | None:
        """Which of the further channels is transparency: the first that is called so; the first where none is named."""
        named = (place for place, kind in enumerate(self.extra_samples) if kind in _TRANSPARENCY)
        return next(named, None) if self.extra_samples else 0

    @property
    def notes(self) -> list[str]:
        """What a user should know."""
        if self.sub >= 0:
            return ["the full-size image; what comes before it is a preview"]
        return [f"page {self.page + 1}; what comes before it is a preview"] if self.page else []


def choose_page(file: File) -> Choice:
    """Find the image: the first directory that is neither a preview nor a mask, else the very first.

    Damage is left to the decoder.

    Raises:
        ImageError: it is a camera's raw file, its directories have too many entries, or one would fill the memory.
    """
    pages, head = [], _bytes(file, 0, 16)
    with suppress(*_UNREADABLE):
        pages.extend(_Directories(file).pages())
    each_one = [directory for page in pages for directory in page]
    if any(head[place:].startswith(mark) for place, mark in _RAW_MARKS) or any(map(_is_sensors, each_one)):
        raise ImageError(RAW)
    for number, (main, *subs) in enumerate(pages):
        if _is_whole(main):
            return Choice(number, extra_samples=main.get(_EXTRA_SAMPLES, ()))
        whole = next((k for k, sub in enumerate(subs) if _is_whole(sub)), None)
        if whole is not None:
            return Choice(number, whole, subs[whole].get(_EXTRA_SAMPLES, ()))
    return Choice(extra_samples=pages[0][0].get(_EXTRA_SAMPLES, ()) if pages else ())


def _is_sensors(directory: Directory) -> bool:
    return _DNG_VERSION in directory or bool(_SENSOR.intersection(directory.get(_PHOTOMETRIC, ())))


def _is_whole(directory: Directory) -> bool:
    if _NEW_SUBFILE in directory:
        return not directory[_NEW_SUBFILE][0] & (_REDUCED | _MASK)
    return directory.get(_SUBFILE) != (_OLD_REDUCED,)


class _Directories:
    """The directories of a file (TIFF 6.0, section 2; BigTIFF), as long as they have not too many entries together."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._entries = 0
        self._size_bytes = file.seek(0, io.SEEK_END)
        head = _bytes(file, 0, 4)
        self._order = "<" if head[:2] == b"II" else ">"
        self._is_big = struct.unpack(f"{self._order}H", head[2:])[0] == 43
        self.first: int = self._read(8, "Q")[0] if self._is_big else self._read(4, "I")[0]

    def pages(self) -> Iterator[list[Directory]]:
        """Each page's directory and the further ones that it names."""
        at, known = self.first, set[int]()
        while at and at not in known and len(known) < _MOST_DIRECTORIES:
            main, following = self._directory(at)
            places = [place for place in main.get(_SUB_IFDS, ()) if place and place not in known]
            known.update((at, *places))
            yield [main, *map(self.readable, places)]
            at = following

    def readable(self, at: int) -> Directory:
        """A directory; a preview's if it cannot be read, which is never chosen."""
        with suppress(*_UNREADABLE):
            return self._directory(at)[0]
        return {_NEW_SUBFILE: (_REDUCED,)}

    def _directory(self, at: int) -> tuple[Directory, int]:
        """The entries that matter here, and where the next directory is.

        Raises:
            ImageError: its values overlap so much that a small file would fill the memory; or there are too many
                entries, with those of the directories before it.
        """
        count_type, entry_type, place_type = ("Q", "HHQ8s", "Q") if self._is_big else ("H", "HHI4s", "I")
        entry = struct.Struct(self._order + entry_type)
        count = min(self._read(at, count_type)[0], self._size_bytes // entry.size)
        at += struct.calcsize(count_type)
        self._entries += count
        if self._entries > _MOST_ENTRIES:
            raise ImageError(f"its directories have {self._entries:,} entries, more than {_MOST_ENTRIES:,}")
        rows = _bytes(self._file, at, entry.size * count)
        named_bytes, wanted = 0, dict[int, tuple[str, bytes | int]]()
        for tag, kind, values, inline in entry.iter_unpack(rows[: len(rows) // entry.size * entry.size]):
            size = values * _TYPE_BYTES.get(kind, 0)
            place = struct.unpack(self._order + place_type, inline)[0]
            if len(inline) < size <= self._size_bytes - place:
                named_bytes += size  # what reaches beyond the end is read by nobody
            if tag in _WANTED and kind in _TYPES and values:
                form = f"{min(values, _MOST_VALUES)}{_TYPES[kind]}"
                wanted[tag] = form, inline[:size] if size <= len(inline) else place
        if named_bytes > self._size_bytes:
            raise ImageError(f"a directory in it names {named_bytes:,} bytes, more than the file has")
        found = {
            tag: struct.unpack(self._order + form, at) if isinstance(at, bytes) else self._read(at, form)
            for tag, (form, at) in wanted.items()
        }
        return found, self._read(at + len(rows), place_type)[0]

    def _read(self, at: int, form: str) -> tuple[int, ...]:
        form = self._order + form
        return struct.unpack(form, _bytes(self._file, at, struct.calcsize(form)))


def _bytes(file: File, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


# EXIF, which libvips neither reads from TIFF files nor writes to them

_INNER = (_EXIF, _GPS)
_DESCRIPTION, _ORIENTATION = 0x010E, 0x0112
_GEOGRAPHIC_TEXTS = (34737, 42112, 42113)
_GEOGRAPHIC = (33550, 33922, 34264, 34735, 34736, *_GEOGRAPHIC_TEXTS)
"""GeoTIFF 1.1: scale, points, transformation, keys; GDAL's metadata and the value that means nothing."""
_TEXTS = (
    0x010D, _DESCRIPTION, 0x010F, 0x0110, 0x011D, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298,
)  # fmt: skip
_FIELDS = (*_TEXTS, 0x4746, 0x4749, *range(0x9C9B, 0x9CA0))
"""What says in an image's main directory what it shows, and not how it is stored: names of document and page,
description, maker, model, software, time, artist, computer, copyright; rating, Windows' title to subject."""
_OF_LAYOUT = re.compile(r"ImageJ=|\s*(<\?xml[^>]*>\s*(<!--.*?-->\s*)?)?<OME[\s>]|\{\"shape\": ", re.DOTALL)
"""How descriptions begin by which ImageJ, OME and tifffile find their images in the file that was read."""
_ASCII, _SHORT, _LONG = 2, 3, 4


GEOGRAPHY = "geotiff"
"""Name of what a TIFF file says by GeoTIFF, as a block of its own that is laid out as EXIF is."""


def metadata_of_tiff(file: File) -> list[tuple[str, bytes | str]]:
    """The EXIF of the first page of a TIFF file, as JPEG has it, and its GeoTIFF; none that cannot be read."""
    try:
        _check_exif(file)
        file.seek(0)
        # not Pillow's `open`, which has a limit of its own
        with TiffImagePlugin.TiffImageFile(file) as image:
            whole = image.getexif()
            found, geography = Pillow.Exif(), Pillow.Exif()
            found.update({tag: _as_stored(whole[tag]) for tag in _FIELDS if tag in whole})
            if describes_layout(str(whole.get(_DESCRIPTION, ""))):
                del found[_DESCRIPTION]
            for tag in _INNER:
                found.get_ifd(tag).update(whole.get_ifd(tag))
            # what is turned lies elsewhere than its scale and its points say
            if whole.get(_ORIENTATION, 1) == 1:
                geography.update({tag: _as_stored(whole[tag]) for tag in _GEOGRAPHIC if tag in whole})
            has_exif = dict(found) or any(map(found.get_ifd, _INNER))
            blocks = {
                "exif-data": found if has_exif else None,
                GEOGRAPHY: geography if dict(geography) else None,
            }
            return [(name, each.tobytes()) for name, each in blocks.items() if each is not None]
    except Exception:  # damaged metadata are no reason to refuse the pixels, which another library reads
        return []


def _as_stored(value: Any) -> Any:
    """Text as the bytes that it was, which Pillow decoded one by one."""
    return value.encode("latin-1") if isinstance(value, str) else value


def describes_layout(description: str) -> bool:
    """Whether it says where a program finds images, which are not where they were in what is written."""
    return bool(_OF_LAYOUT.match(description))


def _check_exif(file: File) -> None:
    """Raise an error where Pillow would copy the same bytes into memory again and again."""
    directories = _Directories(file)
    main = directories.readable(directories.first)
    for tag in _INNER:
        for place in main.get(tag, ()):
            directories.readable(place)


def with_exif(data: bytes, metadata: Metadata) -> bytes:
    """Put EXIF and GeoTIFF into a TIFF file that libvips wrote: little-endian, one page, below 4 GB.

    The main directory is written anew behind the end of the file (TIFF 6.0, section 2), so that nothing else moves.
    """
    if data[:4] != b"II*\0" or not {"exif-data", GEOGRAPHY} & dict(metadata).keys():
        return data
    exif, geography = (_exif(dict(metadata).get(name)) for name in ("exif-data", GEOGRAPHY))
    directories = {tag: dict(exif.get_ifd(tag)) for tag in _INNER}
    entries = _entries(data, struct.unpack_from("<I", data, 4)[0])
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
    # made as a directory of its own, of which only what its entries point at is used
    data += b"\0" * (len(data) % 2)
    fields = {tag: _as_stored(exif[tag]) for tag in _FIELDS if tag in exif and tag not in entries}
    fields |= {tag: geography[tag] for tag in _GEOGRAPHIC if tag in geography}
    start = len(data)
    data += _directory_bytes(fields, start)
    entries |= _entries(data, start)
    data += b"\0" * (len(data) % 2)
    # entries must rise by tag; a zero offset says that no page follows
    directory = struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


def _exif(block: object) -> Pillow.Exif:
    """What a block holds, its inner directories read; nothing if it is none or damaged."""
    exif = Pillow.Exif()
    if isinstance(block, bytes):
        try:
            _check_exif(io.BytesIO(block.removeprefix(b"Exif\0\0")))
            exif.load(block)
            for tag in _INNER:
                exif.get_ifd(tag)
        except Exception:  # as above
            return Pillow.Exif()
    return exif


def _entries(data: bytes, start: int) -> dict[int, bytes]:
    """A directory: 12 bytes an entry, by tag."""
    count = struct.unpack_from("<H", data, start)[0]
    rows = (data[place : place + 12] for place in range(start + 2, start + 2 + 12 * count, 12))
    return {struct.unpack_from("<H", row)[0]: row for row in rows}


def _directory_bytes(values: dict[int, object], offset: int) -> bytes:
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in values.items():
        if tag in (*_TEXTS, *_GEOGRAPHIC_TEXTS):
            directory.tagtype[tag] = _ASCII
        directory[tag] = value
        try:
            directory.tobytes(offset)
        except Exception:  # damaged: a value that is none of its type's
            del directory[tag]
    return directory.tobytes(offset)
