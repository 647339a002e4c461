"""Work on every pixel of a full-size image: its lightness, the network's input, and painting chroma on it.

Threads share an image in bands of rows, which do not depend on the number of threads, and no array but the result is as
large as the image. numpy paints the first photos of a process, because it starts at once. Compiled code, which is ten
times as fast, takes over with the image that reaches `kernels.COMPILED_FROM` pixels, or after `paint_compiled`; within
`compiling_meanwhile`, as soon as it is ready, so that no image waits for it. Both give the same pixels to the last
digit, and statistics to within 1e-12. In the network's input, one 16-bit code in a hundred differs by 1, because
compiled code sums rows before columns.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue import color
from knowhue.color import FloatArray
from knowhue.images.image import Pixels, require_pixels
from knowhue.images.vips import OVERSAMPLING, block_size, shrink
from knowhue.inference import kernels
from knowhue.inference.pipeline import in_threads, usable_cores

BAND_PIXELS = 1 << 18
GUIDE_RADIUS, GUIDE_EPSILON = 1, 25.0
"""Parameters of the guided filter, in pixels and squared L*; chosen by `benchmarks/upsampling.py`."""
THREADS = usable_cores()
_BLOCK_PIXELS = 1 << 14  # painted at a time by numpy, so that arrays stay in the cache
Neighbours = tuple[NDArray[np.int_], NDArray[np.int_], NDArray[np.floating[Any]]]
"""For positions in a row: the indices below and above, and the weight of the second."""


class PaintStats(NamedTuple):
    """Statistics of a painted image."""

    chroma: float
    """mean of C* as written, CIELAB units"""
    colourfulness: float
    """colourfulness of the image as written (Hasler and Süsstrunk 2003), RGB 0 to 255"""
    reduced: float
    """share of all pixels that are lighter than L* 10 and whose chroma was reduced, because sRGB has no such colour at
    their lightness"""


def lightness(pixels: Pixels) -> FloatArray:
    """CIELAB L* (H, W), 0 to 100, of sRGB-encoded pixels (H, W, 1 or 3), uint8 or uint16; error below 1e-4.

    Raises:
        ValueError: the pixels have the wrong shape, type or memory order.

    >>> lightness(np.full((1, 1, 3), 255, np.uint8)).item()
    100.0
    """
    pixels = _read_only(pixels)
    out = np.empty(pixels.shape[:2], np.float32)

    def work(rows: slice) -> None:
        out[rows] = (np.float32(116) * _roots(pixels[rows], _tables(pixels)) - np.float32(16)).clip(0, 100)

    _in_bands(work, len(pixels), _band_rows(pixels))
    return out


def paint(
    pixels: Pixels,
    chroma: FloatArray,
    guide: FloatArray,
    *,
    saturation: float = 1.0,
    added: FloatArray | None = None,
) -> tuple[Pixels, PaintStats]:
    """Replace the colours of an image and keep its lightness.

    Where sRGB has no colour of that lightness and chroma, the chroma is reduced at the same hue (CIELAB angle) until
    it has one. L* then differs from the original's by the rounding of the result alone: at most 0.5 in 8 bits.

    Args:
        pixels: (H, W, 1 or 3), uint8 or uint16, sRGB-encoded; their own colours are ignored.
        chroma: a*b* (h, w, 2) of the same image at a small size.
        guide: L* (h, w) of the same image at that size.
        saturation: factor of the chroma, 0 or more.
        added: a*b* (h', w', 2) at any small size, interpolated and added to the chroma.

    Returns:
        Pixels (H, W, 3) of the same type, and their statistics.

    Raises:
        ValueError: an array has the wrong shape, type or memory order, chroma is not finite, or saturation negative.

    >>> gray = np.full((1, 1, 1), 119, np.uint8)
    >>> paint(gray, np.full((1, 1, 2), 40, np.float32), np.full((1, 1), 50, np.float32))[0].tolist()
    [[[193, 87, 52]]]
    """
    pixels = _read_only(pixels)
    height, width = pixels.shape[:2]
    compiled = _lazy_kernels.compiled(height * width, pixels.dtype)
    lines = chroma_lines(chroma, guide, saturation)
    extra = np.empty((0, 0, 2), np.float32)  # not None, so that numba compiles only one kernel
    if added is not None:
        _require_chroma("added", added)
        extra = np.array(added, np.float32, order="C")
    out = np.empty((height, width, 3), pixels.dtype)
    _lazy_kernels.add(height * width)
    paint_band = paint_arrays if compiled is None else compiled.paint

    def work(rows: slice) -> NDArray[np.float64]:
        return paint_band(pixels[rows], _tables(pixels), lines, extra, rows.start, height, out[rows])

    sums = np.sum(_in_bands(work, height, _band_rows(pixels)), axis=0)
    return out, _paint_stats(sums / (height * width), np.iinfo(pixels.dtype).max)


def chroma_lines(
    chroma: FloatArray,
    guide: FloatArray,
    saturation: float = 1.0,
    radius: int = GUIDE_RADIUS,
    epsilon: float = GUIDE_EPSILON,
) -> FloatArray:
    """Slopes of a* and b* over L* and their offsets (h, w, 4): a*b* of a pixel is slope x L* + offset.

    At the lightness of a small pixel the line gives its chroma; between small pixels the chroma follows the detail of
    the lightness. The slopes are those of the fast guided filter (He and Sun 2015). The offsets are not: the filter
    averages them over windows, which loses more detail than the guide restores.

    Args:
        chroma: a*b* (h, w, 2).
        guide: L* (h, w).
        saturation: factor of the chroma, 0 or more.
        radius: radius of the windows, pixels.
        epsilon: regularisation of the slopes; a variance of L* far below it does not count as an edge.

    Raises:
        ValueError: a shape does not match, a value is not finite, or the saturation is negative.

    >>> flat = np.full((1, 1, 2), 10, np.float32)
    >>> chroma_lines(flat, np.full((1, 1), 50, np.float32), 2.0).tolist()
    [[[0.0, 0.0, 20.0, 20.0]]]
    """
    _require_chroma("chroma", chroma)
    shape = chroma.shape[:2]
    _require_finite("guide", guide, f"(h, w) as chroma is, {shape}", guide.shape == shape)
    if not 0 <= saturation < np.inf:
        raise ValueError(f"`saturation` should be 0 or more, finite. Found `saturation = {saturation}`.")
    # in float64, because variances are differences of means
    light, colour = guide.astype(np.float64), (chroma * np.float32(saturation)).astype(np.float64)

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        """Means over the windows; borders are repeated."""
        for axis, length in enumerate(guide.shape):
            rows = np.moveaxis(values, axis, 0)
            rows = np.concatenate([*[rows[:1]] * radius, rows, *[rows[-1:]] * radius])
            total: Any = sum(rows[shift : shift + length] for shift in range(2 * radius + 1))
            values = np.moveaxis(total / (2 * radius + 1), 0, axis)
        return values

    centre, target = mean(light), mean(colour)
    variance = mean(light * light) - centre * centre
    covariance = mean(light[..., None] * colour) - centre[..., None] * target
    # rounding can make the variance of a flat window negative
    slope = mean(covariance / (np.maximum(variance, 0)[..., None] + epsilon))
    lines = np.concatenate([slope, colour - slope * light[..., None]], -1)
    return np.ascontiguousarray(lines, np.float32)


def enlarge(values: FloatArray, height: int, width: int) -> FloatArray:
    """Resize (h, w) or (h, w, c) to (height, width), bilinear, with aligned outer edges."""
    rows, columns = (
        neighbours((np.arange(length) + 0.5) * old / length - 0.5, old)
        for length, old in zip((height, width), values.shape, strict=False)
    )
    wide = interpolate_along(values.swapaxes(0, 1), columns).swapaxes(0, 1)
    return interpolate_along(wide, rows).astype(np.float32)


def interpolated(values: FloatArray, y: Any, x: Any) -> NDArray[np.floating[Any]]:
    """Values (h, w, c) of a small image at fractions `y` of the height and `x` of the width, bilinear: (..., c)."""
    (top, bottom, down), (left, right, across) = (
        neighbours(np.asarray(fraction) * length - 0.5, length)
        for fraction, length in zip((y, x), values.shape, strict=False)
    )
    upper, lower = (
        values[row, left] + (values[row, right] - values[row, left]) * across[..., None]
        for row in (top, bottom)
    )
    return upper + (lower - upper) * down[..., None]


def neighbours(positions: NDArray[np.floating[Any]], length: int) -> Neighbours:
    """The neighbours of positions in a row of `length` values; positions outside are clipped."""
    positions = np.clip(positions, 0, length - 1)
    low = positions.astype(int)
    return low, np.minimum(low + 1, length - 1), positions - low


def interpolate_along(values: NDArray[Any], between: Neighbours, axis: int = 0) -> NDArray[Any]:
    low, high, share = between
    before = (slice(None),) * axis
    first = values[(*before, low)]
    return first + (values[(*before, high)] - first) * share.reshape(-1, *(1,) * (values.ndim - 1 - axis))


def _require_finite(name: str, values: FloatArray, shape: str, fits: bool) -> None:
    is_finite = np.isfinite(values).all()
    if not fits or not is_finite:
        raise ValueError(
            f"`{name}` should be {shape}, and finite. Found `{name}.shape = {values.shape}`"
            f"{'' if is_finite else ' with NaN or infinity'}."
        )


def _require_chroma(name: str, values: FloatArray) -> None:
    fits = values.ndim == 3 and values.shape[2] == 2 and values.size > 0
    _require_finite(name, values, "(h, w, 2), h and w 1 or more", fits)


def _read_only(pixels: Pixels) -> Pixels:
    """Check pixels, and return a read-only view, because numba compiles separately for writable arrays."""
    require_pixels(pixels)
    view = pixels.view()
    view.flags.writeable = False
    return view


def _in_bands(work: Callable[[slice], Any], height: int, step: int) -> list[Any]:
    """Apply `work` to bands of `step` rows, in threads if there are several, and return the results in order."""
    bands = [slice(start, min(start + step, height)) for start in range(0, height, step)]
    # not numba's own threads, which two callers must not use at once
    return in_threads(work, bands, THREADS)


def _band_rows(pixels: Pixels) -> int:
    return max(1, BAND_PIXELS // pixels.shape[1])


def _paint_stats(means: NDArray[np.float64], top: int) -> PaintStats:
    chroma, reduced, *moments = means.tolist()
    red_green, yellow_blue, red_green_square, yellow_blue_square = moments
    centre = red_green**2 + (yellow_blue / 2) ** 2
    square = red_green_square + yellow_blue_square / 4
    colourfulness = (max(square - centre, 0) ** 0.5 + 0.3 * centre**0.5) * 255 / top
    return PaintStats(chroma, colourfulness, reduced)


def _build_tables(codes: int) -> dict[int, FloatArray]:
    """Tables by number of channels; 1: CIELAB's cube root of each code, (1, codes); 3: its part of Y, (3, codes)."""
    light = color.srgb_to_linear(np.linspace(0, 1, codes))
    return {
        1: color.cube_root(light)[None].astype(np.float32),
        3: (color.SRGB_TO_XYZ[1][:, None] * light).astype(np.float32),
    }


