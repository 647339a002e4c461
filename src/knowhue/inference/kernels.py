"""Pixel loops compiled by numba, which only this module imports, and the formulas they share with numpy code.

Each formula is written once. It gives the same result to the last digit on numpy arrays and on the single numbers of
the loops below: no sum is reordered, no product fused. numba caches compiled code in `__pycache__` beside this file or
in the user's cache folder, and checks only this file for changes. Therefore everything that is compiled is defined
here, or is a constant of a standard in `color`.
Loops are short and without branches so that the compiler vectorises them; only colours outside sRGB are treated one by
one.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from knowhue import color

_LOG = logging.getLogger(__name__)
COMPILED_FROM = 1 << 20
"""Pixels painted by a process, including the next image, above which loading compiled code pays (see
docs/decisions.md)."""
BISECTIONS = 14
VISIBLE = np.float32(26 / 116)  # cube root of Y/Yn at L* 10; in darker pixels no colour is visible
_CHUNK = 2048  # pixels of a row at a time: 200 KB of intermediate results, which stay in a near cache
_TOLERANCE = np.float32(2e-6)  # distance of linear RGB from 0..1 that rounding alone can cause
_WHITE = np.float32(1 - 1e-6)  # cube root of Y/Yn from which sRGB has no room for any chroma
_FROM_XYZ = tuple(
    map(tuple, (np.linalg.inv(color.SRGB_TO_XYZ) * color.SRGB_TO_XYZ.sum(1)).astype(np.float32))
)
"""Matrix from X/Xn, Y/Yn, Z/Zn to linear RGB; its rows sum to 1, so that gray stays gray."""


def _fit(power: float, lowest: float, scale: float = 1, shift: float = 0) -> tuple[tuple[Any, ...], Any, Any]:
    """Fit a polynomial to scale * y ** power + shift for y from `lowest` to 1, to within 2e-7.

    Its variable is y ** (1 / 4), two square roots: the curve is smooth in it, and square roots are vector instructions.

    Returns:
        Coefficients, highest first, of (y ** (1 / 4) - middle) * steepness; middle; steepness.
    """
    low = lowest**0.25
    middle, half = (1 + low) / 2, (1 - low) / 2
    curve = Chebyshev.interpolate(lambda place: scale * (middle + half * place) ** (4 * power) + shift, 8)
    coefficients = curve.convert(kind=Polynomial).coef[::-1]
    return tuple(map(np.float32, coefficients)), np.float32(middle), np.float32(1 / half)


_FOOT, _FOOT_ROOT, _FOOT_SLOPE = (
    np.float32(value) for value in (color.FOOT, color.FOOT_ROOT, color.FOOT_SLOPE)
)
_SLOPE_BACK = np.float32(1 / color.FOOT_SLOPE)
_ROOT, _ROOT_MIDDLE, _ROOT_STEEPNESS = _fit(1 / 3, color.FOOT)
_TOE, _TOE_SLOPE = np.float32(color.TOE_LIGHT), np.float32(color.TOE_SLOPE)
_CODE, _CODE_MIDDLE, _CODE_STEEPNESS = _fit(
    1 / color.GAMMA, color.TOE_LIGHT, color.GAMMA_SCALE, -color.GAMMA_SHIFT
)


def _where(condition, one, other):
    return np.where(condition, one, other)


def _larger(one, other):
    return np.maximum(one, other)


def _smaller(one, other):
    return np.minimum(one, other)


def _polynomial(y, coefficients, middle, steepness):
    place = (np.sqrt(np.sqrt(y)) - middle) * steepness
    value = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * place + coefficient
    return value


def root_of(y):
    """CIELAB's cube root of Y/Yn with its linear part near black."""
    root = _polynomial(y, _ROOT, _ROOT_MIDDLE, _ROOT_STEEPNESS)
    return _where(y > _FOOT, root, y * _FOOT_SLOPE + np.float32(4 / 29))


def encoded(light):
    """The sRGB curve from light, clipped to 0..1, to code, 0..1."""
    # rounding can leave values slightly outside, and those below 0 have no root
    light = _smaller(_larger(light, np.float32(0)), np.float32(1))
    code = _polynomial(light, _CODE, _CODE_MIDDLE, _CODE_STEEPNESS)
    return _where(light > _TOE, code, _TOE_SLOPE * light)


