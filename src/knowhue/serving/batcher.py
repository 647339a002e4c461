"""Requests side by side: a bounded queue, threads that decode and paint, one that shows the network several at once."""

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any, NamedTuple, TypeVar

from knowhue.errors import KnowhueError, WeightsError
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.networks.network import Answers
from knowhue.serving.asking import Ask, Ready, Reply, finish, prepare
from knowhue.serving.memory import Trimmer
from knowhue.serving.refusals import Busy, Late, Stopping
from knowhue.serving.settings import ServerSettings

Observe = Callable[[str, float], None]
"""Told what took how long, in seconds, by stage (`decode`, `predict`, `paint`), and each `batch`'s size."""

LONGEST_RETRY_SECONDS = 60
T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_SMOOTHING = 0.1


class _Job(NamedTuple):
    ask: Ask
    future: Future[Reply]
    deadline: float


class _Seen(NamedTuple):
    """A decoded job; with an answer, once the network saw it."""

    job: _Job
    ready: Ready
    answer: Answers | None = None

    @property
    def pixels(self) -> int:
        return self.ready.image.pixels[..., 0].size


class Batcher:
    """One model's requests. Every public method may be called from any thread.

    At most `queue_length` requests are in it, and about `max_pixels` decoded pixels beside those being decoded, so
    memory is bounded however large images are. A request whose future is cancelled, or whose time is up, is
    dropped before its next stage.

    Args:
        colorizer: the model.
        settings: limits.
        observe: told how long stages take.
    """

    def __init__(
        self, colorizer: Colorizer, settings: ServerSettings, observe: Observe = lambda stage, value: None
    ) -> None:
        self.colorizer = colorizer
        self.settings = settings
        self._observe = observe
        self._waiting: deque[_Job] = deque()
        self._seen: deque[_Seen] = deque()
        self._answered: deque[_Seen] = deque()
        self._changed = threading.Condition()
        self._accepted = self._decoding = self._decoded_pixels = 0
        self._seconds = 0.1  # between answers, a running mean
        self._last = 0.0
        self._is_closing = False
        self._give_back_memory = Trimmer()
        workers = settings.workers or os.cpu_count() or 1
        targets = [self._work] * workers + [self._look_at_them]
        self._threads = [
            threading.Thread(target=each, name=f"knowhue-{each.__name__}", daemon=True) for each in targets
        ]
        for thread in self._threads:
            thread.start()

    @property
    def length(self) -> int:
        """Requests that were accepted and not answered yet."""
        return self._accepted

    @property
    def is_open(self) -> bool:
        """Whether it accepts requests, when there is room."""
        return not self._is_closing

    def check(self) -> None:
        """Refuse early, before a request's image is received.

        Raises:
            Busy: the queue is full.
            Stopping: it is closing.
        """
        with self._changed:
            self._check()

    def submit(self, ask: Ask) -> Future[Reply]:
        """Accept a request; its future holds the reply, or what went wrong, and may be cancelled.

        Raises:
            Busy: the queue is full.
            Stopping: it is closing.
        """
        future: Future[Reply] = Future()
        with self._changed:
            self._check()
            self._accepted += 1
            self._waiting.append(_Job(ask, future, time.monotonic() + self.settings.request_seconds))
            self._changed.notify_all()
        return future

    def stop(self) -> None:
        """Accept no more; what was accepted is still answered."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()

    def close(self, seconds: float | None = None) -> None:
        """Stop, and wait until all that was accepted is answered, or for some time."""
        self.stop()
        until = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))

    def _check(self) -> None:
        if self._is_closing:
            raise Stopping
        if self._accepted >= self.settings.queue_length:
            self._forget_cancelled()
        if self._accepted >= self.settings.queue_length:
            workload = self._accepted * self._seconds
            raise Busy(self._accepted, min(max(1, math.ceil(workload)), LONGEST_RETRY_SECONDS))

    def _forget_cancelled(self) -> None:
        kept = [job for job in self._waiting if not job.future.cancelled()]
        self._accepted -= len(self._waiting) - len(kept)
        self._waiting = deque(kept)

    def _work(self) -> None:
        """A worker's life: paint what the network has answered, else decode what waits."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._answered or self._may_decode() or self._is_done())
                if self._answered:
                    todo: _Seen | _Job = self._answered.popleft()
                elif self._may_decode():
                    todo = self._waiting.popleft()
                    self._decoding += 1
                else:
                    return
            if isinstance(todo, _Seen):
                self._paint(todo)
            else:
                self._decode(todo)
            del todo  # an idle worker must not hold the last image

    def _may_decode(self) -> bool:
        return bool(self._waiting) and self._decoded_pixels < self.settings.max_pixels

    def _is_done(self) -> bool:
        return self._is_closing and not self._accepted

    def _decode(self, job: _Job) -> None:
        seen = None
        if self._wanted(job):
            try:
                seen = _Seen(job, self._timed("decode", self._prepare, job.ask))
            except BaseException as error:
                _fail(job, error)
        with self._changed:
            self._decoding -= 1
            if seen is None:
                self._leave()
            else:
                self._decoded_pixels += seen.pixels
                self._seen.append(seen)
            self._changed.notify_all()

    def _prepare(self, ask: Ask) -> Ready:
        return prepare(self.colorizer, ask, self.settings.max_pixels)

    def _paint(self, seen: _Seen) -> None:
        job, answer = seen.job, seen.answer
        if answer is not None and self._wanted(job):
            try:
                reply = self._timed("paint", finish, self.colorizer, job.ask, seen.ready, answer)
                _settle(job, reply)
            except BaseException as error:
                _fail(job, error)
        with self._changed:
            self._decoded_pixels -= seen.pixels
            self._leave()
            self._changed.notify_all()

    def _leave(self) -> None:
        now = time.monotonic()
        if self._accepted > 1:  # between answers under load, not between visitors
            self._seconds += _SMOOTHING * (min(now - self._last, 60.0) - self._seconds)
        self._last = now
        self._accepted -= 1

    def _look_at_them(self) -> None:
        """The predicting thread's life."""
        while True:
            group = self._next_group()
            if not group:
                return
            answered = self._predict([each for each in group if self._wanted(each.job)])
            dropped = [each for each in group if not any(each.job is done.job for done in answered)]
            with self._changed:
                self._answered.extend([*answered, *dropped])
                self._changed.notify_all()
            del group, answered, dropped
            self._give_back_memory()

    def _next_group(self) -> list[_Seen]:
        """Images of one shape, oldest first; waits a moment for more while any is being decoded."""
        with self._changed:
            self._changed.wait_for(lambda: self._seen or self._is_done())
            if not self._seen:
                return []
            shape, limit = self._seen[0].ready.seen.shape, self.settings.batch_size

            def alike() -> list[_Seen]:
                return [each for each in self._seen if each.ready.seen.shape == shape][:limit]

            def is_ready() -> bool:
                return len(alike()) >= limit or not (self._decoding or self._may_decode())

            if limit > 1:
                self._changed.wait_for(is_ready, self.settings.batch_wait_ms / 1000)
            group = alike()
            self._seen = deque(each for each in self._seen if not any(each is taken for taken in group))
            return group

    def _predict(self, group: list[_Seen]) -> list[_Seen]:
        """Answers; where a batch fails, each alone, so that one image's failure is its own."""
        if not group:
            return []
        try:
            answers = self._timed("predict", self.colorizer.predict, [each.ready.seen for each in group])
        except BaseException as error:
            if len(group) > 1:
                return [done for each in group for done in self._predict([each])]
            _fail(group[0].job, error)
            return []
        self._observe("batch", len(group))
        return [each._replace(answer=answer) for each, answer in zip(group, answers, strict=True)]

    def _wanted(self, job: _Job) -> bool:
        if time.monotonic() > job.deadline:
            _fail(job, Late(self.settings.request_seconds))
        return not job.future.done()

    def _timed(self, stage: str, function: Callable[..., T], *args: Any) -> T:
        started = time.perf_counter()
        try:
            return function(*args)
        finally:
            self._observe(stage, time.perf_counter() - started)


def _settle(job: _Job, reply: Reply) -> None:
    try:
        job.future.set_result(reply)
    except (InvalidStateError, CancelledError):
        return  # its client has gone


def _fail(job: _Job, error: BaseException) -> None:
    if isinstance(error, WeightsError):
        _LOG.error("%s", error)
    elif not isinstance(error, KnowhueError):
        _LOG.error("A request failed.", exc_info=error)
    try:
        job.future.set_exception(error)
    except (InvalidStateError, CancelledError):
        return
