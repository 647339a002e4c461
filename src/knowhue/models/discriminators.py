"""PatchGANs, fitted to the image or as published: is this patch of L*a*b* a photograph's?"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from knowhue.color import LIGHTNESS_SCALE
from knowhue.errors import ConfigError
from knowhue.models.heads import scale_chroma
from knowhue.tensors import Chroma, Lightness


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
    """The least height and width that leave a score, and no map of one pixel to normalise."""

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

    def forward(self, lightness: Lightness, chroma: Chroma) -> Tensor:
        """One unbounded score a patch, (B, 1, h, w); high is real.

        Raises:
            ConfigError: The image is under 24 pixels high or wide.
        """
        height, width = lightness.shape[-2:]
        if min(height, width) < self.SMALLEST_PX:
            raise ConfigError(
                f"The images should be at least {self.SMALLEST_PX} pixels high and wide for the PatchGAN of pix2pix. "
                f"Found {height} x {width}. Train at a larger size, or with the colour method `gan`."
            )
        return super().forward(lightness, chroma)


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
