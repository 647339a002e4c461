"""One arm against another in one metric, paired by seed: levels, difference, and what chance leaves of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from knowhue.plan import SHARES
from knowhue.report.study import Row, Run, Study
from knowhue.statistics.crossed import Crossed, Part, crossed, image_interval
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
from knowhue.statistics.verdicts import is_clear

BOTH = "seeds and images"
"""What an interval is over that speaks for the method."""
FEWEST_IMAGES = 20
"""Fewer say too little about other images for any interval over them."""
BCA_SEEDS = 20
"""Fewest seeds for which a bootstrap interval is shown: below, it covers too little."""


class Column(NamedTuple):
    """The column of `per_image.csv` whose mean a metric is; with classes, over the labelled images alone."""

    name: str
    of_labelled: bool = False
    by_class: bool = False


_OF_ALL = (
    "ab_l1", "ciede2000", "psnr_rgb", "ssim_rgb", "lpips_alex", "adversarial", "colourfulness",
    "colourfulness_absolute",
)  # fmt: skip
COLUMNS: Mapping[str, Column] = {name: Column(name) for name in _OF_ALL} | {
    "cross_entropy": Column("cross_entropy", of_labelled=True),
    "accuracy": Column("correct", of_labelled=True),
    "balanced_accuracy": Column("correct", of_labelled=True, by_class=True),
}

Pairs = Sequence[tuple[Run, Run]]


class Bounds(NamedTuple):
    """An interval of a mean difference, and what it speaks for.

    Attributes:
        interval: lower and upper end; None where there is none that is possible, and `why_not` says why.
        level: nominal coverage.
        over: `seeds and images` (the method), `seeds` (on these test images), `images` (these trained models).
        why_not: reason, in words.
    """

    interval: Interval | None
    level: float
    over: str
    why_not: str = ""

    @property
    def title(self) -> str:
        """Level and populations, such as `97.5 % interval over seeds and images`."""
        return f"{100 * self.level:g} % interval over {self.over}"

    def turned(self, sign: int) -> "Bounds":
        """Return the interval of the difference times `sign`, 1 or -1."""
        if self.interval is None or sign > 0:
            return self
        low, high = self.interval
        return self._replace(interval=(-high, -low))

    def is_clear(self, seeds: int, p_adjusted: float | None) -> bool:
        """Whether a difference may have a word or a mark, see `statistics.verdicts.is_clear`: not by the seeds alone.

        Args:
            seeds: that both arms have.
            p_adjusted: over seeds, adjusted for all differences beside it.
        """
        return self.over == BOTH and is_clear(seeds, p_adjusted, self.interval, 1 - self.level)


class ImageDifferences(NamedTuple):
    """Paired differences of single images, after minus before.

    Attributes:
        differences: (seeds, images).
        groups: (images,) class of each where classes count the same; None where all images do.
        binary: whether scores are 0 or 1.
    """

    differences: np.ndarray
    groups: np.ndarray | None
    binary: bool

    @property
    def too_few(self) -> str:
        """Why these are too few images to speak of others; empty where they are not."""
        count = self.differences.shape[1]
        if count < FEWEST_IMAGES:
            return f"too few images for an interval ({count}; {FEWEST_IMAGES} are needed)"
        counts = [count] if self.groups is None else np.bincount(self.groups).tolist()
        return "too few images of a class for an interval (2 are needed)" if min(counts) < 2 else ""

    def crossed(self) -> Crossed | None:
        """Taken apart into seeds, images and residual; None of one seed or of too few images."""
        return None if self.too_few else crossed(*self)

    def over_images(self, level: float) -> Interval | None:
        """The interval over images alone, which speaks for these trained models."""
        return None if self.too_few else image_interval(self.differences, level, self.groups, self.binary)


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
    def gains(self) -> np.ndarray:
        """(seeds,), differences turned so that positive is better."""
        return -self.differences if self.lower_is_better else self.differences

    @property
    def better(self) -> bool:
        """Whether the mean difference is an improvement."""
        return self.estimate != 0 and (self.estimate < 0) == self.lower_is_better

    @cached_property
    def images(self) -> ImageDifferences | None:
        """Differences of single images; None for metrics without a score an image, or with a diverged run."""
        return None if self.diverged else image_differences(self.pairs, self.metric, self.label)

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
        # 2 images without variance leave nothing to chance, and have the degree of freedom that formulas need
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
            over, why_not = BOTH, self.images.too_few
            found = self.crossed and self.crossed.interval(level)
            # one seed says nothing of other seeds
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
        return self.seeds[int(np.argmin(self.gains))]


def lower_is_better(metrics: Mapping[str, Row], metric: str) -> bool:
    """Whether a smaller value is the better one."""
    # for a study whose `metrics.json` is not there yet
    usual = "lower" if metric == "ab_l1" else "higher"
    return metrics.get(metric, {}).get("better", usual) == "lower"


def limits(metrics: Mapping[str, Row], metric: str) -> Interval:
    """The least and the greatest value that a metric can have: shares are within 0 and 1, no error is below 0."""
    if metric in SHARES or metrics.get(metric, {}).get("unit") == "share":
        return 0.0, 1.0
    return (0.0, math.inf) if lower_is_better(metrics, metric) else (-math.inf, math.inf)


def contrast(study: Study, metric: str, before: str, after: str) -> Contrast | None:
    """Compare two arms over the seeds of which both have a score; None without any."""
    runs = [{run.seed: run for run in study.of(arm)} for arm in (before, after)]
    return paired(study.metrics, metric, (before, after), runs, lambda run: score(study, run, metric))


def class_contrast(study: Study, metric: str, before: str, after: str, label: str) -> Contrast | None:
    """The same on the images of a class; a diverged run has no such score."""
    runs = [{run.seed: run for run in study.finished(arm)} for arm in (before, after)]
    return paired(
        study.metrics, metric, (before, after), runs, lambda run: run.of_class(label, metric), label
    )


def primary(study: Study, question: str) -> Contrast | None:
    """The contrast that a question asks for."""
    asked = study.questions.get(question)
    return contrast(study, asked.metric, asked.single, asked.multi) if asked else None


def paired(
    metrics: Mapping[str, Row],
    metric: str,
    arms: tuple[str, str],
    sides: Sequence[Mapping[int, Run]],
    score_of: Callable[[Run], float | None],
    label: str | None = None,
) -> Contrast | None:
    """Compare the runs of two sides, by seed, over the seeds of which both have a score; None without any.

    Args:
        metrics: says the metric's direction and unit.
        metric: what is compared.
        arms: names of the sides, before first.
        sides: runs by seed.
        score_of: a run's score; a diverged run's is the declared one.
        label: the class that scores are of; None of all images.
    """
    both = {seed: (sides[0][seed], sides[1][seed]) for seed in sorted(sides[0].keys() & sides[1].keys())}
    scores = {
        seed: values
        for seed, runs in both.items()
        if np.isfinite(np.array(values := list(map(score_of, runs)), float)).all()
    }
    if not scores:
        return None
    lost = {seed: [run for run in both[seed] if run.state == "diverged"] for seed in scores}
    return Contrast(
        metric, arms, lower_is_better(metrics, metric), limits(metrics, metric), tuple(scores),
        np.array(list(scores.values()), float), tuple(run for runs in lost.values() for run in runs),
        [both[seed] for seed, runs in lost.items() if not runs], label,
    )  # fmt: skip


def score(study: Study, run: Run, metric: str) -> float | None:
    """A run's score; of a diverged one of any arm, in a primary metric, that of the baseline declared for it."""
    if run.finished:
        return run.metric(metric)
    for asked in study.questions.values():
        if run.state == "diverged" and asked.metric == metric:
            return study.baselines.get(asked.if_diverged, {}).get(metric)
    return None


