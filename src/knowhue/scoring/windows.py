"""SSIM of many images beside one true image: the true image's windows once, in strips that the cache holds."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from knowhue.color import FloatArray
from knowhue.evaluation.similarity import SSIM_WINDOW, ssim_map, window_weights

_EDGE = SSIM_WINDOW - 1
_SIDE = 32
"""Windows a side that are one product of matrices: a Gaussian mean has 11 weights, and each product 42, not all of a
side, as in `similarity.ssim`."""


class Windows(NamedTuple):
    """What SSIM asks of the true image.

    Attributes:
        values: RGB about 0, (3, H, W) and as many columns of 0 as make whole blocks of windows.
        width: W.
        means: of each window, by strip (blocks, 3, rows, 32).
    """

    values: FloatArray
    width: int
    means: tuple[FloatArray, ...]


def windows_of(rgb: FloatArray) -> Windows:
    """The windows of a true image, RGB (3, H, W), 0 to 1, of 11 pixels a side or more."""
    values = _about_zero(rgb)
    means = tuple(_gaussian_means(values[:, rows]) for rows in _strips(rgb.shape[1]))
    return Windows(values, rgb.shape[2], means)


def ssim_beside(rgb: FloatArray, true: Windows) -> float:
    """SSIM of an image, RGB (3, H, W), 0 to 1, and the true one, as `similarity.ssim` has it."""
    values, total = _about_zero(rgb), 0.0
    blocks = (values.shape[2] - _EDGE) // _SIDE
    in_last = true.width - _EDGE - (blocks - 1) * _SIDE
    for rows, means in zip(_strips(rgb.shape[1]), true.means, strict=True):
        strip, like = values[:, rows], true.values[:, rows]
        # squares of both together: a mean of each alone is less exact, and as dear
        squares = np.asarray(strip * strip + like * like, np.float32)
        asked: FloatArray = np.concatenate((strip, squares, strip * like), dtype=np.float32)
        found = _gaussian_means(asked)
        found = ssim_map(found[:, :3], means, found[:, 3:6], found[:, 6:])
        total += float(found[:-1].sum(dtype=np.float64) + found[-1, ..., :in_last].sum(dtype=np.float64))
    return total / (3 * (rgb.shape[1] - _EDGE) * (true.width - _EDGE))


def _about_zero(rgb: FloatArray) -> FloatArray:
    _, height, width = rgb.shape
    blocks = -(-(width - _EDGE) // _SIDE)
    values = np.zeros((3, height, blocks * _SIDE + _EDGE), np.float32)
    np.subtract(rgb, np.float32(0.5), out=values[..., :width])
    return values


def _strips(height: int) -> Iterator[slice]:
    for top in range(0, height - _EDGE, _SIDE):
        yield slice(top, min(top + _SIDE + _EDGE, height))


def _gaussian_means(values: FloatArray) -> FloatArray:
    """(K, rows + 10, blocks * 32 + 10) to the means of all windows, (blocks, K, rows, 32)."""
    planes, height, width = values.shape
    rows, blocks = height - _EDGE, (width - _EDGE) // _SIDE
    down: FloatArray = window_weights(height).astype(np.float32) @ values
    along, across = down.strides[1:]
    # blocks overlap by the edges of their windows
    overlapping = as_strided(
        down, (blocks, planes * rows, _SIDE + _EDGE), (_SIDE * across, along, across), writeable=False
    )
    means: FloatArray = overlapping @ window_weights(_SIDE + _EDGE).astype(np.float32).T
    return means.reshape(blocks, planes, rows, _SIDE)
