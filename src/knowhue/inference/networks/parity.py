"""How far two ways of running one model answer apart."""

from collections.abc import Callable

import numpy as np

from knowhue.inference.networks.network import Answers, FloatArray

SIZES = ((1, 1, 1), (1, 32, 32), (3, 33, 95), (2, 64, 40), (1, 97, 160))
"""Images, height, width that are tried: one pixel, whole strides and not, batches."""

Predict = Callable[[FloatArray], Answers]


def largest_differences(expected: Predict, found: Predict) -> dict[str, float]:
    """Largest absolute difference by output, in its unit, over noise and smooth images of all `SIZES`.

    Other shapes differ infinitely, and so does an answer that only one gives; what is no number stays so.
    """
    worst: dict[str, float] = {}
    for lightness in trial_images():
        one, other = expected(lightness)._asdict(), found(lightness)._asdict()
        for name in one:
            if one[name] is not None or other[name] is not None:
                worst[name] = float(np.maximum(worst.get(name, 0.0), _difference(one[name], other[name])))
    return worst


def trial_images() -> list[FloatArray]:
    """L* (B, h, w) of noise and of smooth waves, the same every time."""
    generator = np.random.default_rng(0)
    images = []
    for count, height, width in SIZES:
        images.append(generator.uniform(0, 100, (count, height, width)).astype(np.float32))
        rows, columns = np.linspace(0, 3, height)[:, None], np.linspace(0, 2, width)
        turns = generator.uniform(0, 6, (count, 1, 1))
        images.append((50 + 50 * np.sin(rows + turns) * np.cos(columns)).astype(np.float32))
    return images


def _difference(one: FloatArray | None, other: FloatArray | None) -> float:
    if one is None or other is None or one.shape != other.shape:
        return float("inf")
    return float(np.abs(one - other).max())
