"""Single-task against multi-task at equal images seen, at equal training time, and as one model against two."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.plan import Question
from knowhue.report.contrasts import primary, questions
from knowhue.report.matched import (
    OVER_SEEDS,
    QUESTION_LABELS,
    Matched,
    finished_pairs,
    interval_text,
    matched,
    metric_label,
)
from knowhue.report.records import Run, Study, Table, mean
from knowhue.report.tables import MISSING, bounds_text, difference, duration, number
from knowhue.report.verdicts import verdicts


class TimeMatched(NamedTuple):
    """A comparison at equal training time.

    Attributes:
        match: the scores when the shorter of the two trainings ended.
        seconds: mean over seeds of that time; `single_seconds` and `multi_seconds`, of the whole trainings.
        epochs: mean epochs that multi-task had done by then, of `of`.
        multi_cut: seeds in which multi-task was the longer one.
    """

    match: Matched
    seconds: float
    single_seconds: float
    multi_seconds: float
    epochs: float
    of: float
    multi_cut: int


class Deployment(NamedTuple):
    """Both tasks served by one multi-task model, and by one single-task model each; pairs are (one, several).

    Attributes:
        seeds: that all the arms finished.
        encoders: run on an image for all tasks, and `heads`.
        seconds: of training, mean over seeds.
        matches: the primary metrics, at the end of training.
    """

    seeds: tuple[int, ...]
    encoders: tuple[int, int]
    heads: tuple[int, int]
    seconds: tuple[float | None, float | None]
    matches: list[Matched]


def equal_images(study: Study) -> list[Matched]:
    """Return both questions as reported: every arm of a seed saw the same batches, for the same epochs."""
    found = {name: primary(study, name) for name in questions(study)}
    rows = [
        matched(name, each.metric, dict(zip(each.seeds, map(tuple, each.scores.tolist()), strict=True)))
        for name, each in found.items()
        if each is not None
    ]
    return [row for row in rows if row is not None]


def equal_time(study: Study) -> list[TimeMatched]:
    """Return both questions at the moment at which the shorter of the two trainings ended, seed by seed.

    A run's clock is the sum of `seconds` over its log, validation included, the heads counted as the log has them
    (multi-task's are both tasks' together). Time spent on gradient diagnostics is taken out: it trains nothing.
    Approximated: the score between two epochs is interpolated linearly; the training that is cut short had its
    learning rate planned for longer, so it stands at a disadvantage that a run planned for that time would not
    have; features of the frozen encoder are cached once for all arms and counted for none; and seconds are of this
    machine, with whatever ran beside. A seed whose first epoch took longer than that time is left out.
    """
    rows = [_time_matched(study, name, asked) for name, asked in questions(study).items()]
    return [row for row in rows if row is not None]


def deployment(study: Study) -> Deployment | None:
    """Return one multi-task model beside one single-task model for each task; None where an arm is missing.

    On either side each task's head is trained once on the frozen encoder. Approximated: seconds as in `equal_time`,
    one training after the other; what an image costs is counted in networks, not measured.
    """
    asked = questions(study)
    by_task = {name: finished_pairs(study, each) for name, each in asked.items()}
    seeds = tuple(sorted(set.intersection(*map(set, by_task.values())))) if by_task else ()
    if not seeds or len({each.multi for each in asked.values()}) > 1:
        return None
    trainings = [[pairs[seed] for pairs in by_task.values()] for seed in seeds]
    one = mean([_seconds(pairs[0][1]) for pairs in trainings])
    several = mean([_sum([_seconds(single) for single, _ in pairs]) for pairs in trainings])
    rows = [
        matched(name, each.metric, {seed: _scores(by_task[name][seed], each.metric) for seed in seeds})
        for name, each in asked.items()
    ]
    heads = (len(asked), len(asked))
    return Deployment(seeds, (1, len(asked)), heads, (one, several), [row for row in rows if row is not None])


def equal_images_rows(study: Study) -> Table:
    """Return `equal_images` as text, with the interval that the verdict quotes; header first."""
    found = {row.question: row for row in equal_images(study)}
    judged = verdicts(study)
    rows: Table = [["Question", "Metric", "Single-task", "Multi-task", "Difference", "Interval", "Seeds"]]
    for name, asked in questions(study).items():
        cells = _cells(study, found.get(name))
        contrast, quoted = judged[name].found, judged[name].quoted
        if contrast is not None and quoted is not None:
            cells[3] = bounds_text(contrast, quoted, study.metrics.get(asked.metric, {}).get("unit", ""))
        rows.append([QUESTION_LABELS.get(name, name), metric_label(study, asked.metric), *cells])
    return rows


def equal_time_rows(study: Study) -> Table:
    """Return `equal_time` as text; header first."""
    found = {row.match.question: row for row in equal_time(study)}
    rows: Table = [
        ["Question", "Metric", "Single-task", "Multi-task", "Difference", OVER_SEEDS, "Seeds",
         "Time", "Single-task in full", "Multi-task in full", "Multi-task epochs by then"],
    ]  # fmt: skip
    for name, asked in questions(study).items():
        row = found.get(name)
        times = (row.seconds, row.single_seconds, row.multi_seconds) if row else (None,) * 3
        epochs = f"{row.epochs:.1f} of {row.of:g}" if row else MISSING
        cells = [*_cells(study, row.match if row else None), *map(duration, times), epochs]
        rows.append([QUESTION_LABELS.get(name, name), metric_label(study, asked.metric), *cells])
    return rows


def deployment_rows(study: Study) -> Table:
    """Return `deployment` as text; header first, and nothing else where an arm is missing."""
    rows: Table = [["", "One multi-task model", "One model a task", "Difference, one minus several"]]
    found = deployment(study)
    if found is None:
        return rows
    counts = (("Encoders run on an image", found.encoders), ("Heads run on an image", found.heads))
    rows += [[title, one, several, _signed(one - several)] for title, (one, several) in counts]
    one, several = found.seconds
    share = MISSING if not one or not several else f"{100 * (one / several - 1):+.0f} %".replace("-", "−")
    rows.append(["Training", duration(one), duration(several), share])
    for each in found.matches:
        unit = study.metrics.get(each.metric, {}).get("unit", "")
        both = (number(each.multi, unit), number(each.single, unit))
        rows.append([metric_label(study, each.metric), *both, difference(each.single, each.multi, unit)])
    return rows


def clock(run: Run) -> NDArray[np.float64]:
    """Return the training seconds behind a run after each epoch; empty where one is not known."""
    spent = [entry.get("seconds") for entry in run.log]
    if not spent or None in spent:
        return np.zeros(0)
    looked = [sum(each.get("seconds") or 0.0 for each in entry.get("diagnostics") or ()) for entry in run.log]
    return np.cumsum(np.maximum(np.array(spent, float) - np.array(looked, float), 0.0))


def _time_matched(study: Study, name: str, asked: Question) -> TimeMatched | None:
    pairs, times = {}, []
    for seed, runs in finished_pairs(study, asked).items():
        clocks = [clock(run) for run in runs]
        if not all(map(len, clocks)):
            continue
        ends = [float(each[-1]) for each in clocks]
        scores = [
            _score_at(run, each, asked.metric, min(ends)) for run, each in zip(runs, clocks, strict=True)
        ]
        if None not in scores:
            pairs[seed] = tuple(scores)
            epochs = float(np.interp(min(ends), [0.0, *clocks[1]], range(len(clocks[1]) + 1)))
            times.append((min(ends), *ends, epochs, len(clocks[1]), ends[1] > ends[0]))
    match = matched(name, asked.metric, pairs)
    if match is None:
        return None
    *means, _ = np.mean(times, axis=0).tolist()
    return TimeMatched(match, *means, multi_cut=sum(cut for *_, cut in times))


def _score_at(run: Run, seconds: NDArray[np.float64], metric: str, time: float) -> float | None:
    """Validation score at a time, on the line between two epochs; None before the first or after the last."""
    scores = np.array([entry.get("validation", {}).get(metric) for entry in run.log], float)  # None is NaN
    known = np.isfinite(scores)
    if not known.any() or not seconds[known][0] <= time <= seconds[known][-1]:
        return None
    return float(np.interp(time, seconds[known], scores[known]))


def _seconds(run: Run) -> float | None:
    found = clock(run)
    return float(found[-1]) if len(found) else None


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _scores(runs: tuple[Run, Run], metric: str) -> tuple[float, float]:
    """Both scores; NaN where there is none."""
    single, multi = (np.nan if (score := run.metric(metric)) is None else score for run in runs)
    return single, multi


def _cells(study: Study, row: Matched | None) -> list[str | int]:
    if row is None:
        return [MISSING] * 4 + [0]
    unit = study.metrics.get(row.metric, {}).get("unit", "")
    return [
        number(row.single, unit),
        number(row.multi, unit),
        difference(row.single, row.multi, unit),
        interval_text(row.single, row.interval, unit),
        len(row.seeds),
    ]


def _signed(value: int) -> str:
    return f"{value:+d}".replace("-", "−") if value else "0"
