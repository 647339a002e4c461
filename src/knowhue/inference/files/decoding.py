"""From decoded values, whatever they are, to an image: depth, orientation, transparency, profile."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.errors import ImageError
from knowhue.inference.files.image import Image, Origin
from knowhue.inference.files.matrix_profiles import MatrixProfile
from knowhue.inference.files.profiles import to_srgb
from knowhue.inference.files.vips import Image as VipsImage
from knowhue.inference.files.vips import array_of, attached

_COLOURS = {"cmyk": 4, "b-w": 1, "grey16": 1}
_KEPT = ("exif-data", "xmp-data", "iptc-data", "photoshop-data", "image-description", "png-comment")
_NO_RESOLUTION = 1.0  # what libvips says where the file says nothing

_TURNS: Mapping[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda values: values[:, ::-1],
    3: lambda values: values[::-1, ::-1],
    4: lambda values: values[::-1],
    5: lambda values: values.swapaxes(0, 1),
    6: lambda values: np.rot90(values, -1),
    7: lambda values: values[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
"""How an image with an EXIF orientation (CIPA DC-008, 4.6.5.1.6) is put upright."""


class Decoded(NamedTuple):
    """What a decoder found.

    Attributes:
        values: (H, W, C), as they lie in the file.
        interpretation: libvips' name of what they mean.
        bits: of a channel in the file.
        profile: ICC profile in the file.
        orientation: 1 to 8, by EXIF.
        metadata: as in `Origin`.
        pixels_per_mm: as in `Origin`, but of the image as it lies.
        notes: as in `Origin`.
        curves: how codes are to be read where there is no profile; None if they are sRGB's.
    """

    values: NDArray[Any]
    interpretation: str
    bits: int = 8
    profile: bytes | None = None
    orientation: int = 1
    metadata: tuple[tuple[str, bytes | str], ...] = ()
    pixels_per_mm: tuple[float, float] = Origin().pixels_per_mm
    notes: tuple[str, ...] = ()
    curves: MatrixProfile | None = None


def decode(image: VipsImage, frames: str) -> Decoded:
    """Decode an opened image.

    Args:
        image: as its loader returned it.
        frames: what the format calls its pages.

    Raises:
        VipsError: the data end early or are damaged.
    """
    values = array_of(image)
    bits = attached(image, "bits-per-sample") or 8 * values.itemsize
    if 8 < bits < 16 and values.dtype == np.uint16:
        values = values | values >> bits  # libvips leaves the low bits 0, and white would be gray
    pages = attached(image, "n-pages") or 1
    fields = tuple((name, attached(image, name)) for name in image.get_fields() if name.startswith(_KEPT))
    resolution = (image.xres, image.yres)
    return Decoded(
        values,
        str(image.interpretation),
        bits,
        attached(image, "icc-profile-data"),
        attached(image, "orientation") or 1,
        fields,
        Origin().pixels_per_mm if resolution == (_NO_RESOLUTION, _NO_RESOLUTION) else resolution,
        (f"the first of its {pages} {frames}",) if pages > 1 else (),
    )


def to_image(decoded: Decoded, suffix: str, is_lossless: bool = False) -> Image:
    """Make an image of what was decoded.

    8 bits stay 8 and 16 stay 16; other depths become 16. Floating-point values are taken for 0 to 1, or 0 to 65535 if
    one is above 1, sRGB-encoded, as when images for training are prepared.

    Raises:
        ImageError: values that are no intensities.
    """
    values, notes = _as_codes(decoded)
    values = _TURNS.get(decoded.orientation, lambda same: same)(values)
    colours = _COLOURS.get(decoded.interpretation, 1 if values.shape[2] < 3 else 3)
    alpha, more = _alpha(values, colours, decoded.interpretation)
    read = to_srgb(
        np.ascontiguousarray(values[..., :colours]),
        decoded.interpretation,
        decoded.profile,
        8 if min(decoded.bits, 8 * values.itemsize) <= 8 else 16,
        decoded.curves,
    )
    across, down = decoded.pixels_per_mm
    origin = Origin(
        suffix,
        read.profile,
        decoded.metadata,
        (down, across) if decoded.orientation in (5, 6, 7, 8) else (across, down),
        decoded.bits,
        is_lossless,
        (*decoded.notes, *notes, *more, *read.notes),
    )
    return Image(read.pixels, alpha, origin)


def _as_codes(decoded: Decoded) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Values in a type that can be computed with, and what was done to them."""
    values = decoded.values
    if values.dtype in (np.uint8, np.uint16) or decoded.interpretation.startswith("lab"):
        return values, ()
    if values.dtype == np.uint32:
        return (values >> 16).astype(np.uint16), ("32-bit values were cut to 16 bits",)
    if values.dtype.kind == "f":
        return _from_float(values)
    raise ImageError(
        f"Its values should be intensities. Found signed ones ({values.dtype}). Save it with unsigned values first."
    )


def _from_float(values: NDArray[Any]) -> tuple[NDArray[np.uint16], tuple[str, ...]]:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ImageError("Its values should be numbers. Found NaN or infinity. Replace them first.")
    top = 1 if high <= 1 else 65535
    notes = (f"floating-point values were read as 0 to {top}, sRGB-encoded, in 16 bits",)
    if low < 0 or high > top:
        notes = (*notes, f"values from {low:g} to {high:g} were cut to that")
    return (values.clip(0, top) * (65535 / top)).round().astype(np.uint16), notes


def _alpha(
    values: NDArray[Any], colours: int, interpretation: str
) -> tuple[NDArray[Any] | None, tuple[str, ...]]:
    extra = values.shape[2] - colours
    is_known = extra > 0 and not interpretation.startswith("lab")
    alpha = np.ascontiguousarray(values[..., colours]) if is_known else None
    left = extra - is_known
    return alpha, (f"{left} further channels were left out",) if left else ()
