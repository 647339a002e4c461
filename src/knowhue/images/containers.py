"""What decoders leave unread in all formats but TIFF: colours, metadata, bit depth, data after the image.

No decoder here reads the profiles of BMP and JPEG 2000, or any metadata of JPEG 2000 and GIF. This module also writes
texts into JPEG and PNG.
"""

import io
import re
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

from knowhue.errors import few
from knowhue.images.image import COMMENT, Resolution, Texts
from knowhue.images.profiles import SpaceAndNotes, heif_space, png_space

File = io.FileIO | io.BytesIO
_MOST_BYTES = 1 << 24
"""Most bytes of one read, and of all decompressed texts together: a malicious file can claim any length."""
_MOST_COMMENTS = 256
_MOST_SEGMENTS = 1 << 18
"""Most JPEG segments or GIF blocks to read. Real files have thousands; a malicious one can consist of tiny ones."""
_NO_RESOLUTION = (1.0, 1.0)  # what libvips reports, and writes into EXIF, if a file has none
_MOST_PIXELS_PER_MM = 1e6  # limit of libvips
CREDENTIALS = "its content credentials (C2PA), which apply to the original alone, were left out"


@dataclass
class FileInfo:
    """What a file contains besides its pixels; see `Origin`, which is made of it."""

    profile: bytes | None = None
    metadata: dict[str, bytes] = field(default_factory=dict)
    texts: list[tuple[str, str]] = field(default_factory=list)
    pixels_per_mm: Resolution | None = None
    notes: list[str] = field(default_factory=list)
    colours: SpaceAndNotes = (None, ())
    """colour space of files without a profile, and sentences for the user on it"""

    def add_comment(self, comment: bytes) -> None:
        """Keep a comment, in UTF-8 or else Latin-1, unless it is empty or one too many."""
        comment = comment.rstrip(b"\0")
        if len(self.texts) >= _MOST_COMMENTS:
            self.add_note(f"comments beyond its first {_MOST_COMMENTS} were left out")
        elif comment:
            try:
                self.texts.append((COMMENT, comment.decode()))
            except UnicodeDecodeError:
                self.texts.append((COMMENT, comment.decode("latin-1")))

    def add_note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def resolution_of(across: float, down: float, unit_mm: float | None) -> Resolution | None:
    """The resolution from pixels per unit; None if it is impossible, or libvips' default.

    Without a unit, the aspect ratio alone is known: at least 72 per inch, or None for square pixels.
    """
    if not (across > 0 and down > 0) or (unit_mm is None and across == down):
        return None
    if unit_mm is None:
        # the smaller one is exactly 72 per inch, because libvips truncates decimals when it writes EXIF
        found = 72 / 25.4 * (across / min(across, down)), 72 / 25.4 * (down / min(across, down))
    else:
        found = across / unit_mm, down / unit_mm
    return found if found != _NO_RESOLUTION and max(found) < _MOST_PIXELS_PER_MM else None


# JPEG

_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
"""Markers that cannot occur within scan data: all but stuffed zeros and restart markers (ITU-T T.81, B.1.1)."""
_JPEG_END, _JPEG_COMMENT, _JPEG_APP0, _JPEG_APP11 = 0xD9, 0xFE, 0xE0, 0xEB
_C2PA = b"jumdc2pa"
_JFIF_START = b"JFIF\0"
_JFIF = b"\xff\xe0\0\x10JFIF\0\1\2%b\0\0"
_TRAILER_BYTES = 1 << 10  # after the image, in which a video must begin; Samsung puts a table first


def jpeg_info(file: File) -> FileInfo:
    """Comments, a resolution without a unit, and notes on what follows: further images, a motion photo's video."""
    file.seek(0)
    data, info = file.read(), FileInfo()
    for kind, body, place in _segments(data, _JPEG_MARKER):
        if kind == _JPEG_END:
            info.notes += _trailing_notes(data[place : place + _TRAILER_BYTES])
            break
        if kind == _JPEG_COMMENT:
            info.add_comment(body)
        elif kind == _JPEG_APP11 and _C2PA in body:
            info.add_note(CREDENTIALS)
        elif kind == _JPEG_APP0 and body.startswith(_JFIF_START) and len(body) >= 12:
            unit, across, down = struct.unpack_from(">BHH", body, 7)
            if unit == 0:
                info.pixels_per_mm = resolution_of(across, down, None)
    return info