def _light(root):
    return _where(root > _FOOT_ROOT, root * root * root, _SLOPE_BACK * (root - np.float32(4 / 29)))


def linear_rgb(root, a, b):
    """Linear RGB for the cube root of Y/Yn, a* and b*."""
    x = _light(root + a * np.float32(1 / 500))
    y = _light(root)
    z = _light(root - b * np.float32(1 / 200))
    return (
        _FROM_XYZ[0][0] * x + _FROM_XYZ[0][1] * y + _FROM_XYZ[0][2] * z,
        _FROM_XYZ[1][0] * x + _FROM_XYZ[1][1] * y + _FROM_XYZ[1][2] * z,
        _FROM_XYZ[2][0] * x + _FROM_XYZ[2][1] * y + _FROM_XYZ[2][2] * z,
    )


def is_outside(red, green, blue, root, a, b):
    """Whether a colour, with its linear RGB, lies outside sRGB."""
    highest = _larger(_larger(red, green), blue)
    fits = (_smaller(_smaller(red, green), blue) >= -_TOLERANCE * highest) & (highest <= 1 + _TOLERANCE)
    return ~(fits & ((root < _WHITE) | (a * a + b * b == 0)))


def next_share(root, a, b, share, step):
    """One bisection towards the largest share of a chroma that sRGB can show at its lightness."""
    more = share + step
    red, green, blue = linear_rgb(root, a * more, b * more)
    low, high = _smaller(_smaller(red, green), blue), _larger(_larger(red, green), blue)
    return _where((low >= 0) & (high <= 1) & (root < _WHITE), more, share)


def _roots(codes, channels, tables, out):
    """CIELAB's cube root of Y/Yn for a row of interleaved codes."""
    if channels == 1:
        for x in range(len(out)):
            out[x] = tables[0, codes[x]]
    else:
        red, green, blue = tables[0], tables[1], tables[2]
        for x in range(len(out)):
            out[x] = red[codes[3 * x]] + green[codes[3 * x + 1]] + blue[codes[3 * x + 2]]
        for x in range(len(out)):
            out[x] = root_of(out[x])


def _place(position, length, small):
    """Position of a pixel's centre in a smaller row: its two neighbours, and the weight of the second."""
    place = min(max((position + 0.5) * small / length - 0.5, 0.0), small - 1.0)
    low = int(place)
    return low, min(low + 1, small - 1), np.float32(place - low)


def _places(start, width, small, left, right, shares):
    """`_place` for a chunk of the image's columns."""
    for x in range(len(left)):
        left[x], right[x], shares[x] = _place(start + x, width, small)


def _widen(line, left, right, shares, out):
    """Interpolate a row (w, channels) at a chunk of the image's columns, (channels, chunk)."""
    for x in range(out.shape[1]):
        for c in range(len(out)):
            out[c, x] = line[left[x], c] + (line[right[x], c] - line[left[x], c]) * shares[x]


def _chroma(root, slope_above, slope_below, offset_above, offset_below, share, out):
    """Chroma, slope x L* + offset, interpolated between the lines of two rows."""
    for x in range(len(out)):
        slope = slope_above[x] + (slope_below[x] - slope_above[x]) * share
        offset = offset_above[x] + (offset_below[x] - offset_above[x]) * share
        out[x] = slope * (np.float32(116) * root[x] - np.float32(16)) + offset


def _add(above, below, share, out):
    """Add values interpolated between two rows."""
    for x in range(len(out)):
        out[x] += above[x] + (below[x] - above[x]) * share


def _find_outside(root, a, b, rgb, out):
    """Compute linear RGB, mark colours outside sRGB, and return their number."""
    count = 0
    for x in range(len(root)):
        red, green, blue = linear_rgb(root[x], a[x], b[x])
        rgb[0, x], rgb[1, x], rgb[2, x] = red, green, blue
        outside = is_outside(red, green, blue, root[x], a[x], b[x])
        out[x] = outside
        count += outside
    return count


