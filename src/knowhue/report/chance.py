"""Intervals from the stored scores of single pictures: of these very models, and of the method."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from knowhue.report.records import Run
from knowhue.statistics.crossed import crossed_interval
from knowhue.statistics.paired import Interval

COLUMNS: Mapping[str, str] = {"ab_l1": "ab_l1", "balanced_accuracy": "correct"}
"""The column of `per_image.csv` whose mean (for `correct`: over classes) a primary metric is."""

Pairs = Sequence[tuple[Run, Run]]


def picture_interval(pairs: Pairs, column: str) -> Interval | None:
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


def population_interval(pairs: Pairs, column: str) -> Interval | None:
    """Return the 95 % interval of the mean difference over the populations of seeds and of pictures.

    None with fewer than two seeds, or where a score is missing; `correct` counts each class the same.
    """
    table = _table(pairs, column)
    if table is None:
        return None
    differences, labels = table
    groups = np.unique(labels, return_inverse=True)[1] if column == "correct" else None
    return crossed_interval(differences, groups)


def _picture_differences(pairs: Pairs, column: str) -> list[np.ndarray]:
    """Return the second of each pair minus the first, mean over seeds: one group a class, or one of all."""
    table = _table(pairs, column)
    if table is None:
        return []
    differences, labels = table
    return [differences[:, labels == label].mean(axis=0) for label in sorted(set(labels))]


def _table(pairs: Pairs, column: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return differences (seeds, pictures) and the pictures' labels; None where a score is missing.

    Labels are names of classes for `correct`, of which unlabelled pictures have none, and empty otherwise.
    """
    by_class = column == "correct"
    rows = [
        {row["index"]: row for row in run.images if not by_class or row.get("label")}
        for pair in pairs
        for run in pair
    ]
    if not rows or any(each.keys() != rows[0].keys() for each in rows):
        return None
    scores = [[each[index].get(column) for index in rows[0]] for each in rows]
    if any(score is None for each in scores for score in each):
        return None
    values = np.array(scores, float)
    labels = np.array([row.get("label", "") if by_class else "" for row in rows[0].values()])
    return values[1::2] - values[::2], labels
