"""How the tasks pulled at the shared encoder, whether that foretold the transfer, and which losses trained it.

Conflict of gradients is known not to foretell generalisation (Mueller et al., TMLR) and affinity only weakly
(Azorin et al. 2023), so what stands here describes and is never a verdict.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from knowhue.report.contrasts import primary
from knowhue.report.study import Row, Run, Study, arm_label
from knowhue.statistics import ALPHA
from knowhue.statistics.paired import Interval, bounded_interval, mean

COST = "cost"
FEWEST = 7
"""Seeds; with them a rank correlation reaches p = .05 from .79 on."""
RESAMPLES = 9999  # all pairings of 7 seeds are 5040, so p is exact there, and drawn beyond
MOMENTS = {"fork": "at the fork", "end": "at the end"}
LOSSES = {"class": "cross-entropy", "pixel": "pixel loss", "adversarial": "adversarial loss"}
LEAST_ADVERSARIAL = 0.10
"""Share of the colour gradient (pixel and adversarial loss) below which an adversarial loss is as good as off."""


class Diagnostic(NamedTuple):
    """One gradient statistic and how it is aggregated over a run."""

    title: str
    of: Callable[[Sequence[Row]], float | None]
    """its value for a run, from the steps that were measured; None where they do not say"""
    promise: Mapping[str, int]
    """by question, the sign of the correlation with transfer that it would have if it foretold it; a question that it
    says nothing of is left out"""
    limits: Interval
    """the least and the greatest value that it can have; between 0 and 1 it is a share"""


def _known(steps: Sequence[Row], name: str) -> list[float]:
    values = [step.get(name) for step in steps]
    return [value for value in values if value is not None and math.isfinite(value)]


def _over_steps(name: str, join: Callable[[Any], Any]) -> Callable[[Sequence[Row]], float | None]:
    return lambda steps: float(join(np.array(values))) if (values := _known(steps, name)) else None


def _norm_ratio(steps: Sequence[Row]) -> float | None:
    """Return the geometric mean of class over colour; colour's norm as if its two terms were at right angles."""
    pairs = [
        (step.get("norm_class"), math.hypot(step["norm_pixel"], step.get("norm_adversarial") or 0.0))
        for step in steps
        if step.get("norm_pixel") is not None
    ]
    # of logarithms, so that a ratio and its inverse cancel
    ratios = [math.log(one / other) for one, other in pairs if one and other and math.isfinite(one * other)]
    return math.exp(math.fsum(ratios) / len(ratios)) if ratios else None


_WITH = {"pixel": "pixel loss", "adversarial": "adversarial", "colour": "colour sum"}
_AFFINITIES = {"class_to_colour": "class to colour", "colour_to_class": "colour to class"}
DIAGNOSTICS: dict[str, Diagnostic] = (
    {
        f"cosine_{name}": Diagnostic(
            f"Cosine, cross-entropy and {title}", _over_steps(f"cosine_{name}", np.mean),
            {"colour": 1, "class": 1}, (-1.0, 1.0),
        )
        for name, title in _WITH.items()
    }
    | {
        f"conflict_{name}": Diagnostic(
            f"Conflict with {title}, % of steps", _over_steps(f"cosine_{name}", lambda values: np.mean(values < 0)),
            {"colour": -1, "class": -1}, (0.0, 1.0),
        )
        for name, title in _WITH.items()
    }
    | {"norm_ratio": Diagnostic("Gradient norm, class over colour", _norm_ratio, {}, (0.0, math.inf))}
    | {
        f"affinity_{name}": Diagnostic(
            f"Affinity, {title}", _over_steps(f"affinity_{name}", np.median), {name.split("_to_")[1]: 1},
            (-math.inf, math.inf),
        )
        for name, title in _AFFINITIES.items()
    }
)  # fmt: skip
"""Each step that was measured counts the same. Cosines are means and conflicts shares of negative cosines, at the
shared features; the norm ratio is a geometric mean; affinities are medians, because a step that all but forgets the
other task weighs more in a mean than all the rest."""


def diagnosed(study: Study, arm: str) -> dict[int, dict[str, float | None]]:
    """Return by seed the diagnostics, and their `cost`, the share of fine-tuning time, of each measured run of an arm.

    A run counts that came to its end, diverged or not.
    """
    found = {}
    for run in study.of(arm):
        steps = [step for entry in run.log for step in entry.get("diagnostics") or ()]
        if steps and (run.finished or run.state == "diverged"):
            spent = [entry.get("seconds") or 0.0 for entry in run.log if entry.get("phase") == "finetune"]
            cost = math.fsum(_known(steps, "seconds")) / math.fsum(spent) if any(spent) else None
            found[run.seed] = {name: each.of(steps) for name, each in DIAGNOSTICS.items()} | {COST: cost}
    return found


