"""Cells of a study side by side on one machine, each worker with its share of the threads."""

import os
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any, NamedTuple

from knowhue.config import Config, Task, fingerprint
from knowhue.data.prepare import load_prepared
from knowhue.errors import RunError
from knowhue.plan import Plan, read_cells
from knowhue.runs import Report
from knowhue.training.engine import Engine
from knowhue.training.gate import check_gate
from knowhue.training.loop import Work
from knowhue.training.phases import head_tasks
from knowhue.training.train import head_config, run_arm, run_head, warm_features

POLL_SECONDS = 5.0


class Job(NamedTuple):
    """A head, or an arm that needs its heads first.

    Attributes:
        kind: `head`, `gate` or `arm`.
        name: task or arm.
        config: of the run.
        needs: keys of the jobs that must have ended.
    """

    kind: str
    name: str
    config: Config
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Heads that several arms share have one key."""
        return f"{self.kind}/{self.name}/{fingerprint(self.config)}"


def threads_of(workers: int) -> int | None:
    """Of each of several workers; None of this process alone, which keeps those that it has."""
    return None if workers == 1 else max(1, (os.cpu_count() or 1) // workers)


def run_side_by_side(work: Work, plan: Plan, workers: int, gated: Collection[int]) -> None:
    """Run every cell of a plan; a thing that several cells share is computed once, and before them.

    Args:
        work: what they share.
        plan: the cells.
        workers: processes.
        gated: seeds whose A/A gate is tried.

    Raises:
        RunError: a worker died; what has ended is kept, and the same command goes on.
        KnowhueError: as raised by a cell.
    """
    warm_features(work, (plan.run_config(arm, plan.seeds[0]) for arm in plan.arms))
    context = get_context("spawn")
    threads = threads_of(workers) or 1
    slots = context.Queue()
    for slot in range(workers):
        slots.put(slot)
    with ProcessPoolExecutor(workers, context, _open, (work.root, plan.config, threads, slots)) as pool:
        try:
            _drive(pool, list(_jobs(plan, gated)), workers, plan, work.root, work.report)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise


def _jobs(plan: Plan, gated: Collection[int]) -> Iterator[Job]:
    """Block by block: heads, the gate, arms."""
    for seed in plan.seeds:
        for arm in plan.arms:
            config = plan.run_config(arm, seed)
            heads = [Job("head", task, head_config(config, task)) for task in head_tasks(config)]
            yield from heads
            if arm == plan.gate_arm and seed in gated:
                yield Job("gate", arm, config)
            yield Job("arm", arm, config, tuple(head.key for head in heads))


def _drive(
    pool: ProcessPoolExecutor, jobs: list[Job], workers: int, plan: Plan, root: Path, report: Report
) -> None:
    """Keep all workers busy with the first job whose needs are met, and tell how far the cells are."""
    waiting = {job.key: job for job in jobs}
    running: dict[Future[None], str] = {}
    ended: set[str] = set()
    while waiting or running:
        ready = [job for job in waiting.values() if ended.issuperset(job.needs)]
        for job in ready[: workers - len(running)]:
            running[pool.submit(_work_on, job.kind, job.name, job.config)] = waiting.pop(job.key).key
        done, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
        for future in done:
            _raise_plainly(future)
            ended.add(running.pop(future))
        report({"stage": "cells", "cells": read_cells(root, plan)})


def _raise_plainly(future: Future[None]) -> None:
    try:
        future.result()
    except BrokenProcessPool:
        raise RunError(
            "A worker was killed, most likely for lack of memory. What has ended is kept: run the same command "
            "again, perhaps with fewer --workers."
        ) from None


_worker: dict[str, Any] = {}
"""What this worker process works with; set once when it starts."""


def _open(root: Path, config: Config, threads: int, slots: Any) -> None:
    """Begin a worker: its threads, and its GPU if there are several."""
    end_with_parent()
    import torch

    torch.set_num_threads(threads)
    slot = slots.get()
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(slot % torch.cuda.device_count())
    prepared = load_prepared(root / "images", config.evaluation.split, thorough=False)
    _worker["work"] = Work(root, Engine(config.training), prepared, lambda _: None)


def end_with_parent() -> None:
    """Have this worker end when the process that started it does, even if that was killed and could tell nobody.

    Otherwise it would go on writing into a folder that the next command believes to have for itself.
    """
    parent = parent_process()
    assert parent is not None  # a worker has one

    def watch() -> None:
        wait_for([parent.sentinel])
        os._exit(1)  # in the midst of whatever it does: all that counts was written whole

    threading.Thread(target=watch, daemon=True).start()


def _work_on(kind: str, name: Any, config: Config) -> None:
    work: Work = _worker["work"]
    if kind == "head":
        task: Task = name
        run_head(work, config, task)
    elif kind == "gate":
        check_gate(work, config)
    else:
        run_arm(work, config, name)
