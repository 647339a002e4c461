"""Whether the arms of a block may be compared: its A/A gate, and the golden step that each of its runs recorded."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from knowhue.config import digest
from knowhue.plan import Plan
from knowhue.report.records import Row, Run
from knowhue.runs import trained_by
from knowhue.storage import read_json

UNPAIRED = "unpaired"
"""State of an ended run whose block is not compared."""
_FEW = 5
"""Names listed in a sentence; the rest is counted."""
_COMPARED = {
    "heads": "heads trained together against alone",
    "finetune_colour": "fine-tuning of colour against multi-task with class at a vanishing weight",
    "finetune_class": "fine-tuning of class against multi-task with colour at a vanishing weight",
}

Runs = Mapping[str, Mapping[int, Run]]


def read_gates(folder: Path, plan: Plan | None, runs: Runs) -> dict[int, Row]:
    """The A/A gate of each block by seed, `gate/seed-<n>.json`, where it was tried with what the block was run with.

    A gate of other settings, images or another golden step proves nothing of these runs, and is left out.

    Args:
        folder: of the study.
        plan: of the study; None where this version cannot read it.
        runs: of the study.

    Raises:
        RunError: a file is not what knowhue writes.
    """
    arm = plan.gate_arm if plan else None
    if plan is None or arm is None:
        return {}
    found = {seed: folder / "gate" / f"seed-{seed}.json" for seed in plan.seeds}
    gates = {seed: read_json(path) for seed, path in found.items() if path.exists()}
    return {
        seed: gate for seed, gate in gates.items() if _proves(gate, plan.run_config(arm, seed), runs, seed)
    }


def _proves(gate: Row, config: Any, runs: Runs, seed: int) -> bool:
    proved = gate.get("proved", {})
    ran = {
        (run.environment.get("images"), run.environment.get("golden_step"))
        for run in _block(runs, seed)
        if run.environment
    }
    seen = (proved.get("images"), proved.get("golden_step"))
    return proved.get("settings") == digest(trained_by(config)) and (not ran or seen in ran)


def failures(gate: Row) -> dict[str, list[str]]:
    """What a gate compared in vain, with the names of the tensors that differ; nothing where it was passed."""
    return {name: gate[name]["differ"] for name in _COMPARED if gate.get(name, {}).get("differ")}


def faults(runs: Runs, gates: Mapping[int, Row], seeds: Sequence[int]) -> dict[int, str]:
    """Why the arms of a seed may not be compared with one another, in words; seeds that may are not among them."""
    found = {}
    for seed in seeds:
        steps = sorted(_steps(runs, seed))
        if len(steps) > 1:
            found[seed] = (
                f"its runs were computed in {len(steps)} ways (golden steps {', '.join(s[:12] for s in steps)}: "
                "another processor, other threads, libraries or code); the study's command begins it anew"
            )
        elif seed in gates and failures(gates[seed]):
            found[seed] = "its A/A gate failed"
    return found


def without(runs: Runs, faulty: Iterable[int]) -> dict[str, dict[int, Run]]:
    """The runs, those of faulty blocks marked so that no number of theirs is used."""
    out = set(faulty)
    return {
        arm: {
            seed: replace(run, state=UNPAIRED)
            if seed in out and run.state in ("finished", "diverged")
            else run
            for seed, run in own.items()
        }
        for arm, own in runs.items()
    }


def gate_sentence(gates: Mapping[int, Row], seeds: Sequence[int]) -> str:
    """Say whether what arms share came out equal in every block, in both phases.

    Args:
        gates: as `read_gates` gives them.
        seeds: of the plan; the gates of others are not spoken of.
    """
    known = {seed: gates[seed] for seed in seeds if seed in gates}
    absent = [seed for seed in seeds if seed not in gates]
    if not known:
        return "The A/A gate was not run: whether arms differ in the task alone was not tried in this study."
    left = f" It was not run for {seeds_text(absent)}." if absent else ""
    failed = {seed: failures(gate) for seed, gate in known.items() if failures(gate)}
    if failed:
        return f"{_failed(failed)}{left}"
    steps = span({gate["heads"]["steps"] for gate in known.values()})
    heads, colour, class_ = (span({gate[name]["tensors"] for gate in known.values()}) for name in _COMPARED)
    return (
        f"The A/A gate passed for {seeds_text(known)}, bit for bit after {steps} steps of each phase: all {heads} "
        "tensors of the heads trained together are those of the heads trained alone, and fine-tuning with a vanishing "
        f"weight of the other task is fine-tuning without it ({colour} tensors for colour, {class_} for class)."
        f"{left}"
    )


def machine_sentence(runs: Runs, seeds: Sequence[int]) -> str:
    """Say which blocks were computed by what, told apart by their golden step; nothing where no run has begun.

    Runs that something else has scored since are named.
    """
    where: dict[str, list[int]] = {}
    by: dict[str, str] = {}
    scored: list[str] = []
    for seed in seeds:
        for run in _block(runs, seed):
            step, scorer = (found.get("golden_step") for found in (run.environment, run.scores))
            if scorer not in (None, step):
                scored.append(f"{run.arm}, seed {seed} (golden step {scorer[:12]})")
            if step is not None and seed not in where.setdefault(step, []):
                where[step].append(seed)
                by[step] = _machine(run.environment)
    said = [f"{seeds_text(own)} with golden step {step[:12]} ({by[step]})" for step, own in where.items()]
    again = f" Scored otherwise than trained: {'; '.join(scored)}." if scored else ""
    return f"Computed: {'; '.join(said)}.{again}" if said else ""


def _failed(failed: Mapping[int, Mapping[str, Sequence[str]]]) -> str:
    parts = list(dict.fromkeys(part for each in failed.values() for part in each))
    names = list(dict.fromkeys(name for each in failed.values() for own in each.values() for name in own))
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return (
        f"The A/A gate FAILED for {seeds_text(failed)} ({'; '.join(_COMPARED[part] for part in parts)}): "
        f"{', '.join(names[:_FEW])}{more} came out otherwise, so the arms of these seeds differ in more than the task. "
        "Nothing is compared there, and there is no verdict."
    )


def _machine(environment: Row) -> str:
    known = [environment.get(key) for key in ("device", "platform", "precision")]
    torch, threads = environment.get("torch"), environment.get("cpu_threads")
    known += [
        f"torch {torch}" if torch else None,
        f"{threads} thread{'s' * (threads != 1)}" if threads else None,
    ]
    return ", ".join(str(each) for each in known if each)


def _block(runs: Runs, seed: int) -> list[Run]:
    return [own[seed] for own in runs.values() if seed in own and own[seed].same_settings]


def _steps(runs: Runs, seed: int) -> set[str]:
    ended = [run for run in _block(runs, seed) if run.state in ("finished", "diverged", UNPAIRED)]
    return {str(run.environment.get("golden_step")) for run in ended}


def seeds_text(seeds: Iterable[int]) -> str:
    """Return which seeds.

    >>> seeds_text([3]), seeds_text([0, 1, 2]), seeds_text([0, 3])
    ('seed 3', 'seeds 0 to 2', 'seeds 0, 3')
    """
    return span(seeds, "seed ", "seeds ")


def span(numbers: Iterable[int], one: str = "", several: str = "") -> str:
    """Return which whole numbers, those that follow one another by their ends."""
    known = sorted(set(numbers))
    if len(known) == 1:
        return f"{one}{known[0]}"
    together = known[-1] - known[0] + 1 == len(known) > 2
    return several + (f"{known[0]} to {known[-1]}" if together else ", ".join(map(str, known)))
