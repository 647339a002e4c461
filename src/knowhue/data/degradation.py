"""Old photos: what time, grain and the emulsions of their day made of a lightness.

Strengths are those of historic photos (`benchmarks/old_photos.py`, at 96 pixels): in eight of ten the black lies at 6
to 22 L*, the white at 76 to 96; in nine of ten grain is up to 1.5.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from knowhue.color import rgb_to_lab
from knowhue.randomness import stream, stream_seed
from knowhue.tensors import RGB, Lightness

FADED_BLACK, FADED_WHITE = 22.0, 76.0
"""L* up to which black is raised, and down to which white falls, as paper fades."""
GRAIN = 1.5
"""Largest standard deviation of grain, L*."""
CONTRAST = 0.5
"""Largest natural logarithm, up or down, of the exponent of the tone curve."""
SCRATCHES, DEPTH = 3, 40.0
"""Most scratches of an image, and how far one changes L*, up or down."""
ORTHOCHROMATIC = (0.0, 0.35, 0.65)
"""Shares of red, green and blue light in what an emulsion saw that is blind to red; plates until about 1920."""


class Damage(NamedTuple):
    """What is done to each of N images, drawn; `False` in `degraded` leaves one as it is.

    Attributes:
        degraded: (N,) whether anything is done.
        emulsion: (N,), 0 sees like L* to 1 for orthochromatic.
        exponent: (N,) of the tone curve.
        black: (N,) L* of black, and `white` of white.
        grain: (N,) standard deviation, L*.
        scratches: (N, SCRATCHES, 5): place 0 to 1, slope, begin and end 0 to 1, change of L*, 0 where there is none.
    """

    degraded: NDArray[np.bool_]
    emulsion: NDArray[np.float32]
    exponent: NDArray[np.float32]
    black: NDArray[np.float32]
    white: NDArray[np.float32]
    grain: NDArray[np.float32]
    scratches: NDArray[np.float32]

    def of(self, chosen: slice) -> "Damage":
        """That of some images."""
        return self._make(each[chosen] for each in self)


def draw_damage(seed: int, epoch: int, count: int, share: float) -> Damage:
    """Draw what an epoch's images suffer, `share` of them (0 to 1) anything at all."""
    generator = stream(seed, "degradation", epoch)

    def uniform(low: float, high: float, *shape: int) -> NDArray[np.float32]:
        return generator.uniform(low, high, (count, *shape)).astype(np.float32)

    degraded = generator.random(count) < share
    scratches = uniform(0, 1, SCRATCHES, 5)
    scratches[..., 1] = scratches[..., 1] / 5 - 0.1  # nearly upright, as film and plates are scratched
    is_there = generator.random((count, SCRATCHES)) < 0.25
    scratches[..., 4] = is_there * DEPTH * (2 * scratches[..., 4] - 1)
    return Damage(
        degraded,
        # half of all emulsions saw as we do
        emulsion=uniform(-1, 1).clip(0),
        exponent=np.exp(uniform(-CONTRAST, CONTRAST)),
        black=uniform(0, FADED_BLACK),
        white=uniform(FADED_WHITE, 100),
        grain=uniform(0, GRAIN),
        scratches=scratches,
    )


def grain(seed: int, epoch: int, start: int, shape: Sequence[int]) -> Tensor:
    """Standard normal noise for a batch, which begins at image `start` of its epoch."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "grain", epoch, start))
    return torch.randn(*shape, generator=generator)


def degrade(lightness: Lightness, rgb: RGB, damage: Damage, noise: Tensor) -> Lightness:
    """The lightness of photos as they would be found in an attic.

    The emulsion sees, its curve and the paper give contrast, time fades and scratches. Grain comes after fading, whose
    range is that of old photos: so was it measured.

    Args:
        lightness: L* (B, 1, H, W), 0 to 100.
        rgb: of the same photos, (B, 3, H, W), 0 to 1.
        damage: of these images.
        noise: (B, 1, H, W), standard normal, of the grain.

    Returns:
        L* (B, 1, H, W), 0 to 100; that of an image that is not degraded as it was.
    """
    values = [torch.from_numpy(np.ascontiguousarray(each)).to(rgb.device) for each in damage]
    degraded, emulsion, exponent, black, white, roughness = (
        each[:, None, None, None] for each in values[:-1]
    )
    seen = lightness.lerp(_orthochromatic(rgb), emulsion)
    printed = 100 * (seen.clamp(0, 100) / 100) ** exponent
    faded = black + printed * (white - black) / 100
    found = faded + roughness * noise + _scratches(values[-1], *rgb.shape[2:])
    return torch.where(degraded, found.clamp(0, 100), lightness)


def _orthochromatic(rgb: RGB) -> Lightness:
    """L* of what an emulsion sees that is blind to red; that of a gray is its own."""
    # of codes and not of light, as scanners and papers mix: one conversion, and neutral tones stay where they are
    gray = torch.einsum("bchw,c->bhw", rgb, torch.tensor(ORTHOCHROMATIC).to(rgb))
    return rgb_to_lab(gray[:, None].expand_as(rgb))[0]


def _scratches(lines: Tensor, height: int, width: int) -> Tensor:
    """(B, 1, H, W) changes of L* by straight scratches a pixel wide, (B, n, 5) as in `Damage`."""
    place, slope, begin, end, change = (each[..., None, None] for each in lines.unbind(-1))
    down = torch.linspace(0, 1, height, device=lines.device)[:, None]
    across = torch.arange(width, device=lines.device)
    on_line = ((place + slope * down) * width - across).abs() <= 0.5
    within = (down - begin) * (down - end) <= 0
    return (change * (on_line & within)).sum(1, keepdim=True)
