"""Metrics for Prometheus, which hold no file names or images; and `Trimmer`, which gives memory back to the system."""

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from knowhue.serving.settings import MIB

BUCKET_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCHES = (1, 2, 4, 8, 16, 32)
OTHER = "other"
GROWN_MIB = 64
TRIM_SECONDS = 1.0
_STATM = Path("/proc/self/statm")


class Monitor:
    """The metrics of a server, in their own registry, because all servers of a process share the library's.

    >>> monitor = Monitor()
    >>> monitor.refused.labels("size").inc()
    >>> b'knowhue_refused_total{reason="size"} 1.0' in monitor.text()
    True
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.paths: frozenset[str] = frozenset()
        """paths of the server's routes"""
        counter, gauge = partial(Counter, registry=self._registry), partial(Gauge, registry=self._registry)
        histogram = partial(Histogram, registry=self._registry)
        seconds = partial(histogram, buckets=BUCKET_SECONDS)
        self.refused = counter("knowhue_refused", "Requests refused, by reason.", ["reason"])
        self.held = gauge("knowhue_held_bytes", "Uploads, and answers that are not read yet.")
        self.queue = gauge("knowhue_queue_length", "Requests accepted.", ["model"])
        self._underway = gauge("knowhue_requests_underway", "Requests being answered.")
        self._requests = counter("knowhue_requests", "Requests by route and status.", ["route", "status"])
        self._seconds = seconds("knowhue_request_seconds", "From first byte to last answer.", ["route"])
        self._stages = seconds("knowhue_stage_seconds", "Decode, predict a batch, paint.", ["model", "stage"])
        batches = partial(histogram, buckets=BATCHES)
        self._batches = batches("knowhue_batch_images", "Images that the network saw together.", ["model"])
        ProcessCollector(registry=self._registry)

    @contextmanager
    def timing(self, scope: Mapping[str, Any], status: Callable[[], int]) -> Iterator[None]:
        """Count and time a request by its route; unknown paths share one label, so that clients cannot add labels."""
        started = time.perf_counter()
        with self._underway.track_inprogress():
            try:
                yield
            finally:
                # FastAPI sets the route; a request that was refused before counts under its path if that is a route
                known = scope["path"] if scope["path"] in self.paths else OTHER
                route = getattr(scope.get("route"), "path", None) or known
                self._requests.labels(route, str(status() or "none")).inc()
                self._seconds.labels(route).observe(time.perf_counter() - started)

    def observe(self, model: str, stage: str, value: float) -> None:
        """Record what a model's batcher reports: the seconds of a stage, or for `batch` the number of images."""
        if stage == "batch":
            self._batches.labels(model).observe(value)
        else:
            self._stages.labels(model, stage).observe(value)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class Trimmer:
    """Gives memory back to the system when called, if the process has grown by `GROWN_MIB` since the last time.

    Batches of varying shapes fragment the C library's heap: between what torch keeps for each shape (its compiled
    kernels) lie freed tensors of others, too small to be used again. After 400 batches of random shapes, 670 of 1,670
    MiB were such fragments. A call that trims takes about 10 ms. Without Linux and glibc it does nothing.
    """

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
        self._least = resident_bytes() if self._trim else 0
        self._next = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if self._trim is None or now < self._next:
            return
        self._next = now + TRIM_SECONDS
        if resident_bytes() > self._least + GROWN_MIB * MIB:
            self._trim(0)
            self._least = resident_bytes()


def resident_bytes() -> int:
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
