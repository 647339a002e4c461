"""Images that change sides: right with one model and wrong with the other, which a mean cancels."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Flips(NamedTuple):
    """Shares of all images that changed sides, over all seeds and of each seed."""

    right_to_wrong: float
    wrong_to_right: float
    right_to_wrong_by_seed: tuple[float, ...]
    wrong_to_right_by_seed: tuple[float, ...]


def flips(before: ArrayLike, after: ArrayLike) -> Flips:
    """Count the images that single-task had right and multi-task has wrong, and the reverse.

    The second share minus the first is the change of accuracy.

    Args:
        before: (seeds, images) 1 where single-task is right, 0 where it is wrong.
        after: the same of multi-task.

    Raises:
        ValueError: the shapes differ or are empty, or a value is neither 0 nor 1.

    >>> flips([[1, 1, 0, 0]], [[0, 1, 1, 1]])[:2]
    (0.25, 0.5)
    """
    first, second = np.asarray(before, float), np.asarray(after, float)
    if first.ndim != 2 or first.shape != second.shape or not first.size:
        raise ValueError(
            "`before` and `after` should be of one shape (seeds, images), not empty. "
            f"Found `before.shape = {first.shape}, after.shape = {second.shape}`."
        )
    for name, values in (("before", first), ("after", second)):
        odd = values[(values != 0) & (values != 1)]
        if odd.size:
            raise ValueError(f"`{name}` should be 0 or 1 everywhere. Found `{odd[0]}`.")
    lost = (first > second).mean(axis=1)
    won = (first < second).mean(axis=1)
    return Flips(float(lost.mean()), float(won.mean()), tuple(lost.tolist()), tuple(won.tolist()))
