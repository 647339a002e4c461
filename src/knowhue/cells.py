"""The cells of a study as jobs for an engine: heads, the A/A gate, and arms, which depend on their heads."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from knowhue.config import Config, Task, Training, digest, fingerprint
from knowhue.data.prepare import load_prepared
from knowhue.engines.executor import Executor, InProcess, Job
from knowhue.errors import DamagedError
from knowhue.locks import LOCK, working_on
from knowhue.plan import Plan, read_cells
from knowhue.presets import edit, head_config, head_tasks
from knowhue.randomness import drawing_from
from knowhue.runs import run_folder, training_settings
from knowhue.storage import read_json, real_path, write_json
from knowhue.training.engine import Engine, Workspace, computing_with
from knowhue.training.golden import blocks_of, finished_with, golden_step
from knowhue.training.loop import training_batches
from knowhue.training.phases import Networks, PhaseName, build_networks, make_train_state
from knowhue.training.run import run_arm, run_head, warm_features
from knowhue.training.scores import inspect_run
from knowhue.training.step import train_step

_Work = Callable[[Workspace], object]
_STEPS = 3
_NEGLIGIBLE = 1e-60
"""A task weight that underflows to 0 in float32: the gradient takes the same path through the encoder but adds nothing,
not even to zeros. (1e-30 would move the zero biases of an untrained encoder by 1e-29, which activates units at 0.)"""


def check_gate(work: Workspace, config: Config) -> dict[str, Any]:
    """Train the arms of a block for a few steps, and compare bit for bit the weights that should be equal.

    On the frozen encoder, training both heads together must equal training each alone, which justifies starting all
    arms from the same heads. In fine-tuning, the multi-task arm with a vanishing weight of the other task (1e-60) must
    equal the single-task arm in encoder, head and discriminator, for either task, which justifies attributing the
    difference between arms to the task. The gradients are summed (`tasks.weighting = static`), whatever the arm does.

    Returns the content of `gate/seed-<n>.json`: `proved`, the digests of all that the gate depends on; and for `heads`,
    `finetune_colour` and `finetune_class` the number of `steps`, the number of `tensors` compared, and the names of
    those that `differ`, which should be none.
    """
    path = work.root / "gate" / f"seed-{config.seed}.json"
    proved = {
        "settings": digest(training_settings(config)),
        "images": work.prepared.fingerprint,
        "golden_step": golden_step(work.engine),
    }
    with suppress(DamagedError):
        if path.exists() and (kept := read_json(path)).get("proved") == proved:
            return kept
    work.report({"stage": "gate", "seed": config.seed})
    found = {"proved": proved, **_train_both_ways(work, config)}
    if work.engine.is_main:
        write_json(path, found)
    work.engine.wait()
    return found


def _train_both_ways(work: Workspace, config: Config) -> dict[str, Any]:
    """Train heads together and alone; then, from these, each task alone and with the other at negligible weight."""
    tasks: tuple[tuple[Task, Task], ...] = (("colour", "class"), ("class", "colour"))
    # a combination of gradients is the treatment itself, in which arms are meant to differ
    static = edit(config, {"tasks": {"weighting": "static"}})
    alone = {task: edit(static, {"tasks": {"names": (task,)}}) for task, _ in tasks}
    both, single = _build(work, config), {task: _build(work, each) for task, each in alone.items()}
    heads: dict[str, Tensor] = {}
    for task, each in alone.items():
        heads |= _train(work, each, "heads", *single[task])
    found = {"heads": _compare(_train(work, config, "heads", *both), heads)}
    for task, other in tasks:
        # a weight of 0 would skip the path of the other task's gradient through the encoder
        beside = edit(static, {"tasks": {"weights": {other: _NEGLIGIBLE}}})
        lone = _train(work, alone[task], "finetune", *single[task], heads)
        found[f"finetune_{task}"] = _compare(lone, _train(work, beside, "finetune", *both, heads))
    return found


def _compare(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Any]:
    differ = sorted(name for name, value in expected.items() if not torch.equal(value, found[name]))
    return {"steps": _STEPS, "tensors": len(expected), "differ": differ}


def _build(work: Workspace, config: Config) -> tuple[Networks, dict[str, Tensor]]:
    """The networks of an arm and their initial weights, from which they are trained several times."""
    networks = build_networks(work.engine, config, work.prepared.classes)
    return networks, _copied_weights(networks, with_encoder=True)


def _copied_weights(networks: Networks, with_encoder: bool) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in networks.weights(with_encoder).items()}


def _train(
    work: Workspace,
    config: Config,
    phase: PhaseName,
    networks: Networks,
    start: Mapping[str, Tensor],
    heads: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Weights after the first steps of a phase, started from `heads` if given."""
    networks.load({**start, **(heads or {})})
    state = make_train_state(work.engine, networks, config, phase)
    for module in networks.modules(with_encoder=True).values():
        module.train()
    with drawing_from(work.engine.device, config.seed, "gate", phase, work.engine.share.rank):
        for _, (batch, _) in zip(range(_STEPS), training_batches(work, config, phase, 0), strict=False):
            train_step(state, batch)
    return _copied_weights(networks, with_encoder=phase == "finetune")


