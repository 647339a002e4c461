"""Two arms compared in one metric, paired by seed: their difference with intervals and tests, and its wording."""

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
"""Populations of an interval that generalises to the method, not only to these test images or models."""
BY_CLASS = {"balanced_accuracy": "accuracy"}
"""By metric in which classes have equal weight, the metric whose scores of single images it averages."""


class Bounds(NamedTuple):
    """An interval of a mean difference, and the populations that it generalises to."""

    interval: Interval | None
    """lower and upper end; None where there is no possible one, `why_not` gives the reason"""
    level: float
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
    """(images,) class index, where classes have equal weight; None where images have"""
    binary: bool
    """whether all scores are 0 or 1"""

    @property
    def too_few(self) -> str:
        """Why the images are too few for an interval; empty where they are enough."""
        count = self.differences.shape[1]
        if count < FEWEST_IMAGES:
            return f"too few images for an interval ({count}; {FEWEST_IMAGES} are needed)"
        counts = [count] if self.groups is None else np.bincount(self.groups).tolist()
        return "too few images of a class for an interval (2 are needed)" if min(counts) < 2 else ""

    def over_images(self, level: float) -> Interval | None:
        """Return the interval over images alone, which generalises to other images for these trained models."""
        return None if self.too_few else image_interval(self.differences, level, self.groups, self.binary)


@dataclass(frozen=True, eq=False)
class Contrast:
    """`after` minus `before` in one metric, paired by seed."""

    metric: str
    arms: tuple[str, str]
    lower_is_better: bool
    limits: Interval
    """the smallest and the largest possible value of the metric"""
    seeds: tuple[int, ...]
    """ascending"""
    scores: np.ndarray
    """(seeds, 2), before and after; a diverged run has its declared score"""
    diverged: tuple[tuple[str, int], ...]
    """(arm, seed) of diverged runs"""
    images: ImageDifferences | None
    """None for metrics without scores of single images, and with a diverged run"""

    @property
    def differences(self) -> np.ndarray:
        """(seeds,), after minus before."""
        return paired.seed_differences(*self.scores.T)

    @property
    def levels(self) -> tuple[float, float]:
        """Means over seeds, before and after."""
        before, after = self.scores.mean(axis=0).tolist()
        return before, after

    def row(self) -> dict[str, Any]:
        """Return a row: `metric`, `seeds`, the `scores` of both arms, means `single`, `multi`, and `difference`."""
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
        """(seeds,), the differences with the sign for which positive is better."""
        return -self.differences if self.lower_is_better else self.differences

    @property
    def better(self) -> bool:
        return self.estimate != 0 and (self.estimate < 0) == self.lower_is_better

    @cached_property
    def crossed(self) -> Crossed | None:
        """Variance over seeds and images; None with one seed, or without scores of enough single images."""
        return None if self.images is None or self.images.too_few else crossed(*self.images)

    @property
    def parts(self) -> Crossed | None:
        """`crossed`, or over seeds alone where images have no scores; None with one seed or too few images."""
        n = len(self.seeds)
        if self.images is not None or n < 2:
            return self.crossed
        over_seeds = Part(float(self.differences.var(ddof=1)) / n, n - 1)
        # 2 images without variance add nothing, and have the one degree of freedom that formulas need
        return Crossed(self.estimate, n, 2, over_seeds, Part(0.0, 1), Part(0.0, n - 1))

    def bounds(self, level: float) -> Bounds:
        """Return the interval of the mean difference that sentences, figures and tables quote.

        It is over seeds and images where single images have scores (with one seed, over images alone), and otherwise
        over seeds alone, for these test images. There is none if it would reach beyond the metric's limits, or if the
        images are too few.
        """
        over, found, why_not = "seeds", paired.t_interval(self.differences, level), "one seed has no interval"
        if self.images is not None:
            over, why_not = BOTH, self.images.too_few
            found = self.crossed and self.crossed.interval(level)
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
    """Compare two arms over the seeds in which both have a score; None without such a seed.

    Diverged runs count with their declared score, except where a single class, `label`, is compared.
    """
    arms = (before, after)
    first, second = (table.scores(arm, metric, label) for arm in arms)
    seeds = tuple(seed for seed in first if seed in second)
    if not seeds:
        return None
    declared = ((arm, seed) for seed in seeds for arm in arms if seed in table.declared(arm, metric))
    diverged = () if label else tuple(declared)
    # a diverged run has no scores of single images, and those of the others would have another mean
    images = None if diverged else image_differences(table, metric, arms, seeds, label)
    scores = np.array([(first[seed], second[seed]) for seed in seeds], float)
    lower, limits = table.lower_is_better(metric), _limits(table, metric)
    return Contrast(metric, arms, lower, limits, seeds, scores, diverged, images)


def primary(study: Study, question: str) -> Contrast | None:
    spec = study.questions.get(question)
    return contrast(study.table, spec.metric, spec.single, spec.multi) if spec else None


def image_differences(
    table: ScoreTable, metric: str, arms: tuple[str, str], seeds: Sequence[int], label: str = ""
) -> ImageDifferences | None:
    """Return the differences of single images in a metric; None where a score is missing or the metric has none."""
    source = BY_CLASS.get(metric, metric)
    rows = [table.of_images(arm, seed, source) for seed in seeds for arm in arms]
    if label:
        rows = [{image: each[image] for image in each if table.labels[image] == label} for each in rows]
    # runs are paired image by image only if they were scored on the same images
    if not rows[0] or any(each.keys() != rows[0].keys() for each in rows):
        return None
    values = np.array([[each[image] for image in rows[0]] for each in rows], float)
    if not np.isfinite(values).all():
        return None
    labels = [table.labels[image] for image in rows[0]]
    groups = np.unique(labels, return_inverse=True)[1] if metric in BY_CLASS else None
    # rows alternate: before and after of each seed
    is_binary = bool(((values == 0) | (values == 1)).all())
    return ImageDifferences(values[1::2] - values[::2], groups, is_binary)


