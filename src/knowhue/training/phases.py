"""A phase: what trains, how fast, how long. Optimizers start anew with each."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from knowhue.config import Config, Phase, Task
from knowhue.models.encoder import NoEncoder
from knowhue.models.multitask import MultiTask
from knowhue.models.palette import Palette
from knowhue.presets import edit

PhaseName = Literal["heads", "finetune"]
GAN_BETAS = (0.5, 0.999)  # Radford et al. 2016: less momentum against a moving opponent
STEADY_BETAS = (0.9, 0.999)
WARM_UP_SHARE = 0.03
FINAL_FACTOR = 0.1


def head_tasks(config: Config) -> tuple[Task, ...]:
    """The tasks whose heads are trained on the frozen encoder first; none of a network that has no encoder."""
    return config.tasks.names if config.has_encoder else ()


def head_config(config: Config, task: Task) -> Config:
    """The settings that a task's head depends on; everything else at its default.

    The share of labels concerns the colour head, too: it decides which images stand in each batch.
    """
    default = Config()
    others_placebo = {"colour": None if config.colour.oracle else "labels", "class": "colours"}[task]
    placebo = config.supervision.placebo
    other = {"colour": {"class": default.class_}, "class": {"colour": default.colour}}[task]
    return edit(
        config,
        {
            "tasks": {**default.tasks.model_dump(by_alias=True), "names": (task,)},
            "training": {
                "finetune": default.training.finetune.model_dump(),
                "shift_px": default.training.shift_px,
            },
            "supervision": {"placebo": "none" if placebo == others_placebo else placebo},
            **{name: section.model_dump() for name, section in other.items()},
        },
    )


def phase_of(config: Config, name: PhaseName) -> Phase:
    """A phase as it is run: a network from scratch has nothing to freeze, and tunes for the epochs of both."""
    phase: Phase = getattr(config.training, name)
    if name == "finetune" and not config.has_encoder:
        return phase.model_copy(update={"epochs": config.training.heads.epochs + phase.epochs})
    return phase


def first_epoch(config: Config, name: PhaseName) -> int:
    """How many epochs a run has behind it when a phase begins."""
    return config.training.heads.epochs if name == "finetune" and config.has_encoder else 0


def make_optimizer(model: MultiTask, phase: Phase, weight_decay: float) -> torch.optim.AdamW:
    """Set what trains in this phase and at what rate.

    A rate of 0 freezes the encoder. The groups never mix tasks, so that a head moves by its own gradient alone.
    """
    groups = []
    model.encoder.requires_grad_(bool(phase.encoder_learning_rate))
    if phase.encoder_learning_rate and not isinstance(model.encoder, NoEncoder):
        groups.append(_group(model.encoder.parameters(), phase.encoder_learning_rate, STEADY_BETAS))
    if model.colour is not None:
        betas = STEADY_BETAS if isinstance(model.colour, Palette) else GAN_BETAS
        own = [model.colour] if model.oracle is None else [model.colour, model.oracle]
        groups.append(_group((p for each in own for p in each.parameters()), phase.learning_rate, betas))
    if model.classifier is not None:
        groups.append(_group(model.classifier.parameters(), phase.learning_rate, STEADY_BETAS))
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)


def make_discriminator_optimizer(discriminator: nn.Module, phase: Phase) -> torch.optim.AdamW:
    """The opponent's own optimizer."""
    group = _group(discriminator.parameters(), phase.discriminator_learning_rate, GAN_BETAS)
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
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    return {"params": learning, "lr": rate, "peak": rate, "betas": betas}
