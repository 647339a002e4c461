"""The only importer of pyvips; libvips' cache is off, so that memory stays flat and changed files are read again."""

import io
from functools import cache
from typing import Any

import numpy as np
import pyvips
from numpy.typing import NDArray
from PIL import Image as Pillow

from knowhue.errors import lines_of
from knowhue.images.image import Pixels

VipsImage = pyvips.Image
VipsError = pyvips.Error

OVERSAMPLING = 6
_LARGEST_BLOCK = 256  # a side; the sum of its 16-bit codes fits into 32 bits
_FORMATS = {"uint8": "uchar", "uint16": "ushort", "int16": "short", "float32": "float"}
_NUMPY_FORMATS = {ours: np.dtype(name) for name, ours in _FORMATS.items()}
_SMALL = 512 * 512  # pixels up to which starting libvips' threads costs more time than they save


def load(loader: str, source: io.FileIO | io.BytesIO, **options: Any) -> VipsImage:
    """Open an image with the named libvips loader, so that no other loader ever sees the data.

    Reads only the header; raises `VipsError` if it is damaged. Rows are decoded later, once and in order.
    """
    _configure()
    if isinstance(source, io.BytesIO):
        opened = pyvips.Source.new_from_memory(source.getvalue())
    else:
        opened = pyvips.Source.new_from_descriptor(source.fileno())
    # without `fail_on`, a truncated file would be accepted
    image: Any = pyvips.Operation.call(
        f"{loader}_source", opened, access="sequential", fail_on="error", **options
    )
    # the image must keep the source alive until it is decoded, as in pyvips' `new_from_source`
    image._references.append(opened)
    return image


def image_of(values: NDArray[Any], interpretation: str = "") -> VipsImage:
    """An image that shares the memory of an array (H, W, C) of uint8, uint16, int16 or float32; by default in sRGB."""
    _configure()
    height, width, bands = values.shape
    data = np.ascontiguousarray(values)
    if not interpretation:
        gray, colour = ("grey16", "rgb16") if data.dtype == np.uint16 else ("b-w", "srgb")
        interpretation = gray if bands == 1 else colour
    image = VipsImage.new_from_memory(data.data, width, height, bands, _FORMATS[data.dtype.name])
    return image.copy(interpretation=interpretation)


def array_of(image: VipsImage) -> NDArray[Any]:
    """Decode or compute an image as an array (H, W, C); raises `VipsError` if its data are damaged or truncated."""
    height, width, bands, kind = image.height, image.width, image.bands, str(image.format)
    if width * height > _SMALL or kind not in _NUMPY_FORMATS:
        return image.numpy().reshape(height, width, bands)
    data = pyvips.Region.new(image).fetch(0, 0, width, height)  # in this thread
    return np.frombuffer(data, _NUMPY_FORMATS[kind]).reshape(height, width, bands)


def encode(image: VipsImage, saver: str, **options: Any) -> bytes:
    """Compute and encode an image, with all its fields, by the named libvips saver."""
    return pyvips.Operation.call(f"{saver}_buffer", image, **options)  # pyright: ignore[reportReturnType]


def set_field(image: VipsImage, name: str, value: bytes | int) -> None:
    """Set a field of an image that is not shared."""
    kind = pyvips.GValue.gint_type if isinstance(value, int) else pyvips.GValue.blob_type
    image.set_type(kind, name, value)  # pyright: ignore[reportArgumentType]


def get_field(image: VipsImage, name: str) -> Any:
    """A field of an image; None if it does not exist."""
    return image.get(name) if image.get_typeof(name) else None


def built_in_profile(name: str) -> bytes:
    """A profile included in libvips: `srgb`, `p3` or `cmyk`."""
    return pyvips.Operation.call("profile_load", name)  # pyright: ignore[reportReturnType]


def shrink(pixels: Pixels, height: int, width: int, oversampling: int = OVERSAMPLING) -> NDArray[np.float32]:
    """Resize (H, W, C) to (height, width, C), 0 to 1, with Pillow's antialiased Lanczos filter, as in training.

    Much larger images are first averaged in whole blocks to `oversampling` times the size, which takes a third of the
    time; an `oversampling` of 1 takes a tenth, and is less exact.

    >>> shrink(np.full((1, 1, 1), 255, np.uint8), 2, 3).shape
    (2, 3, 1)
    """
    # as floats, because libvips truncates means of integers, which are then half a code too low
    image = image_of(pixels, "multiband").cast("float")
    sizes = (image.width, width), (image.height, height)
    blocks = [block_size(old, new, oversampling) for old, new in sizes]
    small = array_of(image.shrink(*blocks, ceil=True)) if max(blocks) > 1 else pixels
    # the last blocks can extend beyond the image, but the box ends with it
    box = (0, 0, image.width / blocks[0], image.height / blocks[1])
    planes = (Pillow.fromarray(small[..., k].astype(np.float32)) for k in range(small.shape[2]))
    resized = [np.asarray(each.resize((width, height), Pillow.Resampling.LANCZOS, box)) for each in planes]
    scaled = np.stack(resized, -1).astype(np.float32, copy=False) / np.float32(np.iinfo(pixels.dtype).max)
    return scaled.clip(0, 1)  # Lanczos overshoots; Pillow clips 8-bit images, too


def block_size(old: int, new: int, oversampling: int = OVERSAMPLING) -> int:
    """Size of the blocks that are averaged before `old` values are resized to `new`."""
    return min(max(1, old // (new * oversampling)), _LARGEST_BLOCK)


def reason(error: Exception) -> str:
    """The last line of a libvips error message, without the name of the libvips function."""
    lines = lines_of(error, getattr(error, "detail", None))
    return next((line for line in reversed(lines) if ":" in line), lines[-1]).split(": ", 1)[-1].strip()


@cache
def _configure() -> None:
    pyvips.cache_set_max(0)
    pyvips.block_untrusted_set(True)  # loaders that libvips marks as unsafe for untrusted files
    pyvips.operation_block_set("VipsForeignLoadSvg", True)  # SVG can refer to other files
