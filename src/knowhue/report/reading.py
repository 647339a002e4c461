"""Reads a study's folder, finished or not: every run, and whether the runs of a seed can be compared."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from knowhue.config import Config, digest
from knowhue.errors import DamagedError
from knowhue.plan import RESERVED, Plan, read_plan
from knowhue.report.study import UNPAIRED, Arrays, Row, Run, Runs, Study
from knowhue.runs import (
    ENDED,
    has_matching_name,
    read_frozen,
    read_log,
    read_status,
    require_intact,
    run_folder,
    training_settings,
)
from knowhue.storage import read_arrays, read_columns, read_json

GATE_PARTS = {
    "heads": "heads trained together against alone",
    "finetune_colour": "fine-tuning of colour against multi-task with class at a vanishing weight",
    "finetune_class": "fine-tuning of class against multi-task with colour at a vanishing weight",
}
"""The comparisons of a block's A/A gate, by their key in the gate's file."""
_TRUTH = {"true": "1", "false": "0"}
_RUN_NAME = re.compile(r"seed-(\d+)-\w+")


def read_images(path: Path) -> tuple[Row, ...]:
    """Read the rows of `per_image.csv`; an empty cell is None, and text in place of a number is a `DamagedError`."""
    try:
        columns = {name: _values(name, texts) for name, texts in read_columns(path).items()}
    except ValueError as error:
        raise DamagedError(path, f"no scores of images: {error}") from None
    names = tuple(columns)
    return tuple([dict(zip(names, row)) for row in zip(*columns.values(), strict=True)])  # noqa: B905  the same for all


def _values(column: str, texts: Sequence[str]) -> Sequence[Any]:
    if column in ("path", "label", "predicted"):
        return texts
    if column == "index":
        return list(map(int, texts))
    if column == "correct":
        texts = [_TRUTH.get(text.lower(), text) for text in texts]
    return [float(text) if text else None for text in texts] if "" in texts else list(map(float, texts))


def read_study(folder: Path, images: Callable[[Path], tuple[Row, ...]] = read_images) -> Study:
    """Read a study folder, finished or not; the `state` of each run says whether it was started and has finished.

    `images` reads the scores of a run's images. A `RunError` if `study.json` is missing, a file was not written by
    knowhue, or a shared file is missing although a run exists.
    """
    settings, plan = read_frozen(folder), read_plan(folder)
    samples = _arrays(folder / "images" / "samples.npz")
    runs = {
        arm: {seed: _read_run(folder, plan, arm, seed, images) for seed in plan.seeds} for arm in plan.arms
    }
    gates = _read_gates(folder, plan, runs)
    written = {"prepared": folder / "images" / "prepared.json"}
    written |= {name: folder / f"{name}.json" for name in ("baselines", "metrics")}
    shared: dict[str, Any] = {name: _optional_json(path) for name, path in written.items()}
    # these files are written before the first run; without baselines, no score would be compared with a floor
    if any(run.state != "missing" for by_seed in runs.values() for run in by_seed.values()):
        for name in (name for name, content in shared.items() if not content):
            raise DamagedError(written[name], "it is missing, or empty")
    split = _reporting_split(shared["prepared"], plan)
    faulty = faults(runs, gates, plan.seeds, settings.get("parts", {}).get("images"), split)
    kept = {
        arm: {
            seed: replace(run, state=UNPAIRED) if seed in faulty and run.state in ENDED else run
            for seed, run in by_seed.items()
        }
        for arm, by_seed in runs.items()
    }
    heads = [path for seed in plan.seeds for path in folder.glob(f"heads/*/seed-{seed}-*/status.json")]
    return Study(
        settings=settings,
        runs=kept,
        **shared,
        samples=samples or {},
        gates=gates,
        faults=faulty,
        damaged=() if samples is not None else ("images/samples.npz",),
        head_seconds=sum(read_json(path).get("seconds", {}).get("heads") or 0.0 for path in heads),
        costs=_optional_json(folder / "costs.json"),
        exploratory=tuple(_exploratory(folder, plan)),
    )


def _read_run(root: Path, plan: Plan, arm: str, seed: int, read: Callable[[Path], tuple[Row, ...]]) -> Run:
    folder, same_settings = _find_run(root, plan, arm, seed)
    if folder is None:
        return Run(arm, seed)
    status = read_status(folder)
    # all numbers come from these two files; damaged arrays only cost a figure
    require_intact(folder, ("log.jsonl", "per_image.csv"))
    arrays = {name: _arrays(folder / f"{name}.npz") for name in ("samples", "extremes")}
    images = folder / "per_image.csv"
    return Run(
        arm=arm,
        seed=seed,
        state=status.get("state", "running"),
        same_settings=same_settings,
        seconds=status.get("seconds", {}),
        log=tuple(read_log(folder)),
        scores=_optional_json(folder / "scores.json"),
        images=read(images) if images.exists() else (),
        samples=arrays["samples"] or {},
        extremes=arrays["extremes"] or {},
        damaged=tuple(f"{name}.npz" for name, found in arrays.items() if found is None),
        environment=_optional_json(folder / "environment.json"),
        gradient_shares=_optional_json(folder / "gradient_shares.json"),
    )


def _find_run(root: Path, plan: Plan, arm: str, seed: int) -> tuple[Path | None, bool]:
    """Return the folder of a run and whether it was trained with the study's settings.

    Without such a folder, the newest one of the same seed is returned, so that the report can name it.
    """
    expected = run_folder(root, arm, plan.run_config(arm, seed))
    if expected.is_dir():
        return expected, has_matching_name(expected)
    others = sorted((root / arm).glob(f"seed-{seed}-*"), key=lambda path: path.stat().st_mtime)
    return (others[-1], False) if others else (None, True)


def _reporting_split(prepared: Row, plan: Plan) -> str | None:
    """Return the split that the runs are scored on, see `Prepared.reporting_split`; None without prepared images."""
    counts = prepared.get("counts")
    if counts is None:
        return None
    has_test = any(counts.get("test", {}).values())
    return "test" if has_test and plan.config.evaluation.split == "auto" else "validation"


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _arrays(path: Path) -> Arrays | None:
    """Read the arrays that a figure shows: empty for a missing file, None for a damaged one."""
    try:
        return read_arrays(path) if path.exists() else {}
    except DamagedError:
        return None


def _exploratory(folder: Path, plan: Plan) -> Iterator[Row]:
    """Return the runs in a study folder that are not cells of its plan: another arm, seed or fingerprint.

    They were not planned before results were known, so the report calls them exploratory.
    """
    planned = {
        run_folder(folder, arm, plan.run_config(arm, seed)) for arm in plan.arms for seed in plan.seeds
    }
    for path in sorted(folder.glob("*/seed-*")):
        match = _RUN_NAME.fullmatch(path.name)
        if match and path.is_dir() and path not in planned and path.parent.name not in RESERVED:
            status, scores = (_optional_json(path / name) for name in ("status.json", "scores.json"))
            yield {
                "arm": path.parent.name, "seed": int(match[1]), "folder": path.name,
                "state": status.get("state", "running"), "metrics": scores.get("metrics", {}),
            }  # fmt: skip


def _read_gates(folder: Path, plan: Plan, runs: Runs) -> dict[int, Row]:
    """Return the A/A gate of each block by seed, from `gate/seed-<n>.json`.

    A gate with other settings, images or another golden step than the block's runs proves nothing and is left out.
    """
    arm = plan.gate_arm
    if arm is None:
        return {}
    gates = {seed: _optional_json(folder / "gate" / f"seed-{seed}.json") for seed in plan.seeds}
    return {
        seed: gate
        for seed, gate in gates.items()
        if gate and _proves(gate, plan.run_config(arm, seed), block(runs, seed))
    }


def _proves(gate: Row, config: Config, runs: Sequence[Run]) -> bool:
    proved = gate.get("proved", {})
    keys = ("images", "golden_step")
    computed = {tuple(map(run.environment.get, keys)) for run in runs if run.environment}
    same = not computed or tuple(map(proved.get, keys)) in computed
    return same and proved.get("settings") == digest(training_settings(config))


def block(runs: Runs, seed: int) -> list[Run]:
    """Return the runs of a seed that have the study's settings."""
    return [by_seed[seed] for by_seed in runs.values() if seed in by_seed and by_seed[seed].same_settings]


