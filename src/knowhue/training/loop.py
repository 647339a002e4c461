"""One phase of one run: epochs of training steps, with scores and a checkpoint after each epoch."""

import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from knowhue.config import Config
from knowhue.data.loaders import TrainingBatches, find_targets, split_batches
from knowhue.evaluation.evaluate import Scored, evaluate
from knowhue.evaluation.features import open_networks
from knowhue.objectives.losses import GAN_LOSSES
from knowhue.randomness import drawing_from
from knowhue.runs import write_log
from knowhue.storage import finite_or_none
from knowhue.tensors import Batch, Prediction
from knowhue.training import checkpoint, golden, phases
from knowhue.training.diagnostics import Moment, diagnose, find_faults, measure_shares, write_shares
from knowhue.training.engine import Engine, Workspace
from knowhue.training.step import train_step

LogEntry = dict[str, Any]
"""The record of an epoch in `log.jsonl`."""


class Diverged(Exception):
    """A loss, or a weight at the end of a phase, is not finite; the run ends."""

    def __init__(self, log: list[LogEntry], what: str = "a loss is not finite in") -> None:
        last = log[-1]
        super().__init__(f"{what} {last['phase']} epoch {last['epoch']}: {last['train']}")
        self.log = log
        """entries of all epochs so far"""


def run_phase(
    work: Workspace, config: Config, folder: Path, networks: phases.Networks, phase: phases.PhaseName
) -> list[LogEntry]:
    """Train to the end of a phase, from its checkpoint in `folder` if there is one, and return the log of its epochs.

    All random numbers are derived from (seed, purpose, epoch), so an interrupted phase ends with the same numbers.

    Raises:
        Diverged: a loss is not finite, or a weight at the end.
    """
    state = phases.make_train_state(work.engine, networks, config, phase)
    modules, optimizers = state.modules(), state.optimizers
    step = golden.golden_step(work.engine)
    done, log = checkpoint.restore_checkpoint(folder / "checkpoints", modules, optimizers, step)
    _require_finite_losses(log)
    if not done:  # otherwise it was measured before the run was interrupted
        _write_gradient_shares(work, state, folder, "fork")
    for epoch in range(done, phases.phase_of(config, phase).epochs):
        log.append(_epoch(work, state, epoch))
        if work.engine.is_main:
            write_log(folder, log)
            checkpoint.save_checkpoint(folder / "checkpoints", epoch + 1, modules, optimizers, step, log)
        work.engine.wait()
        _require_finite_losses(log)  # after saving, so that a resumed run ends here too
    # no loss shows the effect of the last step, and a model with NaN weights would still name a class
    modules = networks.modules(with_encoder=True).values()
    if log and not all(torch.isfinite(weight).all() for each in modules for weight in each.parameters()):
        raise Diverged(log, "a weight is not finite after")
    _write_gradient_shares(work, state, folder, "end")
    return log


def _require_finite_losses(log: list[LogEntry]) -> None:
    if log and None in log[-1]["train"].values():
        raise Diverged(log)


def _write_gradient_shares(work: Workspace, state: phases.TrainState, folder: Path, moment: Moment) -> None:
    """Measure each loss's share of the encoder's gradient, if the encoder trains, and write it to the run folder."""
    phase = phases.phase_of(state.config, state.phase)
    encoder_trains = state.config.has_encoder and phase.encoder_learning_rate and phase.epochs
    if encoder_trains and state.config.evaluation.gradient_batches:
        # on batches of the first epoch at both moments, so that these can be compared
        batches = (batch for batch, _ in training_batches(work, state.config, state.phase, 0))
        shares = measure_shares(state, batches)
        if work.engine.is_main:
            write_shares(folder, moment, shares)


