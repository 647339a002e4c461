"""Any image file to an upright image in sRGB, in its own depth: limits first, nothing of what the file says lost.

The kind of a file is known by its first bytes, never by its name. One loader of libvips, named by those bytes, sees the
data; Pillow reads what libvips does not.
"""

import importlib
import importlib.util
import io
import math
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
    Beside,
    File,
    deep_pnm,
    of_bmp,
    of_gif,
    of_heif,
    of_jpeg,
    of_jpeg_2000,
    of_png,
    without_unit,
)
from knowhue.images.image import FORMATS, Image, Origin, Resolution, Texts, dangling, recognise
from knowhue.images.metadata import Fields, xmp_orientation
from knowhue.images.profiles import RGBSpace, to_srgb
from knowhue.images.tiff import RAW, Choice, choose_page, exif_orientation, exif_resolution, of_tiff
from knowhue.images.vips import VipsError, VipsImage, array_of, attached, load, reason

MAX_PIXELS = 200_000_000
HEAD_BYTES = 1 << 16
_SEQUENCES = (b"ftypavis", b"ftypmsf1", b"ftyphevc", b"ftyphevx")
"""How files of AVIF and HEIC begin that hold a sequence of images (ISO/IEC 23008-12)."""
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
_OVERSHOOT = 1.25
"""By how much floating-point values may exceed their range's top: resampled edges and corners do by up to a fifth."""
_HEIC_DECODER = "pillow_heif"
_COPIES = 3
"""Of its pixels, at the worst moment: what was read, what is painted, what is encoded."""


class _LargeImageError(ImageError):
    """It has more pixels than are read."""


@checked_arguments
def read_image(
    source: str | Path | bytes,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
    file_name: str | None = None,
) -> Image:
    """Read an image: upright, in sRGB, in its own depth, with what else its file says.

    Of several frames or pages the first is read, with a note, unless that is a preview of another. Raw files of
    cameras, which hold previews and a sensor's values, are refused. 8 bits stay 8, 16 stay 16; other depths become 16.
    Floating-point values are taken for sRGB-encoded ones of 0 to 1, to 255 or to 65535, 32-bit ones for those of 8, 16
    or 32 bits: the first range that holds all of them, but for what resampling makes overshoot a floating-point one.

    Args:
        source: a file, or the bytes of one.
        max_pixels: refused above, from the header alone.
        name: what messages begin with; the file's path if None, nothing if empty.
        file_name: of the file that bytes are from, where that is known.

    Raises:
        ImageError: the file is missing, no image, damaged, cut short, too large, or holds no intensities.
        ExtraError: it is HEIC and the decoder is not installed.
        ArgumentError: an argument is of another type.
    """
    if isinstance(source, str):
        source = Path(source)
    try:
        with open_file(source) as file:
            head = file.read(HEAD_BYTES)
            kind = _kind(head)
            decoded = _decode(file, kind, max_pixels)
        if head[4:12] in _SEQUENCES:  # libheif shows the still image alone
            decoded.notes.append("the first image of a sequence")
        suffixes = FORMATS[kind].suffixes
        if isinstance(source, Path):
            file_name = source.name
        if file_name is not None and PurePath(file_name).suffix.lower() not in suffixes:
            decoded.notes.append(f"it is {kind}, whatever its name says")
        is_lossless = kind == "WebP" and b"VP8L" in head  # the chunk of lossless pixels
        return _to_image(decoded, suffixes[0], is_lossless)
    except (ImageError, ExtraError) as error:
        if name is None:
            name = str(source) if isinstance(source, Path) else "the image"
        # whoever sent bytes to a server has no Python to read them in
        in_python = isinstance(error, _LargeImageError) and isinstance(source, Path)
        remedy = ", or read it in Python with a larger `max_pixels`" if in_python else ""
        raise type(error)(f"{name}: {error}{remedy}" if name else f"{error}{remedy}") from None


