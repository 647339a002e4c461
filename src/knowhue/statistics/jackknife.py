"""What chance leaves of a number that a whole set has, such as a distance of sets: groups of images are left out."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from knowhue.statistics import FEWEST_IMAGES
from knowhue.statistics.clustered import ClusteredMean

GROUPS = 20
"""Left out one at a time: more would take longer, and Student's t of 19 degrees of freedom is hardly wider."""


def deal_groups(count: int, clusters: Sequence[Hashable] = ()) -> NDArray[np.int64]:
    """The number of the group, (N,), of each image: `GROUPS` of about one size, or fewer.

    Args:
        count: N; of fewer than `FEWEST_IMAGES` all are one group, which tells nothing.
        clusters: (N,), whom each image belongs to: a cluster is never parted, the largest are dealt first. Without
            them neighbours stay together.

    >>> deal_groups(40)[:5].tolist(), deal_groups(20, ["a", "b", "b", "c"] * 5)[:4].tolist()
    ([0, 0, 1, 1, 2], [1, 0, 0, 2])
    """
    if count < FEWEST_IMAGES:
        return np.zeros(count, np.int64)
    if not len(clusters):
        return np.arange(count) * GROUPS // count
    sizes = np.zeros(min(GROUPS, len(set(clusters))), np.int64)
    group: dict[Hashable, int] = {}
    for name, size in Counter(clusters).most_common():
        group[name] = int(sizes.argmin())
        sizes[group[name]] += size
    return np.array([group[name] for name in clusters])


def jackknifed(estimate: float, left_out: NDArray[np.float64], sizes: NDArray[np.int64]) -> ClusteredMean:
    """An estimate freed of its bias of order 1 / N (Quenouille 1956), and its standard error.

    The delete-a-group jackknife for groups of unequal sizes of Busing, Meijer and van der Leeden (Statistics and
    Computing 9, 1999, equations 5 to 8). A Frechet distance is larger the fewer images it is of, by about 1 / N; a
    bootstrap sees that bias twice, the jackknife takes it away.

    Args:
        estimate: of all images; or the difference of two systems' estimates.
        left_out: (G,), the same without each group.
        sizes: (G,), images of each group. Of fewer than two groups the error is infinite.
    """
    if len(sizes) < 2:
        return ClusteredMean(estimate, float("inf"), 0)
    times = sizes.sum() / sizes
    pseudo = times * estimate - (times - 1) * left_out
    corrected = float((pseudo / times).sum())
    variance = float(((pseudo - corrected) ** 2 / (times - 1)).mean())
    return ClusteredMean(corrected, variance**0.5, len(sizes) - 1)
