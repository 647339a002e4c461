"""Which test images a tuning study has seen, whatever size either study prepared them at."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from knowhue.data.near_duplicates import Signatures, near_pairs, signatures
from knowhue.data.prepared import Prepared, kept_rows, load_prepared

DIGESTS = ("source_sha256", "sha256")
"""An image is the same by either: at full size, or as it was prepared."""
_BLOCK = 256


def count_seen(folder: Path, tuned: Path, limit_bits: int) -> int:
    """Count the test images of `folder` that `tuned` trained on or chose settings by.

    Args:
        folder: prepared images of the study that reports.
        tuned: prepared images of the tuning study; whatever it did not keep for its own test split was seen.
        limit_bits: `images.duplicate_distance_bits`; 0 finds equal images alone, not near-duplicates.

    Raises:
        RunError: nothing is prepared in one of the folders, or it was changed.
    """
    ours, theirs = (load_prepared(each, thorough=False) for each in (folder, tuned))
    test, seen = ours.positions("test"), np.flatnonzero(theirs.split != "test")
    again = _equal(folder, test, tuned, seen)
    if limit_bits and len(test) and len(seen):
        again |= _near(_signatures(ours, test), _signatures(theirs, seen), limit_bits)
    return int(again.sum())


def _equal(folder: Path, test: NDArray[np.int64], tuned: Path, seen: NDArray[np.int64]) -> NDArray[np.bool_]:
    ours, theirs = kept_rows(folder), kept_rows(tuned)
    known = {theirs[i][name] for i in seen for name in DIGESTS}
    return np.array([any(ours[i][name] in known for name in DIGESTS) for i in test], dtype=bool)


def _near(test: Signatures, seen: Signatures, limit_bits: int) -> NDArray[np.bool_]:
    count = len(test.upright)
    both = Signatures(
        np.concatenate((test.upright, seen.upright)),
        np.concatenate((test.mirrored, seen.mirrored)),
        np.concatenate((test.thumbs, seen.thumbs)),
    )
    pairs = near_pairs(both, limit_bits)
    again = np.zeros(count, dtype=bool)
    again[pairs[(pairs[:, 0] < count) & (pairs[:, 1] >= count), 0]] = True
    return again


def _signatures(prepared: Prepared, positions: NDArray[np.int64]) -> Signatures:
    return signatures(prepared.rgb[positions[at : at + _BLOCK]] for at in range(0, len(positions), _BLOCK))
