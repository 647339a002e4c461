"""How figures of differences are worded and drawn: units, the band of what is too small, directions, axes."""

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

from knowhue.report.palette import INK, MULTI, MUTED, RULE, SHADE, SMALL, TEXT
from knowhue.statistics.paired import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def shade_margin(ax: "Axes", margin: float) -> None:
    """Mark no difference, and the differences smaller than the smallest of interest."""
    ax.axvspan(-margin, margin, color=SHADE, linewidth=0, zorder=0)
    for edge in (-margin, margin):
        ax.axvline(edge, color=RULE, linewidth=0.6, zorder=0.5)
    ax.axvline(0, 0, 0.9, color=MUTED, linewidth=0.8, zorder=1)  # ends below the name of the band


def name_margin(ax: "Axes") -> None:
    """Name the band of `shade_margin` at its top, within the panel wherever the band lies."""
    low, high = ax.get_xlim()
    zero = -low / (high - low)
    side = "left" if zero < 0.32 else "right" if zero > 0.68 else "center"
    place = {"left": 0.01, "right": 0.99, "center": zero}[side]
    style = {"ha": side, "va": "top", "color": MUTED, "fontsize": SMALL, "zorder": 2}
    ax.text(place, 0.985, "smaller than matters", transform=ax.transAxes, **style)


def head(ax: "Axes", title: str, subtitle: str) -> None:
    """Write the title of a panel and a quiet line below it."""
    ax.set_title(title, loc="left", fontsize=TEXT, fontweight="bold", color=INK, pad=20)
    place = {"xy": (0, 1), "xycoords": "axes fraction", "xytext": (0, 7), "textcoords": "offset points"}
    ax.annotate(subtitle, **place, color=MUTED, fontsize=SMALL, va="bottom")


def name_directions(ax: "Axes", lower_is_better: bool) -> None:
    """Say below the axis which side is better."""
    words = ("← better", "worse →") if lower_is_better else ("← worse", "better →")
    for place, text in zip((0, 1), words, strict=True):
        ax.annotate(
            text, (place, 0), xycoords="axes fraction", xytext=(0, -16), textcoords="offset points",
            ha="right" if place else "left", va="top", fontsize=SMALL,
            color=MULTI if "better" in text else MUTED,
        )  # fmt: skip


def limits(values: Sequence[float], margin: float) -> Interval:
    """Return the ends of an axis of differences: all values and the whole band of what is too small."""
    low, high = min([*values, -1.15 * margin]), max([*values, 1.15 * margin])
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def note_diverged(figure: "Figure", runs: Sequence[str]) -> None:
    """Name below a figure the runs that are drawn hollow, if any."""
    if runs:
        text = f"○ diverged, given a baseline's score: {', '.join(runs)}"
        width = int(16 * figure.get_figwidth())  # letters
        style = {"ha": "left", "fontsize": SMALL, "color": MUTED}
        figure.supxlabel(fill(text, width), x=0.01, **style)
