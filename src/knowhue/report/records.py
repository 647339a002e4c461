"""The vocabulary of the report: a study and its runs as plain values, whatever their state."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

NO_SKILL = ("ece",)
"""Metrics at which a constant guess is perfect, so that not to beat one says nothing against a model."""

Row = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]
Table = list[list[Any]]
"""Rows of cells, the header first; `None` is an empty cell."""


@dataclass(frozen=True, eq=False)
class Run:
    """One arm trained with one seed, as far as it got."""

    arm: str
    seed: int
    state: str = "missing"
    """`finished`, `running` (or interrupted), `diverged`, `missing` (never started), or `unpaired`: it ended, but its
    block may not be compared, see `report.blocks`."""
    same_settings: bool = True
    seconds: Mapping[str, float] = field(default_factory=dict)
    log: tuple[Row, ...] = ()
    scores: Row = field(default_factory=dict)
    images: tuple[Row, ...] = ()
    samples: Arrays = field(default_factory=dict)
    extremes: Arrays = field(default_factory=dict)
    environment: Row = field(default_factory=dict)
    gradient_shares: Row = field(default_factory=dict)
    """`fork` and `end`: what trained the encoder, see `training.gradient_shares`."""
    damaged: tuple[str, ...] = ()
    """Files of this run that diagrams are drawn from, and that cannot be read."""

    @property
    def finished(self) -> bool:
        """Whether the numbers of this run may be used."""
        return self.state == "finished" and self.same_settings

    def metric(self, name: str) -> float | None:
        """Return a score of the whole split that is reported on, or None where there is none."""
        if name == "recognition":
            shown_to = list(self.scores.get("recognition", {}).values())
            return shown_to[0].get("accuracy") if shown_to else None
        return self.scores.get("metrics", {}).get(name)


class Described(Protocol):
    """What says of its metrics which unit and which better direction they have: a study, a comparison."""

    @property
    def metrics(self) -> Mapping[str, Row]:
        """Title, unit and better direction of each."""
        ...


@dataclass(frozen=True, eq=False)
class Study:
    """All that the report knows: what was asked, the images, the baselines, every run."""

    settings: Row
    runs: Mapping[str, Mapping[int, Run]]
    prepared: Row = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    metrics: Mapping[str, Row] = field(default_factory=dict)
    samples: Arrays = field(default_factory=dict)
    gates: Mapping[int, Row] = field(default_factory=dict)
    """The A/A gate of each block, by seed."""
    head_seconds: float = 0.0
    """Of all heads of the plan's seeds, each once, however many arms start from it."""
    faults: Mapping[int, str] = field(default_factory=dict)
    """Seeds whose arms may not be compared, and why."""
    exploratory: Table = field(default_factory=list)
    """Runs in the folder that the plan does not ask for."""
    damaged: tuple[str, ...] = ()
    """Files beside the runs that diagrams are drawn from, and that cannot be read."""

    @property
    def split(self) -> str:
        """The split that final scores, tables and samples are from."""
        said = (run.scores.get("split") for runs in self.runs.values() for run in runs.values())
        return str(next(filter(None, said), "validation"))

    @property
    def is_tuning(self) -> bool:
        """Whether settings are chosen by the study: it says nothing of the method then."""
        return self.settings.get("purpose") == "tuning"

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in label order."""
        return list(self.prepared.get("classes", ()))

    def of(self, arm: str) -> list[Run]:
        """Return the runs of an arm by seed, whatever their state; empty where the arm was not asked for."""
        return [run for _, run in sorted(self.runs.get(arm, {}).items())]

    def finished(self, arm: str) -> list[Run]:
        """Return the finished runs of an arm, by seed."""
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


def mean(values: list[float | None]) -> float | None:
    """Return the mean; None where anything is missing, so that no failure is averaged away."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def floors(baselines: Mapping[str, Mapping[str, float | None]], metric: str) -> dict[str, float]:
    """Return what each trivial baseline scores in a metric: all that costs nothing, but not other real images.

    A metric of `NO_SKILL` has none: a constant guess is as well calibrated as can be, and knows nothing.
    """
    return {
        name: value
        for name, values in baselines.items()
        if name != "real" and metric not in NO_SKILL and (value := values.get(metric)) is not None
    }


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "seed"), plural(3, "arm")
    ('1 seed', '3 arms')
    """
    return f"{count} {noun}{'s' * (count != 1)}"


def titled(title: str, unit: str) -> str:
    """Return a metric with its unit, shares in per cent; a unit that is named after the metric says it already.

    >>> titled("Accuracy", "share"), titled("CIEDE2000", "CIEDE2000 units"), titled("PSNR", "dB")
    ('Accuracy, %', 'CIEDE2000', 'PSNR, dB')
    """
    shown = "" if unit.startswith(title) else "%" if unit == "share" else unit
    return f"{title}, {shown}" if shown else title


def spaced(name: str) -> str:
    """Return a name from a file as words.

    >>> spaced("coral_reef")
    'coral reef'
    """
    return name.replace("_", " ")
