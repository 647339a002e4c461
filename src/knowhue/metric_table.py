"""METRICS: what each score means, for whoever trains, asks, judges or shows; needs no torch."""

from typing import Literal, NamedTuple

from knowhue.config import Task


class Metric(NamedTuple):
    """A score over a set of images.

    Attributes:
        title: for the reader.
        unit: `share` goes from 0 to 1, and is shown in per cent.
        better: its direction.
        task: whose it is.
        column: what it reads of each image's row in `per_image.csv`, and where it compares with the true images,
            `<column>_true` too.
        over: `images`: the mean of the column; `classes`: the mean over classes of their means; `set`: a number that
            the images have together alone, see `evaluation.metrics.OF_SETS`.
    """

    title: str
    unit: str
    better: Literal["lower", "higher", "neither"]
    task: Task
    column: str
    over: Literal["images", "classes", "set"] = "images"


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
        "Mean chroma, predicted over true", "ratio, 1 is as vivid", "neither", "colour", "chroma", "set"
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
        "Difference of the mean colourfulness", "M3", "lower", "colour", "colourfulness", "set"
    ),
    "mean_colourfulness_difference": Metric(
        "Mean difference of colourfulness", "M3", "lower", "colour", "colourfulness", "set"
    ),
    "accuracy": Metric("Accuracy", "share", "higher", "class", "correct"),
    "balanced_accuracy": Metric("Balanced accuracy", "share", "higher", "class", "correct", "classes"),
    "cross_entropy": Metric("Cross-entropy", "nats", "lower", "class", "cross_entropy"),
    "ece": Metric("Expected calibration error, 15 bins", "share", "lower", "class", "probability", "set"),
}  # fmt: skip
IMAGE_COLUMNS = {name: each.column for name, each in METRICS.items() if each.over == "images"}
"""By metric the column of single images that it is the mean of; those of the task `class` need a label."""


def _of_task(task: Task) -> tuple[str, ...]:
    return tuple(name for name, each in METRICS.items() if each.task == task and each.better != "neither")


METRIC_NAMES: dict[Task, tuple[str, ...]] = {
    # the share of colourings that a classifier of true-colour images names right
    "colour": (*_of_task("colour"), "recognition"),
    "class": _of_task("class"),
}
"""What a question may ask about: the metrics of each task that have a better direction."""
LOWER_IS_BETTER = tuple(name for name, each in METRICS.items() if each.better == "lower")
SHARES = (*(name for name, each in METRICS.items() if each.unit == "share"), "recognition")
"""Those that go from 0 to 1."""
