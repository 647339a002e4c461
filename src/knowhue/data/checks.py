"""Which images may not take part (copies, odd class names), and which split each belongs to; pure."""

import hashlib
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations, islice, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from knowhue.data.items import UNLABELLED
from knowhue.errors import ImageError
from knowhue.randomness import stream_seed
from knowhue.runs import UNKNOWN

BITS = 64
_COSINES, _THUMB = 8, 8
MAX_COLOUR_DIFFERENCE = 8.0
"""Mean absolute RGB difference of thumbnails, 0 to 255, from which images of like layout are not copies.

Of 100 copies with 3 % cropped off, 99 differ by less; different real photos of like layout by 20 or more.
"""
_LIKE_UNLABELLED = re.compile(r"un[\W_]?labell?ed", re.IGNORECASE)
_MAX_GAIN = 1.2
"""Brightness that copies may differ in before their colours are compared."""
_CELLS = 2**16
"""Comparisons at a time: their 0.5 MB stay in the processor's cache."""
_THUMBS = 1024
"""Thumbnails that are compared at once."""
_MOST_AGREEING = 4
"""Bands of a hash that are to agree; more of them are chosen in thousands of ways."""
_SORTING = 12
"""What it takes to sort a hash into its place, in comparisons."""
_MULTIPLIER, _UPPER = np.uint64(0x9E3779B97F4A7C15), np.uint64(2**64 - 2**32)
"""Of Fibonacci hashing (Knuth 1973), and the bits of its value that are used."""

PositionPairs = NDArray[np.int64]
"""(K, 2): positions of two images."""
_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories: control, surrogate (how Python holds bytes that are no UTF-8), line and paragraph separators."""


def checksum(rgb: NDArray[np.uint8]) -> str:
    """SHA-256 of the prepared pixels: equal images are found whatever file they came in."""
    return hashlib.sha256(np.ascontiguousarray(rgb).tobytes()).hexdigest()


def source_checksum(image: Image.Image, origin: str = "") -> str:
    """SHA-256 of an image at full size: the same whatever size it is prepared at.

    Of one that can be made at any size, it is that of what it is made from, for its pixels identify nothing.
    """
    found = hashlib.sha256(origin.encode())
    if not origin:
        found.update(f"{image.mode} {image.width}x{image.height} ".encode())
        found.update(image.tobytes())
    return found.hexdigest()


def split_off(names: Sequence[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Choose the images of a class that leave training, and their splits; every class gives the same shares.

    It is put in an order that its images' names and the seed decide one by one, so an image more or less moves no
    other, but for the one at the border. Shares, together below 1, are rounded to at least one image.

    >>> list(split_off("vwxyz", {"test": 0.2, "validation": 0.4}, 0).values())
    ['test', 'validation', 'validation']
    """
    ordered = iter(sorted(names, key=lambda name: stream_seed(seed, "split", name)))
    counts = {split: max(1, round(share * len(names))) for split, share in shares.items()}
    return {name: split for split, count in counts.items() for name in islice(ordered, count)}


def refuse_odd_names(names: Iterable[str]) -> None:
    """Class names go into figures, tables and answers: what these cannot hold is refused before anything is read.

    Raises:
        ImageError: a name is empty, is not UTF-8, holds control characters, or means that there is no class.
    """
    for name in sorted(names):
        if name == UNKNOWN or _LIKE_UNLABELLED.fullmatch(name):
            why = "so a model answers where it is sure of none" if name == UNKNOWN else "that reads as none"
            raise ImageError(
                f"A class should not be called `{name}`: {why}. Rename it; images whose class nobody knows are called "
                f"`{UNLABELLED}`, and train colour only."
            )
        if not name.strip() or any(unicodedata.category(sign) in _NO_TEXT for sign in name):
            raise ImageError(
                "The name of a class should be printable text: no control characters, and UTF-8. "
                f"Found {name!a}. Rename its folder."
            )


def alike_names(names: Iterable[str]) -> list[str]:
    """Sentences on classes whose names differ only in case or in what is between words: they may be meant as one.

    >>> alike_names(["Sea lion", "reef", "sea_lion"])
    ['The classes `Sea lion` and `sea_lion` are two; give them one spelling if they are one']
    """
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        alike[re.sub(r"[\s_-]+", "", name.casefold())].append(name)
    pairs = [pair for each in alike.values() for pair in pairwise(each)]
    return [
        f"The classes `{one}` and `{other}` are two; give them one spelling if they are one"
        for one, other in pairs
    ]


class Signatures(NamedTuple):
    """What near-duplicates are found by."""

    upright: NDArray[np.uint64]
    """(N,) uint64, `BITS` signs of the layout in gray"""
    mirrored: NDArray[np.uint64]
    """(N,) uint64, the same of each image's mirror image"""
    thumbs: NDArray[np.uint8]
    """(N, 8, 8, 3) uint8 sRGB"""


