"""What could have been gained: the smallest effect of interest beside what the true class gives, or training gave."""

from typing import NamedTuple

from knowhue.report.chance import Bounds
from knowhue.report.contrasts import contrast, lower_is_better, question_alpha, questions
from knowhue.report.differences import measure
from knowhue.report.records import Study, mean, spaced

ORACLE = "oracle"
"""The arm that is given the true class: how much the label at test time can give, no bound on joint training."""


class Headroom(NamedTuple):
    """How much single-task leaves to be gained, or has gained, in the metric's unit; positive is better.

    Attributes:
        name: `oracle`, or the best trivial baseline.
        gain: by how much the oracle is better than single-task, or single-task than the baseline.
        share: the smallest effect of interest over it; None where there is no gain.
        bounds: of the oracle's difference from single-task, as it is (not turned); None of a baseline.
    """

    name: str
    gain: float
    share: float | None
    bounds: Bounds | None = None


def headrooms(study: Study, question: str) -> list[Headroom]:
    """Return what the oracle adds to single-task, if there is one, and what single-task adds to the best baseline."""
    asked = questions(study)[question]
    sign = -1 if lower_is_better(study, asked.metric) else 1
    rows = []
    found = contrast(study, asked.metric, asked.single, ORACLE)
    if found is not None and asked.single != ORACLE:
        bounds = found.bounds(1 - 2 * question_alpha(study))
        rows.append(_row(ORACLE, sign * found.estimate, asked.sesoi, bounds))
    level = mean([run.metric(asked.metric) for run in study.finished(asked.single)])
    floors = {name: sign * value for name, values in study.baselines.items()
              if name != "real" and (value := values.get(asked.metric)) is not None}  # fmt: skip
    if level is not None and floors:
        best = max(floors, key=lambda name: floors[name])
        rows.append(_row(best, sign * level - floors[best], asked.sesoi))
    return rows


def headroom(study: Study, question: str) -> list[str]:
    """Return `headrooms` as sentences."""
    asked = questions(study)[question]
    said = measure(study, asked)
    sentences = []
    for row in headrooms(study, question):
        share = f"{100 * row.share:.0f} % of" if row.share is not None else "more than"
        if row.name != ORACLE:
            gain = f"what single-task gains over “{spaced(row.name)}” ({said.amount(row.gain)})"
            sentences.append(f"The smallest effect of interest is {share} {gain}.")
            continue
        ends = row.bounds and row.bounds.interval
        interval = f", {row.bounds.title} {said.ends(ends)}" if ends and row.bounds else ""
        if row.gain < asked.sesoi:
            sentences.append(
                f"Even the arm that is given the true class is better than single-task by no more than what matters "
                f"({said.signed(row.gain)}{interval}): the label could hardly have helped by more."
            )
        else:
            gain = f"what the true class gives ({said.amount(row.gain)}{interval})"
            sentences.append(f"The smallest effect of interest is {share} {gain}.")
    return sentences


def _row(name: str, gain: float, sesoi: float, bounds: Bounds | None = None) -> Headroom:
    return Headroom(name, gain, sesoi / gain if gain > 0 else None, bounds)
