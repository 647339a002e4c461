"""Begin, predict and finish many items side by side, in bounded memory: the slowest stage alone sets the pace."""

import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from knowhue.inference.folders.room import Room

_NO_MORE: Any = object()


class Stages(NamedTuple):
    """What is done to an item. `weigh` and `predict` should not fail: what they raise ends the flow.

    Attributes:
        weigh: item to the bytes that it will hold until it is finished.
        begin: item to what `predict` sees of it; called by several threads.
        predict: several of those to as many answers; called by a quarter as many threads, at least one.
        finish: item, what was begun, answer; to the result. Called by several threads.
    """

    weigh: Callable[[Any], int]
    begin: Callable[[Any], Any]
    predict: Callable[[Sequence[Any]], Sequence[Any]]
    finish: Callable[[Any, Any, Any], Any]


class Limits(NamedTuple):
    """How much a flow takes on.

    Attributes:
        threads: that begin, and as many that finish; one for each core if 0.
        batch: items that are predicted together at most; fewer are not waited for.
        held_bytes: sum of the weights of the items in the flow; a heavier item goes through alone.
    """

    threads: int = 0
    batch: int = 8
    held_bytes: int = 2 << 30


class Outcome(NamedTuple):
    """An item with its result, or with the error that beginning or finishing it raised."""

    item: Any
    result: Any = None
    error: Exception | None = None


def flow(items: Iterable[Any], stages: Stages, limits: Limits = Limits()) -> Generator[Outcome]:  # noqa: B008
    """Send items through the stages; outcomes come as they are ready, not in the order of the items.

    When `items` ends, what has begun is finished. When the generator is closed, or Ctrl-C arrives while it waits,
    every thread ends the step it is at, and none is left.

    Args:
        items: taken one at a time, when there is room.
        stages: what is done.
        limits: how much is taken on at once.

    Raises:
        Exception: what `items`, `weigh` or `predict` raised, after the outcomes that were ready.

    >>> stages = Stages(weigh=lambda n: 1, begin=float, predict=lambda x: x, finish=lambda n, x, y: x + y)
    >>> sorted(outcome.result for outcome in flow([1, 2, 3], stages))
    [2.0, 4.0, 6.0]
    """
    running = _Flow(items, stages, limits, limits.threads or _cores())
    running.start()
    try:
        while (outcome := running.outcomes.get()) is not _NO_MORE:
            yield outcome
    finally:
        running.stop()
    if running.fault is not None:
        raise running.fault


class _Job(NamedTuple):
    """An item on its way."""

    item: Any
    weight: int
    begun: Any
    answer: Any = None


class _Flow:
    """The threads of one flow, and the queues between them; what `Room` lets in bounds the queues.

    Each item is handled in a call of its own, so that a thread that waits holds no image by a forgotten name.
    """

    def __init__(self, items: Iterable[Any], stages: Stages, limits: Limits, threads: int) -> None:
        self.outcomes: SimpleQueue[Any] = SimpleQueue()
        self.fault: BaseException | None = None
        predictors = max(1, threads // 4)  # more would make smaller batches
        self._items = iter(items)
        self._stages = stages
        self._batch = limits.batch
        self._room = Room(limits.held_bytes, 4 * threads + limits.batch)
        self._closed = False
        self._lock = threading.Lock()
        self._begun: SimpleQueue[Any] = SimpleQueue()
        self._answered: SimpleQueue[Any] = SimpleQueue()
        self._threads = [
            *self._group("begin", self._begin_next, threads, self._begun, predictors),
            *self._group("predict", self._predict_next, predictors, self._answered, threads),
            *self._group("finish", self._finish_next, threads, self.outcomes, 1),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._close()
        for thread in self._threads:
            thread.join()

    def _close(self) -> None:
        self._closed = True
        self._room.close()

    def _group(
        self, name: str, step: Callable[[], bool], count: int, following: "SimpleQueue[Any]", listeners: int
    ) -> list[threading.Thread]:
        """Threads that repeat a step while it says so; the last one tells those who listen that no more will come."""
        working = [name] * count

        def run() -> None:
            try:
                while step():
                    pass
            except BaseException as error:
                self.fault = self.fault or error  # raised again by `flow`, in the caller's thread
                self._close()
            with self._lock:
                working.pop()
                is_last = not working
            for _ in range(listeners * is_last):
                following.put(_NO_MORE)

        return [
            threading.Thread(target=run, name=f"knowhue-folder-{name}", daemon=True) for _ in range(count)
        ]

    def _begin_next(self) -> bool:
        with self._lock:
            item = _NO_MORE if self._closed else next(self._items, _NO_MORE)
        if item is _NO_MORE:
            return False
        weight = self._stages.weigh(item)
        if not self._room.enter(weight):
            return False
        try:
            self._begun.put(_Job(item, weight, self._stages.begin(item)))
        except Exception as error:
            self._end(weight, Outcome(item, error=error))
        return True

    def _predict_next(self) -> bool:
        """Predict what is there, at least one and at most a batch."""
        jobs: list[_Job] = []
        more = True
        while more and len(jobs) < self._batch:
            try:
                job = self._begun.get(block=not jobs)
            except Empty:
                break
            more = job is not _NO_MORE
            jobs += [job] * more
        if jobs and not self._closed:
            answers = self._stages.predict([job.begun for job in jobs])
            for job, answer in zip(jobs, answers, strict=True):
                self._answered.put(job._replace(answer=answer))
        return more

    def _finish_next(self) -> bool:
        job = self._answered.get()
        if job is _NO_MORE:
            return False
        if not self._closed:
            try:
                outcome = Outcome(job.item, self._stages.finish(job.item, job.begun, job.answer))
            except Exception as error:
                outcome = Outcome(job.item, error=error)
            self._end(job.weight, outcome)
        return True

    def _end(self, weight: int, outcome: Outcome) -> None:
        self._room.leave(weight)
        self.outcomes.put(outcome)


def _cores() -> int:
    """That this process may use; a container or `taskset` may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