def diagnostic_means(study: Study) -> list[dict[str, Any]]:
    """Return each diagnostic of the questions' multi-task arms over the seeds that have it: mean, interval, extremes.

    `interval`: 95 %, Student's t over seeds, where that is possible.
    """
    rows, cost = [], Diagnostic("Share of fine-tuning time, %", lambda _: None, {}, (0.0, 1.0))
    for arm in dict.fromkeys(asked.multi for asked in study.questions.values()):
        found = diagnosed(study, arm)
        for name, each in (DIAGNOSTICS | {COST: cost}).items():
            known = {seed: value for seed, values in found.items() if (value := values[name]) is not None}
            if known:
                values = list(known.values())
                rows.append({
                    "name": name, "title": each.title, "arm": arm, "unit": "share" if each.limits == (0.0, 1.0) else "",
                    "seeds": tuple(known), "mean": float(np.mean(values)), "lowest": min(values),
                    "highest": max(values), "interval": bounded_interval(values, each.limits),
                })  # fmt: skip
    return rows


def predictions(study: Study) -> list[dict[str, Any]]:
    """Set each diagnostic beside the transfer of each question, over seeds; nothing without diagnostics.

    Transfer is the paired difference of the primary metric, positive where multi-task is better. `correlation` is
    Spearman's; None with fewer than 7 seeds, or where one of the two is the same for all. `p` is two-sided, by
    permutation, not adjusted: with a few tens of rows some reach p <= .05 by chance. `word` is `yes in sign` (the
    promised sign, and p <= .05), `no`, `no promise`, or `too few seeds`.
    """
    rows = []
    for question, asked in study.questions.items():
        found, compared = diagnosed(study, asked.multi), primary(study, question)
        transfer = dict(zip(compared.seeds, compared.gains.tolist(), strict=True)) if compared else {}
        for name, each in DIAGNOSTICS.items() if found else ():
            known = [
                (value, transfer[seed])
                for seed, values in found.items()
                if seed in transfer and (value := values[name]) is not None
            ]
            correlation, p, word = _predict(known, each.promise.get(question, 0))
            rows.append({
                "name": name, "title": each.title, "question": question, "seeds": len(known),
                "correlation": correlation, "p": p, "word": word,
            })  # fmt: skip
    return rows


def _predict(known: Sequence[tuple[float, float]], promise: int) -> tuple[float | None, float | None, str]:
    if len(known) < FEWEST:
        return None, None, "too few seeds"
    first, second = np.array(known, float).T
    # what never varies has no correlation
    if not np.ptp(first) or not np.ptp(second):
        return None, None, "no" if promise else "no promise"
    from scipy import stats

    # Pearson's correlation of ranks is Spearman's
    by_permutation = stats.PermutationMethod(n_resamples=RESAMPLES, rng=np.random.default_rng(0))
    found = stats.pearsonr(stats.rankdata(second), stats.rankdata(first), method=by_permutation)
    correlation, p = map(float, found)
    foretold = p <= ALPHA and correlation * promise > 0
    return correlation, p, "yes in sign" if foretold else "no" if promise else "no promise"


def gradient_table(study: Study) -> dict[str, dict[str, Any]]:
    """Return by arm and moment (`fork`, `end`) the means over seeds of `norms` and `shares`, by loss, and `seeds`.

    The norm is that of the weighted loss's gradient with respect to all parameters of the encoder, the mean over a few
    training batches; its share is of the sum of the norms of an arm. `adversarial_of_colour` is the adversarial
    loss's share of the colour gradient. Arms that do not train the encoder are left out.
    """
    table: dict[str, dict[str, Any]] = {}
    for arm in study.runs:
        for moment in MOMENTS:
            if found := _gradients(study.finished(arm), moment):
                table.setdefault(arm, {})[moment] = found
    return table


def gradient_warnings(study: Study) -> list[tuple[str, str]]:
    """Return (who, what), once for all arms, where an adversarial loss hardly reaches the encoder."""
    low = {
        (arm, moment): 100 * share
        for arm, moments in gradient_table(study).items()
        for moment, each in moments.items()
        if (share := each["adversarial_of_colour"]) is not None and share < LEAST_ADVERSARIAL
    }
    if not low:
        return []
    where = []
    for moment, title in MOMENTS.items():
        if shares := [share for (_, at), share in low.items() if at == moment]:
            # the least and the greatest, once where they are rounded to the same
            ends = dict.fromkeys(f"{share:.1f}" for share in (min(shares), max(shares)))
            where.append(f"{' to '.join(ends)} % {title}")
    text = (
        f"the adversarial loss is {' and '.join(where)} of the colour gradient at the encoder, below "
        f"{100 * LEAST_ADVERSARIAL:.0f} %: the GAN is as good as off (--set colour.adversarial_weight)."
    )
    return [(", ".join(dict.fromkeys(arm_label(study, arm) for arm, _ in low)), text)]


def _gradients(runs: list[Run], moment: str) -> dict[str, Any]:
    measured = [run.gradient_shares[moment] for run in runs if moment in run.gradient_shares]
    if not measured:
        return {}
    names = [name for name in LOSSES if all(name in each["norms"] for each in measured)]
    norms, shares = (
        {name: mean([each[kind][name] for each in measured]) for name in names}
        for kind in ("norms", "shares")
    )
    pixel, adversarial = norms.get("pixel"), norms.get("adversarial")
    of_colour = None
    if pixel is not None and adversarial is not None and pixel + adversarial > 0:
        of_colour = adversarial / (pixel + adversarial)
    return {"norms": norms, "shares": shares, "adversarial_of_colour": of_colour, "seeds": len(measured)}
