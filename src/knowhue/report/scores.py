"""The tables of scores beside trivial baselines, of distances between sets, of classes; images, settings and time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from knowhue.images.files import kinds_of
from knowhue.report.contrasts import contrast
from knowhue.report.findings import Findings
from knowhue.report.results import timing
from knowhue.report.study import Row, Study, Table, arm_label, flat_scores, sides
from knowhue.report.tables import bounds_text
from knowhue.report.text import MISSING, difference, duration, number, p_text, spaced, titled, with_spread

_BASELINES = {"real": "other real images"}
_ARROWS = {"lower": "↓", "higher": "↑"}
_PHASES = {"heads": "Heads", "finetune": "Fine-tuning", "evaluate": "Evaluation"}

Entries = Mapping[str, Mapping[str, Any]]
"""Distances or perceptual scores by name, each with its value, or with the reason why there is none."""


def score_tables(findings: Findings) -> dict[str, dict[str, Any]]:
    """Return for each task its metrics, single-task beside multi-task beside trivial baselines."""
    study = findings.study
    names = {task: study.metric_names(sides(study, task).single) for task in ("colour", "class")}
    for name in study.metric_names(sides(study, "colour").multi or sides(study, "class").multi):
        if name not in (*names["colour"], *names["class"]):  # a metric of an arm that was not trained
            task = study.metrics.get(name, {}).get("task")
            names["class" if task == "class" else "colour"].append(name)
    return {task: _score_table(findings, task, found) for task, found in names.items() if found}


def _score_table(findings: Findings, task: str, names: Sequence[str]) -> dict[str, Any]:
    baselines = {
        name: values
        for name, values in ((name, flat_scores(row)) for name, row in findings.study.baselines.items())
        if any(values.get(each) is not None for each in names)
    }
    return {
        "baselines": [_BASELINES.get(name, spaced(name)) for name in baselines],
        "rows": [_score_row(findings, task, name, list(baselines.values())) for name in names],
    }


def _score_row(
    findings: Findings, task: str, name: str, baselines: list[Mapping[str, float | None]]
) -> dict[str, Any]:
    """Return a metric's texts; the interval of the primary one is quoted as its verdict quotes it."""
    study = findings.study
    about, unit, arms = study.metrics.get(name, {}), study.unit(name), sides(study, task)
    asked, found = study.questions.get(task), contrast(study.table, name, *arms)
    test = findings.secondary.get((task, name))
    bounds, p, standing = None, None, ""
    if found is not None and asked is not None and asked.metric == name:
        bounds, standing = findings.verdicts[task].quoted, "primary"
        # of one seed p is 1 whatever was found
        p = found.p if len(found.seeds) > 1 else None
    elif found is not None and test is not None:
        bounds, p = test.bounds, test.p_adjusted
        standing = "secondary" if asked and name in asked.secondary else "exploratory"
    title = about.get("title", spaced(name))
    return {
        "title": title,
        "unit": titled(title, unit).removeprefix(title).removeprefix(", "),
        "arrow": _ARROWS.get(about.get("better", ""), ""),
        "better": about.get("better", ""),
        "scores": [with_spread([run.metric(name) for run in study.finished(arm)], unit) for arm in arms],
        "difference": difference(*found.levels, unit) if found else MISSING,
        "interval": bounds_text(found.levels[0], bounds, unit) if found else MISSING,
        "p": p_text(p),
        "standing": standing,
        "baselines": [number(values.get(name), unit) for values in baselines],
    }


def distance_table(study: Study) -> dict[str, Any]:
    """Return the distances by pretrained networks of both arms beside the baselines, with all they are quoted with."""
    entries = _distances(study)
    names = dict.fromkeys(name for each in entries for name, entry in each.items() if _has_value(entry))
    baselines = _baseline_distances(study)
    return {
        "baselines": [_BASELINES.get(name, spaced(name)) for name in baselines],
        "rows": [
            {
                "title": next(each[name]["title"] for each in entries if name in each),
                "scores": [
                    with_spread([
                        run.scores.get("distribution", {}).get(name, {}).get("value") for run in study.finished(arm)
                    ])
                    for arm in sides(study, "colour")
                ],
                "baselines": [number(each.get(name, {}).get("value")) for each in baselines.values()],
            }
            for name in names
        ],
        "warnings": _texts(entries, lambda entry: _sentence(entry.get("warning", ""))),
        "provenance": _texts(entries, _provenance),
    }  # fmt: skip


