"""One arm against another in one metric, paired by seed: levels, difference, and what chance leaves of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from knowhue.plan import QUESTIONS, Question
from knowhue.presets import checked
from knowhue.report.chance import COLUMNS, Pairs, population_interval
from knowhue.report.records import Run, Study
from knowhue.statistics.paired import (
    Interval,
    Wins,
    bca_interval,
    hedges_dz,
    sided_share,
    sign_flip_p,
    t_interval,
    wins,
)

BCA_SEEDS = 20
"""Fewest seeds for which a bootstrap interval is shown: below, it covers too little."""


@dataclass(frozen=True, eq=False)
class Contrast:
    """`after` minus `before` in one metric, one pair a seed.

    Attributes:
        metric: a key of `METRICS`.
        arms: the two, before first.
        lower_is_better: direction of the metric.
        seeds: of the pairs.
        scores: (seeds, 2); a diverged run has the score that was declared for it.
        diverged: runs among them that diverged.
        pairs: the runs of those pairs that both finished.
    """

    metric: str
    arms: tuple[str, str]
    lower_is_better: bool
    seeds: tuple[int, ...]
    scores: np.ndarray
    diverged: tuple[Run, ...]
    pairs: Pairs

    @property
    def differences(self) -> np.ndarray:
        """(seeds,), after minus before."""
        return self.scores[:, 1] - self.scores[:, 0]

    @property
    def levels(self) -> tuple[float, float]:
        """Mean over seeds of before and of after."""
        before, after = self.scores.mean(axis=0).tolist()
        return before, after

    @property
    def estimate(self) -> float:
        """Mean difference."""
        return float(self.differences.mean())

    @property
    def better(self) -> bool:
        """Whether the mean difference is an improvement."""
        return self.estimate != 0 and (self.estimate < 0) == self.lower_is_better

    @property
    def interval(self) -> Interval | None:
        """95 %, over seeds, Student's t."""
        return t_interval(self.differences)

    @property
    def bca(self) -> Interval | None:
        """The bootstrap's check of it, where there are seeds enough."""
        return bca_interval(self.differences) if len(self.seeds) >= BCA_SEEDS else None

    @property
    def population(self) -> Interval | None:
        """95 %, over seeds and pictures; None for metrics without a score a picture, or with a diverged run."""
        column = COLUMNS.get(self.metric)
        return population_interval(self.pairs, column) if column and not self.diverged else None

    @property
    def p(self) -> float:
        """Exact sign-flip p."""
        return sign_flip_p(self.differences)

    @property
    def effect(self) -> float | None:
        """Hedges-corrected d_z."""
        return hedges_dz(self.differences)

    @property
    def wins(self) -> Wins:
        """Seeds in which after is better."""
        return wins(self.differences, self.lower_is_better)

    def hurt(self, margin: float) -> Wins:
        """Seeds in which after is worse by more than `margin`: negative transfer."""
        return sided_share(self.differences, margin, self.lower_is_better)

    @property
    def worst_seed(self) -> int:
        """The seed in which after does worst compared with before."""
        sign = 1 if self.lower_is_better else -1
        return self.seeds[int(np.argmax(sign * self.differences))]


def questions(study: Study) -> dict[str, Question]:
    """The questions as frozen; the usual ones in a study of an older version."""
    frozen: Mapping[str, Mapping[str, object]] = study.settings.get("questions") or {}
    return {name: checked(Question, values) for name, values in frozen.items()} or {**QUESTIONS}


def contrast(study: Study, metric: str, before: str, after: str) -> Contrast | None:
    """Compare two arms over the seeds of which both have a score; None without any."""
    sides = [{run.seed: run for run in study.of(arm)} for arm in (before, after)]
    scores, seeds, diverged, pairs = [], [], [], []
    for seed in sorted(sides[0].keys() & sides[1].keys()):
        runs = (sides[0][seed], sides[1][seed])
        values = [score(study, run, metric) for run in runs]
        if None in values:
            continue
        seeds.append(seed)
        scores.append(values)
        lost = [run for run in runs if run.state == "diverged"]
        diverged += lost
        pairs += [] if lost else [runs]
    if not seeds:
        return None
    lower = study.metrics.get(metric, {}).get("better", "lower" if metric == "ab_l1" else "higher") == "lower"
    return Contrast(
        metric, (before, after), lower, tuple(seeds), np.array(scores, float), tuple(diverged), tuple(pairs)
    )


def score(study: Study, run: Run, metric: str) -> float | None:
    """A run's score; of a diverged one, in a primary metric, that of the baseline declared for it."""
    if run.finished:
        return run.metric(metric)
    for question in questions(study).values():
        if (
            run.state == "diverged"
            and question.metric == metric
            and run.arm in (question.single, question.multi)
        ):
            return study.baselines.get(question.if_diverged, {}).get(metric)
    return None


def primary(study: Study, question: str) -> Contrast | None:
    """The contrast of one of the two questions."""
    asked = questions(study).get(question)
    return contrast(study, asked.metric, asked.single, asked.multi) if asked else None
