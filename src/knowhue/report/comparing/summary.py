"""Means over seeds, and paired differences to the reference, judged as a study's are; pure arithmetic."""

import math
from typing import Any, NamedTuple

import numpy as np

from knowhue.plan import QUESTIONS
from knowhue.report.chance import Bounds
from knowhue.report.comparing.reading import Comparison
from knowhue.report.contrasts import DEFAULT_ALPHA, Contrast
from knowhue.report.records import Row
from knowhue.statistics.multiplicity import benjamini_hochberg
from knowhue.statistics.verdicts import Word, judge

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


LEVEL = 0.95
ERROR = "ab_l1"
"""What a method is judged by; the smallest effect of interest is that of the question about colouring."""


class Score(NamedTuple):
    """A metric of a method in a regime.

    Attributes:
        mean: over the finished seeds.
        by_seed: of each.
        found: the method after the reference, over the seeds that both have; None of the reference itself.
        bounds: the 95 % interval of their difference: over seeds and images where images have scores.
        p_adjusted: exact sign-flip p, adjusted over all methods and metrics of the regime (Benjamini-Hochberg).
    """

    mean: float | None
    by_seed: dict[int, float]
    found: Contrast | None = None
    bounds: Bounds | None = None
    p_adjusted: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether a difference may be called one: by the test and by the interval."""
        ends = self.bounds.interval if self.bounds else None
        rejected = self.p_adjusted is not None and self.p_adjusted <= 1 - LEVEL
        return rejected and ends is not None and (ends[0] > 0 or ends[1] < 0)


def scores(comparison: Comparison, regime: str) -> dict[tuple[str, str], Score]:
    """Every metric of every method in a regime, by (method, metric)."""
    names = (*metrics(comparison), "diversity")
    found = {
        (method, name): _score(comparison, regime, method, name)
        for method in comparison.methods
        for name in names
    }
    p = {
        " ".join(key): each.found.p for key, each in found.items() if each.found and len(each.found.seeds) > 1
    }
    adjusted = benjamini_hochberg(p)
    return {key: each._replace(p_adjusted=adjusted.get(" ".join(key))) for key, each in found.items()}


def verdict(comparison: Comparison, regime: str, method: str) -> Word | None:
    """Judge a method's error against the reference's, by the grammar and the rule of a study's questions.

    None of the reference.
    """
    found = _score(comparison, regime, method, ERROR).found
    if found is None:
        return None if method == comparison.reference else Word.NO_VERDICT
    alpha = question_alpha(comparison)
    complete = len(found.seeds) == len(comparison.asked["seeds"])
    best = found.limits[0]
    sesoi = QUESTIONS["colour"].sesoi
    gray = comparison.asked.get("baselines", {}).get("gray", {}).get(ERROR)
    at_limit = all(level - best <= sesoi or (gray is not None and level >= gray) for level in found.levels)
    said = judge(
        len(found.seeds), found.p, lambda level: found.bounds(level).interval, sesoi, alpha,
        found.lower_is_better, complete, at_limit,
    )  # fmt: skip
    return said.word


def question_alpha(comparison: Comparison) -> float:
    """The level of one verdict: alpha, shared out among all methods at both regimes."""
    return DEFAULT_ALPHA / (2 * (len(comparison.methods) - 1))


def _score(comparison: Comparison, regime: str, method: str, metric: str) -> Score:
    own = _values(comparison.finished(regime, method), metric)
    mean = float(np.mean(list(own.values()))) if own else None
    theirs = _values(comparison.finished(regime, comparison.reference), metric)
    shared = tuple(seed for seed in own if seed in theirs)
    if method == comparison.reference or not shared or metric not in QUALITY:
        return Score(mean, own)
    lower = metric != "recognition"
    limits = (0.0, 1.0) if metric == "recognition" else (0.0, math.inf)
    arms = (comparison.reference, method)
    pairs = [
        (comparison.run(regime, arms[0], seed), comparison.run(regime, arms[1], seed)) for seed in shared
    ]
    table = np.array([(theirs[seed], own[seed]) for seed in shared], float)
    found = Contrast(metric, arms, lower, limits, shared, table, (), pairs)
    return Score(mean, own, found, found.bounds(LEVEL))


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
    found = {name: each for (other, name), each in scores(comparison, regime).items() if other == method}
    word = verdict(comparison, regime, method)
    return {
        "epochs": comparison.regimes[regime]["epochs"].get(method),
        "verdict": word and word.value,
        "scores": {
            name: {"mean": each.mean, "by_seed": each.by_seed, "difference": _difference(each)}
            for name, each in found.items()
            if each.by_seed
        },
        "cost": {name: cost(comparison, regime, method, name) for name in COST},
    }


def _difference(score: Score) -> Row | None:
    if score.found is None or score.bounds is None:
        return None
    return {
        "mean": score.found.estimate, "seeds": list(score.found.seeds), "interval": score.bounds.interval,
        "level": score.bounds.level, "over": score.bounds.over, "p": score.found.p, "p_adjusted": score.p_adjusted,
    }  # fmt: skip


def _values(runs: dict[int, Row], metric: str) -> dict[int, float]:
    found = {seed: run["scores"].get(metric) for seed, run in runs.items()}
    return {seed: value for seed, value in found.items() if value is not None}
