"""Gradients of both tasks at the shared encoder: conflicts, correlation with the transfer, each loss's share.

Gradient conflict does not predict generalisation (Mueller et al., TMLR), and affinity only weakly (Azorin et al. 2023),
so these numbers are descriptive and never a verdict.
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
"""Fewest seeds for a correlation; with 7, a rank correlation of .79 reaches p = .05."""
RESAMPLES = 9999
"""Most permutations; 7 seeds have 5,040, so p is exact there, and with more seeds permutations are drawn."""
MOMENTS = {"fork": "before", "end": "after"}
"""Moments at which gradients are measured, relative to fine-tuning."""
LOSSES = {"class": "cross-entropy", "pixel": "pixel loss", "adversarial": "adversarial loss"}
LEAST_ADVERSARIAL = 0.10
"""Share of the colour gradient (pixel and adversarial loss) below which an adversarial loss has hardly any effect."""


class Diagnostic(NamedTuple):
    """A gradient statistic and how it is aggregated over a run."""

    title: str
    of: Callable[[Sequence[Row]], float | None]
    """returns its value for a run from the measured steps; None if they lack it"""
    expected_sign: Mapping[str, int]
    """by question, the sign of its correlation with transfer if it predicts transfer; only for questions it concerns"""
    limits: Interval
    """smallest and largest possible value; a quantity between 0 and 1 is a share"""


def _finite_values(steps: Sequence[Row], name: str) -> list[float]:
    values = [step.get(name) for step in steps]
    return [value for value in values if value is not None and math.isfinite(value)]


def _over_steps(name: str, join: Callable[[Any], Any]) -> Callable[[Sequence[Row]], float | None]:
    return lambda steps: float(join(np.array(values))) if (values := _finite_values(steps, name)) else None


def _norm_ratio(steps: Sequence[Row]) -> float | None:
    """Return the geometric mean of the norms' ratio, class over colour; colour's two terms count as orthogonal."""
    pairs = [
        (step.get("norm_class"), math.hypot(step["norm_pixel"], step.get("norm_adversarial") or 0.0))
        for step in steps
        if step.get("norm_pixel") is not None
    ]
    # the mean of logarithms, so that a ratio and its inverse cancel
    ratios = [math.log(one / other) for one, other in pairs if one and other and math.isfinite(one * other)]
    return math.exp(math.fsum(ratios) / len(ratios)) if ratios else None


_WITH = {"pixel": "pixel loss", "adversarial": "adversarial loss", "colour": "colour sum"}
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
"""All measured steps have the same weight. Cosines are means, and conflicts are shares of negative cosines, both at the
shared features; the norm ratio is a geometric mean; affinities are medians, because one step that almost destroys the
other task would dominate a mean."""


def run_diagnostics(study: Study, arm: str) -> dict[int, dict[str, float | None]]:
    """Return by seed the diagnostics of an arm's measured runs, and their `cost` as a share of fine-tuning time.

    Runs that diverged are included, unfinished ones are not.
    """
    found = {}
    for run in study.of(arm):
        steps = [step for entry in run.log for step in entry.get("diagnostics") or ()]
        if steps and (run.finished or run.state == "diverged"):
            spent = [entry.get("seconds") or 0.0 for entry in run.log if entry.get("phase") == "finetune"]
            cost = math.fsum(_finite_values(steps, "seconds")) / math.fsum(spent) if any(spent) else None
            found[run.seed] = {name: each.of(steps) for name, each in DIAGNOSTICS.items()} | {COST: cost}
    return found


def diagnostic_means(study: Study) -> list[dict[str, Any]]:
    """Return mean, interval, minimum and maximum over seeds of each diagnostic of the questions' multi-task arms.

    `interval` is Student's t at 95 % over seeds; None where `bounded_interval` gives none.
    """
    rows, cost = [], Diagnostic("Time of these diagnostics, % of fine-tuning", lambda _: None, {}, (0.0, 1.0))
    for arm in dict.fromkeys(spec.multi for spec in study.questions.values()):
        found = run_diagnostics(study, arm)
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
    """Correlate each diagnostic with the transfer of each question over seeds; empty without diagnostics.

    Transfer is the paired difference of the primary metric, positive where multi-task is better. `correlation` is
    Spearman's; None with fewer than 7 seeds, or if one of the two is constant. `p` is two-sided, by permutation, and
    not adjusted: of a few tens of rows some reach p <= .05 by chance. `word` is `yes` (the expected sign and p <= .05),
    `no`, `nothing expected`, or `too few seeds`.
    """
    rows = []
    for question, spec in study.questions.items():
        found, compared = run_diagnostics(study, spec.multi), primary(study, question)
        transfer = dict(zip(compared.seeds, compared.gains.tolist(), strict=True)) if compared else {}
        for name, each in DIAGNOSTICS.items() if found else ():
            known = [
                (value, transfer[seed])
                for seed, values in found.items()
                if seed in transfer and (value := values[name]) is not None
            ]
            correlation, p, word = _correlate(known, each.expected_sign.get(question, 0))
            rows.append({
                "name": name, "title": each.title, "question": question, "seeds": len(known),
                "correlation": correlation, "p": p, "word": word,
            })  # fmt: skip
    return rows


def _correlate(
    known: Sequence[tuple[float, float]], expected_sign: int
) -> tuple[float | None, float | None, str]:
    no = "no" if expected_sign else "nothing expected"
    if len(known) < FEWEST:
        return None, None, "too few seeds"
    first, second = np.array(known, float).T
    # a constant has no correlation
    if not np.ptp(first) or not np.ptp(second):
        return None, None, no
    from scipy import stats

    # Spearman's correlation is Pearson's correlation of the ranks
    by_permutation = stats.PermutationMethod(n_resamples=RESAMPLES, rng=np.random.default_rng(0))
    found = stats.pearsonr(stats.rankdata(second), stats.rankdata(first), method=by_permutation)
    correlation, p = map(float, found)
    return correlation, p, "yes" if p <= ALPHA and correlation * expected_sign > 0 else no


def gradient_table(study: Study) -> dict[str, dict[str, Any]]:
    """Return by arm and moment (`fork`, `end`) the means over seeds of `norms` and `shares` by loss, and `seeds`.

    A norm is that of the weighted loss's gradient with respect to all parameters of the encoder, averaged over a few
    training batches; a share is relative to the sum of the arm's norms. `adversarial_of_colour` is the adversarial
    loss's share of the colour gradient. Arms that do not train the encoder are left out.
    """
    table: dict[str, dict[str, Any]] = {}
    for arm in study.runs:
        for moment in MOMENTS:
            if found := _gradients(study.finished(arm), moment):
                table.setdefault(arm, {})[moment] = found
    return table


def gradient_warnings(study: Study) -> list[tuple[str, str]]:
    """Return one warning (arms, text) for all arms whose adversarial loss hardly reaches the encoder, or none."""
    low: dict[str, list[float]] = {}
    arms: dict[str, None] = {}
    for arm, moments in gradient_table(study).items():
        for moment, each in moments.items():
            share = each["adversarial_of_colour"]
            if share is not None and share < LEAST_ADVERSARIAL:
                low.setdefault(MOMENTS[moment], []).append(100 * share)
                arms[arm_label(study, arm)] = None
    where = []
    for title in sorted(low, key=list(MOMENTS.values()).index):
        # minimum and maximum, or one number if both round to the same
        ends = dict.fromkeys(f"{share:.1f}" for share in (min(low[title]), max(low[title])))
        where.append(f"{' to '.join(ends)} % {title}")
    text = (
        f"the adversarial loss's share of the colour gradient at the encoder is {' and '.join(where)} fine-tuning, "
        f"below {100 * LEAST_ADVERSARIAL:.0f} %: the GAN has hardly any effect (--set colour.adversarial_weight)."
    )
    return [(", ".join(arms), text)] if arms else []


def _gradients(runs: list[Run], moment: str) -> dict[str, Any]:
    measured = [run.gradient_shares[moment] for run in runs if moment in run.gradient_shares]
    if not measured:
        return {}
    names = [name for name in LOSSES if all(name in each["norms"] for each in measured)]
    found: dict[str, Any] = {
        kind: {name: mean([each[kind][name] for each in measured]) for name in names}
        for kind in ("norms", "shares")
    }
    colour = [found["norms"].get(name) for name in ("adversarial", "pixel")]
    of_colour = colour[0] / sum(colour) if None not in colour and sum(colour) > 0 else None
    return found | {"adversarial_of_colour": of_colour, "seeds": len(measured)}
