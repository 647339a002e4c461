"""What is measured of each image, and how the scores of RUN_METRICS are made of it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from knowhue.color import colourfulness
from knowhue.evaluation.calibration import calibration_error
from knowhue.evaluation.similarity import ciede2000, psnr, require_same_shape, ssim
from knowhue.metric_table import METRICS, RUN_COLUMNS
from knowhue.tensors import RGB, Batch, Chroma, Prediction

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
    labels = sorted({row["label"] for row in rows if row["label"] >= 0})
    means = [column_mean([row for row in rows if row["label"] == label], column) for label in labels]
    return float(np.mean(means)) if means else float("nan")


def ratio(rows: Sequence[ImageRow], column: str) -> float:
    """Mean of a column over the mean of its truth."""
    return column_mean(rows, column) / max(column_mean(rows, f"{column}_true"), 1e-9)


def difference_of_means(rows: Sequence[ImageRow], column: str) -> float:
    """Absolute difference between the mean of a column and the mean of its truth."""
    return abs(column_mean(rows, column) - column_mean(rows, f"{column}_true"))


def mean_difference(rows: Sequence[ImageRow], column: str) -> float:
    """Mean over the images of the absolute difference between a column and its truth."""
    return float(np.mean([abs(row[column] - row[f"{column}_true"]) for row in rows]))


OF_SETS: dict[str, Callable[[Sequence[ImageRow], str], float]] = {
    "chroma_ratio": ratio,
    "colourfulness_difference_of_means": difference_of_means,
    "mean_colourfulness_difference": mean_difference,
    "ece": lambda rows, _: calibration_error(rows),
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


def ab_l1(predicted: Chroma, true: Chroma) -> Tensor:
    """Mean absolute error of a*b* of each image, (B,), CIELAB units.

    Raises:
        ValueError: the shapes differ (nothing is broadcast).
    """
    require_same_shape(predicted, true)
    return (predicted.float() - true).abs().mean((1, 2, 3))


def ab_l1_vivid(predicted: Chroma, true: Chroma) -> Tensor:
    """`ab_l1` with every pixel weighed by its true chroma, (B,), CIELAB units: what is gray counts for nothing.

    A timid colouring pays here what it saves on gray pixels. Of an image without any colour it is 0.

    Raises:
        ValueError: the shapes differ (nothing is broadcast).
    """
    require_same_shape(predicted, true)
    weight = torch.hypot(*true.float().unbind(1))
    error = (predicted.float() - true).abs().mean(1)
    # an image of 0 everywhere has no weights, and 0 over anything is 0
    return (weight * error).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-6)


def mean_chroma(chroma: Chroma) -> Tensor:
    """Mean of C* = sqrt(a*^2 + b*^2) of each image, (B,), CIELAB units: how vivid it is."""
    # `norm` over channels takes 50 times as long
    return torch.hypot(*chroma.float().unbind(1)).mean((1, 2))


def image_columns(
    batch: Batch, prediction: Prediction, rgb: tuple[RGB, RGB] | None = None
) -> dict[str, Tensor]:
    """What is known of each image of a batch, (B,) a column.

    Args:
        batch: the images.
        prediction: at their size.
        rgb: colourings and true images in RGB, clipped to the gamut; with them also what is too slow for every epoch:
            CIEDE2000, PSNR, SSIM, colourfulness.
    """
    columns = {"index": batch.position, "label": batch.label}
    if prediction.chroma is not None:
        columns["ab_l1"] = ab_l1(prediction.chroma, batch.chroma)
        columns["chroma"] = mean_chroma(prediction.chroma)
        columns["chroma_true"] = mean_chroma(batch.chroma)
        if rgb is not None:
            columns["ab_l1_vivid"] = ab_l1_vivid(prediction.chroma, batch.chroma)
            for suffix, chroma in {"": prediction.chroma, "_true": batch.chroma}.items():
                columns[f"mean_a{suffix}"], columns[f"mean_b{suffix}"] = chroma.float().mean((2, 3)).unbind(1)
            # of CIELAB as predicted, in gamut or not
            columns["ciede2000"] = ciede2000(batch.lightness, prediction.chroma, batch.chroma)
            columns |= _rgb_columns(*rgb)
    if prediction.logits is not None:
        log_probability = prediction.logits.float().log_softmax(1)
        probability, predicted = log_probability.exp().max(1)
        columns["predicted"], columns["probability"] = predicted, probability
        columns["correct"] = (predicted == batch.label).int()
        # -1 is no index; `to_rows` takes the value of an unlabelled image out again
        columns["cross_entropy"] = -log_probability.gather(1, batch.label.clamp_min(0)[:, None])[:, 0]
    return columns


def _rgb_columns(predicted: RGB, true: RGB) -> dict[str, Tensor]:
    # Hasler and Suesstrunk's constants are for codes of 0 to 255
    codes = 255 * predicted.double()
    return {
        "psnr_rgb": psnr(predicted, true),
        "ssim_rgb": ssim(predicted, true),
        "colourfulness": colourfulness(codes).float(),
        "colourfulness_true": colourfulness(255 * true.double()).float(),
        "colourfulness_absolute": colourfulness(codes, absolute=True).float(),
    }


def to_rows(columns: dict[str, Tensor]) -> list[ImageRow]:
    """Columns of a batch to one dict an image; what needs a label is None where there is none."""
    values = {name: column.tolist() for name, column in columns.items()}
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    for row in rows:
        if row["label"] < 0:
            row.update({name: None for name in ("correct", "cross_entropy") if name in row})
    return rows


def confusion_matrix(rows: Sequence[ImageRow], classes: int) -> list[list[int]]:
    """Counts by true class (rows) and predicted class (columns)."""
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    for row in rows:
        if row["label"] >= 0:
            matrix[row["label"], row["predicted"]] += 1
    return matrix.tolist()
