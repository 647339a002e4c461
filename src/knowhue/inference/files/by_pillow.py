"""What libvips cannot read, by Pillow: BMP, JPEG 2000, PNM, rare TIFFs, and HEIC where its decoder is installed."""

import importlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from knowhue.errors import ExtraError, ImageError
from knowhue.inference.files.decoding import Decoded

Check = Callable[[int, int], None]

_MODES = {"1": "L", "LA": "LA", "La": "LA", "CMYK": "CMYK", "RGBa": "RGBA", "RGBA": "RGBA"}
_ORIENTATION = 0x0112


def decode_by_pillow(file: io.FileIO | io.BytesIO, plugin: str, check: Check, called: str) -> Decoded:
    """Decode what one of Pillow's readers knows.

    Args:
        file: at its beginning.
        plugin: name of the reader; none for HEIC.
        check: told width and height before anything is decoded; raises if that is too much.
        called: what messages call it.

    Raises:
        ImageError: it is damaged.
        ExtraError: it is HEIC and there is no decoder.
    """
    try:
        with _heic(file, called) if not plugin else _plain(file, plugin) as image:
            check(*image.size)
            return _decoded(image)
    except (ImageError, ExtraError):
        raise
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ImageError(
            f"`{called}` should be a whole image. Found it damaged or cut short ({first}). Copy it again from "
            "where it came from."
        ) from None


def _plain(file: io.FileIO | io.BytesIO, plugin: str) -> Image.Image:
    """Open without `Image.open`, which has a limit of its own."""
    Image.init()
    reader, _ = Image.OPEN[plugin]
    return reader(file, "")


def _heic(file: io.FileIO | io.BytesIO, called: str) -> Image.Image:
    try:
        decoder = importlib.import_module("pillow_heif")
    except ImportError:
        raise ExtraError(
            f"`{called}` should be an image that can be read without further packages. Found HEIC. Install its "
            "decoder, pip install pillow-heif, or save the image as JPEG."
        ) from None
    return decoder.open_heif(file).to_pillow()


def _decoded(image: Image.Image) -> Decoded:
    exif = image.getexif()
    dots = [float(value) / 25.4 for value in image.info.get("dpi", ())]
    values, interpretation = _values(image)
    found = Decoded(
        values,
        interpretation,
        8 if image.mode == "LAB" else 8 * values.itemsize,
        image.info.get("icc_profile"),
        1 if image.format in ("HEIF", "TIFF") else exif.get(_ORIENTATION, 1),
    )
    if len(dots) == 2 and min(dots) > 0:
        found = found._replace(pixels_per_mm=(dots[0], dots[1]))
    return found._replace(metadata=(("exif-data", exif.tobytes()),)) if image.info.get("exif") else found


def _values(image: Image.Image) -> tuple[NDArray[Any], str]:
    """Values (H, W, C) and libvips' name of what they are."""
    if image.mode == "LAB":
        codes = np.asarray(image).astype(np.float32)
        signed = np.where(codes[..., 1:] > 127, codes[..., 1:] - 256, codes[..., 1:])
        return np.dstack([codes[..., :1] * np.float32(100 / 255), signed]), "lab"
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if image.mode == "I" and values.min() >= 0 and values.max() <= 65535:
            values = values.astype(np.uint16)
        return values[..., None], "grey16"
    default = "RGBA" if image.has_transparency_data else "L" if image.mode == "L" else "RGB"
    mode = _MODES.get(image.mode, default)
    values = np.asarray(image.convert(mode))
    return values.reshape(*values.shape[:2], -1), {"L": "b-w", "LA": "b-w", "CMYK": "cmyk"}.get(mode, "srgb")
