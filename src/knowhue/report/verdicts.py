"""From a contrast and a smallest effect of interest to one word: helps, hurts, equivalent, inconclusive."""

from typing import NamedTuple

import numpy as np

from knowhue.plan import MIN_SEEDS
from knowhue.report.contrasts import Contrast, primary, questions
from knowhue.report.records import Study
from knowhue.statistics.multiplicity import holm
from knowhue.statistics.paired import tost_p
from knowhue.statistics.power import equivalence_seeds, seeds_needed

DEFAULT_ALPHA = 0.05


class Verdict(NamedTuple):
    """What may be said of a question.

    Attributes:
        word: `helps`, `hurts`, `equivalent`, `inconclusive`; `none` below 7 seeds or with runs missing.
        p: exact sign-flip, and `p_holm`, adjusted over the co-primary questions.
        p_equivalent: of two one-sided t tests against the smallest effect of interest, Holm-adjusted.
        seeds_needed: in all, of a new study that would tell (80 % power) an effect as large as the smallest of
            interest from none, or show equivalence if there is none; None where nothing can be said.
    """

    word: str
    p: float | None = None
    p_holm: float | None = None
    p_equivalent: float | None = None
    seeds_needed: int | None = None


def verdicts(study: Study) -> dict[str, Verdict]:
    """Judge the questions together: Holm's adjustment needs them all."""
    asked = questions(study)
    found = {name: each for name in asked if (each := primary(study, name)) is not None}
    alpha = study.settings.get("alpha", DEFAULT_ALPHA)
    p = {name: each.p for name, each in found.items()}
    near = {name: tost_p(each.differences, asked[name].sesoi) for name, each in found.items()}
    adjusted = holm(p)
    equivalent = holm({name: value for name, value in near.items() if value is not None})
    planned = len(study.settings.get("seeds", ()))
    reports = not study.is_tuning
    return {
        name: Verdict(
            _word(found[name], adjusted[name], equivalent.get(name, 1.0), alpha)
            if reports and len(found[name].seeds) == planned >= MIN_SEEDS
            else "none",
            p[name],
            adjusted[name],
            equivalent.get(name),
            _needed(found[name], asked[name].sesoi, alpha / len(asked)),
        )
        if name in found
        else Verdict("none")
        for name in asked
    }


def _word(contrast: Contrast, p: float, p_equivalent: float, alpha: float) -> str:
    """Equivalence comes first: an effect shown to be smaller than what matters neither helps nor hurts."""
    if p_equivalent <= alpha:
        return "equivalent"
    if p <= alpha:
        return "helps" if contrast.better else "hurts"
    return "inconclusive"


def _needed(contrast: Contrast, sesoi: float, alpha: float) -> int | None:
    """Seeds that would settle it either way; never fewer than a verdict asks for."""
    if len(contrast.seeds) < 2:
        return None
    spread = float(np.std(contrast.differences, ddof=1))
    if not spread:
        return MIN_SEEDS
    either = (seeds_needed(sesoi / spread, alpha), equivalence_seeds(sesoi / spread, alpha))
    return None if None in either else max(MIN_SEEDS, *(n for n in either if n is not None))
