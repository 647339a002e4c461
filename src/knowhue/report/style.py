"""The style of all figures: one hue per arm, neutral grays, no frame; and their conversion to SVG."""

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from knowhue.statistics.paired import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# each hex value has one meaning, because `to_svg` replaces it by the page's variable of that name (light or dark)
INK, MUTED, RULE, SHADE, PAPER = "#1f2428", "#6a737d", "#d4d9de", "#f2f4f6", "#fefefe"
SINGLE, MULTI = "#0a6ebd", "#c8500a"  # blue and vermilion differ for every kind of colour blindness
THEME = {
    INK: "ink", MUTED: "muted", RULE: "rule", SHADE: "shade", PAPER: "paper", SINGLE: "single", MULTI: "multi",
}  # fmt: skip

SMALL, TEXT = 8.0, 9.0
_LINE, _GAP = 0.22, 0.08
"""Inches for a line of text next to an image, and between images."""

_STYLE: dict[Any, Any] = {
    "font.size": SMALL, "axes.edgecolor": RULE, "axes.labelcolor": MUTED, "axes.labelsize": SMALL,
    "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False,
    "xtick.color": RULE, "xtick.labelcolor": MUTED, "xtick.major.size": 3.0,
    "ytick.color": RULE, "ytick.labelcolor": MUTED, "ytick.major.size": 0.0,
}  # fmt: skip


