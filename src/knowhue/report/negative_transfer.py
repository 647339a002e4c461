"""Where the second task costs: seeds, classes and pictures that a mean hides, and what is left at equal train loss."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.plan import Question
from knowhue.report.contrasts import Contrast, lower_is_better, primary, questions
from knowhue.report.matched import (
    QUESTION_LABELS,
    Matched,
    finished_pairs,
    interval_text,
    matched,
    metric_label,
)
from knowhue.report.records import Study, Table, spaced
from knowhue.report.tables import MISSING, difference, number, p_text
from knowhue.statistics.flips import flips
from knowhue.statistics.multiplicity import benjamini_hochberg
from knowhue.statistics.paired import Interval, Share, sign_flip_p, t_interval

CLASS_SCORES = {"colour": "ab_l1", "class": "accuracy"}
"""What is compared class by class; the accuracy of the pictures of one class is its recall."""
LEVEL = 0.05


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
    """One class in one score; `word` is `hurt`, `helped`, or empty where p, adjusted over all rows, is above .05."""

    name: str
    match: Matched
    p: float
    p_adjusted: float
    word: str


class PictureFlips(NamedTuple):
    """Shares of pictures that changed sides from single to multi-task, mean over seeds.

    Attributes:
        name: the class, or None for all pictures.
        pictures: of it.
        seeds: that both arms finished.
        right_to_wrong: share lost; `wrong_to_right`: share won; `net`: won minus lost, the change of accuracy.
        interval: of `net`, 95 %, Student's t over seeds; None of one seed.
    """

    name: str | None
    pictures: int
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

    p is the exact sign-flip one, adjusted over all rows by Benjamini and Hochberg; it is never below 2^(1 - seeds),
    so with 5 seeds nothing can be flagged.
    """
    pairs = {
        (name, label): found
        for name, asked in questions(study).items()
        for label in study.classes
        if (found := _class_pairs(study, asked, label, CLASS_SCORES[name]))
    }
    p = {key: sign_flip_p([multi - single for single, multi in each.values()]) for key, each in pairs.items()}
    adjusted = benjamini_hochberg({" ".join(key): value for key, value in p.items()})
    rows = []
    for (name, label), each in pairs.items():
        match = matched(name, CLASS_SCORES[name], each)
        if match is not None:
            both = (p[name, label], adjusted[f"{name} {label}"])
            rows.append(ClassTransfer(label, match, *both, _word(study, match, both[1])))
    return rows


def picture_flips(study: Study) -> list[PictureFlips]:
    """Count the pictures whose class one arm tells and the other does not: all of them first, then by class.

    Shares are of all labelled pictures, so `net` is the change of accuracy, which is that of balanced accuracy
    only where classes are equally large. Nothing where the arms were scored on different pictures.
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
    rows: Table = [["Class", "Score", "Single-task", "Multi-task", "Difference", "95 % interval over seeds", "p",
                    "p, adjusted", "Seeds", ""]]  # fmt: skip
    for row in class_transfer(study):
        match, unit = row.match, "share" if row.match.metric == "accuracy" else ""
        title = "Recall, %" if unit else metric_label(study, match.metric)
        cells = [number(match.single, unit), number(match.multi, unit)]
        cells += [
            difference(match.single, match.multi, unit),
            interval_text(match.single, match.interval, unit),
        ]
        p = (p_text(row.p), p_text(row.p_adjusted))
        rows.append([spaced(row.name), title, *cells, *p, len(match.seeds), row.word])
    return rows


def picture_flips_rows(study: Study) -> Table:
    """Return `picture_flips` as text, in per cent of the pictures; header first."""
    rows: Table = [["Class", "Pictures", "Right to wrong, %", "Wrong to right, %", "Net, points",
                    "95 % interval over seeds", "Seeds"]]  # fmt: skip
    for row in picture_flips(study):
        shares = [number(row.right_to_wrong, "share"), number(row.wrong_to_right, "share")]
        net = [difference(0.0, row.net, "share"), interval_text(0.0, row.interval, "share")]
        name = "All" if row.name is None else spaced(row.name)
        rows.append([name, row.pictures, *shares, *net, len(row.seeds)])
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


def _class_pairs(study: Study, asked: Question, label: str, score: str) -> dict[int, tuple[float, float]]:
    pairs = {
        seed: tuple(run.scores.get("per_class", {}).get(label, {}).get(score) for run in runs)
        for seed, runs in finished_pairs(study, asked).items()
    }
    return {
        seed: (single, multi)
        for seed, (single, multi) in pairs.items()
        if single is not None and multi is not None and np.isfinite([single, multi]).all()
    }


def _word(study: Study, match: Matched, p_adjusted: float) -> str:
    if p_adjusted > LEVEL:
        return ""
    return "helped" if (match.difference < 0) == lower_is_better(study, match.metric) else "hurt"


def _flips(
    name: str | None, seeds: tuple[int, ...], before: NDArray[np.float64], after: NDArray[np.float64]
) -> PictureFlips:
    found = flips(before, after)
    net = np.array(found.wrong_to_right_by_seed) - np.array(found.right_to_wrong_by_seed)
    shares = (found.right_to_wrong, found.wrong_to_right, float(net.mean()))
    return PictureFlips(name, before.shape[1], seeds, *shares, t_interval(net))
