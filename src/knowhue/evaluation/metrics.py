"""METRICS: what is measured, each from columns that hold one value an image."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from knowhue.color import colourfulness
from knowhue.config import Task
from knowhue.evaluation.calibration import calibration_error
from knowhue.tensors import RGB, Batch, Chroma, Lightness, Prediction

ImageRow = dict[str, Any]


def column_mean(rows: Sequence[ImageRow], column: str) -> float:
    """The plain mean of a column over the images that have it; NaN where none has."""
    values = [row[column] for row in rows if row.get(column) is not None]
    return float(np.mean(values)) if values else float("nan")


class Metric(NamedTuple):
    """A score over a set of images.

    `over_set` makes it of the images' rows; `column` is what it reads of them, and where it compares
    with the true images, `<column>_true` too.
    """

    title: str
    unit: str
    better: Literal["lower", "higher", "neither"]
    task: Task
    column: str
    over_set: Callable[[Sequence[ImageRow], str], float] = column_mean


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


METRICS: dict[str, Metric] = {
    "ab_l1": Metric("Mean absolute error of a*b*", "CIELAB units", "lower", "colour", "ab_l1"),
    "ab_l1_vivid": Metric(
        "Error of a*b*, pixels weighed by their true chroma", "CIELAB units", "lower", "colour", "ab_l1_vivid"
    ),
    "ciede2000": Metric("CIEDE2000", "CIEDE2000 units", "lower", "colour", "ciede2000"),
    "psnr_rgb": Metric("PSNR of RGB (L* is given)", "dB", "higher", "colour", "psnr_rgb"),
    "ssim_rgb": Metric("SSIM of RGB (L* is given)", "-1 to 1", "higher", "colour", "ssim_rgb"),
    "lpips_alex": Metric("LPIPS, AlexNet", "0 is equal", "lower", "colour", "lpips_alex"),
    "adversarial": Metric(
        "Generator's adversarial loss, own discriminator", "loss", "neither", "colour", "adversarial"
    ),
    "chroma_ratio": Metric(
        "Mean chroma, predicted over true", "ratio, 1 is as vivid", "neither", "colour", "chroma", ratio
    ),
    "mean_a": Metric("Mean a*, green to red", "CIELAB units", "neither", "colour", "mean_a"),
    "mean_b": Metric("Mean b*, blue to yellow", "CIELAB units", "neither", "colour", "mean_b"),
    "colourfulness": Metric(
        "Colourfulness (signed, as Hasler and Süsstrunk)", "M3", "neither", "colour", "colourfulness"
    ),
    "colourfulness_absolute": Metric(
        "Colourfulness (absolute convention)", "M3", "neither", "colour", "colourfulness_absolute"
    ),
    "colourfulness_difference_of_means": Metric(
        "Difference of the mean colourfulness", "M3", "lower", "colour", "colourfulness", difference_of_means
    ),
    "mean_colourfulness_difference": Metric(
        "Mean difference of colourfulness", "M3", "lower", "colour", "colourfulness", mean_difference
    ),
    "accuracy": Metric("Accuracy", "share", "higher", "class", "correct"),
    "balanced_accuracy": Metric("Balanced accuracy", "share", "higher", "class", "correct", balanced),
    "cross_entropy": Metric("Cross-entropy", "nats", "lower", "class", "cross_entropy"),
    "ece": Metric(
        "Expected calibration error, 15 bins", "share", "lower", "class", "probability",
        lambda rows, _: calibration_error(rows),
    ),
}  # fmt: skip


def score_rows(rows: Sequence[ImageRow]) -> dict[str, float]:
    """Every metric whose columns the rows have."""
    columns = rows[0] if rows else {}
    return {
        name: each.over_set(rows, each.column) for name, each in METRICS.items() if each.column in columns
    }


def ab_l1(predicted: Chroma, true: Chroma) -> Tensor:
    """Mean absolute error of a*b* of each image, (B,), CIELAB units.

    Raises:
        ValueError: the shapes differ (nothing is broadcast).
    """
    _same_shape(predicted, true)
    return (predicted.float() - true).abs().mean((1, 2, 3))


def ab_l1_vivid(predicted: Chroma, true: Chroma) -> Tensor:
    """`ab_l1` with every pixel weighed by its true chroma, (B,), CIELAB units: what is gray counts for nothing.

    A timid colouring pays here what it saves on gray pixels. Of an image without any colour it is 0.

    Raises:
        ValueError: the shapes differ (nothing is broadcast).
    """
    _same_shape(predicted, true)
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


_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03  # as the paper sets them


def ciede2000(lightness: Lightness, predicted: Chroma, true: Chroma) -> Tensor:
    """Mean CIEDE2000 (Sharma, Wu and Dalal 2005) of each image between two chromas on one lightness.

    On one lightness the term of L* is 0; the others are theirs, in float32.

    Args:
        lightness: L* (B, 1, H, W), 0 to 100, of both.
        predicted: a*b* (B, 2, H, W).
        true: a*b* (B, 2, H, W).

    Returns:
        (B,), CIEDE2000 units; about 1 is just noticeable side by side.

    Raises:
        ValueError: the shapes differ (nothing is broadcast).

    >>> gray, red = torch.zeros(1, 2, 1, 1), torch.tensor([2.5, 0.0]).reshape(1, 2, 1, 1)
    >>> round(ciede2000(torch.full((1, 1, 1, 1), 50.0), red, gray).item(), 2)
    3.46
    """
    _same_shape(predicted, true)
    if lightness.shape != true[:, :1].shape:
        raise ValueError(
            f"`lightness` should be of the size of `true`, {tuple(true.shape)}. Found {tuple(lightness.shape)}."
        )
    (a1, b1), (a2, b2) = predicted.float().unbind(1), true.float().unbind(1)
    stretch = 1.5 - 0.5 * _saturation((torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2)
    a1, a2 = a1 * stretch, a2 * stretch
    chroma1, chroma2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    middle = (chroma1 + chroma2) / 2
    across = a1 * b2 - b1 * a2
    # from -pi to pi; of opposite hues, whose turn is as long either way, the one that does not pass 0
    turn = torch.atan2(torch.where(across == 0, across.copysign(b1), across), a1 * a2 + b1 * b2)
    hue = torch.atan2(b1, a1) + turn / 2
    hue_weight = (
        1
        - 0.17 * (hue - math.radians(30)).cos()
        + 0.24 * (2 * hue).cos()
        + 0.32 * (3 * hue + math.radians(6)).cos()
        - 0.20 * (4 * hue - math.radians(63)).cos()
    )
    chroma_term = (chroma2 - chroma1) / (1 + 0.045 * middle)
    hue_term = 2 * (chroma1 * chroma2).sqrt() * (turn / 2).sin() / (1 + 0.015 * middle * hue_weight)
    # hues near 275 degrees, blue
    blueness = (-(((hue.rad2deg() % 360 - 275) / 25) ** 2)).exp()
    rotation = -2 * _saturation(middle) * (2 * math.radians(30) * blueness).sin()
    squared = chroma_term**2 + hue_term**2 + rotation * chroma_term * hue_term
    # rounding may leave less than nothing of equal colours
    return squared.clamp(min=0).sqrt().mean((1, 2))


def _saturation(chroma: Tensor) -> Tensor:
    """0 for gray to 1 for colours far beyond a chroma of 25."""
    return (chroma**7 / (chroma**7 + 25.0**7)).sqrt()


def psnr(predicted: RGB, true: RGB) -> Tensor:
    """Peak signal-to-noise ratio over all channels of each image, (B,), dB; equal images give infinity.

    L* is given, so it is mostly the lightness that this agrees on; compare with the gray baseline.

    Raises:
        ValueError: the shapes differ (nothing is broadcast).

    >>> psnr(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.1)).round().tolist()
    [20.0]
    """
    _same_shape(predicted, true)
    return -10 * (predicted - true).square().mean((1, 2, 3)).log10()


def ssim(predicted: RGB, true: RGB) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each image, mean over channels and pixels, (B,), -1 to 1.

    Gaussian window of 11 pixels, sigma 1.5, population covariance, and only windows that lie wholly inside
    the image, as in the paper's code and in scikit-image; torchmetrics pads the borders by reflection.

    Raises:
        ValueError: the shapes differ, or a side is below 11 pixels.
    """
    _same_shape(predicted, true)
    if min(predicted.shape[2:]) < _WINDOW:
        raise ValueError(
            f"`predicted` should be {_WINDOW} pixels or more a side. Found {tuple(predicted.shape)}."
        )
    # about 0, float32 keeps the small variances of flat windows; they are the same wherever the zero is
    x, y = predicted.float() - 0.5, true.float() - 0.5
    down, across = (_window_means(side, x) for side in x.shape[2:])
    mean_x, mean_y, mean_squares, mean_xy = (down @ each @ across.T for each in (x, y, x * x + y * y, x * y))
    product, squares, total = mean_x * mean_y, mean_x**2 + mean_y**2, mean_x + mean_y
    covariance, variances = mean_xy - product, mean_squares - squares
    # (x + .5)(y + .5) = xy + (x + y) / 2 + .25
    luminance = (2 * product + total + 0.5 + _K1**2) / (squares + total + 0.5 + _K1**2)
    structure = (2 * covariance + _K2**2) / (variances + _K2**2)
    return (luminance * structure).mean((1, 2, 3))


def _window_means(side: int, like: Tensor) -> Tensor:
    """(side - 10, side): the Gaussian mean of every window that lies inside, as a product of matrices."""
    # at these sizes a product, zeros and all, is several times as fast as a convolution
    steps = np.arange(side)[None] - np.arange(side - _WINDOW + 1)[:, None] - _WINDOW // 2
    weights = np.where(abs(steps) <= _WINDOW // 2, np.exp(-(steps**2) / (2 * _SIGMA**2)), 0.0)
    return torch.from_numpy(weights / weights.sum(1, keepdims=True)).to(like)


def _same_shape(predicted: Tensor, true: Tensor) -> None:
    if predicted.shape != true.shape:
        raise ValueError(
            f"`predicted` should be of the shape of `true`, {tuple(true.shape)}. Found {tuple(predicted.shape)}."
        )
