"""Atomic writing of files, detection of damaged ones, and checks of where output may be written.

Files are flushed to disk before they take their place (`fsync` of the file, then of its folder), so a power failure
leaves the old file or the new one. JSON files contain their own SHA-256, and .npz files the checksums of ZIP, so a
flipped bit or a change by hand is detected. Writers raise `RunError` if the folder is not writable or the disk is full.
Readers raise `RunError` if a file is missing or unreadable, and `DamagedError` if its content is not what was written.
Every command that writes a user's files calls `require_outputs` before work, so that no input is replaced, no two
outputs share a file, and existing files are kept without --overwrite.
"""

import codecs
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, TextIO, TypeVar

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray

from knowhue.csv_text import csv_columns, csv_lines, read_rows
from knowhue.errors import ConfigError, DamagedError, KnowhueError, RunError, few, first_line

Value = TypeVar("Value")

SEAL = "sha256"  # key of a JSON file's own checksum, which readers remove
RUN_FILES = ("status.json", "study.json")
"""Files that mark the folder of a run or a study, whose files are never replaced."""
_NAMES = "names of arrays"  # key of the list of arrays in a .npz file, which readers remove
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # errno values that mean the disk or the quota is full
_PATH_ERRNOS = {errno.ENOENT, errno.ENAMETOOLONG}  # errno values that only another name or folder can fix
_DISK_ERRNOS = DISK_FULL | {errno.EIO, errno.EROFS}
_ARRAY_ERRORS = (Exception,)  # damaged bytes make zipfile, zlib and numpy raise many kinds of exceptions
_MAX_NAME_BYTES, _MAX_STEM_BYTES = 255, 220
_KINDS = {
    "a git-LFS pointer in place of the file, which `git lfs pull` fetches": (b"version https://git-lfs.",),
    "an HTML page, which a site may send in place of a file": (b"<!doctype html", b"<html"),
    "an image": (b"\xff\xd8\xff", b"\x89png\r\n", b"gif8", b"ii*\0", b"mm\0*", b"riff"),
}
"""Kinds of files by their first bytes, in lower case and without leading white space."""


def expand_user(text: str) -> Path:
    """The path that a setting names, with `~` expanded, which no shell does there; an unknown `~name` stays.

    >>> expand_user("~nobody of that name/weights.pth").as_posix()
    '~nobody of that name/weights.pth'
    """
    return Path(os.path.expanduser(text))


def real_path(path: str | Path) -> Path:
    """The absolute path without links, `.` and `..`. `Path.resolve` fails on a link to itself before Python 3.13."""
    return Path(os.path.realpath(path))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's error into a `RunError` about `path`, whichever library writes it."""
    try:
        yield
    except Exception as error:
        cause = system_cause(error)
        if cause is None:
            raise
        raise write_error(path, cause) from None


def write_error(path: Path, cause: OSError, option: str = "", is_folder: bool = False) -> RunError:
    """The error for a file or folder that cannot be written, with how to fix it.

    `option` is the command-line option that names it; empty for callers from Python.
    """
    # for ENOTDIR, `path` itself may be the file in the place of a folder
    among = (path, *path.parents) if cause.errno == errno.ENOTDIR else path.parents
    in_the_way = [each for each in among if os.path.exists(each) and not os.path.isdir(each)]
    folder = os.path.dirname(str(cause.filename))
    found, remedy = cause.strerror or str(cause), "Make it writable, or name"
    if in_the_way:
        found = f"`{in_the_way[0]}` is a file, not a folder"
    # "no such file" about a file to be created, in a folder that exists
    elif cause.errno == errno.ENOENT and os.path.isdir(folder):
        found = f"`{folder}` takes no files"
    if cause.errno in DISK_FULL:
        remedy = "Free some space and run the same command again, or name"
    elif in_the_way or cause.errno in _PATH_ERRNOS:
        remedy = "Name"
    is_own_name = cause.errno == errno.ENAMETOOLONG and path.name == max(path.parts, key=_name_bytes)
    noun = "file" if is_own_name and not is_folder else "folder"
    by = f" with {option}" if option else ""
    return RunError(f"Cannot write `{path}`: {found}. {remedy} another {noun}{by}.")


