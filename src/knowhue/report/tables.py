"""TABLES: title, note, rows and columns of every table of the report."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from knowhue.errors import minus, spaced
from knowhue.report import conditions
from knowhue.report.contrasts import BOTH, Bounds, wording
from knowhue.report.diagnostics import LOSSES, MOMENTS, diagnostic_means, gradient_table, predictions
from knowhue.report.findings import Findings, posteriors, relative_gains
from knowhue.report.methods import verdict_cell
from knowhue.report.results import distance_rows, task_scores
from knowhue.report.study import TASK_TITLES, Row, Study, Table, arm_label
from knowhue.report.text import (
    MISSING,
    TableCell,
    difference,
    duration,
    ends_text,
    number,
    p_text,
    signed,
    with_spread,
)
from knowhue.statistics import MIN_SEEDS
from knowhue.statistics.paired import mean

_TRAIN_LOSSES = {
    "l1": "L1", "l2": "L2", "classification": "Cross-entropy of 313 colours", "colour_loss": "Colour loss",
    "cross_entropy": "Cross-entropy", None: MISSING,
}  # fmt: skip
"""Titles of the losses in `config.TRAIN_LOSSES`."""
OVER_SEEDS = "95 % interval over seeds, on these images"
_Cell = Callable[[Study, Row], Any]
Cells = dict[str, _Cell]
"""Functions that return the cells of a row, by head of the column."""


@dataclass(frozen=True)
class PageTable:
    """A table of the page."""

    title: str
    note: str
    rows: Callable[[Findings], list[dict[str, Any]]]
    """returns its numbers, one mapping per row"""
    cells: Cells
    """its columns; columns of trivial baselines are added if rows have any"""
    names: int = 3
    """how many of the first columns are names; a table without numbers in the others is not shown"""
    of_questions: bool = False
    """whether questions without numbers have a row of dashes"""
    kind: str = ""

    def text(self, findings: Findings) -> Table:
        """Return the table as text, header first."""
        study, rows = findings.study, self.rows(findings)
        if self.of_questions:
            known = {row["question"]: row for row in rows}
            rows = [
                {"question": name, "metric": spec.metric, "sesoi": spec.sesoi} | known.get(name, {})
                for name, spec in study.questions.items()
            ]
        names = dict.fromkeys(name for row in rows for name in row.get("baselines", ()))
        cells = self.cells | {name.capitalize(): _baseline(name) for name in names}
        return [list(cells), *([cell(study, row) for cell in cells.values()] for row in rows)]

    def has_numbers(self, table: Table) -> bool:
        """Whether a row of its text has more than names, dashes and zeros."""
        return any(any(cell not in (MISSING, None, 0) for cell in row[self.names :]) for row in table[1:])


def _unit(study: Study, row: Row) -> str:
    return row["unit"] if "unit" in row else study.unit(row["metric"])


def _larger_level(row: Row) -> float | None:
    """Return the larger level of both arms, which sets the digits of a row; None without levels."""
    levels = (row.get("single"), row.get("multi"), *map(mean, row.get("scores", ())))
    return max((level for level in levels if level is not None), key=abs, default=None)


def _text(key: str, convert: Callable[[Any], Any] = lambda value: value) -> _Cell:
    return lambda _, row: MISSING if row.get(key) is None else convert(row[key])


def _value(key: str) -> _Cell:
    """Return a cell with a number in the row's unit, or else in the unit of its metric."""
    return lambda study, row: number(row.get(key), _unit(study, row), _larger_level(row))


def _share(key: str) -> _Cell:
    return _text(key, lambda value: number(value, "share"))


def _interval(study: Study, row: Row) -> str:
    return ends_text(_larger_level(row), row.get("interval"), _unit(study, row))


def _interval_with_level(study: Study, row: Row) -> str:
    """Return an interval with its level, and `†` if it is not over seeds and images; a dash without one."""
    bounds: Bounds | None = row.get("bounds")
    if bounds is None or bounds.interval is None:
        return MISSING
    mark = "" if bounds.over == BOTH else "†"
    return f"{ends_text(_larger_level(row), bounds.interval, _unit(study, row))} ({100 * bounds.level:g} %{mark})"


def _of_seeds(side: int) -> _Cell:
    return lambda study, row: (
        with_spread(row["scores"][side], _unit(study, row), _larger_level(row))
        if "scores" in row
        else MISSING
    )


def _baseline(name: str) -> _Cell:
    return lambda study, row: number(row["baselines"].get(name), _unit(study, row), _larger_level(row))


