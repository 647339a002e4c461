"""What a server counts for Prometheus, never a name or an image; and its memory, which it gives back when it can."""

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from knowhue.serving.settings import MIB

__all__ = ["CONTENT_TYPE_LATEST", "Monitor", "Trimmer"]

BUCKET_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCHES = (1, 2, 4, 8, 16, 32)
OTHER = "other"
GROWN_MIB = 64
TRIM_SECONDS = 1.0
_STATM = Path("/proc/self/statm")


class Monitor:
    """One server's metrics, in a registry of its own.

    >>> monitor = Monitor()
    >>> monitor.refused("size")
    >>> b'knowhue_refused_total{reason="size"} 1.0' in monitor.text()
    True
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()  # the library's own would be shared by all servers of a process
        registry = self.registry
        self._requests = Counter(
            "knowhue_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "knowhue_request_seconds",
            "From the first byte to the last answer.",
            ["route"],
            buckets=BUCKET_SECONDS,
            registry=registry,
        )
        self._underway = Gauge("knowhue_requests_underway", "Requests being answered.", registry=registry)
        self._refused = Counter(
            "knowhue_refused", "Requests refused, by reason.", ["reason"], registry=registry
        )
        self._stages = Histogram(
            "knowhue_stage_seconds",
            "Decoding, predicting a batch, painting.",
            ["model", "stage"],
            buckets=BUCKET_SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "knowhue_batch_images",
            "Images that the network saw together.",
            ["model"],
            buckets=BATCHES,
            registry=registry,
        )
        self._held = Gauge(
            "knowhue_held_bytes", "Uploads, and answers that are not read yet.", registry=registry
        )
        self._queue = Gauge("knowhue_queue_length", "Requests accepted.", ["model"], registry=registry)
        ProcessCollector(registry=registry)

    @contextmanager
    def timing(self, scope: Mapping[str, Any], status: Callable[[], int]) -> Iterator[None]:
        """Count and time a request. Routes are the server's own names, so that callers cannot make up labels."""
        started = time.perf_counter()
        with self._underway.track_inprogress():
            try:
                yield
            finally:
                # set by FastAPI once a route fits; what was refused before has none
                route = getattr(scope.get("route"), "path", None) or OTHER
                self._requests.labels(route, str(status() or "none")).inc()
                self._seconds.labels(route).observe(time.perf_counter() - started)

    def refused(self, reason: str) -> None:
        """Count a refusal."""
        self._refused.labels(reason).inc()

    def observer(self, model: str) -> Callable[[str, float], None]:
        """What one model's batcher calls after every stage."""

        def observe(stage: str, value: float) -> None:
            if stage == "batch":
                self._batches.labels(model).observe(value)
            else:
                self._stages.labels(model, stage).observe(value)

        return observe

    def watch_held(self, size: Callable[[], int]) -> None:
        """Ask for what is held whenever the metrics are read."""
        self._held.set_function(size)

    def watch_queue(self, model: str, length: Callable[[], int]) -> None:
        """Ask for a queue's length whenever the metrics are read."""
        self._queue.labels(model).set_function(length)

    def text(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return generate_latest(self.registry)


class Trimmer:
    """Called now and then, gives memory back to the system if the process has grown by `GROWN_MIB` since the last time.

    Batches of ever new shapes leave the C library's heap in pieces: between what torch keeps for a shape (its compiled
    kernels) lie the freed tensors of others, too small for the next ones. Of 1,670 MiB after 400 batches of random
    shapes, 670 were such pieces.

    Costs some 10 ms when it does. Only Linux with glibc has what it takes; elsewhere it does nothing.
    """

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
        self._least = resident_bytes() if self._trim else 0
        self._next = 0.0

    def __call__(self) -> None:
        """Give back, if it is time and worth it."""
        now = time.monotonic()
        if self._trim is None or now < self._next:
            return
        self._next = now + TRIM_SECONDS
        if resident_bytes() > self._least + GROWN_MIB * MIB:
            self._trim(0)
            self._least = resident_bytes()


def resident_bytes() -> int:
    """Memory of this process, as Linux counts it."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
