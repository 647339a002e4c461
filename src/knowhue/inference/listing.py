"""The images of a folder or an archive, the output file of each, and the summary of a job."""

import os
import posixpath
import re
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple

from knowhue.errors import ConfigError, ImageError, RunError, few, plural, raise_problems
from knowhue.images.image import (
    COLOURED,
    LEDGER,
    LEDGERS,
    SUFFIXES,
    UNREADABLE,
    counts_in_words,
    identity,
    outputs_in,
)
from knowhue.images.writing import MARK, check_output_suffix, writable_suffix
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.description import model_as_used
from knowhue.inference.hints import match_hints
from knowhue.inference.judgement import warnings_of_many
from knowhue.inference.store import FolderStore, Store
from knowhue.storage import real_path
from knowhue.temporary import tables_on_disk

_SAME_FOLDER = "`out` should not be the folder of the images. Found `{}`, where {}. Name another folder."
_TABLE = "CREATE TABLE images (path TEXT PRIMARY KEY, stamp TEXT, output TEXT, twin TEXT, hash INTEGER) WITHOUT ROWID"
_TWINS = "FROM images WHERE path IN (SELECT twin FROM images)"
_CLASHES = """
SELECT output, min(path), max(path), count(*) - 2 FROM images GROUP BY output HAVING count(*) > 1 ORDER BY 1
"""
_LEDGER_PATH = re.compile(f"(.*/)(?:{re.escape(LEDGER)}|{re.escape(LEDGERS)}/[^/]+)", re.DOTALL)
"""Path of a ledger; group 1 is the folder whose coloured images it lists."""


class ImageTable:
    """The images of a folder or an archive and their outputs, in a table on disk because there may be millions.

    The table `images` has the columns `path`, `stamp`, `output`, `twin` (the name of a coloured copy beside it) and
    `hash` (CRC-32 of the path).
    """

    def __init__(self, tables: sqlite3.Connection, suffix: str | None = None) -> None:
        self.notes: list[str] = []
        """what was left out, in words"""
        self.unreadable: list[tuple[str, str]] = []
        """folders that cannot be read, each with the reason"""
        self._suffix = suffix
        self.rows = tables
        self.rows.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        self.rows.execute(_TABLE)

    def __len__(self) -> int:
        return self.rows.execute("SELECT count(*) FROM images").fetchone()[0]

    def add_images(self, source: Store, avoid: str = "") -> None:
        """Add every image of a source, without those below `avoid` and those made by knowhue.

        A `ConfigError` if two images would become one file; an `ImageError` if there is no image.
        """
        others: Counter[str] = Counter()
        ledgers: list[tuple[str, str]] = []
        for path, stamp, skipped in source.images(avoid):
            if skipped.startswith(UNREADABLE):
                self.unreadable.append((path, skipped))
            elif found := _LEDGER_PATH.fullmatch(path):
                ledgers.append((path, found[1]))
            elif skipped:
                others[skipped] += 1
            else:
                self._add(path, stamp)
        # ledgers of an object store; in a folder `walk` has already read them
        for path, folder in ledgers:
            coloured = ((as_bytes(folder + output),) for output in outputs_in(source.read(path)))
            delete = "DELETE FROM images WHERE path = CAST(? AS TEXT)"
            others[COLOURED] += self.rows.executemany(delete, coloured).rowcount
        # otherwise `reef-colour.jpg`, made from `reef.jpg`, would be coloured again
        first = self.rows.execute(f"SELECT path {_TWINS} ORDER BY path LIMIT 3")
        names = ", ".join(path for (path,) in first)
        if count := self.rows.execute(f"DELETE {_TWINS}").rowcount:
            which = f"made by knowhue from images beside them: {names}{', ...' * (count > 3)}"
            self.notes.append(f"{plural(count, 'image')} left out, {which}")
        if count := others.total():
            reasons = counts_in_words((+others).elements())
            self.notes.append(f"{plural(count, 'other file')} left out: {reasons}")
        if not len(self) and not self.unreadable:
            raise ImageError(
                f"`{source.url}` should hold images ({', '.join(sorted(SUFFIXES))}). Found none there or "
                f"below{''.join(f'; {note}' for note in self.notes)}."
            )
        raise_problems(
            f"`{output}` would be made from `{one}` and `{other}`{f' and {more} more' * bool(more)}; rename one of them"
            for output, one, other, more in self.rows.execute(_CLASHES)
        )

    def _add(self, path: str, stamp: str) -> None:
        # not pathlib, which interns each part of a name; for millions that costs time and memory
        stem, suffix = posixpath.splitext(path)
        writable = writable_suffix(suffix)
        output, twin = stem + (self._suffix or writable), stem + MARK + writable
        texts = list(map(as_bytes, (path, stamp, output, twin)))
        insert = f"INSERT INTO images VALUES ({'CAST(? AS TEXT), ' * 4}?)"
        self.rows.execute(insert, (*texts, zlib.crc32(texts[0])))


