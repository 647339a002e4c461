"""One training step: an update of the discriminator and of the model, from one forward pass of each."""

from collections.abc import Mapping, Sequence
from math import isfinite, sqrt

import torch
from torch import Tensor

from knowhue.config import Config
from knowhue.objectives.losses import GAN_LOSSES, PIXEL_LOSSES, cross_entropy, patch_accuracy, surrogate_loss
from knowhue.objectives.weighting import GradientWeighting, LossWeighting, gramian
from knowhue.tensors import Batch, Chroma, Prediction, Pyramid
from knowhue.training.engine import Engine
from knowhue.training.phases import TrainState

Losses = dict[str, Tensor]
Branches = Mapping[str, Pyramid]
"""The shared features as input of each task's head: equal values, separate nodes of the graph."""


def train_step(state: TrainState, batch: Batch) -> Losses:
    """Update the discriminator and the model on one batch; return the losses before the update, by name."""
    config, weights = state.config, state.config.tasks.weights
    with state.engine.autocast():
        prediction: Prediction = state.model(batch.lightness, batch.features, batch.chroma, batch.label)
    losses: Losses = {}
    by_task: Losses = {}
    if "colour" in config.tasks.names:
        head_has_loss = prediction.colour_loss is not None
        name = "colour_loss" if head_has_loss else config.colour.loss
        losses[name] = colour_loss(prediction, batch, config)
        colour = losses[name] if head_has_loss else config.colour.l1_weight * losses[name]
        if state.discriminator is not None:
            assert prediction.chroma is not None  # an adversarial model always predicts chroma
            chroma_gradient = discriminator_step(state, batch, prediction.chroma, losses)
            # the discriminator's graph is freed, so its gradient with respect to the chroma is passed on by hand
            generator = surrogate_loss(prediction.chroma, chroma_gradient, losses["generator"])
            colour = colour + config.colour.adversarial_weight * generator
        by_task["colour"] = weights.colour * colour
    if prediction.logits is not None:
        losses["cross_entropy"] = class_loss(prediction, batch, config)
        by_task["class"] = weights.class_ * losses["cross_entropy"]
    losses |= weight_tasks(state, prediction, by_task)
    # None instead of 0, because AdamW skips parameters without a gradient but decays those with a gradient of 0
    state.optimizer.zero_grad(set_to_none=True)
    # one backward pass of the sum, so that processes average their gradients only once
    state.engine.backward(torch.stack(list(by_task.values())).sum())
    skip_stopped_head(state)
    state.optimizer.step()
    return losses


def colour_loss(prediction: Prediction, batch: Batch, config: Config) -> Tensor:
    """The colour head's own loss if it defines one, else the pixel loss; unweighted, without the adversarial loss."""
    if prediction.colour_loss is not None:
        return prediction.colour_loss
    assert prediction.chroma is not None  # called only if there is a colour head
    return PIXEL_LOSSES[config.colour.loss](prediction.chroma, batch.chroma)


def class_loss(prediction: Prediction, batch: Batch, config: Config) -> Tensor:
    assert prediction.logits is not None  # called only if there is a class head
    smoothing = config.class_.label_smoothing
    return cross_entropy(prediction.logits, batch.label, batch.label_weight, smoothing)


