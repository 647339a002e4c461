"""Small folders of generated true images and colourings."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 24


def picture(seed: int, side: int = SIDE) -> np.ndarray:
    """An image of smooth colours with some noise, (side, side, 3) uint8."""
    random = np.random.default_rng(seed)
    down, across = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    weights = random.uniform(0.1, 0.9, (3, 3))
    planes = [0.2 * a + 0.5 * b * down + 0.4 * c * across for a, b, c in weights]
    noisy = np.stack(planes, -1) + random.uniform(0, 0.05, (side, side, 3))
    return (255 * noisy.clip(0, 1)).round().astype(np.uint8)


def paler(pixels: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """A colouring of an image: its chroma multiplied by `share`, with noise."""
    gray = pixels.mean(-1, keepdims=True)
    noise = np.random.default_rng(seed).normal(0, 2, pixels.shape)
    return (gray + share * (pixels - gray) + noise).clip(0, 255).round().astype(np.uint8)


def write_images(folder: Path, images: dict[str, np.ndarray], suffix: str = ".png") -> Path:
    """Write images, given by name without suffix, and return the folder."""
    for name, pixels in images.items():
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def true_images(count: int = 6, folders: int = 2) -> dict[str, np.ndarray]:
    """True images by name, distributed over folders."""
    return {f"class{number % folders}/image{number}": picture(number) for number in range(count)}


def colourings(true: dict[str, np.ndarray], share: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Colourings by name, as a system would make them."""
    return {name: paler(pixels, share, seed + place) for place, (name, pixels) in enumerate(true.items())}
