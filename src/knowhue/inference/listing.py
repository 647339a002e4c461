"""Which images of a folder are coloured into which files of another, and what came of them."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from knowhue.errors import ConfigError, ImageError, RunError, few, plural
from knowhue.images.image import LEDGER, LEDGERS, SUFFIXES, UNREADABLE, counted, identity, walk
from knowhue.images.writing import MARK, writable_suffix
from knowhue.inference.description import model_as_used
from knowhue.inference.hints import require_hinted

_Name = TypeVar("_Name", bound=PurePath)
_ANOTHER = (
    "`out` should be another folder than that of the images. Found `{}`, where {}. Name another folder."
)


class Item(NamedTuple):
    """An image to be coloured: its file, its name, and that of the coloured file, each in its folder and with `/`."""

    source: Path
    path: str
    output: str


class Listing(NamedTuple):
    """What is to be coloured, by path."""

    items: list[Item]
    hints: dict[str, list[str]]
    """of items, by path"""
    unreadable: list[tuple[str, str]]
    """folders, and why"""
    notes: list[str]
    """what was left alone, in words"""


def list_folder(
    source: Path,
    out: Path,
    suffix: str | None = None,
    hints: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Listing:
    """All images of a folder and the folders in it, by name; the output keeps the names.

    Which files count is decided by `images.image.walk`; the output folder, if it lies inside, is left out, and so is
    what `knowhue colorize` names after another image beside it.

    `suffix` is that of all coloured ones; None keeps the formats. `hints` are what `hints.require_hinted` takes.

    Raises:
        ImageError: no folder, or no image in it.
        ConfigError: two images would become one file, an image would be replaced by what is made of it, or hints are
            without an image or outside theirs.
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
        notes.append(left_out(Counter(others)))
    # else `reef-colour.jpg`, made of `reef.jpg`, would be coloured again
    own = {twin_of(file) for file in found}.intersection(found)
    items = []
    for file in found:
        name = file.relative_to(source)
        if file not in own:
            items.append(Item(file, name.as_posix(), output_of(name, suffix).as_posix()))
    if not items and not unreadable:
        raise nothing_there(source, notes)
    _refuse_clashes(items, out)
    if own:
        named = sorted(file.relative_to(source).as_posix() for file in own)
        notes.insert(0, left_alone(named, len(named)))
    found_hints = require_hinted(hints, {item.path: item.source for item in items}, source)
    return Listing(sorted(items, key=lambda item: item.path), found_hints, unreadable, notes)


def default_folder(source: Path) -> Path:
    """Beside a folder, with a mark.

    Raises:
        ConfigError: it lies in no other folder.
    """
    folder = source.resolve()
    if not folder.name:
        raise ConfigError(
            f"{source} has no name to which {MARK} could be added; name a folder for the coloured images"
        )
    return folder.with_name(f"{folder.name}{MARK}")


def output_of(name: _Name, suffix: str | None) -> _Name:
    """What an image becomes: its name with a suffix; with None its own, or that of a format that can be written."""
    return name.with_suffix(suffix or writable_suffix(name.suffix))


def twin_of(name: _Name) -> _Name:
    """What `knowhue colorize` calls the coloured image where it is put beside the original."""
    return name.with_name(f"{name.stem}{MARK}{writable_suffix(name.suffix)}")


def left_alone(names: Sequence[str], count: int) -> str:
    """Say of `count` images, the first three of them by name, why they are not coloured again."""
    what = "1 image was" if count == 1 else f"{count} images were"
    named = ", ".join(names[:3]) + ", ..." * (count > 3)
    return f"{what} left alone, made by knowhue from images beside them: {named}"


def left_out(others: Counter[str]) -> str:
    """Say how many files are no images, by the reason."""
    count = others.total()
    return f"{plural(count, 'other file')} left out: {counted(others.elements())}"


def nothing_there(source: Path | str, notes: Sequence[str]) -> ImageError:
    """What is wrong with a place without images."""
    return ImageError(
        f"`{source}` should hold images ({', '.join(sorted(SUFFIXES))}). Found none there or "
        f"below{''.join(f'; {note}' for note in notes)}."
    )


