"""Every arm against the single-task arm of each question, with the placebos that must show nothing."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from knowhue.plan import Question
from knowhue.report.contrasts import Contrast, primary, questions
from knowhue.report.label_fraction import asked_of, labelled_share, note_diverged, placebo, tasks
from knowhue.report.palette import (
    INK,
    MULTI,
    MUTED,
    PAPER,
    RULE,
    SHADE,
    SMALL,
    TEXT,
    panels,
    say_empty,
)
from knowhue.report.records import Study, Table, spaced
from knowhue.statistics.multiplicity import benjamini_hochberg
from knowhue.statistics.paired import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMES = {
    "multi": "multi-task",
    "placebo-labels": "placebo: shuffled labels",
    "placebo-colours": "placebo: another picture's colours",
    "multi-pcgrad": "multi-task, PCGrad",
}
_PATTERNS = {
    r"multi-class(.+)": r"multi-task, class weight \1",
    r"multi-labels(.+)": r"multi-task, \1 % of the labels",
}
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
        return f"{self.title}, {unit}" if unit else self.title

    def level(self, value: float) -> str:
        """Return a score as text."""
        return f"{self.scale * value:.{self.places}f}"

    def signed(self, value: float) -> str:
        """Return a difference as text."""
        text = f"{self.scale * value:+.{self.places}f}".replace("-", "−")
        return text if text.strip("+−0.") else text[1:]


def measure(study: Study, asked: Question) -> Measure:
    """Return how the metric of a question is said, to two digits of its smallest effect of interest."""
    about = study.metrics.get(asked.metric, {})
    title = _TITLES.get(asked.metric, str(about.get("title", spaced(asked.metric).capitalize())))
    unit = about.get("unit", _UNITS.get(asked.metric, ""))
    scale, shown, between = (100, "%", "percentage points") if unit == "share" else (1, unit, unit)
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


@dataclass(frozen=True)
class Row:
    """One arm against the single-task arm of a question."""

    question: str
    arm: str
    found: Contrast
    primary: bool
    """Whether it is the question itself, judged by Holm's adjustment and not by Benjamini and Hochberg's."""
    same_targets: bool
    """Whether it learns the task from the same targets as the single-task arm; otherwise the difference is theirs."""


def arm_name(arm: str) -> str:
    """Return an arm in words.

    The names are the keys of `presets.ARMS`, and those that `plan.make_plan` gives to its grid of task weights;
    an arm that a user has named keeps its name.

    >>> arm_name("multi-class0.5"), arm_name("mine")
    ('multi-task, class weight 0.5', 'mine')
    """
    found = (re.sub(pattern, text, arm) for pattern, text in _PATTERNS.items() if re.fullmatch(pattern, arm))
    return _NAMES.get(arm) or next(found, arm)


def forest_rows(study: Study) -> list[Row]:
    """Return all comparisons that have a number, by question and in the plan's order of arms."""
    arms = [arm for arm in study.settings.get("arms", {}) if len(tasks(study, arm)) > 1]
    rows = []
    for question, asked in questions(study).items():
        for arm in arms:
            found = with_numbers(primary(asked_of(study, question, multi=arm), question))
            if found is not None:
                alike = _targets(study, question, arm) == _targets(study, question, asked.single)
                rows.append(Row(question, arm, found, arm == asked.multi, alike))
    return rows


def forest_table(study: Study) -> Table:
    """Return the numbers of the drawing and their tests: one row per question and arm.

    `p` is the exact sign-flip p; `p_adjusted` is that of Benjamini and Hochberg over all rows that are neither a
    primary question nor a comparison with other targets, where a difference is certain.
    """
    header = ["question", "metric", "arm", "name", "against", "same_targets", "seeds", "diverged"]
    table: Table = [[*header, "difference", "low", "high", "p", "p_adjusted", "d_z", "wins"]]
    rows = forest_rows(study)
    adjusted = benjamini_hochberg(
        {f"{row.question} {row.arm}": row.found.p for row in rows if row.same_targets and not row.primary}
    )
    for row in rows:
        found = row.found
        about = [row.question, found.metric, row.arm, arm_name(row.arm), found.arms[0], row.same_targets]
        counts = [len(found.seeds), len(found.diverged)]
        tests = [found.p, adjusted.get(f"{row.question} {row.arm}"), found.effect, found.wins.count]
        table.append([*about, *counts, found.estimate, *(found.interval or (None, None)), *tests])
    return table


