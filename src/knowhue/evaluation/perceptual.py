"""LPIPS (Zhang et al. 2018): how different a colouring looks from its true image, to an AlexNet; by torchmetrics."""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from knowhue.config import Evaluation
from knowhue.errors import WeightsError
from knowhue.evaluation.features import Opener, Unavailable, open_once, resize
from knowhue.models.encoder import weights_digest
from knowhue.tensors import RGB

LPIPS = "lpips_alex"
"""The metric and the column of its values."""
TITLE = "LPIPS, AlexNet"
SMALLEST_PX = 64
"""The side that it was trained on; smaller images are enlarged to it."""
_PIXELS = 2**18
"""Pixels a pass: the first layer makes 64 channels of them, of both images."""


class Perceptual(NamedTuple):
    """LPIPS, opened: colourings and true images, RGB (B, 3, H, W), 0 to 1, to (B,), 0 where they are equal.

    `provenance` is what a number must be quoted with: network, weights, resize, tool, file.
    """

    between: Callable[[RGB, RGB], Tensor]
    provenance: dict[str, Any]


def open_perceptual(settings: Evaluation, device: torch.device) -> Perceptual | Unavailable:
    """LPIPS if the settings name it and it can be opened, or why not; it is opened once a process."""
    if "lpips" not in settings.perceptual:
        return Unavailable("not computed: `evaluation.perceptual` does not ask for lpips")
    return open_once(Opener("lpips", _lpips, "perceptual"), settings.lpips_weights, device)


def describe(
    network: Perceptual | Unavailable, rows: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What the column's numbers must be quoted with, or why there are none; nothing without colours.

    Args:
        network: see `open_perceptual`.
        rows: one an image.
    """
    if not rows or "ab_l1" not in rows[0]:
        return {}
    about = {"title": TITLE, "better": "lower"}
    if isinstance(network, Unavailable):
        return {LPIPS: about | {"value": None, "reason": network.reason}}
    mean = float(np.mean(np.array([row[LPIPS] for row in rows], float)))
    if not np.isfinite(mean):
        return {LPIPS: about | {"value": None, "reason": "not computed: some colourings are not numbers"}}
    return {LPIPS: about | {"value": mean, **network.provenance, "images": len(rows)}}


def _lpips(file: str | None, device: torch.device) -> Perceptual:
    # the public class downloads AlexNet while it is made, and takes no file
    from torchmetrics.functional.image.lpips import _LPIPS

    network = _LPIPS(net="alex", pnet_rand=True)
    _fill(network.net, file)
    network = network.to(device)
    provenance = {
        "network": TITLE,
        "weights": weights_digest(network)[:16],
        "resize": f"not resized, but bilinear to {SMALLEST_PX} x {SMALLEST_PX} pixels if smaller",
        "tool": f"torchmetrics {version('torchmetrics')}",
        "file": file or "downloaded by torchvision",
    }
    return Perceptual(partial(_distance, network), provenance)


def _distance(network: nn.Module, colouring: RGB, truth: RGB) -> Tensor:
    """In passes of bounded size."""
    if min(truth.shape[2:]) < SMALLEST_PX:
        colouring, truth = resize(colouring, SMALLEST_PX), resize(truth, SMALLEST_PX)
    count = max(1, _PIXELS // truth[0, 0].numel())
    pairs = zip(colouring.split(count), truth.split(count), strict=True)
    # `normalize`: they come as 0 to 1, and the network was trained on -1 to 1
    return torch.cat([network(*pair, normalize=True).flatten(1).squeeze(1) for pair in pairs])


def _fill(alexnet: nn.Module, file: str | None) -> None:
    """Load ImageNet's weights from a file in torchvision's form, or its download, checked by its hash."""
    if file is not None:
        stored = torch.load(Path(file).expanduser(), map_location="cpu", weights_only=True)
    else:
        from torchvision.models import AlexNet_Weights

        with redirect_stdout(io.StringIO()):  # torch prints that it downloads
            stored = AlexNet_Weights.IMAGENET1K_V1.get_state_dict(
                progress=False, check_hash=True, weights_only=True
            )
    if not isinstance(stored, Mapping):
        raise WeightsError("the file holds no tensors by name")
    # slice2.3.weight is torchvision's features.3.weight
    names = {name: f"features.{name.partition('.')[2]}" for name in alexnet.state_dict()}
    if missing := [name for name in names.values() if name not in stored]:
        raise WeightsError(f"the file has no tensor {missing[0]}")
    alexnet.load_state_dict({own: stored[name] for own, name in names.items()})
