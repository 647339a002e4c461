"""The cells of a study as jobs for an engine: heads, the A/A gate, and arms, which need their heads."""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from knowhue.config import Config, Training, fingerprint
from knowhue.data.prepare import load_prepared
from knowhue.engines.executor import Executor, InProcess, Job
from knowhue.locks import LOCK, working_on
from knowhue.plan import Plan, read_cells
from knowhue.runs import run_folder
from knowhue.storage import read_json, write_json
from knowhue.training.engine import Engine, Workspace
from knowhue.training.gate import check_gate
from knowhue.training.golden import blocks_of, finished_with, golden_step
from knowhue.training.phases import head_config, head_tasks
from knowhue.training.run import run_arm, run_head, warm_features
from knowhue.training.scores import inspect_run


class CellStep(NamedTuple):
    """What one job does.

    Attributes:
        kind: `head`, `gate` or `arm`.
        name: task or arm.
        config: of the run.
        cell: arm and seed that it is done for; a head is done for the first arm that needs it.
    """

    kind: Literal["head", "gate", "arm"]
    name: str
    config: Config
    cell: tuple[str, int]

    @property
    def id(self) -> str:
        """Heads that several arms share have one id."""
        return f"{self.kind}/{self.name}/{fingerprint(self.config)}"

    def __call__(self, work: Workspace) -> None:
        """Do it, in this process; what another one still works at is waited for."""
        folder, name = self._lock(work.root)
        with working_on(folder, f"{self.kind} {self.name}", name=name, report=work.report):
            self._do(work)

    def _lock(self, root: Path) -> tuple[Path, str]:
        if self.kind == "gate":
            return root / "gate", f".seed-{self.config.seed}{LOCK}"
        return run_folder(root / "heads" if self.kind == "head" else root, self.name, self.config), LOCK

    def _do(self, work: Workspace) -> None:
        match self.kind:
            case "head":
                run_head(work, self.config, self.config.tasks.names[0])  # the only one of a head's settings
            case "gate":
                check_gate(work, self.config)
            case "arm":
                run_arm(work, self.config, self.name)


class Arithmetic(NamedTuple):
    """How those compute who run a study's cells.

    Attributes:
        precision: `float32` or `bfloat16`.
        golden_step: see `training.golden`.
    """

    precision: str
    golden_step: str


def arithmetic_elsewhere(executor: Executor, training: Training, root: Path) -> Arithmetic:
    """Ask, by a job of its own, how an engine's machines compute.

    Raises:
        KnowhueError: the job failed.
    """
    answer = root.resolve() / ".arithmetic.json"
    answer.unlink(missing_ok=True)
    executor.execute([Job("arithmetic", partial(_tell_arithmetic, training, executor.threads, answer))])
    found = Arithmetic(**read_json(answer))
    answer.unlink()
    return found


def _tell_arithmetic(training: Training, threads: int | None, answer: Path) -> None:
    engine = Engine(training)
    write_json(answer, Arithmetic(engine.precision, golden_step(engine, threads))._asdict())


def run_cells(work: Workspace, plan: Plan, executor: Executor, now: str) -> None:
    """Run every cell, block by block: on an engine, or on this process and those that torch.distributed.run started.

    Raises:
        KnowhueError: as raised by a cell, or the engine lost one; the same command goes on.
    """
    # a block that another golden step has finished stays as it is, and so does its gate
    gated = {
        seed for seed, cells in blocks_of([plan]).items() if finished_with(work.root, cells) in (None, now)
    }
    whole = _whole_cells(work, plan)
    if isinstance(executor, InProcess):
        executor.execute(cell_jobs(plan, gated, _step_runner(work, len(plan.cells)), whole))
        return
    do = partial(do_in_worker, *worker_place(work, plan, executor))
    jobs = cell_jobs(plan, gated, do, whole)
    # several workers that need the same features would compute them at the same time
    unfinished = [arm for arm in plan.arms if any((arm, seed) not in whole for seed in plan.seeds)]
    read = [plan.run_config(arm, plan.seeds[0]) for arm in unfinished]
    if executor.is_elsewhere and read:
        warm = Job("features", partial(do, partial(warm_features, configs=read)))
        jobs = [warm, *(job._replace(needs=(*job.needs, warm.id)) for job in jobs)]
    else:
        warm_features(work, read)
    executor.execute(
        jobs, watch=lambda: work.report({"stage": "cells", "cells": read_cells(work.root, plan)})
    )


def _whole_cells(work: Workspace, plan: Plan) -> set[tuple[str, int]]:
    """Arms and seeds that have ended and lack nothing: as the main process finds them, so that all do the same jobs."""
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
    """Every cell of a plan, seed by seed, with what it needs before it.

    Args:
        plan: the cells.
        gated: seeds whose A/A gate is tried.
        do: does a step.
        whole: arms and seeds that have ended and lack nothing.
    """
    jobs = []
    for cell in plan.cells:
        arm, seed = cell
        config = plan.run_config(arm, seed)
        # what has ended needs no heads, which may have been deleted to save room; what is scored anew quotes theirs
        tasks = () if cell in whole else head_tasks(config)
        heads = [CellStep("head", task, head_config(config, task), cell) for task in tasks]
        gate = [CellStep("gate", arm, config, cell)] if arm == plan.gate_arm and seed in gated else []
        jobs += [Job(step.id, partial(do, step)) for step in (*heads, *gate)]
        arm_step = CellStep("arm", arm, config, cell)
        jobs.append(Job(arm_step.id, partial(do, arm_step), tuple(head.id for head in heads)))
    return jobs


def _step_runner(work: Workspace, cells: int) -> Callable[[CellStep], None]:
    """What runs steps in this process, and reports each cell that begins."""
    begun: list[tuple[str, int]] = []

    def do(step: CellStep) -> None:
        if step.cell not in begun:
            arm, seed = step.cell
            work.report({"stage": "cell", "done": len(begun), "total": cells, "arm": arm, "seed": seed})
            begun.append(step.cell)
        step(work)

    return do


_opened: dict[Path, Workspace] = {}
"""What this worker process works with, by study folder: opened by its first job."""


def worker_place(work: Workspace, plan: Plan, executor: Executor) -> tuple[Path, Config, int | None]:
    """What `do_in_worker` needs to know of a study."""
    return work.root.resolve(), plan.config, executor.threads


def do_in_worker(root: Path, shared: Config, threads: int | None, do: Callable[[Workspace], object]) -> None:
    """Do a part of a study in a process that was started for it, with what the cells share there."""
    if threads is not None:
        torch.set_num_threads(threads)
    if root not in _opened:
        prepared = load_prepared(root / "images", shared.evaluation.split, thorough=False)
        _opened[root] = Workspace(root, Engine(shared.training), prepared, lambda _: None)
    do(_opened[root])
