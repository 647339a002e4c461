"""What trained the encoder: the share of each loss in the gradient at its parameters, arm by arm."""

from collections.abc import Mapping
from typing import Any

from knowhue.report.records import Run, Study, Table, mean
from knowhue.report.taught import arm_label

MOMENTS = {"fork": "at the fork", "end": "at the end"}
LOSSES = {"class": "cross-entropy", "pixel": "pixel loss", "adversarial": "adversarial loss"}
LEAST_ADVERSARIAL = 0.10
"""Share of the colour gradient (pixel and adversarial loss) below which an adversarial loss is as good as off."""


def gradient_table(study: Study) -> dict[str, dict[str, Any]]:
    """Return by arm and moment (`fork`, `end`) the means over seeds of `norms` and `shares`, by loss, and `seeds`.

    The norm is that of the weighted loss's gradient with respect to all parameters of the encoder, the mean over a few
    training batches; its share is of the sum of the norms of an arm. `adversarial_of_colour` is the adversarial
    loss's share of the colour gradient. Arms that do not train the encoder are left out.
    """
    table = {}
    for arm in study.runs:
        moments = {moment: _mean(study.finished(arm), moment) for moment in MOMENTS}
        table |= {arm: known} if (known := {name: each for name, each in moments.items() if each}) else {}
    return table


def gradient_rows(study: Study) -> Table:
    """Return `gradient_table` as text, one row an arm and moment; header first."""
    titles = [f"{title.capitalize()}, % of the gradient" for title in LOSSES.values()]
    rows: Table = [["Arm", "When", *titles, "Adversarial, % of the colour gradient", "Seeds"]]
    for arm, moments in gradient_table(study).items():
        for moment, found in moments.items():
            shares = [*(found["shares"].get(name) for name in LOSSES), found["adversarial_of_colour"]]
            label = arm_label(study, arm)
            rows.append([label, MOMENTS[moment], *map(_percent, shares), found["seeds"]])
    return rows


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


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
    said = [
        f"{_span([share for (_, at), share in low.items() if at == moment])} % {title}"
        for moment, title in MOMENTS.items()
        if any(at == moment for _, at in low)
    ]
    text = (
        f"the adversarial loss is {' and '.join(said)} of the colour gradient at the encoder, below "
        f"{100 * LEAST_ADVERSARIAL:.0f} %: the GAN is as good as off (--set colour.adversarial_weight)."
    )
    return [(", ".join(dict.fromkeys(arm_label(study, arm) for arm, _ in low)), text)]


def _span(shares: list[float]) -> str:
    """Return the least and the greatest, once where they look the same."""
    return " to ".join(dict.fromkeys(f"{share:.1f}" for share in (min(shares), max(shares))))


def _mean(runs: list[Run], moment: str) -> dict[str, Any] | None:
    seen = [run.gradient_shares[moment] for run in runs if moment in run.gradient_shares]
    if not seen:
        return None
    names = [name for name in LOSSES if all(name in each["norms"] for each in seen)]
    table: dict[str, Any] = {
        kind: {name: mean([each[kind][name] for each in seen]) for name in names}
        for kind in ("norms", "shares")
    }
    return table | {"adversarial_of_colour": _of_colour(table["norms"]), "seeds": len(seen)}


def _of_colour(norms: Mapping[str, float | None]) -> float | None:
    pixel, adversarial = norms.get("pixel"), norms.get("adversarial")
    if pixel is None or adversarial is None or not pixel + adversarial:
        return None
    return adversarial / (pixel + adversarial)
