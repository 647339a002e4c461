"""The A/A gate: before the fork, a multi-task model's heads are the single tasks' heads, bit for bit."""

from typing import Any

import torch

from knowhue.config import Config
from knowhue.data.loaders import TrainingBatches
from knowhue.data.supervision import find_targets
from knowhue.models.multitask import build_discriminator, build_model
from knowhue.presets import edit
from knowhue.storage import read_json, write_json
from knowhue.training.loop import Session, Work, make_players
from knowhue.training.step import train_step

STEPS = 3

Weights = dict[str, torch.Tensor]


def check_gate(work: Work, config: Config) -> dict[str, Any]:
    """Train both heads together and each alone for some steps of a block, and compare every weight.

    This is what licenses forking all arms from the same heads. The answer is kept in `gate/seed-<n>.json`.

    Args:
        work: what the study shares.
        config: of the multi-task arm of this block.

    Returns:
        `steps`, `tensors` compared, and the names of those that `differ`; none should.
    """
    path = work.root / "gate" / f"seed-{config.seed}.json"
    if path.exists() and read_json(path)["pictures"] == work.prepared.fingerprint:
        return read_json(path)
    together = _train(work, config)
    alone = _train(work, edit(config, {"tasks": {"names": ("colour",)}}))
    alone |= _train(work, edit(config, {"tasks": {"names": ("class",)}}))
    differ = sorted(name for name in together if not torch.equal(together[name], alone[name]))
    found = {
        "steps": STEPS,
        "tensors": len(together),
        "differ": differ,
        "pictures": work.prepared.fingerprint,
    }
    if work.engine.is_main:
        write_json(path, found)
    work.engine.wait()
    return found


def _train(work: Work, config: Config) -> Weights:
    """The heads' weights after the first steps with the base frozen."""
    opponent = build_discriminator(config)
    session = Session(
        work.engine.place(build_model(config, len(work.prepared.classes))),
        None if opponent is None else work.engine.place(opponent),
    )
    players = make_players(work.engine, session, config.training.heads, config)
    modules = session.modules(with_base=False)
    for module in (*modules.values(), session.model.encoder):
        module.train()
    targets = find_targets(work.prepared, config.supervision, config.seed)
    batches = TrainingBatches(
        work.prepared,
        config.training.batch_size,
        config.seed,
        epoch=0,
        shift_px=0,
        share=work.engine.share,
        device=work.engine.device,
        targets=targets,
        labelled_batch_share=config.supervision.labelled_batch_share,
    )
    for _, (batch, _) in zip(range(STEPS), batches, strict=False):
        train_step(work.engine, players, batch, config)
    return {f"{name}.{key}": value for name, m in modules.items() for key, value in m.state_dict().items()}
