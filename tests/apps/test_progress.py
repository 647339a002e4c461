"""Progress in plain lines: what is left is what the rate says."""

import io

import pytest
from rich.console import Console

from knowhue.apps.progress import Plain


@pytest.fixture
def told():
    def tell(*events):
        stream = io.StringIO()
        plain = Plain(Console(file=stream, width=200))
        for event in events:
            plain._last = -1e9  # as if the last line were a while ago
            plain(event)
        return stream.getvalue().splitlines()

    return tell


def film(done, total, per_second, seconds_left):
    counts = {"done": done, "total": total, "per_second": per_second}
    return {"stage": "film", "seconds_left": seconds_left, **counts}


def test_what_is_left_goes_with_the_rate(told):
    """Of a film whose first frames took long, and of one that an earlier run had begun."""
    lines = told(film(1, 24, 0.05, 460.0), film(23, 24, 0.8, 1.25), film(24, 24, 0.8, 0.0))
    assert "1/24 frames, 3.0 a minute  about 8 min left" in lines[0]
    assert "23/24 frames, 0.8 a second  about 1 s left" in lines[1]
    assert lines[2].endswith("24/24 frames, 0.8 a second")
    (line,) = told(film(501, 1000, 2.0, 249.5))
    assert line.endswith("501/1000 frames, 2.0 a second  about 4 min left")


def test_nothing_is_promised_of_a_film_of_unknown_length(told):
    assert told(film(1, 0, 2.0, None))[0].endswith("colouring  1 frames, 2.0 a second")
