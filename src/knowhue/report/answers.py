"""The answers to a study's questions in words, with the numbers that support them.

Sealed studies contain these sentences and `knowhue check` compares them, so their wording must not change.
"""

import re
from dataclasses import dataclass

from knowhue.errors import few, minus, plural, spaced
from knowhue.report.contrasts import Bounds, Contrast, Wording, wording
from knowhue.report.findings import ORACLE, Findings, Headroom, Judged, beaten
from knowhue.report.study import Study
from knowhue.report.text import Measure, measure, p_words, seeds_text
from knowhue.statistics.verdicts import Word, beside_margin, fewest_seeds


@dataclass(frozen=True)
class Answer:
    """The answer to a question, in parts for a page and as one text."""

    question: str
    verdict: str
    """a `Word`, or `missing` if no pair of runs has a score"""
    headline: str
    detail: str
    caveat: str = ""
    """limits of the answer: a trivial baseline is not beaten, or a run is left out of the numbers"""
    evidence: str = ""
    """intervals, tests and effect sizes behind a verdict; empty without one"""
    found: Contrast | None = None
    """the compared scores; None without a pair of runs"""
    left_out: str = ""
    """the part of the caveat that names the runs left out, which prevent a verdict"""
    rounding: str = ""
    """note for levels and difference that do not add up as shown; not a part of `sentence`"""

    @property
    def sentence(self) -> str:
        """The whole answer, as `results.json` and sealed studies contain it."""
        return f"{self.caveat} {self._statement}".strip()

    @property
    def lines(self) -> list[str]:
        """The answer for a terminal: the answer, or why there is none, then its caveats."""
        if self.left_out and self.verdict == Word.NO_VERDICT:
            rest = " ".join(self.caveat.replace(self.left_out, "", 1).split())
            numbers = f"{self.detail[0].upper()}{self.detail[1:]} {self.evidence} {self.rounding}".strip()
            return [f"{self.headline}. {self.left_out}", numbers, *([f"But: {rest}"] if rest else [])]
        text = f"{self._statement} {self.rounding}".strip()
        return [text, f"But: {self.caveat}"] if self.caveat else [text]

    @property
    def _statement(self) -> str:
        return f"{self.headline}: {self.detail} {self.evidence}".strip()


_LEVELS = {
    "ab_l1": "is off by {} CIELAB units",
    "balanced_accuracy": "is right for {} % of the images of an average class",
    "accuracy": "is right for {} % of the images",
}
_MORE = {"ab_l1": ("less", "more"), "balanced_accuracy": ("fewer", "more"), "accuracy": ("fewer", "more")}
_LIMITS = {
    "ceiling": "both arms are at the ceiling",
    "floor": "neither arm is better than a trivial baseline",
}
_ROUNDING = "The difference is computed before rounding."
_STATES = {"running": "not finished", "missing": "not started", "unpaired": "its block is not compared"}


def answers(findings: Findings) -> dict[str, Answer]:
    """Answer every question of a study.

    The estimate is the mean over seeds of multi-task minus single-task, paired by seed; `report.findings` judges it.
    Without scores of single images, every sentence applies to these images only.
    """
    return {question: _answer(findings, question) for question in findings.study.questions}


def _answer(findings: Findings, question: str) -> Answer:
    study, verdict = findings.study, findings.verdicts[question]
    words, measured = wording(study, question), measure(study.metrics, study.questions[question])
    headroom = findings.headroom[question]
    lost, given = _left_out(study, question)
    before = _beaten_by_baseline(study, question), _gains_little(study, question, headroom), lost, given
    caveat = " ".join(filter(None, before))
    found = verdict.found
    if found is None or verdict.quoted is None:
        return Answer(words.question, "missing", "No answer yet", _what_is_missing(study, question), caveat)
    headline = (
        "No verdict from a tuning study" if study.is_tuning else _headline(study, words, verdict, found)
    )
    evidence = ""
    if verdict.word != Word.NO_VERDICT:
        evidence = _evidence(study, question, measured, verdict, found, verdict.quoted, headroom)
    detail = _detail(study, words, measured, verdict, found, verdict.quoted)
    rounding = "" if measured.adds_up(found.levels, found.estimate) else _ROUNDING
    return Answer(
        words.question, verdict.word.value, headline, detail, caveat, evidence, found, lost, rounding
    )


def _headline(study: Study, words: Wording, verdict: Judged, found: Contrast) -> str:
    # only with scores of single images does the verdict apply to other images too
    here, word = "" if found.images else f" on these {study.split} images", verdict.word
    if word == Word.NO_VERDICT:
        return f"No verdict yet{here}"
    if word == Word.CANNOT_TELL:
        return f"Cannot tell{here}: {_LIMITS[verdict.limit]}"
    if word == Word.INCONCLUSIVE:
        return f"Inconclusive{here} ({_needed_for_a_verdict(verdict, found)})"
    claims = words.claims_here if here else words.claims
    size = word.value.removeprefix(word.direction) if word.direction else ""
    return f"{here[1:].capitalize()} {claims[word.direction]}{size}".strip()


