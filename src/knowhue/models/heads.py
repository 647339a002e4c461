"""Heads on the encoder's feature maps: decoders to chroma, classifiers to logits, and the oracle's knowledge.

Upsampling is by transposed convolution that cannot draw a checkerboard.
"""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from knowhue.color import CHROMA_SCALE
from knowhue.tensors import Chroma, Label, Logits, Pyramid


def scale_chroma(chroma: Chroma) -> Tensor:
    """CIELAB units to about -1..1, the only scaled form, used inside `models`."""
    return chroma / CHROMA_SCALE


def unscale_chroma(scaled: Tensor) -> Chroma:
    return scaled * CHROMA_SCALE


class SmoothTransposedConv(nn.Module):
    """Doubles the size by a transposed convolution whose even and odd outputs weigh alike.

    A plain one gives neighbouring pixels different sums of weights, which shows as a checkerboard in flat
    regions (Odena et al. 2016). Convolving a free 3 x 3 kernel with a 2 x 2 box before use makes all four
    sums equal whatever is learnt, so a constant map gives a constant map (the zero-order-hold structure of
    Sugawara, Shiota and Kiya 2018), at the cost of the plain 4 x 4 layer.

    Takes (B, in_channels, h, w), returns (B, out_channels, 2h, 2w).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        # He et al. 2015, by the nine weights of the free kernel
        nn.init.normal_(self.weight, std=(2 / (9 * in_channels)) ** 0.5)
        self.box: Tensor
        self.register_buffer("box", _box_convolution(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        # pooling padded weights would be the same at 29 ms instead of 11 for the widest stage
        kernel = (self.weight.flatten(2) @ self.box).unflatten(2, (4, 4))
        return F.conv_transpose2d(
            features, kernel.to(features.dtype), self.bias.to(features.dtype), 2, padding=1
        )


def _box_convolution() -> Tensor:
    """Full convolution of a 3 x 3 kernel with a 2 x 2 box of ones, as a (9, 16) matrix on flattened kernels."""
    # in no file, so it has to be whole while models are built on meta
    matrix = torch.zeros(3, 3, 4, 4, device="cpu")
    for row, column in product(range(3), repeat=2):
        matrix[row, column, row : row + 2, column : column + 2] = 1
    return matrix.reshape(9, 16)


class Stage(nn.Module):
    """Twice the size: upsample, take in what the encoder saw at this size (if anything), convolve."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = SmoothTransposedConv(in_channels, out_channels)
        self.up_norm = group_norm(out_channels)
        self.skip = nn.Conv2d(skip_channels, out_channels, 1) if skip_channels else None
        self.conv = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm = group_norm(out_channels)

    def forward(self, features: Tensor, skip: Tensor | None) -> Tensor:
        """(B, in, h, w), and (B, skip, 2h, 2w) or None, to (B, out, 2h, 2w)."""
        features = self.up_norm(self.up(features))
        if self.skip is not None:
            features = features + self.skip(skip)
        features = F.relu(features)
        return F.relu(features + self.norm(self.conv(features)))


class Ladder(nn.Module):
    """Stages that climb from the coarsest map to one of stride `finest`; what colour heads on an encoder share.

    `taps` says which maps of the encoder's pyramid it reads, fine to coarse; nothing else need be cached. Maps finer
    than what the ladder ends with are not among them.

    Args:
        channels: of the encoder's maps, fine to coarse.
        strides: of the same maps.
        width: channels at half the image's size; they double with each halving, up to 256.
        skips: whether every stage takes in the encoder's map of its size, or only the coarsest map is read.
        finest: stride of the last stage's map.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], width: int, skips: bool, finest: int
    ) -> None:
        super().__init__()
        skip_at = dict(zip(strides, channels, strict=True)) if skips else {}
        coarsest = len(channels) - 1
        finer = (tap for tap in range(coarsest) if skips and strides[tap] >= finest)
        self.taps: tuple[int, ...] = (*finer, coarsest)
        stages, self.out_channels, stride = [], channels[-1], strides[-1] // 2
        while stride >= finest:
            outgoing = min(width * stride // 2, 256)
            stages.append(Stage(self.out_channels, skip_at.get(stride, 0), outgoing))
            self.out_channels, stride = outgoing, stride // 2
        self.stages = nn.ModuleList(stages)

    def climb(self, pyramid: Pyramid) -> Tensor:
        """Maps of `taps`, fine to coarse, to the last stage's map."""
        *skips, features = pyramid
        for stage in self.stages:
            features = stage(features, skips.pop() if stage.skip is not None else None)
        return features


