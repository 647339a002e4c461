"""Validation scores at equal training loss: what is left when neither arm has merely fitted further."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from knowhue.plan import Question
from knowhue.report.contrasts import questions
from knowhue.report.matched import (
    OVER_SEEDS,
    QUESTION_LABELS,
    Matched,
    finished_pairs,
    interval_text,
    matched,
    metric_label,
)
from knowhue.report.records import Run, Study, Table, spaced
from knowhue.report.tables import MISSING, difference, number

TRAIN_LOSSES = {"ab_l1": "l1", "balanced_accuracy": "cross_entropy"}
"""The training loss that stands for a metric."""


class LossMatched(NamedTuple):
    """One question at equal train loss.

    Attributes:
        match: the validation scores there.
        loss: name of the train loss; `level`: mean over seeds of its common level, as logged.
        apart: seeds left out, in which the two arms' train losses have no level in common.
    """

    match: Matched
    loss: str
    level: float
    apart: tuple[int, ...]


def equal_train_loss(study: Study) -> list[LossMatched]:
    """Return both questions at equal train loss: does the second task change what the same fit generalises to?

    For each seed the level is the lowest train loss (`l1`, `cross_entropy`) that both arms came to in fine-tuning.
    Either arm's validation score is taken where its train loss first comes to that level, on the line between two
    epochs. Approximated: a train loss is the mean over an epoch, its score is from the end of it; and the arm that
    fits faster is caught before its learning rate has come down. A seed whose train losses do not overlap is left
    out and named; a question without any other seed has no row.
    """
    rows = [_loss_matched(study, name, asked) for name, asked in questions(study).items()]
    return [row for row in rows if row is not None]


def equal_train_loss_rows(study: Study) -> Table:
    """Return `equal_train_loss` as text; header first."""
    rows: Table = [["Question", "Metric", "Train loss", "At", "Single-task", "Multi-task", "Difference",
                    OVER_SEEDS, "Seeds"]]  # fmt: skip
    found = {row.match.question: row for row in equal_train_loss(study)}
    for name, asked in questions(study).items():
        cells = [QUESTION_LABELS.get(name, name), metric_label(study, asked.metric)]
        row, unit = found.get(name), study.metrics.get(asked.metric, {}).get("unit", "")
        if row is None:
            rows.append([*cells, spaced(TRAIN_LOSSES.get(asked.metric, MISSING)), *[MISSING] * 5, 0])
            continue
        match = row.match
        sides = [number(match.single, unit), number(match.multi, unit)]
        gap = [difference(match.single, match.multi, unit), interval_text(match.single, match.interval, unit)]
        rows.append([*cells, spaced(row.loss), number(row.level), *sides, *gap, len(match.seeds)])
    return rows


def _loss_matched(study: Study, name: str, asked: Question) -> LossMatched | None:
    loss = TRAIN_LOSSES.get(asked.metric)
    if loss is None:
        return None
    pairs, levels, apart = {}, [], []
    for seed, (single, multi) in finished_pairs(study, asked).items():
        first, second = _tuning(single, loss, asked.metric), _tuning(multi, loss, asked.metric)
        level = _common_level(first, second)
        scores = [None if level is None else _at_level(each, level) for each in (first, second)]
        if level is None or None in scores:
            apart.append(seed)
        else:
            pairs[seed] = (scores[0], scores[1])
            levels.append(level)
    match = matched(name, asked.metric, pairs)
    return None if match is None else LossMatched(match, loss, float(np.mean(levels)), tuple(apart))


def _tuning(run: Run, loss: str, metric: str) -> list[tuple[float, float]]:
    """Return (train loss, validation score) of each fine-tuning epoch that has both."""
    entries = [entry for entry in run.log if entry.get("phase") == "finetune"]
    found = [(entry.get("train", {}).get(loss), entry.get("validation", {}).get(metric)) for entry in entries]
    return [pair for pair in found if None not in pair and np.isfinite(pair).all()]


def _common_level(
    first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]]
) -> float | None:
    """Return the lowest train loss that both came to; None where they have none in common."""
    losses = [[loss for loss, _ in side] for side in (first, second)]
    if not all(losses):
        return None
    level = max(map(min, losses))
    return level if level <= min(map(max, losses)) else None


def _at_level(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """Return the score where the loss first comes to a level, on the line between two epochs."""
    for (loss, score), (next_loss, next_score) in pairwise(curve):
        if min(loss, next_loss) <= level <= max(loss, next_loss):
            share = 0.0 if loss == next_loss else (level - loss) / (next_loss - loss)
            return score + share * (next_score - score)
    return curve[0][1] if len(curve) == 1 else None  # one epoch overlaps only where it is the level