def gate_failures(gate: Row) -> dict[str, list[str]]:
    """Return the names of the tensors that differ, by failed comparison; empty for a passed gate."""
    return {name: gate[name]["differ"] for name in GATE_PARTS if gate.get(name, {}).get("differ")}


def faults(
    runs: Runs, gates: Mapping[int, Row], seeds: Iterable[int], images: str | None, split: str | None
) -> dict[int, str]:
    """Return, by seed, why its arms must not be compared with each other; a comparable seed has no entry.

    `images` is the digest of the images that the plan was frozen with, `split` the plan's reporting split; None where
    unknown.
    """
    found = {}
    for seed in seeds:
        ended = [run for run in block(runs, seed) if run.state in ENDED]
        steps = sorted({str(run.environment.get("golden_step")) for run in ended})
        if images and any(run.environment.get("images", images) != images for run in ended):
            found[seed] = (
                "some of its runs were trained on other images than the plan was frozen with: they are another study's"
            )
        elif len(steps) > 1:
            found[seed] = (
                f"its runs were computed in {len(steps)} ways (golden steps {', '.join(s[:12] for s in steps)}: "
                "another processor, other threads, libraries or code); the study's command starts it again"
            )
        elif others := {run.scores.get("split", split) for run in ended if split} - {split}:
            found[seed] = (
                f"some of its runs were scored on the {', '.join(map(str, others))} split, and the plan reports on "
                f"the {split} split; the study's command scores them again"
            )
        elif gate_failures(gates.get(seed, {})):
            found[seed] = "its A/A gate failed"
    return found
