"""Every image of a source and what becomes of it, in a table on disk: millions of rows would fill the memory."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knowhue.config import Images
from knowhue.data.archives import stands_twice
from knowhue.data.items import SPLITS, TRAIN_ONLY, ImageSource, SourceItem, remedies_for
from knowhue.data.sources import SOURCES
from knowhue.errors import ImageError, WeightsError
from knowhue.images.image import counted
from knowhue.settings_text import plain_name
from knowhue.temporary import tables_on_disk

READ_COLUMNS = ("reason", "colourfulness", "width", "height", "sha256", "source_sha256")
"""What reading an image says of it; `reason` is why it cannot be used, or empty."""
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
"""Of several copies the first by this order is kept.

What is reported on is never trained on, so test images come first, then validation images; an image with a label comes
before one without, and `reef.jpg` before `reef (1).jpg`.
"""
_EQUAL = f"""
SELECT position, original FROM (
    SELECT position, first_value(position) OVER (PARTITION BY sha256 ORDER BY {_CHOICE}) AS original
    FROM images WHERE reason = x''
) WHERE position != original
"""
_TWICE = "SELECT name FROM listed GROUP BY name HAVING count(*) > 1 LIMIT 1"
_LOOKED_IN = {"webdataset": "its .tar files", "parquet": "its .parquet files", "huggingface": "its splits"}


class ImageListing:
    """The images of a source in the order of the prepared array, and what was skipped.

    Positions are those of the images that are to be read, whatever becomes of them. What is worth keeping is kept by
    `prepare`.
    """

    def __init__(self, source: ImageSource, tables: sqlite3.Connection) -> None:
        """List everything that a source has in `temporary.tables_on_disk`."""
        self._table = tables
        self.contradicting: dict[int, int] = {}
        """copies that lie in another class than what they are copies of"""
        self._table.executescript(_TABLES)
        insert = f"INSERT INTO listed VALUES ({', '.join('?' * 8)})"
        self._table.executemany(insert, map(_listed, source.items()))
        if twice := self._table.execute(_TWICE).fetchone():
            raise stands_twice(_text(twice[0]))
        self._table.execute(_FILL.format(order="rowid" if source.is_sorted else _SORTED))

    def __len__(self) -> int:
        """Images to be read."""
        return self._table.execute("SELECT count(*) FROM images").fetchone()[0]

    def items(self, start: int = 0, stop: int | None = None) -> Iterator[SourceItem]:
        """Images to be read, from one position to before another."""
        columns = "name, split, label, stamp, x'', origin, place"
        limits = start, len(self) if stop is None else stop
        query = f"SELECT {columns} FROM images WHERE position >= ? AND position < ? ORDER BY position"
        return map(_item, self._table.execute(query, limits))

    def skipped_items(self) -> Iterator[SourceItem]:
        """What is not read, and why."""
        found = self._table.execute(
            "SELECT name, split, label, stamp, skipped, origin, place FROM listed WHERE skipped != x'' "
            f"ORDER BY {_SORTED}, rowid"
        )
        return map(_item, found)

    def classes(self) -> list[str]:
        """Names of classes, sorted: of all images, so that a class that loses all of its own is not forgotten."""
        found = self._table.execute("SELECT DISTINCT label FROM images WHERE label IS NOT NULL")
        return sorted(_text(label) for (label,) in found)

    def splits(self) -> set[str]:
        return {SPLITS[split] for (split,) in self._table.execute("SELECT DISTINCT split FROM images")}

    def record(self, start: int, results: Iterable[Mapping[str, str]]) -> None:
        """Keep what was found of the images from a position on."""
        columns = ", ".join(f"{name} = ?" for name in READ_COLUMNS)
        rows = ((*(_bytes(row[name]) for name in READ_COLUMNS), at) for at, row in enumerate(results, start))
        self._table.executemany(f"UPDATE images SET {columns} WHERE position = ?", rows)

    def usable(self) -> NDArray[np.int64]:
        """Positions of images without a reason against them, those first that are kept of several copies."""
        return self._positions(f"SELECT position FROM images WHERE reason = x'' ORDER BY {_CHOICE}")

    def kept(self) -> NDArray[np.int64]:
        """Positions of images without a reason against them, ascending."""
        return self._positions("SELECT position FROM images WHERE reason = x'' ORDER BY position")

    def _positions(self, query: str) -> NDArray[np.int64]:
        return np.fromiter((position for (position,) in self._table.execute(query)), np.int64)

    def equal_images(self) -> dict[int, int]:
        """Positions of images whose prepared pixels another one has, and of that which is kept."""
        return dict(self._table.execute(_EQUAL))

    def training_names(self, label: str) -> dict[int, str]:
        """Usable training images of a class: names by position."""
        found = self._table.execute(
            "SELECT position, name FROM images WHERE label = ? AND split = 0 AND reason = x'' ORDER BY position",
            (_bytes(label),),
        )
        return {position: _text(name) for position, name in found}

    def set_splits(self, splits: Mapping[int, str]) -> None:
        """Put images into other splits, by position."""
        rows = ((SPLITS.index(split), position) for position, split in splits.items())
        self._table.executemany("UPDATE images SET split = ? WHERE position = ?", rows)

    def leave_out(self, copies: Mapping[int, int], kind: str) -> None:
        """Say of images that they are copies of a kind, and of which image in which split.

        Called again when splits are drawn, it says the split that the image is in then.
        """
        for copy, original in copies.items():
            name, split, label = self._of(original, "name, split, label")
            (own,) = self._of(copy, "label")
            if None not in (own, label) and own != label:
                self.contradicting[copy] = original
            reason = _bytes(f"{kind} of {_text(name)} ({SPLITS[split]})")
            self._table.execute("UPDATE images SET reason = ? WHERE position = ?", (reason, copy))

    def name(self, position: int) -> str:
        return _text(self._of(position, "name")[0])

    def _of(self, position: int, columns: str) -> tuple[Any, ...]:
        return self._table.execute(f"SELECT {columns} FROM images WHERE position = ?", (position,)).fetchone()

    def reasons(self) -> Iterator[str]:
        """Why each image that is left out is."""
        found = self._table.execute("SELECT reason FROM images WHERE reason != x'' ORDER BY position")
        return (_text(reason) for (reason,) in found)

    def counts(self) -> Counter[tuple[str, str | None]]:
        """Images by what became of them (a split, or `left out`) and class (None: unlabelled)."""
        found = self._table.execute(
            "SELECT split, reason != x'' AS out, label, count(*) FROM images GROUP BY split, out, label"
        )
        counts: Counter[tuple[str, str | None]] = Counter()
        for split, out, label, count in found:
            counts["left out" if out else SPLITS[split], None if label is None else _text(label)] += count
        return counts

    def skipped(self) -> dict[str, int]:
        """How many files were skipped for each reason."""
        found = self._table.execute(
            "SELECT skipped, count(*) FROM listed WHERE skipped != x'' GROUP BY skipped"
        )
        return {_text(reason): count for reason, count in found}

    def rows(self) -> Iterator[dict[str, str]]:
        """What became of each image that was to be read, in the words of the manifest."""
        names = ("path", "split", "label", *READ_COLUMNS)
        found = self._table.execute(
            f"SELECT name, split, label, {', '.join(READ_COLUMNS)} FROM images ORDER BY position"
        )
        for name, split, label, *results in found:
            values = (_text(name), SPLITS[split], _text(label or b""), *map(_text, results))
            yield dict(zip(names, values, strict=True))


@contextmanager
def open_listing(images: Images) -> Iterator[ImageListing]:
    """List the configured images, for as long as the block runs.

    Raises:
        RunError: the list does not fit onto the disk.
        ImageError: nothing there; the message says what was looked for.
        ConfigError: the source needs a setting, or a package, that is missing.
    """
    with tables_on_disk() as tables:
        listing = ImageListing(SOURCES[images.source](images), tables)
        if not len(listing):
            skipped = Counter(listing.skipped())
            others = f", but {counted(skipped.elements())}{remedies_for(skipped)}" if skipped else ""
            where = _LOOKED_IN.get(images.source, "<class>/, or in train/<class>/ and val/<class>/")
            raise ImageError(
                f"{images.path}: no images in {where}{others}; check the path, or "
                "try the built-in set: knowhue study --preset demo"
            )
        yield listing


@contextmanager
def images_first(images: Images) -> Iterator[None]:
    """Where weights cannot be had within it and images are not there either, report the images, which come first."""
    try:
        yield
    except WeightsError:
        require_images(images)
        raise


def require_images(images: Images) -> None:
    """Refuse files that `prepare` would, before any is read; what has to be opened or fetched is not looked at.

    Raises:
        ImageError, ConfigError: as `list_items` would.
    """
    if images.source in ("folder", "imagenet"):
        with open_listing(images):
            pass


def list_items(images: Images) -> list[SourceItem]:
    """All images of the configured source in a fixed order, then what lies among them and is skipped.

    Raises:
        ImageError: nothing there; the message says what was looked for.
        ConfigError: the source needs a setting, or a package, that is missing.
    """
    with open_listing(images) as listing:
        return [*listing.items(), *listing.skipped_items()]


def _listed(item: SourceItem) -> tuple[object, ...]:
    # a class whose folders were made on several systems is one
    label = None if item.label is None else _bytes(plain_name(item.label))
    is_of_no_use = item.label is None and item.split != "train"
    skipped = item.skipped or (TRAIN_ONLY if is_of_no_use else "")
    others = map(_bytes, (item.stamp, skipped, item.origin, item.place))
    return _bytes(item.name), SPLITS.index(item.split), label, *others, len(item.name)


def _item(row: tuple[bytes, int, bytes | None, bytes, bytes, bytes, bytes]) -> SourceItem:
    name, split, label, *others = row
    return SourceItem(
        _text(name), SPLITS[split], None if label is None else _text(label), *map(_text, others)
    )


def _bytes(text: str) -> bytes:
    # a name may hold bytes that are no UTF-8, which a database would not take as text; the order stays Python's
    return text.encode("utf-8", "surrogatepass")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogatepass")
