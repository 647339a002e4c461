"""Choose settings from a tuning study, by the rule in its plan (`tuning.yaml` or `methods-tuning.yaml`).

    python studies/poster/choose.py runs/poster/tuning [--plan studies/poster/plan.yaml]

With --plan, the exit code is 1 if that plan has other settings.
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
"""Metrics by which the trials of an arm are compared; all other arms use COLOUR alone."""


def main() -> None:
    """Print every trial, and mark the chosen ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tuning", type=Path, help="folder of the finished tuning study")
    parser.add_argument("--plan", type=Path, help="plan that should have the chosen settings")
    arguments = parser.parse_args()
    tuning = read_plan(arguments.tuning)
    arms = read_results(arguments.tuning / "results.json")["arms"]
    chosen = choose(arms, len(tuning.seeds))
    print(f"{'':2}{'trial':16}{'a*b* error':>12}{'balanced accuracy, %':>22}")
    for arm, result in arms.items():
        values = (result["mean"].get(metric) for metric in (COLOUR, CLASS))
        error, accuracy = (math.nan if value is None else value for value in values)
        mark = "*" if arm in chosen.values() else ""
        print(f"{mark:2}{arm:16}{error:12.3f}{100 * accuracy:22.2f}".replace("nan", "  -"))
    if arguments.plan is not None:
        plan = checked(Plan, read_yaml(arguments.plan))
        trials = {arm: trial for arm, trial in chosen.items() if arm in plan.arms}
        if not trials:
            sys.exit(f"{arguments.plan}: the plan should have at least one of the arms {', '.join(chosen)}")
        wrong = [
            f"`{arm}` should have the settings of `{trial}`"
            for arm, trial in trials.items()
            if settings(plan, arm) != settings(tuning, trial)
        ]
        if wrong:
            sys.exit(f"{arguments.plan}: {', '.join(wrong)}")


def choose(arms: Mapping[str, Any], seeds: int) -> dict[str, str]:
    """Return the chosen trial of each arm, whose settings the arm will use.

    Args:
        arms: results by trial, from `results.json`; a trial is named `<arm>-<settings>`.
        seeds: number of seeds of each trial; a trial that diverged with one of them is not chosen.
    """
    trials: dict[str, list[str]] = {}
    for arm in arms:
        trials.setdefault(arm.partition("-")[0], []).append(arm)
    return {
        name: min(names, key=lambda trial: cost(arms[trial], CRITERIA.get(name, (COLOUR,)), seeds))
        for name, names in trials.items()
    }


def cost(trial: Mapping[str, Any], metrics: tuple[str, ...], seeds: int) -> float:
    """Sum of the metrics in smallest effects of interest, lower is better; infinite if a run has no score."""
    values = [trial["mean"].get(metric) for metric in metrics]
    if trial["finished"] < seeds or None in values:
        return math.inf
    return sum(
        (1 if m == COLOUR else -1) * value / SESOI[m] for m, value in zip(metrics, values, strict=True)
    )


def settings(plan: Plan, arm: str) -> tuple[float, float | None]:
    """The tuned settings of an arm: a learning rate, and the weight of the class task.

    The learning rate is the encoder's, or the network's if it has no encoder. The weight is None for a single task.
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
