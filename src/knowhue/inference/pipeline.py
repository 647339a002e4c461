"""One bounded pipeline for a folder, a video and the server: decode, predict and paint many items side by side.

Some threads decode, some predict several items at once, some paint, so the slowest stage alone sets the pace. Memory is
bounded by the bytes of the items at work, not by how many wait.
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

from knowhue.errors import KnowhueError

LONGEST_RETRY_SECONDS = 60
_SMOOTHING = 0.1
Observe = Callable[[str, float], None]
"""Called with a stage (`weigh`, `decode`, `predict`, `paint`) and its seconds, and with `batch` and its size."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Busy(KnowhueError):
    """The queue is full with `length` items that are not answered yet; there should be room in a while."""

    def __init__(self, length: int, retry_after_seconds: int) -> None:
        super().__init__(f"The queue is full with {length} items. Try again in {retry_after_seconds} s.")
        self.length = length
        self.retry_after_seconds = retry_after_seconds


class Stopping(KnowhueError):
    """The pipeline finishes what it accepted and accepts no more."""

    def __init__(self) -> None:
        super().__init__("No more is accepted: what was accepted is being finished.")


class Late(KnowhueError):
    """An item took longer than the limits allow."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"An item should be done within {seconds:g} s. It was not.")
        self.seconds = seconds


class Limits(NamedTuple):
    """How much a pipeline takes on."""

    threads: int = 0
    """that decode, and as many that paint; one for each core if 0"""
    batch: int = 8
    """items that are predicted together at most"""
    held_bytes: int = 2 << 30
    """sum of the weights of the items at work; a heavier item goes through alone"""
    predictors: int = 1
    """threads that predict; more of them make smaller batches"""
    batch_wait_seconds: float = 0.0
    """how long a batch waits for more items, while any is not decoded yet or all that paint have enough to do"""
    queue_length: int | None = None
    """items accepted and not answered yet, above which `Busy` is raised; None for no limit"""
    item_seconds: float = math.inf
    """from `submit` to the result, after which an item is dropped as `Late`"""


class Stages(NamedTuple):
    """What is done to an item; each is called by several threads."""

    weigh: Callable[[Any], int]
    """item to the bytes that it holds from decoding to painting, about"""
    decode: Callable[[Any], Any]
    """item to what `predict` sees of it"""
    predict: Callable[[Sequence[Any]], Sequence[Any]]
    """several decoded items of one shape to as many answers"""
    paint: Callable[[Any, Any, Any], Any]
    """item, decoded item and answer to the result"""
    shape: Callable[[Any], object] = lambda decoded: None
    """decoded item to what all of one batch must share"""


class ByteBudget:
    """A semaphore over bytes: weights are let in while their sum stays within a limit; a heavier one goes in alone."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._closed = False
        self._queue = threading.Lock()
        self._changed = threading.Condition()

    def acquire(self, weight: int) -> bool:
        """Wait for room; False if the budget was closed instead."""
        # one after another: otherwise light items would slip past a heavy one for ever
        with self._queue, self._changed:
            self._changed.wait_for(
                lambda: self._closed or not self._held or self._held + weight <= self._limit
            )
            if not self._closed:
                self._held += weight
            return not self._closed

    def release(self, weight: int) -> None:
        with self._changed:
            self._held -= weight
            self._changed.notify_all()

    def close(self) -> None:
        """Let nothing in any more, and send away what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class TimedFuture(Future[_Result]):
    """What will come of an item."""

    seconds = 0.0
    """that its stages took, of a prediction together with others its share"""


@dataclass(eq=False, slots=True)
class _Job:
    """An item on its way."""

    item: Any
    future: TimedFuture[Any]
    deadline: float
    weight: int = 0
    decoded: Any = None
    shape: object = None
    answer: Any = None


class Pipeline(Generic[_Item, _Result]):
    """Threads that work on what is submitted, until `close`. Every public method may be called from any thread.

    An item whose future is cancelled, or whose time is up, is dropped before its next stage. Where a batch cannot be
    predicted, its items are predicted one by one, so that each future holds its own item's failure.

    Args:
        stages: what is done to an item.
        limits: how much is taken on at once.
        observe: called after every stage with its seconds.
        after_batch: called by a predicting thread once it holds nothing of its batch.
    """

    def __init__(
        self,
        stages: Stages,
        limits: Limits = Limits(),
        observe: Observe = lambda stage, value: None,
        after_batch: Callable[[], object] = lambda: None,
    ) -> None:
        self.limits = limits
        self._stages = stages
        self._observe = observe
        self._budget = ByteBudget(limits.held_bytes)
        self._waiting: deque[_Job] = deque()
        self._decoded: deque[_Job] = deque()
        self._answered: deque[_Job] = deque()
        self._changed = threading.Condition()
        self.length = 0
        """items that were accepted and not answered yet"""
        self._coming = 0  # accepted and not decoded yet
        self.is_open = True
        """whether it accepts items, when there is room"""
        self._is_aborted = False
        self._seconds = 0.1  # between results, a running mean
        self._last = 0.0
        self._painters = threads = limits.threads or usable_cores()
        self._threads: list[threading.Thread] = []
        for step, count, after in (
            (self._decode_next, threads, lambda: None),
            (self._predict_next, limits.predictors, after_batch),
            (self._paint_next, threads, lambda: None),
        ):
            for _ in range(count):
                name = f"knowhue{step.__name__}"
                self._threads.append(
                    threading.Thread(target=_repeat, args=(step, after), name=name, daemon=True)
                )
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        """Refuse early, before an item is made; errors as of `submit`."""
        limit = self.limits.queue_length
        with self._changed:
            if not self.is_open:
                raise Stopping
            if limit is None or self.length < limit:
                return
            # who has left makes room before anybody is refused
            for job in [job for job in self._waiting if job.future.cancelled()]:
                self._waiting.remove(job)
                self.length -= 1
                self._coming -= 1
            if self.length >= limit:
                workload_seconds = self.length * self._seconds
                raise Busy(self.length, min(max(1, math.ceil(workload_seconds)), LONGEST_RETRY_SECONDS))

    def submit(self, item: _Item) -> TimedFuture[_Result]:
        """Accept an item; its future holds the result, or what went wrong, and may be cancelled.

        Raises:
            Busy: the queue is full.
            Stopping: it is closing.
        """
        future: TimedFuture[_Result] = TimedFuture()
        with self._changed:
            self.check()
            self.length += 1
            self._coming += 1
            self._waiting.append(_Job(item, future, time.monotonic() + self.limits.item_seconds))
            self._changed.notify_all()
        return future

    def stop(self) -> None:
        """Accept no more; what was accepted is still answered."""
        with self._changed:
            self.is_open = False
            self._changed.notify_all()

    def close(self, seconds: float | None = None) -> None:
        """Stop, and wait until all that was accepted is answered, or for some time."""
        self.stop()
        until = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))

    def abort(self) -> None:
        """Accept no more and drop what waits; return when every thread has ended the stage it is at."""
        self._is_aborted = True
        self._budget.close()  # which alone wakes a thread that waits for room
        self.close()

    def _is_done(self) -> bool:
        return self._is_aborted or not (self.is_open or self.length)

    def _decode_next(self) -> bool:
        job = self._next(self._waiting)
        if job is None:
            return False
        job.weight = self._attempt(job, "weigh", self._stages.weigh, job.item) or 0
        # before decoding: from here on the item holds its bytes, until `_end`
        if not self._budget.acquire(job.weight):
            return False
        self._attempt(job, "decode", self._decode, job)
        with self._changed:
            self._coming -= 1
        self._pass_on(job, self._decoded)
        return True

    def _decode(self, job: _Job) -> None:
        job.decoded = self._stages.decode(job.item)
        job.shape = self._stages.shape(job.decoded)

    def _predict_next(self) -> bool:
        group = self._next_group()
        self._predict([job for job in group if self._is_wanted(job)])
        for job in group:
            self._pass_on(job, self._answered)
        return bool(group)

    def _paint_next(self) -> bool:
        job = self._next(self._answered)
        if job is None:
            return False
        painted = self._attempt(job, "paint", self._stages.paint, job.item, job.decoded, job.answer)
        with suppress(InvalidStateError):  # it failed, or is not wanted any more
            job.future.set_result(painted)
        self._end(job)
        return True

    def _next(self, queue: deque[_Job]) -> _Job | None:
        """Wait for the next job of a queue; None when none will come."""
        with self._changed:
            self._changed.wait_for(lambda: queue or self._is_done())
            return queue.popleft() if queue and not self._is_aborted else None

    def _next_group(self) -> list[_Job]:
        """Decoded jobs of one shape, oldest first; waits a moment for more while any is to come."""
        with self._changed:
            self._changed.wait_for(lambda: self._decoded or self._is_done())
            if not self._decoded or self._is_aborted:
                return []
            shape = self._decoded[0].shape

            def alike() -> list[_Job]:
                found = (job for job in self._decoded if job.shape == shape)
                return list(islice(found, self.limits.batch))

            def should_go() -> bool:
                is_needed = len(self._answered) < self._painters and not self._coming
                return is_needed or len(alike()) == self.limits.batch or self._is_aborted

            if self.limits.batch_wait_seconds:
                self._changed.wait_for(should_go, self.limits.batch_wait_seconds)
            group = alike()
            for job in group:
                self._decoded.remove(job)
            return group

    def _predict(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        started = time.perf_counter()
        try:
            answers = self._stages.predict([job.decoded for job in jobs])
            seconds = time.perf_counter() - started
            self._observe("predict", seconds)
            self._observe("batch", len(jobs))
            for job, answer in zip(jobs, answers, strict=True):
                job.answer = answer
                job.future.seconds += seconds / len(jobs)
        except BaseException as error:
            if len(jobs) == 1:
                _fail(jobs[0], error)
            else:  # each alone, so that one item's failure is its own
                for job in jobs:
                    self._predict([job])

    def _attempt(self, job: _Job, stage: str, function: Callable[..., Any], *args: Any) -> Any:
        """What a stage makes of a job; None if it fails, or is not wanted any more."""
        if not self._is_wanted(job):
            return None
        started = time.perf_counter()
        try:
            try:
                return function(*args)
            finally:
                seconds = time.perf_counter() - started
                job.future.seconds += seconds
                self._observe(stage, seconds)
        except BaseException as error:  # let out, it would end this thread, and the item were never answered
            return _fail(job, error)

    def _is_wanted(self, job: _Job) -> bool:
        if time.monotonic() > job.deadline:
            _fail(job, Late(self.limits.item_seconds))
        return not job.future.done()

    def _pass_on(self, job: _Job, queue: deque[_Job]) -> None:
        if job.future.done():  # failed, late or cancelled
            self._end(job)
            return
        with self._changed:
            queue.append(job)
            self._changed.notify_all()

    def _end(self, job: _Job) -> None:
        self._budget.release(job.weight)
        now = time.monotonic()
        with self._changed:
            if self.length > 1:  # between results under load, not between visitors
                self._seconds += _SMOOTHING * (min(now - self._last, 60.0) - self._seconds)
            self._last = now
            self.length -= 1
            self._changed.notify_all()


def run(
    stages: Stages, items: Iterable[_Item], limits: Limits = Limits()
) -> Generator[tuple[_Item, TimedFuture[Any]]]:
    """Send items through a pipeline as there is room; each comes back with its future once that is done.

    They come as they are ready; with one thread a stage that is in their own order. When `items` ends, what was
    submitted is finished. When the generator is closed, or Ctrl-C arrives while it waits, every thread ends the stage
    it is at, and none is left.

    >>> stages = Stages(weigh=lambda n: 1, decode=float, predict=list, paint=lambda n, decoded, answer: n + answer)
    >>> sorted(future.result() for _, future in run(stages, [1, 2, 3]))
    [2.0, 4.0, 6.0]
    """
    pipeline: Pipeline[_Item, Any] = Pipeline(stages, limits)
    done: SimpleQueue[tuple[_Item, Any]] = SimpleQueue()
    # Enough that no stage waits for the caller, few enough that stopping early stops soon.
    window, running = 3 * (limits.threads or usable_cores()) + 2 * limits.batch, 0
    try:
        for item in items:
            future = pipeline.submit(item)
            future.add_done_callback(lambda future, item=item: done.put((item, future)))
            del item, future  # a result that is held while this waits would be beside the budget
            running += 1
            while running >= window or not done.empty():
                running -= 1
                yield done.get()
        for _ in range(running):
            yield done.get()
    finally:
        pipeline.abort()


def usable_cores() -> int:
    """Cores that this process may use; a container or `taskset` may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _repeat(step: Callable[[], bool], after: Callable[[], object]) -> None:
    """A thread's work. Each step is a call of its own, so that a thread that waits holds no item by a name."""
    while step():
        after()


def _fail(job: _Job, error: BaseException) -> None:
    with suppress(InvalidStateError):  # cancelled meanwhile: nobody waits for it
        job.future.set_exception(error)
