"""Scores beside trivial baselines, distances, and what both must be quoted with; images, settings and time."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from knowhue.images.files import kinds_of
from knowhue.report.contrasts import contrast
from knowhue.report.findings import Findings
from knowhue.report.results import timing
from knowhue.report.study import Row, Study, Table, arm_label, flat_scores, sides
from knowhue.report.text import duration, spaced

_BASELINES = {"real": "other real images"}
_PHASES = {"heads": "Heads", "finetune": "Fine-tuning", "evaluate": "Evaluation"}

Entries = Mapping[str, Mapping[str, Any]]
"""Distances or perceptual scores by name, each with its value, or with the reason why there is none."""


def task_scores(findings: Findings, task: str) -> list[dict[str, Any]]:
    """Return each metric of a task: `scores` of the seeds of both arms, and what `baselines` have.

    Where both have a seed, `single` and `multi`, their means over the seeds of both, the `bounds` of the difference, as
    the verdict quotes them in the primary metric, its `p`, None of one seed, and its `role` in the plan.
    """
    study = findings.study
    trivial = {name: flat_scores(row) for name, row in study.baselines.items()}
    rows = []
    for name in _metric_names(study)[task]:
        known = {_title(each): values.get(name) for each, values in trivial.items()}
        scores = tuple([run.metric(name) for run in study.finished(arm)] for arm in sides(study, task))
        rows.append(
            {"metric": name, "scores": scores, "baselines": known} | _difference(findings, task, name)
        )
    # a baseline without any of these metrics has no column
    found = {name for row in rows for name, value in row["baselines"].items() if value is not None}
    for row in rows:
        row["baselines"] = {name: value for name, value in row["baselines"].items() if name in found}
    return rows


def _metric_names(study: Study) -> dict[str, list[str]]:
    names = {task: study.metric_names(sides(study, task).single) for task in ("colour", "class")}
    for name in study.metric_names(sides(study, "colour").multi or sides(study, "class").multi):
        if name not in (*names["colour"], *names["class"]):  # a metric of an arm that was not trained
            names["class" if study.metrics.get(name, {}).get("task") == "class" else "colour"].append(name)
    return names


def _difference(findings: Findings, task: str, name: str) -> dict[str, Any]:
    study, asked = findings.study, findings.study.questions.get(task)
    found, test = contrast(study.table, name, *sides(study, task)), findings.secondary.get((task, name))
    if found is None:
        return {}
    row = {**found.row(), "bounds": None, "role": ""}
    if asked is not None and asked.metric == name:
        # of one seed p is 1 whatever was found
        p = found.p if len(found.seeds) > 1 else None
        return row | {"bounds": findings.verdicts[task].quoted, "p": p, "role": "primary"}
    if test is not None:
        role = "secondary" if asked and name in asked.secondary else "exploratory"
        row |= {"bounds": test.bounds, "p": test.p_adjusted, "role": role}
    return row


def distance_rows(study: Study) -> list[dict[str, Any]]:
    """Return the distances by pretrained networks of both arms beside the baselines."""
    baselines = _baseline_distances(study)
    titles = {
        name: entry["title"]
        for each in _distances(study)
        for name, entry in each.items()
        if _has_value(entry)
    }
    return [
        {
            "title": title,
            "unit": "",
            "scores": tuple(
                [_value(run.scores.get("distribution", {}), name) for run in study.finished(arm)]
                for arm in sides(study, "colour")
            ),
            "baselines": {_title(each): _value(entries, name) for each, entries in baselines.items()},
        }
        for name, title in titles.items()
    ]


def distance_warnings(study: Study) -> list[str]:
    """Return what a reader of the distances must know first, such as that a sample is small."""
    return _texts(_distances(study), lambda entry: _sentence(entry.get("warning", "")))


def provenance(study: Study, kind: str) -> list[str]:
    """Return what scores must be quoted with, a sentence a network; `kind` is `distribution` or `perceptual`."""
    return _texts(_distances(study) if kind == "distribution" else _perceptual(study), _provenance)


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


def _value(entries: Entries, name: str) -> float | None:
    return entries.get(name, {}).get("value")


def _title(baseline: str) -> str:
    return _BASELINES.get(baseline, spaced(baseline))


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
