"""All numbers of a study: `results.json`, and the tables of scores, baselines, images and time."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from knowhue.errors import RunError, shown, spaced
from knowhue.images.image import kinds_of
from knowhue.metric_table import METRICS
from knowhue.report.answers import Answer, answers
from knowhue.report.contrasts import contrast
from knowhue.report.diagnostics import gradient_table
from knowhue.report.findings import Findings, find, posteriors, relative_gains
from knowhue.report.methods import comparison_results, terminal_lines
from knowhue.report.study import Row, Study, Table, arm_label, flat_scores, sides
from knowhue.report.text import duration
from knowhue.statistics.paired import bca_interval, mean, t_interval
from knowhue.statistics.verdicts import Posterior
from knowhue.storage import read_json

SCHEMA = {"name": "knowhue-results", "version": 1}
"""Format of `results.json`, see docs/statistics.md; other versions are refused."""
_BCA_SEEDS = 20
"""Fewest seeds for a bootstrap interval; with fewer, its coverage is too low."""
_STUDY_KEYS = ("name", "preset", "command", "version", "created", "purpose", "tuned_on_seeds", "tuned_on")


class Conclusion(NamedTuple):
    """A study's findings, its answers in words by question, and the content of `results.json`."""

    findings: Findings
    answers: dict[str, Answer]
    results: dict[str, Any]

    @property
    def lines(self) -> list[str]:
        """Lines for a terminal: each question with its answer, or the tables of a comparison."""
        if self.findings.study.is_comparison:
            return ["", *terminal_lines(self.findings.study)]
        answered = self.answers.values()
        if not answered:
            return ["", "No question: one needs the arm `multi`, and `colour` or `class`. See the report."]
        return [line for each in answered for line in ("", each.question, *map("  {}".format, each.lines))]


def conclude(study: Study) -> Conclusion:
    findings = find(study)
    answered = answers(findings)
    return Conclusion(findings, answered, _results(findings, answered))


def _results(findings: Findings, answered: Mapping[str, Answer]) -> dict[str, Any]:
    """Return the content of `results.json`, see docs/statistics.md for its paths; a missing number is null."""
    study = findings.study
    more = {"tables": study.settings["tables"]} if study.is_table else {}
    more |= {"comparison": comparison_results(study)} if study.is_comparison else {}
    plan = {key: study.settings.get(key) for key in (*_STUDY_KEYS, "hash")}
    return {
        "schema": SCHEMA,
        "splits": {"scores": study.split, "epochs": "validation"},
        "study": plan | {"arms": list(study.runs), "seeds": study.seeds},
        "answers": {question: each.sentence for question, each in answered.items()},
        "verdicts": {question: each.verdict for question, each in answered.items()},
        "tests": {question: _tests(findings, question) for question in study.questions},
        "secondary": [
            {"question": name, "metric": metric, "exploratory": metric not in study.questions[name].secondary}
            | row.numbers()
            for (name, metric), row in findings.secondary.items()
        ],
        "probabilities": {
            row["question"]: {name: row[name] for name in (*Posterior._fields, "over")}
            for row in posteriors(findings)
        },
        "delta_m": relative_gains(findings),
        "arms": {arm: _arm_table(study, arm) for arm in study.runs},
        "baselines": {name: dict(values) for name, values in study.baselines.items()},
        "metrics": {name: dict(text) for name, text in study.metrics.items()},
        "gradients": gradient_table(study),
        "timing": timing(study),
        "settings": study.settings.get("config", {}),
        **more,
    }


def read_results(path: Path) -> dict[str, Any]:
    """Read a `results.json`; a `RunError` if it is missing, damaged, or of another version."""
    results = read_json(path)
    if results.get("schema") != SCHEMA:
        found = results.get("schema") or "none"
        raise RunError(
            f"{path}: not the results of a study as this version writes them ({SCHEMA['name']}, version "
            f"{SCHEMA['version']}; found {found}); make it again with `knowhue report`."
        )
    return results


