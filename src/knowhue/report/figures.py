"""FIGURES: every figure of the report, by name; each is a pure function of the study."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from knowhue.report.calibration import reliability
from knowhue.report.classes import confusion, per_class
from knowhue.report.curves import accuracy, error, judgements, losses
from knowhue.report.diagram import setup
from knowhue.report.extremes import extremes
from knowhue.report.forest import forest
from knowhue.report.label_fraction import label_fraction
from knowhue.report.samples import more_samples, samples
from knowhue.report.study import Study
from knowhue.report.transfer import transfer_class, transfer_colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES: "dict[str, Callable[[Study], Figure]]" = {
    "transfer_colour": transfer_colour,
    "transfer_class": transfer_class,
    "forest": forest,
    "label_fraction": label_fraction,
    "samples": samples,
    "more_samples": more_samples,
    "setup": setup,
    "accuracy": accuracy,
    "error": error,
    "losses": losses,
    "judgements": judgements,
    "per_class": per_class,
    "confusion": confusion,
    "reliability": reliability,
    "extremes": extremes,
}
