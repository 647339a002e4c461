"""What decoders leave unread of JPEG, GIF, BMP, AVIF, HEIC, JPEG 2000, PNM: colours, metadata, depth, what is behind.

Profiles of a BMP and of JPEG 2000, and all metadata of the latter and of a GIF, are known to no decoder here.
"""

import io
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.images.image import Metadata
from knowhue.images.profiles import SpaceAndNotes, heif_space

File = io.FileIO | io.BytesIO
COMMENT = "png-comment"
"""How libvips' names of text begin; a number and a key follow, by a hyphen each."""
PLAIN_KEY = "Comment"
"""Of a text without one, as in JPEG and GIF; also PNG's own name of such a text."""
_MOST_BYTES = 1 << 24
"""Of what is read at once; a hostile file may claim any length."""
_MOST_COMMENTS = 256


class Beside(NamedTuple):
    """What a file says beside its pixels, of what its decoder does not tell, or tells wrong."""

    profile: bytes | None = None
    """ICC profile"""
    metadata: Metadata = ()
    pixels_per_mm: tuple[float, float] | None = None
    """resolution"""
    notes: tuple[str, ...] = ()
    colours: SpaceAndNotes = (None, ())
    """what codes mean where there is no profile, and what a user should know of it"""


def text_key(name: str) -> str | None:
    """The key of a text by its name in libvips; None if it is none."""
    return name.split("-", 3)[-1] if name.startswith(COMMENT) else None


def without_unit(across: float, down: float) -> tuple[float, float]:
    """Pixels a mm of a resolution that has no unit, which says the shape of pixels alone: 72 to the inch or more."""
    base = 72 / 25.4 / min(across, down)
    return base * across, base * down


def _comments(found: list[bytes]) -> tuple[tuple[str, str], ...]:
    texts = (each.rstrip(b"\0") for each in found)
    return tuple((f"{COMMENT}-{k}-{PLAIN_KEY}", _decoded(text)) for k, text in enumerate(texts) if text)


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


# JPEG

_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
"""Those that are not within the data of a scan, where zeros are stuffed and restarts counted (ITU-T T.81, B.1.1)."""
_JPEG_END, _JPEG_COMMENT, _JPEG_APP0 = 0xD9, 0xFE, 0xE0
_JFIF_HEAD = b"JFIF\0"
_NEAR = 1 << 10  # bytes in which the head of a video must begin; Samsung's stands behind a table of its own


def of_jpeg(file: File) -> Beside:
    """Comments, a resolution without a unit, and what lies behind: further images, the video of a motion photo."""
    file.seek(0)
    data = file.read()
    comments, resolution, place = list[bytes](), None, 2
    while (found := _JPEG_MARKER.search(data, place)) is not None:
        kind, place = data[found.start() + 1], found.end()
        if kind == _JPEG_END:
            return Beside(None, _comments(comments), resolution, notes=_behind(data[place : place + _NEAR]))
        length = int.from_bytes(data[place : place + 2], "big")
        body = data[place + 2 : place + length]
        if kind == _JPEG_COMMENT and len(comments) < _MOST_COMMENTS:
            comments.append(body)
        elif kind == _JPEG_APP0 and body.startswith(_JFIF_HEAD) and len(body) >= 12:
            unit, across, down = struct.unpack_from(">BHH", body, 7)
            if unit == 0 and across != down and across and down:
                resolution = without_unit(across, down)
        place += length
    return Beside(None, _comments(comments), resolution)


def _behind(data: bytes) -> tuple[str, ...]:
    data = data.lstrip(b"\0\xff")
    if data.startswith(b"\xd8\xff"):
        return (
            "the first image in its file; what comes behind it (another view, or a gain map) was left out",
        )
    return ("the video behind it (motion photo) was left out",) * (b"ftyp" in data)


def with_jpeg_comments(jpeg: bytes, fields: Mapping[str, bytes | str]) -> bytes:
    """A JPEG as libvips writes it, with texts that have no other key than that of a comment."""
    texts = (
        str(value).encode()[: (1 << 16) - 3] for name, value in fields.items() if text_key(name) == PLAIN_KEY
    )
    segments = b"".join(b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text for text in texts)
    start = 4 + int.from_bytes(jpeg[4:6], "big") if jpeg[2:4] == b"\xff\xe0" else 2  # JFIF's comes first
    return jpeg[:start] + segments + jpeg[start:]


# GIF

