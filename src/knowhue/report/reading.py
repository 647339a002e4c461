"""Reading a study's folder, in whatever state it is: every run, and whether the runs of a seed may be compared."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from knowhue.config import Config, digest
from knowhue.errors import DamagedError
from knowhue.plan import RESERVED, Plan, read_plan
from knowhue.report.study import UNPAIRED, Arrays, Row, Run, Runs, Study
from knowhue.runs import (
    ENDED,
    is_as_named,
    read_frozen,
    read_log,
    read_status,
    require_whole,
    run_folder,
    trained_by,
)
from knowhue.storage import read_arrays, read_columns, read_json

GATE_PARTS = {
    "heads": "heads trained together against alone",
    "finetune_colour": "fine-tuning of colour against multi-task with class at a vanishing weight",
    "finetune_class": "fine-tuning of class against multi-task with colour at a vanishing weight",
}
"""What the A/A gate of a block compares."""
_TRUTH = {"true": "1", "false": "0"}
_RUN_NAME = re.compile(r"seed-(\d+)-\w+")


def read_study(folder: Path) -> Study:
    """Read a study folder in whatever state it is: a run that was not started or did not finish says so in its `state`.

    Raises:
        RunError: there is no `study.json`, a file is not what knowhue writes, or gone though a run is there.
    """
    settings, plan = read_frozen(folder), read_plan(folder)
    samples = _arrays(folder / "images" / "samples.npz")
    runs = {arm: {seed: _read_run(folder, plan, arm, seed) for seed in plan.seeds} for arm in plan.arms}
    gates = _read_gates(folder, plan, runs)
    written = {"prepared": folder / "images" / "prepared.json"}
    written |= {name: folder / f"{name}.json" for name in ("baselines", "metrics")}
    shared: dict[str, Any] = {name: _optional_json(path) for name, path in written.items()}
    # they are written before the first run, and without baselines no floor would be seen
    if any(run.state != "missing" for own in runs.values() for run in own.values()):
        for name in (name for name, found in shared.items() if not found):
            raise DamagedError(written[name], "it is gone, or empty")
    split = _reporting_split(shared["prepared"], plan)
    faulty = faults(runs, gates, plan.seeds, settings.get("parts", {}).get("images"), split)
    return Study(
        settings=settings,
        runs={
            # no number of such a run is used
            arm: {
                seed: replace(run, state=UNPAIRED) if seed in faulty and run.state in ENDED else run
                for seed, run in own.items()
            }
            for arm, own in runs.items()
        },
        **shared,
        samples=samples or {},
        damaged=() if samples is not None else ("images/samples.npz",),
        gates=gates,
        faults=faulty,
        head_seconds=sum(
            read_json(path).get("seconds", {}).get("heads") or 0.0
            for seed in plan.seeds
            for path in folder.glob(f"heads/*/seed-{seed}-*/status.json")
        ),
        costs=_optional_json(folder / "costs.json"),
        exploratory=tuple(_exploratory(folder, plan)),
    )


def _read_run(root: Path, plan: Plan, arm: str, seed: int) -> Run:
    folder, same = _find_run(root, plan, arm, seed)
    if folder is None:
        return Run(arm, seed)
    status = read_status(folder)
    # numbers rest on these two; damaged arrays cost a figure alone
    require_whole(folder, ("log.jsonl", "per_image.csv"))
    arrays = {name: _arrays(folder / f"{name}.npz") for name in ("samples", "extremes")}
    images = folder / "per_image.csv"
    return Run(
        arm=arm,
        seed=seed,
        state=status.get("state", "running"),
        same_settings=same,
        seconds=status.get("seconds", {}),
        log=tuple(read_log(folder)),
        scores=_optional_json(folder / "scores.json"),
        images=read_images(images) if images.exists() else (),
        samples=arrays["samples"] or {},
        extremes=arrays["extremes"] or {},
        damaged=tuple(f"{name}.npz" for name, found in arrays.items() if found is None),
        environment=_optional_json(folder / "environment.json"),
        gradient_shares=_optional_json(folder / "gradient_shares.json"),
    )


def _find_run(root: Path, plan: Plan, arm: str, seed: int) -> tuple[Path | None, bool]:
    """Return the folder of a run and whether it has the study's settings.

    A folder of the same seed with other settings is shown rather than hidden, and named in the report.
    """
    expected = run_folder(root, arm, plan.run_config(arm, seed))
    if expected.is_dir():
        return expected, is_as_named(expected)
    others = sorted((root / arm).glob(f"seed-{seed}-*"), key=lambda path: path.stat().st_mtime)
    return (others[-1], False) if others else (None, True)


def _reporting_split(prepared: Row, plan: Plan) -> str | None:
    """The split that a study's runs are scored on, see `Prepared.reporting_split`; None where no images are known."""
    counts = prepared.get("counts")
    if counts is None:
        return None
    has_test = any(counts.get("test", {}).values())
    return "test" if has_test and plan.config.evaluation.split == "auto" else "validation"


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _arrays(path: Path) -> Arrays | None:
    """What a figure is drawn from: nothing if it is not there, None if it is damaged, which costs that figure."""
    try:
        return read_arrays(path) if path.exists() else {}
    except DamagedError:
        return None


