"""One arm against another in one metric, paired by seed: levels, difference, and what chance leaves of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from knowhue.plan import QUESTIONS, SHARES, Question
from knowhue.presets import checked
from knowhue.report.chance import Bounds, Pairs, Scores, image_scores, possible
from knowhue.report.records import Described, Run, Study
from knowhue.statistics import ALPHA
from knowhue.statistics import verdicts as rules
from knowhue.statistics.crossed import Crossed, Part
from knowhue.statistics.paired import (
    Interval,
    Share,
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
        limits: the least and the greatest value that the metric can have.
        seeds: of the pairs.
        scores: (seeds, 2); a diverged run has the score that was declared for it.
        diverged: runs among them that diverged.
        pairs: the runs of those pairs that both finished.
        label: the class that the scores are of; None of all images.
    """

    metric: str
    arms: tuple[str, str]
    lower_is_better: bool
    limits: Interval
    seeds: tuple[int, ...]
    scores: np.ndarray
    diverged: tuple[Run, ...]
    pairs: Pairs
    label: str | None = None

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

    @cached_property
    def images(self) -> Scores | None:
        """Differences of single images; None for metrics without a score an image, or with a diverged run."""
        return None if self.diverged else image_scores(self.pairs, self.metric, self.label)

    @cached_property
    def crossed(self) -> Crossed | None:
        """What seeds and images leave to chance; None of one seed, and without scores of enough single images."""
        return self.images and self.images.crossed()

    @property
    def parts(self) -> Crossed | None:
        """The same, of the seeds alone where no image has a score; None of one seed, or of too few images."""
        n = len(self.seeds)
        if self.images is not None or n < 2:
            return self.crossed
        over_seeds = Part(float(self.differences.var(ddof=1)) / n, n - 1)
        return Crossed(self.estimate, n, 2, over_seeds, Part(0.0, 1), Part(0.0, n - 1))

    @property
    def speaks_for_the_method(self) -> bool:
        """Whether the scores of single images are there, so that a sentence may go beyond these test images."""
        return self.images is not None

    def bounds(self, level: float) -> Bounds:
        """Return the interval of the mean difference that headline, figures and tables quote.

        Over seeds and images where there are scores of single images; over the images alone of one seed; over the
        seeds alone, and so on these test images, where no image has a score. Where the interval would reach beyond
        what the metric can be, or the images are too few, there is none.
        """
        over, found, why_not = "seeds", t_interval(self.differences, level), "one seed has no interval"
        if self.images is not None:
            over, why_not = "seeds and images", self.images.too_few
            found = self.crossed and self.crossed.interval(level)
            if len(self.seeds) == 1:
                over, found = "images", self.images.over_images(level)
        if found is not None and not possible(found, self.levels[0], self.limits):
            found, why_not = None, "too few seeds for an interval: it would reach beyond what is possible"
        return Bounds(found, level, over, "" if found else why_not)

    @property
    def over_seeds(self) -> Interval | None:
        """95 %, over seeds, Student's t: on these test images."""
        return t_interval(self.differences)

    @property
    def bca(self) -> Interval | None:
        """The bootstrap's check of it, where there are seeds enough."""
        return bca_interval(self.differences) if len(self.seeds) >= BCA_SEEDS else None

    @property
    def p(self) -> float:
        """Exact sign-flip p."""
        return sign_flip_p(self.differences)

    @property
    def effect(self) -> float | None:
        """Hedges-corrected d_z."""
        return hedges_dz(self.differences)

    @property
    def wins(self) -> Share:
        """Seeds in which after is better."""
        return wins(self.differences, self.lower_is_better)

    @property
    def ties(self) -> int:
        """Seeds in which both are the same."""
        return int(np.count_nonzero(self.differences == 0))

    def hurt(self, margin: float) -> Share:
        """Seeds in which after is worse by more than `margin`: negative transfer."""
        return sided_share(self.differences, margin, self.lower_is_better)

    @property
    def worst_seed(self) -> int:
        """The seed in which after does worst compared with before."""
        sign = 1 if self.lower_is_better else -1
        return self.seeds[int(np.argmax(sign * self.differences))]


def questions(study: Study) -> dict[str, Question]:
    """The questions as frozen; those of `QUESTIONS` where a study does not say."""
    frozen: Mapping[str, Mapping[str, object]] | None = study.settings.get("questions")
    return (
        {**QUESTIONS} if frozen is None else {name: checked(Question, each) for name, each in frozen.items()}
    )


def question_alpha(study: Study) -> float:
    """The level of one question: alpha, shared out among those that are asked."""
    return rules.question_alpha(study.settings.get("alpha", ALPHA), len(questions(study)))


def lower_is_better(described: Described, metric: str) -> bool:
    """Whether a smaller value is the better one."""
    usual = "lower" if metric == "ab_l1" else "higher"
    return described.metrics.get(metric, {}).get("better", usual) == "lower"


def limits(described: Described, metric: str) -> Interval:
    """The least and the greatest value that a metric can have: shares are within 0 and 1, no error is below 0."""
    if metric in SHARES or described.metrics.get(metric, {}).get("unit") == "share":
        return 0.0, 1.0
    return (0.0, math.inf) if lower_is_better(described, metric) else (-math.inf, math.inf)


def contrast(study: Study, metric: str, before: str, after: str) -> Contrast | None:
    """Compare two arms over the seeds of which both have a score; None without any."""
    sides = [{run.seed: run for run in study.of(arm)} for arm in (before, after)]
    return paired(study, metric, (before, after), sides, lambda run: score(study, run, metric))


def paired(
    described: Described,
    metric: str,
    arms: tuple[str, str],
    sides: Sequence[Mapping[int, Run]],
    score_of: Callable[[Run], float | None],
    label: str | None = None,
) -> Contrast | None:
    """Compare the runs of two sides, by seed, over the seeds of which both have a score; None without any.

    Args:
        described: says the metric's direction.
        metric: what is compared.
        arms: names of the sides, before first.
        sides: runs by seed.
        score_of: a run's score; a diverged run's is the declared one.
        label: the class that scores are of; None of all images.
    """
    scores, seeds, diverged, pairs = [], [], [], []
    for seed in sorted(sides[0].keys() & sides[1].keys()):
        runs = (sides[0][seed], sides[1][seed])
        values = [score_of(run) for run in runs]
        if None in values:
            continue
        seeds.append(seed)
        scores.append(values)
        lost = [run for run in runs if run.state == "diverged"]
        diverged += lost
        pairs += [] if lost else [runs]
    if not seeds:
        return None
    about = lower_is_better(described, metric), limits(described, metric)
    table = np.array(scores, float)
    return Contrast(metric, arms, *about, tuple(seeds), table, tuple(diverged), tuple(pairs), label)


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
