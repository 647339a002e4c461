"""The questions of the study, answered in words with numbers, and never beyond what the numbers carry."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from knowhue.report.chance import Bounds
from knowhue.report.contrasts import Contrast, questions, score
from knowhue.report.differences import Measure, measure
from knowhue.report.headroom import ORACLE, headroom, headrooms
from knowhue.report.records import Study, plural, spaced
from knowhue.report.verdicts import Judged, beaten, levels, verdicts
from knowhue.statistics.paired import Interval
from knowhue.statistics.verdicts import Word, fewest_seeds


@dataclass(frozen=True)
class Wording:
    """How a question is asked, and what its task is called."""

    question: str
    does: str
    doing: str


@dataclass(frozen=True)
class Answer:
    """One question's answer, in parts that a page may set apart and as one sentence."""

    question: str
    verdict: str
    """A `Word`, or `missing` where no pair of runs has a score."""
    headline: str
    detail: str
    caveat: str = ""
    """What must be said first: a trivial baseline is not beaten, or a run is not among the numbers."""
    evidence: str = ""
    """The intervals, tests and effect sizes behind a verdict; empty without one."""
    single: float | None = None
    multi: float | None = None
    interval: Interval | None = None
    """The one that is quoted."""
    images: str = ""
    """How many images of which split the numbers are of."""

    @property
    def sentence(self) -> str:
        """All of it in words."""
        return f"{self.caveat} {self.headline}: {self.detail} {self.evidence}".strip()


WORDINGS = {
    "colour": Wording(
        "Is colouring easier for a model that also learns to classify?", "colouring", "at colouring"
    ),
    "class": Wording(
        "Is classifying easier for a model that also learns to colour?", "classification", "at classifying"
    ),
}
_LEVELS = {
    "ab_l1": "is off by {} CIELAB units",
    "balanced_accuracy": "is right for {} % of the images of an average class",
    "accuracy": "is right for {} % of the images",
}
_MORE = {"ab_l1": ("less", "more"), "balanced_accuracy": ("fewer", "more"), "accuracy": ("fewer", "more")}


def answer(study: Study, question: str, judged: Mapping[str, Judged] | None = None) -> Answer:
    """Answer one of the questions that the study asks.

    The estimate is the mean over seeds of multi-task minus single-task, paired by seed; `report.verdicts` says what
    may be said of it. Without scores of single images every sentence is about these images alone.

    Args:
        study: the study, in any state.
        question: one of its questions.
        judged: the `verdicts` of this study, if at hand.
    """
    asks = WORDINGS[question].question
    before = (_beaten_by_baseline(study, question), _gains_little(study, question), _lost(study, question))
    caveat = " ".join(filter(None, before))
    verdict = (judged or verdicts(study))[question]
    found = verdict.found
    if found is None or verdict.quoted is None:
        return Answer(asks, "missing", "No answer yet", _what_is_missing(study, question), caveat)
    said = measure(study, questions(study)[question])
    settled = verdict.word != Word.NO_VERDICT
    return Answer(
        asks,
        verdict.word.value,
        "No verdict from a tuning study"
        if study.is_tuning
        else _headline(study, WORDINGS[question], verdict),
        _detail(study, question, said, verdict),
        caveat,
        evidence(study, question, said, verdict) if settled else "",
        *found.levels,
        verdict.quoted.interval,
        _these_images(study, found),
    )


