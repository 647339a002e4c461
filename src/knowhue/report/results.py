"""`results.json`: every number of a study by name, under a schema with a version."""

from pathlib import Path
from typing import Any

from knowhue.errors import RunError
from knowhue.report.answers import Answer
from knowhue.report.contrasts import Bounds
from knowhue.report.diagnostics import gradient_table
from knowhue.report.findings import Findings, readings, relative_gains
from knowhue.report.study import Study
from knowhue.statistics.paired import mean, t_interval
from knowhue.statistics.verdicts import Beliefs
from knowhue.storage import read_json

SCHEMA = {"name": "knowhue-results", "version": 1}
"""What `results.json` holds, see docs/results.md; another version is refused."""
_STUDY_KEYS = ("name", "preset", "command", "version", "created", "purpose", "tuned_on_seeds", "tuned_on")


def results_table(findings: Findings, answers: dict[str, Answer]) -> dict[str, Any]:
    """Return every number of the study by name: the content of `results.json`.

    Paths: `arms.<arm>.seeds.<seed>.metrics.<metric>`, `arms.<arm>.mean.<metric>` (finished seeds),
    `arms.<arm>.seeds.<seed>.after_heads.<metric>` (before fine-tuning), `splits` (which images scores are of),
    `baselines.<name>.<metric>`; of each question that is asked, `colour` or `class`: `answers.<question>` (a sentence),
    `verdicts.<question>` (a `Word`, or `missing`), `tests.<question>` (all that the verdict rests on);
    `secondary` (a list), `probabilities.<question>` and `delta_m` (secondary readings),
    `gradients.<arm>.<fork|end>.<norms|shares>.<loss>`,
    `timing.<arm>.<phase>` and `timing.total` (seconds, all seeds), `settings.<key>`; of a comparison of
    methods `comparison`, see `methods.comparison_results`, which the page adds.
    A missing number is null.
    """
    study = findings.study
    asked = {key: study.settings.get(key) for key in (*_STUDY_KEYS, "hash")}
    return {
        "schema": SCHEMA,
        "splits": {"scores": study.split, "epochs": "validation"},
        "study": asked | {"arms": list(study.runs), "seeds": study.seeds},
        "answers": {question: each.sentence for question, each in answers.items()},
        "verdicts": {question: each.verdict for question, each in answers.items()},
        "tests": {question: _tests(findings, question) for question in study.questions},
        "secondary": _secondary(findings),
        "probabilities": {
            row["question"]: {name: row[name] for name in (*Beliefs._fields, "over")}
            for row in readings(findings)
        },
        "delta_m": relative_gains(findings),
        "arms": {arm: _arm_table(study, arm) for arm in study.runs},
        "baselines": {name: dict(values) for name, values in study.baselines.items()},
        "metrics": {name: dict(text) for name, text in study.metrics.items()},
        "gradients": gradient_table(study),
        "timing": timing(study),
        "settings": study.settings.get("config", {}),
    }


def read_results(path: Path) -> dict[str, Any]:
    """Read a `results.json`.

    Raises:
        RunError: it is not there, damaged, or of another version.
    """
    results = read_json(path)
    if results.get("schema") != SCHEMA:
        found = results.get("schema") or "none"
        raise RunError(
            f"{path}: not the results of a study as this version writes them ({SCHEMA['name']}, version "
            f"{SCHEMA['version']}; found {found}); make it anew with `knowhue report`."
        )
    return results


def _tests(findings: Findings, question: str) -> dict[str, Any]:
    """Every number behind a verdict, in the metric's unit."""
    judged, asked = findings.verdicts[question], findings.study.questions[question]
    found = judged.found
    if found is None:
        return {}
    parts = found.crossed
    deviations = () if parts is None else zip(("seed", "image", "residual"), parts.components, strict=True)
    return {
        "metric": asked.metric, "single": asked.single, "multi": asked.multi, "sesoi": asked.sesoi,
        "alpha": judged.alpha, "seeds": list(found.seeds), "differences": found.differences.tolist(),
        "mean": found.estimate, "quoted": _bounds(judged.quoted),
        "intervals": [_bounds(judged.outer), _bounds(judged.inner)], "interval_seeds": t_interval(found.differences),
        "interval_bca": found.bca, "p": found.p, "d_z": found.effect, "wins": found.wins.count,
        "hurt_beyond_sesoi": found.hurt(asked.sesoi).count, "worst_seed": found.seeds[int(found.gains.argmin())],
        "standard_deviations": None if parts is None else dict(deviations) | {"images": parts.images},
        "needed_seeds": None if judged.needed is None else judged.needed._asdict(),
        "more_images": judged.more_images,
        "headroom": [row._asdict() | {"bounds": _bounds(row.bounds)} for row in findings.headroom[question]],
    }  # fmt: skip


def _secondary(findings: Findings) -> list[dict[str, Any]]:
    return [
        {
            "question": question, "metric": metric,
            "exploratory": metric not in findings.study.questions[question].secondary,
            **row.numbers(),
        }
        for (question, metric), row in findings.secondary.items()
    ]  # fmt: skip


def _bounds(bounds: Bounds | None) -> dict[str, Any] | None:
    return None if bounds is None else bounds._asdict()


def timing(study: Study) -> dict[str, Any]:
    """Return the seconds of each arm's phases, summed over its seeds, and the total.

    An arm's `heads` are those it starts from. Arms of a seed share them, so the total counts every head once.
    """
    table: dict[str, Any] = {}
    for arm in study.runs:
        table[arm] = {}
        for run in study.of(arm):
            for phase, seconds in run.seconds.items():
                table[arm][phase] = round(table[arm].get(phase, 0.0) + (seconds or 0.0), 3)
    # the arms of a seed share heads: `head_seconds` counts each once
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