def discriminator_step(state: TrainState, batch: Batch, chroma: Chroma, losses: Losses) -> Tensor:
    """Update the discriminator, add its losses to `losses`, and return the gradient of the generator's for `chroma`.

    Both use the discriminator's scores of the same generated images, so one forward pass is enough: first the gradient
    of the generator's loss with respect to the images, then the discriminator's own backward pass. The usual order
    (discriminator step, then a second forward pass for the generator) takes a third longer. Here the generator is
    trained against the discriminator before its update, as in simultaneous gradient descent.
    """
    discriminator, optimizer = state.discriminator, state.discriminator_optimizer
    assert discriminator is not None
    assert optimizer is not None
    loss = GAN_LOSSES[state.config.colour.gan_loss]
    # a leaf, so that the discriminator's backward passes stop before the generator
    fake = chroma.detach().requires_grad_()
    # true and generated images in one batch, because scores do not depend on the other images
    count = len(fake)
    with state.engine.autocast():
        scores = discriminator(batch.lightness.repeat(2, 1, 1, 1), torch.cat((batch.chroma, fake)))
    real_score, fake_score = scores[:count], scores[count:]
    losses["generator"] = loss.generator(fake_score)
    (chroma_gradient,) = torch.autograd.grad(losses["generator"], fake, retain_graph=True)
    # halved, as in pix2pix
    losses["discriminator"] = (loss.real(real_score) + loss.fake(fake_score)) / 2
    optimizer.zero_grad(set_to_none=True)
    state.engine.backward(losses["discriminator"])
    optimizer.step()
    accuracy = patch_accuracy(real_score, fake_score, loss.threshold)
    losses["discriminator_real"], losses["discriminator_fake"] = accuracy
    return chroma_gradient


def weight_tasks(state: TrainState, prediction: Prediction, by_task: Losses) -> Losses:
    """Apply the configured weighting of two tasks to the next backward pass; return the weights for the log.

    `by_task` holds each task's statically weighted loss; a loss weighting multiplies these in place.
    """
    assert prediction.shared is not None  # set by every model's forward pass
    branches: Branches = {"colour": prediction.shared[0], "class": prediction.shared[1]}
    is_frozen = not branches["colour"][-1].requires_grad
    if state.weighting is None or len(by_task) < 2 or is_frozen:
        return {}
    if isinstance(state.weighting, LossWeighting):
        return weight_losses(state.engine, state.weighting, branches, by_task)
    return weight_gradients(state.engine, state.weighting, branches, by_task)


def weight_losses(engine: Engine, weighting: LossWeighting, branches: Branches, by_task: Losses) -> Losses:
    """Multiply the losses by the weighting's current factors, and update the weighting.

    It observes losses averaged over the processes, so that the factors stay equal on all of them. It skips steps with
    losses that are not finite (the run then ends after this epoch), and steps in which a task's loss is 0 because no
    image of the batch is labelled.
    """
    factors = weighting.weights()
    if weighting.every_step:
        losses = engine.average(by_task)
        norms = None
        if weighting.needs_norms:  # these combine the processes' norms up to a common factor
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
    """Weight the tasks' gradients at the shared features during the next backward pass.

    The heads' gradients are not weighted. The Gramian is averaged over the processes, so that all use the same weights.
    The encoder then needs only one ordinary backward pass; `torch.autograd.grad` on its parameters would not
    synchronise the processes.
    """
    gradients = [flat_gradient(loss, branches[task]) for task, loss in by_task.items()]
    products = engine.average({str(i): value for i, value in enumerate(gramian(gradients).flatten())})
    weights = weighting(torch.tensor(list(products.values())).reshape(len(by_task), -1)).tolist()
    by_name = dict(zip(by_task, weights, strict=True))
    for task, weight in by_name.items():
        for features in branches[task]:  # below the heads, whose gradients must not be weighted
            # a default argument, because a closure would see the last weight of the loop
            features.register_hook(lambda gradient, weight=weight: gradient * weight)
    return _named(by_name, by_task)


def flat_gradient(loss: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Gradient of a loss with respect to several tensors, as one float32 vector; 0 for tensors that it does not use.

    The graph is retained for a later backward pass.
    """
    gradients = torch.autograd.grad(loss, tensors, retain_graph=True, materialize_grads=True)
    return torch.cat([gradient.float().flatten() for gradient in gradients])


def skip_stopped_head(state: TrainState) -> None:
    """Remove the gradients of a stopped task's head, so that the optimizer does not change its parameters."""
    factors = {} if state.loss_weighting is None else state.loss_weighting.weights()
    heads = state.networks.modules(with_encoder=False)
    for task, factor in factors.items():
        if factor == 0:
            for parameter in heads[task].parameters():
                parameter.grad = None


def _named(weights: Mapping[str, float], by_task: Losses) -> Losses:
    return {
        f"weight_{task}": torch.tensor(weight, device=by_task[task].device)
        for task, weight in weights.items()
    }
