"""Where the second task costs: seeds, classes and images that a mean hides, and what is left at equal train loss."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.plan import Question
from knowhue.report.chance import Bounds
from knowhue.report.contrasts import Contrast, paired, primary, questions
from knowhue.report.matched import (
    OVER_SEEDS,
    QUESTION_LABELS,
    finished_pairs,
    interval_text,
    metric_label,
)
from knowhue.report.records import Run, Study, Table, spaced
from knowhue.report.tables import MISSING, bounds_text, difference, number, p_text
from knowhue.statistics import LEVEL
from knowhue.statistics.paired import Interval, Share, benjamini_hochberg, bounded_interval, flips

CLASS_SCORES = {"colour": "ab_l1", "class": "accuracy"}
"""What is compared class by class; the accuracy of the images of one class is its recall."""


class SeedTransfer(NamedTuple):
    """How many seeds of a question are worse by more than `sesoi`, and the extreme ones.

    `level` is single-task's mean; `worst` and `best` are differences, multi minus single, in the metric's unit, of the
    first such seed; `worst_tied` and `best_tied` count the others that have exactly the same.
    """

    question: str
    metric: str
    sesoi: float
    level: float
    hurt: Share
    worst_seed: int
    worst: float
    best_seed: int
    best: float
    worst_tied: int
    best_tied: int


class ClassTransfer(NamedTuple):
    """One class in one score.

    Attributes:
        name: the class.
        question: `colour` or `class`.
        found: single-task against multi-task, on the images of the class.
        bounds: the interval of the difference, over seeds and images where images have scores.
        p: exact sign-flip, over seeds, on these test images; `p_adjusted` over all rows.
        word: `hurt`, `helped`, or empty where p and interval do not both tell it from 0, or seeds are too few.
    """

    name: str
    question: str
    found: Contrast
    bounds: Bounds
    p: float
    p_adjusted: float
    word: str


class ImageFlips(NamedTuple):
    """Shares of images that changed sides from single to multi-task, mean over seeds.

    Attributes:
        name: the class, or None for all images.
        images: of it.
        seeds: that both arms finished.
        right_to_wrong: share lost; `wrong_to_right`: share won; `net`: won minus lost, the change of accuracy.
        interval: of `net`, 95 %, Student's t over seeds; None of one seed.
    """

    name: str | None
    images: int
    seeds: tuple[int, ...]
    right_to_wrong: float
    wrong_to_right: float
    net: float
    interval: Interval | None


def seed_transfer(study: Study) -> list[SeedTransfer]:
    """Count for each question the seeds that multi-task hurts; a diverged run has its declared score."""
    found = ((name, asked, primary(study, name)) for name, asked in questions(study).items())
    return [
        _seeds(name, asked, each)
        for name, asked, each in found
        if each is not None and np.isfinite(each.scores).all()
    ]


def class_transfer(study: Study) -> list[ClassTransfer]:
    """Compare every class in both scores over the seeds that both arms finished; a diverged run has no such score.

    p is the exact sign-flip one, adjusted over all rows by Benjamini and Hochberg.
    """
    contrasts = {
        (name, label): found
        for name, asked in questions(study).items()
        for label in study.classes
        if (found := _of_class(study, asked, label, CLASS_SCORES[name]))
    }
    adjusted = benjamini_hochberg({" ".join(key): found.p for key, found in contrasts.items()})
    return [
        _class_row(name, label, found, adjusted[f"{name} {label}"])
        for (name, label), found in contrasts.items()
    ]


def _class_row(question: str, label: str, found: Contrast, p_adjusted: float) -> ClassTransfer:
    bounds = found.bounds(LEVEL)
    clear = bounds.is_clear(len(found.seeds), p_adjusted)
    word = ("helped" if found.better else "hurt") if clear else ""
    return ClassTransfer(label, question, found, bounds, found.p, p_adjusted, word)


def image_flips(study: Study) -> list[ImageFlips]:
    """Count the images whose class one arm tells and the other does not: all of them first, then by class.

    Shares are of all labelled images, so `net` is the change of accuracy, which is that of balanced accuracy
    only where classes are equally large. Nothing where the arms were scored on different images.
    """
    asked = questions(study).get("class")
    pairs = finished_pairs(study, asked) if asked else {}
    tables = [{row["index"]: row for row in run.images if row.get("label") and row.get("correct") is not None}
              for runs in pairs.values() for run in runs]  # fmt: skip
    if not tables or not tables[0] or any(each.keys() != tables[0].keys() for each in tables):
        return []
    right = np.array([[each[index]["correct"] for index in tables[0]] for each in tables])
    labels = np.array([row["label"] for row in tables[0].values()])
    groups: list[tuple[str | None, NDArray[np.bool_]]] = [(None, np.ones(len(labels), bool))]
    groups += [(name, labels == name) for name in study.classes if name in labels]
    return [_flips(name, tuple(pairs), right[::2, chosen], right[1::2, chosen]) for name, chosen in groups]


def seed_transfer_rows(study: Study) -> Table:
    """Return `seed_transfer` as text; header first."""
    rows: Table = [["Question", "Metric", "Counts as worse beyond", "Seeds worse", "Share, %", "95 % interval",
                    "Worst seed", "Best seed"]]  # fmt: skip
    found = {row.question: row for row in seed_transfer(study)}
    for name, asked in questions(study).items():
        unit = study.metrics.get(asked.metric, {}).get("unit", "")
        cells = [
            QUESTION_LABELS.get(name, name),
            metric_label(study, asked.metric),
            number(asked.sesoi, unit),
        ]
        if (row := found.get(name)) is None:
            rows.append([*cells, *[MISSING] * 5])
            continue
        ends = [f"{difference(row.level, row.level + gap, unit)} (seed {seed}{f', tied with {tied} more' * bool(tied)})"
                for gap, seed, tied in ((row.worst, row.worst_seed, row.worst_tied),
                                        (row.best, row.best_seed, row.best_tied))]  # fmt: skip
        low, high = (number(end, "share") for end in row.hurt.interval)
        count = f"{row.hurt.count} of {row.hurt.of}"
        rows.append([*cells, count, number(row.hurt.share, "share"), f"{low} to {high}", *ends])
    return rows


def class_transfer_rows(study: Study) -> Table:
    """Return `class_transfer` as text; header first."""
    rows: Table = [["Class", "Score", "Single-task", "Multi-task", "Difference", "Interval", "p over seeds",
                    "p, adjusted", "Seeds", ""]]  # fmt: skip
    for row in class_transfer(study):
        found, unit = row.found, "share" if row.found.metric == "accuracy" else ""
        title = "Recall, %" if unit else metric_label(study, found.metric)
        cells = [*(number(level, unit) for level in found.levels), difference(*found.levels, unit)]
        cells += [bounds_text(found, row.bounds, unit), p_text(row.p), p_text(row.p_adjusted)]
        rows.append([spaced(row.name), title, *cells, len(found.seeds), row.word])
    return rows


def image_flips_rows(study: Study) -> Table:
    """Return `image_flips` as text, in per cent of the images; header first."""
    rows: Table = [["Class", "Images", "Right to wrong, %", "Wrong to right, %", "Net, points",
                    OVER_SEEDS, "Seeds"]]  # fmt: skip
    for row in image_flips(study):
        shares = [number(row.right_to_wrong, "share"), number(row.wrong_to_right, "share")]
        net = [difference(0.0, row.net, "share"), interval_text(0.0, row.interval, "share")]
        name = "All" if row.name is None else spaced(row.name)
        rows.append([name, row.images, *shares, *net, len(row.seeds)])
    return rows


def _seeds(name: str, asked: Question, found: Contrast) -> SeedTransfer:
    gaps = found.differences
    worst = int(np.argmax(gaps if found.lower_is_better else -gaps))
    best = int(np.argmin(gaps if found.lower_is_better else -gaps))
    ends = (found.seeds[worst], float(gaps[worst]), found.seeds[best], float(gaps[best]))
    tied = [int(np.count_nonzero(gaps == gaps[place])) - 1 for place in (worst, best)]
    return SeedTransfer(
        name, asked.metric, asked.sesoi, found.levels[0], found.hurt(asked.sesoi), *ends, *tied
    )


def _of_class(study: Study, asked: Question, label: str, name: str) -> Contrast | None:
    arms = (asked.single, asked.multi)
    sides = [{run.seed: run for run in study.finished(arm)} for arm in arms]
    return paired(study, name, arms, sides, lambda run: _class_score(run, label, name), label)


def _class_score(run: Run, label: str, name: str) -> float | None:
    value = run.scores.get("per_class", {}).get(label, {}).get(name)
    return value if value is not None and np.isfinite(value) else None


def _flips(
    name: str | None, seeds: tuple[int, ...], before: NDArray[np.float64], after: NDArray[np.float64]
) -> ImageFlips:
    lost, won = flips(before, after)
    net = won - lost
    shares = (float(lost.mean()), float(won.mean()), float(net.mean()))
    return ImageFlips(name, before.shape[1], seeds, *shares, bounded_interval(net, (-1.0, 1.0)))
