"""Loss of the single-task classifier with few labels if batches are drawn from all images, labelled or not.

Two samplers train the same arms with the same labels, schedule and number of steps. The former one draws every batch
from one shuffled pool of all training images, so that an arm that learns only from labels sees few of them; the present
one draws the labelled part of each batch from a separate pool (`TrainingBatches`). Printed are the balanced accuracy on
the reporting split, after training the heads and after fine-tuning, and the number of steps without a label.

    python benchmarks/few_labels.py IMAGES --weights FILE [--per-class 200] [--share 0.02] [--seeds 2]
"""

import argparse
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np

from knowhue.config import Config
from knowhue.data.loaders import TrainingBatches, find_targets
from knowhue.presets import arm_config, edit, head_config, load_config
from knowhue.randomness import stream
from knowhue.runs import run_folder
from knowhue.storage import read_json
from knowhue.training import loop
from knowhue.training.engine import Workspace
from knowhue.training.run import open_workspace, run_arm


class FromOnePool(TrainingBatches):
    """The former sampler: one pass over all training images, labelled or not."""

    def _draw(self, train, seed, epoch, labelled_batch_share):
        order = stream(seed, "order", epoch).permutation(train)
        return order[: len(order) // self.batch_size * self.batch_size]


SAMPLERS = {"one pool": FromOnePool, "labelled pool": TrainingBatches}


def main() -> None:
    """Train with both samplers and print the table."""
    args = _read_arguments()
    with tempfile.TemporaryDirectory() as folder:
        images = link_first(args.images, Path(folder) / "images", args.per_class)
        config = _config(images, args)
        print(f"{'sampler':16}{'arm':8}{'seed':>5}{'labels':>8}{'steps without':>15}{'heads':>8}{'tuned':>8}")
        for name, sampler in SAMPLERS.items():
            with patch.object(loop, "TrainingBatches", sampler):
                work = open_workspace(config, Path(folder) / name, lambda _: None)
                for seed in range(args.seeds):
                    for arm in args.arms.split(","):
                        one = edit(arm_config(config, arm), {"seed": seed})
                        print(f"{name:16}{arm:8}{seed:5}" + _row(work, one, arm, sampler), flush=True)


def link_first(source: Path, target: Path, per_class: int) -> Path:
    """Link the first training images of each class, and all images of the other splits."""
    for split in sorted(p for p in source.iterdir() if p.is_dir()):
        for folder in sorted(p for p in split.iterdir() if p.is_dir()):
            home = target / split.name / folder.name
            home.mkdir(parents=True)
            files = sorted(folder.iterdir())
            for file in files[:per_class] if split.name == "train" else files:
                (home / file.name).symlink_to(file.resolve())
    return target


def _row(work: Workspace, config: Config, arm: str, sampler: type[TrainingBatches]) -> str:
    targets = find_targets(work.prepared, config.supervision, config.seed)
    epochs = range(config.training.heads.epochs + config.training.finetune.epochs)
    size, share = config.training.batch_size, work.engine.share
    labelled = [
        (targets.label[sampler(work.prepared, size, config.seed, epoch, 0, share, work.engine.device, targets).order]
         >= 0).reshape(-1, size).any(1)
        for epoch in epochs
    ]  # fmt: skip
    without = np.concatenate(labelled)
    tuned = read_json(run_arm(work, config, arm) / "scores.json")
    head = run_folder(work.root / "heads", "class", head_config(config, "class"))
    heads = read_json(head / "scores.json")
    scores = [each["metrics"]["balanced_accuracy"] * 100 for each in (heads, tuned)]
    count = int((targets.label[targets.train] >= 0).sum())
    return f"{count:8}{f'{int((~without).sum())} of {len(without)}':>15}" + "".join(
        f"{s:8.1f}" for s in scores
    )


def _config(images: Path, args: argparse.Namespace) -> Config:
    epochs = {"heads": {"epochs": args.epochs}, "finetune": {"epochs": args.epochs}}
    return edit(
        load_config(),
        {
            "images": {"path": str(images), "size_px": 64},
            "encoder": {"weights": str(args.weights)},
            "supervision": {"labelled_share": args.share},
            "training": {"shift_px": 4, **epochs},
            "evaluation": {"every_epochs": 0, "networks": [], "perceptual": [], "diagnose_every_steps": 0},
        },
    )


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folder with train/<class>/* and val/<class>/*")
    parser.add_argument("--weights", required=True, help="weights of the encoder")
    parser.add_argument("--per-class", type=int, default=200, help="training images per class")
    parser.add_argument(
        "--share", type=float, default=0.02, help="share of training images that are labelled"
    )
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of each phase")
    parser.add_argument("--arms", default="class,multi", help="arms to train, separated by commas")
    return parser.parse_args()


if __name__ == "__main__":
    main()
