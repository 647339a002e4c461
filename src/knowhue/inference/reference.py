"""Colours from other photos: from a reference photo, and the mean of an album.

A reference is matched cell by cell in the encoder's features, and its colours are used only as far as matches are
confirmed. Welsh, Ashikhmin and Mueller ("Transferring color to greyscale images", SIGGRAPH 2002) transfer colours
between similar places. He, Chen, Liao, Sander and Yuan ("Deep exemplar-based colorization", SIGGRAPH 2018) search for
them in a network's features, trust matches as far as forward and backward matching agree, and train a network to choose
between matched colours and its own. Here a rule chooses (`match_confidence`), for any model.

The mean colour of each photo of an album is moved towards that of all, because how warm and vivid a model paints a
photo is partly chance: estimates of many similar quantities improve if each is moved towards their middle (James and
Stein 1961, "Estimation with quadratic loss").
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
"""Short side of photos when matched, pixels, before both sides are rounded to the encoder's coarsest stride."""
CELL_PX = 8
"""Side of a matched cell, pixels."""
FINEST_STRIDE = 4
"""Stride of the finest feature map that is compared; finer ones contain edges without meaning."""
SHARPNESS = 0.03
"""Temperature of the softmax over the reference's cells, in units of cosine similarity."""
RETURN_CELLS, NEIGHBOUR_CELLS, NEIGHBOUR_SHARE = 1.5, 2.5, 0.5
"""A match is confirmed if matching back returns to within `RETURN_CELLS` of the cell, and at least `NEIGHBOUR_SHARE` of
the neighbours' matches lie within `NEIGHBOUR_CELLS` of it."""
BLOCK = 1024
"""Number of cells of the photo that are compared at once with all cells of the reference."""
WINDOW = 7
"""Side, in cells, of the square in which confirmed cells are counted."""
TRUST_RANGE = 0.3, 0.6
"""Share of confirmed cells around a cell: at most the first, its match is not trusted; from the second on, fully."""
SCENE_RANGE = 0.1, 0.25
"""Share of confirmed cells in the photo: at most the first, the reference shows something else; from the second on, the
same scene. In 120 unrelated pairs of photos at most .09 was confirmed, in 120 that overlap by a half at least .35."""
SIMILARITY_RANGE = 0.15, 0.35
"""Similarity: at most the first, a cell has no counterpart; from the second on, it has one."""
SIMILAR_WEIGHT = 0.2
"""Weight of a similar thing's colour if the scene is another one, where its true colour could differ."""
LEAST_CHROMA = 4.0
"""C*, CIELAB units, that at least one pixel in a hundred of a reference must reach; else it looks gray."""


class Reference(NamedTuple):
    """A colour photo, prepared for one model."""

    maps: tuple[FloatArray, ...]
    """features (rows, columns, C) of cells, one array per stride"""
    chroma: FloatArray
    """mean a*b* of each cell (rows, columns, 2)"""
    digest: str
    """SHA-256 of its pixels"""
    model: str
    """fingerprint of the model"""


class Match(NamedTuple):
    """The matches of a photo's cells in a reference."""

    chroma: FloatArray
    """a*b* (rows, columns, 2) of the reference, weighted by similarity"""
    similarity: FloatArray
    """cosine similarity of the most similar cell (rows, columns)"""
    is_confirmed: NDArray[np.bool_]
    """whether that match is confirmed, see `RETURN_CELLS` (rows, columns)"""


def make_reference(image: Image, network: Network, name: str = "the reference") -> Reference:
    """Prepare a colour photo to take colours from; a `ConfigError` if it has no colours or the model no features."""
    strides = _strides(network)
    pixels = flattened(image)
    small = shrink(pixels, *_size(pixels, strides), oversampling=1)
    lab = srgb_to_lab(np.broadcast_to(small, (*small.shape[:2], 3))).astype(np.float32)
    chroma = lab[..., 1:]
    if pixels.shape[2] == 1 or np.quantile(np.linalg.norm(chroma, axis=-1), 0.99) < LEAST_CHROMA:
        raise ConfigError(f"{name} has no colours to take; name a colour photo")
    digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
    maps = _maps(lab[..., 0], network, strides)
    return Reference(maps, _means(chroma, CELL_PX), digest, network.description.fingerprint())