class Decoder(Ladder):
    """A ladder of stages from the coarsest map to full size, then a*b* scaled to -1..1.

    The last layer starts at zero: an untrained head answers gray, and so starts at the gray baseline.

    For `resnet18` and width 32, a 64-pixel image passes as 512 channels of 2 x 2 pixels, then 256 of 4, 128
    of 8, 64 of 16, 32 of 32, and leaves as 2 of 64 x 64.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int, skips: bool) -> None:
        super().__init__(channels, strides, width, skips, finest=2)
        self.out = SmoothTransposedConv(self.out_channels, 2)
        nn.init.zeros_(self.out.weight)

    def forward(self, pyramid: Pyramid) -> Tensor:
        """Maps of `taps`, fine to coarse, to scaled a*b* (B, 2, H, W) at the image's size."""
        # in float32: near 1 the steps of bfloat16 are 0.4 CIELAB units
        return torch.tanh(self.out(self.climb(pyramid)).float())


def group_norm(channels: int, most: int = 8, fewest: int = 1) -> nn.GroupNorm:
    """Of at most so many groups of at least so many channels, unless there is but one.

    An image's colours must not depend on the rest of its batch, or on the process count, as with BatchNorm.
    """
    groups = (g for g in (32, 16, 8, 4, 2) if g <= most and channels % g == 0 and channels >= fewest * g)
    return nn.GroupNorm(next(groups, 1), channels)


def pool(features: Tensor) -> Tensor:
    """(B, C, h, w) to (B, C), the mean over the image, in float32."""
    return features.float().mean((2, 3))


class Classifier(nn.Module):
    """Logits from the mean over the coarsest map of the encoder."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, pyramid: Pyramid) -> Logits:
        """(B, C, h, w), the last of the pyramid, to (B, classes)."""
        return self.linear(pool(pyramid[-1])).float()


class AttentionClassifier(nn.Module):
    """Logits from the mean over the coarsest map plus what several heads of attention find in it.

    Each head asks one learnt question of all positions: pooling by multi-head attention with one seed (Lee et al.,
    "Set Transformer", ICML 2019, section 3.2), on normalised features as in CaiT's class attention (Touvron et al.,
    ICCV 2021, section 3). The last projection starts at zero, so an untrained head, drawn from the same stream,
    answers as `Classifier` does.

    Where we differ from both: a question that does not depend on the image makes the projection of the keys
    redundant, so question and projection are one matrix; positions have no embedding, so a map may be of any size and
    the order of its positions does not matter; there is no feed-forward layer, and the mean is in the residual path
    instead of the seed.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)  # first: it draws the same numbers as `Classifier`
        self.heads = next(heads for heads in (8, 4, 2, 1) if channels % heads == 0)
        self.norm = nn.LayerNorm(channels)
        self.question = nn.Linear(channels, self.heads, bias=False)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, pyramid: Pyramid) -> Logits:
        """(B, C, h, w), the last of the pyramid, to (B, classes)."""
        positions = pyramid[-1].float().flatten(2).transpose(1, 2)
        normed = self.norm(positions)
        attention = self.question(normed).float().softmax(1)
        values = self.value(normed).float().unflatten(2, (self.heads, -1))
        attended = (attention.unsqueeze(3) * values).sum(1).flatten(1)
        return self.linear(positions.mean(1) + self.out(attended).float()).float()


CLASSIFIERS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": Classifier,
    "attention": AttentionClassifier,
}


class Oracle(nn.Module):
    """Adds an embedding of the true class to the coarsest map that a colour head reads.

    It starts at zero, so that an untrained oracle answers as the model without it; an image of unknown class (label
    -1) is given nothing.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, channels)
        nn.init.zeros_(self.embedding.weight)

    def forward(self, pyramid: Pyramid, label: Label | None) -> Pyramid:
        """Maps fine to coarse and labels (B,) to the maps, the last of them with the class in it."""
        # an oracle is a control of a study, which knows them, and is never put to work
        assert label is not None
        given = self.embedding(label.clamp_min(0)) * (label >= 0)[:, None]
        return (*pyramid[:-1], pyramid[-1] + given[:, :, None, None].to(pyramid[-1].dtype))
