"""Any prediction, over any batches, to one row an image."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from knowhue.color import colourfulness, lab_to_rgb
from knowhue.evaluation.aggregation import ImageRow, score_rows
from knowhue.evaluation.features import LPIPS, Features, ImageNetwork, Unavailable, describe
from knowhue.evaluation.similarity import ciede2000, psnr, require_same_shape, ssim
from knowhue.tensors import RGB, Batch, Chroma, Prediction


def ab_l1(predicted: Chroma, true: Chroma) -> Tensor:
    """Mean absolute error of a*b* of each image, (B,), CIELAB units; nothing is broadcast."""
    require_same_shape(predicted, true)
    return (predicted.float() - true).abs().mean((1, 2, 3))


def ab_l1_vivid(predicted: Chroma, true: Chroma) -> Tensor:
    """`ab_l1` with every pixel weighed by its true chroma, (B,), CIELAB units: what is gray counts for nothing.

    A timid colouring pays here what it saves on gray pixels. Of an image without any colour it is 0.
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
    """What is known of each image of a batch, (B,) a column, by a prediction at their size.

    With `rgb`, colourings and true images clipped to the gamut, also what is too slow for every epoch: CIEDE2000, PSNR,
    SSIM, colourfulness.
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
    networks: Mapping[str, ImageNetwork | Unavailable] | None = None,
) -> Scored:
    """Score predictions.

    Args:
        predict: batch to prediction, at the size of the batch's images.
        batches: each image in exactly one, over all processes.
        critic: the discriminator's adversarial loss of each image, (B,).
        gather: joins what all processes have of each image.
        full: also what is too slow for every epoch, see `image_columns`.
        networks: what turns the colourings into features, or as LPIPS compares each with its true image.
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
                    columns[LPIPS] = opened["lpips"].ask(*rgb)
                for name, pairs in collected.items():
                    features = opened[name].ask(rgb[0]).cpu().numpy()
                    pairs.extend(zip(batch.position.tolist(), features, strict=True))
            rows += to_rows(columns)
    # each process has its own images; scores are summed in one order, whatever their number
    rows = sorted(gather(rows), key=lambda row: row["index"])
    gathered = {name: sorted(gather(pairs), key=lambda pair: pair[0]) for name, pairs in collected.items()}
    features = {name: np.array([each for _, each in pairs]) for name, pairs in gathered.items() if pairs}
    about = describe(networks["lpips"], rows) if "lpips" in networks else {}
    return Scored(rows, score_rows(rows), features, about)


def predict_gray(batch: Batch) -> Prediction:
    return Prediction(torch.zeros_like(batch.chroma), None)


def predict_colour(colour: Tensor) -> Predict:
    """The baseline that paints everything in one colour: a*b*, (2,)."""
    return lambda batch: Prediction(colour.to(batch.chroma).reshape(1, 2, 1, 1).expand_as(batch.chroma), None)


def predict_class(shares: Sequence[float]) -> Predict:
    """The baseline that gives every image each class's share of the training images as its probability."""

    def predict(batch: Batch) -> Prediction:
        # a class that training lacks has a share of 0, and no logarithm
        logits = torch.tensor(shares, device=batch.label.device).clamp(min=1e-9).log()
        return Prediction(None, logits.expand(len(batch.label), -1))

    return predict
