"""Intervals of paired differences: over seeds for a claim, over pictures for these very models."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from knowhue.report.records import Run

Interval = tuple[float, float]


def seed_interval(differences: np.ndarray) -> Interval | None:
    """Return the 95 % interval of the mean of paired differences over seeds, by Student's t.

    >>> [round(end, 3) for end in seed_interval(np.array([1.0, 2.0, 3.0]))]
    [-0.484, 4.484]
    """
    if len(differences) < 2:
        return None
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    return float(differences.mean() - half), float(differences.mean() + half)


def picture_interval(pairs: Sequence[tuple[Run, Run]], column: str) -> Interval | None:
    """Return the 95 % normal interval of the mean difference over the pictures of these runs.

    Differences are averaged over seeds first, so a picture counts once. For `correct` the pictures are
    grouped by class and each class counts the same, as in balanced accuracy; None where a score is missing.
    """
    groups = _picture_differences(pairs, column)
    if not groups or min(map(len, groups)) < 2:
        return None
    centre = float(np.mean([group.mean() for group in groups]))
    variance = sum(group.var(ddof=1) / len(group) for group in groups) / len(groups) ** 2
    half = stats.norm.ppf(0.975) * math.sqrt(variance)
    return float(centre - half), float(centre + half)


def _picture_differences(pairs: Sequence[tuple[Run, Run]], column: str) -> list[np.ndarray]:
    """Return multi minus single per picture, mean over seeds: one group a class, or one of all pictures."""
    sums: dict[int, list[float]] = {}
    labels: dict[int, str] = {}
    for single, multi in pairs:
        known = {row["index"]: row.get(column) for row in single.images}
        for row in multi.images:
            if column == "correct" and not row.get("label"):
                continue  # an unlabelled picture has no right answer
            before, after = known.get(row["index"]), row.get(column)
            if before is None or after is None:
                return []
            sums.setdefault(row["index"], []).append(after - before)
            labels[row["index"]] = row.get("label", "") if column == "correct" else ""
    return [
        np.array([np.mean(values) for index, values in sums.items() if labels[index] == label])
        for label in sorted(set(labels.values()))
    ]
