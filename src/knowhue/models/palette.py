"""Palette: colourisation by conditional diffusion, in RGB as published or in a*b*.

The signal level of a diffusion step is the share of the variance that is signal: "alpha bar" in Ho, Jain and Abbeel
(NeurIPS 2020), gamma in Palette. 1 is the clean image, 0 pure noise. Network and samplers are given the level, not the
number of the step, so sampling can skip steps.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from math import log, log10, pi, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from knowhue.color import lab_to_rgb, rgb_to_lab
from knowhue.config import PaletteSettings
from knowhue.errors import ConfigError, should_be
from knowhue.models.heads import group_norm, scale_chroma
from knowhue.tensors import Chroma, Lightness, Pyramid

# s of Nichol and Dhariwal: without it the noise of the first steps is too weak to be predicted
COSINE_OFFSET = 0.008
# their limit: without it no signal is left after the last step
LARGEST_BETA = 0.999
LINEAR_FIRST, LINEAR_LAST, LINEAR_STEPS = 1e-4, 0.02, 1000

SamplerStep = Callable[[Tensor, Tensor, float, float, Tensor], Tensor]
"""Function from (noisy, clean, level, earlier, fresh) to the image at the level `earlier`, see `ancestral`."""


def cosine_betas(steps: int) -> Tensor:
    """Variance share that each step turns into noise, (steps,) float64, for a level that falls as a squared cosine.

    Nichol and Dhariwal (ICML 2021, section 3.2), with s = 0.008 and beta <= 0.999.
    """
    share = torch.arange(steps + 1, dtype=torch.float64) / steps
    level = torch.cos((share + COSINE_OFFSET) / (1 + COSINE_OFFSET) * pi / 2).square()
    return (1 - level[1:] / level[:-1]).clamp(max=LARGEST_BETA)


def linear_betas(steps: int) -> Tensor:
    """Linear schedule of Ho et al. (2020): betas from 1e-4 to 0.02 for 1000 steps, times 1000 / steps for others."""
    scale = LINEAR_STEPS / steps
    if scale * LINEAR_LAST >= 1:
        wanted = f"above {LINEAR_STEPS * LINEAR_LAST:.0f} for the linear schedule"
        raise ConfigError(should_be("steps", wanted, steps, "Take more steps, or the cosine schedule."))
    return torch.linspace(scale * LINEAR_FIRST, scale * LINEAR_LAST, steps, dtype=torch.float64)


SCHEDULES: dict[str, Callable[[int], Tensor]] = {"cosine": cosine_betas, "linear": linear_betas}


def signal_levels(schedule: str, steps: int) -> Tensor:
    """Signal levels after 0, 1, ... `steps` steps, (steps + 1,) float64, from 1 to about 0; raises as `linear_betas`.

    >>> signal_levels("cosine", 4).round(decimals=3).tolist()
    [1.0, 0.847, 0.494, 0.144, 0.0]
    """
    alphas = 1 - SCHEDULES[schedule](steps)
    return torch.cat((alphas.new_ones(1), alphas.cumprod(0)))


def spaced_levels(levels: Tensor, count: int) -> list[tuple[float, float]]:
    """Pairs (level, earlier level) of `count` evenly spaced sampling steps from the noisiest level to the clean image.

    >>> spaced_levels(torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]), 2)
    [(0.0, 0.5), (0.5, 1.0)]
    """
    steps = len(levels) - 1
    if count > steps:
        raise ConfigError(should_be("sample_steps", f"from 1 to the {steps} steps of training", count))
    indices = torch.linspace(steps, 0, count + 1, dtype=torch.float64).round().long()
    return list(pairwise(levels[indices].tolist()))


def draw_levels(levels: Tensor, count: int) -> Tensor:
    """Random levels (count,): a uniformly drawn step, then uniform between the levels before and after that step.

    Palette, section 3, after WaveGrad (Chen et al. 2021). Uses torch's global generator.
    """
    step = torch.randint(1, len(levels), (count,), device=levels.device)
    return torch.lerp(levels[step - 1], levels[step], torch.rand(count, device=levels.device).to(levels))


def noised(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """sqrt(level) clean + sqrt(1 - level) noise for images (B, C, H, W) in -1..1 and levels (B,) (Ho et al., eq. 4)."""
    level = level[:, None, None, None]
    return level.sqrt() * clean + (1 - level).sqrt() * noise


def noise_from(noisy: Tensor, velocity: Tensor, level: Tensor) -> Tensor:
    """Noise in `noisy` (B, C, H, W) at levels (B,), given the network's prediction of the velocity v.

    v = sqrt(level) noise - sqrt(1 - level) clean (Salimans and Ho, ICLR 2022). Unlike a prediction of the noise, an
    error in v is not amplified by 1 / sqrt(level) in the clean image.
    """
    level = level[:, None, None, None]
    return (1 - level).sqrt() * noisy + level.sqrt() * velocity


def clean_from(noisy: Tensor, velocity: Tensor, level: float) -> Tensor:
    """Clean image in `noisy`, given the velocity v of `noise_from`, clipped to -1..1."""
    return (sqrt(level) * noisy - sqrt(1 - level) * velocity).clamp(-1, 1)


def ancestral(noisy: Tensor, clean: Tensor, level: float, earlier: float, fresh: Tensor) -> Tensor:
    """Sample from the posterior q(earlier | noisy, clean) of Ho et al. (2020), equations 6 and 7.

    If steps between `level` and `earlier` are skipped, it is the posterior of the process without those steps.

    `noisy` (B, C, H, W) has the signal level `level`, below 1, and the result has `earlier`, above it; at 1 it is
    `clean`, the model's estimate of the clean image, -1 to 1. `fresh` is standard normal noise.
    """
    alpha = level / earlier
    clean_weight = sqrt(earlier) * (1 - alpha) / (1 - level)
    noisy_weight = sqrt(alpha) * (1 - earlier) / (1 - level)
    deviation = sqrt((1 - alpha) * (1 - earlier) / (1 - level))
    return clean_weight * clean + noisy_weight * noisy + deviation * fresh


def ddim(noisy: Tensor, clean: Tensor, level: float, earlier: float, fresh: Tensor) -> Tensor:
    """Take the deterministic step (eta = 0) of Song, Meng and Ermon (ICLR 2021), equation 12; see `ancestral`."""
    del fresh  # an argument only because all samplers have the same signature
    # recomputed from the clipped `clean`, so that image and noise are consistent; the paper does not clip
    noise = (noisy - sqrt(level) * clean) / sqrt(1 - level)
    return sqrt(earlier) * clean + sqrt(1 - earlier) * noise


SAMPLERS: dict[str, SamplerStep] = {"ddim": ddim, "ancestral": ancestral}


class Palette(nn.Module):
    """Colourisation by conditional diffusion: Saharia et al., "Palette" (SIGGRAPH 2022, arXiv:2111.05826).

    A U-Net receives the gray image, a noisy colour image and its signal level, and predicts the noise. It is trained by
    the noise's mean squared error (the paper's L2 loss, with which samples vary more than with L1). Prediction starts
    from noise and removes it step by step, so different noise gives different colours.

    `space="rgb"` is the paper's method: it samples the whole image, sRGB scaled to -1..1, and keeps its a*b*; the
    caller combines this with the true lightness. `space="ab"` samples only a*b*/110. It is ours, for comparing
    colour spaces with the same method.

    Where it differs from the paper:

    - The network's output is interpreted as the velocity v of Salimans and Ho (ICLR 2022), from which the noise follows
      exactly; the loss is still the paper's, on the noise. If the output were the noise itself, the sampler would
      divide errors of the first steps by sqrt(level), here below 1/10 000, and colours would be speckled.
    - The network is smaller, see `Denoiser`, and the gray image has one channel.
    - The schedule is cosine, or linear as in Ho et al.; the paper uses linear ones, and different ones for prediction.
    - Sampling uses an evenly spaced subset of the training steps, by DDIM or by the posterior of Ho et al.; the paper
      takes 1000 ancestral steps with the forward process's variance. The clean image is clipped to -1..1 at each step.
    - Prediction uses a moving average of the weights whose decay is `average_decay`, 0.995 by default, and less in the
      first steps, (1 + n) / (10 + n) after n of them; the paper's 0.9999 is for half a million steps.

    Everything outside of the network is computed in float32. In training, noise and levels come from torch's global
    generator. In prediction the noise comes from a fixed seed and is the same for each image of a batch, so that an
    image's colours do not depend on its batch; they do depend on its size. Prediction takes `sample_steps` passes
    of the network and has no gradient.

    It reads the only map of `NoEncoder`, (gray,) with gray = L*/50 - 1, whose sides are multiples of `stride`.

    >>> palette = Palette(PaletteSettings(width=8, multipliers=(1, 2), sample_steps=2))
    >>> palette((torch.zeros(3, 1, 8, 12),)).shape
    torch.Size([3, 2, 8, 12])
    """

    def __init__(self, settings: PaletteSettings) -> None:
        """Raise a `ConfigError` if there are more sampling steps than steps, or too few for the linear schedule."""
        super().__init__()
        self.taps: tuple[int, ...] = (0,)
        self.space = settings.space
        self.channels = {"rgb": 3, "ab": 2}[settings.space]
        sizes = (settings.width, settings.multipliers, settings.blocks, settings.attentive)
        self.denoiser = Denoiser(1 + self.channels, self.channels, *sizes)
        self.average = AveragedModel(
            self.denoiser, multi_avg_fn=partial(_update_average, decay=settings.average_decay)
        )
        # or the optimizer would train it
        self.average.requires_grad_(False)
        self.stride = self.denoiser.stride
        levels = signal_levels(settings.schedule, settings.steps)
        self.sampled_levels = spaced_levels(levels, settings.sample_steps)
        self.step = SAMPLERS[settings.sampler]
        self.levels: Tensor
        self.register_buffer("levels", levels.float(), persistent=False)

    def loss(self, pyramid: Pyramid, lightness: Lightness, chroma: Chroma) -> Tensor:
        """Mean squared error of the predicted noise, with a random level and random noise for each image.

        The pyramid is (gray,), (B, 1, H, W) in -1..1; edges of the true L* (B, 1, h, w) and a*b* (B, 2, h, w) are
        replicated up to H and W. The loss is about 0.4 for an untrained network, and above 0 even for a perfect one.
        """
        if self.training:  # before the optimizer's step, so the average lags behind the weights by one step
            self.average.update_parameters(self.denoiser)
        (gray,) = pyramid
        clean = 2 * lab_to_rgb(lightness, chroma) - 1 if self.space == "rgb" else scale_chroma(chroma)
        sides = zip(gray.shape[-2:], clean.shape[-2:], strict=True)
        bottom, right = (padded - side for padded, side in sides)
        clean = F.pad(clean, (0, right, 0, bottom), mode="replicate")
        level, noise = draw_levels(self.levels, len(clean)), torch.randn_like(clean)
        noisy = noised(clean, noise, level)
        return F.mse_loss(noise_from(noisy, self._velocity(noisy, gray, level), level), noise)

    def forward(self, pyramid: Pyramid) -> Tensor:
        """One sample of scaled a*b* (B, 2, H, W), always the same, from (gray,), (B, 1, H, W) in -1..1."""
        return self.samples(pyramid, 1)[0]

    @torch.no_grad()
    def samples(self, pyramid: Pyramid, count: int) -> Tensor:
        """Draw `count` samples of scaled a*b* (count, B, 2, H, W); the first equals `forward`'s."""
        (gray,) = pyramid
        return torch.stack([self._sample(gray, seed) for seed in range(count)])

    def _sample(self, gray: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)

        def draw() -> Tensor:
            # on the CPU, because the generators of other devices draw different numbers from the same seed
            return torch.randn(1, self.channels, *gray.shape[-2:], generator=generator).to(gray.device)

        # the same noise for all images, so that an image's colours do not depend on its position in the batch
        noisy = draw().expand(len(gray), -1, -1, -1)
        for level, earlier in self.sampled_levels:
            velocity = self._velocity(noisy, gray, noisy.new_full((len(gray),), level))
            noisy = self.step(noisy, clean_from(noisy, velocity, level), level, earlier, draw())
        return scale_chroma(rgb_to_lab((noisy + 1) / 2)[1]) if self.space == "rgb" else noisy

    def _velocity(self, noisy: Tensor, gray: Tensor, level: Tensor) -> Tensor:
        network = self.denoiser if self.training else self.average
        return network(torch.cat((noisy, gray.to(noisy)), 1), level).float()


