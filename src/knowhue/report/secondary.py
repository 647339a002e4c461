"""Secondary readings of a study: probabilities beside each verdict, and the relative gain over all tasks of an arm."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from knowhue.report.findings import Findings
from knowhue.statistics import LEVEL
from knowhue.statistics.paired import Interval, t_interval
from knowhue.statistics.readings import Beliefs, beliefs, delta_m


class Reading(NamedTuple):
    """Probabilities of worse, equal and better for one question.

    Attributes:
        beliefs: None where there is no interval that is possible, and `why_not` says why.
        over: what chance they speak of, as `Bounds.over`.
    """

    beliefs: Beliefs | None
    over: str
    why_not: str = ""


class RelativeGain(NamedTuple):
    """The mean relative gain over the questions that an arm is judged by.

    Attributes:
        arm: held against the arm of each question.
        questions: whose primary metrics are averaged.
        seeds: that all of them have.
        by_seed: 0.01 is one per cent; positive is better.
        interval: Student's t, over seeds, on these test images; None of one seed.
    """

    arm: str
    questions: tuple[str, ...]
    seeds: tuple[int, ...]
    by_seed: tuple[float, ...]
    interval: Interval | None

    @property
    def mean(self) -> float:
        return sum(self.by_seed) / len(self.by_seed)


def readings(findings: Findings) -> dict[str, Reading]:
    """Return the probabilities beside each verdict; none for a tuning study, and none for a question without runs."""
    found = {}
    for name, judged in findings.verdicts.items():
        contrast, outer = judged.found, judged.outer
        if contrast is None or outer is None or findings.study.is_tuning:
            continue
        parts = contrast.parts
        if outer.interval is None or parts is None:
            found[name] = Reading(None, outer.over, outer.why_not or "one seed says nothing of others")
            continue
        sesoi = findings.study.questions[name].sesoi
        found[name] = Reading(beliefs(parts, sesoi, contrast.lower_is_better, outer.level), outer.over)
    return found


def relative_gains(findings: Findings) -> list[RelativeGain]:
    """Return the mean relative gain of each arm that two or more questions are about, over the seeds that all have.

    None of a tuning study, see `readings`.
    """
    if findings.study.is_tuning:
        return []
    by_arm: dict[str, list[str]] = {}
    for name, asked in findings.study.questions.items():
        if findings.verdicts[name].found is not None:
            by_arm.setdefault(asked.multi, []).append(name)
    rows = []
    for arm, names in by_arm.items():
        contrasts = [found for name in names if (found := findings.verdicts[name].found) is not None]
        seeds = sorted(set.intersection(*(set(each.seeds) for each in contrasts)))
        if len(names) < 2 or not seeds:
            continue
        places: list[Mapping[int, int]] = [
            {seed: place for place, seed in enumerate(each.seeds)} for each in contrasts
        ]
        scores = [
            each.scores[[place[seed] for seed in seeds]]
            for each, place in zip(contrasts, places, strict=True)
        ]
        gains = delta_m(scores, [each.lower_is_better for each in contrasts])
        if gains is not None:
            rows.append(
                RelativeGain(arm, tuple(names), tuple(seeds), tuple(gains.tolist()), t_interval(gains, LEVEL))
            )
    return rows


def secondary_results(findings: Findings) -> dict[str, Any]:
    """Both, as `results.json` holds them at `probabilities` and `delta_m`."""
    return {
        "probabilities": {
            name: (row.beliefs._asdict() if row.beliefs else dict.fromkeys(Beliefs._fields))
            | {"over": row.over}
            for name, row in readings(findings).items()
        },
        "delta_m": [
            {
                "arm": row.arm, "questions": list(row.questions), "seeds": list(row.seeds), "mean": row.mean,
                "by_seed": list(row.by_seed), "interval": row.interval, "level": LEVEL, "over": "seeds",
            }
            for row in relative_gains(findings)
        ],
    }  # fmt: skip
