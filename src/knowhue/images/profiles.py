"""ICC profiles: any image's colours to sRGB with their lightness kept, and sRGB back to the original profile.

Conversion is relative colorimetric without black point compensation. Colours outside sRGB are moved towards the gray of
the same luminance until they are inside; clipping each channel, as colour engines do, would change L* by up to 4.5.
Spaces of curves and a matrix (ICC.1:2022, 8.3.2 and 8.3.4; a PNG's cICP, sRGB, gAMA and cHRM; an AVIF's nclx) are
computed exactly for 16 bits, where the tables of lcms are off by up to 0.4 L* in dark colours. For 8 bits, and for
profiles with tables, libvips' own engine (lcms) is used.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.color import SRGB_TO_XYZ, Floats, srgb_to_linear
from knowhue.images.image import Pixels
from knowhue.images.vips import VipsError, VipsImage, array_of, built_in_profile, image_of, set_field
from knowhue.temporary import temporary_folder

_CODES = np.linspace(0, 1, 65536)
_LAST = 65535
_LIGHT = np.linspace(0, 1, _LAST + 1) ** 2
LUMINANCE = SRGB_TO_XYZ[1].astype(np.float32)
"""Weights of linear sRGB (Rec. 709 at D65) in luminance, (3,)."""
_D50 = np.array([0.9642, 1.0, 0.8249])  # XYZ of the white of ICC's profile connection space
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SINGULAR = 1e6  # condition number above which three primaries are nearly dependent


class RGBSpace(NamedTuple):
    """A gray or RGB colour space, defined by curves and a matrix."""

    curves: Floats
    """(1 or 3, 65536) float32, linear light of every 16-bit code, 0 to 1"""
    matrix: Floats | None
    """(3, 3) from linear RGB to linear sRGB; None for gray"""

    def to_linear(self, codes: NDArray[np.integer]) -> Floats:
        """Linear sRGB (..., 3) of 8 or 16-bit codes (..., 1 or 3); outside 0..1 for colours outside sRGB."""
        steps = 257 if codes.dtype == np.uint8 else 1  # 257 x 255 = 65535
        linear = np.stack([curve[codes[..., k] * np.intp(steps)] for k, curve in enumerate(self.curves)], -1)
        return linear.repeat(3, -1) if self.matrix is None else linear @ self.matrix.T.astype(np.float32)

    def from_linear(self, linear: Floats) -> Floats:
        """Codes (..., 3), 0 to 1, of linear sRGB (..., 3); for RGB spaces only."""
        assert self.matrix is not None
        codes = linear @ np.linalg.inv(self.matrix).T.astype(np.float32)
        planes = [look_up(codes[..., k], code_table(curve)) for k, curve in enumerate(self.curves)]
        return np.stack(planes, -1)


def code_table(curve: Floats) -> Floats:
    """A table for `look_up` that inverts a curve, the linear light (65536,) of every 16-bit code."""
    return np.interp(_LIGHT, curve, _CODES).astype(np.float32)


def look_up(light: Floats, table: Floats) -> Floats:
    """Codes (0 to 1) of linear light; tables are over its square root, which makes curves smooth in dark colours."""
    place = np.sqrt(light.clip(0, 1)) * np.float32(_LAST)
    low = np.minimum(place.astype(np.int32), _LAST - 1)
    left = table[low]
    return left + (table[low + 1] - left) * (place - low)


def _to_linear_srgb(to_xyz: Floats, white: Floats) -> Floats:
    """Matrix (3, 3) from linear RGB to linear sRGB, through XYZ and Bradford adaptation of the white to D65."""
    gains = (_BRADFORD @ SRGB_TO_XYZ.sum(1)) / (_BRADFORD @ white)
    return np.linalg.inv(SRGB_TO_XYZ) @ np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD @ to_xyz


# Spaces of ICC profiles


@lru_cache(maxsize=64)
def profile_space(profile: bytes) -> RGBSpace | None:
    """The space of an ICC profile; None if it has lookup tables or decreasing curves, or is damaged."""
    tags = profile_tags(profile)
    if tags is None or any(name.startswith((b"A2B", b"D2B")) for name in tags):
        return None
    names = (b"kTRC",) if profile[16:20] == b"GRAY" else (b"rTRC", b"gTRC", b"bTRC")
    try:
        curves = np.stack([_curve(tags[name]) for name in names])
        primaries = [
            struct.unpack_from(">3i", tags[name[:1] + b"XYZ"], 8) for name in names if len(names) == 3
        ]
    except (KeyError, ValueError, struct.error):
        return None
    # a decreasing curve has no inverse table
    if not np.isfinite(curves).all() or (np.diff(curves) < 0).any():
        return None
    matrix = _to_linear_srgb(np.array(primaries).T / 65536, _D50) if primaries else None
    return RGBSpace(curves.astype(np.float32), matrix)


def profile_tags(profile: bytes) -> dict[bytes, bytes] | None:
    """Data of a profile's tags by signature; None if the profile is damaged."""
    if len(profile) < 132 or profile[36:40] != b"acsp":
        return None
    count = int.from_bytes(profile[128:132], "big")
    if len(profile) < 132 + 12 * count:
        return None
    rows = [struct.unpack_from(">4sII", profile, 132 + 12 * k) for k in range(count)]
    if any(start + length > len(profile) for _, start, length in rows):
        return None
    return {name: profile[start : start + length] for name, start, length in rows}