def signatures(blocks: Iterable[NDArray[np.uint8]]) -> Signatures:
    """Describe images in a few bytes each.

    The hash is pHash: of the 64 lowest coefficients of a cosine transform of the gray image, which lie
    above their median. Mirroring changes the sign of every second column, so it costs no second transform.

    Args:
        blocks: images (B, side, side, 3), sRGB, of one side throughout.
    """
    # concatenate refuses an empty list
    parts = [_signatures(np.zeros((0, _THUMB, _THUMB, 3), np.uint8)), *map(_signatures, blocks)]
    return Signatures(*map(np.concatenate, zip(*parts, strict=True)))


def find_near_duplicates(found: Signatures, limit_bits: int, known: int | None = None) -> dict[int, int]:
    """Positions of images that resemble one before them that stays, and the first such.

    An image is only compared with those that stay: what resembles a copy alone stays too.

    Args:
        found: signatures, those first that are kept of several copies.
        limit_bits: bits of `BITS` that the hashes of copies may differ in, 0 to 16.
        known: None, or how many stay, at the beginning; the others are compared with these alone.
    """
    # equal hashes are one in the search: of a million images of one layout all pairs would not fit into memory
    layouts, layout = np.unique(np.stack(found[:2], 1), axis=0, return_inverse=True)
    layout = layout.reshape(-1)  # NumPy 2.0.0 gives a column
    near, sizes = _near_layouts(layouts, limit_bits), np.bincount(layout, minlength=len(layouts))
    stay: defaultdict[int, list[int]] = defaultdict(list)
    for place, own in enumerate(layout[:known].tolist() if known else ()):
        stay[own].append(place)
    copies: dict[int, int] = {}
    has_company = np.array([sizes[own] > 1 or own in near for own in range(len(layouts))], dtype=bool)[layout]
    for place in np.flatnonzero(has_company).tolist():
        own = int(layout[place])
        if known is not None and place < known:
            continue
        options = [(stay[other], is_mirrored) for other, is_mirrored in (*near.get(own, ()), (own, False))]
        firsts = [_first_alike(found.thumbs, places, place, is_mirrored) for places, is_mirrored in options]
        if originals := [first for first in firsts if first is not None]:
            copies[place] = min(originals)
        elif known is None:
            stay[own].append(place)
    return copies


def _near_layouts(layouts: NDArray[np.uint64], limit_bits: int) -> Mapping[int, list[tuple[int, bool]]]:
    """Of each pair of hashes, upright and mirrored, those that are close to it, and whether they are by mirroring."""
    near: defaultdict[int, list[tuple[int, bool]]] = defaultdict(list)
    upright, mirrored = close_pairs(layouts[:, 0], layouts[:, 1], limit_bits)
    for first, second in upright.tolist():
        near[first].append((second, False))
        near[second].append((first, False))
    itself = np.flatnonzero(np.bitwise_count(layouts[:, 0] ^ layouts[:, 1]) <= limit_bits)
    for first, second in (*mirrored.tolist(), *zip(itself.tolist(), itself.tolist(), strict=True)):
        near[second].append((first, True))
    return near


def close_pairs(
    upright: NDArray[np.uint64], mirrored: NDArray[np.uint64], limit_bits: int
) -> tuple[PositionPairs, PositionPairs]:
    """Every i < j whose `upright` differ in at most so many bits, and other i, j whose `upright[i]`, `mirrored[j]` do.

    The bits are cut into `limit_bits` bands and a few more, so that close hashes agree in those few at least. For every
    choice of a few bands, hashes are compared that agree in them (Manku, Jain and Das Sarma 2007). It is exact whatever
    their number, which is the one that takes the least work: the more hashes, the more bands.

    >>> upright, mirrored = close_pairs(np.array([0, 9], np.uint64), np.array([0, 1], np.uint64), 1)
    >>> upright.tolist(), mirrored.tolist()
    ([], [[0, 1]])
    """
    hashes, count = np.concatenate([upright, mirrored]), len(upright)
    few = min(range(1, _MOST_AGREEING + 1), key=partial(_work, hashes, limit_bits))
    bands = _bands(limit_bits + few)
    hits = [np.zeros((0, 2), np.int64)]
    for chosen in combinations(range(len(bands)), few):
        mask = bands[list(chosen)].sum()
        for i, j in _compared(hashes, mask, limit_bits):
            differing = hashes[i] ^ hashes[j]
            # who agrees in more bands is found in the first few of them
            agreeing = ((differing[:, None] & bands[: chosen[-1] + 1]) == 0).sum(1)
            is_pair = np.where(j < count, i < j, i != j - count)
            is_first = ((differing & mask) == 0) & (agreeing == few) & is_pair
            hits.append(np.stack((i, j), 1)[is_first])
    pairs = np.concatenate(hits)
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    is_upright = pairs[:, 1] < count
    return pairs[is_upright], pairs[~is_upright] - [0, count]


