"""Small random classifiers of timm as files, whose answers differ from image to image."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

NAME = "test_resnet"
RETESTED = "test_mambaout"
"""A network that is trained at another size than it is tested at."""


class Shown(NamedTuple):
    """How a network is shown images: side of its input, the shorter side before the crop, and the rest."""

    side: int
    whole: int
    resample: Image.Resampling
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


SHOWN = {
    NAME: Shown(160, 168, Image.Resampling.BILINEAR, (0.5,) * 3, (0.5,) * 3),
    RETESTED: Shown(192, 192, Image.Resampling.BICUBIC, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def network(outputs: int, seed: int = 0, name: str = NAME) -> torch.nn.Module:
    """With random weights, and a last layer that gives no output a head start on uniform noise."""
    torch.manual_seed(seed)
    made = timm.create_model(name, num_classes=outputs).eval()
    noise = np.random.default_rng(seed).integers(0, 256, (12, 3, 3, 3)).astype(np.uint8)
    with torch.no_grad():
        made.get_classifier().bias -= torch.cat([made(as_shown(each, name)) for each in noise]).mean(0)
    return made.requires_grad_(False)


def as_shown(pixels: np.ndarray, name: str = NAME) -> torch.Tensor:
    """What timm says of the network's input, by hand: resize, crop, normalise."""
    wanted = SHOWN[name]
    height, width = pixels.shape[:2]
    scale = wanted.whole / min(height, width)
    size = tuple(
        wanted.whole if side == min(height, width) else int(scale * side) for side in (width, height)
    )
    image = Image.fromarray(pixels).resize(size, wanted.resample)
    left, top = (round((side - wanted.side) / 2) for side in size)
    codes = np.asarray(image.crop((left, top, left + wanted.side, top + wanted.side)), np.float32)
    normal = (codes / 255 - np.float32(wanted.mean)) / np.float32(wanted.deviation)
    return torch.from_numpy(normal).permute(2, 0, 1)[None]


def write_network(path: Path, outputs: int, seed: int = 0, name: str = NAME) -> Path:
    save_file(network(outputs, seed, name).state_dict(), path)
    return path
