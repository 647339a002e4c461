"""Any image file to 8-bit sRGB: orientation, colour profile, depth and alpha handled, limits first."""

import importlib
import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from knowhue.color import linear_to_srgb
from knowhue.errors import ImageError
from knowhue.images.files import SUFFIXES_OF

MAX_PIXELS = 178_956_970  # Pillow's own limit, a quarter of a gigapixel of RGB


def decode(path: Path) -> Image.Image:
    """Read an image as 8-bit sRGB, upright, first frame, transparency over white.

    Raises:
        ImageError: the file is missing, no image, damaged, or has more than `MAX_PIXELS` pixels.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise ImageError("unreadable: it is a device or a pipe")
        if path.suffix.lower() in SUFFIXES_OF["HEIC"]:
            _learn_heic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is checked, or mended, here
            with Image.open(path) as image:
                _refuse_too_large(image)
                return to_srgb(image)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"it has more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
        raise ImageError(f"unreadable: {_first_line(error)}") from None


def _learn_heic() -> None:
    """Let Pillow open HEIC, by a package that the user may have."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        raise ImageError(
            "unreadable: HEIC needs a decoder, pip install pillow-heif; or save it as JPEG"
        ) from None


def _refuse_too_large(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"it has {width * height:,} pixels, more than {MAX_PIXELS:,}")


def to_srgb(image: Image.Image) -> Image.Image:
    """Turn an opened image into 8-bit sRGB as `decode` does."""
    image.load()
    profile, light = image.info.get("icc_profile"), _light(image)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = _to_8_bit(image, light)
        light = None
    if light is not None:
        image = _by_light(image, light)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        return _apply_profile(Image.alpha_composite(canvas, image).convert("RGB"), profile)
    if image.mode not in ("RGB", "CMYK", "L"):
        image = image.convert("RGB")
    return _apply_profile(image, profile).convert("RGB")


def _light(image: Image.Image) -> float | None:
    """To what power a PNG's codes are light (gAMA), None if they are sRGB; the rules are those of `png_colour`."""
    gamma = image.info.get("gamma") if image.format == "PNG" else None
    if not gamma or "icc_profile" in image.info or "srgb" in image.info or abs(gamma / 0.45455 - 1) <= 0.05:
        return None
    return 1 / gamma


def _encoded(share: NDArray[np.float64], light: float) -> NDArray[np.float64]:
    """SRGB (IEC 61966-2-1) of codes that are light to a power, both from 0 to 1."""
    return linear_to_srgb(share**light)


def _by_light(image: Image.Image, light: float) -> Image.Image:
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    table = (_encoded(np.arange(256) / 255, light) * 255).round().astype(int).tolist()
    bands = [table if name != "A" else list(range(256)) for name in image.getbands()]
    return image.point([value for band in bands for value in band])


def _to_8_bit(image: Image.Image, light: float | None) -> Image.Image:
    """Scale 16-bit gray by its full range; Pillow's own conversion clips it to white."""
    values = np.asarray(image, dtype=np.float64)
    top = 1.0 if image.mode == "F" and values.max() <= 1 else 65535.0
    share = np.clip(values / top, 0, 1)
    return Image.fromarray(
        ((share if light is None else _encoded(share, light)) * 255).round().astype(np.uint8)
    )


def _apply_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image  # a profile that does not fit its image is common, and read as sRGB everywhere
    return converted or image


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
