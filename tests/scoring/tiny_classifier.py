"""A small random classifier of timm as a file, whose answers differ from image to image."""

from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

NAME = "test_resnet"
SIDE, WHOLE = 160, 168
"""Of its input, and the shorter side before the crop of .95."""


def network(outputs: int, seed: int = 0) -> torch.nn.Module:
    """With random weights, and a last layer that gives no output a head start on uniform noise."""
    torch.manual_seed(seed)
    made = timm.create_model(NAME, num_classes=outputs).eval()
    noise = np.random.default_rng(seed).integers(0, 256, (12, 3, 3, 3)).astype(np.uint8)
    with torch.no_grad():
        made.fc.bias -= torch.cat([made(as_shown(each)) for each in noise]).mean(0)
    return made.requires_grad_(False)


def as_shown(pixels: np.ndarray) -> torch.Tensor:
    """What timm says of the network's input, by hand: resize, crop, normalise."""
    height, width = pixels.shape[:2]
    scale = WHOLE / min(height, width)
    size = tuple(WHOLE if side == min(height, width) else int(scale * side) for side in (width, height))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - SIDE) / 2) for side in size)
    codes = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), np.float32)
    return torch.from_numpy((codes / 255 - 0.5) / 0.5).permute(2, 0, 1)[None]


def write_network(path: Path, outputs: int, seed: int = 0) -> Path:
    save_file(network(outputs, seed).state_dict(), path)
    return path
