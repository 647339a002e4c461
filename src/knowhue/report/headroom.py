"""What could have been gained: the smallest effect of interest beside what the true class gives, or training gave."""

from typing import NamedTuple

from knowhue.report.chance import Bounds
from knowhue.report.contrasts import contrast, lower_is_better, question_alpha, questions
from knowhue.report.differences import Measure, measure
from knowhue.report.records import Study, floors, mean, spaced
from knowhue.statistics.verdicts import Word

ORACLE = "oracle"
"""The arm that is given the true class: how much the label at test time can give, no bound on joint training."""


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


def headrooms(study: Study, question: str) -> list[Headroom]:
    """Return what the oracle adds to single-task, if there is one, and what single-task adds to the best baseline."""
    asked = questions(study)[question]
    sign = -1 if lower_is_better(study, asked.metric) else 1
    rows = []
    found = contrast(study, asked.metric, asked.single, ORACLE)
    if found is not None and asked.single != ORACLE:
        bounds = found.bounds(1 - 2 * question_alpha(study))
        rows.append(_row(ORACLE, sign * found.estimate, asked.sesoi, bounds.turned(sign)))
    level = mean([run.metric(asked.metric) for run in study.finished(asked.single)])
    trivial = {name: sign * value for name, value in floors(study.baselines, asked.metric).items()}
    if level is not None and trivial:
        best = max(trivial, key=lambda name: trivial[name])
        rows.append(_row(best, sign * level - trivial[best], asked.sesoi))
    return rows


def headroom(study: Study, question: str, word: Word) -> list[str]:
    """Return `headrooms` as sentences beside a verdict."""
    asked = questions(study)[question]
    said = measure(study, asked)
    return [
        _of_oracle(row, said, asked.sesoi, word) if row.name == ORACLE else _of_baseline(row, said)
        for row in headrooms(study, question)
    ]


def _of_baseline(row: Headroom, said: Measure) -> str:
    if row.share is None:
        gain = f"{said.signed(row.gain)} {said.difference_unit}".strip()
        return f"Single-task gains nothing over “{spaced(row.name)}” ({gain})."
    gain = f"what single-task gains over “{spaced(row.name)}” ({said.amount(row.gain)})"
    return f"The smallest effect of interest is {100 * row.share:.0f} % of {gain}."


def _of_oracle(row: Headroom, said: Measure, sesoi: float, word: Word) -> str:
    """Say what the label at test time gives; beside `equivalent`, whether it could have given what matters."""
    given = f"({said.signed(row.gain)}, {_interval(row.bounds, said)}; positive is better)"
    better = (
        "better than single-task by less than what matters" if row.gain > 0 else "no better than single-task"
    )
    equal = word == Word.EQUIVALENT
    if equal and row.below(sesoi):
        arm = f"Even the arm that is given the true class is {better} {given}"
        return f"{arm}: the label could hardly have helped by more."
    if row.share is None:
        sentence = f"The arm that is given the true class is {better} {given}"
    else:
        share = f"The smallest effect of interest is {100 * row.share:.0f} % of"
        sentence = f"{share} what the true class gives {given}"
    open_ = (
        "; that it could not have helped by what matters is not shown" if equal and row.gain < sesoi else ""
    )
    return f"{sentence}{open_}."


def _interval(bounds: Bounds | None, said: Measure) -> str:
    if bounds is None or bounds.interval is None:
        return f"no interval: {bounds.why_not}" if bounds else "no interval"
    return f"{bounds.title} {said.ends(bounds.interval)}"


def _row(name: str, gain: float, sesoi: float, bounds: Bounds | None = None) -> Headroom:
    return Headroom(name, gain, sesoi / gain if gain > 0 else None, bounds)
