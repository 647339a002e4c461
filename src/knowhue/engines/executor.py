"""Engines run jobs, each after the jobs that it needs; `--engine` chooses one.

This module has the local ones: this process, or several worker processes that share the machine's threads.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import Field

from knowhue.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Section
from knowhue.errors import ConfigError, KnowhueError, RunError, few, needing, one_of, shown
from knowhue.locks import LOCK, note_jobs
from knowhue.presets import checked, merge, read_setting
from knowhue.runs import Report, ShareOut

POLL_SECONDS = 5.0
MOST_WORKERS = 1024  # a larger number is a typing error, and would take all memory


class Job(NamedTuple):
    """A piece of work that can be run again: it keeps its progress in files and does not repeat what is done.

    So an engine does not have to know the progress of a job. If a process or a machine is lost, the job is run again.
    Only one driver process at a time starts jobs for a folder.
    """

    id: str
    """the same for the same work in every call, and no other job's"""
    run: Callable[[], object]
    """does the work; engines that use other processes pickle it"""
    needs: tuple[str, ...] = ()
    """ids of the jobs that must end before"""


class Executor(Protocol):
    """Runs jobs, and is responsible for scheduling, placement and retries."""

    name: str
    """its name in `--engine`"""
    threads: int | None
    """number of threads of each job; None if jobs use those of this process"""
    is_elsewhere: bool
    """whether jobs can run on other machines, whose arithmetic can differ"""

    def leftover_jobs(self) -> list[str]:
        """Ids of waiting and running jobs of a killed driver; `RunError` if the cluster does not answer."""
        return []

    def execute(self, jobs: Sequence[Job], watch: Callable[[], None] = lambda: None) -> None:
        """Run jobs, and return when all have ended.

        Args:
            jobs: in order of priority; each after the jobs that it needs.
            watch: called every few seconds while jobs run elsewhere, after each job that runs here, and after the last.

        Raises:
            KnowhueError: the first error of a job, or the engine lost a job for good. Running jobs are stopped, waiting
                ones are not started, and results of ended ones are kept, so that the same call resumes the work.
        """


class InProcess(Executor):
    """Runs jobs one after another in this process, where each reports its own progress."""

    name = "local"
    threads = None
    is_elsewhere = False

    def execute(self, jobs: Sequence[Job], watch: Callable[[], None] = lambda: None) -> None:
        for job in jobs:
            job.run()
            watch()


def share_out(executor: Executor, name: str) -> ShareOut | None:
    """A function that runs independent pieces of work as jobs; None if this process does all work itself."""
    if isinstance(executor, InProcess):
        return None

    def share(pieces: Sequence[Callable[[int | None], object]], watch: Callable[[], None]) -> None:
        runs = [partial(piece, executor.threads) for piece in pieces]
        executor.execute([Job(f"{name}-{number}", run) for number, run in enumerate(runs)], watch)

    return share


def run_jobs(
    jobs: Iterable[Job],
    places: int,
    submit: Callable[[Job], Future[object]],
    result: Callable[[Future[object]], object],
    watch: Callable[[], None],
) -> None:
    """Run jobs at most `places` at a time, always the first whose needs are met, until all have ended."""
    waiting = {job.id: job for job in jobs}
    running: dict[Future[object], str] = {}
    ended: set[str] = set()
    while waiting or running:
        ready = [job for job in waiting.values() if ended.issuperset(job.needs)]
        # not more than can run, because a submitted job cannot give way to an earlier one that becomes ready
        for job in ready[: places - len(running)]:
            running[submit(job)] = waiting.pop(job.id).id
        done, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
        for future in done:
            result(future)
            ended.add(running.pop(future))
        watch()


# imports of a cell of a study, including torch; kornia is imported lazily
_PRELOADED = ("knowhue.cells", "knowhue.training.run", "kornia.color")


