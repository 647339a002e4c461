"""Colours that other photos lend: those of a reference, and the mean of an album.

A reference is matched place by place in the encoder's features, and believed only as far as matches are confirmed.
That similar places may lend their colours is Welsh, Ashikhmin and Mueller's idea ("Transferring color to greyscale
images", SIGGRAPH 2002); to look for them in a network's features, of all its levels, and to believe them as far as the
way there and back agrees, is He, Chen, Liao, Sander and Yuan's ("Deep exemplar-based colorization", SIGGRAPH 2018).
They train a network to choose between matched colours and its own; here a rule does (`trust_in`), for any model.

An album gets one look: the mean colour of each photo is drawn towards that of all. How warm and how vivid a model
paints a photo is partly chance, and so differs within an album where nothing does. A photo's mean a*b* is an estimate
with an error of its own, and estimates of many like things are better when each is drawn towards their middle (James
and Stein 1961, "Estimation with quadratic loss").
"""

import hashlib
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.color import srgb_to_lab
from knowhue.errors import ConfigError
from knowhue.images.image import Image, Pixels, flattened
from knowhue.images.vips import shrink
from knowhue.inference.hint_spreading import chroma_at
from knowhue.inference.networks import FEATURES, FloatArray, Network
from knowhue.inference.pixels import chroma_lines, interpolated, lightness, working_size

MATCHED_AT_PX = 256
"""Short side at which photos are matched, before its sides become whole multiples of the encoder's coarsest stride."""
CELL_PX = 8
"""Side of what is matched as one."""
FINEST = 4
"""Stride of the finest map that is compared; before it there are edges without meaning."""
SHARPNESS = 0.03
"""Of the softmax over the reference's cells, in units of cosine similarity."""
RETURN_CELLS, NEIGHBOUR_CELLS, NEIGHBOUR_SHARE = 1.5, 2.5, 0.5
"""A match is confirmed if it leads back to within so many cells, and of the neighbours' matches so large a share lies
within so many cells of it."""
BLOCK = 1024
"""Cells of the photo that are compared with all of the reference at once."""
WINDOW = 7
"""Side of the square of cells in which confirmed ones are counted."""
TRUST_RANGE = 0.3, 0.6
"""Share of confirmed cells around a cell, up to which its match is not trusted, and from which on it is."""
ONE_SCENE = 0.1, 0.25
"""Share of confirmed cells in the photo, up to which the reference shows something else, and from which on the same
scene: of 120 unrelated pairs of photos at most .09 was confirmed, of 120 that overlap by a half at least .35."""
SIMILARITY_RANGE = 0.15, 0.35
"""Similarity up to which a cell has no counterpart, and from which on it has."""
SHARE_OF_ALIKE = 0.2
"""Share of its colour that the like in another scene lends; it may as well have another one."""
COLOURLESS = 4.0
"""C*, CIELAB units, that one pixel in a hundred of a reference exceeds; one that does not looks gray."""


class Reference(NamedTuple):
    """A colour photo as one model sees it."""

    maps: tuple[FloatArray, ...]
    """features (rows, columns, C) of each stride"""
    chroma: FloatArray
    """a*b* (rows, columns, 2), mean of each cell"""
    digest: str
    """SHA-256 of its pixels"""
    model: str
    """fingerprint of the model"""


class Match(NamedTuple):
    """For each cell of a photo what a reference has there."""

    chroma: FloatArray
    """a*b* (rows, columns, 2) of its cells, those most alike counting most"""
    similarity: FloatArray
    """cosine of the most similar cell (rows, columns)"""
    is_confirmed: NDArray[np.bool_]
    """whether that one leads back, and those of the cells around it lie together (rows, columns)"""


def make_reference(image: Image, network: Network, name: str = "the reference") -> Reference:
    """What is needed of a colour photo to take colours from it; a `ConfigError` without colours or feature maps."""
    strides = _strides(network)
    pixels = flattened(image)
    small = shrink(pixels, *_size(pixels, strides), oversampling=1)
    lab = srgb_to_lab(np.broadcast_to(small, (*small.shape[:2], 3))).astype(np.float32)
    chroma = lab[..., 1:]
    if pixels.shape[2] == 1 or np.quantile(np.linalg.norm(chroma, axis=-1), 0.99) < COLOURLESS:
        raise ConfigError(f"{name} has no colours to take; name a colour photo")
    digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
    return Reference(
        _maps(lab[..., 0], network, strides),
        _means(chroma, CELL_PX),
        digest,
        network.description.fingerprint(),
    )


