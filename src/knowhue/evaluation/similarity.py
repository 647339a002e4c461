"""Similarity of two images: PSNR, SSIM and CIEDE2000, for tensors and for arrays, which need no torch."""

import importlib
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Values = NDArray[np.floating[Any]] | Tensor

SSIM_WINDOW = 11  # side of the window in pixels
_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03  # the paper's constants


def ciede2000(
    lightness: "Values", predicted: "Values", true: "Values", predicted_lightness: "Values | None" = None
) -> Any:
    """Mean CIEDE2000 (Sharma, Wu and Dalal 2005) of each image, (B,), kL = kC = kH = 1, in float32.

    L* is (B, 1, H, W), 0 to 100, and a*b* (B, 2, H, W); `predicted_lightness` is given if it differs from the true one.
    About 1 is just noticeable side by side. Other shapes raise a `ValueError`, because nothing is broadcast.

    >>> gray, red = np.zeros((1, 2, 1, 1)), np.array([2.5, 0.0]).reshape(1, 2, 1, 1)
    >>> round(float(ciede2000(np.full((1, 1, 1, 1), 50.0), red, gray)[0]), 2)
    3.46
    """
    require_same_shape(predicted, true)
    for name, values in (("lightness", lightness), ("predicted_lightness", predicted_lightness)):
        if values is not None and values.shape != true[:, :1].shape:
            raise ValueError(
                f"`{name}` should be as large as `true`, {tuple(true.shape)}. Found {tuple(values.shape)}."
            )
    library = _library(true)
    (a1, b1), (a2, b2) = ((each[:, 0], each[:, 1]) for each in (_single(predicted), _single(true)))
    b1_squared, b2_squared = b1 * b1, b2 * b2
    mean_chroma = (library.sqrt(a1 * a1 + b1_squared) + library.sqrt(a2 * a2 + b2_squared)) / 2
    stretch = 1.5 - 0.5 * _saturation(mean_chroma)
    a1, a2 = a1 * stretch, a2 * stretch
    chroma1, chroma2 = library.sqrt(a1 * a1 + b1_squared), library.sqrt(a2 * a2 + b2_squared)
    mean_chroma = (chroma1 + chroma2) / 2
    cross = a1 * b2 - b1 * a2
    # the hue difference is from -pi to pi; for opposite hues, the sign for which the mean hue does not pass 0
    side = library.where(b1 == 0, a1, b1)  # on the a* axis hues are 0 and pi, also for b* = -0
    cross = library.where(cross == 0, library.copysign(cross, side), cross)
    hue_difference = library.arctan2(cross, a1 * a2 + b1 * b2)
    mean_hue = library.arctan2(b1, a1) + hue_difference / 2
    chroma_term = (chroma2 - chroma1) / (1 + 0.045 * mean_chroma)
    hue_weight = 1 + 0.015 * mean_chroma * _hue_weight(library, mean_hue)
    hue_term = 2 * library.sqrt(chroma1 * chroma2) * library.sin(hue_difference / 2) / hue_weight
    rotation = -2 * _saturation(mean_chroma) * library.sin(math.radians(60) * _blueness(library, mean_hue))
    squared = chroma_term**2 + hue_term**2 + rotation * chroma_term * hue_term
    if predicted_lightness is not None:
        squared = squared + _lightness_term(_single(predicted_lightness), _single(lightness)) ** 2
    # clipped, because rounding can make it negative for equal colours
    return library.sqrt(library.clip(squared, 0, None)).mean((1, 2))


def _hue_weight(library: Any, hue: Any) -> Any:
    """The paper's T."""
    return (
        1
        - 0.17 * library.cos(hue - math.radians(30))
        + 0.24 * library.cos(2 * hue)
        + 0.32 * library.cos(3 * hue + math.radians(6))
        - 0.20 * library.cos(4 * hue - math.radians(63))
    )


def _blueness(library: Any, hue: Any) -> Any:
    """Gaussian of the hue around 275 degrees; 1 at 275."""
    degrees = library.rad2deg(hue)
    return library.exp(-(((library.where(degrees < 0, degrees + 360, degrees) - 275) / 25) ** 2))


def _lightness_term(predicted: Any, true: Any) -> Any:
    squared = ((predicted + true) / 2 - 50)[:, 0] ** 2
    return (true - predicted)[:, 0] / (1 + 0.015 * squared / (20 + squared) ** 0.5)


def _saturation(chroma: Any) -> Any:
    """sqrt(C^7 / (C^7 + 25^7)): from 0 for gray to 1 for a chroma C far above 25."""
    squared = chroma * chroma
    seventh = squared * squared * squared * chroma  # `chroma**7` takes several times as long
    return (seventh / (seventh + 25.0**7)) ** 0.5


