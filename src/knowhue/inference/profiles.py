"""ICC profiles: any picture's colours to sRGB with their true lightness, and sRGB back to the profile it came in.

Relative colorimetric, no black point compensation. A colour that sRGB does not have is moved towards the gray of its
own luminance until it has it; clipping each channel, as colour engines do, would change L* by up to 4.5.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.inference.picture import Pixels
from knowhue.inference.vips import (
    Image,
    VipsError,
    array_of,
    attach,
    built_in_profile,
    image_of,
)

_PROFILE = "icc-profile-data"
_SIGNATURES = {1: b"GRAY", 3: b"RGB ", 4: b"CMYK"}
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
_LUMINANCE = np.array([0.212671, 0.715160, 0.072169])  # of linear sRGB, Rec. 709 at D65
_SAME = {8: 0.75 / 255, 16: 0.0005}
"""Up to what difference in sRGB codes (0 to 1) a profile is sRGB by another name, and pictures stay as they are."""
_BAND_PIXELS = 1 << 20


class Read(NamedTuple):
    """Pixels in sRGB.

    Attributes:
        pixels: (H, W, 1) if they were gray, else (H, W, 3), of the depth asked for.
        profile: that the picture should be written with; None if it had none.
        notes: what a user should know.
    """

    pixels: Pixels
    profile: bytes | None = None
    notes: tuple[str, ...] = ()


class _Steps(NamedTuple):
    """Ways of an image to sRGB: `encoded` clips what sRGB does not have, `linear` does not, and is not encoded."""

    encoded: Callable[[Image], Image]
    linear: Callable[[Image], Image]


def to_srgb(colours: NDArray[Any], interpretation: str, profile: bytes | None, bits: int) -> Read:
    """Turn colours into sRGB.

    Args:
        colours: (H, W, 1, 3 or 4) as decoded.
        interpretation: libvips' name of what they are.
        profile: that the file carries. One that does not fit the colours, or is damaged, is left aside with a note.
        bits: 8 or 16, of the result.
    """
    if interpretation.startswith(
        "lab"
    ):  # L* is that of the file: its white, whichever that is, becomes sRGB's
        return Read(_converted(colours, interpretation, _lab_steps(bits), bits), profile and srgb_profile())
    notes: tuple[str, ...] = ()
    if profile is not None:
        if _fits(profile, colours.shape[2]):
            found = _by_profile(colours, interpretation, profile, bits)
            if found is not None:
                return found
        notes = ("its colour profile does not fit the picture or is damaged; it was left aside",)
    if interpretation == "cmyk":
        notes = (*notes, "CMYK without a usable profile, read as a common offset print")
        steps = _profile_steps(built_in_profile("cmyk"), bits)
        return Read(_converted(colours, interpretation, steps, bits), profile and srgb_profile(), notes)
    return Read(colours, profile and srgb_profile(), notes)


def from_srgb(image: Image, profile: bytes, bits: int) -> Image:
    """Turn an image of sRGB pixels into the colours of an RGB profile, and attach that."""
    if not _is_srgb(profile, bits):
        known = image.icc_import(input_profile="srgb", intent="relative")
        attach(known, _PROFILE, profile)
        return known.icc_export(intent="relative", depth=bits)
    image = image.copy()
    attach(image, _PROFILE, profile)
    return image


@cache
def srgb_profile() -> bytes:
    """The profile of sRGB, for pictures that came with a profile of other colours than RGB."""
    return built_in_profile("srgb")


def _fits(profile: bytes, channels: int) -> bool:
    """Whether a profile's header (ICC.1:2022, 7.2) says that it describes so many channels."""
    return (
        len(profile) > 132
        and profile[36:40] == b"acsp"
        and profile[12:16] in _CLASSES
        and profile[16:20] == _SIGNATURES[channels]
    )


def _by_profile(colours: NDArray[Any], interpretation: str, profile: bytes, bits: int) -> Read | None:
    """None if the profile turns out to be damaged."""
    is_rgb = colours.shape[2] == 3
    try:
        if is_rgb and _is_srgb(profile, bits):
            return Read(colours, profile)
        pixels = _converted(colours, interpretation, _profile_steps(profile, bits), bits)
    except VipsError:
        return None
    if not is_rgb:
        return Read(pixels, srgb_profile())
    if _can_be_written(profile):
        return Read(pixels, profile)
    return Read(pixels, srgb_profile(), ("its colour profile can only be read; written as sRGB",))


def _profile_steps(profile: bytes, bits: int) -> _Steps:
    def tagged(image: Image) -> Image:
        image = image.copy()
        attach(image, _PROFILE, profile)
        return image

    return _Steps(
        lambda image: tagged(image).icc_transform("srgb", embedded=True, intent="relative", depth=bits),
        lambda image: (
            tagged(image).icc_import(embedded=True, intent="relative", pcs="xyz").colourspace("scrgb")
        ),
    )


def _lab_steps(bits: int) -> _Steps:
    target = "rgb16" if bits == 16 else "srgb"
    return _Steps(lambda image: image.colourspace(target), lambda image: image.colourspace("scrgb"))


def _converted(colours: NDArray[Any], interpretation: str, steps: _Steps, bits: int) -> Pixels:
    pixels = array_of(steps.encoded(image_of(colours, interpretation)))
    if colours.shape[2] == 1:
        return np.ascontiguousarray(pixels[..., 1:2])  # gray stays on the neutral axis, in gamut
    pixels = np.require(pixels, requirements=["C", "W"])
    rows = max(1, _BAND_PIXELS // pixels.shape[1])
    for start in range(0, len(pixels), rows):
        band = slice(start, start + rows)
        _mend_clipped(pixels[band], colours[band], interpretation, steps, bits)
    return pixels


def _mend_clipped(
    pixels: Pixels, colours: NDArray[Any], interpretation: str, steps: _Steps, bits: int
) -> None:
    top = (1 << bits) - 1
    at_end = ((pixels == 0) | (pixels == top)).any(-1) & (pixels.max(-1) > pixels.min(-1))
    if at_end.any():
        linear = array_of(steps.linear(image_of(colours[at_end][None], interpretation)))[0].astype(float)
        pixels[at_end] = (_encode(_into_gamut(linear)) * top).round().astype(pixels.dtype)


def _into_gamut(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move colours (N, 3) towards the gray of their luminance until no channel is beyond 0..1."""
    gray = (linear @ _LUMINANCE).clip(0, 1)[:, None]
    away = linear - gray
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(away > 0, 1 - gray, -gray) / away
    share = np.where(np.isfinite(room), room, 1).min(-1, keepdims=True).clip(0, 1)
    return (gray + share * away).clip(0, 1)  # what is left to clip is rounding


def _encode(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@lru_cache(maxsize=64)
def _is_srgb(profile: bytes, bits: int) -> bool:
    probe = _probe()
    seen = array_of(_profile_steps(profile, 16).encoded(image_of(probe, "rgb16")))
    return bool(np.abs(seen.astype(float) - probe).max() <= _SAME[bits] * 65535)


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
