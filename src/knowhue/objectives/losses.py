"""Losses of the tasks and of the discriminator, as pure functions."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from knowhue.models.heads import scale_chroma
from knowhue.tensors import Chroma, Label, Logits


class GanLoss(NamedTuple):
    """An adversarial loss: functions of unbounded patch scores, each returning the mean over patches.

    The discriminator minimises `real` on true and `fake` on generated patches; the generator minimises `generator` on
    generated patches. A score above `threshold` means that the discriminator takes a patch for true.
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
    """Mean absolute error of chroma scaled to about -1..1, so that `colour.l1_weight` is comparable to pix2pix's."""
    return (scale_chroma(predicted) - scale_chroma(true)).abs().mean()


def chroma_l2(predicted: Chroma, true: Chroma) -> Tensor:
    """Mean squared error of chroma scaled to about -1..1; its minimiser, the mean colour, is duller than L1's."""
    return (scale_chroma(predicted) - scale_chroma(true)).square().mean()


PIXEL_LOSSES = {"l1": chroma_l1, "l2": chroma_l2}


def cross_entropy(logits: Logits, label: Label, weight: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy over the labelled images.

    `weight` is `Batch.label_weight`. `smoothing` is the label smoothing, 0 to 1 (Szegedy et al. 2016).
    """
    # an unlabelled image has label -1, which is no valid index, and weight 0
    per_image = F.cross_entropy(logits, label.clamp_min(0), reduction="none", label_smoothing=smoothing)
    return (per_image * weight).mean()


def surrogate_loss(chroma: Chroma, gradient: Tensor, value: Tensor) -> Tensor:
    """Return a scalar loss equal to `value` whose gradient with respect to `chroma` is `gradient`."""
    surrogate = (chroma * gradient.detach()).sum()
    # subtracting the detached surrogate leaves its gradient and makes its value 0
    return surrogate - surrogate.detach() + value.detach()


def patch_accuracy(real: Tensor, fake: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Share of true and of generated patches that the discriminator judges correctly, 0 to 1 each."""
    with torch.no_grad():
        return (real > threshold).float().mean(), (fake < threshold).float().mean()
