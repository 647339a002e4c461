"""Which images may not take part (copies, odd class names), and which split each belongs to; pure."""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from knowhue.errors import ImageError
from knowhue.randomness import stream_seed

BITS = 64
_COSINES, _THUMB = 8, 8
MAX_COLOUR_DIFFERENCE = 8.0
"""Mean absolute RGB difference of thumbnails, 0 to 255, from which images of like layout are not copies.

Of 100 copies with 3 % cropped off, 99 differ by less; different real photos of like layout by 20 or more.
"""
_MAX_GAIN = 1.2
"""Brightness that copies may differ in before their colours are compared."""
_CELLS = 2**16
"""Comparisons at a time: their 0.5 MB stay in the processor's cache."""

PositionPairs = NDArray[np.int64]
"""(K, 2): positions of two images, the smaller first."""
_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories: control, surrogate (how Python holds bytes that are no UTF-8), line and paragraph separators."""


def checksum(rgb: NDArray[np.uint8]) -> str:
    """SHA-256 of the prepared pixels: equal images are found whatever file they came in."""
    return hashlib.sha256(np.ascontiguousarray(rgb).tobytes()).hexdigest()


def source_checksum(image: Image.Image, origin: str = "") -> str:
    """SHA-256 of an image before it is resized: the same whatever size it is prepared at.

    Args:
        image: sRGB, upright, at full size.
        origin: what the image is made from, if it can be made at any size; its pixels identify nothing then.
    """
    found = hashlib.sha256(origin.encode())
    if not origin:
        found.update(f"{image.mode} {image.width}x{image.height} ".encode())
        found.update(image.tobytes())
    return found.hexdigest()


def stratified_split(
    labels: Sequence[str | None], names: Sequence[str], shares: Mapping[str, float], seed: int
) -> list[str]:
    """Give each image a split; every class gives the same shares, unlabelled images train.

    Each class is put in an order that its images' names and the seed decide one by one, so an image more or less
    moves no other, but for the one at the border.

    Args:
        labels: class name, or None where unknown.
        names: of the images, all different.
        shares: of each class, by split, together below 1; rounded, at least one image. The rest trains.
        seed: of the order.

    >>> stratified_split(["a", "a", "b", "b", None], "vwxyz", {"validation": 0.5}, 0).count("validation")
    2
    """
    splits = ["train"] * len(labels)
    for label in sorted({label for label in labels if label is not None}):
        members = [i for i, each in enumerate(labels) if each == label]
        members.sort(key=lambda i: stream_seed(seed, "split", names[i]))
        taken = 0
        for split, share in shares.items():
            count = max(1, round(share * len(members)))
            for position in members[taken : taken + count]:
                splits[position] = split
            taken += count
    return splits


def refuse_odd_names(names: Iterable[str]) -> None:
    """Class names go into figures, tables and pages: what these cannot hold is refused before anything is read.

    Raises:
        ImageError: a name is empty, is not UTF-8, or holds control characters.
    """
    for name in sorted(names):
        if not name.strip() or any(unicodedata.category(sign) in _NO_TEXT for sign in name):
            raise ImageError(
                "The name of a class should be printable text: no control characters, and UTF-8. "
                f"Found {name!a}. Rename its folder."
            )


class Signatures(NamedTuple):
    """What near-duplicates are found by.

    Attributes:
        upright: (N,) uint64, `BITS` signs of the layout in gray.
        mirrored: (N,) uint64, the same of each image's mirror image.
        thumbs: (N, 8, 8, 3) uint8 sRGB.
    """

    upright: NDArray[np.uint64]
    mirrored: NDArray[np.uint64]
    thumbs: NDArray[np.uint8]


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


def find_near_duplicates(found: Signatures, limit_bits: int) -> dict[int, int]:
    """Positions of images that resemble one before them that stays, and which that is.

    An image is only compared with those that stay: what resembles a copy alone stays too.

    Args:
        found: signatures, those first that are kept of several copies.
        limit_bits: bits of `BITS` that the hashes of copies may differ in, 0 to 16.
    """
    copies: dict[int, int] = {}
    for original, copy in near_pairs(found, limit_bits).tolist():
        if original not in copies and copy not in copies:
            copies[copy] = original
    return copies


def near_pairs(found: Signatures, limit_bits: int) -> PositionPairs:
    """Every pair alike in layout and colour, upright or mirrored, in the order of the second, then the first."""
    both = [
        _alike(close_pairs(found.upright, hashes, limit_bits), found.thumbs, thumbs)
        for hashes, thumbs in ((found.upright, found.thumbs), (found.mirrored, found.thumbs[:, :, ::-1]))
    ]
    pairs = np.unique(np.concatenate(both), axis=0)
    return pairs[np.lexsort(pairs.T)]


def close_pairs(first: NDArray[np.uint64], second: NDArray[np.uint64], limit_bits: int) -> PositionPairs:
    """Every i < j for which `first[i]` and `second[j]` differ in at most `limit_bits` bits.

    The bits are cut into one band more than may differ, so that close hashes agree in one band at least, and
    only hashes that do are compared (Norouzi, Punjani and Fleet 2012): exact, a tenth of the work at 8 bits.

    >>> close_pairs(np.array([0, 9], np.uint64), np.array([0, 1], np.uint64), 1).tolist()
    [[0, 1]]
    """
    hits = [np.zeros((0, 2), np.int64)]
    for start, stop in pairwise(np.linspace(0, BITS, limit_bits + 2).astype(int).tolist()):
        mask = np.uint64((1 << (stop - start)) - 1)
        for rows, columns in _groups(*((each >> np.uint64(start)) & mask for each in (first, second))):
            count = max(1, _CELLS // len(columns))
            for part in (rows[at : at + count] for at in range(0, len(rows), count)):
                differing = np.bitwise_count(first[part, None] ^ second[columns])
                i, j = np.nonzero(differing <= limit_bits)
                pairs = np.stack((part[i], columns[j]), 1)
                hits.append(pairs[pairs[:, 0] < pairs[:, 1]])
    # a pair that agrees in several bands is found in each
    return np.unique(np.concatenate(hits), axis=0)


def _groups(
    first: NDArray[np.uint64], second: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions in both of each key that both have."""
    rows, columns = (np.argsort(keys, kind="stable") for keys in (first, second))
    shared = np.intersect1d(first, second)
    edges = [
        np.searchsorted(keys, shared, side=side)
        for keys in (first[rows], second[columns])
        for side in ("left", "right")
    ]
    # one at a time: of a million images there are nearly as many
    for start, stop, other_start, other_stop in zip(*edges, strict=True):
        yield rows[start:stop], columns[other_start:other_stop]


def _alike(pairs: PositionPairs, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> PositionPairs:
    """The pairs whose thumbnails have the same colours but for brightness."""
    # concatenate refuses an empty list
    kept = [np.zeros((0, 2), np.int64)]
    for start in range(0, len(pairs), 4096):
        part = pairs[start : start + 4096]
        one, other = first[part[:, 0]].astype(np.float32), second[part[:, 1]].astype(np.float32)
        # + 1: a thumbnail may be black
        gain = (one.mean((1, 2, 3)) + 1) / (other.mean((1, 2, 3)) + 1)
        gain = gain.clip(1 / _MAX_GAIN, _MAX_GAIN)[:, None, None, None]
        kept.append(part[np.abs(one - gain * other).mean((1, 2, 3)) < MAX_COLOUR_DIFFERENCE])
    return np.concatenate(kept)


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
