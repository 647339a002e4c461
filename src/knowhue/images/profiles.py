"""ICC profiles: any image's colours to sRGB with their true lightness, and sRGB back to the profile it came in.

Relative colorimetric, no black point compensation. A colour that sRGB does not have is moved towards the gray of its
own luminance until it has it; clipping each channel, as colour engines do, would change L* by up to 4.5. Curves and
matrices are computed exactly for 16 bits; for 8, and for profiles with tables, libvips' colour engine (lcms) serves.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.images.image import Pixels
from knowhue.images.rgb_spaces import (
    LUMINANCE,
    RGBSpace,
    code_table,
    look_up,
    profile_space,
    profile_tags,
    srgb_light,
)
from knowhue.images.vips import VipsError, VipsImage, array_of, attach, built_in_profile, image_of

_PROFILE = "icc-profile-data"
_SIGNATURES = {1: b"GRAY", 3: b"RGB ", 4: b"CMYK"}
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
_SAME = {8: 0.75 / 255, 16: 0.0005}
"""Up to what difference in sRGB codes (0 to 1) a profile is sRGB by another name, and images stay as they are."""
_BAND_PIXELS = 1 << 20
_ToLinear = Callable[[NDArray[Any]], NDArray[Any]]


class _Conversion(NamedTuple):
    """Conversions to sRGB: the fast `encoded` clips what sRGB does not have; `linear` does not, and is not encoded."""

    encoded: Callable[[VipsImage], VipsImage]
    linear: _ToLinear


def to_srgb(
    colours: NDArray[Any],
    interpretation: str,
    profile: bytes | None,
    bits: int,
    space: RGBSpace | None = None,
) -> tuple[Pixels, bytes | None, tuple[str, ...]]:
    """Turn colours into sRGB.

    Args:
        colours: (H, W, 1, 3 or 4) as decoded.
        interpretation: libvips' name of what they are.
        profile: that the file carries. One that does not fit the colours, or is damaged, is left aside with a note.
        bits: 8 or 16, of the result.
        space: what the file says without a profile; what is written is sRGB then.

    Returns:
        (H, W, 1) pixels if they were gray, else (H, W, 3); the profile that the image should be written with, None if
        it had none; what a user should know.
    """
    written = None if profile is None else srgb_profile()
    # L* is that of the file: its white, whichever that is, becomes sRGB's
    if interpretation.startswith("lab"):
        conversion = _Conversion(
            lambda image: image.colourspace("srgb"),
            lambda values: array_of(image_of(values, interpretation).colourspace("scrgb")),
        )
        return _converted(colours, interpretation, conversion, bits), written, ()
    notes: tuple[str, ...] = ()
    if profile is not None:
        if _fits(profile, colours.shape[2]):
            try:
                return _by_profile(colours, interpretation, profile, bits)
            except VipsError:
                pass  # it turns out to be damaged
        notes = ("its colour profile does not fit the image or is damaged; it was left aside",)
    if interpretation == "cmyk":
        notes = (*notes, "CMYK without a usable profile, read as a common offset print")
        conversion = _by_lcms(interpretation, built_in_profile("cmyk"))
        return _converted(colours, interpretation, conversion, bits), written, notes
    if space is not None and profile is None:
        return _computed(colours, space.to_linear, bits), srgb_profile(), notes
    return colours, written, notes


def from_srgb(pixels: Pixels, profile: bytes, bits: int) -> VipsImage:
    """Turn sRGB pixels (H, W, 3) into the colours of an RGB profile, and attach that.

    The image is as deep as `bits` if it had to be converted, else as the pixels are.
    """
    space = profile_space(profile) if bits == 16 else None
    image = image_of(pixels, "rgb16" if pixels.dtype == np.uint16 else "srgb")
    if _is_srgb(profile, bits):
        image = image.copy()
    elif space is None:
        # libvips takes a profile by its file's name alone, and reads it at once
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "profile.icc"
            path.write_bytes(profile)
            return image.icc_transform(str(path), input_profile="srgb", intent="relative", depth=bits)
    else:
        codes = np.empty_like(pixels)
        for band in _bands(pixels):
            codes[band] = (space.from_linear(_light_of_codes()[pixels[band]]) * 65535).round()
        image = image_of(codes, "rgb16")
    attach(image, _PROFILE, profile)
    return image


@cache
def srgb_profile() -> bytes:
    """The profile of sRGB, for images that came with a profile of other colours than RGB."""
    return built_in_profile("srgb")


def _fits(profile: bytes, channels: int) -> bool:
    """Whether a profile is whole and its header (ICC.1:2022, 7.2) says that it describes so many channels."""
    return (
        profile_tags(profile) is not None
        and profile[12:16] in _CLASSES
        and profile[16:20] == _SIGNATURES[channels]
    )


def _by_profile(
    colours: NDArray[Any], interpretation: str, profile: bytes, bits: int
) -> tuple[Pixels, bytes, tuple[str, ...]]:
    """As `to_srgb`, by a profile that fits; a `VipsError` if it is damaged."""
    is_rgb = colours.shape[2] == 3
    if is_rgb and _is_srgb(profile, bits):
        return colours, profile, ()
    pixels = _converted(colours, interpretation, _by_lcms(interpretation, profile), bits)
    if not is_rgb:
        return pixels, srgb_profile(), ()
    if _can_be_written(profile):
        return pixels, profile, ()
    return pixels, srgb_profile(), ("its colour profile can only be read; written as sRGB",)


def _by_lcms(interpretation: str, profile: bytes) -> _Conversion:
    def tagged(image: VipsImage) -> VipsImage:
        image = image.copy()
        attach(image, _PROFILE, profile)
        return image

    def linear(colours: NDArray[Any]) -> NDArray[Any]:
        image = tagged(image_of(colours, interpretation))
        return array_of(image.icc_import(embedded=True, intent="relative", pcs="xyz").colourspace("scrgb"))

    space = profile_space(profile)
    return _Conversion(
        lambda image: tagged(image).icc_transform("srgb", embedded=True, intent="relative", depth=8),
        linear if space is None else space.to_linear,
    )


def _converted(colours: NDArray[Any], interpretation: str, conversion: _Conversion, bits: int) -> Pixels:
    """8 bits by the fast way, mended where it clips; 16 bits by the exact one."""
    if bits == 16:
        return _computed(colours, conversion.linear, bits)
    pixels = array_of(conversion.encoded(image_of(colours, interpretation)))
    if colours.shape[2] == 1:
        return np.ascontiguousarray(pixels[..., 1:2])  # gray stays on the neutral axis, in gamut
    for band in _bands(pixels):
        rows = pixels[band]
        low, high = _ends(rows)
        # only a code at an end can have been clipped; where all three are equal it is black or white
        clipped = ((low == 0) | (high == 255)) & (high > low)
        if clipped.any():
            rows[clipped] = _codes(colours[band][clipped][None], conversion.linear, 255)[0]
    return pixels


def _computed(colours: NDArray[Any], linear: _ToLinear, bits: int) -> Pixels:
    channels = 1 if colours.shape[2] == 1 else 3
    pixels = np.empty((*colours.shape[:2], channels), np.uint8 if bits == 8 else np.uint16)
    for band in _bands(pixels):
        pixels[band] = _codes(colours[band], linear, (1 << bits) - 1)[..., :channels]
    return pixels


def _bands(pixels: Pixels) -> Iterator[slice]:
    """Rows that are worked on together, so that floating-point values of a large image are never all there."""
    rows = max(1, _BAND_PIXELS // pixels.shape[1])
    return (slice(start, start + rows) for start in range(0, len(pixels), rows))


def _codes(colours: NDArray[Any], linear: _ToLinear, top: int) -> NDArray[np.float32]:
    """Codes (H, W, 3) from 0 to `top`, whole numbers."""
    light = _into_gamut(linear(colours).astype(np.float32, copy=False))
    return (look_up(light, _code_of_light()) * np.float32(top)).round()


def _into_gamut(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move colours (H, W, 3) towards the gray of their luminance until no channel is beyond 0..1."""
    low, high = _ends(linear)
    outside = (low < 0) | (high > 1)
    if outside.any():
        colours = linear[outside]
        gray = (colours @ LUMINANCE).clip(0, 1)[:, None]
        away = colours - gray
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(away > 0, 1 - gray, -gray) / away
        # 0 / 0: a channel that equals the gray sets no limit
        share = np.where(np.isfinite(room), room, 1).min(-1, keepdims=True).clip(0, 1)
        linear[outside] = gray + share * away
    return linear


