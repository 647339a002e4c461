"""Spaces of gray and RGB that are curves and a matrix, computed exactly: lcms' tables are up to 0.4 L* off in the dark.

Described by an ICC profile (ICC.1:2022, 8.3.2 and 8.3.4; nearly all profiles of gray and RGB are such), or by a PNG
without one (PNG, third edition, 11.3.2: cICP, sRGB, gAMA and cHRM).
"""

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.color import SRGB_TO_XYZ, Floats, srgb_to_linear

_CODES = np.linspace(0, 1, 65536)
_LAST = 65535
_LIGHT = np.linspace(0, 1, _LAST + 1) ** 2
LUMINANCE = SRGB_TO_XYZ[1].astype(np.float32)
"""Of linear sRGB, Rec. 709 at D65."""
_D50 = np.array([0.9642, 1.0, 0.8249])  # white of ICC's profile connection space
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SINGULAR = 1e6  # condition above which three primaries are as good as two


class RGBSpace(NamedTuple):
    """A space of gray or RGB.

    Attributes:
        curves: (1 or 3, 65536), linear light of every 16-bit code.
        inverses: the same the other way, tables for `look_up`.
        matrix: (3, 3) from linear RGB to linear sRGB; None for gray.
    """

    curves: Floats
    inverses: Floats
    matrix: Floats | None

    def to_linear(self, codes: NDArray[np.integer]) -> Floats:
        """Linear sRGB (..., 3), beyond 0..1 where sRGB has no such colour, of codes (..., 1 or 3) of 8 or 16 bits."""
        steps = 257 if codes.dtype == np.uint8 else 1  # 257 x 255 = 65535
        linear = np.stack([curve[codes[..., k] * np.intp(steps)] for k, curve in enumerate(self.curves)], -1)
        return linear.repeat(3, -1) if self.matrix is None else linear @ self.matrix.T.astype(np.float32)

    def from_linear(self, linear: Floats) -> Floats:
        """Codes (..., 3) from 0 to 1 of linear sRGB (..., 3); spaces of RGB alone."""
        assert self.matrix is not None
        own = linear @ np.linalg.inv(self.matrix).T.astype(np.float32)
        return np.stack([look_up(own[..., k], table) for k, table in enumerate(self.inverses)], -1)


def srgb_light() -> Floats:
    """Linear light of every 16-bit code of sRGB, (65536,)."""
    return srgb_to_linear(_CODES)


def code_table(curve: Floats) -> Floats:
    """A table for `look_up` of the way back from the light of every 16-bit code to the code (0 to 1)."""
    return np.interp(_LIGHT, curve, _CODES).astype(np.float32)


def look_up(light: Floats, table: Floats) -> Floats:
    """Codes (0 to 1) of light; tables are over square roots, where curves are smooth in the dark, too."""
    place = np.sqrt(light.clip(0, 1)) * np.float32(_LAST)
    low = np.minimum(place.astype(np.int32), _LAST - 1)
    left = table[low]
    return left + (table[low + 1] - left) * (place - low)


def _space(curves: Floats, matrix: Floats | None) -> RGBSpace:
    return RGBSpace(curves.astype(np.float32), np.stack([code_table(curve) for curve in curves]), matrix)


def _to_linear_srgb(to_xyz: Floats, white: Floats) -> Floats:
    """Linear RGB to linear sRGB (3, 3), by way of XYZ and the adaptation of a white to D65 after Bradford."""
    gains = (_BRADFORD @ SRGB_TO_XYZ.sum(1)) / (_BRADFORD @ white)
    return np.linalg.inv(SRGB_TO_XYZ) @ np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD @ to_xyz


# Described by an ICC profile


