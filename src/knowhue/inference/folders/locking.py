"""A folder for one process at a time."""

import os
from pathlib import Path

from knowhue.errors import RunError


def hold(out: Path) -> int | None:
    """Keep other processes from the folder as long as this one lives; None where the system knows no such locks.

    The lock ends with the process, however that ends.

    Raises:
        RunError: another process holds it.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        return None
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise RunError(
            f"`{out}` should be written by one process at a time. Found another at it. Wait for it, or name another "
            "folder."
        ) from None
    except OSError:
        pass  # a network drive without locks
    return folder


def release(folder: int | None) -> None:
    """Let others in."""
    if folder is not None:
        os.close(folder)
