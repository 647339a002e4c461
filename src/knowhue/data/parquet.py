"""Parquet files of images and labels, as Hugging Face writes datasets; the only reader of images by pyarrow."""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from PIL import Image

from knowhue.config import Images
from knowhue.data.items import (
    SourceItem,
    archives,
    known_label,
    read_training_image,
    require_columns,
    source_root,
)
from knowhue.errors import ImageError, missing_package


class Parquet:
    """Parquet files with a column of images (structs of `bytes` and `path`, or bytes alone) and one of labels.

    Names of classes are those of Hugging Face's `ClassLabel` in a file's metadata, else the labels as text; -1 and null
    train colour only. For splits see `archives`.
    """

    is_sorted: ClassVar[bool] = False

    def __init__(self, images: Images) -> None:
        """Look for the files.

        Raises:
            ConfigError: `images.path` is missing.
            ExtraError: pyarrow is not there.
            ImageError: there is no such folder or file.
        """
        try:
            from pyarrow import ArrowException, parquet
        except ImportError:
            raise missing_package("`images.source: parquet`", "pyarrow", "parquet") from None
        self.root, self.images = source_root(images, may_be_file=True), images
        self._open, self._errors = parquet.ParquetFile, (ArrowException, OSError)
        # images are asked for in order, by several threads: one reads their group of rows, the others find it
        self._group, self._lock = lru_cache(maxsize=2)(self._read_group), Lock()

    def items(self) -> Iterator[SourceItem]:
        """The rows of each file."""
        for archive in archives(self.root, ".parquet"):
            if archive.skipped:
                yield SourceItem(archive.name, "train", None, "", archive.skipped)
                continue
            try:
                with self._open(archive.path) as file:
                    require_columns(file.schema_arrow.names, self.images)
                    for row, (group, at, label) in enumerate(self._rows(file)):
                        alone = "unlabelled images train only"
                        skipped = alone if label is None and archive.split != "train" else ""
                        name, place = f"{archive.name}/{row:07d}", f"{group} {at} {archive.name}"
                        yield SourceItem(name, archive.split, label, archive.stamp, skipped, place=place)
            except self._errors as error:
                reason = str(error).partition("\n")[0]
                raise ImageError(
                    f"{archive.path}: it is damaged or no parquet ({reason}); copy it again"
                ) from None

    def _rows(self, file: Any) -> Iterator[tuple[int, int, str | None]]:
        """Group, place in it, and label of each row."""
        column = self.images.label_column
        names = _class_names(file.schema_arrow.metadata, column)
        for group in range(file.num_row_groups):
            for at, value in enumerate(file.read_row_group(group, columns=[column]).column(0).to_pylist()):
                label = known_label(value)
                yield group, at, names[int(value)] if names and label is not None else label

    def load(self, item: SourceItem) -> Image.Image:
        """Read the image of a row, from its group of rows."""
        group, at, name = item.place.split(" ", 2)
        path = self.root if self.root.is_file() else self.root / name
        try:
            with self._lock:
                column = self._group(path, int(group))
            found = column[int(at)].as_py()
        except self._errors as error:
            raise ImageError(f"unreadable: {error}") from None
        data = found.get("bytes") if isinstance(found, dict) else found
        if not data:
            raise ImageError("unreadable: no image in this row")
        return read_training_image(data)

    def _read_group(self, path: Path, group: int) -> Any:
        with self._open(path) as file:
            return file.read_row_group(group, columns=[self.images.image_column]).column(0)


def _class_names(metadata: dict[bytes, bytes] | None, column: str) -> list[str]:
    """Names of the classes by number, as Hugging Face's `datasets` writes them into a schema; none if it did not."""
    described = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    return described.get("info", {}).get("features", {}).get(column, {}).get("names", [])
