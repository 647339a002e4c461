"""A study's findings: verdicts on its questions, tests of further metrics, headroom, and secondary analyses."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from knowhue.metric_table import SET_DISTANCES
from knowhue.report.contrasts import Bounds, Contrast, FamilyTest, contrast, family_tests, primary
from knowhue.report.study import Study, floors, sides
from knowhue.statistics import LEVEL
from knowhue.statistics.paired import mean, t_interval
from knowhue.statistics.verdicts import (
    Needed,
    Posterior,
    Word,
    at_limit,
    delta_m,
    judge,
    more_images_needed,
    needed,
    not_better,
    posterior,
)

ORACLE = "oracle"
"""The arm that gets the true class: what the label is worth at test time, not an upper bound for joint training."""


class Judged(NamedTuple):
    """The verdict on a question, and the numbers behind it."""

    word: Word
    """the verdict; `no verdict` with too few seeds, or while any question of the plan lacks runs"""
    alpha: float
    found: Contrast | None = None
    """None without a pair of runs"""
    outer: Bounds | None = None
    """at level 1 - alpha"""
    inner: Bounds | None = None
    """at level 1 - 2 alpha"""
    limit: str = ""
    """why the metric cannot tell the arms apart (`ceiling`, `floor`); empty where it can"""
    needed: Needed | None = None
    """seeds with which a new study would decide; None where the variance is unknown"""
    more_images: bool = False
    """whether more images would narrow the interval more than more seeds"""

    @property
    def quoted(self) -> Bounds | None:
        """The interval that decided, which every sentence, figure and table quotes."""
        return self.inner if self.word.is_small else self.outer

    def row(self) -> dict[str, Any]:
        """Return a table row: `Contrast.row`, the quoted `bounds`, and `p`; empty without a contrast."""
        if self.found is None:
            return {}
        # with one seed, p is always 1
        p = self.found.p if len(self.found.seeds) > 1 else None
        return self.found.row() | {"bounds": self.quoted, "p": p}


class Headroom(NamedTuple):
    """What single-task could still gain (oracle), or has gained over a trivial baseline, in the metric's unit."""

    name: str
    gain: float
    """gain of the oracle over single-task, or of single-task over the baseline; positive is better"""
    share: float | None
    """the smallest effect of interest divided by `gain`; None where there is no gain"""
    bounds: Bounds | None = None
    """interval of the oracle's gain; None for a baseline"""


class Findings(NamedTuple):
    """All conclusions of a study, for `results.json` and the page."""

    study: Study
    verdicts: Mapping[str, Judged]
    secondary: Mapping[tuple[str, str], FamilyTest]
    """by question and metric, without primary metrics; those that the plan names come first"""
    headroom: Mapping[str, list[Headroom]]


def find(study: Study) -> Findings:
    headroom = {question: headrooms(study, question) for question in study.questions}
    return Findings(study, verdicts(study), secondaries(study), headroom)


def verdicts(study: Study) -> dict[str, Judged]:
    """Judge all questions; there is no verdict before all have all their seeds, and none in a tuning study."""
    found = {name: primary(study, name) for name in study.questions}
    complete = not study.is_tuning and all(
        each is not None and len(each.seeds) == len(study.seeds) for each in found.values()
    )
    return {
        name: judged(
            found[name], spec.sesoi, study.alpha, floors(study.baselines, spec.metric).values(), complete
        )
        for name, spec in study.questions.items()
    }


def judged(
    found: Contrast | None, sesoi: float, alpha: float, trivial: Iterable[float], complete: bool
) -> Judged:
    """Judge one contrast: a study's question, or a method of a comparison."""
    if found is None:
        return Judged(Word.NO_VERDICT, alpha)
    best = found.limits[0 if found.lower_is_better else 1]
    limit = at_limit(found.levels, best, sesoi, trivial, found.lower_is_better)
    outer, inner = found.bounds(1 - alpha), found.bounds(1 - 2 * alpha)
    word = judge(
        len(found.seeds), found.p, lambda level: found.bounds(level).interval, sesoi, alpha,
        found.lower_is_better, complete, bool(limit), max(map(abs, found.levels)),
    )  # fmt: skip
    need = needed(found.parts, sesoi, alpha) if found.parts else None
    more = bool(found.crossed and more_images_needed(found.crossed))
    return Judged(word, alpha, found, outer, inner, limit, need, more)


def beaten(study: Study, metric: str, arms: Sequence[str]) -> tuple[dict[int, float], dict[str, float]]:
    """Return the levels of arms that are no better than a trivial baseline, by place, and these baselines."""
    lower, trivial = study.table.lower_is_better(metric), floors(study.baselines, metric)
    levels, baselines = {}, {}
    for place, arm in enumerate(arms):
        level = mean([run.metric(metric) for run in study.finished(arm)])
        for name, floor in trivial.items():
            if level is not None and not_better(level, floor, lower):
                levels[place], baselines[name] = level, floor
    return levels, baselines


