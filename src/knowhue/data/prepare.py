"""Decode, check, split and resize every image once; what training reads is one array and its manifest."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from knowhue.color import colourfulness
from knowhue.config import Images, fingerprint
from knowhue.data import checks
from knowhue.data.prepared import (
    ARRAY,
    MANIFEST,
    MANIFEST_COLUMNS,
    PREPARED_VERSION,
    SPLITS,
    SUMMARY,
    ManifestRow,
    Prepared,
    find_damage,
    identify,
    load_prepared,
    read_summary,
)
from knowhue.data.sources import SourceItem, list_items, require_apart
from knowhue.errors import ImageError, RunError
from knowhue.images.files import counted, kinds_of
from knowhue.runs import Report, images_in_use, locked, remove_if_empty, require_writable
from knowhue.storage import allocate, file_digest, put_in_place, write_csv, write_json

__all__ = ["MANIFEST_COLUMNS", "SPLITS", "Prepared", "load_prepared", "prepare"]


class _Read(NamedTuple):
    """An image after it was read; both checksums are empty where nothing could be read."""

    item: SourceItem
    reason: str
    colourfulness: float = 0.0
    size: tuple[int, int] = (0, 0)
    checksum: str = ""
    source_checksum: str = ""


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
    checks.refuse_odd_names(checks.unique(item.label for item in items))
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


def left_out_sentence(summary: dict[str, Any]) -> str:
    """What was left out and skipped, counted; nothing if everything is used.

    >>> left_out_sentence({"left_out": [{"reason": "near-gray: 3"}], "skipped": {"hidden": 2}, "images": 9})
    '1 of 9 images left out (1 near-gray); 2 other files skipped (2 hidden)'
    """
    parts = []
    if summary["left_out"]:
        reasons = [row["reason"] for row in summary["left_out"]]
        parts.append(f"{len(reasons)} of {summary['images']} images left out ({counted(reasons)})")
    if skipped := list(Counter(summary["skipped"]).elements()):
        parts.append(f"{len(skipped)} other file{'s' * (len(skipped) != 1)} skipped ({counted(skipped)})")
    return "; ".join(parts)


def _is_there(folder: Path, key: str, report: Report) -> bool:
    """Whether the folder holds these images, whole."""
    if not (folder / SUMMARY).exists():
        return False
    try:
        summary = read_summary(folder)
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
    try:
        # how many are kept is known at the end alone; `_write` copies those into an array of their own
        with _scratch(folder, (len(listed), side, side, 3)) as (array, _):
            read = list(_read_all(listed, images, array, report))
            splits, reasons = _choose(read, array, images)
            # of all images, so that a class that lost all of its own is reported, not forgotten
            classes = sorted(checks.unique(item.label for item in listed))
            _require_enough(read, splits, reasons, classes, images)
            kept = [i for i, reason in enumerate(reasons) if not reason]
            rows = _manifest(read, splits, reasons, [item for item in items if item.skipped])
            identity = identify([row for row in rows if row["status"] == "kept"])
            _refuse_change_under_runs(folder, identity)
            _write(rows, array, kept, folder)
    finally:
        # a refusal leaves no folder behind
        remove_if_empty(folder)
    summary = _summary(rows, classes, images)
    checksums = {name: file_digest(folder / name) for name in (MANIFEST, ARRAY)}
    write_json(
        folder / SUMMARY,
        {"version": PREPARED_VERSION, **summary, "key": key, "fingerprint": identity, "checksums": checksums},
    )


@contextmanager
def _scratch(folder: Path, shape: tuple[int, ...]) -> Iterator[tuple[NDArray[np.uint8], Path]]:
    """An array in a file that nobody else has, gone at the end unless it was moved away."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{ARRAY}.")
    os.close(handle)
    try:
        yield allocate(Path(name), shape, np.uint8), Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _read_all(
    items: Sequence[SourceItem], images: Images, array: NDArray[np.uint8], report: Report
) -> Iterator[_Read]:
    """Read every image, several at a time, into its row of `array`."""

    def read(position: int) -> _Read:
        return _read(items[position], images, array[position])

    # threads are enough, since decoding and resizing release Python's lock
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, one in enumerate(pool.map(read, range(len(items))), start=1):
            yield one
            report({"stage": "prepare", "done": done, "total": len(items)})


def _read(item: SourceItem, images: Images, out: NDArray[np.uint8]) -> _Read:
    try:
        image = item.load()
    except ImageError as error:
        return _Read(item, str(error))
    side = images.size_px
    # crops the middle to a square, so that nothing is stretched
    out[:] = np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS))
    (colour,) = colourfulness(np.moveaxis(out[None], -1, 1).astype(np.float64)).tolist()
    gray = f"near-gray: colourfulness {colour:.1f} is below {images.min_colourfulness:g}"
    reason = gray if colour < images.min_colourfulness else ""
    return _Read(
        item, reason, colour, image.size, checks.checksum(out), checks.source_checksum(image, item.origin)
    )


def _choose(read: list[_Read], array: NDArray[np.uint8], images: Images) -> tuple[list[str], list[str]]:
    """The split of each image, and why it is left out, or nothing.

    What is damaged, near-gray or a copy goes first, the rest is split: it never moves the split.
    """
    reasons = [each.reason for each in read]
    items = [each.item for each in read]
    order = [
        i
        for i in checks.order_of_choice(*zip(*((it.name, it.label, it.split) for it in items), strict=True))
        if not reasons[i]
    ]
    copies = {
        order[a]: (order[b], "duplicate")
        for a, b in checks.find_duplicates([read[i].checksum for i in order]).items()
    }
    order = [i for i in order if i not in copies]
    if images.duplicate_distance_bits:
        found = checks.signatures(array[order[at : at + 256]] for at in range(0, len(order), 256))
        near = checks.find_near_duplicates(found, images.duplicate_distance_bits)
        copies |= {order[a]: (order[b], "near-duplicate") for a, b in near.items()}
    kept = [i for i in range(len(read)) if not reasons[i] and i not in copies]
    splits = _split(items, kept, images)
    for copy, (original, kind) in copies.items():
        reasons[copy] = f"{kind} of {items[original].name} ({splits[original]})"
    return splits, reasons


