"""A trained model with what was fitted to it afterwards: L* in; colours, probabilities and novelty out."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from knowhue.description import Description
from knowhue.models.multitask import MultiTask, build_model
from knowhue.presets import edit
from knowhue.tensors import Chroma, Lightness


class Answer(NamedTuple):
    """What a deployed model says of B pictures.

    `probabilities` (B, classes) are calibrated. `novelty` (B,) is the distance from the training pictures, 1 at the
    one that a validation picture in a hundred exceeds.
    """

    chroma: Chroma | None
    probabilities: Tensor | None
    novelty: Tensor


class Deployed(nn.Module):
    """Everything that a prediction needs, as one module whose state is one file.

    Novelty is the Mahalanobis distance of the pooled coarsest features from the training pictures' (Lee et al.
    2018, with one Gaussian for all classes): |(f - mean) whitening| / sqrt(channels) / limit.
    """

    def __init__(self, model: MultiTask, temperature: float, novelty_limit: float) -> None:
        super().__init__()
        channels = model.encoder.channels[-1]
        self.model = model
        self.temperature = temperature
        self.novelty_limit = novelty_limit
        self.feature_mean: Tensor
        self.feature_whitening: Tensor
        self.register_buffer("feature_mean", torch.zeros(channels))
        self.register_buffer("feature_whitening", torch.eye(channels))

    def forward(self, lightness: Lightness) -> Answer:
        """Answer for L* (B, 1, H, W) of any size."""
        features = self.model.features(lightness)
        prediction = self.model(lightness, features)
        logits, chroma = prediction.logits, prediction.chroma
        return Answer(
            None if chroma is None else chroma.float(),
            None if logits is None else (logits.float() / self.temperature).softmax(1),
            self.distance(pool(features[-1])) / self.novelty_limit,
        )

    def distance(self, pooled: Tensor) -> Tensor:
        """Root mean square of the whitened features: (B, C) to (B,); about 1 for a training picture."""
        whitened = (pooled - self.feature_mean) @ self.feature_whitening
        return whitened.square().mean(1).sqrt()


def pool(features: Tensor) -> Tensor:
    """(B, C, h, w) to (B, C), the mean over the picture, in float32."""
    return features.float().mean((2, 3))


def build_deployed(description: Description) -> Deployed:
    """An empty module of the described shape, for its weights to be loaded into; nothing is downloaded."""
    config = edit(description.config, {"encoder": {"weights": "none"}})
    model = build_model(config, max(len(description.classes), 2))
    calibration = description.calibration
    return Deployed(model, calibration.temperature if calibration else 1.0, description.novelty_limit).eval()
