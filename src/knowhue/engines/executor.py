"""What an engine does: runs jobs, each once its needs are met. Which one does is chosen by `--engine`.

The simplest is this process, then several of this machine, each with its share of the threads.
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

from knowhue.config import Count, CountOrNone, NotNegative, Positive, Section
from knowhue.errors import ConfigError, KnowhueError, RunError, few, needing, one_of
from knowhue.locks import LOCK, note_jobs
from knowhue.presets import checked, merge, read_setting
from knowhue.runs import Report, ShareOut

POLL_SECONDS = 5.0


class Job(NamedTuple):
    """A piece of work that may be run again: what it did before lies in files, and is not repeated.

    So an engine need not know how far a job is. Whatever is lost, a process or a machine, the same job is run again;
    only one driver at a time hands out the jobs of a folder.
    """

    id: str
    """names the same work in every call; of several jobs with one id the first is run"""
    run: Callable[[], object]
    """does it. Engines that use other processes pickle it."""
    needs: tuple[str, ...] = ()
    """ids of the jobs that must have ended before"""


class Executor(Protocol):
    """Runs jobs; scheduling, placement and retries are its own."""

    name: str
    """as `--engine` calls it"""
    threads: int | None
    """of each job; None where a job has those of this process"""
    is_elsewhere: bool
    """whether jobs may run on other machines, which may compute otherwise than this one"""

    def left(self) -> list[str]:
        """Ids of jobs that a killed driver of the folder has left waiting or running; `RunError` if nobody answers."""
        return []

    def execute(self, jobs: Sequence[Job], watch: Callable[[], None] = lambda: None) -> None:
        """Run jobs, and return when all have ended.

        Args:
            jobs: in the order in which they are wanted; needs come before what needs them.
            watch: called every few seconds while jobs run elsewhere, or after each one here, and after the last one.

        Raises:
            KnowhueError: the first that a job raised, or the engine lost a job for good. What runs is stopped, what
                waits is not begun, and what has ended is kept: the same call goes on.
        """


class InProcess(Executor):
    """Runs jobs one after another, here, where each reports its own progress."""

    name = "local"
    threads = None
    is_elsewhere = False

    def execute(self, jobs: Sequence[Job], watch: Callable[[], None] = lambda: None) -> None:
        for job in each_once(jobs):
            job.run()
            watch()


def share_out(executor: Executor, name: str) -> ShareOut | None:
    """What has pieces of work done that do not need each other, as jobs; None where this process does all work."""
    if isinstance(executor, InProcess):
        return None

    def share(pieces: Sequence[Callable[[int | None], object]], watch: Callable[[], None]) -> None:
        jobs = [
            Job(f"{name}-{number}", partial(piece, executor.threads)) for number, piece in enumerate(pieces)
        ]
        executor.execute(jobs, watch)

    return share


def each_once(jobs: Iterable[Job]) -> list[Job]:
    found: dict[str, Job] = {}
    for job in jobs:
        found.setdefault(job.id, job)
    return list(found.values())


def keep_busy(
    jobs: Iterable[Job],
    places: int,
    submit: Callable[[Job], Future[object]],
    result: Callable[[Future[object]], object],
    watch: Callable[[], None],
) -> None:
    """Keep an engine's places filled with the first job whose needs are met, until all have ended."""
    waiting = {job.id: job for job in each_once(jobs)}
    running: dict[Future[object], str] = {}
    ended: set[str] = set()
    while waiting or running:
        ready = [job for job in waiting.values() if ended.issuperset(job.needs)]
        # no more than can run: what is submitted can no longer give way to an earlier job that becomes ready
        for job in ready[: places - len(running)]:
            running[submit(job)] = waiting.pop(job.id).id
        done, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
        for future in done:
            result(future)
            ended.add(running.pop(future))
        watch()


# what the cell of a study imports, torch among it; kornia once it has images
_PRELOADED = ("knowhue.cells", "knowhue.training.run", "kornia.color")


