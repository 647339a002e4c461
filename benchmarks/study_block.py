"""One block (a seed, three arms) in a straightforward script and in Knowhue: ratio of wall-clock times, and scores.

The straightforward script trains each arm separately, as a first version would: every epoch decodes every image again,
the encoder is computed in every step of the frozen phase too, everything is float32, and the discriminator scores
generated images once for its own step and again for the generator's. Images, networks, optimizers, order, augmentation
and schedule are the same, so the scores must agree except for rounding and the order of the two adversarial steps. It
is timed twice: with pix2pix's standard discriminator (64 channels, three layers, a receptive field of 70 pixels), and
with the smaller one of the preset, which makes the trained models equal. All versions score the validation images after
each epoch and every image at the end; networks that are used only for metrics are left out.

    python benchmarks/study_block.py IMAGES --weights FILE [--size 64] [--heads 30] [--finetune 15]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from knowhue.config import Config
from knowhue.data.listing import list_items
from knowhue.data.loaders import TrainingBatches, augment, split_batches, to_batch
from knowhue.data.prepare import Prepared
from knowhue.data.sources import SOURCES
from knowhue.evaluation.evaluate import evaluate
from knowhue.models.heads import scale_chroma
from knowhue.models.multitask import MultiTask, build_discriminator, build_model
from knowhue.objectives.losses import GAN_LOSSES, chroma_l1, cross_entropy
from knowhue.plan import make_plan
from knowhue.presets import THREE_ARMS, arm_config, load_config
from knowhue.storage import read_json
from knowhue.study import run_study
from knowhue.tensors import Chroma, Lightness
from knowhue.training.engine import Engine
from knowhue.training.phases import (
    Networks,
    TrainState,
    build_networks,
    first_epoch,
    learning_rate_factor,
    make_train_state,
    predict,
    set_learning_rates,
)
from knowhue.training.run import open_workspace
from knowhue.training.step import train_step

MATRIX = 2048
Opponent = Callable[[Config], Any]
Loaders = Mapping[str, Callable[[], Image.Image]]
"""What reads an image, by its name."""


def main() -> None:
    """Run both versions and print the comparison."""
    config = _read_arguments()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        started = time.perf_counter()
        run_study(make_plan(config), root / "knowhue")
        ours = time.perf_counter() - started
        scores = read_json(root / "knowhue" / "results.json")["arms"]
        work = open_workspace(config, root / "knowhue", lambda _: None)
        plain = config.model_copy(
            update={"training": config.training.model_copy(update={"precision": "float32"})}
        )
        engine = Engine(plain.training)
        source = SOURCES[config.images.source](config.images)
        items = {item.name: partial(source.load, item) for item in list_items(config.images)}
        plainly = {
            name: time_plainly(plain, opponent, work.prepared, items, engine)
            for name, opponent in DISCRIMINATORS.items()
        }
        share = rate_share(config, work.prepared, work.engine)
    print(
        f"\nstraightforward, with {'':10}" + "".join(f"{name:>22}" for name in plainly) + f"{'knowhue':>12}"
    )
    times = [seconds for seconds, _ in plainly.values()]
    print(f"{'wall-clock, seconds':32}" + "".join(f"{seconds:22.0f}" for seconds in times) + f"{ours:12.0f}")
    print(f"{'ratio to knowhue':32}" + "".join(f"{seconds / ours:22.2f}" for seconds in times))
    for arm, name in product(THREE_ARMS, ("ab_l1", "chroma_ratio", "accuracy", "balanced_accuracy")):
        if name in scores[arm]["mean"]:
            theirs = "".join(f"{metrics[arm][name]:22.4f}" for _, metrics in plainly.values())
            print(f"{arm + ' ' + name:32}{theirs}{scores[arm]['mean'][name]:12.4f}")
    print(f"a multi-task fine-tuning step reaches {share:.0%} of this machine's bfloat16 matrix-product rate")


class StockPatchGAN(nn.Module):
    """pix2pix's discriminator with its receptive field of 70 pixels (Isola et al. 2017, section 6.1.2)."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(3, 64, 4, 2, padding=1), nn.LeakyReLU(0.2)]
        for incoming, stride in ((64, 2), (128, 2), (256, 1)):
            norm = nn.BatchNorm2d(2 * incoming)
            blocks += [nn.Conv2d(incoming, 2 * incoming, 4, stride, padding=1), norm, nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*blocks, nn.Conv2d(512, 1, 4, 1, padding=1))

    def forward(self, lightness: Lightness, chroma: Chroma) -> Tensor:
        """One unbounded score per patch."""
        return self.body(torch.cat((lightness / 50 - 1, scale_chroma(chroma)), 1))


def build_stock(config: Config) -> nn.Module | None:
    """The standard discriminator if the arm trains colour."""
    return StockPatchGAN() if "colour" in config.tasks.names else None


DISCRIMINATORS = {"pix2pix's PatchGAN": build_stock, "the preset's": build_discriminator}


def time_plainly(
    config: Config, opponent: Opponent, prepared: Prepared, items: Loaders, engine: Engine
) -> tuple[float, dict[str, dict[str, float]]]:
    """Wall-clock seconds of all arms, and their scores."""
    started = time.perf_counter()
    scores = {
        arm: train_plainly(arm_config(config, arm), opponent, prepared, items, engine) for arm in THREE_ARMS
    }
    return time.perf_counter() - started, scores


