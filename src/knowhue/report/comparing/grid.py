"""The same images, unchosen, as every method coloured them, and several samples of those that draw."""

from typing import TYPE_CHECKING

import numpy as np

from knowhue.report.comparing.reading import Comparison
from knowhue.report.palette import INK, MUTED, SMALL, bare, panels, say_empty

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def sample_grid(comparison: Comparison, regime: str) -> "Figure":
    """Draw gray, each method, truth; one row an image, the first seed that ended."""
    places = first_of_each_class(comparison)
    names = list(comparison.methods)
    columns = [comparison.images(regime, name).get("rgb") for name in names]
    gray, truth = (comparison.samples.get(name) for name in ("gray", "truth"))
    ways = [("gray", gray), *zip(names, columns, strict=True), ("truth", truth)]
    figure, axes = panels(10.5, 10.5 / len(ways) * max(len(places), 1) + 0.2, max(len(places), 1), len(ways))
    for row, place in zip(axes, places, strict=False):
        for ax, (_, images) in zip(row, ways, strict=True):
            _show(ax, None if images is None else images[place])
    for ax, (name, _) in zip(axes[0], ways, strict=True):
        ax.set_title(name, color=MUTED if name in ("gray", "truth") else INK, fontsize=SMALL, pad=4)
    return figure


def drawing_methods(comparison: Comparison, regime: str) -> list[str]:
    """Those that gave several samples of an image."""
    return [name for name in comparison.methods if "drawn" in comparison.images(regime, name)]


def drawn_grid(comparison: Comparison, regime: str) -> "Figure":
    """Draw several samples of each image side by side, a row an image, a block of columns a method."""
    places = first_of_each_class(comparison)
    names = drawing_methods(comparison, regime)
    drawn = {name: comparison.images(regime, name)["drawn"] for name in names}
    columns = [(name, number) for name in names for number in range(len(drawn[name]))]
    rows = max(len(places), 1)
    figure, axes = panels(10.5, 10.5 / max(len(columns), 8) * rows + 0.2, rows, max(len(columns), 1))
    for row, place in zip(axes, places, strict=False):
        for ax, (name, number) in zip(row, columns, strict=False):
            _show(ax, drawn[name][number][place])
    for ax, (name, number) in zip(axes[0], columns, strict=False):
        ax.set_title(name if number == 0 else "", loc="left", color=INK, fontsize=SMALL, pad=4)
    return figure


def first_of_each_class(comparison: Comparison) -> list[int]:
    """Where the first sample image of each class stands."""
    labels = np.asarray(comparison.samples.get("label", ()))
    return [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)]


def _show(ax: "Axes", image: np.ndarray | None) -> None:
    if image is None:
        say_empty(ax, "–")
        ax.set_box_aspect(1)
        return
    ax.imshow(image, interpolation="none")
    bare(ax)
