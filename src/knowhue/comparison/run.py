"""Methods by seeds at equal images and at equal wall-clock: freeze, run, collect, write the report."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from knowhue import __version__
from knowhue.cells import begin_blocks, run_cells
from knowhue.comparison.asked import FILE, KNOWN, Asked, Epochs, read_asked, read_frozen, read_plans
from knowhue.comparison.budget import epochs_within
from knowhue.comparison.collect import collect, finished, phase_seconds, runs_of, train_seconds
from knowhue.errors import RunError
from knowhue.plan import Plan
from knowhue.report.comparing.page import write_comparison_report
from knowhue.runs import FORMAT, Report, locked, require_kind
from knowhue.storage import write_json
from knowhue.study import (
    differences,
    has_begun,
    hashed_parts,
    precision_remedy,
    require_same_parts,
    write_baselines,
)
from knowhue.training.engine import Engine
from knowhue.training.outcome import write_truth
from knowhue.training.train import open_work


def compare(
    asked: Asked,
    root: Path,
    workers: int = 1,
    description: Mapping[str, Any] | None = None,
    report: Report = lambda _: None,
) -> Path:
    """Train every method with every seed below `root`, twice, and write what each costs and gives.

    First for equal images: the epochs of the settings. What an epoch of each took then says for how many each is
    trained the second time, for equal seconds. The same call goes on where an interrupted one stopped.

    Args:
        asked: what is compared.
        root: the folder of the comparison.
        workers: runs side by side on this machine; the seconds are then those of a shared one.
        description: `name` and `command`, for the reader of the report.
        report: told about progress.

    Returns:
        The report, `root/comparison.html`.

    Raises:
        ConfigError: `workers` does not fit.
        RunError: `root` holds another comparison, which was frozen when its first run started, or another process
            works on it.
    """
    with locked(root, "compare"):
        return _compare(asked, root, workers, dict(description or {}), report)


def _compare(asked: Asked, root: Path, workers: int, description: dict[str, Any], report: Report) -> Path:
    require_kind(root, "comparison")
    engine = Engine(asked.config.training)
    asked = asked.computed_in(engine.precision)
    _refuse_another(asked, root)
    first = asked.at_equal_images()
    runs = [first.run_config(arm, asked.seeds[0]) for arm in first.arms]
    work = open_work(asked.config, root, report, runs, engine)
    frozen = _freeze(asked, root, description, hashed_parts(work))
    if work.engine.is_main:
        write_json(root / FILE, frozen)
        write_baselines(work, asked.config.evaluation)
        write_truth(work)
    work.engine.wait()
    begun = list(read_plans(frozen).values())
    begin_blocks(work, begun, workers, more_to_come=len(begun) == 1)
    run_cells(work, first, workers)
    if work.engine.is_main and "clock" not in frozen["regimes"]:
        frozen["regimes"]["clock"] = _equal_clock(asked, first, root)
        write_json(root / FILE, frozen)
    work.engine.wait()
    frozen = read_frozen(root)
    first, second = read_plans(frozen).values()
    run_cells(work, second, workers)
    if work.engine.is_main:
        report({"stage": "report"})
        plans = {"images": first, "clock": second}
        write_json(root / FILE, frozen | collect(work, asked, plans, frozen["regimes"]["clock"]["epochs"]))
        write_comparison_report(root)
    work.engine.wait()
    return root / "comparison.html"


def _equal_clock(asked: Asked, plan: Plan, root: Path) -> dict[str, Any]:
    """The budget in seconds and, from what an epoch took, the epochs of each method."""
    references = finished(runs_of(plan, asked.reference, root))
    budget = asked.budget_s or _mean([train_seconds(run) for run in references])
    if not budget:
        raise RunError(
            f"The reference `{asked.reference}` diverged with every seed: it sets no budget. Name one with --budget, "
            "or another --reference, and another folder with --out."
        )
    epochs: dict[str, Epochs] = {}
    for name in asked.methods:
        seen = [phase_seconds(run) for run in runs_of(plan, name, root)]
        seconds = (_mean([each[0] for each in seen]), _mean([each[1] for each in seen]))
        epochs[name] = epochs_within(budget, asked.epochs(name), seconds)
    return {"title": "equal wall-clock", "budget_s": budget, "epochs": epochs}


def _refuse_another(asked: Asked, root: Path) -> None:
    """A comparison whose runs have begun stays as it is."""
    if not (root / FILE).exists() or not has_begun(root):
        return
    earlier = read_frozen(root)
    before = read_asked(earlier)
    changed = sorted(differences(before.settled, asked.settled))
    if changed:
        raise RunError(
            f"`{root}` holds another comparison, frozen on {earlier['created']}: {', '.join(changed)} would differ. "
            "What is compared should not change after results are seen: name another folder with --out, or go on "
            f"with the command in `{root / FILE}`: {earlier.get('command', 'knowhue compare')}"
            f"{precision_remedy(before.config, changed)}"
        )


def _freeze(asked: Asked, root: Path, description: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """What is asked, with what was frozen before."""
    earlier = read_frozen(root) if (root / FILE).exists() and has_begun(root) else {}
    require_same_parts(earlier, parts, root)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    images = {"title": "equal images", "epochs": {name: asked.epochs(name) for name in asked.methods}}
    return {
        "format": FORMAT,
        "name": root.name,
        "version": __version__,
        "created": earlier.get("created", now),
        **description,
        "hash": asked.hash(parts),
        "parts": parts,
        **asked.model_dump(mode="json", exclude={"methods"}),
        "regimes": {"images": images} | earlier.get("regimes", {}),
        "methods": {
            name: {"title": KNOWN[name].title, "source": KNOWN[name].source} for name in asked.methods
        },
        "runs": earlier.get("runs", []),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
