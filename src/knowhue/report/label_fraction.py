"""What a second task is worth when labels are few: balanced accuracy over the share of labels that are known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from knowhue.report.study import Study, Table, labelled_share, placebo, tasks
from knowhue.report.style import (
    MULTI,
    PAPER,
    SINGLE,
    entitle,
    few_ticks,
    grid,
    name_ends,
    note_diverged,
    panels,
)
from knowhue.report.text import spaced
from knowhue.statistics.paired import Interval, bounded_interval, mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_QUESTION = "class"
_SIDES = (("single", "Single-task", SINGLE, 1 / 1.05), ("multi", "Multi-task", MULTI, 1.05))
"""Side, its name and colour, and how far it is moved along the log axis, so that error bars do not overlap."""


@dataclass(frozen=True)
class Point:
    """One arm at one share of labels."""

    side: str
    """`single` or `multi`."""
    share: float
    arm: str
    scores: Mapping[int, float]
    """By seed; that of a diverged run is the one declared for it."""
    diverged: frozenset[int]

    @property
    def mean(self) -> float | None:
        """Over seeds; None without any."""
        return float(np.mean(list(self.scores.values()))) if self.scores else None

    @property
    def interval(self) -> Interval | None:
        """95 %, over seeds, Student's t; None, too, where that would reach beyond 0 and 1."""
        return bounded_interval(list(self.scores.values()), (0.0, 1.0))


def has_label_fractions(study: Study) -> bool:
    """Whether the study has at least two shares of labels to compare."""
    return len({point.share for point in label_points(study)}) > 1


def label_points(study: Study) -> list[Point]:
    """Return the arms that differ in nothing but tasks and labels, by side and share of labels."""
    found: dict[tuple[str, float], Point] = {}
    for arm in study.arms:
        edited = study.arms.get(arm) or {}
        changed = {*edited, *edited.get("supervision", {}), *edited.get("tasks", {})}
        side = {frozenset(("class",)): "single", frozenset(("colour", "class")): "multi"}.get(
            frozenset(tasks(study, arm))
        )
        if (
            side
            and not placebo(study, arm)
            and changed <= {"tasks", "names", "supervision", "labelled_share", "placebo"}
        ):
            share = labelled_share(study, arm)
            found.setdefault((side, share), _point(study, side, share, arm))
    return [found[key] for key in sorted(found, key=lambda key: (key[0] != "single", key[1]))]


def label_fraction(study: Study) -> "dict[str, Figure]":
    """Draw balanced accuracy over the share of labels; nothing with one share of labels, or no finished run."""
    planned = label_points(study)
    points = [point for point in planned if point.scores]
    if not points or not has_label_fractions(study):
        return {}
    figure, axes = panels(5.0, 3.2)
    ax = axes[0, 0]
    entitle(ax, "Balanced accuracy, %")
    ax.set_xscale("log")
    ends = [
        _side(ax, [point for point in points if point.side == side], name, colour, shift)
        for side, name, colour, shift in _SIDES
    ]
    _frame(ax, sorted({100 * point.share for point in planned}))
    name_ends(ax, [end for end in ends if end])
    lost = [f"{point.arm} seed {seed}" for point in points for seed in sorted(point.diverged)]
    if lost:
        given = spaced(study.questions[_QUESTION].if_diverged)
        note_diverged(figure, [f"{run} (“{given}”)" for run in lost])
    return {"label_fraction": figure}


def label_fraction_table(study: Study) -> Table:
    """Return the numbers of the drawing: one row per arm and seed, and one of their mean with its 95 % interval."""
    columns = ("balanced_accuracy", "diverged", "low", "high", "after_heads")
    rows: Table = [["labelled_share", "side", "arm", "seed", *columns]]
    for point in label_points(study):
        arm = [point.share, point.side, point.arm]
        rows += [
            [*arm, seed, value, seed in point.diverged, None, None, _after_heads(study, point.arm, seed)]
            for seed, value in point.scores.items()
        ]
        heads = mean([_after_heads(study, point.arm, seed) for seed in point.scores])
        rows.append(
            [*arm, "mean", point.mean, bool(point.diverged), *(point.interval or (None, None)), heads]
        )
    return rows


def _after_heads(study: Study, arm: str, seed: int) -> float | None:
    """Balanced accuracy on the frozen encoder: with few labels, fine-tuning may cost what the head had reached."""
    return study.runs[arm][seed].scores.get("after_heads", {}).get("balanced_accuracy")


def _point(study: Study, side: str, share: float, arm: str) -> Point:
    scores = study.table.scores(arm, "balanced_accuracy")
    return Point(side, share, arm, scores, frozenset(study.table.declared(arm, "balanced_accuracy")))


def _side(
    ax: "Axes", points: list[Point], name: str, colour: str, shift: float
) -> tuple[float, str, str] | None:
    """Draw one arm over its shares of labels; return at which height its curve ends, with its name and colour."""
    places = [100 * shift * point.share for point in points]
    for place, point in zip(places, points, strict=True):
        for seed, value in point.scores.items() if len(point.scores) > 1 else ():
            inside = PAPER if seed in point.diverged else colour
            # Beside the mean's marker, which would cover them.
            faint = {
                "alpha": 1 if seed in point.diverged else 0.5,
                "markersize": 3.2,
                "markeredgewidth": 0.6,
                "zorder": 2,
                "label": "seed",
            }
            ax.plot(place * shift, 100 * value, "o", color=colour, markerfacecolor=inside, **faint)
        if point.interval:
            ends = 100 * np.array(point.interval)
            ax.plot([place, place], ends, color=colour, linewidth=1.6, zorder=3, label="interval")
    means = [100 * (point.mean or 0.0) for point in points]
    if not means:
        return None
    ax.plot(places, means, "o-", color=colour, linewidth=1.9, markersize=5, zorder=4, label="mean")
    return means[-1], name, colour


def _frame(ax: "Axes", shares: list[float]) -> None:
    """Tick the shares that were trained with, and no others."""
    from matplotlib.ticker import NullLocator

    ax.set_xlim(shares[0] / 1.3, shares[-1] * 1.3)
    ax.set_xticks(shares, [f"{share:g} %" for share in shares])
    ax.xaxis.set_minor_locator(NullLocator())
    few_ticks(ax, "y")
    ax.set_xlabel("Share of the training labels that are known")
    grid(ax)