def _update_average(
    averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int, decay: float
) -> None:
    """Update the exponential moving average in place, with less decay in the first updates."""
    decay = min(decay, float((1 + updates) / (10 + updates)))
    for mean, value in zip(averaged, current, strict=True):
        mean.lerp_(value, 1 - decay)


def diversity(samples: Tensor) -> Tensor:
    """Diversity (B,) of samples a*b* (count, B, 2, H, W), count 2 or more, in the unit of the samples.

    It is the mean over pixels of sqrt(var a* + var b*), with unbiased variances over the samples: the square root of
    the measure of Deshpande et al. ("Learning Diverse Image Colorization", CVPR 2017). Palette reports the SSIM between
    pairs of samples, which in colourisation mostly measures the lightness that all samples share.

    >>> diversity(torch.zeros(4, 3, 2, 8, 8)).tolist()
    [0.0, 0.0, 0.0]
    """
    return samples.float().var(0).sum(1).sqrt().mean((1, 2))


# levels are clipped this far from 0 and 1, where the logarithm of the signal-to-noise ratio is infinite
_LEVEL_MARGIN = 1e-6
# angular frequency of the fastest sinusoid; slow ones are already useful after a few hundred training steps
_FASTEST = 50.0
# as in ADM
_CHANNELS_PER_HEAD = 64
# as in ADM, but with at least four channels in a group unless there is only one group
_norm = partial(group_norm, most=32, fewest=4)


