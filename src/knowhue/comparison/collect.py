"""What the runs of a comparison gave and cost, read from their folders; prediction is timed here, side by side."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from knowhue.comparison.asked import Asked, Epochs
from knowhue.data.loaders import plain_batches
from knowhue.evaluation.features import DISTANCES
from knowhue.evaluation.metrics import METRICS
from knowhue.models.multitask import MultiTask
from knowhue.plan import Plan
from knowhue.runs import has_ended, read_config, read_log, run_folder
from knowhue.storage import read_arrays, read_json
from knowhue.tensors import Batch
from knowhue.training.loop import Work, predict
from knowhue.training.train import load_run

TIMED_IMAGES = 32
ROUNDS = 3
REGIMES = ("images", "clock")


def runs_of(plan: Plan, arm: str, root: Path) -> list[Path]:
    """The folders of an arm's ended runs, by seed."""
    folders = [run_folder(root, arm, plan.run_config(arm, seed)) for seed in plan.seeds]
    return [folder for folder in folders if has_ended(folder)]


def finished(folders: Sequence[Path]) -> list[Path]:
    """Those that did not diverge."""
    return [folder for folder in folders if read_json(folder / "status.json")["state"] == "finished"]


def train_seconds(folder: Path) -> float:
    """Seconds that a run trained for, its heads included, its evaluation not."""
    return sum(entry["train_seconds"] for entry in read_log(folder))


def phase_seconds(folder: Path) -> tuple[float, float]:
    """Seconds of an epoch on the frozen encoder and of fine-tuning; 0 of a phase that a run did not have."""
    log = read_log(folder)
    heads, tuned = (
        [entry["train_seconds"] for entry in log if entry["phase"] == phase]
        for phase in ("heads", "finetune")
    )
    return (sum(heads) / max(len(heads), 1), sum(tuned) / max(len(tuned), 1))


def collect(
    work: Work, asked: Asked, plans: Mapping[str, Plan], clock: Mapping[str, Epochs]
) -> dict[str, Any]:
    """`runs`, `baselines`, `metrics`, `images` and `environment` of `comparison.json`."""
    arms = {
        "images": {name: name for name in asked.methods},
        "clock": {name: asked.clock_arm(name, clock[name]) for name in asked.methods},
    }
    at_work = _at_work(work, asked, plans["images"])
    runs = [
        {"method": name, "regime": regime}
        | _run(work, plans[regime], arms[regime][name], seed, at_work.get(name, {}))
        for regime in REGIMES
        for name in asked.methods
        for seed in asked.seeds
    ]
    baselines = read_json(work.root / "baselines.json")
    prepared = work.prepared
    return {
        "runs": _comparable(runs),
        "baselines": {name: scores_of(found) for name, found in baselines.items()},
        "metrics": described_metrics(),
        "images": {
            "train": len(prepared.positions("train")),
            "split": prepared.reporting_split,
            "judged": len(prepared.positions(prepared.reporting_split)),
            "size_px": prepared.rgb.shape[1],
            "classes": list(prepared.classes),
        },
        "environment": work.engine.environment(),
    }


def _comparable(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs of a seed and regime are compared with one another: not where they were computed in several ways."""
    steps: dict[tuple[str, int], set[str]] = {}
    for run in runs:
        if run["state"] != "missing":
            steps.setdefault((run["regime"], run["seed"]), set()).add(run["golden_step"])
    mixed = {block for block, found in steps.items() if len(found) > 1}
    return [
        run | {"state": "unpaired", "scores": {}}
        if (run["regime"], run["seed"]) in mixed and run["state"] != "missing"
        else run
        for run in runs
    ]


def scores_of(found: Mapping[str, Any]) -> dict[str, float | None]:
    """Metrics, distances and recognition of `scores.json`, or of a row of `baselines.json`, in one table."""
    metrics = found.get("metrics", found)
    flat: dict[str, float | None] = {
        name: value for name, value in metrics.items() if value is None or isinstance(value, int | float)
    }
    flat |= {name: entry.get("value") for name, entry in found.get("distribution", {}).items()}
    shown_to = list(found.get("recognition", {}).values())
    return flat | ({"recognition": shown_to[0]["accuracy"]} if shown_to else {})


def described_metrics() -> dict[str, dict[str, str]]:
    """Title, unit and better direction of all that a run's scores may hold."""
    known = {name: {"title": m.title, "unit": m.unit, "better": m.better} for name, m in METRICS.items()}
    known |= {name: {"title": d.title, "unit": "", "better": "lower"} for name, d in DISTANCES.items()}
    recognition = "Recognised by a classifier of true-colour images"
    known["recognition"] = {"title": recognition, "unit": "share", "better": "higher"}
    diversity = "Spread of several samples of an image, sqrt(var a* + var b*)"
    return known | {"diversity": {"title": diversity, "unit": "CIELAB units", "better": "neither"}}


def _run(work: Work, plan: Plan, arm: str, seed: int, at_work: Mapping[str, Any]) -> dict[str, Any]:
    config = plan.run_config(arm, seed)
    folder = run_folder(work.root, arm, config)
    if not has_ended(folder):
        return {"seed": seed, "state": "missing", "scores": {}, "cost": {}, "samples": None}
    scores, seconds = scores_of(read_json(folder / "scores.json")), train_seconds(folder)
    samples = read_arrays(folder / "samples.npz")
    if "diversity" in samples:
        scores["diversity"] = float(samples["diversity"].mean())
    seen = sum(entry["images"] for entry in read_log(folder))
    return {
        "seed": seed,
        "state": read_json(folder / "status.json")["state"],
        "golden_step": read_json(folder / "environment.json").get("golden_step", ""),
        "scores": scores,
        "cost": {
            "train_s": round(seconds, 2),
            "images_seen": seen,
            "train_s_per_image": seconds / max(seen, 1),
            **at_work,
        },
        "samples": str((folder / "samples.npz").relative_to(work.root)),
    }


def _at_work(work: Work, asked: Asked, plan: Plan) -> dict[str, dict[str, Any]]:
    """Seconds an image that each method predicts in, and its parameters; rounds go from method to method."""
    models = {}
    for name in asked.methods:
        ended = runs_of(plan, name, work.root)
        if ended:
            models[name] = load_run(work, read_config(ended[0]), ended[0])
    positions = work.prepared.positions(work.prepared.reporting_split)[:TIMED_IMAGES]
    (batch,) = plain_batches(work.prepared, positions, TIMED_IMAGES, work.engine.device)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS + 1):
        for name, model in models.items():
            seconds[name].append(_timed(work, model, batch))
    return {
        name: {
            "predict_s_per_image": median(seconds[name][1:]) / len(positions),  # the first warms up
            "parameters": sum(each.numel() for each in model.parameters() if each.requires_grad),
        }
        for name, model in models.items()
    }


def _timed(work: Work, model: MultiTask, batch: Batch) -> float:
    started = time.perf_counter()
    chroma = predict(work.engine, model, batch).chroma
    assert chroma is not None  # every method colours
    chroma.sum().item()  # waits for the device
    return time.perf_counter() - started