def _bands(count: int) -> NDArray[np.uint64]:
    """The bits of a hash, cut into so many masks."""
    edges = np.linspace(0, BITS, count + 1).astype(int).tolist()
    return np.array([(1 << stop) - (1 << start) for start, stop in pairwise(edges)], np.uint64)


def _work(hashes: NDArray[np.uint64], limit_bits: int, few: int) -> float:
    """Of agreeing in a few bands, in comparisons; how many there are is tried on the first bands."""
    bands = _bands(limit_bits + few)
    _, counts = _sorted(hashes, bands[:few].sum())
    return math.comb(len(bands), few) * (_SORTING * len(hashes) + int(counts.sum()))


def _sorted(hashes: NDArray[np.uint64], mask: np.uint64) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of hashes, those together that agree in a mask, and with how many of the next each is compared.

    The second half are mirrored, and compared with none.
    """
    # in 32 bits, for sorting one number is far quicker than finding an order: equal where the masked bits are
    keys = ((hashes & mask) * _MULTIPLIER) & _UPPER | np.arange(len(hashes), dtype=np.uint64)
    keys.sort()
    order = (keys & ~_UPPER).astype(np.int64)
    keys &= _UPPER
    ends = np.append(np.flatnonzero(keys[1:] != keys[:-1]) + 1, len(keys))
    last = np.repeat(ends, np.diff(ends, prepend=0))
    return order, np.where(order < len(hashes) // 2, last - np.arange(1, len(hashes) + 1), 0)


def _compared(
    hashes: NDArray[np.uint64], mask: np.uint64, limit_bits: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions of hashes that agree in a mask and are close."""
    order, counts = _sorted(hashes, mask)
    hashes = hashes[order]
    full = np.arange(_CELLS, counts.sum(), _CELLS)
    cuts = np.unique(np.concatenate([[0], np.searchsorted(counts.cumsum(), full), [len(order)]]))
    for start, stop in pairwise(cuts.tolist()):
        own = counts[start:stop]
        ends = own.cumsum()
        # the places after each one's own
        other = np.arange(own.sum()) + np.repeat(np.arange(start + 1, stop + 1) - ends + own, own)
        differing = np.repeat(hashes[start:stop], own) ^ hashes[other]
        (close,) = np.nonzero(np.bitwise_count(differing) <= limit_bits)
        yield order[start + np.searchsorted(ends, close, side="right")], order[other[close]]


def _first_alike(
    thumbs: NDArray[np.uint8], places: Sequence[int], place: int, is_mirrored: bool
) -> int | None:
    """The first of some images whose thumbnail is another's, or its mirror image's, in all but brightness."""
    other = (thumbs[place, :, ::-1] if is_mirrored else thumbs[place]).astype(np.float32)
    for start in range(0, len(places), _THUMBS):
        part = places[start : start + _THUMBS]
        one = thumbs[part].astype(np.float32)
        # + 1: a thumbnail may be black
        gain = ((one.mean((1, 2, 3)) + 1) / (other.mean() + 1)).clip(1 / _MAX_GAIN, _MAX_GAIN)
        difference = np.abs(one - gain[:, None, None, None] * other).mean((1, 2, 3))
        if len(alike := np.flatnonzero(difference < MAX_COLOUR_DIFFERENCE)):
            return part[int(alike[0])]
    return None


def _signatures(images: NDArray[np.uint8]) -> Signatures:
    rgb, place = images.astype(np.float32), np.arange(images.shape[1])
    # (8, side): the slowest waves of the cosine transform (DCT-II)
    waves = np.cos(np.pi * np.arange(_COSINES)[:, None] * ((place + 0.5) / len(place))) / len(place)
    cosines = waves.astype(np.float32)
    # (8, side): the mean over each eighth of a side, pixels shared where eighths cut through them
    edges = np.linspace(0, len(place), _THUMB + 1)
    share = (np.minimum(edges[1:, None], place + 1) - np.maximum(edges[:-1, None], place)).clip(0)
    shrink = (share / share.sum(1, keepdims=True)).astype(np.float32)
    # luma of ITU-R BT.601
    gray = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    coefficients = (cosines @ gray @ cosines.T).round(3)  # of a flat image 0, not the noise of rounding
    sign = 1 - 2 * (np.arange(_COSINES) % 2)
    thumbs = (shrink @ rgb.transpose(0, 3, 1, 2) @ shrink.T).transpose(0, 2, 3, 1)
    upright, mirrored = _above_median(coefficients), _above_median(coefficients * sign)
    return Signatures(upright, mirrored, thumbs.round().astype(np.uint8))


def _above_median(coefficients: NDArray[np.floating[Any]]) -> NDArray[np.uint64]:
    """One bit a coefficient; the first is the mean brightness and has no part in the median."""
    flat = coefficients.reshape(-1, BITS)
    above = flat > np.median(flat[:, 1:], axis=1, keepdims=True)
    above[:, 0] = False
    return np.packbits(above, axis=1).view(np.uint64)[:, 0]
