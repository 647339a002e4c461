"""The images of a source and what becomes of each, in a database on disk, because millions of rows can fill memory."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knowhue.config import Images
from knowhue.data.archives import duplicate_name_error
from knowhue.data.items import SPLITS, TRAIN_ONLY, ImageSource, SourceItem, found_instead
from knowhue.data.sources import SOURCES
from knowhue.errors import ImageError, WeightsError
from knowhue.settings_text import plain_name
from knowhue.temporary import tables_on_disk

READ_COLUMNS = ("reason", "colourfulness", "width", "height", "sha256", "source_sha256")
"""Results of reading an image; `reason` is why it cannot be used, empty if it can."""
_TABLES = """
CREATE TABLE listed (name, split, label, stamp, skipped, origin, place, characters INTEGER);
CREATE TABLE images (
    position INTEGER PRIMARY KEY, name, split, label, stamp, origin, place, characters,
    reason, colourfulness, width, height, sha256, source_sha256
);
"""
_SORTED = "label IS NULL, split, name"
_FILL = """
INSERT INTO images (position, name, split, label, stamp, origin, place, characters, reason)
SELECT row_number() OVER (ORDER BY {order}) - 1, name, split, label, stamp, origin, place, characters, x''
FROM listed WHERE skipped = x''
"""
_CHOICE = "split DESC, label IS NULL, characters, name"
"""Order by which the first of several copies is kept.

Test images come first, then validation images, so that images of reported scores are never trained on. Images with a
label come before those without, and `reef.jpg` before `reef (1).jpg`.
"""
_EQUAL = f"""
SELECT position, original FROM (
    SELECT position, first_value(position) OVER (PARTITION BY sha256 ORDER BY {_CHOICE}) AS original
    FROM images WHERE reason = x''
) WHERE position != original
"""
_DUPLICATE_NAME = "SELECT name FROM listed GROUP BY name HAVING count(*) > 1 LIMIT 1"
_LOOKED_IN = {"webdataset": "its .tar files", "parquet": "its .parquet files", "huggingface": "its splits"}


class ImageListing:
    """The images of a source in the order of the prepared array, and skipped files.

    Positions count all images to be read, including those that are left out later. The database is temporary; `prepare`
    writes the manifest from it.
    """

    def __init__(self, source: ImageSource, tables: sqlite3.Connection) -> None:
        """List all items of a source in the database of `temporary.tables_on_disk`."""
        self._table = tables
        self.contradicting: dict[int, list[str]] = {}
        """names of copies and of their originals, where these have another class, by the copies' positions"""
        self._table.executescript(_TABLES)
        insert = f"INSERT INTO listed VALUES ({', '.join('?' * 8)})"
        self._table.executemany(insert, map(_to_row, source.items()))
        for (name,) in self._rows(_DUPLICATE_NAME):
            raise duplicate_name_error(name)
        self._table.execute(_FILL.format(order="rowid" if source.is_sorted else _SORTED))

    def _rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        return (tuple(map(_decoded, row)) for row in self._table.execute(query, tuple(map(_encoded, values))))

    def _update(self, change: str, rows: Iterable[Iterable[object]]) -> None:
        """Change the images at some positions, the last value of each row."""
        encoded = (tuple(map(_encoded, row)) for row in rows)
        self._table.executemany(f"UPDATE images SET {change} WHERE position = ?", encoded)

    def __len__(self) -> int:
        ((count,),) = self._rows("SELECT count(*) FROM images")
        return count

    def items(self, start: int = 0, stop: int | None = None) -> Iterator[SourceItem]:
        """Images to be read at positions from `start` up to, but not including, `stop`."""
        query = (
            "SELECT name, split, label, stamp, x'', origin, place FROM images "
            "WHERE position >= ? AND position < ? ORDER BY position"
        )
        return map(_to_item, self._rows(query, start, len(self) if stop is None else stop))

    def skipped_items(self) -> Iterator[SourceItem]:
        """Files that are not read, with the reason."""
        query = (
            "SELECT name, split, label, stamp, skipped, origin, place FROM listed WHERE skipped != x'' "
            f"ORDER BY {_SORTED}, rowid"
        )
        return map(_to_item, self._rows(query))

    def classes(self) -> list[str]:
        """Class names, sorted, of all images, including classes whose images are all left out."""
        found = self._rows("SELECT DISTINCT label FROM images WHERE label IS NOT NULL")
        return sorted(label for (label,) in found)

    def splits(self) -> set[str]:
        return {SPLITS[split] for (split,) in self._rows("SELECT DISTINCT split FROM images")}

    def record(self, start: int, results: Iterable[Mapping[str, str]]) -> None:
        """Store the results of reading consecutive images, the first at position `start`."""
        rows = ((*(row[name] for name in READ_COLUMNS), at) for at, row in enumerate(results, start))
        self._update(", ".join(f"{name} = ?" for name in READ_COLUMNS), rows)

    def usable(self) -> NDArray[np.int64]:
        """Positions of images that can be used, ordered so that the copy to keep comes first."""
        return self._usable(_CHOICE)

    def kept(self) -> NDArray[np.int64]:
        """Positions of images that can be used, ascending."""
        return self._usable("position")

    def _usable(self, order: str) -> NDArray[np.int64]:
        found = self._table.execute(f"SELECT position FROM images WHERE reason = x'' ORDER BY {order}")
        return np.fromiter((position for (position,) in found), np.int64)

    def equal_images(self) -> dict[int, int]:
        """Positions of images with the same prepared pixels as an image that is kept, and that image's position."""
        return dict(self._rows(_EQUAL))

    def training_names(self, label: str) -> dict[int, str]:
        """Names of a class's usable training images by position."""
        query = "SELECT position, name FROM images WHERE label = ? AND split = 0 AND reason = x'' ORDER BY position"
        return dict(self._rows(query, label))

    def set_splits(self, splits: Mapping[int, str]) -> None:
        self._update("split = ?", ((SPLITS.index(split), position) for position, split in splits.items()))

    def leave_out(self, copies: Mapping[int, int], kind: str) -> None:
        """Mark images as copies of a `kind`, with the name and split of the original.

        A second call after splits are drawn updates the original's split.
        """
        for copy, original in copies.items():
            name, split, label = self._described(original)
            copy_name, _, copy_label = self._described(copy)
            if None not in (copy_label, label) and copy_label != label:
                self.contradicting[copy] = [copy_name, name]
            self._update("reason = ?", [(f"{kind} of {name} ({SPLITS[split]})", copy)])

    def _described(self, position: int) -> tuple[Any, ...]:
        """Name, number of the split, and label of an image."""
        return next(self._rows("SELECT name, split, label FROM images WHERE position = ?", position))

    def reasons(self) -> Iterator[str]:
        found = self._rows("SELECT reason FROM images WHERE reason != x'' ORDER BY position")
        return (reason for (reason,) in found)

    def counts(self) -> Counter[tuple[str, str | None]]:
        """Numbers of images by outcome (a split, or `left out`) and class (None: unlabelled)."""
        query = "SELECT split, reason != x'' AS out, label, count(*) FROM images GROUP BY split, out, label"
        counts: Counter[tuple[str, str | None]] = Counter()
        for split, out, label, count in self._rows(query):
            counts["left out" if out else SPLITS[split], label] += count
        return counts

    def skipped(self) -> dict[str, int]:
        """Numbers of skipped files by reason."""
        return dict(self._rows("SELECT skipped, count(*) FROM listed WHERE skipped != x'' GROUP BY skipped"))

    def rows(self) -> Iterator[dict[str, str]]:
        """The columns of the manifest that the database holds, for each image to be read."""
        query = f"SELECT name, split, label, {', '.join(READ_COLUMNS)} FROM images ORDER BY position"
        for name, split, label, *results in self._rows(query):
            described = {"path": name, "split": SPLITS[split], "label": label or ""}
            yield described | dict(zip(READ_COLUMNS, results, strict=True))