def take_colours(
    pixels: Pixels, coarse: FloatArray, chroma: FloatArray, reference: Reference, network: Network
) -> tuple[FloatArray, float]:
    """Mix the colours of a reference into predicted chroma.

    Matched a*b* replaces the prediction as far as the reference reliably shows the same thing (`match_confidence`), and
    has the weight `SIMILAR_WEIGHT` where it shows a similar thing. Without a counterpart the prediction stays.
    `pixels` are those of the photo over white, `coarse` its L* (h, w) at the network's size, `chroma` the predicted
    a*b* (h, w, 2). Returns a*b* (h, w, 2), and the share of the photo that was found in the reference, 0 to 1. A
    `ConfigError` if the reference was made for another model.
    """
    if reference.model != network.description.fingerprint():
        raise ConfigError("`reference` should be made with the model that colours. Found another model's.")
    strides = _strides(network)
    small = shrink(pixels, *_size(pixels, strides), oversampling=1)
    light = lightness((small * 65535).round().astype(np.uint16))
    found = match(_maps(light, network, strides), reference)
    y, x = _centres(*coarse.shape)
    # colours follow the photo's own edges, which are finer than cells
    lines = chroma_lines(found.chroma, _means(light[..., None], CELL_PX)[..., 0])
    taken = chroma_at(lines, coarse, y, x)
    same, similar = match_confidence(found)
    share = interpolated(np.maximum(same, SIMILAR_WEIGHT * similar)[..., None], y, x)
    return (chroma + share * (taken - chroma)).astype(np.float32), float(same.mean())


def match_confidence(found: Match) -> tuple[FloatArray, FloatArray]:
    """Confidence, 0 to 1, that the reference shows the same thing, and a similar one, for each cell (rows, columns).

    "The same" needs many confirmed matches in the whole photo, because both must show one scene; and, at the cell, many
    confirmed matches around it or a similar counterpart.
    """
    confirmed = found.is_confirmed.astype(np.float32)
    scene = _ramp(confirmed.mean(), *SCENE_RANGE)
    similar = _local_means(_ramp(found.similarity, *SIMILARITY_RANGE), 3)
    return scene * np.maximum(_ramp(_local_means(confirmed, WINDOW), *TRUST_RANGE), similar), similar


def match(maps: Sequence[FloatArray], reference: Reference) -> Match:
    """Find the cells of a photo, given by `maps` (rows, columns, C) per stride, in a reference.

    The similarity of two cells is the mean over strides of the cosine of their features. Channels are standardised over
    both photos, so that channels that are large everywhere do not dominate.
    """
    (rows, columns), (height, width) = maps[0].shape[:2], reference.chroma.shape[:2]
    features = [_standardise(first, second) for first, second in zip(maps, reference.maps, strict=True)]
    colours = reference.chroma.reshape(-1, 2)
    best, most, taken = [], [], []
    back, back_most = np.zeros(height * width, np.intp), np.full(height * width, -np.inf, np.float32)
    # in blocks, because all pairs of cells of two panoramas would take more memory than the photos
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
    leads_back = _distances(returned, np.moveaxis(np.indices((rows, columns)), 0, -1)) <= RETURN_CELLS
    return Match(
        np.concatenate(taken).reshape(rows, columns, 2),
        np.concatenate(most).reshape(rows, columns),
        leads_back & (_neighbour_agreement(places) >= NEIGHBOUR_SHARE),
    )


def _neighbour_agreement(places: NDArray[np.int_]) -> FloatArray:
    """Share of the eight neighbours whose matches lie near the cell's own; a rotation of the scene does not matter."""
    rows, columns = places.shape[:2]
    around = np.pad(places, ((1, 1), (1, 1), (0, 0)), constant_values=-(10**6))
    is_near = [
        _distances(around[1 + down : 1 + down + rows, 1 + aside : 1 + aside + columns], places)
        <= NEIGHBOUR_CELLS
        for down in (-1, 0, 1)
        for aside in (-1, 0, 1)
        if down or aside
    ]
    return np.asarray(np.mean(is_near, 0), np.float32)


def _distances(first: NDArray[np.int_], second: NDArray[np.int_]) -> NDArray[np.float64]:
    return np.hypot(*np.moveaxis(first - second, -1, 0))


