"""What a source of images is: it lists items, each with its name, split and label, and reads them later."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

from PIL import Image

from knowhue.config import Images
from knowhue.errors import ConfigError, ExtraError, ImageError, did_you_mean, shown
from knowhue.images.image import of_no_format, to_rgb8
from knowhue.images.reading import read_image
from knowhue.runs import taken_by
from knowhue.storage import path_of_setting

UNLABELLED = "unlabelled"
TRAIN_ONLY = "unlabelled, of use in training alone"
"""Why an image without a class is skipped in another split than `train`."""
SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test",
    "testing": "test",
}  # fmt: skip
"""Names of folders, and of a dataset's splits, and the split that they hold."""


class SourceItem(NamedTuple):
    """One image before it is read, or a file that is skipped."""

    name: str
    """unique among the items of a source"""
    split: str
    """of `SPLITS`; what the source does not give is split off from `train`"""
    label: str | None
    """class name, or None where unknown"""
    stamp: str
    """changes when the image does"""
    skipped: str = ""
    """why a file is not read; empty for images"""
    origin: str = ""
    """distinguishes an image that is made at the size asked for; empty where it has a size of its own"""
    place: str = ""
    """where the source finds it, if its name does not say so"""


class ImageSource(Protocol):
    """Where images come from. One of millions holds none of its items: they are listed on the way."""

    is_sorted: ClassVar[bool]
    """Whether the order in which items are listed is that of the prepared images; else they are sorted."""

    def items(self) -> Iterator[SourceItem]:
        """Every image, and what lies among them and is skipped; the same each time.

        Raises:
            ImageError: a class without images, or what is there cannot be read.
        """
        ...

    def load(self, item: SourceItem) -> Image.Image:
        """Read an image, in any thread.

        Raises:
            ImageError: it cannot be read.
        """
        ...


def source_root(images: Images, may_be_file: bool = False) -> Path:
    """The folder, or where that may be the file, that `images.path` names.

    Raises:
        ConfigError: it names none.
        ImageError: there is none.
    """
    if not images.path:
        raise ConfigError(
            "`images.path` should name a folder of images. Found none. "
            "Name it on the command line, or use the built-in set: --preset demo"
        )
    root = path_of_setting(images.path)
    if not (root.is_dir() or (may_be_file and root.is_file())):
        found = (
            f"a file, not a folder of images{remedies_for([of_no_format(root.suffix)])}"
            if root.exists()
            else "no such folder"
        )
        hint = taken_by(root)
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
"""What to do with files that hold many images or their labels, by suffix."""


def remedies_for(reasons: Iterable[str]) -> str:
    """What to do with files of many images or labels, to be put behind what was found instead; nothing for others.

    Args:
        reasons: why files were skipped.

    >>> remedies_for([of_no_format(".tar"), "hidden"]), remedies_for(["hidden"])
    ('; .tar files are read with --set images.source=webdataset', '')
    >>> remedies_for(map(of_no_format, (".tgz", ".zip"))).split(":")[0]
    '; .tgz, .zip files are not read'
    """
    found = set(reasons)
    named = defaultdict(list)
    for suffix, remedy in _REMEDIES.items():
        if of_no_format(suffix) in found:
            named[remedy].append(suffix)
    return "".join(f"; {remedy.format(', '.join(suffixes))}" for remedy, suffixes in named.items())


def stamp_of(path: Path) -> str:
    """What changes when a file does."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def require_columns(columns: Collection[str], images: Images) -> None:
    """Make sure that a table has the columns of images and labels.

    Raises:
        ConfigError: it has not; those that it has are named.
    """
    for column in (images.image_column, images.label_column):
        if column not in columns:
            raise ConfigError(
                "`images.image_column` and `label_column` should be columns of the dataset: "
                f"{', '.join(columns)}. Found `{column}`.{did_you_mean(column, columns)}"
            )


def known_label(value: object) -> str | None:
    """A label as text; None for those that mean that there is none: empty, null, NaN, -1, `unlabelled`.

    Whole numbers are one however they are stored: a table with gaps holds them as floats.

    Raises:
        ImageError: it is several labels, or a number that is not whole.

    >>> known_label(3), known_label(3.0), known_label(b"reef"), known_label(-1.0), known_label(" ")
    ('3', '3', 'reef', None, None)
    """
    if isinstance(value, list | tuple | set | dict):
        raise ImageError(
            f"A label should be one text or number, the class of an image. Found `{shown(value)}`. Name what holds one "
            "with --set images.label_column=..."
        )
    if isinstance(value, float | Decimal):
        if not math.isnan(value) and (math.isinf(value) or value % 1):
            raise ImageError(
                f"A label should be the name of a class, or a whole number. Found `{shown(str(value))}`, of which each "
                "image may have another. Name what holds the classes with --set images.label_column=..."
            )
        value = None if math.isnan(value) else int(value)
    text = value.decode(errors="replace") if isinstance(value, bytes) else "" if value is None else str(value)
    return None if text.strip() in ("", "-1", UNLABELLED) else text.strip()


def read_training_image(source: Path | bytes) -> Image.Image:
    """An upright image as `colorize` would read it, in sRGB of 8 bits over white: what a network will be shown.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        return Image.fromarray(to_rgb8(read_image(source, name="")))
    except (ImageError, ExtraError) as error:
        raise ImageError(f"unreadable: {error}") from None
