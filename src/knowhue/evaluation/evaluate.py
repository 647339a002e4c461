"""Any way to predict, over any batches, to one row a picture and scores; baselines are just other ways."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from knowhue.evaluation.metrics import Row, confusion, picture_columns, score_rows, to_rows
from knowhue.tensors import Batch, Prediction

Predict = Callable[[Batch], Prediction]
Critic = Callable[[Batch, Prediction], Tensor]


class Evaluation(NamedTuple):
    """One row a picture, ordered by index, and the metrics over all of them."""

    rows: list[Row]
    metrics: dict[str, float]


def evaluate(
    predict: Predict,
    batches: Iterable[Batch],
    critic: Critic | None = None,
    gather: Callable[[list[Row]], list[Row]] = lambda rows: rows,
    full: bool = False,
) -> Evaluation:
    """Score predictions.

    Args:
        predict: batch to prediction, at the size of the batch's pictures.
        batches: each picture in exactly one, over all processes.
        critic: the discriminator's adversarial loss of each picture, (B,).
        gather: joins the rows of all processes.
        full: also what is too slow for every epoch, see `picture_columns`.
    """
    rows: list[Row] = []
    with torch.no_grad():
        for batch in batches:
            prediction = predict(batch)
            columns = picture_columns(batch, prediction, full)
            if critic is not None:
                columns["adversarial"] = critic(batch, prediction)
            rows += to_rows(columns)
    rows = sorted(gather(rows), key=lambda row: row["index"])
    return Evaluation(rows, score_rows(rows))


def per_class(rows: Sequence[Row], classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """The metrics of each class alone, and how many pictures it has."""
    table = {}
    for number, name in enumerate(classes):
        own = [row for row in rows if row["label"] == number]
        scores = {k: v for k, v in score_rows(own).items() if k != "balanced_accuracy"} if own else {}
        table[name] = {"pictures": len(own), **scores}
    return table


def predict_gray(batch: Batch) -> Prediction:
    """The baseline that leaves pictures gray."""
    return Prediction(torch.zeros_like(batch.chroma), None)


def predict_colour(colour: Tensor) -> Predict:
    """The baseline that paints everything in one colour: a*b*, (2,)."""
    return lambda batch: Prediction(colour.to(batch.chroma).reshape(1, 2, 1, 1).expand_as(batch.chroma), None)


def predict_class(label: int, classes: int) -> Predict:
    """The baseline that always gives the same class."""

    def predict(batch: Batch) -> Prediction:
        logits = torch.full((len(batch.label), classes), -20.0, device=batch.label.device)
        logits[:, label] = 0.0
        return Prediction(None, logits)

    return predict


__all__ = [
    "Evaluation",
    "confusion",
    "evaluate",
    "per_class",
    "predict_class",
    "predict_colour",
    "predict_gray",
]
