"""pix2pix (Isola et al. 2017): its U-Net from scratch, and PatchGANs: is this patch of L*a*b* a photograph's?"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from knowhue.color import LIGHTNESS_SCALE
from knowhue.models.heads import scale_chroma
from knowhue.tensors import Chroma, Lightness, Pyramid


class _Patches(nn.Module):
    """Scores of overlapping patches, conditioned on the lightness, by a stack of convolutions."""

    body: nn.Sequential

    def forward(self, lightness: Lightness, chroma: Chroma) -> Tensor:
        """One unbounded score a patch, (B, 1, h, w); high is real."""
        lab = torch.cat((lightness / (LIGHTNESS_SCALE / 2) - 1, scale_chroma(chroma)), 1)
        return self.body(lab.to(memory_format=torch.channels_last)).float()


class Discriminator(_Patches):
    """Judges overlapping patches of a coloured image (Isola et al. 2017), conditioned on its lightness.

    Where it differs from the paper: as many stride-2 layers as suit the image's size (three see 46 pixels;
    the stock network's 70 are more than a 64-pixel image), without the wide stride-1 layer that makes most
    of its cost, and with spectral normalisation (Miyato et al. 2018) in place of BatchNorm.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        incoming = 3
        for layer in range(layers):
            # never wider than eight times the first, as in pix2pix
            outgoing = width * min(2**layer, 8)
            # BatchNorm would tie an image's judgement to its batch
            blocks += [spectral_norm(nn.Conv2d(incoming, outgoing, 4, 2, padding=1)), nn.LeakyReLU(0.2)]
            incoming = outgoing
        blocks.append(spectral_norm(nn.Conv2d(incoming, 1, 4, 1, padding=1)))
        self.body = nn.Sequential(*blocks)


class PatchGAN(_Patches):
    """Judges overlapping patches of 70 pixels, conditioned on the lightness (Isola, Zhu, Zhou, Efros, CVPR 2017).

    C64-C128-C256-C512 and a last convolution to one score, all 4 x 4: three of stride 2, two of stride 1,
    LeakyReLU of slope 0.2 between them, weights drawn from N(0, 0.02). `width` is the 64. The strides are the
    authors' code's; the paper's text has 2 in all of C64 to C512, which would see 94 pixels.

    Where it differs from the paper:

    - Affine instance normalisation stands for BatchNorm, as in the generator: the paper's batches of 1 to 10
      images would tie an image's judgement to its neighbours. Through these statistics a score also depends,
      faintly, on the image beyond its 70 pixels.
    - A convolution before a normalisation has no bias, which the normalisation would cancel.
    - The score is a logit: the paper's closing sigmoid is left to the loss.
    - Lightness and chroma come in as CIELAB and are scaled here, so the stock 3 + 3 channels are 1 + 2.

    >>> PatchGAN(width=4)(torch.rand(2, 1, 64, 64) * 100, torch.zeros(2, 2, 64, 64)).shape
    torch.Size([2, 1, 6, 6])
    """

    SMALLEST_PX = 24
    """The least height and width that leave a score, and no map of one pixel to normalise; training refuses less."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, padding=1),
            nn.LeakyReLU(0.2),
            *_block(width, 2 * width, stride=2),
            *_block(2 * width, 4 * width, stride=2),
            *_block(4 * width, 8 * width, stride=1),
            nn.Conv2d(8 * width, 1, 4, 1, padding=1),
        )
        self.body.apply(draw_weights)


def _block(incoming: int, outgoing: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(incoming, outgoing, 4, stride, padding=1, bias=False),
        nn.InstanceNorm2d(outgoing, affine=True),
        nn.LeakyReLU(0.2),
    )


def draw_weights(layer: nn.Module) -> None:
    """Start one layer as the paper's code does: N(0, 0.02), normalisation scales N(1, 0.02), biases 0."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.InstanceNorm2d):
        nn.init.normal_(layer.weight, mean=float(isinstance(layer, nn.InstanceNorm2d)), std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


_DEEPEST = 8
_DROPOUT_BLOCKS = 3


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
        self.taps: tuple[int, ...] = (0,)
        self.stride = 2**depth
        channels = [min(width * 2**i, 8 * width) for i in range(depth)]
        self.encoder = nn.ModuleList(_encoder(channels))
        self.decoder = nn.ModuleList(_decoder(channels))
        self.apply(draw_weights)

    def forward(self, pyramid: Pyramid) -> Tensor:
        """(gray,), (B, 1, H, W) in -1..1, H and W multiples of `stride`, to scaled a*b* (B, 2, H, W) in -1..1."""
        (features,) = pyramid
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

    >>> [depth_for(size_px) for size_px in (16, 64, 100, 256, 512)]
    [4, 6, 6, 8, 8]
    """
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