_TABLES = {dtype: _build_tables(np.iinfo(dtype).max + 1) for dtype in (np.uint8, np.uint16)}


def _tables(pixels: Pixels) -> FloatArray:
    return _TABLES[pixels.dtype.type][pixels.shape[2]]


_lazy_kernels = kernels.LazyKernels()


def paint_compiled() -> None:
    """Use compiled code from now on, because many images follow."""
    _lazy_kernels.waits = True
    _lazy_kernels.add(kernels.COMPILED_FROM + 1)


@contextmanager
def compiling_meanwhile() -> Iterator[None]:
    """Paint with numpy until compiled code is ready, so that no request waits for the compiler."""
    _lazy_kernels.waits = False
    try:
        yield
    finally:
        _lazy_kernels.waits = True


def paint_arrays(
    pixels: Pixels,
    tables: FloatArray,
    lines: FloatArray,
    added: FloatArray,
    first: int,
    full_height: int,
    out: Pixels,
) -> NDArray[np.float64]:
    """`kernels._paint` with numpy."""
    height, width = pixels.shape[:2]
    step = max(1, _BLOCK_PIXELS // width)
    fields = [_field(small, first, height, full_height, width) for small in (lines, added) if len(small)]
    sums, chroma = np.zeros(6), np.zeros(width, np.float32)
    for start in range(0, height, step):
        rows = slice(start, start + step)
        root = _roots(pixels[rows], tables)
        slope_a, slope_b, a, b = fields[0](rows)
        lightness = np.float32(116) * root - np.float32(16)
        a, b = slope_a * lightness + a, slope_b * lightness + b
        for field in fields[1:]:
            more_a, more_b = field(rows)
            a, b = a + more_a, b + more_b
        sums[1:] += _paint_colours(root, a, b, tables.shape[1] - 1, out[rows])
        for row in np.sqrt(a * a + b * b):
            chroma += row
    sums[0] = chroma.sum(dtype=np.float64)
    return sums


def _paint_colours(
    root: FloatArray, a: FloatArray, b: FloatArray, top: int, out: Pixels
) -> NDArray[np.float64]:
    rgb, visible = kernels.linear_rgb(root, a, b), 0
    outside = kernels.is_outside(*rgb, root, a, b)
    if outside.any():
        beyond = root[outside], a[outside], b[outside]
        share, step = np.zeros_like(beyond[0]), np.float32(0.5)
        for _ in range(kernels.BISECTIONS):
            share = kernels.next_share(*beyond, share, step)
            step *= np.float32(0.5)
        a[outside], b[outside] = beyond[1] * share, beyond[2] * share
        visible = np.count_nonzero(beyond[0] > kernels.VISIBLE)
        for light, reduced in zip(rgb, kernels.linear_rgb(beyond[0], a[outside], b[outside]), strict=True):
            light[outside] = reduced
    codes = [(kernels.encoded(light) * np.float32(top) + np.float32(0.5)).astype(out.dtype) for light in rgb]
    for channel, values in enumerate(codes):
        out[..., channel] = values
    red, green, blue = (values.astype(np.float64) for values in codes)
    opponents = red - green, red + green - 2 * blue
    moments = [each.sum() for each in opponents] + [np.vdot(each, each) for each in opponents]
    return np.array([visible, *moments])


def _field(
    small: FloatArray, first: int, height: int, full_height: int, width: int
) -> Callable[[slice], FloatArray]:
    """A function from rows of a band to the values (c, rows, width) of a small image (h, w, c) there."""
    upper, lower, down = _places(first, height, full_height, len(small))
    planes = np.moveaxis(small[upper[0] : lower[-1] + 1], -1, 0)
    wide = interpolate_along(planes, _places(0, width, width, small.shape[1]), axis=2)
    upper, lower = upper - upper[0], lower - upper[0]
    return lambda rows: interpolate_along(wide, (upper[rows], lower[rows], down[rows]), axis=1)


def _roots(pixels: Pixels, tables: FloatArray) -> FloatArray:
    """CIELAB's cube root of Y/Yn (H, W)."""
    if len(tables) == 1:
        return tables[0].take(pixels[..., 0])
    red, green, blue = (tables[c].take(pixels[..., c]) for c in range(3))
    return kernels.root_of(red + green + blue)


def _places(first: int, count: int, length: int, small: int) -> Neighbours:
    """Neighbours, in a row of `small` values, of `count` pixels from `first` on; weights in float32."""
    low, high, share = neighbours((np.arange(first, first + count) + 0.5) * small / length - 0.5, small)
    return low, high, share.astype(np.float32)


LONGEST = 4
"""Largest aspect ratio that an image keeps at the network's size; longer images are squeezed."""
SHORTEST_PX = 32
_LOBES = 3  # of Lanczos' window
_MOST_BANDS = 4  # of the network's input


def network_input(
    pixels: Pixels, size_px: int | tuple[int, int], oversampling: int = OVERSAMPLING
) -> FloatArray:
    """L* (h, w) of an image resized to a short side of `size_px`, or to that height and width.

    It is resized as sRGB and converted afterwards, like the training images. Those were rounded to 8 bits, and differ
    from this by less than half an L*. A smaller `oversampling` of `shrink` is enough where only edges matter.
    """
    is_side = isinstance(size_px, int)
    height, width = working_size(pixels.shape[0], pixels.shape[1], size_px) if is_side else size_px
    compiled = _lazy_kernels.compiled(pixels.shape[0] * pixels.shape[1], pixels.dtype)
    if compiled is not None:
        return _by_compiled_code(compiled, _read_only(pixels), height, width, oversampling)
    small = shrink(pixels, height, width, oversampling)
    # 16 bits, because 8 would make visible steps in flat, dark regions
    return lightness((small.clip(0, 1) * 65535).round().astype(np.uint16))


def working_size(height: int, width: int, size_px: int) -> tuple[int, int]:
    """Height and width of a network's input.

    >>> working_size(3000, 4000, 96)
    (96, 128)
    >>> working_size(1, 5000, 96)
    (96, 384)
    """
    side = max(size_px, SHORTEST_PX)
    scale = side / min(height, width)
    longest = LONGEST * side  # without it, a panorama of one row would fill the memory
    return min(round(height * scale), longest), min(round(width * scale), longest)


def _by_compiled_code(
    compiled: kernels.CompiledKernels, pixels: Pixels, height: int, width: int, oversampling: int
) -> FloatArray:
    down, across = (
        block_size(old, new, oversampling) for old, new in zip(pixels.shape, (height, width), strict=False)
    )
    rows, row_weights = taps(pixels.shape[0] / down, -(-pixels.shape[0] // down), height)
    columns = taps(pixels.shape[1] / across, -(-pixels.shape[1] // across), width)
    top, tables = np.float32(np.iinfo(pixels.dtype).max), _TABLES[np.uint16][pixels.shape[2]]
    out = np.empty((height, width), np.float32)

    def work(band: slice) -> None:
        compiled.small_lightness(
            pixels, down, across, rows[band], row_weights[band], *columns, top, tables, out[band]
        )

    # few bands, because both of two neighbours average the rows between them
    bands = min(THREADS, _MOST_BANDS) if pixels.shape[0] * pixels.shape[1] > BAND_PIXELS else 1
    _in_bands(work, height, -(-height // bands))
    return out


@lru_cache(64)
def taps(length: float, count: int, small: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Indices and weights of a row's values for each of `small` values, both (small, taps), like Pillow's Lanczos.

    The row has `count` values and a length of `length`, because the last value can reach beyond its end.

    >>> taps(2, 2, 2)[1].round(6).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    step = length / small
    stretch = max(step, 1.0)  # the window is as wide as on the coarser grid
    centres = (np.arange(small) + 0.5) * step
    first = (centres - _LOBES * stretch + 0.5).astype(int).clip(0)
    last = (centres + _LOBES * stretch + 0.5).astype(int).clip(max=count)
    places = first[:, None] + np.arange((last - first).max())
    offsets = (places - centres[:, None] + 0.5) / stretch
    window = (places < last[:, None]) & (np.abs(offsets) < _LOBES)
    weights = np.where(window, np.sinc(offsets) * np.sinc(offsets / _LOBES), 0)
    return places.clip(max=count - 1).astype(np.int32), weights / weights.sum(1, keepdims=True)
