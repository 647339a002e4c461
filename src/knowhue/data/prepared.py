"""What a folder of prepared images holds, read back, checked, and compared with what a tuning study has seen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from knowhue.config import digest
from knowhue.data.checks import Signatures, near_pairs, signatures
from knowhue.errors import RunError
from knowhue.storage import file_digest, read_array, read_csv, read_json

PREPARED_VERSION = 5
"""Of how images are read and prepared; arrays of another one are made anew, or refused under runs."""
SPLITS = ("train", "validation", "test")
MANIFEST_COLUMNS = (
    "index",
    "path",
    "split",
    "label",
    "status",
    "reason",
    "colourfulness",
    "width",
    "height",
    "sha256",
    "source_sha256",
)
ARRAY, MANIFEST, SUMMARY = "images.npy", "manifest.csv", "prepared.json"

_DIGESTS = ("source_sha256", "sha256")
"""An image is the same by either: at full size, or as it was prepared."""

ManifestRow = dict[str, str]
"""A line of the manifest."""


@dataclass(frozen=True)
class Prepared:
    """Images ready to train on.

    Attributes:
        classes: names, in the order of the label indices.
        rgb: (N, size, size, 3) uint8 sRGB, memory-mapped.
        label: (N,) class index, -1 where unknown.
        split: (N,) which of `SPLITS` each image belongs to.
        paths: where each image came from.
        fingerprint: changes when any image, label or split does.
        evaluated_on: `Evaluation.split`.
    """

    classes: tuple[str, ...]
    rgb: NDArray[np.uint8]
    label: NDArray[np.int64]
    split: NDArray[np.str_]
    paths: tuple[str, ...]
    fingerprint: str
    evaluated_on: Literal["auto", "validation"] = "auto"

    def positions(self, split: str) -> NDArray[np.int64]:
        """Indices of the images of a split, ascending."""
        return np.flatnonzero(self.split == split)

    @property
    def reporting_split(self) -> str:
        """The split that final scores, tables and samples are from: test if there is one, unless something is tuned."""
        has_test = bool((self.split == "test").any())
        return "test" if has_test and self.evaluated_on == "auto" else "validation"


def load_prepared(
    folder: Path, evaluated_on: Literal["auto", "validation"] = "auto", thorough: bool = True
) -> Prepared:
    """Open what `prepare` made, if it is still what was written.

    Args:
        folder: of the prepared images.
        evaluated_on: `Evaluation.split`.
        thorough: read the whole array once for its checksum; a command needs that once, its workers need it not again.

    Raises:
        RunError: nothing is prepared there, or a file was changed or damaged; which one is named.
    """
    summary = read_summary(folder)
    if damage := find_damage(folder, summary, thorough):
        raise RunError(
            f"{damage} since the images were prepared. Delete `{folder}` and run the study again, which prepares them "
            "anew. To leave an image out, take it from where the images come from, and name another folder with --out."
        )
    kept = kept_rows(folder)
    number = {name: i for i, name in enumerate(summary["classes"])}
    return Prepared(
        classes=tuple(summary["classes"]),
        rgb=read_array(folder / ARRAY, memory_map=True),
        label=np.array([number.get(row["label"], -1) for row in kept], dtype=np.int64),
        split=np.array([row["split"] for row in kept]),
        paths=tuple(row["path"] for row in kept),
        fingerprint=summary["fingerprint"],
        evaluated_on=evaluated_on,
    )


def read_summary(folder: Path) -> dict[str, Any]:
    """`prepared.json`, which is written last and vouches for the other two files.

    Raises:
        RunError: it is missing, damaged, or of another version.
    """
    path = folder / SUMMARY
    summary = read_json(path)
    needed = {"version", "key", "fingerprint", "classes", "counts", "checksums"}
    if (
        not isinstance(summary, dict)
        or not needed <= summary.keys()
        or summary["version"] != PREPARED_VERSION
    ):
        raise RunError(
            f"`{path}` is damaged, or of another version of knowhue. Delete `{folder}` and run the study again, which "
            "prepares the images anew."
        )
    return summary


def find_damage(folder: Path, summary: dict[str, Any], thorough: bool = True) -> str:
    """Which file is not what was written, as the beginning of a sentence; nothing if all are.

    Rows and images must agree: a row taken out of the manifest would shift every label after it.
    """
    # the manifest is small, and is checked every time
    for name in (MANIFEST, ARRAY) if thorough else (MANIFEST,):
        path = folder / name
        if not path.is_file():
            return f"`{path}` was removed"
        if file_digest(path) != summary["checksums"].get(name):
            return f"`{path}` was changed or damaged"
    try:
        kept, array = kept_rows(folder), read_array(folder / ARRAY, memory_map=True)
    except (RunError, KeyError):
        return f"`{folder / MANIFEST}` or `{folder / ARRAY}` was changed or damaged"
    is_whole = (
        len(kept) == len(array)
        and [row["index"] for row in kept] == [str(i) for i in range(len(kept))]
        and identify(kept) == summary["fingerprint"]
    )
    return "" if is_whole else f"`{folder / MANIFEST}` was changed"


def identify(kept: list[ManifestRow]) -> str:
    """The SHA-256 of prepared images: of their pixels, labels and splits, in order."""
    return digest([(row["sha256"], row["label"], row["split"]) for row in kept])


def kept_rows(folder: Path) -> list[ManifestRow]:
    """The manifest's lines of the images that are used, in the order of the array."""
    return [row for row in read_csv(folder / MANIFEST) if row["status"] == "kept"]


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
        again |= _near(_sign(ours, test), _sign(theirs, seen), limit_bits)
    return int(again.sum())


def _equal(folder: Path, test: NDArray[np.int64], tuned: Path, seen: NDArray[np.int64]) -> NDArray[np.bool_]:
    ours, theirs = kept_rows(folder), kept_rows(tuned)
    known = {theirs[i][name] for i in seen for name in _DIGESTS}
    return np.array([any(ours[i][name] in known for name in _DIGESTS) for i in test], dtype=bool)


def _near(test: Signatures, seen: Signatures, limit_bits: int) -> NDArray[np.bool_]:
    count = len(test.upright)
    both = Signatures(
        np.concatenate((test.upright, seen.upright)),
        np.concatenate((test.mirrored, seen.mirrored)),
        np.concatenate((test.thumbs, seen.thumbs)),
    )
    pairs = near_pairs(both, limit_bits)
    # pairs within one of the two studies say nothing of the other
    again = np.zeros(count, dtype=bool)
    again[pairs[(pairs[:, 0] < count) & (pairs[:, 1] >= count), 0]] = True
    return again


def _sign(prepared: Prepared, positions: NDArray[np.int64]) -> Signatures:
    return signatures(prepared.rgb[positions[at : at + 256]] for at in range(0, len(positions), 256))
