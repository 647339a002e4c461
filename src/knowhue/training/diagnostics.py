"""What pulls at the shared encoder: the tasks' gradients, a step ahead, what trains it, and adversarial faults.

They describe; they do not predict. Conflict is known not to foretell generalisation (Mueller et al., TMLR) and
affinity scores only weakly (Azorin et al. 2023), so the report sets them beside the transfer that was found.
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
GRAY_RATIO = 0.1
Moment = Literal["fork", "end"]


def diagnose(state: TrainState, batch: Batch) -> dict[str, float]:
    """Compare the tasks' gradients on one batch of a multi-task run whose encoder trains; nothing is updated.

    Returns:
        - `cosine_pixel`, `cosine_adversarial`, `cosine_colour`: between the gradient of the cross-entropy and that
          of the colour head's loss, the adversarial loss and their weighted sum, at the coarsest map, which both heads
          read;
        - `norm_class`, `norm_pixel`, `norm_adversarial`: of the weighted gradients there;
        - `affinity_class_to_colour`, `affinity_colour_to_class`: by which share a step of the encoder along the one
          task's gradient alone lowers the other's loss (Fifty et al. 2021); positive is help;
        - `seconds` that all this took.
    """
    started = time.perf_counter()
    discriminator = state.networks.discriminator
    if discriminator is not None:
        discriminator.eval()  # else spectral normalisation would move
    gradients = _at_shared_features(state, batch)
    affinities = _affinities(state, batch)
    if discriminator is not None:
        discriminator.train()
    others = {name: value for name, value in gradients.items() if name != "class"}
    others["colour"] = torch.stack(list(others.values())).sum(0)
    # 0 where one of them is 0; the default eps of 1e-8 would shrink the cosine of small gradients
    cosine = partial(nn.functional.cosine_similarity, gradients["class"], dim=0, eps=1e-30)
    cosines = {f"cosine_{name}": float(cosine(value)) for name, value in others.items()}
    norms = {f"norm_{name}": float(value.norm()) for name, value in gradients.items()}
    return cosines | norms | affinities | {"seconds": round(time.perf_counter() - started, 4)}


def _at_shared_features(state: TrainState, batch: Batch) -> Losses:
    """Gradient of each weighted loss at the coarsest map, flattened, in float32."""
    with torch.no_grad(), state.engine.autocast():
        pyramid = state.networks.model.features(batch.lightness)
    # a leaf: the encoder's own backward pass, most of the cost, is not needed
    shared = pyramid[-1].detach().requires_grad_()
    terms = weighted_terms(state, batch, (*pyramid[:-1], shared))
    return {name: flat_gradient(loss, (shared,)) for name, loss in terms.items()}


def _affinities(state: TrainState, batch: Batch) -> dict[str, float]:
    """Let the encoder take one step along each task's gradient alone, measure the other's loss, and take it back."""
    model, found = state.networks.model, {}
    encoder = list(model.encoder.parameters())
    with state.engine.autocast():
        pyramid = model.features(batch.lightness)
    before = _by_task(weighted_terms(state, batch, pyramid))
    gradients = {
        # both losses came through one forward pass of the encoder, whose graph the second needs too
        task: torch.autograd.grad(loss, encoder, retain_graph=True, materialize_grads=True)
        for task, loss in before.items()
    }
    kept = [parameter.detach().clone() for parameter in encoder]
    learning_rate = state.config.training.finetune.encoder_learning_rate
    for task, other in (("class", "colour"), ("colour", "class")):
        with torch.no_grad():
            # of the length that Adam's first step would have: the gradient's sign, times the learning rate
            for parameter, gradient in zip(encoder, gradients[task], strict=True):
                parameter.sub_(learning_rate * gradient.sign())
            with state.engine.autocast():
                moved = model.features(batch.lightness)
            after = _by_task(weighted_terms(state, batch, moved))
            # copied, for a step back along the gradient would leave rounding errors in the weights
            for parameter, value in zip(encoder, kept, strict=True):
                parameter.copy_(value)
        start = before[other].item()  # 0 where no image of the batch has a label: nothing to compare with
        found[f"affinity_{task}_to_{other}"] = 1 - after[other].item() / start if start else math.nan
    return found


def _by_task(terms: Mapping[str, Tensor]) -> Losses:
    colour = [loss for name, loss in terms.items() if name != "class"]
    return {"class": terms["class"], "colour": torch.stack(colour).sum()}


def weighted_terms(
    state: TrainState,
    batch: Batch,
    pyramid: Pyramid | None = None,
    factors: Mapping[str, float] | None = None,
) -> Losses:
    """The weighted terms of the sum that the encoder is trained on, as `training.step` makes it.

    `pyramid` has the features of the batch's images, `factors` those of each task's loss besides the static weights.

    Returns:
        `class`, the cross-entropy; `pixel`, the colour head's loss; `adversarial`; those that there are.
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
    """Norms of the weighted losses' gradients with respect to all parameters of the encoder, and their shares.

    Nothing is updated or drawn. Processes see their parts of the batches, and the gradients are averaged over them
    as in training.

    Returns:
        `batches` measured on; `norms` by loss (see `weighted_terms`), each the mean over the batches of the L2 norm;
        and `shares` of their sum, 0 to 1.
    """
    factors = {} if state.loss_weighting is None else state.loss_weighting.weights()
    encoder = [each for each in state.networks.model.encoder.parameters() if each.requires_grad]
    norms: dict[str, list[float]] = {}
    networks = [each for each in (state.networks.model, state.networks.discriminator) if each is not None]
    modes = [(network, network.training) for network in networks]
    for network in networks:
        network.eval()  # else spectral normalisation would move
    count = state.config.evaluation.gradient_batches
    for batch in islice(batches, count):
        for name, loss in weighted_terms(state, batch, factors=factors).items():
            # averaged before its norm is taken: the processes step along the mean gradient
            gradient = state.engine.mean(flat_gradient(loss, encoder))
            norms.setdefault(name, []).append(float(gradient.norm()))
    for network, training in modes:
        network.train(training)
    # the mean of each batch's norm, since that is what a step is made of
    means = {name: math.fsum(values) / len(values) for name, values in norms.items()}
    total = math.fsum(means.values())
    shares = {name: value / total if total else None for name, value in means.items()}
    return {"batches": count, "norms": finite_or_none(means), "shares": finite_or_none(shares)}