def _tests(findings: Findings, question: str) -> dict[str, Any]:
    """Return the numbers behind a verdict, in the metric's unit."""
    judged, spec = findings.verdicts[question], findings.study.questions[question]
    found = judged.found
    if found is None:
        return {}
    headroom = [row._asdict() | {"bounds": _by_name(row.bounds)} for row in findings.headroom[question]]
    parts = found.crossed
    bca = bca_interval(found.differences) if len(found.seeds) >= _BCA_SEEDS else None
    deviations = () if parts is None else zip(("seed", "image", "residual"), parts.components, strict=True)
    return {
        "metric": spec.metric, "single": spec.single, "multi": spec.multi, "sesoi": spec.sesoi,
        "alpha": judged.alpha, "seeds": list(found.seeds), "differences": found.differences.tolist(),
        "mean": found.estimate, "quoted": _by_name(judged.quoted),
        "intervals": [_by_name(judged.outer), _by_name(judged.inner)],
        "interval_seeds": t_interval(found.differences), "interval_bca": bca,
        "p": found.p, "d_z": found.effect, "wins": found.wins.count,
        "hurt_beyond_sesoi": found.hurt(spec.sesoi).count, "worst_seed": found.seeds[int(found.gains.argmin())],
        "standard_deviations": None if parts is None else dict(deviations) | {"images": parts.images},
        "needed_seeds": _by_name(judged.needed), "more_images": judged.more_images, "headroom": headroom,
    }  # fmt: skip


def _by_name(found: Any) -> dict[str, Any] | None:
    return None if found is None else found._asdict()


def timing(study: Study) -> dict[str, Any]:
    """Return the seconds of each arm's phases, summed over its seeds, and the total.

    `heads` is the time of the heads that an arm starts from. Arms of a seed share them; the total counts a head once.
    """
    table: dict[str, Any] = {}
    for arm in study.runs:
        table[arm] = {}
        for run in study.of(arm):
            for phase, seconds in run.seconds.items():
                table[arm][phase] = round(table[arm].get(phase, 0.0) + (seconds or 0.0), 3)
    # `head_seconds` counts each head once
    spent = sum(seconds for phases in table.values() for phase, seconds in phases.items() if phase != "heads")
    return table | {"total": round(spent + study.head_seconds, 3)}


def _arm_table(study: Study, arm: str) -> dict[str, Any]:
    finished = study.finished(arm)
    return {
        "seeds": {
            str(run.seed): {
                "state": run.state, "metrics": dict(run.scores.get("metrics", {})),
                "after_heads": dict(run.scores.get("after_heads", {})),
            }
            for run in study.of(arm)
        },
        "mean": {name: mean([run.metric(name) for run in finished]) for name in study.metric_names(arm)},
        "finished": len(finished),
    }  # fmt: skip


_BASELINES = {"real": "other real images"}
_LONGEST_TEXT = 60
_PHASES = {"heads": "Heads", "finetune": "Fine-tuning", "evaluate": "Evaluation"}


def task_scores(findings: Findings, task: str) -> list[dict[str, Any]]:
    """Return a row for each metric of a task: `scores` of the seeds of both arms, and those of the `baselines`.

    Where both arms have a seed, the row also has `single` and `multi`, means over their common seeds; the `bounds` of
    the difference (in the primary metric, those that the verdict quotes); its `p`, None with one seed; and the
    metric's `role` in the plan.
    """
    rows = _with_baselines(findings.study, task, _metric_names(findings.study)[task])
    return [_difference(findings, task, row["metric"]) | row for row in rows]


