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
