"""The fixed samples of the split that reports: as the model saw them, as each arm coloured them, as they are."""

from typing import TYPE_CHECKING

import numpy as np

from knowhue.report.arms import sides
from knowhue.report.palette import INK, MULTI, MUTED, SINGLE, SMALL, TEXT, bare, panels, say_empty
from knowhue.report.study import Run, Study, Table
from knowhue.report.text import spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = (("Grayscale", INK), ("Single-task", SINGLE), ("Multi-task", MULTI), ("Ground truth", INK))


def samples(study: Study) -> "Figure":
    """Draw the first sample image of each class: gray, single-task, multi-task, truth."""
    return _grid(study, 0)


def more_samples(study: Study) -> "Figure":
    """Draw the second sample image of each class in the same way."""
    return _grid(study, 1)


def has_second(study: Study) -> bool:
    """Whether some class has a second sample image."""
    labels = np.asarray(study.samples.get("label", ()))
    return len(np.unique(labels)) < len(labels)


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


def _grid(study: Study, nth: int) -> "Figure":
    """Draw the `nth` image of every class, one row each."""
    labels = [int(label) for label in study.samples.get("label", ())]
    places = [place for place, label in enumerate(labels) if labels[:place].count(label) == nth]
    figure, axes = panels(5.0, 1.36 * max(len(places), 1) + 0.25, rows=max(len(places), 1), columns=4)
    if not places:
        for ax in axes.flat:
            bare(ax)
        say_empty(axes[0, 0], "No sample images")
        return figure
    for row, place in zip(axes, places, strict=True):
        _row(row, study, place)
    for ax, (title, colour) in zip(axes[0], _COLUMNS, strict=True):
        ax.set_title(title, color=colour, fontsize=TEXT, fontweight="bold", pad=5)
    return figure


def _row(axes: np.ndarray, study: Study, place: int) -> None:
    index = int(study.samples["index"][place])
    single, multi = (study.shown(arm) for arm in sides(study, "colour"))
    images = (
        study.samples["gray"][place],
        _coloured(single, index),
        _coloured(multi, index),
        study.samples["truth"][place],
    )
    for ax, image in zip(axes, images, strict=True):
        if image is None:
            say_empty(ax, "not\ntrained")
            ax.set_box_aspect(1)
        else:
            ax.imshow(image, interpolation="none")
            bare(ax)
    truth = _truth(study, place)
    for ax, arm in zip(axes[1:3], sides(study, "class"), strict=True):
        _under(ax, truth, _prediction(study, study.shown(arm), index))
    axes[3].set_xlabel(spaced(truth), color=INK, fontsize=SMALL, labelpad=3)


def _under(ax: "Axes", truth: str, prediction: tuple[str | None, float | None]) -> None:
    """Write below an image what its arm takes it for; a cross marks a wrong class."""
    predicted, probability = prediction
    if predicted is not None:
        sure = "" if probability is None else f" {100 * probability:.0f} %"
        mark = "" if predicted == truth else "✗ "
        ax.set_xlabel(
            f"{mark}{spaced(predicted)}{sure}", color=MUTED if not mark else INK, fontsize=SMALL, labelpad=3
        )


def _coloured(run: Run | None, index: int) -> np.ndarray | None:
    place = _place(run, index)
    return None if place is None or run is None or "rgb" not in run.samples else run.samples["rgb"][place]


def _prediction(study: Study, run: Run | None, index: int) -> tuple[str | None, float | None]:
    place = _place(run, index)
    if place is None or run is None or "predicted" not in run.samples:
        return None, None
    probability = run.samples.get("probability")
    return (
        study.classes[int(run.samples["predicted"][place])],
        None
        if probability is None or not np.isfinite(probability[place])
        else round(float(probability[place]), 4),
    )


def _place(run: Run | None, index: int) -> int | None:
    """Return where a run's samples hold the image; samples are matched by image, not by place."""
    found = np.flatnonzero(run.samples.get("index", np.empty(0)) == index) if run is not None else np.empty(0)
    return int(found[0]) if len(found) else None


def _truth(study: Study, place: int) -> str:
    label = int(study.samples["label"][place])
    return study.classes[label] if 0 <= label < len(study.classes) else ""
