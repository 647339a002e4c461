"""Which settings the tuning study chose, by the rule that stands in `tuning.yaml`.

python studies/poster/choose.py runs/poster/tuning/results.json
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knowhue.report.results import read_results

COLOUR, CLASS = "ab_l1", "balanced_accuracy"
SESOI = {COLOUR: 0.25, CLASS: 0.01}


def main() -> None:
    """Print every trial, the chosen ones marked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results.json of the finished tuning study")
    arms = read_results(parser.parse_args().results)["arms"]
    chosen = choose(arms).values()
    print(f"{'':2}{'trial':16}{'a*b* error':>12}{'balanced accuracy':>20}")
    for arm, found in arms.items():
        error, right = (found["mean"].get(metric) for metric in (COLOUR, CLASS))
        numbers = f"{error or float('nan'):12.3f}{100 * (right or float('nan')):18.2f} %".replace(
            "nan %", "  -  "
        )
        print(f"{'*' if arm in chosen else '':2}{arm:16}{numbers}")


def choose(arms: Mapping[str, Any]) -> dict[str, str]:
    """The trial that each of `colour`, `class` and `multi` takes its settings from.

    Args:
        arms: of `results.json`; their names begin with what they are trials of.
    """
    cost = {arm: _cost(found["mean"]) for arm, found in arms.items()}
    families = {name: [arm for arm in arms if arm.startswith(f"{name}-r")] for name in ("colour", "class")}
    families["multi"] = [arm for arm in arms if arm.startswith("multi-w")]
    return {name: min(trials, key=cost.__getitem__) for name, trials in families.items()}


def _cost(mean: Mapping[str, float | None]) -> float:
    """What is lost, in smallest effects of interest; of one task alone the metric of that task."""
    return (mean.get(COLOUR) or 0.0) / SESOI[COLOUR] - (mean.get(CLASS) or 0.0) / SESOI[CLASS]


if __name__ == "__main__":
    main()
