"""Storage of an archive: a folder, or a prefix of an object store such as `s3://bucket/photos`.

Files appear whole or not at all. A file's stamp changes when the file does: the store's ETag, or size and time.
"""

import errno
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname
from uuid import uuid4

from knowhue.errors import ImageError, RunError, needing, system_reason
from knowhue.images.image import STATE, SUFFIXES, identity, other_type, walk, why_hidden
from knowhue.images.reading import open_file
from knowhue.inference.ledger import Stamp
from knowhue.locks import locked
from knowhue.storage import from_json, is_url, write_through, writing

PARTS = f"{STATE}/parts"
"""Folder in which files are written before they are moved to their place."""
_FILE_ERRORS = {errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP}
"""Errors of one file; the rest of the store can still be used."""
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class StoredFile(NamedTuple):
    """A file of a store."""

    path: str
    """path below the store's root, with `/`"""
    stamp: str
    """changes when the file does"""
    skipped: str = ""
    """why the file is not coloured; empty for an image"""


class FolderStore:
    """A folder of this machine, or of a drive that all machines share.

    Every method of a store can be called from any thread, and raises `RunError` if the store fails.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)
        self.place = os.path.realpath(root)
        """the store's real path, independent of links"""

    def images(self, avoid: str = "") -> Iterator[StoredFile]:
        """Every image and every skipped file, in any order, without those below the path `avoid`."""
        for path, skipped in walk(self.root, avoid=self.root / avoid if avoid else None):
            # a dangling link is listed, too, and fails when it is read
            yield StoredFile(path.relative_to(self.root).as_posix(), _stamp(path), skipped)

    def files(self, below: str = "") -> Iterator[StoredFile]:
        """Every file, in any order."""
        entered: set[tuple[int, int]] = set()
        for folder, folders, names in os.walk(self.root / below, followlinks=True):
            if (here := identity(Path(folder))) in entered:  # a link to a folder that was listed before
                folders.clear()
                continue
            entered.add(here)
            for name in names:
                path = Path(folder, name)
                # a dangling link is listed, too, because writing would follow it
                yield StoredFile(path.relative_to(self.root).as_posix(), _stamp(path))

    def read(self, path: str) -> bytes:
        """The bytes of a file; an `ImageError` if it does not exist or cannot be read."""
        if not os.path.lexists(self.root / path):
            raise ImageError("it is gone")
        try:
            with open_file(self.root / path) as file:
                return file.read()
        except OSError as error:  # such as of a drive that was removed
            raise ImageError(system_reason(error)) from None

    def write(self, path: str, data: bytes, replace: bool = True) -> str:
        """Write a file, and return its stamp; without `replace`, the store refuses if there is one, without a race.

        An `ImageError` if it refuses, or if it cannot hold a file of that name.
        """
        target, written = self.root / path, self.root / PARTS / uuid4().hex
        with writing(target):
            written.parent.mkdir(parents=True, exist_ok=True)
            write_through(written, data)
            stamp = _stamp(written)  # moving the file keeps its time
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                _put(written, target, replace)
            except OSError as error:
                if error.errno == errno.EEXIST and target.is_file() and target.read_bytes() == data:
                    return _stamp(target)  # written by an earlier attempt that was believed lost
                if error.errno not in _FILE_ERRORS:
                    raise
                raise ImageError(f"`{path}` cannot be written: {system_reason(error)}") from None
            finally:
                written.unlink(missing_ok=True)
        return stamp

    def remove(self, path: str) -> None:
        with writing(self.root / path):
            (self.root / path).unlink(missing_ok=True)

    @contextmanager
    def hold(self) -> Iterator[str]:
        """Lock the root against other drivers, or raise a `RunError`; yields a note if the store cannot lock."""
        with locked(self.root, "colorize"):
            yield ""


def _put(written: Path, target: Path, replace: bool) -> None:
    """Move a file to its place; a `FileExistsError` if there is one, and `replace` is not set."""
    if not replace:
        try:
            os.link(written, target)  # unlike a move, it fails if the target exists
            return
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    os.replace(written, target)


def _stamp(path: Path) -> str:
    return "{}-{}".format(*Stamp.of(path))


