"""EXIF within TIFF files, where libvips neither reads nor writes it: taken out and put back, pixels untouched."""

import io
import struct

from PIL import Image, TiffImagePlugin

from knowhue.inference.files.metadata import Fields

_INNER = (0x8769, 0x8825)  # EXIF's own directory, and that of the place
_TEXTS = (0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
"""Maker, model, software, time, artist, copyright: what EXIF keeps in an image's main directory."""
_ASCII, _LONG = 2, 4


def exif_of_tiff(file: io.FileIO | io.BytesIO) -> bytes | None:
    """The EXIF of the first page of a TIFF file, as JPEG has it; None if there is none that can be read."""
    file.seek(0)
    try:
        with TiffImagePlugin.TiffImageFile(file) as image:  # not `Image.open`, which has a limit of its own
            whole = image.getexif()
            found = Image.Exif()
            found.update({tag: str(whole[tag]).encode("latin-1") for tag in _TEXTS if tag in whole})
            for tag in _INNER:
                found.get_ifd(tag).update(whole.get_ifd(tag))
            return found.tobytes() if dict(found) or any(map(found.get_ifd, _INNER)) else None
    except Exception:  # damaged metadata are no reason to refuse the pixels, which another library reads
        return None


def with_exif(data: bytes, metadata: Fields) -> bytes:
    """Put EXIF into a TIFF file that libvips wrote: little-endian, one page, below 4 GB.

    The main directory is written anew behind the end of the file (TIFF 6.0, section 2), so that nothing else moves.
    """
    block = dict(metadata).get("exif-data")
    if not isinstance(block, bytes) or data[:4] != b"II*\0":
        return data
    exif = Image.Exif()
    try:
        exif.load(block)
        directories = {tag: dict(exif.get_ifd(tag)) for tag in _INNER}
    except Exception:  # as above
        return data
    entries = _entries(data)
    for own, main in ((0xA002, 256), (0xA003, 257)):  # width and height, which turning may have exchanged
        if own in directories[_INNER[0]]:
            directories[_INNER[0]][own] = struct.unpack_from(
                "<H" if entries[main][2] == 3 else "<I", entries[main], 8
            )[0]
    for tag, values in directories.items():
        if values:
            data += b"\0" * (len(data) % 2)
            entries[tag] = struct.pack("<HHII", tag, _LONG, 1, len(data))
            data += _directory(values, len(data))
    for tag in set(_TEXTS) & set(exif) - set(entries):
        text = str(exif[tag]).encode("latin-1") + b"\0"  # as Pillow decoded it: byte by byte
        data += b"\0" * (len(data) % 2)
        value = text.ljust(4, b"\0") if len(text) <= 4 else struct.pack("<I", len(data))
        entries[tag] = struct.pack("<HHI", tag, _ASCII, len(text)) + value
        data += text if len(text) > 4 else b""
    data += b"\0" * (len(data) % 2)
    directory = struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


def _entries(data: bytes) -> dict[int, bytes]:
    """The main directory: 12 bytes an entry, by tag."""
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    rows = (data[place : place + 12] for place in range(start + 2, start + 2 + 12 * count, 12))
    return {struct.unpack_from("<H", row)[0]: row for row in rows}


def _directory(values: dict[int, object], offset: int) -> bytes:
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in values.items():
        directory[tag] = value
        try:
            directory.tobytes(offset)
        except Exception:  # damaged: a value that is none of its type's
            del directory[tag]
    return directory.tobytes(offset)
