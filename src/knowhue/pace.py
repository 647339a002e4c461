"""How far long work is, how fast it goes and what it will still take: of images, frames and steps of training alike."""

import time
from collections import deque
from typing import Any


class Pace:
    """By the later half of the time since this was made, for the first images or steps may be the slowest."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._marks = deque([(self._started, 0)])

    def after(self, here: int, total: int, before: int = 0) -> dict[str, Any]:
        """What is to be reported when `here` are done, and `before` by earlier runs, of `total`; 0 if not known."""
        now = time.monotonic()
        elapsed = now - self._started
        while len(self._marks) > 1 and self._marks[1][0] <= self._started + elapsed / 2:
            self._marks.popleft()
        since, first = self._marks[0]
        # some seventy are enough, however many images there are
        if now - self._marks[-1][0] >= elapsed / 100:
            self._marks.append((now, here))
        per_second = (here - first) / max(now - since, 1e-9)
        left = (total - before - here) / per_second if total and per_second else None
        return {"done": before + here, "total": total, "per_second": per_second, "seconds_left": left}
