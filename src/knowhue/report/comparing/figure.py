"""Quality against cost: one panel a metric, one mark a method, hollow at equal images and filled at equal seconds."""

from typing import TYPE_CHECKING, NamedTuple

from knowhue.report.comparing.reading import Comparison
from knowhue.report.comparing.summary import cost, metrics, scores
from knowhue.report.palette import INK, MUTED, PAPER, RULE, SMALL, bare, entitle, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = ("ab_l1", "ciede2000", "colourfulness_difference_of_means", "fd_lite0", "fid", "recognition")
_TITLES = {
    "ab_l1": "a*b* error, CIELAB units",
    "ciede2000": "CIEDE2000",
    "colourfulness_difference_of_means": "Difference of colourfulness",
    "fd_lite0": "Fréchet distance, lite0",
    "fid": "FID",
    "recognition": "Recognised, % ↑",
}
_FORWARD, _GAN, _PIX2PIX, _PALETTE = (
    "#3b8fd4",
    "#e0692a",
    "#a66bbf",
    "#2f9e6e",
)  # a hue a family, on light and dark


class Mark(NamedTuple):
    """How a method looks in every panel: the hue of its family, a shape of its own."""

    colour: str
    shape: str


MARKS = {
    "l1": Mark(_FORWARD, "o"),
    "l2": Mark(_FORWARD, "s"),
    "classification": Mark(_FORWARD, "^"),
    "gan": Mark(_GAN, "o"),
    "unet": Mark(_GAN, "D"),
    "pix2pix": Mark(_PIX2PIX, "o"),
    "pix2pix-paper": Mark(_PIX2PIX, "s"),
    "palette-rgb": Mark(_PALETTE, "o"),
    "palette-ab": Mark(_PALETTE, "D"),
    "palette-rgb-paper": Mark(_PALETTE, "s"),
    "palette-ab-paper": Mark(_PALETTE, "^"),
}


def trade_off(comparison: Comparison) -> "Figure":
    """Draw every metric over the seconds of training."""
    had = set(metrics(comparison))
    shown = [name for name in _PANELS if name in had]
    rows = (len(shown) + 3) // 3
    figure, axes = panels(10.5, 3.1 * rows, rows, 3)
    flat = list(axes.flat)
    for ax, name in zip(flat, shown, strict=False):
        _panel(ax, comparison, name)
    for ax in flat[len(shown) :]:
        bare(ax)
    _legend(flat[len(shown)], comparison)
    return figure


def _panel(ax: "Axes", comparison: Comparison, metric: str) -> None:
    scale = 100 if metric == "recognition" else 1
    for method in comparison.methods:
        mark, ends = MARKS[method], []
        for regime in comparison.regimes:
            found = scores(comparison, regime)[method, metric]
            seconds = cost(comparison, regime, method, "train_s")
            if found.mean is None or seconds is None:
                continue
            ends.append((seconds, scale * found.mean))
            runs = comparison.finished(regime, method)
            for seed, value in found.by_seed.items():
                at = runs[seed]["cost"]["train_s"]
                ax.plot(at, scale * value, marker=".", markersize=3, color=mark.colour, alpha=0.45, zorder=2)
            face = mark.colour if regime == "clock" else PAPER
            ax.plot(
                *ends[-1], marker=mark.shape, markersize=7, markerfacecolor=face, markeredgecolor=mark.colour,
                markeredgewidth=1.4, zorder=4,
            )  # fmt: skip
        if len(ends) == 2:
            ax.plot(*zip(*ends, strict=True), color=mark.colour, linewidth=1, alpha=0.6, zorder=3)
    ax.set_xscale("log")
    _ticks(ax)
    ax.grid(axis="y", color=RULE, linewidth=0.5)
    entitle(ax, _TITLES[metric])
    _lines(ax, comparison, metric, scale)


def _ticks(ax: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("seconds trained")


def _lines(ax: "Axes", comparison: Comparison, metric: str, scale: float) -> None:
    """What gray images score, and the budget."""
    gray = comparison.baselines.get("gray", {}).get(metric)
    if gray is not None:
        ax.axhline(scale * gray, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        ax.annotate(
            "gray", (1, scale * gray), xycoords=("axes fraction", "data"), xytext=(-2, 1), ha="right", va="bottom",
            textcoords="offset points", color=MUTED, fontsize=SMALL,
        )  # fmt: skip
    budget = comparison.regimes.get("clock", {}).get("budget_s")
    if budget:
        ax.axvline(budget, color=RULE, linewidth=1, zorder=1)


def _legend(ax: "Axes", comparison: Comparison) -> None:
    """Names beside their marks, in the free panel."""
    count = len(comparison.methods) + 2
    for place, (method, described) in enumerate(comparison.methods.items()):
        mark, y = MARKS[method], 1 - (place + 0.5) / count
        ax.plot(
            0.04, y, marker=mark.shape, markersize=7, color=mark.colour, transform=ax.transAxes, clip_on=False
        )
        name = described["title"] + (" (reference)" if method == comparison.reference else "")
        ax.text(0.1, y, name, va="center", color=INK, fontsize=SMALL + 0.5, transform=ax.transAxes)
    for place, (face, text) in enumerate(
        ((PAPER, "hollow: equal images"), (MUTED, "filled: equal wall-clock"))
    ):
        y = 1 - (len(comparison.methods) + place + 0.5) / count
        ax.plot(
            0.04, y, marker="o", markersize=7, markerfacecolor=face, markeredgecolor=MUTED, markeredgewidth=1.4,
            transform=ax.transAxes, clip_on=False,
        )  # fmt: skip
        ax.text(0.1, y, text, va="center", color=MUTED, fontsize=SMALL + 0.5, transform=ax.transAxes)
