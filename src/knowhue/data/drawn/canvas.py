"""The sheet a scene is drawn on: a lightness field, and for each pixel how much of each material it shows.

Lengths are in sheet units: x and y run from -1 to 1, y downwards, so a scene is the same at any
size in pixels.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]
"""(H, W), or anything that broadcasts to it; float32 wherever speed counts."""

WATER, DEEP, GROUND, ROCK, BODY, SECOND, ACCENT, FLORA = range(8)
MATERIALS = 8


class Pose(NamedTuple):
    """Where a subject is: centre and half-length in sheet units, angle in radians, +1 or -1 for mirrored."""

    x: float
    y: float
    scale: float
    angle: float = 0.0
    flip: float = 1.0
    haze: float = 0.0


class Canvas:
    """Lightness (H, W), L* 0 to 100, and material shares (8, H, W), which sum to 1 at each pixel."""

    def __init__(self, size_px: int) -> None:
        self.size_px = size_px
        self.pixel = 2.0 / size_px
        self.rows, self.columns = slice(None), slice(None)
        self.x, self.y = grid(size_px)
        self.lightness = np.zeros((size_px, size_px), np.float32)
        self.materials = np.zeros((MATERIALS, size_px, size_px), np.float32)
        self.fog = self.lightness
        self.depth = self.lightness

    def window(self, pose: Pose, reach: float) -> "Canvas":
        """The part of the sheet around a subject, sharing memory, so that small things cost little.

        Args:
            pose: the subject.
            reach: half the side of the window in units of the subject's half-length.
        """
        part = Canvas.__new__(Canvas)
        part.size_px, part.pixel = self.size_px, self.pixel
        part.columns, part.rows = (self._span(middle, reach * pose.scale) for middle in (pose.x, pose.y))
        part.x, part.y = self.x[:, part.columns], self.y[part.rows]
        for name in ("lightness", "fog", "depth"):
            setattr(part, name, getattr(self, name)[part.rows, part.columns])
        part.materials = self.materials[:, part.rows, part.columns]
        return part

    def _span(self, middle: float, half: float) -> slice:
        first = int((middle - half + 1) / self.pixel) - 1
        last = int((middle + half + 1) / self.pixel) + 2
        return slice(min(max(first, 0), self.size_px - 1), max(last, 1))

    def noise(self, rng: np.random.Generator, across: int, down: int) -> Field:
        """Smooth noise, mean 0 and deviation about 1, with so many bumps across and down the whole sheet."""
        lattice = rng.standard_normal((down + 3, across + 3), dtype=np.float32)
        left, right = _spline(self.size_px, down)[self.rows], _spline(self.size_px, across)[self.columns]
        return np.float32(2.1) * np.asarray(left @ lattice @ right.T)

    def fractal(self, rng: np.random.Generator, cells: int, octaves: int = 3) -> Field:
        """Noise at `cells` bumps, twice as many, and so on, each octave at half the strength."""
        layers = [self.noise(rng, cells << i, cells << i) * np.float32(0.5**i) for i in range(octaves)]
        return np.add.reduce(layers)

    def fill(self, lightness: Field, depth: Field) -> None:
        """Flood the sheet with water; it is also the fog that later things fade into.

        Args:
            lightness: L* of the open water, 0 to 100.
            depth: share of the deep-water colour, 0 to 1.
        """
        self.lightness, self.fog = lightness.copy(), lightness
        self.depth = depth
        self.materials[WATER], self.materials[DEEP] = 1 - depth, depth

    def paint(self, cover: Field, lightness: Field | float, material: int, haze: Field | float = 0.0) -> None:
        """Lay a thing over what is there.

        Args:
            cover: opacity, 0 to 1.
            lightness: L* of the thing in clear water.
            material: which of the eight materials it is made of.
            haze: share of water between it and us, 0 to 1.
        """
        seen = lightness + haze * (self.fog - lightness)
        self.lightness += cover * (seen - self.lightness)
        self.stain(cover, material, haze)

    def stain(self, cover: Field, material: int, haze: Field | float = 0.0) -> None:
        """Change the material and leave the lightness as it is."""
        self.materials *= 1 - cover
        self.materials[material] += cover * (1 - haze)
        if isinstance(haze, float) and haze == 0.0:
            return
        veil = cover * haze
        self.materials[WATER] += veil * (1 - self.depth)
        self.materials[DEEP] += veil * self.depth

    def cover(self, distance: Field, scale: float = 1.0, soft: float = 0.0) -> Field:
        """Opacity of a shape from its signed distance, with an edge 1.5 pixels wide.

        Args:
            distance: negative inside, in units of `scale`.
            scale: length of one such unit on the sheet.
            soft: extra width of the edge, in sheet units.
        """
        width = 1.5 * self.pixel + soft
        return smooth(0.5 - distance * (scale / width))

    def local(self, pose: Pose) -> tuple[Field, Field]:
        """Coordinates of each pixel in a subject's own frame: u ahead, v up, 1 is its half-length."""
        cos, sin = np.float32(np.cos(pose.angle) / pose.scale), np.float32(np.sin(pose.angle) / pose.scale)
        across, up = (self.x - pose.x) * pose.flip, pose.y - self.y
        return cos * across + sin * up, cos * up - sin * across

    def relief(self, distance: Field, depth: float) -> Field:
        """How far a rounded shape faces the light above, about -1 to 1.

        Args:
            distance: signed distance, negative inside.
            depth: how far inside, in the same units, the top is flat.
        """
        inside = np.clip(distance * (-1 / depth), 0, 1)
        height = np.sqrt(inside * (2 - inside) + 1e-4)
        slope = np.zeros_like(height)
        slope[1:-1] = height[2:] - height[:-2]
        slope[:, 1:-1] += 0.45 * (height[:, 2:] - height[:, :-2])
        slope *= 0.6 * self.size_px / 64
        return slope / np.sqrt(1 + slope * slope)


@lru_cache(maxsize=8)
def grid(size_px: int) -> tuple[Field, Field]:
    """Pixel centres: x (1, W) and y (H, 1), read-only, since they are shared."""
    centres = ((np.arange(size_px) + 0.5) * (2 / size_px) - 1).astype(np.float32)
    centres.flags.writeable = False
    return centres[None, :], centres[:, None]


@lru_cache(maxsize=64)
def _spline(size_px: int, cells: int) -> Field:
    """Cubic B-spline weights (size_px, cells + 3) of lattice points at the pixel centres."""
    place = (np.arange(size_px) + 0.5) * (cells / size_px)
    away = np.abs(place[:, None] + 1 - np.arange(cells + 3)[None, :])
    near = 2 / 3 - away**2 + away**3 / 2
    weights = np.where(away < 1, near, np.clip(2 - away, 0, None) ** 3 / 6).astype(np.float32)
    weights.flags.writeable = False
    return weights


def smooth(value: Field) -> Field:
    """Smoothstep: 0 below 0, 1 above 1, flat at both ends."""
    share: Field = np.clip(value, 0, 1)
    return share * share * (3 - 2 * share)
