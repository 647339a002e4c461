"""How a coloured image compares with the true one in RGB, and how colourful it is: one value an image."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from knowhue.tensors import RGB

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def psnr(predicted: RGB, true: RGB) -> Tensor:
    """Peak signal-to-noise ratio over all channels of each image, (B,), dB; equal images give infinity.

    L* is given, so it is mostly the lightness that this agrees on; compare with the gray baseline.

    Raises:
        ValueError: the shapes differ (nothing is broadcast).

    >>> psnr(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.1)).round().tolist()
    [20.0]
    """
    _same_shape(predicted, true)
    return -10 * (predicted - true).square().mean((1, 2, 3)).log10()


def ssim(predicted: RGB, true: RGB) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each image, mean over channels and pixels, (B,), -1 to 1.

    Gaussian window of 11 pixels, sigma 1.5, population covariance, and only windows that lie wholly inside
    the image, as in the paper's code and in scikit-image; torchmetrics pads the borders by reflection.

    Raises:
        ValueError: the shapes differ, or a side is below 11 pixels.
    """
    _same_shape(predicted, true)
    if min(predicted.shape[2:]) < WINDOW:
        raise ValueError(
            f"`predicted` should be {WINDOW} pixels or more a side. Found {tuple(predicted.shape)}."
        )
    x, y = predicted.double(), true.double()
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    structure = (2 * covariance + K2**2) / (variance_x + variance_y + K2**2)
    return (luminance * structure).mean((1, 2, 3)).float()


def colourfulness(rgb: RGB) -> Tensor:
    """Colourfulness M3 of Hasler and Suesstrunk 2003 of each image, (B,), on the scale of 8-bit RGB.

    The same as `data.checks.colourfulness`: signed opponent values, 0 for gray, 109 for extreme.
    """
    return _colourfulness(*_opponents(rgb))


def colourfulness_absolute(rgb: RGB) -> Tensor:
    """The same on absolute opponent values, (B,): a common departure from the paper, much lower for some.

    Only to compare with numbers published in this convention, such as those of DDColor.
    """
    red_green, yellow_blue = _opponents(rgb)
    return _colourfulness(red_green.abs(), yellow_blue.abs())


def _opponents(rgb: RGB) -> tuple[Tensor, Tensor]:
    red, green, blue = (255 * rgb.double()).unbind(1)
    return red - green, (red + green) / 2 - blue


def _colourfulness(red_green: Tensor, yellow_blue: Tensor) -> Tensor:
    spread = torch.hypot(*(each.std((1, 2), correction=0) for each in (red_green, yellow_blue)))
    centre = torch.hypot(*(each.mean((1, 2)) for each in (red_green, yellow_blue)))
    return (spread + 0.3 * centre).float()


def _blur(images: Tensor) -> Tensor:
    """Gaussian mean of every window that lies inside, (B, C, H - 10, W - 10)."""
    steps = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    weight = (-(steps**2) / (2 * SIGMA**2)).exp()
    weight = weight / weight.sum()
    channels = images.shape[1]
    rows = conv2d(images, weight.reshape(1, 1, -1, 1).repeat(channels, 1, 1, 1), groups=channels)
    return conv2d(rows, weight.reshape(1, 1, 1, -1).repeat(channels, 1, 1, 1), groups=channels)


def _same_shape(predicted: RGB, true: RGB) -> None:
    if predicted.shape != true.shape:
        raise ValueError(
            f"`predicted` should be of the shape of `true`, {tuple(true.shape)}. Found {tuple(predicted.shape)}."
        )
