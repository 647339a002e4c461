"""Painting compiled by numba, the only importer of it, and the formulas that it shares with painting by arrays.

A formula is written once, for arrays as numpy computes them and for single numbers as the loops below do, to the same
last digit: no sum is reordered, no product fused. Compiled code is kept for the next process in `__pycache__` beside
this file, else in the user's cache folder. numba checks this file alone for changes: all that is built in is defined
here, or is a constant of a standard in `color`.
Loops are short and without branches, for the compiler to make vectors of them; only colours that sRGB lacks are picked
out.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from knowhue import color

BISECTIONS = 14
VISIBLE = np.float32(26 / 116)  # cube root at L* 10: below, no colour can be seen
_CHUNK = 1024  # pixels of a row at a time: all that is between input and output stays in the nearest cache
_TOLERANCE = np.float32(2e-6)  # of linear RGB beyond 0..1, which rounding alone can bring about
_WHITE = np.float32(1 - 1e-6)  # cube root of Y/Yn: from here on there is room for no chroma, however little
_FROM_XYZ = tuple(
    map(tuple, (np.linalg.inv(color.SRGB_TO_XYZ) * color.SRGB_TO_XYZ.sum(1)).astype(np.float32))
)
"""From X/Xn, Y/Yn, Z/Zn to linear RGB; its rows sum to 1, so that gray is gray."""


def _fit(power: float, lowest: float, scale: float = 1, shift: float = 0) -> tuple[tuple[Any, ...], Any, Any]:
    """A polynomial for scale * y ** power + shift, y from `lowest` to 1, good to 2e-7.

    It is one of y ** (1 / 4), two square roots, in which the curve is smooth and a vector has them.

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
    """CIELAB's cube root of Y/Yn with its straight foot."""
    root = _polynomial(y, _ROOT, _ROOT_MIDDLE, _ROOT_STEEPNESS)
    return _where(y > _FOOT, root, y * _FOOT_SLOPE + np.float32(4 / 29))


def encoded(light):
    """The sRGB curve from light, clipped to 0..1, to code, 0..1."""
    # rounding may have left it a little beyond, and below 0 there is no root
    light = _smaller(_larger(light, np.float32(0)), np.float32(1))
    code = _polynomial(light, _CODE, _CODE_MIDDLE, _CODE_STEEPNESS)
    return _where(light > _TOE, code, _TOE_SLOPE * light)


def _light(root):
    return _where(root > _FOOT_ROOT, root * root * root, _SLOPE_BACK * (root - np.float32(4 / 29)))


def linear_rgb(root, a, b):
    """Linear RGB of the cube root of Y/Yn, a* and b*."""
    x = _light(root + a * np.float32(1 / 500))
    y = _light(root)
    z = _light(root - b * np.float32(1 / 200))
    return (
        _FROM_XYZ[0][0] * x + _FROM_XYZ[0][1] * y + _FROM_XYZ[0][2] * z,
        _FROM_XYZ[1][0] * x + _FROM_XYZ[1][1] * y + _FROM_XYZ[1][2] * z,
        _FROM_XYZ[2][0] * x + _FROM_XYZ[2][1] * y + _FROM_XYZ[2][2] * z,
    )


def is_outside(red, green, blue, root, a, b):
    """Whether sRGB lacks a colour, of the given linear RGB."""
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
    """CIELAB's cube root of Y/Yn, of pixels whose codes follow each other."""
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
    """Where a pixel's centre lies in a smaller row: the neighbours, and the share of the second."""
    place = min(max((position + 0.5) * small / length - 0.5, 0.0), small - 1.0)
    low = int(place)
    return low, min(low + 1, small - 1), np.float32(place - low)


def _widen(line, start, width, out):
    """A row (w, channels) at a chunk of the image's columns, (channels, chunk)."""
    for x in range(out.shape[1]):
        left, right, share = _place(start + x, width, len(line))
        for c in range(len(out)):
            out[c, x] = line[left, c] + (line[right, c] - line[left, c]) * share


def _chroma(root, slope_above, slope_below, offset_above, offset_below, share, out):
    """Chroma on lines between those of two rows: slope x L* + offset."""
    for x in range(len(out)):
        slope = slope_above[x] + (slope_below[x] - slope_above[x]) * share
        offset = offset_above[x] + (offset_below[x] - offset_above[x]) * share
        out[x] = slope * (np.float32(116) * root[x] - np.float32(16)) + offset


def _add(above, below, share, out):
    """What lies between two rows, added."""
    for x in range(len(out)):
        out[x] += above[x] + (below[x] - above[x]) * share


def _find_outside(root, a, b, out):
    """Mark the colours that sRGB lacks; their number."""
    count = 0
    for x in range(len(root)):
        red, green, blue = linear_rgb(root[x], a[x], b[x])
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