def _segments(data: bytes, marker: re.Pattern[bytes]) -> Iterator[tuple[int, bytes, int]]:
    """Marker segments of JPEG or JPEG 2000: marker code, body, and position of the length field."""
    place = 2
    for _ in range(_MOST_SEGMENTS):
        if (found := marker.search(data, place)) is None:
            return
        kind, place = data[found.start() + 1], found.end()
        length = int.from_bytes(data[place : place + 2], "big")
        yield kind, data[place + 2 : place + length], place
        place += length


def _trailing_notes(data: bytes) -> tuple[str, ...]:
    data = data.lstrip(b"\0\xff")
    if data.startswith(b"\xd8\xff"):
        return ("the first image in its file; what follows it (another view, or a gain map) was left out",)
    return ("the video after it (motion photo) was left out",) if b"ftyp" in data else ()


def jfif_segment(resolution: Resolution | None) -> bytes:
    """A JFIF 1.02 segment with a resolution in the unit of smaller rounding error; empty if it exceeds 16 bits."""
    if resolution is None:
        return _JFIF % struct.pack(">BHH", 0, 1, 1)
    units = {unit: [each * mm for each in resolution] for unit, mm in ((1, 25.4), (2, 10))}
    unit = min(units, key=lambda unit: max(abs(each - round(each)) for each in units[unit]))
    across, down = map(round, units[unit])
    fits = min(across, down) > 0 and max(across, down) < 1 << 16
    return _JFIF % struct.pack(">BHH", unit, across, down) if fits else b""


def add_comments(jpeg: bytes, texts: Iterable[str], jfif: bytes) -> bytes:
    """Add a JFIF segment and comments, each below 65,534 bytes in UTF-8, to a JPEG file that libvips wrote."""
    bodies = (text.encode() for text in texts)
    segments = b"".join(b"\xff\xfe" + struct.pack(">H", len(body) + 2) + body for body in bodies)
    jpeg = jpeg[:2] + jfif + jpeg[2:]
    # the segments of JFIF and EXIF must come first
    start = 4 + int.from_bytes(jpeg[4:6], "big") if jpeg[2:4] in (b"\xff\xe0", b"\xff\xe1") else 2
    return jpeg[:start] + segments + jpeg[start:]


# PNG. libvips reads only the chunks before the pixels and ignores metadata that old versions of ImageMagick wrote as
# text ("raw profiles"). It writes UTF-8 text as Latin-1, with the first word of its keyword alone.

_PNG_HEAD_BYTES = 33  # the signature and IHDR, the first chunk
_COLOUR_BYTES = 32  # length of the longest chunk on colours, cHRM
_FAILURE_BYTES = _MOST_BYTES // 16
"""Counted for a damaged text, because up to that many bytes may have been decompressed for nothing."""
_MOST_CHUNKS = 1 << 17
_METRE = 1
_PNG_RESOLUTION = b"\0\0\0\x09pHYs"
_XMP_KEY = "XML:com.adobe.xmp"
_XMP_IN_APP1 = b"http://ns.adobe.com/xap/1.0/\0"
EXIF_HEAD = b"Exif\0\0"
_RAW_PROFILE = re.compile(r"Raw profile type (exif|APP1|xmp)")
LONGEST_KEYWORD = 79  # characters


def png_info(file: File) -> FileInfo:
    """Colours, metadata and resolution; damaged chunks are ignored."""
    info = FileInfo()
    colours = _read_png(file, info)
    density = colours.get(b"pHYs", b"")
    if len(density) == 9:
        across, down, unit = struct.unpack(">2IB", density)
        info.pixels_per_mm = resolution_of(across, down, 1000 if unit == _METRE else None)
    frames = int.from_bytes(colours.get(b"acTL", b"")[:4], "big")
    if b"caBX" in colours:
        info.notes.append(CREDENTIALS)
    if frames > 1:
        info.notes.append(f"the still image of its {frames} frames")
    info.colours = png_space(colours, is_gray=colours.get(b"IHDR", b"")[9:10] in (b"\0", b"\4"))
    return info


