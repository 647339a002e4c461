"""Which images of an archive are coloured into which files of the output, on disk: millions of names fill the memory.

By the rules of `inference.listing`, asked of a database instead of lists.
"""

import json
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath

from knowhue.errors import ConfigError, RunError, plural
from knowhue.images.files import UNREADABLE
from knowhue.inference.listing import clash, left_alone, left_out, nothing_there, output_of, twin_of
from knowhue.inference.shard import manifest_path
from knowhue.inference.store import PARTS, STATE, FolderStore, Store

_TABLES = """
CREATE TABLE images (path TEXT PRIMARY KEY, stamp TEXT, output TEXT UNIQUE, twin TEXT, hash INTEGER) WITHOUT ROWID;
CREATE TABLE taken (path TEXT PRIMARY KEY, stamp TEXT) WITHOUT ROWID;
"""
_TWINS = "FROM images WHERE path IN (SELECT twin FROM images)"
_DEALT = """
SELECT hash % ?, images.path, images.stamp, output, taken.stamp
FROM images LEFT JOIN taken ON taken.path = output ORDER BY hash % ?, images.path
"""


class ArchiveListing:
    """Photos, their outputs, and what lies there already.

    Attributes:
        notes: what was left alone, in words.
        unreadable: files and folders that cannot be read, and why.
    """

    def __init__(self, tables: sqlite3.Connection, rename: Callable[[str], str]) -> None:
        """Begin a listing.

        Args:
            tables: see `storage.tables_on_disk`.
            rename: turns the suffix of an image into that of the coloured one.
        """
        self.notes: list[str] = []
        self.unreadable: list[tuple[str, str]] = []
        self._rename = rename
        self._listing = tables
        self._listing.executescript(_TABLES)

    def __len__(self) -> int:
        return self._listing.execute("SELECT count(*) FROM images").fetchone()[0]

    def add_images(self, source: Store, avoid: str = "") -> None:
        """Put every image of a source into the listing; what lies below `avoid` is passed over.

        Raises:
            ConfigError: two images would become one file.
            ImageError: there is none.
        """
        others: Counter[str] = Counter()
        for path, stamp, skipped in source.images(avoid):
            if skipped.startswith(UNREADABLE) or not _is_text(path):
                self.unreadable.append((path, skipped or "its name is no text in UTF-8: rename it"))
            elif skipped:
                others[skipped] += 1
            else:
                self._add(path, stamp)
        self.notes += [left_out(others)] if others else []
        # else `reef-colour.jpg`, made of `reef.jpg`, would be coloured again
        named = [path for (path,) in self._listing.execute(f"SELECT path {_TWINS} ORDER BY path LIMIT 3")]
        count = self._listing.execute(f"DELETE {_TWINS}").rowcount
        self.notes[:0] = [left_alone(named, count)] if count else []
        if not len(self) and not self.unreadable:
            raise nothing_there(source.url, self.notes)

    def _add(self, path: str, stamp: str) -> None:
        name = PurePosixPath(path)
        output, twin = output_of(name, self._rename), twin_of(name)
        row = (path, stamp, str(output), str(twin), zlib.crc32(path.encode()))
        try:
            self._listing.execute("INSERT INTO images VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            same = self._listing.execute("SELECT path FROM images WHERE output = ?", (str(output),))
            raise clash(same.fetchone()[0], path, str(output)) from None

    def add_taken(self, source: Store, out: Store) -> None:
        """Put every file of the output into the listing, and take away what a killed worker was writing.

        Raises:
            ConfigError: a linked folder of the output leads among the images.
        """
        roots = None
        if isinstance(source, FolderStore) and isinstance(out, FolderStore):
            roots = source.root.resolve(), out.root.resolve()
        last = ""
        for path, stamp, _ in out.files():
            if path.startswith(f"{PARTS}/"):
                out.remove(path)
            elif not path.startswith(f"{STATE}/") and _is_text(path):
                folder = path.rpartition("/")[0]
                if roots and folder != last:  # files come folder by folder
                    _require_apart(Path(out.url, folder), *roots)
                last = folder
                self._listing.execute("INSERT INTO taken VALUES (?, ?)", (path, stamp))

    def require_room(self, out: str) -> None:
        """Make sure, before the first run, that nothing lies where an image is to go, as a folder's job does.

        Raises:
            RunError: something does.
        """
        taken = "FROM images JOIN taken ON taken.path = output"
        count = self._listing.execute(f"SELECT count(*) {taken}").fetchone()[0]
        if count:
            first = self._listing.execute(f"SELECT output {taken} ORDER BY output LIMIT 1").fetchone()[0]
            raise RunError(
                f"`{out}` should have room for what is made. Found {plural(count, 'other file')} in the way, "
                f"such as `{first}`. Name another place, or have them replaced with --overwrite."
            )

    def deal(self, out: Store, shards: int) -> Iterator[int]:
        """Write the manifest of every shard that has images; its number."""
        rows = self._listing.execute(_DEALT, (shards, shards))
        for shard, own in groupby(rows, key=lambda row: row[0]):
            text = "".join(json.dumps(row[1:]) + "\n" for row in own)
            out.write(manifest_path(shard), text.encode())
            yield shard


def _require_apart(folder: Path, images: Path, out: Path) -> None:
    real = folder.resolve()
    if real.is_relative_to(images) and not real.is_relative_to(out):
        raise ConfigError(
            f"`{folder}` leads among the images, which are never replaced. Name another output."
        )


def _is_text(path: str) -> bool:
    """Whether a name is UTF-8, as databases and stores have it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
