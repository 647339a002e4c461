"""NETWORKS: pretrained networks that turn images into features; opened from files, packages or the hub."""

import errno
import pickle
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from knowhue.config import Evaluation
from knowhue.errors import WeightsError, install_command
from knowhue.models.encoder import pretrained_features, weights_digest
from knowhue.tensors import RGB


class Network(NamedTuple):
    """A network that can be had.

    Attributes:
        features: RGB (B, 3, H, W), 0 to 1, to (B, D) float32.
        provenance: what a number must be quoted with: network, weights, resize, tool.
    """

    features: Callable[[RGB], Tensor]
    provenance: dict[str, Any]


class Unavailable(NamedTuple):
    """A network that cannot be had, or was not asked for, and why."""

    reason: str


UNAVAILABLE = (OSError, RuntimeError, EOFError, pickle.UnpicklingError, WeightsError)
"""What a missing, damaged or foreign weights file raises, and a download without a network."""


def unavailable(name: str, error: Exception) -> Unavailable:
    """Why the weights of a network are not there, in one line.

    Raises:
        Exception: `error` itself where it is of the machine, such as too little memory: the weights may well be there.
    """
    if of_the_machine(error):
        raise error
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return Unavailable(f"not computed: the weights of {name} could not be had ({reason})")


def of_the_machine(error: Exception) -> bool:
    """Whether an error says nothing of the file that was read: memory ran out, or the GPU failed.

    torch raises a plain RuntimeError for both on a CPU and in older libraries, so its words are looked at.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = ("out of memory", "can't allocate memory", "not enough memory", "cuda error", "cublas", "cudnn")
    return isinstance(error, RuntimeError) and any(each in str(error).lower() for each in words)


def resize(rgb: RGB, side_px: int) -> RGB:
    """Bilinear with antialiasing, which FID depends on in the first digit; clipped to 0 to 1."""
    size = (side_px, side_px)
    return interpolate(rgb, size=size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


def _lite0(_: str | None, device: torch.device) -> Network:
    """EfficientNet-Lite0 of its pip package; 1280 pooled features."""
    network = pretrained_features("tf_efficientnet_lite0", "package").to(device)
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore
    return Network(
        lambda rgb: _by_parts(lambda part: network(resize(part, 224)).float(), rgb),
        _provenance("EfficientNet-Lite0 (ImageNet), 1280 pooled features", network, 224, "knowhue, timm"),
    )


def _inception(file: str | None, device: torch.device) -> Network:
    """The Inception-v3 of the original FID, as torch-fidelity converts it; 2048 pooled features."""
    from torch_fidelity import __version__ as version
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    if file is not None:  # the package unpickles it without this check
        torch.load(Path(file).expanduser(), map_location="cpu", weights_only=True)
    path = None if file is None else str(Path(file).expanduser())
    network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=path).to(
        device
    )
    return Network(
        lambda rgb: network((255 * resize(rgb, 299)).round().to(torch.uint8))[0].float(),
        _provenance(
            "Inception-v3 (2015-12-05), 2048 pooled features", network, 299, f"torch-fidelity {version}"
        )
        | {"file": file or "downloaded by torch-fidelity"},
    )


NETWORKS: dict[str, Callable[[str | None, torch.device], Network]] = {
    "lite0": _lite0,
    "inception": _inception,
}


def open_networks(settings: Evaluation, device: torch.device) -> Mapping[str, Network | Unavailable]:
    """Every network of `NETWORKS`, or why it is not there; each is opened once a process."""
    asked = ", ".join(settings.networks) or "none"
    return {
        name: _open(name, settings.inception_weights, device)
        if name in settings.networks
        else Unavailable(f"not computed: `evaluation.networks` asks for {asked}, not for {name}")
        for name in NETWORKS
    }


@cache
def _open(name: str, file: str | None, device: torch.device) -> Network | Unavailable:
    try:
        return NETWORKS[name](file, device)
    except ImportError as error:
        return Unavailable(f"not computed: {error}; {install_command('fid')}")
    except UNAVAILABLE as error:
        return unavailable(name, error)


def _by_parts(features: Callable[[RGB], Tensor], rgb: RGB) -> Tensor:
    """Features a few images at a time where there is no GPU: what fits the CPU's cache is several times as fast."""
    parts = rgb.split(8 if rgb.device.type == "cpu" else len(rgb))
    return torch.cat([features(part.contiguous(memory_format=torch.channels_last)) for part in parts])


def _provenance(title: str, network: nn.Module, side_px: int, tool: str) -> dict[str, Any]:
    return {
        "network": title,
        "weights": weights_digest(network)[:16],
        "resize": f"bilinear, antialiased, to {side_px} x {side_px} pixels",
        "tool": tool,
    }
