"""The folder where gradio puts uploads until the desk takes them: bounded, and swept of what nobody took."""

import asyncio
import atexit
import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from knowhue.serving.refusals import Refusal
from knowhue.serving.settings import MIB

ABANDONED_SECONDS = 120
"""After which an upload that was not taken, or broke off, is deleted."""
SWEEP_SECONDS = 30
MOST_FILES = 2000
ALIAS = "knowhue-uploads/"
"""What the folder is called to browsers, who need not know its path."""


def private_folder() -> Path:
    """A folder that nobody else may look into; gradio, imported afterwards, puts uploads there."""
    folder = Path(tempfile.mkdtemp(prefix="knowhue-page-")).resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class Intake:
    """One server's folder of uploads.

    Args:
        folder: where they lie.
        max_held_mib: of all together, beyond which no more are received.
        clock: seconds since 1970, as files' times are.
    """

    def __init__(self, folder: Path, max_held_mib: float, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._limit = max_held_mib * MIB
        self._clock = clock

    def admit(self) -> None:
        """Let one more upload in.

        Raises:
            Refusal: too much lies there already.
        """
        sizes = [size for _, size, _ in self._files()]
        if sum(sizes) >= self._limit or len(sizes) >= MOST_FILES:
            message = f"The server holds too many uploads. Try again in {SWEEP_SECONDS} s."
            raise Refusal(429, "held", message, {"retry-after": str(SWEEP_SECONDS)})

    def without_place(self, answer: bytes) -> bytes:
        """What gradio answers to an upload, its files' paths, without where on this machine the folder is."""
        paths = [Path(each).relative_to(self.folder).as_posix() for each in json.loads(answer)]
        return json.dumps([f"{ALIAS}{each}" for each in paths]).encode()

    def with_place(self, request: bytes) -> bytes:
        """What the page sends then, in JSON, as gradio has to see it."""
        place = json.dumps(f"{self.folder}{os.sep}")[:-1]
        return request.replace(f'"{ALIAS}'.encode(), place.encode())

    def sweep(self) -> None:
        """Delete what was left lying, and folders with nothing in them."""
        limit = self._clock() - ABANDONED_SECONDS
        for path, _, changed in self._files():
            if changed < limit:
                path.unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if path.is_dir() and path.stat().st_mtime < limit:
                with contextlib.suppress(OSError):  # not empty, or gone
                    path.rmdir()

    async def sweep_for_ever(self) -> None:
        """Sweep every now and then, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            with contextlib.suppress(FileNotFoundError):  # taken meanwhile
                await asyncio.to_thread(self.sweep)

    def _files(self) -> Iterator[tuple[Path, int, float]]:
        """Path, size and time of last change of each file; one may be taken while it is looked at."""
        for path in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                if path.is_file():
                    yield path, found.st_size, found.st_mtime