_GIF_HEAD_BYTES = 13
_GIF_BYTES = 1 << 22  # in which metadata are looked for: a hostile file is all blocks of a byte
_GIF_XMP, _GIF_PROFILE = b"XMP DataXMP", b"ICCRGBG1012"
_GIF_TRAILER_BYTES = 257
"""Behind XMP, which is no sequence of sub-blocks: a ramp down by which decoders that take it for one find the end."""


def of_gif(file: File) -> Beside:
    """Comments, XMP (XMP Specification Part 3, 1.1.2) and a profile; the images are passed over."""
    file.seek(0)
    data = file.read(_GIF_BYTES)
    comments, profile, xmp = list[bytes](), None, b""
    with suppress(IndexError):
        place = _GIF_HEAD_BYTES + _gif_table_bytes(data[10])
        while data[place] != 0x3B:
            if data[place] == 0x2C:
                place += 11 + _gif_table_bytes(data[place + 9])
                place = _sub_blocks(data, place)[1]
                continue
            label, application = data[place + 1], data[place + 3 : place + 14]
            body, end = _sub_blocks(data, place + 2)
            if label == 0xFE and len(comments) < _MOST_COMMENTS:
                comments.append(body)
            elif label == 0xFF and application == _GIF_XMP:
                xmp = data[place + 14 : max(place + 14, end - _GIF_TRAILER_BYTES - 1)]
            elif label == 0xFF and application == _GIF_PROFILE:
                profile = body[11:]
            place = end
    metadata = _comments(comments) + ((("xmp-data", xmp),) if xmp else ())
    return Beside(profile, metadata)


def _gif_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _sub_blocks(data: bytes, place: int) -> tuple[bytes, int]:
    """What blocks of up to 255 bytes hold together, and where they end."""
    parts = []
    while size := data[place]:
        parts.append(data[place + 1 : place + 1 + size])
        place += 1 + size
    return b"".join(parts), place + 1


# BMP

_BMP_HEAD, _BMP_INFORMATION = 14, struct.pack("<I", 124)
"""Bytes of the head of a file; how that of version 5 behind it begins, with its own length."""
_BMP_EMBEDDED = b"DEBM"  # PROFILE_EMBEDDED, little-endian


def of_bmp(file: File) -> Beside:
    """The profile of version 5 (BITMAPV5HEADER)."""
    file.seek(0)
    head = file.read(_BMP_HEAD + 124)
    information = head[_BMP_HEAD:]
    is_fifth = information.startswith(_BMP_INFORMATION) and len(information) == 124
    if not is_fifth or information[56:60] != _BMP_EMBEDDED:
        return Beside()
    at, size = struct.unpack_from("<II", information, 112)
    file.seek(_BMP_HEAD + at)
    return Beside(file.read(min(size, _MOST_BYTES)))


# Boxes (ISO/IEC 14496-12), of AVIF, HEIC and JPEG 2000

_MOST_BOXES = 4096
_CODES = re.compile(rb"colrnclx(.{4})", re.DOTALL)
"""Primaries and transfer by ITU-T H.273 of one of the images (ISO/IEC 23008-12, 6.5.5)."""


def of_heif(file: File) -> Beside:
    """Which colours the codes of AVIF or HEIC mean; the decoder has undone their matrix and range."""
    found = set[bytes]()
    with suppress(struct.error):
        for kind, at, size in _boxes_of(file):
            if kind == b"meta" and size <= _MOST_BYTES:
                file.seek(at)
                found.update(_CODES.findall(file.read(size)))
    if len(found) > 1:
        return Beside(
            colours=(None, ("its images have several kinds of colours (nclx), read as if they were sRGB's",))
        )
    return Beside(colours=heif_space(*struct.unpack(">2H", found.pop()))) if found else Beside()