_ARM: Cells = {"Arm": lambda study, row: arm_label(study, row["arm"])}
_METRIC: Cells = {"Metric": lambda study, row: study.label(row["metric"])}
_QUESTION: Cells = {"Question": lambda _, row: TASK_TITLES[row["question"]]}
_TITLE: Cells = {"Question": lambda study, row: wording(study, row["question"]).title}
_CLASS: Cells = {"Class": lambda _, row: "All" if row["label"] is None else spaced(row["label"])}
_SEEDS: Cells = {"Seeds": lambda _, row: len(row.get("seeds", ()))}
_DIFFERENCE: Cells = {
    "Difference": lambda study, row: difference(row.get("single"), row.get("multi"), _unit(study, row))
}
_BOTH: Cells = {"Single-task": _value("single"), "Multi-task": _value("multi"), **_DIFFERENCE}
_OF_SEEDS: Cells = {"Single-task": _of_seeds(0), "Multi-task": _of_seeds(1)}
_TWO_ARMS: Cells = {"Reference": _of_seeds(0), "Compared": _of_seeds(1)}
_SMALLEST: Cells = {
    "Smallest effect": lambda study, row: difference(0.0, row["sesoi"], _unit(study, row)).lstrip("+")
}
_TESTED: Cells = {"Interval": _interval_with_level, "p": _text("p", p_text)}


def _extreme(key: str) -> _Cell:
    def cell(study: Study, row: Row) -> str:
        if key not in row:
            return MISSING
        gap, seed, tied = row[key]
        also = f", tied with {tied} more" * bool(tied)
        return f"{difference(row['level'], row['level'] + gap, _unit(study, row))} (seed {seed}{also})"

    return cell


def _deployed(column: int) -> _Cell:
    def cell(study: Study, row: Row) -> Any:
        one, several = row["one"], row["several"]
        if row["what"] == "score":
            unit = _unit(study, row)
            texts = number(one, unit), number(several, unit), difference(several, one, unit)
            return (study.label(row["metric"]), *texts)[column]
        if row["what"] == "seconds":
            gap = f"{signed([100 * (one / several - 1)], 0)[0]} %" if one and several else MISSING
            return ("Training", duration(one), duration(several), gap)[column]
        gap = minus(f"{one - several:+d}").replace("+0", "0")
        return (f"{row['what'].capitalize()} per image", one, several, gap)[column]

    return cell


def _gradients(findings: Findings) -> list[dict[str, Any]]:
    return [
        {"arm": arm, "moment": moment, **each["shares"], **each}
        for arm, moments in gradient_table(findings.study).items()
        for moment, each in moments.items()
    ]


def _primary_scores(study: Study, row: Row) -> str:
    names = dict.fromkeys(spec.metric for spec in study.questions.values())
    known = [(name, value) for name in names if (value := row["metrics"].get(name)) is not None]
    return "; ".join(f"{study.label(name)} {number(value, study.unit(name))}" for name, value in known)


def _scores(task: str) -> PageTable:
    def scored(study: Study, row: Row) -> TableCell:
        arrow = {"lower": " ↓", "higher": " ↑"}.get(study.about(row["metric"]).get("better", ""), "")
        return TableCell(f"{study.label(row['metric'])}{arrow}", row.get("role", ""))

    cells: Cells = {"Metric": scored, **_OF_SEEDS, **_DIFFERENCE, **_TESTED}
    return PageTable(TASK_TITLES[task], "", partial(task_scores, task=task), cells, names=1, kind="scores")


def _questions(findings: Findings) -> list[dict[str, Any]]:
    verdicts = findings.verdicts.items()
    return [{"question": name, "judged": judged, **judged.row()} for name, judged in verdicts]


def _further(findings: Findings) -> list[dict[str, Any]]:
    return [
        {
            **test.found.row(), "arms": f"{test.found.arms[1]} against {test.found.arms[0]}", "bounds": test.bounds,
            "p": test.p_adjusted, "clear": test.is_clear,
        }
        for test in findings.secondary.values()
    ]  # fmt: skip


def _marked_gap(study: Study, row: Row) -> TableCell:
    text = difference(row["single"], row["multi"], _unit(study, row))
    return TableCell(text, "clear" if row["clear"] else "", row["clear"])


