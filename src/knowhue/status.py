"""How far every cell (arm, seed) of a study is, read from its files; needs no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from knowhue.config import Config
from knowhue.errors import ConfigError
from knowhue.plan import Plan
from knowhue.presets import checked
from knowhue.runs import read_description, read_log, read_status, run_folder

ENDED = ("finished", "diverged")


class Cell(NamedTuple):
    """One arm with one seed.

    Attributes:
        state: `missing`, `running` (or interrupted), `finished`, `diverged`.
        epochs: done, of `of`; the heads' count once the arm itself has begun.
        seconds: that this cell's own fine-tuning and evaluation took so far.
    """

    arm: str
    seed: int
    state: str
    epochs: int
    of: int
    seconds: float


def read_plan(root: Path) -> Plan:
    """The frozen plan of a study folder.

    Raises:
        RunError: there is none.
        ConfigError: it is of another version.
    """
    described = read_description(root)
    return checked(Plan, {key: described[key] for key in Plan.model_fields if key in described})


def read_tuning(root: Path) -> Mapping[str, Any]:
    """`study.json` of a tuning study, by which settings may be chosen.

    Raises:
        RunError: there is none.
        ConfigError: the study reports.
    """
    described = read_description(root)
    if described.get("purpose") != "tuning":
        raise ConfigError(
            f"`--tuned-on` should be the folder of a tuning study, made by --tuning. Found `{root}`, which reports: "
            "settings that were chosen by its numbers have seen the images that it reports on."
        )
    return described


def read_cells(root: Path, plan: Plan) -> list[Cell]:
    """Every cell of the plan, seed by seed."""
    return [_cell(root, plan, arm, seed) for seed in plan.seeds for arm in plan.arms]


def _cell(root: Path, plan: Plan, arm: str, seed: int) -> Cell:
    config = plan.run_config(arm, seed)
    folder = run_folder(root, arm, config)
    log = read_log(folder, "finetune")
    status = read_status(folder)
    begun = config.training.heads.epochs if status and config.has_encoder else 0
    spent: Mapping[str, float] = status.get("seconds", {})
    seconds = sum(entry["seconds"] for entry in log) + spent.get("evaluate", 0.0)
    return Cell(
        arm, seed, status.get("state", "missing"), begun + len(log), _epochs(config), round(seconds, 1)
    )


def _epochs(config: Config) -> int:
    return config.training.heads.epochs + config.training.finetune.epochs
