"""The two phases of a run: what trains in each, and at what learning rates."""

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
    """A phase as it is run: a network from scratch has nothing to freeze, and tunes for the epochs of both."""
    phase: Phase = getattr(config.training, name)
    if name == "finetune" and not config.has_encoder:
        # one phase and not two: a second warm-up would be a handicap
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
    warm_up = max(1, round(_WARM_UP_SHARE * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return _FINAL_FACTOR + (1 - _FINAL_FACTOR) * (1 + math.cos(math.pi * step / steps)) / 2


def set_learning_rates(optimizers: Iterable[Optimizer], factor: float) -> None:
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        if "peak" in group:  # a weighting's own has a rate of its own
            group["lr"] = group["peak"] * factor


GAN_BETAS = (0.5, 0.999)  # Radford et al. 2016: less momentum against a moving discriminator
STEADY_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Networks:
    """The bare networks of a run, and the cached features of a frozen encoder if there are any."""

    model: MultiTask
    discriminator: nn.Module | None
    features: FeatureCache | None = None

    def modules(self, with_encoder: bool) -> dict[str, nn.Module]:
        """The parts by name, as weights are stored; the encoder only where it has been trained."""
        parts = {
            "encoder": self.model.encoder if with_encoder else None,
            "colour": self.model.colour,
            "class": self.model.classifier,
            "discriminator": self.discriminator,
            "oracle": self.model.oracle,
        }
        return {name: module for name, module in parts.items() if module is not None}

    def weights(self, with_encoder: bool) -> dict[str, Tensor]:
        """All tensors, named `<part>.<name>`."""
        return nn.ModuleDict(self.modules(with_encoder)).state_dict()

    def load(self, weights: Weights) -> None:
        """Load the parts that `weights` holds, named as `weights()` names them; others stay as they are."""
        parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, value in weights.items():
            part, _, key = name.partition(".")
            parts[part][key] = value
        for name, module in self.modules(with_encoder=True).items():
            if name in parts:
                module.load_state_dict(parts[name])


def build_networks(engine: Engine, config: Config, classes: Sequence[str]) -> Networks:
    """The networks of a run before it trains; heads start from a model's where `encoder.with_heads` says so.

    Raises:
        ConfigError: as `build_model` raises.
        WeightsError, RunError: the weights that they start from cannot be loaded.
    """
    model, discriminator = engine.place(build_model(config, len(classes))), build_discriminator(config)
    networks = Networks(model, None if discriminator is None else engine.place(discriminator))
    if config.encoder.with_heads:
        networks.load(initial_heads(config, classes, networks.weights(with_encoder=False)))
    return networks


def predict(engine: Engine, model: MultiTask, batch: Batch) -> Prediction:
    """Predict in the engine's arithmetic; answers are float32."""
    with torch.no_grad(), engine.autocast():
        return model(batch.lightness, batch.features, label=batch.label)


@dataclass(frozen=True)
class TrainState:
    """Everything that an update of a phase needs."""

    engine: Engine
    config: Config
    phase: PhaseName
    networks: Networks
    """bare"""
    model: nn.Module
    """the model, distributed over the processes"""
    optimizer: Optimizer
    discriminator: nn.Module | None = None
    """distributed too, or None where nothing is adversarial"""
    discriminator_optimizer: Optimizer | None = None
    weighting: LossWeighting | GradientWeighting | None = None
    """of two tasks' losses or gradients, besides the static weights; None without one"""

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """All whose moments must be kept to go on exactly, by name."""
        weighting = self.loss_weighting and self.loss_weighting.optimizer
        found = {
            "model": self.optimizer,
            "discriminator": self.discriminator_optimizer,
            "weighting": weighting,
        }
        return {name: each for name, each in found.items() if each is not None}

    @property
    def loss_weighting(self) -> LossWeighting | None:
        return self.weighting if isinstance(self.weighting, LossWeighting) else None

    def modules(self) -> dict[str, nn.Module]:
        """Networks and weighting that must be kept to go on exactly, by name."""
        kept = self.networks.modules(with_encoder=self.phase == "finetune")
        return kept if self.loss_weighting is None else kept | {"weighting": self.loss_weighting}

    def observe_epoch(self, train: Mapping[str, float], validation: Mapping[str, float]) -> None:
        """Let a loss weighting take in an epoch: both tasks' errors, of colour in units of scaled chroma.

        Of `train`, mean losses, and `validation`, metrics or nothing, all must be finite; a run ends with other losses.
        """
        if self.loss_weighting is None:
            return
        # a head with a loss of its own logs none of pixels
        colour = self.config.colour.loss if self.config.colour.loss in train else "colour_loss"
        held_out = {}
        if validation:
            # training's error is of scaled chroma, and the two are compared
            error = validation["ab_l1"] / CHROMA_SCALE
            held_out = {"colour": error, "class": validation["cross_entropy"]}
        if all(map(isfinite, (*train.values(), *held_out.values()))):
            errors = {"colour": train[colour], "class": train["cross_entropy"]}
            self.loss_weighting.observe_epoch(errors, held_out)


def make_train_state(
    engine: Engine, networks: Networks, config: Config, phase: PhaseName, alone: bool = False
) -> TrainState:
    """What trains in a phase, with fresh optimizers; wrapped for the processes unless it trains `alone`."""
    if not alone:
        engine.release()
    settings = phase_of(config, phase)
    optimizer = make_optimizer(networks.model, settings, config.training.weight_decay)
    discriminator, own = networks.discriminator, None
    if discriminator is not None:
        own = make_discriminator_optimizer(discriminator, settings)
        discriminator = discriminator if alone else engine.distribute(discriminator)
    model = networks.model if alone else engine.distribute(networks.model)
    weighting = make_weighting(config.tasks)
    return TrainState(engine, config, phase, networks, model, optimizer, discriminator, own, weighting)


def make_optimizer(model: MultiTask, phase: Phase, weight_decay: float) -> torch.optim.AdamW:
    """Set what trains in this phase and at what learning rate.

    One of 0 freezes the encoder. The groups never mix tasks, so that a head moves by its own gradient alone.
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
    group = _group(discriminator.parameters(), phase.discriminator_learning_rate, GAN_BETAS)
    return torch.optim.AdamW([group], weight_decay=0.0, fused=True)


def _group(
    parameters: Iterable[nn.Parameter], learning_rate: float, betas: tuple[float, float]
) -> dict[str, object]:
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    # `lr` is overwritten in each step; the schedule needs the peak
    return {"params": learning, "lr": learning_rate, "peak": learning_rate, "betas": betas}
