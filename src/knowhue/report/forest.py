"""Every arm against the single-task arm of each question, with the placebos that must show nothing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from knowhue.report.arms import arm_name, asked_of, is_oracle, labelled_share, placebo, tasks
from knowhue.report.contrasts import Contrast, primary, with_numbers
from knowhue.report.differences import head, limits, name_directions, name_margin, note_diverged, shade_margin
from knowhue.report.palette import (
    INK,
    MULTI,
    MUTED,
    PAPER,
    SMALL,
    panels,
    say_empty,
)
from knowhue.report.study import Study, Table
from knowhue.report.text import Measure, measure
from knowhue.statistics.paired import benjamini_hochberg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Row:
    """One arm against the single-task arm of a question."""

    question: str
    arm: str
    found: Contrast
    primary: bool
    """Whether it is the question itself, judged at its share of alpha and not by Benjamini and Hochberg."""
    same_targets: bool
    """Whether it learns the task from the same targets as the single-task arm; otherwise the difference is theirs."""


def forest_rows(study: Study) -> list[Row]:
    """Return all comparisons that have a number, by question and in the plan's order of arms."""
    rows = []
    for question, asked in study.questions.items():
        for arm in study.arms:
            if arm == asked.single or not _compares(study, question, arm):
                continue
            found = with_numbers(primary(asked_of(study, question, multi=arm), question))
            if found is not None:
                alike = _targets(study, question, arm) == _targets(study, question, asked.single)
                rows.append(Row(question, arm, found, arm == asked.multi, alike))
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
    adjusted = benjamini_hochberg(
        {f"{row.question} {row.arm}": row.found.p for row in rows if row.same_targets and not row.primary}
    )
    for row in rows:
        found = row.found
        about = [row.question, found.metric, row.arm, arm_name(row.arm), found.arms[0], row.same_targets]
        counts = [len(found.seeds), len(found.diverged)]
        tests = [found.p, adjusted.get(f"{row.question} {row.arm}"), found.effect, found.wins.count]
        bounds = found.bounds(level)
        ends = [*(bounds.interval or (None, None)), level, bounds.over]
        table.append([*about, *counts, found.estimate, *ends, *tests])
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


def _targets(study: Study, question: str, arm: str) -> tuple[float, bool]:
    """Return what the task of a question is taught by in an arm: share of labels, and whether they are a placebo."""
    own = {"class": "labels", "colour": "colours"}[question]
    share = labelled_share(study, arm) if question == "class" else 1.0
    return share, placebo(study, arm) == own


def _column(ax: "Axes", study: Study, rows: list[Row], arms: list[str]) -> None:
    """Draw one question: a line for each arm, and its numbers beside it."""
    from matplotlib.ticker import MaxNLocator

    asked, lower = study.questions[rows[0].question], rows[0].found.lower_is_better
    said = measure(study.metrics, asked)
    level = 1 - study.alpha
    likes = [row.found for row in rows if row.same_targets]
    ends = [end for each in likes for end in each.bounds(level).interval or ()]
    values = [said.scale * value for value in (*(each.estimate for each in likes), *ends)]
    ax.set(xlim=limits(values, said.scale * asked.sesoi), ylim=(len(arms) - 0.5, -0.9))
    shade_margin(ax, said.scale * asked.sesoi)
    planned = len(study.seeds)
    for row in rows:
        _line(ax, row, said, arms.index(row.arm), planned, level)
    names = [arm_name(arm) for arm in arms]
    ax.set_yticks(range(len(arms)), names, fontsize=SMALL)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    alone = {"colour": "colouring", "class": "classification"}[rows[0].question]
    head(ax, said.titled(said.difference_unit), f"difference from single-task {alone}")
    name_margin(ax)
    name_directions(ax, lower)


def _line(ax: "Axes", row: Row, said: Measure, height: float, planned: int, level: float) -> None:
    """Draw one comparison; one that leaves the panel is an arrow at its edge, and its number says how far."""
    low, high = ax.get_xlim()
    value = said.scale * row.found.estimate
    colour = MULTI if row.primary else INK if row.same_targets else MUTED
    inside = PAPER if row.found.diverged else colour
    if low <= value <= high:
        interval = row.found.bounds(level).interval
        if interval:
            ends = np.clip(said.scale * np.array(interval), low, high)
            ax.plot(ends, [height, height], color=colour, linewidth=2, zorder=3, label="interval")
        ax.plot(
            value, height, "o", color=colour, markersize=6, markerfacecolor=inside, zorder=4, label="estimate"
        )
    else:
        edge, marker = (low, "<") if value < low else (high, ">")
        ax.plot(edge, height, marker, color=colour, markersize=5, clip_on=False, zorder=4, label="beyond")
    weight = "bold" if row.primary else "normal"
    ax.annotate(
        _numbers(row.found, said, planned, level), (1, height), xycoords=("axes fraction", "data"), xytext=(8, 0),
        textcoords="offset points", va="center", color=colour, fontsize=SMALL, fontweight=weight,
        annotation_clip=False,
    )  # fmt: skip


def _numbers(found: Contrast, said: Measure, planned: int, level: float) -> str:
    """Return difference and interval as text, with the seeds where they are fewer than planned."""
    bounds = found.bounds(level)
    ends = said.ends(bounds.interval) if bounds.interval else ""
    none = "one seed" if len(found.seeds) < 2 else "no interval"
    seeds = f", {len(found.seeds)} of {planned} seeds" if len(found.seeds) < planned else ""
    return f"{said.signed(found.estimate)} ({ends or none}{seeds})"
