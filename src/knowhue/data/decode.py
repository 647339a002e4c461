"""Decode and resize every image once, shard by shard; what a killed process has finished is not read again."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from knowhue.color import colourfulness
from knowhue.config import Images
from knowhue.csv_text import to_csv
from knowhue.data import checks
from knowhue.data.items import ImageSource, SourceItem
from knowhue.data.listing import READ_COLUMNS, ImageListing
from knowhue.data.shards import images_a_block, images_a_shard, shard_names, writing_shard
from knowhue.errors import ImageError, RunError
from knowhue.runs import Report
from knowhue.storage import file_digest, iterate_csv, read_json, replacing, require_disk, write_json


def read_all(
    listing: ImageListing, source: ImageSource, images: Images, scratch: Path, report: Report
) -> None:
    """Read every image into a shard of `scratch`, but for shards that an earlier process has finished."""
    side, total = images.size_px, len(listing)
    shards = shards_to_read(scratch, total, side)
    missing = sum(stop - start for start, stop, path in shards if not path.exists())
    # all once more where they are kept
    require_disk(scratch.parent / shard_names(1, side)[0], 3 * side * side * (missing + total))
    # threads are enough, since decoding and resizing release Python's lock
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start, stop, path in shards:
            if _is_read(path):
                report({"stage": "prepare", "done": stop, "total": total})
            else:
                _read_shard(listing, source, images, (start, stop, path), pool, report)
            listing.record(start, iterate_csv(path.with_suffix(".csv")))


def shards_to_read(scratch: Path, total: int, side: int) -> list[tuple[int, int, Path]]:
    """From which image to before which, and the file of their pixels."""
    size = images_a_shard(side)
    return [
        (start, min(start + size, total), scratch / f"{start // size:05d}.npy")
        for start in range(0, total, size)
    ]


def _is_read(path: Path) -> bool:
    """Whether the pixels and the table of a shard are there, as they were written."""
    try:
        return read_json(path.with_suffix(".json")) == _digests(path)
    except RunError:
        return False


def _digests(path: Path) -> dict[str, str]:
    return {each.name: file_digest(each) for each in (path, path.with_suffix(".csv"))}


def _read_shard(
    listing: ImageListing,
    source: ImageSource,
    images: Images,
    span: tuple[int, int, Path],
    pool: ThreadPoolExecutor,
    report: Report,
) -> None:
    """Write the pixels of some images, and the table of what was found, then the mark that both are whole."""
    start, stop, path = span
    side, read = images.size_px, partial(_read, source, images)
    with replacing(path.with_suffix(".csv")) as table, writing_shard(path, (stop - start, side)) as write:
        table.write(to_csv([READ_COLUMNS]))
        items, done, total = listing.items(start, stop), start, len(listing)
        while block := list(islice(items, images_a_block(side))):
            for image, row in pool.map(read, block):
                write(image)
                table.write(to_csv([[row[name] for name in READ_COLUMNS]]))
                done += 1
                report({"stage": "prepare", "done": done, "total": total})
    write_json(path.with_suffix(".json"), _digests(path))


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
