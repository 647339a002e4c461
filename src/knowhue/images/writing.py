"""Writes image files; bit depth, transparency, profile and metadata are kept if the format can hold them.

An OpenRaster file holds the gray photo, and above it the computed colours as a layer that can be masked and painted on.
"""

import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as Pillow

from knowhue.arguments import checked_arguments
from knowhue.errors import ConfigError, RunError, should_be
from knowhue.images.containers import add_comments, add_texts, jfif_segment
from knowhue.images.image import Image, flattened, require_image, to_rgb8
from knowhue.images.metadata import keep_metadata
from knowhue.images.profiles import from_srgb, srgb_profile
from knowhue.images.tiff import GEOGRAPHY, add_exif
from knowhue.images.vips import VipsError, VipsImage, encode, image_of, reason, set_field
from knowhue.storage import replacing


class OutputKind(NamedTuple):
    """An output file format: what it can hold, and how it is written."""

    suffix: str
    """usual file name suffix"""
    saver: str
    """libvips saver"""
    options: Mapping[str, Any]
    """options of the saver; lossy formats have a quality `Q`"""
    alpha: bool = True
    """whether it can hold transparency"""
    bits: int = 8
    """most bits per channel"""
    longest_px: int = 2**31 - 1
    metadata: tuple[str, ...] = ("exif-data", "xmp-data")
    """libvips names of metadata that it can hold"""


_JPEG_OPTIONS, _JPEG_METADATA = {"Q": 95, "subsample_mode": "off"}, ("exif-data", "xmp-data", "iptc-data")
_JPEG = OutputKind(".jpg", "jpegsave", _JPEG_OPTIONS, alpha=False, longest_px=65_500, metadata=_JPEG_METADATA)
_TIFF_OPTIONS = {"compression": "deflate", "predictor": "horizontal", "resunit": "inch"}
_TIFF_METADATA = (*_JPEG_METADATA, "photoshop-data", GEOGRAPHY)
_TIFF = OutputKind(".tif", "tiffsave", _TIFF_OPTIONS, bits=16, metadata=_TIFF_METADATA)
_WEBP_OPTIONS = {"Q": 92, "effort": 2, "smart_subsample": True}
_AVIF_OPTIONS = {"Q": 88, "effort": 0, "compression": "av1", "subsample_mode": "off"}
OUTPUT_SUFFIXES: dict[str, OutputKind] = {
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".png": OutputKind(".png", "pngsave", {"compression": 2, "filter": "up"}, bits=16),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".webp": OutputKind(".webp", "webpsave", _WEBP_OPTIONS, longest_px=16_383),
    ".avif": OutputKind(".avif", "heifsave", _AVIF_OPTIONS, bits=12, longest_px=16_384),
}
"""Output formats by suffix. Chroma is not subsampled where the format allows, and effort is low, since it saves little.

Longest sides are the limits of libjpeg (JPEG allows 65,535), of WebP (14 bits), and of libvips for AVIF.
"""

OPENRASTER = ".ora"  # suffix of OpenRaster files, which hold a gray photo and its colours as layers
MARK = "-colour"  # added to the names of coloured files, unless the user names them


def writable_suffix(suffix: str) -> str:
    """The same suffix, or `.png` if its format cannot be written.

    >>> writable_suffix(".JPG"), writable_suffix(".bmp"), writable_suffix("")
    ('.JPG', '.png', '.png')
    """
    return suffix if suffix.lower() in OUTPUT_SUFFIXES else ".png"


def check_output_suffix(suffix: str, image: Image | None = None) -> None:
    """Check that coloured images can be written with a suffix; otherwise a `ConfigError`, see `kind_of`."""
    if suffix.lower() != OPENRASTER:
        kind_of(suffix, image, (*OUTPUT_SUFFIXES, OPENRASTER))


@checked_arguments
def write_image(image: Image, target: str | Path, *, quality: int | None = None) -> list[str]:
    """Write an image atomically; an existing file is replaced.

    Args:
        image: an image that was read or coloured, such as `Colorized.image`.
        target: path with one of the suffixes `OUTPUT_SUFFIXES`.
        quality: 1 to 100, for lossy formats; if None, the format's default.

    Returns:
        Sentences on what the file format cannot hold.

    Raises:
        ConfigError: the suffix or the quality is invalid, or the image is too long for the format.
        RunError: the file cannot be written.
        ValueError: a shape, data type or memory layout in the image is wrong.
        ArgumentError: an argument has the wrong type.
    """
    require_image(image)
    target = Path(target)
    data, notes = encode_with_notes(image, target.suffix, quality)
    with replacing(target, "wb") as file:
        file.write(data)
    return notes


