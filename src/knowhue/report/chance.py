"""What chance leaves of a difference, from the stored scores of single images: over seeds, over images, over both."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from knowhue.report.records import Row, Run
from knowhue.statistics.crossed import Crossed, crossed, image_interval
from knowhue.statistics.paired import Interval
from knowhue.statistics.verdicts import is_clear

BOTH = "seeds and images"
"""What an interval is over that speaks for the method."""
FEWEST_IMAGES = 20
"""Fewer say too little about other images for any interval over them."""


class Column(NamedTuple):
    """The column of `per_image.csv` whose mean a metric is; with classes, over the labelled images alone."""

    name: str
    of_labelled: bool = False
    by_class: bool = False


COLUMNS: Mapping[str, Column] = {
    **{
        name: Column(name)
        for name in ("ab_l1", "ciede2000", "psnr_rgb", "ssim_rgb", "stlpips_alex", "lpips_alex")
    },
    **{name: Column(name) for name in ("adversarial", "colourfulness", "colourfulness_absolute")},
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


class Scores(NamedTuple):
    """Paired differences of single images, after minus before."""

    differences: np.ndarray
    """(seeds, images)"""
    groups: np.ndarray | None
    """(images,) class of each where classes count the same."""
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
        return None if self.too_few else crossed(self.differences, self.groups, self.binary)

    def over_images(self, level: float) -> Interval | None:
        """The interval over images alone, which speaks for these trained models."""
        return None if self.too_few else image_interval(self.differences, level, self.groups, self.binary)


def image_scores(pairs: Pairs, metric: str, label: str | None = None) -> Scores | None:
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
    if not rows[0] or any(each.keys() != rows[0].keys() for each in rows):
        return None
    scores = [[each[index].get(column.name) for index in rows[0]] for each in rows]
    if any(score is None for each in scores for score in each):
        return None
    values = np.array(scores, float)
    labels = [row.get("label", "") for row in rows[0].values()]
    groups = np.unique(labels, return_inverse=True)[1] if column.by_class else None
    return Scores(values[1::2] - values[::2], groups, column.name == "correct")


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
    return interval[0] >= low - before and interval[1] <= high - before