class LocalProcesses(Executor):
    """Keeps several processes busy with the first job whose needs are met."""

    name = "local"
    is_elsewhere = False

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.threads = max(1, (os.cpu_count() or 1) // workers)

    def execute(self, jobs: Sequence[Job], watch: Callable[[], None] = lambda: None) -> None:
        """See `Executor`; a worker that died is a `RunError`."""
        context = _context()
        # workers are all begun alike, so each takes its number, and by it a GPU, from a queue
        slots = context.Queue()
        for slot in range(self.workers):
            slots.put(slot)
        with ProcessPoolExecutor(self.workers, context, _begin_worker, (slots,)) as pool:
            try:
                keep_busy(jobs, self.workers, lambda job: pool.submit(job.run), Future.result, watch)
            except BaseException as error:
                # shutdown drops what waits and forgets its processes, but lets running jobs end, which may take hours
                processes = list((pool._processes or {}).values())
                pool.shutdown(wait=False, cancel_futures=True)
                for process in processes:
                    process.terminate()
                for process in processes:
                    process.join()
                if not isinstance(error, BrokenProcessPool):
                    raise
                raise RunError(
                    "A worker was killed, most likely for lack of memory. What has ended is kept: run the same command "
                    "again, perhaps with fewer --workers."
                ) from None


def _context() -> Any:
    """How workers begin: forked from a process that has imported torch, and done nothing with it.

    Forked from this one, they would share CUDA and the threads of torch; spawned, each would import all anew.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    return context


def _begin_worker(slots: Any) -> None:
    """Give a worker its GPU, if there are several."""
    end_with_parent()
    import torch

    slot = slots.get()
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(slot % torch.cuda.device_count())


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


class SlurmSettings(Section):
    """What Slurm gives each job, and for how long."""

    partition: str | None = None
    """partition that jobs go to; the cluster's default unless given"""
    cpus: Count = 1
    """cores of a job, and its threads"""
    gpus: CountOrNone = 0
    """GPUs of a job"""
    memory_gb: Positive | None = None
    """memory of a job, GB; the cluster's default unless given"""
    minutes: Count = 240
    """time limit of a job, after which it is queued again and goes on from its last epoch"""
    warning_s: Count = 90
    """seconds before the time limit in which it is queued again"""
    time_limits: CountOrNone = 1000
    """how often a job may come to its time limit"""
    queued: Count | None = None
    """jobs that are queued at once, where the cluster limits them (`MaxSubmitJobs`); all of them unless given"""
    setup: tuple[str, ...] = ()
    """lines of shell before a job begins, such as `module load cuda`"""
    options: dict[str, str | int | bool] = Field(default_factory=dict)
    """further options of sbatch, such as `slurm.options.qos=long`"""


class RaySettings(Section):
    """Where Ray runs, and what each task needs of it."""

    address: str = "local"
    """of a cluster: `auto` on one of its machines, or `host:6379`; `local` starts one on this machine"""
    cpus: Count = 1
    """cores of a task, and its threads"""
    gpus: NotNegative = 0
    """GPUs of a task; of a part, such as 0.5, several tasks share one"""
    memory_gb: Positive | None = None
    """memory that is set apart for a task, GB; none unless given"""
    autoscaling: bool = False
    """whether machines may come that the cluster has not yet"""


class EngineSettings(Section):
    """The settings of the engines that have any."""

    slurm: SlurmSettings = SlurmSettings()
    ray: RaySettings = RaySettings()


def _open_local(_root: Path, workers: int | None, _settings: EngineSettings) -> Executor:
    return InProcess() if workers in (None, 1) else LocalProcesses(workers)


def _open_slurm(root: Path, workers: int | None, settings: EngineSettings) -> Executor:
    from knowhue.engines.slurm import SlurmJobs

    return SlurmJobs(root, workers, settings.slurm)


def _open_ray(_root: Path, workers: int | None, settings: EngineSettings) -> Executor:
    from knowhue.engines.ray import RayTasks

    return RayTasks(workers, settings.ray)


ENGINES: Mapping[str, Callable[[Path, int | None, EngineSettings], Executor]] = {
    "local": _open_local,
    "slurm": _open_slurm,
    "ray": _open_ray,
}
"""What opens an engine for a folder. The library of an engine is imported when that is opened."""


def open_engine(
    name: str = "local", root: Path = Path(), workers: int | None = None, settings: Sequence[str] = ()
) -> Executor:
    """The engine that is to run the jobs of a study or an archive.

    Args:
        name: a key of `ENGINES`.
        root: the folder that they work for, which all machines of the engine see by the same path.
        workers: jobs side by side; None is one on this machine, and as many as there is room for elsewhere.
        settings: like `slurm.partition=gpu`.

    Raises:
        ConfigError: an unknown engine or setting, a setting of another engine, or there is no such engine here.
        ExtraError: its library is not installed.
    """
    if name not in ENGINES:
        raise ConfigError(one_of("engine", name, ENGINES))
    values: dict[str, Any] = {}
    for text in settings:
        nested = read_setting(text, "--engine-set", "slurm.partition=gpu")
        _require_known(name, text.partition("=")[0].strip())
        values = merge(values, nested)
    with needing(f"`knowhue ... --engine {name}`", name):
        return ENGINES[name](root, workers, checked(EngineSettings, values))


def _require_known(engine: str, key: str) -> None:
    section = EngineSettings.model_fields.get(engine)
    own = [f"{engine}.{name}" for name in type(section.default).model_fields] if section else []
    if not own:
        raise ConfigError(f"`--engine-set` should be left out with `--engine {engine}`. Found `{key}`.")
    # `options` holds what sbatch knows, and we do not
    if key not in own and not key.startswith(f"{engine}.options."):
        raise ConfigError(one_of("--engine-set", key, own))


def await_jobs(own: Executor, left: str, root: Path, report: Report) -> None:
    """Wait for jobs that a killed driver has left, with the engine `left` if it was noted: they write to the folder."""
    told = list[str]()
    try:
        engines = {own.name: own}
        if left not in ("", own.name):
            engines[left] = open_engine(left, root)
        while jobs := [f"{name} {job}" for name, engine in engines.items() for job in engine.left()]:
            if jobs != told:
                text = f"waiting for jobs that an earlier command has left: {few(jobs)}; cancel them to stop them"
                report({"stage": "note", "text": text})
            told = jobs
            time.sleep(POLL_SECONDS)
    except KnowhueError as error:
        if not left:
            raise
        raise RunError(
            f"Jobs of `{root}` may still run: a command with `--engine {left}` was killed. {error} Or, if none runs, "
            f"remove `{root / LOCK}`."
        ) from None
    if left:
        note_jobs(root, own.name, [])
