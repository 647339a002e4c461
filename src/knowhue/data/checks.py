"""Which pictures may not take part, and why; pure."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


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
    """SHA-256 of the prepared pixels: equal pictures are found whatever file they came in."""
    return hashlib.sha256(np.ascontiguousarray(rgb).tobytes()).hexdigest()


def find_duplicates(names: Sequence[str], parts: Sequence[str], checksums: Sequence[str]) -> dict[int, str]:
    """Positions of pictures that stand elsewhere too, with the reason.

    Validation pictures are looked at first, so that a training copy of one is the copy that goes.

    >>> find_duplicates(["a", "b"], ["train", "validation"], ["x", "x"])
    {0: 'duplicate of b (validation)'}
    """
    order = sorted(range(len(names)), key=lambda i: (parts[i] != "validation", i))
    first: dict[str, int] = {}
    reasons: dict[int, str] = {}
    for position in order:
        original = first.setdefault(checksums[position], position)
        if original != position:
            reasons[position] = f"duplicate of {names[original]} ({parts[original]})"
    return reasons


def stratified_split(labels: Sequence[str | None], share: float, generator: np.random.Generator) -> list[str]:
    """Give each picture a part; every class gives the same share, unlabelled pictures train.

    Args:
        labels: class name, or None where unknown.
        share: of each class for validation, above 0 and below 1; rounded, at least one picture.
        generator: chooses them.

    >>> stratified_split(["a", "a", "b", "b", None], 0.5, np.random.default_rng(0)).count("validation")
    2
    """
    parts = ["train"] * len(labels)
    for name in sorted(unique(labels)):
        members = [i for i, label in enumerate(labels) if label == name]
        chosen = generator.permutation(members)[: max(1, round(share * len(members)))]
        for position in chosen:
            parts[position] = "validation"
    return parts


def unique(labels: Iterable[str | None]) -> set[str]:
    """The class names among labels."""
    return {label for label in labels if label is not None}
