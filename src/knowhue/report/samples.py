"""Images as the models coloured them: the fixed samples of the split that reports, and the best and the worst ones."""

from typing import TYPE_CHECKING

import numpy as np

from knowhue.report.classes import drawn_sides
from knowhue.report.study import Run, Study, sides
from knowhue.report.style import INK, MULTI, MUTED, SINGLE, SMALL, TEXT, Tile, image_grid
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


def _grid(study: Study, places: list[int]) -> "Figure":
    rows = [_row(study, place) for place in places]
    return image_grid(5.0, rows, dict(enumerate(_COLUMNS.items())), fontsize=TEXT, fontweight="bold")


def _row(study: Study, place: int) -> list[Tile]:
    index, truth = int(study.samples["index"][place]), _truth(study, place)
    tiles = [Tile(study.samples["gray"][place])]
    for colour_arm, class_arm in zip(sides(study, "colour"), sides(study, "class"), strict=True):
        named, mark, below = _sample(study.shown(class_arm), index), "", ""
        if "predicted" in named:
            predicted = study.classes[int(named["predicted"])]
            mark = "" if predicted == truth else "✗ "
            sure = round(float(named.get("probability", np.nan)), 4)
            below = f"{mark}{spaced(predicted)}" + (f" {100 * sure:.0f} %" if np.isfinite(sure) else "")
        image = _sample(study.shown(colour_arm), index).get("rgb")
        tiles.append(Tile(image, below, INK if mark else MUTED, "not\ntrained"))
    return [*tiles, Tile(study.samples["truth"][place], spaced(truth), INK)]


def _sample(run: Run | None, index: int) -> dict[str, np.ndarray]:
    """Return what a run's samples hold of an image; they are matched by image, not by place."""
    samples = {} if run is None else run.samples
    found = np.flatnonzero(samples.get("index", np.empty(0)) == index)
    known = [name for name in ("rgb", "predicted", "probability") if name in samples and len(found)]
    return {name: samples[name][found[0]] for name in known}


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
        rows = (
            [Tile(image, f"{error:.1f}") for image, error in zip(run.extremes["rgb"], errors, strict=True)],
            [Tile(image) for image in run.extremes["truth"]],
        )
        titles = {0: ("Best", INK), len(errors) // 2: ("Worst", INK)}
        names = ((side.title, side.colour), ("Truth", MUTED))
        style = {"ha": "left", "fontsize": SMALL, "fontweight": "bold"}
        figures[f"extremes_{side.name}"] = image_grid(5.0, rows, titles, names, **style)
    return figures
