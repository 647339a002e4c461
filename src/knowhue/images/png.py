"""What a PNG says beside its pixels, before or behind them: colours, text, EXIF and XMP; and text written as it was.

libvips reads only what stands before the pixels, none of what ImageMagick once wrote as text ("raw profiles"), and
writes text of UTF-8 as if it were Latin-1, under the first word of its key.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from knowhue.images.containers import Beside, File, without_unit
from knowhue.images.image import Texts
from knowhue.images.profiles import png_space

_HEAD_BYTES = 33  # the signature and IHDR, the first chunk
_COLOUR_BYTES = 32  # of the longest chunk on colours, cHRM
_MOST_BYTES = 1 << 24
"""Of all texts together, unpacked; a hostile file may hold any amount."""
_FAILURE_BYTES = _MOST_BYTES // 16
"""What a damaged text counts for, which may have been unpacked in vain up to its end."""
_MOST_CHUNKS = 1 << 17
_XMP_KEY = "XML:com.adobe.xmp"
_XMP_IN_APP1 = b"http://ns.adobe.com/xap/1.0/\0"
_EXIF_HEAD = b"Exif\0\0"
_RAW_PROFILE = re.compile(r"Raw profile type (exif|APP1|xmp)")
_KEY_LETTERS = 79


def of_png(file: File) -> Beside:
    """Colours, metadata and the shape of pixels; what is damaged says nothing."""
    colours, metadata, texts = _contents(file)
    resolution, density = None, colours.get(b"pHYs", b"")
    if len(density) == 9 and density[8] == 0:
        across, down = struct.unpack(">2I", density[:8])
        resolution = without_unit(across, down) if across and down else without_unit(1, 1)
    frames = int.from_bytes(colours.get(b"acTL", b"")[:4], "big")
    notes = (f"the still image of its {frames} frames",) * (frames > 1)
    space = png_space(colours, is_gray=colours.get(b"IHDR", b"")[9:10] in (b"\0", b"\4"))
    return Beside(None, tuple(metadata.items()), texts, resolution, notes, space)


def _contents(file: File) -> tuple[dict[bytes, bytes], dict[str, bytes], Texts]:
    """Short chunks before the pixels by name, of longer ones that they are there; EXIF and XMP; texts."""
    colours, metadata = dict[bytes, bytes](), dict[str, bytes]()
    texts, is_before, left_bytes = list[tuple[str, str]](), True, _MOST_BYTES
    for kind, length in _chunks(file):
        is_before = is_before and kind != b"IDAT"
        body = file.read(length) if length <= _COLOUR_BYTES else b""
        if is_before:
            colours[kind] = body
        if kind not in (b"eXIf", b"tEXt", b"zTXt", b"iTXt") or length >= left_bytes:
            continue
        body = body or file.read(length)
        if kind == b"eXIf":
            metadata.setdefault("exif-data", _EXIF_HEAD + body.removeprefix(_EXIF_HEAD))
            continue
        try:
            key, text = _text_of(kind, body, left_bytes)
        except (ValueError, zlib.error):
            left_bytes -= _FAILURE_BYTES
            continue
        left_bytes -= len(text)
        if key == _XMP_KEY:
            metadata.setdefault("xmp-data", text.encode())
        else:
            texts.append((key, text))
    kept = list[tuple[str, str]]()
    for key, text in texts:
        raw = _raw_profile(key, text)
        if raw is None:
            kept.append((key, text))
        elif raw.startswith(_XMP_IN_APP1) or key.endswith("xmp"):
            metadata.setdefault("xmp-data", raw.removeprefix(_XMP_IN_APP1))
        else:
            metadata.setdefault("exif-data", _EXIF_HEAD + raw.removeprefix(_EXIF_HEAD))
    return colours, metadata, tuple(kept)


def with_texts(png: bytes, texts: Texts, xmp: bytes | None) -> bytes:
    """A PNG with texts, and XMP as ISO 16684-1, 7.6, has it: uncompressed."""
    chunks = [_text_chunk(key, text) for key, text in texts]
    if xmp is not None:
        chunks.append(_chunk(b"iTXt", _XMP_KEY.encode() + b"\0\0\0\0\0" + xmp))
    return b"".join([png[:_HEAD_BYTES], *chunks, png[_HEAD_BYTES:]])


def _chunks(file: File) -> Iterator[tuple[bytes, int]]:
    """Name and length of each chunk, whose body is read next."""
    at = 8
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        length = int.from_bytes(head[:4], "big")
        yield head[4:], length
        at += 12 + length  # a length, a name and a checksum go with each


def _text_of(kind: bytes, body: bytes, most_bytes: int) -> tuple[str, str]:
    """Key and text of a chunk (PNG, third edition, 11.3.3); ValueError or zlib.error if it is damaged."""
    key, _, rest = body.partition(b"\0")
    if kind == b"tEXt":
        return key.decode("latin-1"), rest.decode("latin-1")
    if kind == b"zTXt":
        return key.decode("latin-1"), _unpacked(rest[1:], most_bytes).decode("latin-1")
    is_packed = rest[:1] == b"\1"
    text = rest[2:].split(b"\0", 2)[2:]  # behind the language and the key in that language
    if not text:
        raise ValueError
    return key.decode("latin-1"), (_unpacked(text[0], most_bytes) if is_packed else text[0]).decode()


def _unpacked(data: bytes, most_bytes: int) -> bytes:
    unpacking = zlib.decompressobj()
    found = unpacking.decompress(data, most_bytes)
    if not unpacking.eof:
        raise ValueError
    return found


def _raw_profile(key: str, text: str) -> bytes | None:
    """EXIF or XMP that ImageMagick wrote as text: a name, a length, and hexadecimal digits; None if it is none."""
    if not _RAW_PROFILE.fullmatch(key):
        return None
    try:
        _, length, digits = text.strip().split("\n", 2)
        found = bytes.fromhex(digits)
        return found if len(found) == int(length) else None
    except ValueError:
        return None


def _text_chunk(key: str, text: str) -> bytes:
    """As Latin-1 where the text has no other letters, as every reader knows it, else as UTF-8."""
    named = key.encode("latin-1", "replace")[:_KEY_LETTERS] + b"\0"
    try:
        return _chunk(b"tEXt", named + text.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", named + b"\0\0\0\0" + text.encode())


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
