"""Read the files of a study into plain values, in whatever state they are."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from knowhue.config import Config
from knowhue.errors import ConfigError, DamagedError
from knowhue.plan import Plan
from knowhue.presets import checked, edit
from knowhue.report.blocks import faults, read_gates, without
from knowhue.report.integrity import exploratory_rows
from knowhue.report.records import Arrays, Row, Run, Study
from knowhue.runs import damaged_files, read_description, read_log, read_status, run_folder
from knowhue.storage import read_arrays, read_csv, read_json


def read_study(folder: Path) -> Study:
    """Read a study folder in whatever state it is.

    Args:
        folder: what `knowhue study --out` named. Only its `study.json` must exist: a run that was not
            started, did not finish or diverged is part of the study and says so in its `state`.

    Raises:
        RunError: there is no `study.json`, or a file is not what knowhue writes.
    """
    settings = read_description(folder)
    samples = _arrays(folder / "images" / "samples.npz")
    runs = {
        arm: {seed: _read_run(folder, settings, arm, seed) for seed in settings["seeds"]}
        for arm in settings["arms"]
    }
    gates = read_gates(folder, _plan(settings), runs)
    faulty = faults(runs, gates, settings["seeds"])
    study = Study(
        settings=settings,
        runs=without(runs, faulty),
        prepared=_optional_json(folder / "images" / "prepared.json"),
        baselines=_optional_json(folder / "baselines.json"),
        metrics=_optional_json(folder / "metrics.json"),
        samples=samples or {},
        damaged=() if samples is not None else ("images/samples.npz",),
        gates=gates,
        faults=faulty,
        head_seconds=_head_seconds(folder, settings["seeds"]),
    )
    return replace(study, exploratory=exploratory_rows(folder, study))


def _plan(settings: Row) -> Plan | None:
    """The plan; None of another version."""
    try:
        return checked(Plan, {key: settings[key] for key in Plan.model_fields if key in settings})
    except ConfigError:
        return None


def _read_run(root: Path, settings: Row, arm: str, seed: int) -> Run:
    folder, same = _find_run(root, settings, arm, seed)
    if folder is None:
        return Run(arm, seed)
    status = read_status(folder)
    for path in damaged_files(folder, ("log.jsonl", "per_image.csv")):
        raise DamagedError(path, "it is gone, or not as it was written")
    samples, extremes = _arrays(folder / "samples.npz"), _arrays(folder / "extremes.npz")
    return Run(
        arm=arm,
        seed=seed,
        state=status.get("state", "running"),
        same_settings=same,
        seconds=status.get("seconds", {}),
        log=tuple(read_log(folder)),
        scores=_optional_json(folder / "scores.json"),
        images=read_images(folder / "per_image.csv"),
        samples=samples or {},
        extremes=extremes or {},
        damaged=tuple(
            name for name, found in (("samples.npz", samples), ("extremes.npz", extremes)) if found is None
        ),
        environment=_optional_json(folder / "environment.json"),
        gradient_shares=_optional_json(folder / "gradient_shares.json"),
    )


def _find_run(root: Path, settings: Row, arm: str, seed: int) -> tuple[Path | None, bool]:
    """Return the folder of a run and whether it has the study's settings.

    A folder of the same seed with other settings is shown rather than hidden, and named in the report.
    """
    try:
        config = edit(Config.model_validate(settings["config"]), settings["arms"][arm] | {"seed": seed})
        expected = run_folder(root, arm, config)
    except (ConfigError, ValueError):  # written by another version: its settings cannot be checked any more
        expected = None
    if expected is not None and expected.is_dir():
        return expected, True
    others = sorted((root / arm).glob(f"seed-{seed}-*"), key=lambda path: path.stat().st_mtime)
    return (others[-1], False) if others else (None, True)


def _head_seconds(folder: Path, seeds: Sequence[int]) -> float:
    paths = [path for seed in seeds for path in folder.glob(f"heads/*/seed-{seed}-*/status.json")]
    return sum(read_json(path).get("seconds", {}).get("heads") or 0.0 for path in paths)


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _arrays(path: Path) -> Arrays | None:
    """What a diagram is drawn from: nothing if it is not there, None if it is damaged, which costs that diagram."""
    try:
        return read_arrays(path) if path.exists() else {}
    except DamagedError:
        return None


def read_images(path: Path) -> tuple[Row, ...]:
    """The rows of `per_image.csv`; none where there is no such file."""
    if not path.exists():
        return ()
    return tuple({key: _cell(key, text) for key, text in row.items()} for row in read_csv(path))


def _cell(column: str, text: str) -> Any:
    """Read one cell of `per_image.csv`; an empty or non-finite number is None."""
    if column == "correct":
        return {"true": 1.0, "1": 1.0, "false": 0.0, "0": 0.0}.get(text.strip().lower())
    if column == "index":
        return int(text)
    if column in ("path", "label", "predicted"):
        return text
    number = float(text) if text.strip() else math.nan
    return number if math.isfinite(number) else None
