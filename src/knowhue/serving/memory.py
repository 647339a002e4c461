"""Giving memory back to the system that the process no longer uses.

Batches of ever new shapes leave the C library's heap in pieces: between what torch keeps for a shape (its compiled
kernels) lie the freed tensors of others, too small for the next ones. Of 1,670 MiB after 400 batches of random shapes,
670 were such pieces.
"""

import ctypes
import os
import sys
import time
from pathlib import Path

MIB = 1 << 20
GROWN_MIB = 64
SECONDS = 1.0
_STATM = Path("/proc/self/statm")


class Trimmer:
    """Called now and then, gives back what is free, if the process has grown by `GROWN_MIB` since the last time.

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
        self._next = now + SECONDS
        if resident_bytes() > self._least + GROWN_MIB * MIB:
            self._trim(0)
            self._least = resident_bytes()


def resident_bytes() -> int:
    """Memory of this process, as Linux counts it."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
