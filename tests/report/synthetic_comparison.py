"""The folder of a comparison of methods with synthetic runs."""

import json
from pathlib import Path

import numpy as np

from knowhue.plan import Plan, make_comparison
from knowhue.presets import METHODS, load_config
from knowhue.runs import STUDY_SCHEMA, run_folder
from knowhue.storage import write_json

ERRORS = {
    "l1": (11.0, 12.0, 13.0),
    "gan": (12.0, 12.5, 14.0),
    "palette-ab": (17.0, 16.0, None),
    "pix2pix": ("missing", 15.5, 16.0),
}
"""a*b* error by method and seed; None is a diverged run."""
BASELINES = {"gray": {"ab_l1": 14.0}, "real": {"distribution": {"fd_lite0": {"value": 3.0}}}}
PARTS = {"images": "0a1b2c3d", "encoder_weights": {}}


def write_comparison(
    folder: Path, errors=ERRORS, baselines=BASELINES, name="test", clock=None, arms=None
) -> Path:
    """Write a comparison with the runs of `errors`.

    Args:
        errors: a*b* error by method and seed; None is a diverged run, "missing" one that was not made.
        baselines: content of `baselines.json`.
        name: name of the comparison.
        clock: errors of the runs at equal wall-clock time; None if these have not begun.
        arms: arms of the plan; None is all `METHODS`.
    """
    generator = np.random.default_rng(0)
    seeds = range(len(next(iter(errors.values()))))
    plan = make_comparison(load_config("demo"), tuple(errors if arms is None else METHODS), seeds=seeds)
    if arms is not None:
        plan = plan.model_copy(update={"arms": arms})
    hashed = plan.hash(PARTS)
    wall_clock = {}
    if clock:
        epochs = {method: (1, 2) for method in errors}
        plan = plan.at_equal_wall_clock(epochs)
        wall_clock = {"wall_clock": {"budget_s": 45.0, "epochs": epochs}}
    write_json(folder / "study.json", {
        **STUDY_SCHEMA, "name": name, "version": "0", "created": "2026-01-01T00:00:00", "hash": hashed,
        "parts": PARTS, "command": "knowhue compare", **plan.model_dump(mode="json"), **wall_clock,
    })  # fmt: skip
    metrics = {metric: {"better": "lower"} for metric in ("ab_l1", "ciede2000")}
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "baselines.json", baselines)
    write_json(
        folder / "costs.json", {m: {"predict_s_per_image": 0.01, "parameters": 2_000_000} for m in errors}
    )
    write_json(folder / "images" / "prepared.json", {"counts": {"train": {"a": 5, "b": 6}}, "size_px": 8})
    truth = {"gray": images(generator, 4), "truth": images(generator, 4)}
    np.savez(folder / "images" / "samples.npz", index=np.arange(4), label=np.array([0, 0, 1, 1]), **truth)
    for method, by_seed in errors.items():
        for seed, error in enumerate(by_seed):
            write_run(folder, plan, method, seed, error, generator)
    for method, by_seed in (clock or {}).items():
        for seed, error in enumerate(by_seed):
            write_run(folder, plan, f"{method}-clock", seed, error, generator)
    return folder


def write_run(folder: Path, plan: Plan, arm: str, seed: int, error: float | str | None, generator) -> None:
    if error == "missing":
        return
    run = run_folder(folder, arm, plan.run_config(arm, seed))
    write_json(run / "status.json", {"state": "diverged" if error is None else "finished"})
    write_json(run / "scores.json", {
        "metrics": {"ab_l1": error, "ciede2000": error},
        "distribution": {"fd_lite0": {"value": 10.0}, "fid": {"why": "not computed"}},
        "recognition": {"lite0": {"accuracy": 0.5}}, "images": 4,
    })  # fmt: skip
    entry = {"phase": "finetune", "epoch": 1, "train_seconds": 30.0 + seed, "images": 100, "seconds": 31.0}
    (run / "log.jsonl").write_text(json.dumps(entry) + "\n")
    drawn = {"drawn": images(generator, 3, 4), "diversity": np.full(4, 2.5)} if "palette" in arm else {}
    np.savez(run / "samples.npz", rgb=images(generator, 4), **drawn)


def images(generator, *shape):
    return generator.integers(0, 255, (*shape, 8, 8, 3), dtype=np.uint8)