class CellStep(NamedTuple):
    """The work of one job."""

    kind: Literal["head", "gate", "arm"]
    name: str
    config: Config
    cell: tuple[str, int]
    """arm and seed; for a head, those of the first arm that needs it"""

    @property
    def id(self) -> str:
        """Equal for a head that several arms share."""
        return f"{self.kind}/{self.name}/{fingerprint(self.config)}"

    @property
    def title(self) -> str:
        """Its name in `knowhue status` and in messages of processes that wait for it."""
        arm, seed = self.cell
        what = {"head": f"{self.name} head of {arm}", "gate": f"A/A gate of {arm}", "arm": arm}[self.kind]
        return f"{what}, seed {seed}"

    def __call__(self, work: Workspace) -> None:
        """Do the work in this process; if another process is doing it, wait for that one first."""
        config, name = self.config, LOCK
        match self.kind:
            case "head":
                folder = run_folder(work.root / "heads", self.name, config)
                # the settings of a head have one task
                do = partial(run_head, work, config, config.tasks.names[0], self.cell[0])
            case "gate":
                folder, name = work.root / "gate", f".seed-{config.seed}{LOCK}"
                do = partial(check_gate, work, config)
            case "arm":
                folder = run_folder(work.root, self.name, config)
                do = partial(run_arm, work, config, self.name)
        with working_on(folder, self.title, name=name, report=work.report):
            do()


class Arithmetic(NamedTuple):
    """How the machines compute that run a study's cells."""

    precision: str
    """`float32` or `bfloat16`"""
    golden_step: str
    """digest of the weights after fixed training steps, see `training.golden`"""


def arithmetic_elsewhere(executor: Executor, training: Training, root: Path) -> Arithmetic:
    """Find out with a job how the machines of an engine compute."""
    answer = real_path(root) / ".arithmetic.json"
    answer.unlink(missing_ok=True)
    executor.execute([Job("arithmetic", partial(_write_arithmetic, training, executor.threads, answer))])
    found = Arithmetic(**read_json(answer))
    answer.unlink()
    return found


def _write_arithmetic(training: Training, threads: int | None, answer: Path) -> None:
    engine = Engine(training)
    write_json(answer, Arithmetic(engine.precision, golden_step(engine, threads))._asdict())