TABLES: dict[str, PageTable] = {
    "questions": PageTable(
        "Questions",
        "Mean ± standard deviation over seeds. The difference is the compared arm minus the reference, paired by seed "
        "and computed before rounding. Intervals are over seeds and images, those with † over seeds or images alone, "
        "on these images. p: exact sign-flip test over seeds.",
        _questions,
        {
            **_TITLE, **_SMALLEST, **_TWO_ARMS, **_DIFFERENCE, **_TESTED, **_SEEDS,
            "Verdict": _text("judged", verdict_cell),
        },
        names=1, of_questions=True,
    ),
    "further": PageTable(
        "Further metrics",
        "No question asks about these metrics. Intervals are at 95 %, those with † on these images alone; p is "
        "adjusted for all rows (Benjamini-Hochberg). A difference is called clear if p is at most .05, the interval "
        f"over seeds and images excludes 0, and there are at least {MIN_SEEDS} seeds.",
        _further,
        {"Arms": _text("arms"), **_METRIC, **_TWO_ARMS, "Difference": _marked_gap, **_TESTED, **_SEEDS}, names=2,
    ),
    "colour_scores": _scores("colour"),
    "class_scores": _scores("class"),
    "distances": PageTable(
        "Distance from real images", "", lambda findings: distance_rows(findings.study),
        {"Distance": _text("title"), **_OF_SEEDS}, names=1, kind="scores",
    ),
    "probabilities": PageTable(
        "Probabilities",
        "Posterior probabilities of the same difference, with a flat prior and the smallest effect of interest as "
        "region of practical equivalence (Benavoli et al. 2017). Standard error and degrees of freedom are those of "
        "the interval behind the verdict. No verdict rests on them: they do not control the rate of false claims.",
        posteriors,
        {
            **_TITLE, **_METRIC, **_SMALLEST, "P(worse)": _text("worse", p_text),
            "P(equal)": _text("equal", p_text), "P(better)": _text("better", p_text),
            "Over": lambda _, row: f"no interval: {row['why_not']}" if row["why_not"] else row["over"],
        },
    ),
    "delta_m": PageTable(
        "Mean relative gain",
        "Δm as in multi-task papers (Maninis et al. 2019): the relative change of each task's primary metric, signed "
        "so that positive is better, averaged over tasks and seeds. A per cent of one metric has the same weight as a "
        "per cent of another, so no verdict rests on it.",
        relative_gains,
        {
            **_ARM,
            "Metrics":
                lambda study, row: ", ".join(study.label(study.questions[name].metric) for name in row["questions"]),
            "Δm, %": _text("mean", lambda mean: difference(0.0, mean, "share")),
            OVER_SEEDS: _text("interval", lambda ends: ends_text(0.0, ends, "share")), **_SEEDS,
        },
        names=2,
    ),
    "seeds": PageTable(
        "Seeds",
        "Seeds in which multi-task is worse by more than the smallest effect of interest, the Wilson interval of their "
        "share, and the worst and the best seed.",
        lambda findings: conditions.seed_transfer(findings.study),
        {
            **_QUESTION, **_METRIC, "Worse by more than": _value("sesoi"),
            "Seeds worse": _text("hurt", lambda hurt: f"{hurt.count} of {hurt.of}"),
            "Share, %": _text("hurt", lambda hurt: number(hurt.share, "share")),
            "95 % interval": _text("hurt", lambda hurt: " to ".join(number(end, "share") for end in hurt.interval)),
            "Worst seed": _extreme("worst"), "Best seed": _extreme("best"),
        },
        of_questions=True,
    ),
    "classes": PageTable(
        "Classes",
        "Mean paired difference by class. A class is called helped or hurt only if the exact sign-flip p, adjusted for "
        "all rows (Benjamini-Hochberg), is at most .05, the interval over seeds and images of the class excludes 0, "
        f"and there are at least {MIN_SEEDS} seeds. p and intervals with † are over seeds alone, on these images.",
        lambda findings: conditions.class_transfer(findings.study),
        {
            **_CLASS,
            "Score": lambda study, row: "Recall, %" if row["unit"] else study.label(row["metric"]),
            **_BOTH, "Interval": _interval_with_level, "p over seeds": _text("p", p_text),
            "p, adjusted": _text("p_adjusted", p_text), **_SEEDS, "": _text("word"),
        },
    ),
    "flips": PageTable(
        "Images classified right by one arm only",
        "Share of images that only the single-task classifier has right (right to wrong), and that only the multi-task "
        "classifier has right (wrong to right).",
        lambda findings: conditions.image_flips(findings.study),
        {
            **_CLASS, "Images": _text("images"), "Right to wrong, %": _share("right_to_wrong"),
            "Wrong to right, %": _share("wrong_to_right"),
            "Net, points": _text("net", lambda net: difference(0.0, net, "share")),
            OVER_SEEDS: _text("interval", lambda ends: ends_text(0.0, ends, "share")), **_SEEDS,
        },
    ),
    "equal_train_loss": PageTable(
        "At equal training loss",
        "Validation scores of each arm when it first reaches the lowest training loss that both arms reached in "
        "fine-tuning, interpolated between two epochs. The arm that fits faster is read before its learning rate has "
        "decayed.",
        lambda findings: conditions.paired_table(findings.study, conditions.equal_train_loss),
        {
            **_QUESTION, **_METRIC,
            "Training loss": lambda study, row: _TRAIN_LOSSES[conditions.train_loss(study, row["question"])],
            "Level": _text("level", number), **_BOTH, OVER_SEEDS: _interval, **_SEEDS,
        },
        of_questions=True,
    ),
    "equal_images": PageTable(
        "Equal images", "Both arms saw the same images equally often. This is the primary comparison.", _questions,
        {**_QUESTION, **_METRIC, **_BOTH, "Interval": _interval_with_level, **_SEEDS}, of_questions=True,
    ),
    "equal_time": PageTable(
        "Equal time",
        "Validation scores after equal time: the longer training is read when the shorter one ended, interpolated "
        "between two epochs. It is at a disadvantage, because its learning rate has not decayed by then. Times include "
        "validation but not diagnostics.",
        lambda findings: conditions.paired_table(findings.study, conditions.equal_time),
        {
            **_QUESTION, **_METRIC, **_BOTH, OVER_SEEDS: _interval, **_SEEDS,
            "Time": _text("seconds", duration), "Single-task in full": _text("single_seconds", duration),
            "Multi-task in full": _text("multi_seconds", duration),
            "Multi-task epochs by then":
                lambda _, row: f"{row['epochs']:.1f} of {row['of']:g}" if "epochs" in row else MISSING,
        },
        of_questions=True,
    ),
    "deployment": PageTable(
        "Deployment", "One model for both tasks, compared with one model per task.",
        lambda findings: conditions.deployment(findings.study),
        {
            "": _deployed(0), "One multi-task model": _deployed(1), "One model per task": _deployed(2),
            "Difference, one minus several": _deployed(3),
        },
    ),
    "after_heads": PageTable(
        "After the heads and after fine-tuning",
        "Scores of the reported split. With few labels, fine-tuning may lose what the heads had reached.",
        lambda findings: conditions.after_heads(findings.study),
        {
            **_ARM, **_METRIC, "After the heads": _value("heads"), "After fine-tuning": _value("tuned"), **_SEEDS,
        },
    ),
    "diagnostics": PageTable(
        "Gradients at the shared features",
        "The multi-task arm, measured every few steps of fine-tuning: means of cosines, shares of negative cosines, "
        "geometric mean of the norm ratio, medians of affinities. An affinity is the share by which one step of the "
        "encoder for one task lowers the other task's loss (Fifty et al. 2021). No verdict rests on these numbers.",
        lambda findings: diagnostic_means(findings.study),
        {
            "Diagnostic": _text("title"), "Mean over seeds": _value("mean"),
            "95 % interval over seeds": lambda _, row:
                " to ".join(number(end, row["unit"]) for end in row["interval"] or ()) or "none: too few seeds",
            "Lowest": _value("lowest"),
            "Highest": _value("highest"), **_SEEDS,
        },
    ),
    "predictions": PageTable(
        "Do diagnostics predict the transfer?",
        "Spearman's correlation over seeds of each diagnostic with the transfer (positive is better). A diagnostic "
        "predicts the transfer if the correlation has the expected sign and p is at most .05. p is by permutation and "
        "not adjusted, so about one row in twenty reaches .05 by chance. Exploratory.",
        lambda findings: predictions(findings.study),
        {
            "Diagnostic": _text("title"), **_QUESTION,
            "Spearman correlation": _text("correlation", lambda value: signed([value], 2)[0]),
            "p": _text("p", p_text), "Seeds": _text("seeds"), "Predicts": _text("word"),
        },
    ),
    "gradients": PageTable(
        "What trained the encoder",
        "Norm of each weighted loss’s gradient with respect to all parameters of the encoder, as a share of the sum of "
        "the arm’s norms, on the same training batches before and after fine-tuning; means over seeds.",
        _gradients,
        {
            **_ARM, "Fine-tuning": _text("moment", lambda moment: MOMENTS[moment]),
            **{f"{title.capitalize()}, % of the gradient": _share(name) for name, title in LOSSES.items()},
            "Adversarial loss, % of the colour gradient": _share("adversarial_of_colour"), "Seeds": _text("seeds"),
        },
    ),
    "exploratory": PageTable(
        "Exploratory runs",
        "Runs in this folder that are not in the plan; no verdict rests on them.",
        lambda findings: [dict(run) for run in findings.study.exploratory],
        {
            "Arm (exploratory)": _text("arm"), "Seed": _text("seed"), "Folder": _text("folder"),
            "State": _text("state"), "Primary metrics": _primary_scores,
        }, names=0,
    ),
}  # fmt: skip
