"""Figures of both arms' scores: over epochs, over the share of labels, by class; confusion and calibration."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from knowhue.errors import spaced
from knowhue.report.study import Row, Run, Study, labelled_share, placebo, sides, tasks
from knowhue.report.style import (
    INK,
    MULTI,
    MUTED,
    PAPER,
    RULE,
    SHADE,
    SINGLE,
    SMALL,
    dot,
    hide_axes,
    label_curves,
    note_diverged,
    number_axis,
    one_panel,
    shorten_name,
)
from knowhue.statistics.paired import Interval, bounded_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Side(NamedTuple):
    """One of the two arms of a question, with its style in figures."""

    name: str
    arm: str
    title: str
    colour: str


def drawn_sides(study: Study, task: str) -> list[Side]:
    single, multi = sides(study, task)
    return [Side("single", single, "Single-task", SINGLE), Side("multi", multi, "Multi-task", MULTI)]


@dataclass(frozen=True)
class Panel:
    """A quantity that is drawn over the epochs."""

    title: str
    task: str
    split: str
    """section of the log: `train` or `validation`"""
    name: str
    scale: float = 1


_ERROR = "Mean absolute error of a*b*, CIELAB units, validation split"
CURVES = {
    "error": Panel(_ERROR, "colour", "validation", "ab_l1"),
    "accuracy": Panel("Validation accuracy, %", "class", "validation", "accuracy", scale=100),
    "losses_generator": Panel("Generator loss", "colour", "train", "generator"),
    "losses_discriminator": Panel("Discriminator loss", "colour", "train", "discriminator"),
}
"""Panels by name of the drawing, which begins with the name of its figure."""


def curves(study: Study, name: str) -> "dict[str, Figure]":
    """Draw the panels of a figure over the epochs, single-task against multi-task; none if no run has a value."""
    figures = {}
    for drawing, panel in _panels(name).items():
        if any(len(_values(run, panel)) for arm in sides(study, panel.task) for run in study.of(arm)):
            figures[drawing], ax = one_panel(2.9, panel.title)
            _curves(ax, study, panel)
    return figures


def curve_rows(study: Study, name: str) -> list[Row]:
    """Return everything that the logs contain about the drawn split: one row per arm, seed and epoch."""
    panel = next(iter(_panels(name).values()))
    return [
        {"arm": run.arm, "seed": run.seed, "epoch": line.get("epoch"), "phase": line.get("phase")}
        | line.get(panel.split, {})
        for arm in sides(study, panel.task)
        for run in study.of(arm)
        for line in run.log
    ]


def _panels(name: str) -> dict[str, Panel]:
    return {drawing: panel for drawing, panel in CURVES.items() if drawing.startswith(name)}


def _curves(ax: "Axes", study: Study, panel: Panel) -> None:
    """Draw one quantity of the single-task and the multi-task arm, with phases and trivial baselines."""
    lines = [line for run in study.all_runs for line in run.log]
    last = max(line["epoch"] for line in lines)
    last_frozen = max((line["epoch"] for line in lines if line.get("phase") == "heads"), default=0)
    ends = []
    # single-task last, because it is dashed over multi-task where both are equal
    for side in reversed(drawn_sides(study, panel.task)):
        drawn = [(run.finished, _values(run, panel)) for run in study.of(side.arm)]
        drawn = [(finished, curve) for finished, curve in drawn if len(curve)]
        for _, curve in drawn if len(drawn) > 1 else ():
            ax.plot(np.arange(1, len(curve) + 1), curve, color=side.colour, linewidth=0.7, alpha=0.4)
        if drawn:
            # an unfinished seed has its thin line but is not in the mean, which it would shorten
            means = [curve for finished, curve in drawn if finished] or [curve for _, curve in drawn]
            # up to the shortest curve; a gap in one curve is a gap in the mean
            centre = np.mean([curve[: min(map(len, means))] for curve in means], axis=0)
            centre = centre if np.isfinite(centre).any() else means[0]
            _two_phases(ax, centre, last_frozen, side.colour, dashed=side.name == "single")
            ends.append((float(centre[np.isfinite(centre)][-1]), side.title, side.colour))
    levels = _levels(ax, study, panel)
    _frame(ax, last_frozen, last)
    label_curves(ax, ends, levels)


def _values(run: Run, panel: Panel) -> np.ndarray:
    """Return the quantity by epoch, NaN where it is missing; empty if the run never has it."""
    curve = panel.scale * np.array([line.get(panel.split, {}).get(panel.name) for line in run.log], float)
    return curve if np.isfinite(curve).any() else np.empty(0)


def _two_phases(ax: "Axes", curve: np.ndarray, last_frozen: int, colour: str, *, dashed: bool) -> None:
    """Draw a curve, dashed while the encoder is frozen if `dashed`, so that two equal curves are both visible."""
    epochs = np.arange(1, len(curve) + 1)
    # both parts include the last frozen epoch, so that the curve has no gap
    frozen, tuned = epochs <= last_frozen, epochs >= max(last_frozen, 1)
    style: dict[str, Any] = {"color": colour, "linewidth": 1.9, "zorder": 4 if dashed else 3}
    ax.plot(epochs[frozen], curve[frozen], linestyle=(0, (2.5, 2.5)) if dashed else "-", **style)
    ax.plot(epochs[tuned], curve[tuned], solid_capstyle="round", **style)
    ax.plot(epochs[-1:], curve[-1:], "o", color=colour, markersize=4, zorder=5)


def _frame(ax: "Axes", last_frozen: int, last: int) -> None:
    """Set limits, ticks and grid, and write the names of both phases at the top."""
    from matplotlib.ticker import MaxNLocator

    low, high = ax.get_ylim()
    room, edge = high - low, last_frozen + 0.5
    ax.set(xlim=(0.6, last + 0.4), ylim=(low - 0.03 * room, high + 0.22 * room))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    number_axis(ax, "y")
    ax.set_xlabel("Epoch")
    if last_frozen:
        ax.axvspan(0.6, edge, color=SHADE, zorder=0, linewidth=0)
    for start, end, label in ((0.6, edge, "encoder frozen"), (edge, last + 0.4, "everything trains")):
        # the name does not fit above a shorter phase
        if end - start > 0.1 * last:
            place = ((start + end) / 2, 0.97)
            style = {"ha": "center", "va": "top", "color": MUTED, "fontsize": SMALL}
            ax.text(*place, label, transform=ax.get_xaxis_transform(), **style)


def _levels(ax: "Axes", study: Study, panel: Panel) -> list[tuple[float, str]]:
    """Draw the scores of trivial baselines as thin dashed lines; return their heights and names."""
    levels = []
    for name, values in study.baselines.items():
        if (value := values.get(panel.split, {}).get(panel.name)) is not None:
            level = value * panel.scale
            ax.axhline(level, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
            levels.append((level, f"{spaced(name)} {level:.1f}"))
    return levels


@dataclass(frozen=True)
class Point:
    """One arm at one share of labels."""

    side: str
    share: float
    """share of the training labels, 0 to 1"""
    arm: str
    scores: Mapping[int, float]
    """balanced accuracy by seed, 0 to 1; a diverged run has the score declared for it"""
    diverged: frozenset[int]

    @property
    def mean(self) -> float | None:
        return float(np.mean(list(self.scores.values()))) if self.scores else None

    @property
    def interval(self) -> Interval | None:
        """Student's t interval over seeds at 95 %; None with too few seeds or if it exceeds 0 or 1."""
        return bounded_interval(list(self.scores.values()), (0.0, 1.0))


