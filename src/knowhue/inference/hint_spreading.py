"""Spread hints over surrounding pixels of similar lightness: the change that they make to the predicted colours."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.color import FloatArray, Floats
from knowhue.errors import ConfigError
from knowhue.images.image import Pixels
from knowhue.inference.hints import Hint, Strokes
from knowhue.inference.pixels import interpolated, lightness, neighbours

REACH = 0.15
"""Radius within which a hint changes colours, in short sides of the image, like all lengths here."""
EDGE = 8.0
"""Difference in L* above which an edge separates a pixel from its point or stroke."""
SIDE_PX = 192
"""Short side of the grid on which hints spread, pixels: fine enough for colours to end at visible edges."""
SIMILAR_L = 2.0
"""Difference in L* at which the conductance between neighbours falls to exp(-1/2); at `EDGE`, to 1 / 3,000."""
DISC_RADIUS = 0.02
"""Radius of the disc around a hint that gets exactly its colour."""
RESISTANCE = 1.0
"""k of `spread`, in units of 1 / `REACH`^2."""
STIFFNESS = 1e6
"""Weight of given differences, far above that of any neighbour, so that they are exact."""
WEAKEST = 0.1
"""Eigenvalue of `_make_exact` below which points are too close to distinguish; 1: a point on a pixel of its own."""
LEAST_SHARE = 1e-3
"""Least total weight of strokes for a pixel of the grid to be held."""
MOST_CHROMA = 1_000
"""Limit of a hint's a* and b*, CIELAB units: beyond any colour, and far from overflow."""
NO_LIGHTNESS = -1e3
"""An L* so far from any other that the conductance is 0."""


class GridPoints(NamedTuple):
    """Differences of colour at n points or pixels of strokes, in coordinates of the grid."""

    rows: NDArray[np.floating]
    """row of each (n,); whole numbers are centres of the grid's pixels"""
    columns: NDArray[np.floating]
    """column of each (n,), like `rows`"""
    lightness: NDArray[np.floating]
    """L* of the full-size image at each (n,), 0 to 100"""
    differences: NDArray[np.floating]
    """a*b* to add at each (n, 2), CIELAB units"""


NO_POINTS = GridPoints(np.empty(0), np.empty(0), np.empty(0), np.empty((0, 2)))


class _FixedPixels(NamedTuple):
    """Differences that are given at pixels of the grid."""

    given: NDArray[np.float64]
    """differences of a*b* (h, w, 2), CIELAB units"""
    held: NDArray[np.bool_]
    """whether a difference is given (h, w)"""
    beyond_edge: NDArray[np.bool_]
    """whether an edge separates the pixel from its point (h, w)"""
    distance: NDArray[np.float64]
    """distance from the nearest point (h, w), in short sides; infinite out of reach"""


def corrections(
    pixels: Pixels,
    coarse: FloatArray,
    lines: FloatArray,
    hints: Sequence[Hint],
    strokes: Strokes | None = None,
) -> FloatArray:
    """The a*b* that hints and strokes add to an image, for `paint`; 0 outside their regions.

    Prediction and correction sum to the hint's colour at its point, at any saturation; along a stroke, nearly.

    Args:
        pixels: (H, W, 1 or 3), uint8 or uint16, sRGB-encoded.
        coarse: L* (h, w) of the same image on the grid; its shorter side is `SIDE_PX` at most.
        lines: the colours without hints, from `chroma_lines`.
        hints: points with a colour.
        strokes: painted pixels; hints or strokes are required.

    Returns:
        a*b* (h, w, 2), CIELAB units.

    Raises:
        ConfigError: a hint or a stroke lies outside the image, or its a* or b* is out of range.
    """
    points = np.array(hints, np.float64)
    height, width = pixels.shape[:2]
    short = min(height, width)
    down, across = coarse.shape[0] / height, coarse.shape[1] / width

    def to_grid(name: str, given: Strokes) -> GridPoints:
        _require_in_range(name, given)
        x, y, wanted = given
        rows = np.minimum((y * height).astype(int), height - 1)
        columns = np.minimum((x * width).astype(int), width - 1)
        light = lightness(np.ascontiguousarray(pixels[rows, columns][None]))[0]
        chroma = chroma_at(lines, light, (rows + 0.5) / height, (columns + 0.5) / width)
        return GridPoints((rows + 0.5) * down - 0.5, (columns + 0.5) * across - 0.5, light, wanted - chroma)

    return spread(
        coarse,
        (1 / (down * short), 1 / (across * short)),
        to_grid("hints", Strokes(points[:, 0], points[:, 1], points[:, 2:])) if len(points) else NO_POINTS,
        NO_POINTS if strokes is None else to_grid("strokes", Strokes(*map(np.asarray, strokes))),
    )


