"""Any image file to an upright image in sRGB, in its own depth: limits first, nothing of what the file says lost.

The kind of a file is known by its first bytes, never by its name. One loader of libvips, named by those bytes, sees the
data; Pillow reads what libvips does not.
"""

import importlib
import io
import re
import struct
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from knowhue.errors import ExtraError, ImageError
from knowhue.images.files import SUFFIXES_OF, dangling
from knowhue.images.image import Image, Origin
from knowhue.images.profiles import to_srgb
from knowhue.images.rgb_spaces import RGBSpace, png_space
from knowhue.images.tiff import FIRST_PAGE, File, choose_page, exif_of_tiff
from knowhue.images.vips import VipsError, VipsImage, array_of, attached, load, reason

MAX_PIXELS = 200_000_000
HEAD_BYTES = 1 << 16
Check = Callable[[int, int], None]
"""Called with width and height before anything is decoded; raises if that is too much."""


# What a file is


class ImageFormat(NamedTuple):
    """How a format is read: the loader in libvips, or else Pillow's plugin; and what its pages are called."""

    loader: str = ""
    plugin: str = ""
    frames: str = "frames"


FORMATS: Mapping[str, ImageFormat] = {
    "JPEG": ImageFormat("jpegload"),
    "PNG": ImageFormat("pngload"),
    "TIFF": ImageFormat("tiffload", "TIFF", "pages"),
    "WebP": ImageFormat("webpload"),
    "GIF": ImageFormat("gifload"),
    "AVIF": ImageFormat("heifload", frames="images"),
    "HEIC": ImageFormat(),  # its decoder is a package of its own
    "BMP": ImageFormat(plugin="BMP"),
    "JPEG 2000": ImageFormat(plugin="JPEG2000"),
    "PNM": ImageFormat(plugin="PPM"),
}
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


# Reading


def read_image(source: Path | bytes, max_pixels: int = MAX_PIXELS, name: str | None = None) -> Image:
    """Read an image: upright, in sRGB, in its own depth, with what else its file says.

    Of several frames or pages the first is read, with a note, unless that is a preview of another. Raw files of
    cameras, which hold previews and a sensor's values, are refused. 8 bits stay 8, 16 stay 16; other depths become 16.
    Floating-point values are taken for 0 to 1, or 0 to 65535 if one is above 1, sRGB-encoded.

    Args:
        source: a file, or the bytes of one.
        max_pixels: refused above, from the header alone.
        name: what messages begin with; the file's path if None, nothing if empty.

    Raises:
        ImageError: the file is missing, no image, damaged, cut short, too large, or holds no intensities.
        ExtraError: it is HEIC and the decoder is not installed.
    """
    try:
        with _opened(source) as file:
            head = file.read(HEAD_BYTES)
            file.seek(0)
            kind = _kind(head)
            decoded = _decode(file, kind, partial(_check_size, max_pixels))
        notes = list(decoded.origin.notes)
        if kind == "PNG" and (frames := _animated_png_frames(head)) > 1:
            notes.append(f"the still image of its {frames} frames")
        if isinstance(source, Path) and source.suffix.lower() not in SUFFIXES_OF[kind]:
            notes.append(f"it is {kind}, whatever its name says")
        origin = decoded.origin._replace(
            suffix=SUFFIXES_OF[kind][0],
            is_lossless=kind == "WebP" and b"VP8L" in head,  # the chunk of lossless pixels
            notes=tuple(notes),
        )
        return _to_image(decoded._replace(origin=origin))
    except (ImageError, ExtraError) as error:
        if name is None:
            name = str(source) if isinstance(source, Path) else "the image"
        raise type(error)(f"{name}: {error}" if name else str(error)) from None


_COPIES = 3
"""Of its pixels, at the worst moment: what was read, what is painted, what is encoded."""
_PACKED = {"BMP": 1, "PNM": 1}
"""Bytes of pixels in a byte of file, where libvips does not read the header; few are packed more tightly than 32."""


def weigh_image(source: Path | bytes) -> int:
    """Bytes that reading, painting and encoding an image hold at once, about; 0 if it is no image.

    From its header alone. Never fails: reading the image says what is wrong with it.
    """
    try:
        if isinstance(source, Path) and not source.is_file():  # opening a pipe would wait for ever
            return 0
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb", buffering=0) as file:
            kind = recognise(file.read(HEAD_BYTES))
            if kind is None:
                return 0
            if not FORMATS[kind].loader:  # of Pillow's formats the file's size must do
                size_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
                return _COPIES * size_bytes * _PACKED.get(kind, 32)
            file.seek(0)
            options = choose_page(file).options if kind == "TIFF" else {}
            image = load(FORMATS[kind].loader, file, **options)
            depth_bytes = 1 if image.format == "uchar" else 2
            return _COPIES * image.width * image.height * max(image.bands, 3) * depth_bytes
    except (OSError, VipsError):
        return 0