def _curve(tag: bytes) -> Floats:
    """Linear light of every 16-bit code (ICC.1:2022, 10.6 and 10.18)."""
    if tag[:4] == b"curv":
        count = struct.unpack_from(">I", tag, 8)[0]
        values = np.array(struct.unpack_from(f">{count}H", tag, 12))
        if count <= 1:
            # a single value is a gamma in units of 1/256; no value means the identity
            return _CODES ** (values[0] / 256 if count else 1)
        return np.interp(_CODES, np.linspace(0, 1, count), values / 65535)
    kind, parameters = struct.unpack_from(">H", tag, 8)[0], (1, 3, 4, 5, 7)
    if tag[:4] != b"para" or kind >= len(parameters):
        raise ValueError
    given = np.array(struct.unpack_from(f">{parameters[kind]}i", tag, 12)) / 65536
    return _parametric(kind, *given).clip(0, 1)


def _parametric(kind, gamma, a=1.0, b=0.0, c=0.0, d=0.0, e=0.0, f=0.0) -> Floats:
    if kind == 0:
        return _CODES**gamma
    if kind in (1, 2):
        return np.where(-b / a <= _CODES, (a * _CODES + b).clip(0) ** gamma, 0) + c
    return np.where(d <= _CODES, (a * _CODES + b).clip(0) ** gamma + e, c * _CODES + f)


# Spaces of PNG, AVIF and HEIC files without a profile

