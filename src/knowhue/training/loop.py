"""One phase of one run: epochs of steps, scores after each, and a state to go on from."""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from knowhue.config import Config, Phase
from knowhue.data.loaders import TrainingBatches, find_targets, split_batches
from knowhue.data.prepare import Prepared
from knowhue.evaluation.evaluate import Scored, evaluate
from knowhue.evaluation.features import available_networks
from knowhue.evaluation.perceptual import open_perceptual
from knowhue.models.multitask import MultiTask
from knowhue.objectives.losses import GAN_LOSSES
from knowhue.objectives.sharing import open_sharing
from knowhue.randomness import drawing_from
from knowhue.runs import Report, write_log
from knowhue.storage import finite_or_none
from knowhue.tensors import Batch, Prediction
from knowhue.training import checkpoint, golden
from knowhue.training.diagnostics import diagnose
from knowhue.training.engine import Engine
from knowhue.training.feature_cache import FeatureCache
from knowhue.training.gradient_shares import Moment, keep_shares, measure_shares
from knowhue.training.monitor import find_faults
from knowhue.training.phases import (
    PhaseName,
    first_epoch,
    make_discriminator_optimizer,
    make_optimizer,
    phase_of,
    rate_factor,
    set_rates,
)
from knowhue.training.step import Players, train_step

Entry = dict[str, Any]


class Diverged(Exception):
    """A loss is no longer finite; the run ends, and is named.

    Attributes:
        log: the entries of the epochs until then.
    """

    def __init__(self, log: list[Entry]) -> None:
        last = log[-1]
        super().__init__(f"a loss is not finite in {last['phase']} epoch {last['epoch']}: {last['train']}")
        self.log = log


@dataclass(frozen=True)
class Work:
    """What every run of a study shares.

    Attributes:
        root: the study folder.
        engine: device, processes, arithmetic.
        prepared: the images.
        report: told about progress.
        encoders: digest of the weights of each encoder that the runs start from.
    """

    root: Path
    engine: Engine
    prepared: Prepared
    report: Report
    encoders: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Session:
    """The bare modules of a run, and the cached features of a frozen encoder if there are any."""

    model: MultiTask
    discriminator: nn.Module | None
    features: FeatureCache | None = None

    def modules(self, with_encoder: bool) -> dict[str, nn.Module]:
        """The parts by name, as weights are stored; the encoder only where it has been trained."""
        heads = {
            "colour": self.model.colour,
            "class": self.model.classifier,
            "discriminator": self.discriminator,
            "oracle": self.model.oracle,
        }
        encoder = {"encoder": self.model.encoder if with_encoder else None}
        return {name: module for name, module in (encoder | heads).items() if module is not None}


def run_phase(work: Work, config: Config, folder: Path, session: Session, name: PhaseName) -> list[Entry]:
    """Train to the end of a phase, from wherever `folder` says it stopped.

    Everything random comes from (seed, purpose, epoch), so an interrupted phase ends with the same numbers.

    Returns:
        One entry an epoch, as in `log.jsonl`.

    Raises:
        Diverged: a loss is not finite.
        RunError: the state to go on from is damaged, or another golden step computed it.
    """
    phase = phase_of(config, name)
    players = make_players(work.engine, session, phase, config)
    modules = session.modules(with_encoder=name == "finetune") | players.state()
    optimizers = {f"optimizer-{i}": optimizer for i, optimizer in enumerate(players.optimizers)}
    step = golden.golden_step(work.engine)
    done, log = checkpoint.restore(folder / "checkpoints", modules, optimizers, step)
    _refuse_divergence(log)
    if not done:
        _look_at_shares(work, config, folder, session, players, name, "fork")
    for epoch in range(done, phase.epochs):
        log.append(_epoch(work, config, session, players, name, epoch))
        if work.engine.is_main:
            write_log(folder, log)
            checkpoint.save(folder / "checkpoints", epoch + 1, modules, optimizers, step, log)
        work.engine.wait()
        _refuse_divergence(log)
    _look_at_shares(work, config, folder, session, players, name, "end")
    return log


def _look_at_shares(
    work: Work,
    config: Config,
    folder: Path,
    session: Session,
    players: Players,
    name: PhaseName,
    moment: Moment,
) -> None:
    """Measure what trains the encoder, on the first batches of fine-tuning, and keep it in the run's folder."""
    phase = phase_of(config, name)
    if not (
        config.has_encoder
        and phase.encoder_learning_rate
        and phase.epochs
        and config.evaluation.gradient_batches
    ):
        return
    batches = (batch for batch, _ in training_batches(work, config, name, 0))
    found = measure_shares(
        work.engine, session.model, session.discriminator, batches, config, players.sharing.balance
    )
    if work.engine.is_main:
        keep_shares(folder, moment, found)


def _refuse_divergence(log: list[Entry]) -> None:
    if log and None in log[-1]["train"].values():
        raise Diverged(log)


