"""The pipeline of folders, videos, archives and the server: decode, predict and paint many items concurrently.

Each stage has its own threads, so the slowest stage sets the pace. Memory is bounded by the bytes of the items being
worked on, not by the number of waiting items.
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

from knowhue.errors import KnowhueError

LONGEST_RETRY_SECONDS = 60
_SMOOTHING = 0.1
Observe = Callable[[str, float], None]
"""Called with a stage (`weigh`, `decode`, `predict`, `paint`) and its seconds, and with `batch` and the batch size."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Busy(KnowhueError):
    """The queue is full with `length` unanswered items; there should be room after `retry_after_seconds`."""

    def __init__(self, length: int, retry_after_seconds: int) -> None:
        super().__init__(f"The queue is full with {length} items. Try again in {retry_after_seconds} s.")
        self.length = length
        self.retry_after_seconds = retry_after_seconds


class Stopping(KnowhueError):
    """The pipeline finishes the items that it accepted, and accepts no more."""

    def __init__(self) -> None:
        super().__init__("No more items are accepted, because the pipeline is stopping.")


class Late(KnowhueError):
    """An item took longer than the limits allow."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"An item took longer than the limit of {seconds:g} s.")
        self.seconds = seconds


class Limits(NamedTuple):
    """Limits of a pipeline's threads, memory, queue and time."""

    threads: int = 0
    """threads that decode, and as many that paint; 0 is one per core"""
    batch: int = 8
    """maximum number of items predicted together"""
    held_bytes: int = 2 << 30
    """maximum sum of the weights of the items being worked on; a heavier item goes through alone"""
    predictors: int = 1
    """threads that predict; more of them make batches smaller"""
    batch_wait_seconds: float = 0.0
    """maximum wait for a batch to fill, while items are not decoded yet or the painting threads have enough to do"""
    queue_length: int | None = None
    """maximum number of unanswered items, above which `Busy` is raised; None for no limit"""
    item_seconds: float = math.inf
    """maximum seconds from `submit` to the result, after which an item fails with `Late`"""


class Stages(NamedTuple):
    """The functions that a pipeline applies to an item; several threads call each of them."""

    weigh: Callable[[Any], int]
    """item -> approximate bytes that it holds from decoding to painting"""
    decode: Callable[[Any], Any]
    """item -> decoded item, the input of `predict`"""
    predict: Callable[[Sequence[Any]], Sequence[Any]]
    """decoded items of equal `shape` -> one answer each"""
    paint: Callable[[Any, Any, Any], Any]
    """item, decoded item, answer -> result"""
    shape: Callable[[Any], object] = lambda decoded: None
    """decoded item -> a value that all items of a batch must share"""


class ByteBudget:
    """A semaphore over bytes: admits weights while their sum is within a limit, and a heavier weight alone."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._closed = False
        self._queue = threading.Lock()
        self._changed = threading.Condition()

    def acquire(self, weight: int) -> bool:
        """Wait for room; return False if the budget was closed instead."""
        # one caller at a time: otherwise light items could overtake a heavy one for ever
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
        """Admit no more; waiting calls of `acquire` return False."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class TimedFuture(Future[_Result]):
    """The future result of an item, with the time that it took."""

    seconds = 0.0
    """seconds spent in its stages; of a batch's prediction, its share"""


@dataclass(eq=False, slots=True)
class _Job:
    """An item in the pipeline."""

    item: Any
    future: TimedFuture[Any]
    deadline: float
    weight: int = 0
    decoded: Any = None
    shape: object = None
    answer: Any = None