def psnr(predicted: "Values", true: "Values") -> Any:
    """Peak signal-to-noise ratio of each image over all channels, (B,), dB; infinite for equal images.

    Both are sRGB (B, 3, H, W), 0 to 1. A colouring has the true lightness, which dominates the ratio; compare it with
    that of the gray baseline. Other shapes and integers raise a `ValueError`.

    >>> psnr(np.zeros((1, 3, 2, 2)), np.full((1, 3, 2, 2), 0.1)).round().tolist()
    [20.0]
    """
    _require_images(predicted, true)
    with np.errstate(divide="ignore"):
        return -10 * _library(true).log10(_library(true).square(predicted - true).mean((1, 2, 3)))


def ssim(predicted: "Values", true: "Values") -> Any:
    """Structural similarity (Wang et al. 2004) of each image, mean over channels and pixels, (B,), -1 to 1.

    Both are sRGB (B, 3, H, W), 0 to 1. Gaussian window of 11 pixels, sigma 1.5, population covariance, and only windows
    that lie entirely inside the image, as in the paper's code and in scikit-image; torchmetrics pads the borders by
    reflection. Other shapes, sides below 11 pixels, and integers raise a `ValueError`.
    """
    _require_images(predicted, true)
    if min(predicted.shape[2:]) < SSIM_WINDOW:
        raise ValueError(
            f"`predicted` should have sides of {SSIM_WINDOW} pixels or more. Found {tuple(predicted.shape)}."
        )
    # centred on 0, because float32 then resolves the small variances of flat windows, which a shift does not change
    x, y = _single(predicted) - 0.5, _single(true) - 0.5
    down, across = (_as(window_weights(side), x) for side in x.shape[2:])
    means = (down @ each @ across.T for each in (x, y, x * x + y * y, x * y))
    return ssim_map(*means).mean((1, 2, 3))


def ssim_map(mean_x: Any, mean_y: Any, mean_squares: Any, mean_xy: Any) -> Any:
    """Structural similarity of each window from its means of x, y, x^2 + y^2 and xy, where x and y are RGB - 0.5."""
    product, squares, total = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y, mean_x + mean_y
    # (x + .5)(y + .5) = xy + (x + y) / 2 + .25
    total = total + (0.5 + _K1**2)
    luminance = (2 * product + total) / (squares + total)
    structure = (2 * (mean_xy - product) + _K2**2) / (mean_squares - squares + _K2**2)
    return luminance * structure


@lru_cache(64)
def window_weights(side: int) -> "NDArray[np.float64]":
    """Matrix (side - 10, side) whose product with a signal is the Gaussian mean of every window inside it."""
    # at these sizes a matrix product, zeros included, is several times as fast as a convolution
    steps = np.arange(side)[None] - np.arange(side - SSIM_WINDOW + 1)[:, None] - SSIM_WINDOW // 2
    weights = np.where(abs(steps) <= SSIM_WINDOW // 2, np.exp(-(steps**2) / (2 * _SIGMA**2)), 0.0)
    return weights / weights.sum(1, keepdims=True)


def require_same_shape(predicted: "Values", true: "Values") -> None:
    """Raise a ValueError if the shapes differ, so that nothing is broadcast."""
    if predicted.shape != true.shape:
        raise ValueError(
            f"`predicted` should be of the shape of `true`, {tuple(true.shape)}. Found {tuple(predicted.shape)}."
        )


def _require_images(predicted: Any, true: Any) -> None:
    """Raise a ValueError if the shapes differ, or for integers: these are codes of 0 to 255, which would overflow."""
    require_same_shape(predicted, true)
    for name, values in (("predicted", predicted), ("true", true)):
        is_float = values.dtype.kind == "f" if isinstance(values, np.ndarray) else values.is_floating_point()
        if not is_float:
            raise ValueError(
                f"`{name}` should be RGB from 0 to 1. Found `{name}.dtype = {values.dtype}`: divide codes by 255."
            )


def _library(like: Any) -> Any:
    """The library of an array or tensor: NumPy, or torch, which is not imported for arrays."""
    return np if isinstance(like, np.ndarray) else importlib.import_module("torch")


def _single(values: Any) -> Any:
    return values.astype(np.float32, copy=False) if isinstance(values, np.ndarray) else values.float()


def _as(values: "NDArray[np.float64]", like: Any) -> Any:
    """Convert an array to the kind, type and device of `like`."""
    if isinstance(like, np.ndarray):
        return values.astype(like.dtype)
    return importlib.import_module("torch").from_numpy(values).to(like)