def _local_means(values: FloatArray, side: int) -> FloatArray:
    """Means over a square around each cell; borders are repeated."""
    padded = np.pad(values, side // 2, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, (side, side)).mean((2, 3))


def _ramp(values: Any, low: float, high: float) -> Any:
    """0 up to `low`, 1 from `high` on, linear between."""
    return ((values - low) / (high - low)).clip(0, 1)


def _standardise(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Features (cells, C) of both photos, channels standardised over both, then each cell scaled to length 1."""
    cells = [maps.reshape(-1, maps.shape[-1]) for maps in (first, second)]
    both = np.concatenate(cells)
    both = (both - both.mean(0)) / (both.std(0) + 1e-3)
    both /= np.linalg.norm(both, axis=1, keepdims=True) + 1e-6
    return both[: len(cells[0])], both[len(cells[0]) :]


def _strides(network: Network) -> list[int]:
    """Strides of the feature maps to compare."""
    names = [name for name in network.activation_names if name.startswith(FEATURES)]
    strides = [stride for name in names if (stride := int(name.removeprefix(FEATURES))) >= FINEST_STRIDE]
    if not strides:
        raise ConfigError(
            f"`model` should give feature maps to match a reference by. Found `{network.description.name}`, which "
            "gives none. Use another model, or export its run again."
        )
    return strides


def _size(pixels: Pixels, strides: Sequence[int]) -> tuple[int, int]:
    """Height and width at which a photo is matched: multiples of all strides, so that feature maps need no padding."""
    step = max(*strides, CELL_PX)
    height, width = working_size(pixels.shape[0], pixels.shape[1], MATCHED_AT_PX)
    return round(height / step) * step, round(width / step) * step


def _maps(light: FloatArray, network: Network, strides: Sequence[int]) -> tuple[FloatArray, ...]:
    """Features (rows, columns, C) of L* (h, w) per stride, averaged or interpolated to one value per cell."""
    found = network.predict(light[None], [f"{FEATURES}{stride}" for stride in strides]).activations
    y, x = _centres(*(side // CELL_PX for side in light.shape))
    maps = []
    for stride in strides:
        values = np.moveaxis(found[f"{FEATURES}{stride}"][0], 0, -1)
        is_finer = stride < CELL_PX
        maps.append(
            _means(values, CELL_PX // stride) if is_finer else interpolated(values, y, x).astype(np.float32)
        )
    return tuple(maps)


def _centres(rows: int, columns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres of a grid's cells as fractions of its height (rows, 1) and width (1, columns)."""
    return (np.arange(rows)[:, None] + 0.5) / rows, (np.arange(columns)[None] + 0.5) / columns


def _means(values: FloatArray, side: int) -> FloatArray:
    """Means of (h, w, C) over squares of a side."""
    height, width, channels = values.shape
    return values.reshape(height // side, side, width // side, side, channels).mean((1, 3))


ALBUM_SHARE = 0.4
"""Share of the distance to the album's colour by which a photo is moved."""
MOST_SHIFT = 4.0
"""Most CIELAB units by which a photo's mean is moved, so that one that truly differs, such as a sunset, still does."""
MOST_VIVID = 2.0
"""Multiple of the photo's mean chroma above which a pixel is not moved farther."""


class AlbumColour(NamedTuple):
    """Mean predicted a*b* of a photo, or that of an album, CIELAB units."""

    a: float
    b: float


def photo_colour(chroma: FloatArray) -> AlbumColour:
    """Mean of a*b* (h, w, 2), rounded to 0.01, because a prediction can differ below that with the batch."""
    a, b = np.round(chroma.mean((0, 1), dtype=np.float64), 2).tolist()
    return AlbumColour(a, b)


def colour_of_album(photos: Collection[AlbumColour]) -> AlbumColour:
    """The median a* and b* of an album's photos, which a few outliers do not change.

    >>> colour_of_album([AlbumColour(1, 2), AlbumColour(3, 2), AlbumColour(90, 90)])
    AlbumColour(a=3.0, b=2.0)
    """
    return AlbumColour(*np.median(np.array(list(photos)), axis=0).tolist())


def adapt_to_album(album: AlbumColour, chroma: FloatArray) -> FloatArray:
    """Move the mean of a photo's a*b* (h, w, 2) by `ALBUM_SHARE` towards an album's, by at most `MOST_SHIFT` units.

    A pixel is moved in proportion to its chroma, so that gray stays gray and white gets no tint.
    """
    shift = ALBUM_SHARE * (np.array(album) - photo_colour(chroma))
    shift *= min(1, MOST_SHIFT / max(float(np.hypot(*shift)), 1e-9))
    vividness = np.linalg.norm(chroma, axis=-1, keepdims=True)
    weight = (vividness / max(float(vividness.mean()), 1e-9)).clip(0, MOST_VIVID)
    return (chroma + weight * shift).astype(np.float32)
