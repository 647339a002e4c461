"""The work on every pixel of a full-size image: its lightness, and chroma painted on without changing it.

Compiled by numba, the only importer of it, and kept for the next process in `__pycache__` beside this file, else in the
user's cache folder. numba checks this file alone for changes: all that the kernels build in is defined here, or is a
constant of a standard in `color`.
Loops are short and without branches, for the compiler to make vectors of them; only colours that sRGB lacks are picked
out. Rows are shared out among threads in bands, whatever the number of threads, and no array but the result is as large
as the image.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from knowhue import color
from knowhue.color import FloatArray
from knowhue.images.image import Pixels

BAND_PIXELS = 1 << 18
GUIDE_RADIUS, GUIDE_EPSILON = 1, 25.0
"""Of the guided filter, pixels and squared L*; chosen by `benchmarks/upsampling.py`."""
THREADS: int = numba.config.NUMBA_NUM_THREADS  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]
"""Cores that this process may use; the environment's NUMBA_NUM_THREADS changes it."""

_CHUNK = 1024  # pixels of a row at a time: all that is between input and output stays in the nearest cache
_BISECTIONS = 14
_TOLERANCE = np.float32(2e-6)  # of linear RGB beyond 0..1, which rounding alone can bring about
_WHITE = np.float32(1 - 1e-6)  # cube root of Y/Yn: from here on there is room for no chroma, however little
_VISIBLE = np.float32(26 / 116)  # cube root at L* 10: below, no colour can be seen
_FROM_XYZ = tuple(
    map(tuple, (np.linalg.inv(color.SRGB_TO_XYZ) * color.SRGB_TO_XYZ.sum(1)).astype(np.float32))
)
"""From X/Xn, Y/Yn, Z/Zn to linear RGB; its rows sum to 1, so that gray is gray."""


class PaintStats(NamedTuple):
    """How far painting went.

    Attributes:
        chroma: mean of C* as written, CIELAB units.
        colourfulness: of the image as written (Hasler and Suesstrunk 2003), RGB 0 to 255.
        reduced: share of pixels lighter than L* 10 whose chroma was reduced, because sRGB has no such colour at their
            lightness; of all pixels.
    """

    chroma: float
    colourfulness: float
    reduced: float


def lightness(pixels: Pixels) -> FloatArray:
    """CIELAB L* (H, W), 0 to 100, of sRGB-encoded pixels (H, W, 1 or 3), uint8 or uint16; error below 1e-4.

    Raises:
        ValueError: the pixels have another shape, type or order in memory.

    >>> lightness(np.full((1, 1, 3), 255, np.uint8)).item()
    100.0
    """
    pixels = _to_read(pixels)
    out = np.empty(pixels.shape[:2], np.float32)
    _in_bands(lambda rows: _lightness(pixels[rows], _tables(pixels), out[rows]), pixels.shape)
    return out


def paint(
    pixels: Pixels,
    chroma: FloatArray,
    guide: FloatArray,
    *,
    saturation: float = 1.0,
    added: FloatArray | None = None,
) -> tuple[Pixels, PaintStats]:
    """Give an image other colours and leave its lightness as it is.

    Where sRGB has no colour of that lightness and chroma, the chroma is reduced at the same hue (CIELAB angle) until
    it has one. L* then differs from the original's by the rounding of the result alone: at most 0.5 in 8 bits.

    Args:
        pixels: (H, W, 1 or 3), uint8 or uint16, sRGB-encoded; colours it has do not count.
        chroma: a*b* (h, w, 2) of the same image at a small size.
        guide: L* (h, w) of the same.
        saturation: what the chroma is multiplied by, 0 and up.
        added: a*b* (h', w', 2) of the same image at another size, added to the chroma, interpolated.

    Returns:
        Pixels (H, W, 3) of the same type, and how far it went.

    Raises:
        ValueError: an array has another shape, type or order in memory, chroma is not finite, or saturation negative.

    >>> gray = np.full((1, 1, 1), 119, np.uint8)
    >>> paint(gray, np.full((1, 1, 2), 40, np.float32), np.full((1, 1), 50, np.float32))[0].tolist()
    [[[193, 87, 52]]]
    """
    pixels = _to_read(pixels)
    lines = chroma_lines(chroma, guide, saturation)
    more = _to_add(added)
    height, width = pixels.shape[:2]
    out = np.empty((height, width, 3), pixels.dtype)

    def work(rows: slice) -> NDArray[np.float64]:
        return _paint(pixels[rows], _tables(pixels), lines, more, rows.start, height, out[rows])

    sums = np.sum(_in_bands(work, pixels.shape), axis=0)
    return out, _paint_stats(sums / (height * width), np.iinfo(pixels.dtype).max)


