"""ICC profiles: any image's colours to sRGB with their true lightness, and sRGB back to the profile it came in.

Relative colorimetric, no black point compensation. A colour that sRGB does not have is moved towards the gray of its
own luminance until it has it; clipping each channel, as colour engines do, would change L* by up to 4.5. Curves and
matrices are computed exactly for 16 bits; for 8, and for profiles with tables, libvips' colour engine (lcms) serves.
"""

import tempfile
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.color import SRGB_TO_XYZ, srgb_to_linear
from knowhue.inference.files.image import Pixels
from knowhue.inference.files.matrix_profiles import MatrixProfile, look_up, matrix_profile, table_of, tags_of
from knowhue.inference.files.vips import (
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
_LUMINANCE = SRGB_TO_XYZ[1].astype(np.float32)
_SAME = {8: 0.75 / 255, 16: 0.0005}
"""Up to what difference in sRGB codes (0 to 1) a profile is sRGB by another name, and images stay as they are."""
_BAND_PIXELS = 1 << 20
_Linear = Callable[[NDArray[Any]], NDArray[Any]]


class Read(NamedTuple):
    """Pixels in sRGB.

    Attributes:
        pixels: (H, W, 1) if they were gray, else (H, W, 3), of the depth asked for.
        profile: that the image should be written with; None if it had none.
        notes: what a user should know.
    """

    pixels: Pixels
    profile: bytes | None = None
    notes: tuple[str, ...] = ()


class _Steps(NamedTuple):
    """Ways to sRGB: the fast `encoded` clips what sRGB does not have; `linear` does not, and is not encoded."""

    encoded: Callable[[Image], Image]
    linear: _Linear


def to_srgb(
    colours: NDArray[Any],
    interpretation: str,
    profile: bytes | None,
    bits: int,
    curves: MatrixProfile | None = None,
) -> Read:
    """Turn colours into sRGB.

    Args:
        colours: (H, W, 1, 3 or 4) as decoded.
        interpretation: libvips' name of what they are.
        profile: that the file carries. One that does not fit the colours, or is damaged, is left aside with a note.
        bits: 8 or 16, of the result.
        curves: what the file says without a profile; what is written is sRGB then.
    """
    if interpretation.startswith(
        "lab"
    ):  # L* is that of the file: its white, whichever that is, becomes sRGB's
        return Read(
            _converted(colours, interpretation, _lab_steps(interpretation), bits), profile and srgb_profile()
        )
    notes: tuple[str, ...] = ()
    if profile is not None:
        if _fits(profile, colours.shape[2]):
            found = _by_profile(colours, interpretation, profile, bits)
            if found is not None:
                return found
        notes = ("its colour profile does not fit the image or is damaged; it was left aside",)
    if interpretation == "cmyk":
        notes = (*notes, "CMYK without a usable profile, read as a common offset print")
        steps = _profile_steps(interpretation, built_in_profile("cmyk"))
        return Read(_converted(colours, interpretation, steps, bits), profile and srgb_profile(), notes)
    if curves is not None and profile is None:
        return Read(_by_curves(colours, curves, bits), srgb_profile())
    return Read(colours, profile and srgb_profile(), notes)


def from_srgb(pixels: Pixels, profile: bytes, bits: int) -> Image:
    """Turn sRGB pixels (H, W, 3) into the colours of an RGB profile, and attach that.

    The image is as deep as `bits` if it had to be converted, else as the pixels are.
    """
    exact = matrix_profile(profile) if bits == 16 else None
    image = image_of(pixels, "rgb16" if pixels.dtype == np.uint16 else "srgb")
    if _is_srgb(profile, bits):
        image = image.copy()
    elif exact is None:
        with (
            tempfile.TemporaryDirectory() as folder
        ):  # libvips takes it by its file's name alone, and at once
            path = Path(folder) / "profile.icc"
            path.write_bytes(profile)
            return image.icc_transform(str(path), input_profile="srgb", intent="relative", depth=bits)
    else:
        codes = np.empty_like(pixels)
        for band in _bands(pixels):
            codes[band] = (exact.from_linear(_decode()[pixels[band]]) * 65535).round()
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
        tags_of(profile) is not None
        and profile[12:16] in _CLASSES
        and profile[16:20] == _SIGNATURES[channels]
    )


def _by_profile(colours: NDArray[Any], interpretation: str, profile: bytes, bits: int) -> Read | None:
    """None if the profile turns out to be damaged."""
    is_rgb = colours.shape[2] == 3
    try:
        if is_rgb and _is_srgb(profile, bits):
            return Read(colours, profile)
        pixels = _converted(colours, interpretation, _profile_steps(interpretation, profile), bits)
    except VipsError:
        return None
    if not is_rgb:
        return Read(pixels, srgb_profile())
    if _can_be_written(profile):
        return Read(pixels, profile)
    return Read(pixels, srgb_profile(), ("its colour profile can only be read; written as sRGB",))


