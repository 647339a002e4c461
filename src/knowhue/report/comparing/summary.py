"""Means over seeds, and paired differences to the reference, judged as a study's are; pure arithmetic."""

from typing import Any, NamedTuple

import numpy as np

from knowhue.report.comparing.reading import ASKED, Comparison
from knowhue.report.contrasts import Bounds, Contrast, paired
from knowhue.report.findings import Judged, judged
from knowhue.report.study import Row, floors
from knowhue.statistics import ALPHA, LEVEL
from knowhue.statistics import verdicts as rules
from knowhue.statistics.paired import benjamini_hochberg

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
COST = ("train_s", "train_s_per_image", "predict_s_per_image", "images_seen", "parameters")


class Score(NamedTuple):
    """A metric of a method in a regime.

    Attributes:
        mean: over the finished seeds.
        by_seed: of each.
        found: the method after the reference, over the seeds that both have; a diverged run has in the error the score
            declared for it. None of the reference itself.
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
        """Whether a difference may be called one: by the test and by the interval over seeds and images."""
        return bool(
            self.found and self.bounds and self.bounds.is_clear(len(self.found.seeds), self.p_adjusted)
        )


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


def verdict(comparison: Comparison, regime: str, method: str) -> Judged | None:
    """Judge a method's error against the reference's, by the rule of a study's questions; None of the reference."""
    if method == comparison.reference:
        return None
    trivial = floors(comparison.baselines, ASKED.metric).values()
    found = _contrast(comparison, regime, method, ASKED.metric)
    return judged(found, ASKED.sesoi, question_alpha(comparison), trivial, comparison.is_complete)


def question_alpha(comparison: Comparison) -> float:
    """The level of one verdict: alpha, shared out among all methods at both regimes."""
    return rules.question_alpha(ALPHA, 2 * (len(comparison.methods) - 1))


def _score(comparison: Comparison, regime: str, method: str, metric: str) -> Score:
    own = _values(comparison.finished(regime, method), metric)
    mean = float(np.mean(list(own.values()))) if own else None
    found = _contrast(comparison, regime, method, metric)
    return Score(mean, own, found, found and found.bounds(LEVEL))


def _contrast(comparison: Comparison, regime: str, method: str, metric: str) -> Contrast | None:
    """The method after the reference, over the seeds of which both have a score."""
    arms = (comparison.reference, method)
    if method == comparison.reference or metric not in QUALITY:
        return None
    sides = [comparison.ended(regime, arm) for arm in arms]
    return paired(comparison.metrics, metric, arms, sides, lambda run: comparison.score(run, metric))


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
        "baselines": comparison.baselines,
    }


def _method(comparison: Comparison, regime: str, method: str) -> Row:
    found = {name: each for (other, name), each in scores(comparison, regime).items() if other == method}
    found_verdict = verdict(comparison, regime, method)
    return {
        "epochs": comparison.regimes[regime]["epochs"].get(method),
        "verdict": found_verdict and found_verdict.word.value,
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
