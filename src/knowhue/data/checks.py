"""Checks of images before training (copies, class names) and the split of each image; no files are read."""

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from knowhue.data.items import UNLABELLED
from knowhue.errors import ImageError, shown
from knowhue.randomness import stream_seed
from knowhue.runs import UNKNOWN

BITS = 64
_COSINES, _THUMB = 8, 8
MAX_COLOUR_DIFFERENCE = 8.0
"""Mean absolute RGB difference of thumbnails, 0 to 255, from which images of similar layout are not copies.

Of 100 copies with 3 % cropped off, 99 differ by less; different real photos of similar layout differ by 20 or more.
"""
_LIKE_UNLABELLED = re.compile(r"un[\W_]?labell?ed", re.IGNORECASE)
_MAX_GAIN = 1.2
"""Largest ratio of brightness that is evened out before the colours of two images are compared."""
_CELLS = 2**16  # hashes compared at a time; their 0.5 MB fit into the processor's cache
_THUMBS = 1024  # thumbnails compared at a time
_MORE_BANDS = (10_000, 300_000)
"""Numbers of images above which close hashes are searched by one more band, because that is then faster."""
_MULTIPLIER, _UPPER = np.uint64(0x9E3779B97F4A7C15), np.uint64(2**64 - 2**32)
"""Factor of Fibonacci hashing (Knuth 1973), and the bits of the product that are used."""

