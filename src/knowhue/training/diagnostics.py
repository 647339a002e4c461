"""Diagnostics of training: gradient conflict and affinity of the tasks, gradient shares, and faults of an epoch.

They describe, but do not predict transfer: gradient conflict does not predict generalisation (Mueller et al., TMLR),
affinity scores only weakly (Azorin et al. 2023). The report therefore shows them next to the measured transfer.
"""

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from knowhue.errors import DamagedError
from knowhue.objectives.losses import GAN_LOSSES
from knowhue.storage import finite_or_none, read_json, write_json
from knowhue.tensors import Batch, Pyramid
from knowhue.training.phases import TrainState
from knowhue.training.step import Losses, class_loss, colour_loss, flat_gradient

GRADIENT_SHARES = "gradient_shares.json"
SATURATED = 0.97
"""Discriminator accuracy, on true and on generated patches, above which an epoch gets a warning."""
GRAY_RATIO = 0.1  # mean predicted over mean true chroma below which an epoch gets a warning
Moment = Literal["fork", "end"]  # start and end of fine-tuning


def diagnose(state: TrainState, batch: Batch) -> dict[str, float]:
    """Compare the tasks' gradients on one batch of a multi-task run whose encoder trains; nothing is updated.

    Returns:
        - `cosine_pixel`, `cosine_adversarial`, `cosine_colour`: cosine similarity between the gradient of the
          cross-entropy and that of the colour head's loss, of the adversarial loss, and of their weighted sum, with
          respect to the coarsest map, which both heads read;
        - `norm_class`, `norm_pixel`, `norm_adversarial`: L2 norms of the weighted gradients with respect to this map;
        - `affinity_class_to_colour`, `affinity_colour_to_class`: relative reduction of the second task's loss by a
          step of the encoder along the first task's gradient (Fifty et al. 2021); positive if the first task helps;
        - `seconds`: the time that this took.
    """
    started = time.perf_counter()
    discriminator = state.networks.discriminator
    if discriminator is not None:
        discriminator.eval()  # training mode would update spectral normalisation
    gradients = _at_shared_features(state, batch)
    affinities = _affinities(state, batch)
    if discriminator is not None:
        discriminator.train()
    colour = {name: gradient for name, gradient in gradients.items() if name != "class"}
    colour["colour"] = torch.stack(list(colour.values())).sum(0)
    # the default eps of 1e-8 would shrink the cosine of small gradients
    cosine = partial(nn.functional.cosine_similarity, gradients["class"], dim=0, eps=1e-30)
    cosines = {f"cosine_{name}": float(cosine(gradient)) for name, gradient in colour.items()}
    norms = {f"norm_{name}": float(value.norm()) for name, value in gradients.items()}
    return cosines | norms | affinities | {"seconds": round(time.perf_counter() - started, 4)}


def _at_shared_features(state: TrainState, batch: Batch) -> Losses:
    """Gradient of each weighted loss at the coarsest map, flattened, in float32."""
    with torch.no_grad(), state.engine.autocast():
        pyramid = state.networks.model.features(batch.lightness)
    # a leaf, because the encoder's backward pass, most of the cost, is not needed
    shared = pyramid[-1].detach().requires_grad_()
    terms = weighted_terms(state, batch, (*pyramid[:-1], shared))
    return {name: flat_gradient(loss, (shared,)) for name, loss in terms.items()}


def _affinities(state: TrainState, batch: Batch) -> dict[str, float]:
    """Take a step of the encoder along each task's gradient, measure the other task's loss, and undo the step."""
    model, affinities = state.networks.model, {}
    encoder = list(model.encoder.parameters())
    with state.engine.autocast():
        pyramid = model.features(batch.lightness)
    before = _by_task(weighted_terms(state, batch, pyramid))
    gradients = {
        # retained, because both losses share the encoder's forward pass
        task: torch.autograd.grad(loss, encoder, retain_graph=True, materialize_grads=True)
        for task, loss in before.items()
    }
    original = [parameter.detach().clone() for parameter in encoder]
    learning_rate = state.config.training.finetune.encoder_learning_rate
    for task, other in (("class", "colour"), ("colour", "class")):
        with torch.no_grad():
            # as in Adam's first step: the gradient's sign times the learning rate
            for parameter, gradient in zip(encoder, gradients[task], strict=True):
                parameter.sub_(learning_rate * gradient.sign())
            with state.engine.autocast():
                moved = model.features(batch.lightness)
            after = _by_task(weighted_terms(state, batch, moved))
            # copied, because a step back would leave rounding errors in the weights
            for parameter, value in zip(encoder, original, strict=True):
                parameter.copy_(value)
        start = before[other].item()  # 0 if no image of the batch is labelled
        affinities[f"affinity_{task}_to_{other}"] = 1 - after[other].item() / start if start else math.nan
    return affinities