def _epoch(work: Workspace, state: phases.TrainState, epoch: int) -> LogEntry:
    """Train for one epoch, score, and return the log entry."""
    started = time.perf_counter()
    config, networks = state.config, state.networks
    for module in networks.modules(with_encoder=True).values():
        module.train()
    # each epoch's dropout and noise have their own stream, so that a resumed run draws the same numbers
    with drawing_from(work.engine.device, config.seed, state.phase, epoch, work.engine.share.rank):
        losses, images, diagnostics = _train(work, state, epoch)
    trained = time.perf_counter()
    # only here, because reading a loss in each step would wait for the device
    train = work.engine.average({key: torch.stack(values).mean() for key, values in losses.items()})
    every = config.evaluation.every_epochs
    scores = validate(work, config, networks).metrics if every and (epoch + 1) % every == 0 else {}
    state.observe_epoch(train, scores)
    return {
        "phase": state.phase,
        "epoch": phases.first_epoch(config, state.phase) + epoch + 1,
        "train": finite_or_none(train),
        "validation": finite_or_none(scores),
        "seconds": round(time.perf_counter() - started, 3),
        "train_seconds": round(trained - started, 3),
        "images": images,
        "images_per_second": round(images / (trained - started), 1),
        "warnings": find_faults(train, scores),
        **({"diagnostics": diagnostics} if diagnostics else {}),
    }


def _train(
    work: Workspace, state: phases.TrainState, epoch: int
) -> tuple[dict[str, list[Tensor]], int, list[LogEntry]]:
    """Train on each batch of an epoch; return the losses of each step, the number of images, and diagnostics."""
    config, features = state.config, state.networks.features
    phase, batches = phases.phase_of(config, state.phase), training_batches(work, config, state.phase, epoch)
    losses, steps, diagnostics = defaultdict(list), len(batches), []
    tasks_share_training = len(config.tasks.names) > 1 and phase.encoder_learning_rate > 0
    every = config.evaluation.diagnose_every_steps if tasks_share_training else 0
    for step, (plain, mirrored) in enumerate(batches):
        batch = plain if features is None else features.attach(plain, mirrored)
        factor = phases.learning_rate_factor(epoch * steps + step, phase.epochs * steps)
        phases.set_learning_rates(state.optimizers.values(), factor)
        if every and step % every == 0:
            diagnostics.append({"step": step, **finite_or_none(diagnose(state, batch))})
        for key, value in train_step(state, batch).items():
            losses[key].append(value.detach())
        # as tensors, so that only a display that reads them waits for the device
        last = {name: values[-1] for name, values in losses.items()}
        progress = {"epoch": epoch + 1, "epochs": phase.epochs, "step": step + 1, "steps": steps}
        work.report({"stage": "train", **progress, "losses": last})
    return losses, steps * batches.batch_size, diagnostics


def training_batches(work: Workspace, config: Config, name: phases.PhaseName, epoch: int) -> TrainingBatches:
    """Training batches of an epoch of a phase; epochs are counted from 0."""
    return TrainingBatches(
        work.prepared,
        config.training.batch_size,
        config.seed,
        epoch=phases.first_epoch(config, name) + epoch,
        # no shifts with a frozen encoder, because its features are cached for unshifted images
        shift_px=config.training.shift_px if name == "finetune" else 0,
        share=work.engine.share,
        device=work.engine.device,
        targets=find_targets(work.prepared, config.supervision, config.seed),
        labelled_batch_share=config.supervision.labelled_batch_share,
        degraded_share=config.training.degraded_share if name == "finetune" else 0.0,
    )


def validate(
    work: Workspace, config: Config, networks: phases.Networks, full: bool = False, split: str = "validation"
) -> Scored:
    """Score the current model on a split; with `full`, at the end of a run, by every metric."""
    engine, discriminator = work.engine, networks.discriminator
    networks.model.eval()
    batches = split_batches(work.prepared, split, 64, engine.share, engine.device)
    if networks.features is not None:
        batches = map(networks.features.attach, batches)
    if full:  # pretrained networks take long enough to report progress
        positions = work.prepared.positions(split)[engine.share.rank :: engine.share.world]
        batches = work.counting("evaluate", len(positions))(batches)
    critic = None
    if discriminator is not None:
        critic = partial(_adversarial_losses, engine, discriminator.eval(), config.colour.gan_loss)
    # pretrained networks and LPIPS are too slow for every epoch
    metric_networks = open_networks(config.evaluation, engine.device) if full else {}
    predict_batch = partial(phases.predict, engine, networks.model)
    return evaluate(predict_batch, batches, critic, engine.gather, full, metric_networks)


def _adversarial_losses(
    engine: Engine, discriminator: nn.Module, gan_loss: str, batch: Batch, prediction: Prediction
) -> Tensor:
    with engine.autocast():
        scores = discriminator(batch.lightness, prediction.chroma)
    return torch.stack([GAN_LOSSES[gan_loss].generator(score) for score in scores])