def secondaries(study: Study) -> dict[tuple[str, str], FamilyTest]:
    """Test, by question and metric, the further metrics of both arms that have a better direction.

    `SET_DISTANCES` are left out. Metrics that the plan names and exploratory ones are two families, each adjusted for
    its own number.
    """
    rows = {}
    # two questions about the same arms must not test the same metric twice
    tested = {(*sides(study, question), spec.metric) for question, spec in study.questions.items()}
    for question, spec in study.questions.items():
        single, multi = arms = sides(study, question)
        untested = {name for name in study.metric_names(multi) if (*arms, name) not in tested}
        names = [
            name
            for name in study.metric_names(single)
            if name in untested and _is_judged(study, name, question)
        ]
        tested |= {(*arms, name) for name in names}
        # named metrics first; sorting is stable, so both groups keep their order
        for name in sorted(names, key=lambda name: name not in spec.secondary):
            rows[question, name] = contrast(study.table, name, *arms)
    planned = {(question, name) for question, spec in study.questions.items() for name in spec.secondary}
    found = family_tests({key: each for key, each in rows.items() if key in planned})
    found |= family_tests({key: each for key, each in rows.items() if key not in planned})
    return {key: found[key] for key in rows if key in found}


def _is_judged(study: Study, metric: str, question: str) -> bool:
    about = study.metrics.get(metric, {})
    if about.get("task", question) != question or metric in SET_DISTANCES:
        return False
    return metric == "recognition" or about.get("better") in ("lower", "higher")


def headrooms(study: Study, question: str) -> list[Headroom]:
    """Return the gain of the oracle over single-task, if there is one, and of single-task over the best baseline."""
    spec = study.questions[question]
    sign = -1 if study.table.lower_is_better(spec.metric) else 1
    rows = []
    found = contrast(study.table, spec.metric, spec.single, ORACLE)
    if found is not None and spec.single != ORACLE:
        # at the level of equivalence, the claim that it is compared with
        bounds = found.bounds(1 - 2 * study.alpha)
        if bounds.interval is not None:
            low, high = sorted(sign * end for end in bounds.interval)
            bounds = bounds._replace(interval=(low, high))
        rows.append(_headroom(ORACLE, sign * found.estimate, spec.sesoi, bounds))
    level = mean([run.metric(spec.metric) for run in study.finished(spec.single)])
    trivial = {name: sign * value for name, value in floors(study.baselines, spec.metric).items()}
    if level is not None and trivial:
        best = max(trivial, key=lambda name: trivial[name])
        rows.append(_headroom(best, sign * level - trivial[best], spec.sesoi))
    return rows


def _headroom(name: str, gain: float, sesoi: float, bounds: Bounds | None = None) -> Headroom:
    return Headroom(name, gain, sesoi / gain if gain > 0 else None, bounds)


def posteriors(findings: Findings) -> list[dict[str, Any]]:
    """Return the probabilities next to each verdict; none for a tuning study or a question without runs.

    Rows have `question`, `metric`, `sesoi`; the probabilities `worse`, `equal`, `better`, None where there is no
    possible interval, and the reason, `why_not`; and their populations, `over`, as in `Bounds.over`.
    """
    rows = []
    for name, verdict in findings.verdicts.items():
        found, outer, spec = verdict.found, verdict.outer, findings.study.questions[name]
        if found is None or outer is None or findings.study.is_tuning:
            continue
        known, why_not = None, ""
        if outer.interval is None or found.parts is None:
            why_not = outer.why_not or "one seed says nothing about others"
        else:
            known = posterior(found.parts, spec.sesoi, found.lower_is_better, outer.level)
        probabilities = known._asdict() if known else dict.fromkeys(Posterior._fields)
        row = {"question": name, "metric": spec.metric, "sesoi": spec.sesoi, "over": outer.over}
        rows.append(row | probabilities | {"why_not": why_not})
    return rows


def relative_gains(findings: Findings) -> list[dict[str, Any]]:
    """Return the mean relative gain of each arm with two or more questions, over the seeds that all of them have.

    Rows have `arm`; `questions`, over whose primary metrics it is the mean; `seeds`; `by_seed`, where 0.01 is one per
    cent and positive is better; their `mean`; and `interval`, Student's t over seeds, on these test images, None with
    one seed. There are no rows for a tuning study.
    """
    if findings.study.is_tuning:
        return []
    by_arm: dict[str, dict[str, Any]] = {}
    for name, spec in findings.study.questions.items():
        if (found := findings.verdicts[name].found) is not None:
            by_arm.setdefault(spec.multi, {})[name] = found
    rows = []
    for arm, contrasts in by_arm.items():
        seeds = sorted(set.intersection(*(set(each.seeds) for each in contrasts.values())))
        if len(contrasts) < 2 or not seeds:
            continue
        scores = [each.scores[np.isin(each.seeds, seeds)] for each in contrasts.values()]
        gains = delta_m(scores, [each.lower_is_better for each in contrasts.values()])
        if gains is not None:
            by_seed = gains.tolist()
            rows.append({
                "arm": arm, "questions": list(contrasts), "seeds": seeds, "mean": sum(by_seed) / len(by_seed),
                "by_seed": by_seed, "interval": t_interval(gains), "level": LEVEL, "over": "seeds",
            })  # fmt: skip
    return rows
