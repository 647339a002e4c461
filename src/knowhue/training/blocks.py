"""A block, all cells of a seed, is computed alike: where another golden step goes on with it, it is begun anew."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from knowhue.config import Config
from knowhue.errors import DamagedError
from knowhue.plan import SET_ASIDE, Plan
from knowhue.runs import has_ended, run_folder
from knowhue.storage import read_json
from knowhue.training.loop import Work
from knowhue.training.phases import head_config, head_tasks

Cells = Sequence[tuple[str, Config]]
"""Arms of one seed, and the settings of each."""


def blocks_of(plans: Iterable[Plan]) -> dict[int, Cells]:
    """The cells of each seed, over plans that share a folder."""
    blocks: dict[int, dict[str, Config]] = {}
    for plan in plans:
        for seed in plan.seeds:
            blocks.setdefault(seed, {}).update({arm: plan.run_config(arm, seed) for arm in plan.arms})
    return {seed: list(cells.items()) for seed, cells in blocks.items()}


def begin_anew(work: Work, blocks: Mapping[int, Cells], now: str, more_to_come: bool = False) -> None:
    """Set aside what an unfinished block has computed with another golden step, so that all of it is computed alike.

    Arms of a seed are compared with one another: a new machine, library or number of threads in the midst of a block
    would be taken for an effect. A block that was finished with one golden step stays.

    Args:
        work: what the runs share; a block that is begun anew is told in one line.
        blocks: by seed, see `blocks_of`.
        now: the golden step of those who will compute.
        more_to_come: whether each block has cells that are not known yet, and so is not finished.
    """
    if work.engine.is_main:
        for seed, cells in blocks.items():
            if more_to_come or finished_with(work.root, cells) is None:
                _set_aside(work, seed, cells, now)
    work.engine.wait()


def finished_with(root: Path, cells: Cells) -> str | None:
    """The golden step of a block whose cells have all ended with the same; None of any other block."""
    folders = [run_folder(root, arm, config) for arm, config in cells]
    if not all(map(_has_ended, folders)):
        return None
    found = {_recorded(folder) for folder in folders}
    return found.pop() if len(found) == 1 else None


def _set_aside(work: Work, seed: int, cells: Cells, now: str) -> None:
    moved: set[str] = set()
    for folder in _folders(work.root, cells):
        recorded = _recorded(folder)
        if not (folder / "status.json").exists() or recorded == now:
            continue
        target = work.root / SET_ASIDE / str(recorded)[:12] / folder.relative_to(work.root)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.replace(target)
        moved.add(str(recorded)[:12])
    if moved:
        text = (
            f"seed {seed} is begun anew, for its arms are compared: processor, threads, libraries or code compute "
            f"otherwise than before (golden step {now[:12]}, not {', '.join(sorted(moved))}); what there was lies in "
            f"{SET_ASIDE}"
        )
        work.report({"stage": "note", "text": text})


def _folders(root: Path, cells: Cells) -> list[Path]:
    """Of the cells and of their heads, each once."""
    runs = [run_folder(root, arm, config) for arm, config in cells]
    heads = [
        run_folder(root / "heads", task, head_config(config, task))
        for _, config in cells
        for task in head_tasks(config)
    ]
    return list(dict.fromkeys(runs + heads))


def _has_ended(folder: Path) -> bool:
    try:
        return has_ended(folder)
    except DamagedError:
        return False


def _recorded(folder: Path) -> str | None:
    path = folder / "environment.json"
    try:
        return read_json(path).get("golden_step") if path.exists() else None
    except DamagedError:
        return None
