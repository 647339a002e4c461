"""A comparison of methods at equal images and at equal wall-clock: results, tables and figures of quality and cost."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from knowhue.errors import minus, spaced
from knowhue.metric_table import METRICS
from knowhue.plan import CLOCK, QUESTIONS, Epochs, Plan, plan_of
from knowhue.presets import ALL_METHODS, Method, edit
from knowhue.report.contrasts import BOTH, Contrast, FamilyTest, contrast, family_tests
from knowhue.report.findings import Judged, judged
from knowhue.report.study import Arrays, Run, Study, flat_scores, floors
from knowhue.report.style import INK, MUTED, PAPER, RULE, SMALL, Tile, hide_axes, panels, set_title, tile_grid
from knowhue.report.text import (
    MISSING,
    TERMINAL_WIDTH,
    TableCell,
    difference,
    ends_text,
    number,
    seconds_text,
    terminal_table,
)
from knowhue.setting_effects import dotted
from knowhue.settings_text import inline_yaml
from knowhue.statistics.paired import mean
from knowhue.statistics.verdicts import Word, question_alpha

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ERROR = QUESTIONS["colour"]
"""The question that judges a method: metric, smallest effect of interest, score of a diverged run."""
QUALITY = (
    "ab_l1", "ciede2000", "colourfulness_difference_of_means", "chroma_ratio", "fd_lite0", "fid", "recognition",
)  # fmt: skip
"""Metrics in the tables, if some run has them; those with a better direction are also drawn."""
COST_NAMES = ("train_s", "train_s_per_image", "predict_s_per_image", "images_seen", "parameters")
_COST_HEADS = (
    "", "epochs", "images seen", "seconds trained", "training, ms per image", "prediction, ms per image",
    "million parameters",
)  # fmt: skip
_BASELINES = {
    "gray": "left gray", "mean_colour": "mean colour everywhere", "median_colour": "median colour everywhere",
    "real": "true colours",
}  # fmt: skip
# one hue per family, visible on light and dark
_GAN = "#e0692a"
_HUES = {"feedforward": "#3b8fd4", "gan": _GAN, "unet": _GAN, "pix2pix": "#a66bbf", "palette": "#2f9e6e"}
_SHAPES = "osD^vPX*phd<>8"


class Mark(NamedTuple):
    """The marker of a method in every panel: the hue of its family, and a shape."""

    colour: str
    shape: str


class Regime(NamedTuple):
    """What is held equal for all methods."""

    name: str
    """`images` or `clock`"""
    title: str
    arms: Mapping[str, str]
    epochs: Mapping[str, Epochs]
    """of each method: epochs on the frozen encoder, epochs of fine-tuning"""
    budget_s: float | None = None
    """seconds of training at equal wall-clock; None at equal images"""


@dataclass(frozen=True, eq=False)
class Comparison:
    """A study whose arms are methods, accessed by method and regime."""

    study: Study

    @cached_property
    def methods(self) -> dict[str, Method]:
        """Methods by name, in the order of the tables; a method that the user defined has its arm's name as title."""
        return {arm: self._method(arm) for arm in self.plan.planned_arms}

    def _method(self, arm: str) -> Method:
        known = ALL_METHODS.get(arm)
        if known and edit(self.plan.config, known.edits) == self.plan.arm_settings(arm):
            return known
        settings = dotted(self.plan.arms[arm], is_for_readers=True)
        source = ", ".join(f"{name} = {inline_yaml(value)}" for name, value in settings)
        return Method(arm, source, self.plan.arms[arm])

    @cached_property
    def plan(self) -> Plan:
        return plan_of(self.study.settings)

    @property
    def reference(self) -> str:
        """The method that the others are compared with."""
        return self.study.settings["reference"]

    @cached_property
    def regimes(self) -> dict[str, Regime]:
        """`images`, and `clock` as soon as the duration of an epoch of each method is known."""
        runs = self.study.runs
        usual = {name: self.plan.epochs(name) for name in self.methods}
        found = [Regime("images", "equal images", {name: name for name in self.methods}, usual)]
        if clock := self.study.settings.get("wall_clock"):
            # a method with the same epochs in both regimes is not trained again
            arms = {name: name + CLOCK if name + CLOCK in runs else name for name in self.methods}
            found.append(Regime("clock", "equal wall-clock", arms, clock["epochs"], clock["budget_s"]))
        return {each.name: each for each in found}

    @cached_property
    def metrics(self) -> list[str]:
        study = self.study
        return [name for name in QUALITY if any(study.table.finished(arm, name) for arm in study.runs)]

    @cached_property
    def tests(self) -> dict[str, dict[tuple[str, str], FamilyTest]]:
        """Tests of each method against the reference, over their common seeds, by regime and by (method, metric).

        They are adjusted for the whole table of a regime, because readers look for bold numbers in all of it. The error
        of a diverged run is the score declared for it.
        """
        others = [method for method in self.methods if method != self.reference]
        return {
            name: family_tests({
                (method, metric): self._contrast(regime, method, metric)
                for method in others
                for metric in self.metrics
            })
            for name, regime in self.regimes.items()
        }  # fmt: skip

    def _contrast(self, regime: Regime, method: str, metric: str) -> Contrast | None:
        return contrast(self.study.table, metric, regime.arms[self.reference], regime.arms[method])

    def scores(self, regime: Regime, method: str, metric: str) -> dict[int, float]:
        return self.study.table.finished(regime.arms[method], metric)

    @property
    def alpha(self) -> float:
        """The level of one verdict: alpha divided by the number of methods, less the reference, in both regimes."""
        # even before the second regime has begun
        return question_alpha(self.plan.alpha, 2 * (len(self.methods) - 1))

    def verdict(self, regime: Regime, method: str) -> Judged | None:
        """Judge a method's error against the reference's, like a study's question; None for the reference."""
        if method == self.reference:
            return None
        found = self._contrast(regime, method, ERROR.metric)
        trivial = floors(self.study.baselines, ERROR.metric)
        arms = {arm for each in self.regimes.values() for arm in each.arms.values()}
        scores = {arm: self.study.table.scores(arm, ERROR.metric) for arm in arms}
        complete = all(len(scores[arm]) == len(self.study.of(arm)) for arm in arms)
        return judged(found, ERROR.sesoi, self.alpha, trivial.values(), complete)

    def unfinished(self, regime: Regime) -> list[str]:
        """Return a text for every run that did not finish, and for damaged sample images."""
        given = ""
        if self.study.baselines.get(ERROR.if_diverged, {}).get(ERROR.metric) is not None:
            given = f", and given the score of “{spaced(ERROR.if_diverged)}” as declared"
        found = []
        for method, arm in regime.arms.items():
            for run in self.study.of(arm):
                if run.state != "finished":
                    found.append(f"{method}, seed {run.seed}: {run.state}{given * (run.state == 'diverged')}")
                if "samples.npz" in run.damaged:
                    found.append(f"{method}, seed {run.seed}: its images are damaged")
        if self.study.damaged:
            found.append("the true images: damaged")
        return found

    def costs(self, regime: Regime, method: str) -> dict[str, float | None]:
        """Return the costs of a method by `COST_NAMES`, means over its finished seeds."""
        runs, shared = self.study.finished(regime.arms[method]), self.study.costs.get(method, {})
        by_run = [{**run_costs(run), **shared} for run in runs]
        return {
            name: mean([each[name] for each in by_run if each.get(name) is not None]) for name in COST_NAMES
        }


