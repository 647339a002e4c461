"""The two questions of the study, answered in words with numbers, and never beyond what the numbers carry."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from knowhue.plan import MIN_SEEDS
from knowhue.report.chance import Pairs, picture_interval
from knowhue.report.contrasts import Contrast, primary, questions, score
from knowhue.report.records import TASK_METRICS, Study, mean, spaced
from knowhue.report.verdicts import Verdict, verdicts
from knowhue.statistics.paired import Interval


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
    """`helps`, `hurts`, `equivalent`, `inconclusive`, `none` (too few seeds, or runs missing) or `missing`."""
    headline: str
    detail: str
    caveat: str = ""
    """What must be said first: a trivial baseline is not beaten, or a run is not among the numbers."""
    evidence: str = ""
    """The intervals, tests and effect sizes behind a verdict; empty without one."""
    single: float | None = None
    multi: float | None = None
    interval: Interval | None = None

    @property
    def sentence(self) -> str:
        """All of it in words."""
        return f"{self.caveat} {self.headline}: {self.detail} {self.evidence}".strip()


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


def answer(study: Study, question: str, judged: Mapping[str, Verdict] | None = None) -> Answer:
    """Answer one of the two questions.

    The estimate is the mean over seeds of multi-task minus single-task, paired by seed. With at least
    `MIN_SEEDS` seeds, all of them ended, there is a verdict (see `report.verdicts`); otherwise there is none, and
    the interval is over the pictures of these very runs.

    Args:
        study: the study, in any state.
        question: `colour` (mean absolute error of a*b*, lower is better) or `class` (balanced accuracy).
        judged: the `verdicts` of this study, if at hand.
    """
    words = WORDINGS[question]
    caveat = " ".join(filter(None, (_beaten_by_baseline(study, question), _lost(study, question))))
    found = primary(study, question)
    if found is None:
        return Answer(words.question, "missing", "No answer yet", _what_is_missing(study, question), caveat)
    verdict = (judged or verdicts(study))[question]
    settled = verdict.word != "none"
    interval = found.interval if settled else picture_interval(found.pairs, words.column)
    claim = _claim(words, verdict.word, len(found.seeds), *found.levels)
    return Answer(
        words.question,
        verdict.word,
        _headline(words, verdict, len(found.seeds)),
        claim if settled else f"{claim} {_pictures_text(words, interval, _picture_count(found.pairs))}",
        caveat,
        evidence(study, question, found, verdict) if settled else "",
        *found.levels,
        interval,
    )


def evidence(study: Study, question: str, found: Contrast, verdict: Verdict) -> str:
    """Say what carries a verdict: intervals over seeds and over both populations, p, effect size, wins."""
    words, margin = WORDINGS[question], questions(study)[question].sesoi
    both = f", over seeds and pictures {_ends(words, found.population)}" if found.population else ""
    effect = (
        f"d_z = {found.effect:.2f}".replace("-", "−") if found.effect is not None else "d_z has no spread"
    )
    low, high = found.wins.interval
    return (
        f"95 % interval of the paired difference over seeds (Student's t) {_ends(words, found.interval)}{both}; "
        f"smallest effect of interest {words.amount(margin)}. Exact sign-flip p = {_p(verdict.p)}, "
        f"{_p(verdict.p_holm)} after Holm over both questions; equivalence p = {_p(verdict.p_equivalent)}. "
        f"{effect}; better in {found.wins.count} of {found.wins.of} seeds "
        f"({100 * low:.0f} to {100 * high:.0f} %, Wilson)."
    )


def _p(value: float | None) -> str:
    return "none" if value is None else "below .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def _picture_count(pairs: Pairs) -> int:
    return int(pairs[0][1].scores.get("pictures") or len(pairs[0][1].images)) if pairs else 0


def _headline(words: Wording, verdict: Verdict, seeds: int) -> str:
    if verdict.word == "inconclusive":
        needed = verdict.seeds_needed
        if needed is None:
            return "Inconclusive (no number of seeds within reach would tell)"
        if needed <= seeds:
            return "Inconclusive (the difference lies near the smallest effect of interest)"
        return f"Inconclusive (a new study would need about {needed} seeds)"
    known = {
        "none": "No verdict yet",
        "equivalent": f"Multi-task training makes no difference that matters to {words.does}",
    }
    return known.get(verdict.word, f"Multi-task training {verdict.word} {words.does}")


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


def _ends(words: Wording, interval: Interval | None) -> str:
    """An interval as signed text with its unit."""
    if interval is None:
        return "unknown"
    scale, unit = (1, "CIELAB units") if words.lower_is_better else (100, "points")
    places = 2 if words.lower_is_better else 1
    ends = [f"{scale * end:+.{places}f}" for end in interval]
    return f"{' to '.join(ends)} {unit}".replace("-", "−")


def _pictures_text(words: Wording, interval: Interval | None, pictures: int) -> str:
    if interval is None:
        return "No interval can be given from these scores."
    return (
        f"Over the {pictures} validation pictures of these runs the 95 % interval of the difference is "
        f"{_ends(words, interval)} (normal, over pictures), which speaks for these trained models, not for the method."
    )


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
    """Name the runs that give no number, and those that were given one: none is dropped in silence."""
    asked = questions(study)[question]
    sides = (("single-task", asked.single), ("multi-task", asked.multi))
    runs = [(label, run) for label, arm in sides for run in study.of(arm)]
    lost = [
        f"{label} seed {run.seed} ({'has no score' if run.finished else _STATES.get(run.state, run.state)})"
        for label, run in runs
        if score(study, run, asked.metric) is None
    ]
    given = [f"{label} seed {run.seed}" for label, run in runs if run.state == "diverged"]
    return " ".join(
        (f"Left out of the numbers: {', '.join(lost)}.",) * bool(lost)
        + (
            f"Diverged, and given the score of “{spaced(asked.if_diverged)}” as declared: {', '.join(given)}.",
        )
        * bool(given)
    )


def _what_is_missing(study: Study, question: str) -> str:
    sides = (("single-task", question), ("multi-task", "multi"))
    absent = [
        f"no finished run of the {label} arm (“{arm}”)" for label, arm in sides if not study.finished(arm)
    ]
    missing = " and ".join(absent) or "no seed of which both arms finished with a number"
    command = re.sub(r"\s--arms?[ =]\S+", "", str(study.settings.get("command") or "knowhue study"))
    return f"there is {missing}. Make it with: {command}"
