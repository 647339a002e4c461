"""Heads from features to chroma. Upsampling is by transposed convolution that cannot draw a checkerboard."""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from knowhue.tensors import Pyramid


class SmoothTransposedConv(nn.Module):
    """Doubles the size by a transposed convolution whose even and odd outputs weigh alike.

    A plain one gives neighbouring pixels different sums of weights, which shows as a checkerboard in flat
    regions (Odena et al. 2016). Convolving a free 3 x 3 kernel with a 2 x 2 box before use makes all four
    sums equal whatever is learnt, so a constant map gives a constant map (the zero-order-hold structure of
    Sugawara, Shiota and Kiya 2018), at the cost of the plain 4 x 4 layer.

    Takes (B, in_channels, h, w), returns (B, out_channels, 2h, 2w).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.normal_(self.weight, std=(2 / (9 * in_channels)) ** 0.5)
        self.box: Tensor
        self.register_buffer("box", _box_convolution(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Double height and width."""
        kernel = (self.weight.flatten(2) @ self.box).unflatten(2, (4, 4))
        return F.conv_transpose2d(
            features, kernel.to(features.dtype), self.bias.to(features.dtype), 2, padding=1
        )


def _box_convolution() -> Tensor:
    """Full convolution of a 3 x 3 kernel with a 2 x 2 box of ones, as a (9, 16) matrix on flattened kernels.

    One small matrix product is several times as fast as pooling millions of padded weights in each step.
    """
    matrix = torch.zeros(3, 3, 4, 4)
    for row, column in product(range(3), repeat=2):
        matrix[row, column, row : row + 2, column : column + 2] = 1
    return matrix.reshape(9, 16)


class Stage(nn.Module):
    """Twice the size: upsample, take in what the encoder saw at this size (if anything), convolve."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = SmoothTransposedConv(in_channels, out_channels)
        self.up_norm = _norm(out_channels)
        self.skip = nn.Conv2d(skip_channels, out_channels, 1) if skip_channels else None
        self.conv = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm = _norm(out_channels)

    def forward(self, features: Tensor, skip: Tensor | None) -> Tensor:
        """(B, in, h, w), and (B, skip, 2h, 2w) or None, to (B, out, 2h, 2w)."""
        features = self.up_norm(self.up(features))
        if self.skip is not None:
            features = features + self.skip(skip)
        features = F.relu(features)
        return F.relu(features + self.norm(self.conv(features)))


class Decoder(nn.Module):
    """A ladder of stages from the coarsest map to full size, then a*b* scaled to -1..1.

    `taps` says which maps of the encoder's pyramid it reads, fine to coarse; nothing else need be cached. The
    last layer starts at zero: an untrained head answers gray, and so starts at the gray baseline.

    For `resnet18` and width 32, a 64-pixel image passes as 512 channels of 2 x 2 pixels, then 256 of 4, 128
    of 8, 64 of 16, 32 of 32, and leaves as 2 of 64 x 64.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int, skips: bool) -> None:
        super().__init__()
        skip_at = dict(zip(strides, channels, strict=True)) if skips else {}
        self.taps: tuple[int, ...] = tuple(range(len(channels))) if skips else (len(channels) - 1,)
        stages, incoming, stride = [], channels[-1], strides[-1] // 2
        while stride > 1:
            outgoing = min(width * stride // 2, 256)
            stages.append(Stage(incoming, skip_at.get(stride, 0), outgoing))
            incoming, stride = outgoing, stride // 2
        self.stages = nn.ModuleList(stages)
        self.out = SmoothTransposedConv(incoming, 2)
        nn.init.zeros_(self.out.weight)

    def forward(self, pyramid: Pyramid) -> Tensor:
        """Maps of `taps`, fine to coarse, to scaled a*b* (B, 2, H, W) at the image's size."""
        *skips, features = pyramid
        for stage in self.stages:
            features = stage(features, skips.pop() if stage.skip is not None else None)
        return torch.tanh(self.out(features).float())


def _norm(channels: int) -> nn.Module:
    """GroupNorm: an image's colours must not depend on the rest of its batch, or on the process count."""
    groups = next(g for g in (8, 4, 2, 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)
