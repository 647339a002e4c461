"""Decodes and resizes every image once, in parts that other processes can read, too; finished parts survive a kill."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray
from PIL import Image, ImageOps

from knowhue.color import colourfulness
from knowhue.config import Images
from knowhue.csv_text import to_csv
from knowhue.data import checks
from knowhue.data.items import ImageSource, SourceItem
from knowhue.data.listing import READ_COLUMNS, ImageListing
from knowhue.data.sources import SOURCES
from knowhue.errors import ImageError, RunError
from knowhue.runs import Report, ShareOut
from knowhue.storage import (
    expand_user,
    file_digest,
    iterate_csv,
    read_array,
    read_json,
    replacing,
    require_disk,
    write_json,
)

SHARD_BYTES = 2 * 10**9  # bytes of pixels in one file, so large that a million images are a few files
_PART_IMAGES, _PARTS = 500, 256
"""Fewest images of a part, so that starting a process for it pays, and largest number of parts."""
_BLOCK_BYTES = 2**23  # bytes of pixels in memory at a time


class MappedFiles(Sequence[NDArray[np.uint8]]):
    """Arrays in files, each memory-mapped again for every access, so that pages that were read are released."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, key: Any) -> Any:
        return read_array(self._paths[key])


class Shards:
    """Images (N, side, side, 3) uint8 in several arrays, indexed along N like one NumPy array.

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
            is_here = shard == number
            found[is_here] = self._parts[number][flat[is_here] - self._starts[number]]
        return found.reshape(*positions.shape, *self.shape[1:])


PreparedPixels = NDArray[np.uint8] | Shards  # (N, side, side, 3) uint8 sRGB


def images_per_shard(side: int) -> int:
    return max(1, SHARD_BYTES // (3 * side * side))


def images_per_part(total: int, side: int) -> int:
    """Images per part: few enough that losing a part to a kill costs little."""
    return min(images_per_shard(side), max(_PART_IMAGES, -(-total // _PARTS)))


def shard_names(count: int, side: int) -> list[str]:
    """Names of the files for `count` images: `images.npy`, or `images-00001-of-00003.npy` and so on."""
    shards = max(1, -(-count // images_per_shard(side)))
    if shards == 1:
        return ["images.npy"]
    return [f"images-{number:05d}-of-{shards:05d}.npy" for number in range(1, shards + 1)]


def open_shards(paths: Sequence[Path]) -> PreparedPixels:
    parts = [read_array(path) for path in paths]
    return parts[0] if len(parts) == 1 else Shards(parts)


@contextmanager
def writing_shard(path: Path, shape: tuple[int, int]) -> Iterator[Callable[[NDArray[np.uint8]], object]]:
    """Write a file by the function that this yields, with one or several images a call; it appears when complete."""
    count, side = shape
    with replacing(path, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
        write_array_header_1_0(file, header)
        yield lambda images: file.write(images.tobytes())


def pixel_blocks(pixels: PreparedPixels, positions: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """The images at some positions, in blocks of a few megabytes."""
    size = images_per_block(pixels.shape[1])
    return (pixels[positions[at : at + size]] for at in range(0, len(positions), size))


def images_per_block(side: int) -> int:
    return max(64, _BLOCK_BYTES // (3 * side * side))


class ImagePart(NamedTuple):
    """Images at positions from `start` up to, but not including, `stop`, which are read by one process."""

    start: int
    stop: int
    pixels: Path
    """file with the pixels; the other files are beside it"""

    @property
    def items(self) -> Path:
        """File with the items to read, one per line."""
        return self.pixels.with_suffix(".jsonl")

    @property
    def table(self) -> Path:
        """Table of results, with the columns `READ_COLUMNS`."""
        return self.pixels.with_suffix(".csv")

    @property
    def mark(self) -> Path:
        """File with checksums of pixels and table, written last."""
        return self.pixels.with_suffix(".json")


def read_all(
    listing: ImageListing, images: Images, scratch: Path, report: Report, share_out: ShareOut | None = None
) -> Shards:
    """Read all images into parts in `scratch`, except parts that an earlier process finished; return the pixels."""
    side, total = images.size_px, len(listing)
    size = images_per_part(total, side)
    files = ((at, scratch / f"{at // size:05d}.npy") for at in range(0, total, size))
    parts = [ImagePart(at, min(at + size, total), file) for at, file in files]
    missing = [part for part in parts if not _is_read(part)]
    to_read = sum(part.stop - part.start for part in missing)
    # the parts still to be read, and all images once more in the final array
    require_disk(scratch.parent / shard_names(1, side)[0], 3 * side * side * (to_read + total))

    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        report({"stage": "prepare", "done": done, "total": total})

    if to_read < total:
        tell(total - to_read)
    for part in missing:
        with replacing(part.items) as file:
            file.writelines(json.dumps(item) + "\n" for item in listing.items(part.start, part.stop))
    if share_out is None or len(missing) < 2:
        source = SOURCES[images.source](images)
        for part in missing:
            _read_part(part, images, os.cpu_count(), tell, source)
    else:
        _share_out_parts(missing, images, share_out, tell)
    for part in parts:
        listing.record(part.start, iterate_csv(part.table))
    return Shards(MappedFiles([part.pixels for part in parts]))


def _share_out_parts(
    missing: Sequence[ImagePart], images: Images, share_out: ShareOut, tell: Callable[[int], None]
) -> None:
    """Have parts read by other processes, perhaps on other machines."""
    path = expand_user(images.path or "")
    if images.path and path.exists():  # otherwise it is the name of a dataset
        images = images.model_copy(update={"path": str(path.absolute())})
    waiting = list(missing)

    def watch() -> None:
        ended = [part for part in waiting if part.mark.exists()]
        if ended:
            waiting[:] = [part for part in waiting if part not in ended]
            tell(sum(part.stop - part.start for part in ended))

    there = [part._replace(pixels=part.pixels.absolute()) for part in missing]
    share_out([partial(_read_part, part, images) for part in there], watch)
    watch()


def _is_read(part: ImagePart) -> bool:
    try:
        return read_json(part.mark) == _digests(part)
    except RunError:
        return False


def _digests(part: ImagePart) -> dict[str, str]:
    return {each.name: file_digest(each) for each in (part.pixels, part.table)}


def _read_part(
    part: ImagePart,
    images: Images,
    threads: int | None,
    report: Callable[[int], None] = lambda _: None,
    source: ImageSource | None = None,
) -> None:
    """Write the pixels and the table of a part, and then its mark."""
    source = source or SOURCES[images.source](images)
    with (
        part.items.open(encoding="utf-8") as lines,
        replacing(part.table) as table,
        writing_shard(part.pixels, (part.stop - part.start, images.size_px)) as write,
        # threads are enough, because decoding and resizing release Python's global lock
        ThreadPoolExecutor(threads) as pool,
    ):
        table.write(to_csv([READ_COLUMNS]))
        items = (SourceItem(*json.loads(line)) for line in lines)
        while block := list(islice(items, images_per_block(images.size_px))):
            for image, row in pool.map(partial(_read, source, images), block):
                write(image)
                table.write(to_csv([row]))
                report(1)
    write_json(part.mark, _digests(part))


def _read(
    source: ImageSource, images: Images, item: SourceItem
) -> tuple[NDArray[np.uint8], tuple[object, ...]]:
    """The prepared pixels (side, side, 3) of an image, zeros if it is unreadable, and its row, see `READ_COLUMNS`."""
    side = images.size_px
    try:
        image = source.load(item)
    except ImageError as error:
        return np.zeros((side, side, 3), np.uint8), (str(error), "0.00", 0, 0, "", "")
    # crops to the central square, so that nothing is stretched
    pixels = np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS))
    (colour,) = colourfulness(np.moveaxis(pixels[None], -1, 1).astype(np.float64)).tolist()
    gray = f"near-gray: colourfulness {colour:.1f} is below {images.min_colourfulness:g}"
    reason = gray if colour < images.min_colourfulness else ""
    digests = checks.checksum(pixels), checks.source_checksum(image, item.origin)
    return pixels, (reason, f"{colour:.2f}", *image.size, *digests)
