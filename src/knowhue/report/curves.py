"""Curves over the epochs, of both arms, generator and discriminator; and over the share of labels that are known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from knowhue.report.study import Row, Run, Study, labelled_share, placebo, sides, tasks
from knowhue.report.style import (
    MULTI,
    MUTED,
    PAPER,
    SHADE,
    SINGLE,
    SMALL,
    entitle,
    few_ticks,
    grid,
    name_ends,
    note_diverged,
    panels,
)
from knowhue.report.text import spaced
from knowhue.statistics.paired import Interval, bounded_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_ARM_SIDES = (("single", "Single-task", SINGLE, 1 / 1.05), ("multi", "Multi-task", MULTI, 1.05))
"""Side, its name and colour, and how far it is moved along the log axis, so that error bars do not overlap."""


@dataclass(frozen=True)
class Panel:
    """One quantity over the epochs: where the log has it and how it is shown."""

    title: str
    task: str
    """The single-task arm beside multi-task."""
    split: str
    name: str
    scale: float = 1


CURVES = {
    "error": Panel(
        "Mean absolute error of a*b*, CIELAB units, validation split", "colour", "validation", "ab_l1"
    ),
    "accuracy": Panel("Validation accuracy, %", "class", "validation", "accuracy", scale=100),
    "losses_generator": Panel("Generator loss", "colour", "train", "generator"),
    "losses_discriminator": Panel("Discriminator loss", "colour", "train", "discriminator"),
}
"""By the name of the drawing, which begins with that of its figure."""


def curves(study: Study, name: str) -> "dict[str, Figure]":
    """Draw a figure of `CURVES` over the epochs, single-task against multi-task; nothing where no run has a value."""
    figures = {}
    for drawing, panel in _panels(name).items():
        if any(len(_values(run, panel)) for arm in sides(study, panel.task) for run in study.of(arm)):
            figures[drawing], axes = panels(5.0, 2.9)
            entitle(axes[0, 0], panel.title)
            _curves(axes[0, 0], study, panel)
    return figures


def curve_rows(study: Study, name: str) -> list[Row]:
    """Return all that the log has of the split that is drawn: one row per arm, seed and epoch."""
    panel = next(iter(_panels(name).values()))
    runs = (run for arm in sides(study, panel.task) for run in study.of(arm))
    return [
        {"arm": run.arm, "seed": run.seed, "epoch": line.get("epoch"), "phase": line.get("phase")}
        | line.get(panel.split, {})
        for run in runs
        for line in run.log
    ]


def _panels(name: str) -> dict[str, Panel]:
    return {drawing: panel for drawing, panel in CURVES.items() if drawing.startswith(name)}


def _curves(ax: "Axes", study: Study, panel: Panel) -> None:
    """Draw one quantity of the single-task and the multi-task arm, with phases and trivial baselines."""
    last_frozen, last = _phases(study)
    ends = []
    single, multi = sides(study, panel.task)
    # single-task last: dashed, it lies over multi-task where both are equal
    for arm, label, colour in ((multi, "Multi-task", MULTI), (single, "Single-task", SINGLE)):
        runs = [run for run in study.of(arm) if len(_values(run, panel))]
        for run in runs if len(runs) > 1 else ():
            curve = _values(run, panel)
            ax.plot(np.arange(1, len(curve) + 1), curve, color=colour, linewidth=0.7, alpha=0.4)
        if runs:
            # An unfinished seed has its thin line; in the mean it would cut every other seed short.
            centre = _mean_curve([_values(run, panel) for run in [r for r in runs if r.finished] or runs])
            _two_phases(ax, centre, last_frozen, colour, dashed=arm == single)
            ends.append((float(centre[np.isfinite(centre)][-1]), label, colour))
    if not ends:
        return
    levels = _levels(ax, study, panel)
    _frame(ax, last)
    _mark_phases(ax, last_frozen, last)
    name_ends(ax, ends, levels)


def _values(run: Run, panel: Panel) -> np.ndarray:
    """Return the quantity by epoch, NaN where it is missing; empty where the run never has it."""
    found = [line.get(panel.split, {}).get(panel.name) for line in run.log]
    curve = np.array([np.nan if value is None else value for value in found], float) * panel.scale
    return curve if np.isfinite(curve).any() else np.empty(0)


def _mean_curve(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean over seeds as far as all got; a gap in one is a gap in the mean."""
    length = min(map(len, curves))
    centre = np.mean([curve[:length] for curve in curves], axis=0)
    return centre if np.isfinite(centre).any() else curves[0]


