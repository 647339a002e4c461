"""An image to a file of any known kind: depth, transparency, profile and metadata kept where it can hold them."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.errors import ConfigError, RunError
from knowhue.images.image import Image, over_white
from knowhue.images.metadata import keep, with_xmp
from knowhue.images.profiles import from_srgb
from knowhue.images.tiff import with_exif
from knowhue.images.vips import VipsError, VipsImage, attach, encode, image_of, reason
from knowhue.storage import replacing


class OutputKind(NamedTuple):
    """What a kind of file can hold, and how it is written.

    Attributes:
        suffix: the usual one.
        saver: in libvips.
        options: of the saver; `Q` is the quality, where there is one.
        lossless: further options for images whose file was lossless.
        alpha: whether it holds transparency.
        bits: of a channel, at most.
        longest_px: side that it can hold.
    """

    suffix: str
    saver: str
    options: Mapping[str, Any]
    lossless: Mapping[str, Any] = MappingProxyType({})
    alpha: bool = True
    bits: int = 8
    longest_px: int = 2**31 - 1


_JPEG = OutputKind(".jpg", "jpegsave", {"Q": 95, "subsample_mode": "off"}, alpha=False, longest_px=65_500)
_TIFF = OutputKind(
    ".tif", "tiffsave", {"compression": "deflate", "predictor": "horizontal", "resunit": "inch"}, bits=16
)
_WEBP_OPTIONS = {"Q": 92, "effort": 2, "smart_subsample": True}
_AVIF_OPTIONS = {"Q": 88, "effort": 0, "compression": "av1", "subsample_mode": "off"}
OUTPUT_SUFFIXES: dict[str, OutputKind] = {
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".png": OutputKind(".png", "pngsave", {"compression": 2, "filter": "up"}, bits=16),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".webp": OutputKind(".webp", "webpsave", _WEBP_OPTIONS, {"lossless": True}, longest_px=16_383),
    ".avif": OutputKind(".avif", "heifsave", _AVIF_OPTIONS, bits=12, longest_px=16_384),
}
"""Colour is what is written, so it is not subsampled where that can be had; effort buys little size for much time.

The longest sides are those of libjpeg (its format would take 65,535), of WebP (14 bits) and of libvips for AVIF.
"""

OPENRASTER = ".ora"
"""The suffix of OpenRaster files, which hold a gray photo and its colours, where other files hold one image."""
MARK = "-colour"
"""What names of coloured files have more than their originals', where nobody names them."""


def writable_suffix(suffix: str) -> str:
    """The same suffix, or `.png` for one that can only be read.

    >>> writable_suffix(".JPG"), writable_suffix(".bmp"), writable_suffix("")
    ('.JPG', '.png', '.png')
    """
    return suffix if suffix.lower() in OUTPUT_SUFFIXES else ".png"


def check_output_suffix(suffix: str, image: Image | None = None) -> OutputKind | None:
    """What a coloured image is written as by a suffix; None for layers.

    Raises:
        ConfigError: nothing is written by that suffix, or the image is too long for it.
    """
    if suffix.lower() == OPENRASTER:
        return None
    if suffix.lower() not in OUTPUT_SUFFIXES:
        raise ConfigError(
            f"The name of the output should end in one of {', '.join((*OUTPUT_SUFFIXES, OPENRASTER))}. Found "
            f"`{suffix or 'no suffix'}`. End it in one of these."
        )
    return kind_of(suffix, image)


def write_image(image: Image, target: Path, *, quality: int | None = None) -> list[str]:
    """Write an image, whole or not at all; returns what the kind of file could not hold, in words.

    Args:
        image: as it was read, or coloured since.
        target: its suffix is one of `OUTPUT_SUFFIXES`.
        quality: 1 to 100, of kinds that lose something; each has its own if None.

    Raises:
        ConfigError: the suffix is none of `OUTPUT_SUFFIXES`, the image is too long for it, or the quality is none.
        RunError: the file cannot be written.
    """
    data, notes = encode_with_notes(image, target.suffix, quality)
    with replacing(target, "wb") as file:
        file.write(data)
    return notes


def encode_image(image: Image, suffix: str, quality: int | None = None) -> bytes:
    """The bytes of an image file; as `write_image`."""
    return encode_with_notes(image, suffix, quality)[0]