_DRIVER = f"{STATE}/driver.json"
_CREATE: Any = {"mode": "create", "use_multipart": False}
_FROM_ENVIRONMENT = "Credentials and endpoint come from the environment, such as"
_REMEDIES = {
    "S3Store": f"{_FROM_ENVIRONMENT} AWS_ACCESS_KEY_ID, AWS_REGION and AWS_ENDPOINT_URL",
    "GCSStore": f"{_FROM_ENVIRONMENT} GOOGLE_SERVICE_ACCOUNT, the path of a key file",
    "AzureStore": f"{_FROM_ENVIRONMENT} AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "HTTPStore": "An http address should be a WebDAV server's; other stores are named as s3://bucket/photos",
}
_RETRIES: Any = {"max_retries": 12, "retry_timeout": timedelta(minutes=5)}
"""Retries after an answer of 429 or 5xx, or none, with growing waits."""


class ObjectStore:
    """A prefix of an object store: Amazon S3 and compatible ones, Google's, Azure's or a WebDAV server.

    Methods have the arguments, results and errors of `FolderStore`.
    """

    def __init__(self, url: str) -> None:
        self.url = hide_password(url)
        self._obstore, self._store = _open(url)
        self.place = _address(self._store)
        self._errors = self._obstore.exceptions

    def images(self, avoid: str = "") -> Iterator[StoredFile]:
        for path, stamp, _ in self.files():
            if not (avoid and path.startswith(f"{avoid}/")):
                yield StoredFile(path, stamp, _why_skipped(path))

    def files(self, below: str = "") -> Iterator[StoredFile]:
        with self._one_line_errors():
            for chunk in self._obstore.list(self._store, prefix=below or None):
                for file in chunk:
                    yield StoredFile(file["path"], file["e_tag"] or f"{file['size']}-{file['last_modified']}")

    def read(self, path: str) -> bytes:
        return self._get(path)[0]

    def write(self, path: str, data: bytes, replace: bool = True) -> str:
        """Write a file, as `FolderStore.write`."""
        try:
            return self._put(path, data, **({} if replace else _CREATE))
        except self._errors.NotSupportedError:  # a file that appeared since the listing is replaced
            return self._put(path, data)
        except self._errors.AlreadyExistsError:
            there, stamp = self._get(path)
            if there != data:  # equal data were written by a request whose answer was lost
                raise ImageError(f"`{path}` already exists") from None
            return stamp

    def remove(self, path: str) -> None:
        with self._one_line_errors(), suppress(FileNotFoundError):
            self._obstore.delete(self._store, path)

    @contextmanager
    def hold(self) -> Iterator[str]:
        """Lock the prefix, as `FolderStore.hold`."""
        # needs conditional puts, which a store may lack: find out first
        probe = f"{STATE}/probe-{uuid4().hex}"
        can_hold = self._create(probe, b"") and not self._create(probe, b"")
        self.remove(probe)
        if not can_hold:
            yield f"`{self.url}` has no conditional put: make sure yourself that only one command works on it."
            return
        since = datetime.now(UTC).isoformat(" ", "seconds")
        holder = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since}).encode()
        if not self._create(_DRIVER, holder):
            self._take_over(holder)
        try:
            yield ""
        finally:
            self.remove(_DRIVER)

    def _take_over(self, new_holder: bytes) -> None:
        """Replace the lock file of a driver that was killed on this machine, unless another driver has just done so."""
        in_use = f"`{self.url}` is in use by"
        try:
            data, stamp = self._get(_DRIVER)
            holder = from_json(data)
            who = f"process {holder['pid']} of {holder['host']}, since {holder['since']}"
            if holder["host"] != socket.gethostname() or _is_alive(holder["pid"]):
                raise RunError(f"{in_use} {who}. If that process has ended, remove `{_DRIVER}` there.")
            self._put(_DRIVER, new_holder, mode={"e_tag": stamp}, use_multipart=False)
        except (self._errors.PreconditionError, ImageError):
            raise RunError(f"{in_use} another command, which has just begun or ended. Try again.") from None
        except (ValueError, KeyError, TypeError, OverflowError):
            raise RunError(
                f"`{_DRIVER}` of `{self.url}` is damaged. Remove it there if no other command works on it."
            ) from None

    def _create(self, path: str, data: bytes) -> bool:
        """Write a file unless it exists; return whether it was written."""
        with suppress(self._errors.AlreadyExistsError, self._errors.NotSupportedError):
            self._put(path, data, **_CREATE)
            return True
        return False

    def _get(self, path: str) -> tuple[bytes, str]:
        """The bytes of a file and its stamp."""
        try:
            with self._one_line_errors():
                found = self._obstore.get(self._store, path)
                return found.bytes().to_bytes(), found.meta["e_tag"] or ""
        except FileNotFoundError:
            raise ImageError("it is gone") from None

    def _put(self, path: str, data: bytes, **options: Any) -> str:
        with self._one_line_errors():
            return self._obstore.put(self._store, path, data, **options)["e_tag"] or ""

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Turn a store's errors into a `RunError` of one line."""
        errors = self._errors
        try:
            yield
        except (
            errors.AlreadyExistsError, errors.NotSupportedError, errors.PreconditionError, FileNotFoundError
        ):  # fmt: skip
            raise
        except NotImplementedError as error:  # obstore's error for HTTP (WebDAV) without conditional puts
            raise errors.NotSupportedError(str(error)) from None
        except errors.BaseError as error:
            remedy = _REMEDIES.get(type(self._store).__name__, "Name another store")
            raise RunError(f"Cannot use `{self.url}`: {_one_line(error)}. {remedy}.") from None