@lru_cache(maxsize=64)
def profile_space(profile: bytes) -> RGBSpace | None:
    """Read a profile; None if it has tables of its own, curves that fall, or is damaged."""
    tags = profile_tags(profile)
    if tags is None or any(name.startswith((b"A2B", b"D2B")) for name in tags):
        return None
    names = (b"kTRC",) if profile[16:20] == b"GRAY" else (b"rTRC", b"gTRC", b"bTRC")
    try:
        curves = np.stack([_curve(tags[name]) for name in names])
        columns = [_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")] if len(names) == 3 else None
    except (KeyError, ValueError, struct.error):
        return None
    # a curve that falls has no inverse
    if not np.isfinite(curves).all() or (np.diff(curves) < 0).any():
        return None
    return _space(curves, None if columns is None else _to_linear_srgb(np.stack(columns, 1), _D50))


def profile_tags(profile: bytes) -> dict[bytes, bytes] | None:
    """Data of a profile's tags by signature; None if it is damaged."""
    if len(profile) < 132 or profile[36:40] != b"acsp":
        return None
    count = int.from_bytes(profile[128:132], "big")
    if len(profile) < 132 + 12 * count:
        return None
    rows = [struct.unpack_from(">4sII", profile, 132 + 12 * k) for k in range(count)]
    if any(start + length > len(profile) for _, start, length in rows):
        return None
    return {name: profile[start : start + length] for name, start, length in rows}


def _xyz(tag: bytes) -> Floats:
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _curve(tag: bytes) -> Floats:
    """Linear light of every 16-bit code (ICC.1:2022, 10.6 and 10.18)."""
    if tag[:4] == b"curv":
        count = struct.unpack_from(">I", tag, 8)[0]
        values = np.array(struct.unpack_from(f">{count}H", tag, 12))
        if count <= 1:
            # a single value is a gamma in 256ths, none is the identity
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


# Described by a PNG

_USUAL_GAMMA = 0.45455
_INSIGNIFICANT = 0.05
"""By what share a gAMA may be off the usual one and mean sRGB all the same, as libpng has it."""
_SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES = {
    1: _SRGB,
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
"""White, red, green, blue, each x and y, by code of ITU-T H.273, table 2."""
_SRGB_CURVE = 13
_GAMMAS = {4: 1 / 2.2, 5: 1 / 2.8, 8: 1.0}
"""By code of ITU-T H.273, table 3."""
_SpaceAndNotes = tuple[RGBSpace | None, tuple[str, ...]]


def png_space(chunks: Mapping[bytes, bytes], is_gray: bool) -> _SpaceAndNotes:
    """What the chunks of a PNG say of its colours beside a profile, and what a user should know.

    Returns:
        None for the space if it is sRGB, or that of a profile.
    """
    if b"iCCP" in chunks:
        return None, ()
    if len(chunks.get(b"cICP", b"")) == 4:
        return _by_cicp(chunks[b"cICP"], is_gray)
    return (None, ()) if b"sRGB" in chunks else _by_gamma(chunks, is_gray)


def _by_gamma(chunks: Mapping[bytes, bytes], is_gray: bool) -> _SpaceAndNotes:
    gammas = _fractions(chunks.get(b"gAMA", b""), 1)
    if not gammas or gammas[0] <= 0:
        return None, ()  # primaries alone say nothing, as browsers have it
    gamma, primaries = gammas[0], _fractions(chunks.get(b"cHRM", b""), 8)
    is_usual = abs(gamma / _USUAL_GAMMA - 1) <= _INSIGNIFICANT
    curve = srgb_light() if is_usual else _CODES ** (1 / gamma)
    space = _by_primaries(curve, None if is_gray else primaries or _SRGB)
    if space is None:
        primaries, space = (), _by_primaries(curve, _SRGB)
    is_srgb = space is not None and (space.matrix is None or np.allclose(space.matrix, np.eye(3), atol=0.002))
    if space is None or (is_usual and is_srgb):
        return None, ()
    named = f"its gamma (gAMA {gamma:.5g})" + " and primaries (cHRM)" * bool(primaries and not is_gray)
    return space, (f"read by {named}; it is written as sRGB",)


def _by_cicp(codes: bytes, is_gray: bool) -> _SpaceAndNotes:
    primaries, transfer, matrix, full = codes
    is_srgb_curve = transfer == _SRGB_CURVE
    if (primaries == 1 or is_gray) and is_srgb_curve:
        return None, ()
    is_known = primaries in _PRIMARIES and (transfer in _GAMMAS or is_srgb_curve) and not matrix and full
    if not is_known:
        return None, (f"its colours (cICP {'-'.join(map(str, codes))}) were read as if they were sRGB's",)
    curve = srgb_light() if is_srgb_curve else _CODES ** (1 / _GAMMAS[transfer])
    space = _by_primaries(curve, None if is_gray else _PRIMARIES[primaries])
    return space, (f"read by its cICP ({primaries}-{transfer}); it is written as sRGB",)


def _by_primaries(curve: Floats, places: Sequence[float] | None) -> RGBSpace | None:
    """A space of a curve (65536,) and x and y of white, red, green, blue (None: gray); None if they are no colours."""
    if places is None:
        return _space(curve[None], None)
    xyz = [
        np.array([x / y, 1, (1 - x - y) / y]) if y > 0 else np.zeros(3)
        for x, y in zip(places[::2], places[1::2], strict=True)
    ]
    white, primaries = xyz[0], np.stack(xyz[1:], 1)
    if not white.any() or np.linalg.cond(primaries) > _SINGULAR:
        return None
    matrix = _to_linear_srgb(primaries * np.linalg.solve(primaries, white), white)
    return _space(curve[None].repeat(3, 0), matrix)


def _fractions(body: bytes, count: int) -> tuple[float, ...]:
    if len(body) != 4 * count:
        return ()
    return tuple(value / 100_000 for value in struct.unpack(f">{count}I", body))
