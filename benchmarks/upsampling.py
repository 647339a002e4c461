"""Error of methods that bring chroma to full size: everywhere, and at strong edges, where colours bleed.

The true chroma of each photo is averaged down to the network's size, enlarged with each method, and compared with the
truth; with --model the same is done with a model's chroma. `edges` are the pixels within three pixels of a place where
the true colour differs by more than 20 units between neighbours.

    python benchmarks/upsampling.py IMAGES [--model RUN] [--size 96] [--images 100]
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import maximum_filter

from knowhue.color import rgb_to_lab
from knowhue.images.reading import read_image
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.pixels import chroma_lines, enlarge, network_input, working_size

EDGE = 20.0
NEAR = 7


def main() -> None:
    """Measure every method on every image and print means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="folder of colour photos")
    parser.add_argument("--model", help="also enlarge the chroma of this model")
    parser.add_argument("--size", type=int, default=96, help="the network's size, in pixels")
    parser.add_argument("--images", dest="count", type=int, default=100, help="number of images")
    args = parser.parse_args()
    files = sorted(
        path for path in args.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
    colorizer = Colorizer.load(args.model, fast=True) if args.model else None
    ways: dict[str, Callable[..., np.ndarray]] = {"bilinear": bilinear}
    for radius in (1, 2, 4):
        for epsilon in (4.0, 25.0, 100.0, 400.0):
            ways[f"guided, radius {radius}, epsilon {epsilon:g}"] = partial(
                chroma_lines, radius=radius, epsilon=epsilon
            )
    errors: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for path in files[:: max(1, len(files) // args.count)]:
        measure(path, args.size, colorizer, ways, errors)
    print(f"{'':36}{'a*b* error':>12}{'at edges':>12}")
    for name, values in errors.items():
        everywhere, edges = np.nanmean(values, axis=0)
        print(f"{name:36}{everywhere:12.3f}{edges:12.3f}")


def measure(
    path: Path,
    size: int,
    colorizer: Colorizer | None,
    ways: dict[str, Callable[..., np.ndarray]],
    errors: dict,
) -> None:
    """Append the errors for one photo."""
    pixels = read_image(path).pixels
    if pixels.shape[2] != 3:
        return
    lightness, truth = lab(pixels)
    seen = network_input(pixels, size)
    if colorizer is None:
        height, width = working_size(*pixels.shape[:2], size)
        small = torch.from_numpy(truth).permute(2, 0, 1)[None]
        small = (
            torch.nn.functional.interpolate(small, (height, width), mode="area")[0].permute(1, 2, 0).numpy()
        )
    else:
        small = colorizer.network.predict(seen[None]).chroma[0]  # pyright: ignore[reportOptionalSubscript]
    edges = near_edges(truth)
    for name, way in ways.items():
        slope, offset = np.split(way(small, seen), 2, -1)
        found = full(slope, pixels.shape) * lightness[..., None] + full(offset, pixels.shape)
        error = np.abs(found - truth)
        errors[name].append((error.mean(), error[edges].mean() if edges.any() else np.nan))


def bilinear(chroma: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """Lines of chroma without the dependence on lightness."""
    del guide
    return np.concatenate([np.zeros_like(chroma), chroma], -1)


def full(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bilinear enlargement of both channels."""
    return np.stack([enlarge(values[..., k], *shape[:2]) for k in (0, 1)], -1)


def lab(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L* (H, W) and a*b* (H, W, 2)."""
    rgb = torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max).permute(2, 0, 1)[None]
    lightness, chroma = rgb_to_lab(rgb)
    return lightness[0, 0].numpy(), chroma[0].permute(1, 2, 0).contiguous().numpy()


def near_edges(chroma: np.ndarray) -> np.ndarray:
    """Mask of the pixels within three pixels of a strong change of colour."""
    down = np.linalg.norm(np.diff(chroma, axis=0, append=chroma[-1:]), axis=-1)
    right = np.linalg.norm(np.diff(chroma, axis=1, append=chroma[:, -1:]), axis=-1)
    return maximum_filter(np.maximum(down, right), NEAR) > EDGE


if __name__ == "__main__":
    main()