Store = FolderStore | ObjectStore


def open_store(name: str) -> Store:
    """Open a folder or an object store; obstore reads credentials from the environment.

    An `ExtraError` if obstore is needed and not installed; a `RunError` if there is no such kind of store.
    """
    if not is_url(name):
        return FolderStore(Path(name))
    if name.lower().startswith("file:"):
        return FolderStore(_folder_of(name))
    return ObjectStore(name.rstrip("/"))


def _folder_of(url: str) -> Path:
    parts = urlsplit(url)
    # `file://name` names a host, and `#` ends a path: outputs would silently go elsewhere
    if parts.netloc not in ("", "localhost") or not parts.path or parts.query or parts.fragment:
        raise RunError(
            f"`{url}` should name a folder of this machine, such as file:///photos. Leave out `file://`, or write "
            "three slashes."
        )
    return Path(url2pathname(parts.path))


def _is_alive(pid: int) -> bool:
    if os.name != "posix":  # on Windows `os.kill` would end the process
        return True
    try:
        os.kill(pid, 0)
    except OSError as error:  # `PermissionError` means another user's process
        return not isinstance(error, ProcessLookupError)
    return True


def _why_skipped(path: str) -> str:
    *folders, name = path.split("/")
    hidden = next(filter(None, map(why_hidden, (*folders, name))), "")
    suffix = Path(name).suffix
    return hidden or ("" if suffix.lower() in SUFFIXES else other_type(suffix))


def _address(store: Any) -> str:
    """The address of a store, equal for `s3://bucket/photos` and `s3a://bucket/photos/`."""
    config = getattr(store, "config", None) or {"url": getattr(store, "url", None)}
    parts = [config.get(key) for key in ("endpoint", "account_name", "container_name", "bucket", "url")]
    return "/".join(filter(None, [type(store).__name__, *parts, getattr(store, "prefix", None)]))


def _open(url: str) -> tuple[Any, Any]:
    shown_url = hide_password(url)
    with needing(f"`{shown_url}`", "archive"):
        import obstore
        import obstore.exceptions
    # without the option every request to `http://` fails with the words "builder error"
    options: Any = {"client_options": {"allow_http": True}} if url.lower().startswith("http:") else {}
    try:
        return obstore, obstore.store.from_url(url, retry_config=_RETRIES, **options)
    except (obstore.exceptions.BaseError, ValueError) as error:
        remedy = f". {_REMEDIES['AzureStore']}." if "MicrosoftAzure" in str(error) else ""
        raise RunError(
            f"`{shown_url}` should name a store such as s3://bucket/photos. Found: {_one_line(error)}{remedy}"
        ) from None


def hide_password(text: str) -> str:
    """A text without the user names and passwords of its URLs."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)


def _one_line(error: Exception) -> str:
    """An error's text without debugging details, passwords and HTML, or the message of an answer in XML."""
    text = hide_password(" ".join(str(error).partition("\n\nDebug source")[0].split()))
    message = re.search("<Message>(.*?)</Message>", text)
    return (message[1] if message else text.partition(": <")[0][:400]).rstrip(".")
