"""The adversarial loss of the poster's table, measured with one discriminator (the critic) for all runs.

    python studies/poster/critic.py runs/poster/main --pool runs/poster/tuning -o critic.csv

Each run's own discriminator judges its own generator, so their losses can't be compared. Here one critic learns to
distinguish true training images from colourings by models of the tuning study. Half of these models are single-task and
half multi-task; their seeds differ from the study's. The critic then judges the test images coloured by every run of
the study. The output is a tidy table for `knowhue verdict`.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from knowhue.data.loaders import plain_batches
from knowhue.models.multitask import MultiTask
from knowhue.models.pix2pix import Discriminator
from knowhue.objectives.losses import GAN_LOSSES, patch_accuracy
from knowhue.plan import Plan, read_plan
from knowhue.presets import edit
from knowhue.randomness import stream
from knowhue.runs import run_folder
from knowhue.tensors import Batch
from knowhue.training.engine import Workspace
from knowhue.training.phases import predict
from knowhue.training.run import make_networks, open_workspace

POOL = ("colour-r10", "multi-w10-r10")
"""Arms of the tuning study whose colourings train the critic."""
EPOCHS, BATCH, WIDTH, LAYERS, LEARNING_RATE = 30, 32, 64, 3, 2e-4
LOSS = GAN_LOSSES["lsgan"]


def main() -> None:
    """Train the critic, judge every run and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="folder of the finished study")
    parser.add_argument("--pool", type=Path, required=True, help="folder of the tuning study")
    parser.add_argument("-o", "--out", type=Path, required=True, help="CSV file to write")
    arguments = parser.parse_args()
    plan, pool = read_plan(arguments.study), read_plan(arguments.pool)
    work = open_workspace(plan.config, arguments.study, lambda _: None)
    generators = [_model(work, pool, arguments.pool, arm, seed) for arm in POOL for seed in pool.seeds]
    critic = train_critic(work, generators)
    test = list(plain_batches(work.prepared, work.prepared.positions("test"), BATCH, work.engine.device))
    right = patch_accuracy(*_both(critic, work, generators, test), LOSS.threshold)
    print("right on test patches: true {:.3f}, coloured {:.3f}".format(*map(float, right)), flush=True)
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("arm", "seed", "image", "class", "metric", "value"))
        for arm, seed in plan.cells:
            if "colour" in plan.run_config(arm, seed).tasks.names:
                model = _model(work, plan, arguments.study, arm, seed)
                for batch in test:
                    _write(table, work, arm, seed, batch, generator_loss(critic, work, model, batch))
                print(arm, seed, flush=True)


def train_critic(work: Workspace, generators: Sequence[MultiTask]) -> Discriminator:
    """Train a PatchGAN to distinguish true training images from colourings; each step uses the next generator."""
    torch.manual_seed(0)
    critic = Discriminator(WIDTH, LAYERS).to(work.engine.device)
    optimizer = torch.optim.AdamW(critic.parameters(), LEARNING_RATE, betas=(0.5, 0.999))
    train, steps = work.prepared.positions("train"), 0
    for epoch in range(EPOCHS):
        order = stream(0, "critic", epoch).permutation(train)
        for batch in plain_batches(work.prepared, order, BATCH, work.engine.device):
            real, fake = _scores(critic, work, generators[steps % len(generators)], batch)
            optimizer.zero_grad()
            ((LOSS.real(real) + LOSS.fake(fake)) / 2).backward()
            optimizer.step()
            steps += 1
    return critic.eval()


def generator_loss(critic: Discriminator, work: Workspace, model: MultiTask, batch: Batch) -> Tensor:
    """The adversarial loss of each image, (B,); lowest if the critic judges all its patches to be true."""
    with torch.no_grad():
        _, fake = _scores(critic, work, model, batch)
    return torch.stack([LOSS.generator(patches) for patches in fake])


def _scores(critic: Discriminator, work: Workspace, model: MultiTask, batch: Batch) -> tuple[Tensor, Tensor]:
    """The critic's scores for patches of the true and of the coloured images, each (B, 1, h, w)."""
    chroma = predict(work.engine, model, batch).chroma
    assert chroma is not None
    return critic(batch.lightness, batch.chroma), critic(batch.lightness, chroma)


def _both(
    critic: Discriminator, work: Workspace, generators: Sequence[MultiTask], batches: Sequence[Batch]
) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        found = [_scores(critic, work, model, batch) for batch in batches for model in generators]
    return torch.cat([real.flatten() for real, _ in found]), torch.cat([fake.flatten() for _, fake in found])


def _model(work: Workspace, plan: Plan, root: Path, arm: str, seed: int) -> MultiTask:
    config = plan.run_config(arm, seed)
    # no pretrained weights are needed, because the run's file has all of them
    config_without_weights = edit(config, {"encoder": {"weights": "none", "with_heads": False}})
    return make_networks(work, config_without_weights, run_folder(root, arm, config)).model.eval()


def _write(table, work: Workspace, arm: str, seed: int, batch: Batch, losses: Tensor) -> None:
    for position, label, loss in zip(
        batch.position.tolist(), batch.label.tolist(), losses.tolist(), strict=True
    ):
        path, name = work.prepared.paths[position], work.prepared.classes[label]
        table.writerow((arm, seed, path, name, "adversarial_common", f"{loss:.5f}"))


if __name__ == "__main__":
    main()
