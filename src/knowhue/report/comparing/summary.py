"""Means over seeds, and paired differences to the reference; pure arithmetic on a comparison."""

from typing import Any, NamedTuple

import numpy as np

from knowhue.report.comparing.reading import Comparison
from knowhue.report.records import Row
from knowhue.statistics.paired import Interval, t_interval

QUALITY = (
    "ab_l1",
    "ciede2000",
    "colourfulness_difference_of_means",
    "chroma_ratio",
    "fd_lite0",
    "fid",
    "recognition",
)
"""In the order of the tables; `fid` only where it was computed."""
COST = ("train_s", "train_s_per_picture", "predict_s_per_picture", "pictures_seen", "parameters")


class Difference(NamedTuple):
    """Method minus reference, mean over the seeds that both have; the 95 % t interval needs two."""

    mean: float
    interval: Interval | None
    seeds: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


class Score(NamedTuple):
    """A metric of a method in a regime."""

    mean: float | None
    by_seed: dict[int, float]
    difference: Difference | None = None


def score(comparison: Comparison, regime: str, method: str, metric: str) -> Score:
    """A metric over the finished seeds, with its difference to the reference where that is another method."""
    own = _values(comparison.finished(regime, method), metric)
    mean = float(np.mean(list(own.values()))) if own else None
    if method == comparison.reference:
        return Score(mean, own)
    theirs = _values(comparison.finished(regime, comparison.reference), metric)
    shared = [own[seed] - theirs[seed] for seed in own if seed in theirs]
    if not shared:
        return Score(mean, own)
    return Score(mean, own, Difference(float(np.mean(shared)), t_interval(shared), len(shared)))


def cost(comparison: Comparison, regime: str, method: str, name: str) -> float | None:
    """A cost, mean over the finished seeds."""
    runs = comparison.finished(regime, method).values()
    known = [run["cost"][name] for run in runs if run["cost"].get(name) is not None]
    return float(np.mean(known)) if known else None


def metrics(comparison: Comparison) -> list[str]:
    """Those of `QUALITY` that some run has."""
    had = {
        name for run in comparison.asked["runs"] for name, value in run["scores"].items() if value is not None
    }
    return [name for name in QUALITY if name in had]


def results(comparison: Comparison) -> dict[str, Any]:
    """Every number of the report, as `comparison-results.json` holds them."""
    return {
        "reference": comparison.reference,
        "regimes": {
            regime: {
                "title": described["title"],
                "budget_s": described.get("budget_s"),
                "unfinished": comparison.unfinished(regime),
                "methods": {name: _method(comparison, regime, name) for name in comparison.methods},
            }
            for regime, described in comparison.regimes.items()
        },
        "baselines": comparison.asked.get("baselines", {}),
    }


def _method(comparison: Comparison, regime: str, method: str) -> Row:
    found = {name: score(comparison, regime, method, name) for name in (*metrics(comparison), "diversity")}
    return {
        "epochs": comparison.regimes[regime]["epochs"].get(method),
        "scores": {
            name: {
                "mean": each.mean,
                "by_seed": each.by_seed,
                "difference": None if each.difference is None else each.difference._asdict(),
            }
            for name, each in found.items()
            if each.by_seed
        },
        "cost": {name: cost(comparison, regime, method, name) for name in COST},
    }


def _values(runs: dict[int, Row], metric: str) -> dict[int, float]:
    found = {seed: run["scores"].get(metric) for seed, run in runs.items()}
    return {seed: value for seed, value in found.items() if value is not None}
