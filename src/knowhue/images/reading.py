"""Reads any image file as an upright sRGB image in its own bit depth, with its metadata, after checking size limits.

A file's format is detected from its first bytes, never from its name. Only the libvips loader of that format sees the
data; Pillow reads the formats that libvips does not.
"""

import importlib
import importlib.util
import io
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from knowhue.arguments import checked_arguments
from knowhue.errors import ExtraError, ImageError, first_line, minus, plural
from knowhue.images.containers import (
    File,
    FileInfo,
    bmp_info,
    gif_info,
    heif_info,
    jpeg_2000_info,
    jpeg_info,
    png_info,
    read_deep_pnm,
    resolution_of,
)
from knowhue.images.image import FORMATS, Image, Origin, broken_link, recognise
from knowhue.images.metadata import Fields, xmp_orientation
from knowhue.images.profiles import to_srgb
from knowhue.images.tiff import RAW, PageChoice, choose_page, exif_orientation, exif_resolution, tiff_info
from knowhue.images.vips import VipsError, VipsImage, array_of, get_field, load, reason

MAX_PIXELS = 200_000_000
HEAD_BYTES = 1 << 16
_SEQUENCES = (b"ftypavis", b"ftypmsf1", b"ftyphevc", b"ftyphevx")
"""File types of AVIF and HEIC files with an image sequence (ISO/IEC 23008-12)."""
_RAW_START = re.compile(
    rb"FUJIFILMCCD-RAW|IIRO|IIRS|MMOR|IIU\0|II\x1a\0\0\0HEAPCCDR|.{4}ftypcrx |FOVb|\0MRM", re.DOTALL
)
"""First bytes of raw files of Fujifilm, Olympus, Panasonic, Canon, Sigma and Minolta; others begin like TIFF."""
_OVERSHOOT = 1.25
"""Factor by which floating-point values may exceed their range: resampling overshoots at edges by up to a fifth."""
_HEIC_DECODER = "pillow_heif"
_COPIES = 3
"""Copies of the pixels in memory at the peak: the decoded, the coloured, and the one that is encoded."""


class _LargeImageError(ImageError):
    """The image has more than `max_pixels` pixels."""


@checked_arguments
def read_image(
    source: str | Path | bytes,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
    file_name: str | None = None,
) -> Image:
    """Read an image: upright, in sRGB, in its own bit depth, with its metadata.

    If a file has several frames or pages, the first that is not a preview is read, and a note says so. Camera raw
    files, which hold sensor values and previews, are refused. 8 and 16 bits are kept; other bit depths become 16.
    Floating-point values are read as sRGB codes from 0 to 1, 255 or 65535, and 32-bit integers as codes of 8, 16 or
    32 bits: the smallest range that holds all values, where floating-point values may overshoot by a quarter.

    Args:
        source: a file, or its bytes.
        max_pixels: larger images are refused before they are decoded.
        name: beginning of messages; if None, the file's path; if empty, messages have none.
        file_name: name of the file that the bytes are from, if known.

    Raises:
        ImageError: the file is missing, too large, damaged, truncated, or not an image of intensities.
        ExtraError: it is HEIC and the decoder is not installed.
        ArgumentError: an argument has the wrong type.
    """
    if isinstance(source, str):
        source = Path(source)
    try:
        with open_file(source) as file:
            head = file.read(HEAD_BYTES)
            kind = _kind(head)
            decoded = _decode(file, kind, max_pixels)
        if head[4:12] in _SEQUENCES:  # libheif reports the still image alone
            decoded.info.notes.append("the first image of a sequence")
        suffixes = FORMATS[kind].suffixes
        if isinstance(source, Path):
            file_name = source.name
        if file_name is not None and PurePath(file_name).suffix.lower() not in suffixes:
            decoded.info.notes.append(f"it is {kind}, whatever its name says")
        is_lossless = kind == "WebP" and b"VP8L" in head  # name of the chunk with lossless pixels
        return _to_image(decoded, suffixes[0], is_lossless)
    except (ImageError, ExtraError) as error:
        if name is None:
            name = str(source) if isinstance(source, Path) else "the image"
        # no such advice for bytes, because they may come from a client of the server
        in_python = isinstance(error, _LargeImageError) and isinstance(source, Path)
        remedy = ", or read it in Python with a larger `max_pixels`" if in_python else ""
        raise type(error)(f"{name}: {error}{remedy}" if name else f"{error}{remedy}") from None


