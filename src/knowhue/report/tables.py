"""The tables of the page, as rows of ready text: scores, classes, images, settings, time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from knowhue.report.chance import Bounds
from knowhue.report.classes import class_scores
from knowhue.report.contrasts import Contrast, contrast, questions
from knowhue.report.records import Row, Study, Table, mean, spaced, titled
from knowhue.report.results import timing
from knowhue.report.secondary import Secondary, metric_names, secondaries
from knowhue.report.signs import signed
from knowhue.report.taught import arm_label, sides
from knowhue.report.verdicts import verdicts
from knowhue.statistics.paired import Interval

MISSING = "–"
BASELINE_LABELS = {"real": "other real images"}
_ARROWS = {"lower": "↓", "higher": "↑"}


def score_tables(study: Study) -> dict[str, dict[str, Any]]:
    """Return for each task its metrics, single-task beside multi-task beside trivial baselines."""
    names = {task: metric_names(study, sides(study, task).single) for task in ("colour", "class")}
    for name in metric_names(study, sides(study, "colour").multi or sides(study, "class").multi):
        if name not in (*names["colour"], *names["class"]):  # a metric of an arm that was not trained
            task = study.metrics.get(name, {}).get("task")
            names["class" if task == "class" else "colour"].append(name)
    return {task: _score_table(study, task, found) for task, found in names.items() if found}


def number(value: float | None, unit: str = "") -> str:
    """Return a number as text, shares in per cent.

    >>> number(0.8412, "share"), number(13.2071), number(0.5123), number(None)
    ('84.1', '13.21', '0.512', '–')
    """
    return MISSING if value is None else _fixed(value, unit, value)


def difference(single: float | None, multi: float | None, unit: str = "") -> str:
    """Return multi minus single as text, signed, with as many places as the numbers it compares.

    >>> difference(12.01, 11.85), difference(0.8, 0.82, "share"), difference(0.8, 0.8, "share")
    ('−0.16', '+2.0', '0.0')
    """
    if single is None or multi is None:
        return MISSING
    return _signed([multi - single], unit, single)[0]


def ends_text(level: float, interval: Interval, unit: str = "") -> str:
    """Return an interval of a difference, with at least as many places as the level that it is a difference from.

    >>> ends_text(0.8, (-0.01, 0.02), "share"), ends_text(12.0, (0.002, 0.03))
    ('−1.0 to +2.0', '+0.002 to +0.030')
    """
    return " to ".join(_signed(interval, unit, level))


def _signed(values: Sequence[float], unit: str, like: float) -> list[str]:
    scale = 100 if unit == "share" else 1
    return signed([scale * value for value in values], _places(unit, like))


def _places(unit: str, like: float) -> int:
    return 1 if unit == "share" else 3 if abs(like) < 1.5 else 2 if abs(like) < 100 else 1


def _fixed(value: float, unit: str, like: float) -> str:
    return f"{100 * value if unit == 'share' else value:.{_places(unit, like)}f}".replace("-", "−")


def class_table(study: Study) -> Table:
    """Return accuracy and error of each class, single-task and multi-task, means over finished seeds."""
    both = (("class", "accuracy"), ("colour", "ab_l1"))
    scores = [class_scores(study, arm, name) for task, name in both for arm in sides(study, task)]
    runs = [run for arm in study.runs for run in study.finished(arm)]
    counts = runs[0].scores.get("per_class", {}) if runs else {}
    rows: Table = []
    for place, name in enumerate(study.classes):
        cells = [
            mean([None if np.isnan(value) else value for value in column[:, place]]) for column in scores
        ]
        units = ("share", "share", "", "")
        texts = [number(cell, unit) for cell, unit in zip(cells, units, strict=True)]
        rows.append([spaced(name), counts.get(name, {}).get("images", MISSING), *texts])
    return rows


def count_table(study: Study) -> Table:
    """Return how many images of each class each part has, and the sums."""
    counted: Mapping[str, Row] = study.prepared.get("counts", {})
    parts = {name: part for name, part in counted.items() if any(part.values())}
    names = list(dict.fromkeys(name for part in parts.values() for name in part))
    rows: Table = [["Class", *map(str.capitalize, parts)]]
    for name in names:
        counts = [part.get(name, 0) for part in parts.values()]
        if any(counts) or name in study.classes:
            rows.append([spaced(name), *counts])
    return [*rows, ["All", *(sum(part.values()) for part in parts.values())]]


def left_out_counts(study: Study) -> Table:
    """Return how many images were left out for which kind of reason."""
    reasons = (str(row.get("reason", "")) for row in study.prepared.get("left_out", ()))
    kinds = Counter(reason.partition(":")[0].partition(" of ")[0] for reason in reasons)
    return [[kind, count] for kind, count in kinds.most_common()]


def setting_rows(config: Mapping[str, Any], prefix: str = "") -> Table:
    """Return a nested configuration as rows of dotted name and value."""
    rows: Table = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        rows += setting_rows(value, f"{name}.") if isinstance(value, Mapping) and value else [[name, value]]
    return rows


def time_table(study: Study) -> Table:
    """Return the time of each arm's phases, all seeds together; header first."""
    table = timing(study)
    phases = list(dict.fromkeys(phase for arm in study.runs for phase in table[arm]))
    names = {"heads": "Heads", "finetune": "Fine-tuning", "evaluate": "Evaluation"}
    rows: Table = [["", *(names.get(phase, spaced(phase)) for phase in phases), "Together"]]
    for arm in study.runs:
        seconds = [table[arm].get(phase) for phase in phases]
        rows.append([arm_label(study, arm), *map(duration, seconds), duration(sum(table[arm].values()))])
    return [*rows, ["All", *([""] * len(phases)), duration(table["total"])]]