def run_cells(work: Workspace, plan: Plan, executor: Executor, step: str) -> None:
    """Run all cells, block by block, on an engine, or in this process and those that torch.distributed.run started.

    `step` is the golden step of the machines that run them.
    """
    # a block that was finished with another golden step is not changed, and neither is its gate
    blocks = blocks_of(plan).items()
    gated = {seed for seed, cells in blocks if finished_with(work.root, cells) in (None, step)}
    whole = _complete_cells(work, plan)
    if isinstance(executor, InProcess):
        begun, total = list[tuple[str, int]](), len(plan.cells)

        def here(cell_step: CellStep) -> None:
            if cell_step.cell not in begun:
                work.report({"stage": "cell", "done": len(begun), "total": total})
                begun.append(cell_step.cell)
            cell_step(work)

        executor.execute(cell_jobs(plan, gated, here, whole))
        work.report({"stage": "cell", "done": total, "total": total})
        return
    do = worker_task(work, plan, executor)
    jobs = cell_jobs(plan, gated, do, whole)
    # first the features, because several workers would compute the same ones at the same time
    unfinished = [arm for arm in plan.arms if any((arm, seed) not in whole for seed in plan.seeds)]
    read = [plan.run_config(arm, plan.seeds[0]) for arm in unfinished]
    if executor.is_elsewhere and read:
        warm = Job("features", partial(do, partial(warm_features, configs=read)))
        jobs = [warm, *(job._replace(needs=(*job.needs, warm.id)) for job in jobs)]
    else:
        with computing_with(executor.threads):  # the order of sums depends on it
            warm_features(work, read)
    executor.execute(jobs, lambda: work.report({"stage": "cells", "cells": read_cells(work.root, plan)}))


def _complete_cells(work: Workspace, plan: Plan) -> set[tuple[str, int]]:
    """Arms and seeds that have ended and are complete, as seen by the main process, so that all do the same jobs."""
    found: list[tuple[str, int]] = []
    if work.engine.is_main:
        folders = {cell: run_folder(work.root, cell[0], plan.run_config(*cell)) for cell in plan.cells}
        found = [cell for cell, folder in folders.items() if inspect_run(folder) == (True, [])]
    return set(work.engine.gather([found])[0])


def cell_jobs(
    plan: Plan,
    gated: Collection[int],
    do: Callable[[CellStep], object],
    whole: Collection[tuple[str, int]] = (),
) -> list[Job]:
    """The jobs of a plan, seed by seed, each after those that it needs; within a seed, arms with two tasks first.

    They take longest, so the last jobs, during which other workers may be idle, are short. `gated` are the seeds whose
    A/A gate is checked, `whole` the arms and seeds that have ended and are complete.
    """
    jobs: dict[str, Job] = {}

    def add(step: CellStep, needs: Sequence[CellStep] = ()) -> None:  # a head once, for the first of its arms
        jobs.setdefault(step.id, Job(step.id, partial(do, step), tuple(each.id for each in needs)))

    arms = sorted(plan.arms, key=lambda arm: -len(plan.arm_settings(arm).tasks.names))
    for seed in plan.seeds:
        for arm in arms:
            config, cell = plan.run_config(arm, seed), (arm, seed)
            # a complete cell needs no heads, which may have been deleted to save space; one that is scored again does
            tasks = () if cell in whole else head_tasks(config)
            heads = [CellStep("head", task, head_config(config, task), cell) for task in tasks]
            for head in heads:
                add(head)
            add(CellStep("arm", arm, config, cell), heads)
        if (gated_arm := plan.gate_arm) and seed in gated:
            add(CellStep("gate", gated_arm, plan.run_config(gated_arm, seed), (gated_arm, seed)))
    return list(jobs.values())


_workspaces: dict[Path, Workspace] = {}  # of this worker process, by study folder


def worker_task(work: Workspace, plan: Plan, executor: Executor) -> Callable[[_Work], None]:
    """A function that does a part of a study in a worker process, with the workspace that its cells share there."""
    return partial(_run_in_worker, real_path(work.root), plan.config, executor.threads)


def _run_in_worker(root: Path, shared: Config, threads: int | None, do: _Work) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    if root not in _workspaces:
        prepared = load_prepared(root / "images", shared.evaluation.split, thorough=False)
        _workspaces[root] = Workspace(root, Engine(shared.training), prepared, lambda _: None)
    do(_workspaces[root])
