"""Signed distances that the animals share: negative inside, in the animal's own units."""

import numpy as np

from knowhue.data.drawn.canvas import Field

Pair = tuple[float, float]


def spindle(u: Field, thickness: float, blunt: float, taper: float) -> Field:
    """Half-thickness of a fish-like body, nose at u = 1: an airfoil, blunt in front and tapering behind."""
    back = np.clip((1 - u) / 2, 1e-4, 1)
    return thickness * back**blunt * (1 - back) ** taper


def fin(u: Field, v: Field, root: Pair, tip: Pair, curve: Pair) -> Field:
    """Signed distance of a fin that stands on v = 0.

    Args:
        u: along the body.
        v: out from the body.
        root: u of the front and the back of the fin at the body.
        tip: (u, v) of its end.
        curve: how far the front edge bulges, and how far the back edge is hollowed.
    """
    out = v / tip[1]
    bulge = 4 * np.clip(out, 0, 1) * (1 - np.clip(out, 0, 1))
    front = root[0] + (tip[0] - root[0]) * out + curve[0] * bulge
    rear = root[1] + (tip[0] - root[1]) * out + curve[1] * bulge
    return np.maximum(np.maximum(u - front, rear - u) * 0.8, np.maximum(-v, v - tip[1]))


def merge(first: Field, second: Field, blend: float) -> Field:
    """Smooth union of two signed distances (polynomial minimum by I. Quilez)."""
    mix = np.clip(0.5 + 0.5 * (second - first) / blend, 0, 1)
    return second + (first - second) * mix - blend * mix * (1 - mix)
