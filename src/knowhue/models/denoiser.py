"""The U-Net that tells noise from image, told how much noise there is."""

from math import log, log10

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from knowhue.errors import ConfigError

_NEAREST = 1e-6
_FASTEST = 50.0
_CHANNELS_PER_HEAD = 64


class Denoiser(nn.Module):
    """A compact U-Net in the manner of Palette (Saharia et al., SIGGRAPH 2022) and of ADM, on which it is based.

    ADM is Dhariwal and Nichol (NeurIPS 2021): residual blocks of GroupNorm, SiLU and 3 x 3 convolutions, scaled and
    shifted (FiLM) by an embedding, self-attention at the coarse sizes, skips by concatenation, a last convolution that
    starts at zero, as does that of each residual branch. As Palette, it is told the continuous noise level, not
    the number of a step.

    For width 32 and multipliers (1, 2, 2), a 64-pixel image passes as 32 channels of 64 x 64 pixels, 64 of 32, 64
    of 16 and back, in 0.55 billion multiply-adds.

    Where it differs from the papers:

    - Size. Palette takes ADM's for 256 pixels: width 256, multipliers (1, 1, 2, 2, 4, 4), 2 blocks, attention at 32, 16
      and 8 pixels (`attentive=3`). An often used open re-implementation has width 64, (1, 2, 4, 8) and 2 blocks.
    - The level is embedded through its logarithm of signal to noise, -1 to 1 (as Kingma et al., "Variational
      diffusion models", NeurIPS 2021, do), by sinusoids of 1 to 50 radians: slow ones, which a network of a few
      hundred steps of training can already use. With those of WaveGrad (Chen et al., ICLR 2021), whose conditioning
      Palette follows, of 5000 sqrt(level), two flat images were 12 CIELAB units off after 200 steps, with ours 5 (of
      one seed).
    - Halving is average pooling and doubling is repetition, without residual blocks of their own.
    - As many blocks on the way up as on the way down, where ADM has one more a size: at Palette's width 372 million
      parameters in place of 554.
    - No dropout.

    Attributes:
        stride: the sides of what comes in should be whole multiples of it.
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
        self.stride, self.blocks = 2 ** (len(multipliers) - 1), blocks
        sizes = range(len(multipliers))
        widths = [width * multipliers[size] for size in sizes for _ in range(blocks)]
        attends = [size >= len(sizes) - attentive for size in sizes for _ in range(blocks)]
        embedded, coarsest = 4 * width, widths[-1]
        self.embedding = LevelEmbedding(width, embedded)
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        ways = zip([width, *widths], widths, attends, strict=False)
        self.down = nn.ModuleList(Block(*way[:2], embedded, way[2]) for way in ways)
        self.middle = nn.ModuleList(Block(coarsest, coarsest, embedded, attends) for attends in (True, False))
        ways = zip([coarsest, *widths[::-1]], widths[::-1], attends[::-1], strict=False)
        self.up = nn.ModuleList(Block(sum(way[:2]), way[1], embedded, way[2]) for way in ways)
        last = _zero(nn.Conv2d(widths[0], out_channels, 3, padding=1))
        self.out = nn.Sequential(_norm(widths[0]), nn.SiLU(), last)

    def forward(self, images: Tensor, level: Tensor) -> Tensor:
        """What is noisy and what it is conditioned on, (B, in, H, W), and signal levels (B,), to (B, out, H, W).

        Raises:
            ConfigError: H or W is no whole multiple of `stride`.
        """
        self._check_size(images)
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

    def _check_size(self, images: Tensor) -> None:
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride:
            padded = tuple(-(-side // self.stride) * self.stride for side in (height, width))
            raise ConfigError(
                f"The sides of `images` should be whole multiples of {self.stride}. Found {height} x {width}. "
                f"Pad them to {padded[0]} x {padded[1]} and cut the answer."
            )


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
    """Every pixel looks at every other one: multi-head self-attention, one head for 64 channels, added to what came."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // _CHANNELS_PER_HEAD)
        self.norm = _norm(channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.project = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        asked = self.query_key_value(self.norm(features)).flatten(2).transpose(1, 2)
        query, key, value = (
            each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in asked.chunk(3, 2)
        )
        answer = F.scaled_dot_product_attention(query, key, value)
        return features + self.project(answer.transpose(2, 3).reshape(features.shape))


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # pyright: ignore
    return layer


def _norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of up to ADM's 32 groups, but never fewer than four channels in one unless there is but one."""
    groups = next((g for g in (32, 16, 8, 4, 2) if channels % g == 0 and channels >= 4 * g), 1)
    return nn.GroupNorm(groups, channels)