def chroma_lines(
    chroma: FloatArray,
    guide: FloatArray,
    saturation: float = 1.0,
    radius: int = GUIDE_RADIUS,
    epsilon: float = GUIDE_EPSILON,
) -> FloatArray:
    """Slopes of a* and b* over L* and their offsets (h, w, 4): a*b* of a pixel is slope x L* + offset.

    At a small pixel's own lightness that is its chroma; beside it, what goes with the lightness's detail between two
    small pixels. The slopes are those of the fast guided filter (He and Sun 2015). Its offsets are not: they average
    the chroma over windows, which loses more than the guide gives back.

    Args:
        chroma: a*b* (h, w, 2).
        guide: L* (h, w).
        saturation: what the chroma is multiplied by, 0 and up.
        radius: of the windows, pixels.
        epsilon: variance of L* far below which there is no edge.

    Raises:
        ValueError: a shape is another, a value is not finite, or the saturation negative.

    >>> flat = np.full((1, 1, 2), 10, np.float32)
    >>> chroma_lines(flat, np.full((1, 1), 50, np.float32), 2.0).tolist()
    [[[0.0, 0.0, 20.0, 20.0]]]
    """
    _check_small(chroma, guide, saturation)
    chroma = chroma * np.float32(saturation)

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        window: Any = (2 * radius + 1, 2 * radius + 1, *(1,) * (values.ndim - 2))
        return uniform_filter(values, window, mode="nearest")

    centre, target = mean(guide), mean(chroma)
    variance = mean(guide * guide) - centre * centre
    covariance = mean(guide[..., None] * chroma) - centre[..., None] * target
    # a difference of means: rounding can take a flat window below 0
    slope = mean(covariance / (np.maximum(variance, 0)[..., None] + epsilon))
    lines = np.concatenate([slope, chroma - slope * guide[..., None]], -1)
    return np.ascontiguousarray(lines, np.float32)


def _check_small(chroma: FloatArray, guide: FloatArray, saturation: float) -> None:
    if chroma.ndim != 3 or chroma.shape[2] != 2 or not chroma.size:
        raise ValueError(
            f"`chroma` should be (h, w, 2), h and w 1 or more. Found `chroma.shape = {chroma.shape}`."
        )
    if guide.shape != chroma.shape[:2]:
        raise ValueError(
            f"`guide` should be (h, w) as chroma is, {chroma.shape[:2]}. Found `guide.shape = {guide.shape}`."
        )
    if not (np.isfinite(chroma).all() and np.isfinite(guide).all()):
        raise ValueError(
            "`chroma` and `guide` should be finite. Found NaN or infinity. Has the model's training diverged?"
        )
    if not 0 <= saturation < np.inf:
        raise ValueError(f"`saturation` should be 0 or more, finite. Found `saturation = {saturation}`.")


def _to_read(pixels: Pixels) -> Pixels:
    """Checked pixels, never writable: numba would compile once more for those that are."""
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise ValueError(
            f"`pixels` should be (H, W, 1 or 3), H and W 1 or more. Found `pixels.shape = {pixels.shape}`."
        )
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"`pixels` should be uint8 or uint16. Found `pixels.dtype = {pixels.dtype}`.")
    if not pixels.flags.c_contiguous:
        raise ValueError(
            f"`pixels` should be C-contiguous. Found `pixels.strides = {pixels.strides}`. Pass "
            "`numpy.ascontiguousarray(pixels)`."
        )
    view = pixels.view()
    view.flags.writeable = False
    return view


def _to_add(added: FloatArray | None) -> FloatArray:
    """Checked chroma; none is an empty array, for numba to compile one kernel."""
    if added is None:
        return np.empty((0, 0, 2), np.float32)
    if added.ndim != 3 or added.shape[2] != 2 or not added.size or not np.isfinite(added).all():
        raise ValueError(
            f"`added` should be finite and (h, w, 2), h and w 1 or more. Found `added.shape = {added.shape}`"
            f"{'' if np.isfinite(added).all() else ' and NaN or infinity'}."
        )
    return np.array(added, np.float32, order="C")


