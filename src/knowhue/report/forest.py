"""Every arm against the single-task arm of each question, with the placebos that must show nothing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from knowhue.report.arms import arm_name, asked_of, is_oracle, labelled_share, placebo, tasks
from knowhue.report.contrasts import Contrast, primary, with_numbers
from knowhue.report.study import Study, Table
from knowhue.report.style import (
    INK,
    MULTI,
    MUTED,
    PAPER,
    SMALL,
    axis_limits,
    few_ticks,
    head,
    name_directions,
    name_margin,
    note_diverged,
    panels,
    shade_margin,
)
from knowhue.report.text import Measure, measure
from knowhue.statistics.paired import benjamini_hochberg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ForestRow:
    """One arm against the single-task arm of a question."""

    question: str
    arm: str
    found: Contrast
    primary: bool
    """Whether it is the question itself, judged at its share of alpha and not by Benjamini and Hochberg."""
    same_targets: bool
    """Whether it learns the task from the same targets as the single-task arm; otherwise the difference is theirs."""


def forest_rows(study: Study) -> list[ForestRow]:
    """Return all comparisons that have a number, by question and in the plan's order of arms."""
    rows = []
    for question, asked in study.questions.items():
        for arm in study.arms:
            if arm == asked.single or not _compares(study, question, arm):
                continue
            found = with_numbers(primary(asked_of(study, question, multi=arm), question))
            if found is not None:
                alike = _targets(study, question, arm) == _targets(study, question, asked.single)
                rows.append(ForestRow(question, arm, found, arm == asked.multi, alike))
    return rows


def _compares(study: Study, question: str, arm: str) -> bool:
    """Whether an arm has another task beside the question's, or knows what that would teach it."""
    return len(tasks(study, arm)) > 1 or (question == "colour" and is_oracle(study, arm))


def forest_table(study: Study) -> Table:
    """Return the numbers of the drawing and their tests: one row per question and arm.

    `p` is the exact sign-flip p; `p_adjusted` is that of Benjamini and Hochberg over all rows that are neither a
    primary question nor a comparison with other targets, where a difference is certain.
    """
    header = ["question", "metric", "arm", "name", "against", "same_targets", "seeds", "diverged"]
    table: Table = [[*header, "difference", "low", "high", "level", "over", "p", "p_adjusted", "d_z", "wins"]]
    level = 1 - study.alpha
    rows = forest_rows(study)
    # a primary question has an alpha of its own; with other targets a difference is certain
    adjusted = benjamini_hochberg(
        {
            f"{row.question} {row.arm}": row.found.p
            for row in rows
            if row.same_targets and not row.primary and len(row.found.seeds) > 1
        }
    )
    for row in rows:
        found = row.found
        about = [row.question, found.metric, row.arm, arm_name(row.arm), found.arms[0], row.same_targets]
        counts = [len(found.seeds), len(found.diverged)]
        tests = [
            found.p if len(found.seeds) > 1 else None,
            adjusted.get(f"{row.question} {row.arm}"),
            found.effect,
            found.wins.count,
        ]
        bounds = found.bounds(level)
        ends = [*(bounds.interval or (None, None)), level, bounds.over]
        table.append([*about, *counts, found.estimate, *ends, *tests])
    return table


def forest(study: Study) -> "dict[str, Figure]":
    """Draw for each question the mean paired difference of every arm; nothing where there is one arm alone."""
    rows = forest_rows(study)
    if len({row.arm for row in rows}) < 2:
        return {}
    by_question = {
        question: [row for row in rows if row.question == question] for question in study.questions
    }
    return {
        f"forest_{question}": _forest(study, question, own) for question, own in by_question.items() if own
    }


def _forest(study: Study, question: str, rows: list[ForestRow]) -> "Figure":
    """Draw one question: a line for each arm, and its numbers beside it."""
    asked, level, arms = study.questions[question], 1 - study.alpha, [row.arm for row in rows]
    lost = dict.fromkeys(f"{arm_name(run.arm)} seed {run.seed}" for row in rows for run in row.found.diverged)
    figure, axes = panels(5.0, 0.3 * max(len(arms), 2) + 1.3 + 0.3 * bool(lost))
    ax, measured = axes[0, 0], measure(study.metrics, asked)
    # rows with other targets may lie far out: the axis is not theirs, and they become arrows
    likes = [row.found for row in rows if row.same_targets]
    ends = [end for each in likes for end in each.bounds(level).interval or ()]
    values = [measured.scale * value for value in (*(each.estimate for each in likes), *ends)]
    # upside down, so that the first arm is on top, with room above for the name of the band
    ax.set(xlim=axis_limits(values, measured.scale * asked.sesoi), ylim=(len(arms) - 0.5, -0.9))
    shade_margin(ax, measured.scale * asked.sesoi)
    for row in rows:
        _line(ax, row, measured, arms.index(row.arm), len(study.seeds), level)
    ax.set_yticks(range(len(arms)), [arm_name(arm) for arm in arms], fontsize=SMALL)
    ax.spines["left"].set_visible(False)
    few_ticks(ax, "x")
    alone = {"colour": "colouring", "class": "classification"}[question]
    head(ax, measured.titled(measured.difference_unit), f"difference from single-task {alone}")
    name_margin(ax)
    name_directions(ax, rows[0].found.lower_is_better)
    note_diverged(figure, list(lost))
    return figure


def _targets(study: Study, question: str, arm: str) -> tuple[float, bool]:
    """Return what the task of a question is taught by in an arm: share of labels, and whether they are a placebo."""
    own = {"class": "labels", "colour": "colours"}[question]
    share = labelled_share(study, arm) if question == "class" else 1.0
    return share, placebo(study, arm) == own


def _line(ax: "Axes", row: ForestRow, measured: Measure, height: float, planned: int, level: float) -> None:
    """Draw one comparison; one that leaves the panel is an arrow at its edge, and its number says how far."""
    low, high = ax.get_xlim()
    value = measured.scale * row.found.estimate
    colour = MULTI if row.primary else INK if row.same_targets else MUTED
    # hollow, as `note_diverged` explains
    inside = PAPER if row.found.diverged else colour
    if low <= value <= high:
        interval = row.found.bounds(level).interval
        if interval:
            ends = np.clip(measured.scale * np.array(interval), low, high)
            ax.plot(ends, [height, height], color=colour, linewidth=2, zorder=3, label="interval")
        ax.plot(
            value, height, "o", color=colour, markersize=6, markerfacecolor=inside, zorder=4, label="estimate"
        )
    else:
        edge, marker = (low, "<") if value < low else (high, ">")
        ax.plot(edge, height, marker, color=colour, markersize=5, clip_on=False, zorder=4, label="beyond")
    weight = "bold" if row.primary else "normal"
    ax.annotate(
        _numbers(row.found, measured, planned, level), (1, height), xycoords=("axes fraction", "data"), xytext=(8, 0),
        textcoords="offset points", va="center", color=colour, fontsize=SMALL, fontweight=weight,
        annotation_clip=False,
    )  # fmt: skip


def _numbers(found: Contrast, measured: Measure, planned: int, level: float) -> str:
    """Return difference and interval as text, with the seeds where they are fewer than planned."""
    bounds = found.bounds(level)
    ends = measured.ends(bounds.interval) if bounds.interval else ""
    none = "one seed" if len(found.seeds) < 2 else "no interval"
    seeds = f", {len(found.seeds)} of {planned} seeds" if len(found.seeds) < planned else ""
    return f"{measured.signed(found.estimate)} ({ends or none}{seeds})"