def chroma_at(lines: FloatArray, lightness: Any, y: Any, x: Any) -> Floats:
    """a*b* (..., 2) on lines (h, w, 4) for `lightness`, L*, at fractions `y` of the height and `x` of the width."""
    here = interpolated(lines, y, x)
    return here[..., :2] * np.asarray(lightness)[..., None] + here[..., 2:]


def spread(
    lightness: FloatArray,
    step: tuple[float, float],
    points: GridPoints = NO_POINTS,
    strokes: GridPoints = NO_POINTS,
) -> FloatArray:
    """Spread differences of colour from points and strokes over surrounding regions of similar lightness.

    The result d minimises sum_rs c_rs (d_r - d_s)^2 + sum_r k d_r^2 over neighbours r, s (left, right, above, below).
    It is fixed on a small disc around each point, and 0 from `REACH` on. The first factor of
    c_rs = exp(-(L_r - L_s)^2 / (2 SIMILAR_L^2)) / (4 t^2 (1 - t^2)) stops d at edges. In the second, t is the distance
    from the nearest point over `REACH`: where there are no edges and k is small, d fades as (1 - t^2)^2, flat at the
    point and without a rim. k prevents what leaks through an edge from filling an enclosed region behind it. By the
    maximum principle d stays within the range of 0 and the given differences if points are three pixels or more apart.
    A pixel in several discs belongs to the nearest point; contradictory points at one place are averaged.

    After Levin, Lischinski and Weiss 2004, Colorization using optimization. They spread colours, not differences,
    compare each pixel with the weighted mean of its neighbours, by local variance, and have no reach: a scribble
    colours everything that no other scribble does.

    Args:
        lightness: L* (h, w), 0 to 100.
        step: height and width of a pixel in short sides of the image.
        points: differences at points.
        strokes: differences at pixels of strokes; points or strokes are required.

    Returns:
        a*b* (h, w, 2). Interpolated between pixels, it is exactly the given difference at each point.

    >>> flat = np.full((48, 64), 50, np.float32)
    >>> point = GridPoints(np.array([24]), np.array([32]), np.array([50]), np.array([[40, 0]]))
    >>> found = spread(flat, (1 / 48, 1 / 48), point)
    >>> [round(float(found[24, column, 0])) for column in (32, 35, 38, 40)]
    [40, 25, 2, 0]
    """
    fixed = _fix_pixels(lightness, step, points, strokes)
    free = (fixed.distance < REACH) | fixed.held
    conductances = _conductances(
        np.where(fixed.beyond_edge, NO_LIGHTNESS, lightness.astype(np.float64)), fixed.distance
    )
    found = np.zeros(fixed.given.shape, np.float32)
    found[free] = _solve(conductances, RESISTANCE * step[0] * step[1] / REACH**2, fixed, free)
    return found