class Denoiser(nn.Module):
    """A compact version of the U-Net of Palette (Saharia et al., SIGGRAPH 2022), which is based on ADM.

    ADM is Dhariwal and Nichol (NeurIPS 2021): residual blocks of GroupNorm, SiLU and 3 x 3 convolutions, scaled and
    shifted (FiLM) by an embedding; self-attention at the coarse sizes; skips by concatenation. The last convolution
    starts at zero, and so does that of each residual branch. As in Palette, the network is given the continuous signal
    level, not the number of the step.

    For width 32 and multipliers (1, 2, 2), a 64-pixel image passes as 32 channels of 64 x 64 pixels, 64 of 32, 64
    of 16 and back, in 0.55 billion multiply-adds.

    Where it differs from the papers:

    - Size. Palette uses ADM's network for 256 pixels: width 256, multipliers (1, 1, 2, 2, 4, 4), 2 blocks, attention at
      32, 16 and 8 pixels (`attentive=3`).
    - The embedding of the level takes the logarithm of its signal-to-noise ratio, scaled to -1..1 (as in Kingma et al.,
      "Variational diffusion models", NeurIPS 2021), by sinusoids of 1 to 50 radians. Such slow sinusoids are already
      useful after a few hundred training steps. WaveGrad's (Chen et al., ICLR 2021), whose conditioning Palette
      follows, take 5000 sqrt(level).
    - Downsampling is average pooling and upsampling is nearest-neighbour, without residual blocks of their own.
    - It has as many blocks on the way up as on the way down; ADM has one more per size. With Palette's width this
      gives 372 million parameters instead of 554.
    - No dropout.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 32,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 1,
        attentive: int = 1,
    ) -> None:
        """`attentive` is the number of sizes with self-attention, counted from the coarsest."""
        super().__init__()
        self.blocks = blocks
        self.stride = 2 ** (len(multipliers) - 1)
        """height and width of the input must be multiples of it"""
        sizes = range(len(multipliers))
        widths = [width * multipliers[size] for size in sizes for _ in range(blocks)]
        attends = [size >= len(sizes) - attentive for size in sizes for _ in range(blocks)]
        embedded, coarsest = 4 * width, widths[-1]
        self.embedding = LevelEmbedding(width, embedded)
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        sides = zip([width, *widths], widths, attends, strict=False)
        self.down = nn.ModuleList(Block(below, above, embedded, attend) for below, above, attend in sides)
        self.middle = nn.ModuleList(Block(coarsest, coarsest, embedded, attends) for attends in (True, False))
        sides = zip([coarsest, *widths[::-1]], widths[::-1], attends[::-1], strict=False)
        self.up = nn.ModuleList(Block(below + skip, skip, embedded, attend) for below, skip, attend in sides)
        last = _zero(nn.Conv2d(widths[0], out_channels, 3, padding=1))
        self.out = nn.Sequential(_norm(widths[0]), nn.SiLU(), last)

    def forward(self, images: Tensor, level: Tensor) -> Tensor:
        """Predict (B, out, H, W) from noisy images with their conditions (B, in, H, W) and signal levels (B,)."""
        embedded = self.embedding(level)
        features, skips = self.stem(images), []
        for index, block in enumerate(self.down):
            features = F.avg_pool2d(features, 2) if self._at_next_size(index) else features
            features = block(features, embedded)
            skips.append(features)
        for block in self.middle:
            features = block(features, embedded)
        for index, block in enumerate(self.up):
            features = F.interpolate(features, scale_factor=2.0) if self._at_next_size(index) else features
            features = block(torch.cat((features, skips.pop()), 1), embedded)
        return self.out(features)

    def _at_next_size(self, index: int) -> bool:
        return index > 0 and index % self.blocks == 0


class LevelEmbedding(nn.Module):
    """Embeds signal levels: sinusoids of the logarithm of the signal-to-noise ratio, then two linear layers."""

    def __init__(self, sinusoids: int, embedded: int) -> None:
        super().__init__()
        count = max(1, sinusoids // 2)
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.logspace(0, log10(_FASTEST), count), persistent=False)
        outer, inner = nn.Linear(2 * count, embedded), nn.Linear(embedded, embedded)
        self.layers = nn.Sequential(outer, nn.SiLU(), inner, nn.SiLU())

    def forward(self, level: Tensor) -> Tensor:
        """Embedding (B, embedded) of levels (B,), which are clipped to 1e-6..1 - 1e-6. Angles are float32."""
        ratio = level.float().logit(eps=_LEVEL_MARGIN) / log((1 - _LEVEL_MARGIN) / _LEVEL_MARGIN)
        angles = ratio[:, None] * self.frequencies.float()
        return self.layers(torch.cat((angles.sin(), angles.cos()), 1))


class Block(nn.Module):
    """Residual block, scaled and shifted by the embedding; self-attention follows if it `attends`."""

    def __init__(self, incoming: int, outgoing: int, embedded: int, attends: bool) -> None:
        super().__init__()
        self.norm_in, self.norm_out = _norm(incoming), _norm(outgoing)
        self.conv_in = nn.Conv2d(incoming, outgoing, 3, padding=1)
        self.film = nn.Linear(embedded, 2 * outgoing)
        self.conv_out = _zero(nn.Conv2d(outgoing, outgoing, 3, padding=1))
        self.shortcut = nn.Conv2d(incoming, outgoing, 1) if incoming != outgoing else nn.Identity()
        self.attention = Attention(outgoing) if attends else nn.Identity()

    def forward(self, features: Tensor, embedded: Tensor) -> Tensor:
        """Features (B, outgoing, h, w) from features (B, incoming, h, w) and embeddings (B, embedded)."""
        scale, shift = self.film(embedded)[:, :, None, None].chunk(2, 1)
        inner = self.conv_in(F.silu(self.norm_in(features)))
        inner = self.conv_out(F.silu(self.norm_out(inner) * (1 + scale) + shift))
        return self.attention(self.shortcut(features) + inner)


class Attention(nn.Module):
    """Residual multi-head self-attention over all pixels, one head per 64 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // _CHANNELS_PER_HEAD)
        self.norm = _norm(channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.project = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Attend over the pixels of (B, C, h, w); the shape stays."""
        rows = self.query_key_value(self.norm(features)).flatten(2).transpose(1, 2)
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in rows.chunk(3, 2))
        attended = F.scaled_dot_product_attention(query, key, value)
        return features + self.project(attended.transpose(2, 3).reshape(features.shape))


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # pyright: ignore
    return layer
