"""Images as the models coloured them: the fixed samples of the split that reports, and the best and the worst ones."""

from typing import TYPE_CHECKING

import numpy as np

from knowhue.report.classes import drawn_sides
from knowhue.report.study import Run, Study, Table, sides
from knowhue.report.style import INK, MULTI, MUTED, SINGLE, SMALL, TEXT, panels, show_image
from knowhue.report.text import spaced

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = {"Grayscale": INK, "Single-task": SINGLE, "Multi-task": MULTI, "Ground truth": INK}


def draw_samples(study: Study) -> "dict[str, Figure]":
    """Draw the first, and where there is one the second sample image of each class: gray, both arms, truth."""
    labels = [int(label) for label in study.samples.get("label", ())]
    nth = [labels[:place].count(label) for place, label in enumerate(labels)]
    names = {0: "samples", 1: "more_samples"}
    places = {name: [place for place, each in enumerate(nth) if each == n] for n, name in names.items()}
    return {name: _grid(study, own) for name, own in places.items() if own}


def sample_table(study: Study) -> Table:
    """Return what was predicted for the sample images: one row per arm and image, the shown seed."""
    rows: Table = [["image", "true class", "arm", "seed", "predicted class", "probability"]]
    for arm in sides(study, "class"):
        run = study.shown(arm)
        for place, index in enumerate(study.samples.get("index", ())):
            predicted, probability = _prediction(study, run, int(index))
            if run is not None and predicted is not None:
                rows.append([int(index), _truth(study, place), arm, run.seed, predicted, probability])
    return rows


def _grid(study: Study, places: list[int]) -> "Figure":
    figure, axes = panels(5.0, 1.36 * len(places) + 0.25, rows=len(places), columns=4)
    for row, place in zip(axes, places, strict=True):
        _row(row, study, place)
    for ax, (title, colour) in zip(axes[0], _COLUMNS.items(), strict=True):
        ax.set_title(title, color=colour, fontsize=TEXT, fontweight="bold", pad=5)
    return figure


def _row(axes: np.ndarray, study: Study, place: int) -> None:
    index, truth = int(study.samples["index"][place]), _truth(study, place)
    show_image(axes[0], study.samples["gray"][place])
    colours, classes = sides(study, "colour"), sides(study, "class")
    for ax, colour_arm, class_arm in zip(axes[1:3], colours, classes, strict=True):
        predicted, probability = _prediction(study, study.shown(class_arm), index)
        mark = "" if predicted in (None, truth) else "✗ "
        sure = "" if probability is None else f" {100 * probability:.0f} %"
        below = "" if predicted is None else f"{mark}{spaced(predicted)}{sure}"
        colour = INK if mark else MUTED
        show_image(ax, _coloured(study.shown(colour_arm), index), below, colour, "not\ntrained")
    show_image(axes[3], study.samples["truth"][place], spaced(truth), INK)


def _coloured(run: Run | None, index: int) -> np.ndarray | None:
    place = _place(run, index)
    return None if place is None or run is None or "rgb" not in run.samples else run.samples["rgb"][place]


def _prediction(study: Study, run: Run | None, index: int) -> tuple[str | None, float | None]:
    place = _place(run, index)
    if place is None or run is None or "predicted" not in run.samples:
        return None, None
    probability = run.samples.get("probability")
    known = probability is not None and np.isfinite(probability[place])
    return (
        study.classes[int(run.samples["predicted"][place])],
        round(float(probability[place]), 4) if known else None,  # type: ignore[index]
    )


def _place(run: Run | None, index: int) -> int | None:
    """Return where a run's samples hold the image; samples are matched by image, not by place."""
    found = np.flatnonzero(run.samples.get("index", np.empty(0)) == index) if run is not None else np.empty(0)
    return int(found[0]) if len(found) else None


def _truth(study: Study, place: int) -> str:
    label = int(study.samples["label"][place])
    return study.classes[label] if 0 <= label < len(study.classes) else ""


def draw_extremes(study: Study) -> "dict[str, Figure]":
    """Draw each arm's best and worst colourings of the shown seed, by their error, above the true images."""
    figures = {}
    for side in drawn_sides(study, "colour"):
        run = study.shown(side.arm)
        errors = [] if run is None else np.asarray(run.extremes.get("ab_l1", ())).tolist()
        if run is None or not errors:
            continue
        figure, axes = panels(5.0, 5.0 / len(errors) * 2 + 0.7, rows=2, columns=len(errors))
        for column, error in enumerate(errors):
            show_image(axes[0, column], run.extremes["rgb"][column], f"{error:.1f}")
            show_image(axes[1, column], run.extremes["truth"][column])
        axes[0, 0].set_ylabel(side.title, color=side.colour, fontsize=TEXT, fontweight="bold")
        axes[1, 0].set_ylabel("Truth", color=MUTED, fontsize=SMALL)
        for place, title in ((0, "Best"), (len(errors) // 2, "Worst")):
            axes[0, place].set_title(title, loc="left", color=INK, fontsize=SMALL, fontweight="bold", pad=4)
        figures[f"extremes_{side.name}"] = figure
    return figures


def extremes_table(study: Study) -> Table:
    """Return every image's error of the shown seed, best first: one row per arm and image."""
    rows: Table = [["arm", "seed", "image", "label", "ab_l1"]]
    for arm in sides(study, "colour"):
        run = study.shown(arm)
        images = [row for row in run.images if row.get("ab_l1") is not None] if run else []
        for row in sorted(images, key=lambda row: row["ab_l1"]):
            rows.append([arm, study.shown_seed, row["path"], row["label"], row["ab_l1"]])
    return rows
