"""The questions of a study, judged together: one phrase each, and what it rests on."""

from collections.abc import Iterable
from typing import NamedTuple

from knowhue.report.chance import Bounds
from knowhue.report.contrasts import Contrast, lower_is_better, primary, question_alpha, questions
from knowhue.report.records import Study, floors, mean
from knowhue.statistics.verdicts import (
    Needed,
    Word,
    at_limit,
    judge,
    more_images_needed,
    needed,
    not_better,
)


class Judged(NamedTuple):
    """What may be said of a question.

    Attributes:
        word: the phrase; `no verdict` with too few seeds, or while any asked question has runs missing.
        alpha: of this question.
        found: the contrast; None without a pair of runs.
        quoted: the interval that decided, to be quoted by every sentence, figure and table.
        outer: at 1 - alpha, `inner`: at 1 - 2 alpha.
        limit: why the metric cannot tell the arms apart (`ceiling`, `floor`); empty where it can.
        needed: seeds of a new study that would tell; None where nothing can be said.
        more_images: whether more images would buy more than more seeds.
    """

    word: Word
    alpha: float
    found: Contrast | None = None
    quoted: Bounds | None = None
    outer: Bounds | None = None
    inner: Bounds | None = None
    limit: str = ""
    needed: Needed | None = None
    more_images: bool = False


def verdicts(study: Study) -> dict[str, Judged]:
    """Judge all questions; none before all of them have all their seeds, and none of a tuning study."""
    planned = len(study.settings.get("seeds", ()))
    found = {name: primary(study, name) for name in questions(study)}
    complete = all(each is not None and len(each.seeds) == planned for each in found.values())
    complete = complete and not study.is_tuning
    return {name: _judged(study, name, each, complete) for name, each in found.items()}


def beaten(study: Study, metric: str, levels: tuple[float | None, float | None]) -> dict[int, list[str]]:
    """Return which of two levels (0 single-task, 1 multi-task) are not better than which trivial baselines."""
    lower, trivial = lower_is_better(study, metric), floors(study.baselines, metric)
    found = {
        place: [name for name, floor in trivial.items() if not_better(level, floor, lower)]
        for place, level in enumerate(levels)
        if level is not None
    }
    return {place: names for place, names in found.items() if names}


def levels(study: Study, metric: str, arms: tuple[str, str]) -> tuple[float | None, float | None]:
    """Return the means of two arms over their finished seeds."""
    before, after = (mean([run.metric(metric) for run in study.finished(arm)]) for arm in arms)
    return before, after


def judged(
    found: Contrast | None, sesoi: float, alpha: float, trivial: Iterable[float], complete: bool
) -> Judged:
    """Judge one contrast: of a study's question, or of a comparison's method.

    Args:
        found: the contrast; None without a pair of runs.
        sesoi: the smallest effect of interest.
        alpha: of this question.
        trivial: scores of the trivial baselines.
        complete: whether all that is asked has all its seeds.
    """
    if found is None:
        return Judged(Word.NO_VERDICT, alpha)
    best = found.limits[0 if found.lower_is_better else 1]
    limit = at_limit(found.levels, best, sesoi, trivial, found.lower_is_better)
    outer, inner = found.bounds(1 - alpha), found.bounds(1 - 2 * alpha)
    said = judge(
        len(found.seeds), found.p, lambda level: found.bounds(level).interval, sesoi, alpha,
        found.lower_is_better, complete, bool(limit),
    )  # fmt: skip
    quoted = inner if said.level == inner.level else outer
    need = needed(found.parts, sesoi, alpha) if found.parts else None
    more = bool(found.crossed and more_images_needed(found.crossed))
    return Judged(said.word, alpha, found, quoted, outer, inner, limit, need, more)


def _judged(study: Study, question: str, found: Contrast | None, complete: bool) -> Judged:
    asked = questions(study)[question]
    trivial = floors(study.baselines, asked.metric).values()
    return judged(found, asked.sesoi, question_alpha(study), trivial, complete)
