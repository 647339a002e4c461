"""PatchGAN: is this patch of L*a*b* a photograph's?"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from knowhue.color import LIGHTNESS_SCALE, scale_chroma
from knowhue.tensors import Chroma, Lightness


class Discriminator(nn.Module):
    """Judges overlapping patches of a coloured image (Isola et al. 2017), conditioned on its lightness.

    Where it differs from the paper: as many stride-2 layers as suit the image's size (three see 46 pixels;
    the stock network's 70 are more than a 64-pixel image), without the wide stride-1 layer that makes most
    of its cost, and with spectral normalisation (Miyato et al. 2018) in place of BatchNorm, which would tie
    an image's judgement to its batch.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        incoming = 3
        for layer in range(layers):
            outgoing = width * min(2**layer, 8)
            blocks += [spectral_norm(nn.Conv2d(incoming, outgoing, 4, 2, padding=1)), nn.LeakyReLU(0.2)]
            incoming = outgoing
        blocks.append(spectral_norm(nn.Conv2d(incoming, 1, 4, 1, padding=1)))
        self.body = nn.Sequential(*blocks)

    def forward(self, lightness: Lightness, chroma: Chroma) -> Tensor:
        """One unbounded score a patch, (B, 1, h, w); high is real."""
        lab = torch.cat((lightness / (LIGHTNESS_SCALE / 2) - 1, scale_chroma(chroma)), 1)
        return self.body(lab.to(memory_format=torch.channels_last)).float()


def receptive_field(layers: int) -> int:
    """Pixels that one patch score sees, on a side.

    >>> receptive_field(3)
    46
    """
    field = 4
    for _ in range(layers):
        field = 2 * field + 2
    return field
