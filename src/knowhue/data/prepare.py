"""Decode, check, split and resize every image once; what training reads is an array in files, and its manifest.

Images are read part by part into a folder beside, each with a table of what was found; what a killed process has
finished of that is not read again. Then copies are found and splits drawn, and what is kept is written in order.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from knowhue.arguments import checked_arguments
from knowhue.config import Images, digest_each, fingerprint
from knowhue.data import checks
from knowhue.data.decode import (
    MappedFiles,
    PreparedPixels,
    Shards,
    images_a_part,
    images_a_shard,
    open_shards,
    parts_to_read,
    pixel_blocks,
    read_all,
    shard_names,
    writing_shard,
)
from knowhue.data.drawn import CLASSES
from knowhue.data.items import SPLITS, remedies_for
from knowhue.data.listing import ImageListing, open_listing
from knowhue.data.sources import require_apart
from knowhue.errors import ImageError, KnowhueError, RunError, few, plural
from knowhue.images.image import counted, kinds_of
from knowhue.images.reading import readable_formats
from knowhue.locks import locked
from knowhue.runs import Report, ShareOut, images_in_use, remove_if_empty
from knowhue.storage import (
    file_digest,
    iterate_csv,
    read_json,
    remove_all,
    require_writable_folder,
    write_csv,
    write_json,
)

PREPARED_VERSION = 5
"""Of how images are read and prepared; arrays of another one are made anew, or refused under runs."""
MANIFEST_COLUMNS = (
    "index", "path", "split", "label", "status", "reason",
    "colourfulness", "width", "height", "sha256", "source_sha256",
)  # fmt: skip
MANIFEST, SUMMARY = "manifest.csv", "prepared.json"
_OWN = re.compile(rf"\.reading-.*|\.?(images.*\.npy|{MANIFEST}|{SUMMARY}|samples\.npz)(\..*)?")
"""Names of what is written into the folder, and of what processes that were killed leave there."""
_DIGESTS = ("source_sha256", "sha256")
"""An image is the same by either: at full size, or as it was prepared."""

_MORE_DRAWN = "Raise `images.drawn_count`"

ManifestRow = dict[str, str]
"""A line of the manifest, by `MANIFEST_COLUMNS`; `status` is kept, left out or skipped."""


@dataclass(frozen=True)
class Prepared:
    """Images ready to train on."""

    classes: tuple[str, ...]
    """names, in the order of the label indices"""
    rgb: PreparedPixels
    """(N, size, size, 3) uint8 sRGB, memory-mapped, in one file or several"""
    label: NDArray[np.int64]
    """(N,) class index, -1 where unknown"""
    split: NDArray[np.str_]
    """(N,) which of `SPLITS` each image belongs to"""
    paths: tuple[str, ...]
    """where each image came from"""
    fingerprint: str
    """changes when any image, label or split does"""
    evaluated_on: Literal["auto", "validation"] = "auto"
    """`Evaluation.split`"""

    def positions(self, split: str) -> NDArray[np.int64]:
        """Indices of the images of a split, ascending."""
        return np.flatnonzero(self.split == split)

    @property
    def reporting_split(self) -> str:
        """The split that final scores, tables and samples are from: test if there is one, unless something is tuned."""
        has_test = bool((self.split == "test").any())
        return "test" if has_test and self.evaluated_on == "auto" else "validation"


@checked_arguments
def prepare(
    images: Images, folder: str | Path, report: Report = lambda _: None, share_out: ShareOut | None = None
) -> Prepared:
    """Make `folder` hold the configured images; work already done is not repeated, damage heals.

    Args:
        images: where they come from, their size, the rules.
        folder: where the array, the manifest and the summary go; below the study folder.
        report: called with `{"stage": "prepare", "done": n, "total": n}`, total 0 while they are listed, and in one
            note what was left out.
        share_out: who reads the images; None is this process, with all cores.

    Raises:
        ImageError: no images, one class, or too few of one; what was left out is in the message.
        ConfigError: it lies among the images.
        RunError: the folder cannot be written, or runs beside it were trained on other images.
    """
    folder = Path(folder)
    require_apart(images, folder.parent)
    _require_drawn(images)
    report({"stage": "prepare", "done": 0, "total": 0})  # to list them may take long
    with open_listing(images) as listing:
        checks.refuse_odd_names(listing.classes())
        unused = _unused_shares(listing.splits(), images)
        # whatever would give another array: how it is prepared, by which decoders, the settings, the files as they are
        stamps = digest_each((item.name, item.split, item.label, item.stamp) for item in listing.items())
        read = readable_formats()
        key = fingerprint([PREPARED_VERSION, read, images.model_dump(mode="json"), stamps])
        with locked(folder.parent, "prepare"):
            # under the lock: another process may just be preparing the same images
            if not _is_there(folder, key, report):
                _prepare(listing, images, folder, key, report, share_out)
    summary = read_summary(folder)
    for sentence in (*unused, *checks.alike_names(summary["classes"])):
        report({"stage": "note", "text": sentence})
    if sentence := left_out_sentence(summary):
        report({"stage": "note", "text": f"{sentence}; see {folder.name}/{MANIFEST}"})
    return _open(folder, summary)  # what its files should be was just compared, or just made


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
            "anew. To leave an image out, take it from where the images come from, and name another folder."
        )
    return _open(folder, summary, evaluated_on)


def _open(
    folder: Path, summary: Mapping[str, Any], evaluated_on: Literal["auto", "validation"] = "auto"
) -> Prepared:
    number = {name: i for i, name in enumerate(summary["classes"])}
    split_number = {name: i for i, name in enumerate(SPLITS)}
    label, split, paths = [], bytearray(), []
    for row in kept_rows(folder):
        label.append(number.get(row["label"], -1))
        split.append(split_number[row["split"]])
        paths.append(row["path"])
    return Prepared(
        classes=tuple(summary["classes"]),
        rgb=open_shards([folder / name for name in _arrays(summary)]),
        label=np.array(label, dtype=np.int64),
        split=np.array(SPLITS)[np.frombuffer(split, np.uint8)],
        paths=tuple(paths),
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


def _arrays(summary: Mapping[str, Any]) -> list[str]:
    """The files of the array, in order."""
    return sorted(name for name in summary["checksums"] if name != MANIFEST)


def kept_rows(folder: Path) -> Iterator[ManifestRow]:
    """The manifest's lines of the images that are used, in the order of the array."""
    return (row for row in iterate_csv(folder / MANIFEST) if row["status"] == "kept")


