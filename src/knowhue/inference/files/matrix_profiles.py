"""ICC profiles that are curves and a matrix, computed exactly: lcms' tables are up to 0.4 L* off in the dark.

ICC.1:2022, 8.3.2 (three-component matrix-based) and 8.3.4 (monochrome). Nearly all profiles of gray and RGB are such.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.color import SRGB_TO_XYZ

FloatArray = NDArray[np.floating[Any]]

_CODES = np.linspace(0, 1, 65536)
_LAST = 65535
_LIGHT = np.linspace(0, 1, _LAST + 1) ** 2
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SINGULAR = 1e6  # condition above which three primaries are as good as two
_PARAMETERS = (1, 3, 4, 5, 7)  # of parametric curves, by type


class MatrixProfile(NamedTuple):
    """A profile's colours.

    Attributes:
        curves: (1 or 3, 65536), linear light of every 16-bit code.
        inverses: the same the other way, tables for `look_up`.
        matrix: (3, 3) from linear RGB to linear sRGB; None for gray.
    """

    curves: FloatArray
    inverses: FloatArray
    matrix: FloatArray | None

    def to_linear(self, codes: NDArray[np.integer]) -> FloatArray:
        """Linear sRGB (..., 3), beyond 0..1 where sRGB has no such colour, of codes (..., 1 or 3) of 8 or 16 bits."""
        steps = 257 if codes.dtype == np.uint8 else 1
        linear = np.stack([curve[codes[..., k] * np.intp(steps)] for k, curve in enumerate(self.curves)], -1)
        return linear.repeat(3, -1) if self.matrix is None else linear @ self.matrix.T.astype(np.float32)

    def from_linear(self, linear: FloatArray) -> FloatArray:
        """Codes (..., 3) from 0 to 1 of linear sRGB (..., 3); RGB profiles alone."""
        assert self.matrix is not None
        own = linear @ np.linalg.inv(self.matrix).T.astype(np.float32)
        return np.stack([look_up(own[..., k], table) for k, table in enumerate(self.inverses)], -1)


def table_of(curve: FloatArray) -> FloatArray:
    """A table for `look_up` of the way back from the light of every 16-bit code to the code (0 to 1)."""
    return np.interp(_LIGHT, curve, _CODES).astype(np.float32)


def look_up(light: FloatArray, table: FloatArray) -> FloatArray:
    """Codes (0 to 1) of light; tables are over square roots, where curves are smooth in the dark, too."""
    place = np.sqrt(light.clip(0, 1)) * np.float32(_LAST)
    low = np.minimum(place.astype(np.int32), _LAST - 1)
    left = table[low]
    return left + (table[low + 1] - left) * (place - low)


@lru_cache(maxsize=64)
def matrix_profile(profile: bytes) -> MatrixProfile | None:
    """Read a profile; None if it has tables of its own, curves that fall, or is damaged."""
    tags = tags_of(profile)
    if tags is None or any(name.startswith((b"A2B", b"D2B")) for name in tags):
        return None
    names = (b"kTRC",) if profile[16:20] == b"GRAY" else (b"rTRC", b"gTRC", b"bTRC")
    try:
        curves = np.stack([_curve(tags[name]) for name in names])
        columns = [_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")] if len(names) == 3 else None
    except (KeyError, ValueError, struct.error):
        return None
    if not np.isfinite(curves).all() or (np.diff(curves) < 0).any():
        return None
    matrix = None if columns is None else _to_linear_srgb(np.stack(columns, 1), _D50)
    return MatrixProfile(curves.astype(np.float32), np.stack([table_of(curve) for curve in curves]), matrix)


def from_chromaticities(curve: FloatArray, places: Sequence[float] | None) -> MatrixProfile | None:
    """Colours told by their primaries; None if these make no colours.

    Args:
        curve: (65536,), linear light of every 16-bit code.
        places: x and y of white, red, green and blue; None for gray.
    """
    matrix = None
    if places is not None:
        xyz = [
            np.array([x / y, 1, (1 - x - y) / y]) if y > 0 else np.zeros(3)
            for x, y in zip(places[::2], places[1::2], strict=True)
        ]
        white, primaries = xyz[0], np.stack(xyz[1:], 1)
        if not white.any() or np.linalg.cond(primaries) > _SINGULAR:
            return None
        matrix = _to_linear_srgb(primaries * np.linalg.solve(primaries, white), white)
    count = 1 if matrix is None else 3
    curves, inverses = curve.astype(np.float32)[None], table_of(curve)[None]
    return MatrixProfile(curves.repeat(count, 0), inverses.repeat(count, 0), matrix)


def _to_linear_srgb(to_xyz: FloatArray, white: FloatArray) -> FloatArray:
    """Linear RGB to linear sRGB (3, 3), by way of XYZ and the adaptation of a white to D65 after Bradford."""
    gains = (_BRADFORD @ SRGB_TO_XYZ.sum(1)) / (_BRADFORD @ white)
    return np.linalg.inv(SRGB_TO_XYZ) @ np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD @ to_xyz


def tags_of(profile: bytes) -> dict[bytes, bytes] | None:
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


def _xyz(tag: bytes) -> FloatArray:
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _curve(tag: bytes) -> FloatArray:
    """Linear light of every 16-bit code (ICC.1:2022, 10.6 and 10.18)."""
    if tag[:4] == b"curv":
        count = struct.unpack_from(">I", tag, 8)[0]
        values = np.array(struct.unpack_from(f">{count}H", tag, 12))
        if count <= 1:
            return _CODES ** (values[0] / 256 if count else 1)
        return np.interp(_CODES, np.linspace(0, 1, count), values / 65535)
    kind = struct.unpack_from(">H", tag, 8)[0]
    if tag[:4] != b"para" or kind >= len(_PARAMETERS):
        raise ValueError
    given = np.array(struct.unpack_from(f">{_PARAMETERS[kind]}i", tag, 12)) / 65536
    return _parametric(kind, *given).clip(0, 1)


def _parametric(kind, gamma, a=1.0, b=0.0, c=0.0, d=0.0, e=0.0, f=0.0) -> FloatArray:
    if kind == 0:
        return _CODES**gamma
    if kind in (1, 2):
        return np.where(-b / a <= _CODES, (a * _CODES + b).clip(0) ** gamma, 0) + c
    return np.where(d <= _CODES, (a * _CODES + b).clip(0) ** gamma + e, c * _CODES + f)
