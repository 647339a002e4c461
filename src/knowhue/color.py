"""Conversion between sRGB and CIELAB: tensors with kornia, arrays with NumPy (full-size images: `inference.pixels`).

Illuminant D65, 2 degree observer (CIE 15:2004); the sRGB curve of IEC 61966-2-1. The constants are kornia's, which
agree with scikit-image's. Tensors are converted in float32 even under autocast.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # models that run without torch use the constants and the array functions
    from torch import Tensor

    from knowhue.tensors import RGB, Chroma, Lightness

CHROMA_SCALE = 110.0  # CIELAB units of a* or b* that are 1 in scaled chroma
LIGHTNESS_SCALE = 100.0  # L* of white

SRGB_TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
"""Matrix from linear sRGB to XYZ (D65); the second row is the luminance of red, green and blue."""
WHITE = np.array([0.95047, 1.0, 1.08883])
"""XYZ of D65. It differs from `SRGB_TO_XYZ.sum(1)`, with which gray would be exactly gray, by rounding."""
FOOT, FOOT_ROOT = (6 / 29) ** 3, 6 / 29
"""Y / Yn where CIELAB's cube root begins, and its cube root; below, a line of slope `FOOT_SLOPE` and intercept 4/29."""
FOOT_SLOPE = 841 / 108
TOE_LIGHT, TOE_CODE, TOE_SLOPE = 0.0031308, 0.04045, 12.92
"""Linear light and sRGB code where the power function begins; below, a line through 0 of slope `TOE_SLOPE`."""
GAMMA, GAMMA_SCALE, GAMMA_SHIFT = 2.4, 1.055, 0.055

FloatArray = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]


def srgb_to_linear(codes: Floats) -> Floats:
    """Linear light, 0 to 1, from sRGB codes, 0 to 1, of any shape; the linear part continues below 0."""
    powered = ((np.maximum(codes, TOE_CODE) + GAMMA_SHIFT) / GAMMA_SCALE) ** GAMMA
    return np.where(codes <= TOE_CODE, codes / TOE_SLOPE, powered)


def linear_to_srgb(light: Floats) -> Floats:
    """The inverse of `srgb_to_linear`."""
    powered = GAMMA_SCALE * np.maximum(light, TOE_LIGHT) ** (1 / GAMMA) - GAMMA_SHIFT
    return np.where(light <= TOE_LIGHT, TOE_SLOPE * light, powered)


def cube_root(light: Floats) -> Floats:
    """CIELAB's function f of X/Xn, Y/Yn or Z/Zn: the cube root with a linear foot. L* is 116 f(Y/Yn) - 16."""
    return np.where(light > FOOT, np.cbrt(light), light * FOOT_SLOPE + 4 / 29)


def srgb_to_lab(codes: Floats) -> Floats:
    """L*a*b* (..., 3) from sRGB codes (..., 3), 0 to 1.

    >>> srgb_to_lab(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])).round(2).tolist()
    [[53.24, 80.09, 67.2], [87.74, -86.18, 83.18]]
    """
    planes = np.moveaxis(srgb_to_linear(codes), -1, 0)
    return np.moveaxis(planes_to_lab(planes.reshape(3, -1)).reshape(planes.shape), 0, -1)


def planes_to_lab(light: Floats) -> Floats:
    """L*a*b* (3, N) from linear sRGB (3, N), 0 to 1."""
    x, y, z = cube_root(SRGB_TO_XYZ @ light / WHITE[:, None])
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def lab_to_linear(lightness: Floats, chroma: Floats) -> Floats:
    """Linear sRGB (3, N) from L* (N,), 0 to 100, and a*b* (2, N); out-of-gamut colours lie outside 0 to 1.

    >>> lab_to_linear(np.array([100.0]), np.zeros((2, 1))).round(3).tolist()
    [[1.0], [1.0], [1.0]]
    """
    y = (lightness + 16) / 116
    roots = np.stack([y + chroma[0] / 500, y, y - chroma[1] / 200])
    slope = roots.dtype.type(1 / FOOT_SLOPE)
    light = np.where(roots > FOOT_ROOT, roots * roots * roots, (roots - 4 / 29) * slope)
    return _WHITE_TO_LINEAR.astype(roots.dtype) @ light


_WHITE_TO_LINEAR = np.linalg.inv(SRGB_TO_XYZ) * WHITE  # from X/Xn, Y/Yn, Z/Zn


