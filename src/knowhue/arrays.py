"""Large arrays on disk, whose room is taken before they are filled."""

import errno
import math
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike

from knowhue.errors import RunError
from knowhue.storage import writing


def allocate(path: Path, shape: Sequence[int], dtype: DTypeLike) -> np.memmap[Any, Any]:
    """Make a .npy file to be filled through memory.

    A mapped file is sparse: on a full disk the writer would not see an error but be killed by a bus error. So
    its room is asked for at once.

    Raises:
        RunError: the folder cannot be written, or the disk has no room.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(path.parent).free < size:
                raise OSError(errno.ENOSPC, f"{size / 2**20:.0f} MiB: {os.strerror(errno.ENOSPC)}")
            array = open_memmap(path, mode="w+", dtype=dtype, shape=tuple(shape))
            if hasattr(os, "posix_fallocate"):
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except RunError:
        with suppress(OSError):
            path.unlink()
        raise
    return array
