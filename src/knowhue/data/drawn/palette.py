"""Colours of the drawn scenes: five palettes, the dial that ties them to class, and the way back to sRGB."""

import numpy as np
from numpy.typing import NDArray

from knowhue.color import lab_to_linear, linear_to_srgb
from knowhue.data.drawn.canvas import Field

# a*b* of: water, deep water, ground, rock, body, second, accent, flora
_PALETTES = np.array(
    [
        # coral reef: warm corals in turquoise
        [(-34, -12), (-20, -28), (4, 18), (4, 2), (52, 34), (52, -12), (14, 62), (-34, 26)],
        # jellyfish: pink and violet in a blue-violet night
        [(30, -50), (34, -58), (18, -26), (16, -26), (46, -30), (58, -4), (24, 18), (20, -44)],
        # penguin: cold blue light, orange beak
        [(-8, -30), (-2, -42), (-6, -12), (-2, -14), (2, -14), (0, -3), (36, 62), (-16, -8)],
        # shark: green coastal water
        [(-34, 20), (-32, 14), (-8, 24), (-12, 12), (-14, 2), (-8, 12), (-4, 44), (-38, 36)],
        # starfish: golden sand at dusk
        [(25, 6), (22, -16), (8, 36), (14, 6), (48, 54), (28, 64), (56, 34), (-6, 30)],
    ],
    np.float32,
)


def choose_palette(label: int, class_colour: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Pick the palette of an image: its class's own with probability `class_colour`, else any of the five.

    Every draw is made whatever the dial says, so an image changes palette at most once as the dial turns.

    Args:
        label: class, 0 to 4.
        class_colour: 0 to 1.
        rng: the palette's own stream, which geometry never reads.

    Returns:
        (8, 2) a*b* of the materials.
    """
    own, other = rng.random() < class_colour, int(rng.integers(len(_PALETTES)))
    turn, strength = rng.normal(0.0, 0.06), rng.normal(1.0, 0.06)
    spread = rng.normal(0.0, 1.5, _PALETTES.shape[1:])
    rotation = strength * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return (_PALETTES[label if own else other] @ rotation + spread).astype(np.float32)


def lab_to_srgb(lightness: Field, chroma: NDArray[np.float32]) -> NDArray[np.uint8]:
    """CIELAB (D65) to 8-bit sRGB, with a*b* shrunk towards gray where a colour is out of gamut.

    Clipping RGB would change L*, and then the gray image would tell of its palette. Formulae: CIE 15:2004
    for Lab, IEC 61966-2-1 for the sRGB curve.

    Args:
        lightness: (H, W) L*, 0 to 100.
        chroma: (2, H, W) a*b*.

    Returns:
        (H, W, 3) sRGB, whose L* is that given up to 8-bit rounding.

    >>> lab_to_srgb(np.full((1, 1), 50, np.float32), np.zeros((2, 1, 1), np.float32)).tolist()
    [[[119, 119, 119]]]
    """
    shape = lightness.shape
    flat, ab = lightness.ravel(), chroma.reshape(2, -1)
    linear = np.clip(lab_to_linear(flat, ab * _fit_gamut(flat, ab)), 0, 1)
    return np.rint(linear_to_srgb(linear) * 255).astype(np.uint8).T.reshape(*shape, 3)


def _fit_gamut(lightness: Field, ab: Field) -> Field:
    """Largest factor (N,), 0 to 1, that brings each a*b* into the sRGB gamut, by bisection."""
    factor = np.ones_like(lightness)
    outside = np.flatnonzero(~_in_gamut(lightness, ab))
    lightness, ab = lightness[outside], ab[:, outside]
    low, step = np.zeros_like(lightness), np.float32(0.5)
    for _ in range(7):
        low += step * _in_gamut(lightness, ab * (low + step))
        step /= 2
    factor[outside] = low
    return factor


def _in_gamut(lightness: Field, ab: Field) -> NDArray[np.bool_]:
    linear = lab_to_linear(lightness, ab)
    return (linear.min(axis=0) >= 0) & (linear.max(axis=0) <= 1)