def take_colours(
    pixels: Pixels, coarse: FloatArray, chroma: FloatArray, reference: Reference, network: Network
) -> tuple[FloatArray, float]:
    """Give predicted chroma the colours that a reference has for the same things.

    Matched a*b* replaces the prediction as far as the reference surely shows the same (`trust_in`), and by the share
    `SHARE_OF_ALIKE` where it shows its like. What has no counterpart stays as predicted.

    Args:
        pixels: (H, W, 1 or 3), of the photo to colour, over white.
        coarse: its L* (h, w) at the network's size.
        chroma: a*b* (h, w, 2) predicted for that.
        reference: made with the same model.
        network: the model.

    Returns:
        a*b* (h, w, 2), and how much of the photo was found in the reference, 0 to 1.

    Raises:
        ConfigError: the reference was made with another model.
    """
    if reference.model != network.description.fingerprint():
        raise ConfigError("`reference` should be made with the model that colours. Found another model's.")
    strides = _strides(network)
    small = shrink(pixels, *_size(pixels, strides), oversampling=1)
    light = lightness((small * 65535).round().astype(np.uint16))
    found = match(_maps(light, network, strides), reference)
    y, x = (((np.arange(side) + 0.5) / side) for side in coarse.shape)
    y, x = y[:, None], x[None]
    # colours end at the photo's own edges, which are finer than cells
    lines = chroma_lines(found.chroma, _means(light[..., None], CELL_PX)[..., 0])
    taken = chroma_at(lines, coarse, y, x)
    same, alike = trust_in(found)
    share = interpolated(np.maximum(same, SHARE_OF_ALIKE * alike)[..., None], y, x)
    return (chroma + share * (taken - chroma)).astype(np.float32), float(same.mean())


def trust_in(found: Match) -> tuple[FloatArray, FloatArray]:
    """How sure it is that the reference shows the same, and its like, at each cell, 0 to 1, both (rows, columns).

    The same: as far as both photos show one scene, that is, as many matches are confirmed in all, where many around a
    cell are, or the reference has its like.
    """
    confirmed = found.is_confirmed.astype(np.float32)
    scene = _ramp(confirmed.mean(), *ONE_SCENE)
    alike = _around(_ramp(found.similarity, *SIMILARITY_RANGE), 3)
    return scene * np.maximum(_ramp(_around(confirmed, WINDOW), *TRUST_RANGE), alike), alike


def match(maps: Sequence[FloatArray], reference: Reference) -> Match:
    """Find each cell of a photo, by `maps` (rows, columns, C) of each stride, in a reference.

    Two cells are as similar as the mean, over strides, of the cosine of their features, each channel standardised over
    both photos: what all places of both share, such as a model's largest channels, says nothing.
    """
    (rows, columns), (height, width) = maps[0].shape[:2], reference.chroma.shape[:2]
    features = [_standardised(own, other) for own, other in zip(maps, reference.maps, strict=True)]
    colours = reference.chroma.reshape(-1, 2)
    best, most, taken = [], [], []
    back, back_most = np.zeros(height * width, np.intp), np.full(height * width, -np.inf, np.float32)
    # in blocks: of two panoramas all pairs would take more memory than the photos
    for start in range(0, rows * columns, BLOCK):
        products = [here[start : start + BLOCK] @ there.T for here, there in features]
        similar = sum(products[1:], products[0]) / np.float32(len(products))
        best.append(similar.argmax(1))
        most.append(similar.max(1))
        is_nearer = similar.max(0) > back_most
        back[is_nearer] = start + similar.argmax(0)[is_nearer]
        back_most[is_nearer] = similar.max(0)[is_nearer]
        weights = np.exp((similar - most[-1][:, None]) / np.float32(SHARPNESS))
        taken.append(weights @ colours / weights.sum(1, keepdims=True))
    best = np.concatenate(best)
    places = np.stack(np.divmod(best, width), -1).reshape(rows, columns, 2)
    returned = np.stack(np.divmod(back[best], columns), -1).reshape(rows, columns, 2)
    leads_back = _apart(returned, np.moveaxis(np.indices((rows, columns)), 0, -1)) <= RETURN_CELLS
    return Match(
        np.concatenate(taken).reshape(rows, columns, 2),
        np.concatenate(most).reshape(rows, columns),
        leads_back & (_together(places) >= NEIGHBOUR_SHARE),
    )


def _together(places: NDArray[np.int_]) -> FloatArray:
    """Share of the eight neighbours whose matches lie beside a cell's own, whatever way the scene is turned."""
    rows, columns = places.shape[:2]
    around = np.pad(places, ((1, 1), (1, 1), (0, 0)), constant_values=-(10**6))
    beside = [
        _apart(around[1 + down : 1 + down + rows, 1 + aside : 1 + aside + columns], places) <= NEIGHBOUR_CELLS
        for down in (-1, 0, 1)
        for aside in (-1, 0, 1)
        if down or aside
    ]
    return np.asarray(np.mean(beside, 0), np.float32)


