"""Which images of a folder are coloured into which files of another."""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from knowhue.errors import ConfigError, ImageError
from knowhue.images.files import SUFFIXES, UNREADABLE, counted, identity, walk
from knowhue.images.writing import MARK, writable_suffix

_ANOTHER = (
    "`out` should be another folder than that of the images. Found `{}`, where {}. Name another folder."
)


class Item(NamedTuple):
    """An image to be coloured: its file, its name, and that of the coloured file, each in its folder and with `/`."""

    source: Path
    path: str
    output: str


class Listing(NamedTuple):
    """What is to be coloured, by path; folders that cannot be read, and why; what was left alone, in words."""

    items: list[Item]
    unreadable: list[tuple[str, str]]
    notes: list[str]


def list_folder(source: Path, out: Path, rename: Callable[[str], str]) -> Listing:
    """All images of a folder and the folders in it, by name; the output keeps the names.

    Which files count is decided by `images.files.walk`; the output folder, if it lies inside, is left out, and so is
    what `knowhue colorize` names after another image beside it.

    `rename` turns the suffix of an image into that of the coloured one.

    Raises:
        ImageError: no folder, or no image in it.
        ConfigError: two images would become one file, or an image would be replaced by what is made of it.
    """
    if not source.is_dir():
        raise ImageError(f"`source` should be a folder of images. Found `{source}`. Is the path right?")
    if out.exists() and out.samefile(source):
        raise ConfigError(_ANOTHER.format(out, "what is made would lie among the originals"))
    found, unreadable, others = [], [], []
    for file, skipped in walk(source, avoid=out):
        if skipped.startswith(UNREADABLE):
            unreadable.append((file.relative_to(source).as_posix(), skipped))
        elif skipped:
            others.append(skipped)
        else:
            found.append(file)
    notes = []
    if others:
        notes.append(f"{len(others)} other file{'s' * (len(others) != 1)} left out: {counted(others)}")
    own = _made_of(found)  # else `reef-colour.jpg`, made of `reef.jpg`, would be coloured again
    items = []
    for file in found:
        name = file.relative_to(source)
        if file not in own:
            items.append(Item(file, name.as_posix(), name.with_suffix(rename(name.suffix)).as_posix()))
    if not items and not unreadable:
        raise ImageError(
            f"`{source}` should hold images ({', '.join(sorted(SUFFIXES))}). Found none there or "
            f"below{''.join(f'; {note}' for note in notes)}."
        )
    _refuse_clashes(items, out)
    if own:
        notes.insert(0, _left_alone(sorted(file.relative_to(source).as_posix() for file in own)))
    return Listing(sorted(items, key=lambda item: item.path), unreadable, notes)


def default_folder(source: Path) -> Path:
    """Beside a folder, with a mark.

    Raises:
        ConfigError: it lies in no other folder.
    """
    folder = source.resolve()
    if not folder.name:
        raise ConfigError(f"{source} has no name to which {MARK} could be added; name a folder with --out")
    return folder.with_name(f"{folder.name}{MARK}")


def _made_of(files: Collection[Path]) -> set[Path]:
    """The files that are named as another one of them would be, coloured."""
    named = {file.with_name(f"{file.stem}{MARK}{writable_suffix(file.suffix)}") for file in files}
    return named.intersection(files)


def _left_alone(names: list[str]) -> str:
    what = "1 image was" if len(names) == 1 else f"{len(names)} images were"
    named = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
    return f"{what} left alone, made by knowhue from images beside them: {named}"


def _refuse_clashes(items: list[Item], out: Path) -> None:
    makers: dict[str, str] = {}
    originals = {identity(item.source) for item in items if os.path.exists(item.source)}
    for item in items:
        other = makers.setdefault(item.output, item.path)
        if other != item.path:
            raise ConfigError(
                f"Images should become files of different names. Found `{other}` and `{item.path}`, which would both "
                f"become `{item.output}`. Rename one of them."
            )
        target = out / item.output
        if os.path.exists(target) and identity(target) in originals:  # by any link or spelling of its name
            raise ConfigError(_ANOTHER.format(out, f"`{item.output}` would replace an original"))
