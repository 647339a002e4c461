"""libvips, its cache off: memory stays flat, a changed file is read anew. The only importer of pyvips."""

import io
from functools import cache
from typing import Any

import numpy as np
import pyvips
from numpy.typing import NDArray

Image = pyvips.Image
VipsError = pyvips.Error

_FORMATS = {"uint8": "uchar", "uint16": "ushort", "int16": "short", "float32": "float"}


def load(loader: str, source: io.FileIO | io.BytesIO, **options: Any) -> Image:
    """Open an image with one of libvips' loaders by name, so that no other one ever sees the data.

    Only the header is read; rows are decoded, once and in order, when they are asked for.

    Raises:
        VipsError: the header cannot be read.
    """
    _settle()
    if isinstance(source, io.BytesIO):
        opened = pyvips.Source.new_from_memory(source.getvalue())
    else:
        opened = pyvips.Source.new_from_descriptor(source.fileno())
    return pyvips.Operation.call(f"{loader}_source", opened, access="sequential", fail_on="error", **options)  # pyright: ignore[reportReturnType]


def image_of(values: NDArray[Any], interpretation: str) -> Image:
    """An image over an array (H, W, C), which is not copied.

    Args:
        values: uint8, uint16, int16 or float32.
        interpretation: libvips' name of what they mean.
    """
    _settle()
    height, width, bands = values.shape
    data = np.ascontiguousarray(values)
    image = Image.new_from_memory(data.data, width, height, bands, _FORMATS[data.dtype.name])
    return image.copy(interpretation=interpretation)


def array_of(image: Image) -> NDArray[Any]:
    """Decode or compute an image: (H, W, C).

    Raises:
        VipsError: the data end early or are damaged.
    """
    return image.numpy().reshape(image.height, image.width, image.bands)


def save(image: Image, saver: str, **options: Any) -> bytes:
    """Compute and encode an image with one of libvips' savers by name; all fields it has go along.

    Raises:
        VipsError: it cannot be encoded.
    """
    return pyvips.Operation.call(f"{saver}_buffer", image, **options)  # pyright: ignore[reportReturnType]


def attach(image: Image, name: str, value: bytes | str | int) -> None:
    """Set a field of an image that nobody else holds."""
    kinds = {
        bytes: pyvips.GValue.blob_type,
        str: pyvips.GValue.gstr_type,
        int: pyvips.GValue.gint_type,
    }
    image.set_type(kinds[type(value)], name, value)  # pyright: ignore[reportArgumentType]


def attached(image: Image, name: str) -> Any:
    """A field of an image, None if it has none of that name."""
    return image.get(name) if image.get_typeof(name) else None


def built_in_profile(name: str) -> bytes:
    """A profile that comes with libvips: `srgb`, `p3`, `cmyk`."""
    return pyvips.Operation.call("profile_load", name)  # pyright: ignore[reportReturnType]


def reason(error: Exception) -> str:
    """The last line of what libvips says, without the names of its parts."""
    lines = str(getattr(error, "detail", None) or error).strip().splitlines() or [type(error).__name__]
    return next((line for line in reversed(lines) if ":" in line), lines[-1]).split(": ", 1)[-1].strip()


@cache
def _settle() -> None:
    pyvips.cache_set_max(0)
    pyvips.block_untrusted_set(True)
    pyvips.operation_block_set("VipsForeignLoadSvg", True)  # it may name other files


def library() -> Any:
    """The module pyvips, settled for use."""
    _settle()
    return pyvips
