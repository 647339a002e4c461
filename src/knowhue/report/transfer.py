"""Each question at a glance: every seed from its single-task to its multi-task arm, and what lies between."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from knowhue.report.contrasts import Bounds, Contrast, primary, with_numbers
from knowhue.report.study import Study, Table
from knowhue.report.style import (
    INK,
    MULTI,
    MUTED,
    PAPER,
    SINGLE,
    SMALL,
    axis_limits,
    few_ticks,
    grid,
    head,
    name_directions,
    name_margin,
    note_diverged,
    panels,
    shade_margin,
)
from knowhue.report.text import Measure, measure, spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOT = 6.5
"""Points from dot to dot of a stack."""
_HEIGHT = 150
"""Of a panel, in points."""
_ROWS = (12.0, 37.0, 62.0)
"""Heights in points of the interval of equivalence, of that of the verdict, and of the lowest dot."""


def transfer(study: Study) -> "dict[str, Figure]":
    """Draw what the other task does to each task, seed by seed: each question with two seeds or more."""
    found = {question: with_numbers(primary(study, question)) for question in study.questions}
    return {
        f"transfer_{question}": _transfer(study, question, each)
        for question, each in found.items()
        if each is not None and len(study.seeds) > 1
    }


def transfer_table(study: Study) -> Table:
    """Return the numbers of both drawings: one row per question and seed, and one of their mean.

    `low` to `high` is the interval of the verdict, `low_inner` to `high_inner` that of equivalence, at their levels.
    """
    header = ["question", "metric", "seed", "single_task", "multi_task", "difference", "diverged"]
    rows: Table = [[*header, "low", "high", "level", "low_inner", "high_inner", "level_inner", "over"]]
    alpha = study.alpha
    for question in study.questions:
        found = with_numbers(primary(study, question))
        if found is None:
            continue
        for seed, (before, after), lost in zip(found.seeds, found.scores.tolist(), _lost(found), strict=True):
            names = " ".join(arm for arm, each in zip(found.arms, lost, strict=True) if each)
            rows.append([question, found.metric, seed, before, after, after - before, names, *[None] * 7])
        outer, inner = found.bounds(1 - alpha), found.bounds(1 - 2 * alpha)
        ends = [cell for each in (outer, inner) for cell in (*(each.interval or (None, None)), each.level)]
        rows.append([question, found.metric, "mean", *found.levels, found.estimate, "", *ends, outer.over])
    return rows


def _transfer(study: Study, question: str, found: Contrast) -> "Figure":
    asked = study.questions[question]
    figure, axes = panels(5.0, 3.1, columns=2, width_ratios=(1, 1.25))
    measured = measure(study.metrics, asked)
    _slopes(axes[0, 0], found, measured)
    _differences(axes[0, 1], found, measured, asked.sesoi, len(study.seeds), study.alpha)
    arms = {asked.single: "single-task", asked.multi: "multi-task"}
    given = spaced(asked.if_diverged)
    note_diverged(figure, [f"{arms[run.arm]} seed {run.seed} (“{given}”)" for run in found.diverged])
    return figure


def _lost(found: Contrast) -> list[list[bool]]:
    """Return for each seed which of its two runs diverged."""
    lost = {(run.arm, run.seed) for run in found.diverged}
    return [[(arm, seed) in lost for arm in found.arms] for seed in found.seeds]


def _slopes(ax: "Axes", found: Contrast, measured: Measure) -> None:
    """Draw every seed as a line between its two arms, and the mean over them."""
    scores = measured.scale * found.scores
    for pair, better, lost in zip(scores, (found.gains > 0).tolist(), _lost(found), strict=True):
        colour = MULTI if better else MUTED
        ax.plot([0, 1], pair, color=colour, linewidth=0.8, alpha=0.6, zorder=2, label="seed")
        for place, colour in enumerate((SINGLE, MULTI)):
            inside = PAPER if lost[place] else colour
            ax.plot(place, pair[place], "o", color=colour, markersize=3.4, markerfacecolor=inside, zorder=3)
    means = scores.mean(axis=0)
    ax.plot([0, 1], means, color=INK, linewidth=2.4, solid_capstyle="round", zorder=4, label="mean")
    for place, colour in enumerate((SINGLE, MULTI)):
        ax.plot(place, means[place], "o", color=colour, markersize=7, zorder=5)
    head(
        ax,
        measured.titled(measured.unit),
        "lower is better ↓" if found.lower_is_better else "higher is better ↑",
    )
    ax.set_xlim(-0.5, 1.5)
    names = [
        f"{name}-task\n{measured.level(level)}"
        for name, level in zip(("single", "multi"), found.levels, strict=True)
    ]
    ax.set_xticks([0, 1], names, fontsize=SMALL, fontweight="bold", linespacing=1.4)
    for label, colour in zip(ax.get_xticklabels(), (SINGLE, MULTI), strict=True):
        label.set_color(colour)
    _quiet(ax, "y", "bottom")


def _quiet(ax: "Axes", axis: Literal["x", "y"], spine: str) -> None:
    """Leave few ticks on the axis of numbers, and only the names on the other."""
    few_ticks(ax, axis)
    ax.tick_params(axis="y" if axis == "x" else "x", length=0)
    ax.spines[spine].set_visible(False)
    if axis == "y":
        grid(ax)


def _differences(
    ax: "Axes", found: Contrast, measured: Measure, sesoi: float, planned: int, alpha: float
) -> None:
    """Draw the difference of every seed as a stack of dots, their mean and what chance leaves of it."""
    values, mean = measured.scale * found.differences, measured.scale * found.estimate
    bounds = found.bounds(1 - alpha), found.bounds(1 - 2 * alpha)
    ends = [measured.scale * end for each in bounds for end in each.interval or ()]
    low, high = axis_limits([*values, *ends], measured.scale * sesoi)
    ax.set(xlim=(low, high), ylim=(0, _HEIGHT))
    shade_margin(ax, measured.scale * sesoi)
    levels = stacked(values, _DOT / 130 * (high - low))
    # of many seeds dots may overlap, so that the stack stays in the panel
    step = min(_DOT, (_HEIGHT - 20 - _ROWS[2]) / max(*levels, 1))
    for value, level, better, lost in zip(
        values, levels, (found.gains > 0).tolist(), _lost(found), strict=True
    ):
        colour = MULTI if better else MUTED
        # hollow, as `note_diverged` explains
        inside = PAPER if any(lost) else colour
        ax.plot(
            value, _ROWS[2] + step * level, "o", color=colour, markersize=5, markerfacecolor=inside,
            zorder=3, label="difference",
        )  # fmt: skip
    of = f" of {planned}\n" if len(values) < planned else " "
    rows = {_ROWS[2]: f"{len(values)}{of}seed{'s' * (max(len(values), planned) > 1)}"}
    rows |= _intervals(ax, bounds, measured, mean)
    ax.set_yticks(list(rows), list(rows.values()), fontsize=SMALL)
    _quiet(ax, "x", "left")
    head(ax, f"{measured.signed(found.estimate)} {measured.difference_unit}", "multi-task minus single-task")
    name_margin(ax)
    name_directions(ax, found.lower_is_better)


def _intervals(ax: "Axes", bounds: tuple[Bounds, Bounds], measured: Measure, mean: float) -> dict[float, str]:
    """Draw the mean with its intervals; return the name of each row by its height."""
    outer, inner = bounds
    ax.plot(mean, _ROWS[1], "o", color=INK, markersize=7, zorder=4, label="estimate")
    if outer.interval is None:
        few = next((word for word in ("one seed", "few seeds", "few images") if word in outer.why_not), "")
        return {_ROWS[1]: f"no interval:\n{few.replace('few', 'too few')}"}
    for width, height, each in ((3.6, _ROWS[1], outer), (1.2, _ROWS[0], inner)):
        if each.interval is not None:
            style = {"color": INK, "linewidth": width, "solid_capstyle": "butt", "zorder": 3}
            ax.plot(measured.scale * np.array(each.interval), [height, height], label="interval", **style)
    over = {"seeds and images": "over seeds\nand images", "images": "over images", "seeds": "over seeds"}[
        outer.over
    ]
    names = {_ROWS[1]: f"mean, {100 * outer.level:g} %\n{over}"}
    return names | ({_ROWS[0]: f"{100 * inner.level:g} %"} if inner.interval else {})


def stacked(values: "np.ndarray", width: float) -> list[int]:
    """Return the lowest free level for each dot of a stack, so that none covers another.

    Args:
        values: where the dots stand; they stay there.
        width: of a dot, in the same unit.

    >>> stacked(np.array([0.0, 5.0, 0.5, 0.9]), width=1.0)
    [0, 0, 1, 2]
    """
    levels = np.zeros(len(values), int)
    last: list[float] = []  # where the last dot of each level stands
    for place in np.argsort(values, kind="stable"):
        value = float(values[place])
        level = next((level for level, left in enumerate(last) if value - left >= width), len(last))
        last[level : level + 1] = [value]
        levels[place] = level
    return levels.tolist()