def find_damage(folder: Path, summary: dict[str, Any], thorough: bool = True) -> str:
    """Which file is not what was written, as the beginning of a sentence; nothing if all are.

    Rows and images must agree: a row taken out of the manifest would shift every label after it.
    """
    arrays = _arrays(summary)
    for name in (MANIFEST, *arrays):
        path = folder / name
        if not path.is_file():
            return f"`{path}` was removed"
        # the manifest is small, and is checked every time
        if (thorough or name == MANIFEST) and file_digest(path) != summary["checksums"].get(name):
            return f"`{path}` was changed or damaged"
    try:
        count = len(open_shards([folder / name for name in arrays]))
        # in one pass, for a million rows take seconds; a row too few, too many or elsewhere shows in the digest
        stray: Any = dict.fromkeys(("index", "sha256", "label", "split"), "")
        pairs = zip_longest(kept_rows(folder), range(count), fillvalue=stray)
        rows = (row if row["index"] == str(number) else stray for row, number in pairs)
        is_whole = _identify(rows) == summary["fingerprint"]
    except (RunError, KeyError):
        return f"`{folder / MANIFEST}` or `{folder / arrays[0]}` was changed or damaged"
    return "" if is_whole else f"`{folder / MANIFEST}` was changed"


def _identify(kept: Iterator[ManifestRow]) -> str:
    """The SHA-256 of prepared images: of their pixels, labels and splits, in order."""
    return digest_each((row["sha256"], row["label"], row["split"]) for row in kept)


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
    known = {row[name] for row in kept_rows(tuned) if row["split"] != "test" for name in _DIGESTS}
    rows = (row for row in kept_rows(folder) if row["split"] == "test")
    again = np.array([any(row[name] in known for name in _DIGESTS) for row in rows], dtype=bool)
    if limit_bits:
        both = checks.signatures(chain(pixel_blocks(theirs.rgb, seen), pixel_blocks(ours.rgb, test)))
        copies = checks.find_near_duplicates(both, limit_bits, known=len(seen))
        again[[place - len(seen) for place in copies]] = True
    return int(again.sum())