def _largest_shares(root, a, b, out):
    out[:] = 0
    step = np.float32(0.5)
    for _ in range(BISECTIONS):
        for x in range(len(out)):
            out[x] = next_share(root[x], a[x], b[x], out[x], step)
        step *= np.float32(0.5)


def _reduce(planes, rgb, outside, count, work, places):
    """Reduce the chroma of marked colours, and return how many of them are visible."""
    found = 0
    for x in range(len(outside)):
        places[found] = x  # without a branch: the next pixel overwrites one that is not marked
        found += outside[x]
    shares = work[3, :count]
    for i in range(count):
        for c in range(3):
            work[c, i] = planes[c, places[i]]
    _largest_shares(work[0, :count], work[1, :count], work[2, :count], shares)
    visible = 0
    for i in range(count):
        place = places[i]
        visible += work[0, i] > VISIBLE
        planes[1, place] *= shares[i]
        planes[2, place] *= shares[i]
        red, green, blue = linear_rgb(planes[0, place], planes[1, place], planes[2, place])
        rgb[0, place], rgb[1, place], rgb[2, place] = red, green, blue
    return visible


def _encode(rgb, a, b, top, out, chroma):
    """Write interleaved codes of linear RGB, and add C* to the sum of each column."""
    for x in range(len(a)):
        out[3 * x] = np.int32(encoded(rgb[0, x]) * top + np.float32(0.5))
        out[3 * x + 1] = np.int32(encoded(rgb[1, x]) * top + np.float32(0.5))
        out[3 * x + 2] = np.int32(encoded(rgb[2, x]) * top + np.float32(0.5))
        chroma[x] += np.sqrt(a[x] * a[x] + b[x] * b[x])


