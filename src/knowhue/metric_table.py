"""METRICS: title, unit, direction and source column of each score; needs no torch."""

from typing import Literal, NamedTuple

from knowhue.config import Task


class Metric(NamedTuple):
    """A score over a set of images."""

    title: str
    unit: str
    """a `share` is from 0 to 1 and is shown in per cent"""
    better: Literal["lower", "higher", "neither"]
    short: str = ""
    """heading of a table's column"""
    column: str | None = None
    """column of `per_image.csv` that it is computed from (and `<column>_true`, where it compares with the true
    images); None stands for the metric's own name"""
    over: Literal["images", "classes", "set"] = "images"
    """`images`: the mean of the column; `classes`: the mean over classes of their means; `set`: a number that exists
    only for a set of images, see `evaluation.aggregation.OF_SETS`"""
    places: int = 2
    """decimal places in tables of `knowhue score`"""
    task: Task = "colour"

    @property
    def head(self) -> str:
        """`short`, with an arrow in the better direction."""
        arrow = {"lower": "\N{NO-BREAK SPACE}↓", "higher": "\N{NO-BREAK SPACE}↑", "neither": ""}
        return self.short + arrow[self.better]


RUN_METRICS: dict[str, Metric] = {
    "ab_l1": Metric("Mean absolute error of a*b*", "CIELAB units", "lower", "a*b* error"),
    "ab_l1_vivid": Metric("Error of a*b*, pixels weighted by their true chroma", "CIELAB units", "lower"),
    "ciede2000": Metric("CIEDE2000", "CIEDE2000 units", "lower", "CIEDE2000"),
    "psnr_rgb": Metric("PSNR of RGB (L* is given)", "dB", "higher", "PSNR"),
    "ssim_rgb": Metric("SSIM of RGB (L* is given)", "-1 to 1", "higher", "SSIM", places=4),
    "lpips_alex": Metric("LPIPS, AlexNet", "0 is equal", "lower", "LPIPS", places=4),
    "adversarial": Metric("Generator's adversarial loss, own discriminator", "loss", "neither"),
    "chroma_ratio": Metric(
        "Mean chroma, predicted over true", "ratio, 1 is as vivid", "neither", "chroma, of true",
        column="chroma", over="set",
    ),
    "mean_a": Metric("Mean a*, green to red", "CIELAB units", "neither"),
    "mean_b": Metric("Mean b*, blue to yellow", "CIELAB units", "neither"),
    "colourfulness": Metric("Colourfulness (signed, as Hasler and Süsstrunk)", "M3", "neither", "CF, signed"),
    "colourfulness_absolute": Metric("Colourfulness (absolute convention)", "M3", "neither", "CF, absolute"),
    "colourfulness_difference_of_means": Metric(
        "Difference of the mean colourfulness", "M3", "lower", "dCF of means, signed",
        column="colourfulness", over="set",
    ),
    "mean_colourfulness_difference": Metric(
        "Mean difference of colourfulness", "M3", "lower", "dCF of images, signed",
        column="colourfulness", over="set",
    ),
    "accuracy": Metric("Accuracy", "share", "higher", task="class", column="correct"),
    "balanced_accuracy": Metric("Balanced accuracy", "share", "higher", task="class", column="correct", over="classes"),
    "cross_entropy": Metric("Cross-entropy", "nats", "lower", task="class"),
    "ece": Metric(
        "Expected calibration error, 15 bins", "share", "lower", task="class", column="probability", over="set"
    ),
}  # fmt: skip
"""The metrics of every run, computed from the rows of its images."""
METRICS: dict[str, Metric] = {
    **RUN_METRICS,
    # by pretrained networks
    "fd_lite0": Metric("Fréchet distance, EfficientNet-Lite0", "distance", "lower", "FD, Lite0"),
    "kd_lite0": Metric("Kernel distance, EfficientNet-Lite0", "distance", "lower", "KD, Lite0", places=4),
    "fid": Metric("Fréchet Inception Distance (FID)", "distance", "lower", "FID"),
    "kid": Metric("Kernel Inception Distance (KID)", "distance", "lower", "KID", places=4),
    "recognition": Metric("Recognised by a probe of true colours", "share", "higher", "recognised", places=3),
    "top1_accuracy": Metric("Top-1 accuracy of a classifier", "share", "higher", "top-1", places=3),
    "top5_accuracy": Metric("Top-5 accuracy of a classifier", "share", "higher", "top-5", places=3),
    "top1_agreement": Metric("Classified as its true image is", "share", "higher", "as the truth", places=3),
    # between the samples of a generative method
    "diversity": Metric(
        "Standard deviation of a*b* between samples", "CIELAB units", "neither", "spread of samples"
    ),
    "diversity_ciede2000": Metric("CIEDE2000 between samples", "CIEDE2000 units", "neither", "diversity"),
    "diversity_lpips": Metric("LPIPS between samples", "0 is equal", "neither", "diversity, LPIPS", places=4),
    # only of `knowhue score`
    "ab_auc": Metric("Area under the curve of a*b* errors", "share", "higher", "AUC", places=4),
    "ab_auc_balanced": Metric(
        "Area under the curve of a*b* errors, colours weighted equally", "share", "higher", "AUC, balanced", places=4
    ),
    "mean_colourfulness_difference_absolute": Metric(
        "Mean difference of colourfulness (absolute convention)", "M3", "lower", "dCF of images, absolute"
    ),
    "colourfulness_difference_of_means_absolute": Metric(
        "Difference of the mean colourfulness (absolute convention)", "M3", "lower", "dCF of means, absolute"
    ),
    "lightness_change": Metric("Mean change of L*", "CIELAB units", "lower", "|dL*|", places=3),
    "lightness_changed": Metric("Pixels whose L* changed visibly", "share", "lower", "L* changed", places=4),
}  # fmt: skip
OF_CLASSIFIER = ("top1_accuracy", "top5_accuracy", "top1_agreement")
RECOGNITION = ("recognition", *OF_CLASSIFIER)
"""Shares of images; each image counts or does not."""
RUN_COLUMNS = {name: each.column or name for name, each in RUN_METRICS.items()}
"""By metric of every run, the column of `per_image.csv` that it is computed from."""
IMAGE_COLUMNS = {name: column for name, column in RUN_COLUMNS.items() if METRICS[name].over == "images"}
"""By metric that is a mean over images, the column of `per_image.csv`; metrics of the task `class` need a label."""


def _of_task(task: Task) -> tuple[str, ...]:
    return tuple(name for name, each in RUN_METRICS.items() if each.task == task and each.better != "neither")


METRIC_NAMES: dict[Task, tuple[str, ...]] = {
    # recognition is the share of colourings that a classifier of true-colour images classifies correctly
    "colour": (*_of_task("colour"), "recognition"),
    "class": _of_task("class"),
}
"""The metrics that a question can be about: by task, those that have a better direction."""
SET_DISTANCES = tuple(name for name, each in METRICS.items() if each.unit == "distance")
"""Distances between whole sets of images: reported with other real images, and tested only if a question asks."""
LOWER_IS_BETTER = tuple(name for name, each in METRICS.items() if each.better == "lower")
SHARES = tuple(name for name, each in METRICS.items() if each.unit == "share")
NEVER_NEGATIVE = tuple(name for each in METRIC_NAMES.values() for name in each if name in LOWER_IS_BETTER)
"""Metrics of questions that are errors or losses: their best value is 0."""
