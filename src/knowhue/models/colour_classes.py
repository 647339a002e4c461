"""Colouring as classification into 313 bins of chroma: encoding, decoding, class rebalancing, and the colour head.

Zhang, Isola and Efros, "Colorful Image Colorization", ECCV 2016, arXiv:1603.08511, sections 2.1 to 2.3. Functions
compute in float32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from knowhue.color import COLOUR_STRIDE, chroma_bins
from knowhue.models.heads import Ladder, scale_chroma
from knowhue.tensors import Chroma, Lightness, Pyramid

NEIGHBOURS = 5  # number of bins in a colour's soft encoding
SIGMA = 5.0
"""Standard deviation, CIELAB units, of the Gaussians of the soft encoding and of the smoothing of the prior."""
TEMPERATURE = 0.38  # the paper's temperature of the annealed mean
UNIFORM_SHARE = 0.5
"""The paper's lambda: share of the uniform distribution that is mixed into the prior before it is inverted."""

_CHUNK = 2**16  # pixels per chunk; their distances to 313 bins take 82 MB


def centres() -> Tensor:
    """The bins' centres as a tensor, a*b* (313, 2) float32, see `chroma_bins`."""
    return torch.tensor(chroma_bins(), dtype=torch.float32)


def soft_encode(chroma: Chroma) -> tuple[Tensor, Tensor]:
    """Encode a*b* (B, 2, h, w) as weights of the five nearest bins, by a Gaussian of their distance (section 2.1).

    Returns the bins' indices, nearest first, (B, 5, h, w) int64, and their weights (B, 5, h, w), which sum to 1.

    >>> indices, weights = soft_encode(torch.tensor([20.0, -30.0]).reshape(1, 2, 1, 1))
    >>> centres()[indices[0, 0, 0, 0]].tolist(), round(weights[0, 0, 0, 0].item(), 3)
    ([20.0, -30.0], 0.649)
    """
    distances, indices = _distances(_points(chroma)).topk(NEIGHBOURS, dim=1, largest=False)
    # softmax, because plain normalisation would give 0 / 0 for a colour far from every bin
    weights = (-distances.square() / (2 * SIGMA**2)).softmax(1)
    return _maps(indices, chroma), _maps(weights, chroma)


def count_bins(chroma: Chroma) -> Tensor:
    """Histogram (313,) int64 of the nearest bins of all pixels of a*b* (B, 2, h, w).

    >>> count_bins(torch.zeros(2, 2, 3, 3)).max().item()
    18
    """
    parts = [_distances(part).argmin(1) for part in _points(chroma).split(_CHUNK)]
    return torch.cat(parts).bincount(minlength=len(chroma_bins()))


def annealed_mean(logits: Tensor, temperature: float = TEMPERATURE) -> Chroma:
    """Decode logits (B, 313, h, w) to a*b* (B, 2, h, w): the bins' mean under softmax(logits / temperature), eq. 5.

    Temperature 1 gives the expectation, which tends to gray; towards 0 the result becomes the mode, which is patchy.
    """
    with torch.autocast(logits.device.type, enabled=False):
        scaled = logits.float() / temperature
        powers = (scaled - scaled.detach().amax(1, keepdim=True)).exp()  # the shift only avoids overflow
        # a single matrix product, because `softmax` and `einsum` took a third of a prediction in ONNX Runtime; not in
        # bfloat16, which has steps of 0.5 at a*b* of 100
        factors = F.pad(centres().to(powers.device), (0, 1), value=1.0).T
        sums = (factors @ powers.flatten(2)).unflatten(2, powers.shape[2:])
        return sums[:, :2] / sums[:, 2:]


def smooth(prior: Tensor) -> Tensor:
    """Smooth the bins' probabilities (313,) with a Gaussian in a*b* (section 2.2), keeping their sum."""
    points = centres().to(prior.device)
    # columns sum to 1, so that no probability is lost beyond the outermost bins
    kernel = (-_distances(points).square() / (2 * SIGMA**2)).softmax(0)
    return kernel @ prior.float()


