"""Decodes, checks, splits and resizes every image once, into an array on disk with a manifest, which training reads.

Images are first read in parts into a scratch folder, each part with a table of results; parts that a killed process
finished are not read again. Then copies are found, splits are drawn, and the images that are kept are written in order.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from knowhue.arguments import checked_arguments
from knowhue.config import Images, digest_each, fingerprint
from knowhue.data import checks
from knowhue.data.decode import (
    PreparedPixels,
    images_per_part,
    images_per_shard,
    open_shards,
    pixel_blocks,
    read_all,
    shard_names,
    writing_shard,
)
from knowhue.data.items import SPLITS, remedies_for
from knowhue.data.listing import ImageListing, open_listing
from knowhue.data.sources import MORE_DRAWN, require_apart, require_source
from knowhue.errors import ImageError, KnowhueError, RunError, few, plural, shown
from knowhue.images.image import counts_in_words, kinds_of
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
"""Version of reading and preparation; arrays of another version are prepared again, or refused if runs used them."""
MANIFEST_COLUMNS = (
    "index", "path", "split", "label", "status", "reason",
    "colourfulness", "width", "height", "sha256", "source_sha256",
)  # fmt: skip
MANIFEST, SUMMARY = "manifest.csv", "prepared.json"
_OWN_FILES = re.compile(rf"\.reading-.*|\.?(images.*\.npy|{MANIFEST}|{SUMMARY}|samples\.npz)(\..*)?")
"""Names of files that are written into the folder, or left there by killed processes."""
_DIGESTS = ("source_sha256", "sha256")
"""Digests of an image at full size and as prepared; images are equal if either is."""


ManifestRow = dict[str, str]
"""A row of the manifest, by `MANIFEST_COLUMNS`; `status` is `kept`, `left out` or `skipped`."""


@dataclass(frozen=True)
class Prepared:
    """Images that are ready for training."""

    classes: tuple[str, ...]
    """class names, in the order of the label indices"""
    rgb: PreparedPixels
    """(N, size, size, 3) uint8 sRGB, memory-mapped"""
    label: NDArray[np.int64]
    """(N,) class index, -1 if unknown"""
    split: NDArray[np.str_]
    """(N,) one of `SPLITS`"""
    paths: tuple[str, ...]
    """names of the images in their source"""
    fingerprint: str
    """digest of all images, labels and splits"""
    evaluated_on: Literal["auto", "validation"] = "auto"
    """`Evaluation.split`"""

    def positions(self, split: str) -> NDArray[np.int64]:
        return np.flatnonzero(self.split == split)

    @property
    def reporting_split(self) -> str:
        """The split of final scores, tables and samples: test if there is one and `evaluated_on` allows it."""
        has_test = bool((self.split == "test").any())
        return "test" if has_test and self.evaluated_on == "auto" else "validation"


@checked_arguments
def prepare(
    images: Images, folder: str | Path, report: Report = lambda _: None, share_out: ShareOut | None = None
) -> Prepared:
    """Prepare the configured images in `folder`; finished work is not repeated, and damaged files are made again.

    Args:
        images: the images' source, their size, and the rules for them.
        folder: for the array, the manifest and the summary; inside the study folder.
        report: called with `{"stage": "prepare", "done": n, "total": n}`, where the total is 0 while images are listed,
            and with notes, among them one on images that were left out.
        share_out: distributes the reading of images; if None, this process reads them on all cores.

    Raises:
        ImageError: there are no images, fewer than two classes, too few images of a class, or a class name that
            cannot be shown.
        ConfigError: `folder` is among the images, or a setting that the source needs is missing.
        ExtraError: a package that the source needs is not installed.
        RunError: the folder cannot be written, or runs in the study folder were trained on other images.
    """
    folder = Path(folder)
    require_apart(images, folder.parent)
    require_source(images)
    report({"stage": "prepare", "done": 0, "total": 0})  # listing can take long
    with open_listing(images) as listing:
        checks.check_class_names(listing.classes())
        unused = _unused_shares(listing.splits(), images)
        # everything that the array depends on: preparation, decoders, settings, and the files
        stamps = digest_each((item.name, item.split, item.label, item.stamp) for item in listing.items())
        read = readable_formats()
        key = fingerprint([PREPARED_VERSION, read, images.model_dump(mode="json"), stamps])
        with locked(folder.parent, "prepare"):
            # checked under the lock, because another process may just have prepared the same images
            prepared = _reuse(folder, key, report)
            if prepared is None:
                _prepare(listing, images, folder, key, report, share_out)
    summary = read_summary(folder)
    for sentence in (*unused, *checks.similar_names(summary["classes"])):
        report({"stage": "note", "text": sentence})
    if sentence := left_out_sentence(summary):
        report({"stage": "note", "text": f"{sentence}; see {folder.name}/{MANIFEST}"})
    return prepared or _open(folder, summary, thorough=False)  # its files were just written


def load_prepared(
    folder: Path, evaluated_on: Literal["auto", "validation"] = "auto", thorough: bool = True
) -> Prepared:
    """Open prepared images, after checking that they are unchanged.

    Args:
        folder: of the prepared images.
        evaluated_on: `Evaluation.split`.
        thorough: whether to verify the checksum of the whole array; a command's workers need not do it again.

    Raises:
        RunError: the folder holds no prepared images, or a file was changed or damaged.
    """
    try:
        return replace(_open(folder, read_summary(folder), thorough), evaluated_on=evaluated_on)
    except _ChangedError as change:
        raise RunError(
            f"{change} since the images were prepared. Delete `{folder}` and run the study again, which prepares them "
            "again. To leave an image out, remove it from the source, and name another folder."
        ) from None


class _ChangedError(RunError):
    """A prepared file was changed, removed or damaged; the message is the beginning of a sentence."""


def _open(folder: Path, summary: Mapping[str, Any], thorough: bool = True) -> Prepared:
    """As `load_prepared`, but raises `_ChangedError`."""
    manifest, *arrays = (
        folder / name for name in (MANIFEST, *sorted(summary["checksums"].keys() - {MANIFEST}))
    )
    for path in (manifest, *arrays):
        if not path.is_file():
            raise _ChangedError(f"`{path}` was removed")
        # the manifest is small, and always checked
        if (thorough or path == manifest) and file_digest(path) != summary["checksums"].get(path.name):
            raise _ChangedError(f"`{path}` was changed or damaged")
    number = {name: i for i, name in enumerate(summary["classes"])}
    label, split, paths = [], bytearray(), []

    def collect(row: ManifestRow) -> ManifestRow:
        label.append(number.get(row["label"], -1))
        split.append(SPLITS.index(row["split"]))
        paths.append(row["path"])
        return row

    try:
        rgb = open_shards(arrays)
        # in one pass, because a million rows take seconds; missing, additional and moved rows change the digest
        is_whole = _digest(map(collect, kept_rows(folder))) == summary["fingerprint"]
    except (RunError, KeyError, ValueError):
        raise _ChangedError(f"`{manifest}` or `{arrays[0]}` was changed or damaged") from None
    if not is_whole or len(label) != len(rgb):
        raise _ChangedError(f"`{manifest}` was changed")
    return Prepared(
        classes=tuple(summary["classes"]),
        rgb=rgb,
        label=np.array(label, dtype=np.int64),
        split=np.array(SPLITS)[np.frombuffer(split, np.uint8)],
        paths=tuple(paths),
        fingerprint=summary["fingerprint"],
    )


def read_summary(folder: Path) -> dict[str, Any]:
    """Read `prepared.json`; a `RunError` if it is missing, damaged, or of another version."""
    path = folder / SUMMARY
    summary = read_json(path)
    needed = {"version", "key", "fingerprint", "classes", "counts", "checksums"}
    if not needed <= summary.keys() or summary["version"] != PREPARED_VERSION:
        raise RunError(
            f"`{path}` is damaged, or of another version of knowhue. Delete `{folder}` and run the study again, which "
            "prepares the images again."
        )
    return summary


def kept_rows(folder: Path) -> Iterator[ManifestRow]:
    """The manifest's rows of images that are used, in the order of the array."""
    return (row for row in iterate_csv(folder / MANIFEST) if row["status"] == "kept")


