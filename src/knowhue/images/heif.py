"""What decoders of AVIF and HEIC leave unsaid: which colours the codes of the primary image mean (its `nclx`)."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from knowhue.images.tiff import File

_MOST_BYTES = 1 << 22
"""Of the box that describes a file's images; a hostile one may claim any length."""
_MOST_BOXES = 4096


class ColourCodes(NamedTuple):
    """Codes of ITU-T H.273; the decoder has undone the matrix and the range."""

    primaries: int
    """table 2"""
    transfer: int
    """table 3"""


def colour_codes(file: File) -> ColourCodes | None:
    """The codes of the primary image (ISO/IEC 23008-12, 6.5.5); None if it has none or a profile, or is damaged."""
    try:
        meta = _meta(file)
        boxes = dict(boxes_in(meta[4:]))  # behind the version of a full box
        pitm, properties = boxes[b"pitm"], dict(boxes_in(boxes[b"iprp"]))
        primary = int.from_bytes(pitm[4 : 8 if pitm[0] else 6], "big")
        every = list(boxes_in(properties[b"ipco"]))
        own = [every[place - 1] for place in _places(properties[b"ipma"], primary) if 0 < place <= len(every)]
    except (KeyError, IndexError, struct.error):
        return None
    colours = [body for kind, body in own if kind == b"colr"]
    codes = [struct.unpack(">2H", each[4:8]) for each in colours if each[:4] == b"nclx" and len(each) >= 8]
    return ColourCodes(*codes[0]) if len(codes) == len(colours) == 1 else None


def _meta(file: File) -> bytes:
    """The body of the box that describes the images."""
    for kind, at, size in boxes_of(file):
        if kind == b"meta" and size <= _MOST_BYTES:
            file.seek(at)
            return file.read(size)
    raise KeyError


def boxes_of(file: File) -> Iterator[tuple[bytes, int, int]]:
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


def boxes_in(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes side by side in a body, by kind."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8:  # none is so long that it needs more digits, and the last may claim the rest
            size = len(data) - at
        yield kind, data[at + 8 : at + size]
        at += size


def _places(ipma: bytes, item: int) -> list[int]:
    """Which properties, counted from 1, an item has (ISO/IEC 23008-12, 9.3.1)."""
    wide_item, wide_place = bool(ipma[0]), bool(ipma[3] & 1)
    at = 8
    for _ in range(min(struct.unpack_from(">I", ipma, 4)[0], _MOST_BOXES)):
        number = struct.unpack_from(">I" if wide_item else ">H", ipma, at)[0]
        at += 4 if wide_item else 2
        count, form = ipma[at], "H" if wide_place else "B"
        found = struct.unpack_from(f">{count}{form}", ipma, at + 1)
        at += 1 + count * (2 if wide_place else 1)
        if number == item:
            # the top bit says whether it is essential
            return [place & (0x7FFF if wide_place else 0x7F) for place in found]
    return []
