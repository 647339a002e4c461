"""A study of two finished cells with logs and scores, for tests of trackers."""

from pathlib import Path
from typing import Any

from knowhue.config import Config
from knowhue.plan import make_plan
from knowhue.presets import arm_config, edit
from knowhue.runs import STUDY_SCHEMA, write_config, write_log, write_status
from knowhue.storage import write_json

HASH = "ab" * 32


def entry(epoch: int, **changes: Any) -> dict[str, Any]:
    """The log entry of an epoch of ten steps with 64 images, as training writes it."""
    values = {
        "phase": "heads" if epoch == 1 else "finetune",
        "epoch": epoch,
        "train": {"l1": 1 / epoch},
        "validation": {"ab_l1": 20.0 - epoch, "ece": None},
        "seconds": 5.0,
        "train_seconds": 4.0,
        "images": 640,
        "images_per_second": 160.0,
        "warnings": [],
    }
    return values | changes


DIAGNOSED = {
    "diagnostics": [{"step": 0, "cosine_colour": 0.5, "seconds": 1.0}, {"step": 5, "cosine_colour": -0.5}]
}


def write_run(root: Path, arm: str, seed: int, epochs: int = 3, state: str = "finished") -> Path:
    folder = root / arm / f"seed-{seed}-0011aabb"
    config = edit(arm_config(Config(), arm), {"seed": seed, "training": {"batch_size": 64}})
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, config)
    write_log(folder, [entry(each, **(DIAGNOSED if each == 2 else {})) for each in range(1, epochs + 1)])
    if state != "running":
        scores = {"split": "test", "metrics": {"ab_l1": 12.25 + seed, "ssim_rgb": None}}
        write_json(folder / "scores.json", scores)
        write_status(folder, {"state": state})
    return folder


def write_logged_study(root: Path) -> Path:
    plan = make_plan(Config(), ["multi", "colour"], [0])
    write_json(
        root / "study.json",
        {**STUDY_SCHEMA, "name": "photos", "hash": HASH, **plan.model_dump(mode="json", by_alias=True)},
    )
    write_json(root / "gate" / "seed-0.json", {})
    write_run(root / "heads", "class", 0)  # a head is not a cell
    write_run(root / "set-aside", "colour", 0)
    for arm in ("colour", "multi"):
        write_run(root, arm, 0)
    return root
