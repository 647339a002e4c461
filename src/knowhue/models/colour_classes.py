"""Colouring as classification: features to a distribution over 313 colours (Zhang et al., ECCV 2016)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from knowhue.color import scale_chroma
from knowhue.models.decoders import Stage
from knowhue.models.quantised import annealed_mean, centres, rebalancing, soft_encode
from knowhue.tensors import Chroma, Lightness, Pyramid

_STRIDE = 4


class ColourClasses(nn.Module):
    """Logits over the bins of `quantised` at a quarter of the image's size; their annealed mean is the answer.

    Zhang, Isola and Efros, "Colorful Image Colorization", ECCV 2016 (arXiv:1603.08511): soft-encoded targets,
    cross-entropy with rare colours counting more, annealed mean at 0.38. As in `Decoder`, `taps` says which maps of
    the encoder's pyramid it reads, fine to coarse; those finer than the logits are not among them.

    Where we differ: the paper trains its own VGG-like network from scratch; here a ladder of `Stage` climbs from a
    given encoder, so that only what the head predicts and learns by differs from our other heads. One whose coarsest
    map is finer than a quarter gets its logits at that map's size. Unlike `Decoder` an untrained head does not answer
    gray but about the mean of all bins: starting each pixel at gray would bury the far bins.

    For `resnet18` and width 32, a 64-pixel image passes as 512 channels of 2 x 2 pixels, then 256 of 4, 128 of 8,
    64 of 16, becomes 313 logits of 16 x 16, and leaves as 2 channels of 64 x 64.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int, skips: bool) -> None:
        super().__init__()
        skip_at = dict(zip(strides, channels, strict=True)) if skips else {}
        coarsest = len(channels) - 1
        self.taps: tuple[int, ...] = (
            *(tap for tap in range(coarsest) if skips and strides[tap] >= _STRIDE),
            coarsest,
        )
        stages, incoming, stride = [], channels[-1], strides[-1] // 2
        while stride >= _STRIDE:
            outgoing = min(width * stride // 2, 256)
            stages.append(Stage(incoming, skip_at.get(stride, 0), outgoing))
            incoming, stride = outgoing, stride // 2
        self.stages = nn.ModuleList(stages)
        self.scale = min(_STRIDE, strides[-1])
        self.out = nn.Conv2d(incoming, len(centres()), 1)
        nn.init.normal_(self.out.weight, std=0.01)
        self.rebalance: Tensor
        self.register_buffer("rebalance", torch.ones(len(centres())))

    def learn_prior(self, counts: Tensor) -> None:
        """Let rare colours count more from now on.

        Args:
            counts: (313,) of the training images' nearest bins, see `quantised.count_bins`.

        Raises:
            ValueError: `counts` is of another shape, negative, or all 0.
        """
        self.rebalance.copy_(rebalancing(counts))

    def logits(self, pyramid: Pyramid) -> Tensor:
        """Maps of `taps`, fine to coarse, to (B, 313, h, w) float32, h and w a quarter of the padded image's."""
        *skips, features = pyramid
        for stage in self.stages:
            features = stage(features, skips.pop() if stage.skip is not None else None)
        return self.out(features).float()

    def forward(self, pyramid: Pyramid) -> Tensor:
        """Maps of `taps` to scaled a*b* (B, 2, H, W) at the image's (padded) size, bilinearly upsampled."""
        chroma = annealed_mean(self.logits(pyramid))
        return scale_chroma(F.interpolate(chroma, scale_factor=float(self.scale), mode="bilinear"))

    def loss(self, pyramid: Pyramid, lightness: Lightness, chroma: Chroma) -> Tensor:
        """Cross-entropy with the soft-encoded truth, weighed by what its nearest bin counts (equations 2 and 3).

        Its mean over images and positions; the paper writes their sum. It is not divided by the sum of the weights:
        their expectation over the training images is 1 already, and a batch of common colours should count less.
        The truth is averaged over the pixels of each position (the paper's text does not say how it gets there) and
        repeats its edge where the padded encoder saw more than the image.

        Args:
            pyramid: maps of `taps`.
            lightness: not used; every head's loss is given it.
            chroma: true a*b* (B, 2, H, W), not padded.

        Returns:
            A scalar, nats, float32.
        """
        logits = self.logits(pyramid)
        with torch.autocast(logits.device.type, enabled=False):
            indices, shares = soft_encode(self._at_logits(chroma.float(), logits))
            entropy = -(logits.log_softmax(1).gather(1, indices) * shares).sum(1)
            return (entropy * self.rebalance[indices[:, 0]]).mean()

    def _at_logits(self, chroma: Chroma, logits: Tensor) -> Chroma:
        bottom, right = (
            own * self.scale - true for own, true in zip(logits.shape[2:], chroma.shape[2:], strict=True)
        )
        return F.avg_pool2d(F.pad(chroma, (0, right, 0, bottom), mode="replicate"), self.scale)
