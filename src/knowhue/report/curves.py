"""Curves over the epochs: how the two arms learn, and how generator and discriminator keep each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from knowhue.config import TRAIN_LOSSES
from knowhue.report.study import Run, Study, Table, sides
from knowhue.report.style import (
    MULTI,
    MUTED,
    SHADE,
    SINGLE,
    SMALL,
    entitle,
    few_ticks,
    grid,
    name_ends,
    panels,
)
from knowhue.report.text import spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """One quantity over the epochs: where the log has it and how it is shown."""

    title: str
    task: str
    """The single-task arm beside multi-task."""
    split: str
    name: str
    scale: float = 1
    limits: tuple[float, float] | None = None
    even: float | None = None
    """Where a dashed line marks what guessing gives."""


_SHARES: dict[str, Any] = {"scale": 100, "limits": (0, 100), "even": 50}
CURVES = {
    "error": (Panel("Validation L1 of a*b*, CIELAB units", "colour", "validation", "ab_l1"),),
    "accuracy": (Panel("Validation accuracy, %", "class", "validation", "accuracy", scale=100),),
    "losses": (
        Panel("Generator loss", "colour", "train", "generator"),
        Panel("Discriminator loss", "colour", "train", "discriminator"),
    ),
    "judgements": (
        Panel("True colours judged real, % of patches", "colour", "train", "discriminator_real", **_SHARES),
        Panel(
            "Generated colours judged fake, % of patches", "colour", "train", "discriminator_fake", **_SHARES
        ),
    ),
}
"""What each figure of curves shows, one panel below the other."""
_COLUMNS = {
    "error": ("ab_l1", "adversarial"),
    "accuracy": ("accuracy", "balanced_accuracy"),
    "losses": ("generator", "discriminator"),
    "judgements": ("discriminator_real", "discriminator_fake"),
}
"""What stands in its table, some of it not drawn; the losses beside that of the pixels."""


def curves(study: Study, name: str) -> "dict[str, Figure]":
    """Draw a figure of `CURVES` over the epochs, single-task against multi-task; nothing where no run has a value."""
    shown = CURVES[name]
    runs = [run for panel in shown for arm in sides(study, panel.task) for run in study.of(arm)]
    if not any(len(_values(run, panel)) for run in runs for panel in shown):
        return {}
    figure, axes = panels(5.0, 1.4 + 1.5 * len(shown), rows=len(shown), sharex=True)
    for ax, panel in zip(axes[:, 0], shown, strict=True):
        entitle(ax, panel.title)
        _curves(ax, study, panel)
    return {name: figure}


def curve_table(study: Study, name: str) -> Table:
    """Return the numbers behind the curves: one row per arm, seed and epoch."""
    panel, names = CURVES[name][0], _COLUMNS[name]
    if name == "losses":
        runs = [run for arm in sides(study, panel.task) for run in study.of(arm)]
        logged = {each for run in runs for line in run.log for each in line.get(panel.split, {})}
        names = (*(each for each in TRAIN_LOSSES["colour"] if each in logged), *names)
    rows: Table = [["arm", "seed", "epoch", "phase", *names]]
    for arm in sides(study, panel.task):
        for run in study.of(arm):
            for line in run.log:
                values = [line.get(panel.split, {}).get(each) for each in names]
                rows.append([arm, run.seed, line.get("epoch"), line.get("phase"), *values])
    return rows


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
    _frame(ax, panel, last)
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


def _frame(ax: "Axes", panel: Panel, last: int) -> None:
    """Set limits with room on top for the names of the phases, ticks and grid."""
    from matplotlib.ticker import MaxNLocator

    low, high = panel.limits or ax.get_ylim()
    room = high - low
    ax.set(xlim=(0.6, last + 0.4), ylim=(low - 0.03 * room, high + 0.22 * room))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    few_ticks(ax, "y")
    if ax.get_subplotspec().is_last_row():  # pyright: ignore[reportOptionalMemberAccess]
        ax.set_xlabel("Epoch")
    grid(ax)


def _mark_phases(ax: "Axes", last_frozen: int, last: int) -> None:
    edge = last_frozen + 0.5
    if last_frozen:
        ax.axvspan(0.6, edge, color=SHADE, zorder=0, linewidth=0)
    if not ax.get_subplotspec().is_first_row():  # pyright: ignore[reportOptionalMemberAccess]
        return
    for start, end, label in ((0.6, edge, "encoder frozen"), (edge, last + 0.4, "everything trains")):
        # a shorter phase has no room for its name
        if end - start > 0.1 * last:
            place = ((start + end) / 2, 0.97)
            style = {"ha": "center", "va": "top", "color": MUTED, "fontsize": SMALL}
            ax.text(*place, label, transform=ax.get_xaxis_transform(), **style)


def _levels(ax: "Axes", study: Study, panel: Panel) -> list[tuple[float, str]]:
    """Draw what a trivial baseline or guessing gives, thin and dashed; return those to be named."""
    style = {"color": MUTED, "linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 1}
    if panel.even is not None:
        ax.axhline(panel.even, **style)
    if panel.split != "validation":
        return []
    named = ((values.get(panel.name), spaced(title)) for title, values in study.baselines.items())
    levels = [(value * panel.scale, title) for value, title in named if value is not None]
    for level, _ in levels:
        ax.axhline(level, **style)
    return [(level, f"{title} {level:.1f}") for level, title in levels]
