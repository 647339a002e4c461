"""Progress: earlier work is counted but does not affect the speed, and the speed follows recent items."""

from types import SimpleNamespace

import pytest

from knowhue.pace import Pace


@pytest.mark.parametrize(
    ("here", "total", "before", "left"), [(0, 10, 0, None), (4, 10, 0, 12), (4, 10, 2, 8), (4, 0, 0, None)]
)
def test_progress_counts_what_earlier_runs_did_but_not_as_speed(monkeypatch, here, total, before, left):
    now = [100.0]
    monkeypatch.setattr("knowhue.pace.time", SimpleNamespace(monotonic=lambda: now[0]))
    pace = Pace()
    now[0] = 108.0
    event = pace.after(here, total, before)
    assert event["done"] == before + here
    assert event["total"] == total
    assert event["per_second"] == here / 8
    assert event["seconds_left"] == left


def test_the_time_left_forgets_that_the_first_were_slow(monkeypatch):
    """200 images, of which the first 5 take 10 s each and all others half a second."""
    now = [0.0]
    monkeypatch.setattr("knowhue.pace.time", SimpleNamespace(monotonic=lambda: now[0]))
    pace, errors = Pace(), []
    for done in range(1, 201):
        now[0] += 10 if done <= 5 else 0.5
        left = pace.after(done, 200)["seconds_left"]
        errors.append(left - 0.5 * (200 - done))
    assert errors[4] > 1000
    assert max(map(abs, errors[105:])) < 2  # after as long again
