"""The work of test jobs on engines. Every job imports this file, so it imports nothing slow."""

import os
import time
from pathlib import Path

from knowhue.errors import RunError


def write(path: Path, needs: tuple[str, ...] = ()) -> None:
    """Append `done` to a file; fail if a file that it needs is missing."""
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
    """Append the process id to a file, and wait until a second process has done so."""
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")
    while len(path.read_text().split()) < 2:
        time.sleep(0.05)