@contextmanager
def open_listing(images: Images) -> Iterator[ImageListing]:
    """List the configured images; the list exists until the `with` block ends.

    Raises:
        RunError: the disk has no room for the list.
        ImageError: there are no images; the message says where they should be.
        ConfigError: a setting that the source needs is missing.
        ExtraError: a package that the source needs is not installed.
    """
    with tables_on_disk() as tables:
        listing = ImageListing(SOURCES[images.source](images), tables)
        if not len(listing):
            others = found_instead(Counter(listing.skipped()).elements())
            where = _LOOKED_IN.get(images.source, "<class>/, or in train/<class>/ and val/<class>/")
            raise ImageError(
                f"{images.path}: no images in {where}{others}; check the path, or "
                "try the built-in set: knowhue study --preset demo"
            )
        yield listing


@contextmanager
def images_first(images: Images) -> Iterator[None]:
    """If weights are unavailable in the `with` block and images are missing, too, report the images."""
    try:
        yield
    except WeightsError:
        require_images(images)
        raise


def require_images(images: Images) -> None:
    """Check that image folders can be listed, as `open_listing` does; other sources take too long to open."""
    if images.source in ("folder", "imagenet"):
        with open_listing(images):
            pass


def list_items(images: Images) -> list[SourceItem]:
    """All images of the configured source in a fixed order, followed by skipped files; errors as `open_listing`."""
    with open_listing(images) as listing:
        return [*listing.items(), *listing.skipped_items()]


def _to_row(item: SourceItem) -> tuple[object, ...]:
    # class folders made on several systems can differ in Unicode normalization
    label = None if item.label is None else plain_name(item.label)
    is_of_no_use = item.label is None and item.split != "train"
    skipped = item.skipped or (TRAIN_ONLY if is_of_no_use else "")
    others = label, item.stamp, skipped, item.origin, item.place
    return _encoded(item.name), SPLITS.index(item.split), *map(_encoded, others), len(item.name)


def _to_item(row: tuple[Any, ...]) -> SourceItem:
    name, split, *others = row
    return SourceItem(name, SPLITS[split], *others)


def _encoded(value: object) -> object:
    # text as bytes, because SQLite refuses text that is not valid UTF-8; the sort order is that of Python strings
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def _decoded(value: object) -> object:
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value
