"""OpenRaster files: a gray photo below, its computed colours as a layer above that can be masked and painted on."""

import io
import zipfile

import numpy as np
from PIL import Image as Pillow

from knowhue.images.image import Image, Pixels, to_rgb8
from knowhue.images.profiles import srgb_profile
from knowhue.images.writing import encode_with_notes

OPENRASTER_VERSION = "0.0.6"
THUMBNAIL_PX = 256
_MEDIA_TYPE = b"image/openraster"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest of zip: equal layers are equal files


def encode_layers(gray: Image, coloured: Image) -> tuple[bytes, list[str]]:
    """An OpenRaster file (version 0.0.6), and what it could not hold, in words.

    The layer of colours is the coloured image itself, to be blended as `svg:color`: hue and saturation are its own,
    luma that of the photo below (W3C Compositing and Blending Level 1, section 10.1.3). Luma is not L*, so the
    flattened image differs a little from the coloured one; as a normal layer, or where a program blends by CIELAB's
    lightness, it does not. `mergedimage.png`, which programs without layers show, is the coloured image.

    Args:
        gray: the photo in gray, of the coloured one's size and depth; (H, W, 1 or 3).
        coloured: with what its file says of itself.

    Returns:
        The file's bytes. PNGs of 8 or 16 bits in sRGB, whatever profile the photo came with.
    """
    if gray.pixels.shape[:2] != coloured.pixels.shape[:2]:
        raise ValueError(
            f"`gray` should be as large as `coloured`, {coloured.pixels.shape[:2]}. Found "
            f"`gray.pixels.shape[:2] = {gray.pixels.shape[:2]}`."
        )
    # metadata go with the colours, which they say are computed
    photo, _ = _png(gray._replace(pixels=_rgb(gray.pixels), origin=gray.origin._replace(metadata=())))
    colours, notes = _png(coloured)
    height, width = coloured.pixels.shape[:2]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # PNGs are compressed already
        for name, data in (
            ("mimetype", _MEDIA_TYPE),  # the first, by which the file is known
            ("stack.xml", _stack(width, height, coloured.origin.pixels_per_mm)),
            ("data/photo.png", photo),
            ("data/colour.png", colours),
            ("mergedimage.png", colours),
            ("Thumbnails/thumbnail.png", _thumbnail(coloured)),
        ):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return buffer.getvalue(), notes


def _png(image: Image) -> tuple[bytes, list[str]]:
    return encode_with_notes(image._replace(origin=image.origin._replace(profile=srgb_profile())), ".png")


def _rgb(pixels: Pixels) -> Pixels:
    """Three channels: not every program blends a layer of colours with a gray one."""
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _stack(width: int, height: int, pixels_per_mm: tuple[float, float]) -> bytes:
    """`stack.xml`; the first layer is the uppermost."""
    across, down = (max(1, round(25.4 * dots)) for dots in pixels_per_mm)
    layers = (
        ("Colour (computed by Knowhue)", "data/colour.png", "svg:color"),
        ("Photo", "data/photo.png", "svg:src-over"),
    )
    lines = "\n".join(
        f'<layer name="{name}" src="{source}" composite-op="{operation}" x="0" y="0" opacity="1.0" '
        'visibility="visible"/>'
        for name, source, operation in layers
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<image version="{OPENRASTER_VERSION}" w="{width}" h="{height}" xres="{across}" yres="{down}">\n'
        f"<stack>\n{lines}\n</stack>\n</image>\n"
    ).encode()


def _thumbnail(image: Image) -> bytes:
    small = Pillow.fromarray(np.ascontiguousarray(to_rgb8(image)))
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()
