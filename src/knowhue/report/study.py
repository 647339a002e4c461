"""A study's folder as plain values, in whatever state it is: what was asked, every run, and what may be compared."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from knowhue.config import Config, digest
from knowhue.errors import DamagedError
from knowhue.plan import QUESTIONS, RESERVED, Plan, Question, read_plan
from knowhue.presets import checked
from knowhue.report.text import spaced, titled
from knowhue.runs import damaged_files, read_frozen, read_log, read_status, run_folder, trained_by
from knowhue.statistics import ALPHA
from knowhue.statistics.verdicts import question_alpha
from knowhue.storage import read_arrays, read_csv, read_json

_RUN_NAME = re.compile(r"seed-(\d+)-\w+")
NO_SKILL = ("ece",)
"""Metrics at which a constant guess is perfect, so that not to beat one says nothing against a model."""
UNPAIRED = "unpaired"
"""State of an ended run whose block is not compared."""
GATE_PARTS = {
    "heads": "heads trained together against alone",
    "finetune_colour": "fine-tuning of colour against multi-task with class at a vanishing weight",
    "finetune_class": "fine-tuning of class against multi-task with colour at a vanishing weight",
}
"""What the A/A gate of a block compares."""

Row = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]
Runs = Mapping[str, Mapping[int, "Run"]]
Table = list[list[Any]]
"""Rows of cells, the header first; `None` is an empty cell."""


class ScoreRow(NamedTuple):
    """A row of the tidy table: one number of one run, of all images or of the images of a class."""

    arm: str
    seed: int
    metric: str
    value: float
    label: str = ""
    """The class; empty for all."""


# eq=False here and below: arrays compare element by element, and have no hash
@dataclass(frozen=True, eq=False)
class Run:
    """One arm trained with one seed, as far as it got.

    Attributes:
        state: `finished`, `running` (or interrupted), `diverged`, `missing` (never started), or `unpaired`: it ended,
            but its block may not be compared, see `faults`.
        gradient_shares: `fork` and `end`: what trained the encoder, see `training.diagnostics.measure_shares`.
        damaged: files of this run that figures are drawn from, and that cannot be read.
    """

    arm: str
    seed: int
    state: str = "missing"
    same_settings: bool = True
    seconds: Mapping[str, float] = field(default_factory=dict)
    log: tuple[Row, ...] = ()
    scores: Row = field(default_factory=dict)
    images: tuple[Row, ...] = ()
    samples: Arrays = field(default_factory=dict)
    extremes: Arrays = field(default_factory=dict)
    environment: Row = field(default_factory=dict)
    gradient_shares: Row = field(default_factory=dict)
    damaged: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the numbers of this run may be used."""
        return self.state == "finished" and self.same_settings

    @property
    def metrics(self) -> dict[str, float | None]:
        """Scores of the whole split that is reported on; of several classifiers shown to, the first recognises."""
        found, recognition = dict(self.scores.get("metrics", {})), flat_scores(self.scores).get("recognition")
        return found if recognition is None else found | {"recognition": recognition}

    def metric(self, name: str) -> float | None:
        return self.metrics.get(name)

    def of_class(self, label: str, name: str) -> float | None:
        """Return a score of the images of a class; None where there is none that is a number."""
        value = self.scores.get("per_class", {}).get(label, {}).get(name)
        return value if value is not None and np.isfinite(value) else None