def _with_baselines(study: Study, task: str, names: Collection[str]) -> list[dict[str, Any]]:
    """Return the scores of both arms' finished runs and of the baselines, a row for each metric."""
    trivial = {_BASELINES.get(name, spaced(name)): flat_scores(row) for name, row in study.baselines.items()}
    # a baseline without any of these metrics gets no column
    known = {name: row for name, row in trivial.items() if any(row.get(key) is not None for key in names)}
    runs = [[run.all_scores for run in study.finished(arm)] for arm in sides(study, task)]
    return [
        {
            "metric": metric,
            "scores": tuple([scores.get(metric) for scores in of_arm] for of_arm in runs),
            "baselines": {name: row.get(metric) for name, row in known.items()},
        }
        for metric in names
    ]


def _metric_names(study: Study) -> dict[str, list[str]]:
    (colour, colour_multi), (class_, class_multi) = sides(study, "colour"), sides(study, "class")
    names = {"colour": study.metric_names(colour), "class": study.metric_names(class_)}
    for name in study.metric_names(colour_multi or class_multi):
        if name not in (*names["colour"], *names["class"]):  # a metric of an arm that was not trained
            names["class" if study.metrics.get(name, {}).get("task") == "class" else "colour"].append(name)
    return names


def _difference(findings: Findings, task: str, name: str) -> dict[str, Any]:
    study, spec = findings.study, findings.study.questions.get(task)
    found, test = contrast(study.table, name, *sides(study, task)), findings.secondary.get((task, name))
    if found is None:
        return {}
    if spec is not None and spec.metric == name:
        return findings.verdicts[task].row() | {"role": "primary"}
    if test is None:
        return found.row()
    role = "secondary" if spec and name in spec.secondary else "exploratory"
    return found.row() | {"bounds": test.bounds, "p": test.p_adjusted, "role": role}


def distance_rows(study: Study) -> list[dict[str, Any]]:
    """Return the distances between sets, by pretrained networks, of both arms and of the baselines."""
    titles = {name: entry["title"] for name, entry in _known(study, "distribution")}
    rows = _with_baselines(study, "colour", titles)
    return [row | {"title": titles[row["metric"]], "unit": ""} for row in rows]


def distance_warnings(study: Study) -> list[str]:
    """Return the warnings that belong to the distances, such as a small sample."""
    texts = [entry.get("warning", "") for _, entry in _known(study, "distribution")]
    return [f"{text[:1].upper()}{text[1:]}." for text in dict.fromkeys(texts) if text]


def provenance(study: Study, kind: str) -> list[str]:
    """Return a sentence on each network whose scores are reported; `kind` is `distribution` or `perceptual`."""
    sentences = []
    for _, entry in _known(study, kind):
        file = f", from {entry['file']}" if entry.get("file") else ""
        side = f" of {entry['size_px']} pixels a side" if entry.get("size_px") else ""
        against = f" against {entry['reference_images']}" if entry.get("reference_images") else ""
        sentences.append(
            f"{entry['network']}: weights {entry['weights']}{file}; {entry['resize']}; {entry['tool']}; "
            f"{entry['images']} images{side}{against}."
        )
    return list(dict.fromkeys(sentences))


def not_computed(study: Study) -> list[tuple[str, str]]:
    """Return (title, reason) of each distance, perceptual or secondary score that was not computed."""
    reasons = {
        entry["title"]: str(entry.get("reason", "")).removeprefix("not computed: ")
        for _, entry in _entries(study, "distribution", "perceptual")
        if entry.get("value") is None
    }
    is_planned = any("recognition" in question.secondary for question in study.questions.values())
    if is_planned and study.config("evaluation", "recognition") is False:
        title = METRICS["recognition"].title
        reasons[title] = "the plan names it, but the setting `evaluation.recognition` is off"
    return list(reasons.items())


def has_fid(study: Study) -> bool:
    return "fid" in study.metrics or "fid" in dict(_known(study, "distribution"))


