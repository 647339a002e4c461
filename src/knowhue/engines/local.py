"""Jobs side by side in processes of this machine, each with its share of the threads."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from knowhue.engines.executor import Executor, Job, keep_busy
from knowhue.errors import RunError

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
