"""Where an archive lies: a folder, or a prefix of an object store (`object_store`), `s3://bucket/photos`.

Files are whole or not there. What changes when a file does is its stamp: the store's ETag, or size and time.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol
from uuid import uuid4

from knowhue.errors import ImageError, system_reason
from knowhue.images.files import identity, walk
from knowhue.inference.ledger import Stamp
from knowhue.locks import locked
from knowhue.storage import write_through, writing

STATE = ".knowhue"
"""Folder of an archive's output with what is known of it: hidden, so that nobody takes it for images."""
PARTS = f"{STATE}/parts"
"""What a folder's files are written to before they are put in their place."""
_OF_THE_NAME = {errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP}
"""What one name suffers, and others need not."""
_WITHOUT_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class StoredFile(NamedTuple):
    """A file of a store.

    Attributes:
        path: below the store's root, with `/`.
        stamp: changes when the file does.
        skipped: why it is no image to be coloured; nothing for an image.
    """

    path: str
    stamp: str
    skipped: str = ""


class Store(Protocol):
    """Files below a root. Every method may be called from any thread, and raises `RunError` if the store fails."""

    @property
    def url(self) -> str: ...

    def images(self, avoid: str = "") -> Iterator[StoredFile]:
        """Every file, images and others, as they come; what lies below the path `avoid` is passed over."""
        ...

    def files(self, below: str = "") -> Iterator[StoredFile]: ...

    def read(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            ImageError: there is none.
        """
        ...

    def write(self, path: str, data: bytes, replace: bool = True) -> str:
        """Write a file; its stamp.

        Args:
            path: of the file.
            data: all of it.
            replace: whether one of that name may be replaced; otherwise the store itself sees to it that none is.

        Raises:
            ImageError: there is one that may not be replaced, or no file can have that name here.
        """
        ...

    def remove(self, path: str) -> None: ...

    def held(self) -> AbstractContextManager[str]:
        """Hold the root against other drivers; gives a note where the store cannot keep two of them apart.

        Raises:
            RunError: another one holds it.
        """
        ...


def is_url(name: str) -> bool:
    r"""Whether a name is that of an object store, not of a folder.

    >>> is_url("s3://bucket/photos"), is_url("photos/1920"), is_url("C:\\photos")
    (True, False, False)
    """
    return _URL.match(name) is not None


def open_store(name: str) -> Store:
    """Open a folder or an object store by its name; credentials come from the environment, as obstore reads them.

    Raises:
        ExtraError: it is an object store, and obstore is not installed.
        RunError: no such kind of store.
    """
    if not is_url(name):
        return FolderStore(Path(name))
    from knowhue.inference.object_store import ObjectStore

    return ObjectStore(name.rstrip("/"))


class FolderStore:
    """A folder of this machine, or of a drive that all machines share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def images(self, avoid: str = "") -> Iterator[StoredFile]:
        # which files count is decided by `images.files.walk`
        for path, skipped in walk(self.root, avoid=self.root / avoid if avoid else None):
            # who reads a link to nothing will say so
            yield StoredFile(path.relative_to(self.root).as_posix(), _stamp(path) or "", skipped)

    def files(self, below: str = "") -> Iterator[StoredFile]:
        """See `Store`."""
        entered: set[tuple[int, int]] = set()
        for folder, folders, names in os.walk(self.root / below, followlinks=True):
            if (here := identity(Path(folder))) in entered:  # a link to a folder around it
                folders.clear()
                continue
            entered.add(here)
            for name in names:
                path = Path(folder, name)
                stamp = _stamp(path)
                # a link to nothing is in the way of what would be written through it
                yield StoredFile(
                    path.relative_to(self.root).as_posix(), "link to nothing" if stamp is None else stamp
                )

    def read(self, path: str) -> bytes:
        """See `Store`."""
        try:
            if (self.root / path).exists() and not (
                self.root / path
            ).is_file():  # opening a pipe would wait for ever
                raise ImageError("it is a device or a pipe; save it as a file first")
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            raise ImageError("it is gone") from None
        except OSError as error:
            raise ImageError(system_reason(error)) from None

    def write(self, path: str, data: bytes, replace: bool = True) -> str:
        """See `Store`."""
        target, written = self.root / path, self.root / PARTS / uuid4().hex
        with writing(target):
            written.parent.mkdir(parents=True, exist_ok=True)
            write_through(written, data)
            stamp = _stamp(written)  # moved, it keeps its time
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                _put(written, target, replace)
            except OSError as error:
                if error.errno == errno.EEXIST and target.is_file() and target.read_bytes() == data:
                    return _stamp(target) or ""  # by another try, which was taken for lost
                if error.errno not in _OF_THE_NAME:
                    raise
                raise ImageError(f"`{path}` cannot be written: {system_reason(error)}") from None
            finally:
                written.unlink(missing_ok=True)
        return stamp or ""

    def remove(self, path: str) -> None:
        with writing(self.root / path):
            (self.root / path).unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[str]:
        # the system lets go of the lock when its process ends
        with locked(self.root, "colorize"):
            yield ""


def _put(written: Path, target: Path, replace: bool) -> None:
    """Move a file to its place; over another only if that may be replaced.

    Raises:
        FileExistsError: it may not.
    """
    if replace:
        os.replace(written, target)
        return
    try:
        os.link(written, target)  # which fails where there is one
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.replace(written, target)


def _stamp(path: Path) -> str | None:
    stamp = Stamp.of(path)
    return None if stamp is None else f"{stamp.size_bytes}-{stamp.modified_ns}"
