"""What an engine does: runs jobs, each once its needs are met. The simplest engine is this process."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.connection import wait as wait_for
from typing import Any, NamedTuple, Protocol, TypeVar

from knowhue.errors import RunError
from knowhue.runs import ShareOut

POLL_SECONDS = 5.0


class Job(NamedTuple):
    """A piece of work that may be run again: what it did before lies in files, and is not repeated.

    So an engine need not know how far a job is. Whatever is lost, a process or a machine, the same job is run again;
    only one driver at a time hands out the jobs of a folder.

    Attributes:
        id: names the same work in every call; of several jobs with one id the first is run.
        run: does it. Engines that use other processes pickle it.
        needs: ids of the jobs that must have ended before.
    """

    id: str
    run: Callable[[], object]
    needs: tuple[str, ...] = ()


class Executor(Protocol):
    """Runs jobs; scheduling, placement and retries are its own.

    Attributes:
        name: as `--engine` calls it.
        threads: of each job; None where a job has those of this process.
        is_elsewhere: whether jobs may run on other machines, which may compute otherwise than this one.
    """

    name: str
    threads: int | None
    is_elsewhere: bool

    def left(self) -> list[str]:
        """Ids of jobs of the folder that still wait or run, of a driver that was killed; none where they end with it.

        Raises:
            RunError: the engine does not answer.
        """
        return []

    def execute(self, jobs: Sequence[Job], watch: Callable[[], None] = lambda: None) -> None:
        """Run jobs, and return when all have ended.

        Args:
            jobs: in the order in which they are wanted; needs come before what needs them.
            watch: called every few seconds while jobs run elsewhere, and after the last one.

        Raises:
            KnowhueError: the first that a job raised, or the engine lost a job for good. What runs is stopped, what
                waits is not begun, and what has ended is kept: the same call goes on.
        """
        ...


class InProcess(Executor):
    """Runs jobs one after another, here, where each reports its own progress."""

    name = "local"
    threads = None
    is_elsewhere = False

    def execute(self, jobs: Sequence[Job], watch: Callable[[], None] = lambda: None) -> None:
        """See `Executor`; `watch` is not called."""
        del watch
        for job in each_once(jobs):
            job.run()


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
    """The jobs without repeated ids."""
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


# what the cell of a study imports, torch among it
_PRELOADED = ("knowhue.training.gate", "knowhue.training.run")
_Result = TypeVar("_Result")


class LocalProcesses(Executor):
    """Keeps several processes busy with the first job whose needs are met."""

    name = "local"
    is_elsewhere = False

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.threads = max(1, (os.cpu_count() or 1) // workers)

    def execute(self, jobs: Sequence[Job], watch: Callable[[], None] = lambda: None) -> None:
        """See `Executor`.

        Raises:
            RunError: a worker died.
        """
        context = _context()
        # workers are all begun alike, so each takes its number, and by it a GPU, from a queue
        slots = context.Queue()
        for slot in range(self.workers):
            slots.put(slot)
        with ProcessPoolExecutor(self.workers, context, _begin_worker, (slots,)) as pool:
            try:
                keep_busy(
                    jobs,
                    self.workers,
                    submit=lambda job: _plainly(partial(pool.submit, job.run)),
                    result=lambda future: _plainly(future.result),
                    watch=watch,
                )
            except BaseException:
                # shutdown drops what waits and forgets its processes, but lets running jobs end, which may take hours
                processes = list((pool._processes or {}).values())
                pool.shutdown(wait=False, cancel_futures=True)
                for process in processes:
                    process.terminate()
                for process in processes:
                    process.join()
                raise


def _context() -> Any:
    """How workers begin: forked from a process that has imported torch, and done nothing with it.

    Forked from this one, they would share CUDA and the threads of torch; spawned, each would import all anew.
    """
    if "forkserver" not in get_all_start_methods():  # on Windows
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    return context


def _plainly(call: Callable[..., _Result], *args: object) -> _Result:
    """What a call to the pool returns; submitting to one that has broken fails as waiting for its jobs does."""
    try:
        return call(*args)
    except BrokenProcessPool:
        raise RunError(
            "A worker was killed, most likely for lack of memory. What has ended is kept: run the same command "
            "again, perhaps with fewer --workers."
        ) from None


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
