"""The two phases of a run, heads and fine-tuning: networks, optimizers and learning rates."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from knowhue.color import CHROMA_SCALE
from knowhue.config import Config, Phase
from knowhue.models.encoder import NoEncoder, Weights
from knowhue.models.multitask import MultiTask, build_discriminator, build_model
from knowhue.models.palette import Palette
from knowhue.objectives.weighting import GradientWeighting, LossWeighting, make_weighting
from knowhue.tensors import Batch, Prediction
from knowhue.training.engine import Engine
from knowhue.training.feature_cache import FeatureCache
from knowhue.training.start import initial_heads

PhaseName = Literal["heads", "finetune"]
_WARM_UP_SHARE = 0.03
_FINAL_FACTOR = 0.1


def phase_of(config: Config, name: PhaseName) -> Phase:
    """Settings of a phase; a network from scratch has no encoder to freeze, and fine-tunes for the epochs of both."""
    phase: Phase = getattr(config.training, name)
    if name == "finetune" and not config.has_encoder:
        # a single phase, because a second warm-up would be a handicap
        return phase.model_copy(update={"epochs": config.training.heads.epochs + phase.epochs})
    return phase


def first_epoch(config: Config, name: PhaseName) -> int:
    """Number of epochs of a run before a phase begins."""
    return config.training.heads.epochs if name == "finetune" and config.has_encoder else 0


def learning_rate_factor(step: int, steps: int) -> float:
    """Learning rate at `step` of `steps` relative to its peak: short warm-up, then cosine decay to a tenth.

    >>> round(learning_rate_factor(50, 100), 2), round(learning_rate_factor(99, 100), 2)
    (0.55, 0.1)
    """
    warm_up = max(1, round(_WARM_UP_SHARE * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return _FINAL_FACTOR + (1 - _FINAL_FACTOR) * (1 + math.cos(math.pi * step / steps)) / 2


def set_learning_rates(optimizers: Iterable[Optimizer], factor: float) -> None:
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        if "peak" in group:  # not in the optimizer of a loss weighting, whose learning rate is constant
            group["lr"] = group["peak"] * factor


GAN_BETAS = (0.5, 0.999)  # Radford et al. 2016: less momentum against a moving discriminator
STEADY_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Networks:
    """The networks of a run, not wrapped for processes, and cached features if the encoder is frozen."""

    model: MultiTask
    discriminator: nn.Module | None
    features: FeatureCache | None = None

    def modules(self, with_encoder: bool) -> dict[str, nn.Module]:
        """The parts by their names in weight files."""
        parts = {
            "encoder": self.model.encoder if with_encoder else None,
            "colour": self.model.colour,
            "class": self.model.classifier,
            "discriminator": self.discriminator,
            "oracle": self.model.oracle,
        }
        return {name: module for name, module in parts.items() if module is not None}

    def weights(self, with_encoder: bool) -> dict[str, Tensor]:
        """All tensors of the parts, named `<part>.<name>`."""
        return nn.ModuleDict(self.modules(with_encoder)).state_dict()

    def load(self, weights: Weights) -> None:
        """Load the parts that are in `weights`, named as by `weights()`, and leave the others unchanged."""
        parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, value in weights.items():
            part, _, key = name.partition(".")
            parts[part][key] = value
        for name, module in self.modules(with_encoder=True).items():
            if name in parts:
                module.load_state_dict(parts[name])


def build_networks(engine: Engine, config: Config, classes: Sequence[str]) -> Networks:
    """Build the networks of a run, see `build_model`; with `encoder.with_heads`, heads start from a trained model's."""
    model, discriminator = engine.place(build_model(config, len(classes))), build_discriminator(config)
    networks = Networks(model, None if discriminator is None else engine.place(discriminator))
    if config.encoder.with_heads:
        networks.load(initial_heads(config, classes, networks.weights(with_encoder=False)))
    return networks


def predict(engine: Engine, model: MultiTask, batch: Batch) -> Prediction:
    """Predict at the engine's precision, without gradients; the results are float32."""
    with torch.no_grad(), engine.autocast():
        return model(batch.lightness, batch.features, label=batch.label)


