"""libvips, its cache off: memory stays flat, a changed file is read anew. The only importer of pyvips."""

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
_FORMATS = {"uint8": "uchar", "uint16": "ushort", "int16": "short", "float32": "float"}
_NUMPY_FORMATS = {ours: np.dtype(name) for name, ours in _FORMATS.items()}
_SMALL = 512 * 512
"""Pixels up to which handing an image to libvips' own threads takes longer than they gain."""


def load(loader: str, source: io.FileIO | io.BytesIO, **options: Any) -> VipsImage:
    """Open an image with one of libvips' loaders by name, so that no other one ever sees the data.

    Only the header is read, or a `VipsError` raised; rows are decoded, once and in order, when they are asked for.
    """
    _settle()
    if isinstance(source, io.BytesIO):
        opened = pyvips.Source.new_from_memory(source.getvalue())
    else:
        opened = pyvips.Source.new_from_descriptor(source.fileno())
    # without `fail_on` a file that ends early would be an image all the same
    image: Any = pyvips.Operation.call(
        f"{loader}_source", opened, access="sequential", fail_on="error", **options
    )
    # it holds the bytes that are still to be decoded; `new_from_source` keeps it, too
    image._references.append(opened)
    return image


def image_of(values: NDArray[Any], interpretation: str) -> VipsImage:
    """An image over an array (H, W, C) of uint8, uint16, int16 or float32, which is not copied."""
    _settle()
    height, width, bands = values.shape
    data = np.ascontiguousarray(values)
    image = VipsImage.new_from_memory(data.data, width, height, bands, _FORMATS[data.dtype.name])
    return image.copy(interpretation=interpretation)


def array_of(image: VipsImage) -> NDArray[Any]:
    """Decode or compute an image: (H, W, C); a `VipsError` if its data end early or are damaged."""
    height, width, bands, kind = image.height, image.width, image.bands, str(image.format)
    if width * height > _SMALL or kind not in _NUMPY_FORMATS:
        return image.numpy().reshape(height, width, bands)
    data = pyvips.Region.new(image).fetch(0, 0, width, height)  # in this thread
    return np.frombuffer(data, _NUMPY_FORMATS[kind]).reshape(height, width, bands)


def encode(image: VipsImage, saver: str, **options: Any) -> bytes:
    """Compute and encode an image with one of libvips' savers by name; all fields it has go along."""
    return pyvips.Operation.call(f"{saver}_buffer", image, **options)  # pyright: ignore[reportReturnType]


def attach(image: VipsImage, name: str, value: bytes | str | int) -> None:
    """Set a field of an image that nobody else holds."""
    kinds = {bytes: pyvips.GValue.blob_type, str: pyvips.GValue.gstr_type, int: pyvips.GValue.gint_type}
    image.set_type(kinds[type(value)], name, value)  # pyright: ignore[reportArgumentType]


def attached(image: VipsImage, name: str) -> Any:
    """A field of an image, None if it has none of that name."""
    return image.get(name) if image.get_typeof(name) else None


def built_in_profile(name: str) -> bytes:
    """A profile that comes with libvips: `srgb`, `p3`, `cmyk`."""
    return pyvips.Operation.call("profile_load", name)  # pyright: ignore[reportReturnType]


def shrink(pixels: Pixels, height: int, width: int, oversampling: int = OVERSAMPLING) -> NDArray[np.float32]:
    """Resize (H, W, C) to (height, width, C), 0 to 1, by Lanczos with antialiasing, as Pillow did for training.

    What is much larger is averaged in whole blocks first, to `oversampling` times the size, which takes a third of the
    time; at 1, a tenth, and the result is less exact.

    >>> shrink(np.full((1, 1, 1), 255, np.uint8), 2, 3).shape
    (2, 3, 1)
    """
    # libvips cuts means of whole numbers, half a code too low
    image = image_of(pixels, "multiband").cast("float")
    sizes = (image.width, width), (image.height, height)
    blocks = [block_size(old, new, oversampling) for old, new in sizes]
    small = array_of(image.shrink(*blocks, ceil=True)) if max(blocks) > 1 else pixels
    box = (0, 0, image.width / blocks[0], image.height / blocks[1])  # the last blocks may stick out
    planes = (Pillow.fromarray(small[..., k].astype(np.float32)) for k in range(small.shape[2]))
    resized = [np.asarray(each.resize((width, height), Pillow.Resampling.LANCZOS, box)) for each in planes]
    scaled = np.stack(resized, -1).astype(np.float32, copy=False) / np.float32(np.iinfo(pixels.dtype).max)
    return scaled.clip(0, 1)  # Lanczos overshoots, and Pillow clips


def block_size(old: int, new: int, oversampling: int = OVERSAMPLING) -> int:
    """Values that are averaged before `old` of them become `new`."""
    return max(1, old // (new * oversampling))


def reason(error: Exception) -> str:
    """The last line of what libvips says, without the names of its parts."""
    lines = lines_of(error, getattr(error, "detail", None))
    return next((line for line in reversed(lines) if ":" in line), lines[-1]).split(": ", 1)[-1].strip()


@cache
def _settle() -> None:
    pyvips.cache_set_max(0)
    pyvips.block_untrusted_set(True)  # loaders that libvips does not call safe for a stranger's file
    pyvips.operation_block_set("VipsForeignLoadSvg", True)  # it may name other files