def _in_bands(work: Callable[[slice], Any], shape: tuple[int, ...]) -> list[Any]:
    """Do work on bands of rows, side by side where there is more than one; answers in order."""
    height, width = shape[:2]
    step = max(1, BAND_PIXELS // width)
    bands = [slice(start, min(start + step, height)) for start in range(0, height, step)]
    if len(bands) == 1 or THREADS == 1:
        return [work(band) for band in bands]
    # not numba's own threads: those may not be used by two callers at once
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, bands))


def _paint_stats(means: NDArray[np.float64], top: int) -> PaintStats:
    chroma, reduced, *moments = means.tolist()
    red_green, yellow_blue, red_green_square, yellow_blue_square = moments
    centre = red_green**2 + (yellow_blue / 2) ** 2
    square = red_green_square + yellow_blue_square / 4
    colourfulness = (max(square - centre, 0) ** 0.5 + 0.3 * centre**0.5) * 255 / top
    return PaintStats(chroma, colourfulness, reduced)


def _build_tables(codes: int) -> dict[int, FloatArray]:
    """By the number of channels. Of one: CIELAB's cube root by code; of three: what each adds to Y, (3, codes)."""
    light = color.srgb_to_linear(np.linspace(0, 1, codes))
    return {
        1: color.cube_root(light)[None].astype(np.float32),
        3: (color.SRGB_TO_XYZ[1][:, None] * light).astype(np.float32),
    }


_TABLES = {dtype: _build_tables(np.iinfo(dtype).max + 1) for dtype in (np.uint8, np.uint16)}


def _tables(pixels: Pixels) -> FloatArray:
    return _TABLES[pixels.dtype.type][pixels.shape[2]]


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


_SETTINGS: dict[str, Any] = {  # sums may be reordered, which vectors need, but NaN is not assumed away
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"arcp", "contract", "nsz", "reassoc"},
}


def _part(function: Callable[..., Any]) -> Callable[..., Any]:
    """A part of kernels, inlined: called, it would give other last digits when fresh than from the cache."""
    return numba.njit(forceinline=True, **_SETTINGS)(function)


def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled without the interpreter lock at its first call, and kept on disk where a folder can be written."""
    try:
        return numba.njit(cache=True, **_SETTINGS)(function)
    except RuntimeError:  # there is none: every process compiles again, some seconds
        return numba.njit(**_SETTINGS)(function)


@_part
def _cube_root(y):
    place = (np.sqrt(np.sqrt(y)) - _ROOT_MIDDLE) * _ROOT_STEEPNESS
    value = np.float32(0)
    for coefficient in _ROOT:
        value = value * place + coefficient
    return value if y > _FOOT else y * _FOOT_SLOPE + np.float32(4 / 29)  # CIELAB's straight foot


@_part
def _encoded(light):
    """The sRGB curve from light, clipped to 0..1, to code, 0..1."""
    # rounding may have left it a little beyond, and below 0 there is no root
    light = min(max(light, np.float32(0)), np.float32(1))
    place = (np.sqrt(np.sqrt(light)) - _CODE_MIDDLE) * _CODE_STEEPNESS
    value = np.float32(0)
    for coefficient in _CODE:
        value = value * place + coefficient
    return value if light > _TOE else _TOE_SLOPE * light


@_part
def _light(root):
    linear = _SLOPE_BACK * (root - np.float32(4 / 29))
    return root * root * root if root > _FOOT_ROOT else linear


@_part
def _linear_rgb(root, a, b):
    x = _light(root + a * np.float32(1 / 500))
    y = _light(root)
    z = _light(root - b * np.float32(1 / 200))
    return (
        _FROM_XYZ[0][0] * x + _FROM_XYZ[0][1] * y + _FROM_XYZ[0][2] * z,
        _FROM_XYZ[1][0] * x + _FROM_XYZ[1][1] * y + _FROM_XYZ[1][2] * z,
        _FROM_XYZ[2][0] * x + _FROM_XYZ[2][1] * y + _FROM_XYZ[2][2] * z,
    )


@_part
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
            out[x] = _cube_root(out[x])


@_kernel
def _lightness(pixels, tables, out):
    height, width, channels = pixels.shape
    for y in range(height):
        row = out[y]
        _roots(pixels[y].reshape(width * channels), channels, tables, row)
        for x in range(width):
            row[x] = min(max(np.float32(116) * row[x] - np.float32(16), np.float32(0)), np.float32(100))


@_part
def _place(position, length, small):
    """Where a pixel's centre lies in a smaller row: the neighbours, and the share of the second."""
    place = min(max((position + 0.5) * small / length - 0.5, 0.0), small - 1.0)
    low = int(place)
    return low, min(low + 1, small - 1), np.float32(place - low)


