"""An array of images in files of a bounded size, read as one array would be."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from knowhue.storage import read_array, replacing

SHARD_BYTES = 2 * 10**9
"""Pixels of one file: many enough that a million images are a few files."""
_PART_IMAGES, _PARTS = 500, 256
"""Images that one process reads at least, so that its start is worth it, and parts of any number of images."""
_BLOCK_BYTES = 2**23
"""Pixels that are held at a time."""


class MappedFiles(Sequence[NDArray[np.uint8]]):
    """Arrays in files, each open for as long as it is used: no pages are held that were read once."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, key: Any) -> Any:
        return read_array(self._paths[key], memory_map=True)


class Shards:
    """Images (N, side, side, 3) uint8 in several arrays, indexed along N as numpy indexes one.

    >>> parts = [np.zeros((2, 1, 1, 3), np.uint8), np.ones((1, 1, 1, 3), np.uint8)]
    >>> Shards(parts)[[2, 0]][:, 0, 0, 0].tolist()
    [1, 0]
    """

    def __init__(self, parts: Sequence[NDArray[np.uint8]]) -> None:
        self._parts = parts
        ends = np.cumsum([len(part) for part in parts])
        self._starts = np.concatenate([[0], ends[:-1]])
        self.shape = (int(ends[-1]), *parts[0].shape[1:])
        self._positions = np.arange(len(self))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        positions = self._positions[key]
        found = np.empty((positions.size, *self.shape[1:]), np.uint8)
        flat = positions.reshape(-1)
        shard = np.searchsorted(self._starts, flat, side="right") - 1
        for number in np.unique(shard):
            own = shard == number
            found[own] = self._parts[number][flat[own] - self._starts[number]]
        return found.reshape(*positions.shape, *self.shape[1:])


PreparedPixels = NDArray[np.uint8] | Shards
"""(N, side, side, 3) uint8 sRGB."""


def images_a_shard(side: int) -> int:
    """How many images of a side one file holds."""
    return max(1, SHARD_BYTES // (3 * side * side))


def images_a_part(total: int, side: int) -> int:
    """How many images of all are read by one process: few enough to be read again after a kill."""
    return min(images_a_shard(side), max(_PART_IMAGES, -(-total // _PARTS)))


def shard_names(count: int, side: int) -> list[str]:
    """The files that hold so many images: `images.npy`, or `images-00001-of-00003.npy` and so on."""
    shards = max(1, -(-count // images_a_shard(side)))
    if shards == 1:
        return ["images.npy"]
    return [f"images-{number:05d}-of-{shards:05d}.npy" for number in range(1, shards + 1)]


def open_shards(paths: Sequence[Path]) -> PreparedPixels:
    """The images of some files, memory-mapped.

    Raises:
        RunError: one is missing or cannot be read.
        DamagedError: one holds no array, or is cut.
    """
    parts = [read_array(path, memory_map=True) for path in paths]
    return parts[0] if len(parts) == 1 else Shards(parts)


@contextmanager
def writing_shard(path: Path, shape: tuple[int, int]) -> Iterator[Callable[[NDArray[np.uint8]], object]]:
    """Write a file of images one after another, whole or not at all.

    Yields:
        What writes an image, or several.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """
    count, side = shape
    with replacing(path, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
        write_array_header_1_0(file, header)
        yield lambda images: file.write(images.tobytes())


def pixel_blocks(pixels: PreparedPixels, positions: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """Some images, a few megabytes at a time."""
    size = images_a_block(pixels.shape[1])
    return (pixels[positions[at : at + size]] for at in range(0, len(positions), size))


def images_a_block(side: int) -> int:
    """How many images of a side are held at a time."""
    return max(64, _BLOCK_BYTES // (3 * side * side))