def _opened(source: Path | bytes) -> File:
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


def _kind(head: bytes) -> str:
    """The key of `FORMATS`, or why there is none."""
    if head.startswith(_RAW_STARTS) or head[4:12] == b"ftypcrx ":
        raise ImageError(_RAW)
    if not head:
        raise ImageError("it is an empty file; copy it again from where it came from")
    kind = recognise(head)
    if kind is None:
        raise ImageError(
            f"it is none of {', '.join(FORMATS)}, or its first bytes are damaged; save it as one of these"
        )
    return kind


def _check_size(max_pixels: int, width: int, height: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"it has {width} x {height} = {width * height:,} pixels, more than {max_pixels:,}; make it smaller, or "
            "raise `max_pixels` if you trust it"
        )


_RAW = "it is a camera's raw file, of which only a preview could be read; develop it, and save it as TIFF or JPEG"


def _damaged(kind: str, why: str) -> ImageError:
    return ImageError(
        f"the {kind} image is damaged or cut short ({why}); copy it again from where it came from"
    )


# Decoding


class Decoded(NamedTuple):
    """What a decoder found.

    Attributes:
        values: (H, W, C), as they lie in the file.
        interpretation: libvips' name of what they mean.
        origin: what else the file says; profile and resolution are those of the values as they lie.
        orientation: 1 to 8, by EXIF.
        space: how codes are to be read where there is no profile; None if they are sRGB's.
    """

    values: NDArray[Any]
    interpretation: str
    origin: Origin
    orientation: int = 1
    space: RGBSpace | None = None


def _decode(file: File, kind: str, check: Check) -> Decoded:
    known = FORMATS[kind]
    if not known.loader:
        return _decode_by_pillow(file, kind, check)
    choice = choose_page(file) if kind == "TIFF" else FIRST_PAGE
    if choice.is_raw:
        raise ImageError(_RAW)
    # libvips' own limits refuse strips that hold much of a large image
    options = {"unlimited": True, **choice.options} if kind == "TIFF" else {}
    try:
        image = load(known.loader, file, **options)
    except VipsError as error:
        # Pillow knows rare TIFFs, but would read their first page, whichever was chosen
        if kind != "TIFF" or choice != FIRST_PAGE:
            raise _damaged(kind, reason(error)) from None
        file.seek(0)
        return _decode_by_pillow(file, kind, check)
    check(image.width, image.height)  # libvips has read the header alone so far
    try:
        decoded = _decode_by_vips(image, known.frames)
    except VipsError as error:
        raise _damaged(kind, reason(error)) from None
    origin, space = decoded.origin, None
    if kind == "TIFF":
        exif = exif_of_tiff(file)
        origin = origin._replace(notes=choice.notes or origin.notes)
        origin = origin._replace(metadata=(*origin.metadata, ("exif-data", exif))) if exif else origin
    elif kind == "JPEG":
        origin = origin._replace(notes=(*origin.notes, *_behind_jpeg(file)))
    elif kind == "PNG":
        space, notes = png_space(file, is_gray=decoded.values.shape[2] < 3)
        origin = origin._replace(notes=(*origin.notes, *notes))
    return decoded._replace(origin=origin, space=space)


_KEPT = ("exif-data", "xmp-data", "iptc-data", "photoshop-data", "image-description", "png-comment")
_NO_RESOLUTION = (1.0, 1.0)  # what libvips says where the file says nothing


def _decode_by_vips(image: VipsImage, frames: str) -> Decoded:
    """Decode an opened image whose pages are called `frames`.

    Raises:
        VipsError: the data end early or are damaged.
    """
    values = array_of(image)
    bits = attached(image, "bits-per-sample") or 8 * values.itemsize
    if 8 < bits < 16 and values.dtype == np.uint16:
        values = values | values >> bits  # libvips leaves the low bits 0, and white would be gray
    pages = attached(image, "n-pages") or 1
    resolution = (image.xres, image.yres)
    origin = Origin(
        profile=attached(image, "icc-profile-data"),
        metadata=tuple(
            (name, attached(image, name)) for name in image.get_fields() if name.startswith(_KEPT)
        ),
        pixels_per_mm=Origin().pixels_per_mm if resolution == _NO_RESOLUTION else resolution,
        bits=bits,
        notes=(f"the first of its {pages} {frames}",) if pages > 1 else (),
    )
    return Decoded(values, str(image.interpretation), origin, attached(image, "orientation") or 1)


_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
"""Those that are not within the data of a scan, where zeros are stuffed and restarts counted (ITU-T T.81, B.1.1)."""
_JPEG_END = 0xD9
_NEAR = 1 << 10  # bytes in which the head of a video must begin; Samsung's stands behind a table of its own


