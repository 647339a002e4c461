"""One arm against another in one metric, paired by seed: levels, difference, and what chance leaves of it.

And what sentences and figures call the two: by the tasks of a study, or by the arms of anybody's table.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from knowhue.errors import spaced
from knowhue.metric_table import SHARES
from knowhue.report.study import TASK_TITLES, ScoreTable, Study
from knowhue.statistics import FEWEST_IMAGES, LEVEL, paired
from knowhue.statistics.crossed import Crossed, Part, crossed, image_interval
from knowhue.statistics.paired import Interval, Name, Share
from knowhue.statistics.verdicts import is_clear

BOTH = "seeds and images"
"""What an interval is over that speaks for the method."""
BY_CLASS = {"balanced_accuracy": "accuracy"}
"""Metrics whose classes count the same, and the one whose scores of single images they are made of."""


class Bounds(NamedTuple):
    """An interval of a mean difference, and what it speaks for."""

    interval: Interval | None
    """lower and upper end; None where there is none that is possible, and `why_not` says why"""
    level: float
    """nominal coverage"""
    over: str
    """`seeds and images` (the method), `seeds` (on these test images), `images` (these trained models)"""
    why_not: str = ""

    @property
    def title(self) -> str:
        """Level and populations, such as `97.5 % interval over seeds and images`."""
        return f"{100 * self.level:g} % interval over {self.over}"


class ImageDifferences(NamedTuple):
    """Paired differences of single images, after minus before."""

    differences: np.ndarray
    """(seeds, images)"""
    groups: np.ndarray | None
    """(images,) class of each where classes count the same; None where all images do"""
    binary: bool

    @property
    def too_few(self) -> str:
        """Why these are too few images to speak of others; empty where they are not."""
        count = self.differences.shape[1]
        if count < FEWEST_IMAGES:
            return f"too few images for an interval ({count}; {FEWEST_IMAGES} are needed)"
        counts = [count] if self.groups is None else np.bincount(self.groups).tolist()
        return "too few images of a class for an interval (2 are needed)" if min(counts) < 2 else ""

    def over_images(self, level: float) -> Interval | None:
        """The interval over images alone, which speaks for these trained models."""
        return None if self.too_few else image_interval(self.differences, level, self.groups, self.binary)


@dataclass(frozen=True, eq=False)
class Contrast:
    """`after` minus `before` in one metric, one pair a seed."""

    metric: str
    """a key of `METRICS`"""
    arms: tuple[str, str]
    """the two, before first"""
    lower_is_better: bool
    limits: Interval
    """the least and the greatest value that the metric can have"""
    seeds: tuple[int, ...]
    """of the pairs, ascending"""
    scores: np.ndarray
    """(seeds, 2); a diverged run has the score that was declared for it"""
    diverged: tuple[tuple[str, int], ...]
    """(arm, seed) of the runs among them that diverged"""
    images: ImageDifferences | None
    """differences of single images; None for metrics without a score an image, or with a diverged run"""

    @property
    def differences(self) -> np.ndarray:
        """(seeds,), after minus before."""
        return paired.seed_differences(*self.scores.T)

    @property
    def levels(self) -> tuple[float, float]:
        """Mean over seeds of before and of after."""
        before, after = self.scores.mean(axis=0).tolist()
        return before, after

    def row(self) -> dict[str, Any]:
        """What tables show of it: `metric`, `seeds`, both `scores`, their means `single` and `multi`, `difference`."""
        single, multi = self.levels
        return {
            "metric": self.metric, "seeds": self.seeds, "scores": self.scores.T.tolist(), "single": single,
            "multi": multi, "difference": self.estimate,
        }  # fmt: skip

    @property
    def estimate(self) -> float:
        return float(self.differences.mean())

    @property
    def gains(self) -> np.ndarray:
        """(seeds,), differences turned so that positive is better."""
        return -self.differences if self.lower_is_better else self.differences

    @property
    def better(self) -> bool:
        return self.estimate != 0 and (self.estimate < 0) == self.lower_is_better

    @cached_property
    def crossed(self) -> Crossed | None:
        """What seeds and images leave to chance; None of one seed, and without scores of enough single images."""
        return None if self.images is None or self.images.too_few else crossed(*self.images)

    @property
    def parts(self) -> Crossed | None:
        """The same, of the seeds alone where no image has a score; None of one seed, or of too few images."""
        n = len(self.seeds)
        if self.images is not None or n < 2:
            return self.crossed
        over_seeds = Part(float(self.differences.var(ddof=1)) / n, n - 1)
        # 2 images without variance leave nothing to chance, and have the degree of freedom that formulas need
        return Crossed(self.estimate, n, 2, over_seeds, Part(0.0, 1), Part(0.0, n - 1))

    def bounds(self, level: float) -> Bounds:
        """Return the interval of the mean difference that headline, figures and tables quote.

        Over seeds and images where there are scores of single images; over the images alone of one seed; over the
        seeds alone, and so on these test images, where no image has a score. Where the interval would reach beyond
        what the metric can be, or the images are too few, there is none.
        """
        over, found, why_not = "seeds", paired.t_interval(self.differences, level), "one seed has no interval"
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
    def p(self) -> float:
        return paired.sign_flip_p(self.differences)

    @property
    def effect(self) -> float | None:
        return paired.hedges_dz(self.differences)

    @property
    def wins(self) -> Share:
        return paired.wins(self.differences, self.lower_is_better)

    @property
    def ties(self) -> int:
        return int(np.count_nonzero(self.differences == 0))

    def hurt(self, margin: float) -> Share:
        """Seeds in which after is worse by more than `margin`: negative transfer."""
        return paired.sided_share(self.differences, margin, self.lower_is_better)


def contrast(table: ScoreTable, metric: str, before: str, after: str, label: str = "") -> Contrast | None:
    """Compare two arms over the seeds of which both have a score; None without any.

    Diverged runs count with what is declared for them, but not where a `label`, a class, is compared alone.
    """
    arms = (before, after)
    first, second = (table.scores(arm, metric, label) for arm in arms)
    seeds = tuple(seed for seed in first if seed in second)
    if not seeds:
        return None
    lost = ((arm, seed) for seed in seeds for arm in arms if seed in table.declared(arm, metric))
    diverged = () if label else tuple(lost)
    # a diverged run has no scores of single images, and the others' would be of another mean
    images = None if diverged else image_differences(table, metric, arms, seeds, label)
    scores = np.array([(first[seed], second[seed]) for seed in seeds], float)
    return Contrast(
        metric, arms, table.lower_is_better(metric), _limits(table, metric), seeds, scores, diverged, images
    )


def primary(study: Study, question: str) -> Contrast | None:
    asked = study.questions.get(question)
    return contrast(study.table, asked.metric, asked.single, asked.multi) if asked else None


def image_differences(
    table: ScoreTable, metric: str, arms: tuple[str, str], seeds: Sequence[int], label: str = ""
) -> ImageDifferences | None:
    """Return the differences of single images in a metric; None where a score is missing or the metric has none."""
    source = BY_CLASS.get(metric, metric)
    rows = [table.of_images(arm, seed, source) for seed in seeds for arm in arms]
    if label:
        rows = [{image: each[image] for image in each if table.labels[image] == label} for each in rows]
    # only runs scored on the same images are paired image by image
    if not rows[0] or any(each.keys() != rows[0].keys() for each in rows):
        return None
    values = np.array([[each[image] for image in rows[0]] for each in rows], float)
    if not np.isfinite(values).all():
        return None
    labels = [table.labels[image] for image in rows[0]]
    groups = np.unique(labels, return_inverse=True)[1] if metric in BY_CLASS else None
    # rows take turns: before and after of each seed
    is_binary = bool(((values == 0) | (values == 1)).all())
    return ImageDifferences(values[1::2] - values[::2], groups, is_binary)


class FamilyTest(NamedTuple):
    """A contrast on which no verdict rests."""

    found: Contrast
    bounds: Bounds
    p: float | None
    """exact sign-flip, over seeds, on these test images; None of one seed, where it is 1 whatever was found"""
    p_adjusted: float | None
    """by Benjamini and Hochberg over all that are tested beside it"""

    @property
    def is_clear(self) -> bool:
        """Whether the difference may have a word or a mark: not by the seeds alone, see `verdicts.is_clear`."""
        bounds, seeds = self.bounds, len(self.found.seeds)
        return bounds.over == BOTH and is_clear(seeds, self.p_adjusted, bounds.interval, 1 - bounds.level)

    def numbers(self) -> dict[str, Any]:
        """All of it by name, as `results.json` has it."""
        return {
            "mean": self.found.estimate, "interval": self.bounds.interval, "level": self.bounds.level,
            "over": self.bounds.over, "p": self.p, "p_adjusted": self.p_adjusted, "clear": self.is_clear,
            "seeds": list(self.found.seeds),
        }  # fmt: skip


def family_tests(contrasts: Mapping[Name, Contrast | None], level: float = LEVEL) -> dict[Name, FamilyTest]:
    """Test a family of contrasts, adjusted for their number; what is None is left out."""
    known = {name: found for name, found in contrasts.items() if found is not None}
    p = {name: found.p for name, found in known.items() if len(found.seeds) > 1}
    adjusted = paired.benjamini_hochberg(p)
    return {
        name: FamilyTest(found, found.bounds(level), p.get(name), adjusted.get(name))
        for name, found in known.items()
    }


def _limits(table: ScoreTable, metric: str) -> Interval:
    """Return what a metric can be: shares are within 0 and 1, no error is below 0."""
    about = table.about.get(metric, {})
    if metric in SHARES or about.get("unit") == "share":
        return 0.0, 1.0
    # of somebody's own metric nobody knows that it is an error: a log-likelihood may be below 0
    is_error = table.lower_is_better(metric) and about.get("least", 0) is not None
    return (0.0, math.inf) if is_error else (-math.inf, math.inf)


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


class Wording(NamedTuple):
    """What sentences and figures call the two sides of a question, and what they claim of them."""

    question: str
    """as it is asked"""
    title: str
    single: str
    """the arm before, short"""
    multi: str
    """the one that is held against it, short"""
    single_model: str
    """the arm before as the subject of a sentence"""
    multi_model: str
    claims: Mapping[str, str]
    """what is said of the method, by direction: `helps`, `hurts`, or empty where no difference matters"""
    claims_here: Mapping[str, str]
    """what is said of these models, without scores of single images"""


_SIDES = {"helps": "better", "hurts": "worse"}
WORDINGS = {
    task: Wording(
        question,
        TASK_TITLES[task],
        "single-task",
        "multi-task",
        "the single-task model",
        "the multi-task model",
        {
            **{direction: f"Multi-task training {direction} {does}" for direction in _SIDES},
            "": f"Multi-task training makes no difference that matters to {does}",
        },
        {
            **{direction: f"the multi-task models are {side} {doing}" for direction, side in _SIDES.items()},
            "": f"the arms differ {doing} by less than what matters",
        },
    )
    for task, question, does, doing in (
        ("colour", "Is colouring easier for a model that also learns to classify?", "colouring", "at colouring"),
        ("class", "Is classifying easier for a model that also learns to colour?", "classification", "at classifying"),
    )
}  # fmt: skip


def wording(study: Study, question: str) -> Wording:
    """How a question of a study is worded; of a table by the names of its arms and of the metric."""
    if not study.is_table:
        return WORDINGS[question]
    asked = study.questions[question]
    before, after = f"“{asked.single}”", f"“{asked.multi}”"
    title = str(study.metrics.get(asked.metric, {}).get("title") or spaced(asked.metric))
    # PSNR stays as it is, and so does what the table calls by this name, such as IoU
    as_is = title[1:2].isupper() or title == spaced(asked.metric)
    metric = title if as_is else title[:1].lower() + title[1:]
    claims = {direction: f"{after} is {side} than {before} in {metric}" for direction, side in _SIDES.items()}
    here = {
        direction: f"the models of {after} are {side} in {metric} than those of {before}"
        for direction, side in _SIDES.items()
    }
    return Wording(
        f"Is {after} better than {before} in {metric}?",
        f"{title}: {asked.multi} against {asked.single}",
        asked.single,
        asked.multi,
        before,
        after,
        claims | {"": f"Between {after} and {before} there is no difference in {metric} that matters"},
        here | {"": f"the models of {after} and of {before} differ in {metric} by less than what matters"},
    )