def _needed_for_a_verdict(verdict: Judged, found: Contrast) -> str:
    need = verdict.needed
    if verdict.quoted is not None and verdict.quoted.interval is None:
        return "no interval can be given"
    if verdict.more_images:
        return "more images, not more seeds, would tell"
    if need is None or need.seeds is None:
        return "no number of seeds within reach would tell"
    # by their spread the seeds are enough, but they show neither a difference nor equivalence
    if need.seeds <= len(found.seeds):
        return "the difference lies near the smallest effect of interest"
    upper = f"{need.low} to {need.high}" if need.high else f"{need.low} to more than can be run"
    return f"a new study would need about {need.seeds} ({upper}) seeds"


def _detail(
    study: Study, words: Wording, measured: Measure, verdict: Judged, found: Contrast, quoted: Bounds
) -> str:
    seeds = plural(len(found.seeds), "seed")
    few = f"with {seeds} (a claim needs at least {fewest_seeds(verdict.alpha)}, all of them finished)"
    opening = few if verdict.word == Word.NO_VERDICT and not study.is_tuning else f"over {seeds}"
    level = _LEVELS.get(found.metric, f"has {measured.title} {{}}{measured.unit and ' ' + measured.unit}")
    single, multi = (level.format(measured.level(each)) for each in found.levels)
    return (
        f"{opening}, on {_these_images(study, found)}, {words.multi_model} {multi} and {words.single_model} "
        f"{single}: {_difference(measured, found)}. {_interval_words(study, measured, quoted)}"
    )


def _difference(measured: Measure, found: Contrast) -> str:
    if not measured.signed(found.estimate).strip("0."):
        return "the same to the last digit shown"
    is_relative = found.metric == "ab_l1" and found.levels[0]
    share = f" ({100 * abs(found.estimate / found.levels[0]):.1f} %)" if is_relative else ""
    words = _MORE.get(found.metric, ("less", "more"))
    return f"{measured.amount(abs(found.estimate))} {words[found.estimate > 0]}{share}"


def _these_images(study: Study, found: Contrast) -> str:
    """Return the number and the split of a difference's images; `these` if it applies to no others."""
    if found.images is not None:
        # without a comma in thousands, as in sealed studies, whose sentences `knowhue check` compares
        return f"the {plural(found.images.differences.shape[1], f'{study.split} image').replace(',', '')}"
    # without scores of single images, the runs contain the number of images
    counts = (run.scores.get("images") for arm in found.arms for run in study.finished(arm))
    count = next(filter(None, counts), None)
    return f"these {f'{count} ' if count else ''}{study.split} images"


def _interval_words(study: Study, measured: Measure, quoted: Bounds) -> str:
    if quoted.interval is None:
        return f"No interval: {quoted.why_not}."
    how_far = {
        "images": ", which speaks for these trained models, not for the method",
        "seeds": f", which speaks for these {study.split} images alone",
    }.get(quoted.over, "")
    return f"The {quoted.title} is {_ends(measured, quoted)}{how_far}."


def _ends(measured: Measure, bounds: Bounds) -> str:
    if bounds.interval is None:
        return f"not given ({bounds.why_not})"
    return f"{measured.ends(bounds.interval)} {measured.difference_unit}".strip()


def _evidence(
    study: Study, question: str, measured: Measure, verdict: Judged, found: Contrast, quoted: Bounds,
    headroom: list[Headroom],
) -> str:  # fmt: skip
    """Return the evidence for a verdict: both intervals, p with its level, effect size, wins and possible gains."""
    sesoi, count, alpha = study.questions[question].sesoi, len(study.questions), verdict.alpha
    other = found.bounds(1 - alpha if verdict.word.is_small else 1 - 2 * alpha)
    effect = ": no spread" if found.effect is None else minus(f" {found.effect:.2f}")
    low, high = found.wins.interval
    shared = f"alpha shared out among {count} questions" if count > 1 else "alpha of the one question"
    # if neither can be given for the same reason, `_detail` contains that reason
    same_reason = other.interval is None and other.why_not == quoted.why_not
    decides = (
        f"{100 * (1 - alpha):g} % decides whether there is a difference, {100 * (1 - 2 * alpha):g} % whether it is "
        "less than what matters"
    )
    elsewhere = f"At {100 * other.level:g} % it is {_ends(measured, other)} ({decides})"
    interval = f"Of intervals, {decides}" if same_reason else elsewhere
    return " ".join((
        f"{interval}; smallest effect of interest {measured.amount(sesoi)}.",
        f"Exact sign-flip p {p_words(found.p)}, against {alpha:g} ({shared}).",
        "Effect size d_z (mean difference over its standard deviation between seeds, corrected after Hedges)"
        f"{effect}; better in {found.wins.count} of {found.wins.of} seeds"
        f"{f', tied in {found.ties}' if found.ties else ''} ({100 * low:.0f} to {100 * high:.0f} %, Wilson).",
        *headroom_sentences(headroom, measured, sesoi, verdict.word),
    ))  # fmt: skip


