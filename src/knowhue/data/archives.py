"""Images inside archives, read without unpacking: WebDataset tars and Hugging Face Parquet files."""

import re
import tarfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import groupby, repeat
from operator import itemgetter
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any, ClassVar

from PIL import Image

from knowhue.config import Images
from knowhue.data.items import (
    SPLIT_NAMES,
    SourceItem,
    file_stamp,
    parse_label,
    read_training_image,
    require_columns,
    source_root,
)
from knowhue.errors import ConfigError, ImageError, few, needing, shown
from knowhue.images.image import SUFFIXES, walk, why_hidden
from knowhue.storage import from_json

_SPLIT = "split"
_LABEL_SUFFIXES = {".cls", ".json"}  # suffixes of files with the label of a sample in a tar
_OUTSIDE = re.compile(r"\A(.*/)?\.\./", re.DOTALL)
"""The part of a name that leads out of its archive, up to the last `../`; `tar -x` removes it, too."""


def archives(root: Path, suffix: str) -> Iterator[SourceItem]:
    """The archives below a folder, or `root` itself if it is a file, and other files, which are skipped.

    The split of an archive is named by one of its folders (`train/`, `val/`, `test/`) or else by the first word of its
    name (`val-000012.tar`, `test_3.parquet`); if neither names one, it is `train`.
    """
    for path, reason in [(root, "")] if root.is_file() else walk(root, {suffix}):
        name = path.name if path == root else path.relative_to(root).as_posix()
        if reason:
            yield SourceItem(name, "train", None, "", reason)
        elif not path.is_file():
            raise ImageError(
                f"{path}: it is a device, a pipe or a broken link; save it as a file, or remove it"
            )
        else:
            yield SourceItem(name, named_split(name) or "train", None, file_stamp(path))


def named_split(path: str) -> str | None:
    """The split named by a folder of a path, or else by the first word of its file name; None if neither names one.

    >>> named_split("photos/Val/7.tar"), named_split("test_3.parquet"), named_split("trainers/7.tar")
    ('validation', 'test', None)
    """
    *folders, file = path.lower().split("/")
    words = [*folders, re.split(r"[-_.]", file)[0]]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def archive_path(root: Path, name: str) -> Path:
    """Path of an archive that `archives` lists by name."""
    return root if root.is_file() else root / name


def duplicate_name_error(name: str, also: str = "") -> ImageError:
    """The error for two files of one name in an archive; adding a file to a tar again keeps the first one in it."""
    also = f" (as {also})" if also else ""
    return ImageError(
        f"{name}: is in its archive twice{also}, as if it was added again (case is ignored); write "
        "the archive again, with one of them: tar --sort=name -cf NEW.tar FOLDER"
    )


