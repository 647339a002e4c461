"""pix2pix (Isola et al. 2017): its U-Net, and discriminators that judge whether patches of L*a*b* are real."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from knowhue.color import LIGHTNESS_SCALE
from knowhue.models.heads import scale_chroma
from knowhue.tensors import Chroma, Lightness, Pyramid


class _Patches(nn.Module):
    """Convolutional scores of overlapping patches of colour, conditioned on the lightness."""

    body: nn.Sequential

    def forward(self, lightness: Lightness, chroma: Chroma) -> Tensor:
        """Unbounded scores of the patches, (B, 1, h, w), high for real ones."""
        lab = torch.cat((lightness / (LIGHTNESS_SCALE / 2) - 1, scale_chroma(chroma)), 1)
        return self.body(lab.to(memory_format=torch.channels_last)).float()


class Discriminator(_Patches):
    """Discriminator of overlapping patches, a lighter PatchGAN (Isola et al. 2017).

    Where it differs from the paper: the number of stride-2 layers is chosen for the image's size (three have a
    receptive field of 46 pixels; the paper's 70 exceed a 64-pixel image); it has no wide stride-1 layer, which causes
    most of the cost; and spectral normalisation (Miyato et al. 2018) replaces BatchNorm.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        incoming = 3
        for layer in range(layers):
            # at most eight times the first layer's width, as in pix2pix
            outgoing = width * min(2**layer, 8)
            # not BatchNorm, with which an image's scores would depend on its batch
            blocks += [spectral_norm(nn.Conv2d(incoming, outgoing, 4, 2, padding=1)), nn.LeakyReLU(0.2)]
            incoming = outgoing
        blocks.append(spectral_norm(nn.Conv2d(incoming, 1, 4, 1, padding=1)))
        self.body = nn.Sequential(*blocks)


class PatchGAN(_Patches):
    """The paper's discriminator of overlapping patches of 70 pixels (Isola, Zhu, Zhou and Efros, CVPR 2017).

    C64-C128-C256-C512 and a last convolution to one score, all 4 x 4: three of stride 2, two of stride 1,
    LeakyReLU of slope 0.2 between them, weights initialised from N(0, 0.02). `width` is the 64. The strides are those
    of the authors' code; with stride 2 in all of C64 to C512, as in the paper's text, patches would have 94 pixels.

    Where it differs from the paper:

    - Affine instance normalisation replaces BatchNorm, as in the generator: with batches of 1 to 10 images, an image's
      scores would depend on the others in its batch. Because of these statistics, a score also depends slightly on the
      image outside of its 70 pixels.
    - A convolution before a normalisation has no bias, which the normalisation would cancel.
    - Scores are logits: the paper's final sigmoid is part of the loss.
    - The input is lightness and chroma, scaled here, so it has 1 + 2 channels instead of 3 + 3.

    >>> PatchGAN(width=4)(torch.rand(2, 1, 64, 64) * 100, torch.zeros(2, 2, 64, 64)).shape
    torch.Size([2, 1, 6, 6])
    """

    SMALLEST_PX = 24
    """Smallest height and width that give a score without normalising a map of one pixel; training rejects smaller."""

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
        self.body.apply(initialise)


def _block(incoming: int, outgoing: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(incoming, outgoing, 4, stride, padding=1, bias=False),
        nn.InstanceNorm2d(outgoing, affine=True),
        nn.LeakyReLU(0.2),
    )