def encode_image(image: Image, suffix: str, quality: int | None = None) -> bytes:
    """The bytes of the file that `write_image` would write."""
    return encode_with_notes(image, suffix, quality)[0]


def encode_with_notes(image: Image, suffix: str, quality: int | None = None) -> tuple[bytes, list[str]]:
    """The bytes of an image file, and sentences on what it cannot hold."""
    kind = kind_of(suffix, image)
    if quality is not None and not 1 <= quality <= 100:
        raise ConfigError(should_be("quality", "from 1 to 100", quality, "95 is visually lossless."))
    output, notes = _convert(image, kind)
    origin = image.origin
    kept, texts, lost = keep_metadata(image, kind.suffix, kind.metadata)
    written_here = {name: kept.pop(name) for name in _WRITTEN_HERE.get(kind.suffix, ()) if name in kept}
    for name, value in kept.items():
        set_field(output, name, value)
    # set last, because attaching EXIF makes libvips take over its orientation and resolution
    set_field(output, "orientation", 1)
    resolution, jfif = origin.pixels_per_mm, b""
    across, down = resolution or _UNKNOWN_RESOLUTION
    output = output.copy(xres=across, yres=down)
    options = dict(kind.options)
    # PNG and TIFF are lossless and have no quality
    if quality is not None and "Q" in options:
        options["Q"] = quality
    if kind.suffix == ".webp":
        options["lossless"] = origin.is_lossless
    elif kind.suffix == ".avif":
        # AVIF holds at most 12 bits
        options["bitdepth"] = 8 if output.format == "uchar" else 10 if origin.bits == 10 else 12
    if kind.suffix != ".tif" and "exif-data" not in kept:
        jfif = jfif_segment(resolution) if kind.suffix == ".jpg" else b""
        if resolution is None or jfif or kind.suffix == ".png":
            options["keep"] = "icc:xmp:iptc:other"  # libvips would make EXIF for the resolution
    try:
        data = encode(output, kind.saver, **options)
    except VipsError as error:
        raise RunError(
            f"The image cannot be written as {suffix}: {reason(error)}. Choose PNG or TIFF."
        ) from None
    if kind.suffix == ".png":
        data = add_texts(data, texts, written_here.get("xmp-data"), resolution is not None)
    elif kind.suffix == ".jpg":
        data = add_comments(data, [text for _, text in texts], jfif)
    elif kind.suffix == ".tif":
        data = add_exif(data, written_here, resolution is not None)
    return data, notes + lost


_UNKNOWN_RESOLUTION = (72 / 25.4, 72 / 25.4)
"""Pixels per mm that EXIF must give if the resolution is unknown (CIPA DC-008, 4.6.5.1.9)."""
_WRITTEN_HERE = {".png": ("xmp-data",), ".tif": ("exif-data", GEOGRAPHY)}
"""Metadata that is written here, by suffix, because libvips does not write it unchanged."""


def kind_of(
    suffix: str, image: Image | None = None, known: Iterable[str] = tuple(OUTPUT_SUFFIXES)
) -> OutputKind:
    """The format of a suffix; a `ConfigError` if no format has it, or the image is too long for the format."""
    kind = OUTPUT_SUFFIXES.get(suffix.lower())
    if kind is None:
        raise ConfigError(
            f"The name of the output should end in one of {', '.join(known)}. Found "
            f"{f'`{suffix}`' if suffix else 'no suffix'}. Choose one of these."
        )
    height, width = image.pixels.shape[:2] if image else (0, 0)
    if max(height, width) > kind.longest_px:
        raise ConfigError(
            f"An image written as `{suffix}` should be at most {kind.longest_px:,} pixels per side. Found {width} x "
            f"{height}. Choose PNG or TIFF."
        )
    return kind


