"""One update of the discriminator and of the model, from one forward pass of each; no I/O."""

from collections.abc import Mapping, Sequence
from math import isfinite, sqrt

import torch
from torch import Tensor

from knowhue.config import Config
from knowhue.objectives.losses import (
    GAN_LOSSES,
    PIXEL_LOSSES,
    cross_entropy,
    discriminator_accuracy,
    loss_with_gradient,
)
from knowhue.objectives.weighting import GradientWeighting, LossWeighting, gramian
from knowhue.tensors import Batch, Chroma, Prediction, Pyramid
from knowhue.training.engine import Engine
from knowhue.training.phases import TrainState

Losses = dict[str, Tensor]
Branches = Mapping[str, Pyramid]
"""The shared features as each task's head got them: equal in value, apart in the graph."""


def train_step(state: TrainState, batch: Batch) -> Losses:
    """Update discriminator and model on one batch.

    Returns:
        The losses before the update, by name; `generator` is the adversarial loss.
    """
    config, weights = state.config, state.config.tasks.weights
    with state.engine.autocast():
        prediction: Prediction = state.model(batch.lightness, batch.features, batch.chroma, batch.label)
    losses: Losses = {}
    by_task: Losses = {}
    if "colour" in config.tasks.names:
        own = prediction.colour_loss is not None
        name = "colour_loss" if own else config.colour.loss
        losses[name] = colour_loss(prediction, batch, config)
        colour = losses[name] if own else config.colour.l1_weight * losses[name]
        if state.discriminator is not None:
            assert prediction.chroma is not None  # what is judged is predicted
            direction = discriminator_step(state, batch, prediction.chroma, losses)
            # the discriminator's graph is gone, its gradient with respect to the chroma is not
            generator = loss_with_gradient(prediction.chroma, direction, losses["generator"])
            colour = colour + config.colour.adversarial_weight * generator
        by_task["colour"] = weights.colour * colour
    if prediction.logits is not None:
        losses["cross_entropy"] = class_loss(prediction, batch, config)
        by_task["class"] = weights.class_ * losses["cross_entropy"]
    losses |= weight_tasks(state, prediction, by_task)
    # to None, not 0: AdamW passes over parameters without a gradient, but decays those whose gradient is 0
    state.optimizer.zero_grad(set_to_none=True)
    # one sum and one backward pass, in which several processes average their gradients once
    state.engine.backward(torch.stack(list(by_task.values())).sum())
    skip_stopped_head(state)
    state.optimizer.step()
    return losses


def colour_loss(prediction: Prediction, batch: Batch, config: Config) -> Tensor:
    """The colour head's unweighted loss but for its adversarial part: of pixels, or one of the head's own."""
    if prediction.colour_loss is not None:
        return prediction.colour_loss
    assert prediction.chroma is not None  # called only where there is a colour head
    return PIXEL_LOSSES[config.colour.loss](prediction.chroma, batch.chroma)


def class_loss(prediction: Prediction, batch: Batch, config: Config) -> Tensor:
    assert prediction.logits is not None  # called only where there is a class head
    smoothing = config.class_.label_smoothing
    return cross_entropy(prediction.logits, batch.label, batch.label_weight, smoothing)


def discriminator_step(state: TrainState, batch: Batch, chroma: Chroma, losses: Losses) -> Tensor:
    """Update the discriminator, and give its gradient for the model.

    Both need the discriminator's scores of the same generated images, so one forward pass serves: first
    the generator's gradient with respect to the images alone, then the discriminator's own backward pass.
    The stock order (discriminator step, then a second pass for the generator) costs a third more; here the
    generator answers the discriminator as it was before this step, as in simultaneous gradient descent.

    The adversarial losses and the shares of patches judged right are put into `losses`.

    Returns:
        Gradient of the generator's adversarial loss with respect to `chroma`, the generated one.
    """
    discriminator, optimizer = state.discriminator, state.discriminator_optimizer
    assert discriminator is not None
    assert optimizer is not None
    loss = GAN_LOSSES[state.config.colour.gan_loss]
    # a leaf: neither backward pass of the discriminator goes on into the generator
    fake = chroma.detach().requires_grad_()
    count = len(fake)  # true and generated images in one batch: the discriminator judges each by itself
    with state.engine.autocast():
        scores = discriminator(batch.lightness.repeat(2, 1, 1, 1), torch.cat((batch.chroma, fake)))
    real_score, fake_score = scores[:count], scores[count:]
    losses["generator"] = loss.generator(fake_score)
    (direction,) = torch.autograd.grad(losses["generator"], fake, retain_graph=True)
    # halved, as in pix2pix
    losses["discriminator"] = (loss.real(real_score) + loss.fake(fake_score)) / 2
    optimizer.zero_grad(set_to_none=True)
    state.engine.backward(losses["discriminator"])
    optimizer.step()
    shares = discriminator_accuracy(real_score, fake_score, loss.threshold)
    losses["discriminator_real"], losses["discriminator_fake"] = shares
    return direction