def _reduce(planes, outside, count, work, places):
    """Reduce marked colours; how many of them are visible."""
    found = 0
    for x in range(len(outside)):
        places[found] = x  # no branch: the next takes the place of what is not marked
        found += outside[x]
    shares = work[3, :count]
    for i in range(count):
        for c in range(3):
            work[c, i] = planes[c, places[i]]
    _largest_shares(work[0, :count], work[1, :count], work[2, :count], shares)
    visible = 0
    for i in range(count):
        visible += work[0, i] > VISIBLE
        planes[1, places[i]] *= shares[i]
        planes[2, places[i]] *= shares[i]
    return visible


def _encode(root, a, b, top, out, chroma):
    """Codes of colours, one pixel after the other; C* is added to that of the same columns."""
    for x in range(len(root)):
        red, green, blue = linear_rgb(root[x], a[x], b[x])
        out[3 * x] = np.int32(encoded(red) * top + np.float32(0.5))
        out[3 * x + 1] = np.int32(encoded(green) * top + np.float32(0.5))
        out[3 * x + 2] = np.int32(encoded(blue) * top + np.float32(0.5))
        chroma[x] += np.sqrt(a[x] * a[x] + b[x] * b[x])


def _opponents(codes, sums):
    """Add the moments of red - green and of red + green - 2 blue, in whole numbers."""
    first, second, first_square, second_square = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for x in range(len(codes) // 3):
        red, green, blue = np.int64(codes[3 * x]), np.int64(codes[3 * x + 1]), np.int64(codes[3 * x + 2])
        red_green, yellow_blue = red - green, red + green - 2 * blue
        first, second = first + red_green, second + yellow_blue
        first_square, second_square = first_square + red_green**2, second_square + yellow_blue**2
    for place, value in enumerate((first, second, first_square, second_square)):
        sums[place] += value


def _paint(pixels, tables, lines, added, first, full_height, out):
    """Paint a band of rows that begins at row `first` of the image; see `_paint_stats` for the sums it returns."""
    height, width, channels = pixels.shape
    sums = np.zeros(6)
    for start in range(0, width, _CHUNK):
        count = min(_CHUNK, width - start)
        above, below = np.empty((4, count), np.float32), np.empty((4, count), np.float32)
        added_above, added_below = np.empty((2, count), np.float32), np.empty((2, count), np.float32)
        planes, work = np.empty((3, count), np.float32), np.empty((4, count), np.float32)
        # one place more than pixels, for what `_reduce` writes after the last
        marked, places = np.empty(count, np.uint8), np.empty(count + 1, np.int32)
        chroma = np.zeros(
            count, np.float32
        )  # by column: a single sum would keep the compiler from making vectors
        held, added_held = -1, -1  # many rows of the image lie between the same two small ones
        for y in range(height):
            upper, lower, share = _place(first + y, full_height, len(lines))
            if upper != held:
                held = upper
                _widen(lines[upper], start, width, above)
                _widen(lines[lower], start, width, below)
            codes = pixels[y].reshape(width * channels)[channels * start : channels * (start + count)]
            painted = out[y].reshape(3 * width)[3 * start : 3 * (start + count)]
            _roots(codes, channels, tables, planes[0])
            _chroma(planes[0], above[0], below[0], above[2], below[2], share, planes[1])
            _chroma(planes[0], above[1], below[1], above[3], below[3], share, planes[2])
            if len(added):
                upper, lower, share = _place(first + y, full_height, len(added))
                if upper != added_held:
                    added_held = upper
                    _widen(added[upper], start, width, added_above)
                    _widen(added[lower], start, width, added_below)
                _add(added_above[0], added_below[0], share, planes[1])
                _add(added_above[1], added_below[1], share, planes[2])
            outside = _find_outside(planes[0], planes[1], planes[2], marked)
            if outside:
                sums[1] += _reduce(planes, marked, outside, work, places)
            _encode(planes[0], planes[1], planes[2], np.float32(tables.shape[1] - 1), painted, chroma)
            _opponents(painted, sums[2:])
        sums[0] += chroma.astype(np.float64).sum()
    return sums


_FORMULAS = (_polynomial, root_of, encoded, _light, linear_rgb, is_outside, next_share)
_LOOPS = (_roots, _place, _widen, _chroma, _add, _find_outside, _largest_shares, _reduce, _encode, _opponents)


def compiled() -> Callable[..., Any]:
    """`_paint` compiled without the interpreter lock at its first call, and kept where a folder can be written."""
    import numba
    from numba.extending import overload, register_jitable

    overload(_where)(lambda condition, one, other: lambda condition, one, other: one if condition else other)
    overload(_larger)(lambda one, other: lambda one, other: max(one, other))  # noqa: PLW0108  numba reads names
    overload(_smaller)(lambda one, other: lambda one, other: min(one, other))  # noqa: PLW0108
    settings: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"nsz"}}
    for part in (*_FORMULAS, *_LOOPS):
        register_jitable(**settings)(part)
    try:
        return numba.njit(cache=True, **settings)(_paint)
    except RuntimeError:  # there is no such folder: every process compiles again, some seconds
        return numba.njit(**settings)(_paint)