class Weight(NamedTuple):
    """What an image needs, estimated from its header."""

    held_bytes: int = 0
    """approximate peak memory for reading, colouring and encoding it, bytes; 0 if it is not an image"""
    shape: tuple[int, int] | None = None
    """height and width of the upright image, pixels; None if the header does not give them"""


def is_image(file: Path) -> bool:
    """Whether a file begins like an image of a known format; False if it cannot be read."""
    try:
        with file.open("rb") as opened:
            return recognise(opened.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def weigh_image(source: Path | bytes) -> Weight:
    """What an image needs, from its header alone. Never fails: `read_image` reports what is wrong with it."""
    try:
        with open_file(source) as file:
            kind = recognise(file.read(HEAD_BYTES))
            if kind is None:
                return Weight()
            if not FORMATS[kind].loader:  # for Pillow's formats, estimated from the file size
                held_bytes = _COPIES * file.seek(0, io.SEEK_END) * FORMATS[kind].packed
                return Weight(held_bytes, _shape_by_pillow(file, kind))
            image = _load(file, kind, _page_of(file, kind))
            depth_bytes = 1 if image.format == "uchar" else 2
            held_bytes = _COPIES * image.width * image.height * max(image.bands, 3) * depth_bytes
            shape, orientation = (image.height, image.width), get_field(image, "orientation") or 0
            return Weight(held_bytes, _upright(shape, orientation, _metadata_of(image), file, kind))
    except (ImageError, OSError, VipsError):
        return Weight()


def _shape_by_pillow(file: File, kind: str) -> tuple[int, int] | None:
    if not FORMATS[kind].plugin:  # the HEIC decoder would read more than the header
        return None
    # damaged files raise all kinds of exceptions, see `_decode_by_pillow`
    with suppress(Exception), _open_by_pillow(file, kind, sys.maxsize) as image:
        return _upright((image.height, image.width), image.getexif().get(0x0112, 0), {}, file, kind)
    return None


def _upright(shape: tuple[int, int], given: int, metadata: Fields, file: File, kind: str) -> tuple[int, int]:
    """Height and width of the upright image, by the decoder's orientation or else the metadata's."""
    if kind in _ORIENTED_BY_METADATA:
        metadata = metadata | _INFO_READERS[kind](file).metadata
    return (shape[1], shape[0]) if _orientation(given, metadata, kind) in _SIDEWAYS else shape


def open_file(source: Path | bytes) -> File:
    """Open a file, or its bytes, for reading; an `ImageError` if it is missing, unreadable or not a regular file."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    # unlike the methods of `Path`, they raise nothing for a name that is too long
    if os.path.isdir(source):
        raise ImageError("it is a folder; name a file in it")
    if os.path.exists(source) and not os.path.isfile(source):  # opening a pipe would block
        raise ImageError("it is a device or a pipe; save it as a file first")
    try:
        # unbuffered, because libvips reads from the descriptor itself
        return source.open("rb", buffering=0)
    except FileNotFoundError:
        why = broken_link(source) if source.is_symlink() else "no such file or directory"
        raise ImageError(why) from None
    except OSError as error:
        raise ImageError(f"it cannot be read: {error.strerror}") from None


def readable_formats() -> list[str]:
    """The keys of `FORMATS` that can be read: HEIC only if its decoder is installed."""
    return [kind for kind in FORMATS if kind != "HEIC" or importlib.util.find_spec(_HEIC_DECODER)]


def _kind(head: bytes) -> str:
    """The key of `FORMATS` of a file; an `ImageError` if it is not an image that can be read."""
    if _RAW_START.match(head):
        raise ImageError(RAW)
    if not head:
        raise ImageError("it is an empty file; copy it again from where it came from")
    kind = recognise(head)
    if kind is None:
        raise ImageError(
            f"it is none of {', '.join(readable_formats())}, or its first bytes are damaged; save it as one of these"
        )
    return kind


def _check_size(max_pixels: int, width: int, height: int) -> None:
    if width * height > max_pixels:
        raise _LargeImageError(
            f"it has {width} x {height} = {width * height:,} pixels, more than {max_pixels:,}; make it smaller"
        )


def _damaged(kind: str, why: str) -> ImageError:
    return ImageError(
        f"the {kind} image is damaged or cut short ({why}); copy it again from where it came from"
    )


# Decoding


@dataclass
class Decoded:
    """A decoded file."""

    values: NDArray[Any]
    """(H, W, C), not upright, in the file's colour space"""
    interpretation: str
    """libvips' name of the colour space"""
    bits: int
    """bits per channel in the file"""
    orientation: int = 0
    """EXIF orientation, 1 to 8; 0 if the decoder does not report it"""
    alpha: int | None = 0
    """index of the transparency among the channels after the colours; None if there is none"""
    info: FileInfo = field(default_factory=FileInfo)
    """what the decoder reports besides the pixels, and later also what it leaves unread"""


_INFO_READERS: Mapping[str, Callable[[File], FileInfo]] = {
    "JPEG": jpeg_info,
    "PNG": png_info,
    "TIFF": tiff_info,
    "GIF": gif_info,
    "AVIF": heif_info,
    "HEIC": heif_info,
    "BMP": bmp_info,
    "JPEG 2000": jpeg_2000_info,
}
"""Readers of what decoders leave unread or report wrongly, by format."""
_ORIENTED_BY_METADATA = ("PNG", "GIF", "JPEG 2000")
"""Formats whose orientation is in metadata that the decoder does not read."""
_ORIENTED_BY_DECODER = ("AVIF", "HEIC")
"""Formats with an orientation of their own, which overrides that of EXIF (ISO/IEC 23000-22, 7.3.6)."""


def _decode(file: File, kind: str, max_pixels: int) -> Decoded:
    decode = _decode_by_vips if FORMATS[kind].loader else _decode_by_pillow
    decoded = decode(file, kind, max_pixels)
    info, reported = _INFO_READERS[kind](file) if kind in _INFO_READERS else FileInfo(), decoded.info
    info.profile = reported.profile or info.profile
    info.metadata = reported.metadata | info.metadata
    by_exif = exif_resolution(info.metadata.get("exif-data", b""))
    info.pixels_per_mm = info.pixels_per_mm or by_exif or reported.pixels_per_mm
    info.notes = reported.notes + info.notes
    decoded.info = info
    decoded.orientation = _orientation(decoded.orientation, info.metadata, kind)
    return decoded


def _orientation(given: int, metadata: Fields, kind: str) -> int:
    """Orientation 1 to 8 as the decoder reports it, or else from EXIF, or else from XMP."""
    if given or kind in _ORIENTED_BY_DECODER:
        return given or 1
    exif, xmp = (metadata.get(name, b"") for name in ("exif-data", "xmp-data"))
    return exif_orientation(exif) or xmp_orientation(xmp) or 1


def _page_of(file: File, kind: str) -> PageChoice:
    return choose_page(file) if kind == "TIFF" else PageChoice()


def _load(file: File, kind: str, page: PageChoice) -> VipsImage:
    file.seek(0)
    # libvips' own limits would refuse large images in few strips
    options = {**page.options, "unlimited": True} if kind == "TIFF" else {}
    return load(FORMATS[kind].loader, file, **options)


_METADATA = ("exif-data", "xmp-data", "iptc-data", "photoshop-data")


def _metadata_of(image: VipsImage) -> Fields:
    return {name: value for name in _METADATA if (value := get_field(image, name)) is not None}


def _decode_by_vips(file: File, kind: str, max_pixels: int) -> Decoded:
    """Decode with libvips, or with Pillow the rare TIFFs that libvips does not read."""
    page = _page_of(file, kind)
    try:
        image = _load(file, kind, page)
    except VipsError as error:
        # Pillow can only read the first page
        if kind != "TIFF" or page.options:
            raise _damaged(kind, reason(error)) from None
        return _decode_by_pillow(file, kind, max_pixels)
    _check_size(max_pixels, image.width, image.height)  # so far, libvips has only read the header
    try:
        values = array_of(image)
    except VipsError as error:
        raise _damaged(kind, reason(error)) from None
    bits = get_field(image, "bits-per-sample") or 8 * values.itemsize
    if 8 < bits < 16 and values.dtype == np.uint16:
        values = values | values >> bits  # libvips leaves the low bits 0, which would make white gray
    decoded = Decoded(values, str(image.interpretation), bits, get_field(image, "orientation") or 0)
    info = decoded.info
    info.profile, info.metadata = get_field(image, "icc-profile-data"), _metadata_of(image)
    has_unit = get_field(image, "resolution-unit") is not None  # otherwise it can be a default of libvips
    info.pixels_per_mm = resolution_of(image.xres, image.yres, 1 if has_unit else None)
    decoded.alpha = page.alpha
    info.notes += page.notes
    if not page.notes and (pages := get_field(image, "n-pages") or 1) > 1:
        info.notes.append(f"the first of its {pages} {FORMATS[kind].frames}")
    return decoded


def _decode_by_pillow(file: File, kind: str, max_pixels: int) -> Decoded:
    """Decode BMP, JPEG 2000, PNM, rare TIFFs, and HEIC if its decoder is installed."""
    try:
        with _open_by_pillow(file, kind, max_pixels) as image:
            return _pillow_decoded(image, read_deep_pnm(image, file) if kind == "PNM" else None)
    except (ImageError, ExtraError):
        raise
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
        if str(error) == "unknown pixel mode":  # of intact TIFFs with 64-bit or complex numbers
            raise ImageError(
                "no decoder reads its type of values; save it with 8, 16 or 32 bits per channel"
            ) from None
        raise _damaged(kind, first_line(error)) from None


def _open_by_pillow(file: File, kind: str, max_pixels: int) -> Pillow.Image:
    file.seek(0)
    if kind != "HEIC":
        Pillow.init()
        image = Pillow.OPEN[FORMATS[kind].plugin][0](file, "")  # Pillow's `open` has its own size limit
        _check_size(max_pixels, *image.size)
        return image
    try:
        decoder = importlib.import_module(_HEIC_DECODER)
    except ImportError:
        raise ExtraError("HEIC needs a decoder: pip install pillow-heif; or save the image as JPEG") from None
    opened = decoder.open_heif(file)
    _check_size(max_pixels, *opened.size)
    return opened.to_pillow()


def _pillow_decoded(image: Pillow.Image, deep: NDArray[Any] | None = None) -> Decoded:
    exif = image.getexif()
    values, interpretation = _pillow_values(image) if deep is None else (deep, "rgb16")
    decoded = Decoded(values, interpretation, 8 if image.mode == "LAB" else 8 * values.itemsize)
    # libheif and Pillow's TIFF reader return upright images
    decoded.orientation = 1 if image.format in ("HEIF", "TIFF") else exif.get(0x0112, 0)
    info = decoded.info
    info.profile = image.info.get("icc_profile")
    if image.info.get("exif"):
        info.metadata["exif-data"] = exif.tobytes()
    tags = getattr(image, "tag_v2", {})
    blocks = {"xmp-data": image.info.get("xmp")} | {name: tags.get(tag) for tag, name in _TIFF_BLOCKS.items()}
    info.metadata |= {name: value for name, value in blocks.items() if isinstance(value, bytes)}
    across, down = map(float, image.info.get("dpi", (0, 0)))
    info.pixels_per_mm = resolution_of(across, down, 25.4)
    return decoded


_TIFF_BLOCKS = {33723: "iptc-data", 34377: "photoshop-data"}
_PILLOW_MODES = {"1": "L", "LA": "LA", "La": "LA", "CMYK": "CMYK", "RGBa": "RGBA", "RGBA": "RGBA"}


def _pillow_values(image: Pillow.Image) -> tuple[NDArray[Any], str]:
    """Values (H, W, C) and libvips' name of their colour space."""
    if image.mode == "LAB":
        codes = np.asarray(image).astype(np.float32)
        # Pillow returns signed bytes as unsigned
        signed = np.where(codes[..., 1:] > 127, codes[..., 1:] - 256, codes[..., 1:])
        return np.dstack([codes[..., :1] * np.float32(100 / 255), signed]), "lab"
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        # Pillow opens some 16-bit gray images as 32-bit integers
        if image.mode == "I" and values.min() >= 0 and values.max() <= 65535:
            values = values.astype(np.uint16)
        return values[..., None], "grey16"
    default = "RGBA" if image.has_transparency_data else "L" if image.mode == "L" else "RGB"
    mode = _PILLOW_MODES.get(image.mode, default)
    values = np.asarray(image.convert(mode))
    return values.reshape(*values.shape[:2], -1), {"L": "b-w", "LA": "b-w", "CMYK": "cmyk"}.get(mode, "srgb")


# From decoded values to an image

_COLOURS = {"cmyk": 4, "b-w": 1, "grey16": 1}
_SIDEWAYS, _UPSIDE_DOWN, _MIRRORED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)
"""EXIF orientations (CIPA DC-008, 4.6.5.1.6): rows and columns swapped; and then the last row first, column first."""


