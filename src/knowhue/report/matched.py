"""Both sides of a metric under one condition, paired by seed, and how such numbers are said."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from knowhue.plan import SHARES, Question
from knowhue.report.records import Run, Study, spaced, titled
from knowhue.report.tables import MISSING, ends_text
from knowhue.statistics.paired import Interval, bounded_interval, t_interval

OVER_SEEDS = "95 % interval over seeds, on these images"
QUESTION_LABELS = {"colour": "Colouring", "class": "Classification"}


class Matched(NamedTuple):
    """Both sides of one metric under one condition, one pair a seed.

    Attributes:
        question: `colour` or `class`.
        metric: what is compared, in its own unit.
        seeds: of the pairs.
        single: mean over seeds, and `multi`.
        difference: mean of multi minus single.
        interval: of it, 95 %, Student's t over seeds; None of one seed, and where a share would leave what is possible.
    """

    question: str
    metric: str
    seeds: tuple[int, ...]
    single: float
    multi: float
    difference: float
    interval: Interval | None


def matched(question: str, metric: str, pairs: Mapping[int, tuple[float, float]]) -> Matched | None:
    """Compare `(single, multi)` over the seeds that have both; None without any."""
    known = {seed: pair for seed, pair in pairs.items() if np.isfinite(pair).all()}
    if not known:
        return None
    sides = np.array(list(known.values()), float)
    gaps = sides[:, 1] - sides[:, 0]
    single, multi = sides.mean(axis=0).tolist()
    interval = bounded_interval(gaps, (-1.0, 1.0)) if metric in SHARES else t_interval(gaps)
    return Matched(question, metric, tuple(known), single, multi, float(gaps.mean()), interval)


def finished_pairs(study: Study, asked: Question) -> dict[int, tuple[Run, Run]]:
    """Return the seeds that both arms of a question finished, and their runs."""
    sides = [{run.seed: run for run in study.finished(arm)} for arm in (asked.single, asked.multi)]
    return {seed: (sides[0][seed], sides[1][seed]) for seed in sides[0] if seed in sides[1]}


def metric_label(study: Study, metric: str) -> str:
    """Return a metric's title and unit, shares in per cent."""
    about = study.metrics.get(metric, {})
    return titled(about.get("title", spaced(metric)), about.get("unit", ""))


def interval_text(level: float | None, interval: Interval | None, unit: str = "") -> str:
    """Return an interval of a difference, with as many places as the level that it is a difference from.

    >>> interval_text(0.8, (-0.01, 0.02), "share"), interval_text(12.0, None)
    ('−1.0 to +2.0', '–')
    """
    if level is None or interval is None:
        return MISSING
    return ends_text(level, interval, unit)
