"""DISTANCES: how far a set of colourings lies from the true images, in the features of a named network."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.evaluation.networks import Network, Unavailable

Features = NDArray[np.floating[Any]]
"""(N, D): one row an image."""
ENOUGH = 2048
"""Images below which a Frechet distance in thousands of dimensions is mostly bias."""
_BLOCK = 1024


class Distance(NamedTuple):
    """A number for two sets of features; lower is closer."""

    title: str
    network: str
    between: Callable[[Features, Features], float]


def frechet(first: Features, second: Features) -> float:
    """Frechet distance between the Gaussians of two sets (Heusel et al. 2017), in float64.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). With S = R^T R from a QR decomposition of the centred
    features, the trace of the root is the sum of the singular values of R1 R2^T: no root of an
    ill-conditioned product is taken, and no imaginary part dropped.

    Args:
        first: (N, D), two images or more.
        second: (M, D), two or more.

    Returns:
        At least 0 up to rounding; biased upwards by small samples.

    Raises:
        ValueError: D differs, or a set has fewer than two rows.

    >>> round(frechet(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]])), 6)
    9.0
    """
    _check(first, second)
    roots = [_root(np.asarray(each, np.float64)) for each in (first, second)]
    shift = np.asarray(first, np.float64).mean(0) - np.asarray(second, np.float64).mean(0)
    overlap = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return float(shift @ shift + sum((root**2).sum() for root in roots) - 2 * overlap)


def kernel_distance(first: Features, second: Features) -> float:
    """Unbiased squared MMD with the kernel (x y / D + 1)^3 (Binkowski et al. 2018), in float64.

    Over all pairs of images rather than over random subsets, so it has no seed.

    Args:
        first: (N, D), two images or more.
        second: (M, D), two or more.

    Returns:
        0 on average between samples of one distribution, so it may be negative.

    Raises:
        ValueError: D differs, or a set has fewer than two rows.
    """
    _check(first, second)
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return _within(x) + _within(y) - 2 * _kernel_sum(x, y) / (len(x) * len(y))


DISTANCES: dict[str, Distance] = {
    "fd_lite0": Distance("Fréchet distance, EfficientNet-Lite0", "lite0", frechet),
    "kd_lite0": Distance("Kernel distance, EfficientNet-Lite0", "lite0", kernel_distance),
    "fid": Distance("Fréchet Inception Distance (FID)", "inception", frechet),
    "kid": Distance("Kernel Inception Distance (KID)", "inception", kernel_distance),
}


def measure(
    features: Mapping[str, Features],
    truth: Mapping[str, Features],
    networks: Mapping[str, Network | Unavailable],
) -> dict[str, dict[str, Any]]:
    """Every distance of `DISTANCES` with all that it must be quoted with, or why there is none.

    Args:
        features: of the colourings, by network.
        truth: of the true validation images, by network.
        networks: see `open_networks`.
    """
    return {
        name: {"title": distance.title, "better": "lower"}
        | _entry(
            distance, features.get(distance.network), truth.get(distance.network), networks[distance.network]
        )
        for name, distance in DISTANCES.items()
    }


def _entry(
    distance: Distance, features: Features | None, truth: Features | None, network: Network | Unavailable
) -> dict[str, Any]:
    if isinstance(network, Unavailable):
        return {"value": None, "reason": network.reason}
    if features is None or truth is None or min(len(features), len(truth)) < 2:
        return {"value": None, "reason": "not computed: fewer than two images"}
    if not np.isfinite(features).all():
        return {"value": None, "reason": "not computed: some colourings are not numbers"}
    sizes = {"images": len(features), "reference_images": len(truth)}
    return {
        "value": distance.between(features, truth),
        **network.provenance,
        **sizes,
        **_warning(features, truth),
    }


def _warning(features: Features, truth: Features) -> dict[str, str]:
    smallest, needed = min(len(features), len(truth)), max(ENOUGH, features.shape[1])
    if smallest >= needed:
        return {}
    text = f"{smallest} images are fewer than {needed}: mostly bias; compare only with rows of the same sample sizes"
    return {"warning": text}


def _root(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """R with R^T R the sample covariance."""
    centred = features - features.mean(0)
    return np.linalg.qr(centred, mode="r") / np.sqrt(len(features) - 1)


def _within(x: NDArray[np.float64]) -> float:
    """Mean kernel of different images of one set."""
    own = (((x * x).sum(1) / x.shape[1] + 1) ** 3).sum()
    return (_kernel_sum(x, x) - own) / (len(x) * (len(x) - 1))


def _kernel_sum(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Sum over all pairs, block by block so that memory stays small."""
    starts = range(0, len(x), _BLOCK)
    return float(sum(((x[start : start + _BLOCK] @ y.T / x.shape[1] + 1) ** 3).sum() for start in starts))


def _check(first: Features, second: Features) -> None:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            f"`first` and `second` should be (N, D) and (M, D). Found {first.shape} and {second.shape}."
        )
    if min(len(first), len(second)) < 2:
        raise ValueError(
            f"`first` and `second` should have 2 rows or more. Found {len(first)} and {len(second)}."
        )
