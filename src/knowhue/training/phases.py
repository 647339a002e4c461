"""The two phases of a run: which heads train first, on what settings, for how long, at what learning rate."""

import math
from collections.abc import Iterable
from typing import Literal

from torch.optim import Optimizer

from knowhue.config import Config, Phase, Task
from knowhue.presets import edit

PhaseName = Literal["heads", "finetune"]
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


def learning_rate_factor(step: int, steps: int) -> float:
    """Learning rate at `step` of `steps` as a share of its peak: short warm-up, cosine to a tenth.

    >>> round(learning_rate_factor(50, 100), 2), round(learning_rate_factor(99, 100), 2)
    (0.55, 0.1)
    """
    warm_up = max(1, round(WARM_UP_SHARE * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return FINAL_FACTOR + (1 - FINAL_FACTOR) * (1 + math.cos(math.pi * step / steps)) / 2


def set_learning_rates(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Set every group's learning rate to `factor` times its peak."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = group["peak"] * factor
