"""Whether class probabilities mean what they say: the reliability diagram of both arms."""

from typing import TYPE_CHECKING, Any

import numpy as np

from knowhue.report.arms import sides
from knowhue.report.palette import MULTI, MUTED, RULE, SINGLE, SMALL, entitle, panels, say_empty
from knowhue.report.study import Study, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def reliability(study: Study) -> "Figure":
    """Draw accuracy over probability of the named class, in bins, all finished seeds together."""
    figure, axes = panels(9.2, 3.6, columns=2, sharey=True)
    named = zip(sides(study, "class"), ("Single-task", "Multi-task"), (SINGLE, MULTI), strict=True)
    for ax, (arm, title, colour) in zip(axes[0], named, strict=True):
        bins = [each for each in reliability_bins(study, arm) if each["images"]]
        entitle(ax, title, colour)
        if bins:
            _draw(ax, bins, colour)
        else:
            say_empty(ax, "No finished run of this arm")
    return figure


def reliability_bins(study: Study, arm: str) -> list[dict[str, Any]]:
    """Return the bins of `scores.json` added up over the finished seeds; empty without any."""
    runs = [run.scores["reliability"] for run in study.finished(arm) if run.scores.get("reliability")]
    return [_pooled(same) for same in zip(*runs, strict=True)]


def reliability_table(study: Study) -> Table:
    """Return the numbers of the diagram: one row per arm and bin."""
    names = ["lower", "upper", "images", "confidence", "accuracy"]
    rows: Table = [["arm", *names]]
    for arm in sides(study, "class"):
        rows += [[arm, *(each[name] for name in names)] for each in reliability_bins(study, arm)]
    return rows


def _pooled(same: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    filled = [each for each in same if each["images"]]
    weights = [each["images"] for each in filled]
    means = {
        name: float(np.average([each[name] for each in filled], weights=weights)) if filled else None
        for name in ("confidence", "accuracy")
    }
    return {**same[0], "images": sum(weights), **means}


def _draw(ax: "Axes", bins: list[dict[str, Any]], colour: str) -> None:
    confidence, accuracy, images = (
        np.array([each[name] for each in bins], float) for name in ("confidence", "accuracy", "images")
    )
    share = images / images.sum()
    error = float((share * np.abs(confidence - accuracy)).sum())
    ax.plot([0, 100], [0, 100], color=RULE, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
    ax.vlines(100 * confidence, 100 * confidence, 100 * accuracy, color=colour, alpha=0.35, linewidth=2)
    ax.scatter(100 * confidence, 100 * accuracy, s=12 + 260 * share, color=colour, linewidth=0, zorder=3)
    ax.set(xlim=(-4, 104), ylim=(-4, 104), xlabel="Probability given to the named class, %")
    ax.set_ylabel("Right, %" if ax.get_subplotspec().is_first_col() else "")  # type: ignore[union-attr]
    text = f"calibration error {100 * error:.1f} %"
    ax.text(0.03, 0.95, text, color=MUTED, fontsize=SMALL, transform=ax.transAxes, va="top")
