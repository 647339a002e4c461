"""Features of small images, because those of large ones take most of the time of a small study."""

import hashlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

    from knowhue.evaluation.features import ImageNetwork


def use_small_features(patch: pytest.MonkeyPatch) -> None:
    """Compute features at 32 pixels instead of 224, and once for each batch, because studies have the same images."""
    from knowhue.evaluation import features

    def opened(file: str | None, device: "torch.device") -> "ImageNetwork":
        network, kept = lite0.open(file, device), {}

        def compute(rgb: "torch.Tensor") -> "torch.Tensor":
            key = (rgb.shape, hashlib.sha256(rgb.cpu().numpy().tobytes()).digest())
            if key not in kept:
                with pytest.MonkeyPatch.context() as small:
                    small.setattr(features, "resize", lambda rgb, _: resize(rgb, 32))
                    kept[key] = network.compute(rgb)
            return kept[key].clone()

        return network._replace(compute=compute)

    lite0, resize = features.NETWORKS["lite0"], features.resize
    patch.setitem(features.NETWORKS, "lite0", lite0._replace(open=opened))
