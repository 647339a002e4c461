"""Time to colour a 12-megapixel JPEG, as a ratio to decoding and encoding it, and of the network to two other networks.

The floor reads and writes the same file with the same code and options and does nothing in between. All are warmed up
and run alternately, and medians are compared. The other networks are one of the size of SIGGRAPH17 at 256 pixels (the
layers of Zhang et al. 2017 without their weights) and only the encoder of DDColor-tiny, a ConvNeXt-T, at 512 pixels
(Kang et al. 2023), each on a single image, as their users run them.

    python benchmarks/colorize.py [--model built-in] [--image FILE] [--runs 9]
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from scipy.ndimage import zoom
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from knowhue.images.image import Image
from knowhue.images.reading import read_image
from knowhue.images.writing import encode_image
from knowhue.inference.colorizer import Colorizer

HEIGHT, WIDTH = 3000, 4000


def main() -> None:
    """Time everything alternately and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="built-in", help="built-in, a run folder, or an exported file")
    parser.add_argument("--image", type=Path, help="JPEG to colour; by default one is generated")
    parser.add_argument("--runs", type=int, default=9, help="number of timed runs")
    args = parser.parse_args()
    data = args.image.read_bytes() if args.image else draw_photo()
    colorizer = Colorizer.load(args.model)
    seen = colorizer.network_input(read_image(data))[None]
    siggraph, convnext = siggraph17().eval(), timm.create_model("convnext_tiny", features_only=True).eval()
    gray, rgb = torch.zeros(1, 4, 256, 256), torch.zeros(1, 3, 512, 512)
    gray, rgb = (each.to(memory_format=torch.channels_last) for each in (gray, rgb))
    ways: dict[str, Callable[[], object]] = {
        "floor: decode and encode": lambda: encode_image(read_image(data), ".jpg"),
        "coloured": lambda: encode_image(colorizer.colorize(data).image, ".jpg"),
        "the network": lambda: colorizer.network.predict(seen),
        "SIGGRAPH17-sized, 256 px": lambda: siggraph(gray),
        "DDColor-tiny's encoder, 512 px": lambda: convnext(rgb),
    }
    with torch.inference_mode():
        seconds = take_turns(ways, args.runs)
        work = {
            "SIGGRAPH17-sized, 256 px": flops(siggraph, gray),
            "DDColor-tiny's encoder, 512 px": flops(convnext, rgb),
        }
    floor, alone = seconds["floor: decode and encode"], seconds["the network"]
    print(f"{len(data) / 1e6:.1f} MB; {colorizer.network.description.name}, {colorizer.network.runtime}")
    for name, value in seconds.items():
        encoder = floor if name in list(ways)[:2] else alone
        more = f", {work[name] / 1e9:.1f} GFLOP" if name in work else ""
        print(f"{name:34}{1000 * value:8.1f} ms   {value / encoder:6.2f} times{more}")


def take_turns(ways: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median seconds of each, after two rounds to warm up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs + 2):
        for name, work in ways.items():
            started = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - started)
    return {name: float(np.median(values[2:])) for name, values in times.items()}


def draw_photo() -> bytes:
    """A JPEG of 12 megapixels with large shapes and fine grain."""
    generator = np.random.default_rng(0)
    shapes = zoom(generator.integers(20, 235, (30, 40, 3)).astype(np.float32), (100, 100, 1), order=1)
    grain = generator.normal(0, 4, (HEIGHT, WIDTH, 1))
    return encode_image(Image.of((shapes + grain).clip(0, 255).astype(np.uint8)), ".jpg")


def flops(network: nn.Module, batch: torch.Tensor) -> float:
    """Floating-point operations of one forward pass."""
    with FlopCounterMode(display=False) as counter:
        network(batch)
    return counter.get_total_flops()


def siggraph17() -> nn.Module:
    """A chain of layers with the widths, strides and dilations of Zhang et al. 2017, without its skips."""
    blocks: list[nn.Module] = []

    def conv(incoming: int, outgoing: int, stride: int = 1, dilation: int = 1) -> None:
        blocks.extend([nn.Conv2d(incoming, outgoing, 3, stride, dilation, dilation), nn.ReLU()])

    for incoming, width, layers, stride, dilation in (
        (4, 64, 2, 1, 1),
        (64, 128, 2, 2, 1),
        (128, 256, 3, 2, 1),
        (256, 512, 3, 2, 1),
        (512, 512, 3, 1, 2),
        (512, 512, 3, 1, 2),
        (512, 512, 3, 1, 1),
    ):
        for layer in range(layers):
            conv(incoming if layer == 0 else width, width, stride if layer == 0 else 1, dilation)
    for incoming, width, layers in ((512, 256, 3), (256, 128, 2), (128, 128, 2)):
        blocks.append(nn.ConvTranspose2d(incoming, width, 4, 2, 1))
        for _ in range(layers - 1):
            conv(width, width)
    return nn.Sequential(*blocks, nn.Conv2d(128, 2, 1)).to(memory_format=torch.channels_last)  # pyright: ignore


if __name__ == "__main__":
    main()
