"""Decode, check, split and resize every image once; what training reads is one array and its manifest."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray
from PIL import Image, ImageOps

from knowhue.color import colourfulness
from knowhue.config import Images, digest, fingerprint
from knowhue.data import checks
from knowhue.data.sources import SourceItem, list_items, require_apart
from knowhue.errors import ImageError, RunError
from knowhue.images.files import counted, kinds_of
from knowhue.locks import locked
from knowhue.runs import Report, images_in_use, remove_if_empty, require_writable
from knowhue.storage import (
    allocate,
    clear_leftovers,
    file_digest,
    read_array,
    read_csv,
    read_json,
    replacing,
    write_csv,
    write_json,
)

PREPARED_VERSION = 5
"""Of how images are read and prepared; arrays of another one are made anew, or refused under runs."""
SPLITS = ("train", "validation", "test")
MANIFEST_COLUMNS = (
    "index", "path", "split", "label", "status", "reason",
    "colourfulness", "width", "height", "sha256", "source_sha256",
)  # fmt: skip
ARRAY, MANIFEST, SUMMARY = "images.npy", "manifest.csv", "prepared.json"
_DIGESTS = ("source_sha256", "sha256")
"""An image is the same by either: at full size, or as it was prepared."""

ManifestRow = dict[str, str]
"""A line of the manifest, by `MANIFEST_COLUMNS`; `status` is kept, left out or skipped."""


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


def prepare(
    images: Images,
    folder: Path,
    report: Report = lambda _: None,
    evaluated_on: Literal["auto", "validation"] = "auto",
) -> Prepared:
    """Make `folder` hold the configured images; work already done is not repeated, damage heals.

    Args:
        images: where they come from, their size, the rules.
        folder: where the array, the manifest and the summary go; below the study folder.
        report: called with `{"stage": "prepare", "done": n, "total": n}`, and in one note what was left out.
        evaluated_on: `Evaluation.split`.

    Raises:
        ImageError: no images, one class, or too few of one; what was left out is in the message.
        ConfigError: it lies among the images.
        RunError: the folder cannot be written, or runs beside it were trained on other images.
    """
    require_apart(images, folder.parent)
    items = list_items(images)
    checks.refuse_odd_names({item.label for item in items if item.label is not None})
    stamps = [(item.name, item.split, item.label, item.stamp) for item in items if not item.skipped]
    # whatever would give another array: how it is prepared, the settings, the files as they are now
    key = fingerprint([PREPARED_VERSION, images.model_dump(mode="json"), stamps])
    with locked(folder.parent, "prepare"):
        # under the lock: another process may just be preparing the same images
        if not _is_there(folder, key, report):
            _prepare(items, images, folder, key, report)
    if sentence := left_out_sentence(read_summary(folder)):
        report({"stage": "note", "text": f"{sentence}; see {folder.name}/{MANIFEST}"})
    # the checksum of the array was just compared, or just made
    return load_prepared(folder, evaluated_on, thorough=False)


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
    if not needed <= summary.keys() or summary["version"] != PREPARED_VERSION:
        raise RunError(
            f"`{path}` is damaged, or of another version of knowhue. Delete `{folder}` and run the study again, which "
            "prepares the images anew."
        )
    return summary


def kept_rows(folder: Path) -> list[ManifestRow]:
    """The manifest's lines of the images that are used, in the order of the array."""
    return [row for row in read_csv(folder / MANIFEST) if row["status"] == "kept"]


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
        kept, count = kept_rows(folder), len(read_array(folder / ARRAY, memory_map=True))
    except (RunError, KeyError):
        return f"`{folder / MANIFEST}` or `{folder / ARRAY}` was changed or damaged"
    in_order = [row["index"] for row in kept] == [str(i) for i in range(count)]
    is_whole = in_order and _identify(kept) == summary["fingerprint"]
    return "" if is_whole else f"`{folder / MANIFEST}` was changed"


def _identify(kept: Sequence[ManifestRow]) -> str:
    """The SHA-256 of prepared images: of their pixels, labels and splits, in order."""
    return digest([(row["sha256"], row["label"], row["split"]) for row in kept])


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
    our_rows, their_rows = kept_rows(folder), kept_rows(tuned)
    known = {their_rows[i][name] for i in seen for name in _DIGESTS}
    again = np.array([any(our_rows[i][name] in known for name in _DIGESTS) for i in test], dtype=bool)
    if limit_bits:
        both = checks.signatures(chain(_blocks(ours.rgb, test), _blocks(theirs.rgb, seen)))
        first, second = checks.near_pairs(both, limit_bits).T
        # pairs within one of the two studies say nothing of the other
        again[first[(first < len(test)) & (second >= len(test))]] = True
    return int(again.sum())


