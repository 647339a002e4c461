"""How the tasks pull at the shared encoder: gradients at the shared features, and looks one step ahead.

They describe; they do not predict. Conflict is known not to foretell generalisation (Mueller et al., TMLR) and
affinity scores only weakly (Azorin et al. 2023), so the report sets them beside the transfer that was found.
"""

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from knowhue.config import Config
from knowhue.models.multitask import MultiTask
from knowhue.objectives.losses import GAN_LOSSES, chroma_l1, cross_entropy
from knowhue.tensors import Batch, Pyramid
from knowhue.training.engine import Engine

Losses = dict[str, Tensor]


def diagnose(
    engine: Engine, model: MultiTask, discriminator: nn.Module | None, batch: Batch, config: Config
) -> dict[str, float]:
    """Compare the tasks' gradients on one batch; nothing is updated.

    Args:
        engine: its arithmetic.
        model: the bare multi-task model; both heads and an encoder that trains.
        discriminator: the bare opponent, or None where nothing is adversarial.
        batch: of this process alone.
        config: the weights of the losses.

    Returns:
        - `cosine_l1`, `cosine_adversarial`, `cosine_colour`: between the gradient of the cross-entropy and that
          of the L1 term, the adversarial term and their weighted sum, at the coarsest map, which both heads read;
        - `norm_class`, `norm_l1`, `norm_adversarial`: of the weighted gradients there;
        - `affinity_class_to_colour`, `affinity_colour_to_class`: by which share a step of the encoder along the one
          task's gradient alone lowers the other's loss (Fifty et al. 2021); positive is help;
        - `seconds` that all this took.
    """
    started = time.perf_counter()
    if discriminator is not None:
        discriminator.eval()  # else spectral normalisation would move
    gradients = _at_shared_features(engine, model, discriminator, batch, config)
    ahead = _look_ahead(engine, model, discriminator, batch, config)
    if discriminator is not None:
        discriminator.train()
    rows = {name: value for name, value in gradients.items() if name != "class"}
    found = {f"cosine_{name}": _cosine(gradients["class"], value) for name, value in rows.items()}
    norms = {f"norm_{name}": float(value.norm()) for name, value in gradients.items() if name != "colour"}
    return found | norms | ahead | {"seconds": round(time.perf_counter() - started, 4)}


def _at_shared_features(
    engine: Engine, model: MultiTask, discriminator: nn.Module | None, batch: Batch, config: Config
) -> dict[str, Tensor]:
    """Gradient of each weighted loss at the coarsest map, flattened, in float32."""
    with torch.no_grad(), engine.autocast():
        pyramid = model.features(batch.lightness)
    shared = pyramid[-1].detach().requires_grad_()
    losses = _losses(engine, model, discriminator, batch, config, (*pyramid[:-1], shared))
    flat = {
        name: torch.autograd.grad(loss, shared, retain_graph=True)[0].float().flatten()
        for name, loss in losses.items()
    }
    return flat | {"colour": sum((v for k, v in flat.items() if k != "class"), torch.zeros_like(flat["l1"]))}


def _look_ahead(
    engine: Engine, model: MultiTask, discriminator: nn.Module | None, batch: Batch, config: Config
) -> dict[str, float]:
    """Let the encoder take one step along each task's gradient alone, see the other's loss, and take it back."""
    shared = list(model.encoder.parameters())
    with engine.autocast():
        pyramid = model.features(batch.lightness)
    before = _by_task(_losses(engine, model, discriminator, batch, config, pyramid))
    gradients = {
        task: torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        for task, loss in before.items()
    }
    kept = [parameter.detach().clone() for parameter in shared]
    found = {}
    for task, other in (("class", "colour"), ("colour", "class")):
        _descend(shared, gradients[task], config.training.finetune.encoder_learning_rate)
        with torch.no_grad():
            with engine.autocast():
                moved = model.features(batch.lightness)
            after = _by_task(_losses(engine, model, discriminator, batch, config, moved))
            for parameter, value in zip(shared, kept, strict=True):
                parameter.copy_(value)
        start = before[other].item()  # 0 where no image of the batch has a label: nothing to compare with
        found[f"affinity_{task}_to_{other}"] = 1 - after[other].item() / start if start else math.nan
    return found


def _descend(parameters: list[nn.Parameter], gradients: tuple[Tensor | None, ...], rate: float) -> None:
    """One step of the length that Adam's first would have: the gradient's sign, times the rate."""
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.sub_(rate * gradient.sign())


def _losses(
    engine: Engine,
    model: MultiTask,
    discriminator: nn.Module | None,
    batch: Batch,
    config: Config,
    pyramid: Pyramid,
) -> Losses:
    """The weighted terms of the sum that the encoder is trained on."""
    with engine.autocast():
        prediction = model(batch.lightness, pyramid, label=batch.label)
    assert prediction.chroma is not None  # only asked of two tasks
    assert prediction.logits is not None
    colour, class_ = config.tasks.weights.colour, config.tasks.weights.class_
    entropy = cross_entropy(prediction.logits, batch.label, batch.label_weight, config.class_.label_smoothing)
    l1 = config.colour.l1_weight * chroma_l1(prediction.chroma, batch.chroma)
    losses = {"class": class_ * entropy, "l1": colour * l1}
    if discriminator is not None:
        with engine.autocast():
            score = discriminator(batch.lightness, prediction.chroma)
        generator = GAN_LOSSES[config.colour.gan_loss].generator(score)
        losses["adversarial"] = colour * config.colour.adversarial_weight * generator
    return losses


def _by_task(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    colour = [loss for name, loss in losses.items() if name != "class"]
    return {"class": losses["class"], "colour": torch.stack(colour).sum()}


def _cosine(first: Tensor, second: Tensor) -> float:
    """Cosine of two vectors, 0 where one of them is 0."""
    return float(nn.functional.cosine_similarity(first, second, dim=0, eps=1e-30))
