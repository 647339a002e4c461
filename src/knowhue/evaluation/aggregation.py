"""Scores of `RUN_METRICS`, made of one row an image; needs no torch, so that a sealed study is soon checked."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from knowhue.evaluation.calibration import calibration_error
from knowhue.metric_table import METRICS, RUN_COLUMNS

ImageRow = dict[str, Any]


def column_mean(rows: Sequence[ImageRow], column: str) -> float:
    """The plain mean of a column over the images that have it; NaN where none has."""
    values = [row[column] for row in rows if row.get(column) is not None]
    return float(np.mean(values)) if values else float("nan")


def balanced(rows: Sequence[ImageRow], column: str) -> float:
    """Mean over the classes of a column's mean, so that each class counts alike.

    >>> balanced([{"label": 0, "x": 1}, {"label": 0, "x": 1}, {"label": 1, "x": 0}], "x")
    0.5
    """
    means = [column_mean(own, column) for own in by_class(rows).values()]
    return float(np.mean(means)) if means else float("nan")


def by_class(rows: Sequence[ImageRow]) -> Mapping[int, Sequence[ImageRow]]:
    """Sort the labelled rows by their class, ascending, in one pass however many classes there are."""
    found: dict[int, list[ImageRow]] = defaultdict(list)
    for row in rows:
        if row["label"] >= 0:
            found[row["label"]].append(row)
    return dict(sorted(found.items()))


def _ratio_of_means(rows: Sequence[ImageRow], column: str) -> float:
    return column_mean(rows, column) / max(column_mean(rows, f"{column}_true"), 1e-9)


def _difference_of_means(rows: Sequence[ImageRow], column: str) -> float:
    return abs(column_mean(rows, column) - column_mean(rows, f"{column}_true"))


def _mean_difference(rows: Sequence[ImageRow], column: str) -> float:
    return float(np.mean([abs(row[column] - row[f"{column}_true"]) for row in rows]))


def _calibration_error(rows: Sequence[ImageRow], _: str) -> float:
    return calibration_error(rows)


OF_SETS: dict[str, Callable[[Sequence[ImageRow], str], float]] = {
    "chroma_ratio": _ratio_of_means,
    "colourfulness_difference_of_means": _difference_of_means,
    "mean_colourfulness_difference": _mean_difference,
    "ece": _calibration_error,
}
"""The metrics of `RUN_METRICS` that are no mean over images or classes: made of the images' rows and their column."""


def score_rows(rows: Sequence[ImageRow]) -> dict[str, float]:
    """Every metric whose columns the rows have."""
    columns = rows[0] if rows else {}
    means = {"images": column_mean, "classes": balanced}
    return {
        name: (means.get(METRICS[name].over) or OF_SETS[name])(rows, column)
        for name, column in RUN_COLUMNS.items()
        if column in columns
    }


def class_metrics(rows: Sequence[ImageRow], classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """The metrics of each class alone, and how many images it has."""
    table, found = {}, by_class(rows)
    for number, name in enumerate(classes):
        own = found.get(number, ())
        # of one class, balanced accuracy is accuracy by another name
        scores = {k: v for k, v in score_rows(own).items() if k != "balanced_accuracy"} if own else {}
        table[name] = {"images": len(own), **scores}
    return table