def _fix_pixels(
    lightness: FloatArray, step: tuple[float, float], points: GridPoints, strokes: GridPoints
) -> _FixedPixels:
    """Fix differences on the discs of points and along strokes.

    A disc excludes pixels of different lightness, because a point beside an edge must not colour the other side. It
    always includes the pixels that the point lies between, because its colour is interpolated from them.
    """
    given, held, beyond_edge, distance = _fix_strokes(lightness, step, strokes)
    # a pixel in a stroke and a disc belongs to the stroke, whose boundary was drawn
    count, nearest = held.astype(np.float64), np.where(held, 0, np.inf)
    for row, column, light, difference in zip(*points, strict=True):
        rows, columns, window = _window(lightness.shape, (row, column), step)
        away = np.hypot((rows - row) * step[0], (columns - column) * step[1])
        between = (np.abs(rows - row) < 1) & (np.abs(columns - column) < 1)
        nearby, adjacent = lightness[window], lightness[window][between]
        # compare with the adjacent pixel of the most similar lightness: at an edge, the point lies on one side of it
        is_similar = np.abs(nearby - adjacent[np.abs(adjacent - light).argmin()]) <= EDGE
        inside = between | (away <= DISC_RADIUS) & is_similar
        closer, equal = inside & (away < nearest[window]), inside & (away == nearest[window])
        given[window] = np.where(closer[..., None], difference, given[window] + equal[..., None] * difference)
        count[window] = np.where(closer, 1, count[window] + equal)
        beyond_edge[window] = np.where(closer, ~is_similar, beyond_edge[window])
        nearest[window] = np.where(closer, away, nearest[window])
        distance[window] = np.minimum(distance[window], away)
    given /= np.maximum(count, 1)[..., None]
    _make_exact(given, points)
    return _FixedPixels(given, count > 0, beyond_edge, distance)


def _fix_strokes(
    lightness: NDArray[np.floating], step: tuple[float, float], strokes: GridPoints
) -> _FixedPixels:
    """Differences of strokes on the grid: means over adjacent samples, with the weights of bilinear interpolation."""
    shape = lightness.shape
    top, bottom, down = neighbours(strokes.rows, shape[0])
    left, right, across = neighbours(strokes.columns, shape[1])
    rows, columns = np.concatenate([top, top, bottom, bottom]), np.concatenate([left, right, left, right])
    up, aside = 1 - down, 1 - across
    weights = np.concatenate([up * aside, up * across, down * aside, down * across])

    def weighted_sums(values: Floats) -> NDArray[np.float64]:
        sums = np.bincount(rows * shape[1] + columns, weights * np.tile(values, 4), lightness.size)
        return sums.reshape(shape).astype(np.float64, copy=False)

    total = weighted_sums(np.ones(len(down)))
    held = total > LEAST_SHARE
    a, b, light = (
        weighted_sums(values) * held / np.where(held, total, 1)
        for values in (*strokes.differences.T, strokes.lightness)
    )
    distance = np.full(shape, np.inf)
    if held.any():
        from scipy.ndimage import distance_transform_edt

        distance = np.asarray(distance_transform_edt(~held, sampling=step))
    return _FixedPixels(np.stack([a, b], -1), held, held & (np.abs(light - lightness) > EDGE), distance)


def _make_exact(given: NDArray[np.float64], points: GridPoints) -> None:
    """Make each point meet its difference exactly although points share pixels, by the smallest change of `given`.

    The nearer two points are, the larger the change; points nearer than about half a pixel are averaged instead.
    """
    rows, columns = (
        np.maximum(1 - np.abs(np.arange(length) - along[:, None]), 0)
        for length, along in zip(given.shape, np.array(points[:2], np.float64), strict=False)
    )
    used = np.nonzero(rows.T @ columns)
    shares = rows[:, used[0]] * columns[:, used[1]]
    shares /= shares.sum(1, keepdims=True)  # the sum is below 1 between the outermost centres and the border
    missing = points.differences - shares @ given[used]
    # a pseudo-inverse without weak directions, along which near points would get unbounded differences
    values, vectors = np.linalg.eigh(shares @ shares.T)
    values, vectors = values[values > WEAKEST], vectors[:, values > WEAKEST]
    given[used] += shares.T @ (vectors / values @ (vectors.T @ missing))


