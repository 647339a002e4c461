"""CIEDE2000, the colour difference that follows the eye: batched torch on L* and a*b*."""

import math

import torch
from torch import Tensor

from knowhue.tensors import Chroma, Lightness

TWENTY_FIVE_7 = 25.0**7
OPPOSITE = math.pi + 1e-6  # hues exactly opposite stay so whatever the rounding


def ciede2000(lightness: Lightness, predicted: Chroma, true: Chroma) -> Tensor:
    """Mean CIEDE2000 of each image between two chromas on one lightness.

    Args:
        lightness: L* (B, 1, H, W), 0 to 100, of both.
        predicted: a*b* (B, 2, H, W).
        true: a*b* (B, 2, H, W).

    Returns:
        (B,), CIEDE2000 units; about 1 is just noticeable side by side.

    Raises:
        ValueError: the shapes differ (nothing is broadcast).

    >>> gray, red = torch.zeros(1, 2, 1, 1), torch.tensor([2.5, 0.0]).reshape(1, 2, 1, 1)
    >>> round(ciede2000(torch.full((1, 1, 1, 1), 50.0), red, gray).item(), 2)
    3.46
    """
    if predicted.shape != true.shape or lightness.shape != true[:, :1].shape:
        raise ValueError(
            f"`predicted` and `lightness` should be of the size of `true`, {tuple(true.shape)}. "
            f"Found {tuple(predicted.shape)} and {tuple(lightness.shape)}."
        )
    first, second = (torch.cat((lightness, chroma.float()), 1) for chroma in (predicted, true))
    return delta_e2000(first, second).mean((1, 2))


def delta_e2000(first: Tensor, second: Tensor) -> Tensor:
    """CIEDE2000 of each pixel (Sharma, Wu and Dalal 2005, equations 2 to 22, all weights 1).

    Hues are averaged on the shorter way round, and a gray colour takes the hue of the other, as they say.

    Args:
        first: L*a*b* (B, 3, ...).
        second: L*a*b* of the same shape.

    Returns:
        (B, ...), CIEDE2000 units, at least 0.
    """
    chroma_1, hue_1, chroma_2, hue_2 = _adjusted(first, second)
    mean_chroma = (chroma_1 + chroma_2) / 2
    mean_hue, hue_difference = _hues(hue_1, hue_2, chroma_1 * chroma_2 == 0)
    off_middle = ((first[:, 0] + second[:, 0]) / 2 - 50) ** 2
    tilt = _tilt(mean_hue)
    lightness = (second[:, 0] - first[:, 0]) / (1 + 0.015 * off_middle / (20 + off_middle).sqrt())
    chroma = (chroma_2 - chroma_1) / (1 + 0.045 * mean_chroma)
    hue = 2 * (chroma_1 * chroma_2).sqrt() * (hue_difference / 2).sin() / (1 + 0.015 * mean_chroma * tilt)
    turned = lightness**2 + chroma**2 + hue**2 + _rotation(mean_hue, mean_chroma) * chroma * hue
    return turned.clamp_min(0).sqrt()


def _adjusted(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Chroma and hue (0 to 2 pi) of both, a* stretched near gray."""
    mean = (first[:, 1:].norm(dim=1) + second[:, 1:].norm(dim=1)) / 2
    stretch = 1.5 - 0.5 * _saturation(mean)
    polar = []
    for lab in (first, second):
        red_green, yellow_blue = stretch * lab[:, 1], lab[:, 2]
        hue = torch.atan2(yellow_blue, red_green)
        polar += [torch.hypot(red_green, yellow_blue), torch.where(hue < 0, hue + 2 * math.pi, hue)]
    return polar[0], polar[1], polar[2], polar[3]


def _saturation(chroma: Tensor) -> Tensor:
    return (chroma**7 / (chroma**7 + TWENTY_FIVE_7)).sqrt()


def _hues(first: Tensor, second: Tensor, one_is_gray: Tensor) -> tuple[Tensor, Tensor]:
    """Mean hue and signed hue difference, radians, the shorter way round."""
    difference, total = second - first, first + second
    turn = torch.where(difference.abs() > OPPOSITE, 2 * math.pi, 0.0)
    shortest = difference - turn * difference.sign()
    mean = (total + torch.where(total < 2 * math.pi, turn, -turn)) / 2
    return torch.where(one_is_gray, total, mean), shortest.masked_fill(one_is_gray, 0)


def _tilt(hue: Tensor) -> Tensor:
    """T: how much the tolerance depends on hue."""
    first, fourth = math.radians(30), math.radians(63)
    return (
        1
        - 0.17 * (hue - first).cos()
        + 0.24 * (2 * hue).cos()
        + 0.32 * (3 * hue + math.radians(6)).cos()
        - 0.20 * (4 * hue - fourth).cos()
    )


def _rotation(hue: Tensor, chroma: Tensor) -> Tensor:
    """R_T: the tolerance ellipses lean over in the blues."""
    lean = math.radians(30) * (-(((torch.rad2deg(hue) - 275) / 25) ** 2)).exp()
    return -(2 * lean).sin() * 2 * _saturation(chroma)
