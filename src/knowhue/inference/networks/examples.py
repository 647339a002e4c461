"""Colour images with their truth at a network's size, for measuring what a way of running it costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from knowhue.color import rgb_to_lab
from knowhue.errors import ImageError
from knowhue.images.files import walk
from knowhue.images.reading import read_image
from knowhue.images.vips import shrink
from knowhue.inference.glimpse import working_size
from knowhue.inference.networks.network import FloatArray

FEWEST = 8


class Example(NamedTuple):
    """A colour image at the network's size.

    Attributes:
        lightness: L* (h, w), 0 to 100.
        chroma: a*b* (h, w, 2), CIELAB units.
        label: the name of the folder that it lies in, or None.
    """

    lightness: FloatArray
    chroma: FloatArray
    label: str | None = None


def find_images(folder: Path) -> list[Path]:
    """Image files in a folder and the folders in it, by name.

    Raises:
        ImageError: there are too few to calibrate on some and to measure on others.
    """
    found = sorted(file for file, skipped in walk(folder) if not skipped)
    if len(found) < 2 * FEWEST:
        raise ImageError(
            f"`images` should be a folder of at least {2 * FEWEST} colour images, better some hundreds. "
            f"Found {len(found)} in `{folder}`."
        )
    return found


def read_examples(files: Sequence[Path], most: int, size_px: int) -> list[Example]:
    """Up to `most` of some files, evenly spread, those that are in colour.

    Raises:
        ImageError: one cannot be read, or too few are in colour.
    """
    chosen = np.unique(np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int))
    examples = [_read_example(files[place], size_px) for place in chosen]
    kept = [each for each in examples if each is not None]
    if len(kept) < FEWEST:
        raise ImageError(
            f"`images` should hold at least {2 * FEWEST} images in colour. Found {len(kept)} in colour among "
            f"{len(examples)}."
        )
    return kept


def _read_example(file: Path, size_px: int) -> Example | None:
    """An image, or None if its file says that it is gray."""
    pixels = read_image(file).pixels
    if pixels.shape[2] != 3:
        return None
    small = shrink(pixels, *working_size(pixels.shape[0], pixels.shape[1], size_px))
    lightness, chroma = rgb_to_lab(torch.from_numpy(small).permute(2, 0, 1)[None])
    return Example(lightness[0, 0].numpy(), chroma[0].permute(1, 2, 0).numpy(), file.parent.name)
