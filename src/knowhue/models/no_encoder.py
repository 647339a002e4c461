"""The encoder of a network from scratch: none. The gray image itself is all that its head reads."""

from torch import nn

from knowhue.color import LIGHTNESS_SCALE
from knowhue.tensors import Lightness, Pyramid


class NoBase(nn.Module):
    """A pyramid of one map, the gray image scaled to -1..1; nothing in it learns."""

    channels: tuple[int, ...] = (1,)
    strides: tuple[int, ...] = (1,)

    def forward(self, lightness: Lightness) -> Pyramid:
        """L* (B, 1, H, W) to (gray,), gray = L*/50 - 1."""
        return (lightness / (LIGHTNESS_SCALE / 2) - 1,)