def not_computed(study: Study) -> list[tuple[str, str]]:
    """Return (title, reason) of distances, perceptual and secondary scores that are in no run and no baseline."""
    found = {
        entry["title"]: str(entry.get("reason", "")).removeprefix("not computed: ")
        for each in [*_distances(study), *_perceptual(study)]
        for entry in each.values()
        if not _has_value(entry)
    }
    asked = any("recognition" in question.secondary for question in study.questions.values())
    is_off = study.settings.get("config", {}).get("evaluation", {}).get("recognition") is False
    if asked and is_off:
        found["recognition"] = "the plan names it, but the setting `evaluation.recognition` is off"
    return list(found.items())


def perceptual_provenance(study: Study) -> list[str]:
    """Return what the perceptual scores of the score table must be quoted with, a sentence a network."""
    return _texts(_perceptual(study), _provenance)


def has_fid(study: Study) -> bool:
    """Whether an Inception distance is among the scores."""
    return "fid" in study.metrics or any(_has_value(each.get("fid", {})) for each in _distances(study))


def _distances(study: Study) -> list[Entries]:
    """Return the distances of every finished run and of every baseline."""
    runs = [run.scores.get("distribution") for arm in study.runs for run in study.finished(arm)]
    return [each for each in (*runs, *_baseline_distances(study).values()) if each]


def _baseline_distances(study: Study) -> dict[str, Entries]:
    found: dict[str, Any] = {name: values.get("distribution") for name, values in study.baselines.items()}
    return {name: entries for name, entries in found.items() if entries}


def _perceptual(study: Study) -> list[Entries]:
    return [run.scores.get("perceptual", {}) for arm in study.runs for run in study.finished(arm)]


def _has_value(entry: Mapping[str, Any]) -> bool:
    return entry.get("value") is not None


def _texts(entries: list[Entries], say: Callable[[Mapping[str, Any]], str]) -> list[str]:
    """Return what an entry says, each text once, the entries without a value left out."""
    texts = [say(entry) for each in entries for entry in each.values() if _has_value(entry)]
    return [text for text in dict.fromkeys(texts) if text]


def _provenance(entry: Mapping[str, Any]) -> str:
    file = f", from {entry['file']}" if entry.get("file") else ""
    side = f" of {entry['size_px']} pixels a side" if entry.get("size_px") else ""
    against = f" against {entry['reference_images']}" if entry.get("reference_images") else ""
    return (
        f"{entry['network']}: weights {entry['weights']}{file}; {entry['resize']}; {entry['tool']}; "
        f"{entry['images']} images{side}{against}."
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def class_scores(study: Study, arm: str, name: str) -> np.ndarray:
    """Return one score of each class, (seeds, classes); NaN where there is none."""
    runs = study.finished(arm)
    values = [
        [run.scores.get("per_class", {}).get(label, {}).get(name) for label in study.classes] for run in runs
    ]
    # two axes, also without runs
    return np.array(values, float).reshape(len(runs), len(study.classes))


def count_table(study: Study) -> Table:
    """Return how many images of each class each split has, and the sums."""
    counted: Mapping[str, Row] = study.prepared.get("counts", {})
    splits = {name: split for name, split in counted.items() if any(split.values())}
    rows: Table = [["Class", *map(str.capitalize, splits)]]
    for name in dict.fromkeys(name for split in splits.values() for name in split):
        counts = [split.get(name, 0) for split in splits.values()]
        if any(counts) or name in study.classes:
            rows.append([spaced(name), *counts])
    return [*rows, ["All", *(sum(split.values()) for split in splits.values())]]


def left_out_counts(study: Study) -> Table:
    """Return how many images were left out for which kind of reason."""
    reasons = (str(row.get("reason", "")) for row in study.prepared.get("left_out", ()))
    return [[kind, count] for kind, count in kinds_of(reasons).items()]


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
    rows: Table = [["", *(_PHASES.get(phase, spaced(phase)) for phase in phases), "Together"]]
    for arm in study.runs:
        seconds = [table[arm].get(phase) for phase in phases]
        rows.append([arm_label(study, arm), *map(duration, seconds), duration(sum(table[arm].values()))])
    return [*rows, ["All", *([""] * len(phases)), duration(table["total"])]]