def evidence(study: Study, question: str, said: Measure, verdict: Judged) -> str:
    """Say what carries a verdict: both intervals, p against its level, effect size, wins, and what could be gained."""
    found, asked = verdict.found, questions(study)[question]
    assert found is not None
    assert verdict.outer is not None
    assert verdict.inner is not None
    other = verdict.inner if verdict.quoted == verdict.outer else verdict.outer
    outer, inner = 100 * verdict.outer.level, 100 * verdict.inner.level
    size = "Effect size d_z (mean difference over its standard deviation between seeds)"
    effect = (
        f"{size} {found.effect:.2f}".replace("-", "−") if found.effect is not None else f"{size}: no spread"
    )
    tied = f", tied in {found.ties}" if found.ties else ""
    low, high = found.wins.interval
    count = len(questions(study))
    shared = f"alpha shared out among {count} questions" if count > 1 else "alpha of the one question"
    return " ".join((
        f"At {100 * other.level:g} % it is {_ends(said, other)} ({outer:g} % decides whether there is a difference, "
        f"{inner:g} % whether it is less than what matters); smallest effect of interest {said.amount(asked.sesoi)}.",
        f"Exact sign-flip p {p_words(found.p)}, against {verdict.alpha:g} ({shared}).",
        f"{effect}; better in {found.wins.count} of {found.wins.of} seeds{tied} "
        f"({100 * low:.0f} to {100 * high:.0f} %, Wilson).",
        *headroom(study, question, verdict.word),
    ))  # fmt: skip


def p_words(p: float) -> str:
    """Return a p value in words.

    >>> p_words(0.0156), p_words(0.0001)
    ('= .016', 'below .001')
    """
    return "below .001" if p < 0.0005 else f"= {p:.3f}".replace("0.", ".")


def _headline(study: Study, words: Wording, verdict: Judged) -> str:
    found, word = verdict.found, verdict.word
    assert found is not None
    here = "" if found.speaks_for_the_method else f" on these {study.split} images"
    limits = {
        "ceiling": "both arms are at the ceiling",
        "floor": "neither arm is better than a trivial baseline",
    }
    fixed = {
        Word.NO_VERDICT: f"No verdict yet{here}",
        Word.CANNOT_TELL: f"Cannot tell{here}: {limits.get(verdict.limit, '')}",
        Word.INCONCLUSIVE: f"Inconclusive{here} ({_what_would_tell(verdict)})",
        Word.EQUIVALENT: f"{here[1:].capitalize()} the arms differ {words.doing} by less than what matters"
        if here
        else f"Multi-task training makes no difference that matters to {words.does}",
    }
    return fixed.get(word) or _claim(words, word, here[1:])


def _claim(words: Wording, word: Word, here: str) -> str:
    """Say that it helps or hurts: of the method, or of the models on these images."""
    how = word.value[len(word.direction) :]
    if not here:
        return f"Multi-task training {word.direction} {words.does}{how}"
    side = {"helps": "better", "hurts": "worse"}[word.direction]
    return f"{here.capitalize()} the multi-task models are {side} {words.doing}{how}"


def _what_would_tell(verdict: Judged) -> str:
    """Say what a new study would need: seeds, with the range that the spread leaves open, or images."""
    found, need = verdict.found, verdict.needed
    assert found is not None
    if verdict.more_images:
        return "more images, not more seeds, would tell"
    if need is None or need.seeds is None:
        return "no number of seeds within reach would tell"
    if need.seeds <= len(found.seeds):
        return "the difference lies near the smallest effect of interest"
    upper = f"{need.low} to {need.high}" if need.high else f"{need.low} to more than can be run"
    return f"a new study would need about {need.seeds} ({upper}) seeds"


def _detail(study: Study, question: str, said: Measure, verdict: Judged) -> str:
    """Say both levels, their difference and the interval that decided."""
    found, metric = verdict.found, questions(study)[question].metric
    assert found is not None
    assert verdict.quoted is not None
    seeds = plural(len(found.seeds), "seed")
    few = f"with {seeds} (a claim needs at least {fewest_seeds(verdict.alpha)}, all of them finished)"
    opening = few if verdict.word == Word.NO_VERDICT and not study.is_tuning else f"over {seeds}"
    opening += f", on {_these_images(study, found)},"
    single, multi = found.levels
    level = _LEVELS.get(metric, f"has {said.title} {{}}{said.unit and ' ' + said.unit}")
    gap = _gap(metric, said, found)
    return (
        f"{opening} the multi-task model {level.format(said.level(multi))} and the single-task model "
        f"{level.format(said.level(single))}: {gap}. {_interval_words(study, said, verdict.quoted)}"
    )