def _behind_jpeg(file: File) -> tuple[str, ...]:
    """What lies behind the image in a JPEG file: further images (MPO, gain maps), the video of a motion photo."""
    file.seek(0)
    data = file.read()
    place = 2
    while (found := _JPEG_MARKER.search(data, place)) is not None:
        kind, place = data[found.start() + 1], found.end()
        if kind == _JPEG_END:
            behind = data[place : place + _NEAR].lstrip(b"\0\xff")
            if behind.startswith(b"\xd8\xff"):
                return (
                    "the first image in its file; what comes behind it (another view, or a gain map) was left out",
                )
            return ("the video behind it (motion photo) was left out",) if b"ftyp" in behind else ()
        place += int.from_bytes(data[place : place + 2], "big")
    return ()


def _animated_png_frames(head: bytes) -> int:
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


def _decode_by_pillow(file: File, kind: str, check: Check) -> Decoded:
    """Decode BMP, JPEG 2000, PNM, rare TIFFs, and HEIC where its decoder is installed.

    Raises:
        ImageError: it is damaged.
        ExtraError: it is HEIC and there is no decoder.
    """
    try:
        with _heic(file) if kind == "HEIC" else _by_plugin(file, kind) as image:
            check(*image.size)
            return _pillow_decoded(image)
    except (ImageError, ExtraError):
        raise
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise _damaged(kind, first) from None


def _by_plugin(file: File, kind: str) -> Pillow.Image:
    """Open without Pillow's `open`, which has a limit of its own."""
    Pillow.init()
    reader, _ = Pillow.OPEN[FORMATS[kind].plugin]
    return reader(file, "")


def _heic(file: File) -> Pillow.Image:
    try:
        decoder = importlib.import_module("pillow_heif")
    except ImportError:
        raise ExtraError("HEIC needs a decoder: pip install pillow-heif; or save the image as JPEG") from None
    return decoder.open_heif(file).to_pillow()


def _pillow_decoded(image: Pillow.Image) -> Decoded:
    exif = image.getexif()
    dots = [float(value) / 25.4 for value in image.info.get("dpi", ())]
    values, interpretation = _pillow_values(image)
    origin = Origin(
        profile=image.info.get("icc_profile"),
        metadata=(("exif-data", exif.tobytes()),) if image.info.get("exif") else (),
        bits=8 if image.mode == "LAB" else 8 * values.itemsize,
    )
    if len(dots) == 2 and min(dots) > 0:
        origin = origin._replace(pixels_per_mm=(dots[0], dots[1]))
    # libheif and Pillow's TIFF reader turn the image themselves
    orientation = 1 if image.format in ("HEIF", "TIFF") else exif.get(0x0112, 1)
    return Decoded(values, interpretation, origin, orientation)


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


def _to_image(decoded: Decoded) -> Image:
    """Depth, orientation, transparency and colours of what was decoded.

    Raises:
        ImageError: values that are no intensities.
    """
    origin, interpretation = decoded.origin, decoded.interpretation
    is_lab = interpretation.startswith("lab")
    values, notes = (decoded.values, ()) if is_lab else _as_codes(decoded.values)
    if decoded.orientation in _UPRIGHT:
        values = _UPRIGHT[decoded.orientation](values)
    count = _COLOURS.get(interpretation, 1 if values.shape[2] < 3 else 3)
    colours, further = np.ascontiguousarray(values[..., :count]), values.shape[2] - count
    alpha = np.ascontiguousarray(values[..., count]) if further and not is_lab else None
    if left := further - (alpha is not None):
        notes = (*notes, f"{left} further channels were left out")
    bits = 8 if min(origin.bits, 8 * values.itemsize) <= 8 else 16
    pixels, profile, more = colours, origin.profile, ()
    if is_lab or interpretation == "cmyk" or profile is not None or decoded.space is not None:
        pixels, profile, more = to_srgb(colours, interpretation, profile, bits, decoded.space)
    across, down = origin.pixels_per_mm
    return Image(
        pixels,
        alpha,
        origin._replace(
            profile=profile,
            pixels_per_mm=(down, across) if decoded.orientation in (5, 6, 7, 8) else (across, down),
            notes=(*origin.notes, *notes, *more),
        ),
    )


def _as_codes(values: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Values in a type that can be computed with, and what was done to them."""
    if values.dtype in (np.uint8, np.uint16):
        return values, ()
    if values.dtype == np.uint32:
        return (values >> 16).astype(np.uint16), ("32-bit values were cut to 16 bits",)
    if values.dtype.kind != "f":
        raise ImageError(
            f"its values are signed ({values.dtype}) and no intensities; save it with unsigned ones"
        )
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ImageError("some of its values are NaN or infinite; replace them")
    top = 1 if high <= 1 else 65535
    notes = (f"floating-point values were read as 0 to {top}, sRGB-encoded, in 16 bits",)
    if low < 0 or high > top:
        notes = (*notes, f"values from {low:g} to {high:g} were cut to that")
    return (values.clip(0, top) * (65535 / top)).round().astype(np.uint16), notes