def _read_png(file: File, info: FileInfo) -> dict[bytes, bytes]:
    """Read metadata and texts into `info`, and return the chunks before the pixels by name, empty if long."""
    colours, older = dict[bytes, bytes](), dict[str, bytes]()
    is_before, left_bytes, lost = True, _MOST_BYTES, 0
    for kind, length in _png_chunks(file):
        is_before = is_before and kind != b"IDAT"
        body = file.read(length) if length <= _COLOUR_BYTES else b""
        if is_before:
            colours[kind] = body
        if kind not in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
            continue
        fits = length < left_bytes
        body = body or file.read(length if fits else 0)
        if fits and kind == b"eXIf":
            info.metadata.setdefault("exif-data", EXIF_HEAD + body.removeprefix(EXIF_HEAD))
        elif fits and (found := _png_text(kind, body, left_bytes)):
            key, text = found
            left_bytes -= len(text)
            if key == _XMP_KEY:
                info.metadata.setdefault("xmp-data", text.encode())
            elif (raw := _raw_profile(key, text)) is None:
                info.texts.append((key, text))
            elif raw.startswith(_XMP_IN_APP1) or key.endswith("xmp"):
                older.setdefault("xmp-data", raw.removeprefix(_XMP_IN_APP1))
            else:
                older.setdefault("exif-data", EXIF_HEAD + raw.removeprefix(EXIF_HEAD))
        else:
            left_bytes -= _FAILURE_BYTES
            lost += 1
    if lost:
        info.notes.append(f"{lost} of its texts and EXIF were damaged or too long, and left out")
    info.metadata = older | info.metadata
    return colours


def add_texts(png: bytes, texts: Texts, xmp: bytes | None, has_resolution: bool = True) -> bytes:
    """Add texts, and XMP uncompressed (ISO 16684-1, 7.6), to a PNG file that libvips wrote."""
    if not has_resolution:
        at = png.index(_PNG_RESOLUTION)
        png = png[:at] + png[at + 21 :]  # 12 bytes of length, name and checksum, 9 of data
    info, chunks = PngImagePlugin.PngInfo(), io.BytesIO()
    for key, text in texts:
        # as Latin-1, which every reader supports, or else as UTF-8
        info.add_text(key[:LONGEST_KEYWORD], text)
    if xmp is not None:
        info.add(b"iTXt", _XMP_KEY.encode() + b"\0\0\0\0\0" + xmp)
    for kind, body, *_ in info.chunks:
        PngImagePlugin.putchunk(chunks, kind, body)
    return png[:_PNG_HEAD_BYTES] + chunks.getvalue() + png[_PNG_HEAD_BYTES:]


def _png_chunks(file: File) -> Iterator[tuple[bytes, int]]:
    """Name and length of each chunk; the file is then positioned at its body."""
    at = 8
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        length = int.from_bytes(head[:4], "big")
        yield head[4:], length
        at += 12 + length  # 12 bytes of length, name and checksum


def _png_text(kind: bytes, body: bytes, most_bytes: int) -> tuple[str, str] | None:
    """Keyword and text of a chunk (PNG, third edition, 11.3.3); None if it is damaged."""
    key, _, rest = body.partition(b"\0")
    with suppress(ValueError, zlib.error):
        if kind == b"tEXt":
            return key.decode("latin-1"), rest.decode("latin-1")
        if kind == b"zTXt":
            return key.decode("latin-1"), _decompress(rest[1:], most_bytes).decode("latin-1")
        language, translated, packed = rest[2:].split(b"\0", 2)
        text = (_decompress(packed, most_bytes) if rest[:1] == b"\1" else packed).decode()
        if language or translated:  # Pillow writes both when given this type
            text = PngImagePlugin.iTXt(text, language.decode("latin-1"), translated.decode())
        return key.decode("latin-1"), text
    return None


def _decompress(data: bytes, most_bytes: int) -> bytes:
    unpacking = zlib.decompressobj()
    found = unpacking.decompress(data, most_bytes)
    if not unpacking.eof:
        raise ValueError
    return found


