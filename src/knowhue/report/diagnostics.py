"""How the tasks pulled at the shared encoder during training, seed by seed: described, never judged."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from knowhue.report.records import Row, Run, Study, Table
from knowhue.report.tables import number
from knowhue.statistics.paired import Interval, bounded_interval

COST = "cost"


class Diagnostic(NamedTuple):
    """What is made of a run's looks at its gradients.

    Attributes:
        title: for the reader.
        of: its value for a run, from its looks; None where they do not say.
        promise: by question, the sign of the correlation with transfer that it would have if it foretold it;
            a question that it says nothing of is left out.
    """

    title: str
    of: Callable[[Sequence[Row]], float | None]
    promise: Mapping[str, int]


class SeedDiagnostics(NamedTuple):
    """One multi-task run: how many looks, and every diagnostic by name, with `cost`, the share of fine-tuning time."""

    seed: int
    looks: int
    values: Mapping[str, float | None]


class DiagnosticMean(NamedTuple):
    """One diagnostic over the seeds that have it: mean, 95 % t interval where it is possible, and extremes."""

    name: str
    seeds: tuple[int, ...]
    mean: float
    interval: Interval | None
    lowest: float
    highest: float


def _known(looks: Sequence[Row], name: str) -> list[float]:
    values = [look.get(name) for look in looks]
    return [value for value in values if value is not None and math.isfinite(value)]


def _mean(name: str) -> Callable[[Sequence[Row]], float | None]:
    return lambda looks: float(np.mean(values)) if (values := _known(looks, name)) else None


def _median(name: str) -> Callable[[Sequence[Row]], float | None]:
    return lambda looks: float(np.median(values)) if (values := _known(looks, name)) else None


def _conflict(name: str) -> Callable[[Sequence[Row]], float | None]:
    return lambda looks: float(np.mean(np.array(values) < 0)) if (values := _known(looks, name)) else None


def _norm_ratio(looks: Sequence[Row]) -> float | None:
    """Return the geometric mean of class over colour; colour's norm as if its two terms were at right angles."""
    pairs = [
        (look.get("norm_class"), math.hypot(look["norm_l1"], look.get("norm_adversarial") or 0.0))
        for look in looks
        if look.get("norm_l1") is not None
    ]
    ratios = [math.log(one / other) for one, other in pairs if one and other and math.isfinite(one * other)]
    return math.exp(math.fsum(ratios) / len(ratios)) if ratios else None


_HELPS, _HURTS = {"colour": 1, "class": 1}, {"colour": -1, "class": -1}


DIAGNOSTICS: dict[str, Diagnostic] = {
    "cosine_l1": Diagnostic("Cosine, cross-entropy and L1", _mean("cosine_l1"), _HELPS),
    "cosine_adversarial": Diagnostic(
        "Cosine, cross-entropy and adversarial", _mean("cosine_adversarial"), _HELPS
    ),
    "cosine_colour": Diagnostic("Cosine, cross-entropy and colour sum", _mean("cosine_colour"), _HELPS),
    "conflict_l1": Diagnostic("Conflict with L1, % of steps", _conflict("cosine_l1"), _HURTS),
    "conflict_adversarial": Diagnostic(
        "Conflict with adversarial, % of steps", _conflict("cosine_adversarial"), _HURTS
    ),
    "conflict_colour": Diagnostic("Conflict with colour sum, % of steps", _conflict("cosine_colour"), _HURTS),
    "norm_ratio": Diagnostic("Gradient norm, class over colour", _norm_ratio, {}),
    "affinity_class_to_colour": Diagnostic(
        "Affinity, class to colour", _median("affinity_class_to_colour"), {"colour": 1}
    ),
    "affinity_colour_to_class": Diagnostic(
        "Affinity, colour to class", _median("affinity_colour_to_class"), {"class": 1}
    ),
}
"""Each step that was looked at counts the same. Cosines are means and conflicts shares of negative cosines, at the
shared features; the norm ratio is a geometric mean; affinities are medians, because a step that all but forgets the
other task weighs more in a mean than all the rest."""


def seed_diagnostics(study: Study, arm: str = "multi") -> list[SeedDiagnostics]:
    """Return the diagnostics of each run of an arm that came to its end, diverged or not, and was looked at."""
    ended = [run for run in study.of(arm) if run.finished or run.state == "diverged"]
    return [_diagnose(run) for run in ended if _looks(run)]


def diagnostic_means(study: Study, arm: str = "multi") -> list[DiagnosticMean]:
    """Return each diagnostic over the seeds that have it, and their cost as share of fine-tuning time."""
    found = seed_diagnostics(study, arm)
    rows = []
    for name in (*DIAGNOSTICS, COST):
        known = {each.seed: value for each in found if (value := each.values[name]) is not None}
        if known:
            values = list(known.values())
            spread = (bounded_interval(values, _limits(name)), min(values), max(values))
            rows.append(DiagnosticMean(name, tuple(known), float(np.mean(values)), *spread))
    return rows


def diagnostic_means_rows(study: Study, arm: str = "multi") -> Table:
    """Return `diagnostic_means` as text, one row a diagnostic; header first."""
    rows: Table = [
        ["Diagnostic", "Mean over seeds", "95 % interval over seeds", "Lowest", "Highest", "Seeds"]
    ]
    for row in diagnostic_means(study, arm):
        title = "Share of fine-tuning time, %" if row.name == COST else DIAGNOSTICS[row.name].title
        ends = (
            " to ".join(_text(row.name, end) for end in row.interval)
            if row.interval
            else "none: too few seeds"
        )
        cells = [_text(row.name, value) for value in (row.lowest, row.highest)]
        rows.append([title, _text(row.name, row.mean), ends, *cells, len(row.seeds)])
    return rows


def _looks(run: Run) -> list[Row]:
    return [look for entry in run.log for look in entry.get("diagnostics") or ()]


def _diagnose(run: Run) -> SeedDiagnostics:
    looks = _looks(run)
    values = {name: diagnostic.of(looks) for name, diagnostic in DIAGNOSTICS.items()}
    spent = [entry.get("seconds") or 0.0 for entry in run.log if entry.get("phase") == "finetune"]
    cost = math.fsum(_known(looks, "seconds")) / math.fsum(spent) if any(spent) else None
    return SeedDiagnostics(run.seed, len(looks), values | {COST: cost})


def _is_share(name: str) -> bool:
    return name.startswith("conflict") or name == COST


def _limits(name: str) -> Interval:
    """The least and the greatest value that a diagnostic can have."""
    if _is_share(name):
        return 0.0, 1.0
    return (
        (-1.0, 1.0) if name.startswith("cosine") else (0.0 if name == "norm_ratio" else -math.inf, math.inf)
    )


def _text(name: str, value: float | None) -> str:
    text = number(value, "share" if _is_share(name) else "")
    return text if text.strip("−0.") else text.removeprefix("−")  # no minus before what rounds to 0