def _split(items: list[SourceItem], kept: list[int], images: Images) -> list[str]:
    """Splits as the source gives them; those that it does not give are split off from its training images."""
    splits = [item.split for item in items]
    shares = {"test": images.test_share, "validation": images.validation_share}
    missing = {split: share for split, share in shares.items() if share and split not in splits}
    pool = [i for i in kept if splits[i] == "train"]
    chosen = checks.stratified_split(
        [items[i].label for i in pool], [items[i].name for i in pool], missing, images.split_seed
    )
    for i, split in zip(pool, chosen, strict=True):
        splits[i] = split
    return splits


def _require_enough(
    read: list[_Read], splits: list[str], reasons: list[str], classes: list[str], images: Images
) -> None:
    left_out = [reason for reason in reasons if reason]
    why = f" Left out: {counted(left_out)}." if left_out else ""
    if len(classes) < 2:
        raise ImageError(
            f"The images should be of at least 2 classes, one folder each. Found {len(classes)}: "
            f"{', '.join(classes) or 'none'}.{why} Put them into <class>/ folders."
        )
    if kinds_of(left_out)["near-gray"] == len(reasons):
        raise ImageError(
            f"The images should be in colour: colours are learnt from them. Found {len(reasons)} images, all of them "
            "near-gray. Train on colour images, and colour these with the model; or lower "
            "`images.min_colourfulness` if they are in faint colours."
        )
    found = Counter(each.item.label for each in read)
    usable = Counter(
        (each.item.label, split) for each, split, why in zip(read, splits, reasons, strict=True) if not why
    )
    needed = {"train": images.min_per_class, "validation": 1, "test": int("test" in splits)}
    for split, need in needed.items():
        few = [name for name in classes if usable[name, split] < need]
        if few:
            short = "; ".join(f"{name} {usable[name, split]} ({_of(name, found, usable)})" for name in few)
            raise ImageError(
                f"Each class needs at least {need} usable {split} images. Found {short}.{why} Add images, remove the "
                "class, or lower `images.min_per_class`."
            )


def _of(name: str, found: Counter[str | None], usable: Counter[tuple[str | None, str]]) -> str:
    """What became of the images of a class."""
    counts = {split: usable[name, split] for split in SPLITS if usable[name, split]}
    counts["left out"] = found[name] - sum(counts.values())
    return (
        f"of {found[name]} found: {', '.join(f'{count} {what}' for what, count in counts.items() if count)}"
    )


def _refuse_change_under_runs(folder: Path, identity: str) -> None:
    """Runs are worth nothing without the images that they were trained on: those are never overwritten."""
    if images_in_use(folder.parent) - {"", identity}:
        raise RunError(
            f"`{folder.parent}` holds runs that were trained on other images: some were added, changed or removed "
            "since, or are prepared in another way. Name another folder with --out, or bring the old ones back."
        )


def _manifest(
    read: list[_Read], splits: list[str], reasons: list[str], skipped: list[SourceItem]
) -> list[ManifestRow]:
    """A line for every image in the order of the source, then one for every file that was skipped."""
    rows, index = [], 0
    for one, split, reason in zip(read, splits, reasons, strict=True):
        status, position = ("left out", "") if reason else ("kept", str(index))
        index += not reason
        values = (
            position, one.item.name, split, one.item.label or "", status, reason,
            f"{one.colourfulness:.2f}", *map(str, one.size), one.checksum, one.source_checksum,
        )  # fmt: skip
        rows.append(dict(zip(MANIFEST_COLUMNS, values, strict=True)))
    blank = dict.fromkeys(MANIFEST_COLUMNS, "")
    return rows + [blank | {"path": it.name, "status": "skipped", "reason": it.skipped} for it in skipped]


def _write(rows: list[ManifestRow], array: NDArray[np.uint8], kept: list[int], folder: Path) -> None:
    """Both files whole: a process that has the old array open keeps it, and a reader never meets half of one."""
    (folder / SUMMARY).unlink(missing_ok=True)  # it vouches for the others; written last
    with _scratch(folder, (len(kept), *array.shape[1:])) as (final, path):
        for position, i in enumerate(kept):
            final[position] = array[i]
        final.flush()  # pyright: ignore[reportAttributeAccessIssue]
        # mkstemp lets nobody else read its files
        path.chmod(0o644)
        put_in_place(path, folder / ARRAY)
    write_csv(
        folder / MANIFEST, [MANIFEST_COLUMNS, *([row[name] for name in MANIFEST_COLUMNS] for row in rows)]
    )


def _summary(rows: list[ManifestRow], classes: list[str], images: Images) -> dict[str, Any]:
    counts = Counter((row["split"], row["label"] or "unlabelled") for row in rows if row["status"] == "kept")
    return {
        "classes": classes,
        "size_px": images.size_px,
        "source": images.source,
        "path": images.path,
        "counts": {
            split: {name: counts[split, name] for name in [*classes, "unlabelled"]} for split in SPLITS
        },
        "images": sum(row["status"] != "skipped" for row in rows),
        "left_out": [
            {name: row[name] for name in ("path", "split", "reason")}
            for row in rows
            if row["status"] == "left out"
        ],
        "skipped": Counter(row["reason"] for row in rows if row["status"] == "skipped"),
    }
