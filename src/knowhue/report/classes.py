"""What happens class by class: scores of each class, confusion, and whether the named class's probability holds."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from knowhue.report.results import class_scores
from knowhue.report.study import Row, Study, sides
from knowhue.report.style import (
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
)
from knowhue.report.text import spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MANY = 12
"""More classes than this leave no room for numbers in the cells."""


class Side(NamedTuple):
    """One of the two arms of a question, and how it is drawn."""

    name: str
    arm: str
    title: str
    colour: str


def drawn_sides(study: Study, task: str) -> list[Side]:
    """Return single-task and multi-task of a question."""
    single, multi = sides(study, task)
    return [Side("single", single, "Single-task", SINGLE), Side("multi", multi, "Multi-task", MULTI)]


def draw_per_class(study: Study) -> "dict[str, Figure]":
    """Draw accuracy and error of each class, both arms on one line."""
    both = {
        "class": ("accuracy", "Accuracy, %", 100),
        "colour": ("ab_l1", "Error of a*b*, CIELAB units", 1),
    }
    figures = {}
    for task, (name, title, scale) in both.items():
        scores = {side: scale * class_scores(study, side.arm, name) for side in drawn_sides(study, task)}
        known = {side: values for side, values in scores.items() if np.isfinite(values).any()}
        if known:
            figures[f"per_class_{task}"], axes = panels(5.0, min(0.3 * len(study.classes), 12) + 0.9)
            entitle(axes[0, 0], title)
            _dots(axes[0, 0], known, study.classes)
    return figures


def _dots(ax: "Axes", scores: dict[Side, np.ndarray], classes: list[str]) -> None:
    places = np.arange(len(classes))
    centres = [values.mean(axis=0) for values in scores.values()]
    for (side, values), centre in zip(scores.items(), centres, strict=True):
        size = 7.5 if side.name == "single" else 4.8  # where both agree, one rings the other
        ax.plot(centre, places, "o", color=side.colour, markersize=size, zorder=3, label=side.title)
        for line in values if len(values) > 1 else ():
            ax.plot(
                line, places, "o", color=side.colour, markersize=3, alpha=0.35, zorder=2, markeredgewidth=0
            )
    if len(centres) == 2:
        ax.hlines(places, *centres, color=RULE, linewidth=2.5, zorder=1)
    ax.set_ylim(len(places) - 0.4, -0.6)
    ax.set_yticks(places, [spaced(label) for label in classes])
    ax.grid(axis="y", color=RULE, linewidth=0.5, alpha=0.6)
    ax.spines["left"].set_visible(False)
    ax.legend(
        frameon=False, fontsize=SMALL, loc="lower right", bbox_to_anchor=(1.02, 0.98), ncols=2, handletextpad=0.1,
        columnspacing=1, borderaxespad=0.3, labelcolor="linecolor",
    )  # fmt: skip


def draw_confusion(study: Study) -> "dict[str, Figure]":
    """Draw the confusion matrix of each arm, each row in per cent of its class."""
    names = [spaced(name) for name in study.classes]
    height = max(0.36 * len(names) if len(names) <= _MANY else 4.0, 1.4) + 1.1
    figures = {}
    for side, counts in _counted(study):
        figures[f"confusion_{side.name}"], axes = panels(5.0, height)
        entitle(axes[0, 0], side.title, side.colour)
        _matrix(axes[0, 0], counts, names, side.colour)
    return figures


def confusion_rows(study: Study) -> list[Row]:
    """Return the numbers of the matrices: one row per arm, true class and predicted class."""
    return [
        {"arm": side.arm, "true": true, "predicted": named, "images": count}
        for side, counts in _counted(study)
        for true, line in zip(study.classes, counts.tolist(), strict=True)
        for named, count in zip(study.classes, line, strict=True)
    ]


def _counted(study: Study) -> Iterator[tuple[Side, np.ndarray]]:
    """Return how many images of each class (rows) were called each class (columns), all finished seeds, by arm."""
    for side in drawn_sides(study, "class"):
        runs = study.finished(side.arm)
        if tables := [np.asarray(run.scores["confusion"]) for run in runs if run.scores.get("confusion")]:
            yield side, np.sum(tables, axis=0)


def _matrix(ax: "Axes", counts: np.ndarray, names: list[str], colour: str) -> None:
    from matplotlib.patches import Rectangle

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for row, column in np.ndindex(*counts.shape):
        share, corner = shares[row, column], (column - 0.47, row - 0.47)
        ax.add_patch(Rectangle(corner, 0.94, 0.94, color=colour, alpha=0.05 + 0.95 * share, linewidth=0))
        if len(names) <= _MANY and counts[row, column]:
            # numbers stay legible on cells of full colour
            ink = PAPER if share > 0.5 else INK
            ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=ink, fontsize=SMALL)
    ax.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    bare(ax)
    ax.tick_params(length=0)
    if len(names) <= 4 * _MANY:
        turn = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        # few names fit upright, a word a line; more are slanted
        below = [name.replace(" ", "\n") for name in names] if len(names) <= 6 else names
        ax.set_xticks(range(len(names)), below, color=MUTED, **(turn if below is names else {}))
        ax.set_yticks(range(len(names)), names, color=MUTED)
    ax.set_xlabel("Predicted class")


def draw_reliability(study: Study) -> "dict[str, Figure]":
    """Draw for each arm accuracy over probability of the named class, in bins, all finished seeds together."""
    figures = {}
    for side in drawn_sides(study, "class"):
        if bins := [each for each in reliability_bins(study, side.arm) if each["images"]]:
            figures[f"reliability_{side.name}"], axes = panels(5.0, 3.6)
            entitle(axes[0, 0], side.title, side.colour)
            _diagram(axes[0, 0], bins, side.colour)
    return figures


def reliability_bins(study: Study, arm: str) -> list[dict[str, Any]]:
    """Return the bins of `scores.json` added up over the finished seeds; empty without any."""
    runs = [run.scores["reliability"] for run in study.finished(arm) if run.scores.get("reliability")]
    return [_pooled(same) for same in zip(*runs, strict=True)]


def reliability_rows(study: Study) -> list[Row]:
    """Return the numbers of the diagrams: one row per arm and bin."""
    return [{"arm": arm} | each for arm in sides(study, "class") for each in reliability_bins(study, arm)]


def _pooled(same: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    filled = [each for each in same if each["images"]]
    # a seed's bin counts by its images, as if all seeds' images were sorted together
    weights = [each["images"] for each in filled]
    means = {
        name: float(np.average([each[name] for each in filled], weights=weights)) if filled else None
        for name in ("confidence", "accuracy")
    }
    return {**same[0], "images": sum(weights), **means}


def _diagram(ax: "Axes", bins: list[dict[str, Any]], colour: str) -> None:
    images, confidence, accuracy = (
        np.array([each[name] for each in bins], float) for name in ("images", "confidence", "accuracy")
    )
    share = images / images.sum()
    error = float((share * np.abs(confidence - accuracy)).sum())
    ax.plot([0, 100], [0, 100], color=RULE, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
    ax.vlines(100 * confidence, 100 * confidence, 100 * accuracy, color=colour, alpha=0.35, linewidth=2)
    ax.scatter(100 * confidence, 100 * accuracy, s=12 + 260 * share, color=colour, linewidth=0, zorder=3)
    ax.set(
        xlim=(-4, 104), ylim=(-4, 104), xlabel="Probability given to the named class, %", ylabel="Right, %"
    )
    text = f"calibration error {100 * error:.1f} %"
    ax.text(0.03, 0.95, text, color=MUTED, fontsize=SMALL, transform=ax.transAxes, va="top")