def headroom_sentences(rows: list[Headroom], measured: Measure, sesoi: float, word: Word) -> list[str]:
    return [
        _oracle_gain(row, row.bounds, measured, sesoi, word) if row.bounds else _baseline_gain(row, measured)
        for row in rows
    ]


def _baseline_gain(row: Headroom, measured: Measure) -> str:
    if row.share is None:
        gain = f"{measured.signed(row.gain)} {measured.difference_unit}".strip()
        return f"Single-task gains nothing over “{spaced(row.name)}” ({gain})."
    gain = f"what single-task gains over “{spaced(row.name)}” ({measured.amount(row.gain)})"
    return f"The smallest effect of interest is {100 * row.share:.0f} % of {gain}."


def _oracle_gain(row: Headroom, bounds: Bounds, measured: Measure, sesoi: float, word: Word) -> str:
    """Return what the true class gives at test time and, for `equivalent`, whether it could have given what matters."""
    ends = bounds.interval
    interval = f"{bounds.title} {measured.ends(ends)}" if ends else f"no interval: {bounds.why_not}"
    given = f"({measured.signed(row.gain)}, {interval}; positive is better)"
    less = "better than single-task by less than what matters"
    better = less if row.gain > 0 else "no better than single-task"
    # the upper end of the interval decides, not the estimate
    if word == Word.EQUIVALENT and ends is not None and beside_margin(ends[1], sesoi) < 0:
        arm = f"Even the arm that is given the true class is {better} {given}"
        return f"{arm}: the label could hardly have helped by more."
    if row.share is None:
        sentence = f"The arm that is given the true class is {better} {given}"
    else:
        share = f"The smallest effect of interest is {100 * row.share:.0f} % of"
        sentence = f"{share} what the true class gives {given}"
    is_open = word == Word.EQUIVALENT and beside_margin(row.gain, sesoi) < 0
    return sentence + "; that it could not have helped by what matters is not shown" * is_open + "."


def _beaten_by_baseline(study: Study, question: str) -> str:
    """Return a caveat that names the models that are no better than a trivial baseline; empty if all are better."""
    spec = study.questions[question]
    losers, trivial = beaten(study, spec.metric, (spec.single, spec.multi))
    if not losers:
        return ""
    measured = measure(study.metrics, spec)
    words = wording(study, question)
    names = " and ".join((words.single, words.multi)[place] for place in losers)
    values = ", ".join(f"“{spaced(name)}” {measured.level(level)}" for name, level in trivial.items())
    # without a unit, a space is left at the end
    return f"Not better than a trivial baseline: {names} ({values} {measured.unit}).".replace(" )", ")")


def _gains_little(study: Study, question: str, headroom: list[Headroom]) -> str:
    """Return a caveat if the single-task model has learnt so little that no difference that matters could be found."""
    spec = study.questions[question]
    measured, words = measure(study.metrics, spec), wording(study, question)
    subject = f"{words.single_model[0].upper()}{words.single_model[1:]}"
    return " ".join(
        f"{subject} gains only {measured.amount(row.gain)} over {spaced(row.name)}, less than the smallest "
        f"effect of interest ({measured.amount(spec.sesoi)}): train longer before reading this."
        for row in headroom
        if row.name != ORACLE and row.gain > 0 and beside_margin(row.gain, spec.sesoi) < 0
    )


def _left_out(study: Study, question: str) -> tuple[str, str]:
    """Return one caveat for runs without a number and one for diverged runs with a declared number."""
    spec, words = study.questions[question], wording(study, question)
    arms = ((words.single, spec.single), (words.multi, spec.multi))
    runs = [(f"{label} seed {run.seed}", run) for label, arm in arms for run in study.of(arm)]
    states = _STATES | ({"missing": "has no row"} if study.is_table else {})
    lost = few([
        f"{name} ({'has no score' if run.finished else states.get(run.state, run.state)})"
        for name, run in runs
        if run.seed not in study.table.scores(run.arm, spec.metric)
    ])  # fmt: skip
    given = ", ".join(name for name, run in runs if run.state == "diverged")
    declared = f"the score of “{spaced(spec.if_diverged)}” as declared"
    return (
        f"Left out of the numbers: {lost}." if lost else "",
        f"Diverged, and given {declared}: {given}." if given else "",
    )


def _what_is_missing(study: Study, question: str) -> str:
    spec, words = study.questions[question], wording(study, question)
    arms = ((words.single, spec.single), (words.multi, spec.multi))
    absent = [
        f"no finished run of the {label} arm (“{arm}”)" for label, arm in arms if not study.finished(arm)
    ]
    missing = " and ".join(absent) or "no seed of which both arms finished with a number"
    if study.is_table:
        seeds = " and ".join(
            f"{label} {seeds_text([run.seed for run in study.finished(arm)])}" for label, arm in arms
        )
        have = "" if absent else f" Runs of one seed are a pair; now {seeds}."
        return f"there is {missing}. Add its rows to the table.{have}"
    # the command without its selection of arms, because the other arms must be trained too
    command = re.sub(r"\s--arms?[ =]\S+", "", str(study.settings.get("command") or "knowhue study"))
    return f"there is {missing}. Make it with `{command}`."
