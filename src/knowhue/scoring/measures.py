"""MEASURES: what is measured of a colouring against its true image, and of a whole set of colourings.

For SSIM, the window means of a true image are computed once for all its colourings, in strips that fit into the
processor's cache.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from knowhue.color import (
    FloatArray,
    Floats,
    chroma_bins,
    lab_to_linear,
    linear_to_srgb,
    planes_to_lab,
    srgb_to_linear,
)
from knowhue.errors import ImageError
from knowhue.evaluation.similarity import SSIM_WINDOW, ciede2000, psnr, ssim_map, window_weights
from knowhue.images.image import Pixels
from knowhue.metric_table import METRICS, RECOGNITION, Metric
from knowhue.scoring.protocols import Protocol

_EDGE = SSIM_WINDOW - 1
_SIDE = 32
"""Side of a block of windows that is one matrix product. With blocks, a Gaussian mean of 11 weights takes products of
length 42 instead of the whole side, as in `similarity.ssim`."""


def ssim_from_windows(rgb: FloatArray, true: FloatArray, true_means: Sequence[FloatArray]) -> float:
    """SSIM, as in `similarity.ssim`, of RGB (3, H, W), 0 to 1, and the `PreparedImage.windows` of a true image."""
    values, total = _centred(rgb), 0.0
    down, across = (side - _EDGE for side in rgb.shape[1:])
    in_last = across - (values.shape[2] - _EDGE - _SIDE)
    for rows, means in zip(_strips(rgb.shape[1]), true_means, strict=True):
        strip, like = values[:, rows], true[:, rows]
        # the sum of both squares, because separate means are less exact and not faster
        squares = np.asarray(strip * strip + like * like, np.float32)
        planes: FloatArray = np.concatenate((strip, squares, strip * like), dtype=np.float32)
        mean = _gaussian_means(planes)
        ssim = ssim_map(mean[:, :3], means, mean[:, 3:6], mean[:, 6:])
        total += float(ssim[:-1].sum(dtype=np.float64) + ssim[-1, ..., :in_last].sum(dtype=np.float64))
    return total / (3 * down * across)


def _centred(rgb: FloatArray) -> FloatArray:
    _, height, width = rgb.shape
    blocks = -(-(width - _EDGE) // _SIDE)
    values = np.zeros((3, height, blocks * _SIDE + _EDGE), np.float32)
    np.subtract(rgb, np.float32(0.5), out=values[..., :width])
    return values


def _strips(height: int) -> Iterator[slice]:
    for top in range(0, height - _EDGE, _SIDE):
        yield slice(top, min(top + _SIDE + _EDGE, height))


def _gaussian_means(values: FloatArray) -> FloatArray:
    """The Gaussian means of all windows: (K, rows + 10, blocks * 32 + 10) to (blocks, K, rows, 32)."""
    planes, height, width = values.shape
    rows, blocks = height - _EDGE, (width - _EDGE) // _SIDE
    down: FloatArray = window_weights(height).astype(np.float32) @ values
    along, across = down.strides[1:]
    # blocks overlap, because windows reach beyond them
    overlapping = as_strided(
        down, (blocks, planes * rows, _SIDE + _EDGE), (_SIDE * across, along, across), writeable=False
    )
    means: FloatArray = overlapping @ window_weights(_SIDE + _EDGE).astype(np.float32).T
    return means.reshape(blocks, planes, rows, _SIDE)


Column = NDArray[np.float64]
"""One value per image, (N,), in the order of their names."""
Columns = Mapping[str, Column]

MAX_AB_DISTANCE = 150
"""Largest a*b* distance, in CIELAB units, of the curve whose area is measured (Zhang, Isola and Efros, ECCV 2016)."""
_CHUNK_PIXELS = 1 << 14  # pixels whose arrays fit into the processor's cache
_MAX_AB = 128  # largest a* or b* in tables; sRGB colours lie within -108 to 99


MEASURES: Mapping[str, Metric] = {
    name: METRICS[name]
    for name in (
        "ciede2000", "ab_l1", "ab_auc", "ab_auc_balanced", "psnr_rgb", "ssim_rgb", "lpips_alex",
        "colourfulness", "colourfulness_absolute",
        "mean_colourfulness_difference", "mean_colourfulness_difference_absolute",
        "colourfulness_difference_of_means", "colourfulness_difference_of_means_absolute",
        "lightness_change", "lightness_changed", "diversity_ciede2000", "diversity_lpips",
        "fd_lite0", "kd_lite0", "fid", "kid", *RECOGNITION,
    )
}  # fmt: skip
"""In the order of tables. A measure with values of single images is the mean of the column of its name."""

BEST_OF = ("ciede2000", "ab_l1", "psnr_rgb", "ssim_rgb", "lpips_alex")
"""Measures whose best value over several samples of an image is a column `best_<name>`."""


@dataclass(frozen=True)
class PreparedImage:
    """An image with all that the measures need of it."""

    pixels: Pixels
    """codes (H, W, 3), 8 or 16 bits"""
    rgb: FloatArray
    """(1, 3, H, W), 0 to 1, float32"""
    lightness: Floats
    """L* (1, 1, H, W), 0 to 100"""
    chroma: FloatArray
    """a*b* (1, 2, H, W), CIELAB units, float32"""
    colourfulness: tuple[float, float]
    """M3 of Hasler and Süsstrunk, by signed and by absolute opponent values"""

    @cached_property
    def windows(self) -> tuple[FloatArray, list[FloatArray]]:
        """The part of SSIM that depends only on the true image, which must have at least 11 pixels a side.

        RGB minus 0.5, (3, H, W), padded with columns of 0 to whole blocks of windows; and the means of all windows, for
        each strip (blocks, 3, rows, 32).
        """
        values = _centred(self.rgb[0])
        return values, [_gaussian_means(values[:, rows]) for rows in _strips(values.shape[1])]

    @cached_property
    def colours(self) -> NDArray[np.int64]:
        """Index of the nearest of `chroma_bins` for each pixel, (H, W)."""
        whole = np.rint(self.chroma[0]).astype(np.int16) + _MAX_AB
        return nearest_bins()[whole[0], whole[1]]


def prepare_image(pixels: Pixels) -> PreparedImage:
    """Prepare codes (H, W, 3), 8 or 16 bits, for the measures."""
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    codes, lab = planes.reshape(3, -1), np.empty((3, pixels.shape[0] * pixels.shape[1]))
    for cut in _chunks(lab.shape[1]):
        lab[:, cut] = planes_to_lab(_linear_light(pixels.dtype)[codes[:, cut]])
    lab = lab.reshape(1, *planes.shape)
    rgb: FloatArray = planes[None].astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    chroma = lab[:, 1:].astype(np.float32)
    return PreparedImage(pixels, rgb, lab[:, :1], chroma, _colourfulness(planes))


def _colourfulness(planes: Pixels) -> tuple[float, float]:
    """`color.colourfulness` of codes (3, H, W) in both conventions, which share the squares; sums are exact."""
    red, green, blue = planes.astype(np.int32)
    # twice the opponent values, because those are integers
    opponents = [each.ravel().astype(np.float64) for each in (2 * (red - green), red + green - 2 * blue)]
    squares = [each @ each / each.size for each in opponents]
    scale = 255 / np.iinfo(planes.dtype).max / 2
    found = []
    for means in ([each.mean() for each in opponents], [np.abs(each).mean() for each in opponents]):
        spread = sum(square - mean**2 for square, mean in zip(squares, means, strict=True))
        found.append(scale * (max(spread, 0.0) ** 0.5 + 0.3 * sum(mean**2 for mean in means) ** 0.5))
    return float(found[0]), float(found[1])


def _chunks(pixels: int) -> Iterator[slice]:
    for start in range(0, pixels, _CHUNK_PIXELS):
        yield slice(start, start + _CHUNK_PIXELS)


@cache
def _linear_light(codes: np.dtype[Any]) -> Floats:
    top = np.iinfo(codes).max
    return srgb_to_linear(np.arange(top + 1) / top)


def measure_image(
    colouring: PreparedImage, truth: PreparedImage, protocol: Protocol
) -> tuple[dict[str, float], NDArray[np.int64]]:
    """Measure a colouring that has the size of its true image, at least 11 pixels a side.

    Returns values by column; and the number of pixels by true colour of `chroma_bins` and by a*b* distance, rounded up:
    (313, 152), where the last distance is above `MAX_AB_DISTANCE`.
    """
    height, width = truth.pixels.shape[:2]
    if min(height, width) < SSIM_WINDOW:
        raise ImageError(f"it has {width} x {height} pixels, and SSIM needs {SSIM_WINDOW} a side")
    if colouring is truth:
        return _measure_itself(truth, protocol)
    noise = float(psnr(colouring.rgb, truth.rgb.astype(np.float64))[0])  # sums of float32 are less exact
    off = colouring.chroma - truth.chroma
    apart = np.sqrt(off[0, 0] * off[0, 0] + off[0, 1] * off[0, 1])
    steps = np.minimum(np.ceil(apart), MAX_AB_DISTANCE + 1).astype(np.int64)
    counts = _count_by_colour(truth.colours, steps)
    change = np.abs(colouring.lightness - truth.lightness)
    columns = {
        "psnr_rgb": protocol.equal_psnr_db if np.isinf(noise) else noise,
        "ssim_rgb": ssim_from_windows(colouring.rgb[0], *truth.windows),
        "ciede2000": distance(colouring, truth),
        "ab_l1": float(np.abs(off).mean(dtype=np.float64)),
        "ab_auc": float((counts.sum(0) @ AREA) / steps.size),
        **_image_columns(colouring),
        "mean_colourfulness_difference": abs(colouring.colourfulness[0] - truth.colourfulness[0]),
        "mean_colourfulness_difference_absolute": abs(colouring.colourfulness[1] - truth.colourfulness[1]),
        "lightness_change": float(change.mean()),
        "lightness_changed": float((change > protocol.lightness_tolerance).mean()),
    }
    return columns, counts


def _measure_itself(truth: PreparedImage, protocol: Protocol) -> tuple[dict[str, float], NDArray[np.int64]]:
    none = dict.fromkeys(("ciede2000", "ab_l1", "lightness_change", "lightness_changed"), 0.0)
    none |= dict.fromkeys(("mean_colourfulness_difference", "mean_colourfulness_difference_absolute"), 0.0)
    full = {"psnr_rgb": protocol.equal_psnr_db, "ssim_rgb": 1.0, "ab_auc": 1.0}
    return full | none | _image_columns(truth), _count_by_colour(truth.colours, np.zeros_like(truth.colours))


def _image_columns(image: PreparedImage) -> dict[str, float]:
    return {
        "colourfulness": image.colourfulness[0],
        "colourfulness_absolute": image.colourfulness[1],
        "a_mean": float(image.chroma[0, 0].mean(dtype=np.float64)),
        "b_mean": float(image.chroma[0, 1].mean(dtype=np.float64)),
    }


def distance(first: PreparedImage, second: PreparedImage) -> float:
    """Mean CIEDE2000, including L*, over the pixels of two images of the same size."""
    total, height = 0.0, first.lightness.shape[2]
    step = max(1, _CHUNK_PIXELS // first.lightness.shape[3])
    for top in range(0, height, step):
        rows = (slice(None), slice(None), slice(top, top + step))
        of = first.chroma[rows], second.chroma[rows], first.lightness[rows]
        total += float(ciede2000(second.lightness[rows], *of)[0]) * of[2].size
    return total / first.lightness.size


AREA = (
    np.concatenate(([MAX_AB_DISTANCE], MAX_AB_DISTANCE + 0.5 - np.arange(1, MAX_AB_DISTANCE + 1), [0.0]))
    / MAX_AB_DISTANCE
)
"""Contribution of a pixel to the area under the curve by its distance, rounded up: the share of thresholds t, 0 to
150, that it is within, by the trapezoidal rule over integer t."""


def balanced_area(counts: NDArray[np.int64]) -> float:
    """The area with equal weight for each true colour that occurs: weights 1 / frequency, lambda = 0.

    Zhang, Isola and Efros use the frequencies of ImageNet; here they are those of the scored images. `counts` is
    (313, 152), see `measure_image`.
    """
    pixels = counts.sum(1)
    found = pixels > 0
    return float(((counts[found] @ AREA) / pixels[found]).mean())


def _count_by_colour(colours: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.int64]:
    size = (len(chroma_bins()), MAX_AB_DISTANCE + 2)
    places = colours * size[1]
    places += steps
    return np.bincount(places.ravel(), minlength=size[0] * size[1]).reshape(size)


@cache
def nearest_bins() -> NDArray[np.int64]:
    """Index of the nearest of `chroma_bins`, the first of ties, for each integer a*, b* in -128 to 128, (257, 257)."""
    axis = np.arange(-_MAX_AB, _MAX_AB + 1)
    colours = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 1, 2)
    found = [((part - chroma_bins()) ** 2).sum(-1).argmin(1) for part in np.array_split(colours, 64)]
    return np.concatenate(found).reshape(len(axis), len(axis))


DIFFERENCES_OF_MEANS = {
    "colourfulness_difference_of_means": "colourfulness",
    "colourfulness_difference_of_means_absolute": "colourfulness_absolute",
}
"""Measures of a set that are not means: absolute differences between the means of a column, given here, over the
colourings and over the true images."""


def in_one_colour(truth: PreparedImage, colour: tuple[float, ...] = (0.0, 0.0)) -> Pixels:
    """Codes, with the bit depth of the true image, of its L* with one a*b* everywhere: gray or the mean colour."""
    lightness, codes = truth.lightness.reshape(-1), truth.pixels.dtype
    planes = np.empty((3, lightness.size), codes)
    for cut in _chunks(lightness.size):
        chroma = np.repeat(np.array(colour)[:, None], len(lightness[cut]), axis=1)
        light = lab_to_linear(lightness[cut], chroma).clip(0, 1)
        if not any(colour):  # equal codes in all channels, despite rounding
            light = light[1:2]
        planes[:, cut] = np.floor(linear_to_srgb(light) * np.iinfo(codes).max + 0.5)
    return np.ascontiguousarray(np.moveaxis(planes.reshape(3, *truth.pixels.shape[:2]), 0, -1))