class LocalProcesses(Executor):
    """Runs jobs in several worker processes on this machine."""

    name = "local"
    is_elsewhere = False

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.threads = max(1, (os.cpu_count() or 1) // workers)

    def execute(self, jobs: Sequence[Job], watch: Callable[[], None] = lambda: None) -> None:
        """See `Executor`; `RunError` if a worker dies."""
        context = _context()
        # all workers start with the same arguments, so each takes its number, which selects a GPU, from a queue
        slots = context.Queue()
        for slot in range(self.workers):
            slots.put(slot)
        with ProcessPoolExecutor(self.workers, context, _start_worker, (slots,)) as pool:
            try:
                run_jobs(jobs, self.workers, lambda job: pool.submit(job.run), Future.result, watch)
            except BaseException as error:
                # shutdown cancels waiting jobs, but lets running ones end, which may take hours, and forgets processes
                processes = list((pool._processes or {}).values())
                pool.shutdown(wait=False, cancel_futures=True)
                for process in processes:
                    process.terminate()
                for process in processes:
                    process.join()
                if not isinstance(error, BrokenProcessPool):
                    raise
                raise RunError(
                    "A worker was killed, probably for lack of memory. Finished jobs are kept: run the same command "
                    "again, perhaps with fewer --workers."
                ) from None


def _context() -> Any:
    # forks of a process that has imported torch but not used it: forks of this process would share CUDA and the threads
    # of torch, and spawned workers would all repeat the imports
    context = get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    return context


def _start_worker(slots: Any) -> None:
    """Select the GPU of a worker if there are several."""
    end_with_parent()
    import torch

    slot = slots.get()
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(slot % torch.cuda.device_count())


def end_with_parent() -> None:
    """End this worker with the process that started it: it would write into a folder that the next command uses."""
    parent = parent_process()
    assert parent is not None  # because this is a worker

    def watch() -> None:
        wait_for([parent.sentinel])
        os._exit(1)  # safe at any moment, because files are written atomically

    threading.Thread(target=watch, daemon=True).start()


class SlurmSettings(Section):
    """Resources and time limit of each Slurm job."""

    partition: str | None = None
    """partition of the jobs; null is the cluster's default"""
    cpus: PositiveInt = 1
    """cores, and threads, of each job"""
    gpus: NonNegativeInt = 0
    """GPUs of each job"""
    memory_gb: PositiveFloat | None = None
    """memory of each job, in GB; null is the cluster's default"""
    minutes: PositiveInt = 240
    """time limit of each job, in minutes, after which it is queued again and resumes from its last epoch"""
    warning_s: PositiveInt = 90
    """how many seconds before the time limit a job is queued again"""
    time_limits: NonNegativeInt = 1000
    """how often a job can reach its time limit before it is given up"""
    queued: PositiveInt | None = None
    """largest number of jobs in the queue, for clusters with a limit (`MaxSubmitJobs`); null queues all jobs"""
    setup: tuple[str, ...] = ()
    """shell commands to run before each job, such as `module load cuda`"""
    options: dict[str, str | int | bool] = Field(default_factory=dict)
    """further options of sbatch, such as `slurm.options.qos=long`"""


class RaySettings(Section):
    """The Ray cluster, and the resources of each task."""

    address: str = "local"
    """address of the cluster: `auto` on one of its machines, or `host:6379`; `local` starts Ray on this machine"""
    cpus: PositiveInt = 1
    """cores, and threads, of each task"""
    gpus: NonNegativeFloat = 0
    """GPUs of each task; with a fraction such as 0.5, several tasks share one"""
    memory_gb: PositiveFloat | None = None
    """memory reserved for each task, in GB; null reserves none"""
    autoscaling: bool = False
    """whether the cluster can add machines; if false, requests that no machine can meet are refused"""


class EngineSettings(Section):
    """The settings of the engines other than local."""

    LISTED = "docs/scale.md lists them all."
    slurm: SlurmSettings = SlurmSettings()
    ray: RaySettings = RaySettings()


def _open_slurm(root: Path, workers: int | None, settings: EngineSettings) -> Executor:
    from knowhue.engines.slurm import SlurmJobs

    return SlurmJobs(root, workers, settings.slurm)


def _open_ray(_root: Path, workers: int | None, settings: EngineSettings) -> Executor:
    from knowhue.engines.ray import RayTasks

    return RayTasks(workers, settings.ray)


ENGINES: Mapping[str, Callable[[Path, int | None, EngineSettings], Executor]] = {
    "local": lambda _root, workers, _: LocalProcesses(workers) if workers and workers > 1 else InProcess(),
    "slurm": _open_slurm,
    "ray": _open_ray,
}
"""Functions that open an engine for a folder, and import its library only then."""


def open_engine(
    name: str = "local", root: Path = Path(), workers: int | None = None, settings: Sequence[str] = ()
) -> Executor:
    """Open the engine for the jobs of a study or an archive.

    Args:
        name: a key of `ENGINES`.
        root: the folder that the jobs write to, which has the same path on all machines of the engine.
        workers: largest number of simultaneous jobs; None is one on this machine, and no limit elsewhere.
        settings: texts like `slurm.partition=gpu`.

    Raises:
        ConfigError: an unknown engine or setting, or the engine is not available here.
        ExtraError: its library is not installed.
    """
    if name not in ENGINES:
        raise ConfigError(one_of("engine", name, ENGINES))
    values: dict[str, Any] = {}
    for text in settings:
        values = merge(values, read_setting(text, "--engine-set", "slurm.partition=gpu"))
        if values.keys() - {name}:
            wanted = "left out" if name == "local" else f"`{name}.NAME=VALUE`"
            raise ConfigError(
                f"`--engine-set` should be {wanted} with `--engine {name}`. Found `--engine-set {shown(text)}`."
            )
    with needing(f"`knowhue ... --engine {name}`", name):
        return ENGINES[name](root, workers, checked(EngineSettings, values))


def await_leftover_jobs(executor: Executor, noted: str, root: Path, report: Report) -> None:
    """Wait for a killed driver's jobs, which write to the folder, on `executor` and on the engine noted in its lock."""
    reported = list[str]()
    try:
        engines = {executor.name: executor}
        if noted not in ("", executor.name):
            engines[noted] = open_engine(noted, root)
        while jobs := [f"{name} {job}" for name, engine in engines.items() for job in engine.leftover_jobs()]:
            if jobs != reported:
                text = f"waiting for jobs that an earlier command has left: {few(jobs)}; cancel them to stop them"
                report({"stage": "note", "text": text})
            reported = jobs
            time.sleep(POLL_SECONDS)
    except KnowhueError as error:
        if not noted:
            raise
        raise RunError(
            f"Jobs of `{root}` may still run: a command with `--engine {noted}` was killed. {error} Or, if none runs, "
            f"remove `{root / LOCK}`."
        ) from None
    if noted:
        note_jobs(root, executor.name, [])