def _apart(first: NDArray[np.int_], second: NDArray[np.int_]) -> NDArray[np.float64]:
    return np.hypot(*np.moveaxis(first - second, -1, 0))


def _around(values: FloatArray, side: int) -> FloatArray:
    """Means over the square around each cell; the border is continued."""
    padded = np.pad(values, side // 2, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, (side, side)).mean((2, 3))


def _ramp(values: Any, low: float, high: float) -> Any:
    """0 up to `low`, 1 from `high` on, straight between."""
    return ((values - low) / (high - low)).clip(0, 1)


def _standardised(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Features (cells, C) of length 1, their channels standardised over both photos."""
    one, other = (each.reshape(-1, each.shape[-1]) for each in (first, second))
    both = np.concatenate([one, other])
    both = (both - both.mean(0)) / (both.std(0) + 1e-3)
    both /= np.linalg.norm(both, axis=1, keepdims=True) + 1e-6
    return both[: len(one)], both[len(one) :]


def _strides(network: Network) -> list[int]:
    """Of the feature maps that are compared."""
    given = [
        int(name.removeprefix(FEATURES)) for name in network.activation_names if name.startswith(FEATURES)
    ]
    strides = [stride for stride in given if stride >= FINEST]
    if not strides:
        raise ConfigError(
            f"`model` should give feature maps to match a reference by. Found `{network.description.name}`, which "
            "gives none. Use another model, or export its run again."
        )
    return strides


def _size(pixels: Pixels, strides: Sequence[int]) -> tuple[int, int]:
    """Height and width at which a photo is matched; whole strides, so that no map sees more than the photo."""
    step = max(*strides, CELL_PX)
    height, width = working_size(pixels.shape[0], pixels.shape[1], MATCHED_AT_PX)
    return round(height / step) * step, round(width / step) * step


def _maps(light: FloatArray, network: Network, strides: Sequence[int]) -> tuple[FloatArray, ...]:
    """Features (rows, columns, C) of L* (h, w), each map brought to one value a cell."""
    found = network.predict(light[None], [f"{FEATURES}{stride}" for stride in strides]).activations
    rows, columns = (side // CELL_PX for side in light.shape)
    y, x = (np.arange(rows)[:, None] + 0.5) / rows, (np.arange(columns)[None] + 0.5) / columns
    maps = []
    for stride in strides:
        values = np.moveaxis(found[f"{FEATURES}{stride}"][0], 0, -1)
        is_finer = stride < CELL_PX
        maps.append(
            _means(values, CELL_PX // stride) if is_finer else interpolated(values, y, x).astype(np.float32)
        )
    return tuple(maps)


def _means(values: FloatArray, side: int) -> FloatArray:
    """Means of (h, w, C) over squares."""
    height, width, channels = values.shape
    return values.reshape(height // side, side, width // side, side, channels).mean((1, 3))


SHARE = 0.4
"""Of the way to the album's colour that a photo is drawn."""
FARTHEST = 4.0
"""CIELAB units that a photo's mean is moved at most: one that is truly other, a sunset, stays so."""
MOST_VIVID = 2.0
"""Times the photo's mean chroma, beyond which a pixel is moved no farther."""


class AlbumColour(NamedTuple):
    """Mean a*b*, of a photo as predicted or of an album, CIELAB units."""

    a: float
    b: float


def photo_colour(chroma: FloatArray) -> AlbumColour:
    """Of a*b* (h, w, 2), to 0.01 units: in a batch with others a network's answer may differ beyond that."""
    a, b = np.round(chroma.mean((0, 1), dtype=np.float64), 2).tolist()
    return AlbumColour(a, b)


def colour_of_album(own: Collection[AlbumColour]) -> AlbumColour:
    """The median a* and b* of its photos, which a few odd ones do not move.

    >>> colour_of_album([AlbumColour(1, 2), AlbumColour(3, 2), AlbumColour(90, 90)])
    AlbumColour(a=3.0, b=2.0)
    """
    return AlbumColour(*np.median(np.array(list(own)), axis=0).tolist())


def drawn_to(album: AlbumColour, chroma: FloatArray) -> FloatArray:
    """A photo's a*b* (h, w, 2) with its mean drawn by `SHARE` towards an album's, `FARTHEST` units at most.

    A pixel is moved in proportion to its chroma, so that what is gray stays gray, and white has no tint.
    """
    way = SHARE * (np.array(album) - photo_colour(chroma))
    way *= min(1, FARTHEST / max(float(np.hypot(*way)), 1e-9))
    vividness = np.linalg.norm(chroma, axis=-1, keepdims=True)
    weight = (vividness / max(float(vividness.mean()), 1e-9)).clip(0, MOST_VIVID)
    return (chroma + weight * way).astype(np.float32)
