"""Image files in and out: limits first, nothing of an image lost, nothing half written."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from knowhue.errors import ImageError
from knowhue.image_files import SUFFIXES, dangling
from knowhue.inference.files.behind_jpeg import notes_of_jpeg
from knowhue.inference.files.by_pillow import decode_by_pillow
from knowhue.inference.files.decoding import Decoded, decode, to_image
from knowhue.inference.files.encoding import OUTPUT_SUFFIXES, encode_image, write_image
from knowhue.inference.files.formats import (
    FORMATS,
    HEAD_BYTES,
    animated_png_frames,
    is_lossless,
    is_raw,
    recognise,
)
from knowhue.inference.files.image import Image, Pixels
from knowhue.inference.files.png_colour import colour_of_png
from knowhue.inference.files.tiff_exif import exif_of_tiff
from knowhue.inference.files.tiff_pages import Choice, choose_page
from knowhue.inference.files.vips import VipsError, array_of, image_of, load, reason

__all__ = [
    "MAX_PIXELS",
    "OUTPUT_SUFFIXES",
    "OVERSAMPLING",
    "SUFFIXES",
    "encode_image",
    "read_image",
    "shrink",
    "write_image",
]

MAX_PIXELS = 200_000_000
OVERSAMPLING = 6
_NO_LIMITS = {"TIFF": {"unlimited": True}}  # libvips' own refuse strips that hold much of a large image

File = io.FileIO | io.BytesIO


def read_image(source: Path | bytes, max_pixels: int = MAX_PIXELS, name: str | None = None) -> Image:
    """Read an image: upright, in sRGB, in its own depth, with what else its file says.

    What it is is told by its content, never by its name. Of several frames or pages the first is read, with a note,
    unless that is a preview of another. Raw files of cameras, which hold previews and a sensor's values, are refused.

    Args:
        source: a file, or the bytes of one.
        max_pixels: refused above, from the header alone.
        name: what messages call it; the file's path if None.

    Raises:
        ImageError: the file is missing, no image, damaged, cut short, or too large.
        ExtraError: it is HEIC and the decoder is not installed.
    """
    called = name or (str(source) if isinstance(source, Path) else "the image")
    with _opened(source, called) as file:
        head = file.read(HEAD_BYTES)
        file.seek(0)
        kind = recognise(head)
        if is_raw(head):
            raise _raw(called)
        if kind is None:
            raise ImageError(_no_image(head, called))
        decoded = _decode(file, kind, lambda width, height: _limit(width, height, max_pixels, called), called)
    if kind == "PNG" and (frames := animated_png_frames(head)) > 1:
        decoded = decoded._replace(notes=(*decoded.notes, f"the still image of its {frames} frames"))
    if isinstance(source, Path) and source.suffix.lower() not in FORMATS[kind].suffixes:
        decoded = decoded._replace(notes=(*decoded.notes, f"it is {kind}, whatever its name says"))
    try:
        return to_image(decoded, FORMATS[kind].suffixes[0], is_lossless(kind, head))
    except ImageError as error:
        raise ImageError(f"`{called}` cannot be read. {error}") from None


def shrink(pixels: Pixels, height: int, width: int, oversampling: int = OVERSAMPLING) -> NDArray[np.float32]:
    """Resize (H, W, C) to (height, width, C), 0 to 1, by Lanczos with antialiasing, as Pillow did for training.

    What is much larger is averaged in whole blocks first, to `oversampling` times the size, which takes a third of the
    time; at 1, a tenth, and the result is less exact.

    >>> shrink(np.full((1, 1, 1), 255, np.uint8), 2, 3).shape
    (2, 3, 1)
    """
    image = image_of(pixels, "multiband").cast(
        "float"
    )  # libvips cuts means of whole numbers, half a code too low
    blocks = [
        max(1, old // (new * oversampling)) for old, new in ((image.width, width), (image.height, height))
    ]
    small = array_of(image.shrink(*blocks, ceil=True)) if max(blocks) > 1 else pixels
    box = (0, 0, image.width / blocks[0], image.height / blocks[1])  # the last blocks may stick out
    planes = (Pillow.fromarray(small[..., k].astype(np.float32)) for k in range(small.shape[2]))
    resized = [np.asarray(each.resize((width, height), Pillow.Resampling.LANCZOS, box)) for each in planes]
    scaled = np.stack(resized, -1).astype(np.float32, copy=False) / np.float32(np.iinfo(pixels.dtype).max)
    return scaled.clip(0, 1)  # Lanczos overshoots, and Pillow clips


def _opened(source: Path | bytes, called: str) -> File:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if source.is_dir():
        raise ImageError(f"`{called}` should be an image. Found a folder. Name a file in it.")
    if source.exists() and not source.is_file():  # opening a pipe would wait for ever
        raise ImageError(f"`{called}` should be a file. Found a device or a pipe. Save it as a file first.")
    try:
        return source.open("rb", buffering=0)
    except FileNotFoundError:
        if source.is_symlink():
            raise ImageError(f"`{called}` should be an image. Found {dangling(source)}.") from None
        raise ImageError(f"`{called}` should be an image. Found no such file. Is the path right?") from None
    except OSError as error:
        raise ImageError(
            f"`{called}` should be a readable file. Found: {error.strerror}. Check its permissions."
        ) from None


def _raw(called: str) -> ImageError:
    return ImageError(
        f"`{called}` should be an image. Found a camera's raw file, of which only a preview could be read. Develop "
        "it, and save it as TIFF or JPEG."
    )


def _no_image(head: bytes, called: str) -> str:
    if not head:
        return f"`{called}` should be an image. Found an empty file. Copy it again from where it came from."
    return (
        f"`{called}` should be an image ({', '.join(FORMATS)}). Found something else, or its first bytes damaged. "
        "Save it as one of these."
    )


def _limit(width: int, height: int, max_pixels: int, called: str) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"`{called}` should have at most {max_pixels:,} pixels. Found {width} x {height} = {width * height:,}. "
            "Make it smaller, or raise `max_pixels` if you trust it."
        )


def _decode(file: File, kind: str, check: Callable[[int, int], None], called: str) -> Decoded:
    known = FORMATS[kind]
    if not known.loader:
        return decode_by_pillow(file, known.plugin, check, called)
    choice = choose_page(file) if kind == "TIFF" else Choice()
    if choice.is_raw:
        raise _raw(called)
    try:
        image = load(known.loader, file, **_NO_LIMITS.get(kind, {}), **choice.options)
    except VipsError as error:
        if kind != "TIFF" or choice != Choice():
            raise _damaged(error, kind, called) from None
        file.seek(0)
        return decode_by_pillow(file, known.plugin, check, called)
    check(image.width, image.height)
    try:
        decoded = decode(image, known.frames)
    except VipsError as error:
        raise _damaged(error, kind, called) from None
    return _with_more(decoded, file, kind, choice)


def _with_more(decoded: Decoded, file: File, kind: str, choice: Choice) -> Decoded:
    """What libvips does not tell."""
    if kind == "TIFF":
        decoded = decoded._replace(notes=choice.notes or decoded.notes)
        exif = exif_of_tiff(file)
        return decoded._replace(metadata=(*decoded.metadata, ("exif-data", exif))) if exif else decoded
    if kind == "JPEG":
        return decoded._replace(notes=(*decoded.notes, *notes_of_jpeg(file)))
    if kind == "PNG":
        told = colour_of_png(file, is_gray=decoded.values.shape[2] < 3)
        return decoded._replace(curves=told.curves, notes=(*decoded.notes, *told.notes))
    return decoded


def _damaged(error: VipsError, kind: str, called: str) -> ImageError:
    return ImageError(
        f"`{called}` should be a whole {kind} image. Found it damaged or cut short ({reason(error)}). Copy it again "
        "from where it came from."
    )
