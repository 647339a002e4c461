"""The interface of image sources: a source lists items with name, split and label, and reads their images later."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

from PIL import Image

from knowhue.config import Images
from knowhue.errors import ConfigError, ExtraError, ImageError, did_you_mean, shown
from knowhue.images.image import counts_in_words, other_type, to_rgb8
from knowhue.images.reading import read_image
from knowhue.runs import path_hint
from knowhue.storage import expand_user

UNLABELLED = "unlabelled"
TRAIN_ONLY = "unlabelled, usable in training only"
"""Reason to skip an image without a class outside the split `train`."""
SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test",
    "testing": "test",
}  # fmt: skip
"""Splits by the names of folders and of a dataset's splits."""


class SourceItem(NamedTuple):
    """An image that can be read, or a file that is skipped."""

    name: str
    """unique within its source"""
    split: str
    """one of `SPLITS`; splits that the source does not have are later taken out of `train`"""
    label: str | None
    """class name; None if unknown"""
    stamp: str
    """changes when the image does"""
    skipped: str = ""
    """why a file is not read; empty for images"""
    origin: str = ""
    """identifies an image that can be generated at any size; empty for images with a size of their own"""
    place: str = ""
    """where the source finds the image, if not by its name"""


class ImageSource(Protocol):
    """A source of images. Items are generated one by one, because a source can have millions of them."""

    is_sorted: ClassVar[bool]
    """whether prepared images keep the order of `items`; otherwise they are sorted"""

    def items(self) -> Iterator[SourceItem]:
        """Every image and skipped file, the same on every call; an `ImageError` if a class has no images."""
        ...

    def load(self, item: SourceItem) -> Image.Image:
        """Read an image, or raise an `ImageError`; can be called from several threads."""
        ...


def source_root(images: Images, may_be_file: bool = False) -> Path:
    """The folder that `images.path` names, or the file if `may_be_file`; an `ImageError` if there is none."""
    if not images.path:
        raise ConfigError(
            "`images.path` should name a folder of images. Found none. "
            "Name it on the command line, or use the built-in set: --preset demo"
        )
    root = expand_user(images.path)
    if not (root.is_dir() or (may_be_file and root.is_file())):
        found, hint = "no such folder", path_hint(root)
        if root.exists():
            found = f"a file, not a folder of images{remedies_for([other_type(root.suffix)])}"
        raise ImageError(f"{root}: {found}{'.' if hint else ''}{hint}")
    return root


_TABLE = (
    "tables of labels ({0}) are not read: put the images into <class>/ or <split>/<class>/, or write parquet with the "
    "columns image, label and split, which is read with --set images.source=parquet"
)
_PACKED = "{0} files are not read: unpack them; WebDataset's plain tars are read with --set images.source=webdataset"
_REMEDIES = {
    ".tar": ".tar files are read with --set images.source=webdataset",
    ".parquet": ".parquet files are read with --set images.source=parquet",
    **dict.fromkeys((".csv", ".tsv"), _TABLE),
    **dict.fromkeys((".gz", ".tgz", ".zip"), _PACKED),
}
"""Advice on archives and tables of labels, by suffix."""


def remedies_for(reasons: Iterable[str]) -> str:
    """Advice on the archives and tables of labels among skipped files, to append to a message; empty for other files.

    Args:
        reasons: why files were skipped.

    >>> remedies_for([other_type(".tar"), "hidden"]), remedies_for(["hidden"])
    ('; .tar files are read with --set images.source=webdataset', '')
    >>> remedies_for(map(other_type, (".tgz", ".zip"))).split(":")[0]
    '; .tgz, .zip files are not read'
    """
    found = set(reasons)
    named = defaultdict(list)
    for suffix, remedy in _REMEDIES.items():
        if other_type(suffix) in found:
            named[remedy].append(suffix)
    return "".join(f"; {remedy.format(', '.join(suffixes))}" for remedy, suffixes in named.items())


def found_instead(reasons: Iterable[str]) -> str:
    """The rest of a sentence on missing images: what was found instead, by the reasons why it was skipped."""
    found = list(reasons)
    return f", but {counts_in_words(found)}{remedies_for(found)}" if found else ""


def file_stamp(path: Path) -> str:
    """Size and modification time of a file, which change when the file does; if there are none, an error number."""
    try:
        status = path.stat()
    except OSError as error:  # a broken link, which is reported when it is read
        return str(error.errno)
    return f"{status.st_size}-{status.st_mtime_ns}"


def require_columns(columns: Collection[str], images: Images) -> None:
    """Check that a table has the columns of images and labels; otherwise a `ConfigError` that lists those it has."""
    for column in (images.image_column, images.label_column):
        if column not in columns:
            raise ConfigError(
                "`images.image_column` and `label_column` should be columns of the dataset: "
                f"{', '.join(columns)}. Found `{column}`.{did_you_mean(column, columns)}"
            )


def parse_label(value: object) -> str | None:
    """A label as text; None for values that mean `no label`: empty, null, NaN, -1, `unlabelled`.

    Whole floats count as integers, because tables with missing values store integers as floats.

    Raises:
        ImageError: the value holds several labels, or is a number that is not whole.

    >>> parse_label(3), parse_label(3.0), parse_label(b"reef"), parse_label(-1.0), parse_label(" ")
    ('3', '3', 'reef', None, None)
    """
    if isinstance(value, float | Decimal) and math.isnan(value):
        value = None
    elif isinstance(value, float | Decimal) and math.isfinite(value) and value % 1 == 0:
        value = int(value)
    if isinstance(value, float | Decimal | list | tuple | set | dict):
        raise ImageError(
            f"A label should be the name of a class, or a whole number. Found `{shown(str(value))}`. Name the column "
            "of classes with --set images.label_column=..."
        )
    text = value.decode(errors="replace") if isinstance(value, bytes) else "" if value is None else str(value)
    return None if text.strip() in ("", "-1", UNLABELLED) else text.strip()


def read_training_image(source: Path | bytes) -> Image.Image:
    """Read an upright 8-bit sRGB image over white, as `colorize` shows it to a network, or raise an `ImageError`."""
    try:
        return Image.fromarray(to_rgb8(read_image(source, name="")))
    except (ImageError, ExtraError) as error:
        raise ImageError(f"unreadable: {error}") from None