def as_bytes(name: str) -> bytes:
    """A file name's bytes, which may not be UTF-8; SQL turns them into text by `CAST(? AS TEXT)`."""
    return name.encode("utf-8", "surrogateescape")


class Item(NamedTuple):
    """An image to be coloured: its file, its path below the source, and its output's path below `out`, with `/`."""

    source: Path
    path: str
    output: str


class Listing(NamedTuple):
    """The images of a folder that are to be coloured, sorted by path; `unreadable` and `notes` as of `ImageTable`."""

    source: Path
    out: Path
    suffix: str | None
    """suffix of all outputs; None keeps the formats"""
    items: list[Item]
    hints: dict[str, list[str]]
    unreadable: list[tuple[str, str]]
    notes: list[str]


def list_folder(
    source: Path,
    out: Path,
    suffix: str | None = None,
    hints: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Listing:
    """List all images of a folder and its subfolders by name; outputs keep the names.

    `images.image.walk` decides which files count. An output folder inside `source` is left out, and so are images that
    `knowhue colorize` named after another image beside them.

    Args:
        source: folder of images.
        out: folder for the coloured images.
        suffix: suffix of all outputs, such as `.png`, or `.ora` for layers; None keeps the formats.
        hints: texts for `parse_hint`, by the image's path below `source` with `/`; after a change the image is coloured
            again.

    Raises:
        ImageError: there is no such folder, or no image in it.
        ConfigError: two images would become one file, an output would replace an original, or hints name no image or
            a point outside theirs.
    """
    if suffix is not None:
        check_output_suffix(suffix)
    if not source.is_dir():
        raise ImageError(f"`source` should be a folder of images. Found `{source}`. Is the path right?")
    if out.exists() and out.samefile(source):
        raise ConfigError(_SAME_FOLDER.format(out, "outputs would be among the originals"))
    with tables_on_disk() as tables:
        table = ImageTable(tables, suffix)
        table.add_images(FolderStore(source), str(out.absolute()))
        rows = tables.execute("SELECT path, output FROM images ORDER BY path")
        items = [Item(source / path, path, output) for path, output in rows]
    _require_no_losses(items, out)
    found_hints = match_hints(hints, {item.path: item.source for item in items}, source)
    return Listing(source, out, suffix, items, found_hints, table.unreadable, table.notes)


def _require_no_losses(items: list[Item], out: Path) -> None:
    originals = {identity(item.source) for item in items if os.path.exists(item.source)}
    folders = {str(folder): item for item in items for folder in PurePosixPath(item.output).parents}
    raise_problems(
        f"`{item.output}` would be made from `{item.path}`, and is a folder that `{folders[item.output].path}` needs; "
        "rename one of them"
        for item in items
        if item.output in folders
    )
    for item in items:
        target = out / item.output
        if os.path.exists(target) and identity(target) in originals:  # whatever the link or spelling
            raise ConfigError(_SAME_FOLDER.format(out, f"`{item.output}` would replace an original"))


def default_folder(source: Path) -> Path:
    """The folder's name with `MARK` appended; a `ConfigError` if the folder is a root and has no name."""
    folder = real_path(source)
    if not folder.name:
        raise ConfigError(
            f"{source} has no name to which {MARK} could be added; name a folder for the coloured images"
        )
    return folder.with_name(f"{folder.name}{MARK}")


def outputs_exist(out: Path | str, count: int, first: str) -> RunError:
    """The error for other files that already have the names of outputs."""
    return RunError(
        f"`{out}` holds {plural(count, 'other file')} where outputs would be written, such as `{first}`. Name another "
        "place, or replace them with --overwrite."
    )


class Summary(NamedTuple):
    """The result of colouring a folder or an archive."""

    source: str
    """folder or URL of the images, as the user named it"""
    out: str
    made: int
    """images coloured by this run"""
    already: int
    """images coloured by earlier runs"""
    failed: int
    """images that failed; running again retries them"""
    failures: tuple[tuple[str, str], ...]
    """paths of failed images and the reasons; of an archive only the first ones"""
    novel: int
    """coloured images that are unlike the training images"""
    unknown: int
    """coloured images whose class is `unknown`"""
    warned: int
    """coloured images with a warning in their line of the ledger"""
    notes: tuple[str, ...]
    """what a user should know before trusting the colours, in words"""
    seconds: float
    model: str
    fast: bool = False
    """whether the model saw each photo at one size, see `Colorized`"""
    left: int | None = None
    """images of a folder that were not started, because the run stopped at the first failure"""
    shards: int | None = None

    def as_record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        record = {name: value for name, value in self._asdict().items() if value is not None}
        failures = [{"path": path, "error": error} for path, error in self.failures]
        seconds = round(self.seconds, 3)
        return record | {"failures": failures, "notes": list(self.notes), "seconds": seconds}

    def lines(self) -> list[str]:
        """The lines that the command prints."""
        time = f"{self.seconds:.1f} s" if self.seconds < 10 else f"{self.seconds:.0f} s"
        what = f"{plural(self.made, 'image')} coloured in {time} "
        what += f"({self.made / max(self.seconds, 1e-9):.1f} a second)"
        shards = f", {plural(self.shards, 'shard')}" if self.shards else ""
        lines = [f"{what if self.made else 'no image coloured'}{shards} -> {self.out}"]
        lines += [f"  note: {note}" for note in self.notes]
        if self.already:
            lines.append(f"  already done: {self.already}")
        ledger = f"{self.out.rstrip('/')}/{LEDGERS if self.shards else LEDGER}"
        if self.failed:
            lines.append(f"  {self.failed} failed; the same command tries them again:")
        lines += [f"    {path}: {error}" for path, error in self.failures]
        if (more := self.failed - len(self.failures)) > 0:
            lines.append(f"    and {more} more, in {ledger}")
        if self.left:
            lines.append(f"  stopped: {self.left} not started; the same command resumes")
        if self.unknown or self.warned:
            unknown = f"class unknown: {self.unknown}, " if self.unknown else ""
            there = plural(self.made + self.already, "image")
            lines.append(f"  of {there}, {unknown}warnings: {self.warned}; see {ledger}")
        return [*lines, f"  model: {model_as_used(self.model, self.fast)}"]


def summarise(
    colorizer: Colorizer,
    source: str,
    out: str,
    counts: Mapping[str, int],
    failures: Iterable[tuple[str, str]],
    changed: Sequence[str],
    notes: Iterable[str],
    seconds: float,
    **extra: int,
) -> Summary:
    """Make a summary, with notes about the colours and about outputs that have `changed` since they were made.

    `counts` holds `made`, `already`, `failed` and the counts of `count_notable`; `extra` holds `left` or `shards`.
    """
    count, description = counts["made"] + counts["already"], colorizer.network.description
    caveats = warnings_of_many(description, counts["novel"], count, "image")
    if unmatched := counts["hardly_found"]:
        caveats.append(f"hardly anything of {unmatched} of {count} images was found in the reference")
    if changed:
        found = f"{plural(len(changed), 'coloured image')} found changed or damaged"
        caveats.append(f"{found}, and kept ({few(changed, 3)}); --overwrite colours them again")
    numbers = {name: counts[name] for name in ("made", "already", "failed", "novel", "unknown", "warned")}
    return Summary(
        source, out, **numbers, failures=tuple(sorted(failures)), notes=(*caveats, *notes), seconds=seconds,
        model=description.name, fast=colorizer.fast, **extra,
    )  # fmt: skip
