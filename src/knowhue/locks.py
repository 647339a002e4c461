"""Locks, so that only one process at a time writes to a folder.

The operating system holds a lock and releases it when its process ends, even if killed, so a leftover lock file blocks
nobody. On NFS the server holds the lock for all machines. The file's content tells people who holds the lock, and names
the engine with which a killed driver left jobs.
"""

import errno
import getpass
import json
import os
import socket
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout, lock_descriptor

from knowhue.errors import RunError, few
from knowhue.runs import Report, remove_if_empty
from knowhue.storage import from_json, require_writable_folder, write_error, writing

LOCK = ".lock"
REPORT_LOCK = ".report.lock"  # lock of the report only, because a report can be made while its study runs
REPORT_S = 60.0  # seconds to wait for another report of the same study
QUIET_S = 5.0  # seconds of waiting for a folder before a note says so
HEARTBEAT_S = 20.0  # seconds between heartbeats of a process that works on a part of a study
_PART_WAIT_S = 30 * 24 * 3600.0  # practically for ever: a month
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_PART_LOCKS = ("*/seed-*/.lock", "heads/*/seed-*/.lock", "gate/.seed-*.lock")

job_of_engine: ContextVar[str] = ContextVar("job_of_engine", default="")
"""The engine's name of the job that runs now, such as `slurm 12`."""


@contextmanager
def locked(
    folder: Path,
    what: str,
    *,
    name: str = LOCK,
    wait_s: float = 0.5,
    report: Report = lambda _: None,
    engine: str = "",
    stays: bool = False,
) -> Iterator[str]:
    """Keep other processes from writing to a folder while the block runs.

    A thread can lock the same folder again. In `torch.distributed.run` the first process locks for all. Folders created
    for the lock are removed if the block leaves them empty.

    Args:
        folder: the folder to lock; created if missing.
        what: the command that works there, for the error in other processes.
        name: name of the lock file, if only a part of the folder is locked.
        wait_s: seconds to wait for another process to end.
        report: gets a note naming the lock's holder after `QUIET_S` seconds of waiting.
        engine: name of the engine that runs the jobs of a study.
        stays: keep the lock file, emptied, if the folder holds other files: on NFS removing it breaks the lock.

    Yields:
        The engine that may still run jobs of the last holder, if that was killed; otherwise an empty text.

    Raises:
        RunError: another process holds the lock, which the message describes, or the folder cannot be written.
    """
    path = folder / name
    key = os.path.realpath(path)
    held: set[str] = _held.__dict__.setdefault("paths", set())
    if key in held or not is_first_process():
        yield ""
        return
    missing = [each for each in (folder, *folder.parents) if not os.path.exists(each)]
    # no soft lock: its mere existence locks, so a killed process would leave the folder locked
    lock = FileLock(path, fallback_to_soft=False, poll_interval=0.5 if stays else 0.05)
    try:
        _acquire(lock, path, wait_s, report)
        held.add(key)
        yield _replace_holder(path, what, engine) if lock.is_locked else ""
    finally:
        if lock.is_locked:
            with suppress(OSError):  # before the release, so that no other process's lock file is removed
                if stays and any(file != path for file in folder.iterdir()):
                    os.truncate(path, 0)
                elif not (_holder(path) or {}).get("left"):  # see `note_jobs`
                    path.unlink()
            lock.release()
        held.discard(key)
        for parent in missing:  # innermost first
            remove_if_empty(parent)


@contextmanager
def working_on(
    folder: Path, what: str, *, name: str = LOCK, report: Report = lambda _: None
) -> Iterator[None]:
    """Lock a part of a study that may still run elsewhere, because an engine restarts jobs that it believes lost.

    A second process waits until the first ends, and then finds its work done. As a heartbeat, the lock file is touched
    every `HEARTBEAT_S` seconds.
    """
    ended = threading.Event()

    def touch_regularly() -> None:
        while is_first_process() and not ended.wait(HEARTBEAT_S):
            with suppress(OSError):
                os.utime(folder / name)  # uses the file server's clock

    heartbeat = threading.Thread(target=touch_regularly, daemon=True)
    with locked(folder, what, name=name, wait_s=_PART_WAIT_S, report=report, stays=True):
        heartbeat.start()
        try:
            yield
        finally:
            ended.set()
            heartbeat.join()


def is_first_process() -> bool:
    """Whether this process is the only one, or rank 0 of `torch.distributed.run`."""
    return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") in ("", "1")


