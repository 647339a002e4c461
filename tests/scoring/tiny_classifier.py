"""Files of small timm classifiers with random weights, whose predictions differ between images."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

NAME = "test_resnet"
RETESTED = "test_mambaout"
"""A network whose test size differs from its training size."""


class Preprocessing(NamedTuple):
    """The preprocessing of a network: input side and shorter side before the crop (px), and normalisation."""

    side: int
    whole: int
    resample: Image.Resampling
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


PREPROCESSING = {
    NAME: Preprocessing(160, 168, Image.Resampling.BILINEAR, (0.5,) * 3, (0.5,) * 3),
    RETESTED: Preprocessing(192, 192, Image.Resampling.BICUBIC, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def network(outputs: int, seed: int = 0, name: str = NAME) -> torch.nn.Module:
    """A network with random weights, and a bias that makes its mean outputs on uniform noise 0."""
    torch.manual_seed(seed)
    made = timm.create_model(name, num_classes=outputs).eval()
    noise = np.random.default_rng(seed).integers(0, 256, (12, 3, 3, 3)).astype(np.uint8)
    with torch.no_grad():
        made.get_classifier().bias -= torch.cat([made(preprocess(each, name)) for each in noise]).mean(0)
    return made.requires_grad_(False)


def preprocess(pixels: np.ndarray, name: str = NAME) -> torch.Tensor:
    """Preprocess an image as timm would: resize, crop, normalise; (1, 3, side, side)."""
    wanted = PREPROCESSING[name]
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