def run_costs(run: Run) -> dict[str, float]:
    """Return what a run cost: seconds of training (with its heads, without evaluation), images seen, their ratio."""
    seconds = sum(entry["train_seconds"] for entry in run.log)
    count = sum(entry["images"] for entry in run.log)
    return {"train_s": round(seconds, 2), "images_seen": count, "train_s_per_image": seconds / max(count, 1)}


def comparison_results(study: Study) -> dict[str, Any]:
    """Return every number of the comparison, for `comparison` in `results.json`.

    Paths: `reference`, `regimes.<images|clock>.<title|budget_s|unfinished>`, and for each method
    `regimes.<regime>.methods.<method>.<epochs|verdict|scores.<metric>|cost.<name>>`.
    """
    compared = Comparison(study)
    regimes = {
        name: {
            "title": regime.title, "budget_s": regime.budget_s, "unfinished": compared.unfinished(regime),
            "methods": {each: _results(compared, regime, each) for each in compared.methods},
        }
        for name, regime in compared.regimes.items()
    }  # fmt: skip
    return {"reference": compared.reference, "regimes": regimes}


def _results(compared: Comparison, regime: Regime, method: str) -> dict[str, Any]:
    judgement, scores = compared.verdict(regime, method), {}
    for metric in (*compared.metrics, "diversity"):
        if by_seed := compared.scores(regime, method, metric):
            test = compared.tests[regime.name].get((method, metric))
            scores[metric] = {
                "mean": mean(list(by_seed.values())), "by_seed": by_seed, "difference": test and test.numbers(),
            }  # fmt: skip
    return {
        "epochs": regime.epochs.get(method), "verdict": judgement and judgement.word.value, "scores": scores,
        "cost": compared.costs(regime, method),
    }  # fmt: skip


