"""A block, all cells of a seed, is computed alike: where another golden step goes on with it, it is begun anew."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path

from knowhue.config import Config
from knowhue.errors import DamagedError, RunError
from knowhue.plan import SET_ASIDE, Plan, read_plan
from knowhue.runs import read_config, run_folder
from knowhue.storage import read_json
from knowhue.training.checkpoint import computed_with
from knowhue.training.engine import Workspace
from knowhue.training.outcome import look_through
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


def begin_anew(work: Workspace, blocks: Mapping[int, Cells], now: str, more_to_come: bool = False) -> None:
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


def begin_run_anew(work: Workspace, arm: str, config: Config, now: str) -> None:
    """The same before a single run, whose block is that of the folder's study; never under arms that have finished.

    Args:
        work: what the runs share.
        arm: of the run.
        config: of the run.
        now: the golden step of those who will compute.

    Raises:
        RunError: finished arms of the block, or that stand on the same heads, were computed otherwise.
    """
    block = _block_around(work.root, arm, config)
    is_done = look_through(run_folder(work.root, arm, config))[0]
    others = [] if is_done else _finished_otherwise(work.root, block, config, now)
    work.engine.wait()  # all have looked before one of them moves anything
    if others:
        raise RunError(
            f"`{work.root / arm}`, seed {config.seed}, would be computed otherwise (golden step {now[:12]}: another "
            f"processor, other threads, libraries or code) than {', '.join(others)}, which it is compared or shares "
            "heads with. Train it where these were trained, or name another folder with --out."
        )
    if not is_done:
        begin_anew(work, {config.seed: block}, now)


def _block_around(root: Path, arm: str, config: Config) -> Cells:
    """The cells of the folder's study that a run is one of; else that run alone."""
    plans = [read_plan(root)] if (root / "study.json").exists() else []
    cells = blocks_of(plans).get(config.seed, [])
    own = run_folder(root, arm, config)
    return cells if own in [run_folder(root, *cell) for cell in cells] else [(arm, config)]


def _finished_otherwise(root: Path, block: Cells, config: Config, now: str) -> list[str]:
    """Finished runs with another golden step, of a block or standing on the heads of `config`."""
    cells, heads = {run_folder(root, *cell) for cell in block}, set(_heads(root, config))
    runs = sorted(cells.union(root.glob(f"*/seed-{config.seed}-*")))
    foreign = [run for run in runs if look_through(run)[0] and _recorded(run) != now]
    return [
        str(run.relative_to(root))
        for run in foreign
        if run in cells or heads.intersection(_heads(root, read_config(run)))
    ]


def finished_with(root: Path, cells: Cells) -> str | None:
    """The golden step of a block that needs no more training, all of it computed with the same; None of any other."""
    folders = [run_folder(root, arm, config) for arm, config in cells]
    if not all(look_through(folder)[0] for folder in folders):
        return None
    found = {_recorded(folder) for folder in folders}
    return found.pop() if len(found) == 1 else None


def _set_aside(work: Workspace, seed: int, cells: Cells, now: str) -> None:
    """Move what another golden step has computed to a place where nothing lies yet: it is never deleted."""
    found = {folder: _recorded(folder) for folder in _folders(work.root, cells) if _has_begun(folder)}
    for recorded in sorted(set(found.values()) - {now}):
        moved = [folder.relative_to(work.root) for folder, step in found.items() if step == recorded]
        home = _free_home(work.root / SET_ASIDE, recorded[:12], moved)
        for place in moved:
            (home / place).parent.mkdir(parents=True, exist_ok=True)
            (work.root / place).replace(home / place)
        text = (
            f"seed {seed} is begun anew, for its arms are compared: processor, threads, libraries or code compute "
            f"otherwise than before (golden step {now[:12]}, not {recorded[:12]}); what there was lies in "
            f"{home.relative_to(work.root)}"
        )
        work.report({"stage": "note", "text": text})


def _free_home(aside: Path, name: str, places: Iterable[Path]) -> Path:
    """The first of `name`, `name-2`, ... that holds none of these places."""
    names = (f"{name}-{number}" if number > 1 else name for number in count(1))
    known = list(places)
    return next(aside / each for each in names if not any((aside / each / place).exists() for place in known))


def _folders(root: Path, cells: Cells) -> list[Path]:
    """Of the cells and of their heads, each once."""
    runs = [run_folder(root, arm, config) for arm, config in cells]
    return list(dict.fromkeys(runs + [head for _, config in cells for head in _heads(root, config)]))


def _heads(root: Path, config: Config) -> list[Path]:
    return [run_folder(root / "heads", task, head_config(config, task)) for task in head_tasks(config)]


def _has_begun(folder: Path) -> bool:
    """Whether there is anything that was computed, whatever else of the folder was lost."""
    return any((folder / name).exists() for name in ("environment.json", "status.json", "checkpoints"))


def _recorded(folder: Path) -> str:
    """The golden step of what a run would go on from, else of the run; `unknown` where neither says."""
    path = folder / "environment.json"
    try:
        own = read_json(path).get("golden_step") if path.exists() else None
    except DamagedError:
        own = None
    return computed_with(folder / "checkpoints") or own or "unknown"