def has_label_fractions(study: Study) -> bool:
    return len({point.share for point in label_points(study)}) > 1


def label_points(study: Study) -> list[Point]:
    """Return the arms that differ only in tasks and labels, sorted by side and share of labels."""
    found: dict[tuple[str, float], Point] = {}
    for arm in study.arms:
        edited = study.arms.get(arm) or {}
        changed = {*edited, *edited.get("supervision", {}), *edited.get("tasks", {})}
        is_only_of_these = changed <= {"tasks", "names", "supervision", "labelled_share", "placebo"}
        if is_only_of_these and "class" in tasks(study, arm) and not placebo(study, arm):
            side, share = "multi" if "colour" in tasks(study, arm) else "single", labelled_share(study, arm)
            scores = study.table.scores(arm, "balanced_accuracy")
            diverged = frozenset(study.table.declared(arm, "balanced_accuracy"))
            found.setdefault((side, share), Point(side, share, arm, scores, diverged))
    return [found[key] for key in sorted(found, key=lambda key: (key[0] != "single", key[1]))]


def label_fraction(study: Study) -> "dict[str, Figure]":
    """Draw balanced accuracy over the share of labels; nothing with only one share or no finished run."""
    planned = label_points(study)
    points = [point for point in planned if point.scores]
    if not points or not has_label_fractions(study):
        return {}
    figure, ax = one_panel(3.2, "Balanced accuracy, %")
    ax.set_xscale("log")
    ends = [
        _draw_side(ax, [point for point in points if point.side == side.name], side)
        for side in drawn_sides(study, "class")
    ]
    _share_axis(ax, sorted({100 * point.share for point in planned}))
    label_curves(ax, [end for end in ends if end])
    lost = [f"{point.arm} seed {seed}" for point in points for seed in sorted(point.diverged)]
    # only a study that asks the question declares scores
    note_diverged(figure, [f"{run} (“{spaced(study.questions['class'].if_diverged)}”)" for run in lost])
    return {"label_fraction": figure}