def _two_phases(ax: "Axes", curve: np.ndarray, last_frozen: int, colour: str, *, dashed: bool) -> None:
    """Draw a curve; while the encoder is frozen the upper one is dashed, so that two equal ones both show."""
    epochs = np.arange(1, len(curve) + 1)
    # both have the last frozen epoch, so that the curve has no gap
    frozen, tuned = epochs <= last_frozen, epochs >= max(last_frozen, 1)
    style: dict[str, Any] = {"color": colour, "linewidth": 1.9, "zorder": 4 if dashed else 3}
    ax.plot(epochs[frozen], curve[frozen], linestyle=(0, (2.5, 2.5)) if dashed else "-", **style)
    ax.plot(epochs[tuned], curve[tuned], solid_capstyle="round", **style)
    ax.plot(epochs[-1:], curve[-1:], "o", color=colour, markersize=4, zorder=5)


def _phases(study: Study) -> tuple[int, int]:
    """Return the last epoch with a frozen encoder and the last epoch of all."""
    lines = [line for arm in study.runs for run in study.of(arm) for line in run.log]
    frozen = [line["epoch"] for line in lines if line.get("phase") == "heads"]
    return max(frozen, default=0), max((line["epoch"] for line in lines), default=1)


def _frame(ax: "Axes", last: int) -> None:
    """Set limits with room on top for the names of the phases, ticks and grid."""
    from matplotlib.ticker import MaxNLocator

    low, high = ax.get_ylim()
    room = high - low
    ax.set(xlim=(0.6, last + 0.4), ylim=(low - 0.03 * room, high + 0.22 * room))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    few_ticks(ax, "y")
    ax.set_xlabel("Epoch")
    grid(ax)


def _mark_phases(ax: "Axes", last_frozen: int, last: int) -> None:
    edge = last_frozen + 0.5
    if last_frozen:
        ax.axvspan(0.6, edge, color=SHADE, zorder=0, linewidth=0)
    for start, end, label in ((0.6, edge, "encoder frozen"), (edge, last + 0.4, "everything trains")):
        # a shorter phase has no room for its name
        if end - start > 0.1 * last:
            place = ((start + end) / 2, 0.97)
            style = {"ha": "center", "va": "top", "color": MUTED, "fontsize": SMALL}
            ax.text(*place, label, transform=ax.get_xaxis_transform(), **style)


def _levels(ax: "Axes", study: Study, panel: Panel) -> list[tuple[float, str]]:
    """Draw what a trivial baseline gives, thin and dashed; return those to be named."""
    if panel.split != "validation":
        return []
    named = ((values.get(panel.name), spaced(title)) for title, values in study.baselines.items())
    levels = [(value * panel.scale, title) for value, title in named if value is not None]
    for level, _ in levels:
        ax.axhline(level, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    return [(level, f"{title} {level:.1f}") for level, title in levels]


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
        if (
            "class" in tasks(study, arm)
            and not placebo(study, arm)
            and changed <= {"tasks", "names", "supervision", "labelled_share", "placebo"}
        ):
            side, share = "multi" if "colour" in tasks(study, arm) else "single", labelled_share(study, arm)
            scores = study.table.scores(arm, "balanced_accuracy")
            diverged = frozenset(study.table.declared(arm, "balanced_accuracy"))
            found.setdefault((side, share), Point(side, share, arm, scores, diverged))
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
        _draw_side(ax, [point for point in points if point.side == side], name, colour, shift)
        for side, name, colour, shift in _ARM_SIDES
    ]
    _share_axis(ax, sorted({100 * point.share for point in planned}))
    name_ends(ax, [end for end in ends if end])
    lost = [f"{point.arm} seed {seed}" for point in points for seed in sorted(point.diverged)]
    if lost:
        given = spaced(study.questions["class"].if_diverged)
        note_diverged(figure, [f"{run} (“{given}”)" for run in lost])
    return {"label_fraction": figure}


def label_fraction_rows(study: Study) -> list[Row]:
    """Return the numbers of the drawing: one row per arm and seed, and one of their mean with its 95 % interval."""
    rows: list[Row] = []
    for point in label_points(study):
        arm = {"labelled_share": point.share, "side": point.side, "arm": point.arm}
        rows += [
            {**arm, "seed": seed, "balanced_accuracy": value, "diverged": seed in point.diverged}
            for seed, value in point.scores.items()
        ]
        low, high = point.interval or (None, None)
        mean = {"seed": "mean", "balanced_accuracy": point.mean, "diverged": bool(point.diverged)}
        rows.append({**arm, **mean, "low": low, "high": high})
    return rows


def _draw_side(
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


def _share_axis(ax: "Axes", shares: list[float]) -> None:
    """Tick the shares that were trained with, and no others."""
    from matplotlib.ticker import NullLocator

    ax.set_xlim(shares[0] / 1.3, shares[-1] * 1.3)
    ax.set_xticks(shares, [f"{share:g} %" for share in shares])
    ax.xaxis.set_minor_locator(NullLocator())
    few_ticks(ax, "y")
    ax.set_xlabel("Share of the training labels that are known")
    grid(ax)
