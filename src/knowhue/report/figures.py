"""FIGURES: the drawing, caption and data of every figure of the report; figures as files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from knowhue.errors import percent, plural, spaced
from knowhue.report import differences, levels
from knowhue.report.methods import comparison_figures
from knowhue.report.reading import read_study
from knowhue.report.study import TASK_TITLES, Row, Run, Study, is_oracle, sides
from knowhue.report.style import (
    INK,
    MULTI,
    MUTED,
    RULE,
    SHADE,
    SINGLE,
    SMALL,
    TEXT,
    Tile,
    hide_axes,
    lay_out,
    panels,
    shorten_name,
    tile_grid,
)
from knowhue.report.text import plain
from knowhue.storage import replacing, require_outputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_COLUMNS = {"Grayscale": INK, "Single-task": SINGLE, "Multi-task": MULTI, "Ground truth": INK}


def draw_samples(study: Study) -> "dict[str, Drawing]":
    """Draw the first and, in another drawing, the second sample image of each class: gray, both arms, truth."""
    labels = [int(label) for label in study.samples.get("label", ())]
    nth = [labels[:place].count(label) for place, label in enumerate(labels)]
    titles, figures = dict(enumerate(_COLUMNS.items())), {}
    for name, wanted in (("samples", 0), ("more_samples", 1)):
        if rows := [_row(study, place) for place, each in enumerate(nth) if each == wanted]:
            figures[name] = tile_grid(5.0, rows, titles, fontsize=TEXT, fontweight="bold")
    return figures


_BELOW = 13
"""Characters of a class name that fit below an image together with the probability."""


def _row(study: Study, place: int) -> list[Tile]:
    index, label = (int(study.samples[name][place]) for name in ("index", "label"))
    truth = study.classes[label] if 0 <= label < len(study.classes) else ""
    tiles = [Tile(study.samples["gray"][place])]
    for colour_arm, class_arm in zip(sides(study, "colour"), sides(study, "class"), strict=True):
        named, mark, below = _sample(study.shown(class_arm), index), "", ""
        if "predicted" in named:
            predicted = study.classes[int(named["predicted"])]
            mark = "" if predicted == truth else "✗ "
            sure = round(float(named.get("probability", np.nan)), 4)
            below = f"{mark}{shorten_name(spaced(predicted), _BELOW)}"
            below += f" {percent(sure)}" if np.isfinite(sure) else ""
        image = _sample(study.shown(colour_arm), index).get("rgb")
        tiles.append(Tile(image, below, INK if mark else MUTED, "not\ntrained"))
    return [*tiles, Tile(study.samples["truth"][place], shorten_name(spaced(truth), _BELOW), INK)]


def _sample(run: Run | None, index: int) -> dict[str, np.ndarray]:
    """Return what a run's samples contain for an image, which is found by its index in the data set."""
    samples = {} if run is None else run.samples
    found = np.flatnonzero(samples.get("index", np.empty(0)) == index)
    known = [name for name in ("rgb", "predicted", "probability") if name in samples and len(found)]
    return {name: samples[name][found[0]] for name in known}


