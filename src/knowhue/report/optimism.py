"""What choosing the best epoch would have added: why the last one is reported."""

from typing import NamedTuple

import numpy as np

from knowhue.report.contrasts import lower_is_better, questions
from knowhue.report.matched import OVER_SEEDS, interval_text, metric_label
from knowhue.report.records import Run, Study, Table
from knowhue.report.tables import difference, number
from knowhue.report.taught import arm_label
from knowhue.statistics.paired import Interval, t_interval


class Optimism(NamedTuple):
    """The last epoch of an arm beside its best one, on the validation part, mean over seeds.

    Attributes:
        arm: one of the study's.
        metric: a primary one that the arm has.
        seeds: whose log has it in the last epoch.
        last: score of the last epoch, `best` of each seed's best one.
        optimism: how much better best is than last; never below 0.
        interval: of it, 95 %, Student's t over seeds; None of one seed.
        best_epochs: which one was best, by seed; the first of several.
    """

    arm: str
    metric: str
    seeds: tuple[int, ...]
    last: float
    best: float
    optimism: float
    interval: Interval | None
    best_epochs: tuple[int, ...]


def optimism(study: Study) -> list[Optimism]:
    """Return the optimism of every arm and each of its primary metrics, over the finished seeds.

    All epochs of a run's log compete, those of the heads too. A run whose last epoch has no score is left out.
    """
    metrics = dict.fromkeys(asked.metric for asked in questions(study).values())
    rows = [_row(study, arm, metric) for arm in study.runs for metric in metrics]
    return [row for row in rows if row is not None]


def optimism_rows(study: Study) -> Table:
    """Return `optimism` as text; header first."""
    rows: Table = [
        [
            "Arm",
            "Metric",
            "Last epoch",
            "Best epoch",
            "Optimism",
            OVER_SEEDS,
            "Best at",
            "Seeds",
        ]
    ]
    for row in optimism(study):
        unit = study.metrics.get(row.metric, {}).get("unit", "")
        first, latest = min(row.best_epochs), max(row.best_epochs)
        rows.append([
            arm_label(study, row.arm),
            metric_label(study, row.metric),
            number(row.last, unit),
            number(row.best, unit),
            difference(row.last, row.last + row.optimism, unit),
            interval_text(row.last, row.interval, unit),
            f"epoch {first}" if first == latest else f"epochs {first} to {latest}",
            len(row.seeds),
        ])  # fmt: skip
    return rows


def _row(study: Study, arm: str, metric: str) -> Optimism | None:
    sign = -1 if lower_is_better(study, metric) else 1
    found = {run.seed: each for run in study.finished(arm) if (each := _last_and_best(run, metric, sign))}
    if not found:
        return None
    last, best, epochs = zip(*found.values(), strict=True)
    gain = sign * (np.array(best) - np.array(last))
    return Optimism(
        arm, metric, tuple(found), float(np.mean(last)), float(np.mean(best)), float(gain.mean()),
        t_interval(gain), epochs,
    )  # fmt: skip


def _last_and_best(run: Run, metric: str, sign: int) -> tuple[float, float, int] | None:
    """Return the scores of the last and of the best epoch and which that is; None without a last one."""
    scores = [(entry.get("validation", {}).get(metric), entry["epoch"]) for entry in run.log]
    known = [(score, epoch) for score, epoch in scores if score is not None and np.isfinite(score)]
    if not known or known[-1][1] != scores[-1][1]:
        return None
    best, epoch = max(known, key=lambda each: round(sign * each[0], 12))  # a tie is no later best
    return known[-1][0], best, epoch
