"""Several questions at once: adjusted p values, to be compared with the level one would use for one question."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Adjust for the chance of any false positive (Holm 1979), whatever the dependence.

    The i-th smallest of m becomes `max over j <= i of (m - j + 1) p_j`, at most 1. For the co-primary questions.

    Args:
        p: p value by question.

    Returns:
        Adjusted p by question, in the same order.

    Raises:
        ValueError: a p value is not in 0..1.

    >>> holm({"colour": 0.01, "class": 0.04})
    {'colour': 0.02, 'class': 0.04}
    """
    values, order = _sorted(p)
    steps = values * np.arange(len(values), 0, -1)
    return _named(p, order, np.maximum.accumulate(steps))


def benjamini_hochberg(p: Mapping[str, float]) -> dict[str, float]:
    """Adjust for the expected share of false positives among the positives (Benjamini and Hochberg 1995).

    The i-th smallest of m becomes `min over j >= i of m p_j / j`, at most 1. For the secondary metrics; valid
    under independence or positive dependence.

    Args:
        p: p value by metric.

    Returns:
        Adjusted p by metric, in the same order.

    Raises:
        ValueError: a p value is not in 0..1.

    >>> benjamini_hochberg({"psnr": 0.01, "ssim": 0.04, "fid": 0.04})
    {'psnr': 0.03, 'ssim': 0.04, 'fid': 0.04}
    """
    values, order = _sorted(p)
    steps = values * len(values) / np.arange(1, len(values) + 1)
    return _named(p, order, np.minimum.accumulate(steps[::-1])[::-1])


def _sorted(p: Mapping[str, float]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the values in rising order and where each came from."""
    values = np.array(list(p.values()), float)
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError(f"`p` should be in 0..1. Found `p = {dict(p)}`.")
    order = np.argsort(values, kind="stable")
    return values[order], order


def _named(
    p: Mapping[str, float], order: NDArray[np.intp], adjusted: NDArray[np.float64]
) -> dict[str, float]:
    restored = np.empty_like(adjusted)
    restored[order] = np.minimum(adjusted, 1)
    return dict(zip(p, restored.tolist(), strict=True))