_USUAL_GAMMA = 0.45455
_GAMMA_TOLERANCE = 0.05  # relative difference from the usual gamma up to which gAMA means sRGB, as in libpng
_SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES = {
    1: _SRGB,
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
"""Chromaticities x and y of white, red, green and blue, by colour primaries code (ITU-T H.273, table 2)."""
_SRGB_CURVE = 13
_GAMMAS = {4: 1 / 2.2, 5: 1 / 2.8, 8: 1.0}
"""Encoding exponents by transfer characteristics code (ITU-T H.273, table 3)."""
_UNSPECIFIED = 2
_AS_SRGB = {_UNSPECIFIED: _SRGB_CURVE, 1: _SRGB_CURVE, 6: _SRGB_CURVE, 14: _SRGB_CURVE, 15: _SRGB_CURVE}
"""Video camera curves (ITU-R BT.709, 601, 2020) and `unspecified`: still images with these are shown with sRGB's."""
SpaceAndNotes = tuple[RGBSpace | None, tuple[str, ...]]


def png_space(chunks: Mapping[bytes, bytes], is_gray: bool) -> SpaceAndNotes:
    """The colour space that a PNG's chunks define, and sentences for the user.

    Returns:
        The space is None if the PNG is sRGB or has a profile.
    """
    if b"iCCP" in chunks:
        return None, ()
    if len(chunks.get(b"cICP", b"")) == 4:
        return _space_of_codes("cICP", tuple(chunks[b"cICP"]), is_gray)
    return (None, ()) if b"sRGB" in chunks else _space_of_gamma(chunks, is_gray)


def _space_of_gamma(chunks: Mapping[bytes, bytes], is_gray: bool) -> SpaceAndNotes:
    gammas = _fractions(chunks.get(b"gAMA", b""), 1)
    if not gammas or gammas[0] <= 0:
        return None, ()  # without gAMA, cHRM is ignored, as in browsers
    gamma, primaries = gammas[0], _fractions(chunks.get(b"cHRM", b""), 8)
    is_usual = abs(gamma / _USUAL_GAMMA - 1) <= _GAMMA_TOLERANCE
    curve = srgb_to_linear(_CODES) if is_usual else _CODES ** (1 / gamma)
    space = _space_of_primaries(curve, None if is_gray else primaries or _SRGB)
    if space is None:
        return _space_of_gamma({b"gAMA": chunks[b"gAMA"]}, is_gray)
    if is_usual and (space.matrix is None or np.allclose(space.matrix, np.eye(3), atol=0.002)):
        return None, ()
    named = f"its gamma (gAMA {gamma:.5g})" + " and primaries (cHRM)" * bool(primaries and not is_gray)
    return space, (f"read by {named}; it is written as sRGB",)


def heif_space(primaries: int, transfer: int) -> SpaceAndNotes:
    """The space that the nclx codes of an AVIF or HEIC image define; its decoder has undone matrix and range."""
    primaries = 1 if primaries == _UNSPECIFIED else primaries
    return _space_of_codes("nclx", (primaries, _AS_SRGB.get(transfer, transfer)), is_gray=False)


def _space_of_codes(named: str, codes: tuple[int, ...], is_gray: bool) -> SpaceAndNotes:
    """The space of ITU-T H.273 codes: primaries, transfer, and in a PNG the matrix (must be 0) and full range (1)."""
    primaries, transfer, *undone = codes
    is_srgb_curve = transfer == _SRGB_CURVE
    if (primaries == 1 or is_gray) and is_srgb_curve:
        return None, ()
    is_known = primaries in _PRIMARIES and (transfer in _GAMMAS or is_srgb_curve)
    if not is_known or (undone and (undone[0] or not undone[1])):
        return None, (f"its colours ({named} {'-'.join(map(str, codes))}) were read as sRGB",)
    curve = srgb_to_linear(_CODES) if is_srgb_curve else _CODES ** (1 / _GAMMAS[transfer])
    space = _space_of_primaries(curve, None if is_gray else _PRIMARIES[primaries])
    return space, (f"read by its {named} ({primaries}-{transfer}); it is written as sRGB",)


def _space_of_primaries(curve: Floats, places: Sequence[float] | None) -> RGBSpace | None:
    """A space of a curve (65536,) and x, y of white, red, green, blue (None: gray); None if they span no RGB space."""
    curves = curve[None].astype(np.float32)
    if places is None:
        return RGBSpace(curves, None)
    xyz = [
        np.array([x / y, 1, (1 - x - y) / y]) if y > 0 else np.zeros(3)
        for x, y in zip(places[::2], places[1::2], strict=True)
    ]
    white, primaries = xyz[0], np.stack(xyz[1:], 1)
    if not white.any() or np.linalg.cond(primaries) > _SINGULAR:
        return None
    matrix = _to_linear_srgb(primaries * np.linalg.solve(primaries, white), white)
    return RGBSpace(curves.repeat(3, 0), matrix)


def _fractions(body: bytes, count: int) -> tuple[float, ...]:
    if len(body) != 4 * count:
        return ()
    return tuple(value / 100_000 for value in struct.unpack(f">{count}I", body))


_PROFILE = "icc-profile-data"
_SIGNATURES = {1: b"GRAY", 3: b"RGB ", 4: b"CMYK"}
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
_SRGB_TOLERANCE = {8: 0.75 / 255, 16: 0.0005}
"""Difference in sRGB codes (0 to 1), by bits, up to which a profile counts as sRGB and pixels are not converted."""
_BAND_PIXELS = 1 << 20
_ToLinear = Callable[[NDArray[Any]], NDArray[Any]]


class _Conversion(NamedTuple):
    """A conversion to sRGB."""

    linear: _ToLinear
    """exact, to linear light, not clipped"""
    encoded: Callable[[VipsImage], VipsImage] | None = None
    """fast, to 8-bit codes, clipped to sRGB; None if there is none"""


def to_srgb(
    colours: NDArray[Any], interpretation: str, profile: bytes | None, bits: int, space: RGBSpace | None
) -> tuple[Pixels, bytes | None, tuple[str, ...]]:
    """Convert colours to sRGB.

    Args:
        colours: (H, W, 1, 3 or 4) as decoded.
        interpretation: libvips' name of their colour space.
        profile: ICC profile of the file. If it is damaged or does not fit the colours, it is ignored with a note.
        bits: 8 or 16 bits per channel of the result.
        space: colour space of a file without a profile; the image is then written as sRGB.

    Returns:
        Pixels (H, W, 1) if they were gray, otherwise (H, W, 3); the profile to write the image with, None if it had
        none; sentences for the user.
    """
    notes: tuple[str, ...] = ()
    conversion = None if space is None else _Conversion(space.to_linear)
    if interpretation.startswith("lab"):
        # keeps the file's L*: its white point, whichever it is, becomes sRGB's
        conversion = _Conversion(
            lambda values: array_of(image_of(values, interpretation).colourspace("scrgb")),
            lambda image: image.colourspace("srgb"),
        )
    elif profile is not None:
        if _fits(profile, colours.shape[2]):
            with suppress(VipsError):  # its data can still be damaged
                return _convert_by_profile(colours, interpretation, profile, bits)
        notes = ("its colour profile is damaged or does not fit the image, and was ignored",)
    if interpretation == "cmyk":
        notes += ("CMYK without a usable profile, read as a common offset print",)
        conversion = _lcms_conversion(interpretation, built_in_profile("cmyk"))
    pixels = colours if conversion is None else _convert(colours, interpretation, conversion, bits)
    return pixels, None if profile is None and space is None else srgb_profile(), notes


def from_srgb(pixels: Pixels, profile: bytes, bits: int) -> VipsImage:
    """Convert sRGB pixels (H, W, 3) to the colours of an RGB profile, and attach the profile.

    The image has `bits` bits per channel if it was converted, otherwise as many as the pixels.
    """
    space = profile_space(profile) if bits == 16 else None
    image = image_of(pixels)
    if _is_srgb(profile, bits):
        image = image.copy()
    elif space is None:
        # libvips accepts an output profile only as a file, which it reads immediately
        with temporary_folder("A colour profile") as folder:
            path = folder / "profile.icc"
            path.write_bytes(profile)
            return image.icc_transform(str(path), input_profile="srgb", intent="relative", depth=bits)
    else:
        codes = np.empty_like(pixels)
        for band in _bands(pixels):
            codes[band] = (space.from_linear(_light_of_codes()[pixels[band]]) * 65535).round()
        image = image_of(codes)
    set_field(image, _PROFILE, profile)
    return image


@cache
def srgb_profile() -> bytes:
    """The sRGB profile, written into images whose own profile was not an RGB profile."""
    return built_in_profile("srgb")


def _fits(profile: bytes, channels: int) -> bool:
    """Whether a profile is complete and describes `channels` channels by its header (ICC.1:2022, 7.2)."""
    is_of_kind = profile[12:16] in _CLASSES and profile[16:20] == _SIGNATURES[channels]
    return is_of_kind and profile_tags(profile) is not None


def _convert_by_profile(
    colours: NDArray[Any], interpretation: str, profile: bytes, bits: int
) -> tuple[Pixels, bytes, tuple[str, ...]]:
    """As `to_srgb`, with a profile that fits; raises `VipsError` if it is damaged."""
    is_rgb = colours.shape[2] == 3
    if is_rgb and _is_srgb(profile, bits):
        return colours, profile, ()
    pixels = _convert(colours, interpretation, _lcms_conversion(interpretation, profile), bits)
    if not is_rgb:
        return pixels, srgb_profile(), ()
    if _is_invertible(profile):
        return pixels, profile, ()
    return pixels, srgb_profile(), ("its colour profile is for reading only; the image is written as sRGB",)


def _lcms_conversion(interpretation: str, profile: bytes) -> _Conversion:
    def tagged(image: VipsImage) -> VipsImage:
        image = image.copy()
        set_field(image, _PROFILE, profile)
        return image

    def linear(colours: NDArray[Any]) -> NDArray[Any]:
        image = tagged(image_of(colours, interpretation))
        return array_of(image.icc_import(embedded=True, intent="relative", pcs="xyz").colourspace("scrgb"))

    space = profile_space(profile)
    return _Conversion(
        linear if space is None else space.to_linear,
        lambda image: tagged(image).icc_transform("srgb", embedded=True, intent="relative", depth=8),
    )


def _convert(colours: NDArray[Any], interpretation: str, conversion: _Conversion, bits: int) -> Pixels:
    """Pixels in sRGB: for 8 bits by the fast conversion, corrected where it clips; else by the exact one."""
    channels = 1 if colours.shape[2] == 1 else 3
    if bits == 16 or conversion.encoded is None:
        pixels = np.empty((*colours.shape[:2], channels), np.uint8 if bits == 8 else np.uint16)
        for band in _bands(pixels):
            pixels[band] = _codes(colours[band], conversion.linear, (1 << bits) - 1)[..., :channels]
        return pixels
    pixels = array_of(conversion.encoded(image_of(colours, interpretation)))
    if channels == 1:
        return np.ascontiguousarray(pixels[..., 1:2])  # gray stays neutral, and is never clipped
    for band in _bands(pixels):
        rows = pixels[band]
        low, high = _channel_range(rows)
        # only codes 0 and 255 can have been clipped; where all three are equal, the colour is black or white
        clipped = ((low == 0) | (high == 255)) & (high > low)
        if clipped.any():
            rows[clipped] = _codes(colours[band][clipped][None], conversion.linear, 255)[0]
    return pixels


def _bands(pixels: Pixels) -> Iterator[slice]:
    """Bands of rows to convert one after another, so that a large image is never held as floats as a whole."""
    rows = max(1, _BAND_PIXELS // pixels.shape[1])
    return (slice(start, start + rows) for start in range(0, len(pixels), rows))


def _codes(colours: NDArray[Any], linear: _ToLinear, top: int) -> NDArray[np.float32]:
    """Codes (H, W, 3) in sRGB, rounded, from 0 to `top`."""
    light = _into_gamut(linear(colours).astype(np.float32, copy=False))
    return (look_up(light, _code_of_light()) * np.float32(top)).round()


def _into_gamut(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move linear colours (H, W, 3), in place, towards the gray of their luminance until all channels are in 0..1."""
    low, high = _channel_range(linear)
    outside = (low < 0) | (high > 1)
    if outside.any():
        colours = linear[outside]
        gray = (colours @ LUMINANCE).clip(0, 1)[:, None]
        away = colours - gray
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(away > 0, 1 - gray, -gray) / away
        # 0 / 0: a channel that equals the gray does not limit the share
        share = np.where(np.isfinite(room), room, 1).min(-1, keepdims=True).clip(0, 1)
        linear[outside] = gray + share * away
    return linear


def _channel_range(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Minimum and maximum of three channels; NumPy's reduction along so short an axis takes ten times as long."""
    first, second, third = (values[..., k] for k in range(3))
    return np.minimum(np.minimum(first, second), third), np.maximum(np.maximum(first, second), third)


@cache
def _light_of_codes() -> NDArray[np.float32]:
    """Linear light of every 16-bit code of sRGB."""
    return srgb_to_linear(_CODES).astype(np.float32)


@cache
def _code_of_light() -> NDArray[np.float32]:
    return code_table(_light_of_codes())


@lru_cache(maxsize=64)
def _is_srgb(profile: bytes, bits: int) -> bool:
    probe = _colour_grid()
    codes = look_up(_lcms_conversion("rgb16", profile).linear(probe), _code_of_light())
    return bool(np.abs(codes - probe / 65535).max() <= _SRGB_TOLERANCE[bits])


@lru_cache(maxsize=64)
def _is_invertible(profile: bytes) -> bool:
    """Whether a profile converts both ways; many scanner profiles convert only from the device."""
    known = image_of(_colour_grid()).icc_import(input_profile="srgb", intent="relative")
    set_field(known, _PROFILE, profile)
    try:
        array_of(known.icc_export(intent="relative", depth=16))
    except VipsError:
        return False
    return True


def _colour_grid() -> NDArray[np.uint16]:
    """A grid of colours over RGB, (1, 729, 3)."""
    steps = np.linspace(0, 65535, 9).round()
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(1, -1, 3).astype(np.uint16)
