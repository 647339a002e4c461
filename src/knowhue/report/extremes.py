"""The best and the worst colourings of each arm, by their error: what a mean hides."""

from typing import TYPE_CHECKING

import numpy as np

from knowhue.report.arms import sides
from knowhue.report.palette import INK, MULTI, MUTED, SINGLE, SMALL, TEXT, bare, panels, say_empty
from knowhue.report.study import Run, Study, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMES = (("Single-task", SINGLE), ("Multi-task", MULTI))


def extremes(study: Study) -> "Figure":
    """Draw each arm's best and worst colourings of the shown seed above the true images."""
    runs = [study.shown(arm) for arm in sides(study, "colour")]
    count = max([len(_errors(run)) for run in runs] + [2])
    figure, axes = panels(9.2, 9.2 / count * 4 + 1.0, rows=4, columns=count)
    for ax in axes.flat:
        bare(ax)
    for row, run, (title, colour) in zip((0, 2), runs, _NAMES, strict=True):
        axes[row, 0].set_ylabel(title, color=colour, fontsize=TEXT, fontweight="bold")
        axes[row + 1, 0].set_ylabel("Truth", color=MUTED, fontsize=SMALL)
        if run is None or not len(_errors(run)):
            say_empty(axes[row, 0], "not\nstored")
            continue
        for column, error in enumerate(_errors(run)):
            _show(axes[row, column], run.extremes["rgb"][column], f"{error:.1f}")
            _show(axes[row + 1, column], run.extremes["truth"][column])
        half = len(_errors(run)) // 2
        axes[row, 0].set_title("Best", loc="left", color=INK, fontsize=SMALL, fontweight="bold", pad=4)
        axes[row, half].set_title("Worst", loc="left", color=INK, fontsize=SMALL, fontweight="bold", pad=4)
    return figure


def extremes_table(study: Study) -> Table:
    """Return every image's error of the shown seed, best first: one row per arm and image."""
    rows: Table = [["arm", "seed", "image", "label", "ab_l1"]]
    for arm in sides(study, "colour"):
        run = study.shown(arm)
        images = [row for row in run.images if row.get("ab_l1") is not None] if run else []
        for row in sorted(images, key=lambda row: row["ab_l1"]):
            rows.append([arm, study.shown_seed, row["path"], row["label"], row["ab_l1"]])
    return rows


def _errors(run: Run | None) -> np.ndarray:
    return np.asarray(run.extremes.get("ab_l1", ())) if run is not None else np.empty(0)


def _show(ax: "Axes", image: np.ndarray, below: str = "") -> None:
    ax.imshow(image, interpolation="none")
    ax.set_xlabel(below, color=MUTED, fontsize=SMALL, labelpad=2)
    bare(ax)
