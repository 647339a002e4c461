"""Computed alike: the golden step, which says what computes, and blocks of cells that are computed with one of them."""

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch

from knowhue.config import Config, digest
from knowhue.data.loaders import to_batch
from knowhue.errors import DamagedError, RunError
from knowhue.models.encoder import weights_digest
from knowhue.plan import SET_ASIDE, Plan, head_folders, read_plan
from knowhue.presets import edit
from knowhue.randomness import drawing_from, stream
from knowhue.runs import FROZEN, read_config, run_folder
from knowhue.storage import read_json
from knowhue.training.checkpoint import computed_with
from knowhue.training.engine import Engine, Workspace, computing_with
from knowhue.training.phases import build_networks, make_train_state
from knowhue.training.scores import inspect_run
from knowhue.training.step import train_step

# measured, not listed: versions and models' names do not say whether sums come out alike
_STEPS, _IMAGES, _SIZE_PX, _CLASSES = 2, 8, 32, "abcd"
_SETTINGS = {  # all that training reads, so that another default does not look like another machine
    "tasks": {"names": ("colour", "class"), "weights": {"colour": 1.0, "class": 10.0}, "weighting": "static"},
    "encoder": {"weights": "none", "with_heads": False},
    "colour": {
        "method": "unet", "decoder": "auto", "width": 8, "oracle": False, "l1_weight": 100.0, "gan_loss": "lsgan",
        "adversarial_weight": 1.0, "discriminator_width": 8, "discriminator_layers": 3,
    },
    "class": {"head": "linear", "label_smoothing": 0.0},
    "training": {
        "weight_decay": 0.01,
        "finetune": {
            "epochs": 15, "learning_rate": 3e-4, "encoder_learning_rate": 1e-4, "discriminator_learning_rate": 2e-4,
        },
    },
}  # fmt: skip
# convolutions of all channels, and depthwise ones, which are computed by other code
_ENCODERS = ("resnet18", "tf_efficientnet_lite0")
_found: dict[tuple[str, str, int], str] = {}


def golden_step(engine: Engine, threads: int | None = None) -> str:
    """SHA-256 of all weights after two training steps of two small multi-task models with a GAN on synthetic images.

    What other encoders than ResNet-18 and EfficientNet-Lite0 alone have is not seen, such as ConvNeXt's norms.

    Runs differ by their settings alone only where this is equal: another processor, another number of threads or
    another version of a library may sum in another order. The number of processes counts, too. It is computed once a
    process and is the same on all processes of a run.
    """
    with computing_with(threads):
        key = (str(engine.device), engine.precision, torch.get_num_threads())
        if key not in _found:
            _found[key] = _train(engine)
        return digest(engine.gather([_found[key]]))


def _train(engine: Engine) -> str:
    """On this process alone."""
    return digest([each for encoder in _ENCODERS for each in _trained_weights(engine, encoder)])