def forest(study: Study) -> "Figure":
    """Draw the mean paired difference of every multi-task arm from each single-task arm."""
    rows = forest_rows(study)
    arms = list(dict.fromkeys(row.arm for row in rows))
    lost = list(
        dict.fromkeys(f"{arm_name(run.arm)} seed {run.seed}" for row in rows for run in row.found.diverged)
    )
    height = 0.3 * max(len(arms), 2) + 1.3 + 0.3 * bool(lost)
    figure, axes = panels(9.2, height, columns=2, sharey=True)
    for ax, question in zip(axes[0], ("colour", "class"), strict=True):
        own = [row for row in rows if row.question == question]
        if own:
            _column(ax, study, own, arms)
        else:
            say_empty(ax, "No seed with both scores yet")
    note_diverged(figure, lost)
    return figure


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


def _targets(study: Study, question: str, arm: str) -> tuple[float, bool]:
    """Return what the task of a question is taught by in an arm: share of labels, and whether they are a placebo."""
    own = {"class": "labels", "colour": "colours"}[question]
    share = labelled_share(study, arm) if question == "class" else 1.0
    return share, placebo(study, arm) == own


def _column(ax: "Axes", study: Study, rows: list[Row], arms: list[str]) -> None:
    """Draw one question: a line for each arm, and its numbers beside it."""
    from matplotlib.ticker import MaxNLocator

    asked, lower = questions(study)[rows[0].question], rows[0].found.lower_is_better
    said = measure(study, asked)
    likes = [row.found for row in rows if row.same_targets]
    values = [said.scale * value for each in likes for value in (each.estimate, *(each.interval or ()))]
    ax.set(xlim=limits(values, said.scale * asked.sesoi), ylim=(len(arms) - 0.5, -0.9))
    shade_margin(ax, said.scale * asked.sesoi)
    planned = len(study.settings.get("seeds", ()))
    for row in rows:
        _line(ax, row, said, arms.index(row.arm), planned)
    names = [arm_name(arm) for arm in arms]
    ax.set_yticks(range(len(arms)), names, fontsize=SMALL)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    alone = {"colour": "colouring", "class": "classification"}[rows[0].question]
    head(ax, said.titled(said.difference_unit), f"difference from single-task {alone}")
    name_margin(ax)
    name_directions(ax, lower)


def _line(ax: "Axes", row: Row, said: Measure, height: float, planned: int) -> None:
    """Draw one comparison; one that leaves the panel is an arrow at its edge, and its number says how far."""
    low, high = ax.get_xlim()
    value = said.scale * row.found.estimate
    colour = MULTI if row.primary else INK if row.same_targets else MUTED
    inside = PAPER if row.found.diverged else colour
    if low <= value <= high:
        if row.found.interval:
            ends = np.clip(said.scale * np.array(row.found.interval), low, high)
            ax.plot(ends, [height, height], color=colour, linewidth=2, zorder=3, label="interval")
        ax.plot(
            value, height, "o", color=colour, markersize=6, markerfacecolor=inside, zorder=4, label="estimate"
        )
    else:
        edge, marker = (low, "<") if value < low else (high, ">")
        ax.plot(edge, height, marker, color=colour, markersize=5, clip_on=False, zorder=4, label="beyond")
    weight = "bold" if row.primary else "normal"
    ax.annotate(
        _numbers(row.found, said, planned), (1, height), xycoords=("axes fraction", "data"), xytext=(8, 0),
        textcoords="offset points", va="center", color=colour, fontsize=SMALL, fontweight=weight,
        annotation_clip=False,
    )  # fmt: skip


def _numbers(found: Contrast, said: Measure, planned: int) -> str:
    """Return difference and interval as text, with the seeds where they are fewer than planned."""
    ends = " to ".join(said.signed(end) for end in found.interval or ())
    seeds = f", {len(found.seeds)} of {planned} seeds" if len(found.seeds) < planned else ""
    return f"{said.signed(found.estimate)} ({ends or 'one seed'}{seeds})"
