"""Any prediction, over any batches, to one row an image and scores; the baselines are predictions too."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from knowhue.color import lab_to_rgb
from knowhue.evaluation.features import FeatureNetwork, Features, Unavailable
from knowhue.evaluation.metrics import ImageRow, image_columns, score_rows, to_rows
from knowhue.evaluation.perceptual import LPIPS, Perceptual, describe
from knowhue.tensors import Batch, Prediction

Predict = Callable[[Batch], Prediction]
Critic = Callable[[Batch, Prediction], Tensor]


class Scored(NamedTuple):
    """One row an image, ordered by index, the metrics over all of them, and features by network.

    `features[name]` is (images, D) in the order of the rows. `perceptual` says what the perceptual column
    must be quoted with, or why it is not there.
    """

    rows: list[ImageRow]
    metrics: dict[str, float]
    features: dict[str, Features]
    perceptual: dict[str, dict[str, Any]]


def evaluate(
    predict: Predict,
    batches: Iterable[Batch],
    critic: Critic | None = None,
    gather: Callable[[list[Any]], list[Any]] = lambda rows: rows,
    full: bool = False,
    networks: Mapping[str, FeatureNetwork] | None = None,
    perceptual: Perceptual | Unavailable | None = None,
) -> Scored:
    """Score predictions.

    Args:
        predict: batch to prediction, at the size of the batch's images.
        batches: each image in exactly one, over all processes.
        critic: the discriminator's adversarial loss of each image, (B,).
        gather: joins what all processes have of each image.
        full: also what is too slow for every epoch, see `metrics.image_columns`.
        networks: what turns the colourings into features.
        perceptual: what compares each colouring with its true image, see `open_perceptual`.
    """
    rows: list[ImageRow] = []
    collected: dict[str, list[tuple[int, Features]]] = {name: [] for name in networks or {}}
    with torch.no_grad():
        for batch in batches:
            prediction, rgb = predict(batch), None
            if prediction.chroma is not None and (full or networks or isinstance(perceptual, Perceptual)):
                colouring = lab_to_rgb(batch.lightness, prediction.chroma)
                rgb = colouring, lab_to_rgb(batch.lightness, batch.chroma)
            columns = image_columns(batch, prediction, rgb if full else None)
            if critic is not None:
                columns["adversarial"] = critic(batch, prediction)
            if rgb is not None:
                if isinstance(perceptual, Perceptual):
                    columns[LPIPS] = perceptual.between(*rgb)
                for name, network in (networks or {}).items():
                    features = network.features(rgb[0]).cpu().numpy()
                    collected[name] += zip(batch.position.tolist(), features, strict=True)
            rows += to_rows(columns)
    # each process has its own images; scores are summed in one order, whatever their number
    rows = sorted(gather(rows), key=lambda row: row["index"])
    gathered = {name: sorted(gather(pairs), key=lambda pair: pair[0]) for name, pairs in collected.items()}
    features = {name: np.array([each for _, each in pairs]) for name, pairs in gathered.items() if pairs}
    return Scored(
        rows, score_rows(rows), features, describe(perceptual, rows) if perceptual is not None else {}
    )


def class_metrics(rows: Sequence[ImageRow], classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """The metrics of each class alone, and how many images it has."""
    table = {}
    for number, name in enumerate(classes):
        own = [row for row in rows if row["label"] == number]
        # of one class, balanced accuracy is accuracy by another name
        scores = {k: v for k, v in score_rows(own).items() if k != "balanced_accuracy"} if own else {}
        table[name] = {"images": len(own), **scores}
    return table


def predict_gray(batch: Batch) -> Prediction:
    """The baseline that leaves images gray."""
    return Prediction(torch.zeros_like(batch.chroma), None)


def predict_colour(colour: Tensor) -> Predict:
    """The baseline that paints everything in one colour: a*b*, (2,)."""
    return lambda batch: Prediction(colour.to(batch.chroma).reshape(1, 2, 1, 1).expand_as(batch.chroma), None)


def predict_class(shares: Sequence[float]) -> Predict:
    """The baseline that gives every image the same probabilities, and so the class that is most common.

    Args:
        shares: of each class in the training images, 0 to 1.
    """

    def predict(batch: Batch) -> Prediction:
        # a class that training lacks has a share of 0, and no logarithm
        logits = torch.tensor(shares, device=batch.label.device).clamp(min=1e-9).log()
        return Prediction(None, logits.expand(len(batch.label), -1))

    return predict
