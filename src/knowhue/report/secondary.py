"""Secondary readings of a study: probabilities beside each verdict, and the relative gain over all tasks of an arm."""

from typing import Any

import numpy as np

from knowhue.report.findings import Findings
from knowhue.statistics import LEVEL
from knowhue.statistics.paired import t_interval
from knowhue.statistics.readings import Beliefs, beliefs, delta_m


def readings(findings: Findings) -> list[dict[str, Any]]:
    """Return the probabilities beside each verdict; none for a tuning study, and none for a question without runs.

    Rows have `question`, `metric`, `sesoi`; `worse`, `equal`, `better`, None where there is no interval that is
    possible, and `why_not` says why; and `over`, what chance they speak of, as `Bounds.over`.
    """
    rows = []
    for name, judged in findings.verdicts.items():
        found, outer, asked = judged.found, judged.outer, findings.study.questions[name]
        if found is None or outer is None or findings.study.is_tuning:
            continue
        known, why_not = None, ""
        if outer.interval is None or found.parts is None:
            why_not = outer.why_not or "one seed says nothing of others"
        else:
            known = beliefs(found.parts, asked.sesoi, found.lower_is_better, outer.level)
        probabilities = known._asdict() if known else dict.fromkeys(Beliefs._fields)
        row = {"question": name, "metric": asked.metric, "sesoi": asked.sesoi, "over": outer.over}
        rows.append(row | probabilities | {"why_not": why_not})
    return rows


def relative_gains(findings: Findings) -> list[dict[str, Any]]:
    """Return the mean relative gain of each arm that two or more questions are about, over the seeds that all have.

    Rows have `arm`; `questions`, whose primary metrics are averaged; `seeds`; `by_seed`, where 0.01 is one per cent and
    positive is better; their `mean`; and `interval`, Student's t, over seeds, on these test images; None of one seed.
    None of a tuning study, see `readings`.
    """
    if findings.study.is_tuning:
        return []
    by_arm: dict[str, dict[str, Any]] = {}
    for name, asked in findings.study.questions.items():
        if (found := findings.verdicts[name].found) is not None:
            by_arm.setdefault(asked.multi, {})[name] = found
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