def quality_table(compared: Comparison, regime: Regime) -> list[list[TableCell]]:
    """Return quality as a table, header first: one row per method and baseline, one column per metric."""
    is_diverse = any(compared.scores(regime, name, "diversity") for name in compared.methods)
    names = [*compared.metrics, *["diversity"] * is_diverse]
    rows = [[TableCell(head) for head in ("", "error: verdict", *(column_head(name) for name in names))]]
    for name, method in compared.methods.items():
        title = TableCell(method.title, "reference" if name == compared.reference else "")
        cells = [_quality_cell(compared, regime, name, metric) for metric in names]
        rows.append([title, verdict_cell(compared.verdict(regime, name)), *cells])
    for name, title in _BASELINES.items():
        if (row := compared.study.baselines.get(name)) is not None:
            known = flat_scores(row)
            cells = [TableCell(number(known.get(metric), METRICS[metric].unit)) for metric in names]
            rows.append([TableCell(title), TableCell(MISSING), *cells])
    return rows


def cost_table(compared: Comparison, regime: Regime) -> list[list[TableCell]]:
    """Return the costs as a table, header first; ratios are relative to the reference in the same regime."""
    rows = [[TableCell(head) for head in _COST_HEADS]]
    known = {name: compared.costs(regime, name) for name in compared.methods}
    reference = known[compared.reference]
    for name, method in compared.methods.items():
        costs, epochs = known[name], regime.epochs.get(name)
        count, seconds, parameters = costs["images_seen"], costs["train_s"], costs["parameters"]
        rows.append([
            TableCell(method.title),
            TableCell(MISSING if epochs is None else " + ".join(f"{each}" for each in epochs if each)),
            TableCell(MISSING if count is None else f"{count:,.0f}"),
            TableCell(MISSING if seconds is None else seconds_text(seconds)),
            *(_timed(costs[each], reference[each]) for each in ("train_s_per_image", "predict_s_per_image")),
            TableCell(MISSING if parameters is None else f"{parameters / 1e6:.1f}"),
        ])  # fmt: skip
    return rows


def terminal_lines(study: Study) -> list[str]:
    """Return all tables as lines for a terminal, after sentences on how to read them."""
    compared = Comparison(study)
    lines = wrap(
        f"Below each value: its difference from “{compared.methods[compared.reference].title}” over the seeds that "
        "both have, with its 95 % interval over seeds and images; †: over seeds alone, on these images; *: clear after "
        "adjustment for all methods and metrics of a table (Benjamini and Hochberg).",
        TERMINAL_WIDTH,
    )
    for regime in compared.regimes.values():
        budget = f" ({seconds_text(regime.budget_s)} s)" if regime.budget_s else ""
        lines += ["", f"{regime.title.capitalize()}{budget}"]
        for table in (quality_table, cost_table):
            lines += ["", *terminal_table(table(compared, regime))]
        if unfinished := compared.unfinished(regime):
            lines += ["", *wrap(f"Not finished: {'; '.join(unfinished)}", TERMINAL_WIDTH)]
    return lines


