"""Arms by seeds on one set of pictures, from shared heads; then baselines and the report."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from knowhue import __version__
from knowhue.color import rgb_to_lab
from knowhue.config import Config, Evaluation
from knowhue.data.loaders import to_rgb
from knowhue.data.prepare import Prepared
from knowhue.errors import ConfigError, RunError
from knowhue.evaluation.evaluate import predict_class, predict_colour, predict_gray
from knowhue.evaluation.metrics import METRICS
from knowhue.presets import ARMS, arm_config, edit
from knowhue.report.page import write_report
from knowhue.runs import Report, read_json, write_json
from knowhue.training.distances import noise_floor, score_way
from knowhue.training.loop import Work
from knowhue.training.outcome import write_truth
from knowhue.training.train import open_work, run_arm


def run_study(
    config: Config,
    root: Path,
    arms: Sequence[str] = tuple(ARMS),
    seeds: Sequence[int] = (0,),
    description: dict[str, Any] | None = None,
    report: Report = lambda _: None,
) -> Path:
    """Train every arm with every seed below `root`, compare, and write the report.

    The same call goes on where an interrupted one stopped and does not repeat what has ended.

    Args:
        config: the settings that all arms share; its `tasks` and `seed` are set by arm and seed.
        root: the study folder.
        arms: keys of `ARMS`.
        seeds: one block each.
        description: `name`, `preset` and `command`, for the reader of the report.
        report: told about progress.

    Returns:
        The report, `root/report.html`; `root/results.json` lies beside it.

    Raises:
        ConfigError: an unknown arm or doubled seed.
        RunError: `root` holds a study with other settings.
    """
    _check(arms, seeds)
    config = edit(config, {"seed": 0, "tasks": Config().tasks})  # arms and seeds set these
    _refuse_other_settings(config, root)
    work = open_work(config, root, report)
    if work.engine.is_main:
        _describe(config, root, arms, seeds, description or {})
        write_baselines(work, config.evaluation)
        write_truth(work)
    work.engine.wait()
    cells = [(seed, arm) for seed in seeds for arm in arms]
    for done, (seed, arm) in enumerate(cells):
        report({"stage": "cell", "done": done, "total": len(cells), "arm": arm, "seed": seed})
        run_arm(work, arm_config(config, arm, seed), arm)
    report({"stage": "report"})
    if work.engine.is_main:
        write_report(root)
    work.engine.wait()
    return root / "report.html"


def write_baselines(work: Work, settings: Evaluation | None = None) -> None:
    """`baselines.json` and `metrics.json`: what costs nothing, scored as the models are.

    The row `real` is the noise floor: other real pictures, from the training part.
    """
    prepared, settings = work.prepared, settings or Evaluation()
    train = prepared.label[prepared.is_train & (prepared.label >= 0)]
    majority = int(torch.bincount(torch.from_numpy(train)).argmax())
    ways = {
        "gray": predict_gray,
        "mean_colour": predict_colour(mean_colour(prepared)),
        "majority_class": predict_class(majority, len(prepared.classes)),
    }
    scores = {name: score_way(work, settings, way) for name, way in ways.items()}
    write_json(work.root / "baselines.json", scores | {"real": noise_floor(work, settings)})
    described = {
        name: {"title": m.title, "unit": m.unit, "better": m.better, "task": m.task}
        for name, m in METRICS.items()
    }
    write_json(work.root / "metrics.json", described)


def mean_colour(prepared: Prepared, batch_size: int = 256) -> torch.Tensor:
    """Mean a*b* of the training pictures, (2,), CIELAB units."""
    positions = prepared.positions("train")
    total = torch.zeros(2, dtype=torch.float64)
    for start in range(0, len(positions), batch_size):
        chosen = prepared.rgb[positions[start : start + batch_size]]
        chroma = rgb_to_lab(to_rgb(chosen, torch.device("cpu")))[1]
        total += chroma.double().mean((2, 3)).sum(0)
    return (total / len(positions)).float()


def _check(arms: Sequence[str], seeds: Sequence[int]) -> None:
    if not set(arms) <= set(ARMS) or not arms:
        raise ConfigError(f"`arms` should be some of {', '.join(ARMS)}. Found `arms = {', '.join(arms)}`.")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"`seeds` should be different whole numbers. Found `seeds = {list(seeds)}`.")


def _refuse_other_settings(config: Config, root: Path) -> None:
    """One study, one configuration, from the first finished epoch on."""
    path = root / "study.json"
    if not path.exists() or not any(root.rglob("log.jsonl")):
        return
    changed = sorted(
        _differences(_trained_by(read_json(path)["config"]), _trained_by(config.model_dump(mode="json")))
    )
    if changed:
        raise RunError(
            f"`{root}` holds a study with other settings ({', '.join(changed)}). Name another folder with --out, "
            f"or go on with the settings in `{path}`."
        )


def _describe(
    config: Config, root: Path, arms: Sequence[str], seeds: Sequence[int], description: dict[str, Any]
) -> None:
    """Write `study.json`; arms and seeds are added to those of an earlier call."""
    path = root / "study.json"
    settings = config.model_dump(mode="json")
    earlier = read_json(path) if path.exists() else {}
    same = _trained_by(earlier.get("config", {})) == _trained_by(settings)
    described = {
        "name": root.name,
        "version": __version__,
        "created": earlier["created"] if same else datetime.now(UTC).isoformat(timespec="seconds"),
        **description,
        "arms": [*dict.fromkeys([*(earlier["arms"] if same else []), *arms])],
        "seeds": sorted({*(earlier["seeds"] if same else []), *seeds}),
        "config": settings,
    }
    write_json(path, described)


def _trained_by(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those of the evaluation, which may change over finished runs."""
    return {key: value for key, value in settings.items() if key != "evaluation"}


def _differences(old: Any, new: Any, key: str = "") -> set[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = {*old, *new}
        return {d for n in names for d in _differences(old.get(n), new.get(n), f"{key}.{n}".strip("."))}
    return set() if old == new else {key}