def _window(
    shape: tuple[int, ...], point: tuple[float, float], step: tuple[float, float]
) -> tuple[NDArray[np.int_], NDArray[np.int_], tuple[slice, slice]]:
    """Rows and columns within reach of a point, and the same as slices."""
    spans = [
        slice(max(0, int(place - REACH / size)), min(length, int(place + REACH / size) + 2))
        for place, size, length in zip(point, step, shape, strict=False)
    ]
    rows, columns = (np.arange(span.start, span.stop) for span in spans)
    return rows[:, None], columns[None], (spans[0], spans[1])


def _conductances(
    lightness: NDArray[np.float64], distance: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """c_rs of `spread` between each pixel and the next below, (h - 1, w), and to the right, (h, w - 1)."""
    # at t = 0 and t = 1 the conductance would be infinite
    share = np.clip(distance / REACH, DISC_RADIUS / REACH, 0.999) ** 2
    fading = 1 / (4 * share * (1 - share))

    def between(axis: int) -> NDArray[np.float64]:
        like = np.exp(-(np.diff(lightness, axis=axis) ** 2) / (2 * SIMILAR_L**2))
        first, second = (np.take(fading, range(k, fading.shape[axis] - 1 + k), axis) for k in (0, 1))
        return like * (first + second) / 2

    return between(0), between(1)


def _solve(
    conductances: tuple[NDArray[np.float64], NDArray[np.float64]],
    resistance: float,
    fixed: _FixedPixels,
    free: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """The minimum at the free pixels (n, 2), with 0 around them: one sparse factorisation, two right-hand sides.

    With four neighbours instead of eight, a diagonal line one pixel wide stops colours as well as any other.
    """
    # imported only for hints, because it takes a sixth of a second
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    stiffness = STIFFNESS * fixed.held[free]
    size = len(stiffness)
    number = np.where(free, np.cumsum(free).reshape(free.shape) - 1, size)
    first = np.concatenate([number[:-1].ravel(), number[:, :-1].ravel()])
    second = np.concatenate([number[1:].ravel(), number[:, 1:].ravel()])
    weight = np.concatenate([each.ravel() for each in conductances])
    diagonal = stiffness + resistance
    for ends in (first, second):
        diagonal += np.bincount(ends, weight, size + 1)[:size]
    both = (first < size) & (second < size)
    first, second, weight = first[both], second[both], weight[both]
    rows = np.concatenate([np.arange(size), first, second])
    columns = np.concatenate([np.arange(size), second, first])
    matrix = coo_array((np.concatenate([diagonal, -weight, -weight]), (rows, columns)), shape=(size, size))
    # symmetric and diagonally dominant: pivots on the diagonal are stable and keep the factor sparse
    options = {"SymmetricMode": True}
    factor = splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
    return factor.solve(stiffness[:, None] * fixed.given[free])


def _require_in_range(name: str, given: Strokes) -> None:
    x, y, chroma = given
    is_shaped = x.ndim == 1 and x.size and y.shape == x.shape and chroma.shape == (x.size, 2)
    # NaN is refused, too, because comparisons with it are false
    if is_shaped and ((x >= 0) & (x <= 1) & (y >= 0) & (y <= 1) & (abs(chroma) <= MOST_CHROMA).all(1)).all():
        return
    found = (f"{part} {np.array2string(values, threshold=6)}" for part, values in given._asdict().items())
    raise ConfigError(
        f"`{name}` should have x and y within 0 to 1, fractions of width and height, and chroma within "
        f"-{MOST_CHROMA:,} to {MOST_CHROMA:,}, an a* and b* for each. Found {' '.join(', '.join(found).split())}."
    )
