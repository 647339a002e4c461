"""EXHIBITS: what the page shows as a numbered figure, what it says below it, and the numbers behind it."""

from collections.abc import Callable
from dataclasses import dataclass

from knowhue.report.arms import is_oracle, sides
from knowhue.report.calibration import reliability_table
from knowhue.report.classes import confusion_table, per_class_table
from knowhue.report.curves import curve_table
from knowhue.report.diagram import setup_table
from knowhue.report.extremes import extremes_table
from knowhue.report.forest import forest_table
from knowhue.report.label_fraction import label_fraction_table
from knowhue.report.samples import sample_table
from knowhue.report.study import Study, Table
from knowhue.report.text import plain, plural
from knowhue.report.transfer import transfer_table


@dataclass(frozen=True)
class Exhibit:
    """One numbered figure of the page."""

    figures: tuple[str, ...]
    """Keys of `FIGURES`, shown side by side."""
    title: str
    caption: str
    """May name the facts of `facts` in braces."""
    data: Callable[[Study], Table]
    wide: bool = False
    is_drawing: bool = False
    """Whether it shows no numbers that anybody would want as a table."""


EXHIBITS: dict[str, Exhibit] = {
    "transfer": Exhibit(
        ("transfer_colour", "transfer_class"),
        "Seed by seed.",
        "Each thin line is a seed, from its single-task to its multi-task model; orange seeds improve, gray ones do "
        "not, and the black line is the mean. On the right are the differences of the same seeds and their mean with "
        "its interval at the level of the verdict (thick) and at that of equivalence (thin). In the shaded band a "
        "difference is smaller than the smallest one that matters, fixed beforehand.",
        transfer_table,
        wide=True,
    ),
    "forest": Exhibit(
        ("forest",),
        "All arms.",
        "Every arm that trains both tasks{oracle} against the single-task model: mean paired difference over seeds and "
        "its interval at the level of the verdict{over}. Orange is the question itself. Rows in gray learn this very "
        "task from other targets (a placebo, fewer labels), so their difference says nothing about transfer. An arrow "
        "is a value beyond the axis. A placebo of the other task that does as well as multi-task says that no "
        "information passed between the tasks.",
        forest_table,
        wide=True,
    ),
    "label_fraction": Exhibit(
        ("label_fraction",),
        "With few labels.",
        "Balanced accuracy when only a share of the training labels is known, while every image still trains "
        "colouring. Large dots are means over seeds with 95\u00a0% intervals over seeds,"
        " on these test images, faint dots are seeds; the axis is "
        "logarithmic.",
        label_fraction_table,
        wide=True,
    ),
    "samples": Exhibit(
        ("samples", "more_samples"),
        "Sample images.",
        "Of the {split} split: what the models see, what each arm makes of it, and the truth. Below a colouring "
        "stands the class that the arm names, with its probability (below single-task: by the single-task classifier); "
        "✗ marks a wrong one. The images were fixed before training, none was picked afterwards. "
        "Seed {seed}, last epoch.",
        sample_table,
        wide=True,
    ),
    "setup": Exhibit(
        ("setup",),
        "Set-up.",
        "One encoder feeds both heads. For {frozen} only the heads train, so the tasks cannot touch each "
        "other; for {tuned} more the encoder trains too, and in the multi-task arm both losses shape it "
        "(task weights: colour {colour_weight}, class {class_weight}).",
        setup_table,
        wide=True,
        is_drawing=True,
    ),
    "accuracy": Exhibit(
        ("accuracy",),
        "Accuracy.",
        "Share of validation images classified right after each epoch. {overlap_class}",
        lambda study: curve_table(study, "class", "validation", ("accuracy", "balanced_accuracy")),
    ),
    "error": Exhibit(
        ("error",),
        "Colour error.",
        "Mean absolute error of a*b* on the validation images after each epoch; lower is better. "
        "{overlap_colour}",
        lambda study: curve_table(study, "colour", "validation", ("ab_l1", "adversarial")),
    ),
    "losses": Exhibit(
        ("losses",),
        "Generator and discriminator.",
        "Adversarial training losses, mean of each epoch. Neither should run away from the other.",
        lambda study: curve_table(study, "colour", "train", ("l1", "generator", "discriminator")),
    ),
    "judgements": Exhibit(
        ("judgements",),
        "Who is winning.",
        "Share of patches that the discriminator judges right. Both near 100\u00a0% is saturation: the "
        "colour head learns nothing from it any more; 50\u00a0% (dashed) is guessing.",
        lambda study: curve_table(study, "colour", "train", ("discriminator_real", "discriminator_fake")),
    ),
    "per_class": Exhibit(
        ("per_class",),
        "Class by class.",
        "Scores of each class on the {split} images; the bar joins the two arms. {spread}",
        per_class_table,
        wide=True,
    ),
    "confusion": Exhibit(
        ("confusion",),
        "Confusion.",
        "Classes of the {split} images: rows are true, columns predicted; per cent of the row{pooled}.",
        confusion_table,
        wide=True,
    ),
    "reliability": Exhibit(
        ("reliability",),
        "Does the probability mean what it says?",
        "The {split} images sorted by the probability of the class that the model names, 15 bins of equal "
        "width{pooled}: on the dashed line a probability of 80\u00a0% is right 80\u00a0% of the time, below "
        "it the model is too sure of itself. Larger dots hold more images. The expected calibration error "
        "(Guo et al. 2017) is the mean distance from the line.",
        reliability_table,
        wide=True,
    ),
    "extremes": Exhibit(
        ("extremes",),
        "Best and worst colourings.",
        "The {split} images with the least and the greatest error of a*b* (below each, CIELAB units), "
        "chosen by that number alone, the true colours beneath. Seed {seed}, last epoch.",
        extremes_table,
        wide=True,
    ),
}


_ORACLE = (
    ", and the oracle, which colours alone with the true class given (what a label at test time can give),"
)


def facts(study: Study) -> dict[str, object]:
    """Return what captions may name."""
    many = len(study.seeds) > 1
    thin = "Thin lines are seeds, the bold line is their mean. " if many else ""
    frozen = study.config("training", "heads", "epochs")
    same = (
        "While the encoder is frozen (shaded) both arms are the same computation, so their curves coincide: "
        "single-task is dashed over multi-task."
    )
    return {
        "seed": plain(study.shown_seed),
        "split": study.split,
        "oracle": _ORACLE if any(is_oracle(study, arm) for arm in study.arms) else "",
        "over": f" ({100 * (1 - study.alpha):g}\u00a0%)",
        "frozen": plural(frozen, "epoch"),
        "tuned": plain(study.config("training", "finetune", "epochs")),
        "colour_weight": plain(study.config("tasks", "weights", "colour")),
        "class_weight": plain(study.config("tasks", "weights", "class")),
        "overlap_class": thin + (same if frozen and all(map(study.of, sides(study, "class"))) else ""),
        "overlap_colour": thin + (same if frozen and all(map(study.of, sides(study, "colour"))) else ""),
        "spread": "Small dots are seeds, large ones their mean." if many else "",
        "pooled": ", all seeds together" if many else "",
    }