@_part
def _widen(line, start, width, out):
    """A row (w, channels) at a chunk of the image's columns, (channels, chunk)."""
    for x in range(out.shape[1]):
        left, right, share = _place(start + x, width, len(line))
        for c in range(len(out)):
            out[c, x] = line[left, c] + (line[right, c] - line[left, c]) * share


@_part
def _chroma(root, slope_above, slope_below, offset_above, offset_below, share, out):
    """Chroma on lines between those of two rows: slope x L* + offset."""
    for x in range(len(out)):
        slope = slope_above[x] + (slope_below[x] - slope_above[x]) * share
        offset = offset_above[x] + (offset_below[x] - offset_above[x]) * share
        out[x] = slope * (np.float32(116) * root[x] - np.float32(16)) + offset


@_part
def _add(above, below, share, out):
    """What lies between two rows, added."""
    for x in range(len(out)):
        out[x] += above[x] + (below[x] - above[x]) * share


@_part
def _find_outside(root, a, b, out):
    """Mark the colours that sRGB lacks; their number."""
    count = 0
    for x in range(len(root)):
        red, green, blue = _linear_rgb(root[x], a[x], b[x])
        highest = max(red, green, blue)
        fits = (min(red, green, blue) >= -_TOLERANCE * highest) & (highest <= 1 + _TOLERANCE)
        fits &= (root[x] < _WHITE) | (a[x] * a[x] + b[x] * b[x] == 0)
        out[x] = not fits
        count += not fits
    return count


@_part
def _largest_shares(root, a, b, out):
    """The largest share of each chroma that sRGB can show at this lightness, by bisection."""
    out[:] = 0
    step = np.float32(0.5)
    for _ in range(_BISECTIONS):
        for x in range(len(out)):
            share = out[x] + step
            red, green, blue = _linear_rgb(root[x], a[x] * share, b[x] * share)
            fits = (min(red, green, blue) >= 0) & (max(red, green, blue) <= 1) & (root[x] < _WHITE)
            out[x] = share if fits else out[x]
        step *= np.float32(0.5)


@_part
def _reduce(planes, is_outside, count, work, places):
    """Reduce marked colours; how many of them are visible."""
    found = 0
    for x in range(len(is_outside)):
        places[found] = x  # no branch: the next takes the place of what is not marked
        found += is_outside[x]
    shares = work[3, :count]
    for i in range(count):
        for c in range(3):
            work[c, i] = planes[c, places[i]]
    _largest_shares(work[0, :count], work[1, :count], work[2, :count], shares)
    visible = 0
    for i in range(count):
        visible += work[0, i] > _VISIBLE
        planes[1, places[i]] *= shares[i]
        planes[2, places[i]] *= shares[i]
    return visible


@_part
def _encode(root, a, b, top, out):
    """Codes of colours, one pixel after the other; the sum of their C*."""
    chroma = np.float32(0)
    for x in range(len(root)):
        red, green, blue = _linear_rgb(root[x], a[x], b[x])
        out[3 * x] = np.int32(_encoded(red) * top + np.float32(0.5))
        out[3 * x + 1] = np.int32(_encoded(green) * top + np.float32(0.5))
        out[3 * x + 2] = np.int32(_encoded(blue) * top + np.float32(0.5))
        chroma += np.sqrt(a[x] * a[x] + b[x] * b[x])
    return chroma


@_part
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


@_kernel
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
        is_outside, places = np.empty(count, np.uint8), np.empty(count + 1, np.int32)
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
            outside = _find_outside(planes[0], planes[1], planes[2], is_outside)
            if outside:
                sums[1] += _reduce(planes, is_outside, outside, work, places)
            sums[0] += _encode(planes[0], planes[1], planes[2], np.float32(tables.shape[1] - 1), painted)
            _opponents(painted, sums[2:])
    return sums
