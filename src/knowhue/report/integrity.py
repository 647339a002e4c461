"""What was run against what was frozen: the plan's hash, the cells, the A/A gate, and runs that nobody planned."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from knowhue.errors import ConfigError
from knowhue.plan import RESERVED, Plan
from knowhue.presets import checked
from knowhue.report.blocks import UNPAIRED
from knowhue.report.contrasts import questions
from knowhue.report.matched import metric_label
from knowhue.report.records import Row, Run, Study, Table, plural
from knowhue.report.tables import number
from knowhue.report.taught import arm_label
from knowhue.runs import run_folder
from knowhue.storage import read_json

_RUN_NAME = re.compile(r"seed-(\d+)-\w+")


class PlanCheck(NamedTuple):
    """The stored hash, the one of what `study.json` says now (None where it cannot be read), and a sentence."""

    stored: str | None
    recomputed: str | None
    intact: bool
    sentence: str


class CellCount(NamedTuple):
    """Cells of one arm by state; `other_settings` are runs of other settings than the plan's, in no other count."""

    arm: str
    planned: int
    finished: int
    diverged: int
    unpaired: int
    running: int
    missing: int
    other_settings: int


class ExploratoryRun(NamedTuple):
    """A run in the study folder that its plan does not ask for; `metrics` are the primary ones that it has."""

    arm: str
    seed: int
    folder: str
    state: str
    metrics: Mapping[str, float | None]


def check_plan(study: Study) -> PlanCheck:
    """Recompute the plan's hash from `study.json` and compare it with the one written when it was frozen.

    It covers every setting, the encoder's weights and the images, which are also held against the prepared ones. Who
    changes plan and hash together is not found out.
    """
    stored, parts = study.settings.get("hash"), study.settings.get("parts", {})
    try:
        now = _plan(study).hash(parts)
    except ConfigError as error:
        text = f"study.json cannot be checked by this version: {str(error).splitlines()[0]}"
        return PlanCheck(stored, None, False, text)
    if stored is None:
        return PlanCheck(None, now, False, "study.json carries no hash: its plan was not frozen by a study.")
    if stored != now:
        text = f"study.json was changed after it was frozen: its plan has the hash {now}, not {stored}."
        return PlanCheck(stored, now, False, text)
    if study.prepared and study.prepared.get("fingerprint") != parts.get("images"):
        text = f"The images in this folder are not those that the plan was frozen with: its hash is {stored}."
        return PlanCheck(stored, now, False, text)
    frozen = str(study.settings.get("created") or "an unknown date")
    text = f"The plan is as it was frozen on {frozen}: its SHA-256 is {stored}."
    return PlanCheck(stored, now, True, text)


def cell_counts(study: Study) -> list[CellCount]:
    """Count the planned cells of each arm by what became of them."""
    return [_count(arm, study.of(arm)) for arm in study.runs]


def cells_sentence(study: Study) -> str:
    """Say how many cells there are and what became of them."""
    counts = cell_counts(study)
    planned = sum(each.planned for each in counts)
    words = {"finished": "finished", "diverged": "diverged",
             "unpaired": "not to be compared", "running": "not finished",
             "missing": "not started", "other_settings": "run with other settings"}  # fmt: skip
    sums = {text: sum(getattr(each, key) for each in counts) for key, text in words.items()}
    said = [f"{count} {text}" for text, count in sums.items() if count or text == "finished"]
    seeds = len(study.settings.get("seeds", ()))
    cells = f"{plural(len(counts), 'arm')}, {plural(seeds, 'seed')}"
    return f"Planned: {plural(planned, 'run')} ({cells}); {', '.join(said)}."


def exploratory_runs(folder: Path, study: Study) -> list[ExploratoryRun]:
    """Return the runs below a study folder that are not cells of its plan: another arm, seed or fingerprint.

    They were not asked for before results were seen, so they are to be called exploratory. Where the plan cannot
    be read by this version, only arms and seeds are compared.
    """
    planned = _planned(folder, study)
    metrics = [asked.metric for asked in questions(study).values()]
    paths = sorted(
        path for path in folder.glob("*/seed-*") if path.parent.name not in RESERVED and path.is_dir()
    )
    named = [(path, name) for path in paths if (name := _RUN_NAME.fullmatch(path.name))]
    return [
        _exploratory(path, int(name[1]), metrics)
        for path, name in named
        if (path not in planned if planned is not None else not _asked(study, path.parent.name, int(name[1])))
    ]


def cell_rows(study: Study) -> Table:
    """Return `cell_counts` as text; header first."""
    states = ["Finished", "Diverged", "Not to be compared", "Not finished", "Not started", "Other settings"]
    rows = [[arm_label(study, each.arm), *each[1:]] for each in cell_counts(study)]
    return [["Arm", "Planned", *states], *rows]


def exploratory_rows(folder: Path, study: Study) -> Table:
    """Return `exploratory_runs` as text; header first."""
    metrics = [asked.metric for asked in questions(study).values()]
    units = [study.metrics.get(metric, {}).get("unit", "") for metric in metrics]
    rows: Table = [
        ["Arm (exploratory)", "Seed", "Folder", "State", *(metric_label(study, m) for m in metrics)]
    ]
    for run in exploratory_runs(folder, study):
        scores = [number(run.metrics[metric], unit) for metric, unit in zip(metrics, units, strict=True)]
        rows.append([run.arm, run.seed, run.folder, run.state, *scores])
    return rows


def _plan(study: Study) -> Plan:
    return checked(Plan, {key: study.settings[key] for key in Plan.model_fields if key in study.settings})


def _planned(folder: Path, study: Study) -> set[Path] | None:
    try:
        plan = _plan(study)
    except ConfigError:
        return None
    return {run_folder(folder, arm, plan.run_config(arm, seed)) for arm in plan.arms for seed in plan.seeds}


def _asked(study: Study, arm: str, seed: int) -> bool:
    return arm in study.runs and seed in study.runs[arm]


def _exploratory(path: Path, seed: int, metrics: Iterable[str]) -> ExploratoryRun:
    status, scores = (_optional(path / name) for name in ("status.json", "scores.json"))
    found: Row = scores.get("metrics", {})
    state = status.get("state", "running")
    return ExploratoryRun(
        path.parent.name, seed, path.name, state, {name: found.get(name) for name in metrics}
    )


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _count(arm: str, runs: Sequence[Run]) -> CellCount:
    states = Counter(run.state if run.same_settings else "other" for run in runs)
    named = (states[name] for name in ("finished", "diverged", UNPAIRED, "running", "missing", "other"))
    return CellCount(arm, len(runs), *named)
