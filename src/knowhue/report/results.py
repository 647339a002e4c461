"""Read the files of a study, and put its numbers into one table: `results.json`."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from knowhue.config import Config
from knowhue.errors import ConfigError
from knowhue.presets import edit
from knowhue.report.answers import answer
from knowhue.report.contrasts import primary, questions
from knowhue.report.records import TASK_METRICS, Arrays, Row, Run, Study, mean
from knowhue.report.verdicts import Verdict, verdicts
from knowhue.runs import read_description, read_json, read_log, run_folder


def read_study(folder: Path) -> Study:
    """Read a study folder in whatever state it is.

    Args:
        folder: what `knowhue study --out` named. Only its `study.json` must exist: a run that was not
            started, did not finish or diverged is part of the study and says so in its `state`.

    Raises:
        RunError: there is no `study.json`, or a file is not what knowhue writes.
    """
    settings = read_description(folder)
    return Study(
        settings=settings,
        runs={
            arm: {seed: _read_run(folder, settings, arm, seed) for seed in settings["seeds"]}
            for arm in settings["arms"]
        },
        prepared=_optional_json(folder / "pictures" / "prepared.json"),
        baselines=_optional_json(folder / "baselines.json"),
        metrics=_optional_json(folder / "metrics.json"),
        samples=_arrays(folder / "pictures" / "samples.npz"),
    )


def results_table(study: Study) -> dict[str, Any]:
    """Return every number of the study by name: the content of `results.json`.

    Paths: `arms.<arm>.seeds.<seed>.metrics.<metric>`, `arms.<arm>.mean.<metric>` (finished seeds),
    `baselines.<name>.<metric>`, `answers.colour` and `answers.class` (sentences), `verdicts.<question>`,
    `timing.<arm>.<phase>` and `timing.total` (seconds, all seeds), `settings.<key>`.
    A missing number is null.
    """
    asked = {key: study.settings.get(key) for key in ("name", "preset", "command", "version", "created")}
    judged = verdicts(study)
    answers = {question: answer(study, question, judged) for question in TASK_METRICS}
    return {
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
        "seeds": {str(run.seed): {"state": run.state, "metrics": dict(run.scores.get("metrics", {}))}
                  for run in study.of(arm)},
        "mean": {name: mean([run.metric(name) for run in finished]) for name in metric_names(study, arm)},
        "finished": len(finished),
    }  # fmt: skip


def _read_run(root: Path, settings: Row, arm: str, seed: int) -> Run:
    folder, same = _find_run(root, settings, arm, seed)
    if folder is None:
        return Run(arm, seed)
    status = _optional_json(folder / "status.json")
    return Run(
        arm=arm,
        seed=seed,
        state=status.get("state", "running"),
        same_settings=same,
        seconds=status.get("seconds", {}),
        log=tuple(read_log(folder)),
        scores=_optional_json(folder / "scores.json"),
        images=_read_images(folder / "per_image.csv"),
        samples=_arrays(folder / "samples.npz"),
        extremes=_arrays(folder / "extremes.npz"),
        environment=_optional_json(folder / "environment.json"),
    )


def _find_run(root: Path, settings: Row, arm: str, seed: int) -> tuple[Path | None, bool]:
    """Return the folder of a run and whether it has the study's settings.

    A folder of the same seed with other settings is shown rather than hidden, and named in the report.
    """
    try:
        config = edit(Config.model_validate(settings["config"]), settings["arms"][arm] | {"seed": seed})
        expected = run_folder(root, arm, config)
    except (ConfigError, ValueError):  # written by another version: its settings cannot be checked any more
        expected = None
    if expected is not None and expected.is_dir():
        return expected, True
    others = sorted((root / arm).glob(f"seed-{seed}-*"), key=lambda path: path.stat().st_mtime)
    return (others[-1], False) if others else (None, True)


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _arrays(path: Path) -> Arrays:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_images(path: Path) -> tuple[Row, ...]:
    if not path.exists():
        return ()
    with path.open(encoding="utf-8", newline="") as file:
        return tuple({key: _cell(key, text) for key, text in row.items()} for row in csv.DictReader(file))


def _cell(column: str, text: str) -> Any:
    """Read one cell of `per_image.csv`; an empty or non-finite number is None."""
    if column == "correct":
        return {"true": 1.0, "1": 1.0, "false": 0.0, "0": 0.0}.get(text.strip().lower())
    if column == "index":
        return int(text)
    if column in ("ab_l1", "probability"):
        number = float(text) if text.strip() else math.nan
        return number if math.isfinite(number) else None
    return text
