"""The questions of a study, judged together: one phrase each, and what it rests on."""

from typing import NamedTuple

from knowhue.report.chance import Bounds
from knowhue.report.contrasts import Contrast, lower_is_better, primary, question_alpha, questions
from knowhue.report.records import Study, mean
from knowhue.statistics.verdicts import Needed, Word, judge, more_images_needed, needed


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


def at_limit(study: Study, question: str, found: Contrast) -> str:
    """Return why the metric cannot tell two arms apart; empty where it can.

    `ceiling`: both are within one smallest effect of its best value. `floor`: neither is better than some trivial
    baseline.
    """
    asked = questions(study)[question]
    best = found.limits[0 if found.lower_is_better else 1]
    if all(abs(level - best) <= asked.sesoi for level in found.levels):
        return "ceiling"
    return "floor" if len(beaten(study, asked.metric, found.levels)) == 2 else ""


def beaten(study: Study, metric: str, levels: tuple[float | None, float | None]) -> dict[int, list[str]]:
    """Return which of two levels (0 single-task, 1 multi-task) are not better than which trivial baselines."""
    sign = -1 if lower_is_better(study, metric) else 1
    floors = {name: values.get(metric) for name, values in study.baselines.items() if name != "real"}
    found = {
        place: [name for name, floor in floors.items() if floor is not None and sign * (level - floor) <= 0]
        for place, level in enumerate(levels)
        if level is not None
    }
    return {place: names for place, names in found.items() if names}


def levels(study: Study, metric: str, arms: tuple[str, str]) -> tuple[float | None, float | None]:
    """Return the means of two arms over their finished seeds."""
    before, after = (mean([run.metric(metric) for run in study.finished(arm)]) for arm in arms)
    return before, after


def _judged(study: Study, question: str, found: Contrast | None, complete: bool) -> Judged:
    alpha = question_alpha(study)
    if found is None:
        return Judged(Word.NO_VERDICT, alpha)
    asked = questions(study)[question]
    limit = at_limit(study, question, found)
    outer, inner = found.bounds(1 - alpha), found.bounds(1 - 2 * alpha)
    said = judge(
        len(found.seeds), found.p, lambda level: found.bounds(level).interval, asked.sesoi, alpha,
        found.lower_is_better, complete, bool(limit),
    )  # fmt: skip
    quoted = inner if said.level == inner.level else outer
    need = needed(found.parts, asked.sesoi, alpha) if found.parts else None
    more = bool(found.crossed and more_images_needed(found.crossed))
    return Judged(said.word, alpha, found, quoted, outer, inner, limit, need, more)