def read_images(path: Path) -> tuple[Row, ...]:
    """The rows of `per_image.csv`, an empty cell None; a `DamagedError` where a number is none."""
    try:
        columns = {name: _values(name, texts) for name, texts in read_columns(path).items()}
    except ValueError as error:
        raise DamagedError(path, f"no scores of images: {error}") from None
    return tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _values(column: str, texts: Sequence[str]) -> Sequence[Any]:
    if column in ("path", "label", "predicted"):
        return texts
    if column == "index":
        return list(map(int, texts))
    if column == "correct":
        texts = [_TRUTH.get(text.lower(), text) for text in texts]
    return [float(text) if text else None for text in texts]


def _exploratory(folder: Path, plan: Plan) -> Iterator[Row]:
    """Return the runs below a study folder that are not cells of its plan: another arm, seed or fingerprint.

    They were not asked for before results were seen, so they are to be called exploratory.
    """
    planned = {
        run_folder(folder, arm, plan.run_config(arm, seed)) for arm in plan.arms for seed in plan.seeds
    }
    for path in sorted(folder.glob("*/seed-*")):
        named = _RUN_NAME.fullmatch(path.name)
        if named and path.is_dir() and path not in planned and path.parent.name not in RESERVED:
            status, scores = (_optional_json(path / name) for name in ("status.json", "scores.json"))
            yield {
                "arm": path.parent.name, "seed": int(named[1]), "folder": path.name,
                "state": status.get("state", "running"), "metrics": scores.get("metrics", {}),
            }  # fmt: skip


def _read_gates(folder: Path, plan: Plan, runs: Runs) -> dict[int, Row]:
    """The A/A gate of each block by seed, `gate/seed-<n>.json`, where it was tried with what the block was run with.

    A gate of other settings, images or another golden step proves nothing of these runs, and is left out.
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


def _proves(gate: Row, config: Config, own: Sequence[Run]) -> bool:
    proved = gate.get("proved", {})
    ran = {tuple(map(run.environment.get, ("images", "golden_step"))) for run in own if run.environment}
    tried = (proved.get("images"), proved.get("golden_step"))
    return proved.get("settings") == digest(trained_by(config)) and (not ran or tried in ran)


def block(runs: Runs, seed: int) -> list[Run]:
    """Return the runs of a seed that have the study's settings."""
    return [own[seed] for own in runs.values() if seed in own and own[seed].same_settings]


def gate_failures(gate: Row) -> dict[str, list[str]]:
    """What a gate found to differ, with the names of the tensors; nothing where it was passed."""
    return {name: gate[name]["differ"] for name in GATE_PARTS if gate.get(name, {}).get("differ")}


def faults(
    runs: Runs, gates: Mapping[int, Row], seeds: Iterable[int], images: str | None, split: str | None
) -> dict[int, str]:
    """Why the arms of a seed may not be compared with one another, in words; seeds that may are not among them.

    `images` is the digest of those that the plan was frozen with, `split` that which it reports on; None if not known.
    """
    found = {}
    for seed in seeds:
        ended = [run for run in block(runs, seed) if run.state in ENDED]
        steps = sorted({str(run.environment.get("golden_step")) for run in ended})
        if images and any(run.environment.get("images", images) != images for run in ended):
            found[seed] = (
                "runs of it were trained on other images than the plan was frozen with: they are another study's"
            )
        elif len(steps) > 1:
            found[seed] = (
                f"its runs were computed in {len(steps)} ways (golden steps {', '.join(s[:12] for s in steps)}: "
                "another processor, other threads, libraries or code); the study's command begins it anew"
            )
        elif others := {run.scores.get("split", split) for run in ended if split} - {split}:
            found[seed] = (
                f"runs of it were scored on the {', '.join(map(str, others))} split, and the plan reports on the "
                f"{split} split; the study's command scores them anew"
            )
        elif gate_failures(gates.get(seed, {})):
            found[seed] = "its A/A gate failed"
    return found
