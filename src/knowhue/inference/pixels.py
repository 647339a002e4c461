"""The work on every pixel of a full-size picture: its lightness, and chroma painted on without changing it.

Compiled by numba, the only importer of it; rows are shared out among threads in bands. The tables hold sRGB's two
curves and CIELAB's cube root, interpolated over square roots, where they are smooth: exact to a millionth.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from knowhue.inference.picture import Pixels
from knowhue.inference.upsampling import UPSAMPLINGS

FloatArray = NDArray[np.float32]

BAND_PIXELS = 1 << 18
_STEPS = 8192  # of a table over the square root of 0..1
_BISECTIONS = 8
_VISIBLE = np.float32(26 / 116)  # cube root at L* 10: below, no colour can be seen
_TOLERANCE = np.float32(2e-6)  # of linear RGB beyond 0..1, which rounding alone can bring about
_TO_XYZ = np.array(  # Rec. 709 primaries, D65, as kornia has them
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
_FROM_XYZ = (np.linalg.inv(_TO_XYZ) * _TO_XYZ.sum(1)).astype(np.float32)
"""From X/Xn, Y/Yn, Z/Zn to linear RGB; its rows sum to 1, so that gray is gray."""


class Reach(NamedTuple):
    """How far painting went.

    Attributes:
        chroma: mean of C* as written, CIELAB units.
        colourfulness: of the picture as written (Hasler and Suesstrunk 2003), RGB 0 to 255.
        reduced: share of pixels lighter than L* 10 whose chroma was reduced, because sRGB has no such colour at their
            lightness; of all pixels.
    """

    chroma: float
    colourfulness: float
    reduced: float


def lightness(pixels: Pixels) -> FloatArray:
    """CIELAB L* (H, W), 0 to 100, of sRGB-encoded pixels (H, W, 1 or 3), uint8 or uint16.

    >>> lightness(np.full((1, 1, 3), 255, np.uint8)).item()
    100.0
    """
    _check(pixels)
    out = np.empty(pixels.shape[:2], np.float32)
    weights = _channel_weights(pixels)
    _in_bands(lambda rows: _lightness(pixels[rows], weights, _CUBE_ROOT, out[rows]), pixels.shape)
    return out


def paint(
    pixels: Pixels,
    chroma: FloatArray,
    guide: FloatArray,
    *,
    upsampling: str = "guided",
    saturation: float = 1.0,
) -> tuple[Pixels, Reach]:
    """Give a picture other colours and leave its lightness as it is.

    Where sRGB has no colour of that lightness and chroma, the chroma is reduced at the same hue (CIELAB angle) until
    it has one. L* then differs from the original's by the rounding of the result alone: at most 0.5 in 8 bits.

    Args:
        pixels: (H, W, 1 or 3), uint8 or uint16, sRGB-encoded; colours it has are not looked at.
        chroma: a*b* (h, w, 2) of the same picture at a small size.
        guide: L* (h, w) of the same.
        upsampling: a key of `UPSAMPLINGS`.
        saturation: what the chroma is multiplied by.

    Returns:
        Pixels (H, W, 3) of the same type, and how far it went.
    """
    _check(pixels)
    slope, offset = UPSAMPLINGS[upsampling](chroma * np.float32(saturation), guide)
    lines = np.ascontiguousarray(np.concatenate([slope, offset], -1), np.float32)
    out = np.empty((*pixels.shape[:2], 3), pixels.dtype)
    weights, top = _channel_weights(pixels), np.iinfo(pixels.dtype).max

    def work(rows: slice) -> NDArray[np.float64]:
        first = np.int64(rows.start)
        return _paint(
            pixels[rows], weights, lines, first, len(pixels), _CUBE_ROOT, _ENCODED, np.float32(top), out[rows]
        )

    return out, _reach(np.sum(_in_bands(work, pixels.shape), axis=0), out.size // 3)


def enlarge(values: FloatArray, height: int, width: int) -> FloatArray:
    """Bilinear resize of (h, w) to (height, width), the same area in both, for maps to be looked at."""
    rows, columns = (
        ((np.arange(length) + 0.5) * old / length - 0.5).clip(0, old - 1)
        for length, old in zip((height, width), values.shape, strict=True)
    )
    wide = np.stack([np.interp(columns, np.arange(values.shape[1]), row) for row in values])
    low = np.floor(rows).astype(int)
    high, share = np.minimum(low + 1, len(values) - 1), (rows - low)[:, None]
    return (wide[low] * (1 - share) + wide[high] * share).astype(np.float32)


def _check(pixels: Pixels) -> None:
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            "`pixels` should be (H, W, 1 or 3) of uint8 or uint16. "
            f"Found `pixels.shape = {pixels.shape}`, {pixels.dtype}."
        )


def _in_bands(work: Callable[[slice], Any], shape: tuple[int, ...]) -> list[Any]:
    """Do work on bands of rows, side by side where there is more than one; answers in order."""
    height, width = shape[:2]
    step = max(1, BAND_PIXELS // max(width, 1))
    bands = [slice(start, min(start + step, height)) for start in range(0, height, step)]
    if len(bands) == 1:
        return [work(bands[0])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, bands))


def _decoded(steps: int) -> NDArray[np.float64]:
    """The sRGB curve from code to light (IEC 61966-2-1), of 0..1 in equal steps."""
    code = np.linspace(0, 1, steps)
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


_WEIGHTED = {
    (dtype, channels): (weights * _decoded(np.iinfo(dtype).max + 1)[:, None]).T.astype(np.float32).copy()
    for dtype in (np.uint8, np.uint16)
    for channels, weights in ((1, np.ones(1)), (3, _TO_XYZ[1]))
}


def _channel_weights(pixels: Pixels) -> FloatArray:
    """What each code of each channel adds to Y: (channels, codes)."""
    return _WEIGHTED[pixels.dtype.type, pixels.shape[2]]


def _over_roots(curve: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> FloatArray:
    return curve(np.linspace(0, 1, _STEPS + 1) ** 2).astype(np.float32)


_CUBE_ROOT = _over_roots(lambda y: np.where(y > (6 / 29) ** 3, np.cbrt(y), y * (841 / 108) + 4 / 29))
_ENCODED = _over_roots(lambda y: np.where(y <= 0.0031308, 12.92 * y, 1.055 * y ** (1 / 2.4) - 0.055))


def _reach(sums: NDArray[np.float64], count: int) -> Reach:
    chroma, reduced, *moments = sums / count
    red_green, yellow_blue, red_green_square, yellow_blue_square = moments
    spread = max(red_green_square - red_green**2, 0) + max(yellow_blue_square - yellow_blue**2, 0)
    mean = red_green**2 + yellow_blue**2
    return Reach(float(chroma), float(spread**0.5 + 0.3 * mean**0.5), float(reduced))


def _compiled(function: Callable[..., Any] | None = None, **options: Any) -> Callable[..., Any]:
    """Compile without the interpreter lock; kept on disk for the next process where some folder can be written."""
    if function is None:
        return partial(_compiled, **options)
    settings = {"nogil": True, "fastmath": True, "error_model": "numpy", **options}
    try:
        return numba.njit(cache=True, **settings)(function)
    except RuntimeError:  # numba found no folder for its cache
        return numba.njit(**settings)(function)


@_compiled(inline="always")
def _look_up(value, table):
    """A table over the square root of 0..1, interpolated."""
    place = np.sqrt(min(max(value, np.float32(0)), np.float32(1))) * np.float32(_STEPS)
    low = min(np.int32(place), np.int32(_STEPS - 1))
    return table[low] + (table[low + 1] - table[low]) * (place - np.float32(low))


@_compiled(inline="always")
def _light(root):
    """The inverse of CIELAB's cube root with its linear foot (CIE 15:2004)."""
    linear = np.float32(108 / 841) * (root - np.float32(4 / 29))
    return root * root * root if root > np.float32(6 / 29) else linear


