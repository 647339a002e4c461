"""Work that is done ahead of who waits for it, in order and in bounded memory."""

import threading
from collections.abc import Generator, Iterable
from queue import Empty, Full, Queue
from typing import Any, TypeVar

Item = TypeVar("Item")
_PATIENCE_SECONDS = 0.1


class _End:
    """What comes after the last item: nothing, or the error that ended them."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Iterable[Item], depth: int) -> Generator[Item]:
    """Make items in a thread of their own, at most `depth` of them before they are taken.

    When the generator is closed, the thread ends after the item it is at, and `items` is closed if it is a generator.

    Raises:
        BaseException: what making an item raised, after the items before it.

    >>> list(ahead(range(3), depth=1))
    [0, 1, 2]
    """
    queue: Queue[Any] = Queue(depth)
    stopped = threading.Event()
    thread = threading.Thread(target=_make, args=(items, queue, stopped), name="knowhue-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(got := queue.get(), _End):
            yield got
        if got.error is not None:
            raise got.error
    finally:
        stopped.set()
        _empty(queue)
        thread.join()


def _make(items: Iterable[Any], queue: "Queue[Any]", stopped: threading.Event) -> None:
    end = _End()
    try:
        for item in items:
            if not _put(queue, item, stopped):
                return
            del item  # a thread that waits holds nothing
    except BaseException as error:
        end = _End(error)
    finally:
        if isinstance(items, Generator):
            items.close()
        _put(queue, end, stopped)


def _put(queue: "Queue[Any]", item: Any, stopped: threading.Event) -> bool:
    while not stopped.is_set():
        try:
            queue.put(item, timeout=_PATIENCE_SECONDS)
            return True
        except Full:
            continue
    return False


def _empty(queue: "Queue[Any]") -> None:
    try:
        while True:
            queue.get_nowait()
    except Empty:
        pass
