"""An image as a network sees it: L* at the network's size, the whole of it, aspect kept."""

import numpy as np

from knowhue.images.image import Pixels
from knowhue.images.vips import OVERSAMPLING, shrink
from knowhue.inference.networks import FloatArray
from knowhue.inference.pixels import lightness

LONGEST = 4
"""Up to so many times as long as wide an image keeps its aspect at the network's size; longer ones are squeezed."""
SHORTEST_PX = 32


def glimpse(pixels: Pixels, size_px: int, oversampling: int = OVERSAMPLING) -> FloatArray:
    """L* (h, w) of an image whose short side becomes `size_px`; small images are enlarged.

    The resized image is read with 16 bits and converted afterwards, as the training images were.
    Who needs edges and not a network's input passes a smaller `oversampling` to `shrink`.
    """
    height, width = working_size(pixels.shape[0], pixels.shape[1], size_px)
    small = shrink(pixels, height, width, oversampling)
    return lightness((small.clip(0, 1) * 65535).round().astype(np.uint16))


def working_size(height: int, width: int, size_px: int) -> tuple[int, int]:
    """Height and width at which a network looks.

    >>> working_size(3000, 4000, 96)
    (96, 128)
    >>> working_size(1, 5000, 96)
    (96, 384)
    """
    side = max(size_px, SHORTEST_PX)
    scale = side / min(height, width)
    longest = LONGEST * side
    return min(round(height * scale), longest), min(round(width * scale), longest)
