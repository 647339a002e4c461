"""How chroma at a small size becomes chroma of every pixel: as a line over lightness, whose parts are interpolated."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

FloatArray = NDArray[np.float32]
Lines = tuple[FloatArray, FloatArray]
"""Slope and offset, each (h, w, 2): a*b* of a pixel is slope x L* + offset."""

RADIUS = 1
EPSILON = 25.0
"""Of the guided filter: a variance of L* far below this is no edge."""


def guided(chroma: FloatArray, guide: FloatArray, radius: int = RADIUS, epsilon: float = EPSILON) -> Lines:
    """Chroma itself, and beside it what goes with the lightness's detail between two small pixels.

    The slopes are those of the fast guided filter (He and Sun 2015). Its offsets are not: they average the chroma over
    windows, which loses more than the guide gives back; here the line of each small pixel passes through its own
    lightness and chroma.

    Args:
        chroma: a*b* (h, w, 2).
        guide: L* (h, w).
        radius: of the windows, pixels.
        epsilon: variance of L* far below which there is no edge.
    """

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        window: Any = (2 * radius + 1, 2 * radius + 1, *(1,) * (values.ndim - 2))
        return uniform_filter(values, window, mode="nearest")

    centre, target = mean(guide), mean(chroma)
    variance = mean(guide * guide) - centre * centre
    covariance = mean(guide[..., None] * chroma) - centre[..., None] * target
    slope = mean(covariance / (np.maximum(variance, 0)[..., None] + epsilon))
    return slope, chroma - slope * guide[..., None]


def bilinear(chroma: FloatArray, guide: FloatArray) -> Lines:
    """Chroma alone, whatever the lightness."""
    del guide
    return np.zeros_like(chroma), chroma


UPSAMPLINGS: dict[str, Callable[[FloatArray, FloatArray], Lines]] = {"guided": guided, "bilinear": bilinear}


def chroma_lines(
    chroma: FloatArray, guide: FloatArray, upsampling: str, saturation: float = 1.0
) -> FloatArray:
    """Slopes of a* and b* over L* and their offsets, (h, w, 4), in the way asked for.

    Args:
        chroma: a*b* (h, w, 2).
        guide: L* (h, w).
        upsampling: a key of `UPSAMPLINGS`.
        saturation: what the chroma is multiplied by, 0 and up.

    Raises:
        ValueError: a shape is another, a value is not finite, the way is unknown, or the saturation negative.

    >>> flat = np.full((1, 1, 2), 10, np.float32)
    >>> chroma_lines(flat, np.full((1, 1), 50, np.float32), "bilinear", 2.0).tolist()
    [[[0.0, 0.0, 20.0, 20.0]]]
    """
    _check(chroma, guide, upsampling, saturation)
    slope, offset = UPSAMPLINGS[upsampling](chroma * np.float32(saturation), guide)
    return np.ascontiguousarray(np.concatenate([slope, offset], -1), np.float32)


def chroma_at(lines: FloatArray, lightness: float, y: float, x: float) -> FloatArray:
    """a*b* (2,) on lines (h, w, 4) where L* is `lightness`, at fractions `y` of the height and `x` of the width."""
    for fraction in (y, x):  # rows first, then columns
        place = float(np.clip(fraction * len(lines) - 0.5, 0, len(lines) - 1))
        low = int(place)
        lines = lines[low] + (lines[min(low + 1, len(lines) - 1)] - lines[low]) * np.float32(place - low)
    return lines[:2] * np.float32(lightness) + lines[2:]


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


def _check(chroma: FloatArray, guide: FloatArray, upsampling: str, saturation: float) -> None:
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
    if upsampling not in UPSAMPLINGS:
        raise ValueError(
            f"`upsampling` should be one of {', '.join(UPSAMPLINGS)}. Found `upsampling = {upsampling!r}`."
        )
    if not 0 <= saturation < np.inf:
        raise ValueError(f"`saturation` should be 0 or more, finite. Found `saturation = {saturation}`.")