def _gap(metric: str, said: Measure, found: Contrast) -> str:
    """The one place where a difference of levels becomes words."""
    if not said.signed(found.estimate).strip("0."):
        return "the same to the last digit shown"
    share = (
        f" ({100 * abs(found.estimate / found.levels[0]):.1f} %)"
        if metric == "ab_l1" and found.levels[0]
        else ""
    )
    return (
        f"{said.amount(abs(found.estimate))} {_MORE.get(metric, ('less', 'more'))[found.estimate > 0]}{share}"
    )


def _these_images(study: Study, found: Contrast) -> str:
    """Return how many images of which split a difference is of; `these` where it speaks of no others."""
    count = found.images.differences.shape[1] if found.images is not None else _scored(study, found)
    return f"{'the' if found.speaks_for_the_method else 'these'} {f'{count} ' if count else ''}{study.split} images"


def _scored(study: Study, found: Contrast) -> int | None:
    """Return how many images the runs of a contrast say that they were scored on."""
    counts = (run.scores.get("images") for arm in found.arms for run in study.finished(arm))
    return next(filter(None, counts), None)


def _interval_words(study: Study, said: Measure, quoted: Bounds) -> str:
    """Quote an interval, and say how far it speaks."""
    if quoted.interval is None:
        return f"No interval: {quoted.why_not}."
    how_far = {
        "images": ", which speaks for these trained models, not for the method",
        "seeds": f", which speaks for these {study.split} images alone",
    }.get(quoted.over, "")
    return f"The {quoted.title} is {_ends(said, quoted)}{how_far}."


def _ends(said: Measure, bounds: Bounds) -> str:
    """An interval as signed text with its unit."""
    if bounds.interval is None:
        return f"not given ({bounds.why_not})"
    return f"{said.ends(bounds.interval)} {said.difference_unit}".strip()


def _beaten_by_baseline(study: Study, question: str) -> str:
    """Say first which model is no better than knowing nothing."""
    asked = questions(study)[question]
    losers = beaten(study, asked.metric, levels(study, asked.metric, (asked.single, asked.multi)))
    if not losers:
        return ""
    said = measure(study, asked)
    names = " and ".join(("single-task", "multi-task")[place] for place in losers)
    floors = dict.fromkeys(name for each in losers.values() for name in each)
    values = ", ".join(
        f"“{spaced(name)}” {said.level(study.baselines[name][asked.metric] or 0)}" for name in floors
    )
    return f"Not better than a trivial baseline: {names} ({values} {said.unit}).".replace(" )", ")")


def _gains_little(study: Study, question: str) -> str:
    """Say first where the model has learnt so little that no difference that matters could be found."""
    asked = questions(study)[question]
    said = measure(study, asked)
    gains = {row.name: row.gain for row in headrooms(study, question) if row.name != ORACLE}
    return " ".join(
        f"The single-task model gains only {said.amount(gain)} over {spaced(name)}, less than the smallest effect of "
        f"interest ({said.amount(asked.sesoi)}): train longer before reading this."
        for name, gain in gains.items()
        if 0 < gain < asked.sesoi
    )


_STATES = {"running": "not finished", "missing": "not started", "unpaired": "its block is not compared"}


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
    asked = questions(study)[question]
    sides = (("single-task", asked.single), ("multi-task", asked.multi))
    absent = [
        f"no finished run of the {label} arm (“{arm}”)" for label, arm in sides if not study.finished(arm)
    ]
    missing = " and ".join(absent) or "no seed of which both arms finished with a number"
    command = re.sub(r"\s--arms?[ =]\S+", "", str(study.settings.get("command") or "knowhue study"))
    return f"there is {missing}. Make it with: {command}"