def weight_tasks(state: TrainState, prediction: Prediction, by_task: Losses) -> Losses:
    """Weight two tasks at an encoder that learns, in the backward pass to come; what each counts, for the log.

    `by_task` has the statically weighted loss of each task, scaled here where losses are weighted.
    """
    assert prediction.shared is not None  # every model's forward pass gives it
    branches: Branches = {"colour": prediction.shared[0], "class": prediction.shared[1]}
    is_frozen = not branches["colour"][-1].requires_grad
    if state.weighting is None or len(by_task) < 2 or is_frozen:
        return {}
    if isinstance(state.weighting, LossWeighting):
        return weight_losses(state.engine, state.weighting, branches, by_task)
    return weight_gradients(state.engine, state.weighting, branches, by_task)


def weight_losses(engine: Engine, weighting: LossWeighting, branches: Branches, by_task: Losses) -> Losses:
    """Scale the losses by the factors as they stand, and let the weighting take in the step.

    What it takes in is averaged over the processes, so that the factors stay equal on all. Losses that are not
    finite are not taken in: the run ends at the end of this epoch, and says so. Nor is a step in which a task has
    no loss at all, as where no image has a label: it tells nothing of the task.
    """
    factors = weighting.weights()
    if weighting.every_step:
        losses = engine.average(by_task)
        norms = None
        if weighting.needs_norms:  # up to one factor, those over all processes
            squares = {
                task: flat_gradient(loss, branches[task]).square().sum() for task, loss in by_task.items()
            }
            norms = {task: sqrt(square) for task, square in engine.average(squares).items()}
        if all(losses.values()) and all(map(isfinite, (*losses.values(), *(norms or {}).values()))):
            weighting.observe_step(losses, norms)
    for task, factor in factors.items():
        by_task[task] = factor * by_task[task]
    return _named(factors, by_task)


def weight_gradients(
    engine: Engine, weighting: GradientWeighting, branches: Branches, by_task: Losses
) -> Losses:
    """Scale what each task's gradient counts at the shared features in the backward pass to come.

    The heads still move by their own task alone. The Gramian is averaged over the processes, so that all of them
    weight alike, and one ordinary backward pass through the encoder follows: `torch.autograd.grad` on shared
    parameters would let processes drift apart.
    """
    gradients = [flat_gradient(loss, branches[task]) for task, loss in by_task.items()]
    products = engine.average({str(i): value for i, value in enumerate(gramian(gradients).flatten())})
    weights = weighting(torch.tensor(list(products.values())).reshape(len(by_task), -1)).tolist()
    by_name = dict(zip(by_task, weights, strict=True))
    for task, weight in by_name.items():
        for features in branches[task]:  # below the heads, which must not feel the weight
            # weight bound as a default: a closure would see the loop's last
            features.register_hook(lambda gradient, weight=weight: gradient * weight)
    return _named(by_name, by_task)


def flat_gradient(loss: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Gradient of a loss with respect to several tensors, as one vector in float32; 0 for one that it does not use.

    The graph is kept: an update still follows.
    """
    gradients = torch.autograd.grad(loss, tensors, retain_graph=True, materialize_grads=True)
    return torch.cat([each.float().flatten() for each in gradients])


def skip_stopped_head(state: TrainState) -> None:
    """Keep the head of a stopped task as it is: without gradients the optimizer passes its parameters over."""
    factors = {} if state.loss_weighting is None else state.loss_weighting.weights()
    for task, factor in factors.items():
        if factor == 0:
            for parameter in state.networks.model.head(task).parameters():
                parameter.grad = None


def _named(weights: Mapping[str, float], by_task: Losses) -> Losses:
    """On the device of the losses, with which they are averaged for the log."""
    return {
        f"weight_{task}": torch.tensor(weight, device=by_task[task].device)
        for task, weight in weights.items()
    }
