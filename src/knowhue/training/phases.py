"""A phase: what trains, how fast, how long. Optimizers start anew with each."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from knowhue.config import Config, Phase
from knowhue.models.discriminator import Discriminator
from knowhue.models.multitask import MultiTask

PhaseName = Literal["heads", "finetune"]
GAN_BETAS = (0.5, 0.999)  # Radford et al. 2016: less momentum against a moving opponent
WARM_UP_SHARE = 0.03
FINAL_FACTOR = 0.1


def first_epoch(config: Config, name: PhaseName) -> int:
    """How many epochs a run has behind it when a phase begins."""
    return config.training.heads.epochs if name == "finetune" else 0


def make_optimizer(model: MultiTask, phase: Phase, weight_decay: float) -> torch.optim.AdamW:
    """Set what trains in this phase and at what rate.

    A rate of 0 freezes the base. The groups never mix tasks, so that a head moves by its own gradient alone.
    """
    groups = []
    model.encoder.requires_grad_(bool(phase.base_rate))
    if phase.base_rate:
        groups.append(_group(model.encoder.parameters(), phase.base_rate, (0.9, 0.999)))
    if model.colour is not None:
        groups.append(_group(model.colour.parameters(), phase.rate, GAN_BETAS))
    if model.classifier is not None:
        groups.append(_group(model.classifier.parameters(), phase.rate, (0.9, 0.999)))
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)


def make_discriminator_optimizer(discriminator: Discriminator, phase: Phase) -> torch.optim.AdamW:
    """The opponent's own optimizer."""
    group = _group(discriminator.parameters(), phase.discriminator_rate, GAN_BETAS)
    return torch.optim.AdamW([group], weight_decay=0.0, fused=True)


def rate_factor(step: int, steps: int) -> float:
    """Learning rate at `step` of `steps` as a share of its peak: short warm-up, cosine to a tenth.

    >>> round(rate_factor(50, 100), 2), round(rate_factor(99, 100), 2)
    (0.55, 0.1)
    """
    warm_up = max(1, round(WARM_UP_SHARE * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return FINAL_FACTOR + (1 - FINAL_FACTOR) * (1 + math.cos(math.pi * step / steps)) / 2


def set_rates(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's learning rate to `factor` times its peak."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = group["peak"] * factor


def _group(parameters: Iterable[nn.Parameter], rate: float, betas: tuple[float, float]) -> dict[str, object]:
    return {"params": list(parameters), "lr": rate, "peak": rate, "betas": betas}
