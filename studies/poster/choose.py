"""Which settings a tuning study chose, by the rule that stands in its plan, `tuning.yaml` or `methods-tuning.yaml`.

    python studies/poster/choose.py runs/poster/tuning [--plan studies/poster/plan.yaml]

With --plan it ends with 1 where that plan has others.
"""

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knowhue.errors import KnowhueError
from knowhue.plan import Plan, read_plan
from knowhue.presets import checked
from knowhue.report.results import read_results
from knowhue.settings_text import read_yaml

COLOUR, CLASS = "ab_l1", "balanced_accuracy"
SESOI = {COLOUR: 0.25, CLASS: 0.01}
CRITERIA = {"class": (CLASS,), "multi": (COLOUR, CLASS)}
"""What trials are chosen by that are not of colour alone."""


def main() -> None:
    """Print every trial, the chosen ones marked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tuning", type=Path, help="folder of the finished tuning study")
    parser.add_argument("--plan", type=Path, help="plan that is to have these settings")
    asked = parser.parse_args()
    tuning = read_plan(asked.tuning)
    arms = read_results(asked.tuning / "results.json")["arms"]
    chosen = choose(arms, len(tuning.seeds))
    print(f"{'':2}{'trial':16}{'a*b* error':>12}{'balanced accuracy, %':>22}")
    for arm, found in arms.items():
        numbers = (found["mean"].get(metric, math.nan) for metric in (COLOUR, CLASS))
        error, right = (math.nan if number is None else number for number in numbers)
        print(
            f"{'*' * (arm in chosen.values()):2}{arm:16}{error:12.3f}{100 * right:22.2f}".replace(
                "nan", "  -"
            )
        )
    if asked.plan is not None:
        plan = checked(Plan, read_yaml(asked.plan))
        asks = {arm: trial for arm, trial in chosen.items() if arm in plan.arms}
        if not asks:
            sys.exit(f"{asked.plan}: some of its arms should be {', '.join(chosen)}")
        if others := [arm for arm, trial in asks.items() if settings(plan, arm) != settings(tuning, trial)]:
            sys.exit(
                f"{asked.plan}: {', '.join(others)} should have the settings of {[chosen[arm] for arm in others]}"
            )


def choose(arms: Mapping[str, Any], seeds: int) -> dict[str, str]:
    """The trial that each arm to come takes its settings from.

    Args:
        arms: of `results.json`; they are named by what they are trials of and, after a hyphen, what is tried.
        seeds: that each was tried with; a trial that diverged in one of them is not chosen.
    """
    trials: dict[str, list[str]] = {}
    for arm in arms:
        trials.setdefault(arm.partition("-")[0], []).append(arm)
    return {
        name: min(own, key=lambda arm: cost(arms[arm], CRITERIA.get(name, (COLOUR,)), seeds))
        for name, own in trials.items()
    }


def cost(trial: Mapping[str, Any], metrics: tuple[str, ...], seeds: int) -> float:
    """What is lost, in smallest effects of interest; infinite where a run has no score."""
    found = [trial["mean"].get(metric) for metric in metrics]
    if trial["finished"] < seeds or None in found:
        return math.inf
    return sum((1 if m == COLOUR else -1) * value / SESOI[m] for m, value in zip(metrics, found, strict=True))


def settings(plan: Plan, arm: str) -> tuple[float, float | None]:
    """What was tuned, as an arm has it.

    Learning rate of the encoder, of a network without one its own; with both tasks, weight of the class task.
    """
    config = plan.run_config(arm, plan.seeds[0])
    weight = config.tasks.weights.class_ if len(config.tasks.names) > 1 else None
    rates = config.training.finetune
    return rates.encoder_learning_rate if config.has_encoder else rates.learning_rate, weight


if __name__ == "__main__":
    try:
        main()
    except KnowhueError as error:
        sys.exit(str(error))