def duration(seconds: float | None) -> str:
    """Return a time as text.

    >>> duration(12.34), duration(754), duration(7384)
    ('12.3 s', '12 min 34 s', '2 h 3 min')
    """
    if seconds is None:
        return MISSING
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    minutes, hours = whole // 60, whole // 3600
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {whole % 60} s"


def _score_table(study: Study, task: str, names: Sequence[str]) -> dict[str, Any]:
    baselines = {
        name: values
        for name, values in study.baselines.items()
        if any(values.get(each) is not None for each in names)
    }
    tests = {row.metric: row for row in secondaries(study) if row.question == task}
    return {
        "baselines": [BASELINE_LABELS.get(name, spaced(name)) for name in baselines],
        "rows": [_score_row(study, task, name, list(baselines.values()), tests) for name in names],
    }


def _score_row(
    study: Study,
    task: str,
    name: str,
    baselines: list[Mapping[str, float | None]],
    tests: Mapping[str, Secondary],
) -> dict[str, Any]:
    about = study.metrics.get(name, {})
    unit = about.get("unit", "")
    arms = sides(study, task)
    levels = [[run.metric(name) for run in study.finished(arm)] for arm in arms]
    found = contrast(study, name, *arms)
    return {
        "title": (title := about.get("title", spaced(name))),
        "unit": titled(title, unit).removeprefix(title).removeprefix(", "),
        "arrow": _ARROWS.get(about.get("better", ""), ""),
        "better": about.get("better", ""),
        "scores": [with_spread(side, unit) for side in levels],
        "difference": difference(*found.levels, unit) if found else MISSING,
        **_tested(study, task, name, found, tests.get(name), unit),
        "baselines": [number(values.get(name), unit) for values in baselines],
    }


def _tested(
    study: Study, task: str, name: str, found: Contrast | None, row: Secondary | None, unit: str
) -> dict[str, str]:
    """Return interval, p and standing of a metric: the primary one is quoted as its verdict quotes it."""
    asked = questions(study).get(task)
    if found is not None and asked is not None and asked.metric == name:
        quoted = verdicts(study)[task].quoted
        p = p_text(found.p) if len(found.seeds) > 1 else MISSING
        return {"interval": bounds_text(found, quoted, unit), "p": p, "standing": "primary"}
    if found is None or row is None:
        return {"interval": MISSING, "p": MISSING, "standing": ""}
    standing = "secondary" if row.named else "exploratory"
    return {
        "interval": bounds_text(found, row.bounds, unit),
        "p": p_text(row.p_adjusted),
        "standing": standing,
    }


def bounds_text(found: Contrast, bounds: Bounds | None, unit: str = "") -> str:
    """Return an interval with its level, `†` where it is not over seeds and images; a dash without one."""
    if bounds is None or bounds.interval is None:
        return MISSING
    ends = ends_text(found.levels[0], bounds.interval, unit)
    return f"{ends} ({100 * bounds.level:g} %{'' if bounds.over == 'seeds and images' else '†'})"


def p_text(p: float | None) -> str:
    """Return a p value as text.

    >>> p_text(0.0156), p_text(0.0001), p_text(None)
    ('0.016', '<0.001', '–')
    """
    return "<0.001" if p is not None and p < 0.0005 else number(p)


def with_spread(values: list[float | None], unit: str = "") -> str:
    """Return mean ± standard deviation over seeds; the mean alone of one seed.

    >>> with_spread([2.0, 4.0]), with_spread([2.0]), with_spread([2.0, None])
    ('3.00 ± 1.41', '2.00', '–')
    """
    centre = mean(values)
    if centre is None or len(values) < 2:
        return number(centre, unit)
    return f"{number(centre, unit)} ± {_fixed(float(np.std(np.array(values, float), ddof=1)), unit, centre)}"
