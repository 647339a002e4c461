"""How often each of the 313 colours is met in the training images."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from knowhue.color import rgb_to_lab
from knowhue.data.loaders import to_rgb
from knowhue.data.prepare import Prepared
from knowhue.models.colour_classes import centres, count_bins

AVERAGED_PX = 4
"""Side of the squares that a colour is averaged over first, as the head does with what it learns."""


def count_colours(prepared: Prepared, positions: NDArray[np.int64], batch_size: int = 64) -> Tensor:
    """Nearest bins of the colours of the images trained on, (313,) counts; the same on every process."""
    counts = torch.zeros(len(centres()))
    for start in range(0, len(positions), batch_size):
        rgb = to_rgb(prepared.rgb[positions[start : start + batch_size]], torch.device("cpu"))
        counts += count_bins(avg_pool2d(rgb_to_lab(rgb)[1], AVERAGED_PX))
    return counts
