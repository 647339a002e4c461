"""Where an archive lies: in an object store, S3 and its like, Google's or Azure's. The only importer of obstore."""

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from knowhue.errors import ImageError, RunError, missing_package
from knowhue.images.files import SUFFIXES, why_hidden
from knowhue.inference.store import STATE, StoredFile

_DRIVER = f"{STATE}/driver.json"
_RETRIES: Any = {"max_retries": 12, "retry_timeout": timedelta(minutes=5)}
"""Of requests that a store answers with 429 or 5xx, or not at all, each after a longer wait."""


class ObjectStore:
    """A prefix of an object store: of Amazon S3 and what speaks its language, Google's or Azure's."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._obstore, self._store = _open(url)

    def images(self, avoid: str = "") -> Iterator[StoredFile]:
        # a name with a slash at its end is a folder that a browser of the store has made
        for path, stamp, _ in self.files():
            if not (avoid and path.startswith(f"{avoid}/")):
                yield StoredFile(path, stamp, _why_skipped(path))

    def files(self, below: str = "") -> Iterator[StoredFile]:
        with self._telling():
            for chunk in self._obstore.list(self._store, prefix=below or None):
                for each in chunk:
                    yield StoredFile(each["path"], each["e_tag"] or f"{each['size']}-{each['last_modified']}")

    def read(self, path: str) -> bytes:
        """See `Store`."""
        try:
            with self._telling():
                return self._obstore.get(self._store, path).bytes().to_bytes()
        except FileNotFoundError:
            raise ImageError("it is gone") from None

    def write(self, path: str, data: bytes, replace: bool = True) -> str:
        """See `Store`."""
        # a store without conditional puts replaces what came since it was listed
        from obstore.exceptions import AlreadyExistsError, NotSupportedError

        how: dict[str, Any] = {} if replace else {"mode": "create", "use_multipart": False}
        with self._telling():
            try:
                return self._obstore.put(self._store, path, data, **how)["e_tag"] or ""
            except NotSupportedError:
                return self._obstore.put(self._store, path, data)["e_tag"] or ""
            except AlreadyExistsError:
                found = self._obstore.get(self._store, path)
                if found.bytes().to_bytes() == data:  # by a request whose answer was lost
                    return found.meta["e_tag"] or ""
        raise ImageError(f"`{path}` is there already")

    def remove(self, path: str) -> None:
        with self._telling(), suppress(FileNotFoundError):
            self._obstore.delete(self._store, path)

    @contextmanager
    def held(self) -> Iterator[str]:
        """See `Store`."""
        # by conditional puts, which a store may lack: that is tried out first
        probe = f"{STATE}/probe-{uuid4().hex}"
        can_hold = self._create(probe, b"") and not self._create(probe, b"")
        self.remove(probe)
        if not can_hold:
            yield f"`{self.url}` has no conditional put: see to it yourself that one command at a time works on it."
            return
        me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(" ", "seconds"),
        }
        if not self._create(_DRIVER, json.dumps(me).encode()):
            self._take_over(me)
        try:
            yield ""
        finally:
            self.remove(_DRIVER)

    def _take_over(self, me: Mapping[str, Any]) -> None:
        """Replace the file of a driver that was killed on this machine, unless another one has just done that."""
        from obstore.exceptions import PreconditionError

        busy = f"`{self.url}` is being worked on by"
        try:
            with self._telling():
                found = self._obstore.get(self._store, _DRIVER)
                holder = json.loads(found.bytes().to_bytes())
                who = f"process {holder['pid']} of {holder['host']}, since {holder['since']}"
                if holder["host"] != me["host"] or _is_alive(holder["pid"]):
                    raise RunError(f"{busy} {who}. If that has ended, remove `{_DRIVER}` there.")
                mode = {"e_tag": found.meta["e_tag"]}
                self._obstore.put(
                    self._store, _DRIVER, json.dumps(me).encode(), mode=mode, use_multipart=False
                )
        except (PreconditionError, FileNotFoundError):
            raise RunError(f"{busy} another command, which has just begun or ended. Try again.") from None
        except (ValueError, KeyError, TypeError):
            raise RunError(
                f"`{_DRIVER}` of `{self.url}` is damaged. Remove it there if nobody works on it."
            ) from None

    def _create(self, path: str, data: bytes) -> bool:
        """Write a file unless there is one of that name; whether it was written."""
        from obstore.exceptions import AlreadyExistsError, NotSupportedError

        try:
            with self._telling():
                self._obstore.put(self._store, path, data, mode="create", use_multipart=False)
        except (AlreadyExistsError, NotSupportedError):
            return False
        return True

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """One line for what a store answers; of its causes the innermost, which says what to mend."""
        from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError

        try:
            yield
        except (AlreadyExistsError, NotSupportedError, PreconditionError, FileNotFoundError):
            raise
        except BaseError as error:
            raise RunError(
                f"`{self.url}` does not answer as it should: {_in_a_line(error)}. Credentials and endpoint come from "
                "the environment, such as AWS_ACCESS_KEY_ID, AWS_REGION and AWS_ENDPOINT_URL."
            ) from None


def _is_alive(pid: int) -> bool:
    if os.name != "posix":  # elsewhere asking would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _why_skipped(path: str) -> str:
    *folders, name = path.split("/")
    hidden = next(filter(None, map(why_hidden, (*folders, name))), "")
    suffix = Path(name).suffix
    return hidden or ("" if suffix.lower() in SUFFIXES else f"of no image format ({suffix or 'no suffix'})")


def _open(url: str) -> tuple[Any, Any]:
    try:
        import obstore
        from obstore.exceptions import BaseError
    except ImportError:
        raise missing_package(f"`{url}`", "obstore", "archive") from None
    try:
        return obstore, obstore.store.from_url(url, retry_config=_RETRIES)
    except (BaseError, ValueError) as error:
        raise RunError(
            f"`{url}` should name a store such as s3://bucket/photos. Found: {_in_a_line(error)}"
        ) from None


def _in_a_line(error: Exception) -> str:
    """What an error says, without what is meant for debugging; of an answer in XML its message."""
    text = " ".join(str(error).partition("\n\nDebug source")[0].split())
    message = re.search("<Message>(.*?)</Message>", text)
    return (message[1] if message else text[:400]).rstrip(".")