class Pipeline(Generic[_Item, _Result]):
    """Threads that process submitted items until `close`. Every public method can be called from any thread.

    An item whose future is cancelled, or whose time is up, is dropped before its next stage. If a batch cannot be
    predicted, its items are predicted one by one, so that each future holds the failure of its own item. `after_batch`
    is called by a predicting thread after it has released its batch.
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
        """number of unanswered items"""
        self._coming = 0  # number of items not decoded yet
        self.is_open = True
        """whether it accepts items"""
        self._is_aborted = False
        self._seconds = 0.1  # running mean of the time between results
        self._last = 0.0
        self._painters = threads = limits.threads or usable_cores()
        self._threads: list[threading.Thread] = []
        for step, count, after in (
            (self._decode_next, threads, lambda: None),
            (self._predict_next, limits.predictors, after_batch),
            (self._paint_next, threads, lambda: None),
        ):
            name = f"knowhue{step.__name__}"
            for _ in range(count):
                thread = threading.Thread(target=_repeat, args=(step, after), name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def check(self) -> None:
        """Raise `Busy` if the queue is full, or `Stopping`."""
        limit = self.limits.queue_length
        with self._changed:
            if not self.is_open:
                raise Stopping
            if limit is None or self.length < limit:
                return
            # remove cancelled items before refusing a new one
            for job in [job for job in self._waiting if job.future.cancelled()]:
                self._waiting.remove(job)
                self.length -= 1
                self._coming -= 1
            if self.length >= limit:
                wait_seconds = math.ceil(self.length * self._seconds)
                raise Busy(self.length, min(max(1, wait_seconds), LONGEST_RETRY_SECONDS))

    def submit(self, item: _Item) -> TimedFuture[_Result]:
        """Accept an item and return the future of its result, which can be cancelled; raises as `check`."""
        future: TimedFuture[_Result] = TimedFuture()
        with self._changed:
            self.check()
            self.length += 1
            self._coming += 1
            self._waiting.append(_Job(item, future, time.monotonic() + self.limits.item_seconds))
            self._changed.notify_all()
        return future

    def stop(self) -> None:
        """Accept no more items; accepted ones are still answered."""
        with self._changed:
            self.is_open = False
            self._changed.notify_all()

    def close(self, seconds: float | None = None) -> None:
        """Stop, and wait until all accepted items are answered, or for at most `seconds`."""
        self.stop()
        until = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))

    def abort(self) -> None:
        """Accept no more, drop waiting items, and return when every thread has ended its current stage."""
        self._is_aborted = True
        self._budget.close()  # wakes threads that wait for room
        self.close()

    def _is_done(self) -> bool:
        return self._is_aborted or not (self.is_open or self.length)

    def _decode_next(self) -> bool:
        job = self._next(self._waiting)
        if job is None:
            return False
        job.weight = self._attempt(job, "weigh", self._stages.weigh, job.item) or 0
        # before decoding, because from here to `_end` the item holds its bytes
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
        with suppress(InvalidStateError):  # the item failed or was cancelled
            job.future.set_result(painted)
        self._end(job)
        return True

    def _next(self, queue: deque[_Job]) -> _Job | None:
        """Wait for the next job of a queue; None if no more will come."""
        with self._changed:
            self._changed.wait_for(lambda: queue or self._is_done())
            return queue.popleft() if queue and not self._is_aborted else None

    def _next_group(self) -> list[_Job]:
        """Decoded jobs of one shape, oldest first; waits up to `batch_wait_seconds` for a full batch."""
        with self._changed:
            self._changed.wait_for(lambda: self._decoded or self._is_done())
            if not self._decoded or self._is_aborted:
                return []
            shape = self._decoded[0].shape

            def same_shape() -> list[_Job]:
                found = (job for job in self._decoded if job.shape == shape)
                return list(islice(found, self.limits.batch))

            def should_go() -> bool:
                is_needed = len(self._answered) < self._painters and not self._coming
                return is_needed or len(same_shape()) == self.limits.batch or self._is_aborted

            if self.limits.batch_wait_seconds:
                self._changed.wait_for(should_go, self.limits.batch_wait_seconds)
            group = same_shape()
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
            else:  # one by one, so that one item's failure does not fail the others
                for job in jobs:
                    self._predict([job])

    def _attempt(self, job: _Job, stage: str, function: Callable[..., Any], *args: Any) -> Any:
        """The result of a stage; None if it fails, or if the job was cancelled or is late."""
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
        except BaseException as error:  # otherwise this thread would end and the item would never be answered
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
            if self.length > 1:  # under load only, because idle time says nothing about speed
                self._seconds += _SMOOTHING * (min(now - self._last, 60.0) - self._seconds)
            self._last = now
            self.length -= 1
            self._changed.notify_all()


def run(
    stages: Stages, items: Iterable[_Item], limits: Limits = Limits()
) -> Generator[tuple[_Item, TimedFuture[Any]]]:
    """Send items through a pipeline, and yield each with its finished future as soon as it is ready.

    With one thread per stage the order of `items` is kept. When `items` ends, all submitted items are finished. When
    the generator is closed, or Ctrl-C arrives while it waits, every thread ends its current stage and then stops.

    >>> stages = Stages(weigh=lambda n: 1, decode=float, predict=list, paint=lambda n, decoded, answer: n + answer)
    >>> sorted(future.result() for _, future in run(stages, [1, 2, 3]))
    [2.0, 4.0, 6.0]
    """
    pipeline: Pipeline[_Item, Any] = Pipeline(stages, limits)
    done: SimpleQueue[tuple[_Item, Any]] = SimpleQueue()
    # enough that no stage waits for the caller, few enough that an early stop comes soon
    window, running = 3 * (limits.threads or usable_cores()) + 2 * limits.batch, 0
    try:
        for item in items:
            future = pipeline.submit(item)
            future.add_done_callback(lambda future, item=item: done.put((item, future)))
            del item, future  # a result held while waiting would not count towards the budget
            running += 1
            while running >= window or not done.empty():
                running -= 1
                yield done.get()
        for _ in range(running):
            yield done.get()
    finally:
        pipeline.abort()


def in_threads(work: Callable[[_Item], _Result], items: Sequence[_Item], threads: int = 0) -> list[_Result]:
    """Apply `work` to every item, several at once in at most `threads` threads, 0: one per core; results in order."""
    threads = min(threads or usable_cores(), len(items))
    if threads <= 1:  # 0 without items
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def usable_cores() -> int:
    """Number of cores that this process can use; a container or `taskset` can allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _repeat(step: Callable[[], bool], after: Callable[[], object]) -> None:
    """Run a thread's steps. Each step is a separate call, so that a waiting thread holds no item in a variable."""
    while step():
        after()


def _fail(job: _Job, error: BaseException) -> None:
    with suppress(InvalidStateError):  # cancelled meanwhile
        job.future.set_exception(error)
