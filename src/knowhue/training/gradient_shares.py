"""What trains the encoder: how large each weighted loss's gradient is at its parameters, at the fork and at the end."""

import math
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from knowhue.config import Config
from knowhue.errors import DamagedError
from knowhue.models.multitask import MultiTask
from knowhue.objectives.balance import Balance
from knowhue.objectives.losses import GAN_LOSSES, PIXEL_LOSSES, cross_entropy
from knowhue.storage import finite_or_none, read_json, write_json
from knowhue.tensors import Batch
from knowhue.training.engine import Engine

FILE = "gradient_shares.json"
Moment = Literal["fork", "end"]


def measure_shares(
    engine: Engine,
    model: MultiTask,
    discriminator: nn.Module | None,
    batches: Iterable[Batch],
    config: Config,
    balance: Balance | None = None,
) -> dict[str, Any]:
    """Norms of the weighted losses' gradients with respect to all parameters of the encoder, and their shares.

    Nothing is updated or drawn. Processes see their parts of the batches, and the gradients are averaged over them
    as in training.

    Args:
        engine: its arithmetic and processes.
        model: the bare model, whose encoder learns.
        discriminator: the bare opponent, or None where nothing is adversarial.
        batches: a few; the same for every arm and moment.
        config: the weights of the losses, and how many batches are looked at.
        balance: what scales the losses of two tasks besides, or None.

    Returns:
        `batches` looked at; `norms` by loss (`class`, the cross-entropy; `pixel`, the colour head's loss;
        `adversarial`), each the mean over the batches of the L2 norm; and `shares` of their sum, 0 to 1.
    """
    factors: Mapping[str, float] = {} if balance is None else balance.weights()
    norms: dict[str, list[float]] = {}
    modes = [(module, module.training) for module in (model, discriminator) if module is not None]
    for module, _ in modes:
        module.eval()  # else spectral normalisation would move
    for batch in islice(batches, config.evaluation.gradient_batches):
        losses = _losses(engine, model, discriminator, batch, config, factors)
        for name, norm in _norms(engine, model, losses).items():
            norms.setdefault(name, []).append(norm)
    for module, training in modes:
        module.train(training)
    means = {name: math.fsum(values) / len(values) for name, values in norms.items()}
    total = math.fsum(means.values())
    shares = {name: value / total if total else None for name, value in means.items()}
    return {
        "batches": config.evaluation.gradient_batches,
        "norms": finite_or_none(means),
        "shares": finite_or_none(shares),
    }


def keep_shares(folder: Path, moment: Moment, found: Mapping[str, Any]) -> None:
    """Write what was measured into `gradient_shares.json` of a run, beside the other moment's."""
    path = folder / FILE
    try:
        kept = read_json(path) if path.exists() and moment == "end" else {}
    except DamagedError:
        kept = {}
    write_json(path, kept | {moment: dict(found)})


def _losses(
    engine: Engine,
    model: MultiTask,
    discriminator: nn.Module | None,
    batch: Batch,
    config: Config,
    factors: Mapping[str, float],
) -> dict[str, Tensor]:
    """The weighted terms of the sum that the encoder is trained on, as `training.step` makes it."""
    with engine.autocast():
        prediction = model(batch.lightness, truth=batch.chroma, label=batch.label)
    colour = config.tasks.weights.colour * factors.get("colour", 1.0)
    losses = {}
    if prediction.logits is not None:
        entropy = cross_entropy(
            prediction.logits, batch.label, batch.label_weight, config.class_.label_smoothing
        )
        losses["class"] = config.tasks.weights.class_ * factors.get("class", 1.0) * entropy
    if prediction.chroma is not None:
        pixel = PIXEL_LOSSES[config.colour.loss](prediction.chroma, batch.chroma)
        losses["pixel"] = colour * config.colour.l1_weight * pixel
    elif prediction.colour_loss is not None:
        losses["pixel"] = colour * prediction.colour_loss
    if discriminator is not None:
        with engine.autocast():
            score = discriminator(batch.lightness, prediction.chroma)
        generator = GAN_LOSSES[config.colour.gan_loss].generator(score)
        losses["adversarial"] = colour * config.colour.adversarial_weight * generator
    return losses


def _norms(engine: Engine, model: MultiTask, losses: Mapping[str, Tensor]) -> dict[str, float]:
    shared = [parameter for parameter in model.encoder.parameters() if parameter.requires_grad]
    norms = {}
    for name, loss in losses.items():
        found = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        flat = [
            (torch.zeros_like(p) if g is None else g).float().flatten()
            for g, p in zip(found, shared, strict=True)
        ]
        norms[name] = float(engine.mean(torch.cat(flat)).norm())
    return norms