@dataclass(frozen=True, eq=False)
class Study:
    """All that the report knows: what was asked, the images, the baselines, every run.

    Attributes:
        settings: `study.json`.
        runs: by arm and seed.
        gates: the A/A gate of each block, by seed.
        head_seconds: of all heads of the plan's seeds, each once, however many arms start from it.
        faults: seeds whose arms may not be compared, and why.
        exploratory: runs in the folder that the plan does not ask for.
        costs: of a comparison, by method what predicting costs, `costs.json`.
        damaged: files beside the runs that figures are drawn from, and that cannot be read.
    """

    settings: Row
    runs: Mapping[str, Mapping[int, Run]]
    prepared: Row = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    metrics: Mapping[str, Row] = field(default_factory=dict)
    samples: Arrays = field(default_factory=dict)
    gates: Mapping[int, Row] = field(default_factory=dict)
    head_seconds: float = 0.0
    faults: Mapping[int, str] = field(default_factory=dict)
    exploratory: tuple[Row, ...] = ()
    costs: Mapping[str, Row] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()

    @cached_property
    def questions(self) -> dict[str, Question]:
        """The questions as frozen; those of `QUESTIONS` where a study does not say."""
        frozen: Mapping[str, Row] | None = self.settings.get("questions")
        if frozen is None:
            return dict(QUESTIONS.items())
        return {name: checked(Question, each) for name, each in frozen.items()}

    @property
    def alpha(self) -> float:
        """The level of one question: alpha, shared out among those that are asked."""
        return question_alpha(self.settings.get("alpha", ALPHA), len(self.questions))

    @property
    def seeds(self) -> list[int]:
        """Those that are planned."""
        return list(self.settings.get("seeds", ()))

    @property
    def arms(self) -> Mapping[str, Row]:
        """The plan's arms: the changes that make each from the configuration."""
        return self.settings.get("arms", {})

    @property
    def split(self) -> str:
        """The split that final scores, tables and samples are from."""
        known = (run.scores.get("split") for runs in self.runs.values() for run in runs.values())
        return str(next(filter(None, known), "validation"))

    @property
    def is_tuning(self) -> bool:
        """Whether settings are chosen by the study: it says nothing of the method then."""
        return self.settings.get("purpose") == "tuning"

    @property
    def is_comparison(self) -> bool:
        """Whether the arms are methods, all compared with one of them, see `report.methods`."""
        return self.settings.get("reference") is not None

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in label order."""
        return list(self.prepared.get("classes", ()))

    def of(self, arm: str) -> list[Run]:
        """Return the runs of an arm by seed, whatever their state; empty where the arm was not asked for."""
        return [run for _, run in sorted(self.runs.get(arm, {}).items())]

    def finished(self, arm: str) -> list[Run]:
        return [run for run in self.of(arm) if run.finished]

    @property
    def shown_seed(self) -> int | None:
        """The lowest seed that every arm with a finished run has finished, so that images compare."""
        sets = [{run.seed for run in self.finished(arm)} for arm in self.runs if self.finished(arm)]
        return min(set.intersection(*sets), default=None) if sets else None

    def shown(self, arm: str) -> Run | None:
        """Return the run of an arm whose images are shown; None where it has not finished."""
        return next((run for run in self.finished(arm) if run.seed == self.shown_seed), None)

    def config(self, *keys: str) -> Any:
        """Return a setting of the configuration, or None where it does not say."""
        value: Any = self.settings.get("config", {})
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def unit(self, metric: str) -> str:
        return self.metrics.get(metric, {}).get("unit", "")

    def label(self, metric: str) -> str:
        """Return a metric's title and unit, shares in per cent."""
        return titled(self.metrics.get(metric, {}).get("title", spaced(metric)), self.unit(metric))

    def metric_names(self, arm: str) -> list[str]:
        """Return the metrics that finished runs of an arm have, in the order of `metrics.json`, unknown ones last."""
        found = {name for run in self.finished(arm) for name in run.metrics}
        return [name for name in self.metrics if name in found] + sorted(found - set(self.metrics))


def flat_scores(found: Row) -> dict[str, float | None]:
    """Metrics, distances and recognition of `scores.json`, or of a row of `baselines.json`, in one table."""
    rows = found.get("metrics", found)
    flat: dict[str, float | None] = {
        name: value for name, value in rows.items() if value is None or isinstance(value, int | float)
    }
    flat |= {name: entry.get("value") for name, entry in found.get("distribution", {}).items()}
    shown_to = list(found.get("recognition", {}).values())
    return flat | ({"recognition": shown_to[0]["accuracy"]} if shown_to else {})


def floors(baselines: Mapping[str, Mapping[str, float | None]], metric: str) -> dict[str, float]:
    """Return what each trivial baseline scores in a metric: all that costs nothing, but not other real images.

    A metric of `NO_SKILL` has none: a constant guess is as well calibrated as can be, and knows nothing.
    """
    return {
        name: value
        for name, values in baselines.items()
        if name != "real"
        and metric not in NO_SKILL
        and (value := flat_scores(values).get(metric)) is not None
    }