class FamilyTest(NamedTuple):
    """A contrast on which no verdict rests."""

    found: Contrast
    bounds: Bounds
    p: float | None
    """of the exact sign-flip test over seeds, on these test images; None with one seed, where it is always 1"""
    p_adjusted: float | None
    """by Benjamini and Hochberg, over the family"""

    @property
    def is_clear(self) -> bool:
        """Whether the report marks the difference: never for an interval over seeds alone, see `verdicts.is_clear`."""
        bounds, seeds = self.bounds, len(self.found.seeds)
        return bounds.over == BOTH and is_clear(seeds, self.p_adjusted, bounds.interval, 1 - bounds.level)

    def numbers(self) -> dict[str, Any]:
        """Return the entry of `results.json`."""
        return {
            "mean": self.found.estimate, "interval": self.bounds.interval, "level": self.bounds.level,
            "over": self.bounds.over, "p": self.p, "p_adjusted": self.p_adjusted, "clear": self.is_clear,
            "seeds": list(self.found.seeds),
        }  # fmt: skip


def family_tests(contrasts: Mapping[Name, Contrast | None], level: float = LEVEL) -> dict[Name, FamilyTest]:
    """Test a family of contrasts, adjusted for their number; None entries are left out."""
    known = {name: found for name, found in contrasts.items() if found is not None}
    p = {name: found.p for name, found in known.items() if len(found.seeds) > 1}
    adjusted = paired.benjamini_hochberg(p)
    return {
        name: FamilyTest(found, found.bounds(level), p.get(name), adjusted.get(name))
        for name, found in known.items()
    }


def _limits(table: ScoreTable, metric: str) -> Interval:
    """Return the smallest and largest possible value of a metric: 0 to 1 for shares, 0 or more for errors."""
    about = table.about.get(metric, {})
    if metric in SHARES or about.get("unit") == "share":
        return 0.0, 1.0
    # a user's metric is not known to be an error: a log-likelihood can be below 0
    is_error = table.lower_is_better(metric) and about.get("least", 0) is not None
    return (0.0, math.inf) if is_error else (-math.inf, math.inf)


def possible(interval: Interval, before: float, limits: Interval) -> bool:
    """Whether every difference in an interval is possible for a metric within `limits` whose level was `before`.

    >>> possible((-0.4, 1.2), 0.8, (0.0, 1.0)), possible((-13.0, 2.0), 12.0, (0.0, math.inf))
    (False, False)
    """
    low, high = limits
    if math.isfinite(high - low):
        return interval[0] >= low - high and interval[1] <= high - low
    # an error has no upper limit, so the possible differences depend on the level before
    return interval[0] >= low - before and interval[1] <= high - before


class Wording(NamedTuple):
    """The names of the two sides of a question, in short and as the subject of a sentence, and claims about them."""

    question: str
    title: str
    single: str
    multi: str
    single_model: str
    multi_model: str
    claims: Mapping[str, str]
    """claims about the method by direction: `helps`, `hurts`, or empty where no difference matters"""
    claims_here: Mapping[str, str]
    """claims about these models, where single images have no scores"""


WORDINGS = {
    task: Wording(
        question, TASK_TITLES[task], "single-task", "multi-task", "the single-task model", "the multi-task model",
        {
            "helps": f"Multi-task training helps {noun}",
            "hurts": f"Multi-task training hurts {noun}",
            "": f"Multi-task training makes no difference that matters to {noun}",
        },
        {
            "helps": f"the multi-task models are better at {verb}",
            "hurts": f"the multi-task models are worse at {verb}",
            "": f"the arms differ at {verb} by less than what matters",
        },
    )
    for task, question, noun, verb in (
        ("colour", "Is colouring easier for a model that also learns to classify?", "colouring", "colouring"),
        ("class", "Is classifying easier for a model that also learns to colour?", "classification", "classifying"),
    )
}  # fmt: skip


def wording(study: Study, question: str) -> Wording:
    """Return the wording of a question; in a table of scores, it uses the names of the arms and the metric."""
    if not study.is_table:
        return WORDINGS[question]
    spec = study.questions[question]
    before, after = f"“{spec.single}”", f"“{spec.multi}”"
    title = str(study.metrics.get(spec.metric, {}).get("title") or spaced(spec.metric))
    # acronyms such as PSNR keep their case, and so do names from the table, such as IoU
    as_is = title[1:2].isupper() or title == spaced(spec.metric)
    metric = title if as_is else title[:1].lower() + title[1:]
    return Wording(
        f"Is {after} better than {before} in {metric}?", f"{title}: {spec.multi} against {spec.single}",
        spec.single, spec.multi, before, after,
        {
            "helps": f"{after} is better than {before} in {metric}",
            "hurts": f"{after} is worse than {before} in {metric}",
            "": f"Between {after} and {before} there is no difference in {metric} that matters",
        },
        {
            "helps": f"the models of {after} are better in {metric} than those of {before}",
            "hurts": f"the models of {after} are worse in {metric} than those of {before}",
            "": f"the models of {after} and of {before} differ in {metric} by less than what matters",
        },
    )  # fmt: skip