@_compiled(inline="always")
def _linear_rgb(root, a, b, matrix):
    x = _light(root + a * np.float32(1 / 500))
    y = _light(root)
    z = _light(root - b * np.float32(1 / 200))
    return (
        matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z,
        matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z,
        matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z,
    )


@_compiled
def _roots(row, weights, table, out):
    """The cube root of Y/Yn of a row of pixels."""
    for x in range(row.shape[0]):
        y = weights[0, row[x, 0]]
        if row.shape[1] == 3:
            y += weights[1, row[x, 1]] + weights[2, row[x, 2]]
        out[x] = _look_up(y, table)


@_compiled
def _lightness(pixels, weights, table, out):
    for y in range(pixels.shape[0]):
        _roots(pixels[y], weights, table, out[y])
        for x in range(pixels.shape[1]):
            out[y, x] = np.float32(116) * out[y, x] - np.float32(16)


@_compiled
def _place(position, length, small):
    """Where a pixel's centre lies among a smaller row's: the left neighbour and the share of the right one."""
    place = (np.float32(position) + np.float32(0.5)) * np.float32(small / length) - np.float32(0.5)
    place = min(max(place, np.float32(0)), np.float32(small - 1))
    low = min(np.int64(place), max(small - 2, 0))
    return low, place - np.float32(low)


