"""Colour hints: points whose colour a user gives, honoured there and spread over the region of like lightness."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu

from knowhue.errors import ConfigError
from knowhue.inference.networks.network import FloatArray

REACH = 0.15
"""The longest at which a hint in the middle of a flat picture still leaves its corners alone."""
LONGEST_REACH = 1.0
DISC = 0.02
"""Radius of what a hint colours outright, as a fraction of the diagonal; so a hint weighs alike at any size."""
LIKE = 6.0
"""Neighbours whose L* differ by this pass exp(-1/2) of the pull on; by three times this, 1 %."""
RESISTANCE = 0.06
"""Makes the pull a third at `reach` in a flat region, by trial at reaches of 0.05 to 0.2."""
STIFFNESS = 1e6

_HINT = re.compile(r"\s*([^,=]+),([^,=]+)=(.+)")
_WAYS = (
    "`120,80=#c83232` (pixels from the top left), `30%,40%=orange` (fractions of width and height), "
    "or `30%,40%=gray` for no colour"
)


class Hint(NamedTuple):
    """A point and the colour that it should have; its lightness stays the picture's.

    Attributes:
        x: fraction of the width from the left, 0 to 1.
        y: fraction of the height from the top, 0 to 1.
        a: a*, CIELAB units.
        b: b*, CIELAB units; both 0 mean no colour.
    """

    x: float
    y: float
    a: float
    b: float


def parse_hint(text: str, width: int, height: int) -> Hint:
    """Read a hint as it is written on the command line.

    Args:
        text: `X,Y=COLOUR`; X and Y count whole pixels from 0, or are percentages of width and height; COLOUR is
            anything that CSS writes without transparency: `#c83232`, `rgb(200, 50, 50)`, `orange`.
        width: of the picture, pixels.
        height: of the picture, pixels.

    Raises:
        ConfigError: it is not so written, no such colour, or outside the picture.

    >>> hint = parse_hint("30%,40=#c83232", 600, 400)
    >>> [round(value, 4) for value in hint]
    [0.3, 0.1013, 58.1958, 36.489]
    """
    found = _HINT.fullmatch(text)
    if found is None:
        raise ConfigError(f"`hint` should be {_WAYS}. Found `{text}`.")
    across, down, colour = (part.strip() for part in found.groups())
    return Hint(_fraction(across, width, text), _fraction(down, height, text), *_chroma_of(colour, text))


def spread(
    lightness: FloatArray, chroma: FloatArray, hints: Sequence[Hint], reach: float = REACH
) -> FloatArray:
    """Pull predicted chroma towards hints.

    What spreads is d, the hint's colour less the prediction at its point: the minimum of
    sum_rs w_rs (d_r - d_s)^2 + sum_r k_r d_r^2 over neighbours r, s (left, right, above, below) with
    w_rs = exp(-(L_r - L_s)^2 / (2 LIKE^2)), d being given on a small disc around each point; k_r grows with the
    fourth power of the distance from the nearest disc over `reach`. So d goes where lightness is alike, halts at
    edges and out of reach, never leaves the range of 0 and the given differences, and adds to the prediction,
    whose own variation stays. A pixel in several discs belongs to the nearest point; equally near ones, of
    contradictory hints at one pixel too, are averaged.

    After Levin, Lischinski and Weiss 2004, Colorization using optimization. They spread colours, not differences;
    compare each pixel with the weighted mean of its neighbours, by local variance; and have no k, so that one
    scribble colours all that no other holds. The pairwise energy makes d obey a maximum principle; a constant k
    would leave a spot at each point and a tint everywhere (the Green's function of the plane).

    Args:
        lightness: L* (h, w), 0 to 100, at the network's size.
        chroma: predicted a*b* (h, w, 2), CIELAB units.
        hints: points with a colour; none leaves `chroma` as it is.
        reach: distance beyond a hint's disc at which its pull has fallen to about a third in a flat region, as a
            fraction of the picture's diagonal; above 0, up to 1. At twice this a tenth is left. Texture and edges
            shorten it, and a narrow region or other hints that agree lengthen it.

    Returns:
        a*b* (h, w, 2), equal to the hint at its point whatever the prediction.

    Raises:
        ConfigError: a hint lies outside the picture or is not finite; `reach` is out of range.
        ValueError: the shapes do not belong together.

    >>> gray = np.zeros((32, 48, 2), np.float32)
    >>> pulled = spread(np.full((32, 48), 50, np.float32), gray, [Hint(0.5, 0.5, 40, 0)])
    >>> [round(float(pulled[16, column, 0])) for column in (24, 30, 47)]
    [40, 18, 3]
    """
    _check(lightness, chroma, hints, reach)
    if not hints:
        return chroma
    given, held = _discs(lightness, chroma, hints)
    resistance = _resistance(held, reach * math.hypot(*lightness.shape))
    return chroma + _solve(lightness.astype(np.float64), given, held, resistance).astype(np.float32)


def _discs(
    lightness: FloatArray, chroma: FloatArray, hints: Sequence[Hint]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The given differences (h, w, 2) and where they are given (h, w).

    A disc leaves out what is of unlike lightness: a point beside an edge must not colour the other side.
    """
    height, width = lightness.shape
    rows, columns = np.ogrid[:height, :width]
    radius = DISC * math.hypot(height, width)
    nearest = np.full((height, width), np.inf)
    total, count = np.zeros((height, width, 2)), np.zeros((height, width))
    for hint in hints:
        row, column = min(int(hint.y * height), height - 1), min(int(hint.x * width), width - 1)
        squared = ((rows - row) ** 2 + (columns - column) ** 2).astype(np.float64)
        inside = (squared <= radius**2) & (np.abs(lightness - lightness[row, column]) <= 2 * LIKE)
        closer, equal = inside & (squared < nearest), inside & (squared == nearest)
        difference = np.array([hint.a, hint.b]) - chroma[row, column]
        total = np.where(closer[..., None], difference, total + equal[..., None] * difference)
        count = np.where(closer, 1, count + equal)
        nearest[closer] = squared[closer]
    return total / np.maximum(count, 1)[..., None], count > 0


def _solve(
    lightness: NDArray[np.float64],
    given: NDArray[np.float64],
    held: NDArray[np.bool_],
    resistance: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The minimum (h, w, 2): one sparse factorisation, two right-hand sides.

    Four neighbours, not eight: a diagonal line one pixel wide then holds the pull back as any other does.
    """
    place = np.arange(lightness.size).reshape(lightness.shape)
    first = np.concatenate([place[:-1].ravel(), place[:, :-1].ravel()])
    second = np.concatenate([place[1:].ravel(), place[:, 1:].ravel()])
    flat, stiffness = lightness.ravel(), STIFFNESS * held.ravel()
    weight = np.exp(-((flat[first] - flat[second]) ** 2) / (2 * LIKE**2))
    diagonal = stiffness + resistance.ravel()
    diagonal += np.bincount(first, weight, flat.size) + np.bincount(second, weight, flat.size)
    values = np.concatenate([diagonal, -weight, -weight])
    where = (np.concatenate([place.ravel(), first, second]), np.concatenate([place.ravel(), second, first]))
    matrix = coo_array((values, where), shape=(flat.size, flat.size)).tocsc()
    # symmetric and diagonally dominant: pivots may stay on the diagonal, which keeps the factor thin
    factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return factor.solve(stiffness[:, None] * given.reshape(-1, 2)).reshape(given.shape)


def _resistance(held: NDArray[np.bool_], reach_px: float) -> NDArray[np.float64]:
    """What holds the pull back (h, w), 1 / px^2: little within reach of a disc, steeply more beyond."""
    distance = np.asarray(distance_transform_edt(~held)) / reach_px
    return RESISTANCE * (0.1 + distance**4) / reach_px**2


def _fraction(text: str, side: int, whole: str) -> float:
    """A coordinate to 0..1; pixel k is meant at its centre."""
    if re.fullmatch(r"[+-]?\d+(\.\d+)?%", text):
        fraction = float(text[:-1]) / 100
    elif re.fullmatch(r"[+-]?\d+", text):
        fraction = (int(text) + 0.5) / side
    else:
        raise ConfigError(f"`hint` should be {_WAYS}. Found `{text}` in `{whole}`.")
    if not 0 <= fraction <= 1:
        raise ConfigError(
            f"`hint` should lie in the picture, 0 to {side - 1} pixels or 0% to 100%. Found `{text}` in `{whole}`."
        )
    return fraction


def _chroma_of(colour: str, whole: str) -> tuple[float, float]:
    """a* and b* of a CSS colour."""
    try:
        rgb = ImageColor.getrgb(colour)
    except ValueError:
        rgb = ()
    if len(rgb) != 3 or not all(0 <= code <= 255 for code in rgb):
        raise ConfigError(
            f"`hint` should name an opaque colour as CSS does, `#c83232`, `rgb(200, 50, 50)` or `orange`. "
            f"Found `{colour}` in `{whole}`."
        )
    import torch  # a runtime without torch needs it for nothing else

    from knowhue.color import rgb_to_lab

    _, chroma = rgb_to_lab(torch.tensor(rgb).reshape(1, 3, 1, 1) / 255)
    a, b = chroma.flatten().tolist()
    return (0.0, 0.0) if len(set(rgb)) == 1 else (a, b)


def _check(lightness: FloatArray, chroma: FloatArray, hints: Sequence[Hint], reach: float) -> None:
    if lightness.ndim != 2 or chroma.shape != (*lightness.shape, 2):
        raise ValueError(
            "`lightness` and `chroma` should be of shapes (h, w) and (h, w, 2). "
            f"Found `lightness.shape = {lightness.shape}` and `chroma.shape = {chroma.shape}`."
        )
    if not 0 < reach <= LONGEST_REACH:
        raise ConfigError(
            f"`reach` should be a fraction of the picture's diagonal, above 0 and up to {LONGEST_REACH:g}. "
            f"Found `reach = {reach}`."
        )
    for hint in hints:
        if not (0 <= hint.x <= 1 and 0 <= hint.y <= 1 and math.isfinite(hint.a) and math.isfinite(hint.b)):
            raise ConfigError(
                f"`hints` should have x and y within 0 to 1, fractions of width and height, and finite a and b. "
                f"Found `{hint}`."
            )