def label_fraction_rows(study: Study) -> list[Row]:
    """Return the numbers in the drawing: one row per arm and seed, and one per arm with mean and 95 % interval."""
    rows: list[Row] = []
    for point in label_points(study):
        arm = {"labelled_share": point.share, "side": point.side, "arm": point.arm}
        rows += [
            {**arm, "seed": seed, "balanced_accuracy": value, "diverged": seed in point.diverged}
            for seed, value in point.scores.items()
        ]
        low, high = point.interval or (None, None)
        mean = {"seed": "mean", "balanced_accuracy": point.mean, "diverged": bool(point.diverged)}
        rows.append({**arm, **mean, "low": low, "high": high})
    return rows


def _draw_side(ax: "Axes", points: list[Point], side: Side) -> tuple[float, str, str] | None:
    """Draw one side over its shares of labels; return the height at which its curve ends, its name and colour."""
    # along the logarithmic axis, so that error bars do not overlap
    colour, shift = side.colour, 1.05 if side.name == "multi" else 1 / 1.05
    places = [100 * shift * point.share for point in points]
    for place, point in zip(places, points, strict=True):
        for seed, value in point.scores.items() if len(point.scores) > 1 else ():
            lost = seed in point.diverged
            style = {"markeredgewidth": 0.6, "alpha": 1 if lost else 0.5, "zorder": 2, "label": "seed"}
            # shifted, because the marker of the mean would cover the seeds
            dot(ax, place * shift, 100 * value, colour, 3.2, hollow=lost, **style)
        if point.interval:
            ends = 100 * np.array(point.interval)
            ax.plot([place, place], ends, color=colour, linewidth=1.6, zorder=3, label="interval")
    means = [100 * (point.mean or 0.0) for point in points]
    if not means:
        return None
    ax.plot(places, means, "o-", color=colour, linewidth=1.9, markersize=5, zorder=4, label="mean")
    return means[-1], side.title, colour


def _share_axis(ax: "Axes", shares: list[float]) -> None:
    from matplotlib.ticker import NullLocator

    ax.set_xlim(shares[0] / 1.3, shares[-1] * 1.3)
    ax.set_xticks(shares, [f"{share:g} %" for share in shares])
    ax.xaxis.set_minor_locator(NullLocator())
    number_axis(ax, "y")
    ax.set_xlabel("Share of the training labels that are known")


MANY = 12
"""With more classes, cells of the confusion matrix have no numbers, and its table no zeros."""
_MOST_NAMED = 80
"""Most class names that fit below each other in the tallest figure."""


