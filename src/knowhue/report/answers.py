"""The two questions of the study, answered in words with numbers, and never beyond what the numbers carry."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from knowhue.plan import MIN_SEEDS
from knowhue.report.records import TASK_METRICS, Run, Study, mean, spaced
from knowhue.report.statistics import Interval, picture_interval, seed_interval


@dataclass(frozen=True)
class Wording:
    """How one question is asked and its numbers are said."""

    question: str
    does: str
    column: str
    lower_is_better: bool
    level: Callable[[float], str]
    amount: Callable[[float], str]
    more: tuple[str, str]
    """Words for a smaller and for a larger multi-task value."""


@dataclass(frozen=True)
class Answer:
    """One question's answer, in parts that a page may set apart and as one sentence."""

    question: str
    verdict: str
    """`helps`, `hurts`, `inconclusive`, `none` (too few seeds or an incomplete study) or `missing`."""
    headline: str
    detail: str
    caveat: str = ""
    """What must be said first: a trivial baseline is not beaten, or a run is not among the numbers."""
    single: float | None = None
    multi: float | None = None
    interval: Interval | None = None

    @property
    def sentence(self) -> str:
        """All of it in words."""
        return f"{self.caveat} {self.headline}: {self.detail}".strip()


WORDINGS = {
    "colour": Wording(
        question="Is colouring easier for a model that also learns to classify?",
        does="colouring",
        column="ab_l1",
        lower_is_better=True,
        level=lambda value: f"is off by {value:.2f} CIELAB units",
        amount=lambda value: f"{value:.2f}",
        more=("less", "more"),
    ),
    "class": Wording(
        question="Is classifying easier for a model that also learns to colour?",
        does="classification",
        column="correct",
        lower_is_better=False,
        level=lambda value: f"is right for {100 * value:.1f} % of the pictures of an average class",
        amount=lambda value: f"{100 * value:.1f} points",
        more=("fewer", "more"),
    ),
}


def answer(study: Study, question: str) -> Answer:
    """Answer one of the two questions.

    The estimate is the mean over seeds of multi-task minus single-task, paired by seed. With at least
    `MIN_SEEDS` pairs and none lost, the verdict is whether the paired-t 95 % interval over seeds leaves
    out 0; otherwise there is no verdict, and the interval is over the pictures of these very runs.

    Args:
        study: the study, in any state.
        question: `colour` (mean absolute error of a*b*, lower is better) or `class` (balanced accuracy).
    """
    words, metric = WORDINGS[question], TASK_METRICS[question]
    caveat = " ".join(filter(None, (_beaten_by_baseline(study, question), _lost(study, question))))
    pairs = _pairs(study, question)
    if not pairs:
        return Answer(words.question, "missing", "No answer yet", _what_is_missing(study, question), caveat)
    scores = np.array([[run.metric(metric) for run in pair] for pair in pairs], float)
    complete = len(pairs) == len(study.settings.get("seeds", ())) >= MIN_SEEDS
    differences = scores[:, 1] - scores[:, 0]
    interval = seed_interval(differences) if complete else picture_interval(pairs, words.column)
    verdict = _verdict(interval, words.lower_is_better) if complete else "none"
    single, multi = scores.mean(axis=0).tolist()
    claim = _claim(words, verdict, len(pairs), single, multi)
    span = _interval_text(words, verdict, interval, _picture_count(pairs))
    return Answer(
        words.question, verdict, _headline(words, verdict), f"{claim} {span}", caveat, single, multi, interval
    )


def _picture_count(pairs: Sequence[tuple[Run, Run]]) -> int:
    return int(pairs[0][1].scores.get("pictures") or len(pairs[0][1].images))


def _pairs(study: Study, question: str) -> list[tuple[Run, Run]]:
    """Return (single, multi) of every seed of which both finished with a number."""
    metric = TASK_METRICS[question]
    multi = {run.seed: run for run in study.finished("multi") if run.metric(metric) is not None}
    return [
        (run, multi[run.seed])
        for run in study.finished(question)
        if run.seed in multi and run.metric(metric) is not None
    ]