def _profile_steps(interpretation: str, profile: bytes) -> _Steps:
    def tagged(image: Image) -> Image:
        image = image.copy()
        attach(image, _PROFILE, profile)
        return image

    def linear(colours: NDArray[Any]) -> NDArray[Any]:
        image = tagged(image_of(colours, interpretation))
        return array_of(image.icc_import(embedded=True, intent="relative", pcs="xyz").colourspace("scrgb"))

    exact = matrix_profile(profile)
    return _Steps(
        lambda image: tagged(image).icc_transform("srgb", embedded=True, intent="relative", depth=8),
        linear if exact is None else exact.to_linear,
    )


def _lab_steps(interpretation: str) -> _Steps:
    return _Steps(
        lambda image: image.colourspace("srgb"),
        lambda colours: array_of(image_of(colours, interpretation).colourspace("scrgb")),
    )


def _converted(colours: NDArray[Any], interpretation: str, steps: _Steps, bits: int) -> Pixels:
    """8 bits by the fast way, mended where it clips; 16 bits by the exact one."""
    channels = 1 if colours.shape[2] == 1 else 3
    if bits == 16:
        return _all_exact(colours, steps.linear, channels, bits)
    pixels = array_of(steps.encoded(image_of(colours, interpretation)))
    if channels == 1:
        return np.ascontiguousarray(pixels[..., 1:2])  # gray stays on the neutral axis, in gamut
    for band in _bands(pixels):
        part = pixels[band]
        low, high = _ends(part)
        clipped = ((low == 0) | (high == 255)) & (high > low)
        if clipped.any():
            part[clipped] = _exact(colours[band][clipped][None], steps.linear, 255)[0]
    return pixels


def _by_curves(colours: NDArray[Any], curves: MatrixProfile, bits: int) -> Pixels:
    return _all_exact(colours, curves.to_linear, colours.shape[2], bits)


def _all_exact(colours: NDArray[Any], linear: _Linear, channels: int, bits: int) -> Pixels:
    pixels = np.empty((*colours.shape[:2], channels), np.uint8 if bits == 8 else np.uint16)
    for band in _bands(pixels):
        pixels[band] = _exact(colours[band], linear, (1 << bits) - 1)[..., :channels]
    return pixels


def _bands(pixels: Pixels) -> list[slice]:
    """Rows that are worked on together, so that floating-point values of a large image are never all there."""
    rows = max(1, _BAND_PIXELS // pixels.shape[1])
    return [slice(start, start + rows) for start in range(0, len(pixels), rows)]


def _exact(colours: NDArray[Any], linear: _Linear, top: int) -> NDArray[np.float32]:
    """Codes (H, W, 3) from 0 to `top`, whole numbers."""
    light = _into_gamut(linear(colours).astype(np.float32, copy=False))
    return (look_up(light, _encoding()) * np.float32(top)).round()


def _into_gamut(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move colours (H, W, 3) towards the gray of their luminance until no channel is beyond 0..1."""
    low, high = _ends(linear)
    outside = (low < 0) | (high > 1)
    if outside.any():
        colours = linear[outside]
        gray = (colours @ _LUMINANCE).clip(0, 1)[:, None]
        away = colours - gray
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(away > 0, 1 - gray, -gray) / away
        share = np.where(np.isfinite(room), room, 1).min(-1, keepdims=True).clip(0, 1)
        linear[outside] = gray + share * away
    return linear


def _ends(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The least and the greatest of three channels; numpy's own way along so short an axis takes ten times as long."""
    first, second, third = (values[..., k] for k in range(3))
    return np.minimum(np.minimum(first, second), third), np.maximum(np.maximum(first, second), third)


@cache
def _decode() -> NDArray[np.float32]:
    """Linear light of every 16-bit code of sRGB (IEC 61966-2-1)."""
    return srgb_to_linear(np.linspace(0, 1, 65536)).astype(np.float32)


@cache
def _encoding() -> NDArray[np.float32]:
    return table_of(_decode())


@lru_cache(maxsize=64)
def _is_srgb(profile: bytes, bits: int) -> bool:
    probe = _probe()
    linear = _profile_steps("rgb16", profile).linear(probe)
    return bool(np.abs(look_up(linear, _encoding()) - probe / 65535).max() <= _SAME[bits])


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
