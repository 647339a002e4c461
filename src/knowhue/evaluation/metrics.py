"""What is measured: one table of metrics, each from columns that hold one value a picture."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from knowhue.config import Task
from knowhue.tensors import Batch, Chroma, Prediction

Row = dict[str, Any]


class Metric(NamedTuple):
    """A score over a set of pictures.

    `over_set` makes it of the pictures' rows; `column` is what it reads of them.
    """

    title: str
    unit: str
    better: Literal["lower", "higher", "neither"]
    task: Task
    column: str
    over_set: Callable[[Sequence[Row], str], float]


def mean(rows: Sequence[Row], column: str) -> float:
    """The plain mean of a column over the pictures that have it."""
    values = [row[column] for row in rows if row.get(column) is not None]
    return float(np.mean(values)) if values else float("nan")


def balanced(rows: Sequence[Row], column: str) -> float:
    """Mean over the classes of a column's mean, so that each class counts alike.

    >>> balanced([{"label": 0, "x": 1}, {"label": 0, "x": 1}, {"label": 1, "x": 0}], "x")
    0.5
    """
    labels = sorted({row["label"] for row in rows if row["label"] >= 0})
    return float(np.mean([mean([row for row in rows if row["label"] == label], column) for label in labels]))


METRICS: dict[str, Metric] = {
    "ab_l1": Metric("Mean absolute error of a*b*", "CIELAB units", "lower", "colour", "ab_l1", mean),
    "adversarial": Metric(
        "Generator's adversarial loss, own discriminator", "loss", "neither", "colour", "adversarial", mean
    ),
    "chroma_ratio": Metric(
        "Mean chroma, predicted over true",
        "ratio, 1 is as vivid",
        "neither",
        "colour",
        "",
        lambda rows, _: _ratio(rows),
    ),
    "accuracy": Metric("Accuracy", "share", "higher", "class", "correct", mean),
    "balanced_accuracy": Metric("Balanced accuracy", "share", "higher", "class", "correct", balanced),
    "cross_entropy": Metric("Cross-entropy", "nats", "lower", "class", "cross_entropy", mean),
}


def score_rows(rows: Sequence[Row]) -> dict[str, float]:
    """Every metric whose columns the rows have."""
    columns = set(rows[0]) if rows else set()
    needed = {name: metric.column or "chroma_predicted" for name, metric in METRICS.items()}
    return {
        name: METRICS[name].over_set(rows, METRICS[name].column)
        for name in METRICS
        if needed[name] in columns
    }


def ab_l1(predicted: Chroma, true: Chroma) -> Tensor:
    """Mean absolute error of a*b* of each picture, (B,), CIELAB units.

    Raises:
        ValueError: the shapes differ (nothing is broadcast).
    """
    if predicted.shape != true.shape:
        raise ValueError(
            f"`predicted` should be of the shape of `true`, {tuple(true.shape)}. Found {tuple(predicted.shape)}."
        )
    return (predicted.float() - true).abs().mean((1, 2, 3))


def mean_chroma(chroma: Chroma) -> Tensor:
    """Mean of C* = sqrt(a*^2 + b*^2) of each picture, (B,), CIELAB units: how vivid it is."""
    return chroma.float().norm(dim=1).mean((1, 2))


def picture_columns(batch: Batch, prediction: Prediction) -> dict[str, Tensor]:
    """What is known of each picture of a batch, (B,) a column."""
    columns = {"index": batch.position, "label": batch.label}
    if prediction.chroma is not None:
        columns["ab_l1"] = ab_l1(prediction.chroma, batch.chroma)
        columns["chroma_predicted"] = mean_chroma(prediction.chroma)
        columns["chroma_true"] = mean_chroma(batch.chroma)
    if prediction.logits is not None:
        log_probability = prediction.logits.float().log_softmax(1)
        probability, predicted = log_probability.exp().max(1)
        columns |= {
            "predicted": predicted,
            "probability": probability,
            "correct": (predicted == batch.label).int(),
        }
        columns["cross_entropy"] = -log_probability.gather(1, batch.label.clamp_min(0)[:, None])[:, 0]
    return columns


def to_rows(columns: dict[str, Tensor]) -> list[Row]:
    """Columns of a batch to one dict a picture; what needs a label is None where there is none."""
    values = {name: column.tolist() for name, column in columns.items()}
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    for row in rows:
        if row["label"] < 0:
            row.update({name: None for name in ("correct", "cross_entropy") if name in row})
    return rows


def confusion(rows: Sequence[Row], classes: int) -> list[list[int]]:
    """Counts by true class (rows) and predicted class (columns)."""
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    for row in rows:
        if row["label"] >= 0:
            matrix[row["label"], row["predicted"]] += 1
    return matrix.tolist()


def _ratio(rows: Sequence[Row]) -> float:
    return mean(rows, "chroma_predicted") / max(mean(rows, "chroma_true"), 1e-9)