def tidy_scores(study: Study) -> Iterator[ScoreRow]:
    """Return the tidy table: every number of every finished run, of all images and of each class."""
    for arm in study.runs:
        for run in study.finished(arm):
            yield from (
                ScoreRow(arm, run.seed, name, value)
                for name, value in run.metrics.items()
                if value is not None
            )
            for label in run.scores.get("per_class", {}):
                known = ((name, run.of_class(label, name)) for name in run.scores["per_class"][label])
                yield from (
                    ScoreRow(arm, run.seed, name, value, label) for name, value in known if value is not None
                )


def read_study(folder: Path) -> Study:
    """Read a study folder in whatever state it is.

    Args:
        folder: what `knowhue study --out` named. Only its `study.json` must exist: a run that was not
            started, did not finish or diverged is part of the study and says so in its `state`.

    Raises:
        RunError: there is no `study.json`, or a file is not what knowhue writes.
    """
    settings, plan = read_frozen(folder), read_plan(folder)
    samples = _arrays(folder / "images" / "samples.npz")
    runs = {arm: {seed: _read_run(folder, plan, arm, seed) for seed in plan.seeds} for arm in plan.arms}
    gates = _read_gates(folder, plan, runs)
    faulty = faults(runs, gates, plan.seeds)
    return Study(
        settings=settings,
        runs={
            arm: {seed: _unpaired(run) if seed in faulty else run for seed, run in own.items()}
            for arm, own in runs.items()
        },
        prepared=_optional_json(folder / "images" / "prepared.json"),
        baselines=_optional_json(folder / "baselines.json"),
        metrics=_optional_json(folder / "metrics.json"),
        samples=samples or {},
        damaged=() if samples is not None else ("images/samples.npz",),
        gates=gates,
        faults=faulty,
        head_seconds=_head_seconds(folder, plan.seeds),
        costs=_optional_json(folder / "costs.json"),
        exploratory=tuple(_exploratory(folder, plan)),
    )


def _read_run(root: Path, plan: Plan, arm: str, seed: int) -> Run:
    folder, same = _find_run(root, plan, arm, seed)
    if folder is None:
        return Run(arm, seed)
    status = read_status(folder)
    # numbers rest on these two; damaged arrays cost a figure alone
    for path in damaged_files(folder, ("log.jsonl", "per_image.csv")):
        raise DamagedError(path, "it is gone, or not as it was written")
    samples, extremes = _arrays(folder / "samples.npz"), _arrays(folder / "extremes.npz")
    return Run(
        arm=arm,
        seed=seed,
        state=status.get("state", "running"),
        same_settings=same,
        seconds=status.get("seconds", {}),
        log=tuple(read_log(folder)),
        scores=_optional_json(folder / "scores.json"),
        images=read_images(folder / "per_image.csv"),
        samples=samples or {},
        extremes=extremes or {},
        damaged=tuple(
            name for name, found in (("samples.npz", samples), ("extremes.npz", extremes)) if found is None
        ),
        environment=_optional_json(folder / "environment.json"),
        gradient_shares=_optional_json(folder / "gradient_shares.json"),
    )


def _find_run(root: Path, plan: Plan, arm: str, seed: int) -> tuple[Path | None, bool]:
    """Return the folder of a run and whether it has the study's settings.

    A folder of the same seed with other settings is shown rather than hidden, and named in the report.
    """
    expected = run_folder(root, arm, plan.run_config(arm, seed))
    if expected.is_dir():
        return expected, True
    others = sorted((root / arm).glob(f"seed-{seed}-*"), key=lambda path: path.stat().st_mtime)
    return (others[-1], False) if others else (None, True)


def _head_seconds(folder: Path, seeds: Iterable[int]) -> float:
    paths = [path for seed in seeds for path in folder.glob(f"heads/*/seed-{seed}-*/status.json")]
    return sum(read_json(path).get("seconds", {}).get("heads") or 0.0 for path in paths)


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _arrays(path: Path) -> Arrays | None:
    """What a figure is drawn from: nothing if it is not there, None if it is damaged, which costs that figure."""
    try:
        return read_arrays(path) if path.exists() else {}
    except DamagedError:
        return None


