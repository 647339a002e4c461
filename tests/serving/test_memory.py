"""Free memory is returned to the system if there is enough of it."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from knowhue.serving import monitoring
from knowhue.serving.monitoring import Trimmer
from knowhue.serving.settings import MIB


@pytest.fixture
def trimmer() -> Trimmer:
    made = Trimmer()
    if made._trim is None:
        pytest.skip("needs Linux and glibc")
    return made


# In a process of its own: where others freed much before, these pieces would fit into what lies free already.
GROW_AND_FREE = """
from knowhue.serving.monitoring import Trimmer, resident_bytes
from knowhue.serving.settings import MIB
trimmer = Trimmer()
pieces = [bytes([1]) * 100_000 for _ in range(1000)]
full = resident_bytes()
del pieces[:-1]
kept = resident_bytes()
trimmer()
print((full - kept) // MIB, (full - resident_bytes()) // MIB)
"""


def test_what_was_freed_below_what_is_kept_goes_back(trimmer: Trimmer):
    """100 MiB in pieces that the C library keeps on its heap, all but the last one freed."""
    done = subprocess.run([sys.executable, "-c", GROW_AND_FREE], capture_output=True, text=True, check=True)
    by_itself, in_all = map(int, done.stdout.split())
    assert by_itself < 10
    assert in_all > 60


def test_it_is_not_done_for_little_nor_all_the_time(trimmer: Trimmer, monkeypatch: pytest.MonkeyPatch):
    calls: list[int] = []
    size = [100 * MIB]
    monkeypatch.setattr(monitoring, "resident_bytes", lambda: size[0])
    now = [0.0]
    # the module's own clock: a server that still runs in this process would wait by the other one
    monkeypatch.setattr(monitoring, "time", SimpleNamespace(monotonic=lambda: now[0]))
    trimmer._trim, trimmer._least = calls.append, size[0]
    for grown, later, expected in ((63, 2, 0), (65, 2, 1), (400, 0.5, 1), (400, 2, 2), (401, 2, 2)):
        size[0], now[0] = (100 + grown) * MIB, now[0] + later
        trimmer()
        assert len(calls) == expected