class WebDataset:
    """Tars of samples: consecutive files whose names are equal up to the first dot.

    The image of a sample is its file with a readable suffix, such as `KEY.jpg`. Its class is the content of `KEY.cls`,
    or the value of `images.label_column` in `KEY.json`, or else its folder in the tar; without a class (an empty label,
    -1, `unlabelled`) it trains colour only. Its split is named by a folder in the tar (`val/`), or else is that of the
    tar, see `archives`.
    """

    is_sorted: ClassVar[bool] = False

    def __init__(self, images: Images) -> None:
        self.root, self.label_column = source_root(images, may_be_file=True), images.label_column

    def items(self) -> Iterator[SourceItem]:
        """The samples of each tar, and files that are skipped."""
        for archive in archives(self.root, ".tar"):
            if archive.skipped:
                yield archive
                continue
            path = archive_path(self.root, archive.name)
            labels_alone: set[str] = set()
            for key, sample in groupby(_members(path), key=itemgetter(0)):
                members: dict[str, tarfile.TarInfo] = {}
                for _, suffix, member in sample:
                    before = members.setdefault(suffix, member)
                    if before is not member:
                        raise duplicate_name_error(f"{archive.name}/{member.name}", before.name)
                image, *further = [each for kind, each in members.items() if kind in SUFFIXES] or [None]
                if image is None and members.keys() & _LABEL_SUFFIXES:
                    labels_alone.add(key)
                named = image or next(iter(members.values()))
                hidden = next(filter(None, map(why_hidden, PurePosixPath(named.name).parts)), "")
                skipped = hidden or ("" if image else "in a sample without an image")
                label = None if skipped else self._label(path, members, named.name)
                # a tar of a whole dataset has folders for its splits
                split = named_split(f"{PurePosixPath(named.name).parent}/") or archive.split
                place = f"{named.offset_data} {named.size} {archive.name}"
                name, stamp = f"{archive.name}/{named.name}", f"{archive.stamp} {place}"
                yield SourceItem(name, split, label, stamp, skipped, place=place)
                for each in filter(None, further):
                    name = f"{archive.name}/{each.name}"
                    yield SourceItem(name, split, None, "", "after the first image of a sample")
            if labels_alone:
                _require_side_by_side(path, labels_alone)

    def _label(self, path: Path, members: Mapping[str, tarfile.TarInfo], image: str) -> str | None:
        if text := members.get(".cls"):
            return parse_label(_bytes_of(path, text.offset_data, text.size))
        if json := members.get(".json"):
            try:
                described = from_json(_bytes_of(path, json.offset_data, json.size))
            except ValueError as error:
                raise ImageError(
                    f"{path}: {json.name} is not JSON ({error}); write it again, or remove the sample"
                ) from None
            if isinstance(described, dict) and self.label_column in described:
                return parse_label(described[self.label_column])
        return parse_label(_class_folder(path, image))

    def load(self, item: SourceItem) -> Image.Image:
        """Read an image at its position in a tar."""
        start, size, name = item.place.split(" ", 2)
        try:
            data = _bytes_of(archive_path(self.root, name), int(start), int(size))
        except OSError as error:
            raise ImageError(f"unreadable: {error.strerror}") from None
        return read_training_image(data)


def _members(path: Path) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """The files in a tar: key of the sample (path up to the first dot of the name), rest of the name, and member."""
    try:
        with tarfile.open(path, "r:") as tar:
            for each in tar:
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]: tarfile would keep all members in memory
                given, each.name = each.name, _OUTSIDE.sub("", each.name)
                name = PurePosixPath(each.name)
                stem, _, kind = name.name.partition(".")
                suffix = f".{kind.lower()}"
                if each.isreg() and not each.issparse():
                    yield name.with_name(stem or name.name).as_posix(), suffix, each
                elif not each.isdir() and suffix in {*SUFFIXES, *_LABEL_SUFFIXES}:
                    raise ImageError(
                        f"{path}: {given} is a link or sparse, so its bytes do not follow its name; write the tar "
                        "again: tar --dereference --hard-dereference --sort=name -cf NEW.tar FOLDER"
                    )
    except tarfile.TarError as error:
        raise ImageError(
            f"{path}: it is compressed, damaged or cut short ({error}); decompress it to a plain .tar, from which "
            "single images can be read, or copy it again"
        ) from None
    except OSError as error:
        raise ImageError(f"{path}: it cannot be read: {error.strerror}") from None


def _require_side_by_side(path: Path, keys: Collection[str]) -> None:
    """Check that labels without an image have none elsewhere in the tar, which would count as unlabelled."""
    for key, suffix, member in _members(path):
        if key in keys and suffix in SUFFIXES:
            raise ImageError(
                f"{path}: the label of {member.name} is not next to it, as the files of a sample must be; write the "
                "tar again: tar --sort=name -cf NEW.tar FOLDER"
            )


def _class_folder(path: Path, name: str) -> str | None:
    """The class named by an image's folder in a tar; None if the folder is a top-level split."""
    *above, folder = ("", *PurePosixPath(name).parts[:-1])
    if folder.lower() not in SPLIT_NAMES:
        return folder
    if above[-1]:
        raise ImageError(
            f"{path}: {name} lies in {folder}/, which names a split; put classes into splits ({folder}/{above[-1]}/), "
            "put labels beside the images (.cls), or rename the folder if it is not a split"
        )
    return None


