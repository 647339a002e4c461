"""LPIPS and ST-LPIPS: how different two images look, from the layers of a trained AlexNet; pure."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, normalize, pad

from knowhue.tensors import RGB

CHANNELS = (64, 192, 384, 256, 256)
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation, for values of -1 to 1."""


class BlurPool(nn.Module):
    """Every second pixel of an image blurred by [1 2 1] / 4 both ways (Zhang 2019), two pixels reflected."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, (H + 3) // 2, (W + 3) // 2); H and W of 3 or more."""
        steps = maps.new_tensor([0.25, 0.5, 0.25])
        kernel = torch.outer(steps, steps).expand(maps.shape[1], 1, 3, 3)
        return conv2d(pad(maps, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=maps.shape[1])


class LayerDistance(nn.Module):
    """Weighted squared differences of unit-length features of five layers (Zhang et al. 2018, equation 1).

    Trained on images of 64 pixels. Made without weights: fill `convolutions` and `weights`.

    Args:
        shift_tolerant: the layers of ST-LPIPS (Ghildyal and Liu 2022) instead of AlexNet's own: the first
            convolution at every pixel, and every halving blurred.
    """

    def __init__(self, shift_tolerant: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_shift_tolerant() if shift_tolerant else _alexnet())
        self.weights = nn.ParameterList([torch.zeros(1, count, 1, 1) for count in CHANNELS])

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """The five, first to last."""
        return [module for module in self.modules() if isinstance(module, nn.Conv2d)]

    def forward(self, first: RGB, second: RGB) -> Tensor:
        """Distance of each pair.

        Args:
            first: (B, 3, H, W), 0 to 1, of 31 pixels a side or more.
            second: (B, 3, H, W).

        Returns:
            (B,), 0 for equal images; below 1 for most.

        Raises:
            ValueError: the shapes differ (nothing is broadcast).
        """
        if first.shape != second.shape:
            raise ValueError(
                f"`first` should be of the shape of `second`, {tuple(second.shape)}. Found {tuple(first.shape)}."
            )
        maps = _normalised(torch.cat((first, second)))
        total = maps.new_zeros(len(first))
        for layer, weight in zip(self.layers, self.weights, strict=True):
            maps = layer(maps)
            one, other = normalize(maps, dim=1, eps=1e-10).chunk(2)
            total = total + (weight * (one - other).square()).sum(1).mean((1, 2))
        return total


def _normalised(rgb: RGB) -> Tensor:
    shift, scale = (rgb.new_tensor(each).reshape(1, 3, 1, 1) for each in (_SHIFT, _SCALE))
    return (2 * rgb - 1 - shift) / scale


def _alexnet() -> list[nn.Module]:
    """AlexNet's convolutions as torchvision has them (Krizhevsky 2014)."""
    return [
        nn.Sequential(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, 2), *_last(192, 384)),
        *(nn.Sequential(*_last(*each)) for each in ((384, 256), (256, 256))),
    ]


def _shift_tolerant() -> list[nn.Module]:
    return [
        nn.Sequential(nn.Conv2d(3, 64, 11, 1, 2), BlurPool(), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, 1), BlurPool(), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, 1), BlurPool(), *_last(192, 384)),
        *(nn.Sequential(*_last(*each)) for each in ((384, 256), (256, 256))),
    ]


def _last(width: int, channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()
