"""Memory that is free goes back to the system, and only then when it is worth it."""

import pytest

from knowhue.serving import memory
from knowhue.serving.memory import MIB, Trimmer, resident_bytes


@pytest.fixture
def trimmer() -> Trimmer:
    made = Trimmer()
    if made._trim is None:
        pytest.skip("needs Linux and glibc")
    return made


def test_what_was_freed_between_what_is_kept_goes_back(trimmer: Trimmer):
    """100 MiB in pieces that the C library keeps on its heap, every second one freed."""
    pieces = [bytes([1]) * 100_000 for _ in range(1000)]
    full = resident_bytes()
    del pieces[:-1:1]
    trimmer()
    assert full - resident_bytes() > 60 * MIB


def test_it_is_not_done_for_little_nor_all_the_time(trimmer: Trimmer, monkeypatch: pytest.MonkeyPatch):
    calls: list[int] = []
    size = [100 * MIB]
    monkeypatch.setattr(memory, "resident_bytes", lambda: size[0])
    now = [0.0]
    monkeypatch.setattr(memory.time, "monotonic", lambda: now[0])
    trimmer._trim, trimmer._least = calls.append, size[0]
    for grown, later, expected in ((63, 2, 0), (65, 2, 1), (400, 0.5, 1), (400, 2, 2), (401, 2, 2)):
        size[0], now[0] = (100 + grown) * MIB, now[0] + later
        trimmer()
        assert len(calls) == expected
