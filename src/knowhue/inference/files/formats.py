"""What a file is, told by its first bytes and never by its name: which decoder may see it, and what else it says."""

import struct
from collections.abc import Mapping
from typing import NamedTuple

from knowhue.image_files import SUFFIXES_OF

HEAD_BYTES = 1 << 16


class Format(NamedTuple):
    """A format that can be read.

    Attributes:
        suffixes: of its files; the first is the usual one.
        loader: in libvips; none if Pillow reads it.
        plugin: name of Pillow's reader, for what libvips does not read.
        frames: what its pages are called.
    """

    suffixes: tuple[str, ...]
    loader: str = ""
    plugin: str = ""
    frames: str = "frames"


FORMATS: Mapping[str, Format] = {
    "JPEG": Format(SUFFIXES_OF["JPEG"], "jpegload"),
    "PNG": Format(SUFFIXES_OF["PNG"], "pngload"),
    "TIFF": Format(SUFFIXES_OF["TIFF"], "tiffload", "TIFF", "pages"),
    "WebP": Format(SUFFIXES_OF["WebP"], "webpload"),
    "GIF": Format(SUFFIXES_OF["GIF"], "gifload"),
    "AVIF": Format(SUFFIXES_OF["AVIF"], "heifload", frames="images"),
    "HEIC": Format(SUFFIXES_OF["HEIC"]),
    "BMP": Format(SUFFIXES_OF["BMP"], plugin="BMP"),
    "JPEG 2000": Format(SUFFIXES_OF["JPEG 2000"], plugin="JPEG2000"),
    "PNM": Format(SUFFIXES_OF["PNM"], plugin="PPM"),
}
"""Formats by name."""

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    **{b"P%d" % kind: "PNM" for kind in range(1, 7)},
}
_RAW_STARTS = (
    b"FUJIFILMCCD-RAW",
    b"IIRO",
    b"IIRS",
    b"MMOR",
    b"IIU\0",
    b"II\x1a\0\0\0HEAPCCDR",
    b"FOVb",
    b"\0MRM",
)
"""How raw files of Fujifilm, Olympus, Panasonic, Canon, Sigma and Minolta begin; others begin as TIFF."""
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def recognise(head: bytes) -> str | None:
    r"""The key of `FORMATS` that data begin as, None if they begin as none.

    >>> recognise(b"GIF89a...")
    'GIF'
    >>> recognise(b"<svg>") is None
    True
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        brands = head[8 : max(12, int.from_bytes(head[:4], "big"))]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        return "HEIC" if any(brand in brands for brand in _HEIF_BRANDS) else None
    return next((name for start, name in _SIGNATURES.items() if head.startswith(start)), None)


def is_raw(head: bytes) -> bool:
    """Whether data begin as a camera's raw file that is no TIFF."""
    return head.startswith(_RAW_STARTS) or head[4:12] == b"ftypcrx "


def is_lossless(name: str, head: bytes) -> bool:
    """Whether a format that has both ways of coding was used without loss."""
    return name == "WebP" and b"VP8L" in head


def animated_png_frames(head: bytes) -> int:
    """Frames that an animated PNG announces before its still image, 1 if it is not one."""
    place = 8
    while place + 16 <= len(head):
        length, kind = struct.unpack_from(">I4s", head, place)
        if kind == b"acTL":
            return int.from_bytes(head[place + 8 : place + 12], "big")
        if kind == b"IDAT":
            break
        place += 12 + length
    return 1