class Weight(NamedTuple):
    """What an image takes, from its header."""

    held_bytes: int = 0
    """that reading, painting and encoding it hold at once, about; 0 if it is no image"""
    shape: tuple[int, int] | None = None
    """height and width, upright; None where the header alone does not say"""


def is_image(file: Path) -> bool:
    """Whether a file begins as one of a known kind; not where it cannot be read."""
    try:
        with file.open("rb") as opened:
            return recognise(opened.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def weigh_image(source: Path | bytes) -> Weight:
    """What an image takes, from its header alone. Never fails: reading the image says what is wrong with it."""
    try:
        with open_file(source) as file:
            kind = recognise(file.read(HEAD_BYTES))
            if kind is None:
                return Weight()
            if not FORMATS[kind].loader:  # of Pillow's formats the file's size must do
                held_bytes = _COPIES * file.seek(0, io.SEEK_END) * FORMATS[kind].packed
                return Weight(held_bytes, _shape_by_pillow(file, kind))
            image = _load(file, kind, _page_of(file, kind))
            depth_bytes = 1 if image.format == "uchar" else 2
            held_bytes = _COPIES * image.width * image.height * max(image.bands, 3) * depth_bytes
            shape, told = (image.height, image.width), attached(image, "orientation") or 0
            return Weight(held_bytes, _upright(shape, told, _fields(image), file, kind))
    except (ImageError, OSError, VipsError):
        return Weight()


def _shape_by_pillow(file: File, kind: str) -> tuple[int, int] | None:
    if not FORMATS[kind].plugin:  # its decoder reads more than the header
        return None
    # damaged ones raise anything, see `_decode_by_pillow`
    with suppress(Exception), _open_by_pillow(file, kind, sys.maxsize) as image:
        return _upright((image.height, image.width), image.getexif().get(0x0112, 0), {}, file, kind)
    return None


def _upright(shape: tuple[int, int], told: int, metadata: Fields, file: File, kind: str) -> tuple[int, int]:
    """Height and width as they are shown, by whatever a file says where its decoder says nothing."""
    if kind in _TURNED_BESIDE:
        metadata = metadata | dict(_BESIDE[kind](file).metadata)
    return (shape[1], shape[0]) if _orientation(told, metadata, kind) in _SIDEWAYS else shape


def open_file(source: Path | bytes) -> File:
    """Open a file to be read, or its bytes, and never wait for who may write it.

    Raises:
        ImageError: it is missing or no file, or cannot be read.
    """
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if source.is_dir():
        raise ImageError("it is a folder; name a file in it")
    if source.exists() and not source.is_file():  # opening a pipe would wait for ever
        raise ImageError("it is a device or a pipe; save it as a file first")
    try:
        # libvips reads from the descriptor itself, past any buffer of Python's
        return source.open("rb", buffering=0)
    except FileNotFoundError:
        why = dangling(source) if source.is_symlink() else "no such file or directory"
        raise ImageError(why) from None
    except OSError as error:
        raise ImageError(f"it cannot be read: {error.strerror}") from None


def readable_formats() -> list[str]:
    """The keys of `FORMATS` that are read here: HEIC only where its decoder is installed."""
    return [kind for kind in FORMATS if kind != "HEIC" or importlib.util.find_spec(_HEIC_DECODER)]


def _kind(head: bytes) -> str:
    """The key of `FORMATS`, or why there is none."""
    if head.startswith(_RAW_STARTS) or head[4:12] == b"ftypcrx ":
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
    """What a decoder found: values (H, W, C) as they lie in the file, and what else of an `Origin` goes with them."""

    values: NDArray[Any]
    interpretation: str
    """libvips' name of what the values mean"""
    bits: int
    orientation: int = 0
    """1 to 8; 0 where the decoder does not say"""
    profile: bytes | None = None
    metadata: Fields = field(default_factory=dict)
    texts: Texts = ()
    pixels_per_mm: Resolution | None = None
    notes: list[str] = field(default_factory=list)
    alpha: int | None = 0
    """which of the channels beside the colours is transparency; None if none is"""
    space: RGBSpace | None = None
    """how codes are to be read where there is no profile; None if they are sRGB's"""


_BESIDE: Mapping[str, Callable[[File], Beside]] = {
    "JPEG": of_jpeg,
    "PNG": of_png,
    "TIFF": of_tiff,
    "GIF": of_gif,
    "AVIF": of_heif,
    "HEIC": of_heif,
    "BMP": of_bmp,
    "JPEG 2000": of_jpeg_2000,
}
"""What reads what decoders leave unread, by the keys of `FORMATS`."""
_TURNED_BESIDE = ("PNG", "GIF", "JPEG 2000")
"""Formats of which it is read here which way up they are."""
_TURNED_BY_DECODER = ("AVIF", "HEIC")
"""Formats whose files have orientations of their own, which count alone (ISO/IEC 23000-22, 7.3.6)."""


def _decode(file: File, kind: str, max_pixels: int) -> Decoded:
    page = _page_of(file, kind)
    if FORMATS[kind].loader:
        decoded = _decode_by_vips(file, kind, page, max_pixels)
    else:
        decoded = _decode_by_pillow(file, kind, max_pixels)
    beside = _BESIDE[kind](file) if kind in _BESIDE else Beside()
    decoded.profile = decoded.profile or beside.profile
    decoded.metadata |= dict(beside.metadata)
    by_exif = exif_resolution(decoded.metadata.get("exif-data", b""))
    told = (each for each in (beside.pixels_per_mm, by_exif, decoded.pixels_per_mm) if each)
    possible = (each for each in told if each != _NO_RESOLUTION and max(each) < _MOST_PIXELS_PER_MM)
    decoded.pixels_per_mm = next(possible, None)
    decoded.texts = beside.texts
    decoded.notes += beside.notes
    if decoded.profile is None:
        decoded.space, notes = beside.colours
        decoded.notes += notes
    decoded.orientation = _orientation(decoded.orientation, decoded.metadata, kind)
    return decoded


def _orientation(told: int, metadata: Fields, kind: str) -> int:
    """1 to 8: what the decoder says, or else EXIF, or else XMP."""
    if told or kind in _TURNED_BY_DECODER:
        return told or 1
    exif, xmp = (metadata.get(name, b"") for name in ("exif-data", "xmp-data"))
    return exif_orientation(exif) or xmp_orientation(xmp) or 1


def _page_of(file: File, kind: str) -> Choice | None:
    """Which page of a TIFF file is read; None of other files."""
    return choose_page(file) if kind == "TIFF" else None


def _load(file: File, kind: str, page: Choice | None) -> VipsImage:
    file.seek(0)
    # libvips' own limits refuse strips that hold much of a large image
    options = {} if page is None else {**page.options, "unlimited": True}
    return load(FORMATS[kind].loader, file, **options)


_KEPT = ("exif-data", "xmp-data", "iptc-data", "photoshop-data")
_NO_RESOLUTION = (1.0, 1.0)  # what libvips says, and writes into EXIF, of a file that says nothing
_MOST_PIXELS_PER_MM = 1e6  # that libvips takes


def _fields(image: VipsImage) -> Fields:
    """Metadata of which libvips tells, but for texts of PNG."""
    return {name: value for name in _KEPT if (value := attached(image, name)) is not None}


def _decode_by_vips(file: File, kind: str, page: Choice | None, max_pixels: int) -> Decoded:
    """Decode what libvips reads; by Pillow the rare TIFFs that it does not."""
    try:
        image = _load(file, kind, page)
    except VipsError as error:
        # Pillow reads their first page, whichever was chosen
        if page is None or page.options:
            raise _damaged(kind, reason(error)) from None
        return _decode_by_pillow(file, kind, max_pixels)
    _check_size(max_pixels, image.width, image.height)  # libvips has read the header alone so far
    try:
        values = array_of(image)
    except VipsError as error:
        raise _damaged(kind, reason(error)) from None
    bits = attached(image, "bits-per-sample") or 8 * values.itemsize
    if 8 < bits < 16 and values.dtype == np.uint16:
        values = values | values >> bits  # libvips leaves the low bits 0, and white would be gray
    decoded = Decoded(values, str(image.interpretation), bits, attached(image, "orientation") or 0)
    decoded.profile, decoded.metadata = attached(image, "icc-profile-data"), _fields(image)
    if all(0 < each < math.inf for each in (image.xres, image.yres)):
        has_unit = attached(image, "resolution-unit") is not None  # else it may be a default of libvips
        decoded.pixels_per_mm = (image.xres, image.yres) if has_unit else without_unit(image.xres, image.yres)
    if page is not None:
        decoded.alpha = page.alpha
    if page is not None and page.notes:
        decoded.notes += page.notes
    elif (pages := attached(image, "n-pages") or 1) > 1:
        decoded.notes.append(f"the first of its {pages} {FORMATS[kind].frames}")
    return decoded


def _decode_by_pillow(file: File, kind: str, max_pixels: int) -> Decoded:
    """Decode BMP, JPEG 2000, PNM, rare TIFFs, and HEIC where its decoder is installed."""
    try:
        with _open_by_pillow(file, kind, max_pixels) as image:
            return _pillow_decoded(image, deep_pnm(image, file) if kind == "PNM" else None)
    except (ImageError, ExtraError):
        raise
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
        if str(error) == "unknown pixel mode":  # Pillow's word for a sound TIFF of 64-bit or complex numbers
            raise ImageError(
                "its values are of a kind that no decoder reads; save it with 8, 16 or 32 bits a channel"
            ) from None
        raise _damaged(kind, first_line(error)) from None


def _open_by_pillow(file: File, kind: str, max_pixels: int) -> Pillow.Image:
    file.seek(0)
    if kind != "HEIC":
        Pillow.init()
        image = Pillow.OPEN[FORMATS[kind].plugin][0](file, "")  # Pillow's `open` has a limit of its own
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
    # libheif and Pillow's TIFF reader turn the image themselves
    decoded.orientation = 1 if image.format in ("HEIF", "TIFF") else exif.get(0x0112, 0)
    decoded.profile = image.info.get("icc_profile")
    if image.info.get("exif"):
        decoded.metadata["exif-data"] = exif.tobytes()
    tags = getattr(image, "tag_v2", {})
    told = {"xmp-data": image.info.get("xmp")} | {name: tags.get(tag) for tag, name in _TIFF_BLOCKS.items()}
    decoded.metadata |= {name: value for name, value in told.items() if isinstance(value, bytes)}
    dots = [float(value) / 25.4 for value in image.info.get("dpi", ())]
    if len(dots) == 2 and min(dots) > 0:
        decoded.pixels_per_mm = dots[0], dots[1]
    return decoded


_TIFF_BLOCKS = {33723: "iptc-data", 34377: "photoshop-data"}
_PILLOW_MODES = {"1": "L", "LA": "LA", "La": "LA", "CMYK": "CMYK", "RGBa": "RGBA", "RGBA": "RGBA"}


def _pillow_values(image: Pillow.Image) -> tuple[NDArray[Any], str]:
    """Values (H, W, C) and libvips' name of what they are."""
    if image.mode == "LAB":
        codes = np.asarray(image).astype(np.float32)
        # Pillow gives signed bytes as unsigned ones
        signed = np.where(codes[..., 1:] > 127, codes[..., 1:] - 256, codes[..., 1:])
        return np.dstack([codes[..., :1] * np.float32(100 / 255), signed]), "lab"
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        # Pillow opens some 16-bit gray as 32-bit numbers
        if image.mode == "I" and values.min() >= 0 and values.max() <= 65535:
            values = values.astype(np.uint16)
        return values[..., None], "grey16"
    default = "RGBA" if image.has_transparency_data else "L" if image.mode == "L" else "RGB"
    mode = _PILLOW_MODES.get(image.mode, default)
    values = np.asarray(image.convert(mode))
    return values.reshape(*values.shape[:2], -1), {"L": "b-w", "LA": "b-w", "CMYK": "cmyk"}.get(mode, "srgb")


# From decoded values, whatever they are, to an image

_COLOURS = {"cmyk": 4, "b-w": 1, "grey16": 1}
_UPRIGHT: Mapping[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda values: values[:, ::-1],
    3: lambda values: values[::-1, ::-1],
    4: lambda values: values[::-1],
    5: lambda values: values.swapaxes(0, 1),
    6: lambda values: np.rot90(values, -1),
    7: lambda values: values[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
"""How an image with an EXIF orientation (CIPA DC-008, 4.6.5.1.6) is put upright."""
_SIDEWAYS = (5, 6, 7, 8)


def _to_image(decoded: Decoded, suffix: str, is_lossless: bool) -> Image:
    """Depth, orientation, transparency and colours of what was decoded."""
    interpretation, notes = decoded.interpretation, decoded.notes
    pixels_per_mm = decoded.pixels_per_mm
    is_lab = interpretation.startswith("lab")
    values = decoded.values if is_lab else _as_codes(decoded.values, notes)
    if decoded.orientation in _UPRIGHT:
        values = _UPRIGHT[decoded.orientation](values)
    count = _COLOURS.get(interpretation, 1 if values.shape[2] < 3 else 3)
    pixels, further = np.ascontiguousarray(values[..., :count]), values.shape[2] - count
    place = None if is_lab or decoded.alpha is None or decoded.alpha >= further else count + decoded.alpha
    alpha = None if place is None else np.ascontiguousarray(values[..., place])
    if left := further - (alpha is not None):
        notes.append(f"{plural(left, 'further channel')} {'was' if left == 1 else 'were'} left out")
    bits = 8 if min(decoded.bits, 8 * values.itemsize) <= 8 else 16
    profile = decoded.profile
    if is_lab or interpretation == "cmyk" or profile is not None or decoded.space is not None:
        pixels, profile, more = to_srgb(pixels, interpretation, profile, bits, decoded.space)
        notes += more
    if pixels_per_mm and decoded.orientation in _SIDEWAYS:
        pixels_per_mm = pixels_per_mm[1], pixels_per_mm[0]
    metadata, texts = tuple(decoded.metadata.items()), decoded.texts
    origin = Origin(suffix, profile, metadata, texts, pixels_per_mm, decoded.bits, is_lossless, tuple(notes))
    return Image(pixels, alpha, origin)


def _as_codes(values: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    """Values in a type that can be computed with; notes what was done to them."""
    if values.dtype in (np.uint8, np.uint16):
        return values
    if values.dtype == np.uint32:
        bits = max(8, 1 << (int(values.max()).bit_length() - 1).bit_length())  # 8, 16 or 32
        notes.append(f"32-bit values were {'cut to 16 bits' if bits == 32 else f'read as {bits}-bit ones'}")
        return values.astype(np.uint8) if bits == 8 else (values >> max(0, bits - 16)).astype(np.uint16)
    if values.dtype.kind != "f":
        raise ImageError(
            f"its values are signed ({values.dtype}) and no intensities; save it with unsigned ones"
        )
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ImageError("some of its values are NaN or infinite; replace them")
    top = next((each for each in (1, 255) if high <= _OVERSHOOT * each), 65535)
    notes.append(f"floating-point values were read as 0 to {top}, sRGB-encoded, in 16 bits")
    if low < 0 or high > top:
        notes.append(minus(f"values from {low:g} to {high:g} were cut to that"))
    return (values.clip(0, top) * (65535 / top)).round().astype(np.uint16)