def with_numbers(found: Contrast | None) -> Contrast | None:
    """Return a contrast of the seeds whose scores are finite; None without any."""
    if found is None or np.isfinite(found.scores).all():
        return found
    kept = np.isfinite(found.scores).all(axis=1)
    if not kept.any():
        return None
    seeds = tuple(np.array(found.seeds)[kept].tolist())
    diverged = tuple(run for run in found.diverged if run.seed in seeds)
    pairs = [pair for pair in found.pairs if pair[0].seed in seeds]
    return replace(found, seeds=seeds, scores=found.scores[kept], diverged=diverged, pairs=pairs)


def image_differences(pairs: Pairs, metric: str, label: str | None = None) -> ImageDifferences | None:
    """Return the differences of single images in a metric; None where a score is missing or the metric has none.

    With a label: of the images of this class alone.
    """
    column = COLUMNS.get(metric)
    if column is None or not pairs:
        return None
    rows = [
        {row["index"]: row for row in run.images if _belongs(row, column, label)}
        for pair in pairs
        for run in pair
    ]
    # only runs scored on the same images are paired image by image
    if not rows[0] or any(each.keys() != rows[0].keys() for each in rows):
        return None
    scores = [[each[index].get(column.name) for index in rows[0]] for each in rows]
    if any(score is None for each in scores for score in each):
        return None
    values = np.array(scores, float)
    labels = [row.get("label", "") for row in rows[0].values()]
    groups = np.unique(labels, return_inverse=True)[1] if column.by_class else None
    # rows take turns: before and after of each seed
    return ImageDifferences(values[1::2] - values[::2], groups, column.name == "correct")


def _belongs(row: Row, column: Column, label: str | None) -> bool:
    """Whether a score counts: of the class that is asked about, or of any; of no unlabelled image in some metrics."""
    return (
        row.get("label") == label if label is not None else not column.of_labelled or bool(row.get("label"))
    )


def possible(interval: Interval, before: float, limits: Interval) -> bool:
    """Whether a difference from `before` can be anywhere in an interval, of a metric within `limits`.

    >>> possible((-0.4, 1.2), 0.8, (0.0, 1.0)), possible((-13.0, 2.0), 12.0, (0.0, math.inf))
    (False, False)
    """
    low, high = limits
    if math.isfinite(high - low):
        return interval[0] >= low - high and interval[1] <= high - low
    # an error has no upper limit: what is possible depends on the level that the difference starts from
    return interval[0] >= low - before and interval[1] <= high - before