def _digest(kept: Iterator[ManifestRow]) -> str:
    """SHA-256 over the pixels, labels and splits of prepared images, in order."""
    return digest_each((row["sha256"], row["label"], row["split"]) for row in kept)


def count_seen(folder: Path, tuned: Path, limit_bits: int) -> int:
    """Count the test images of `folder` that a tuning study trained on or chose settings by.

    Args:
        folder: prepared images of the reported study.
        tuned: prepared images of the tuning study; all but its test split count as seen.
        limit_bits: `images.duplicate_distance_bits`; with 0, only equal images are found, not near-duplicates.

    Raises:
        RunError: a folder holds no prepared images, or they were changed.
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
    """A sentence on the numbers of images left out and files skipped; empty if everything is used.

    >>> left_out_sentence({"left_out": [{"reason": "near-gray: 3"}], "skipped": {"hidden": 2}, "images": 9})
    '1 of 9 images left out (1 near-gray); 2 other files skipped (2 hidden)'
    """
    parts = []
    if reasons := [row["reason"] for row in summary["left_out"]]:
        parts.append(f"{len(reasons)} of {summary['images']} images left out ({counts_in_words(reasons)})")
    if others := summary.get("contradicting"):
        copy, original = others[0]
        parts.append(
            f"{len(others)} of them in another class than the image that is kept, such as {copy}, a copy of {original}"
        )
    if skipped := list(Counter(summary["skipped"]).elements()):
        parts.append(f"{plural(len(skipped), 'other file')} skipped ({counts_in_words(skipped)})")
    return "; ".join(parts)


def _reuse(folder: Path, key: str, report: Report) -> Prepared | None:
    """The images that were prepared with this key, if they are unchanged."""
    try:
        summary = read_summary(folder)
        return _open(folder, summary) if summary["key"] == key else None
    except _ChangedError as change:
        report({"stage": "note", "text": f"{change} since the images were prepared: they are prepared again"})
    except RunError:  # there are none, or of another version
        pass
    return None


def _prepare(
    listing: ImageListing, images: Images, folder: Path, key: str, report: Report, share_out: ShareOut | None
) -> None:
    require_writable_folder(folder)
    found = {path.name: path for path in folder.glob("*")}
    others = sorted(name for name in found if not name.startswith(".") and not _OWN_FILES.fullmatch(name))
    if others and SUMMARY not in found:
        raise RunError(
            f"`{folder}` should be free for prepared images. Found {few(others, 3)} there. Name another folder, or "
            "move these files away."
        )
    # named by everything that its parts depend on, so that finished parts can be used again
    scratch = folder / f".reading-{key}-{images_per_part(len(listing), images.size_px)}"
    for name, left in found.items():  # of killed processes; can be as large as all images
        if name.startswith(".") and left != scratch and _OWN_FILES.fullmatch(name):
            remove_all(left)
    try:
        raw = read_all(listing, images, scratch, report, share_out)
        try:
            _split_and_mark_copies(listing, raw, images)
            _require_enough(listing, images)
            identity = _digest(row for row in listing.rows() if not row["reason"])
            _refuse_change_under_runs(folder, identity)
        except KnowhueError:
            remove_all(scratch)  # useless, because other images or settings are needed
            raise
        checksums = _write(listing, raw, folder, images.size_px)
    finally:
        # an error leaves no empty folders behind
        remove_if_empty(scratch)
        remove_if_empty(folder)
    described = {"key": key, "fingerprint": identity, "checksums": checksums}
    write_json(folder / SUMMARY, {"version": PREPARED_VERSION, **_summary(listing, images), **described})
    remove_all(scratch)


def _split_and_mark_copies(listing: ImageListing, raw: PreparedPixels, images: Images) -> None:
    """Set the split of each image in the listing, and mark copies to be left out.

    Images are left out before splits are drawn, so that damaged or near-gray images and copies never change a split.
    """
    copies = {"duplicate": listing.equal_images(), "near-duplicate": {}}
    listing.leave_out(copies["duplicate"], "duplicate")
    if images.duplicate_distance_bits:
        order = listing.usable()
        found = checks.signatures(pixel_blocks(raw, order))
        near = checks.find_near_duplicates(found, images.duplicate_distance_bits)
        copies["near-duplicate"] = {int(order[a]): int(order[b]) for a, b in near.items()}
        listing.leave_out(copies["near-duplicate"], "near-duplicate")
    # splits that the source does not have are taken out of its training images
    shares = {"test": images.test_share, "validation": images.validation_share}
    given = listing.splits()
    missing = {split: share for split, share in shares.items() if share and split not in given}
    for label in listing.classes() if missing else []:
        names = listing.training_names(label)
        chosen = checks.split_off(list(names.values()), missing, images.split_seed)
        listing.set_splits({position: chosen[name] for position, name in names.items() if name in chosen})
    for kind, found in copies.items():  # again, because originals may have moved to another split
        listing.leave_out(found, kind)


def _unused_shares(given: Collection[str], images: Images) -> list[str]:
    """Sentences on shares that were set for splits that the source already has."""
    shares = {"validation": images.validation_share, "test": images.test_share}
    usual = {split: Images.model_fields[f"{split}_share"].default for split in shares}
    return [
        f"The images have a {split} split of their own: `images.{split}_share = {share:g}` has no effect"
        for split, share in shares.items()
        if split in given and share != usual[split]
    ]


def _require_enough(listing: ImageListing, images: Images) -> None:
    classes, left_out = listing.classes(), kinds_of(listing.reasons())
    left_words = counts_in_words([*listing.reasons(), *Counter(listing.skipped()).elements()])
    why = f" Left out: {left_words}{remedies_for(listing.skipped())}." if left_words else ""
    if len(classes) < 2:
        raise ImageError(
            f"The images should be of at least 2 classes, one folder each. Found {len(classes)}: "
            f"{shown(', '.join(classes)) or 'none'}.{why} Put them into <class>/ folders. Training on "
            "colour alone needs two, too, because validation images are drawn from each; any two folders will do."
        )
    if left_out["near-gray"] == len(listing):
        raise ImageError(
            f"The images should be in colour, because colours are learned from them. Found {len(listing)} images, all "
            "of them near-gray. Train on colour images, and colour these with the model; or lower "
            "`images.min_colourfulness` if they are in faint colours."
        )
    needed = {"train": images.min_per_class, "validation": 1, "test": int("test" in listing.splits())}
    found: defaultdict[str | None, Counter[str]] = defaultdict(Counter)
    for (outcome, label), count in listing.counts().items():
        found[label][outcome] = count
    for split, need in needed.items():
        if lacking := [name for name in classes if found[name][split] < need]:
            short = few([f"{shown(name)} {found[name][split]} ({_counts(found[name])})" for name in lacking])
            remedy = "Add images, remove the class" if images.source != "drawn" else MORE_DRAWN
            raise ImageError(
                f"Each class needs at least {need} usable {split} images. Found {short}.{why} {remedy}, or lower "
                "`images.min_per_class`."
            )


def _counts(found: Counter[str]) -> str:
    counts = ", ".join(f"{found[outcome]} {outcome}" for outcome in (*SPLITS, "left out") if found[outcome])
    return f"of {found.total()} found: {counts}"


def _refuse_change_under_runs(folder: Path, identity: str) -> None:
    """Refuse to overwrite images that runs in the study folder were trained on."""
    if images_in_use(folder.parent) - {"", identity}:
        raise RunError(
            f"`{folder.parent}` holds runs that were trained on other images: some were added, changed or removed "
            "since, or are prepared in another way. Name another folder, or restore the old images."
        )


def _write(listing: ImageListing, raw: PreparedPixels, folder: Path, side: int) -> dict[str, str]:
    """Write the array and the manifest, and return their checksums by name; who has an old array open can read on."""
    (folder / SUMMARY).unlink(missing_ok=True)  # it holds the others' checksums, and is written last
    kept, size = listing.kept(), images_per_shard(side)
    names = shard_names(len(kept), side)
    for number, name in enumerate(names):
        chosen = kept[number * size : (number + 1) * size]
        with writing_shard(folder / name, (len(chosen), side)) as write:
            for block in pixel_blocks(raw, chosen):
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
        "contradicting": [names for _, names in sorted(listing.contradicting.items())],
        "skipped": listing.skipped(),
    }
