"""Methods at equal wall-clock: how many epochs fit the seconds that the reference takes, and what predicting costs."""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from knowhue.data.loaders import plain_batches
from knowhue.errors import RunError
from knowhue.models.multitask import MultiTask
from knowhue.plan import Epochs, Plan
from knowhue.runs import has_ended, has_finished, read_config, read_log, run_folder
from knowhue.storage import write_json
from knowhue.tensors import Batch
from knowhue.training.engine import Workspace
from knowhue.training.phases import predict
from knowhue.training.run import load_run

COSTS = "costs.json"
TIMED_IMAGES = 32
ROUNDS = 3


def equal_wall_clock(plan: Plan, root: Path) -> dict[str, Any]:
    """The budget in seconds and, from what an epoch took at equal images, the epochs of each method.

    Raises:
        RunError: the reference diverged with every seed, and the plan names no budget.
    """
    # a run that diverged may have ended early, and so says nothing of what training takes
    finished = [run for run in _ended(plan, str(plan.reference), root) if has_finished(run)]
    budget = plan.budget_s or _mean([sum(_train_seconds(run)) for run in finished])
    if not budget:
        raise RunError(
            f"The reference `{plan.reference}` diverged with every seed: it sets no budget. Name one with --budget, or "
            "another --reference, and another folder with --out."
        )
    epochs: dict[str, Epochs] = {}
    for method in plan.planned_arms:
        took = [
            [_mean(_train_seconds(run, phase)) for phase in ("heads", "finetune")]
            for run in _ended(plan, method, root)
        ]
        # 0 is a phase that a run did not come to, and no pace
        heads, tuned = (_mean([run[phase] for run in took if run[phase]]) for phase in (0, 1))
        usual = plan.epochs(method)
        has_pace = bool((heads or not usual[0]) and (tuned or not usual[1]))
        # a method that diverged in its first epoch with every seed has no pace: its first regime stands for both
        epochs[method] = epochs_within(budget, usual, (heads, tuned)) if has_pace else usual
    return {"budget_s": budget, "epochs": epochs}


def epochs_within(budget_s: float, usual: Epochs, seconds: tuple[float, float]) -> Epochs:
    """The whole epochs whose training time comes nearest to a budget, shared out about as usual.

    Args:
        budget_s: seconds, above 0.
        usual: epochs on the frozen encoder and of fine-tuning; at least one of them is not 0.
        seconds: what an epoch of each takes; that of a phase without epochs does not matter.

    Returns:
        A phase that usually has epochs has at least one, so a budget below that is exceeded.

    >>> epochs_within(60.0, (3, 2), (7.0, 14.0)), epochs_within(60.0, (0, 5), (0.0, 40.0))
    ((4, 2), (0, 2))
    """
    heads, tuned = usual
    if not heads or not tuned:
        own = seconds[0] if heads else seconds[1]
        count = max(1, round(budget_s / own))
        return (count, 0) if heads else (0, count)
    most = int(budget_s / seconds[1]) + 1  # more fine-tuning alone would exceed the budget
    shared_out = [(count, int(count * heads / tuned) + up) for count in range(1, most + 1) for up in (0, 1)]
    found = [(max(1, near), count) for count, near in shared_out]
    return min(found, key=lambda each: (abs(each[0] * seconds[0] + each[1] * seconds[1] - budget_s), each))


def write_costs(work: Workspace, plan: Plan) -> None:
    """`costs.json`: by method the seconds an image that it predicts in, and its parameters."""
    ended = {method: _ended(plan, method, work.root) for method in plan.planned_arms}
    models = {method: load_run(work, read_config(runs[0]), runs[0]) for method, runs in ended.items() if runs}
    positions = work.prepared.positions(work.prepared.reporting_split)[:TIMED_IMAGES]
    (batch,) = plain_batches(work.prepared, positions, TIMED_IMAGES, work.engine.device)
    # in turns, so that a busy moment of the machine slows all methods
    rounds = [
        {method: _predict_seconds(work, model, batch) for method, model in models.items()}
        for _ in range(ROUNDS + 1)
    ]
    costs = {
        method: {
            # the first round warms up
            "predict_s_per_image": median(each[method] for each in rounds[1:]) / len(positions),
            "parameters": sum(each.numel() for each in model.parameters() if each.requires_grad),
        }
        for method, model in models.items()
    }
    write_json(work.root / COSTS, costs)


def _ended(plan: Plan, arm: str, root: Path) -> list[Path]:
    """The folders of an arm's ended runs, by seed."""
    folders = [run_folder(root, arm, plan.run_config(arm, seed)) for seed in plan.seeds]
    return [folder for folder in folders if has_ended(folder)]


def _train_seconds(run: Path, phase: str | None = None) -> list[float]:
    """Seconds that each epoch trained for, of one phase or all; its evaluation is not among them.

    The first one warms caches up, and is part of what a run costs.
    """
    return [entry["train_seconds"] for entry in read_log(run, phase)]


def _predict_seconds(work: Workspace, model: MultiTask, batch: Batch) -> float:
    started = time.perf_counter()
    chroma = predict(work.engine, model, batch).chroma
    assert chroma is not None  # every method colours
    chroma.sum().item()  # waits for the device
    return time.perf_counter() - started


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
