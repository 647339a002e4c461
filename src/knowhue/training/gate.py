"""The A/A gate: what arms share is the same computation in both phases, bit for bit."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from knowhue.config import Config, Task, digest
from knowhue.errors import DamagedError
from knowhue.presets import edit
from knowhue.randomness import drawing_from
from knowhue.runs import trained_by
from knowhue.storage import read_json, write_json
from knowhue.training import golden
from knowhue.training.engine import Workspace
from knowhue.training.loop import training_batches
from knowhue.training.phases import PhaseName, build_networks, make_train_state
from knowhue.training.step import train_step

_STEPS = 3
_NEGLIGIBLE = 1e-60
"""A task's weight that is 0 in float32: its gradient takes the same path and adds nothing, not even where the other's
is 0. (1e-30 moves the zero biases of an untrained encoder by 1e-29, which switches units on that stand at 0.)"""


def check_gate(work: Workspace, config: Config) -> dict[str, Any]:
    """Train arms of a block side by side for some steps, and compare every weight that should come out equal.

    On the frozen encoder both heads together are each alone: this licenses forking all arms from the same heads. In
    fine-tuning the multi-task arm with a vanishing weight of the other task (1e-60) is the single-task arm, encoder,
    head and discriminator, for either task: this licenses taking the difference of the arms for that of the task. The
    gradients are summed as they are (`tasks.weighting = static`), whatever joins them in the arm.

    Returns:
        What `gate/seed-<n>.json` keeps: `proved`, the digests of all that it was tried with; and of `heads`,
        `finetune_colour` and `finetune_class` the `steps`, the `tensors` compared, and the names of those that
        `differ`; none should.
    """
    path = work.root / "gate" / f"seed-{config.seed}.json"
    proved = {
        "settings": digest(trained_by(config)),
        "images": work.prepared.fingerprint,
        "golden_step": golden.golden_step(work.engine),
    }
    with suppress(DamagedError):
        if path.exists() and (kept := read_json(path)).get("proved") == proved:
            return kept
    found = {"proved": proved, **_try(work, config)}
    if work.engine.is_main:
        write_json(path, found)
    work.engine.wait()
    return found


def _try(work: Workspace, config: Config) -> dict[str, Any]:
    """Heads together and alone; then each task alone and beside one of negligible weight, from these heads."""
    together = _train(work, config, "heads")
    heads = _train(work, _alone(config, "colour"), "heads") | _train(work, _alone(config, "class"), "heads")
    found = {"heads": _compare(together, heads)}
    # what combines gradients is the treatment itself: the arms differ in it by intent
    static = edit(config, {"tasks": {"weighting": "static"}})
    tasks: tuple[tuple[Task, Task], ...] = (("colour", "class"), ("class", "colour"))
    for task, other in tasks:
        # not a weight of 0: the other task's gradient has to take its path through the encoder
        beside = edit(static, {"tasks": {"weights": {other: _NEGLIGIBLE}}})
        alone = _train(work, _alone(static, task), "finetune", heads)
        found[f"finetune_{task}"] = _compare(alone, _train(work, beside, "finetune", heads))
    return found


def _alone(config: Config, task: Task) -> Config:
    return edit(config, {"tasks": {"names": (task,)}})


def _compare(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Any]:
    differ = sorted(name for name, value in expected.items() if not torch.equal(value, found[name]))
    return {"steps": _STEPS, "tensors": len(expected), "differ": differ}


def _train(
    work: Workspace, config: Config, phase: PhaseName, heads: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Weights after the first steps of a phase, begun from heads if they are given."""
    networks = build_networks(work.engine, config, work.prepared.classes)
    networks.load(heads or {})
    state = make_train_state(work.engine, networks, config, phase)
    for module in networks.modules(with_encoder=True).values():
        module.train()
    with drawing_from(work.engine.device, config.seed, "gate", phase, work.engine.share.rank):
        for _, (batch, _) in zip(range(_STEPS), training_batches(work, config, phase, 0), strict=False):
            train_step(state, batch)
    return networks.weights(with_encoder=phase == "finetune")
