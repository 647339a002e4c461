"""The sections of the page that carry a claim: where it helped and hurt, at what cost, and what was frozen."""

from dataclasses import dataclass

from knowhue.report.blocks import gate_sentence, machine_sentence
from knowhue.report.compute import deployment_rows, equal_images_rows, equal_time_rows
from knowhue.report.diagnostics import diagnostic_means_rows
from knowhue.report.integrity import cell_rows, cells_sentence, check_plan
from knowhue.report.loss_matched import equal_train_loss_rows
from knowhue.report.negative_transfer import class_transfer_rows, image_flips_rows, seed_transfer_rows
from knowhue.report.optimism import optimism_rows
from knowhue.report.prediction import prediction_rows
from knowhue.report.records import Study, Table
from knowhue.report.splits import after_heads_rows
from knowhue.report.tables import MISSING
from knowhue.statistics import MIN_SEEDS

_NAMES = 3
"""Columns that name what a row is of: question, metric, and what it is judged by."""


@dataclass(frozen=True)
class Sheet:
    """A table of the page: what it shows, how to read it, its rows with the header first."""

    title: str
    note: str
    rows: Table


@dataclass(frozen=True)
class Chapter:
    """Sheets under one heading."""

    title: str
    sheets: tuple[Sheet, ...]


def chapters(study: Study) -> list[Chapter]:
    """Everything behind a verdict that one number hides; tables without a row are left out."""
    found = [
        Chapter("Where it helped, and where it hurt", _transfer(study)),
        Chapter("What it costs", _cost(study)),
        Chapter("What the choice of an epoch would have added", _epochs(study)),
        Chapter("How the tasks pull at the encoder", _diagnostics(study)),
    ]
    kept = [
        Chapter(each.title, tuple(sheet for sheet in each.sheets if _says_something(sheet))) for each in found
    ]
    return [each for each in kept if each.sheets]


def _says_something(sheet: Sheet) -> bool:
    """Whether a table has a row with more than names and dashes: rows of no seed say nothing."""
    return any(any(cell not in (MISSING, None, 0) for cell in row[_NAMES:]) for row in sheet.rows[1:])


def frozen(study: Study) -> tuple[list[str], Chapter]:
    """What was asked beforehand and what was run: sentences, and tables of cells and of unplanned runs."""
    seeds = study.settings.get("seeds", ())
    sentences = [
        check_plan(study).sentence,
        cells_sentence(study),
        gate_sentence(study.gates, seeds),
        machine_sentence(study.runs, seeds),
        *(f"Not compared: seed {seed}, {why}." for seed, why in study.faults.items()),
    ]
    sentences = [each for each in sentences if each]
    sheets = (
        Sheet("Cells", "", cell_rows(study)),
        Sheet(
            "Exploratory runs",
            "Runs in this folder that the plan does not ask for; no verdict rests on them.",
            study.exploratory,
        ),
    )
    return sentences, Chapter("What was frozen", tuple(each for each in sheets if len(each.rows) > 1))


def _transfer(study: Study) -> tuple[Sheet, ...]:
    return (
        Sheet(
            "Seeds",
            "Seeds in which multi-task is worse by more than the smallest effect of interest, with the Wilson "
            "interval of their share, and the seeds at both ends.",
            seed_transfer_rows(study),
        ),
        Sheet(
            "Classes",
            "Mean paired difference of each class. A class is called helped or hurt only where the exact sign-flip p, "
            "adjusted over all rows (Benjamini-Hochberg), is at most 0.05, the interval over seeds and images of the "
            f"class excludes 0, and there are at least {MIN_SEEDS} seeds. p, and intervals with †, are over seeds "
            "alone, on these test images.",
            class_transfer_rows(study),
        ),
        Sheet(
            "Images that change sides",
            "Share of images that only the single-task classifier names right, or only the multi-task one.",
            image_flips_rows(study),
        ),
        Sheet(
            "At equal training loss",
            "Validation scores where each arm's training loss first comes to the lowest level that both reached in "
            "fine-tuning, on the line between two epochs; the arm that fits faster is caught before its learning rate "
            "has come down.",
            equal_train_loss_rows(study),
        ),
    )


def _cost(study: Study) -> tuple[Sheet, ...]:
    return (
        Sheet("Equal images", "Both arms saw the same images as often: the primary comparison.",
              equal_images_rows(study)),
        Sheet(
            "Equal time",
            "Of the validation split, epoch by epoch: the longer training is read where the shorter one ended, on the "
            "line between two epochs; cut before its learning rate came down, it stands at a disadvantage. "
            "Diagnostics are not on the clock, validation is.",
            equal_time_rows(study),
        ),
        Sheet("Deployment", "One model for two tasks against one model for each.", deployment_rows(study)),
    )  # fmt: skip


def _epochs(study: Study) -> tuple[Sheet, ...]:
    note = "On the validation split. The last epoch is reported; choosing each run's best would have added this much."
    heads = (
        "Of the split that is reported on; with few labels, fine-tuning may cost what the heads had reached."
    )
    return (
        Sheet("Best epoch against last", note, optimism_rows(study)),
        Sheet("After the heads, and after fine-tuning", heads, after_heads_rows(study)),
    )


def _diagnostics(study: Study) -> tuple[Sheet, ...]:
    return (
        Sheet(
            "Gradients at the shared features",
            "Of the multi-task arm, every few steps of fine-tuning: means of cosines, shares of negative ones, "
            "geometric mean of the norm ratio, medians of affinities (by which share a step of the encoder for one "
            "task lowers the other's loss; Fifty et al. 2021). They describe and are no verdict.",
            diagnostic_means_rows(study),
        ),
        Sheet(
            "Did it predict the transfer?",
            "Spearman's correlation over seeds of each diagnostic with the transfer found (positive is better); p by "
            "permutation, not adjusted, so about one row in twenty reaches .05 by chance. Exploratory.",
            prediction_rows(study),
        ),
    )
