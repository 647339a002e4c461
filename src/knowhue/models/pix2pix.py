"""The generator of pix2pix: a U-Net from scratch, from gray at full size to one pixel and back."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from knowhue.errors import ConfigError
from knowhue.models.discriminators import draw_weights
from knowhue.models.encoder import require_whole_strides
from knowhue.tensors import Pyramid

_DEEPEST = 8
_DROPOUT_BLOCKS = 3
_SMALLEST_PX = 16


class Pix2PixUNet(nn.Module):
    """Colours by the U-Net of Isola, Zhu, Zhou and Efros (CVPR 2017, appendix "Generator architectures").

    Encoder C64-C128-C256-C512-C512-C512-C512-C512: 4 x 4 convolutions of stride 2, LeakyReLU of slope 0.2.
    Decoder: its mirror in transposed 4 x 4 convolutions, ReLU, each after the first fed with what the encoder
    saw at that size, dropout of one half in the three next to the bottleneck, tanh at the end. Weights
    start from N(0, 0.02), biases from 0. L*/50 - 1 comes in and a*b*/110 leaves, as in the authors' code.

    `width` is the paper's 64, `depth` its 8 halvings; the maps have min(width * 2**i, 8 * width) channels. A
    64-pixel image at depth 6 passes as 64 channels of 32 x 32 pixels, 128 of 16, 256 of 8, 512 of 4, 512 of 2
    and 512 of 1.

    Where it differs from the paper:

    - Affine instance normalisation stands for BatchNorm, in training and in use, so that an image's colours do
      not depend on its batch. The paper's BatchNorm takes the statistics of the batch at hand also in use: at a
      batch of 1 that is instance normalisation, at the 4 that the paper trains colourisation with it is not.
    - The bottleneck is not normalised, as the authors' erratum says and their later code does. Nor is the first
      layer, as in the paper.
    - A convolution before a normalisation has no bias, which the normalisation would cancel.
    - Dropout works in training only. The paper keeps it at prediction as its sole source of noise, and
      itself finds that the answers hardly vary; here the same image always gets the same colours.
    - A lesser depth leaves out layers of 8 * width channels, so of the three dropout blocks some are narrower.

    It reads the one map of an empty encoder, (gray,) with gray = L*/50 - 1, whose sides are multiples of `stride`.

    >>> Pix2PixUNet(width=2, depth=4)((torch.zeros(3, 1, 32, 48),)).shape
    torch.Size([3, 2, 32, 48])
    """

    def __init__(self, width: int = 64, depth: int = _DEEPEST) -> None:
        super().__init__()
        if depth < 2:
            raise ConfigError(
                f"`depth` should be at least 2. Found `depth = {depth}`. The paper's is {_DEEPEST}."
            )
        self.taps: tuple[int, ...] = (0,)
        self.stride = 2**depth
        channels = [min(width * 2**i, 8 * width) for i in range(depth)]
        self.encoder = nn.ModuleList(_encoder(channels))
        self.decoder = nn.ModuleList(_decoder(channels))
        self.apply(draw_weights)

    def forward(self, pyramid: Pyramid) -> Tensor:
        """(gray,), (B, 1, H, W) in -1..1, to scaled a*b* (B, 2, H, W) in -1..1.

        Raises:
            ConfigError: H or W is no whole multiple of `stride`.
        """
        (features,) = pyramid
        require_whole_strides(features, self.stride, "gray")
        skips = []
        for block in self.encoder:
            features = block(features)
            skips.append(features)
        # the first has the bottleneck alone: there is no skip of its size
        features = self.decoder[0](skips.pop())
        for block in self.decoder[1:]:
            features = block(torch.cat((features, skips.pop()), 1))
        return torch.tanh(features.float())


def depth_for(size_px: int) -> int:
    """Halvings that leave one pixel of an image of `size_px` pixels on a side, at most the paper's 8.

    Between powers of two, the halvings of the power below: the image is then padded less than twofold.

    Raises:
        ConfigError: `size_px` is under 16.

    >>> [depth_for(size_px) for size_px in (16, 64, 100, 256, 512)]
    [4, 6, 6, 8, 8]
    """
    if size_px < _SMALLEST_PX:
        raise ConfigError(
            f"`size_px` should be at least {_SMALLEST_PX} for pix2pix. Found `size_px = {size_px}`. "
            "Train at a larger size."
        )
    return min(size_px.bit_length() - 1, _DEEPEST)


def _encoder(channels: list[int]) -> list[nn.Module]:
    """Blocks from (1, H, W) to the bottleneck; each hands on its map before activation, as the skips take it."""
    first = nn.Conv2d(1, channels[0], 4, 2, padding=1)
    middle = [
        nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(incoming, outgoing, 4, 2, padding=1, bias=False),
            nn.InstanceNorm2d(outgoing, affine=True),
        )
        for incoming, outgoing in pairwise(channels[:-1])
    ]
    # no normalisation: over a map of one pixel it would leave only zeros
    bottleneck = nn.Conv2d(channels[-2], channels[-1], 4, 2, padding=1)
    return [first, *middle, nn.Sequential(nn.LeakyReLU(0.2), bottleneck)]


def _decoder(channels: list[int]) -> list[nn.Module]:
    """Blocks from the bottleneck to (2, H, W); all but the first take the features and the skip side by side."""
    blocks: list[nn.Module] = []
    incoming = channels[-1]
    for outgoing in reversed(channels[:-1]):
        dropout = [nn.Dropout(0.5)] if len(blocks) < _DROPOUT_BLOCKS else []
        up = nn.ConvTranspose2d(incoming, outgoing, 4, 2, padding=1, bias=False)
        blocks.append(nn.Sequential(nn.ReLU(), up, nn.InstanceNorm2d(outgoing, affine=True), *dropout))
        incoming = 2 * outgoing
    last = nn.ConvTranspose2d(incoming, 2, 4, 2, padding=1)
    return [*blocks, nn.Sequential(nn.ReLU(), last)]
