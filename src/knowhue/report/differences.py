"""How figures of differences are worded and drawn: units, the band of what is too small, directions, axes."""

import math
from collections.abc import Sequence
from dataclasses import replace
from textwrap import fill
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from knowhue.plan import Question
from knowhue.report.contrasts import Contrast
from knowhue.report.palette import INK, MULTI, MUTED, RULE, SHADE, SMALL, TEXT
from knowhue.report.records import Study, spaced, titled
from knowhue.report.signs import signed, unsigned
from knowhue.statistics.paired import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLES = {"ab_l1": "L1 of a*b*"}

_UNITS = {"ab_l1": "CIELAB units", "balanced_accuracy": "share"}


class Measure(NamedTuple):
    """How a metric is said: a share is shown in per cent, and a difference of shares in percentage points."""

    title: str
    unit: str
    difference_unit: str
    scale: float
    places: int

    def titled(self, unit: str) -> str:
        """Return title and unit."""
        return titled(self.title, unit)

    def level(self, value: float) -> str:
        """Return a score as text."""
        return f"{self.scale * value:.{self.places}f}"

    def amount(self, value: float) -> str:
        """Return a difference without its sign, with its unit."""
        return f"{unsigned(self.scale * value, self.places)} {self.difference_unit}".strip()

    def signed(self, value: float) -> str:
        """Return a difference as text."""
        return signed([self.scale * value], self.places)[0]

    def ends(self, interval: Interval) -> str:
        """Return the ends of an interval of a difference as text; none that excludes 0 is rounded to 0."""
        return " to ".join(signed([self.scale * end for end in interval], self.places))


def measure(study: Study, asked: Question) -> Measure:
    """Return how the metric of a question is said, to two digits of its smallest effect of interest."""
    about = study.metrics.get(asked.metric, {})
    title = _TITLES.get(asked.metric, str(about.get("title", spaced(asked.metric).capitalize())))
    unit = about.get("unit", _UNITS.get(asked.metric, ""))
    scale, shown, between = (100, "%", "points") if unit == "share" else (1, unit, unit)
    return Measure(title, shown, between, scale, max(1 - math.floor(math.log10(scale * asked.sesoi)), 0))


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


def shade_margin(ax: "Axes", margin: float) -> None:
    """Mark no difference, and the differences smaller than the smallest of interest."""
    ax.axvspan(-margin, margin, color=SHADE, linewidth=0, zorder=0)
    for edge in (-margin, margin):
        ax.axvline(edge, color=RULE, linewidth=0.6, zorder=0.5)
    ax.axvline(0, 0, 0.9, color=MUTED, linewidth=0.8, zorder=1)  # ends below the name of the band


def name_margin(ax: "Axes") -> None:
    """Name the band of `shade_margin` at its top, within the panel wherever the band lies."""
    low, high = ax.get_xlim()
    zero = -low / (high - low)
    side = "left" if zero < 0.32 else "right" if zero > 0.68 else "center"
    place = {"left": 0.01, "right": 0.99, "center": zero}[side]
    style = {"ha": side, "va": "top", "color": MUTED, "fontsize": SMALL, "zorder": 2}
    ax.text(place, 0.985, "smaller than matters", transform=ax.transAxes, **style)


def head(ax: "Axes", title: str, subtitle: str) -> None:
    """Write the title of a panel and a quiet line below it."""
    ax.set_title(title, loc="left", fontsize=TEXT, fontweight="bold", color=INK, pad=20)
    place = {"xy": (0, 1), "xycoords": "axes fraction", "xytext": (0, 7), "textcoords": "offset points"}
    ax.annotate(subtitle, **place, color=MUTED, fontsize=SMALL, va="bottom")


def name_directions(ax: "Axes", lower_is_better: bool) -> None:
    """Say below the axis which side is better."""
    words = ("← better", "worse →") if lower_is_better else ("← worse", "better →")
    for place, text in zip((0, 1), words, strict=True):
        ax.annotate(
            text, (place, 0), xycoords="axes fraction", xytext=(0, -16), textcoords="offset points",
            ha="right" if place else "left", va="top", fontsize=SMALL,
            color=MULTI if "better" in text else MUTED,
        )  # fmt: skip


def limits(values: Sequence[float], margin: float) -> Interval:
    """Return the ends of an axis of differences: all values and the whole band of what is too small."""
    low, high = min([*values, -1.15 * margin]), max([*values, 1.15 * margin])
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def note_diverged(figure: "Figure", runs: Sequence[str]) -> None:
    """Name below a figure the runs that are drawn hollow, if any."""
    if runs:
        text = f"○ diverged, given a baseline's score: {', '.join(runs)}"
        width = int(16 * figure.get_figwidth())  # letters
        style = {"ha": "left", "fontsize": SMALL, "color": MUTED}
        figure.supxlabel(fill(text, width), x=0.01, **style)
