"""Progress, speed and remaining time of long work, whether it counts images, frames or training steps."""

import time
from collections import deque
from typing import Any


class Pace:
    """Measures speed over the later half of its time, because the first images or steps can be the slowest."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._marks = deque([(self._started, 0)])

    def after(self, here: int, total: int, before: int = 0) -> dict[str, Any]:
        """Fields of a progress report: `here` items done now, and `before` earlier, of `total` (0 if unknown)."""
        now = time.monotonic()
        elapsed = now - self._started
        while len(self._marks) > 1 and self._marks[1][0] <= self._started + elapsed / 2:
            self._marks.popleft()
        since, first = self._marks[0]
        # at most about seventy marks, however many items there are
        if now - self._marks[-1][0] >= elapsed / 100:
            self._marks.append((now, here))
        per_second = (here - first) / max(now - since, 1e-9)
        left = (total - before - here) / per_second if total and per_second else None
        return {"done": before + here, "total": total, "per_second": per_second, "seconds_left": left}
