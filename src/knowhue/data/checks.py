"""Which images may not take part, and which split each belongs to; pure."""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from knowhue.errors import ImageError
from knowhue.randomness import stream_seed


def colourfulness(rgb: NDArray[np.uint8]) -> float:
    """Colourfulness M3 of Hasler and Suesstrunk 2003, on signed opponent values as they define them.

    Args:
        rgb: (H, W, 3) sRGB, 0 to 255.

    Returns:
        0 for gray; about 15 is slight, 45 average, 109 extreme.

    >>> colourfulness(np.full((4, 4, 3), 99, np.uint8))
    0.0
    """
    red, green, blue = np.moveaxis(rgb.astype(np.float64), -1, 0)
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    centre = np.hypot(red_green.mean(), yellow_blue.mean())
    return float(spread + 0.3 * centre)


def checksum(rgb: NDArray[np.uint8]) -> str:
    """SHA-256 of the prepared pixels: equal images are found whatever file they came in."""
    return hashlib.sha256(np.ascontiguousarray(rgb).tobytes()).hexdigest()


def source_checksum(image: Image.Image, origin: str = "") -> str:
    """SHA-256 of an image before it is resized: the same whatever size it is prepared at.

    Args:
        image: sRGB, upright, at full size.
        origin: what the image is made from, if it can be made at any size; its pixels tell nothing then.
    """
    found = hashlib.sha256(origin.encode())
    if not origin:
        found.update(f"{image.mode} {image.width}x{image.height} ".encode())
        found.update(image.tobytes())
    return found.hexdigest()


def order_of_choice(names: Sequence[str], labels: Sequence[str | None], splits: Sequence[str]) -> list[int]:
    """Positions in an order in which, of several copies, the first is the one to keep.

    What is reported on is never trained on, so test images come first, then validation images; an image with a label
    comes before one without, and `reef.jpg` before `reef (1).jpg`.
    """
    rank = {"test": 0, "validation": 1, "train": 2}
    return sorted(
        range(len(names)),
        key=lambda i: (rank[splits[i]], labels[i] is None, len(names[i]), names[i]),
    )


def find_duplicates(checksums: Sequence[str]) -> dict[int, int]:
    """Positions of images that stand before, too, and where they first do.

    >>> find_duplicates(["x", "y", "x"])
    {2: 0}
    """
    first: dict[str, int] = {}
    seen = [first.setdefault(checksum, position) for position, checksum in enumerate(checksums)]
    return {position: original for position, original in enumerate(seen) if original != position}


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
    for label in sorted(unique(labels)):
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


_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories: control, surrogate (how Python holds bytes that are no UTF-8), line and paragraph separators."""


def unique(labels: Iterable[str | None]) -> set[str]:
    """The class names among labels."""
    return {label for label in labels if label is not None}