def system_cause(error: BaseException | None) -> OSError | None:
    """The `OSError` that caused an error; None if there is none."""
    if isinstance(error, KnowhueError):
        return None
    if isinstance(error, OSError):
        return error
    # torch reports a full disk as a RuntimeError, raised while it handles an OSError
    while (error := error and (error.__cause__ or error.__context__)) is not None:
        if isinstance(error, OSError) and error.errno in _DISK_ERRNOS:
            return error
    return None


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` after everything was written.

    A crash leaves the old file or the new one, never a part of one.
    """
    utf_8 = {"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}
    text: dict[str, Any] = {} if "b" in mode else utf_8
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # in the same folder, because a replacement is atomic only within a file system; `mkstemp` lengthens the name
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
        try:
            with open(handle, mode, **text) as file:
                yield file if text else _without_descriptor(file)
            # `mkstemp` makes the file readable only by its owner
            os.chmod(name, 0o644)
            put_in_place(Path(name), path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def remove_all(path: Path) -> None:
    """Remove a file, or a folder with its content, if it exists."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _without_descriptor(file: IO[bytes]) -> Any:
    """A file without a descriptor, so that all bytes go through Python's `write`, which raises when the disk is full.

    With a descriptor, numpy and Pillow write in C and ignore a short write at the end.
    """
    names = ("write", "seek", "tell", "flush", "read")  # `np.savez` requires `read`, but does not use it
    return SimpleNamespace(**{name: getattr(file, name) for name in names})


def put_in_place(written: Path, path: Path) -> None:
    """Flush a file to disk and let it replace `path` in the same folder."""
    with writing(path):
        with written.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(written, path)
        _sync_folder(path.parent)


def write_through(path: Path, data: bytes) -> None:
    """Write a file and flush its content to disk, but not its folder entry: the file is moved later."""
    with writing(path), path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def hidden_sibling(path: Path, ending: str = "") -> Path:
    """The path of a hidden file next to another, named after it; a long name is truncated to leave some room."""
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    name = path.name if _name_bytes(path.name) <= _MAX_STEM_BYTES else f"{path.name[:40]}-{digest}"
    return path.with_name(f".{name}{ending}")


def _sync_folder(folder: Path) -> None:
    # some systems cannot open folders, and so cannot flush them
    with suppress(PermissionError, IsADirectoryError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network drives do not support it
                raise
        finally:
            os.close(descriptor)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object atomically as JSON with its checksum; NaN is refused."""
    with replacing(path) as file:
        json.dump({**value, SEAL: _seal(value)}, file, indent=1, allow_nan=False)


def finite_or_none(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """The values with NaN and infinity replaced by None, because JSON has neither."""
    return {k: value if value is not None and math.isfinite(value) else None for k, value in values.items()}


def from_json(text: str | bytes, **options: Any) -> Any:
    """Parse JSON from any source; all errors are a `ValueError`, even a nesting that is too deep.

    >>> from_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: values nested too deeply
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("values nested too deeply") from None
    except ValueError as error:
        if "set_int_max_str_digits" in str(error):  # Python's remedy does not help the file's author
            raise ValueError("a number of more than 4,300 digits") from None
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Read an object that `write_json` wrote."""
    with _reading(path, "JSON", (ValueError,)):
        # Python accepts NaN and Infinity, which JSON does not have
        value = from_json(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    if not isinstance(value, dict):
        raise DamagedError(path, f"it should hold a dict, and holds a {type(value).__name__}")
    seal = value.pop(SEAL, None)
    if seal is None:
        raise DamagedError(path, "it has no checksum, so it was changed by hand or another program wrote it")
    if seal != _seal(value):
        raise DamagedError(path, f"its content does not match its checksum, {str(seal)[:8]}...")
    return value


def _seal(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, allow_nan=False).encode()).hexdigest()


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a JSON number")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name atomically as .npz, with the list of their names."""
    with replacing(path, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays, **{_NAMES: np.array(sorted(arrays))})


def read_arrays(path: Path, sealed: bool = False) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file by name; `sealed` requires the list of names of `write_arrays`, for caches."""
    # opened here, because numpy does not close a file that it cannot read; a pickle could run code
    with (
        _reading(path, "arrays", _ARRAY_ERRORS),
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        found = {name: arrays[name] for name in arrays.files}
    names = found.pop(_NAMES, None)
    if names is None and sealed:
        raise DamagedError(path, "it has no list of its arrays")
    if names is not None and names.tolist() != sorted(found):
        wanted = few(names.tolist())
        raise DamagedError(path, f"it should hold {wanted}, and holds {few(sorted(found)) or 'none'}")
    return found


def read_array(path: Path) -> NDArray[Any]:
    """The array of an .npy file, memory-mapped."""
    with _reading(path, "array", _ARRAY_ERRORS):
        return np.load(path, mmap_mode="r", allow_pickle=False)


def allocate(path: Path, shape: Sequence[int], dtype: DTypeLike) -> np.memmap[Any, Any]:
    """Create a memory-mapped .npy file with its disk space reserved."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        with writing(path):
            require_disk(path, size)
            array = open_memmap(path, mode="w+", dtype=dtype, shape=tuple(shape))
            # a mapped file is sparse: on a full disk, a bus error would kill the process that writes to it
            if hasattr(os, "posix_fallocate"):
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except RunError:
        with suppress(OSError):
            path.unlink()
        raise
    return array


def require_disk(path: Path, size: int) -> None:
    """Check before work that `size` bytes fit on the disk of `path`, whose folder is created."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < size:
            raise OSError(errno.ENOSPC, f"{size / 2**20:.0f} MiB: {os.strerror(errno.ENOSPC)}")


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write a table atomically as CSV, the header first; see `csv_text`."""
    with replacing(path) as file:
        file.writelines(csv_lines(rows))


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(iterate_csv(path))


def iterate_csv(path: Path) -> Iterator[dict[str, str]]:
    """Read a table of `write_csv` row by row, because it may not fit into memory."""
    with _open_csv(path) as file:
        rows = read_rows(file)
        header = next(rows, [])
        for row in rows:
            yield dict(zip(header, row, strict=True))


def read_columns(path: Path) -> dict[str, Sequence[str]]:
    """Read a table of `write_csv` by column, which is faster than a dictionary per row."""
    with _open_csv(path) as file:
        return csv_columns(file)


@contextmanager
def _open_csv(path: Path) -> Iterator[TextIO]:
    with _reading(path, "table", (ValueError,)), path.open(encoding="utf-8", newline="") as file:
        yield file


def cached(path: Path, read: Callable[[Path], Value], write: Callable[[Path], None]) -> Value:
    """The content of a cache file, written first if missing or damaged; `read` must require the checksum."""
    if path.exists():
        with suppress(DamagedError):
            return read(path)
    write(path)
    return read(path)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with _reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_kind(path: Path) -> str | None:
    """The kind of a user's file by its first bytes: empty, HTML, a git-LFS pointer, an image or text; else None."""
    with path.open("rb") as file:
        return kind_of_bytes(file.read(1024))


def kind_of_bytes(first: bytes) -> str | None:
    """What a file is, as far as its first bytes tell, see `file_kind`."""
    if not first:
        return "an empty file"
    start = first.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    known = next((kind for kind, beginnings in _KINDS.items() if start.startswith(beginnings)), None)
    if known is not None:
        return known
    try:  # incremental, because the last character may be incomplete
        text = codecs.getincrementaldecoder("utf-8")().decode(first)
    except UnicodeDecodeError:
        return None
    return "text" if all(letter.isprintable() or letter.isspace() for letter in text) else None


@contextmanager
def _reading(path: Path, kind: str = "", damage: Sequence[type[Exception]] = ()) -> Iterator[None]:
    """Turn errors of reading into `RunError` for a missing or unreadable file, and `DamagedError` for bad content."""
    try:
        yield
    except FileNotFoundError:
        raise RunError(f"`{path}` should exist. Found none. Is `{path.parent}` the right folder?") from None
    except MemoryError:
        raise
    except (OSError, *damage) as error:
        # an unreadable file does not count as damaged, because those are replaced, which may take hours; EINVAL means
        # that a damaged ZIP directory made the reader seek to before the start of the file
        if isinstance(error, OSError) and not (damage and error.errno == errno.EINVAL):
            raise RunError(f"Cannot read `{path}`: {error.strerror or error}.") from None
        raise DamagedError(path, f"no {kind}: {first_line(error)}") from None


def is_url(name: str) -> bool:
    r"""Whether a name is the URL of an object store rather than a path.

    >>> is_url("s3://bucket/photos"), is_url("photos/1920"), is_url("C:\\photos")
    (True, False, False)
    """
    return _URL.match(name) is not None


def require_outputs(
    outputs: Mapping[str, Path | Sequence[Path]], inputs: Iterable[Path] = (), *, overwrite: bool = False
) -> None:
    """Check before work that the output files can be written, and that no file is lost.

    Args:
        outputs: the files to write, one or several, by the option that names them, such as `--out`.
        inputs: files that must never be replaced, under any name or link.
        overwrite: whether other existing files may be replaced.

    Raises:
        ConfigError: an output is an input or another output, exists, or would replace a file of a run or a study.
        RunError: an output cannot be written.
    """
    kept = list(inputs)
    written: list[tuple[str, Path]] = []
    named = {option: [each] if isinstance(each, Path) else each for option, each in outputs.items()}
    for option, path in ((option, path) for option, paths in named.items() for path in paths):
        if any(_is_same_file(path, each) for each in kept):
            raise ConfigError(f"{path} is an input, which is never replaced; name another file with {option}")
        for other, earlier in written:
            if _path_key(path) == _path_key(earlier) or _is_same_file(path, earlier):
                raise ConfigError(f"{path} would be written twice, by {other} and {option}; name two files")
        written.append((option, path))
        try:
            _require_free(path, option, overwrite)
            _try_folder(path.parent, path.name)
        except OSError as error:
            raise write_error(path, error, option) from None


def _is_same_file(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one does not exist or cannot be reached
        return False


def _path_key(path: Path) -> tuple[str, str]:
    """A key that is equal for all spellings of one path, also on file systems that ignore case and Unicode forms."""
    name = unicodedata.normalize("NFC", path.name).casefold()
    return os.path.realpath(path.parent), name


def _require_free(path: Path, option: str, overwrite: bool) -> None:
    try:
        # of a link itself, because a broken link exists, too
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file with {option}")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise ConfigError(f"{path} is a device, a pipe or a socket; name a file with {option}")
    if any((path.parent / name).exists() for name in RUN_FILES):
        raise ConfigError(
            f"{path} is in the folder of a run or a study, whose files are never replaced; name another with {option}"
        )
    if not overwrite:
        raise ConfigError(f"{path} already exists; name another file with {option}, or pass --overwrite")


def require_writable_folder(folder: Path, option: str = "") -> Path:
    """Check before work that a folder is writable or can be created; if not, raise `RunError`."""
    try:
        _try_folder(folder)
    except OSError as error:
        raise write_error(folder, error, option, is_folder=True) from None
    return folder


def _try_folder(folder: Path, name: str = "") -> None:
    """Try to write into the nearest existing parent, because missing folders are created later."""
    folder = real_path(folder)
    names = [name]
    while not os.path.lexists(folder) and folder != folder.parent:
        names.append(folder.name)
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass
    # the system checks the length of a name only when the folders above it exist
    longest = os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else _MAX_NAME_BYTES
    if any(_name_bytes(each) > longest for each in names):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def _name_bytes(name: str) -> int:
    return len(os.fsencode(name))