def keep_shares(folder: Path, moment: Moment, found: Mapping[str, Any]) -> None:
    """Write what was measured into `gradient_shares.json` of a run, beside the other moment's."""
    path, kept = folder / GRADIENT_SHARES, {}
    if path.exists() and moment == "end":
        with suppress(DamagedError):
            kept = read_json(path)
    write_json(path, kept | {moment: dict(found)})


def find_faults(train: Mapping[str, float], validation: Mapping[str, float]) -> list[str]:
    """Plain sentences on an epoch, none if all is well.

    A discriminator that is nearly always right tells the generator little (Arjovsky and Bottou 2017); colours
    of almost no chroma are the colorizer's collapse.

    >>> find_faults({"discriminator_real": 0.99, "discriminator_fake": 0.98}, {})
    ['discriminator saturated: it is right on 99 % of real and 98 % of generated patches']
    """
    faults = []
    real, fake = train.get("discriminator_real", 0.0), train.get("discriminator_fake", 0.0)
    if min(real, fake) > SATURATED:
        faults.append(
            f"discriminator saturated: it is right on {100 * real:.0f} % of real and {100 * fake:.0f} % of "
            "generated patches"
        )
    if validation.get("chroma_ratio", 1.0) < GRAY_RATIO:
        faults.append(
            f"colours collapsed to gray: mean chroma is {validation['chroma_ratio']:.2f} of the true one"
        )
    return faults
