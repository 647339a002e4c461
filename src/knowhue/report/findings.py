"""What is found of a study's questions, worked out once: verdicts, further metrics, and what could have been gained."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from knowhue.report.arms import sides
from knowhue.report.contrasts import Bounds, Contrast, contrast, lower_is_better, primary
from knowhue.report.study import Study, floors
from knowhue.statistics import LEVEL
from knowhue.statistics.paired import benjamini_hochberg, mean
from knowhue.statistics.verdicts import (
    Needed,
    Word,
    at_limit,
    judge,
    more_images_needed,
    needed,
    not_better,
)

ORACLE = "oracle"
"""The arm that is given the true class: how much the label at test time can give, no bound on joint training."""


class Judged(NamedTuple):
    """The verdict on a question, and what it rests on.

    Attributes:
        word: the phrase; `no verdict` with too few seeds, or while any asked question has runs missing.
        alpha: of this question.
        found: the contrast; None without a pair of runs.
        quoted: the interval that decided, to be quoted by every sentence, figure and table.
        outer: at 1 - alpha, `inner`: at 1 - 2 alpha.
        limit: why the metric cannot tell the arms apart (`ceiling`, `floor`); empty where it can.
        needed: seeds of a new study that would decide; None where nothing is known of chance.
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


class Secondary(NamedTuple):
    """A metric of a question that is not its primary one.

    Attributes:
        question: one of the study's.
        metric: a key of `METRICS`, or `recognition`.
        named: whether the plan names it; the others are exploratory.
        found: single-task against multi-task.
        bounds: the 95 % interval of the difference.
        p: exact sign-flip; None of one seed.
        p_adjusted: over seeds, on these test images; by Benjamini and Hochberg over
            all that are named, or over all that are not.
    """

    question: str
    metric: str
    named: bool
    found: Contrast
    bounds: Bounds
    p: float | None
    p_adjusted: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the difference may have a mark: by the test and by the interval over seeds and images."""
        return self.bounds.is_clear(len(self.found.seeds), self.p_adjusted)


class Headroom(NamedTuple):
    """How much single-task leaves to be gained, or has gained, in the metric's unit; positive is better.

    Attributes:
        name: `oracle`, or the best trivial baseline.
        gain: by how much the oracle is better than single-task, or single-task than the baseline.
        share: the smallest effect of interest over it; None where there is no gain.
        bounds: of the oracle's gain; None of a baseline.
    """

    name: str
    gain: float
    share: float | None
    bounds: Bounds | None = None

    def below(self, sesoi: float) -> bool:
        """Whether the gain is shown to be smaller: by the upper end of its interval, not by the estimate."""
        ends = self.bounds and self.bounds.interval
        return ends is not None and ends[1] < sesoi


class Findings(NamedTuple):
    """All that is concluded of a study, for `results.json` and the page alike."""

    study: Study
    verdicts: Mapping[str, Judged]
    secondary: list[Secondary]
    headroom: Mapping[str, list[Headroom]]


def find(study: Study) -> Findings:
    """Judge all questions of a study, test its further metrics, and see what could have been gained."""
    headroom = {question: headrooms(study, question) for question in study.questions}
    return Findings(study, verdicts(study), secondaries(study), headroom)


def verdicts(study: Study) -> dict[str, Judged]:
    """Judge all questions; none before all of them have all their seeds, and none of a tuning study."""
    found = {name: primary(study, name) for name in study.questions}
    # settings are chosen by a tuning study, so its numbers say nothing of the method
    complete = not study.is_tuning and all(
        each is not None and len(each.seeds) == len(study.seeds) for each in found.values()
    )
    return {
        name: judged(
            found[name], asked.sesoi, study.alpha, floors(study.baselines, asked.metric).values(), complete
        )
        for name, asked in study.questions.items()
    }


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
    verdict = judge(
        len(found.seeds), found.p, lambda level: found.bounds(level).interval, sesoi, alpha,
        found.lower_is_better, complete, bool(limit),
    )  # fmt: skip
    quoted = inner if verdict.level == inner.level else outer
    need = needed(found.parts, sesoi, alpha) if found.parts else None
    more = bool(found.crossed and more_images_needed(found.crossed))
    return Judged(verdict.word, alpha, found, quoted, outer, inner, limit, need, more)


def beaten(study: Study, metric: str, levels: tuple[float | None, float | None]) -> dict[int, list[str]]:
    """Return which of two levels (0 single-task, 1 multi-task) are not better than which trivial baselines."""
    lower, trivial = lower_is_better(study.metrics, metric), floors(study.baselines, metric)
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


def secondaries(study: Study) -> list[Secondary]:
    """Return all metrics that both arms of a question have and that have a better direction, the named ones first."""
    rows = [row for question in study.questions for row in _of_question(study, question)]
    adjusted: dict[tuple[str, str], float] = {}
    for named in (True, False):
        adjusted |= benjamini_hochberg(
            {row[:2]: row.p for row in rows if row.named == named and row.p is not None}
        )
    return [row._replace(p_adjusted=adjusted.get(row[:2])) for row in rows]


def _of_question(study: Study, question: str) -> list[Secondary]:
    asked, arms = study.questions[question], sides(study, question)
    theirs = set(study.metric_names(arms.multi)) - {asked.metric}
    names = [name for name in study.metric_names(arms.single) if name in theirs and _is_judged(study, name)]
    rows = []
    # named ones first; sorting is stable, so both groups keep their order
    for name in sorted(names, key=lambda name: name not in asked.secondary):
        if (found := contrast(study, name, *arms)) is not None:
            # of one seed p is 1 whatever was found
            p = found.p if len(found.seeds) > 1 else None
            rows.append(Secondary(question, name, name in asked.secondary, found, found.bounds(LEVEL), p))
    return rows


def _is_judged(study: Study, metric: str) -> bool:
    return metric == "recognition" or study.metrics.get(metric, {}).get("better") in ("lower", "higher")


def headrooms(study: Study, question: str) -> list[Headroom]:
    """Return what the oracle adds to single-task, if there is one, and what single-task adds to the best baseline."""
    asked = study.questions[question]
    sign = -1 if lower_is_better(study.metrics, asked.metric) else 1
    rows = []
    found = contrast(study, asked.metric, asked.single, ORACLE)
    if found is not None and asked.single != ORACLE:
        # at the level of equivalence, the claim that it stands beside
        bounds = found.bounds(1 - 2 * study.alpha)
        rows.append(_headroom(ORACLE, sign * found.estimate, asked.sesoi, bounds.turned(sign)))
    level = mean([run.metric(asked.metric) for run in study.finished(asked.single)])
    trivial = {name: sign * value for name, value in floors(study.baselines, asked.metric).items()}
    if level is not None and trivial:
        best = max(trivial, key=lambda name: trivial[name])
        rows.append(_headroom(best, sign * level - trivial[best], asked.sesoi))
    return rows


def _headroom(name: str, gain: float, sesoi: float, bounds: Bounds | None = None) -> Headroom:
    return Headroom(name, gain, sesoi / gain if gain > 0 else None, bounds)