def _opponents(codes, sums):
    """Add the first and second moments of red - green and red + green - 2 blue, as integers."""
    first, second, first_square, second_square = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for x in range(len(codes) // 3):
        red, green, blue = np.int64(codes[3 * x]), np.int64(codes[3 * x + 1]), np.int64(codes[3 * x + 2])
        red_green, yellow_blue = red - green, red + green - 2 * blue
        first, second = first + red_green, second + yellow_blue
        first_square, second_square = first_square + red_green**2, second_square + yellow_blue**2
    for place, value in enumerate((first, second, first_square, second_square)):
        sums[place] += value


def _paint(pixels, tables, lines, added, first, full_height, out):
    """Paint a band that begins at row `first` of the image; returns sums for `pixels._paint_stats`."""
    height, width, channels = pixels.shape
    sums = np.zeros(6)
    for start in range(0, width, _CHUNK):
        count = min(_CHUNK, width - start)
        left, right = np.empty(count, np.int32), np.empty(count, np.int32)
        shares, added_shares = np.empty(count, np.float32), np.empty(count, np.float32)
        added_left, added_right = np.empty(count, np.int32), np.empty(count, np.int32)
        above, below = np.empty((4, count), np.float32), np.empty((4, count), np.float32)
        added_above, added_below = np.empty((2, count), np.float32), np.empty((2, count), np.float32)
        planes, rgb = np.empty((3, count), np.float32), np.empty((3, count), np.float32)
        work = np.empty((4, count), np.float32)
        # one more element than pixels, because `_reduce` writes behind the last
        marked, places = np.empty(count, np.uint8), np.empty(count + 1, np.int32)
        # one sum per column, because the compiler does not vectorise a single sum
        chroma = np.zeros(count, np.float32)
        _places(start, width, lines.shape[1], left, right, shares)
        _places(start, width, added.shape[1], added_left, added_right, added_shares)
        widened, added_widened = -1, -1  # many rows lie between the same two small rows
        for y in range(height):
            upper, lower, share = _place(first + y, full_height, len(lines))
            if upper != widened:
                widened = upper
                _widen(lines[upper], left, right, shares, above)
                _widen(lines[lower], left, right, shares, below)
            codes = pixels[y].reshape(width * channels)[channels * start : channels * (start + count)]
            painted = out[y].reshape(3 * width)[3 * start : 3 * (start + count)]
            _roots(codes, channels, tables, planes[0])
            _chroma(planes[0], above[0], below[0], above[2], below[2], share, planes[1])
            _chroma(planes[0], above[1], below[1], above[3], below[3], share, planes[2])
            if len(added):
                upper, lower, share = _place(first + y, full_height, len(added))
                if upper != added_widened:
                    added_widened = upper
                    _widen(added[upper], added_left, added_right, added_shares, added_above)
                    _widen(added[lower], added_left, added_right, added_shares, added_below)
                _add(added_above[0], added_below[0], share, planes[1])
                _add(added_above[1], added_below[1], share, planes[2])
            outside = _find_outside(planes[0], planes[1], planes[2], rgb, marked)
            if outside:
                sums[1] += _reduce(planes, rgb, marked, outside, work, places)
            _encode(rgb, planes[1], planes[2], np.float32(tables.shape[1] - 1), painted, chroma)
            _opponents(painted, sums[2:])
        sums[0] += chroma.astype(np.float64).sum()
    return sums


def _block_means(pixels, row, down, across, sums, totals, out):
    """Means of a row of blocks of pixels, of at most 2 ** 16 each; the image's last row and column are repeated."""
    height, width, channels = pixels.shape
    if down == across == 1:
        codes = pixels[row].reshape(len(out))
        for x in range(len(out)):
            out[x] = codes[x]
        return
    sums[:] = 0
    for k in range(down):
        codes = pixels[min(row * down + k, height - 1)].reshape(width * channels)
        for x in range(len(codes)):
            sums[x] = np.uint32(sums[x] + codes[x])
    for x in range(width * channels, len(sums)):
        sums[x] = sums[x - channels]
    # summed from every pixel on, not only from the first of each block, because that is vectorised
    totals[:] = sums
    for k in range(1, across):
        shifted = sums[k * channels :]
        for x in range(len(shifted)):
            totals[x] = np.uint32(totals[x] + shifted[x])
    blocks = totals.reshape(len(out) // channels, across * channels)
    picked, share = sums[: len(out)].reshape(len(blocks), channels), 1 / (down * across)
    for x in range(len(blocks)):
        picked[x, 0] = blocks[x, 0]
        if channels == 3:
            picked[x, 1], picked[x, 2] = blocks[x, 1], blocks[x, 2]
    for x in range(len(out)):
        out[x] = sums[x] * share


def _small_lightness(pixels, down, across, rows, row_weights, columns, column_weights, top, tables, out):
    """L* of rows of a resized image: weighted sums of rows, then of columns, by `pixels.taps`, rounded to 16 bits.

    Only those means of blocks are held that the last row needed.
    """
    channels, (height, count) = pixels.shape[2], rows.shape
    width = -(-pixels.shape[1] // across)
    work = np.empty((2, width * across * channels), np.uint32)
    means, known = np.empty((count, width * channels), np.float32), rows[0, 0]
    line, narrow = np.empty(width * channels), np.empty((width, channels * height), np.float32)
    for y in range(height):
        while known <= rows[y, count - 1]:
            _block_means(pixels, known, down, across, work[0], work[1], means[known % count])
            known += 1
        line[:] = 0
        for k in range(0, count, 2):  # two at a time, which halves the traffic of sums
            row, weight = means[rows[y, k] % count], row_weights[y, k]
            other = min(k + 1, count - 1)
            second, second_weight = means[rows[y, other] % count], row_weights[y, other] if other > k else 0.0
            for x in range(len(line)):
                line[x] = line[x] + weight * row[x] + second_weight * second[x]
        for x in range(width):
            for c in range(channels):
                narrow[x, channels * y + c] = line[channels * x + c]
    weighted, codes = np.empty(channels * height), np.empty(channels * height, np.uint16)
    root = np.empty(height, np.float32)
    for x in range(out.shape[1]):
        weighted[:] = 0
        for k in range(columns.shape[1]):
            column, weight = narrow[columns[x, k]], column_weights[x, k]
            for i in range(len(weighted)):
                weighted[i] += weight * column[i]
        for i in range(len(weighted)):
            share = _smaller(_larger(np.float32(weighted[i]) / top, np.float32(0)), np.float32(1))
            codes[i] = np.int32(np.rint(share * np.float32(65535)))
        _roots(codes, channels, tables, root)
        for y in range(height):
            light = np.float32(116) * root[y] - np.float32(16)
            out[y, x] = _smaller(_larger(light, np.float32(0)), np.float32(100))


class CompiledKernels(NamedTuple):
    """The compiled functions."""

    paint: Callable[..., Any]
    small_lightness: Callable[..., Any]


_FORMULAS = (_polynomial, root_of, encoded, _light, linear_rgb, is_outside, next_share)
_LOOPS = (
    _roots, _place, _places, _widen, _chroma, _add, _find_outside, _largest_shares, _reduce, _encode, _opponents,
    _block_means,
)  # fmt: skip


def build_kernels() -> CompiledKernels:
    """Functions that compile at their first call, release the GIL, and are cached if possible."""
    import numba
    from numba.extending import overload, register_jitable

    overload(_where)(lambda condition, one, other: lambda condition, one, other: one if condition else other)
    overload(_larger)(lambda one, other: lambda one, other: max(one, other))  # noqa: PLW0108  numba reads names
    overload(_smaller)(lambda one, other: lambda one, other: min(one, other))  # noqa: PLW0108
    settings: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"nsz"}}
    for part in (*_FORMULAS, *_LOOPS):
        register_jitable(**settings)(part)
    whole: tuple[Any, ...] = _paint, _small_lightness
    try:
        return CompiledKernels(*(numba.njit(cache=True, **settings)(each) for each in whole))
    except RuntimeError:  # no folder to cache in: every process compiles again, for some seconds
        return CompiledKernels(*(numba.njit(**settings)(each) for each in whole))


class LazyKernels:
    """Counts the pixels that a process paints, and provides compiled code as soon as loading it pays."""

    def __init__(self) -> None:
        self.waits = True
        """whether images wait for compiled code; if not, numpy paints them while a thread compiles"""
        self._painted = 0
        self._compiled: CompiledKernels | None = None
        self._begun: set[np.dtype[Any]] = set()
        self._ready: set[np.dtype[Any]] = set()
        self._lock, self._starting = threading.Lock(), threading.Lock()

    def compiled(self, ahead: int, dtype: np.dtype[Any]) -> CompiledKernels | None:
        """Compiled code if it pays for an image of `ahead` pixels of this type, else None."""
        with self._lock:
            if self._painted + ahead <= COMPILED_FROM and self._compiled is None:
                return None
            if not self.waits and dtype not in self._begun:
                self._begun.add(dtype)
                # a daemon, so that a process does not wait for the compiler at exit
                threading.Thread(target=self._compile, args=(dtype,), daemon=True).start()
        if not self.waits:
            return self._compiled if dtype in self._ready else None
        return self._start()

    def add(self, count: int) -> None:
        with self._lock:
            self._painted += count

    def _start(self) -> CompiledKernels:
        with self._starting:
            if self._compiled is None:
                self._compiled = build_kernels()
            return self._compiled

    def _compile(self, dtype: np.dtype[Any]) -> None:
        try:
            _call_once(self._start(), dtype)
        except Exception as error:  # any error of the compiler: numpy paints instead
            _LOG.warning("not compiled, so that painting stays ten times as slow: %s", error)
        else:
            self._ready.add(dtype)


def _call_once(compiled: CompiledKernels, dtype: np.dtype[Any]) -> None:
    """Make numba compile all functions for a pixel type, by calls on one pixel."""
    pixels, tables = np.zeros((1, 1, 1), dtype), np.zeros((1, 1 << 16), np.float32)
    pixels.flags.writeable = False  # as `pixels._read_only` returns them
    lines, nothing = np.zeros((1, 1, 4), np.float32), np.empty((0, 0, 2), np.float32)
    compiled.paint(pixels, tables, lines, nothing, 0, 1, np.empty((1, 1, 3), dtype))
    taps = np.zeros((1, 1), np.int32), np.ones((1, 1))
    light = np.empty((1, 1), np.float32)
    compiled.small_lightness(pixels, 1, 1, *taps, *taps, np.float32(1), tables, light)