def _blocks(
    rgb: NDArray[np.uint8], positions: Sequence[int] | NDArray[np.int64]
) -> Iterator[NDArray[np.uint8]]:
    """Some images, a few megabytes at a time."""
    return (rgb[positions[at : at + 256]] for at in range(0, len(positions), 256))


def left_out_sentence(summary: dict[str, Any]) -> str:
    """What was left out and skipped, counted; nothing if everything is used.

    >>> left_out_sentence({"left_out": [{"reason": "near-gray: 3"}], "skipped": {"hidden": 2}, "images": 9})
    '1 of 9 images left out (1 near-gray); 2 other files skipped (2 hidden)'
    """
    parts = []
    if reasons := [row["reason"] for row in summary["left_out"]]:
        parts.append(f"{len(reasons)} of {summary['images']} images left out ({counted(reasons)})")
    if skipped := list(Counter(summary["skipped"]).elements()):
        parts.append(f"{len(skipped)} other file{'s' * (len(skipped) != 1)} skipped ({counted(skipped)})")
    return "; ".join(parts)


def _is_there(folder: Path, key: str, report: Report) -> bool:
    """Whether the folder holds these images, whole."""
    try:
        summary = read_summary(folder) if (folder / SUMMARY).exists() else {"key": None}
    except RunError:
        return False
    if summary["key"] != key:
        return False
    if damage := find_damage(folder, summary):
        report({"stage": "note", "text": f"{damage} since the images were prepared: they are prepared anew"})
    return not damage


def _prepare(items: list[SourceItem], images: Images, folder: Path, key: str, report: Report) -> None:
    require_writable(folder)
    side, listed = images.size_px, [item for item in items if not item.skipped]
    folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder / ARRAY)  # they may be as large as all images
    try:
        # how many are kept is known at the end alone, so all are read into an array that nobody else has
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{ARRAY}.") as scratch:
            array = allocate(Path(scratch) / ARRAY, (len(listed), side, side, 3), np.uint8)
            rows = list(_read_all(listed, images, array, report))
            _choose(rows, listed, array, images)
            # of all images, so that a class that lost all of its own is reported, not forgotten
            classes = sorted({item.label for item in listed if item.label is not None})
            _require_enough(rows, classes, images)
            kept = [i for i, row in enumerate(rows) if not row["reason"]]
            for index, i in enumerate(kept):
                rows[i] |= {"index": str(index), "status": "kept"}
            identity = _identify([rows[i] for i in kept])
            _refuse_change_under_runs(folder, identity)
            skipped = [item for item in items if item.skipped]
            rows += [_row(path=item.name, status="skipped", reason=item.skipped) for item in skipped]
            _write(rows, array, kept, folder)
    finally:
        # a refusal leaves no folder behind
        remove_if_empty(folder)
    checksums = {name: file_digest(folder / name) for name in (MANIFEST, ARRAY)}
    described = {"key": key, "fingerprint": identity, "checksums": checksums}
    write_json(
        folder / SUMMARY, {"version": PREPARED_VERSION, **_summary(rows, classes, images), **described}
    )


def _row(**values: str) -> ManifestRow:
    return dict.fromkeys(MANIFEST_COLUMNS, "") | values


def _read_all(
    items: Sequence[SourceItem], images: Images, array: NDArray[np.uint8], report: Report
) -> Iterator[ManifestRow]:
    """Read every image, several at a time, into its row of `array`."""
    # threads are enough, since decoding and resizing release Python's lock
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda i: _read(items[i], images, array[i]), range(len(items)))
        for done, row in enumerate(found, start=1):
            yield row
            report({"stage": "prepare", "done": done, "total": len(items)})


def _read(item: SourceItem, images: Images, out: NDArray[np.uint8]) -> ManifestRow:
    """Put an image into `out`; its line of the manifest, with a reason if it cannot be used."""
    row = _row(
        path=item.name, label=item.label or "", status="left out", colourfulness="0.00", width="0", height="0"
    )
    try:
        image = item.load()
    except ImageError as error:
        return row | {"reason": str(error)}
    # crops the middle to a square, so that nothing is stretched
    out[:] = np.asarray(ImageOps.fit(image, out.shape[:2], Image.Resampling.LANCZOS))
    (colour,) = colourfulness(np.moveaxis(out[None], -1, 1).astype(np.float64)).tolist()
    gray = f"near-gray: colourfulness {colour:.1f} is below {images.min_colourfulness:g}"
    return row | {
        "reason": gray if colour < images.min_colourfulness else "",
        "colourfulness": f"{colour:.2f}",
        "width": str(image.width),
        "height": str(image.height),
        "sha256": checks.checksum(out),
        "source_sha256": checks.source_checksum(image, item.origin),
    }