def rebalancing(prior: Tensor, uniform_share: float = UNIFORM_SHARE) -> Tensor:
    """Weight of each bin in the loss (313,), larger for rare colours (class rebalancing, equation 4).

    w is proportional to ((1 - lambda) p + lambda / Q)^-1 with p the smoothed prior, and its expectation under p is 1.
    The prior (313,) holds counts or probabilities; lambda is `uniform_share`, above 0, and 1 for equal weights.

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
    """Distances (N, 313) of points (N, 2) to the bins, CIELAB units."""
    with torch.autocast(points.device.type, enabled=False):
        bins = centres().to(points.device)
        # not by a matrix product, whose rounding errors can change which bin is nearest
        return torch.cdist(points, bins, compute_mode="donot_use_mm_for_euclid_dist")


class ColourClasses(Ladder):
    """Colour head by classification: logits over 313 bins at a quarter of the image's size, decoded by annealed mean.

    Zhang, Isola and Efros, "Colorful Image Colorization", ECCV 2016 (arXiv:1603.08511): soft-encoded targets,
    cross-entropy with class rebalancing, annealed mean at temperature 0.38.

    Where we differ:

    - The paper trains its own VGG-like network from scratch; here the stages of a `Ladder` follow a given encoder, so
      that only output and loss differ from our other heads. If the encoder's coarsest map is finer than a quarter of
      the image, the logits have that map's size.
    - An untrained head predicts about the mean of all bins, not gray as `Decoder` does.
    - Rebalancing makes the probabilities of rare colours too large by their weight, above all where the image leaves
      the colour open. `logit_adjustment` divides by that weight again (Menon et al., "Long-tail learning via logit
      adjustment", ICLR 2021, section 3.1, with the loss's weights in place of the inverse prior). The paper does not.

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
        # start near the uniform distribution; a start at gray would leave saturated bins almost no probability
        nn.init.normal_(self.out.weight, std=0.01)
        self.rebalance: Tensor
        self.register_buffer("rebalance", torch.ones(len(centres())))

    def learn_prior(self, counts: Tensor) -> None:
        """Set the loss's weights from the training images' counts (313,), see `count_bins`."""
        self.rebalance.copy_(rebalancing(counts))

    def logits(self, pyramid: Pyramid) -> Tensor:
        """Logits (B, 313, h, w), float32, at a quarter of the padded image's size, from the maps of `taps`."""
        return self.out(self.climb(pyramid)).float()

    def adjusted_logits(self, logits: Tensor) -> Tensor:
        """The logits for prediction: trained logits corrected for the loss's weights."""
        if not self.logit_adjustment:
            return logits
        return logits - self.logit_adjustment * self.rebalance.float().log()[:, None, None]

    def forward(self, pyramid: Pyramid) -> Tensor:
        """Scaled a*b* (B, 2, H, W) at the image's (padded) size, from the maps of `taps`, fine to coarse."""
        return self.decode(self.adjusted_logits(self.logits(pyramid)))

    def decode(self, logits: Tensor) -> Tensor:
        """Scaled a*b* (B, 2, H, W) at the image's (padded) size: the logits' annealed mean, bilinearly upsampled."""
        chroma = annealed_mean(logits, self.temperature)
        return scale_chroma(F.interpolate(chroma, scale_factor=float(self.scale), mode="bilinear"))

    def loss(self, pyramid: Pyramid, lightness: Lightness, chroma: Chroma) -> Tensor:
        """`cross_entropy` of the logits of the maps of `taps`; `lightness`, an argument of every loss, is not used."""
        return self.cross_entropy(self.logits(pyramid), chroma)

    def cross_entropy(self, logits: Tensor, chroma: Chroma) -> Tensor:
        """Cross-entropy with soft-encoded targets, weighted by the target's nearest bin (equations 2 and 3), in nats.

        The mean over images and positions; the paper writes their sum. The true a*b* (B, 2, H, W) is averaged over the
        pixels of each position (the paper does not say how it is downsampled), with edges replicated up to the padded
        size. Logits are unadjusted.
        """
        sides = zip(logits.shape[2:], chroma.shape[2:], strict=True)
        bottom, right = (positions * self.scale - pixels for positions, pixels in sides)
        with torch.autocast(logits.device.type, enabled=False):
            padded = F.pad(chroma.float(), (0, right, 0, bottom), mode="replicate")
            indices, shares = soft_encode(F.avg_pool2d(padded, self.scale))
            entropy = -(logits.log_softmax(1).gather(1, indices) * shares).sum(1)
            # not divided by the sum of the weights: their expectation over the training images is already 1, and a
            # batch of common colours should count less
            return (entropy * self.rebalance[indices[:, 0]]).mean()
