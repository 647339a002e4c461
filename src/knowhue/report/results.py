"""Put the numbers of a study into one table: `results.json`."""

from typing import Any

from knowhue.report.answers import answer
from knowhue.report.contrasts import primary, questions
from knowhue.report.records import TASK_METRICS, Study, mean
from knowhue.report.verdicts import Verdict, verdicts


def results_table(study: Study) -> dict[str, Any]:
    """Return every number of the study by name: the content of `results.json`.

    Paths: `arms.<arm>.seeds.<seed>.metrics.<metric>`, `arms.<arm>.mean.<metric>` (finished seeds),
    `arms.<arm>.seeds.<seed>.after_heads.<metric>` (before fine-tuning), `splits` (which images scores are of),
    `baselines.<name>.<metric>`, `answers.colour` and `answers.class` (sentences), `verdicts.<question>`,
    `timing.<arm>.<phase>` and `timing.total` (seconds, all seeds), `settings.<key>`.
    A missing number is null.
    """
    asked = {
        key: study.settings.get(key)
        for key in ("name", "preset", "command", "version", "created", "purpose", "tuned_on_seeds")
    }
    judged = verdicts(study)
    answers = {question: answer(study, question, judged) for question in TASK_METRICS}
    return {
        "splits": {"scores": study.split, "epochs": "validation"},
        "study": asked | {"hash": study.settings.get("hash"), "arms": list(study.runs),
                          "seeds": list(study.settings.get("seeds", ()))},
        "answers": {question: each.sentence for question, each in answers.items()},
        "verdicts": {question: each.verdict for question, each in answers.items()},
        "tests": {question: _tests(study, question, each) for question, each in judged.items()},
        "arms": {arm: _arm_table(study, arm) for arm in study.runs},
        "baselines": {name: dict(values) for name, values in study.baselines.items()},
        "metrics": {name: dict(text) for name, text in study.metrics.items()},
        "timing": timing(study),
        "settings": study.settings.get("config", {}),
    }  # fmt: skip


def _tests(study: Study, question: str, verdict: Verdict) -> dict[str, Any]:
    """Every number behind a verdict, in the metric's unit."""
    found = primary(study, question)
    if found is None:
        return {}
    asked = questions(study)[question]
    return {
        "metric": asked.metric, "single": asked.single, "multi": asked.multi, "sesoi": asked.sesoi,
        "seeds": list(found.seeds), "differences": found.differences.tolist(), "mean": found.estimate,
        "interval_seeds": found.interval, "interval_seeds_and_pictures": found.population,
        "interval_bca": found.bca, "p": verdict.p, "p_holm": verdict.p_holm,
        "p_equivalent": verdict.p_equivalent, "d_z": found.effect, "wins": found.wins.count,
        "hurt_beyond_sesoi": found.hurt(asked.sesoi).count, "worst_seed": found.worst_seed,
        "seeds_needed": verdict.seeds_needed,
    }  # fmt: skip


def metric_names(study: Study, arm: str) -> list[str]:
    """Return the metrics that runs of an arm have, in the order of `metrics.json`, unknown ones last."""
    found = {name for run in study.finished(arm) for name in run.scores.get("metrics", {})}
    return [name for name in study.metrics if name in found] + sorted(found - set(study.metrics))


def timing(study: Study) -> dict[str, Any]:
    """Return the seconds of each arm's phases, summed over its seeds, and the total.

    An arm's `heads` are those it starts from. Arms of a seed share them, so the total counts them once.
    """
    table: dict[str, Any] = {}
    for arm in study.runs:
        table[arm] = {}
        for run in study.of(arm):
            for phase, seconds in run.seconds.items():
                table[arm][phase] = round(table[arm].get(phase, 0.0) + (seconds or 0.0), 3)
    spent = sum(seconds for phases in table.values() for phase, seconds in phases.items() if phase != "heads")
    return table | {"total": round(spent + _heads_once(study), 3)}


def _heads_once(study: Study) -> float:
    """Seconds of all heads, each counted once: multi-task's are the two single tasks' together."""
    total = 0.0
    for seed in {seed for runs in study.runs.values() for seed in runs}:
        heads = {
            arm: runs[seed].seconds.get("heads", 0.0) for arm, runs in study.runs.items() if seed in runs
        }
        alone = sum(seconds for arm, seconds in heads.items() if arm != "multi")
        total += max(alone, heads.get("multi", 0.0))
    return total


def _arm_table(study: Study, arm: str) -> dict[str, Any]:
    finished = study.finished(arm)
    return {
        "seeds": {str(run.seed): {"state": run.state, "metrics": dict(run.scores.get("metrics", {})),
                                    "after_heads": dict(run.scores.get("after_heads", {}))}
                  for run in study.of(arm)},
        "mean": {name: mean([run.metric(name) for run in finished]) for name in metric_names(study, arm)},
        "finished": len(finished),
    }  # fmt: skip