def _convert(image: Image, kind: OutputKind) -> tuple[VipsImage, list[str]]:
    """The image in its own profile, as deep as the format allows, and sentences on what is lost."""
    pixels, alpha, origin = image
    notes = []
    bits = min(8 * pixels.dtype.itemsize, 16 if kind.bits > 8 else 8)
    # 10 and 12 bits are stored in 16-bit codes; a format with 12 bits holds them without loss
    own_bits = origin.bits if 8 < origin.bits < 16 else 8 * pixels.dtype.itemsize
    if own_bits > kind.bits:
        notes.append(f"{kind.suffix} holds {kind.bits} bits per channel; the image had {own_bits}")
    if alpha is not None and not kind.alpha:
        pixels, alpha = flattened(image), None
        if pixels is not image.pixels:  # otherwise all pixels are opaque, as in many GIFs and PNGs
            notes.append(f"{kind.suffix} holds no transparency; the image was put over white")
    if origin.profile is not None and pixels.shape[2] == 3:
        output = from_srgb(pixels, origin.profile, bits)
    else:
        output = image_of(pixels)
    output = _to_depth(output, bits)
    if alpha is not None:
        output = output.bandjoin(_to_depth(image_of(alpha[..., None]), bits))
    return output, notes


def _to_depth(image: VipsImage, bits: int) -> VipsImage:
    """Round 16-bit codes to 8 bits if `bits` is 8; libvips' own conversion truncates them."""
    if image.format == "uchar" or bits == 16:
        return image
    rounded = (image * (255 / 65535)).rint().cast("uchar")
    return rounded.copy(interpretation="b-w" if image.bands == 1 else "srgb")


_THUMBNAIL_PX = 256
_STACK = """<?xml version="1.0" encoding="UTF-8"?>
<image version="0.0.6" w="{width}" h="{height}" xres="{across}" yres="{down}">
<stack>
<layer name="Colour (computed by Knowhue)" src="data/colour.png" composite-op="svg:color" x="0" y="0"
 opacity="1.0" visibility="visible"/>
<layer name="Photo" src="data/photo.png" composite-op="svg:src-over" x="0" y="0"
 opacity="1.0" visibility="visible"/>
</stack>
</image>
"""
"""The content of `stack.xml`; its first layer is the top one."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date in ZIP; equal layers give equal files


def encode_layers(gray: Image, coloured: Image) -> tuple[bytes, list[str]]:
    """An OpenRaster file (version 0.0.6), and sentences on what it cannot hold.

    The colour layer is the coloured image itself with the blend mode `svg:color`: hue and saturation come from this
    layer, luma from the photo below (W3C Compositing and Blending Level 1, section 10.1.3). Luma is not L*, so the
    flattened image differs slightly from the coloured one, unless the layer is set to normal or the program blends by
    CIELAB lightness. `mergedimage.png`, which programs without layers show, is the coloured image.

    Args:
        gray: the gray photo, of the coloured image's size and bit depth; (H, W, 1 or 3).
        coloured: the coloured image with the photo's metadata.

    Returns:
        The bytes of the file, whose PNGs are in sRGB of 8 or 16 bits whatever the photo's profile, and the sentences.
    """
    # three channels, because some programs cannot blend a colour layer with a gray one
    pixels = np.ascontiguousarray(np.broadcast_to(gray.pixels, (*gray.pixels.shape[:2], 3)))
    # metadata go into the colour layer, because they declare that colours are computed
    photo, _ = _png(gray._replace(pixels=pixels, origin=gray.origin._replace(metadata=(), texts=())))
    colours, notes = _png(coloured)
    height, width = coloured.pixels.shape[:2]
    resolution = coloured.origin.pixels_per_mm or _UNKNOWN_RESOLUTION
    across, down = (max(1, round(25.4 * dots)) for dots in resolution)
    small = Pillow.fromarray(np.ascontiguousarray(to_rgb8(coloured)))
    small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # PNGs are compressed already
        for name, data in (
            ("mimetype", b"image/openraster"),  # must be first, because programs detect the format by it
            ("stack.xml", _STACK.format(width=width, height=height, across=across, down=down)),
            ("data/photo.png", photo),
            ("data/colour.png", colours),
            ("mergedimage.png", colours),
            ("Thumbnails/thumbnail.png", encode_image(Image.of(np.asarray(small)), ".png")),
        ):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return buffer.getvalue(), notes


def _png(image: Image) -> tuple[bytes, list[str]]:
    in_srgb = image._replace(origin=image.origin._replace(profile=srgb_profile()))
    data, notes = encode_with_notes(in_srgb, ".png")
    return data, [note.replace(".png cannot", f"a layer of {OPENRASTER}, a PNG, cannot") for note in notes]