def validate(
    work: Work,
    config: Config,
    session: Session,
    batch_size: int = 64,
    full: bool = False,
    split: str = "validation",
) -> Scored:
    """Score the images of a split with the model as it stands; `full` at the end, by every metric."""
    session.model.eval()
    batches = split_batches(work.prepared, split, batch_size, work.engine.share, work.engine.device)
    if session.features is not None:
        batches = (_with_features(batch, session.features) for batch in batches)
    critic = None
    if session.discriminator is not None:
        session.discriminator.eval()
        critic = partial(_judge, work.engine, session.discriminator, config.colour.gan_loss)
    networks = available_networks(config.evaluation, work.engine.device) if full else {}
    way = partial(predict, work.engine, session.model)
    perceptual = open_perceptual(config.evaluation, work.engine.device) if full else {}
    return evaluate(way, batches, critic, work.engine.gather, full, networks, perceptual)


def predict(engine: Engine, model: MultiTask, batch: Batch) -> Prediction:
    """Predict in the engine's arithmetic; answers are float32."""
    with torch.no_grad(), engine.autocast():
        return model(batch.lightness, batch.features, label=batch.label)


def make_players(engine: Engine, session: Session, phase: Phase, config: Config) -> Players:
    """Everybody who trains in a phase, wrapped for the processes, with fresh optimizers."""
    engine.release()
    optimizer = make_optimizer(session.model, phase, config.training.weight_decay)
    opponent, opponents_optimizer = None, None
    if session.discriminator is not None:
        opponents_optimizer = make_discriminator_optimizer(session.discriminator, phase)
        opponent = engine.distribute(session.discriminator)
    model = engine.distribute(session.model)
    return Players(model, optimizer, opponent, opponents_optimizer, open_sharing(config.tasks))


def _epoch(
    work: Work, config: Config, session: Session, players: Players, name: PhaseName, epoch: int
) -> Entry:
    """Train on every whole batch of the images once, score, and say how it went."""
    started = time.perf_counter()
    for module in session.modules(with_encoder=True).values():
        module.train()
    with drawing_from(work.engine.device, config.seed, name, epoch, work.engine.share.rank):
        losses, images, diagnostics = _train(work, config, session, players, name, epoch)
    trained = time.perf_counter()
    train = work.engine.average({key: torch.stack(values).mean() for key, values in losses.items()})
    every = config.evaluation.every_epochs
    scores = validate(work, config, session).metrics if every and (epoch + 1) % every == 0 else {}
    players.observe_epoch(train, scores)
    return {
        "phase": name,
        "epoch": first_epoch(config, name) + epoch + 1,
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
    work: Work, config: Config, session: Session, players: Players, name: PhaseName, epoch: int
) -> tuple[dict[str, list[Tensor]], int, list[Entry]]:
    """One pass over the training images: the losses of each step, how many images were seen, diagnostics."""
    phase, batches = phase_of(config, name), training_batches(work, config, name, epoch)
    losses, steps, diagnostics = defaultdict(list), len(batches), []
    every = config.evaluation.diagnose_every_steps if _both_pull(config, name) else 0
    for step, (plain, mirrored) in enumerate(batches):
        batch = plain if session.features is None else _with_features(plain, session.features, mirrored)
        set_rates(players.optimizers, rate_factor(epoch * steps + step, phase.epochs * steps))
        if every and step % every == 0:
            seen = diagnose(work.engine, session.model, session.discriminator, batch, config)
            diagnostics.append({"step": step, **finite_or_none(seen)})
        for key, value in train_step(work.engine, players, batch, config).items():
            losses[key].append(value.detach())
        _tell(work.report, epoch + 1, phase.epochs, step + 1, steps, losses)
    return losses, steps * batches.batch_size, diagnostics


def training_batches(work: Work, config: Config, name: PhaseName, epoch: int) -> TrainingBatches:
    """What a run sees in an epoch of a phase, counted from 0."""
    return TrainingBatches(
        work.prepared,
        config.training.batch_size,
        config.seed,
        epoch=first_epoch(config, name) + epoch,
        shift_px=config.training.shift_px if name == "finetune" else 0,
        share=work.engine.share,
        device=work.engine.device,
        targets=find_targets(work.prepared, config.supervision, config.seed),
        labelled_batch_share=config.supervision.labelled_batch_share,
    )


def _both_pull(config: Config, name: PhaseName) -> bool:
    """Whether two tasks, colour by its L1 term, train the encoder in this phase; other losses are not looked into."""
    phase = phase_of(config, name)
    return len(config.tasks.names) > 1 and phase.encoder_learning_rate > 0 and config.colour.loss == "l1"


def _tell(
    report: Report, epoch: int, epochs: int, step: int, steps: int, losses: dict[str, list[Tensor]]
) -> None:
    newest = {name: values[-1] for name, values in losses.items()}
    report(
        {"stage": "train", "epoch": epoch, "epochs": epochs, "step": step, "steps": steps, "losses": newest}
    )


def _with_features(batch: Batch, features: FeatureCache, mirrored: NDArray[np.bool_] | None = None) -> Batch:
    index = batch.position.cpu().numpy()
    upright = np.zeros(len(index), dtype=np.bool_)
    return batch._replace(features=features.read(index, upright if mirrored is None else mirrored))


def _judge(
    engine: Engine, discriminator: nn.Module, gan_loss: str, batch: Batch, prediction: Prediction
) -> Tensor:
    with engine.autocast():
        scores = discriminator(batch.lightness, prediction.chroma)
    return torch.stack([GAN_LOSSES[gan_loss].generator(score) for score in scores])
