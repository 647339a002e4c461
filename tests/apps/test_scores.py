"""Scores in words: every metric has a title, its unit and its direction."""

import pytest

from knowhue.apps.printing import score_line, score_lines
from knowhue.evaluation.metrics import METRICS


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_told_with_unit_and_direction(name):
    metric = METRICS[name]
    line = score_line(name, 0.5, (0.25, 0.75))
    assert line.startswith(f"{metric.title}: ")
    assert name not in line.split(": ", 1)[1]
    assert ("lower is better" in line, "higher is better" in line) == (
        metric.better == "lower",
        metric.better == "higher",
    )
    assert ("50.0 % [25.0 % to 75.0 %]" if metric.unit == "share" else metric.unit) in line


def test_what_is_no_number_has_no_unit():
    assert score_lines({"ab_l1": None}) == ["Mean absolute error of a*b*: not a number (lower is better)"]
