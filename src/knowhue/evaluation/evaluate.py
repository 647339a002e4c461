"""Evaluation of predictions: one row of scores per image, and metrics over all images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from knowhue.color import colourfulness, lab_to_rgb
from knowhue.evaluation.aggregation import ImageRow, score_rows
from knowhue.evaluation.features import LPIPS, Features, ImageNetwork, Unavailable, describe_lpips
from knowhue.evaluation.similarity import ciede2000, psnr, require_same_shape, ssim
from knowhue.tensors import RGB, Batch, Chroma, Prediction


def ab_l1(predicted: Chroma, true: Chroma) -> Tensor:
    """Mean absolute error of a*b* of each image, (B,), CIELAB units; a ValueError if the shapes differ."""
    require_same_shape(predicted, true)
    return (predicted.float() - true).abs().mean((1, 2, 3))


def ab_l1_vivid(predicted: Chroma, true: Chroma) -> Tensor:
    """`ab_l1` with pixels weighted by their true chroma, (B,), CIELAB units; 0 for a gray image.

    Unlike `ab_l1`, it does not reward desaturated colourings for gray pixels.
    """
    require_same_shape(predicted, true)
    weight = torch.hypot(*true.float().unbind(1))
    error = (predicted.float() - true).abs().mean(1)
    # clamped, because a gray image has no weights
    return (weight * error).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-6)


def mean_chroma(chroma: Chroma) -> Tensor:
    """Mean of C* = sqrt(a*^2 + b*^2) of each image, (B,), CIELAB units."""
    # `norm` over the channels takes 50 times as long
    return torch.hypot(*chroma.float().unbind(1)).mean((1, 2))


def image_columns(
    batch: Batch, prediction: Prediction, rgb: tuple[RGB, RGB] | None = None
) -> dict[str, Tensor]:
    """Scores of each image of a batch, as columns (B,), for a prediction at the size of the images.

    `rgb`, colourings and true images as sRGB clipped to the gamut, adds scores that are too slow for every epoch:
    CIEDE2000, PSNR, SSIM, colourfulness, and more.
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
            # of unclipped CIELAB
            columns["ciede2000"] = ciede2000(batch.lightness, prediction.chroma, batch.chroma)
            columns |= _rgb_columns(*rgb)
    if prediction.logits is not None:
        log_probability = prediction.logits.float().log_softmax(1)
        probability, predicted = log_probability.exp().max(1)
        columns["predicted"], columns["probability"] = predicted, probability
        columns["correct"] = (predicted == batch.label).int()
        # -1 is no valid index; `to_rows` removes the values of unlabelled images
        columns["cross_entropy"] = -log_probability.gather(1, batch.label.clamp_min(0)[:, None])[:, 0]
    return columns


def _rgb_columns(predicted: RGB, true: RGB) -> dict[str, Tensor]:
    # colourfulness is defined on codes of 0 to 255
    codes = 255 * predicted.double()
    return {
        "psnr_rgb": psnr(predicted, true),
        "ssim_rgb": ssim(predicted, true),
        "colourfulness": colourfulness(codes).float(),
        "colourfulness_true": colourfulness(255 * true.double()).float(),
        "colourfulness_absolute": colourfulness(codes, absolute=True).float(),
    }


def to_rows(columns: dict[str, Tensor]) -> list[ImageRow]:
    """Turn columns of a batch into one dict per image; values that need a label are None for unlabelled images."""
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


Predict = Callable[[Batch], Prediction]
Critic = Callable[[Batch, Prediction], Tensor]
"""Function that returns the discriminator's adversarial loss of each image, (B,)."""


class Scored(NamedTuple):
    """The result of an evaluation.

    `rows` has one dict per image, ordered by index; `metrics` are over all of them. `features[network]` is (images, D)
    in the order of the rows. `perceptual` holds the mean and provenance of LPIPS, or why it was not computed.
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
    networks: Mapping[str, ImageNetwork | Unavailable] | None = None,
) -> Scored:
    """Score the predictions for all images of some batches.

    Args:
        predict: function from a batch to a prediction at the size of its images.
        batches: each image in exactly one batch of one process.
        critic: the discriminator's adversarial loss.
        gather: concatenates the lists of all processes.
        full: whether to include scores that are too slow for every epoch, see `image_columns`.
        networks: networks that compute features of the colourings, and LPIPS.
    """
    rows: list[ImageRow] = []
    networks = networks or {}
    opened = {name: each for name, each in networks.items() if isinstance(each, ImageNetwork)}
    collected: dict[str, list[tuple[int, Features]]] = {name: [] for name in opened if name != "lpips"}
    with torch.no_grad():
        for batch in batches:
            prediction, rgb = predict(batch), None
            if prediction.chroma is not None and (full or opened):
                colouring = lab_to_rgb(batch.lightness, prediction.chroma)
                rgb = colouring, lab_to_rgb(batch.lightness, batch.chroma)
            columns = image_columns(batch, prediction, rgb if full else None)
            if critic is not None:
                columns["adversarial"] = critic(batch, prediction)
            if rgb is not None:
                if "lpips" in opened:
                    columns[LPIPS] = opened["lpips"].compute(*rgb)
                for name, pairs in collected.items():
                    features = opened[name].compute(rgb[0]).cpu().numpy()
                    pairs.extend(zip(batch.position.tolist(), features, strict=True))
            rows += to_rows(columns)
    # sorted, so that sums do not depend on the number of processes
    rows = sorted(gather(rows), key=lambda row: row["index"])
    gathered = {name: sorted(gather(pairs), key=lambda pair: pair[0]) for name, pairs in collected.items()}
    features = {name: np.array([row for _, row in pairs]) for name, pairs in gathered.items() if pairs}
    perceptual = describe_lpips(networks["lpips"], rows) if "lpips" in networks else {}
    return Scored(rows, score_rows(rows), features, perceptual)


def predict_gray(batch: Batch) -> Prediction:
    return Prediction(torch.zeros_like(batch.chroma), None)


def predict_colour(colour: Tensor) -> Predict:
    """Return the baseline that predicts one colour, a*b* (2,), everywhere."""
    return lambda batch: Prediction(colour.to(batch.chroma).reshape(1, 2, 1, 1).expand_as(batch.chroma), None)


def predict_class(shares: Sequence[float]) -> Predict:
    """Return the baseline that predicts the classes' shares of the training images as probabilities."""

    def predict(batch: Batch) -> Prediction:
        # clamped, because a class without training images has share 0
        logits = torch.tensor(shares, device=batch.label.device).clamp(min=1e-9).log()
        return Prediction(None, logits.expand(len(batch.label), -1))

    return predict
