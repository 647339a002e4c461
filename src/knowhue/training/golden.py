"""A golden training step: what code, libraries, hardware and threads make of two fixed steps, as one digest."""

import numpy as np
import torch

from knowhue.color import rgb_to_lab
from knowhue.config import Config, digest
from knowhue.data.loaders import label_weights, to_rgb
from knowhue.models.encoder import weights_digest
from knowhue.presets import edit
from knowhue.randomness import drawing_from, stream
from knowhue.tensors import Batch
from knowhue.training.engine import Engine
from knowhue.training.state import build_networks, make_train_state
from knowhue.training.step import train_step

STEPS, IMAGES, SIZE_PX, CLASSES = 2, 8, 32, 4
SETTINGS = {
    "tasks": {"names": ("colour", "class")},
    "encoder": {"name": "resnet18", "weights": "none"},
    "colour": {"width": 8, "discriminator_width": 8},
}
_found: dict[tuple[str, str, int], str] = {}


def golden_step(engine: Engine, threads: int | None = None) -> str:
    """SHA-256 of all weights after two training steps of a small multi-task model with a GAN on synthetic images.

    Runs differ by their settings alone only where this is equal: another processor, another number of threads or
    another version of a library may sum in another order. The number of processes counts, too. It is computed once a
    process and is the same on all processes of a run.

    Args:
        engine: of the run.
        threads: that sums are shared out among, if not as many as this process has.
    """
    had = torch.get_num_threads()
    if threads not in (None, had):
        torch.set_num_threads(threads)
        try:
            return golden_step(engine)
        finally:
            torch.set_num_threads(had)
    key = (str(engine.device), engine.precision, torch.get_num_threads())
    if key not in _found:
        _found[key] = _train(engine)
    return digest(engine.gather([_found[key]]))


def _train(engine: Engine) -> str:
    """On this process alone."""
    config = edit(Config(), SETTINGS)
    networks = build_networks(engine, config, CLASSES)
    state = make_train_state(engine, networks, config, "finetune", alone=True)
    for network in (networks.model, networks.discriminator):
        assert network is not None  # the settings have both
        network.train()
    with drawing_from(engine.device, 0, "golden-step"):
        for step in range(STEPS):
            train_step(state, _batch(engine, step))
    return digest([weights_digest(networks.model), weights_digest(networks.discriminator)])


def _batch(engine: Engine, step: int) -> Batch:
    """Smooth random images, so that no loss is that of noise."""
    generator = stream(0, "golden-step", step)
    coarse = generator.integers(0, 256, (IMAGES, 8, 8, 3), dtype=np.uint8)
    rgb = coarse.repeat(SIZE_PX // 8, axis=1).repeat(SIZE_PX // 8, axis=2)
    lightness, chroma = rgb_to_lab(to_rgb(rgb, engine.device))
    label = np.arange(IMAGES) % CLASSES
    weight = torch.from_numpy(label_weights(label)).to(engine.device)
    position, known = (torch.from_numpy(each).to(engine.device) for each in (np.arange(IMAGES), label))
    return Batch(position, lightness, chroma, known, weight)