def _entries(study: Study, *kinds: str) -> list[tuple[str, Row]]:
    """Return (metric, entry) of each score by a pretrained network: of every finished run, then of every baseline."""
    rows: list[Any] = [*(run.scores for run in study.finished_runs), *study.baselines.values()]
    return [pair for kind in kinds for row in rows for pair in (row.get(kind) or {}).items()]


def _known(study: Study, kind: str) -> list[tuple[str, Row]]:
    return [pair for pair in _entries(study, kind) if pair[1].get("value") is not None]


def count_table(study: Study) -> Table:
    """Return the number of images by class and split, with sums."""
    counted: Mapping[str, Row] = study.prepared.get("counts", {})
    splits = {name: split for name, split in counted.items() if any(split.values())}
    rows: Table = [["Class", *map(str.capitalize, splits)]]
    for name in dict.fromkeys(name for split in splits.values() for name in split):
        counts = [split.get(name, 0) for split in splits.values()]
        if any(counts) or name in study.classes:
            rows.append([spaced(name), *counts])
    return [*rows, ["All", *(sum(split.values()) for split in splits.values())]]


def left_out_counts(study: Study) -> Table:
    reasons = (str(row.get("reason", "")) for row in study.prepared.get("left_out", ()))
    return [[kind, count] for kind, count in kinds_of(reasons).items()]


def time_table(study: Study) -> Table:
    """Return the time of each arm's phases, summed over seeds; header first."""
    table = timing(study)
    phases = list(dict.fromkeys(phase for arm in study.runs for phase in table[arm]))
    rows: Table = [["", *(_PHASES.get(phase, spaced(phase)) for phase in phases), "Together"]]
    for arm in study.runs:
        seconds = [table[arm].get(phase) for phase in phases]
        rows.append([arm_label(study, arm), *map(duration, seconds), duration(sum(table[arm].values()))])
    return [*rows, ["All", *([""] * len(phases)), duration(table["total"])]]


def compare(
    kept: Any, found: Any, place: str, tolerance: float, absolute: Mapping[str, float] = MappingProxyType({})
) -> tuple[int, list[str]]:
    """Compare a nested value as written and as computed now: the count of numbers, and a sentence for each difference.

    Sentences begin with `place`. The tolerance for floats is relative and absolute, because processors and libraries
    sum in other orders; `absolute` has other absolute tolerances by key.

    >>> compare({"a": [1.0, 2.0]}, {"a": [1.0, 2.5]}, "x: ", 1e-9)
    (2, ['x: a.1 is stored as 2.0, but computed as 2.5'])
    """
    before, now = _members(kept), _members(found)
    if before is not None and now is not None:
        dot = "." if place and not place.endswith(" ") else ""
        parts = [
            compare(before.get(key), now.get(key), f"{place}{dot}{key}", tolerance, absolute)
            for key in dict.fromkeys((*before, *now))
        ]
        return sum(count for count, _ in parts), [text for _, texts in parts for text in texts]
    are_numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (kept, found))
    same = kept == found
    if are_numbers and not same and isinstance(kept, float):
        least = absolute.get(place.rpartition(".")[2], tolerance)
        same = math.isclose(kept, found, rel_tol=tolerance, abs_tol=least)
    texts = _around_difference(str(kept), str(found))
    return int(are_numbers), [] if same else [f"{place} is stored as {texts[0]}, but computed as {texts[1]}"]


def _around_difference(*texts: str) -> list[str]:
    """Shorten two texts for a message: long ones begin shortly before the first difference."""
    differs = (place for place, signs in enumerate(zip(*texts, strict=False)) if len(set(signs)) > 1)
    begin = next(differs, min(map(len, texts)))
    begin = 0 if max(map(len, texts)) <= _LONGEST_TEXT else max(0, begin - _LONGEST_TEXT // 3)
    return [("..." if begin else "") + shown(each[begin:], _LONGEST_TEXT) for each in texts]


def _members(value: Any) -> dict[Any, Any] | None:
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    return value if isinstance(value, dict) else None