@_compiled
def _reduce(root, a, b, matrix):
    """The largest share of a chroma that sRGB can show at this lightness, by bisection."""
    low, high = np.float32(0), np.float32(1)
    for _ in range(_BISECTIONS):
        middle = np.float32(0.5) * (low + high)
        red, green, blue = _linear_rgb(root, a * middle, b * middle, matrix)
        if min(red, green, blue) < 0 or max(red, green, blue) > 1:
            high = middle
        else:
            low = middle
    return low


@_compiled
def _paint(pixels, weights, lines, first, full_height, roots, encoded, top, out):
    """Paint a band of rows that begins at row `first` of the picture; see `_reach` for the sums it returns."""
    height, width, _ = pixels.shape
    small_height, small_width, _ = lines.shape
    matrix = _MATRIX
    sums = np.zeros(6)
    root = np.empty(width, np.float32)
    line = np.empty((small_width, 4), np.float32)
    low = np.empty(width, np.int64)
    share = np.empty(width, np.float32)
    for x in range(width):
        low[x], share[x] = _place(x, width, small_width)
    for y in range(height):
        above, weight = _place(first + y, full_height, small_height)
        below = min(above + 1, small_height - 1)
        for k in range(small_width):
            for c in range(4):
                line[k, c] = lines[above, k, c] + (lines[below, k, c] - lines[above, k, c]) * weight
        _roots(pixels[y], weights, roots, root)
        _paint_row(root, line, low, share, matrix, encoded, top, out[y], sums)
    return sums


@_compiled
def _paint_row(root, line, low, share, matrix, encoded, top, out, sums):
    last = line.shape[0] - 1
    chroma, reduced, rg, yb, rg2, yb2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    scale = np.float32(255) / top
    for x in range(root.shape[0]):
        left = low[x]
        right = min(left + 1, last)
        value = np.float32(116) * root[x] - np.float32(16)
        slope = line[left, 0] + (line[right, 0] - line[left, 0]) * share[x]
        offset = line[left, 2] + (line[right, 2] - line[left, 2]) * share[x]
        a = slope * value + offset
        slope = line[left, 1] + (line[right, 1] - line[left, 1]) * share[x]
        offset = line[left, 3] + (line[right, 3] - line[left, 3]) * share[x]
        b = slope * value + offset
        red, green, blue = _linear_rgb(root[x], a, b, matrix)
        if min(red, green, blue) < -_TOLERANCE or max(red, green, blue) > 1 + _TOLERANCE:
            part = _reduce(root[x], a, b, matrix)
            a, b = a * part, b * part
            reduced += root[x] > _VISIBLE
            red, green, blue = _linear_rgb(root[x], a, b, matrix)
        r = np.int32(_look_up(red, encoded) * top + np.float32(0.5))
        g = np.int32(_look_up(green, encoded) * top + np.float32(0.5))
        bl = np.int32(_look_up(blue, encoded) * top + np.float32(0.5))
        out[x, 0], out[x, 1], out[x, 2] = r, g, bl
        chroma += np.sqrt(a * a + b * b)
        opponent, other = np.float32(r - g) * scale, (np.float32(0.5) * (r + g) - bl) * scale
        rg, yb, rg2, yb2 = rg + opponent, yb + other, rg2 + opponent * opponent, yb2 + other * other
    for k, value in enumerate((chroma, reduced, rg, yb, rg2, yb2)):
        sums[k] += value


_MATRIX = _FROM_XYZ
