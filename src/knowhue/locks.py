"""One process at a time writes to a folder: who holds it, for which job of an engine, and since when it gives no sign.

The operating system holds a lock and lets go of it when its process ends, however that ends: a file that a killed
process left behind locks nobody out. On NFS the server holds it, for all machines. What stands in the file is for
people, and says what a killed driver has left with an engine.
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
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout, lock_descriptor

from knowhue.errors import RunError, few
from knowhue.runs import Report, remove_if_empty
from knowhue.storage import from_json, require_writable_folder, unwritable

LOCK = ".lock"
REPORT_LOCK = ".report.lock"
"""Of the report alone, which may be made while its study runs."""
REPORT_S = 60.0
SILENT_S = 5.0
"""Seconds that a folder is waited for in silence."""
BEAT_S = 20.0
"""Seconds between the signs of life of a process that works on a part of a study."""
_PART_S = 30 * 24 * 3600.0
_WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_PARTS = ("*/seed-*/.lock", "heads/*/seed-*/.lock", "gate/.seed-*.lock")

job_of_engine: ContextVar[str] = ContextVar("job_of_engine", default="")
"""What the engine calls the job that runs now, such as `slurm 12`."""


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
    """Keep other processes from writing to a folder for as long as the block runs.

    Within one thread the same folder may be locked again. Of the processes of `torch.distributed.run` the first locks
    for all. Folders made for the lock are removed again if the block left nothing in them.

    Args:
        folder: what is written; made if it is not there.
        what: the command that works there, for the message to others.
        name: of the lock file, where less than the whole folder is written.
        wait_s: seconds to wait for another process to end.
        report: gets a note with who is waited for, once it takes longer than `SILENT_S`.
        engine: that runs the jobs of a study.
        stays: leave the file, emptied, beside what was done: on NFS a lock of a removed file is nobody's.

    Yields:
        The engine with which the last holder, if it was killed, may have left jobs; else nothing.

    Raises:
        RunError: another process has it, with who, where and since when; or the folder cannot be written.
    """
    path = folder / name
    key = os.path.realpath(path)
    held: set[str] = _held.__dict__.setdefault("paths", set())
    if key in held or not is_first_process():
        yield ""
        return
    made = [each for each in (folder, *folder.parents) if not os.path.exists(each)]
    left: list[str] = []
    # a soft lock is a mere file, which a killed process would leave behind
    signed = partial(_sign, path, what, engine, left)
    lock = FileLock(path, fallback_to_soft=False, on_acquired=signed, poll_interval=0.5 if stays else 0.05)
    try:
        _acquire(lock, path, wait_s, report)
        held.add(key)
        yield left[0] if left else ""
    finally:
        if lock.is_locked:
            with suppress(OSError):  # while it is held, so that nobody else's is removed
                if stays and any(each != path for each in folder.iterdir()):
                    os.truncate(path, 0)
                elif not (_holder(path) or {}).get("left"):  # else nobody has asked for those jobs yet
                    path.unlink()
            lock.release()
        held.discard(key)
        for each in made:  # the innermost first
            remove_if_empty(each)


@contextmanager
def working_on(
    folder: Path, what: str, *, name: str = LOCK, report: Report = lambda _: None
) -> Iterator[None]:
    """Work on a part of a study that an engine may have begun elsewhere, too: taken for lost, it may still run.

    Whoever comes second waits until the first has ended, and then finds its work. The file is touched every `BEAT_S`
    seconds.
    """
    ended = threading.Event()

    def give_signs() -> None:
        while is_first_process() and not ended.wait(BEAT_S):
            with suppress(OSError):
                os.utime(folder / name)  # by the clock of the file's server

    beat = threading.Thread(target=give_signs, daemon=True)
    with locked(folder, what, name=name, wait_s=_PART_S, report=report, stays=True):
        beat.start()
        try:
            yield
        finally:
            ended.set()
            beat.join()


def is_first_process() -> bool:
    """Whether this process is alone, or the first of those that `torch.distributed.run` started."""
    return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") in ("", "1")


def require_no_jobs(left: str, folder: Path) -> None:
    """Refuse a folder for whose jobs, left with a cluster by a killed driver, nobody waits: they may write there."""
    if left not in ("", "local"):
        raise RunError(
            f"Jobs of `{folder}` may still run: a command with `--engine {left}` was killed. The same `knowhue "
            f"study` waits for them and goes on; or, if none runs, remove `{folder / LOCK}`."
        )


def note_jobs(folder: Path, engine: str, jobs: Sequence[str]) -> None:
    """Write into the lock of a study, which this process holds, which jobs it has with an engine, and no others."""
    holder = _holder(folder / LOCK)
    if holder is not None:  # nobody is named where the file system has no locks
        now = {**holder, "engine": engine, "jobs": list(jobs), "left": False}
        (folder / LOCK).write_text(json.dumps(now), encoding="utf-8")


def read_signs(root: Path) -> list[str]:
    """Who works on a study and its parts, and since when who has stopped without a word gave no sign; a line each."""
    found: list[str] = []
    for path in (root / LOCK, *(path for pattern in _PARTS for path in sorted(root.glob(pattern)))):
        if (holder := _holder(path)) is not None:
            part = path.relative_to(root).as_posix().removesuffix(LOCK).rstrip("/")
            place = part.replace("/.", "/") or "study"  # a gate's lock is a hidden file beside it
            lost = "" if _is_held(path) else f"lost since {_minute(_last_sign(path))}; was "
            found.append(f"{place}: {lost}{_described(holder)}")
    return found


_held = threading.local()


def _acquire(lock: FileLock, path: Path, wait_s: float, report: Report) -> None:
    silent_s = min(wait_s, SILENT_S)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=silent_s)
        except Timeout:
            if wait_s == silent_s:
                raise
            report({"stage": "note", "text": f"waiting for {path.parent}, in use{_by_whom(path)}"})
            lock.acquire(timeout=wait_s - silent_s)
    except Timeout:
        # what waits for a lock takes a file that cannot be made for one that is held
        require_writable_folder(path.parent)
        raise RunError(
            f"`{path.parent}` is in use{_by_whom(path)}. Wait for that to end, or name another folder or file."
        ) from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise unwritable(path, error) from None
        path.unlink(missing_ok=True)
        warnings.warn(
            f"`{path.parent}` is on a file system that cannot lock ({error.strerror}): make sure that no other process "
            "writes to it.",
            stacklevel=4,
        )


def _sign(path: Path, what: str, engine: str, left: list[str], descriptor: int) -> None:
    """Say in the lock file who holds it, once what stands there was read: its writer was killed."""
    before = _holder(path) or {}
    if before.get("engine"):
        left.append(str(before["engine"]))
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
        # the killed one's is kept until this process has asked it for jobs, see `note_jobs`
        **({"engine": left[0], "left": True} if left else {"engine": engine}),
    }
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(holder).encode())


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _holder(path: Path) -> dict[str, Any] | None:
    """Who a lock file names; None where nobody is named."""
    try:
        found = from_json(path.read_bytes())
        return found if {"what", "user", "host", "pid", "since"} <= set(found) else None
    except (OSError, ValueError, TypeError):
        return None


def _described(holder: Mapping[str, Any]) -> str:
    jobs = holder.get("jobs") or ()
    engine = f"{holder['engine']} {few(jobs)}" if jobs else ""
    job = holder.get("job") or engine
    by = f", {job}" * bool(job)
    return f"{holder['user']}@{holder['host']}, process {holder['pid']}{by}, since {holder['since']} ({holder['what']})"


def _by_whom(path: Path) -> str:
    holder = _holder(path)
    return " by another process" if holder is None else f" by {_described(holder)}"


def _is_held(path: Path) -> bool:
    """Whether a process holds a lock; where that cannot be tried, whether it has given a sign of life lately."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return (datetime.now(UTC) - _last_sign(path)).total_seconds() < 3 * BEAT_S
    try:
        return not lock_descriptor(descriptor, blocking=False)
    finally:
        os.close(descriptor)  # which lets go of it


def _last_sign(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
