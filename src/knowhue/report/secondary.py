"""Every further metric of a question: difference, interval, and p adjusted for how many there are."""

from typing import Any, NamedTuple

from knowhue.report.chance import Bounds
from knowhue.report.contrasts import Contrast, contrast, questions
from knowhue.report.records import Run, Study
from knowhue.statistics import LEVEL
from knowhue.statistics.paired import benjamini_hochberg


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
    p_adjusted: float | None

    @property
    def is_clear(self) -> bool:
        """Whether the difference may have a mark: by the test and by the interval over seeds and images."""
        return self.bounds.is_clear(len(self.found.seeds), self.p_adjusted)


def secondaries(study: Study) -> list[Secondary]:
    """Return all metrics that both arms of a question have and that have a better direction, the named ones first."""
    rows = [row for name in questions(study) for row in _of_question(study, name)]
    adjusted: dict[str, float] = {}
    for named in (True, False):
        family = {_key(row): row.p for row in rows if row.named == named and row.p is not None}
        adjusted |= benjamini_hochberg(family)
    return [row._replace(p_adjusted=adjusted.get(_key(row))) for row in rows]


def secondary_results(study: Study) -> list[dict[str, Any]]:
    """Return `secondaries` as the rows of `results.json`."""
    return [
        {
            "question": row.question, "metric": row.metric, "exploratory": not row.named,
            "mean": row.found.estimate, "interval": row.bounds.interval, "level": row.bounds.level,
            "over": row.bounds.over, "p": row.p, "p_adjusted": row.p_adjusted, "clear": row.is_clear,
            "seeds": list(row.found.seeds),
        }
        for row in secondaries(study)
    ]  # fmt: skip


def metric_names(study: Study, arm: str) -> list[str]:
    """Return the metrics that runs of an arm have, in the order of `metrics.json`, unknown ones last."""
    found = {name for run in study.finished(arm) for name in _names(run)}
    return [name for name in study.metrics if name in found] + sorted(found - set(study.metrics))


def _names(run: Run) -> set[str]:
    return set(run.scores.get("metrics", {})) | (
        {"recognition"} if run.metric("recognition") is not None else set()
    )


def _of_question(study: Study, question: str) -> list[Secondary]:
    asked = questions(study)[question]
    theirs = set(metric_names(study, asked.multi))
    both = [name for name in metric_names(study, asked.single) if name in theirs and name != asked.metric]
    judged = [name for name in both if name == "recognition" or _has_direction(study, name)]
    order = sorted(judged, key=lambda name: name not in asked.secondary)
    found = {name: contrast(study, name, asked.single, asked.multi) for name in order}
    return [
        Secondary(question, name, name in asked.secondary, each, each.bounds(LEVEL), _p(each), None)
        for name, each in found.items()
        if each is not None
    ]


def _has_direction(study: Study, metric: str) -> bool:
    return study.metrics.get(metric, {}).get("better") in ("lower", "higher")


def _p(found: Contrast) -> float | None:
    return found.p if len(found.seeds) > 1 else None


def _key(row: Secondary) -> str:
    return f"{row.question} {row.metric}"
