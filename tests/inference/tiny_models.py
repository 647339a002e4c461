"""Models of a few thousand weights with all the parts of a real model, and their descriptions."""

import numpy as np
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from knowhue.config import Config
from knowhue.inference.description import Calibration, Description, ScoreInterval
from knowhue.inference.networks import TorchNetwork
from knowhue.models.colour_classes import ColourClasses
from knowhue.models.heads import Classifier, Decoder
from knowhue.models.multitask import Deployed, MultiTask, build_model
from knowhue.presets import edit
from small_encoder import SMALL_ENCODER, add_small_encoder

CLASSES = ("coral", "penguin", "shark")
SIZE_PX = 32
BOTH = ("colour", "class")


class TwoStageBase(nn.Module):
    """An encoder with strides 2 and 4, whose first layer pads as TensorFlow does."""

    channels, strides = (8, 12), (2, 4)

    def __init__(self) -> None:
        super().__init__()
        self.first = Conv2dSame(1, 8, 3, 2)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 12, 3, 2, padding=1)

    def forward(self, lightness: Tensor) -> tuple[Tensor, ...]:
        fine = torch.relu(self.norm(self.first(lightness / 100)))
        return fine, torch.relu(self.second(fine))


def describe(tasks: tuple[str, ...] = BOTH, **changes: object) -> Description:
    """The description of a model as a small run would write it."""
    config = edit(
        Config(),
        {
            "tasks": {"names": tasks},
            "encoder": {"name": "tf_efficientnet_lite0", "weights": "none"},
            "colour": {"width": 4},
            "images": {"path": "/home/somebody/photos", "size_px": SIZE_PX},
        },
    )
    values = {
        "name": "multi, seed 0, of /home/somebody/runs",
        "version": "0.1.0",
        "config": config,
        "classes": CLASSES,
        "size_px": SIZE_PX,
        "images": {"source": "folder", "train": 90, "validation": 30, "fingerprint": "0123abcd"},
        "metrics": {"ab_l1": ScoreInterval(value=9.5, low=9.0, high=10.0)},
        "calibration": Calibration(temperature=1.5, ece_before=0.05, ece_after=0.02, images=30),
        "references": 12,
        "novelty_limit": 0.3,
    }
    return Description.model_validate(values | changes)


def two_stage_network(tasks: tuple[str, ...] = BOTH, kind: type[Deployed] = Deployed) -> TorchNetwork:
    """A tiny model with every kind of layer."""
    torch.manual_seed(0)
    encoder = TwoStageBase()
    colour = Decoder(encoder.channels, encoder.strides, 4, skips=True) if "colour" in tasks else None
    classifier = Classifier(encoder.channels[-1], len(CLASSES)) if "class" in tasks else None
    module = kind(MultiTask(encoder, colour, classifier), 1.5, 12, 0.3)  # pyright: ignore[reportArgumentType]
    return TorchNetwork(_with_random_weights(module), describe(tasks))


def colours_network() -> TorchNetwork:
    """A tiny model whose colour head predicts logits of 313 colours."""
    torch.manual_seed(0)
    encoder = TwoStageBase()
    colour = ColourClasses(encoder.channels, encoder.strides, 4, skips=True, logit_adjustment=0.5)
    colour.learn_prior(torch.arange(1, 314))
    model = MultiTask(encoder, colour, Classifier(encoder.channels[-1], len(CLASSES)))  # pyright: ignore[reportArgumentType]
    changes = {"colour": {"method": "feedforward", "loss": "classification", "logit_adjustment": 0.5}}
    described = describe(config=edit(describe().config, changes))
    return TorchNetwork(_with_random_weights(Deployed(model, 1.5, 12, 0.3)), described)


def lite0_network() -> TorchNetwork:
    """An untrained model with the encoder EfficientNet-Lite0."""
    return _untrained(describe())


def small_network() -> TorchNetwork:
    """An untrained model with the small encoder, which has the same kinds of layers as EfficientNet-Lite0."""
    add_small_encoder()
    return _untrained(describe(config=edit(describe().config, {"encoder": {"name": SMALL_ENCODER}})))


def _untrained(described: Description) -> TorchNetwork:
    torch.manual_seed(0)
    model = build_model(described.config, len(CLASSES))
    return TorchNetwork(_with_random_weights(Deployed(model, 1.5, 12, 0.3)), described)


def noise(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random L*, (count, height, width), 0 to 100."""
    return np.random.default_rng(seed).uniform(0, 100, (count, height, width)).astype(np.float32)


def _with_random_weights(module: Deployed) -> Deployed:
    """Give an untrained model random colours instead of gray, and references of length 1."""
    if module.model.colour is not None:
        nn.init.normal_(module.model.colour.out.weight, std=0.3)
    module.references.copy_(nn.functional.normalize(torch.randn_like(module.references).abs(), dim=1))
    return module
