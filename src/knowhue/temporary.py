"""Temporary tables and folders, removed after use, and the error when the disk under them is full."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from knowhue.errors import KnowhueError, RunError
from knowhue.storage import DISK_FULL, system_cause

_OF_TABLES = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}


@contextmanager
def tables_on_disk() -> Iterator[sqlite3.Connection]:
    """An SQLite database for tables larger than memory, in an unnamed temporary file that is removed afterwards."""
    with closing(sqlite3.connect("")) as tables:
        tables.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -100000;"
        )
        try:
            yield tables
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _OF_TABLES:
                raise
            raise _no_room("The table of all images", str(error)) from None


@contextmanager
def temporary_folder(what: str, stands_for: Path | None = None) -> Iterator[Path]:
    """A folder that is gone afterwards; `what` goes there, as a message says where it finds no room.

    Other messages that leave it name what it `stands_for` instead.
    """
    with tempfile.TemporaryDirectory() as name:
        try:
            yield Path(name)
        except Exception as error:
            # a RunError is what `storage.writing` made of it
            has_name = isinstance(error, RunError)
            cause = system_cause(error.__context__ if has_name else error)
            if cause is None or cause.errno not in DISK_FULL:
                if isinstance(error, KnowhueError) and stands_for is not None:
                    error.args = tuple(str(each).replace(name, str(stands_for)) for each in error.args)
                raise
            # what names another file ran out of room elsewhere; not every writer names its own
            if name not in f"{error} {cause}" and (has_name or cause.filename is not None):
                raise
            raise _no_room(what, cause.strerror or str(cause)) from None


def _no_room(what: str, found: str) -> RunError:
    return RunError(
        f"{what} should fit into the folder for temporary files, `{tempfile.gettempdir()}`. Found no room: {found}. "
        "Free some space there, or name another folder before the command: TMPDIR=/large/folder"
    )
