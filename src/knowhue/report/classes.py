"""What happens class by class: confusion matrices and the scores of each class."""

from typing import TYPE_CHECKING

import numpy as np

from knowhue.report.arms import sides
from knowhue.report.palette import (
    INK,
    MULTI,
    MUTED,
    PAPER,
    RULE,
    SINGLE,
    SMALL,
    bare,
    entitle,
    panels,
    say_empty,
)
from knowhue.report.study import Study, Table
from knowhue.report.text import spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MANY = 12
"""More classes than this leave no room for numbers in the cells."""


def confusion(study: Study) -> "Figure":
    """Draw the confusion matrices of both arms side by side, each row in per cent of its class."""
    side = 0.36 * len(study.classes) if len(study.classes) <= _MANY else 4.0
    figure, axes = panels(9.2, max(side, 1.4) + 1.1, columns=2, sharey=True)
    for ax, (arm, title, colour) in zip(axes[0], _sides(study, "class"), strict=True):
        entitle(ax, title, colour)
        counts = confusion_counts(study, arm)
        if counts is None:
            say_empty(ax, "No finished run of this arm")
        else:
            _matrix(ax, counts, [spaced(name) for name in study.classes], colour)
    return figure


def confusion_counts(study: Study, arm: str) -> np.ndarray | None:
    """Return how many images of each class (rows) were called each class (columns), all finished seeds."""
    tables = [run.scores["confusion"] for run in study.finished(arm) if run.scores.get("confusion")]
    return np.sum([np.asarray(table) for table in tables], axis=0) if tables else None


def confusion_table(study: Study) -> Table:
    """Return the numbers of the matrices: one row per arm, true class and predicted class."""
    rows: Table = [["arm", "true", "predicted", "images"]]
    for arm in sides(study, "class"):
        counts = confusion_counts(study, arm)
        for true, line in enumerate([] if counts is None else counts.tolist()):
            rows += [
                [arm, study.classes[true], study.classes[column], count] for column, count in enumerate(line)
            ]
    return rows


def per_class(study: Study) -> "Figure":
    """Draw accuracy and error of each class, both arms on one line."""
    count = max(len(study.classes), 1)
    figure, axes = panels(9.2, min(0.3 * count, 12) + 0.9, columns=2, sharey=True)
    both = (("class", "accuracy", "Accuracy, %", 100), ("colour", "ab_l1", "L1 of a*b*, CIELAB units", 1))
    for ax, (task, name, title, scale) in zip(axes[0], both, strict=True):
        entitle(ax, title)
        _dots(ax, study, task, name, scale)
    return figure


def per_class_table(study: Study) -> Table:
    """Return the scores of each class: one row per arm, seed and class."""
    rows: Table = [["arm", "seed", "class", "images", "accuracy", "ab_l1"]]
    for arm in study.runs:
        for run in study.finished(arm):
            for name, scores in run.scores.get("per_class", {}).items():
                rows.append([arm, run.seed, name, *(scores.get(key) for key in rows[0][3:])])
    return rows


def class_scores(study: Study, arm: str, name: str) -> np.ndarray:
    """Return one score of each class, (seeds, classes); NaN where there is none."""
    runs = study.finished(arm)
    values = [
        [run.scores.get("per_class", {}).get(label, {}).get(name) for label in study.classes] for run in runs
    ]
    return np.array(values, float).reshape(len(runs), len(study.classes))


def _sides(study: Study, task: str) -> tuple[tuple[str, str, str], ...]:
    single, multi = sides(study, task)
    return ((single, "Single-task", SINGLE), (multi, "Multi-task", MULTI))


def _matrix(ax: "Axes", counts: np.ndarray, names: list[str], colour: str) -> None:
    from matplotlib.patches import Rectangle

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for row, column in np.ndindex(*counts.shape):
        share = shares[row, column]
        box = Rectangle(
            (column - 0.47, row - 0.47), 0.94, 0.94, color=colour, alpha=0.05 + 0.95 * share, linewidth=0
        )
        ax.add_patch(box)
        if len(names) <= _MANY and counts[row, column]:
            ink = PAPER if share > 0.5 else INK
            ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=ink, fontsize=SMALL)
    ax.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    bare(ax)
    ax.tick_params(length=0)
    if len(names) <= 4 * _MANY:
        turn = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        below = [name.replace(" ", "\n") for name in names] if len(names) <= 6 else names
        ax.set_xticks(range(len(names)), below, color=MUTED, **(turn if below is names else {}))
        ax.set_yticks(range(len(names)), names, color=MUTED)
    ax.set_xlabel("Predicted class")


def _dots(ax: "Axes", study: Study, task: str, name: str, scale: float) -> None:
    places = np.arange(len(study.classes))
    centres = []
    for arm, label, colour in _sides(study, task):
        scores = class_scores(study, arm, name) * scale
        if not np.isfinite(scores).any():
            continue
        centres.append(scores.mean(axis=0))
        size = 7.5 if colour == SINGLE else 4.8  # where both agree, one rings the other
        ax.plot(centres[-1], places, "o", color=colour, markersize=size, zorder=3, label=label)
        for line in scores if len(scores) > 1 else ():
            ax.plot(line, places, "o", color=colour, markersize=3, alpha=0.35, zorder=2, markeredgewidth=0)
    if not centres:
        say_empty(ax, "No finished run with this score")
        return
    if len(centres) == 2:
        ax.hlines(places, *centres, color=RULE, linewidth=2.5, zorder=1)
    ax.set_ylim(len(places) - 0.4, -0.6)
    ax.set_yticks(places, [spaced(label) for label in study.classes])
    ax.grid(axis="y", color=RULE, linewidth=0.5, alpha=0.6)
    ax.spines["left"].set_visible(False)
    ax.legend(
        frameon=False, fontsize=SMALL, loc="lower right", bbox_to_anchor=(1.02, 0.98),
        ncols=2, handletextpad=0.1,
        columnspacing=1, borderaxespad=0.3, labelcolor="linecolor",
    )  # fmt: skip
