"""One update of the discriminator and of the model, from one forward pass of each; no I/O."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from knowhue.config import Config
from knowhue.objectives.losses import (
    GAN_LOSSES,
    chroma_l1,
    cross_entropy,
    follow,
    share_judged_right,
)
from knowhue.tensors import Batch, Chroma, Prediction
from knowhue.training.engine import Engine

Losses = dict[str, Tensor]


class Players(NamedTuple):
    """Who is trained, distributed over the processes, and by what."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    discriminator: nn.Module | None
    discriminator_optimizer: torch.optim.Optimizer | None

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
        prediction: Prediction = players.model(batch.lightness, batch.features)
    losses: Losses = {}
    total = torch.zeros((), device=engine.device)
    if prediction.chroma is not None:
        losses["l1"] = chroma_l1(prediction.chroma, batch.chroma)
        colour = config.colour.l1_weight * losses["l1"]
        if players.discriminator is not None:
            direction = duel(engine, players, batch, prediction.chroma, config.colour.gan_loss, losses)
            colour = colour + config.colour.adversarial_weight * follow(prediction.chroma, direction)
        total = total + config.task_weights.colour * colour
    if prediction.logits is not None:
        losses["cross_entropy"] = cross_entropy(
            prediction.logits, batch.label, batch.label_weight, config.class_.label_smoothing
        )
        total = total + config.task_weights.class_ * losses["cross_entropy"]
    players.optimizer.zero_grad(set_to_none=True)
    engine.backward(total)
    players.optimizer.step()
    return losses


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