def read_images(path: Path) -> tuple[Row, ...]:
    """The rows of `per_image.csv`; none where there is no such file."""
    if not path.exists():
        return ()
    return tuple({key: _cell(key, text) for key, text in row.items()} for row in read_csv(path))


def _cell(column: str, text: str) -> Any:
    """Read one cell of `per_image.csv`; an empty or non-finite number is None."""
    if column == "correct":
        return {"true": 1.0, "1": 1.0, "false": 0.0, "0": 0.0}.get(text.strip().lower())
    if column == "index":
        return int(text)
    if column in ("path", "label", "predicted"):
        return text
    number = float(text) if text.strip() else math.nan
    return number if math.isfinite(number) else None


def _exploratory(folder: Path, plan: Plan) -> Iterator[Row]:
    """Return the runs below a study folder that are not cells of its plan: another arm, seed or fingerprint.

    They were not asked for before results were seen, so they are to be called exploratory.
    """
    planned = {
        run_folder(folder, arm, plan.run_config(arm, seed)) for arm in plan.arms for seed in plan.seeds
    }
    for path in sorted(folder.glob("*/seed-*")):
        named = _RUN_NAME.fullmatch(path.name)
        if named and path.is_dir() and path not in planned and path.parent.name not in RESERVED:
            status, scores = (_optional_json(path / name) for name in ("status.json", "scores.json"))
            yield {
                "arm": path.parent.name, "seed": int(named[1]), "folder": path.name,
                "state": status.get("state", "running"), "metrics": scores.get("metrics", {}),
            }  # fmt: skip


def _read_gates(folder: Path, plan: Plan, runs: Runs) -> dict[int, Row]:
    """The A/A gate of each block by seed, `gate/seed-<n>.json`, where it was tried with what the block was run with.

    A gate of other settings, images or another golden step proves nothing of these runs, and is left out.
    """
    arm = plan.gate_arm
    paths = {} if arm is None else {seed: folder / "gate" / f"seed-{seed}.json" for seed in plan.seeds}
    gates = {seed: read_json(path) for seed, path in paths.items() if path.exists()}
    return {
        seed: gate
        for seed, gate in gates.items()
        if _proves(gate, plan.run_config(arm or "", seed), block(runs, seed))
    }


def _proves(gate: Row, config: Config, own: Sequence[Run]) -> bool:
    proved = gate.get("proved", {})
    ran = {tuple(map(run.environment.get, ("images", "golden_step"))) for run in own if run.environment}
    tried = (proved.get("images"), proved.get("golden_step"))
    return proved.get("settings") == digest(trained_by(config)) and (not ran or tried in ran)


def block(runs: Runs, seed: int) -> list[Run]:
    """Return the runs of a seed that have the study's settings."""
    return [own[seed] for own in runs.values() if seed in own and own[seed].same_settings]


def gate_failures(gate: Row) -> dict[str, list[str]]:
    """What a gate found to differ, with the names of the tensors; nothing where it was passed."""
    return {name: gate[name]["differ"] for name in GATE_PARTS if gate.get(name, {}).get("differ")}


def faults(runs: Runs, gates: Mapping[int, Row], seeds: Iterable[int]) -> dict[int, str]:
    """Why the arms of a seed may not be compared with one another, in words; seeds that may are not among them."""
    found = {}
    for seed in seeds:
        ended = [run for run in block(runs, seed) if run.state in ("finished", "diverged", UNPAIRED)]
        steps = sorted({str(run.environment.get("golden_step")) for run in ended})
        if len(steps) > 1:
            found[seed] = (
                f"its runs were computed in {len(steps)} ways (golden steps {', '.join(s[:12] for s in steps)}: "
                "another processor, other threads, libraries or code); the study's command begins it anew"
            )
        elif gate_failures(gates.get(seed, {})):
            found[seed] = "its A/A gate failed"
    return found


def _unpaired(run: Run) -> Run:
    """Mark a run so that no number of it is used."""
    return replace(run, state=UNPAIRED) if run.state in ("finished", "diverged") else run
