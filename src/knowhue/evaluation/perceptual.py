"""PERCEPTUAL: networks that say how far a colouring looks from its true image; opened without surprises."""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import cache
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from knowhue.config import Evaluation
from knowhue.errors import WeightsError, install_command
from knowhue.evaluation.features import UNAVAILABLE, Unavailable, resize, unavailable
from knowhue.evaluation.lpips import LayerDistance
from knowhue.models.encoder import weights_digest
from knowhue.tensors import RGB

Weights = Mapping[str, Tensor]

SMALLEST_PX = 64
"""The side that both were trained on; smaller images are enlarged to it."""
_PIXELS = 2**18
"""Pixels a pass: the first shift-tolerant layer makes 64 channels of each, of both images."""


class Perceptual(NamedTuple):
    """A perceptual distance that can be had.

    Attributes:
        between: colourings and true images, RGB (B, 3, H, W), 0 to 1, to (B,); 0 where they are equal.
        provenance: what a number must be quoted with: network, weights, resize, tool.
    """

    between: Callable[[RGB, RGB], Tensor]
    provenance: dict[str, Any]


class Kind(NamedTuple):
    """A perceptual distance by name: its title, its column in the tables, how it is opened, its packages."""

    title: str
    column: str
    open: Callable[[str | None], LayerDistance]
    package: str


def _stlpips(_: str | None) -> LayerDistance:
    """ST-LPIPS from the one file of `stlpips-pytorch`.

    Its code is never imported: it wants two packages that it does not use, prints, and is partly under a
    non-commercial licence.
    """
    stored = _read(_in_package("stlpips-pytorch", "stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth"))
    names = ("slice1.0", "slice2.5", "slice3.9", "slice4.11", "slice5.13")
    return _filled(LayerDistance(shift_tolerant=True), stored, [f"net.{name}" for name in names], stored)


def _lpips(file: str | None) -> LayerDistance:
    """LPIPS 0.1: AlexNet from a file of torchvision's or its download, linear layers from `lpips`."""
    linear = _read(_in_package("lpips", "lpips/weights/v0.1/alex.pth"))
    stored = _read(Path(file).expanduser()) if file else _download_alexnet()
    names = [f"features.{place}" for place in (0, 3, 6, 8, 10)]
    return _filled(LayerDistance(shift_tolerant=False), stored, names, linear)


PERCEPTUAL: dict[str, Kind] = {
    "stlpips": Kind("ST-LPIPS, shift-tolerant AlexNet", "stlpips_alex", _stlpips, "stlpips-pytorch"),
    "lpips": Kind("LPIPS, AlexNet", "lpips_alex", _lpips, "lpips"),
}


def open_perceptual(settings: Evaluation, device: torch.device) -> dict[str, Perceptual | Unavailable]:
    """Every network of `PERCEPTUAL`, or why it is not there; each is opened once a process."""
    asked = ", ".join(settings.perceptual) or "none"
    return {
        name: _open(name, settings.lpips_weights, device)
        if name in settings.perceptual
        else Unavailable(f"not computed: `evaluation.perceptual` asks for {asked}, not for {name}")
        for name in PERCEPTUAL
    }


def perceptual_columns(
    networks: Mapping[str, Perceptual | Unavailable], colouring: RGB, truth: RGB
) -> dict[str, Tensor]:
    """The distance of each image, (B,) a column, by every network that is there."""
    return {
        PERCEPTUAL[name].column: network.between(colouring, truth)
        for name, network in networks.items()
        if isinstance(network, Perceptual)
    }


def describe(
    networks: Mapping[str, Perceptual | Unavailable], rows: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What each column's numbers must be quoted with, or why there are none; nothing without colours.

    Args:
        networks: see `open_perceptual`.
        rows: one an image.
    """
    if not rows or "ab_l1" not in rows[0]:
        return {}
    return {
        PERCEPTUAL[name].column: {"title": PERCEPTUAL[name].title, "better": "lower"}
        | _entry(network, [row.get(PERCEPTUAL[name].column) for row in rows])
        for name, network in networks.items()
    }


def _entry(network: Perceptual | Unavailable, values: Sequence[float | None]) -> dict[str, Any]:
    if isinstance(network, Unavailable):
        return {"value": None, "reason": network.reason}
    mean = float(np.mean(np.array(values, float)))
    if not np.isfinite(mean):
        return {"value": None, "reason": "not computed: some colourings are not numbers"}
    return {"value": mean, **network.provenance, "images": len(values)}


@cache
def _open(name: str, file: str | None, device: torch.device) -> Perceptual | Unavailable:
    kind = PERCEPTUAL[name]
    try:
        network = kind.open(file).requires_grad_(False).eval().to(device)
        tool = f"knowhue, weights of {kind.package} {version(kind.package)}"
    except ImportError as error:
        return Unavailable(f"not computed: {error}; {install_command('perceptual')}")
    except UNAVAILABLE as error:
        return unavailable(name, error)
    about = {
        "network": kind.title,
        "weights": weights_digest(network)[:16],
        "resize": f"not resized, but bilinear to {SMALLEST_PX} x {SMALLEST_PX} pixels if smaller",
        "tool": tool,
    }
    source = {"lpips": {"file": file or "downloaded by torchvision"}}.get(name, {})
    return Perceptual(lambda colouring, truth: _distance(network, colouring, truth), about | source)


def _distance(network: LayerDistance, colouring: RGB, truth: RGB) -> Tensor:
    """In passes of bounded size: the shift-tolerant network's first layer is the image's size."""
    if min(truth.shape[2:]) < SMALLEST_PX:
        colouring, truth = resize(colouring, SMALLEST_PX), resize(truth, SMALLEST_PX)
    count = max(1, _PIXELS // truth[0, 0].numel())
    pairs = zip(colouring.split(count), truth.split(count), strict=True)
    return torch.cat([network(*pair) for pair in pairs])


def _filled(network: LayerDistance, stored: Weights, names: Sequence[str], linear: Weights) -> LayerDistance:
    """The network with the convolutions of `stored` and the layer weights of `linear`."""
    for module, name in zip(network.convolutions, names, strict=True):
        module.load_state_dict({part: _tensor(stored, f"{name}.{part}") for part in ("weight", "bias")})
    for number, weight in enumerate(network.weights):
        weight.data.copy_(_tensor(linear, f"lin{number}.model.1.weight"))
    return network


def _tensor(stored: Weights, name: str) -> Tensor:
    if not isinstance(stored.get(name), Tensor):
        raise WeightsError(f"the file has no tensor {name}")
    return stored[name]


def _in_package(package: str, path: str) -> Path:
    """A file of an installed package, found without importing it."""
    return Path(str(distribution(package).locate_file(path)))


def _read(file: Path) -> Weights:
    stored = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(stored, Mapping):
        raise WeightsError("the file holds no tensors by name")
    return stored


def _download_alexnet() -> Weights:
    """ImageNet weights of torchvision, checked by their hash; torch would print that it downloads."""
    from torchvision.models import AlexNet_Weights

    with redirect_stdout(io.StringIO()):
        return AlexNet_Weights.IMAGENET1K_V1.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