def draw_extremes(study: Study) -> "dict[str, Drawing]":
    """Draw the colourings of each arm with the smallest and largest errors above the true images, for one seed."""
    figures = {}
    for side in levels.drawn_sides(study, "colour"):
        run = study.shown(side.arm)
        errors = [] if run is None else np.asarray(run.extremes.get("ab_l1", ())).tolist()
        if run is None or not errors:
            continue
        rows = (
            [Tile(image, f"{error:.1f}") for image, error in zip(run.extremes["rgb"], errors, strict=True)],
            [Tile(image) for image in run.extremes["truth"]],
        )
        titles = {0: ("Best", INK), len(errors) // 2: ("Worst", INK)}
        names = ((side.title, side.colour), ("Truth", MUTED))
        style = {"ha": "left", "fontsize": SMALL, "fontweight": "bold"}
        figures[f"extremes_{side.name}"] = tile_grid(5.0, rows, titles, names, **style)
    return figures


FROM_SCRATCH = {"pix2pix": "U-Net from scratch", "palette": "diffusion"}
"""Networks of the methods that have no encoder."""
_ARROWS = (("image", "encoder"), ("encoder", "colour"), ("encoder", "class"), ("colour", "judge"))


@dataclass(frozen=True)
class Figure:
    """A numbered figure of the page."""

    title: str
    caption: str
    """how to read it, with names of `facts` in braces"""
    draw: "Callable[[Study], Mapping[str, Drawing]]"
    """returns its drawings by file name, shown side by side; none if they would show no numbers"""
    rows: Callable[[Study], list[Row]] | None = None
    """returns its numbers; None for images, and for scores that `scores.csv` contains"""

    def caption_of(self, study: Study) -> str:
        return self.caption.format(**facts(study))


def setup(study: Study) -> "dict[str, Drawing]":
    """Draw the model as a diagram; blue parts belong to one task, the orange encoder is shared."""
    figure, axes = panels(5.0, 2.0)
    ax = axes[0, 0]
    hide_axes(ax)
    ax.set(xlim=(0, 100), ylim=(0, 100))
    drawn = {}
    for name, (x, y, *lines) in _boxes(study).items():
        edge = {"encoder": MULTI, "colour": SINGLE, "class": SINGLE}.get(name, RULE)
        box = {"boxstyle": "round,pad=0.5", "facecolor": SHADE, "edgecolor": edge, "linewidth": 1}
        style = {"ha": "center", "va": "center", "color": INK, "fontsize": SMALL - 1.5, "linespacing": 1.4}
        drawn[name] = ax.text(x, y, "\n".join(lines), bbox=box, **style)
    for start, end in _ARROWS:
        # after the boxes, because the arrows end at their edges
        arrow = {"arrowstyle": "-|>", "color": MUTED, "patchA": drawn[start].get_bbox_patch(),
                 "patchB": drawn[end].get_bbox_patch()}  # fmt: skip
        ax.annotate("", drawn[end].get_position(), drawn[start].get_position(), arrowprops=arrow, zorder=4)
    return {"setup": figure}


def _boxes(study: Study) -> dict[str, tuple[Any, ...]]:
    """Return the centre and the lines of each box."""
    config = study.config
    method, loss = config("colour", "method"), str(config("colour", "loss") or "l1")
    frozen, tuned = (config("training", phase, "epochs") for phase in ("heads", "finetune"))
    start = "random weights" if config("encoder", "weights") == "none" else "pretrained"
    start += ", with heads" if config("encoder", "with_heads") else ""
    schedule = f"frozen {plural(frozen, 'epoch')}, then tuned {plain(tuned)}"
    encoder = ("Shared encoder", str(config("encoder", "name") or "–"), start, schedule)
    if method in FROM_SCRATCH:
        # without an encoder to freeze, both phases are one
        encoder = ("No encoder", "the gray image alone", plural((frozen or 0) + (tuned or 0), "epoch"))
    transposed = config("colour", "decoder") == "transposed"
    # `auto` means transposed convolutions only for `gan`
    transposed |= config("colour", "decoder") in (None, "auto") and method == "gan"
    network = "transposed convolutions" if transposed else "U-Net on the encoder"
    weighted = f"{loss.upper()} × {plain(config('colour', 'l1_weight'))}"
    error = "313 colours" if loss == "classification" else weighted
    colour = (FROM_SCRATCH.get(method, network), error)
    if method == "palette":
        colour = (f"diffusion in {config('colour', 'palette', 'space')}", "predicts the noise")
    weight = plain(config("colour", "adversarial_weight"))
    judge = ("PatchGAN over L*a*b*", f"{str(config('colour', 'gan_loss') or '–').upper()} × {weight}")
    if method in ("feedforward", "palette"):
        judge = ("none",)
    size = plain(config("images", "size_px"))
    classes = f"Class head: {len(study.classes)} classes"
    return {
        "image": (6, 50, "Gray image", "L*", f"{size} × {size} px"),
        "encoder": (31, 50, *encoder),
        "colour": (62, 78, "Colour head: a*b*", *colour),
        "class": (62, 22, classes, str(config("class", "head") or "linear"), "cross-entropy"),
        "judge": (90, 78, "Discriminator", *judge),
    }


FIGURES: dict[str, Figure] = {
    "transfer": Figure(
        "Seed by seed.",
        "Each thin line is a seed, from {before} to {after}: orange seeds improve, gray seeds do not. The black line "
        "is the mean. On the right are the differences of the same seeds and their mean, with its interval at the "
        "level of the verdict (thick) and at that of equivalence (thin). Differences in the shaded band are smaller "
        "than the smallest effect of interest, {fixed}. The intervals assume symmetric differences: if a few seeds lie "
        "far off on one side, they are too narrow, and with few seeds this cannot be seen.",
        differences.transfer, differences.transfer_rows,
    ),
    "forest": Figure(
        "All arms.",
        "Every arm that trains both tasks{oracle} against the single-task model: mean paired difference over seeds and "
        "its interval at the level of the verdict{over}. The arm of the question is orange. Gray rows learn this task "
        "from other targets (a placebo, fewer labels), so their difference says nothing about transfer. An arrow marks "
        "a value beyond the axis. If a placebo of the other task does as well as multi-task, no information passed "
        "between the tasks.",
        differences.forest, differences.forest_rows,
    ),
    "label_fraction": Figure(
        "With few labels.",
        "Balanced accuracy when only a share of the training labels is known, while every image still trains "
        "colouring. Large dots are means with 95 % intervals over seeds, on these images; faint dots are seeds. The "
        "axis is logarithmic.",
        levels.label_fraction, levels.label_fraction_rows,
    ),
    "samples": Figure(
        "Sample images.",
        "Images of the {split} split{sampled}. Below each colouring is the class that the arm predicts, with its "
        "probability (below single-task, by the single-task classifier); ✗ marks a wrong class. The images were chosen "
        "before training, none afterwards. Seed {seed}, last epoch.",
        draw_samples,
    ),
    "setup": Figure(
        "Set-up.",
        "One encoder feeds both heads. For {frozen} only the heads train, so the tasks cannot influence each other. "
        "For {tuned} more the encoder trains too, in the multi-task arm by both losses (task weights: colour "
        "{colour_weight}, class {class_weight}). A single-task arm is the encoder with one head.",
        setup,
    ),
    "error": Figure(
        "Colour error.",
        "Mean absolute error of a*b* on the validation images after each epoch; lower is better. "
        "{overlap_colour}",
        partial(levels.curves, name="error"), partial(levels.curve_rows, name="error"),
    ),
    "accuracy": Figure(
        "Accuracy.",
        "Share of validation images classified correctly after each epoch. {overlap_class}",
        partial(levels.curves, name="accuracy"), partial(levels.curve_rows, name="accuracy"),
    ),
    "losses": Figure(
        "Generator and discriminator.",
        "Adversarial training losses, averaged over each epoch. If the discriminator classifies nearly every patch "
        "correctly, the report has a warning.",
        partial(levels.curves, name="losses"), partial(levels.curve_rows, name="losses"),
    ),
    "per_class": Figure(
        "Class by class.",
        "Scores of each class on the {split} images; the bar joins the two arms. {spread}",
        levels.draw_per_class,
    ),
    "confusion": Figure(
        "Confusion.",
        "Classes of the {split} images, true in rows and predicted in columns, in per cent of the row{pooled}."
        "{unlisted}",
        levels.draw_confusion, levels.confusion_rows,
    ),
    "reliability": Figure(
        "Calibration.",
        "The {split} images, sorted by the probability of the predicted class into 15 bins of equal width{pooled}. On "
        "the dashed line, predictions with a probability of 80 % are right 80 % of the time; below it, the model is "
        "overconfident. Larger dots contain more images. The expected calibration error (Guo et al. 2017) is the mean "
        "distance from the line over all images.",
        levels.draw_reliability, levels.reliability_rows,
    ),
    "extremes": Figure(
        "Best and worst colourings.",
        "The {split} images with the smallest and the largest error of a*b* (below each, in CIELAB units), chosen by "
        "that number alone, above the true colours. Seed {seed}, last epoch.",
        draw_extremes,
    ),
}  # fmt: skip
_ORACLE = ", and the oracle, a colorizer that is given the true class (what a label at test time can give),"


def facts(study: Study) -> dict[str, object]:
    """Return the values that captions name in braces."""
    many = len(study.seeds) > 1
    thin = "Thin lines are seeds, the bold line is their mean. " if many else ""
    frozen = study.config("training", "heads", "epochs")
    sampled = len({int(label) for label in study.samples.get("label", ())}) or len(study.classes)
    same = (
        "While the encoder is frozen (shaded) both arms are the same computation, so their curves coincide: "
        "single-task is dashed over multi-task."
    )
    return {
        "fixed": "as given with the table" if study.is_table else "fixed beforehand",
        "before": "one arm" if study.is_table else "its single-task",
        "after": "the other" if study.is_table else "its multi-task model",
        "seed": plain(study.shown_seed), "split": study.split,
        "oracle": _ORACLE if any(is_oracle(study, arm) for arm in study.arms) else "",
        "over": f" ({100 * (1 - study.alpha):g} %)",
        "frozen": plural(frozen, "epoch"), "tuned": plain(study.config("training", "finetune", "epochs")),
        **{f"{task}_weight": plain(study.config("tasks", "weights", task)) for task in TASK_TITLES},
        **{
            f"overlap_{task}": thin + same * bool(frozen and all(map(study.of, sides(study, task))))
            for task in TASK_TITLES
        },
        "spread": "Small dots are seeds, large ones their mean." if many else "",
        "pooled": ", all seeds together" if many else "",
        "sampled": f", of {sampled} of {len(study.classes)} classes" if sampled < len(study.classes) else "",
        "unlisted": " The data lists only numbers above 0." if len(study.classes) > levels.MANY else "",
    }  # fmt: skip


def write_figures(folder: Path, out: Path, overwrite: bool = False) -> list[Path]:
    """Write every figure of a study as PNG on white, and their captions as `figures.md`.

    A `ConfigError` if a file exists; a `RunError` if `folder` is not a study, or `out` cannot be written.
    """
    study = read_study(folder)
    lines: list[str] = []
    drawings: dict[str, Drawing] = comparison_figures(study) if study.is_comparison else {}
    for figure in () if study.is_comparison else FIGURES.values():
        drawn = figure.draw(study)
        drawings |= drawn
        lines += [f"- `{name}.png`: **{figure.title}** {figure.caption_of(study)}\n" for name in drawn]
    paths = {out / f"{name}.png": drawing for name, drawing in drawings.items()}
    # check all files before writing the first
    for path in (*paths, out / "figures.md"):
        require_outputs({"--figures": path}, overwrite=overwrite)
    for path, drawing in paths.items():
        write_drawing(drawing, path)
    if lines:
        with replacing(out / "figures.md") as file:
            file.writelines(lines)
    return list(paths)


def write_drawing(drawing: "Drawing", path: Path) -> None:
    """Write a figure as `.png`, `.pdf` or `.svg` on white, with selectable text; equal figures give equal bytes."""
    import matplotlib

    lay_out(drawing)
    drawing.patch.set_visible(True)  # a white background, even if shown on a dark page
    # 42 embeds TrueType fonts, which publishers require
    settings: dict[Any, Any] = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": path.stem}
    options: dict[str, dict[str, Any]] = {
        ".png": {"dpi": 200, "bbox_inches": "tight"},
        ".pdf": {"metadata": {"CreationDate": None}}, ".svg": {"metadata": {"Date": None}},
    }  # fmt: skip
    with matplotlib.rc_context(settings), replacing(path, "wb") as file:
        drawing.savefig(file, format=path.suffix[1:], facecolor="white", **options[path.suffix])
