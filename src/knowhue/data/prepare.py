"""Decode, check, split and resize every picture once; what training reads is one array and its manifest."""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from knowhue.arrays import allocate
from knowhue.config import Pictures, fingerprint
from knowhue.data.checks import checksum, colourfulness, find_duplicates, stratified_split, unique
from knowhue.data.near_duplicates import find_near_duplicates, signatures
from knowhue.data.sources import Item, list_items
from knowhue.errors import PictureError, RunError
from knowhue.randomness import stream
from knowhue.runs import Report, pictures_in_use, remove_if_empty, require_writable
from knowhue.storage import read_json, replacing, write_json

VERSION = 2
PARTS = ("train", "validation")
COLUMNS = ("index", "path", "part", "label", "status", "reason", "colourfulness", "width", "height", "sha256")


@dataclass(frozen=True)
class Prepared:
    """Pictures ready to train on.

    Attributes:
        classes: names, in the order of the label indices.
        rgb: (N, size, size, 3) uint8 sRGB, memory-mapped.
        label: (N,) class index, -1 where unknown.
        is_train: (N,) which part each picture belongs to.
        paths: where each picture came from.
        fingerprint: changes when any picture, label or part does.
    """

    classes: tuple[str, ...]
    rgb: NDArray[np.uint8]
    label: NDArray[np.int64]
    is_train: NDArray[np.bool_]
    paths: tuple[str, ...]
    fingerprint: str

    def positions(self, part: str) -> NDArray[np.int64]:
        """Indices of the pictures of `train` or `validation`."""
        return np.flatnonzero(self.is_train if part == "train" else ~self.is_train)


class _Row(NamedTuple):
    """A line of the manifest before its index is known; `checksum` is empty where nothing could be read."""

    item: Item
    reason: str
    colourfulness: float = 0.0
    size: tuple[int, int] = (0, 0)
    checksum: str = ""


def prepare(pictures: Pictures, folder: Path, report: Report = lambda _: None) -> Prepared:
    """Make `folder` hold the configured pictures; work already done is not repeated.

    Args:
        pictures: where they come from, their size, the rules.
        folder: where the array, the manifest and the summary go; below the study folder.
        report: told `{"stage": "prepare", "done": n, "total": n}`.

    Raises:
        PictureError: no pictures, one class, or too few of one; what was left out is in the message.
        RunError: the folder cannot be written, or runs beside it were trained on other pictures.
    """
    items = list_items(pictures)
    stamps = [(*item[:3], item.stamp) for item in items]
    key = fingerprint([VERSION, pictures.model_dump(mode="json"), stamps])
    summary = folder / "prepared.json"
    if not summary.exists() or read_json(summary)["key"] != key:
        require_writable(folder)
        scratch = folder / ".pictures.npy"
        try:
            side = pictures.size_px
            array = allocate(scratch, (len(items), side, side, 3), np.uint8)
            rows = list(_read_all(items, pictures, array, report))
            _write(rows, array, pictures, folder, key)
        finally:
            scratch.unlink(missing_ok=True)
            remove_if_empty(folder)
    return load_prepared(folder)


def load_prepared(folder: Path) -> Prepared:
    """Open what `prepare` made.

    Raises:
        RunError: nothing prepared there.
    """
    summary = read_json(folder / "prepared.json")
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        kept = [row for row in csv.DictReader(file) if row["status"] == "kept"]
    number = {name: i for i, name in enumerate(summary["classes"])}
    return Prepared(
        classes=tuple(summary["classes"]),
        rgb=np.load(folder / "pictures.npy", mmap_mode="r"),
        label=np.array([number.get(row["label"], -1) for row in kept], dtype=np.int64),
        is_train=np.array([row["part"] == "train" for row in kept]),
        paths=tuple(row["path"] for row in kept),
        fingerprint=summary["fingerprint"],
    )


def _read_all(
    items: Sequence[Item], pictures: Pictures, array: NDArray[np.uint8], report: Report
) -> Iterator[_Row]:
    """Read every picture, several at a time, into its row of `array`."""

    def read(position: int) -> _Row:
        return _read(items[position], pictures, array[position])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, row in enumerate(pool.map(read, range(len(items))), start=1):
            yield row
            report({"stage": "prepare", "done": done, "total": len(items)})


def _read(item: Item, pictures: Pictures, out: NDArray[np.uint8]) -> _Row:
    try:
        image = item.load()
    except PictureError as error:
        return _Row(item, str(error))
    side = pictures.size_px
    out[:] = np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS))
    colour = colourfulness(out)
    gray = f"near-gray: colourfulness {colour:.1f} is below {pictures.min_colourfulness:g}"
    return _Row(item, gray if colour < pictures.min_colourfulness else "", colour, image.size, checksum(out))


