"""Tars of samples, as WebDataset writes them, read where they lie."""

import json
import tarfile
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import ClassVar, NamedTuple

from PIL import Image

from knowhue.config import Images
from knowhue.data.items import UNLABELLED, SourceItem, archives, known_label, read_training_image, source_root
from knowhue.errors import ImageError
from knowhue.images.files import SUFFIXES, why_hidden


class Member(NamedTuple):
    """A file in a tar.

    Attributes:
        name: with its folders.
        key: its name up to the first dot, with its folders: that of its sample.
        kind: its name from the first dot, lower case.
        start: of its bytes in the tar.
        size: of them.
    """

    name: str
    key: str
    kind: str
    start: int
    size: int


class WebDataset:
    """Tars of samples: files that follow one another and whose names are the same up to the first dot.

    The image of a sample is its file with a suffix that is read, such as `KEY.jpg`. Its class is what `KEY.cls` says,
    or `KEY.json` under `images.label_column`, or else the folder that it lies in within the tar; of no class (an empty
    label, -1, `unlabelled`) it trains colour only. For splits see `archives`.
    """

    is_sorted: ClassVar[bool] = False

    def __init__(self, images: Images) -> None:
        self.root, self.label_column = source_root(images, may_be_file=True), images.label_column

    def items(self) -> Iterator[SourceItem]:
        """The samples of each tar, and what is no sample."""
        for archive in archives(self.root, ".tar"):
            if archive.skipped:
                yield SourceItem(archive.name, "train", None, "", archive.skipped)
                continue
            for _, sample in groupby(_members(archive.path), key=lambda member: member.key):
                members = {f".{member.kind}": member for member in sample}
                image = next((each for kind, each in members.items() if kind in SUFFIXES), None)
                named = image or next(iter(members.values()))
                hidden = next(filter(None, map(why_hidden, PurePosixPath(named.name).parts)), "")
                skipped = hidden or ("" if image else "a sample without an image")
                label = None if skipped else self._label(archive.path, members, named)
                if not skipped and label is None and archive.split != "train":
                    skipped = "unlabelled images train only"
                place = f"{named.start} {named.size} {archive.name}"
                yield SourceItem(
                    f"{archive.name}/{named.name}",
                    archive.split,
                    label,
                    f"{archive.stamp} {place}",
                    skipped,
                    place=place,
                )

    def _label(self, path: Path, members: Mapping[str, Member], image: Member) -> str | None:
        label: object = PurePosixPath(image.name).parent.name
        if ".cls" in members:
            label = _bytes_of(path, members[".cls"]).decode(errors="replace").strip()
        elif ".json" in members:
            try:
                described = json.loads(_bytes_of(path, members[".json"]))
            except ValueError as error:
                raise ImageError(
                    f"{path}: {members['.json'].name} is no JSON ({error}); write it anew, or take the sample out"
                ) from None
            label = described.get(self.label_column, label) if isinstance(described, dict) else label
        return None if label == UNLABELLED else known_label(label)

    def load(self, item: SourceItem) -> Image.Image:
        """Read the bytes of a member, wherever in its tar they lie."""
        start, size, name = item.place.split(" ", 2)
        path = self.root if self.root.is_file() else self.root / name
        try:
            data = _bytes_of(path, Member(item.name, "", "", int(start), int(size)))
        except OSError as error:
            raise ImageError(f"unreadable: {error.strerror}") from None
        return read_training_image(data)


def _members(path: Path) -> Iterator[Member]:
    """The files of a tar, in order."""
    try:
        with tarfile.open(path, "r:") as tar:
            for each in tar:
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]: the library would hold all of them
                if each.isreg() and not each.issparse():
                    name = PurePosixPath(each.name)
                    stem, _, kind = name.name.partition(".")
                    key = name.with_name(stem or name.name).as_posix()
                    yield Member(each.name, key, kind.lower(), each.offset_data, each.size)
    except tarfile.TarError as error:
        raise ImageError(
            f"{path}: it is damaged, cut short or compressed ({error}); copy it again, or make it a plain .tar"
        ) from None
    except OSError as error:
        raise ImageError(f"{path}: it cannot be read: {error.strerror}") from None


def _bytes_of(path: Path, member: Member) -> bytes:
    with path.open("rb") as file:
        file.seek(member.start)
        return file.read(member.size)
