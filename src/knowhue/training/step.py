"""One update of the discriminator and of the model, from one forward pass of each; no I/O."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from knowhue.config import Config
from knowhue.objectives.losses import (
    GAN_LOSSES,
    PIXEL_LOSSES,
    cross_entropy,
    follow,
    share_judged_right,
)
from knowhue.objectives.weighting import gramian
from knowhue.tensors import Batch, Chroma, Prediction, Pyramid
from knowhue.training.engine import Engine

Losses = dict[str, Tensor]
Weighting = Callable[[Tensor], Tensor]


class Players(NamedTuple):
    """Who is trained, distributed over the processes, and by what."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    discriminator: nn.Module | None
    discriminator_optimizer: torch.optim.Optimizer | None
    weighting: Weighting | None = None

    @property
    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        """The model's, then the discriminator's if there is one."""
        return (self.optimizer, *filter(None, (self.discriminator_optimizer,)))


def train_step(engine: Engine, players: Players, batch: Batch, config: Config) -> Losses:
    """Update discriminator and model on one batch.

    Returns:
        The losses before the update, by name; `generator` is the adversarial loss.
    """
    with engine.autocast():
        prediction: Prediction = players.model(batch.lightness, batch.features, batch.chroma)
    losses: Losses = {}
    by_task: Losses = {}
    if prediction.chroma is not None:
        name = config.colour.loss
        losses[name] = PIXEL_LOSSES[name](prediction.chroma, batch.chroma)
        colour = config.colour.l1_weight * losses[name]
        if players.discriminator is not None:
            direction = duel(engine, players, batch, prediction.chroma, config.colour.gan_loss, losses)
            colour = colour + config.colour.adversarial_weight * follow(prediction.chroma, direction)
        by_task["colour"] = config.task_weights.colour * colour
    elif prediction.colour_loss is not None:
        losses["colour_classes"] = prediction.colour_loss
        by_task["colour"] = config.task_weights.colour * prediction.colour_loss
    if prediction.logits is not None:
        losses["cross_entropy"] = cross_entropy(
            prediction.logits, batch.label, batch.label_weight, config.class_.label_smoothing
        )
        by_task["class"] = config.task_weights.class_ * losses["cross_entropy"]
    if len(by_task) > 1 and players.weighting is not None:
        losses |= weigh(engine, players.weighting, prediction, by_task)
    players.optimizer.zero_grad(set_to_none=True)
    engine.backward(torch.stack(list(by_task.values())).sum())
    players.optimizer.step()
    return losses


def weigh(engine: Engine, weighting: Weighting, prediction: Prediction, by_task: Losses) -> Losses:
    """Scale what each task's gradient counts at the shared features in the backward pass to come.

    The heads still move by their own task alone. The Gramian is averaged over the processes, so that all of them
    weigh alike, and one ordinary backward pass through the base follows: `torch.autograd.grad` on shared
    parameters would let processes drift apart.

    Returns:
        The weights, by name, for the log.
    """
    assert prediction.shared is not None  # every model's forward pass gives it
    branches: dict[str, Pyramid] = dict(zip(("colour", "class"), prediction.shared, strict=True))
    if not branches["colour"][-1].requires_grad:
        return {}  # a frozen base has nothing to weigh
    gradients = [_at(loss, branches[task]) for task, loss in by_task.items()]
    products = engine.average({str(i): value for i, value in enumerate(gramian(gradients).flatten())})
    weights = weighting(torch.tensor(list(products.values())).reshape(len(by_task), -1))
    for task, weight in zip(by_task, weights.tolist(), strict=True):
        for features in branches[task]:
            features.register_hook(lambda gradient, weight=weight: gradient * weight)
    return {f"weight_{task}": weight for task, weight in zip(by_task, weights, strict=True)}


def _at(loss: Tensor, features: Pyramid) -> Tensor:
    """Gradient of a loss at all maps, as one vector; 0 at a map that the task does not read."""
    found = torch.autograd.grad(loss, features, retain_graph=True, allow_unused=True)
    pairs = zip(found, features, strict=True)
    return torch.cat([(torch.zeros_like(f) if g is None else g).flatten() for g, f in pairs])


def duel(
    engine: Engine, players: Players, batch: Batch, chroma: Chroma, gan_loss: str, losses: Losses
) -> Tensor:
    """Update the discriminator and say where it wants the chroma to go.

    Both need the discriminator's scores of the same generated pictures, so one forward pass serves: first
    the generator's gradient with respect to the pictures alone, then the discriminator's own backward pass.
    The stock order (discriminator step, then a second pass for the generator) costs a third more; here the
    generator answers the discriminator as it was before this step, as in simultaneous gradient descent.

    Returns:
        Gradient of the generator's adversarial loss with respect to `chroma`.
    """
    discriminator, optimizer = players.discriminator, players.discriminator_optimizer
    assert discriminator is not None
    assert optimizer is not None
    loss = GAN_LOSSES[gan_loss]
    fake = chroma.detach().requires_grad_()
    count = len(fake)
    with engine.autocast():
        scores = discriminator(batch.lightness.repeat(2, 1, 1, 1), torch.cat((batch.chroma, fake)))
    real_score, fake_score = scores[:count], scores[count:]
    losses["generator"] = loss.generator(fake_score)
    (direction,) = torch.autograd.grad(losses["generator"], fake, retain_graph=True)
    losses["discriminator"] = (loss.real(real_score) + loss.fake(fake_score)) / 2
    optimizer.zero_grad(set_to_none=True)
    engine.backward(losses["discriminator"])
    optimizer.step()
    shares = share_judged_right(real_score, fake_score, loss.threshold)
    losses["discriminator_real"], losses["discriminator_fake"] = shares
    return direction
