"""What a file says beside its pixels, in the form that each kind of file holds."""

from collections.abc import Iterable
from typing import NamedTuple

from knowhue.inference.files.stale import blocks_without_thumbnail, exif_without_thumbnail, true_xmp

Fields = Iterable[tuple[str, bytes | str]]

_HOLDS = {
    ".jpg": ("exif-data", "xmp-data", "iptc-data"),
    ".png": ("exif-data", "xmp-data", "png-comment"),
    ".tif": ("exif-data", "xmp-data", "iptc-data", "photoshop-data", "image-description"),
    ".webp": ("exif-data", "xmp-data"),
    ".avif": ("exif-data", "xmp-data"),
}
_WORDS = {
    "exif-data": "EXIF",
    "xmp-data": "XMP",
    "iptc-data": "IPTC",
    "photoshop-data": "Photoshop's blocks",
    "image-description": "its description",
    "png-comment": "comments",
}
_JPEG_BLOCK = 65_500  # bytes of a JPEG marker, less what libvips puts before
_PHOTOSHOP = b"Photoshop 3.0\0"
_IPTC_BLOCK = b"8BIM\x04\x04\0\0"


class Kept(NamedTuple):
    """What goes along into a kind of file.

    Attributes:
        fields: by their names in libvips.
        notes: what does not, in words.
    """

    fields: dict[str, bytes | str]
    notes: tuple[str, ...]


def keep(fields: Fields, suffix: str, height: int, width: int) -> Kept:
    """Choose what a kind of file can hold and is still true.

    JPEG keeps IPTC (IPTC-IIM 4.2) within Photoshop's blocks, TIFF beside them; either is turned into the other.
    Orientation and size in XMP are set right. Thumbnails, and what XMP says of things that are not written, go.

    Args:
        fields: of an `Origin`.
        suffix: `.jpg`, `.png`, `.tif`, `.webp` or `.avif`.
        height: of the image, upright.
        width: likewise.
    """
    found, lost = _true(dict(fields), height, width)
    if suffix == ".jpg":
        found = _for_jpeg(found)
    elif suffix == ".tif":
        found = _for_tiff(found)
    kept: dict[str, bytes | str] = {}
    for name, value in found.items():
        if not name.startswith(_HOLDS[suffix]):
            lost.append(f"{_word(name)} left out: {suffix} cannot hold that")
        elif suffix == ".jpg" and len(value) > _JPEG_BLOCK:
            lost.append(
                f"{_word(name)} left out: {suffix} holds {_JPEG_BLOCK:,} bytes of it, not {len(value):,}"
            )
        else:
            kept[name] = value
    return Kept(kept, tuple(dict.fromkeys(lost)))


def _true(found: dict[str, bytes | str], height: int, width: int) -> tuple[dict[str, bytes | str], list[str]]:
    """Fields without what would lie, and a note on what a user may miss."""
    announced: tuple[str, ...] = ()
    for name, value in found.items():
        if not isinstance(value, bytes):
            continue
        if name == "exif-data":
            found[name] = exif_without_thumbnail(value)
        elif name in ("iptc-data", "photoshop-data"):
            found[name] = blocks_without_thumbnail(value)
        elif name == "xmp-data":
            found[name], announced = true_xmp(value, height, width)
    note = f"XMP no longer announces {', '.join(announced)}, which the file does not hold"
    return {name: value for name, value in found.items() if value}, [note] * bool(announced)


def _word(name: str) -> str:
    word = next(word for start, word in _WORDS.items() if name.startswith(start))
    return f"{word} {'were' if word.endswith('s') else 'was'}"


def _for_jpeg(found: dict[str, bytes | str]) -> dict[str, bytes | str]:
    blocks, iptc = found.pop("photoshop-data", None), found.get("iptc-data")
    if isinstance(blocks, bytes):
        return found | {"iptc-data": _PHOTOSHOP + blocks}
    if isinstance(iptc, bytes) and not iptc.startswith(_PHOTOSHOP):
        length = len(iptc).to_bytes(4, "big")
        return found | {"iptc-data": _PHOTOSHOP + _IPTC_BLOCK + length + iptc + b"\0" * (len(iptc) % 2)}
    return found


def _for_tiff(found: dict[str, bytes | str]) -> dict[str, bytes | str]:
    iptc = found.pop("iptc-data", None)
    if isinstance(iptc, bytes) and iptc.startswith(_PHOTOSHOP):
        found["photoshop-data"] = iptc[len(_PHOTOSHOP) :]
        iptc = _iptc(iptc[len(_PHOTOSHOP) :])
    if isinstance(iptc, bytes):  # libvips 8.18 writes a fourth: it counts in words, libtiff in bytes
        found["iptc-data"] = iptc.ljust(4 * len(iptc), b"\0")
    return found


def _iptc(blocks: bytes) -> bytes | None:
    """The IPTC records among Photoshop's blocks, if they are there."""
    start = blocks.find(_IPTC_BLOCK)
    if start < 0:
        return None
    start += len(_IPTC_BLOCK)
    records = blocks[start + 4 : start + 4 + int.from_bytes(blocks[start : start + 4], "big")]
    return records or None