def encode_with_notes(image: Image, suffix: str, quality: int | None = None) -> tuple[bytes, list[str]]:
    """The bytes of an image file, and what it could not hold; as `write_image`."""
    kind, metadata = kind_of(suffix, image), image.origin.metadata
    if quality is not None and not 1 <= quality <= 100:
        raise ConfigError(
            f"`quality` should be from 1 to 100. Found `quality = {quality}`. 95 is visually lossless."
        )
    output, notes = _converted(image, kind)
    height, width = image.pixels.shape[:2]
    kept, lost = keep(metadata, kind.suffix, height, width, image.origin.computed_by)
    xmp = kept.pop("xmp-data", None) if kind.suffix == ".png" else None
    for name, value in kept.items():
        attach(output, name, value)
    attach(output, "orientation", 1)  # EXIF may hold the old one, and is set to what was attached last
    options = {**kind.options, **(kind.lossless if image.origin.is_lossless else {})}
    # PNG and TIFF lose nothing, and have no quality to set
    if quality is not None and "Q" in options:
        options["Q"] = quality
    if kind.suffix == ".avif":
        # AVIF ends at 12 bits, whatever the image had
        options["bitdepth"] = 8 if output.format == "uchar" else 10 if image.origin.bits == 10 else 12
    try:
        data = encode(output, kind.saver, **options)
    except VipsError as error:
        raise RunError(
            f"The image cannot be written as {suffix}: {reason(error)}. Write .png or .tif."
        ) from None
    if isinstance(xmp, bytes):
        data = with_xmp(data, xmp)
    # libvips keeps EXIF in all kinds of files but TIFF
    return with_exif(data, metadata) if kind.suffix == ".tif" else data, notes + lost


def kind_of(suffix: str, image: Image | None = None) -> OutputKind:
    """What is written by a suffix; a `ConfigError` if nothing is, or the image is too long for it."""
    kind = OUTPUT_SUFFIXES.get(suffix.lower())
    if kind is None:
        raise ConfigError(
            f"The name of the output should end in one of {', '.join(OUTPUT_SUFFIXES)}. Found "
            f"`{suffix or 'no suffix'}`. End it in one of these."
        )
    height, width = image.pixels.shape[:2] if image else (0, 0)
    if max(height, width) > kind.longest_px:
        raise ConfigError(
            f"`{suffix}` should hold images up to {kind.longest_px:,} pixels a side. Found {width} x {height}. Write "
            ".png or .tif."
        )
    return kind


def _converted(image: Image, kind: OutputKind) -> tuple[VipsImage, list[str]]:
    """The image's colours in its profile, transparency and resolution, as deep as the kind allows."""
    pixels, alpha, origin = image
    notes = []
    bits = min(8 * pixels.dtype.itemsize, 16 if kind.bits > 8 else 8)
    # 10 and 12 bits lie in 16-bit codes, and are no loss to a file that holds 12
    own_bits = origin.bits if 8 < origin.bits < 16 else 8 * pixels.dtype.itemsize
    if own_bits > kind.bits:
        notes.append(f"{kind.suffix} holds {kind.bits} bits a channel; the image had {own_bits}")
    if alpha is not None and not kind.alpha:
        pixels, alpha = over_white(pixels, alpha), None
        notes.append(f"{kind.suffix} holds no transparency; the image was put over white")
    if origin.profile is not None and pixels.shape[2] == 3:
        output = from_srgb(pixels, origin.profile, bits)
    else:
        output = _unchanged(pixels)
    output = _as_deep(output, bits)
    if alpha is not None:
        output = output.bandjoin(_as_deep(_unchanged(alpha[..., None]), bits))
    return output.copy(xres=origin.pixels_per_mm[0], yres=origin.pixels_per_mm[1]), notes


def _unchanged(pixels: NDArray[Any]) -> VipsImage:
    deep = pixels.dtype == np.uint16
    if pixels.shape[2] == 1:
        return image_of(pixels, "grey16" if deep else "b-w")
    return image_of(pixels, "rgb16" if deep else "srgb")


def _as_deep(image: VipsImage, bits: int) -> VipsImage:
    """Round 16-bit codes to 8 bits where that is asked for; libvips' own conversion cuts them."""
    if image.format == "uchar" or bits == 16:
        return image
    rounded = (image * (255 / 65535)).rint().cast("uchar")
    return rounded.copy(interpretation="b-w" if image.bands == 1 else "srgb")
