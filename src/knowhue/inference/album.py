"""One look for the photos of an album: the mean colour of each is drawn towards that of all.

How warm and how vivid a model paints a photo is partly chance, and so differs within an album where nothing does. A
photo's mean a*b* is an estimate with an error of its own, and estimates of many like things are better when each is
drawn towards their middle (James and Stein 1961, "Estimation with quadratic loss").
"""

import time
from collections.abc import Collection, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from knowhue.color import FloatArray
from knowhue.images.reading import read_image
from knowhue.inference.listing import Item
from knowhue.inference.networks import Predictions
from knowhue.inference.pipeline import Limits, Stages, progress, run
from knowhue.runs import Report

if TYPE_CHECKING:
    from knowhue.inference.colorizer import Colorizer

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


def survey(
    colorizer: "Colorizer", items: Sequence[Item], limits: Limits, report: Report
) -> dict[str, AlbumColour]:
    """The mean predicted colour of each image, by path, without those that cannot be read.

    They are read and predicted as for colouring, and nothing is kept of them but two numbers each.
    """
    stages = Stages(
        lambda item: colorizer.weigh(item.source),
        lambda item: colorizer.network_input(read_image(item.source)),
        colorizer.predict,
        lambda item, coarse, answer: _colour(answer),
        lambda coarse: coarse.shape,
    )
    found: dict[str, AlbumColour] = {}
    started = time.monotonic()
    with closing(run(stages, items, limits)) as outcomes:
        for done, (item, future) in enumerate(outcomes, 1):
            # what fails here fails again when it is to be coloured, and is told then
            if future.exception() is None:
                found[item.path] = future.result()
            report({"stage": "album"} | progress(started, done, len(items)))
    return found


def _colour(answer: Predictions) -> AlbumColour:
    assert answer.chroma is not None  # `require` was called
    return photo_colour(answer.chroma[0])
