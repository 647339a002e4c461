"""Losses of the tasks and of the discriminator; pure functions of values."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from knowhue.models.heads import scale_chroma
from knowhue.tensors import Chroma, Label, Logits


class GanLoss(NamedTuple):
    """An adversarial loss on unbounded patch scores, each returning a mean over patches.

    `real` and `fake` are what the discriminator minimises on real and on generated patches; `generator` is
    what the generator minimises on its own.
    """

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    threshold: float


GAN_LOSSES: dict[str, GanLoss] = {
    # Goodfellow et al. 2014, non-saturating
    "bce": GanLoss(
        real=lambda score: F.softplus(-score).mean(),
        fake=lambda score: F.softplus(score).mean(),
        generator=lambda score: F.softplus(-score).mean(),
        threshold=0.0,
    ),
    # Mao et al. 2017 with targets 1 and 0
    "lsgan": GanLoss(
        real=lambda score: (score - 1).square().mean(),
        fake=lambda score: score.square().mean(),
        generator=lambda score: (score - 1).square().mean(),
        threshold=0.5,
    ),
    # Lim and Ye 2017
    "hinge": GanLoss(
        real=lambda score: F.relu(1 - score).mean(),
        fake=lambda score: F.relu(1 + score).mean(),
        generator=lambda score: -score.mean(),
        threshold=0.0,
    ),
}


def chroma_l1(predicted: Chroma, true: Chroma) -> Tensor:
    """Mean absolute error of chroma scaled to -1..1, so that `colour.l1_weight` means what pix2pix's does."""
    return (scale_chroma(predicted) - scale_chroma(true)).abs().mean()


def chroma_l2(predicted: Chroma, true: Chroma) -> Tensor:
    """Mean squared error of chroma scaled to -1..1; its minimiser is the mean colour, hence duller than L1's."""
    return (scale_chroma(predicted) - scale_chroma(true)).square().mean()


PIXEL_LOSSES = {"l1": chroma_l1, "l2": chroma_l2}


def cross_entropy(logits: Logits, label: Label, weight: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy over the labelled images; `Batch.label_weight` makes the plain mean the mean over these.

    `smoothing` is that of the target distribution, 0 to 1 (Szegedy et al. 2016).
    """
    # -1 is no index; the weight of such an image is 0
    per_image = F.cross_entropy(logits, label.clamp_min(0), reduction="none", label_smoothing=smoothing)
    return (per_image * weight).mean()


def follow(chroma: Chroma, direction: Tensor, value: Tensor) -> Tensor:
    """A loss of the given value whose gradient with respect to `chroma` is `direction`, both found elsewhere."""
    carrier = (chroma * direction.detach()).sum()
    # the carrier less itself is 0, and its gradient stays
    return carrier - carrier.detach() + value.detach()


def share_judged_right(real: Tensor, fake: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return (real > threshold).float().mean(), (fake < threshold).float().mean()