def _quality_cell(compared: Comparison, regime: Regime, method: str, metric: str) -> TableCell:
    """Return a mean, and below it the difference from the reference with its interval (`†`: over seeds alone)."""
    unit, level = METRICS[metric].unit, mean(list(compared.scores(regime, method, metric).values()))
    test = compared.tests[regime.name].get((method, metric))
    if test is None:
        return TableCell(number(level, unit))
    found, bounds, like = test.found, test.bounds, level or 0.0
    ends = "no interval" if bounds.interval is None else ends_text(like, bounds.interval, unit)
    mark = "" if bounds.over == BOTH or bounds.interval is None else "†"
    below = f"{difference(like, like + found.estimate, unit)} ({ends}){mark}"
    return TableCell(number(level, unit), below, test.is_clear)


def column_head(metric: str) -> str:
    """Return the head of a metric's column or panel; shares are in per cent there."""
    about = METRICS[metric]
    return about.head.replace(about.short, f"{about.short}, %") if about.unit == "share" else about.head


def verdict_cell(found: Judged | None) -> TableCell:
    """Return a verdict; one over seeds alone is marked, because it applies to these images only."""
    if found is None:
        return TableCell(MISSING)
    here = found.word != Word.NO_VERDICT and found.quoted is not None and found.quoted.over != BOTH
    return TableCell(found.word.value, "on these images" if here else "")


def _timed(seconds: float | None, reference: float | None) -> TableCell:
    if seconds is None:
        return TableCell(MISSING)
    return TableCell(f"{1000 * seconds:.2f}", f"× {seconds / reference:.2f}" if reference else "")


def marks(compared: Comparison) -> dict[str, Mark]:
    """Return the mark of every method; the methods of a family have different shapes."""
    shapes = {hue: itertools.cycle(_SHAPES) for hue in _HUES.values()}
    hues = {name: _HUES[compared.plan.arm_settings(name).colour.method] for name in compared.methods}
    return {name: Mark(hue, next(shapes[hue])) for name, hue in hues.items()}


def comparison_figures(study: Study) -> "dict[str, Figure]":
    """Return every figure by file name."""
    compared = Comparison(study)
    figures = {"trade_off": trade_off(compared)}
    for name, regime in compared.regimes.items():
        if study.samples:  # a sealed study has none
            figures[f"samples_{name}"] = sample_grid(compared, regime)
        if drawing_methods(compared, regime):
            figures[f"drawn_{name}"] = drawn_grid(compared, regime)
    return figures


def trade_off(compared: Comparison) -> "Figure":
    """Draw every metric over the seconds of training."""
    shown = [name for name in compared.metrics if METRICS[name].better != "neither"]
    # one panel more than metrics, because the legend has a panel of its own
    rows = (len(shown) + 3) // 3
    figure, axes = panels(10.5, 3.1 * rows, rows, 3)
    flat, method_marks = list(axes.flat), marks(compared)
    for ax, name in zip(flat, shown, strict=False):
        _panel(ax, compared, name, method_marks)
    for ax in flat[len(shown) :]:
        hide_axes(ax)
    _legend(flat[len(shown)], compared, method_marks)
    return figure


def sample_grid(compared: Comparison, regime: Regime) -> "Figure":
    """Draw sample images in columns: gray, each method, truth; from the first finished seed."""
    study = compared.study
    gray, truth = ((name, MUTED, study.samples.get(name)) for name in ("gray", "truth"))
    made = [(name, INK, sample_images(study, arm).get("rgb")) for name, arm in regime.arms.items()]
    return _grid(study, [gray, *made, truth])


