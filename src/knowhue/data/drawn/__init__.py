"""The built-in image set: underwater scenes of five classes, with a dial from class to colour.

It is a control with a known answer. Lightness is drawn first, from one random stream; the palette is
chosen afterwards, from another. So the gray image is the same whatever the palette, and `class_colour`
alone says how much the class tells about colour.
"""

import numpy as np
from numpy.typing import NDArray

from knowhue.data.drawn.palette import choose_palette, lab_to_srgb
from knowhue.data.drawn.scene import compose

__all__ = ["CLASSES", "draw"]

CLASSES: tuple[str, ...] = ("coral_reef", "jellyfish", "penguin", "shark", "starfish")

# First word of each stream's seed. They differ because NumPy pads seeds with zeros, so that
# [seed, index, 1] and [seed, index, 1, 0] would be the same stream.
_GEOMETRY, _PALETTE = 1, 2


def draw(index: int, label: int, size_px: int, class_colour: float, seed: int) -> NDArray[np.uint8]:
    """Draw one image.

    Args:
        index: which image of the set, 0 or more.
        label: its class, an index into `CLASSES`.
        size_px: side, 16 or more pixels.
        class_colour: share of images in their class's palette, 0 to 1; the rest take any of the five.
        seed: seed of the set, 0 or more.

    Returns:
        (size_px, size_px, 3) sRGB. Its L* does not depend on `class_colour`, but for 8-bit rounding.

    Raises:
        ValueError: an argument is out of range.

    >>> draw(index=0, label=3, size_px=32, class_colour=0.8, seed=7).shape
    (32, 32, 3)
    """
    _check(index, label, size_px, class_colour, seed)
    canvas = compose(label, size_px, np.random.default_rng([_GEOMETRY, seed, index, label]))
    palette = choose_palette(label, class_colour, np.random.default_rng([_PALETTE, seed, index]))
    chroma = (palette.T @ canvas.materials.reshape(len(palette), -1)).reshape(2, size_px, size_px)
    return lab_to_srgb(canvas.lightness, chroma)


def _check(index: int, label: int, size_px: int, class_colour: float, seed: int) -> None:
    """Refuse arguments out of range, by name."""
    if index < 0:
        raise ValueError(f"`index` should be 0 or more. Found `index = {index}`.")
    if not 0 <= label < len(CLASSES):
        raise ValueError(f"`label` should be from 0 to {len(CLASSES) - 1}. Found `label = {label}`.")
    if size_px < 16:
        raise ValueError(f"`size_px` should be 16 or more. Found `size_px = {size_px}`.")
    if not 0 <= class_colour <= 1:
        raise ValueError(
            f"`class_colour` should be a number from 0 to 1. Found `class_colour = {class_colour}`."
        )
    if seed < 0:
        raise ValueError(f"`seed` should be 0 or more. Found `seed = {seed}`.")
