"""Colouring as classification: chroma as one of 313 bins (Zhang, Isola and Efros, ECCV 2016), and a head for it.

"Colorful Image Colorization", arXiv:1603.08511, sections 2.1 to 2.3: to bins softly, back by annealed mean. What is
not the head are pure functions of tensors, in float32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from knowhue.color import COLOUR_STRIDE, chroma_bins
from knowhue.models.heads import Ladder, scale_chroma
from knowhue.tensors import Chroma, Lightness, Pyramid

NEIGHBOURS = 5
"""How many bins share a colour's soft code."""
SIGMA = 5.0
"""Of the Gaussians that share a colour among its bins and that smooth the prior, CIELAB units."""
TEMPERATURE = 0.38
"""At which the paper's answers are taken."""
UNIFORM_SHARE = 0.5
"""The paper's lambda: how much of the uniform distribution the prior is mixed with before it is inverted."""

# pixels at a time: their distances to 313 bins take 82 MB
_CHUNK = 2**16


def centres() -> Tensor:
    """The middles of the bins as a tensor, a*b* (313, 2) float32, see `chroma_bins`."""
    return torch.tensor(chroma_bins(), dtype=torch.float32)


def soft_encode(chroma: Chroma) -> tuple[Tensor, Tensor]:
    """Share each colour, a*b* (B, 2, h, w), among its five nearest bins by a Gaussian of its distance (section 2.1).

    Returns:
        Indices of the bins, nearest first, (B, 5, h, w) int64, and their shares (B, 5, h, w), which sum to 1.

    >>> indices, weights = soft_encode(torch.tensor([20.0, -30.0]).reshape(1, 2, 1, 1))
    >>> centres()[indices[0, 0, 0, 0]].tolist(), round(weights[0, 0, 0, 0].item(), 3)
    ([20.0, -30.0], 0.649)
    """
    distances, indices = _distances(_points(chroma)).topk(NEIGHBOURS, dim=1, largest=False)
    weights = (-distances.square() / (2 * SIGMA**2)).softmax(1)  # a softmax: far from every bin none is 0 / 0
    return _maps(indices, chroma), _maps(weights, chroma)


def count_bins(chroma: Chroma) -> Tensor:
    """How many pixels each bin is the nearest to: a*b* (B, 2, h, w) to (313,) int64.

    >>> count_bins(torch.zeros(2, 2, 3, 3)).max().item()
    18
    """
    parts = [_distances(part).argmin(1) for part in _points(chroma).split(_CHUNK)]
    return torch.cat(parts).bincount(minlength=len(chroma_bins()))


def annealed_mean(logits: Tensor, temperature: float = TEMPERATURE) -> Chroma:
    """The mean of the bins under the sharpened distribution (equation 5), a*b* (B, 2, h, w), of logits (B, 313, h, w).

    Temperature 1 gives the expectation, which averages to gray; towards 0 it gives the mode, which is patchy.
    """
    with torch.autocast(logits.device.type, enabled=False):
        scaled = logits.float() / temperature
        powers = (scaled - scaled.detach().amax(1, keepdim=True)).exp()  # any shift gives the same mean
        # one product, as the layout is: `softmax` and `einsum` were a third of a prediction in ONNX Runtime; autocast
        # would take it in bfloat16, whose steps are 0.5 at a*b* of 100
        factors = F.pad(centres().to(powers.device), (0, 1), value=1.0).T
        sums = (factors @ powers.flatten(2)).unflatten(2, powers.shape[2:])
        return sums[:, :2] / sums[:, 2:]


def smooth(prior: Tensor) -> Tensor:
    """Spread each bin's probability (313,) over its neighbours by a Gaussian in a*b* (section 2.2); the sum stays."""
    points = centres().to(prior.device)
    # columns sum to 1, so that what would fall beyond the bins stays within
    kernel = (-_distances(points).square() / (2 * SIGMA**2)).softmax(0)
    return kernel @ prior.float()


def rebalancing(prior: Tensor, uniform_share: float = UNIFORM_SHARE) -> Tensor:
    """What a pixel of each bin counts in the loss (313,), so that rare colours are learnt (equation 4).

    w is proportional to ((1 - lambda) p + lambda / Q)^-1 with p the smoothed prior, and its expectation under p is 1.

    Args:
        prior: (313,) counts or probabilities, not all 0.
        uniform_share: lambda, above 0 to 1; at 1 every bin counts 1.

    >>> common_and_rare = torch.ones(313).index_fill(0, torch.tensor(0), 999)
    >>> [round(weight, 2) for weight in rebalancing(common_and_rare)[[0, -1]].tolist()]
    [0.03, 3.98]
    """
    smoothed = smooth(prior / prior.sum())
    weights = 1 / ((1 - uniform_share) * smoothed + uniform_share / len(smoothed))
    return weights / (smoothed * weights).sum()


def _points(chroma: Chroma) -> Tensor:
    return chroma.float().movedim(1, -1).reshape(-1, 2)