def drawn_grid(compared: Comparison, regime: Regime) -> "Figure":
    """Draw several samples of each image side by side: one row per image, a block of columns per method."""
    columns = [
        ("" if place else name, INK, images)
        for name in drawing_methods(compared, regime)
        for place, images in enumerate(sample_images(compared.study, regime.arms[name])["drawn"])
    ]
    return _grid(compared.study, columns, fewest=8, ha="left")


def _grid(study: Study, columns: Sequence[tuple[str, str, np.ndarray | None]], **style: Any) -> "Figure":
    """Draw columns of (name, colour of the name, images), one row per class: its first sample image."""
    _, places = np.unique(study.samples.get("label", ()), return_index=True)
    rows = [[Tile(None if images is None else images[place]) for *_, images in columns] for place in places]
    titles = {place: (name, colour) for place, (name, colour, _) in enumerate(columns)}
    return tile_grid(10.5, rows, titles, fontsize=SMALL, **style)


def drawing_methods(compared: Comparison, regime: Regime) -> list[str]:
    return [name for name, arm in regime.arms.items() if "drawn" in sample_images(compared.study, arm)]


def sample_images(study: Study, arm: str) -> Arrays:
    """Return `samples.npz` of the first finished seed that has it; empty if none has."""
    return next((run.samples for run in study.finished(arm) if run.samples), {})


def _panel(ax: "Axes", compared: Comparison, metric: str, method_marks: Mapping[str, Mark]) -> None:
    unit = METRICS[metric].unit
    scale = 100 if unit == "share" else 1
    for method, mark in method_marks.items():
        ends = []
        for regime in compared.regimes.values():
            by_seed = compared.scores(regime, method, metric)
            seconds = compared.costs(regime, method)["train_s"]
            if not by_seed or seconds is None:
                continue
            for run in compared.study.finished(regime.arms[method]):
                if run.seed in by_seed:
                    at, score = run_costs(run)["train_s"], scale * by_seed[run.seed]
                    ax.plot(at, score, marker=".", markersize=3, color=mark.colour, alpha=0.45, zorder=2)
            ends.append((seconds, scale * float(np.mean(list(by_seed.values())))))
            ax.plot(*ends[-1], **_style(mark, mark.colour if regime.name == "clock" else PAPER), zorder=4)
        if len(ends) == 2:
            ax.plot(*zip(*ends, strict=True), color=mark.colour, linewidth=1, alpha=0.6, zorder=3)
    _seconds_axis(ax)
    set_title(ax, column_head(metric))
    if unit != "share":
        ax.set_ylabel(minus(unit), color=MUTED)
    _reference_lines(ax, compared, metric, scale)


def _style(mark: Mark, face: str) -> dict[str, Any]:
    return {
        "marker": mark.shape, "markersize": 7, "markerfacecolor": face, "markeredgecolor": mark.colour,
        "markeredgewidth": 1.4, "linestyle": "none",
    }  # fmt: skip


def _seconds_axis(ax: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("seconds trained")
    ax.grid(axis="y", color=RULE, linewidth=0.5)


def _reference_lines(ax: "Axes", compared: Comparison, metric: str, scale: int) -> None:
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


def _legend(ax: "Axes", compared: Comparison, method_marks: Mapping[str, Mark]) -> None:
    from matplotlib.lines import Line2D

    entries = [
        (compared.methods[name].title + " (reference)" * (name == compared.reference), mark, mark.colour)
        for name, mark in method_marks.items()
    ]
    gray = Mark(MUTED, "o")
    entries += [("hollow: equal images", gray, PAPER), ("filled: equal wall-clock", gray, MUTED)]
    handles = [Line2D([], [], label=text, **_style(mark, face)) for text, mark, face in entries]
    ax.legend(handles=handles, loc="center left", frameon=False, fontsize=SMALL + 0.5, labelcolor=INK)