def left_out_sentence(summary: dict[str, Any]) -> str:
    """What was left out and skipped, counted; nothing if everything is used.

    >>> left_out_sentence({"left_out": [{"reason": "near-gray: 3"}], "skipped": {"hidden": 2}, "images": 9})
    '1 of 9 images left out (1 near-gray); 2 other files skipped (2 hidden)'
    """
    parts = []
    if reasons := [row["reason"] for row in summary["left_out"]]:
        parts.append(f"{len(reasons)} of {summary['images']} images left out ({counted(reasons)})")
    if others := summary.get("contradicting"):
        copy, original = others[0]
        parts.append(
            f"{len(others)} of them in another class than the image that is kept, such as {copy}, a copy of {original}"
        )
    if skipped := list(Counter(summary["skipped"]).elements()):
        parts.append(f"{plural(len(skipped), 'other file')} skipped ({counted(skipped)})")
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


def _prepare(
    listing: ImageListing, images: Images, folder: Path, key: str, report: Report, share_out: ShareOut | None
) -> None:
    require_writable_folder(folder)
    found = {path.name: path for path in folder.glob("*")}
    others = sorted(name for name in found if not name.startswith(".") and not _OWN.fullmatch(name))
    if others and SUMMARY not in found:
        raise RunError(
            f"`{folder}` should be free for prepared images. Found {few(others, 3)} there. Name another folder, or "
            "move what is there away."
        )
    # named by all that its parts depend on: what is finished in it is worth keeping
    scratch = folder / f".reading-{key}-{images_a_part(len(listing), images.size_px)}"
    for name, left in found.items():  # of processes that were killed; it may be as large as all images
        if name.startswith(".") and left != scratch and _OWN.fullmatch(name):
            remove_all(left)
    try:
        read_all(listing, images, scratch, report, share_out)
        try:
            parts = parts_to_read(scratch, len(listing), images.size_px)
            raw = Shards(MappedFiles([part.pixels for part in parts]))
            _choose(listing, raw, images)
            _require_enough(listing, images)
            identity = _identify(row for row in listing.rows() if not row["reason"])
            _refuse_change_under_runs(folder, identity)
        except KnowhueError:
            remove_all(scratch)  # other images or settings are needed
            raise
        checksums = _write(listing, raw, folder, images.size_px)
    finally:
        # a refusal leaves no folder behind
        remove_if_empty(scratch)
        remove_if_empty(folder)
    described = {"key": key, "fingerprint": identity, "checksums": checksums}
    write_json(folder / SUMMARY, {"version": PREPARED_VERSION, **_summary(listing, images), **described})
    remove_all(scratch)


def _choose(listing: ImageListing, raw: PreparedPixels, images: Images) -> None:
    """Write into the listing the split of each image, and why a copy is left out.

    What is damaged, near-gray or a copy goes first, the rest is split: it never moves the split.
    """
    copies = {"duplicate": listing.equal_images(), "near-duplicate": {}}
    listing.leave_out(copies["duplicate"], "duplicate")
    if images.duplicate_distance_bits:
        order = listing.usable()
        found = checks.signatures(pixel_blocks(raw, order))
        near = checks.find_near_duplicates(found, images.duplicate_distance_bits)
        copies["near-duplicate"] = {int(order[a]): int(order[b]) for a, b in near.items()}
        listing.leave_out(copies["near-duplicate"], "near-duplicate")
    # splits that the source does not give are split off from its training images
    shares = {"test": images.test_share, "validation": images.validation_share}
    given = listing.splits()
    missing = {split: share for split, share in shares.items() if share and split not in given}
    for label in listing.classes() if missing else []:
        names = listing.training_names(label)
        chosen = checks.split_off(list(names.values()), missing, images.split_seed)
        listing.set_splits({position: chosen[name] for position, name in names.items() if name in chosen})
    for kind, found in copies.items():  # again: the original may be of another split now
        listing.leave_out(found, kind)


def _unused_shares(given: Collection[str], images: Images) -> list[str]:
    """Sentences on shares that were asked for, of splits that the source gives."""
    asked = {"validation": images.validation_share, "test": images.test_share}
    usual = {split: Images.model_fields[f"{split}_share"].default for split in asked}
    return [
        f"The images have a {split} split of their own: `images.{split}_share = {share:g}` has no effect"
        for split, share in asked.items()
        if split in given and share != usual[split]
    ]


def _require_drawn(images: Images) -> None:
    """Make sure, before any is drawn, that each class may have the images that it needs, and one to judge by."""
    needed = len(CLASSES) * (images.min_per_class + 1)
    if images.source == "drawn" and images.drawn_count < needed:
        raise ImageError(
            f"`images.drawn_count` should be at least {needed}, {images.min_per_class + 1} for each class. Found "
            f"`images.drawn_count = {images.drawn_count}`. {_MORE_DRAWN}, or lower `images.min_per_class`."
        )


