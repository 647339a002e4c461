"""Put the numbers of a study into one table: `results.json`."""

from typing import Any

from knowhue.report.answers import answer
from knowhue.report.chance import Bounds
from knowhue.report.contrasts import questions
from knowhue.report.gradients import gradient_table
from knowhue.report.headroom import headrooms
from knowhue.report.records import Study, mean
from knowhue.report.secondary import metric_names, secondary_results
from knowhue.report.verdicts import Judged, verdicts


def results_table(study: Study) -> dict[str, Any]:
    """Return every number of the study by name: the content of `results.json`.

    Paths: `arms.<arm>.seeds.<seed>.metrics.<metric>`, `arms.<arm>.mean.<metric>` (finished seeds),
    `arms.<arm>.seeds.<seed>.after_heads.<metric>` (before fine-tuning), `splits` (which images scores are of),
    `baselines.<name>.<metric>`; of each question that is asked, `colour` or `class`: `answers.<question>` (a sentence),
    `verdicts.<question>` (a `Word`, or `missing`), `tests.<question>` (all that the verdict rests on);
    `secondary` (a list), `gradients.<arm>.<fork|end>.<norms|shares>.<loss>`,
    `timing.<arm>.<phase>` and `timing.total` (seconds, all seeds), `settings.<key>`.
    A missing number is null.
    """
    asked = {
        key: study.settings.get(key)
        for key in (
            "name",
            "preset",
            "command",
            "version",
            "created",
            "purpose",
            "tuned_on_seeds",
            "tuned_on",
        )
    }
    judged = verdicts(study)
    answers = {question: answer(study, question, judged) for question in questions(study)}
    return {
        "splits": {"scores": study.split, "epochs": "validation"},
        "study": asked | {"hash": study.settings.get("hash"), "arms": list(study.runs),
                          "seeds": list(study.settings.get("seeds", ()))},
        "answers": {question: each.sentence for question, each in answers.items()},
        "verdicts": {question: each.verdict for question, each in answers.items()},
        "tests": {question: _tests(study, question, each) for question, each in judged.items()},
        "secondary": secondary_results(study),
        "arms": {arm: _arm_table(study, arm) for arm in study.runs},
        "baselines": {name: dict(values) for name, values in study.baselines.items()},
        "metrics": {name: dict(text) for name, text in study.metrics.items()},
        "gradients": gradient_table(study),
        "timing": timing(study),
        "settings": study.settings.get("config", {}),
    }  # fmt: skip


def _tests(study: Study, question: str, judged: Judged) -> dict[str, Any]:
    """Every number behind a verdict, in the metric's unit."""
    found, asked = judged.found, questions(study)[question]
    if found is None:
        return {}
    parts = found.crossed
    return {
        "metric": asked.metric, "single": asked.single, "multi": asked.multi, "sesoi": asked.sesoi,
        "alpha": judged.alpha, "seeds": list(found.seeds), "differences": found.differences.tolist(),
        "mean": found.estimate, "quoted": _bounds(judged.quoted),
        "intervals": [_bounds(judged.outer), _bounds(judged.inner)], "interval_seeds": found.over_seeds,
        "interval_bca": found.bca, "p": found.p, "d_z": found.effect, "wins": found.wins.count,
        "hurt_beyond_sesoi": found.hurt(asked.sesoi).count, "worst_seed": found.worst_seed,
        "variances": None if parts is None else dict(zip(("seed", "image", "residual"), parts.components,
                                                         strict=True)) | {"images": parts.images},
        "needed_seeds": None if judged.needed is None else judged.needed._asdict(),
        "more_images": judged.more_images,
        "headroom": [row._asdict() | {"bounds": _bounds(row.bounds)} for row in headrooms(study, question)],
    }  # fmt: skip


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
    spent = sum(seconds for phases in table.values() for phase, seconds in phases.items() if phase != "heads")
    return table | {"total": round(spent + study.head_seconds, 3)}


def _arm_table(study: Study, arm: str) -> dict[str, Any]:
    finished = study.finished(arm)
    return {
        "seeds": {str(run.seed): {"state": run.state, "metrics": dict(run.scores.get("metrics", {})),
                                    "after_heads": dict(run.scores.get("after_heads", {}))}
                  for run in study.of(arm)},
        "mean": {name: mean([run.metric(name) for run in finished]) for name in metric_names(study, arm)},
        "finished": len(finished),
    }  # fmt: skip