def train_plainly(
    config: Config, opponent: Opponent, prepared: Prepared, items: Loaders, engine: Engine
) -> dict[str, float]:
    """Train one arm in the straightforward way, and return its scores on the validation images."""
    model = engine.place(build_model(config, len(prepared.classes)))
    discriminator = opponent(config)
    networks = Networks(model, None if discriminator is None else engine.place(discriminator))
    for name in ("heads", "finetune"):
        phase = getattr(config.training, name)
        state = make_train_state(engine, networks, config, name)
        model.train()
        for epoch in range(phase.epochs):
            number = first_epoch(config, name) + epoch
            shift = config.training.shift_px if name == "finetune" else 0
            batches = TrainingBatches(
                prepared, config.training.batch_size, config.seed, number, shift, engine.share, engine.device
            )
            for step in range(len(batches)):
                factor = learning_rate_factor(epoch * len(batches) + step, phase.epochs * len(batches))
                set_learning_rates(state.optimizers.values(), factor)
                plain_step(state, decode_batch(batches, step, prepared, items))
            score_plainly(model, prepared, engine)
    return score_plainly(model, prepared, engine, full=True)


def score_plainly(
    model: MultiTask, prepared: Prepared, engine: Engine, full: bool = False
) -> dict[str, float]:
    """The scores of the validation images; the model is in training mode again afterwards."""
    model.eval()
    batches = split_batches(prepared, "validation", 64, engine.share, engine.device)
    scores = evaluate(lambda batch: predict(engine, model, batch), batches, full=full).metrics
    model.train()
    return scores


def decode_batch(batches: TrainingBatches, step: int, prepared: Prepared, items: Loaders):
    """The images of a step, from their files."""
    chosen = slice(step * batches.batch_size, (step + 1) * batches.batch_size)
    positions, side = batches.order[chosen], prepared.rgb.shape[1]
    decoded = [
        np.asarray(ImageOps.fit(items[prepared.paths[i]](), (side, side), Image.Resampling.LANCZOS))
        for i in positions
    ]
    rgb = augment(np.stack(decoded), batches.mirrored[chosen], batches.shift[chosen])
    weights = np.ones(len(positions), dtype=np.float32)
    return to_batch(positions, rgb, prepared.label[positions], batches.device, weights)


def plain_step(state: TrainState, batch) -> None:
    """Discriminator step, then model step, each with its own forward passes."""
    config, prediction = state.config, state.model(batch.lightness)
    total = torch.zeros(())
    if prediction.chroma is not None:
        loss, judge = GAN_LOSSES[config.colour.gan_loss], state.discriminator
        real, fake = judge(batch.lightness, batch.chroma), judge(batch.lightness, prediction.chroma.detach())
        state.discriminator_optimizer.zero_grad(set_to_none=True)
        ((loss.real(real) + loss.fake(fake)) / 2).backward()
        state.discriminator_optimizer.step()
        colour = config.colour.l1_weight * chroma_l1(prediction.chroma, batch.chroma)
        colour = colour + config.colour.adversarial_weight * loss.generator(
            judge(batch.lightness, prediction.chroma)
        )
        total = total + config.tasks.weights.colour * colour
    if prediction.logits is not None:
        entropy = cross_entropy(
            prediction.logits, batch.label, batch.label_weight, config.class_.label_smoothing
        )
        total = total + config.tasks.weights.class_ * entropy
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()
    state.optimizer.step()


def rate_share(config: Config, prepared: Prepared, engine: Engine) -> float:
    """Floating-point operations per second of a multi-task fine-tuning step, relative to a large matrix product."""
    config = arm_config(config, "multi")
    networks = build_networks(engine, config, prepared.classes)
    state = make_train_state(engine, networks, config, "finetune")
    batches = TrainingBatches(prepared, config.training.batch_size, 0, 0, 0, engine.share, engine.device)
    batch, _ = next(iter(batches))
    with FlopCounterMode(display=False) as counter:
        train_step(state, batch)
    step = counter.get_total_flops() / _median_seconds(lambda: train_step(state, batch))
    a, b = (torch.randn(MATRIX, MATRIX, dtype=torch.bfloat16) for _ in range(2))
    return step / (2 * MATRIX**3 / _median_seconds(lambda: a @ b))


def _median_seconds(work: Callable[[], object], runs: int = 9) -> float:
    times = []
    for _ in range(runs + 2):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return float(np.median(times[2:]))


def _read_arguments() -> Config:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help="folder of images, one folder per class")
    parser.add_argument("--weights", default="pretrained", help="weights of the encoder")
    parser.add_argument("--size", type=int, default=64, help="side of the images, in pixels")
    parser.add_argument("--heads", type=int, default=30, help="epochs of the heads")
    parser.add_argument("--finetune", type=int, default=15, help="epochs of fine-tuning")
    args = parser.parse_args()
    settings = {
        "images.path": args.images,
        "images.size_px": args.size,
        "encoder.weights": args.weights,
        "training.heads.epochs": args.heads,
        "training.finetune.epochs": args.finetune,
        "evaluation.networks": "[]",
        "evaluation.perceptual": "[]",
        "evaluation.diagnose_every_steps": 0,
    }
    return load_config("poster", settings=[f"{key}={value}" for key, value in settings.items()])


if __name__ == "__main__":
    main()
