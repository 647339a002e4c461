"""Two tasks at the shared encoder, step by step: scale their losses, or what their gradients count."""

from collections.abc import Mapping
from math import isfinite, sqrt

import torch
from torch import Tensor

from knowhue.objectives.balance import Balance
from knowhue.objectives.sharing import Sharing
from knowhue.objectives.weighting import Weighting, gramian
from knowhue.tensors import Prediction, Pyramid
from knowhue.training.engine import Engine

Losses = dict[str, Tensor]
Branches = dict[str, Pyramid]
"""The shared features as each task's head got them: equal in value, apart in the graph."""


def share(engine: Engine, sharing: Sharing, prediction: Prediction, by_task: Losses) -> Losses:
    """Let two tasks share an encoder that learns in the backward pass to come.

    Args:
        engine: of the run.
        sharing: what stands between the tasks and the encoder.
        prediction: of this step; its features tell the tasks' gradients apart.
        by_task: the statically weighted loss of each task; scaled here where losses are balanced.

    Returns:
        What each task counts, by name, for the log.
    """
    branches = _branches(prediction) if len(by_task) > 1 else None
    if branches is None:
        return {}
    if sharing.weighting is not None:
        return weigh(engine, sharing.weighting, branches, by_task)
    return {} if sharing.balance is None else balance(engine, sharing.balance, branches, by_task)


def balance(engine: Engine, factors: Balance, branches: Branches, by_task: Losses) -> Losses:
    """Scale the losses by the factors as they stand, and let these take in the step.

    What they take in is averaged over the processes, so that the factors stay equal on all. Losses that are not
    finite are not taken in: the run ends at the end of this epoch, and says so. Nor is a step in which a task has
    no loss at all, as where no image has a label: it tells nothing of the task.
    """
    now = factors.weights()
    if factors.every_step:
        losses = engine.average(by_task)
        norms = _norms(engine, branches, by_task) if factors.needs_norms else None
        if all(losses.values()) and all(map(isfinite, (*losses.values(), *(norms or {}).values()))):
            factors.observe_step(losses, norms)
    for task, factor in now.items():
        by_task[task] = factor * by_task[task]
    return _named(now, by_task)


def weigh(engine: Engine, weighting: Weighting, branches: Branches, by_task: Losses) -> Losses:
    """Scale what each task's gradient counts at the shared features in the backward pass to come.

    The heads still move by their own task alone. The Gramian is averaged over the processes, so that all of them
    weigh alike, and one ordinary backward pass through the encoder follows: `torch.autograd.grad` on shared
    parameters would let processes drift apart.

    Returns:
        The weights, by name, for the log.
    """
    gradients = [_at(loss, branches[task]) for task, loss in by_task.items()]
    products = engine.average({str(i): value for i, value in enumerate(gramian(gradients).flatten())})
    weights = weighting(torch.tensor(list(products.values())).reshape(len(by_task), -1)).tolist()
    by_name = dict(zip(by_task, weights, strict=True))
    for task, weight in by_name.items():
        for features in branches[task]:
            features.register_hook(lambda gradient, weight=weight: gradient * weight)
    return _named(by_name, by_task)


def _named(weights: Mapping[str, float], by_task: Losses) -> Losses:
    """On the device of the losses, with which they are averaged for the log."""
    return {
        f"weight_{task}": torch.tensor(weight, device=by_task[task].device)
        for task, weight in weights.items()
    }


def _norms(engine: Engine, branches: Branches, by_task: Losses) -> dict[str, float]:
    """L2 norm of each task's gradient at the shared features of all processes, up to one factor."""
    squares = {task: _at(loss, branches[task]).float().square().sum() for task, loss in by_task.items()}
    return {task: sqrt(square) for task, square in engine.average(squares).items()}


def _branches(prediction: Prediction) -> Branches | None:
    """None where the encoder is frozen, which has nothing to weigh."""
    assert prediction.shared is not None  # every model's forward pass gives it
    colour, class_ = prediction.shared
    return {"colour": colour, "class": class_} if colour[-1].requires_grad else None


def _at(loss: Tensor, features: Pyramid) -> Tensor:
    """Gradient of a loss at all maps, as one vector; 0 at a map that the task does not read."""
    found = torch.autograd.grad(loss, features, retain_graph=True, allow_unused=True)
    pairs = zip(found, features, strict=True)
    return torch.cat([(torch.zeros_like(f) if g is None else g).flatten() for g, f in pairs])
