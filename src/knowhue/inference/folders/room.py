"""Who may come in while others are inside: memory bounded by bytes, not by how many hold them."""

import threading


class Room:
    """Lets weights in while their sum stays within a limit; one above the limit goes in alone.

    Who waits is not overtaken, so that a heavy one comes in at last.
    """

    def __init__(self, held_bytes: int, count: int) -> None:
        self._limit = held_bytes
        self._count = count
        self._inside: list[int] = []
        self._closed = False
        self._door = threading.Lock()
        self._changed = threading.Condition()

    def enter(self, weight: int) -> bool:
        """Wait for room; False if the room was closed instead."""
        with self._door, self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(weight))
            if not self._closed:
                self._inside.append(weight)
            return not self._closed

    def leave(self, weight: int) -> None:
        """Make room."""
        with self._changed:
            self._inside.remove(weight)
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more; who waits is sent away."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, weight: int) -> bool:
        inside = self._inside
        return not inside or (len(inside) < self._count and sum(inside) + weight <= self._limit)