Hashes = NDArray[np.uint64]  # (N,) hashes of `BITS` bits
Positions = NDArray[np.int64]  # (N,): positions of images or hashes
PositionPairs = NDArray[np.int64]  # (K, 2): positions of two images
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories: control, surrogate (Python's form of invalid UTF-8), line and paragraph separators."""


def checksum(rgb: NDArray[np.uint8]) -> str:
    """SHA-256 of an image's prepared pixels, which is equal for equal images in different files."""
    return hashlib.sha256(np.ascontiguousarray(rgb).tobytes()).hexdigest()


def source_checksum(image: Image.Image, origin: str = "") -> str:
    """SHA-256 of an image at full size, whatever size it is prepared at.

    For an image that is generated at the requested size, the digest of its `origin`.
    """
    found = hashlib.sha256(origin.encode())
    if not origin:
        found.update(f"{image.mode} {image.width}x{image.height} ".encode())
        found.update(image.tobytes())
    return found.hexdigest()


def split_off(names: Sequence[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Choose images of a class for splits other than training, by the same shares in every class.

    Each image's rank depends only on its name and the seed, so adding or removing an image moves at most the images at
    the borders between splits. Shares, together below 1, are rounded to at least one image.

    >>> list(split_off("vwxyz", {"test": 0.2, "validation": 0.4}, 0).values())
    ['test', 'validation', 'validation']
    """
    ordered = iter(sorted(names, key=lambda name: stream_seed(seed, "split", name)))
    counts = {split: max(1, round(share * len(names))) for split, share in shares.items()}
    return {name: split for split, count in counts.items() for name in islice(ordered, count)}


def check_class_names(names: Iterable[str]) -> None:
    """Check that class names can be shown in figures, tables and predictions; otherwise an `ImageError`."""
    for name in sorted(names):
        if name == UNKNOWN or _LIKE_UNLABELLED.fullmatch(name):
            why = "models answer so if unsure" if name == UNKNOWN else "it means that there is none"
            raise ImageError(
                f"A class should not be called `{name}`, because {why}. Rename it; images of unknown class are called "
                f"`{UNLABELLED}`, and train colour only."
            )
        if not name.strip() or any(unicodedata.category(sign) in _UNPRINTABLE for sign in name):
            raise ImageError(
                "The name of a class should be printable text: no control characters, and UTF-8. "
                f"Found {shown(ascii(name))}. Rename its folder."
            )


def similar_names(names: Iterable[str]) -> list[str]:
    """Sentences on class names that differ only in case, spaces, underscores or hyphens, and could mean one class.

    >>> similar_names(["Sea lion", "reef", "sea_lion"])
    ['The classes `Sea lion` and `sea_lion` are different; if they should be one, give them one name']
    """
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        alike[re.sub(r"[\s_-]+", "", name.casefold())].append(name)
    pairs = [pair for each in alike.values() for pair in pairwise(each)]
    return [
        f"The classes `{one}` and `{other}` are different; if they should be one, give them one name"
        for one, other in pairs
    ]


class Signatures(NamedTuple):
    """Features by which near-duplicates are found."""

    upright: Hashes
    """(N,), perceptual hashes of `BITS` bits"""
    mirrored: Hashes
    """(N,), hashes of the mirror images"""
    thumbs: NDArray[np.uint8]
    """(N, 8, 8, 3) uint8 sRGB"""


def signatures(blocks: Iterable[NDArray[np.uint8]]) -> Signatures:
    """Hashes and thumbnails of images.

    The hash is pHash: its bits say which of the 64 lowest coefficients of the gray image's cosine transform are above
    their median. Mirroring changes the sign of every second column, so it needs no second transform.

    Args:
        blocks: sRGB images (B, side, side, 3), with the same side in all blocks.
    """
    # an empty first block, because `concatenate` refuses an empty list
    parts = [_signatures(np.zeros((0, _THUMB, _THUMB, 3), np.uint8)), *map(_signatures, blocks)]
    return Signatures(*map(np.concatenate, zip(*parts, strict=True)))


def find_near_duplicates(found: Signatures, limit_bits: int, known: int | None = None) -> dict[int, int]:
    """Positions of images that resemble an earlier image that is kept, and the position of the first such image.

    An image is only compared with images that are kept; one that resembles only a copy is kept, too.

    Args:
        found: signatures, ordered so that the copy to keep comes first.
        limit_bits: largest number of bits in which hashes of copies differ, 0 to 16 of `BITS`.
        known: if given, the first `known` images are kept, and the others are compared with these alone.
    """
    # equal hashes are searched once, because all pairs of a million images of one layout would not fit into memory
    layouts, layout = np.unique(np.stack(found[:2], 1), axis=0, return_inverse=True)
    layout = layout.reshape(-1)  # NumPy 2.0.0 gives a column
    near, sizes = _near_layouts(layouts, limit_bits), np.bincount(layout, minlength=len(layouts))
    kept: defaultdict[int, list[int]] = defaultdict(list)
    for place, number in enumerate(layout[:known].tolist() if known else ()):
        kept[number].append(place)
    copies: dict[int, int] = {}
    has_similar = np.array([sizes[k] > 1 or k in near for k in range(len(layouts))], dtype=bool)[layout]
    for place in np.flatnonzero(has_similar).tolist():
        number = int(layout[place])
        if known is not None and place < known:
            continue
        similar = (*near.get(number, ()), (number, False))
        firsts = [_first_similar(found.thumbs, kept[other], place, mirrored) for other, mirrored in similar]
        if originals := [first for first in firsts if first is not None]:
            copies[place] = min(originals)
        elif known is None:
            kept[number].append(place)
    return copies


def _near_layouts(layouts: NDArray[np.uint64], limit_bits: int) -> Mapping[int, list[tuple[int, bool]]]:
    """For each layout (upright and mirrored hash), the close layouts, and whether those are close when mirrored."""
    near: defaultdict[int, list[tuple[int, bool]]] = defaultdict(list)
    upright, mirrored = close_pairs(layouts[:, 0], layouts[:, 1], limit_bits)
    for first, second in upright.tolist():
        near[first].append((second, False))
        near[second].append((first, False))
    itself = np.flatnonzero(np.bitwise_count(layouts[:, 0] ^ layouts[:, 1]) <= limit_bits)
    for first, second in (*mirrored.tolist(), *zip(itself.tolist(), itself.tolist(), strict=True)):
        near[second].append((first, True))
    return near


def close_pairs(upright: Hashes, mirrored: Hashes, limit_bits: int) -> tuple[PositionPairs, PositionPairs]:
    """Pairs i < j of which `upright` differ in at most `limit_bits` bits, and i != j of which `upright`, `mirrored` do.

    The bits are cut into `limit_bits + few` bands, so that close hashes agree in at least `few` bands. For every choice
    of `few` bands, the hashes that agree in them are compared (Manku, Jain and Das Sarma 2007). The result is exact for
    any `few`; more hashes are compared with less work if it is larger.

    >>> upright, mirrored = close_pairs(np.array([0, 9], np.uint64), np.array([0, 1], np.uint64), 1)
    >>> upright.tolist(), mirrored.tolist()
    ([], [[0, 1]])
    """
    hashes, count = np.concatenate([upright, mirrored]), len(upright)
    few = 1 + sum(count > images for images in _MORE_BANDS)
    bands = _bands(limit_bits + few)
    hits = [np.zeros((0, 2), np.int64)]
    for chosen in combinations(range(len(bands)), few):
        mask = bands[list(chosen)].sum()
        for i, j in _close_in_group(hashes, mask, limit_bits):
            differing = hashes[i] ^ hashes[j]
            # pairs that agree in more bands are only counted for the first `few` of these
            agreeing = ((differing[:, None] & bands[: chosen[-1] + 1]) == 0).sum(1)
            is_pair = np.where(j < count, i < j, i != j - count)
            is_first = ((differing & mask) == 0) & (agreeing == few) & is_pair
            hits.append(np.stack((i, j), 1)[is_first])
    pairs = np.concatenate(hits)
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    is_upright = pairs[:, 1] < count
    return pairs[is_upright], pairs[~is_upright] - [0, count]


def _bands(count: int) -> NDArray[np.uint64]:
    """Masks that cut the bits of a hash into `count` bands."""
    edges = np.linspace(0, BITS, count + 1).astype(int).tolist()
    return np.array([(1 << stop) - (1 << start) for start, stop in pairwise(edges)], np.uint64)


def _group_by_mask(hashes: Hashes, mask: np.uint64) -> tuple[Positions, Positions]:
    """Positions of hashes, grouped by the bits of a mask, and with how many of the following each is compared.

    Hashes in the second half are mirrored, and never compared with each other.
    """
    # hash and position in one number of 32 bits each, because sorting numbers is far faster than `argsort`
    keys = ((hashes & mask) * _MULTIPLIER) & _UPPER | np.arange(len(hashes), dtype=np.uint64)
    keys.sort()
    order = (keys & ~_UPPER).astype(np.int64)
    keys &= _UPPER
    ends = np.append(np.flatnonzero(keys[1:] != keys[:-1]) + 1, len(keys))
    last = np.repeat(ends, np.diff(ends, prepend=0))
    return order, np.where(order < len(hashes) // 2, last - np.arange(1, len(hashes) + 1), 0)


def _close_in_group(
    hashes: Hashes, mask: np.uint64, limit_bits: int
) -> Iterator[tuple[Positions, Positions]]:
    """Blocks of positions (i, j) of hashes that agree in a mask and are close."""
    order, counts = _group_by_mask(hashes, mask)
    hashes = hashes[order]
    full = np.arange(_CELLS, counts.sum(), _CELLS)
    cuts = np.unique(np.concatenate([[0], np.searchsorted(counts.cumsum(), full), [len(order)]]))
    for start, stop in pairwise(cuts.tolist()):
        lengths = counts[start:stop]
        ends = lengths.cumsum()
        # for each hash, the places that follow its own
        other = np.arange(lengths.sum()) + np.repeat(np.arange(start + 1, stop + 1) - ends + lengths, lengths)
        differing = np.repeat(hashes[start:stop], lengths) ^ hashes[other]
        (close,) = np.nonzero(np.bitwise_count(differing) <= limit_bits)
        yield order[start + np.searchsorted(ends, close, side="right")], order[other[close]]


def _first_similar(
    thumbs: NDArray[np.uint8], places: Sequence[int], place: int, is_mirrored: bool
) -> int | None:
    """The first of `places` whose thumbnail equals that of `place`, or its mirror image, except in brightness."""
    other = (thumbs[place, :, ::-1] if is_mirrored else thumbs[place]).astype(np.float32)
    for start in range(0, len(places), _THUMBS):
        part = places[start : start + _THUMBS]
        one = thumbs[part].astype(np.float32)
        # + 1 because a thumbnail can be black
        gain = ((one.mean((1, 2, 3)) + 1) / (other.mean() + 1)).clip(1 / _MAX_GAIN, _MAX_GAIN)
        difference = np.abs(one - gain[:, None, None, None] * other).mean((1, 2, 3))
        if len(alike := np.flatnonzero(difference < MAX_COLOUR_DIFFERENCE)):
            return part[int(alike[0])]
    return None


def _signatures(images: NDArray[np.uint8]) -> Signatures:
    rgb, place = images.astype(np.float32), np.arange(images.shape[1])
    # (8, side): the lowest frequencies of the cosine transform (DCT-II)
    waves = np.cos(np.pi * np.arange(_COSINES)[:, None] * ((place + 0.5) / len(place))) / len(place)
    cosines = waves.astype(np.float32)
    # (8, side): weights of the mean over each eighth of a side; pixels on a border count in both
    edges = np.linspace(0, len(place), _THUMB + 1)
    share = (np.minimum(edges[1:, None], place + 1) - np.maximum(edges[:-1, None], place)).clip(0)
    shrink = (share / share.sum(1, keepdims=True)).astype(np.float32)
    # luma of ITU-R BT.601
    gray = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    coefficients = (cosines @ gray @ cosines.T).round(3)  # 0 for a flat image, instead of rounding noise
    sign = 1 - 2 * (np.arange(_COSINES) % 2)
    thumbs = (shrink @ rgb.transpose(0, 3, 1, 2) @ shrink.T).transpose(0, 2, 3, 1)
    upright, mirrored = _above_median(coefficients), _above_median(coefficients * sign)
    return Signatures(upright, mirrored, thumbs.round().astype(np.uint8))


def _above_median(coefficients: NDArray[np.floating[Any]]) -> NDArray[np.uint64]:
    """One bit per coefficient; the first, the mean brightness, is 0 and does not count in the median."""
    flat = coefficients.reshape(-1, BITS)
    above = flat > np.median(flat[:, 1:], axis=1, keepdims=True)
    above[:, 0] = False
    return np.packbits(above, axis=1).view(np.uint64)[:, 0]
