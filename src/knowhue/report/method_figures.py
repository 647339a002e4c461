"""The page of a comparison and its figures: quality against training time, and the same images by every method."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup

from knowhue.metric_table import METRICS
from knowhue.report.methods import (
    Comparison,
    Regime,
    column_head,
    cost_table,
    quality_table,
    run_costs,
)
from knowhue.report.study import Arrays, Study, flat_scores
from knowhue.report.style import (
    INK,
    MUTED,
    PAPER,
    RULE,
    SMALL,
    Tile,
    bare,
    entitle,
    image_grid,
    panels,
    to_svg,
)
from knowhue.statistics.verdicts import fewest_seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# a hue a family, on light and dark
_GAN = "#e0692a"
_HUES = {"feedforward": "#3b8fd4", "gan": _GAN, "unet": _GAN, "pix2pix": "#a66bbf", "palette": "#2f9e6e"}
_SHAPES = "osD^vPX*phd<>8"
_DESCRIPTIONS = {
    "trade": "Quality of each method over its training time",
    "samples": "Colourings at {}",
    "drawn": "Samples at {}",
}
HOLLOW, FILLED = "hollow: equal images", "filled: equal wall-clock"


class Mark(NamedTuple):
    """How a method looks in every panel: the hue of its family, a shape of its own."""

    colour: str
    shape: str


def marks(compared: Comparison) -> dict[str, Mark]:
    """The mark of every method, the shapes of a family in the order of the tables."""
    shapes = {hue: itertools.cycle(_SHAPES) for hue in _HUES.values()}
    hues = {name: _HUES[compared.plan.arm_settings(name).colour.method] for name in compared.methods}
    return {name: Mark(hue, next(shapes[hue])) for name, hue in hues.items()}


def comparison_figures(study: Study) -> "dict[str, Figure]":
    """Every figure by file name, for the page, a talk or a paper."""
    compared = Comparison(study)
    figures = {"trade_off": trade_off(compared)}
    for name, regime in compared.regimes.items():
        figures[f"samples_{name}"] = sample_grid(compared, regime)
        if drawing_methods(compared, regime):
            figures[f"drawn_{name}"] = drawn_grid(compared, regime)
    return figures


def page_content(study: Study) -> dict[str, Any]:
    """All that the page of a comparison shows: its drawings as SVG, and what its template asks for the rest."""
    compared, drawings = Comparison(study), {}
    for name, figure in comparison_figures(study).items():
        kind, _, regime = name.rpartition("_")
        title = compared.regimes[regime].title if regime in compared.regimes else ""
        description = _DESCRIPTIONS[kind].format(title)
        drawings[name] = Markup(to_svg(figure, name.replace("_", "-"), description))
    first = next((run for arm in study.runs for run in study.finished(arm)), None)
    return {
        "study": study,
        "compared": compared,
        "drawings": drawings,
        "quality_table": quality_table,
        "cost_table": cost_table,
        "drawing_methods": drawing_methods,
        "fewest": fewest_seeds(compared.alpha),
        "judged_images": first.scores.get("images") if first else None,
        "environment": first.environment if first else {},
    }


def trade_off(compared: Comparison) -> "Figure":
    """Draw every metric over the seconds of training."""
    shown = [name for name in compared.metrics if METRICS[name].better != "neither"]
    # one panel more than metrics, for the legend
    rows = (len(shown) + 3) // 3
    figure, axes = panels(10.5, 3.1 * rows, rows, 3)
    flat, looks = list(axes.flat), marks(compared)
    for ax, name in zip(flat, shown, strict=False):
        _panel(ax, compared, name, looks)
    for ax in flat[len(shown) :]:
        bare(ax)
    _legend(flat[len(shown)], compared, looks)
    return figure


def sample_grid(compared: Comparison, regime: Regime) -> "Figure":
    """Draw gray, each method, truth; one row an image, the first seed that ended."""
    columns = [(name, sample_images(compared.study, arm).get("rgb")) for name, arm in regime.arms.items()]
    gray, truth = (compared.study.samples.get(name) for name in ("gray", "truth"))
    columns = [("gray", gray), *columns, ("truth", truth)]
    colours = [MUTED if name in ("gray", "truth") else INK for name, _ in columns]
    titles = {place: (name, colours[place]) for place, (name, _) in enumerate(columns)}
    return image_grid(10.5, _rows(compared.study, [images for _, images in columns]), titles, fontsize=SMALL)


def drawn_grid(compared: Comparison, regime: Regime) -> "Figure":
    """Draw several samples of each image side by side, a row an image, a block of columns a method."""
    drawn = {
        name: sample_images(compared.study, regime.arms[name])["drawn"]
        for name in drawing_methods(compared, regime)
    }
    columns = [images for several in drawn.values() for images in several]
    begin = np.cumsum([0, *(len(several) for several in drawn.values())]).tolist()
    titles = {place: (name, INK) for place, name in zip(begin, drawn, strict=False)}
    return image_grid(10.5, _rows(compared.study, columns), titles, fewest=8, ha="left", fontsize=SMALL)


def drawing_methods(compared: Comparison, regime: Regime) -> list[str]:
    """Those that gave several samples of an image."""
    return [name for name, arm in regime.arms.items() if "drawn" in sample_images(compared.study, arm)]


def sample_images(study: Study, arm: str) -> Arrays:
    """`samples.npz` of the first finished seed that has it; nothing where there is none."""
    return next((run.samples for run in study.finished(arm) if run.samples), {})


def _panel(ax: "Axes", compared: Comparison, metric: str, looks: Mapping[str, Mark]) -> None:
    scale = 100 if METRICS[metric].unit == "share" else 1
    for method, mark in looks.items():
        ends = [
            _draw_method(ax, mark, compared, regime, method, metric, scale)
            for regime in compared.regimes.values()
        ]
        known = [end for end in ends if end]
        if len(known) == 2:
            ax.plot(*zip(*known, strict=True), color=mark.colour, linewidth=1, alpha=0.6, zorder=3)
    _seconds_axis(ax)
    entitle(ax, column_head(metric))
    if METRICS[metric].unit != "share":
        ax.set_ylabel(METRICS[metric].unit, color=MUTED)
    _reference_lines(ax, compared, metric, scale)


def _draw_method(
    ax: "Axes", mark: Mark, compared: Comparison, regime: Regime, method: str, metric: str, scale: int
) -> tuple[float, float] | None:
    """Draw a method in a regime, each seed a dot; return where its mean stands."""
    found, seconds = compared.scores[regime.name][method, metric], compared.costs(regime, method)["train_s"]
    if found.mean is None or seconds is None:
        return None
    for run in compared.study.finished(regime.arms[method]):
        if run.seed in found.by_seed:
            at = run_costs(run)["train_s"]
            ax.plot(
                at, scale * found.by_seed[run.seed], marker=".", markersize=3, color=mark.colour, alpha=0.45,
                zorder=2,
            )  # fmt: skip
    end = (seconds, scale * found.mean)
    face = mark.colour if regime.name == "clock" else PAPER
    ax.plot(
        *end, marker=mark.shape, markersize=7, markerfacecolor=face, markeredgecolor=mark.colour,
        markeredgewidth=1.4, zorder=4,
    )  # fmt: skip
    return end


def _seconds_axis(ax: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("seconds trained")
    ax.grid(axis="y", color=RULE, linewidth=0.5)


def _reference_lines(ax: "Axes", compared: Comparison, metric: str, scale: int) -> None:
    """What gray images score, and the budget."""
    gray = flat_scores(compared.study.baselines.get("gray", {})).get(metric)
    if gray is not None:
        ax.axhline(scale * gray, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        ax.annotate(
            "gray", (1, scale * gray), xycoords=("axes fraction", "data"), xytext=(-2, 1), ha="right", va="bottom",
            textcoords="offset points", color=MUTED, fontsize=SMALL,
        )  # fmt: skip
    for regime in compared.regimes.values():
        if regime.budget_s:
            ax.axvline(regime.budget_s, color=RULE, linewidth=1, zorder=1)


def _legend(ax: "Axes", compared: Comparison, looks: Mapping[str, Mark]) -> None:
    """Names beside their marks, in the free panel."""
    entries = [
        (looks[name], looks[name].colour, method.title + " (reference)" * (name == compared.reference), INK)
        for name, method in compared.methods.items()
    ]
    entries += [(Mark(MUTED, "o"), face, text, MUTED) for face, text in ((PAPER, HOLLOW), (MUTED, FILLED))]
    for place, (mark, face, text, colour) in enumerate(entries):
        y = 1 - (place + 0.5) / len(entries)
        ax.plot(
            0.04, y, marker=mark.shape, markersize=7, markerfacecolor=face, markeredgecolor=mark.colour,
            markeredgewidth=1.4, transform=ax.transAxes, clip_on=False,
        )  # fmt: skip
        ax.text(0.1, y, text, va="center", color=colour, fontsize=SMALL + 0.5, transform=ax.transAxes)


def _rows(study: Study, columns: Sequence[np.ndarray | None]) -> list[list[Tile]]:
    """Images in columns, a row for the first sample image of each class."""
    labels = np.asarray(study.samples.get("label", ()))
    places = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)]
    return [[Tile(None if images is None else images[place]) for images in columns] for place in places]