def panels(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> "tuple[Figure, np.ndarray]":
    """Return a new figure in this style, in inches (a column of the page has 5), and its axes, (rows, columns).

    The figure need not be closed.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        # not by pyplot, which keeps every figure until it is closed
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_visible(False)  # shows the page's background, light or dark
        axes = figure.subplots(rows, columns, squeeze=False, **options)
        for ax in axes.flat:
            ax.patch.set_visible(False)
    return figure, axes


def one_panel(height: float, title: str, colour: str = INK, subtitle: str = "") -> "tuple[Figure, Axes]":
    """Return a figure as wide as a column of the page, and its only axes."""
    figure, axes = panels(5.0, height)
    set_title(axes[0, 0], title, colour, subtitle)
    return figure, axes[0, 0]


def set_title(ax: "Axes", title: str, colour: str = INK, subtitle: str = "") -> None:
    """Write the title of a panel at its upper left, and a gray subtitle below."""
    pad = 20 if subtitle else 8
    ax.set_title(title, loc="left", fontsize=TEXT, fontweight="bold", color=colour, pad=pad)
    place = {"xy": (0, 1), "xycoords": "axes fraction", "xytext": (0, 7), "textcoords": "offset points"}
    ax.annotate(subtitle, **place, color=MUTED, fontsize=SMALL, va="bottom")


def hide_axes(ax: "Axes") -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


class Tile(NamedTuple):
    """A square image of a grid, with a text below in a colour; if it is missing, `why` takes its place."""

    image: np.ndarray | None
    below: str = ""
    colour: str = MUTED
    why: str = "–"


def tile_grid(
    width: float,
    rows: Sequence[Sequence[Tile]],
    titles: Mapping[int, tuple[str, str]],
    names: Sequence[tuple[str, str]] = (),
    fewest: int = 1,
    **style: Any,
) -> "Figure":
    """Return a new figure of square images in rows and columns.

    Args:
        width: of the figure, in inches.
        rows: tiles from left to right.
        titles: text and colour above columns, by the number of the column.
        names: text and colour to the left of rows, rotated.
        fewest: least number of columns to leave room for, so that few images do not become large.
        style: of the titles, for `Axes.text`; `ha="left"` aligns them with the left edge of their column.
    """
    from matplotlib.figure import Figure

    left = _LINE if names else 0.0
    columns = max(fewest, *map(len, rows)) if rows else fewest
    side = (width - left - _GAP * (columns - 1)) / columns
    steps = [side + (_LINE if any(tile.below for tile in row) else _GAP) for row in rows]
    figure = Figure(figsize=(width, _LINE + sum(steps)))
    figure.patch.set_visible(False)
    # one axes in inches, because one axes per image takes several times as long
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(_LINE + sum(steps), 0))
    ax.set_axis_off()
    middle = 0.0 if style.get("ha") == "left" else side / 2
    for column, (text, colour) in titles.items():
        x = left + column * (side + _GAP) + middle
        ax.text(x, _LINE - 0.05, text, color=colour, **{"ha": "center", "va": "bottom", **style})
    for row, tiles in enumerate(rows):
        top = _LINE + sum(steps[:row])
        for column, tile in enumerate(tiles):
            _place_tile(ax, tile, left + column * (side + _GAP), top, side)
        for text, colour in names[row : row + 1]:
            upright = {"rotation": 90, "ha": "left", "va": "center", "fontsize": TEXT, "fontweight": "bold"}
            ax.text(0, top + side / 2, text, color=colour, **upright)
    return figure


def _place_tile(ax: "Axes", tile: Tile, x: float, y: float, side: float) -> None:
    if tile.image is None:
        style = {"ha": "center", "va": "center", "color": MUTED, "fontsize": TEXT}
        ax.text(x + side / 2, y + side / 2, tile.why, **style)
        return
    ax.imshow(tile.image, interpolation="none", extent=(x, x + side, y + side, y), aspect="auto")
    if tile.below:
        style = {"ha": "center", "va": "top", "color": tile.colour, "fontsize": SMALL}
        ax.text(x + side / 2, y + side + 0.04, tile.below, **style)


def number_axis(ax: "Axes", axis: Literal["x", "y"]) -> None:
    """Set few, round ticks on an axis of numbers; the y axis gets grid lines behind the data."""
    from matplotlib.ticker import MaxNLocator

    numbers = ax.xaxis if axis == "x" else ax.yaxis
    numbers.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    if axis == "y":
        ax.grid(axis="y", color=RULE, linewidth=0.5)
        ax.set_axisbelow(True)


def spread_heights(ax: "Axes", heights: Sequence[float], fontsize: float) -> list[float]:
    """Return ascending heights of lines of text, moved by as little as avoids overlaps (least squares).

    The axes must have its final limits. `heights` are in the unit of its y axis, `fontsize` in points.
    """
    from scipy.optimize import isotonic_regression

    low, high = ax.get_ylim()
    points = 72 * ax.bbox.height / ax.figure.dpi
    steps = 1.25 * fontsize / points * (high - low) * np.arange(len(heights))
    # lines do not overlap if heights minus steps never decrease
    return (isotonic_regression(np.array(heights) - steps).x + steps).tolist() if len(heights) else []


def label_curves(
    ax: "Axes", curves: Sequence[tuple[float, str, str]], lines: Sequence[tuple[float, str]] = ()
) -> None:
    """Write the names of curves, in their colours, and of reference lines, in gray, to the right of a panel."""
    named = [(*curve, TEXT, "bold") for curve in curves] + [(*line, MUTED, SMALL, "normal") for line in lines]
    named.sort()
    heights = spread_heights(ax, [height for height, *_ in named], TEXT)
    for height, (_, name, colour, size, weight) in zip(heights, named, strict=True):
        ax.annotate(
            name, (1, height), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
            va="center", color=colour, fontsize=size, fontweight=weight, annotation_clip=False,
        )  # fmt: skip


def mark_margin(ax: "Axes", margin: float, lower_is_better: bool) -> None:
    """Mark 0 and the band of differences below the smallest effect of interest, and say which side is better.

    The x axis must have its final limits. The label of the band stays within the panel wherever the band lies.
    """
    ax.axvspan(-margin, margin, color=SHADE, linewidth=0, zorder=0)
    for edge in (-margin, margin):
        ax.axvline(edge, color=RULE, linewidth=0.6, zorder=0.5)
    # an arrow without head, because it can begin a fixed distance below the top, where the band's label is
    ax.annotate(
        "", (0, 0), (0, 1), ("data", "axes fraction"), ("data", "axes fraction"), zorder=1,
        arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.8, "shrinkA": 1.7 * SMALL, "shrinkB": 0},
    )  # fmt: skip
    low, high = ax.get_xlim()
    zero = -low / (high - low)
    side = "left" if zero < 0.32 else "right" if zero > 0.68 else "center"
    place = {"left": 0.01, "right": 0.99, "center": zero}[side]
    style = {"ha": side, "va": "top", "color": MUTED, "fontsize": SMALL, "zorder": 2}
    at_top = {"xycoords": "axes fraction", "xytext": (0, -3), "textcoords": "offset points"}
    ax.annotate("too small to matter", (place, 1), **at_top, **style)
    words = ("← better", "worse →") if lower_is_better else ("← worse", "better →")
    for place, text in zip((0, 1), words, strict=True):
        ax.annotate(
            text, (place, 0), xycoords="axes fraction", xytext=(0, -16), textcoords="offset points",
            ha="right" if place else "left", va="top", fontsize=SMALL,
            color=MULTI if "better" in text else MUTED,
        )  # fmt: skip


def axis_limits(values: Sequence[float], margin: float) -> Interval:
    """Return the limits of an axis of differences that shows all values and the whole band within the margin."""
    low, high = min([*values, -1.15 * margin]), max([*values, 1.15 * margin])
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def shorten_name(name: str, longest: int = 24) -> str:
    """Shorten a user's name for a figure; the middle is cut out, because names often differ at their ends.

    >>> shorten_name("multi-task, class weight 3"), shorten_name("a" * 9 + "b" * 9, 13)
    ('multi-task,...s weight 3', 'aaaaa...bbbbb')
    """
    end = (longest - 3) // 2
    return name if len(name) <= longest else f"{name[: longest - 3 - end]}...{name[-end:]}"


def dot(
    ax: "Axes", x: float, y: float, colour: str, size: float, *, hollow: bool = False, **style: Any
) -> None:
    """Draw a dot; hollow for a diverged run, see `note_diverged`."""
    inside = PAPER if hollow else colour
    ax.plot(x, y, "o", color=colour, markersize=size, markerfacecolor=inside, **style)


def note_diverged(figure: "Figure", runs: Sequence[str]) -> None:
    """List the runs that are drawn hollow below a figure, if any."""
    if runs:
        text = f"○ diverged, given a baseline's score: {', '.join(runs)}"
        width = int(16 * figure.get_figwidth())  # characters per line
        style = {"ha": "left", "fontsize": SMALL, "color": MUTED}
        figure.supxlabel(fill(text, width), x=0.01, **style)


def lay_out(figure: "Figure") -> None:
    """Run the layout of a figure once; otherwise `savefig` draws the whole figure an extra time for it.

    Dollar signs in names of classes and metrics do not start formulas.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    if layout := figure.get_layout_engine():
        layout.execute(figure)
        figure.set_layout_engine("none")


def to_svg(figure: "Figure", name: str, description: str) -> str:
    """Return a figure as an `<svg>` element for an HTML page.

    Args:
        figure: drawn with the colours of `THEME`, which become CSS variables of the page.
        name: prefix of every identifier, unique on the page.
        description: text for screen readers.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    file, canvas = io.StringIO(), FigureCanvasSVG(figure)
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # a fixed salt and no date, so that the same study gives the same page; text is not converted to outlines
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        lay_out(figure)
        canvas.print_svg(file, metadata=nothing)
    # HTML does not allow an XML declaration
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # identifiers must be unique on a page with several drawings
    text = re.sub(r' id="|href="#|url\(#', rf"\g<0>{name}-", text)
    for colour, variable in THEME.items():
        text = text.replace(colour, f"var(--{variable}, {colour})")
    text = re.sub(r"'DejaVu Sans'", "var(--sans, sans-serif)", text)
    # the page sets the size; the view box keeps the aspect ratio
    size = r' width="[^"]+pt" height="[^"]+pt"|(?<=<svg) height="[^"]+pt"| width="[^"]+pt"(?= version)'
    text = re.sub(size, "", text, count=2)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
