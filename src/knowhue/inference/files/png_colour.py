"""What a PNG says of its colours without an ICC profile (PNG, third edition, 11.3.2): cICP, sRGB, gAMA and cHRM."""

import io
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from knowhue.color import srgb_to_linear
from knowhue.inference.files.matrix_profiles import MatrixProfile, from_chromaticities

_USUAL = 0.45455
_INSIGNIFICANT = 0.05
"""By what share a gAMA may be off the usual one and mean sRGB all the same, as libpng has it."""
_SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES = {
    1: _SRGB,
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
"""White, red, green, blue, each x and y, by code of ITU-T H.273, table 2."""
_LINEAR, _SRGB_CURVE = 8, 13
_GAMMAS = {4: 1 / 2.2, 5: 1 / 2.8, _LINEAR: 1.0}
"""By code of ITU-T H.273, table 3."""


class PngColour(NamedTuple):
    """How a PNG's codes are to be read.

    Attributes:
        curves: to linear sRGB; None if they are sRGB's.
        notes: what a user should know.
    """

    curves: MatrixProfile | None = None
    notes: tuple[str, ...] = ()


def colour_of_png(file: io.FileIO | io.BytesIO, is_gray: bool) -> PngColour:
    """Read what a PNG says beside its profile; the file is left at its beginning.

    Args:
        file: a PNG.
        is_gray: whether its pixels are gray.
    """
    said = dict(_chunks(file))
    file.seek(0)
    if b"iCCP" in said:
        return PngColour()
    if len(said.get(b"cICP", b"")) == 4:
        return _by_cicp(said[b"cICP"], is_gray)
    return PngColour() if b"sRGB" in said else _by_gamma(said, is_gray)


def _by_gamma(said: Mapping[bytes, bytes], is_gray: bool) -> PngColour:
    told = _fractions(said.get(b"gAMA", b""), 1)
    if not told or told[0] <= 0:
        return PngColour()  # primaries alone say nothing, as browsers have it
    gamma, primaries = told[0], _fractions(said.get(b"cHRM", b""), 8)
    is_usual = abs(gamma / _USUAL - 1) <= _INSIGNIFICANT
    curve = _srgb_curve() if is_usual else np.linspace(0, 1, 65536) ** (1 / gamma)
    curves = from_chromaticities(curve, None if is_gray else primaries or _SRGB)
    if curves is None:
        primaries, curves = (), from_chromaticities(curve, _SRGB)
    if curves is None or (
        is_usual and (curves.matrix is None or np.allclose(curves.matrix, np.eye(3), atol=0.002))
    ):
        return PngColour()
    named = f"its gamma (gAMA {gamma:.5g})" + " and primaries (cHRM)" * bool(primaries and not is_gray)
    return PngColour(curves, (f"read by {named}; it is written as sRGB",))


def _by_cicp(codes: bytes, is_gray: bool) -> PngColour:
    primaries, transfer, matrix, full = codes
    if (primaries == 1 or is_gray) and transfer == _SRGB_CURVE:
        return PngColour()
    is_known = (
        primaries in _PRIMARIES and (transfer in _GAMMAS or transfer == _SRGB_CURVE) and not matrix and full
    )
    if not is_known:
        return PngColour(
            None, (f"its colours (cICP {'-'.join(map(str, codes))}) were read as if they were sRGB's",)
        )
    curve = _srgb_curve() if transfer == _SRGB_CURVE else np.linspace(0, 1, 65536) ** (1 / _GAMMAS[transfer])
    curves = from_chromaticities(curve, None if is_gray else _PRIMARIES[primaries])
    return PngColour(curves, (f"read by its cICP ({primaries}-{transfer}); it is written as sRGB",))


def _srgb_curve() -> np.ndarray:
    return srgb_to_linear(np.linspace(0, 1, 65536))


def _fractions(body: bytes, count: int) -> tuple[float, ...]:
    return (
        tuple(value / 100_000 for value in struct.unpack(f">{count}I", body))
        if len(body) == 4 * count
        else ()
    )


def _chunks(file: io.FileIO | io.BytesIO) -> Iterator[tuple[bytes, bytes]]:
    """Chunks before the pixels, with what is in the short ones."""
    at = 8
    while True:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
            return
        length = int.from_bytes(head[:4], "big")
        yield head[4:], file.read(length) if length <= 32 else b""
        at += 12 + length
