"""MEASURES: what is measured of a colouring beside its true image, one value an image, and of a whole set."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.color import (
    Floats,
    chroma_bins,
    colourfulness,
    lab_to_linear,
    linear_to_lab,
    linear_to_srgb,
    srgb_to_linear,
)
from knowhue.errors import ImageError
from knowhue.evaluation.similarity import SSIM_WINDOW, ciede2000, psnr, ssim
from knowhue.images.image import Pixels
from knowhue.scoring.protocols import Protocol

Column = NDArray[np.float64]
"""(N,): one value an image, in the order of their names."""
Columns = Mapping[str, Column]

FARTHEST_AB = 150
"""Distance in the a*b* plane up to which the area under the curve is taken (Zhang, Isola and Efros, ECCV 2016)."""
_TILE = 256  # pixels a side that are looked at together; what a small image has is looked at in one
_REACH = 128  # of a*b*, whose sRGB colours lie within -108 to 99


class Quantity(NamedTuple):
    """A number for a set of colourings.

    Attributes:
        title: in words.
        short: the head of a column.
        unit: of its values.
        better: which way.
        column: the values an image that it is a mean of; empty of one of `OVER_SET`.
        places: digits after the point.
    """

    title: str
    short: str
    unit: str
    better: Literal["lower", "higher", "neither"]
    column: str
    places: int = 2


MEASURES: Mapping[str, Quantity] = {
    "ciede2000": Quantity("CIEDE2000", "CIEDE2000", "CIEDE2000 units", "lower", "ciede2000"),
    "ab_l1": Quantity("Mean absolute error of a*b*", "a*b* error", "CIELAB units", "lower", "ab_l1"),
    "ab_auc": Quantity("Area under the curve of a*b* errors", "AUC", "share", "higher", "ab_auc", 4),
    "ab_auc_balanced": Quantity(
        "Area under the curve of a*b* errors, each colour alike", "AUC, balanced", "share", "higher", "", 4
    ),
    "psnr_rgb": Quantity("PSNR of RGB", "PSNR", "dB", "higher", "psnr_rgb"),
    "ssim_rgb": Quantity("SSIM of RGB", "SSIM", "-1 to 1", "higher", "ssim_rgb", 4),
    "lpips_alex": Quantity("LPIPS, AlexNet", "LPIPS", "0 is equal", "lower", "lpips_alex", 4),
    "colourfulness": Quantity("Colourfulness (signed)", "CF, signed", "M3", "neither", "colourfulness"),
    "colourfulness_absolute": Quantity(
        "Colourfulness (absolute convention)", "CF, absolute", "M3", "neither", "colourfulness_absolute"
    ),
    "colourfulness_error": Quantity(
        "Mean difference of colourfulness (signed)", "dCF of images, signed", "M3", "lower", "colourfulness_error"
    ),
    "colourfulness_error_absolute": Quantity(
        "Mean difference of colourfulness (absolute convention)", "dCF of images, absolute", "M3", "lower",
        "colourfulness_error_absolute",
    ),
    "colourfulness_shift": Quantity(
        "Difference of the mean colourfulness (signed)", "dCF of means, signed", "M3", "lower", ""
    ),
    "colourfulness_shift_absolute": Quantity(
        "Difference of the mean colourfulness (absolute convention)", "dCF of means, absolute", "M3", "lower", ""
    ),
    "lightness_change": Quantity("Mean change of L*", "|dL*|", "CIELAB units", "lower", "lightness_change", 3),
    "lightness_changed": Quantity(
        "Pixels whose L* changed visibly", "L* changed", "share", "lower", "lightness_changed", 4
    ),
    "diversity": Quantity("CIEDE2000 between samples", "diversity", "CIEDE2000 units", "neither", "diversity"),
}  # fmt: skip
"""Those of networks are added where one is asked for, see `scoring.networks`."""

BEST_OF = ("ciede2000", "ab_l1", "psnr_rgb", "ssim_rgb", "lpips_alex")
"""Of several samples, the best by each of these is a column `best_<name>`."""


class Seen(NamedTuple):
    """An image as it is measured.

    Attributes:
        pixels: (H, W, 3) codes.
        rgb: (1, 3, H, W), 0 to 1.
        lightness: L* (1, 1, H, W).
        chroma: a*b* (1, 2, H, W).
        colourfulness: M3, signed and absolute.
    """

    pixels: Pixels
    rgb: Floats
    lightness: Floats
    chroma: Floats
    colourfulness: tuple[float, float]


def see(pixels: Pixels) -> Seen:
    """What is measured of codes (H, W, 3), 8 or 16 bits."""
    lab = np.moveaxis(linear_to_lab(_light(pixels.dtype)[pixels]), -1, 0)[None]
    rgb = np.moveaxis(pixels, -1, 0)[None] / np.float64(np.iinfo(pixels.dtype).max)
    vivid = [float(colourfulness(255 * rgb, absolute)[0]) for absolute in (False, True)]
    return Seen(pixels, rgb, lab[:, :1], np.ascontiguousarray(lab[:, 1:]), (vivid[0], vivid[1]))


@cache
def _light(codes: np.dtype[Any]) -> Floats:
    """The light of each code."""
    top = np.iinfo(codes).max
    return srgb_to_linear(np.arange(top + 1) / top)


def measure_image(
    colouring: Seen, truth: Seen, protocol: Protocol
) -> tuple[dict[str, float], NDArray[np.int64]]:
    """What a colouring has of each column, and where the distances of its pixels lie.

    Args:
        colouring: of the truth's size.
        truth: the true image.
        protocol: what an equal image counts, and which change of L* is one.

    Returns:
        Values by column; and how many pixels have each true colour of `chroma_bins` and each distance in the a*b*
        plane, rounded up: (313, 152), of which the last is more than `FARTHEST_AB`.

    Raises:
        ImageError: a side is below 11 pixels.
    """
    noise = float(psnr(colouring.rgb, truth.rgb)[0])
    off = colouring.chroma - truth.chroma
    steps = np.minimum(np.ceil(np.hypot(off[0, 0], off[0, 1])), FARTHEST_AB + 1).astype(np.int64)
    change = np.abs(colouring.lightness - truth.lightness)
    columns = {
        "psnr_rgb": protocol.equal_psnr_db if np.isinf(noise) else noise,
        "ssim_rgb": _tiled_ssim(colouring.rgb, truth.rgb),
        "ciede2000": distance(colouring, truth),
        "ab_l1": float(np.abs(off).mean()),
        "ab_auc": float((np.bincount(steps.ravel(), minlength=FARTHEST_AB + 2) @ AREA) / steps.size),
        **_own_columns(colouring),
        "colourfulness_error": abs(colouring.colourfulness[0] - truth.colourfulness[0]),
        "colourfulness_error_absolute": abs(colouring.colourfulness[1] - truth.colourfulness[1]),
        "lightness_change": float(change.mean()),
        "lightness_changed": float((change > protocol.lightness_tolerance).mean()),
    }
    return columns, _by_colour(truth.chroma, steps)


def _own_columns(image: Seen) -> dict[str, float]:
    """What an image has of itself."""
    return {
        "colourfulness": image.colourfulness[0],
        "colourfulness_absolute": image.colourfulness[1],
        "a_mean": float(image.chroma[0, 0].mean()),
        "b_mean": float(image.chroma[0, 1].mean()),
    }


def distance(first: Seen, second: Seen) -> float:
    """Mean CIEDE2000 over the pixels of two images of one size, L* included."""
    total = 0.0
    for rows, columns in _tiles(first.lightness.shape[2:], 0):
        cut = (slice(None), slice(None), rows, columns)
        of = first.chroma[cut], second.chroma[cut], first.lightness[cut]
        total += float(ciede2000(second.lightness[cut], *of)[0]) * of[2].size
    return total / first.lightness.size


def _tiled_ssim(first: Floats, second: Floats) -> float:
    # `ssim` is a product of matrices, whose cost grows with the cube of a side
    total, windows, edge = 0.0, 0, SSIM_WINDOW - 1
    for rows, columns in _tiles(first.shape[2:], edge):
        cut = (slice(None), slice(None), rows, columns)
        here = (rows.stop - rows.start - edge) * (columns.stop - columns.start - edge)
        total, windows = total + float(ssim(first[cut], second[cut])[0]) * here, windows + here
    return total / windows


def _tiles(size: tuple[int, ...], overlap: int) -> Iterator[tuple[slice, slice]]:
    height, width = size
    if min(size) <= overlap:
        raise ImageError(f"it has {width} x {height} pixels, and SSIM needs {SSIM_WINDOW} a side")
    for top in range(0, height - overlap, _TILE):
        for left in range(0, width - overlap, _TILE):
            yield (
                slice(top, min(top + _TILE + overlap, height)),
                slice(left, min(left + _TILE + overlap, width)),
            )


AREA = np.concatenate(([FARTHEST_AB], FARTHEST_AB + 0.5 - np.arange(1, FARTHEST_AB + 1), [0.0])) / FARTHEST_AB
"""What a pixel adds to the area under the curve, by its distance rounded up: the share of t = 0 to 150 at which it
counts, by trapezoids over whole t."""


def balanced_area(counts: NDArray[np.int64]) -> float:
    """The area where each true colour counts alike, however many pixels have it: weights 1 / frequency, lambda = 0.

    Zhang, Isola and Efros weight by ImageNet's frequencies; these are of the images at hand.

    Args:
        counts: (313, 152), see `measure_image`.
    """
    pixels = counts.sum(1)
    found = pixels > 0
    return float(((counts[found] @ AREA) / pixels[found]).mean())


def _by_colour(chroma: Floats, steps: NDArray[np.int64]) -> NDArray[np.int64]:
    whole = np.rint(chroma[0]).astype(np.int64) + _REACH
    bins = nearest_bins()[whole[0], whole[1]]
    size = (len(chroma_bins()), FARTHEST_AB + 2)
    return np.bincount((bins * size[1] + steps).ravel(), minlength=size[0] * size[1]).reshape(size)


@cache
def nearest_bins() -> NDArray[np.int64]:
    """The number of the nearest of `chroma_bins` to each whole a*, b* from -128 to 128; the first of equally near."""
    axis = np.arange(-_REACH, _REACH + 1)
    colours = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 1, 2)
    found = [((part - chroma_bins()) ** 2).sum(-1).argmin(1) for part in np.array_split(colours, 64)]
    return np.concatenate(found).reshape(len(axis), len(axis))


def _set_difference(column: str) -> Callable[[Columns, Columns], float]:
    return lambda own, true: abs(float(own[column].mean()) - float(true[column].mean()))


OVER_SET: Mapping[str, Callable[[Columns, Columns], float]] = {
    "colourfulness_shift": _set_difference("colourfulness"),
    "colourfulness_shift_absolute": _set_difference("colourfulness_absolute"),
}
"""Measures of a set that are no mean, from the columns of the colourings and of the true images."""


def gray_of(truth: Seen, colour: tuple[float, ...] = (0.0, 0.0)) -> Pixels:
    """The image in its own L* and one a*b* everywhere: left gray, or in the mean colour; codes of the truth's depth."""
    height, width, _ = truth.pixels.shape
    chroma = np.repeat(np.array(colour)[:, None], height * width, axis=1)
    light = lab_to_linear(truth.lightness.reshape(-1), chroma).clip(0, 1)
    if not any(colour):  # one code, whatever is left of rounding
        light = np.repeat(light[1:2], 3, axis=0)
    codes = linear_to_srgb(light).T.reshape(height, width, 3) * np.iinfo(truth.pixels.dtype).max
    return np.floor(codes + 0.5).astype(truth.pixels.dtype)