def _raw_profile(key: str, text: str) -> bytes | None:
    """EXIF or XMP that ImageMagick wrote as text (name, length, hexadecimal digits); None for other texts."""
    if not _RAW_PROFILE.fullmatch(key):
        return None
    try:
        _, length, digits = text.strip().split("\n", 2)
        found = bytes.fromhex(digits)
        return found if len(found) == int(length) else None
    except ValueError:
        return None


# GIF

_GIF_HEAD_BYTES = 13
_GIF_XMP, _GIF_PROFILE = b"XMP DataXMP", b"ICCRGBG1012"
_GIF_TRAILER_BYTES = 257
"""Length of the trailer after XMP, which is not in sub-blocks: it leads decoders that expect them to the end."""


def gif_info(file: File) -> FileInfo:
    """Comments, XMP (XMP Specification Part 3, 1.1.2) and a profile; images are skipped."""
    file.seek(0)
    data, info, blocks = file.read(), FileInfo(), iter(range(_MOST_SEGMENTS))
    try:
        place = _GIF_HEAD_BYTES + _gif_table_bytes(data[10])
        while data[place] != 0x3B:
            next(blocks)
            if data[place] == 0x2C:
                place += 11 + _gif_table_bytes(data[place + 9])
                place = _sub_blocks(data, place, blocks)[1]
                continue
            label, application = data[place + 1], data[place + 3 : place + 14]
            body, end = _sub_blocks(data, place + 2, blocks)
            if label == 0xFE:
                info.add_comment(body)
            elif label == 0xFF and application == _GIF_XMP:
                info.metadata["xmp-data"] = data[place + 14 : max(place + 14, end - _GIF_TRAILER_BYTES - 1)]
            elif label == 0xFF and application == _GIF_PROFILE:
                info.profile = body[11:]
            place = end
    except IndexError:  # the file is truncated
        pass
    except StopIteration:
        info.add_note(f"comments, XMP and a profile after its first {_MOST_SEGMENTS:,} blocks were not read")
    return info


def _gif_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _sub_blocks(data: bytes, place: int, blocks: Iterator[int]) -> tuple[bytes, int]:
    """Joined data of sub-blocks, and their end; `blocks` counts down and raises StopIteration at the limit."""
    parts = []
    while size := data[place]:
        next(blocks)
        parts.append(data[place + 1 : place + 1 + size])
        place += 1 + size
    return b"".join(parts), place + 1


# BMP

_BMP_BYTES, _BMP_VERSION_5, _BMP_EMBEDDED = 138, b"\x7c\0\0\0", b"DEBM"
"""Length of both headers; the length field of the second in version 5; PROFILE_EMBEDDED, little-endian."""


def bmp_info(file: File) -> FileInfo:
    """The embedded profile of a version 5 file (BITMAPV5HEADER)."""
    file.seek(0)
    head = file.read(_BMP_BYTES)
    if len(head) < _BMP_BYTES or head[14:18] != _BMP_VERSION_5 or head[70:74] != _BMP_EMBEDDED:
        return FileInfo()
    at, size = struct.unpack_from("<II", head, 126)
    file.seek(14 + at)
    return FileInfo(file.read(min(size, _MOST_BYTES)))


# Boxes (ISO/IEC 14496-12) of AVIF, HEIC and JPEG 2000

_MOST_BOXES = 4096
_NCLX = re.compile(rb"colrnclx(.{4})", re.DOTALL)
"""Colour box of an image (ISO/IEC 23008-12, 6.5.5): its primaries and transfer characteristics by ITU-T H.273."""


def heif_info(file: File) -> FileInfo:
    """The colour space of AVIF or HEIC; the decoder has already undone the matrix and range of the codes."""
    info, boxes = FileInfo(), list(_boxes(file, (b"meta", b"uuid")))
    if any(_C2PA in body for _, body in boxes):
        info.notes.append(CREDENTIALS)
    found = {codes for kind, body in boxes if kind == b"meta" for codes in _NCLX.findall(body)}
    if len(found) == 1:
        info.colours = heif_space(*struct.unpack(">2H", found.pop()))
    elif found:
        info.colours = None, ("its images have different colour spaces (nclx), and were read as sRGB",)
    return info


