"""A network of 313 colours that sees a photo at three sizes: the mean of what it says is freer of blotches.

What a network mistakes at one size it rarely mistakes in the same way at another, so colours that only one size gives
are outvoted: test-time augmentation by scale, for every pixel the mean of the logits.
"""

from collections.abc import Sequence

import numpy as np

from knowhue.color import COLOUR_STRIDE, FloatArray, chroma_bins
from knowhue.inference.colour_distribution import ColourDistribution
from knowhue.inference.description import Description
from knowhue.inference.networks import COLOUR_LOGITS, Network, Predictions
from knowhue.inference.pixels import SHORTEST_PX, neighbours, taps, working_size

SEEN_AT = (0.75, 1.0, 1.5)
"""Of the network's own size; chosen on photos kept apart and by looking (docs/model.md)."""
LARGEST_SIZE = SEEN_AT[-1]
_COPIES = 4
"""Of the logits: the sum, those of the network's own size, and those of a size as they come and at the largest."""


class SeveralSizes:
    """Colours by the mean of the logits at `SEEN_AT`, evened out; class and novelty at the network's own size.

    It is given L* at `LARGEST_SIZE` of that size, and answers so; the other sizes are made of it.

    Args:
        network: with a head of 313 colours.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.runtime, self.activation_names = network.runtime, network.activation_names

    @property
    def description(self) -> Description:
        description = self.network.description
        assert isinstance(description, Description)  # no other gives logits
        return description

    def answer_bytes(self, height: int, width: int) -> int:
        """That the logits of an image of this shape take while they are averaged, at most."""
        side = round(LARGEST_SIZE * max(self.description.size_px, SHORTEST_PX))
        height, width = working_size(height, width, side)
        cells = -(-height // COLOUR_STRIDE) * -(-width // COLOUR_STRIDE)
        return _COPIES * len(chroma_bins()) * cells * np.dtype(np.float32).itemsize

    def at_one_size(self, lightness: FloatArray) -> FloatArray:
        """L* (B, h, w) at the network's own size, of that at the largest."""
        return _resized(lightness, 1 / LARGEST_SIZE)

    def predict(self, lightness: FloatArray) -> Predictions:
        """Predict for L* (B, h, w) at the largest size; errors as of `Network.predict`."""
        answers, own = self.network.predict_with(self.at_one_size(lightness), [COLOUR_LOGITS])
        logits = self._mean_logits(lightness, own[COLOUR_LOGITS])
        colour = self.description.config.colour
        chroma = [
            ColourDistribution(each, light, colour.temperature, colour.saturation, is_even=True).answer()
            for each, light in zip(logits, lightness, strict=True)
        ]
        return answers._replace(chroma=np.stack(chroma))

    def activations(self, lightness: FloatArray, names: Sequence[str]) -> dict[str, FloatArray]:
        """See `Network`; the logits are the mean over sizes, all else is computed at the size that is given."""
        found = {}
        if others := [name for name in names if name != COLOUR_LOGITS]:
            found = self.network.activations(lightness, others)
        if COLOUR_LOGITS in names:
            own = self.network.activations(self.at_one_size(lightness), [COLOUR_LOGITS])[COLOUR_LOGITS]
            found[COLOUR_LOGITS] = self._mean_logits(lightness, own)
        return found

    def predict_with(
        self, lightness: FloatArray, names: Sequence[str]
    ) -> tuple[Predictions, dict[str, FloatArray]]:
        """Both, see `Network`."""
        return self.predict(lightness), self.activations(lightness, names)

    def _mean_logits(self, lightness: FloatArray, own: FloatArray) -> FloatArray:
        """(B, 313, rows, columns) of stride 4 of the largest size; `own` are the logits at the network's own."""
        rows, columns = (-(-side // COLOUR_STRIDE) for side in lightness.shape[1:])
        total = np.zeros((*own.shape[:2], rows, columns), np.float32)
        for size in SEEN_AT:
            seen = lightness if size == LARGEST_SIZE else _resized(lightness, size / LARGEST_SIZE)
            logits = own if size == 1 else self.network.activations(seen, [COLOUR_LOGITS])[COLOUR_LOGITS]
            if size == LARGEST_SIZE:
                total += logits[..., :rows, :columns]
                continue
            down, across = (
                _interpolation(count, seen.shape[axis] / lightness.shape[axis], logits.shape[axis + 1])
                for axis, count in ((1, rows), (2, columns))
            )
            # one large product, where @ makes one a colour
            total += down @ np.tensordot(logits, across, (3, 1))
        total /= np.float32(len(SEEN_AT))
        return total


def _interpolation(count: int, scale: float, length: int) -> FloatArray:
    """The matrix (count, length) that takes a row of cells to those of another size, bilinear.

    Args:
        count: of the cells to be made.
        scale: of the image whose cells are given, that of those to be made is 1.
        length: of the row, which covers whole strides; the image is the first part of it.
    """
    low, high, share = neighbours((np.arange(count) + 0.5) * scale - 0.5, length)
    matrix = np.zeros((count, length), np.float32)
    np.add.at(matrix, (np.arange(count), low), 1 - share)
    np.add.at(matrix, (np.arange(count), high), share)
    return matrix


def _resized(lightness: FloatArray, scale: float) -> FloatArray:
    """L* (B, h, w) at another size, by Lanczos."""
    for axis in (1, 2):
        side = lightness.shape[axis]
        places, weights = taps(side, side, max(round(scale * side), 1))
        parts = np.moveaxis(lightness, axis, -1)[..., places] * weights.astype(np.float32)
        lightness = np.moveaxis(parts.sum(-1), -1, axis)
    return np.ascontiguousarray(lightness.clip(0, 100), np.float32)