def initialise(layer: nn.Module) -> None:
    """Initialise a layer as the paper's code does: weights N(0, 0.02), normalisation scales N(1, 0.02), biases 0."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.InstanceNorm2d):
        nn.init.normal_(layer.weight, mean=float(isinstance(layer, nn.InstanceNorm2d)), std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


_DEEPEST = 8
_DROPOUT_BLOCKS = 3


class Pix2PixUNet(nn.Module):
    """The U-Net of Isola, Zhu, Zhou and Efros (CVPR 2017, appendix "Generator architectures").

    Encoder C64-C128-C256-C512-C512-C512-C512-C512: 4 x 4 convolutions of stride 2, LeakyReLU of slope 0.2.
    Decoder: the same in reverse order with transposed 4 x 4 convolutions and ReLU; every block but the first also
    takes the encoder's map of its size; dropout of one half in the three blocks next to the bottleneck; tanh at the
    end. Weights are initialised from N(0, 0.02), biases to 0. Input is L*/50 - 1, output a*b*/110, as in the authors'
    code.

    `width` is the paper's 64, `depth` its 8 halvings; the maps have min(width * 2**i, 8 * width) channels. A
    64-pixel image at depth 6 passes as 64 channels of 32 x 32 pixels, 128 of 16, 256 of 8, 512 of 4, 512 of 2
    and 512 of 1.

    Where it differs from the paper:

    - Affine instance normalisation replaces BatchNorm, so that an image's colours do not depend on its batch. The
      paper's BatchNorm uses the current batch's statistics at prediction too: with a batch of 1 this is instance
      normalisation, with the paper's 4 for colourisation it is not.
    - The bottleneck is not normalised, as in the authors' erratum and later code. Nor is the first layer, as in the
      paper.
    - A convolution before a normalisation has no bias, which the normalisation would cancel.
    - Dropout is active only in training. The paper keeps it at prediction as the only source of noise, but finds that
      the results hardly vary; here the same image always gets the same colours.
    - A smaller depth omits layers of 8 * width channels, so some of the three dropout blocks are narrower.

    It reads the only map of `NoEncoder`, (gray,) with gray = L*/50 - 1, whose sides are multiples of `stride`.

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
        self.apply(initialise)

    def forward(self, pyramid: Pyramid) -> Tensor:
        """Scaled a*b* (B, 2, H, W) in -1..1, from (gray,), (B, 1, H, W) in -1..1, H and W multiples of `stride`."""
        (features,) = pyramid
        skips = []
        for block in self.encoder:
            features = block(features)
            skips.append(features)
        # the first block takes only the bottleneck, because there is no other map of its size
        features = self.decoder[0](skips.pop())
        for block in self.decoder[1:]:
            features = block(torch.cat((features, skips.pop()), 1))
        return torch.tanh(features.float())


def depth_for(size_px: int) -> int:
    """Number of halvings that reduce a side of `size_px` pixels to one pixel, at most the paper's 8.

    Between powers of two, the number for the lower power, so that padding less than doubles the image's side.

    >>> [depth_for(size_px) for size_px in (16, 64, 100, 256, 512)]
    [4, 6, 6, 8, 8]
    """
    return min(size_px.bit_length() - 1, _DEEPEST)


def _encoder(channels: list[int]) -> list[nn.Module]:
    """Blocks from (1, H, W) to the bottleneck; each returns its map before the activation, for the skips."""
    first = nn.Conv2d(1, channels[0], 4, 2, padding=1)
    middle = [
        nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(incoming, outgoing, 4, 2, padding=1, bias=False),
            nn.InstanceNorm2d(outgoing, affine=True),
        )
        for incoming, outgoing in pairwise(channels[:-1])
    ]
    # not normalised, because normalising a map of one pixel gives only zeros
    bottleneck = nn.Conv2d(channels[-2], channels[-1], 4, 2, padding=1)
    return [first, *middle, nn.Sequential(nn.LeakyReLU(0.2), bottleneck)]


def _decoder(channels: list[int]) -> list[nn.Module]:
    """Blocks from the bottleneck to (2, H, W); all but the first take features and skip, concatenated."""
    blocks: list[nn.Module] = []
    incoming = channels[-1]
    for outgoing in reversed(channels[:-1]):
        dropout = [nn.Dropout(0.5)] if len(blocks) < _DROPOUT_BLOCKS else []
        up = nn.ConvTranspose2d(incoming, outgoing, 4, 2, padding=1, bias=False)
        blocks.append(nn.Sequential(nn.ReLU(), up, nn.InstanceNorm2d(outgoing, affine=True), *dropout))
        incoming = 2 * outgoing
    last = nn.ConvTranspose2d(incoming, 2, 4, 2, padding=1)
    return [*blocks, nn.Sequential(nn.ReLU(), last)]
