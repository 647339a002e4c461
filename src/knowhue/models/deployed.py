"""A trained model with what was fitted to it afterwards: L* in; colours, probabilities and novelty out."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from knowhue.models.multitask import MultiTask
from knowhue.tensors import Chroma, Lightness

NEIGHBOURS = 10
CHECKSUM = "knowhue-sha256"
"""Where a file of a deployed model keeps the checksum of its description and weights."""


def checksum(description: str, weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of a description as it is stored, and of all tensors by name."""
    found = hashlib.sha256(description.encode())
    for name, tensor in sorted(weights.items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


class Answer(NamedTuple):
    """What a deployed model says of B images.

    `probabilities` (B, classes) are calibrated where that helps. `novelty` (B,) is the distance from the training
    images, 1 at the one that a validation image in a hundred exceeds.
    """

    chroma: Chroma | None
    probabilities: Tensor | None
    novelty: Tensor


class Deployed(nn.Module):
    """Everything that a prediction needs, as one module whose state is one file.

    Novelty is the cosine distance of the pooled coarsest features to those of the tenth nearest of some training
    images, over its limit (deep nearest neighbours, Sun et al. 2022).
    """

    def __init__(self, model: MultiTask, temperature: float, references: int, novelty_limit: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.novelty_limit = novelty_limit
        self.references: Tensor
        self.register_buffer("references", torch.zeros(references, model.encoder.channels[-1]))

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
        """Cosine distance to the tenth nearest reference, 0 to 2: (B, C) to (B,)."""
        similarity = functional.normalize(pooled, dim=1) @ self.references.T
        nearest = similarity.topk(min(NEIGHBOURS, len(self.references)), dim=1).values
        return 1 - nearest[:, -1]


def pool(features: Tensor) -> Tensor:
    """(B, C, h, w) to (B, C), the mean over the image, in float32."""
    return features.float().mean((2, 3))