def changed_since(outputs: Sequence[str]) -> list[str]:
    """Say of outputs that they are no longer as they were made, and what becomes of them."""
    found = (
        f"{plural(len(outputs), 'coloured image')} found changed or damaged, and left so ({few(outputs, 3)})"
    )
    return [f"{found}; --overwrite colours anew"] * bool(outputs)


def no_room(out: Path | str, count: int, first: str) -> RunError:
    """What is wrong with a place that holds other files where images are to go."""
    return RunError(
        f"`{out}` should have room for what is made. Found {plural(count, 'other file')} in the way, such as "
        f"`{first}`. Name another place, or have them replaced with --overwrite."
    )


def clash(one: str, other: str, output: str) -> ConfigError:
    """What is wrong with two images that would become one file."""
    return ConfigError(
        f"Images should become files of different names. Found `{one}` and `{other}`, which would both become "
        f"`{output}`. Rename one of them."
    )


def _refuse_clashes(items: list[Item], out: Path) -> None:
    makers: dict[str, str] = {}
    originals = {identity(item.source) for item in items if os.path.exists(item.source)}
    folders = {str(folder): item for item in items for folder in PurePosixPath(item.output).parents}
    for item in items:
        if item.output in folders:
            raise ConfigError(
                f"Images should become files beside folders of other names. Found `{item.path}`, which would become "
                f"`{item.output}`, a folder that `{folders[item.output].path}` needs. Rename one of them."
            )
        other = makers.setdefault(item.output, item.path)
        if other != item.path:
            raise clash(other, item.path, item.output)
        target = out / item.output
        if os.path.exists(target) and identity(target) in originals:  # by any link or spelling of its name
            raise ConfigError(_ANOTHER.format(out, f"`{item.output}` would replace an original"))


class Summary(NamedTuple):
    """What came of many images."""

    source: str
    """where they lie, as it was named"""
    out: str
    """where the coloured ones lie"""
    made: int
    """coloured by this run, and `already` by earlier ones"""
    already: int
    failed: int
    """that could not be; the same call tries them again"""
    failures: tuple[tuple[str, str], ...]
    """their paths, and why; of an archive those of the first ones"""
    novel: int
    """of those that are there now, unlike the training images"""
    unknown: int
    """of those, whose class is `unknown`"""
    warned: int
    """of those, with a warning in their line of the ledger"""
    notes: tuple[str, ...]
    """what a user should know before trusting them, in words"""
    seconds: float
    model: str
    fast: bool = False
    """whether it saw each photo at one size, see `Colorized`"""
    left: int | None = None
    """of a folder, not begun, because the run was to stop at the first failure"""
    shards: int | None = None
    """of an archive"""

    def as_record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        record = {name: value for name, value in self._asdict().items() if value is not None}
        failures = [{"path": path, "error": error} for path, error in self.failures]
        seconds = round(self.seconds, 3)
        return record | {"failures": failures, "notes": list(self.notes), "seconds": seconds}

    def lines(self) -> list[str]:
        """What the command prints."""
        time = f"{self.seconds:.1f} s" if self.seconds < 10 else f"{self.seconds:.0f} s"
        what = f"{plural(self.made, 'image')} coloured in {time} "
        what += f"({self.made / max(self.seconds, 1e-9):.1f} a second)"
        shards = f", {plural(self.shards, 'shard')}" if self.shards else ""
        lines = [f"{what if self.made else 'no image coloured'}{shards} -> {self.out}"]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  already done: {self.already}"] * (self.already > 0)
        ledger = f"{self.out}/{LEDGERS if self.shards else LEDGER}"
        lines += [f"  {self.failed} failed; the same command tries them again:"] * (self.failed > 0)
        lines += [f"    {path}: {error}" for path, error in self.failures]
        more = self.failed - len(self.failures)
        lines += [f"    and {more} more, in {ledger}"] * (more > 0)
        lines += [f"  stopped: {self.left} not begun; the same command goes on"] * bool(self.left)
        doubts = [f"class unknown: {self.unknown}"] * (self.unknown > 0) + [f"warnings: {self.warned}"]
        there = plural(self.made + self.already, "image")
        lines += [f"  of {there}, {', '.join(doubts)}; see {ledger}"] * (self.unknown + self.warned > 0)
        return [*lines, f"  model: {model_as_used(self.model, self.fast)}"]