@dataclass(frozen=True)
class TrainState:
    """Everything that a training step needs."""

    engine: Engine
    config: Config
    phase: PhaseName
    networks: Networks
    """the networks, not wrapped"""
    model: nn.Module
    """the model, wrapped for the processes"""
    optimizer: Optimizer
    discriminator: nn.Module | None = None
    """the discriminator, wrapped for the processes; None without an adversarial loss"""
    discriminator_optimizer: Optimizer | None = None
    weighting: LossWeighting | GradientWeighting | None = None
    """weighting of the two tasks' losses or gradients; None for static weights"""

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """All optimizers by name, for checkpoints."""
        optimizers = {
            "model": self.optimizer,
            "discriminator": self.discriminator_optimizer,
            "weighting": self.loss_weighting and self.loss_weighting.optimizer,
        }
        return {name: optimizer for name, optimizer in optimizers.items() if optimizer is not None}

    @property
    def loss_weighting(self) -> LossWeighting | None:
        return self.weighting if isinstance(self.weighting, LossWeighting) else None

    def modules(self) -> dict[str, nn.Module]:
        """All trained networks and the loss weighting by name, for checkpoints."""
        modules = self.networks.modules(with_encoder=self.phase == "finetune")
        return modules if self.loss_weighting is None else modules | {"weighting": self.loss_weighting}

    def observe_epoch(self, train: Mapping[str, float], validation: Mapping[str, float]) -> None:
        """Update a loss weighting with both tasks' errors of an epoch, those of colour in scaled chroma.

        `train` holds mean losses, `validation` metrics, or nothing. If one is not finite, nothing is updated.
        """
        if self.loss_weighting is None:
            return
        # a head that defines its own loss logs no pixel loss
        colour = self.config.colour.loss if self.config.colour.loss in train else "colour_loss"
        validation_errors = {}
        if validation:
            # scaled like the training error, with which it is compared
            error = validation["ab_l1"] / CHROMA_SCALE
            validation_errors = {"colour": error, "class": validation["cross_entropy"]}
        if all(map(isfinite, (*train.values(), *validation_errors.values()))):
            errors = {"colour": train[colour], "class": train["cross_entropy"]}
            self.loss_weighting.observe_epoch(errors, validation_errors)


def make_train_state(
    engine: Engine, networks: Networks, config: Config, phase: PhaseName, alone: bool = False
) -> TrainState:
    """Return the state at the start of a phase, with new optimizers; unless `alone`, networks are distributed."""
    settings = phase_of(config, phase)
    model, discriminator, optimizer_d = networks.model, networks.discriminator, None
    optimizer = make_optimizer(model, settings, config.training.weight_decay)
    if discriminator is not None:
        optimizer_d = make_discriminator_optimizer(discriminator, settings)
    if not alone:
        engine.release()
        model = engine.distribute(model)
        discriminator = discriminator and engine.distribute(discriminator)
    weighting = make_weighting(config.tasks)
    return TrainState(
        engine, config, phase, networks, model, optimizer, discriminator, optimizer_d, weighting
    )


def make_optimizer(model: MultiTask, phase: Phase, weight_decay: float) -> torch.optim.AdamW:
    """Make the model's optimizer for a phase, a group for each part; a learning rate of 0 freezes the encoder."""
    groups = []
    model.encoder.requires_grad_(bool(phase.encoder_learning_rate))
    if phase.encoder_learning_rate and not isinstance(model.encoder, NoEncoder):
        groups.append(_group(model.encoder.parameters(), phase.encoder_learning_rate, STEADY_BETAS))
    if model.colour is not None:
        betas = STEADY_BETAS if isinstance(model.colour, Palette) else GAN_BETAS
        oracle = () if model.oracle is None else model.oracle.parameters()
        groups.append(_group((*model.colour.parameters(), *oracle), phase.learning_rate, betas))
    if model.classifier is not None:
        groups.append(_group(model.classifier.parameters(), phase.learning_rate, STEADY_BETAS))
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)


def make_discriminator_optimizer(discriminator: nn.Module, phase: Phase) -> torch.optim.AdamW:
    group = _group(discriminator.parameters(), phase.discriminator_learning_rate, GAN_BETAS)
    return torch.optim.AdamW([group], weight_decay=0.0, fused=True)


def _group(
    parameters: Iterable[nn.Parameter], learning_rate: float, betas: tuple[float, float]
) -> dict[str, object]:
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    # the schedule overwrites `lr` in each step, and needs the peak
    return {"params": trainable, "lr": learning_rate, "peak": learning_rate, "betas": betas}
