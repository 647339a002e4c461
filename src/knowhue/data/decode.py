"""Decode and resize every image once, part by part, here or elsewhere; what a killed process has finished stays."""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from knowhue.color import colourfulness
from knowhue.config import Images
from knowhue.csv_text import to_csv
from knowhue.data import checks
from knowhue.data.items import ImageSource, SourceItem
from knowhue.data.listing import READ_COLUMNS, ImageListing
from knowhue.data.shards import images_a_block, images_a_part, shard_names, writing_shard
from knowhue.data.sources import SOURCES
from knowhue.errors import ImageError, RunError
from knowhue.runs import Report, ShareOut
from knowhue.storage import file_digest, iterate_csv, read_json, replacing, require_disk, write_json


class ImagePart(NamedTuple):
    """Some images that are read by one process, from one position to before another.

    Attributes:
        start: position of the first.
        stop: position after the last.
        pixels: the file of their pixels; what else is kept of them lies beside.
    """

    start: int
    stop: int
    pixels: Path

    @property
    def items(self) -> Path:
        """What is to be read, an item a line."""
        return self.pixels.with_suffix(".jsonl")

    @property
    def table(self) -> Path:
        """What was found of each, by `READ_COLUMNS`."""
        return self.pixels.with_suffix(".csv")

    @property
    def mark(self) -> Path:
        """Written last; it vouches for pixels and table."""
        return self.pixels.with_suffix(".json")


def parts_to_read(scratch: Path, total: int, side: int) -> list[ImagePart]:
    """All of them, in order."""
    size = images_a_part(total, side)
    starts = range(0, total, size)
    return [ImagePart(at, min(at + size, total), scratch / f"{at // size:05d}.npy") for at in starts]


def read_all(
    listing: ImageListing,
    images: Images,
    scratch: Path,
    report: Report,
    share_out: ShareOut | None = None,
) -> None:
    """Read every image into a part of `scratch`, but for parts that an earlier process has finished."""
    side, total = images.size_px, len(listing)
    parts = parts_to_read(scratch, total, side)
    missing = [part for part in parts if not _is_read(part)]
    to_read = sum(part.stop - part.start for part in missing)
    # all once more where they are kept
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
            _read_part(part, side, partial(_read, source, images), os.cpu_count(), tell)
    else:
        _read_elsewhere(missing, images, share_out, tell)
    for part in parts:
        listing.record(part.start, iterate_csv(part.table))


def _read_elsewhere(
    missing: Sequence[ImagePart], images: Images, share_out: ShareOut, tell: Callable[[int], None]
) -> None:
    """Have parts read by whoever takes part in the work, perhaps on other machines."""
    path = Path(images.path or "").expanduser()
    if images.path and path.exists():  # else it names a dataset
        images = images.model_copy(update={"path": str(path.absolute())})
    waiting = list(missing)

    def watch() -> None:
        ended = [part for part in waiting if part.mark.exists()]
        if ended:
            waiting[:] = [part for part in waiting if part not in ended]
            tell(sum(part.stop - part.start for part in ended))

    there = [part._replace(pixels=part.pixels.absolute()) for part in missing]
    share_out([partial(_read_here, part, images) for part in there], watch)
    watch()


def _read_here(part: ImagePart, images: Images, threads: int | None) -> None:
    """Read a part in another process."""
    source = SOURCES[images.source](images)
    _read_part(part, images.size_px, partial(_read, source, images), threads)


def _is_read(part: ImagePart) -> bool:
    """Whether the pixels and the table of a part are there, as they were written."""
    try:
        return read_json(part.mark) == _digests(part)
    except RunError:
        return False


def _digests(part: ImagePart) -> dict[str, str]:
    return {each.name: file_digest(each) for each in (part.pixels, part.table)}


def _read_part(
    part: ImagePart,
    side: int,
    read: Callable[[SourceItem], tuple[NDArray[np.uint8], dict[str, str]]],
    threads: int | None,
    report: Callable[[int], None] = lambda _: None,
) -> None:
    """Write the pixels of some images, and the table of what was found, then the mark that both are whole."""
    with (
        part.items.open(encoding="utf-8") as lines,
        replacing(part.table) as table,
        writing_shard(part.pixels, (part.stop - part.start, side)) as write,
        # threads are enough for photos, since decoding and resizing release Python's lock
        ThreadPoolExecutor(threads) as pool,
    ):
        table.write(to_csv([READ_COLUMNS]))
        items = (SourceItem(*json.loads(line)) for line in lines)
        while block := list(islice(items, images_a_block(side))):
            for image, row in pool.map(read, block):
                write(image)
                table.write(to_csv([[row[name] for name in READ_COLUMNS]]))
                report(1)
    write_json(part.mark, _digests(part))


def _read(source: ImageSource, images: Images, item: SourceItem) -> tuple[NDArray[np.uint8], dict[str, str]]:
    """The prepared pixels of an image, and by `READ_COLUMNS` what was found, with a reason if it cannot be used."""
    side = images.size_px
    try:
        image = source.load(item)
    except ImageError as error:
        empty = np.zeros((side, side, 3), np.uint8)
        none = {"colourfulness": "0.00", "width": "0", "height": "0", "sha256": "", "source_sha256": ""}
        return empty, {"reason": str(error), **none}
    # crops the middle to a square, so that nothing is stretched
    pixels = np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS))
    (colour,) = colourfulness(np.moveaxis(pixels[None], -1, 1).astype(np.float64)).tolist()
    gray = f"near-gray: colourfulness {colour:.1f} is below {images.min_colourfulness:g}"
    return pixels, {
        "reason": gray if colour < images.min_colourfulness else "",
        "colourfulness": f"{colour:.2f}",
        "width": str(image.width),
        "height": str(image.height),
        "sha256": checks.checksum(pixels),
        "source_sha256": checks.source_checksum(image, item.origin),
    }