def _boxes(file: File, kinds: Collection[bytes] = ()) -> Iterator[tuple[bytes, bytes]]:
    """Top-level boxes of the given kinds (default: all): kind, and body as far as the file holds it."""
    end, at = file.seek(0, io.SEEK_END), 0
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head[:8])
        start = 16 if size == 1 else 8
        size = max(int.from_bytes(head[8:], "big") if size == 1 else size or end - at, start)
        if kind in kinds or not kinds:
            file.seek(at + start)
            yield kind, file.read(min(size - start, _MOST_BYTES))
        at = min(at + size, end)


# JPEG 2000

_UUIDS = {
    b"JpgTiffExif->JP2": "exif-data",
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): "xmp-data",
    bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"): "iptc-data",
}
_STORAGE_BOXES = (b"jP  ", b"ftyp", b"rreq", b"jpch", b"jplh", b"free", b"\0\0\0\0")
"""Boxes that describe how the image is stored, padding, and zeros after the last box."""
_CODESTREAM = b"\xff\x4f\xff\x51"
_J2K_MARKER = re.compile(rb"\xff[\x51-\x90]")
_J2K_SIZE, _J2K_COMMENT, _J2K_TILE = 0x51, 0x64, 0x90
_J2K_TEXT = b"\0\1"  # in Latin-1; 0 is binary
_ENCODER_COMMENT = re.compile(rb"Created by (OpenJPEG|Grok version)|Creator: JasPer|Kakadu-|Kdu-|Lavc")
"""Beginning of a comment that encoders add to every file (Lavc: FFmpeg); it does not describe the image."""


def jpeg_2000_info(file: File) -> FileInfo:
    """Profile (ISO/IEC 15444-1, I.5.3.3), comments, EXIF, XMP and IPTC, and a note on lost bit depth."""
    file.seek(0)
    info, codestream, unknown = FileInfo(), b"", list[str]()
    if file.read(4) == _CODESTREAM:  # a file without boxes
        codestream = _CODESTREAM + file.read(_MOST_BYTES)
    else:
        for kind, body in _boxes(file):
            if kind == b"jp2h":
                colours = (colour for _, colour in _boxes(io.BytesIO(body), (b"colr",)))
                # 2 is a restricted, 3 any ICC profile; 1 is an enumerated colour space
                found = (colour[3:] for colour in colours if colour[:1] in (b"\2", b"\3"))
                info.profile = info.profile or next(found, None)
            elif kind == b"jp2c":
                codestream = codestream or body  # the first is the image
            elif kind == b"uuid" and (name := _UUIDS.get(body[:16])):
                info.metadata.setdefault(name, (EXIF_HEAD if name == "exif-data" else b"") + body[16:])
            elif kind not in _STORAGE_BOXES:
                unknown.append(kind.decode("latin-1").strip())
    _read_codestream(codestream, info)
    if unknown:
        info.notes.append(f"further boxes were left out: {few(list(dict.fromkeys(unknown)))}")
    return info


def _read_codestream(codestream: bytes, info: FileInfo) -> None:
    """Add comments (ISO/IEC 15444-1, A.9.2) and a note on lost bit depth (A.5.1) to `info`."""
    for kind, body, _ in _segments(codestream, _J2K_MARKER):
        if kind == _J2K_TILE:
            break
        if kind == _J2K_SIZE:
            # three bytes per component; the top bit of the first marks signed values
            depths = [(depth & 0x7F) + 1 for depth in body[36::3]]
            if len(depths) > 1 and max(depths) > 8:  # of a single component the decoder gives all bits
                lost = f"its {max(depths)} bits per channel were cut to 8 by the JPEG 2000 decoder"
                info.notes.append(lost)
        elif kind == _J2K_COMMENT and body.startswith(_J2K_TEXT):
            text = body.removeprefix(_J2K_TEXT)
            if not _ENCODER_COMMENT.match(text):
                info.add_comment(text)


# PNM


def read_deep_pnm(image: Any, file: File) -> NDArray[Any] | None:
    """16-bit colours (H, W, 3) of a PNM with values above 255, which Pillow reduces to 8 bits; None for others."""
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
        raise ValueError("too few values, or values out of range")
    codes = (np.arange(top + 1) * (65535 / top)).round().astype(np.uint16)
    return codes[numbers].reshape(image.height, image.width, 3)
