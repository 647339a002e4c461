"""The look of every figure: two hues that mean the same everywhere, quiet neutrals, no frame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Each hex has one meaning only: `svg.to_svg` turns it into the page's colour of that name, light or dark.
INK, MUTED, RULE, SHADE, PAPER = "#1f2428", "#6a737d", "#d4d9de", "#f2f4f6", "#fefefe"
SINGLE, MULTI = "#0a6ebd", "#c8500a"  # blue and vermilion stay apart for every kind of colour blindness
THEME = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    SHADE: "shade",
    PAPER: "paper",
    SINGLE: "single",
    MULTI: "multi",
}

SMALL, TEXT = 8.0, 9.0

_STYLE: dict[Any, Any] = {
    "font.size": SMALL,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": SMALL,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "xtick.major.size": 3.0,
    "ytick.color": RULE,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0.0,
}


def panels(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> "tuple[Figure, np.ndarray]":
    """Return a new figure in this style and its axes as a (rows, columns) array.

    The figure belongs to no window and no global list, so nothing has to be closed.

    Args:
        width: inches; 5 is a column of the page.
        height: inches.
        rows: of axes.
        columns: of axes.
        options: for `Figure.subplots`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots(rows, columns, squeeze=False, **options)
        for ax in axes.flat:
            ax.patch.set_alpha(0)
    return figure, axes


def entitle(ax: "Axes", title: str, colour: str = INK) -> None:
    """Write the title of a panel at its upper left."""
    ax.set_title(title, loc="left", fontsize=TEXT, fontweight="bold", color=colour, pad=8)


def bare(ax: "Axes") -> None:
    """Leave only what is drawn: no axis lines, ticks or labels."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def say_empty(ax: "Axes", why: str) -> None:
    """Write in an empty panel why it is empty."""
    bare(ax)
    ax.text(0.5, 0.5, why, ha="center", va="center", color=MUTED, fontsize=TEXT, transform=ax.transAxes)


def apart(ax: "Axes", heights: Sequence[float], fontsize: float) -> list[float]:
    """Move the heights of lines of text as little as keeps each clear of the next (least squares), in their order.

    Args:
        ax: with its final limits.
        heights: ascending, in the unit of the y axis.
        fontsize: points.
    """
    from scipy.optimize import isotonic_regression

    low, high = ax.get_ylim()
    points = 72 * ax.bbox.height / ax.figure.dpi
    steps = 1.25 * fontsize / points * (high - low) * np.arange(len(heights))
    return (isotonic_regression(np.array(heights) - steps).x + steps).tolist() if len(heights) else []


def name_ends(
    ax: "Axes", curves: Sequence[tuple[float, str, str]], lines: Sequence[tuple[float, str]] = ()
) -> None:
    """Name curves, in their colours, and quieter lines beside the panel, at their heights but apart from each other."""
    named = sorted(
        [*((*curve, TEXT, "bold") for curve in curves), *((*line, MUTED, SMALL, "normal") for line in lines)]
    )
    for height, (_, name, colour, size, weight) in zip(
        apart(ax, [each[0] for each in named], TEXT), named, strict=True
    ):
        ax.annotate(
            name, (1, height), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
            va="center", color=colour, fontsize=size, fontweight=weight, annotation_clip=False,
        )  # fmt: skip