def _bytes_of(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _parse_split(value: object) -> str | None:
    """The split that a value of the column `split` names; None if it is empty."""
    name = parse_label(value)
    if name and name.lower() not in SPLIT_NAMES:
        raise ImageError(
            f"A column `{_SPLIT}` should name splits: {', '.join(SPLIT_NAMES)}. Found `{shown(name)}`. Rename the "
            "splits, or remove the column."
        )
    return name and SPLIT_NAMES[name.lower()]


class Parquet:
    """Parquet files with a column of images (bytes, or structs of `bytes` and `path`) and one of labels.

    Class names are those of Hugging Face's `ClassLabel` in a file's metadata, or else the labels as text; images with
    the label -1 or null train colour only. The split of a row is its value in the column `split`, or else that of its
    file, see `archives`.
    """

    is_sorted: ClassVar[bool] = False

    def __init__(self, images: Images) -> None:
        with needing("`images.source: parquet`", "parquet"):
            from pyarrow import ArrowException, parquet
        self.root, self.images = source_root(images, may_be_file=True), images
        self._open, self._errors = parquet.ParquetFile, (ArrowException, OSError)
        # several threads read images in order, so that one reads a row group and the others use the cached one
        self._group, self._lock = lru_cache(maxsize=2)(self._read_group), Lock()

    def items(self) -> Iterator[SourceItem]:
        """The rows of each file."""
        for archive in archives(self.root, ".parquet"):
            if archive.skipped:
                yield archive
                continue
            path = archive_path(self.root, archive.name)
            try:
                with self._open(path) as file:
                    require_columns(file.schema_arrow.names, self.images)
                    _require_bytes(self.images.image_column, file.schema_arrow)
                    for row, (group, at, label, own) in enumerate(self._rows(file)):
                        split = own or archive.split
                        name, place = f"{archive.name}/{row:07d}", f"{group} {at} {archive.name}"
                        yield SourceItem(name, split, label, archive.stamp, place=place)
            except self._errors as error:
                reason = str(error).partition("\n")[0]
                raise ImageError(f"{path}: it is damaged or not Parquet ({reason}); copy it again") from None

    def _rows(self, file: Any) -> Iterator[tuple[int, int, str | None, str | None]]:
        """Row group, position in it, label, and split of each row; the split is None if no column gives it."""
        column = self.images.label_column
        names = _class_names(file.schema_arrow.metadata, column)
        has_split = _SPLIT in file.schema_arrow.names and column != _SPLIT
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=[column, _SPLIT][: 1 + has_split])
            splits = table.column(_SPLIT).to_pylist() if has_split else repeat(None)
            for at, (value, split) in enumerate(zip(table.column(column).to_pylist(), splits, strict=False)):
                label = parse_label(value)
                yield group, at, _class_name(names, label), _parse_split(split)

    def load(self, item: SourceItem) -> Image.Image:
        """Read the image of a row from its row group."""
        group, at, name = item.place.split(" ", 2)
        try:
            with self._lock:
                column = self._group(archive_path(self.root, name), int(group))
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


def _require_bytes(column: str, schema: Any) -> None:
    """Check that a column holds the bytes of files; text could name any file on this machine."""
    kind = schema.field(column).type
    is_struct = str(kind).startswith("struct") and kind.get_field_index("bytes") >= 0
    inner = str(kind.field("bytes").type if is_struct else kind)
    if not inner.startswith(("binary", "large_binary", "fixed_size_binary", "dictionary<values=binary")):
        raise ConfigError(
            "`images.image_column` should name a column with the bytes of image files, alone or as `bytes` of a "
            f"struct. Found `{column}` of the type {shown(str(kind))}. Write the bytes of the "
            "files into it, or put the files into folders."
        )


def _class_name(names: Mapping[str, str], label: str | None) -> str | None:
    """The name of a class that is stored as a number; without `names`, the label itself."""
    if not names or label is None:
        return label
    if label not in names:
        raise ImageError(
            f"A label should be the number of a class, below {len(names)}, because the file's metadata name classes: "
            f"{few(list(names.values()), 3)}. Found `{shown(label)}`. Write the file again with all names, or without."
        )
    return names[label]


def _class_names(metadata: dict[bytes, bytes] | None, column: str) -> dict[str, str]:
    """Class names by number from the metadata that Hugging Face's `datasets` writes into a schema; empty without it."""
    with suppress(ValueError, KeyError, TypeError):  # metadata of another form
        names = from_json((metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
        if isinstance(names, list):
            return {str(number): str(name) for number, name in enumerate(names)}
    return {}