def _trained_weights(engine: Engine, encoder: str) -> tuple[str, str]:
    """Digests of the model's and of the discriminator's."""
    config = edit(edit(Config(), _SETTINGS), {"encoder": {"name": encoder}})
    networks = build_networks(engine, config, _CLASSES)
    state = make_train_state(engine, networks, config, "finetune", alone=True)
    model, discriminator, images = networks.model.train(), networks.discriminator, np.arange(_IMAGES)
    assert discriminator is not None  # the settings have one
    discriminator.train()
    with drawing_from(engine.device, 0, "golden-step"):
        for step in range(_STEPS):
            # smooth random images, so that no loss is that of noise
            coarse = stream(0, "golden-step", step).integers(0, 256, (_IMAGES, 8, 8, 3), dtype=np.uint8)
            rgb = coarse.repeat(_SIZE_PX // 8, axis=1).repeat(_SIZE_PX // 8, axis=2)
            train_step(state, to_batch(images, rgb, images % len(_CLASSES), engine.device))
    return weights_digest(model), weights_digest(discriminator)


BlockCells = Sequence[tuple[str, Config]]
"""Arms of one seed, and the settings of each."""


def blocks_of(plan: Plan) -> dict[int, BlockCells]:
    """The cells of each seed."""
    return {seed: [(arm, plan.run_config(arm, seed)) for arm in plan.arms] for seed in plan.seeds}


def begin_anew(
    work: Workspace, blocks: Mapping[int, BlockCells], now: str, more_to_come: bool = False
) -> None:
    """Set aside what an unfinished block has computed with another golden step, so that all of it is computed alike.

    Arms of a seed are compared with one another: a new machine, library or number of threads in the midst of a block
    would be taken for an effect. A block that was finished with one golden step stays. Where there are `more_to_come`,
    cells that are not known yet, no block is finished.
    """
    if work.engine.is_main:
        for seed, cells in blocks.items():
            if more_to_come or finished_with(work.root, cells) is None:
                _set_aside(work, seed, cells, now)
    work.engine.wait()


def begin_run_anew(work: Workspace, arm: str, config: Config, now: str) -> None:
    """The same before a single run, whose block is that of the folder's study; never under arms that have finished.

    Raises:
        RunError: finished arms of the block, or that stand on the same heads, were computed otherwise.
    """
    block = _block_around(work.root, arm, config)
    is_done = inspect_run(run_folder(work.root, arm, config))[0]
    others = [] if is_done else _finished_otherwise(work.root, block, config, now)
    work.engine.wait()  # all have looked before one of them moves anything
    if others:
        raise RunError(
            f"`{work.root / arm}`, seed {config.seed}, would be computed otherwise (golden step {now[:12]}: another "
            f"processor, other threads, libraries or code) than {', '.join(others)}, which it is compared or shares "
            "heads with. Train it where these were trained, or name another folder."
        )
    if not is_done:
        begin_anew(work, {config.seed: block}, now)


def _block_around(root: Path, arm: str, config: Config) -> BlockCells:
    """The cells of the folder's study that a run is one of; else that run alone."""
    blocks = blocks_of(read_plan(root)) if (root / FROZEN).exists() else {}
    cells = blocks.get(config.seed, ())
    is_cell = run_folder(root, arm, config) in {run_folder(root, *cell) for cell in cells}
    return cells if is_cell else [(arm, config)]


def _finished_otherwise(root: Path, block: BlockCells, config: Config, now: str) -> list[str]:
    """Finished runs with another golden step, of a block or on the heads of `config`."""
    cells, heads = {run_folder(root, *cell) for cell in block}, set(head_folders(root, config))
    return [
        str(run.relative_to(root))
        for run in sorted(cells.union(root.glob(f"*/seed-{config.seed}-*")))
        if inspect_run(run)[0] and _recorded(run) != now
        if run in cells or heads.intersection(head_folders(root, read_config(run)))
    ]


def finished_with(root: Path, cells: BlockCells) -> str | None:
    """The golden step of a block that needs no more training, all of it computed with the same; None of any other."""
    folders = [run_folder(root, arm, config) for arm, config in cells]
    if not all(inspect_run(folder)[0] for folder in folders):
        return None
    found = {_recorded(folder) for folder in folders}
    return found.pop() if len(found) == 1 else None


def _set_aside(work: Workspace, seed: int, cells: BlockCells, now: str) -> None:
    """Move what another golden step has computed to a place where nothing lies yet: it is never deleted."""
    runs = [run_folder(work.root, arm, config) for arm, config in cells]
    heads = [head for _, config in cells for head in head_folders(work.root, config)]
    # whatever else of a folder was lost, any of these was computed
    begun = ("environment.json", "status.json", "checkpoints")
    found = {f: _recorded(f) for f in [*runs, *heads] if any((f / name).exists() for name in begun)}
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


def _free_home(aside: Path, name: str, places: Sequence[Path]) -> Path:
    """The first of `name`, `name-2`, ... that holds none of these places."""
    homes = (aside / (f"{name}-{number}" if number > 1 else name) for number in count(1))
    return next(home for home in homes if not any((home / place).exists() for place in places))


def _recorded(folder: Path) -> str:
    """The golden step of what a run would go on from, else of the run; `unknown` where neither says."""
    path = folder / "environment.json"
    try:
        own = read_json(path).get("golden_step") if path.exists() else None
    except DamagedError:
        own = None
    return computed_with(folder / "checkpoints") or own or "unknown"