def _write(rows: list[_Row], array: NDArray[np.uint8], pictures: Pictures, folder: Path, key: str) -> None:
    parts = _parts(rows, pictures)
    reasons = _reasons(rows, parts, array, pictures.duplicate_distance_bits)
    classes = sorted(unique(row.item.label for row in rows))
    _require_enough(rows, parts, reasons, classes, pictures)
    kept = [i for i, reason in enumerate(reasons) if not reason]
    identity = fingerprint([(rows[i].checksum, rows[i].item.label, parts[i]) for i in kept])
    _refuse_change_under_runs(folder, identity)
    (folder / "prepared.json").unlink(missing_ok=True)  # it vouches for the array; written last
    final = allocate(folder / "pictures.npy", (len(kept), *array.shape[1:]), np.uint8)
    for position, i in enumerate(kept):
        final[position] = array[i]
    final.flush()
    with replacing(folder / "manifest.csv") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_manifest(rows, parts, reasons))
    summary = _summary(rows, parts, reasons, classes, pictures)
    write_json(folder / "prepared.json", {**summary, "key": key, "fingerprint": identity})


def _refuse_change_under_runs(folder: Path, identity: str) -> None:
    """Runs are worth nothing without the pictures that they were trained on: those are never overwritten."""
    summary = folder / "prepared.json"
    old = read_json(summary)["fingerprint"] if summary.exists() else identity
    if old != identity and old in pictures_in_use(folder.parent):
        raise RunError(
            f"`{folder.parent}` holds runs that were trained on other pictures: some were added, changed or removed "
            "since, or are prepared in another way. Name another folder with --out, or bring the old ones back."
        )


def _parts(rows: list[_Row], pictures: Pictures) -> list[str]:
    """Parts as the source gives them, the rest split; damaged pictures do not shift the split."""
    free = [i for i, row in enumerate(rows) if row.item.part is None]
    generator = stream(pictures.split_seed, "split")
    split = stratified_split([rows[i].item.label for i in free], pictures.validation_share, generator)
    parts = [row.item.part or "train" for row in rows]
    for i, part in zip(free, split, strict=True):
        parts[i] = part
    return parts


def _reasons(rows: list[_Row], parts: list[str], array: NDArray[np.uint8], limit_bits: int) -> list[str]:
    """Why each picture is left out, or nothing; near-duplicates are looked for among what is left."""
    reasons = [row.reason for row in rows]
    usable, names, own = _usable(rows, parts, reasons)
    for position, reason in find_duplicates(names, own, [rows[i].checksum for i in usable]).items():
        reasons[usable[position]] = reason
    if limit_bits:
        usable, names, own = _usable(rows, parts, reasons)
        found = signatures(_blocks(array, usable))
        for position, reason in find_near_duplicates(names, own, found, limit_bits).items():
            reasons[usable[position]] = reason
    return reasons


def _usable(rows: list[_Row], parts: list[str], reasons: list[str]) -> tuple[list[int], list[str], list[str]]:
    """Positions, names and parts of the pictures that there is nothing against so far."""
    usable = [i for i, reason in enumerate(reasons) if not reason]
    return usable, [rows[i].item.name for i in usable], [parts[i] for i in usable]


def _blocks(array: NDArray[np.uint8], positions: list[int], size: int = 256) -> Iterator[NDArray[np.uint8]]:
    return (array[positions[at : at + size]] for at in range(0, len(positions), size))


def _require_enough(
    rows: list[_Row], parts: list[str], reasons: list[str], classes: list[str], pictures: Pictures
) -> None:
    left_out = Counter(reason.partition(":")[0].partition(" of ")[0] for reason in reasons if reason)
    why = f" Left out: {', '.join(f'{n} {reason}' for reason, n in left_out.items())}." if left_out else ""
    if len(classes) < 2:
        raise PictureError(
            f"The pictures should be of at least 2 classes, one folder each. Found {len(classes)}: "
            f"{', '.join(classes) or 'none'}.{why} Put them into <class>/ folders."
        )
    counts = Counter(
        (row.item.label, part) for row, part, reason in zip(rows, parts, reasons, strict=True) if not reason
    )
    for part, need in (("train", pictures.min_per_class), ("validation", 1)):
        few = {name: counts[name, part] for name in classes if counts[name, part] < need}
        if few:
            found = ", ".join(f"{name} {count}" for name, count in few.items())
            raise PictureError(
                f"Each class needs at least {need} usable {part} pictures. Found {found}.{why} Add pictures, "
                "remove the class, or lower `pictures.min_per_class`."
            )


def _manifest(rows: list[_Row], parts: list[str], reasons: list[str]) -> Iterator[tuple[Any, ...]]:
    index = 0
    for row, part, reason in zip(rows, parts, reasons, strict=True):
        width, height = row.size
        status = "left out" if reason else "kept"
        position = "" if reason else index
        index += not reason
        yield (
            position, row.item.name, part, row.item.label or "", status, reason,
            f"{row.colourfulness:.2f}", width, height, row.checksum,
        )  # fmt: skip


def _summary(
    rows: list[_Row], parts: list[str], reasons: list[str], classes: list[str], pictures: Pictures
) -> dict[str, Any]:
    zipped = list(zip(rows, parts, reasons, strict=True))
    counts = Counter((part, row.item.label or "unlabelled") for row, part, reason in zipped if not reason)
    return {
        "classes": classes,
        "size_px": pictures.size_px,
        "source": pictures.source,
        "path": pictures.path,
        "counts": {part: {name: counts[part, name] for name in [*classes, "unlabelled"]} for part in PARTS},
        "left_out": [{"path": r.item.name, "part": p, "reason": reason} for r, p, reason in zipped if reason],
    }
