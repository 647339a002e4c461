"""How the tasks pulled at the shared encoder during training, and whether that foretold the transfer: seed by seed.

Conflict of gradients is known not to foretell generalisation (Mueller et al., TMLR) and affinity only weakly
(Azorin et al. 2023), so what stands here describes and is never a verdict.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from knowhue.report.contrasts import primary, questions
from knowhue.report.diagnostics import DIAGNOSTICS, seed_diagnostics
from knowhue.report.matched import QUESTION_LABELS
from knowhue.report.records import Study, Table
from knowhue.report.tables import MISSING, p_text
from knowhue.statistics import ALPHA

FEWEST = 7
"""Seeds; with them a rank correlation reaches p = .05 from .79 on."""
RESAMPLES = 9999  # all pairings of 7 seeds are 5040, so p is exact there, and drawn beyond


class Prediction(NamedTuple):
    """Whether a diagnostic foretold the transfer of a question, over seeds.

    Attributes:
        name: a key of `DIAGNOSTICS`.
        question: `colour` or `class`.
        seeds: that have both.
        correlation: Spearman's, with the paired difference turned so that positive is better; None with fewer
            than 7 seeds, or where one of the two is the same for all.
        p: two-sided, by permutation; not adjusted for the number of rows.
        word: `yes in sign` (the promised sign, and p <= .05), `no`, `no promise`, or `too few seeds`.
    """

    name: str
    question: str
    seeds: int
    correlation: float | None
    p: float | None
    word: str


def predictions(study: Study) -> list[Prediction]:
    """Set each diagnostic beside the transfer of each question, over seeds; nothing without diagnostics.

    Transfer is the paired difference of the primary metric, positive where multi-task is better. With a few tens
    of rows some reach p <= .05 by chance.
    """
    rows = []
    for question, asked in questions(study).items():
        found = {each.seed: each.values for each in seed_diagnostics(study, asked.multi)}
        transfer = _transfer(study, question)
        for name in DIAGNOSTICS if found else ():
            known = [(value, transfer[seed]) for seed, values in found.items()
                     if seed in transfer and (value := values[name]) is not None]  # fmt: skip
            rows.append(_predict(name, question, known))
    return rows


def prediction_rows(study: Study) -> Table:
    """Return `predictions` as text; header first."""
    header = ["Diagnostic", "Question", "Spearman correlation", "p", "Seeds", "Did it predict the transfer?"]
    rows: Table = [header]
    for row in predictions(study):
        numbers = [MISSING if row.correlation is None else f"{row.correlation:+.2f}".replace("-", "−"),
                   p_text(row.p), row.seeds]  # fmt: skip
        rows.append([DIAGNOSTICS[row.name].title, QUESTION_LABELS[row.question], *numbers, row.word])
    return rows


def _transfer(study: Study, question: str) -> dict[int, float]:
    """Return multi minus single by seed, turned so that positive is better."""
    found = primary(study, question)
    if found is None:
        return {}
    sign = -1 if found.lower_is_better else 1
    pairs = zip(found.seeds, (sign * found.differences).tolist(), strict=True)
    return {seed: gap for seed, gap in pairs if math.isfinite(gap)}


def _predict(name: str, question: str, known: Sequence[tuple[float, float]]) -> Prediction:
    if len(known) < FEWEST:
        return Prediction(name, question, len(known), None, None, "too few seeds")
    promise = DIAGNOSTICS[name].promise.get(question, 0)
    first, second = np.array(known, float).T
    if not np.ptp(first) or not np.ptp(second):
        return Prediction(name, question, len(known), None, None, "no" if promise else "no promise")
    ranks = stats.rankdata(second)
    found = stats.permutation_test(
        (stats.rankdata(first),), lambda x, axis: _correlations(x, ranks), permutation_type="pairings",
        vectorized=True, n_resamples=RESAMPLES, rng=np.random.default_rng(0),
    )  # fmt: skip
    correlation, p = float(found.statistic), float(found.pvalue)
    foretold = p <= ALPHA and correlation * promise > 0
    word = "yes in sign" if foretold else "no" if promise else "no promise"
    return Prediction(name, question, len(known), correlation, p, word)


def _correlations(permuted: NDArray[np.float64], ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation of ranks along the last axis, which is Spearman's."""
    first = permuted - permuted.mean(axis=-1, keepdims=True)
    second = ranks - ranks.mean()
    return (first @ second) / np.sqrt(np.square(first).sum(axis=-1) * np.square(second).sum())