def _to_image(decoded: Decoded, suffix: str, is_lossless: bool) -> Image:
    """An upright sRGB image from decoded values."""
    interpretation, info = decoded.interpretation, decoded.info
    space, notes = info.colours if info.profile is None else (None, ())
    info.notes += notes
    is_lab = interpretation.startswith("lab")
    values = decoded.values if is_lab else _to_codes(decoded.values, info.notes)
    values = _turned_upright(values, decoded.orientation)
    count = _COLOURS.get(interpretation, 1 if values.shape[2] < 3 else 3)
    pixels, further = np.ascontiguousarray(values[..., :count]), values.shape[2] - count
    place = None if is_lab or decoded.alpha is None or decoded.alpha >= further else count + decoded.alpha
    alpha = None if place is None else np.ascontiguousarray(values[..., place])
    if left := further - (alpha is not None):
        info.notes.append(f"{plural(left, 'further channel')} {'was' if left == 1 else 'were'} left out")
    bits = 8 if min(decoded.bits, 8 * values.itemsize) <= 8 else 16
    pixels, profile, notes = to_srgb(pixels, interpretation, info.profile, bits, space)
    info.notes += notes
    resolution = info.pixels_per_mm
    if resolution and decoded.orientation in _SIDEWAYS:
        resolution = resolution[1], resolution[0]
    metadata, texts = tuple(info.metadata.items()), tuple(info.texts)
    notes = tuple(info.notes)
    origin = Origin(suffix, profile, metadata, texts, resolution, decoded.bits, is_lossless, notes)
    return Image(pixels, alpha, origin)


