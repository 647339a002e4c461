"""Heads on the encoder's feature maps: decoders that predict chroma, classifiers, and the oracle's class embedding.

Decoders upsample by a transposed convolution that cannot produce checkerboard artefacts.
"""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from knowhue.color import CHROMA_SCALE
from knowhue.tensors import Chroma, Label, Logits, Pyramid


def scale_chroma(chroma: Chroma) -> Tensor:
    """Scale a*b* from CIELAB units to about -1..1, the form that is used inside `models`."""
    return chroma / CHROMA_SCALE


def unscale_chroma(scaled: Tensor) -> Chroma:
    return scaled * CHROMA_SCALE


class SmoothTransposedConv(nn.Module):
    """Transposed convolution that doubles the size and gives even and odd output pixels equal sums of weights.

    In a plain transposed convolution these sums differ between neighbouring pixels, which shows as a checkerboard in
    flat regions (Odena et al. 2016). Here the kernel is a learned 3 x 3 kernel convolved with a 2 x 2 box. That makes
    all four sums equal, so that a constant map stays constant (the zero-order-hold structure of Sugawara, Shiota and
    Kiya 2018), at the cost of a plain 4 x 4 layer.

    Takes (B, in_channels, h, w), returns (B, out_channels, 2h, 2w).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        # He et al. 2015, with the fan-in of the learned 3 x 3 kernel
        nn.init.normal_(self.weight, std=(2 / (9 * in_channels)) ** 0.5)
        self.box: Tensor
        self.register_buffer("box", _box_convolution(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        # average pooling of padded weights gives the same, but takes 29 ms instead of 11 for the widest stage
        kernel = (self.weight.flatten(2) @ self.box).unflatten(2, (4, 4))
        return F.conv_transpose2d(
            features, kernel.to(features.dtype), self.bias.to(features.dtype), 2, padding=1
        )


def _box_convolution() -> Tensor:
    """Matrix (9, 16) that fully convolves a flattened 3 x 3 kernel with a 2 x 2 box of ones."""
    # on the CPU even if models are built on the meta device, because no file holds its values
    matrix = torch.zeros(3, 3, 4, 4, device="cpu")
    for row, column in product(range(3), repeat=2):
        matrix[row, column, row : row + 2, column : column + 2] = 1
    return matrix.reshape(9, 16)


class Stage(nn.Module):
    """Decoder stage that doubles the size: upsample, add the encoder's map of this size (if any), convolve."""

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
    """Stages from the coarsest map up to stride `finest`: the common part of the colour heads on an encoder.

    `taps` holds the indices of the maps that it reads, fine to coarse; only these need to be cached. Maps finer than
    `finest` are not among them.

    Args:
        channels: of the encoder's maps, fine to coarse.
        strides: of the same maps.
        width: channels at half the image's size; they double with each halving, up to 256.
        skips: whether each stage adds the encoder's map of its size; otherwise only the coarsest map is read.
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
        """Run the stages on the maps of `taps`, fine to coarse, and return the last stage's map."""
        *skips, features = pyramid
        for stage in self.stages:
            features = stage(features, skips.pop() if stage.skip is not None else None)
        return features


class Decoder(Ladder):
    """Colour head by regression: stages from the coarsest map to full size, then tanh to scaled a*b* in -1..1.

    The last layer starts at zero, so an untrained head predicts gray, which is the gray baseline.

    For `resnet18` and width 32, a 64-pixel image passes as 512 channels of 2 x 2 pixels, then 256 of 4, 128
    of 8, 64 of 16, 32 of 32, and leaves as 2 of 64 x 64.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int, skips: bool) -> None:
        super().__init__(channels, strides, width, skips, finest=2)
        self.out = SmoothTransposedConv(self.out_channels, 2)
        nn.init.zeros_(self.out.weight)

    def forward(self, pyramid: Pyramid) -> Tensor:
        """Scaled a*b* (B, 2, H, W) at the image's (padded) size, from the maps of `taps`, fine to coarse."""
        # in float32, because bfloat16 has steps of 0.4 CIELAB units near 1
        return torch.tanh(self.out(self.climb(pyramid)).float())


def group_norm(channels: int, most: int = 8, fewest: int = 1) -> nn.GroupNorm:
    """Group normalisation with at most `most` groups of at least `fewest` channels each.

    Not BatchNorm, with which an image's colours would depend on its batch and on the number of processes.
    """
    groups = (g for g in (32, 16, 8, 4, 2) if g <= most and channels % g == 0 and channels >= fewest * g)
    return nn.GroupNorm(next(groups, 1), channels)


def pool(features: Tensor) -> Tensor:
    """Global average pooling in float32: (B, C, h, w) to (B, C)."""
    return features.float().mean((2, 3))


class Classifier(nn.Module):
    """Linear classifier on the mean of the encoder's coarsest map."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, pyramid: Pyramid) -> Logits:
        """Logits (B, classes) from the last map (B, C, h, w) of the pyramid."""
        return self.linear(pool(pyramid[-1])).float()


class AttentionClassifier(nn.Module):
    """Linear classifier on the mean of the encoder's coarsest map plus attention pooling of the same map.

    Each attention head has one learned query: pooling by multi-head attention with one seed (Lee et al., "Set
    Transformer", ICML 2019, section 3.2), on normalised features as in CaiT's class attention (Touvron et al., ICCV
    2021, section 3). The last projection starts at zero, so an untrained head gives the same logits as a `Classifier`
    initialised from the same random stream.

    Where we differ from both: the query does not depend on the image, which makes the projection of the keys
    redundant, so query and projection are one matrix. Positions have no embedding, so the map can have any size and
    the order of its positions does not matter. There is no feed-forward layer, and the residual path carries the mean
    instead of the seed.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)  # first, to draw the same initial weights as `Classifier`
        self.heads = next(heads for heads in (8, 4, 2, 1) if channels % heads == 0)
        self.norm = nn.LayerNorm(channels)
        self.question = nn.Linear(channels, self.heads, bias=False)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, pyramid: Pyramid) -> Logits:
        """Logits (B, classes) from the last map (B, C, h, w) of the pyramid."""
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
    """Adds an embedding of the true class to the coarsest map that the colour head reads.

    The embedding starts at zero, so that an untrained oracle predicts like the model without it. An image of unknown
    class (label -1) gets no embedding.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, channels)
        nn.init.zeros_(self.embedding.weight)

    def forward(self, pyramid: Pyramid, label: Label | None) -> Pyramid:
        """Return the maps, fine to coarse, with the embedding of the labels (B,) added to the last."""
        # an oracle runs only in studies, where labels are known, and is never deployed
        assert label is not None
        embedding = self.embedding(label.clamp_min(0)) * (label >= 0)[:, None]
        return (*pyramid[:-1], pyramid[-1] + embedding[:, :, None, None].to(pyramid[-1].dtype))