def _boxes_of(file: File) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of a file: kind, where the body begins, how long it is said to be; struct.error behind the last."""
    end, at = file.seek(0, 2), 0
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(16)
        size, kind = struct.unpack(">I4s", head[:8])
        start = 8
        if size == 1:
            size, start = struct.unpack(">Q", head[8:])[0], 16
        size = max(size or end - at, start)
        yield kind, at + start, size - start
        at += size
        if at >= end:
            return


def _boxes_in(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes side by side in a body, by kind."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8:  # none is so long that it needs more digits, and the last may claim the rest
            size = len(data) - at
        yield kind, data[at + 8 : at + size]
        at += size


# JPEG 2000

_UUIDS = {
    b"JpgTiffExif->JP2": "exif-data",
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): "xmp-data",
    bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"): "iptc-data",
}
_CODESTREAM = b"\xff\x4f\xff\x51"
_CODESTREAM_BYTES = 1 << 17
"""Of its head, with the depths of as many components as there may be, and a comment of any length."""
_DEPTHS = 42
"""Where a codestream says how deep its components are (ISO/IEC 15444-1, A.5.1)."""
_J2K_COMMENT, _J2K_TILE = 0xFF64, 0xFF90
_J2K_TEXT = 1  # in Latin-1; 0 is binary
_OF_ENCODERS = (
    b"Created by OpenJPEG",
    b"Created by Grok version",
    b"Creator: JasPer Version",
    b"Kakadu-",
    b"Kdu-",
    b"Lavc",  # of FFmpeg
)
"""How comments begin that encoders write of themselves into every file: nobody said them of the image."""


def of_jpeg_2000(file: File) -> Beside:
    """Profile (ISO/IEC 15444-1, I.5.3.3), depth, comments, and EXIF, XMP and IPTC in boxes of their own."""
    profile, notes, metadata, comments = None, None, dict[str, bytes | str](), list[bytes]()
    with suppress(struct.error, IndexError):
        for kind, body in _jpeg_2000_boxes(file):
            if kind == b"jp2h":
                profile = profile or next(_jpeg_2000_profiles(body), None)
            elif kind == b"jp2c" and notes is None:  # the first is the image
                count = struct.unpack_from(">H", body, _DEPTHS - 2)[0]
                # three bytes a component; the top bit says whether it is signed
                bits = max(((body[_DEPTHS + 3 * k] & 0x7F) + 1 for k in range(count)), default=0)
                is_cut = bits > 8 and count > 1
                notes = (f"of its {bits} bits a channel the decoder of JPEG 2000 gives 8",) * is_cut
                comments = list(islice(_jpeg_2000_comments(body), _MOST_COMMENTS))
            elif name := _UUIDS.get(body[:16]):
                metadata.setdefault(name, (b"Exif\0\0" if name == "exif-data" else b"") + body[16:])
    return Beside(profile, _comments(comments) + tuple(metadata.items()), notes=notes or ())


def _jpeg_2000_comments(codestream: bytes) -> Iterator[bytes]:
    """Texts in the main header of a codestream (ISO/IEC 15444-1, A.9.2), whose marker segments follow each other."""
    place = 2
    with suppress(struct.error):
        while (kind := struct.unpack_from(">H", codestream, place)[0]) != _J2K_TILE:
            length = struct.unpack_from(">H", codestream, place + 2)[0]
            if kind == _J2K_COMMENT and struct.unpack_from(">H", codestream, place + 4)[0] == _J2K_TEXT:
                text = codestream[place + 6 : place + 2 + length]
                if not text.startswith(_OF_ENCODERS):
                    yield text
            place += 2 + length


def _jpeg_2000_boxes(file: File) -> Iterator[tuple[bytes, bytes]]:
    """The boxes that are wanted, of the codestream its head; a file may be that alone."""
    file.seek(0)
    head = file.read(_CODESTREAM_BYTES)
    if head.startswith(_CODESTREAM):
        yield b"jp2c", head
        return
    for kind, at, size in _boxes_of(file):
        if kind in (b"jp2h", b"uuid", b"jp2c") and (kind == b"jp2c" or size <= _MOST_BYTES):
            file.seek(at)
            yield kind, file.read(min(size, _CODESTREAM_BYTES) if kind == b"jp2c" else size)


def _jpeg_2000_profiles(header: bytes) -> Iterator[bytes]:
    for kind, body in _boxes_in(header):
        if kind == b"colr" and body[:1] in (b"\2", b"\3"):  # restricted, or any; 1 is a code
            yield body[3:]


# PNM


def deep_pnm(image: Any, file: File) -> NDArray[Any] | None:
    """Colours (H, W, 3) in 16 bits of a PNM whose numbers go beyond 255, which Pillow cuts to 8; None of others."""
    decoder, _, place, arguments = image.tile[0]
    top = arguments[-1] if isinstance(arguments, tuple) else 255
    if image.mode != "RGB" or not isinstance(top, int) or top <= 255:
        return None
    count = 3 * image.width * image.height
    file.seek(place)
    if decoder == "ppm_plain":
        text = re.sub(rb"#[^\r\n]*", b" ", file.read())
        numbers = np.fromstring(text, np.int64, sep=" ")[:count]
    else:
        numbers = np.frombuffer(file.read(2 * count), ">u2")
    if numbers.size < count or numbers.min() < 0 or numbers.max() > top:
        raise ValueError("too few numbers, or others than it announces")
    codes = (np.arange(top + 1) * (65535 / top)).round().astype(np.uint16)
    return codes[numbers].reshape(image.height, image.width, 3)
