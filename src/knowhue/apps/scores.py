"""Scores in words: what was measured, in which unit, and which way is better."""

from collections.abc import Mapping

from knowhue.evaluation.metrics import METRICS

_BETTER = {"lower": "lower is better", "higher": "higher is better"}


def score_lines(scores: Mapping[str, float | None]) -> list[str]:
    """One line a score, by the names of `METRICS`."""
    return [score_line(name, value) for name, value in scores.items()]


def score_line(name: str, value: float | None, interval: tuple[float, float] | None = None) -> str:
    """Title, value with its unit, perhaps an interval, and which way is better.

    >>> score_line("ab_l1", 11.98)
    'Mean absolute error of a*b*: 11.980 CIELAB units (lower is better)'
    >>> score_line("accuracy", 0.9, (0.85, 0.935))
    'Accuracy: 90.0 % [85.0 % to 93.5 %] (higher is better)'
    """
    metric = METRICS[name]
    texts = [_number(each, metric.unit) for each in (value, *(interval or ()))]
    ends = f" [{texts[1]} to {texts[2]}]" if interval else ""
    unit = "" if metric.unit == "share" or value is None else f" {_unit(metric.unit)}"
    better = f" ({_BETTER[metric.better]})" if metric.better in _BETTER else ""
    return f"{metric.title}: {texts[0]}{unit}{ends}{better}"


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "not a number"
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.3f}"


def _unit(unit: str) -> str:
    return unit if unit.replace(" ", "").isalnum() else f"({unit})"