def _ends(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The least and the greatest of three channels; numpy's own along so short an axis take ten times as long."""
    first, second, third = (values[..., k] for k in range(3))
    return np.minimum(np.minimum(first, second), third), np.maximum(np.maximum(first, second), third)


@cache
def _light_of_codes() -> NDArray[np.float32]:
    """Linear light of every 16-bit code of sRGB."""
    return srgb_light().astype(np.float32)


@cache
def _code_of_light() -> NDArray[np.float32]:
    return code_table(_light_of_codes())


@lru_cache(maxsize=64)
def _is_srgb(profile: bytes, bits: int) -> bool:
    probe = _probe()
    linear = _by_lcms("rgb16", profile).linear(probe)
    return bool(np.abs(look_up(linear, _code_of_light()) - probe / 65535).max() <= _SAME[bits])


@lru_cache(maxsize=64)
def _can_be_written(profile: bytes) -> bool:
    """Many scanners' profiles lead to known colours only, not back."""
    known = image_of(_probe(), "rgb16").icc_import(input_profile="srgb", intent="relative")
    attach(known, _PROFILE, profile)
    try:
        array_of(known.icc_export(intent="relative", depth=16))
    except VipsError:
        return False
    return True


def _probe() -> NDArray[np.uint16]:
    """Colours all over RGB, (1, 729, 3)."""
    steps = np.linspace(0, 65535, 9).round()
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(1, -1, 3).astype(np.uint16)
