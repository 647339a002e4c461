"""From a picture to a file of any known kind: depth, transparency, profile and metadata kept where it can hold them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from knowhue.errors import ConfigError, RunError
from knowhue.inference.picture import Picture
from knowhue.inference.vips import as_file, from_array, library, reason, to_array
from knowhue.runs import replacing


class Kind(NamedTuple):
    """What a kind of file can hold, and how it is written.

    Attributes:
        options: of libvips' saver; `Q` is the quality, where there is one.
        alpha: whether it holds transparency.
        deep: whether it holds 16 bits.
        longest_px: side that it can hold.
    """

    options: Mapping[str, Any]
    alpha: bool = True
    deep: bool = False
    longest_px: int = 2**31 - 1


_JPEG = Kind({"Q": 95, "subsample_mode": "off"}, alpha=False, longest_px=65_500)
_TIFF = Kind({"compression": "deflate", "predictor": "horizontal"}, deep=True)
OUTPUT_SUFFIXES: dict[str, Kind] = {
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".png": Kind({"compression": 3}, deep=True),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".webp": Kind({"Q": 95, "smart_subsample": True}, longest_px=16_383),
    ".avif": Kind({"Q": 85, "effort": 3, "compression": "av1", "subsample_mode": "off"}, longest_px=16_384),
}
"""Colour is what is written, so it is not subsampled where that can be had."""


def output_suffix(suffix: str) -> str:
    """The suffix that a picture of this kind is written with: its own, or `.png` if that cannot be written."""
    return suffix if suffix.lower() in OUTPUT_SUFFIXES else ".png"


def write_picture(picture: Picture, target: Path, *, quality: int | None = None) -> list[str]:
    """Write a picture, whole or not at all; returns what the kind of file could not hold, in words.

    Raises:
        ConfigError: the suffix is none of `OUTPUT_SUFFIXES`, or the picture is too long for it.
        RunError: the file cannot be written.
    """
    data, notes = encode_with_notes(picture, target.suffix, quality)
    with replacing(target, "wb") as file:
        file.write(data)
    return notes


def encode_picture(picture: Picture, suffix: str, quality: int | None = None) -> bytes:
    """The bytes of a picture file; as `write_picture`."""
    return encode_with_notes(picture, suffix, quality)[0]


def encode_with_notes(picture: Picture, suffix: str, quality: int | None = None) -> tuple[bytes, list[str]]:
    """The bytes of a picture file, and what it could not hold."""
    kind = OUTPUT_SUFFIXES.get(suffix.lower())
    if kind is None:
        raise ConfigError(
            f"`output` should end in one of {', '.join(OUTPUT_SUFFIXES)}. Found `{suffix or 'no suffix'}`."
        )
    height, width = picture.pixels.shape[:2]
    if max(height, width) > kind.longest_px:
        raise ConfigError(
            f"`{suffix}` should hold pictures up to {kind.longest_px} pixels a side. Found {width} x {height}: "
            "write .png or .tif."
        )
    picture, notes = _fit(picture, kind, suffix)
    options = dict(kind.options) | ({"Q": quality} if quality is not None and "Q" in kind.options else {})
    try:
        return bytes(_image(picture).write_to_buffer(suffix.lower(), **options)), notes
    except library().Error as error:
        raise RunError(f"The picture cannot be written as {suffix}: {reason(error)}.") from None


def _fit(picture: Picture, kind: Kind, suffix: str) -> tuple[Picture, list[str]]:
    """Less depth and no transparency where the kind of file cannot hold them, said."""
    notes = []
    if picture.pixels.dtype == np.uint16 and not kind.deep:
        alpha = None if picture.alpha is None else _eight(picture.alpha)
        picture = picture._replace(pixels=_eight(picture.pixels), alpha=alpha)
        notes.append(f"{suffix} holds 8 bits a channel; the picture had 16")
    if picture.alpha is not None and not kind.alpha:
        picture = picture._replace(pixels=_over_white(picture), alpha=None)
        notes.append(f"{suffix} holds no transparency; the picture was put over white")
    return picture, notes


def _eight(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _over_white(picture: Picture) -> np.ndarray:
    top = np.iinfo(picture.pixels.dtype).max
    assert picture.alpha is not None
    share = picture.alpha[..., None].astype(np.float32) / top
    return (picture.pixels * share + top * (1 - share)).round().astype(picture.pixels.dtype)


def _image(picture: Picture) -> Any:
    """An image with the picture's profile, transparency and metadata."""
    origin = picture.origin
    image = from_array(picture.pixels)
    if origin.profile is not None and image.bands == 3:
        image = _in_profile(image, origin.profile)
    elif origin.had_profile:
        image = _tagged_srgb(image)
    if picture.alpha is not None:
        image = image.bandjoin(from_array(picture.alpha[..., None]))
    image = image.copy(xres=origin.pixels_per_mm[0], yres=origin.pixels_per_mm[1])
    types = library().GValue
    for name, value in origin.metadata:
        image.set_type(types.blob_type if isinstance(value, bytes) else types.gstr_type, name, value)
    if origin.metadata:
        image.set_type(types.gint_type, "orientation", 1)  # the EXIF block still has the old one
    return image


def _in_profile(image: Any, profile: bytes) -> Any:
    """SRGB pixels in the profile that the picture came with."""
    depth = 16 if image.format == "ushort" else 8
    with as_file(profile) as name:
        done = image.icc_transform(name, input_profile="srgb", intent="relative", depth=depth)
        done = from_array(to_array(done))  # before the profile's file goes
    done = done.copy()
    done.set_type(library().GValue.blob_type, "icc-profile-data", profile)
    return done


def _tagged_srgb(image: Any) -> Any:
    if image.bands != 3:
        return image
    done = image.copy()
    profile = (
        library().Image.black(1, 1, bands=3).copy(interpretation="srgb").icc_export(output_profile="srgb")
    )
    done.set_type(library().GValue.blob_type, "icc-profile-data", profile.get("icc-profile-data"))
    return done