def _choose(
    rows: list[ManifestRow], items: list[SourceItem], array: NDArray[np.uint8], images: Images
) -> None:
    """Write into the rows the split of each image, and why a copy is left out.

    What is damaged, near-gray or a copy goes first, the rest is split: it never moves the split.
    """
    names, labels = [item.name for item in items], [item.label for item in items]
    order = checks.order_of_choice(names, labels, [item.split for item in items])
    order = [i for i in order if not rows[i]["reason"]]
    equal = checks.find_duplicates([rows[i]["sha256"] for i in order])
    copies = {order[a]: (order[b], "duplicate") for a, b in equal.items()}
    order = [i for i in order if i not in copies]
    if images.duplicate_distance_bits:
        found = checks.signatures(_blocks(array, order))
        near = checks.find_near_duplicates(found, images.duplicate_distance_bits)
        copies |= {order[a]: (order[b], "near-duplicate") for a, b in near.items()}
    splits = [item.split for item in items]
    # splits that the source does not give are split off from its training images
    shares = {"test": images.test_share, "validation": images.validation_share}
    missing = {split: share for split, share in shares.items() if share and split not in splits}
    pool = [i for i in sorted(order) if i not in copies and splits[i] == "train"]
    chosen = checks.stratified_split(
        [labels[i] for i in pool], [names[i] for i in pool], missing, images.split_seed
    )
    for i, split in zip(pool, chosen, strict=True):
        splits[i] = split
    for row, split in zip(rows, splits, strict=True):
        row["split"] = split
    for copy, (original, kind) in copies.items():
        rows[copy]["reason"] = f"{kind} of {names[original]} ({splits[original]})"


def _require_enough(rows: list[ManifestRow], classes: list[str], images: Images) -> None:
    left_out = [row["reason"] for row in rows if row["reason"]]
    why = f" Left out: {counted(left_out)}." if left_out else ""
    if len(classes) < 2:
        raise ImageError(
            f"The images should be of at least 2 classes, one folder each. Found {len(classes)}: "
            f"{', '.join(classes) or 'none'}.{why} Put them into <class>/ folders."
        )
    if kinds_of(left_out)["near-gray"] == len(rows):
        raise ImageError(
            f"The images should be in colour: colours are learnt from them. Found {len(rows)} images, all of them "
            "near-gray. Train on colour images, and colour these with the model; or lower "
            "`images.min_colourfulness` if they are in faint colours."
        )
    needed = {
        "train": images.min_per_class,
        "validation": 1,
        "test": int("test" in {row["split"] for row in rows}),
    }
    became = {
        name: Counter("left out" if row["reason"] else row["split"] for row in rows if row["label"] == name)
        for name in classes
    }
    for split, need in needed.items():
        if few := [name for name in classes if became[name][split] < need]:
            short = "; ".join(f"{name} {became[name][split]} ({_of(became[name])})" for name in few)
            raise ImageError(
                f"Each class needs at least {need} usable {split} images. Found {short}.{why} Add images, remove the "
                "class, or lower `images.min_per_class`."
            )


def _of(became: Counter[str]) -> str:
    counts = ", ".join(f"{became[what]} {what}" for what in (*SPLITS, "left out") if became[what])
    return f"of {became.total()} found: {counts}"


def _refuse_change_under_runs(folder: Path, identity: str) -> None:
    """Runs are worth nothing without the images that they were trained on: those are never overwritten."""
    if images_in_use(folder.parent) - {"", identity}:
        raise RunError(
            f"`{folder.parent}` holds runs that were trained on other images: some were added, changed or removed "
            "since, or are prepared in another way. Name another folder with --out, or bring the old ones back."
        )


def _write(rows: list[ManifestRow], array: NDArray[np.uint8], kept: list[int], folder: Path) -> None:
    """Both files whole: a process that has the old array open keeps it, and a reader never meets half of one."""
    (folder / SUMMARY).unlink(missing_ok=True)  # it vouches for the others; written last
    with replacing(folder / ARRAY, "wb") as file:
        shape = (len(kept), *array.shape[1:])
        write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for block in _blocks(array, kept):
            file.write(block.tobytes())
    write_csv(
        folder / MANIFEST, [MANIFEST_COLUMNS, *([row[name] for name in MANIFEST_COLUMNS] for row in rows)]
    )


def _summary(rows: list[ManifestRow], classes: list[str], images: Images) -> dict[str, Any]:
    by_status = {
        status: [row for row in rows if row["status"] == status] for status in ("kept", "left out", "skipped")
    }
    counts = Counter((row["split"], row["label"] or "unlabelled") for row in by_status["kept"])
    return {
        "classes": classes,
        "size_px": images.size_px,
        "source": images.source,
        "path": images.path,
        "counts": {
            split: {name: counts[split, name] for name in [*classes, "unlabelled"]} for split in SPLITS
        },
        "images": len(by_status["kept"]) + len(by_status["left out"]),
        "left_out": [
            {name: row[name] for name in ("path", "split", "reason")} for row in by_status["left out"]
        ],
        "skipped": Counter(row["reason"] for row in by_status["skipped"]),
    }
