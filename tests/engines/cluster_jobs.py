"""What jobs of the tests do on an engine. They import this file anew, so it imports nothing that takes a second."""

import os
import time
from pathlib import Path

from knowhue.errors import RunError


def write(path: Path, needs: tuple[str, ...] = ()) -> None:
    """Says in a file that it was done, and fails without what it needs."""
    missing = [each for each in needs if not (path.parent / each).exists()]
    if missing:
        raise RunError(f"{path.name} began before {missing}")
    with path.open("a") as file:
        file.write("done\n")


def fail(path: Path) -> None:
    raise RunError(f"{path.name} failed")


def divide() -> None:
    raise ZeroDivisionError("no such luck")


def wait_for_a_second_start(path: Path) -> None:
    """Ends when it is begun again; says each time who runs it."""
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")
    while len(path.read_text().split()) < 2:
        time.sleep(0.05)
