"""Palette: colours drawn from a conditional diffusion, in RGB as published or in a*b*.

A level of the diffusion is the share of the signal's variance that is left, "alpha bar" in Ho, Jain and Abbeel (NeurIPS
2020) and gamma in Palette: 1 is the clean image, 0 is noise. A level, not the number of a step, is all that a step
needs to know, so sampling may leave steps out.
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
from knowhue.errors import ConfigError
from knowhue.models.heads import group_norm, scale_chroma
from knowhue.tensors import Chroma, Lightness, Pyramid

# Nichol and Dhariwal: without it the first steps' noise is too faint to be predicted
COSINE_OFFSET = 0.008
# and without this the last step has no signal left to come back from
LARGEST_BETA = 0.999
LINEAR_FIRST, LINEAR_LAST, LINEAR_STEPS = 1e-4, 0.02, 1000

SamplerStep = Callable[[Tensor, Tensor, float, float, Tensor], Tensor]
"""(noisy, clean, level, earlier, fresh) to the image at the earlier level."""


def cosine_betas(steps: int) -> Tensor:
    """The share of the variance that each step turns into noise, (steps,) float64: alpha bar falls as a squared cosine.

    Nichol and Dhariwal (ICML 2021, section 3.2), with s = 0.008 and beta <= 0.999.
    """
    share = torch.arange(steps + 1, dtype=torch.float64) / steps
    level = torch.cos((share + COSINE_OFFSET) / (1 + COSINE_OFFSET) * pi / 2).square()
    return (1 - level[1:] / level[:-1]).clamp(max=LARGEST_BETA)


def linear_betas(steps: int) -> Tensor:
    """As `cosine_betas`, by Ho et al. (2020): from 1e-4 to 0.02 in 1000 steps; with others, both times 1000 / steps.

    Raises:
        ConfigError: so few steps that one would destroy all signal and more.
    """
    scale = LINEAR_STEPS / steps
    if scale * LINEAR_LAST >= 1:
        raise ConfigError(
            f"`steps` should be above {LINEAR_STEPS * LINEAR_LAST:.0f} for the linear schedule. "
            f"Found `steps = {steps}`. Take more steps, or the cosine schedule."
        )
    return torch.linspace(scale * LINEAR_FIRST, scale * LINEAR_LAST, steps, dtype=torch.float64)


SCHEDULES: dict[str, Callable[[int], Tensor]] = {"cosine": cosine_betas, "linear": linear_betas}


def signal_levels(schedule: str, steps: int) -> Tensor:
    """The levels after 0, 1, ... `steps` steps, (steps + 1,) float64, from 1 to about 0; errors of `linear_betas`.

    >>> signal_levels("cosine", 4).round(decimals=3).tolist()
    [1.0, 0.847, 0.494, 0.144, 0.0]
    """
    kept = 1 - SCHEDULES[schedule](steps)
    return torch.cat((kept.new_ones(1), kept.cumprod(0)))


def spaced_levels(levels: Tensor, count: int) -> list[tuple[float, float]]:
    """The (level, earlier level) of `count` evenly spaced steps from the noisiest level to the clean image.

    Raises:
        ConfigError: `count` is above the number of steps.

    >>> spaced_levels(torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]), 2)
    [(0.0, 0.5), (0.5, 1.0)]
    """
    steps = len(levels) - 1
    if count > steps:
        raise ConfigError(
            f"`sample_steps` should be from 1 to the {steps} steps of training. Found `sample_steps = {count}`."
        )
    kept = torch.linspace(steps, 0, count + 1, dtype=torch.float64).round().long()
    return list(pairwise(levels[kept].tolist()))


def draw_levels(levels: Tensor, count: int) -> Tensor:
    """A level for each of `count` images (count,): a step drawn evenly, then evenly between the levels at its two ends.

    Palette, section 3, after WaveGrad (Chen et al. 2021). Draws from torch's global generator.
    """
    step = torch.randint(1, len(levels), (count,), device=levels.device)
    return torch.lerp(levels[step - 1], levels[step], torch.rand(count, device=levels.device).to(levels))


def noised(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """sqrt(level) clean + sqrt(1 - level) noise (Ho et al., equation 4) of -1 to 1 (B, C, H, W) at levels (B,)."""
    level = level[:, None, None, None]
    return level.sqrt() * clean + (1 - level).sqrt() * noise


def noise_from(noisy: Tensor, velocity: Tensor, level: Tensor) -> Tensor:
    """The noise in `noisy` (B, C, H, W) at levels (B,), of a network that says v.

    With v = sqrt(level) noise - sqrt(1 - level) clean (Salimans and Ho, ICLR 2022) no error is blown up by
    1 / sqrt(level) on the way to the clean image.
    """
    level = level[:, None, None, None]
    return (1 - level).sqrt() * noisy + level.sqrt() * velocity


def clean_from(noisy: Tensor, velocity: Tensor, level: float) -> Tensor:
    """The clean image in `noisy` by the same v, clipped to -1..1."""
    return (sqrt(level) * noisy - sqrt(1 - level) * velocity).clamp(-1, 1)


def ancestral(noisy: Tensor, clean: Tensor, level: float, earlier: float, fresh: Tensor) -> Tensor:
    """A draw from the posterior q(earlier | noisy, clean) of Ho et al. (2020), equations 6 and 7.

    Between levels that are not neighbours it is the posterior of a process with only those steps.

    Args:
        noisy: (B, C, H, W) at `level`, which is under 1.
        clean: what the model takes the clean image to be, -1 to 1.
        level: where `noisy` is.
        earlier: where to go, above `level`; at 1 the answer is `clean`.
        fresh: standard normal, broadcast against `noisy`.
    """
    kept = level / earlier
    of_clean = sqrt(earlier) * (1 - kept) / (1 - level)
    of_noisy = sqrt(kept) * (1 - earlier) / (1 - level)
    deviation = sqrt((1 - kept) * (1 - earlier) / (1 - level))
    return of_clean * clean + of_noisy * noisy + deviation * fresh


def ddim(noisy: Tensor, clean: Tensor, level: float, earlier: float, fresh: Tensor) -> Tensor:
    """The deterministic step (eta = 0) of Song, Meng and Ermon (ICLR 2021), equation 12; arguments as `ancestral`.

    `fresh` is not used.
    """
    # taken so that all samplers are called alike
    del fresh
    # of the clipped `clean`, so that image and noise always fit; the paper does not clip
    noise = (noisy - sqrt(level) * clean) / sqrt(1 - level)
    return sqrt(earlier) * clean + sqrt(1 - earlier) * noise


SAMPLERS: dict[str, SamplerStep] = {"ddim": ddim, "ancestral": ancestral}


class Palette(nn.Module):
    """Colourisation by conditional diffusion: Saharia et al., "Palette" (SIGGRAPH 2022, arXiv:2111.05826).

    A U-Net sees the gray image and a noisy coloured one, is given how noisy, and predicts the noise; it
    is trained on the mean square error of that (the paper's L2, for which its samples vary more than for L1).
    Prediction starts from noise and takes it away step by step: other noise, other colours.

    `space="rgb"` is the paper's: the whole image, sRGB scaled to -1..1, is drawn, its a*b* is the answer, and its
    lightness is dropped, since the caller joins the true one. `space="ab"` draws a*b*/110 alone; it is ours, so
    that colour spaces can be compared at the same method.

    Where it differs from the paper:

    - What the network says is taken as v of Salimans and Ho (ICLR 2022), from which the noise follows exactly; the
      loss is still the paper's, on the noise. Taken as the noise itself, an error in the first steps is divided by
      sqrt(level), here under 1/10 000, and colours are speckled.
    - The network's size, see `Denoiser`; the gray image is one channel.
    - The schedule is the cosine one, or Ho et al.'s linear one; the paper's are linear, and others for prediction.
    - Sampling takes a spaced subset of the training steps, by DDIM or by the posterior of Ho et al.; the paper's takes
      1000 ancestral steps of the variance of the forward process. The clean image is clipped to -1..1 at each step.
    - The moving average of the weights, which predicts, forgets by `average_decay`, 0.995 by default, and
      faster in the first steps, by (1 + n) / (10 + n): the paper's 0.9999 is for half a million steps.

    All that is not the network is float32, whatever arithmetic the network runs in. In training, noise and levels
    come from torch's global generator; in prediction from one of a fixed seed, the same for each image of a batch,
    so that an image's colours do not depend on its batch. They do depend on its size, for which the noise is drawn.
    Prediction costs `sample_steps` passes of the network and lets no gradient past.

    It reads the one map of an empty encoder, (gray,) with gray = L*/50 - 1, whose sides are multiples of `stride`.

    >>> palette = Palette(PaletteSettings(width=8, multipliers=(1, 2), sample_steps=2))
    >>> palette((torch.zeros(3, 1, 8, 12),)).shape
    torch.Size([3, 2, 8, 12])
    """

    def __init__(self, settings: PaletteSettings) -> None:
        """Raise a `ConfigError` where the settings have more sampling steps than steps."""
        super().__init__()
        self.taps: tuple[int, ...] = (0,)
        self.space = settings.space
        self.channels = {"rgb": 3, "ab": 2}[settings.space]
        sizes = (settings.width, settings.multipliers, settings.blocks, settings.attentive)
        self.denoiser = Denoiser(1 + self.channels, self.channels, *sizes)
        self.average = AveragedModel(
            self.denoiser, multi_avg_fn=partial(_drift, decay=settings.average_decay)
        )
        # else the optimizer would take it for weights that learn
        self.average.requires_grad_(False)
        self.stride = self.denoiser.stride
        levels = signal_levels(settings.schedule, settings.steps)
        self.sampled_levels = spaced_levels(levels, settings.sample_steps)
        self.step = SAMPLERS[settings.sampler]
        self.levels: Tensor
        self.register_buffer("levels", levels.float(), persistent=False)

    def loss(self, pyramid: Pyramid, lightness: Lightness, chroma: Chroma) -> Tensor:
        """Mean square error of the predicted noise, at a level and with noise drawn for each image.

        The pyramid is (gray,), (B, 1, H, W) of -1 to 1; true L* (B, 1, h, w) and a*b* (B, 2, h, w) repeat edges to
        H and W. An untrained network's is about 0.4, a perfect one's above 0.
        """
        if self.training:  # before the step that follows, so the average lags the weights by one
            self.average.update_parameters(self.denoiser)
        (gray,) = pyramid
        clean = 2 * lab_to_rgb(lightness, chroma) - 1 if self.space == "rgb" else scale_chroma(chroma)
        bottom, right = (whole - part for whole, part in zip(gray.shape[-2:], clean.shape[-2:], strict=True))
        clean = F.pad(clean, (0, right, 0, bottom), mode="replicate")
        level, noise = draw_levels(self.levels, len(clean)), torch.randn_like(clean)
        noisy = noised(clean, noise, level)
        return F.mse_loss(noise_from(noisy, self._velocity(noisy, gray, level), level), noise)

    def forward(self, pyramid: Pyramid) -> Tensor:
        """(gray,), (B, 1, H, W) in -1..1, to one sample of scaled a*b* (B, 2, H, W), always the same."""
        return self.samples(pyramid, 1)[0]

    @torch.no_grad()
    def samples(self, pyramid: Pyramid, count: int) -> Tensor:
        """Scaled a*b* (count, B, 2, H, W), each from noise of its own; the first is that of `forward`."""
        (gray,) = pyramid
        return torch.stack([self._sample(gray, seed) for seed in range(count)])

    def _sample(self, gray: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)

        def draw() -> Tensor:
            # on the CPU: another device's generator would draw other noise of the same seed
            return torch.randn(1, self.channels, *gray.shape[-2:], generator=generator).to(gray.device)

        # one noise for the whole batch: an image's colours must not depend on its place in it
        noisy = draw().expand(len(gray), -1, -1, -1)
        for level, earlier in self.sampled_levels:
            velocity = self._velocity(noisy, gray, noisy.new_full((len(gray),), level))
            noisy = self.step(noisy, clean_from(noisy, velocity, level), level, earlier, draw())
        return scale_chroma(rgb_to_lab((noisy + 1) / 2)[1]) if self.space == "rgb" else noisy

    def _velocity(self, noisy: Tensor, gray: Tensor, level: Tensor) -> Tensor:
        network = self.denoiser if self.training else self.average
        return network(torch.cat((noisy, gray.to(noisy)), 1), level).float()


def _drift(
    averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int, decay: float
) -> None:
    """Draw the average towards the weights, quickly at first, in place."""
    kept = min(decay, float((1 + updates) / (10 + updates)))
    for mean, value in zip(averaged, current, strict=True):
        mean.lerp_(value, 1 - kept)


def diversity(samples: Tensor) -> Tensor:
    """How far samples of the same image lie apart (B,), in the units of a*b* (count, B, 2, H, W), count 2 or more.

    The mean over pixels of sqrt(var a* + var b*) over samples, the variances unbiased: the root of that by which
    Deshpande et al. ("Learning Diverse Image Colorization", CVPR 2017) compare. Palette itself reports the SSIM between
    pairs of samples, which in colourisation is mostly that of the lightness that all samples share.

    >>> diversity(torch.zeros(4, 3, 2, 8, 8)).tolist()
    [0.0, 0.0, 0.0]
    """
    return samples.float().var(0).sum(1).sqrt().mean((1, 2))


# at 0 and 1 themselves the logarithm of signal to noise is infinite
_NEAREST = 1e-6
# radians; slow sinusoids serve after a few hundred steps of training already
_FASTEST = 50.0
# as ADM's
_CHANNELS_PER_HEAD = 64
# groups of ADM's, but never fewer than four channels in one unless there is but one
_norm = partial(group_norm, most=32, fewest=4)


class Denoiser(nn.Module):
    """A compact U-Net in the manner of Palette (Saharia et al., SIGGRAPH 2022) and of ADM, on which it is based.

    ADM is Dhariwal and Nichol (NeurIPS 2021): residual blocks of GroupNorm, SiLU and 3 x 3 convolutions, scaled and
    shifted (FiLM) by an embedding, self-attention at the coarse sizes, skips by concatenation, a last convolution that
    starts at zero, as does that of each residual branch. As Palette, it is given the continuous noise level, not
    the number of a step.

    For width 32 and multipliers (1, 2, 2), a 64-pixel image passes as 32 channels of 64 x 64 pixels, 64 of 32, 64
    of 16 and back, in 0.55 billion multiply-adds.

    Where it differs from the papers:

    - Size. Palette takes ADM's for 256 pixels: width 256, multipliers (1, 1, 2, 2, 4, 4), 2 blocks, attention at 32, 16
      and 8 pixels (`attentive=3`).
    - The level is embedded through its logarithm of signal to noise, -1 to 1 (as Kingma et al., "Variational
      diffusion models", NeurIPS 2021, do), by sinusoids of 1 to 50 radians: slow ones, which a network of a few
      hundred steps of training can already use. WaveGrad's (Chen et al., ICLR 2021), whose conditioning Palette
      follows, are of 5000 sqrt(level).
    - Halving is average pooling and doubling is repetition, without residual blocks of their own.
    - As many blocks on the way up as on the way down, where ADM has one more a size: at Palette's width 372 million
      parameters in place of 554.
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
        """the sides of what comes in should be whole multiples of it"""
        sizes = range(len(multipliers))
        widths = [width * multipliers[size] for size in sizes for _ in range(blocks)]
        attends = [size >= len(sizes) - attentive for size in sizes for _ in range(blocks)]
        embedded, coarsest = 4 * width, widths[-1]
        self.embedding = LevelEmbedding(width, embedded)
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        sides = zip([width, *widths], widths, attends, strict=False)
        self.down = nn.ModuleList(
            Block(below, outgoing, embedded, attend) for below, outgoing, attend in sides
        )
        self.middle = nn.ModuleList(Block(coarsest, coarsest, embedded, attends) for attends in (True, False))
        sides = zip([coarsest, *widths[::-1]], widths[::-1], attends[::-1], strict=False)
        self.up = nn.ModuleList(Block(below + skip, skip, embedded, attend) for below, skip, attend in sides)
        last = _zero(nn.Conv2d(widths[0], out_channels, 3, padding=1))
        self.out = nn.Sequential(_norm(widths[0]), nn.SiLU(), last)

    def forward(self, images: Tensor, level: Tensor) -> Tensor:
        """What is noisy and what it is conditioned on, (B, in, H, W), and signal levels (B,), to (B, out, H, W)."""
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
    """Signal levels (B,) to (B, embedded), by sinusoids of the logarithm of signal to noise and two layers."""

    def __init__(self, sinusoids: int, embedded: int) -> None:
        super().__init__()
        count = max(1, sinusoids // 2)
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.logspace(0, log10(_FASTEST), count), persistent=False)
        outer, inner = nn.Linear(2 * count, embedded), nn.Linear(embedded, embedded)
        self.layers = nn.Sequential(outer, nn.SiLU(), inner, nn.SiLU())

    def forward(self, level: Tensor) -> Tensor:
        """Embed; levels nearer than a millionth to 0 or 1 count as so near. The angles are float32."""
        ratio = level.float().logit(eps=_NEAREST) / log((1 - _NEAREST) / _NEAREST)
        angles = ratio[:, None] * self.frequencies.float()
        return self.layers(torch.cat((angles.sin(), angles.cos()), 1))


class Block(nn.Module):
    """A residual block, scaled and shifted by the embedding, and self-attention after it where it `attends`."""

    def __init__(self, incoming: int, outgoing: int, embedded: int, attends: bool) -> None:
        super().__init__()
        self.norm_in, self.norm_out = _norm(incoming), _norm(outgoing)
        self.conv_in = nn.Conv2d(incoming, outgoing, 3, padding=1)
        self.film = nn.Linear(embedded, 2 * outgoing)
        self.conv_out = _zero(nn.Conv2d(outgoing, outgoing, 3, padding=1))
        self.shortcut = nn.Conv2d(incoming, outgoing, 1) if incoming != outgoing else nn.Identity()
        self.attention = Attention(outgoing) if attends else nn.Identity()

    def forward(self, features: Tensor, embedded: Tensor) -> Tensor:
        """(B, incoming, h, w) and (B, embedded) to (B, outgoing, h, w)."""
        scale, shift = self.film(embedded)[:, :, None, None].chunk(2, 1)
        inner = self.conv_in(F.silu(self.norm_in(features)))
        inner = self.conv_out(F.silu(self.norm_out(inner) * (1 + scale) + shift))
        return self.attention(self.shortcut(features) + inner)


class Attention(nn.Module):
    """Multi-head self-attention over all pixels, one head for 64 channels, added to what comes in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // _CHANNELS_PER_HEAD)
        self.norm = _norm(channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.project = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        rows = self.query_key_value(self.norm(features)).flatten(2).transpose(1, 2)
        query, key, value = (each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in rows.chunk(3, 2))
        answer = F.scaled_dot_product_attention(query, key, value)
        return features + self.project(answer.transpose(2, 3).reshape(features.shape))


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # pyright: ignore
    return layer