def colourfulness(rgb: "Floats | Tensor", absolute: bool = False) -> Any:
    """Colourfulness M3 of each image (Hasler and Süsstrunk 2003), from signed opponent channels as in the paper.

    Args:
        rgb: (B, 3, H, W) sRGB, 0 to 255, an array or a tensor.
        absolute: use absolute opponent values, a common deviation from the paper that gives much lower values for some
            images; only for comparison with numbers published in this convention, such as those of DDColor.

    Returns:
        (B,), an array or a tensor as `rgb` is: 0 for gray, about 15 slight, 45 average, 109 extreme.

    >>> colourfulness(np.full((1, 3, 4, 4), 99.0)).tolist()
    [0.0]
    """
    red, green, blue = (_wide(rgb[:, channel]) for channel in range(3))
    opponents = (red - green, (red + green) / 2 - blue)
    if absolute:
        opponents = tuple(map(abs, opponents))
    means = [channel.mean((1, 2)) for channel in opponents]
    centred = [channel - mean[:, None, None] for channel, mean in zip(opponents, means, strict=True)]
    variance = sum((channel**2).mean((1, 2)) for channel in centred)
    # the paper fitted 0.3 to people's ratings
    return variance**0.5 + 0.3 * sum(mean**2 for mean in means) ** 0.5


def _wide(values: Any) -> Any:
    """Convert to a type in which differences and squares do not overflow: uint8 wraps, float16 ends at 65504."""
    if isinstance(values, np.ndarray):
        return values if values.dtype.kind == "f" and values.itemsize >= 4 else values.astype(np.float64)
    return values if values.is_floating_point() and values.element_size() >= 4 else values.double()


COLOUR_STRIDE = 4
"""Stride of the logits over `chroma_bins`: pixels of the image per position, along each side."""
BIN_SPACING = 10  # grid spacing of `chroma_bins`, CIELAB units


@cache
def chroma_bins() -> NDArray[np.int64]:
    """The 313 colours of Zhang, Isola and Efros (ECCV 2016), a*b* (313, 2), ordered by a* and then b*.

    They are the corners of all cells of a grid of spacing 10 that touch the convex hull of sRGB's a*b*. The paper only
    says "in gamut". Of the rules that we tried, this one gives the paper's 313 points, the same as published with its
    code. Cells that contain an sRGB colour would be 261; cell centres that are in gamut at some lightness, 229.

    >>> chroma_bins().shape, chroma_bins()[0].tolist(), chroma_bins()[-1].tolist()
    ((313, 2), [-90, 50], [100, 0])
    """
    steps = np.linspace(0, 1, 17)
    gamut = srgb_to_lab(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3))[:, 1:]
    angles = np.arange(720) * (2 * np.pi / 720)
    directions = np.stack([np.cos(angles), np.sin(angles)])
    # a corner of a cell that touches the hull is less than a spacing away from it along both axes, so it lies in the
    # hull's Minkowski sum with a square: compare it with the support function of that sum in many directions
    support = (gamut @ directions).max(0) + BIN_SPACING * np.abs(directions).sum(0)
    axis = np.arange(-11, 12) * BIN_SPACING
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    bins = grid[(grid @ directions < support).all(1)]
    bins.setflags(write=False)  # the cache returns the same array to every caller
    return bins


def rgb_to_lab(rgb: "RGB") -> "tuple[Lightness, Chroma]":
    """Split sRGB (B, 3, H, W), 0 to 1, into L* (B, 1, H, W), 0 to 100, and a*b* (B, 2, H, W), about -110 to 110.

    >>> import torch
    >>> lightness, chroma = rgb_to_lab(torch.ones(1, 3, 2, 2))
    >>> round(lightness.max().item(), 3)
    100.0
    """
    import torch
    from kornia.color import rgb_to_lab as convert

    _check(rgb, 3, "rgb")
    # in bfloat16 the error would be 3 CIELAB units
    with torch.autocast(rgb.device.type, enabled=False):
        lab = convert(rgb.float())
    return lab[:, :1], lab[:, 1:]


def lab_to_rgb(lightness: "Lightness", chroma: "Chroma", clip: bool = True) -> "RGB":
    """Combine L* (B, 1, H, W), 0 to 100, and a*b* (B, 2, H, W) into sRGB (B, 3, H, W).

    It is clipped to 0..1; without `clip`, out-of-gamut colours keep their values and gradients.

    >>> import torch
    >>> lab_to_rgb(torch.full((1, 1, 1, 1), 100.0), torch.zeros(1, 2, 1, 1)).round().flatten().tolist()
    [1.0, 1.0, 1.0]
    """
    import torch
    from kornia.color import lab_to_rgb as convert

    _check(lightness, 1, "lightness")
    _check(chroma, 2, "chroma")
    with torch.autocast(lightness.device.type, enabled=False):
        return convert(torch.cat((lightness, chroma), 1).float(), clip=clip)


def _check(tensor: "Tensor", channels: int, name: str) -> None:
    if tensor.ndim != 4 or tensor.shape[1] != channels:
        raise ValueError(f"`{name}` should be of shape (B, {channels}, H, W). Found {tuple(tensor.shape)}.")