def _verdict(interval: Interval | None, lower_is_better: bool) -> str:
    if interval is None or interval[0] <= 0 <= interval[1]:
        return "inconclusive"
    return "helps" if (interval[1] < 0) == lower_is_better else "hurts"


def _headline(words: Wording, verdict: str) -> str:
    known = {"none": "No verdict yet", "inconclusive": "Inconclusive"}
    return known.get(verdict, f"Multi-task training {verdict} {words.does}")


def _claim(words: Wording, verdict: str, count: int, single: float, multi: float) -> str:
    """Say both levels and their difference."""
    seeds = f"{count} seed{'s' * (count != 1)}"
    few = f"with {seeds} (a claim needs at least {MIN_SEEDS}, all of them finished),"
    opening = few if verdict == "none" else f"over {seeds}"
    difference = multi - single
    share = f" ({100 * abs(difference / single):.1f} %)" if words.lower_is_better and single else ""
    return (
        f"{opening} the multi-task model {words.level(multi)} and the single-task model "
        f"{words.level(single)}: {words.amount(abs(difference))} {words.more[difference > 0]}{share}."
    )


def _interval_text(words: Wording, verdict: str, interval: Interval | None, pictures: int) -> str:
    if interval is None:
        return "No interval can be given from these scores."
    scale, unit = (1, "CIELAB units") if words.lower_is_better else (100, "points")
    places = 2 if words.lower_is_better else 1
    ends = " to ".join(f"{scale * end:+.{places}f}" for end in interval).replace("-", "−") + f" {unit}"
    if verdict == "none":
        return (
            f"Over the {pictures} validation pictures of these runs the 95 % interval of the difference is "
            f"{ends} (normal, over pictures), which speaks for these trained models, not for the method."
        )
    closing = "; it includes no difference" if verdict == "inconclusive" else ""
    return f"The 95 % interval of the paired difference is {ends} (Student's t over seeds){closing}."


def _beaten_by_baseline(study: Study, question: str) -> str:
    """Say first which model is no better than knowing nothing."""
    words, metric = WORDINGS[question], TASK_METRICS[question]
    sign = -1 if words.lower_is_better else 1
    sentences = []
    for name, values in study.baselines.items():
        floor = values.get(metric)
        levels = {"single-task": question, "multi-task": "multi"}
        scores = {
            label: mean([run.metric(metric) for run in study.finished(arm)]) for label, arm in levels.items()
        }
        losers = [
            label for label, score in scores.items()
            if floor is not None and score is not None and sign * (score - floor) <= 0
        ]  # fmt: skip
        if floor is not None and losers:
            sentences.append(
                f"Not better than a trivial baseline: {' and '.join(losers)}; "
                f"“{spaced(name)}” {words.level(floor)}."
            )
    return " ".join(sentences)


_STATES = {"running": "not finished", "missing": "not started"}


def _lost(study: Study, question: str) -> str:
    """Name the runs that give no number: none is dropped in silence."""
    metric = TASK_METRICS[question]
    lost = [
        f"{label} seed {run.seed} ({'has no score' if run.finished else _STATES.get(run.state, run.state)})"
        for label, arm in (("single-task", question), ("multi-task", "multi"))
        for run in study.of(arm)
        if not run.finished or run.metric(metric) is None
    ]
    return f"Left out of the numbers: {', '.join(lost)}." if lost else ""


def _what_is_missing(study: Study, question: str) -> str:
    sides = (("single-task", question), ("multi-task", "multi"))
    absent = [
        f"no finished run of the {label} arm (“{arm}”)" for label, arm in sides if not study.finished(arm)
    ]
    missing = " and ".join(absent) or "no seed of which both arms finished with a number"
    command = re.sub(r"\s--arms?[ =]\S+", "", str(study.settings.get("command") or "knowhue study"))
    return f"there is {missing}. Make it with: {command}"
