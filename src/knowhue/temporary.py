"""Temporary tables and folders, removed after use, and the error when the disk under them is full."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from knowhue.errors import KnowhueError, RunError
from knowhue.storage import DISK_FULL, system_cause

_DISK_ERRORS = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}


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
            if error.sqlite_errorcode & 0xFF not in _DISK_ERRORS:
                raise
            raise _disk_full("The table of all images", str(error)) from None


@contextmanager
def temporary_folder(what: str, shown_as: Path | None = None) -> Iterator[Path]:
    """A temporary folder, removed afterwards.

    `what` names its content in the error for a full disk; messages of other errors show the path `shown_as` instead.
    """
    with tempfile.TemporaryDirectory() as name:
        try:
            yield Path(name)
        except Exception as error:
            # `storage.writing` raises a RunError that names the file
            names_file = isinstance(error, RunError)
            cause = system_cause(error.__context__ if names_file else error)
            if cause is None or cause.errno not in DISK_FULL:
                if isinstance(error, KnowhueError) and shown_as is not None:
                    error.args = tuple(str(arg).replace(name, str(shown_as)) for arg in error.args)
                raise
            # an error that names a file elsewhere is about another disk; some libraries name no file
            if name not in f"{error} {cause}" and (names_file or cause.filename is not None):
                raise
            raise _disk_full(what, cause.strerror or str(cause)) from None


def _disk_full(what: str, reason: str) -> RunError:
    return RunError(
        f"{what} should fit into the folder for temporary files, `{tempfile.gettempdir()}`. Found no room: {reason}. "
        "Free some space there, or name another folder before the command: TMPDIR=/large/folder"
    )