def _by_task(terms: Mapping[str, Tensor]) -> Losses:
    colour = [loss for name, loss in terms.items() if name != "class"]
    return {"class": terms["class"], "colour": torch.stack(colour).sum()}


def weighted_terms(
    state: TrainState,
    batch: Batch,
    pyramid: Pyramid | None = None,
    factors: Mapping[str, float] | None = None,
) -> Losses:
    """Weighted terms of the loss that the encoder is trained on, as in `training.step`.

    `pyramid` holds the images' features, if already computed; `factors` multiply the tasks' statically weighted losses.
    The terms are `class`, `pixel` (the colour head's loss) and `adversarial`, without those that do not apply.
    """
    config, model, factors = state.config, state.networks.model, factors or {}
    with state.engine.autocast():
        prediction = model(batch.lightness, pyramid, batch.chroma, batch.label)
    colour = config.tasks.weights.colour * factors.get("colour", 1.0)
    terms = {}
    if prediction.logits is not None:
        entropy = class_loss(prediction, batch, config)
        terms["class"] = config.tasks.weights.class_ * factors.get("class", 1.0) * entropy
    if model.colour is not None:
        weight = colour if prediction.colour_loss is not None else colour * config.colour.l1_weight
        terms["pixel"] = weight * colour_loss(prediction, batch, config)
    if state.networks.discriminator is not None:
        with state.engine.autocast():
            score = state.networks.discriminator(batch.lightness, prediction.chroma)
        generator = GAN_LOSSES[config.colour.gan_loss].generator(score)
        terms["adversarial"] = colour * config.colour.adversarial_weight * generator
    return terms


def measure_shares(state: TrainState, batches: Iterable[Batch]) -> dict[str, Any]:
    """Measure each weighted loss's gradient with respect to all parameters of the encoder; nothing is updated.

    Each process uses its part of the batches, and gradients are averaged over the processes as in training.

    Returns:
        `batches`, the number of batches; `norms`, the mean over the batches of the gradient's L2 norm, by loss (see
        `weighted_terms`); `shares`, each norm's share of their sum, 0 to 1.
    """
    factors = {} if state.loss_weighting is None else state.loss_weighting.weights()
    encoder = [weight for weight in state.networks.model.encoder.parameters() if weight.requires_grad]
    norms: dict[str, list[float]] = {}
    networks = [net for net in (state.networks.model, state.networks.discriminator) if net is not None]
    modes = [(network, network.training) for network in networks]
    for network in networks:
        network.eval()  # training mode would update spectral normalisation
    count = state.config.evaluation.gradient_batches
    for batch in islice(batches, count):
        for name, loss in weighted_terms(state, batch, factors=factors).items():
            # averaged before taking the norm, because a step follows the mean gradient
            gradient = state.engine.mean(flat_gradient(loss, encoder))
            norms.setdefault(name, []).append(float(gradient.norm()))
    for network, training in modes:
        network.train(training)
    # the mean of the batches' norms, because each step uses one batch
    means = {name: math.fsum(values) / len(values) for name, values in norms.items()}
    total = math.fsum(means.values())
    shares = {name: value / total if total else None for name, value in means.items()}
    return {"batches": count, "norms": finite_or_none(means), "shares": finite_or_none(shares)}


def write_shares(folder: Path, moment: Moment, shares: Mapping[str, Any]) -> None:
    """Write the result of `measure_shares` to a run's `gradient_shares.json`, keeping an earlier moment's."""
    path, earlier = folder / GRADIENT_SHARES, {}
    if path.exists() and moment == "end":
        with suppress(DamagedError):
            earlier = read_json(path)
    write_json(path, earlier | {moment: dict(shares)})


def find_faults(train: Mapping[str, float], validation: Mapping[str, float]) -> list[str]:
    """Return warnings about an epoch, if any: a saturated discriminator, or colours that collapsed to gray.

    A discriminator that is nearly always right gives the generator little gradient (Arjovsky and Bottou 2017).

    >>> find_faults({"discriminator_real": 0.99, "discriminator_fake": 0.98}, {})
    ['discriminator saturated: right on 99 % of real and 98 % of generated patches']
    """
    faults = []
    real, fake = train.get("discriminator_real", 0.0), train.get("discriminator_fake", 0.0)
    if min(real, fake) > SATURATED:
        faults.append(
            f"discriminator saturated: right on {100 * real:.0f} % of real and {100 * fake:.0f} % of generated patches"
        )
    if validation.get("chroma_ratio", 1.0) < GRAY_RATIO:
        faults.append(f"colours collapsed to gray: {validation['chroma_ratio']:.2f} of the true mean chroma")
    return faults
