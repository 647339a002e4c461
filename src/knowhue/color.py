"""sRGB to CIELAB and back: batched, differentiable, always in float32.

Illuminant D65, 2 degree observer (CIE 15:2004), through kornia, whose constants agree with scikit-image's.
Reduced precision is refused a part in it: under bfloat16 autocast the error is 3 Lab units.
"""

import torch
from kornia.color import lab_to_rgb as _kornia_lab_to_rgb
from kornia.color import rgb_to_lab as _kornia_rgb_to_lab

from knowhue.tensors import RGB, Chroma, Lightness

CHROMA_SCALE = 110.0
LIGHTNESS_SCALE = 100.0


def rgb_to_lab(rgb: RGB) -> tuple[Lightness, Chroma]:
    """Split images into lightness and chroma.

    Args:
        rgb: (B, 3, H, W) sRGB, 0 to 1.

    Returns:
        L* (B, 1, H, W), 0 to 100, and a*b* (B, 2, H, W), about -110 to 110.

    Raises:
        ValueError: the shape is not (B, 3, H, W).

    >>> lightness, chroma = rgb_to_lab(torch.ones(1, 3, 2, 2))
    >>> round(lightness.max().item(), 3)
    100.0
    """
    _check(rgb, 3, "rgb")
    with torch.autocast(rgb.device.type, enabled=False):
        lab = _kornia_rgb_to_lab(rgb.float())
    return lab[:, :1], lab[:, 1:]


def lab_to_rgb(lightness: Lightness, chroma: Chroma, clip: bool = True) -> RGB:
    """Join lightness and chroma to images.

    Args:
        lightness: L* (B, 1, H, W), 0 to 100.
        chroma: a*b* (B, 2, H, W).
        clip: clip to 0..1; without it colours out of gamut stay out, and gradients alive.

    Returns:
        sRGB (B, 3, H, W).

    >>> lab_to_rgb(torch.full((1, 1, 1, 1), 100.0), torch.zeros(1, 2, 1, 1)).round().flatten().tolist()
    [1.0, 1.0, 1.0]
    """
    _check(lightness, 1, "lightness")
    _check(chroma, 2, "chroma")
    with torch.autocast(lightness.device.type, enabled=False):
        return _kornia_lab_to_rgb(torch.cat((lightness, chroma), 1).float(), clip=clip)


def scale_chroma(chroma: Chroma) -> torch.Tensor:
    """CIELAB units to about -1..1, the only scaled form, used inside `models`."""
    return chroma / CHROMA_SCALE


def unscale_chroma(scaled: torch.Tensor) -> Chroma:
    """The inverse of `scale_chroma`."""
    return scaled * CHROMA_SCALE


def _check(tensor: torch.Tensor, channels: int, name: str) -> None:
    if tensor.ndim != 4 or tensor.shape[1] != channels:
        raise ValueError(
            f"`{name}` should be of shape (B, {channels}, H, W). Found `{name}.shape = {tuple(tensor.shape)}`."
        )
