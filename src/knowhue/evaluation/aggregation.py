"""Aggregation of per-image rows to the scores of `RUN_METRICS`; needs no torch, so that sealed studies check fast."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from knowhue.evaluation.calibration import calibration_error
from knowhue.metric_table import METRICS, RUN_COLUMNS

ImageRow = dict[str, Any]


def column_mean(rows: Sequence[ImageRow], column: str) -> float:
    """Mean of a column over the images that have a value; NaN if none has."""
    values = list(map(itemgetter(column), rows)) if rows and column in rows[0] else ()
    if None in values:
        values = [value for value in values if value is not None]
    return float(np.mean(values)) if values else float("nan")


def balanced(rows: Sequence[ImageRow], column: str) -> float:
    """Mean of a column over the images of each class, averaged over the classes.

    >>> balanced([{"label": 0, "x": 1}, {"label": 0, "x": 1}, {"label": 1, "x": 0}], "x")
    0.5
    """
    means = [column_mean(class_rows, column) for class_rows in by_class(rows).values()]
    return float(np.mean(means)) if means else float("nan")


def by_class(rows: Sequence[ImageRow]) -> Mapping[int, Sequence[ImageRow]]:
    """Group the labelled rows by label, in ascending order of the labels."""
    groups: dict[int, list[ImageRow]] = defaultdict(list)
    for row in rows:
        if row["label"] >= 0:
            groups[row["label"]].append(row)
    return dict(sorted(groups.items()))


def _ratio_of_means(rows: Sequence[ImageRow], column: str) -> float:
    return column_mean(rows, column) / max(column_mean(rows, f"{column}_true"), 1e-9)


def _difference_of_means(rows: Sequence[ImageRow], column: str) -> float:
    return abs(column_mean(rows, column) - column_mean(rows, f"{column}_true"))


def _mean_difference(rows: Sequence[ImageRow], column: str) -> float:
    return float(np.mean([abs(row[column] - row[f"{column}_true"]) for row in rows]))


OF_SETS: dict[str, Callable[[Sequence[ImageRow], str], float]] = {
    "chroma_ratio": _ratio_of_means,
    "colourfulness_difference_of_means": _difference_of_means,
    "mean_colourfulness_difference": _mean_difference,
    "ece": lambda rows, _: calibration_error(rows),
}
"""Formulas, of the rows and the metric's column, for metrics that are not a mean over images or classes."""


def score_rows(rows: Sequence[ImageRow]) -> dict[str, float]:
    """All metrics whose columns the rows have."""
    columns = rows[0] if rows else {}
    means = {"images": column_mean, "classes": balanced}
    return {
        name: (means.get(METRICS[name].over) or OF_SETS[name])(rows, column)
        for name, column in RUN_COLUMNS.items()
        if column in columns
    }


def class_metrics(rows: Sequence[ImageRow], classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """The number of images of each class, and all metrics over them."""
    table, groups = {}, by_class(rows)
    for label, name in enumerate(classes):
        class_rows = groups.get(label, ())
        scores = score_rows(class_rows)
        scores.pop("balanced_accuracy", None)  # equal to the accuracy within a class
        table[name] = {"images": len(class_rows), **scores}
    return table
