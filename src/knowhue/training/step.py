"""One update of the discriminator and of the model, from one forward pass of each; no I/O."""

from collections.abc import Mapping
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor, nn

from knowhue.color import CHROMA_SCALE
from knowhue.config import Config
from knowhue.objectives.losses import (
    GAN_LOSSES,
    PIXEL_LOSSES,
    cross_entropy,
    follow,
    share_judged_right,
)
from knowhue.objectives.sharing import Sharing
from knowhue.tensors import Batch, Chroma, Prediction
from knowhue.training.engine import Engine
from knowhue.training.sharing import Losses, share


class Players(NamedTuple):
    """Who is trained, distributed over the processes, and by what."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    discriminator: nn.Module | None
    discriminator_optimizer: torch.optim.Optimizer | None
    sharing: Sharing = Sharing()

    @property
    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        """The model's, then the discriminator's if there is one."""
        return (self.optimizer, *filter(None, (self.discriminator_optimizer,)))

    def state(self) -> dict[str, nn.Module]:
        """What else must be kept to go on exactly, by name."""
        return {} if self.sharing.balance is None else {"balance": self.sharing.balance}

    def observe_epoch(self, train: Mapping[str, float], validation: Mapping[str, float]) -> None:
        """Let a balance take in an epoch: both tasks' errors, of colour in units of scaled chroma.

        Args:
            train: mean losses; an epoch with one that is not finite is not taken in, the run ends with it.
            validation: metrics, or nothing where the images were not scored; an epoch whose last step spoilt
                them is not taken in either.
        """
        balance = self.sharing.balance
        if balance is None:
            return
        colour = next(name for name in ("l1", "l2", "colour_loss") if name in train)
        held_out = {}
        if validation:
            error = validation["ab_l1"] / CHROMA_SCALE
            held_out = {"colour": error, "class": validation["cross_entropy"]}
        if not all(map(isfinite, (*train.values(), *held_out.values()))):
            return
        balance.observe_epoch({"colour": train[colour], "class": train["cross_entropy"]}, held_out)


def train_step(engine: Engine, players: Players, batch: Batch, config: Config) -> Losses:
    """Update discriminator and model on one batch.

    Returns:
        The losses before the update, by name; `generator` is the adversarial loss.
    """
    with engine.autocast():
        prediction: Prediction = players.model(batch.lightness, batch.features, batch.chroma, batch.label)
    losses: Losses = {}
    by_task: Losses = {}
    if prediction.chroma is not None:
        name = config.colour.loss
        losses[name] = PIXEL_LOSSES[name](prediction.chroma, batch.chroma)
        colour = config.colour.l1_weight * losses[name]
        if players.discriminator is not None:
            direction = duel(engine, players, batch, prediction.chroma, config.colour.gan_loss, losses)
            weight = config.colour.adversarial_weight
            colour = colour + weight * follow(prediction.chroma, direction, losses["generator"])
        by_task["colour"] = config.tasks.weights.colour * colour
    elif prediction.colour_loss is not None:
        losses["colour_loss"] = prediction.colour_loss
        by_task["colour"] = config.tasks.weights.colour * prediction.colour_loss
    if prediction.logits is not None:
        losses["cross_entropy"] = cross_entropy(
            prediction.logits, batch.label, batch.label_weight, config.class_.label_smoothing
        )
        by_task["class"] = config.tasks.weights.class_ * losses["cross_entropy"]
    losses |= share(engine, players.sharing, prediction, by_task)
    players.optimizer.zero_grad(set_to_none=True)
    engine.backward(torch.stack(list(by_task.values())).sum())
    _let_rest(engine, players)
    players.optimizer.step()
    return losses


def _let_rest(engine: Engine, players: Players) -> None:
    """Keep the head of a stopped task as it is: without gradients the optimizer passes its parameters over."""
    balance, model = players.sharing.balance, engine.bare(players.model)
    for task, factor in ({} if balance is None else balance.weights()).items():
        if factor == 0:
            for parameter in model.head(task).parameters():
                parameter.grad = None


def duel(
    engine: Engine, players: Players, batch: Batch, chroma: Chroma, gan_loss: str, losses: Losses
) -> Tensor:
    """Update the discriminator and say where it wants the chroma to go.

    Both need the discriminator's scores of the same generated images, so one forward pass serves: first
    the generator's gradient with respect to the images alone, then the discriminator's own backward pass.
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
