"""Metadata that would lie about a coloured image: thumbnails of the gray one, and what was not written along."""

import re
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple
from xml.dom import minidom
from xml.parsers.expat import ExpatError

_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
_BLOCKS = b"Photoshop 3.0\0"
_THUMBNAILS = (0x0409, 0x040C)  # among Photoshop's blocks
_XMP_NUMBER = rb"""(%s(?:\s*=\s*["']|>)\s*)\d+"""
_WIDE = (b"\xff\xfe", b"\xfe\xff")  # UTF-16
_CAMERA = "http://ns.google.com/photos/1.0/camera/"


class _Claim(NamedTuple):
    """Names in XMP that announce what is not written.

    Attributes:
        space: how their namespace begins.
        names: how they begin; empty for all of them.
        what: is announced; empty where there is nothing to tell.
    """

    space: str
    names: tuple[str, ...] = ()
    what: str = ""


_CLAIMS = (
    _Claim("http://ns.adobe.com/hdr-gain-map/", (), "a gain map"),
    _Claim("http://ns.apple.com/HDRGainMap/", (), "a gain map"),
    _Claim("http://ns.apple.com/pixeldatainfo/", (), "a gain map"),
    _Claim("http://ns.google.com/photos/1.0/container/", (), "further images or a film in the file"),
    _Claim(_CAMERA, ("MotionPhoto", "MicroVideo"), "a motion photo's film"),
    _Claim("http://ns.google.com/photos/1.0/image/", (), "another version of the image"),
    _Claim("http://ns.google.com/photos/1.0/depthmap/", (), "a depth map"),
    _Claim("http://ns.google.com/photos/1.0/audio/", (), "sound"),
    _Claim("http://ns.google.com/photos/dd/", (), "a depth map"),
    _Claim("http://ns.adobe.com/xmp/note/", ("HasExtendedXMP",), "more XMP in another place"),
    _Claim("http://ns.adobe.com/xap/1.0/", ("Thumbnails",)),
)


def exif_without_thumbnail(block: bytes) -> bytes:
    """EXIF whose second directory, the thumbnail's (CIPA DC-008, 4.5.4), is cut off; damaged EXIF as it is."""
    start = 6 if block.startswith(b"Exif\0\0") else 0
    order = _TIFF.get(block[start : start + 4])
    try:
        if order is None:
            return block
        first = start + struct.unpack_from(f"{order}I", block, start + 4)[0]
        link = first + 2 + 12 * struct.unpack_from(f"{order}H", block, first)[0]
        second = struct.unpack_from(f"{order}I", block, link)[0]
    except struct.error:
        return block
    return block[:link] + bytes(4) + block[link + 4 :] if second else block


def blocks_without_thumbnail(blocks: bytes) -> bytes:
    """Photoshop's image resource blocks, with or without what JPEG puts before them."""
    start = len(_BLOCKS) if blocks.startswith(_BLOCKS) else 0
    found = list(_blocks(blocks, start))
    if not any(kind in _THUMBNAILS for kind, _, _ in found):
        return blocks
    kept = (blocks[begin:end] for kind, begin, end in found if kind not in _THUMBNAILS)
    return blocks[:start] + b"".join(kept)


def _blocks(blocks: bytes, place: int) -> Iterator[tuple[int, int, int]]:
    """Kind, beginning and end of each block; what cannot be read is one of kind 0."""
    while place < len(blocks):
        begin = place
        try:
            mark, kind, length = struct.unpack_from(">4sHB", blocks, place)
            place += 6 + (length + 2) // 2 * 2
            size = struct.unpack_from(">I", blocks, place)[0]
        except struct.error:
            mark, kind, size = b"", 0, 0
        place += 4 + (size + 1) // 2 * 2
        if mark != b"8BIM" or place > len(blocks):
            yield 0, begin, len(blocks)
            return
        yield kind, begin, place


def true_xmp(xmp: bytes, height: int, width: int) -> tuple[bytes, tuple[str, ...]]:
    """XMP (ISO 16684-1) that announces nothing that is not in the file, and what went, in words.

    What it says of orientation and size is set right. What is true is kept byte by byte if all of it is. XMP that
    cannot be read and names one of those spaces goes.

    Args:
        xmp: a packet.
        height: of the image, upright.
        width: likewise.
    """
    numbers = {b"tiff:Orientation": 1}
    numbers |= dict.fromkeys((b"tiff:ImageWidth", b"exif:PixelXDimension"), width)
    numbers |= dict.fromkeys((b"tiff:ImageLength", b"exif:PixelYDimension"), height)
    for name, number in numbers.items():
        xmp = re.sub(_XMP_NUMBER % name, rb"\g<1>%d" % number, xmp)
    try:
        if b"<!DOCTYPE" in xmp:
            raise ExpatError
        document = minidom.parseString(xmp if xmp.startswith(_WIDE) else xmp.rstrip(b"\0"))
    except (ExpatError, ValueError, LookupError):
        plain = xmp.replace(b"\0", b"")
        told = [claim.what for claim in _CLAIMS if not claim.names and claim.space.encode() in plain]
        return (b"" if told else xmp), tuple(dict.fromkeys(told))
    gone = list(_prune(document))
    if not gone:
        return xmp, ()
    return document.toxml("utf-8"), tuple(dict.fromkeys(what for what in gone if what))


def _prune(node: Any) -> Iterator[str]:
    """Take out what is announced below a node."""
    for child in list(node.childNodes):
        claim = _claim(child)
        if claim is not None:
            node.removeChild(child)
            yield claim.what
            continue
        for each in list((child.attributes or {}).values()):
            if (claim := _claim(each)) is not None:
                child.removeAttributeNode(each)
                yield claim.what
        yield from _prune(child)


def _claim(node: Any) -> _Claim | None:
    space, name = node.namespaceURI or "", node.localName or ""
    return next(
        (
            claim
            for claim in _CLAIMS
            if space.startswith(claim.space) and (not claim.names or name.startswith(claim.names))
        ),
        None,
    )
