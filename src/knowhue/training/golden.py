"""The golden step, a fingerprint of a machine's arithmetic, and blocks of cells that are computed with only one.

Arms of a seed are compared with one another. Another machine, library or number of threads in the middle of a block
would look like an effect.
"""

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

# computed, because versions and names of processors do not tell whether results are equal
_STEPS, _IMAGES, _SIZE_PX, _CLASSES = 2, 8, 32, "abcd"
_SETTINGS = {  # all settings that training reads, so that a changed default does not look like another machine
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
# ordinary and depthwise convolutions, which use different kernels
_ENCODERS = ("resnet18", "tf_efficientnet_lite0")
_digests: dict[tuple[str, str, int], str] = {}


def golden_step(engine: Engine, threads: int | None = None) -> str:
    """SHA-256 of all weights after two training steps of two small multi-task models with a GAN on synthetic images.

    Only if it is equal do runs differ by nothing but their settings: another processor, number of threads or library
    version can sum in another order. The number of processes also affects it. It is computed once per process, and is
    equal on all processes of a run.

    It does not cover operations that neither ResNet-18 nor EfficientNet-Lite0 has, such as ConvNeXt's normalisation.
    """
    with computing_with(threads):
        key = (str(engine.device), engine.precision, torch.get_num_threads())
        if key not in _digests:
            _digests[key] = _train(engine)
        return digest(engine.gather([_digests[key]]))


def _train(engine: Engine) -> str:
    """Digest of the weights of both models, trained on this process alone."""
    return digest([each for encoder in _ENCODERS for each in _trained_weights(engine, encoder)])


def _trained_weights(engine: Engine, encoder: str) -> tuple[str, str]:
    """Digests of the trained model and of the trained discriminator."""
    config = edit(edit(Config(), _SETTINGS), {"encoder": {"name": encoder}})
    networks = build_networks(engine, config, _CLASSES)
    state = make_train_state(engine, networks, config, "finetune", alone=True)
    model, discriminator, images = networks.model.train(), networks.discriminator, np.arange(_IMAGES)
    assert discriminator is not None  # by the settings
    discriminator.train()
    with drawing_from(engine.device, 0, "golden-step"):
        for step in range(_STEPS):
            # smooth random images, more like photos than noise is
            coarse = stream(0, "golden-step", step).integers(0, 256, (_IMAGES, 8, 8, 3), dtype=np.uint8)
            rgb = coarse.repeat(_SIZE_PX // 8, axis=1).repeat(_SIZE_PX // 8, axis=2)
            train_step(state, to_batch(images, rgb, images % len(_CLASSES), engine.device))
    return weights_digest(model), weights_digest(discriminator)


BlockCells = Sequence[tuple[str, Config]]
"""The arms of one seed with their settings."""


def blocks_of(plan: Plan) -> dict[int, BlockCells]:
    """The cells of each seed."""
    return {seed: [(arm, plan.run_config(arm, seed)) for arm in plan.arms] for seed in plan.seeds}


def restart_mixed_blocks(
    work: Workspace, blocks: Mapping[int, BlockCells], step: str, more_to_come: bool = False
) -> None:
    """Set aside results of unfinished blocks that were computed with another golden step than `step`.

    A block that was finished with a single golden step stays. `more_to_come` means that blocks will get cells that are
    not known yet, so none is finished.
    """
    if work.engine.is_main:
        for seed, cells in blocks.items():
            if more_to_come or finished_with(work.root, cells) is None:
                _set_aside(work, seed, cells, step)
    work.engine.wait()


def restart_mixed_block_of(work: Workspace, arm: str, config: Config, step: str) -> None:
    """Do as `restart_mixed_blocks` before a single run; `RunError` if finished runs would have to be set aside."""
    block = _block_of(work.root, arm, config)
    is_done = inspect_run(run_folder(work.root, arm, config))[0]
    others = [] if is_done else _finished_with_others(work.root, block, config, step)
    work.engine.wait()  # until all processes have read the folders, before one of them moves any
    if others:
        raise RunError(
            f"`{work.root / arm}`, seed {config.seed}, would be computed by another processor, threads, libraries "
            f"or code (golden step {step[:12]}) than {', '.join(others)}, with which it is compared or shares heads. "
            "Train it there, or name another folder."
        )
    if not is_done:
        restart_mixed_blocks(work, {config.seed: block}, step)


def _block_of(root: Path, arm: str, config: Config) -> BlockCells:
    """The cells of the block that a run belongs to; only the run itself if it is in no study."""
    blocks = blocks_of(read_plan(root)) if (root / FROZEN).exists() else {}
    cells = blocks.get(config.seed, ())
    is_cell = run_folder(root, arm, config) in {run_folder(root, *cell) for cell in cells}
    return cells if is_cell else [(arm, config)]


def _finished_with_others(root: Path, block: BlockCells, config: Config, step: str) -> list[str]:
    """Finished runs of the block, or with the heads of `config`, that were computed with another golden step."""
    cells, heads = {run_folder(root, *cell) for cell in block}, set(head_folders(root, config))
    return [
        str(run.relative_to(root))
        for run in sorted(cells.union(root.glob(f"*/seed-{config.seed}-*")))
        if inspect_run(run)[0] and _recorded_step(run) != step
        if run in cells or heads.intersection(head_folders(root, read_config(run)))
    ]


def finished_with(root: Path, cells: BlockCells) -> str | None:
    """Golden step of a block whose training has finished; None if it has not, or was computed with several."""
    folders = [run_folder(root, arm, config) for arm, config in cells]
    if not all(inspect_run(folder)[0] for folder in folders):
        return None
    steps = {_recorded_step(folder) for folder in folders}
    return steps.pop() if len(steps) == 1 else None


def _set_aside(work: Workspace, seed: int, cells: BlockCells, step: str) -> None:
    """Move folders computed with another golden step below `set-aside/`; nothing is deleted or replaced."""
    runs = [run_folder(work.root, arm, config) for arm, config in cells]
    heads = [head for _, config in cells for head in head_folders(work.root, config)]
    # a folder with any of these was computed, even if its other files are lost
    marks = ("environment.json", "status.json", "checkpoints")
    steps = {f: _recorded_step(f) for f in [*runs, *heads] if any((f / name).exists() for name in marks)}
    for recorded in sorted(set(steps.values()) - {step}):
        moved = [folder.relative_to(work.root) for folder, own in steps.items() if own == recorded]
        target = _free_folder(work.root / SET_ASIDE, recorded[:12], moved)
        for path in moved:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (work.root / path).replace(target / path)
        text = (
            f"seed {seed} starts again, because its arms are compared: processor, threads, libraries or code compute "
            f"differently than before (golden step {step[:12]}, not {recorded[:12]}); earlier results are in "
            f"{target.relative_to(work.root)}"
        )
        work.report({"stage": "note", "text": text})


def _free_folder(parent: Path, name: str, paths: Sequence[Path]) -> Path:
    """The first of `name`, `name-2`, ... below `parent` in which none of `paths` exists."""
    folders = (parent / (f"{name}-{number}" if number > 1 else name) for number in count(1))
    return next(folder for folder in folders if not any((folder / path).exists() for path in paths))


def _recorded_step(folder: Path) -> str:
    """Golden step of a run's checkpoint, else the one in `environment.json`, else `unknown`."""
    path = folder / "environment.json"
    try:
        environment = read_json(path) if path.exists() else {}
    except DamagedError:
        environment = {}
    return computed_with(folder / "checkpoints") or environment.get("golden_step") or "unknown"