def _turned_upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    values = values.swapaxes(0, 1) if orientation in _SIDEWAYS else values
    return values[:: -1 if orientation in _UPSIDE_DOWN else 1, :: -1 if orientation in _MIRRORED else 1]


def _to_codes(values: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    """Values as uint8 or uint16; appends sentences on conversions to `notes`."""
    if values.dtype in (np.uint8, np.uint16):
        return values
    if values.dtype == np.uint32:
        bits = max(8, 1 << (int(values.max()).bit_length() - 1).bit_length())  # 8, 16 or 32
        notes.append(f"32-bit values were {'cut to 16 bits' if bits == 32 else f'read as {bits}-bit ones'}")
        return values.astype(np.uint8) if bits == 8 else (values >> max(0, bits - 16)).astype(np.uint16)
    if values.dtype.kind != "f":
        raise ImageError(
            f"its values are signed ({values.dtype}), not intensities; save it with unsigned values"
        )
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ImageError("some of its values are NaN or infinite; replace them")
    top = next((each for each in (1, 255) if high <= _OVERSHOOT * each), 65535)
    notes.append(f"floating-point values were read as 0 to {top}, sRGB-encoded, in 16 bits")
    if low < 0 or high > top:
        notes.append(minus(f"values from {low:g} to {high:g} were clipped to that range"))
    return (values.clip(0, top) * (65535 / top)).round().astype(np.uint16)