def _require_enough(listing: ImageListing, images: Images) -> None:
    classes, became_all = listing.classes(), listing.counts()
    left_out = kinds_of(listing.reasons())
    left_words = counted([*listing.reasons(), *Counter(listing.skipped()).elements()])
    why = f" Left out: {left_words}{remedies_for(listing.skipped())}." if left_words else ""
    if len(classes) < 2:
        raise ImageError(
            f"The images should be of at least 2 classes, one folder each. Found {len(classes)}: "
            f"{', '.join(classes) or 'none'}.{why} Put them into <class>/ folders. Colours "
            "alone need two, too, for validation images are drawn from each; any two will do, such as albums."
        )
    if left_out["near-gray"] == len(listing):
        raise ImageError(
            f"The images should be in colour: colours are learnt from them. Found {len(listing)} images, all of them "
            "near-gray. Train on colour images, and colour these with the model; or lower "
            "`images.min_colourfulness` if they are in faint colours."
        )
    needed = {"train": images.min_per_class, "validation": 1, "test": int("test" in listing.splits())}
    became = {
        name: Counter({what: count for (what, label), count in became_all.items() if label == name})
        for name in classes
    }
    for split, need in needed.items():
        if lacking := [name for name in classes if became[name][split] < need]:
            short = "; ".join(f"{name} {became[name][split]} ({_of(became[name])})" for name in lacking)
            remedy = "Add images, remove the class" if images.source != "drawn" else _MORE_DRAWN
            raise ImageError(
                f"Each class needs at least {need} usable {split} images. Found {short}.{why} {remedy}, or lower "
                "`images.min_per_class`."
            )


def _of(became: Counter[str]) -> str:
    counts = ", ".join(f"{became[what]} {what}" for what in (*SPLITS, "left out") if became[what])
    return f"of {became.total()} found: {counts}"


def _refuse_change_under_runs(folder: Path, identity: str) -> None:
    """Runs are worth nothing without the images that they were trained on: those are never overwritten."""
    if images_in_use(folder.parent) - {"", identity}:
        raise RunError(
            f"`{folder.parent}` holds runs that were trained on other images: some were added, changed or removed "
            "since, or are prepared in another way. Name another folder, or bring the old ones back."
        )


def _write(listing: ImageListing, raw: PreparedPixels, folder: Path, side: int) -> dict[str, str]:
    """All files whole: a process that has an old array open keeps it, and a reader never meets half of one.

    Returns:
        Their checksums by name.
    """
    (folder / SUMMARY).unlink(missing_ok=True)  # it vouches for the others; written last
    kept, size = listing.kept(), images_a_shard(side)
    names = shard_names(len(kept), side)
    for number, name in enumerate(names):
        own = kept[number * size : (number + 1) * size]
        with writing_shard(folder / name, (len(own), side)) as write:
            for block in pixel_blocks(raw, own):
                write(block)
    for old in set(folder.glob("images*.npy")) - {folder / name for name in names}:
        old.unlink()
    rows = ([row[name] for name in MANIFEST_COLUMNS] for row in _manifest(listing))
    write_csv(folder / MANIFEST, chain([MANIFEST_COLUMNS], rows))
    return {name: file_digest(folder / name) for name in (MANIFEST, *names)}


def _manifest(listing: ImageListing) -> Iterator[ManifestRow]:
    index = 0
    for row in listing.rows():
        is_kept = not row["reason"]
        yield row | {"index": str(index) if is_kept else "", "status": "kept" if is_kept else "left out"}
        index += is_kept
    for item in listing.skipped_items():
        described = {"path": item.name, "status": "skipped", "reason": item.skipped}
        yield dict.fromkeys(MANIFEST_COLUMNS, "") | described


def _summary(listing: ImageListing, images: Images) -> dict[str, Any]:
    classes, counts = listing.classes(), listing.counts()
    return {
        "classes": classes,
        "size_px": images.size_px,
        "source": images.source,
        "path": images.path,
        "counts": {
            split: {name or "unlabelled": counts[split, name] for name in (*classes, None)}
            for split in SPLITS
        },
        "images": len(listing),
        "left_out": [
            {name: row[name] for name in ("path", "split", "reason")}
            for row in listing.rows()
            if row["reason"]
        ],
        "contradicting": [
            [listing.name(each) for each in pair] for pair in sorted(listing.contradicting.items())
        ],
        "skipped": listing.skipped(),
    }