def _maps(rows: Tensor, chroma: Chroma) -> Tensor:
    """(B * h * w, n) to (B, n, h, w)."""
    batch, _, height, width = chroma.shape
    return rows.reshape(batch, height, width, -1).movedim(-1, 1)


def _distances(points: Tensor) -> Tensor:
    """(N, 2) to (N, 313), CIELAB units; without the matrix trick, which would lose the nearest to rounding."""
    with torch.autocast(points.device.type, enabled=False):
        bins = centres().to(points.device)
        return torch.cdist(points, bins, compute_mode="donot_use_mm_for_euclid_dist")


class ColourClasses(Ladder):
    """Logits over the 313 bins at a quarter of the image's size; their annealed mean is the answer.

    Zhang, Isola and Efros, "Colorful Image Colorization", ECCV 2016 (arXiv:1603.08511): soft-encoded targets,
    cross-entropy with rare colours counting more, annealed mean at 0.38.

    Where we differ: the paper trains its own VGG-like network from scratch; here a ladder of `Stage` climbs from a
    given encoder, so that only what the head predicts and learns by differs from our other heads. One whose coarsest
    map is finer than a quarter gets its logits at that map's size. An untrained head does not answer gray, as `Decoder`
    does, but about the mean of all bins. Where rare colours count more in training, their probabilities come out too
    large by what they count, above all where nothing tells the colour: `logit_adjustment` divides them by it again
    (Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, section 3.1, with the loss's weights in place
    of the inverse prior). The paper leaves them.

    For `resnet18` and width 32, a 64-pixel image passes as 512 channels of 2 x 2 pixels, then 256 of 4, 128 of 8,
    64 of 16, becomes 313 logits of 16 x 16, and leaves as 2 channels of 64 x 64.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        width: int,
        skips: bool,
        temperature: float = TEMPERATURE,
        logit_adjustment: float = 0.0,
    ) -> None:
        super().__init__(channels, strides, width, skips, finest=COLOUR_STRIDE)
        self.temperature, self.logit_adjustment = temperature, logit_adjustment
        self.scale = min(COLOUR_STRIDE, strides[-1])
        self.out = nn.Conv2d(self.out_channels, len(centres()), 1)
        # about even over the bins: a start at gray would bury the far ones
        nn.init.normal_(self.out.weight, std=0.01)
        self.rebalance: Tensor
        self.register_buffer("rebalance", torch.ones(len(centres())))

    def learn_prior(self, counts: Tensor) -> None:
        """Let rare colours count more from now on, by the training images' nearest bins (313,), see `count_bins`."""
        self.rebalance.copy_(rebalancing(counts))

    def logits(self, pyramid: Pyramid) -> Tensor:
        """Maps of `taps`, fine to coarse, to (B, 313, h, w) float32, h and w a quarter of the padded image's."""
        return self.out(self.climb(pyramid)).float()

    def adjusted_logits(self, logits: Tensor) -> Tensor:
        """The logits that predictions are made of: those trained, less what rare colours counted too much."""
        if not self.logit_adjustment:
            return logits
        return logits - self.logit_adjustment * self.rebalance.float().log()[:, None, None]

    def forward(self, pyramid: Pyramid) -> Tensor:
        """Maps of `taps` to scaled a*b* (B, 2, H, W) at the image's (padded) size."""
        return self.decode(self.adjusted_logits(self.logits(pyramid)))

    def decode(self, logits: Tensor) -> Tensor:
        """The answer of logits: scaled a*b* (B, 2, H, W) at the image's (padded) size, bilinearly upsampled."""
        chroma = annealed_mean(logits, self.temperature)
        return scale_chroma(F.interpolate(chroma, scale_factor=float(self.scale), mode="bilinear"))

    def loss(self, pyramid: Pyramid, lightness: Lightness, chroma: Chroma) -> Tensor:
        """`cross_entropy` of the logits of maps of `taps`; lightness, which every loss is given, is not used."""
        return self.cross_entropy(self.logits(pyramid), chroma)

    def cross_entropy(self, logits: Tensor, chroma: Chroma) -> Tensor:
        """Cross-entropy with the soft-encoded truth, weighed by what its nearest bin counts (equations 2 and 3).

        Its mean over images and positions; the paper writes their sum. The truth, a*b* (B, 2, H, W), is averaged over
        the pixels of each position (the paper's text does not say how it gets there) and repeats its edge where the
        padded encoder saw more than the image. Logits are as trained; nats.
        """
        sides = zip(logits.shape[2:], chroma.shape[2:], strict=True)
        bottom, right = (own * self.scale - true for own, true in sides)
        with torch.autocast(logits.device.type, enabled=False):
            whole = F.pad(chroma.float(), (0, right, 0, bottom), mode="replicate")
            indices, shares = soft_encode(F.avg_pool2d(whole, self.scale))
            entropy = -(logits.log_softmax(1).gather(1, indices) * shares).sum(1)
            # not divided by the sum of the weights, whose expectation over the training images is 1 already: a batch of
            # common colours should count less
            return (entropy * self.rebalance[indices[:, 0]]).mean()