def draw_per_class(study: Study) -> "dict[str, Figure]":
    """Draw accuracy and error of each class, both arms in one row."""
    both = {"class": ("accuracy", "Accuracy, %", 100), "colour": ("ab_l1", "Error of a*b*, CIELAB units", 1)}
    figures = {}
    for task, (name, title, scale) in both.items():
        scores = {side: scale * class_scores(study, side.arm, name) for side in drawn_sides(study, task)}
        known = {side: values for side, values in scores.items() if np.isfinite(values).any()}
        if known:
            figures[f"per_class_{task}"], ax = one_panel(min(0.3 * len(study.classes), 12) + 0.9, title)
            _dots(ax, known, study.classes)
    return figures


def class_scores(study: Study, arm: str, name: str) -> np.ndarray:
    """Return a score by class, (seeds, classes); NaN where it is missing."""
    runs = study.finished(arm)
    by_class = [run.scores.get("per_class", {}) for run in runs]
    values = [[scores.get(label, {}).get(name) for label in study.classes] for scores in by_class]
    # two dimensions even without runs
    return np.array(values, float).reshape(len(runs), len(study.classes))


def _dots(ax: "Axes", scores: dict[Side, np.ndarray], classes: list[str]) -> None:
    places = np.arange(len(classes))
    centres = [values.mean(axis=0) for values in scores.values()]
    for (side, values), centre in zip(scores.items(), centres, strict=True):
        size = 7.5 if side.name == "single" else 4.8  # if both agree, one dot forms a ring around the other
        ax.plot(centre, places, "o", color=side.colour, markersize=size, zorder=3, label=side.title)
        faint = {"color": side.colour, "markersize": 3, "alpha": 0.35, "zorder": 2, "markeredgewidth": 0}
        for line in values if len(values) > 1 else ():
            ax.plot(line, places, "o", **faint)
    if len(centres) == 2:
        ax.hlines(places, *centres, color=RULE, linewidth=2.5, zorder=1)
    ax.set_ylim(len(places) - 0.4, -0.6)
    named = slice(None, None, -(-len(classes) // _MOST_NAMED))  # leaves names out that would overlap
    ax.set_yticks(places[named], [shorten_name(spaced(label)) for label in classes[named]])
    ax.grid(axis="y", color=RULE, linewidth=0.5, alpha=0.6)
    ax.spines["left"].set_visible(False)
    ax.legend(
        frameon=False, fontsize=SMALL, loc="lower right", bbox_to_anchor=(1.02, 0.98), ncols=2, handletextpad=0.1,
        columnspacing=1, borderaxespad=0.3, labelcolor="linecolor",
    )  # fmt: skip


def draw_confusion(study: Study) -> "dict[str, Figure]":
    """Draw the confusion matrix of each arm, in per cent of each row."""
    names = [shorten_name(spaced(name)) for name in study.classes]
    height = max(0.36 * len(names) if len(names) <= MANY else 4.0, 1.4) + 1.1
    figures = {}
    for side, counts in _confusions(study):
        figures[f"confusion_{side.name}"], ax = one_panel(height, side.title, side.colour)
        _matrix(ax, counts, names, side.colour)
    return figures


def confusion_rows(study: Study) -> list[Row]:
    """Return the matrices: one row per arm, true and predicted class; without zeros if there are more than `MANY`."""
    return [
        {"arm": side.arm, "true": true, "predicted": named, "images": count}
        for side, counts in _confusions(study)
        for true, line in zip(study.classes, counts.tolist(), strict=True)
        for named, count in zip(study.classes, line, strict=True)
        if count or len(study.classes) <= MANY
    ]


def _confusions(study: Study) -> Iterator[tuple[Side, np.ndarray]]:
    """Yield each side's confusion matrix: images by true (rows) and predicted class, summed over finished seeds."""
    for side in drawn_sides(study, "class"):
        runs = study.finished(side.arm)
        if tables := [np.asarray(run.scores["confusion"]) for run in runs if run.scores.get("confusion")]:
            yield side, np.sum(tables, axis=0)


def _matrix(ax: "Axes", counts: np.ndarray, names: list[str], colour: str) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if len(names) <= MANY:
        _cells(ax, counts, shares, colour)
    else:  # as an image, because a thousand classes have a million cells
        from matplotlib.colors import to_rgb

        hue = np.broadcast_to(to_rgb(colour), (*counts.shape, 3))
        image = np.dstack((hue, 0.05 + 0.95 * shares))
        ax.imshow(image, interpolation="none", aspect="auto")
    ax.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    hide_axes(ax)
    ax.tick_params(length=0)
    if len(names) <= 4 * MANY:
        turn = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        # a few names of short words fit horizontally, one word per line; others are rotated
        words = [name.split() for name in names]
        fit = all(len(each) <= 3 and max(map(len, each), default=0) <= 12 for each in words)
        if fit and len(names) <= 6:
            ax.set_xticks(range(len(names)), ["\n".join(each) for each in words], color=MUTED)
        else:
            ax.set_xticks(range(len(names)), names, color=MUTED, **turn)
        ax.set_yticks(range(len(names)), names, color=MUTED)
    ax.set_xlabel("Predicted class")


def _cells(ax: "Axes", counts: np.ndarray, shares: np.ndarray, colour: str) -> None:
    from matplotlib.patches import Rectangle

    for row, column in np.ndindex(*counts.shape):
        share, corner = shares[row, column], (column - 0.47, row - 0.47)
        ax.add_patch(Rectangle(corner, 0.94, 0.94, color=colour, alpha=0.05 + 0.95 * share, linewidth=0))
        if counts[row, column]:
            # light numbers on dark cells
            ink = PAPER if share > 0.5 else INK
            ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=ink, fontsize=SMALL)


def draw_reliability(study: Study) -> "dict[str, Figure]":
    """Draw the reliability diagram of each arm: accuracy over the predicted class's probability, seeds pooled."""
    figures = {}
    for side in drawn_sides(study, "class"):
        if bins := [each for each in reliability_bins(study, side.arm) if each["images"]]:
            figures[f"reliability_{side.name}"] = _diagram(bins, side)
    return figures


def reliability_bins(study: Study, arm: str) -> list[dict[str, Any]]:
    """Return the bins of `scores.json`, pooled over finished seeds; empty without any."""
    runs = [run.scores["reliability"] for run in study.finished(arm) if run.scores.get("reliability")]
    return [_pool_bins(same) for same in zip(*runs, strict=True)]


def reliability_rows(study: Study) -> list[Row]:
    return [{"arm": arm} | each for arm in sides(study, "class") for each in reliability_bins(study, arm)]


def _pool_bins(same: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    filled = [each for each in same if each["images"]]
    # weighted by images, as if the images of all seeds had been sorted together
    weights = [each["images"] for each in filled]
    means = {
        name: float(np.average([each[name] for each in filled], weights=weights)) if filled else None
        for name in ("confidence", "accuracy")
    }
    return {**same[0], "images": sum(weights), **means}


def _diagram(bins: list[dict[str, Any]], side: Side) -> "Figure":
    images = np.array([each["images"] for each in bins], float)
    share, colour = images / images.sum(), side.colour
    confidence, accuracy = (
        100 * np.array([each[name] for each in bins], float) for name in ("confidence", "accuracy")
    )
    error = float((share * np.abs(confidence - accuracy)).sum())
    figure, ax = one_panel(3.6, side.title, colour, subtitle=f"calibration error {error:.1f} %")
    ax.plot([0, 100], [0, 100], color=RULE, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
    ax.vlines(confidence, confidence, accuracy, color=colour, alpha=0.35, linewidth=2)
    ax.scatter(confidence, accuracy, s=12 + 260 * share, color=colour, linewidth=0, zorder=3)
    ax.set(
        xlim=(-4, 104), ylim=(-4, 104), xlabel="Probability of the predicted class, %", ylabel="Accuracy, %"
    )
    return figure