def require_no_jobs(left: str, folder: Path) -> None:
    """Refuse a folder if a killed driver left jobs on a cluster that may still write to it."""
    if left not in ("", "local"):
        raise RunError(
            f"Jobs of `{folder}` may still run: a command with `--engine {left}` was killed. The same `knowhue "
            f"study` waits for them and resumes; or, if none runs, remove `{folder / LOCK}`."
        )


def note_jobs(folder: Path, engine: str, jobs: Sequence[str]) -> None:
    """Replace the list of an engine's jobs in the lock file of a study, which this process must hold."""
    holder = _holder(folder / LOCK)
    if holder is not None:  # None on a file system without locks
        holder |= {"engine": engine, "jobs": list(jobs), "left": False}
        (folder / LOCK).write_text(json.dumps(holder), encoding="utf-8")


def read_holders(root: Path) -> list[str]:
    """One line per locked part of a study: who works on it, or since when its process has given no sign of life."""
    lines: list[str] = []
    for path in (root / LOCK, *(path for pattern in _PART_LOCKS for path in sorted(root.glob(pattern)))):
        if (holder := _holder(path)) is not None:
            part = path.relative_to(root).as_posix().removesuffix(LOCK).rstrip("/")
            part = part.replace("/.", "/") or "study"  # the lock of a gate is a hidden file beside it
            if _is_held(path):
                sign = _describe(holder)
            else:
                sign = f"no sign of life since {_minute(_last_heartbeat(path))}; started by {_describe(holder, 'at')}"
            lines.append(f"{part}: {sign}")
    return lines


_held = threading.local()


def _acquire(lock: FileLock, path: Path, wait_s: float, report: Report) -> None:
    quiet_s = min(wait_s, QUIET_S)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=quiet_s)
        except Timeout:
            if wait_s == quiet_s:
                raise
            report({"stage": "note", "text": f"waiting for {path.parent}, in use{_by_holder(path)}"})
            lock.acquire(timeout=wait_s - quiet_s)
    except Timeout:
        # filelock also times out if the lock file cannot be created
        require_writable_folder(path.parent)
        raise RunError(
            f"`{path.parent}` is in use{_by_holder(path)}. Wait for that to end, or name another folder or file."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise write_error(path, error) from None
        path.unlink(missing_ok=True)
        warnings.warn(
            f"`{path.parent}` is on a file system that cannot lock ({error.strerror}): make sure that no other process "
            "writes to it.",
            stacklevel=4,
        )


def _replace_holder(path: Path, what: str, engine: str) -> str:
    """Write this process into the lock file, and return the engine of a killed process that is still there."""
    left = str((_holder(path) or {}).get("engine") or "")
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container without an entry for its user
        user = "unknown"
    holder = {
        "what": what,
        "user": user,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": _minute(datetime.now(UTC)),
        "job": job_of_engine.get(),
        # keep a killed driver's engine until this process has asked the engine for jobs, see `note_jobs`
        **({"engine": left, "left": True} if left else {"engine": engine}),
    }
    with writing(path):
        path.write_text(json.dumps(holder), encoding="utf-8")
    return left


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _holder(path: Path) -> dict[str, Any] | None:
    try:
        found = from_json(path.read_bytes())
        return found if {"what", "user", "host", "pid", "since"} <= set(found) else None
    except (OSError, ValueError, TypeError):
        return None


def _describe(holder: Mapping[str, Any], preposition: str = "since") -> str:
    jobs = holder.get("jobs")
    job = holder.get("job") or (f"{holder['engine']} {few(jobs)}" if jobs else "")
    return (
        f"{holder['user']}@{holder['host']}, process {holder['pid']}{f', {job}' * bool(job)}, "
        f"{preposition} {holder['since']} ({holder['what']})"
    )


def _by_holder(path: Path) -> str:
    holder = _holder(path)
    return " by another process" if holder is None else f" by {_describe(holder)}"


def _is_held(path: Path) -> bool:
    """Whether a process holds a lock; if the file cannot be opened, whether its heartbeat is recent."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return (datetime.now(UTC) - _last_heartbeat(path)).total_seconds() < 3 * HEARTBEAT_S
    try:
        return not lock_descriptor(descriptor, blocking=False)
    finally:
        os.close(descriptor)  # releases the lock, if it was acquired here


def _last_heartbeat(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
