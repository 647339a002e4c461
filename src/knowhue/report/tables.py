"""The tables of the page, as rows of ready text: scores, classes, pictures, settings, time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from knowhue.report.classes import class_scores
from knowhue.report.records import ARM_LABELS, Row, Study, Table, mean, spaced
from knowhue.report.results import metric_names, timing

MISSING = "–"
BASELINE_LABELS = {"real": "other real pictures"}
_ARROWS = {"lower": "↓", "higher": "↑"}


def score_tables(study: Study) -> dict[str, dict[str, Any]]:
    """Return for each question its metrics, single-task beside multi-task beside trivial baselines."""
    names: dict[str, list[str]] = {
        "colour": metric_names(study, "colour"),
        "class": metric_names(study, "class"),
    }
    for name in metric_names(study, "multi"):  # for a metric of an arm that was not trained
        if name not in (*names["colour"], *names["class"]):
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
    text = _fixed(multi - single, unit, single)
    rounds_to_zero = not text.strip("−0.")
    return text.removeprefix("−") if rounds_to_zero else text if text[0] == "−" else f"+{text}"


def _fixed(value: float, unit: str, like: float) -> str:
    places = 1 if unit == "share" else 3 if abs(like) < 1.5 else 2 if abs(like) < 100 else 1
    return f"{100 * value if unit == 'share' else value:.{places}f}".replace("-", "−")


def class_table(study: Study) -> Table:
    """Return accuracy and error of each class, single-task and multi-task, means over finished seeds."""
    columns = (("class", "accuracy"), ("multi", "accuracy"), ("colour", "ab_l1"), ("multi", "ab_l1"))
    scores = [class_scores(study, arm, name) for arm, name in columns]
    runs = [run for arm in study.runs for run in study.finished(arm)]
    counts = runs[0].scores.get("per_class", {}) if runs else {}
    rows: Table = []
    for place, name in enumerate(study.classes):
        cells = [
            mean([None if np.isnan(value) else value for value in column[:, place]]) for column in scores
        ]
        units = ("share", "share", "", "")
        texts = [number(cell, unit) for cell, unit in zip(cells, units, strict=True)]
        rows.append([spaced(name), counts.get(name, {}).get("pictures", MISSING), *texts])
    return rows


def count_table(study: Study) -> Table:
    """Return how many pictures of each class each part has, and the sums."""
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
    """Return how many pictures were left out for which kind of reason."""
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
        rows.append([ARM_LABELS.get(arm, arm), *map(duration, seconds), duration(sum(table[arm].values()))])
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
    return {
        "baselines": [BASELINE_LABELS.get(name, spaced(name)) for name in baselines],
        "rows": [_score_row(study, task, name, list(baselines.values())) for name in names],
    }


def _score_row(
    study: Study, task: str, name: str, baselines: list[Mapping[str, float | None]]
) -> dict[str, Any]:
    about = study.metrics.get(name, {})
    unit = about.get("unit", "")
    sides = [[run.metric(name) for run in study.finished(arm)] for arm in (task, "multi")]
    return {
        "title": about.get("title", spaced(name)),
        "unit": "%" if unit == "share" else unit,
        "arrow": _ARROWS.get(about.get("better", ""), ""),
        "better": about.get("better", ""),
        "scores": [with_spread(side, unit) for side in sides],
        "difference": _paired_difference(study, task, name, unit),
        "baselines": [number(values.get(name), unit) for values in baselines],
    }


def _paired_difference(study: Study, task: str, name: str, unit: str) -> str:
    """Return the mean difference over the seeds that both arms finished, whatever else one of them has."""
    multi = {run.seed: run.metric(name) for run in study.finished("multi")}
    pairs = [(run.metric(name), multi[run.seed]) for run in study.finished(task) if run.seed in multi]
    return difference(mean([before for before, _ in pairs]), mean([after for _, after in pairs]), unit)


def with_spread(values: list[float | None], unit: str = "") -> str:
    """Return mean ± standard deviation over seeds; the mean alone of one seed.

    >>> with_spread([2.0, 4.0]), with_spread([2.0]), with_spread([2.0, None])
    ('3.00 ± 1.41', '2.00', '–')
    """
    centre = mean(values)
    if centre is None or len(values) < 2:
        return number(centre, unit)
    return f"{number(centre, unit)} ± {_fixed(float(np.std(np.array(values, float), ddof=1)), unit, centre)}"
