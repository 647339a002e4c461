"""Which pictures of a folder are to be made into which of another."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from knowhue.errors import ConfigError, PictureError
from knowhue.image_files import walk


class Item(NamedTuple):
    """A picture to be made; names are relative to the two folders, with `/`.

    Attributes:
        source: the file.
        path: its name.
        output: the name of what is made of it.
    """

    source: Path
    path: str
    output: str


def list_folder(
    source: Path, out: Path, suffixes: Collection[str], rename: Callable[[str], str]
) -> list[Item]:
    """All pictures of a folder and the folders in it, by name; the output keeps the names.

    Which files count is said by `image_files.walk`; the output folder, if it lies inside, is left out.

    Args:
        source: folder of pictures.
        out: folder of what is made.
        suffixes: of pictures, lower case.
        rename: suffix of a picture to that of what is made of it.

    Raises:
        PictureError: no folder, or no picture in it.
        ConfigError: two pictures would become one file, or a picture would be replaced by what is made of it.
    """
    if not source.is_dir():
        raise PictureError(f"`source` should be a folder of pictures. Found `{source}`. Is the path right?")
    items = []
    for file, skipped in walk(source, suffixes, avoid=out):
        if not skipped:
            name = file.relative_to(source)
            output = name.with_suffix(rename(name.suffix))
            items.append(Item(file, name.as_posix(), output.as_posix()))
    if not items:
        raise PictureError(
            f"`{source}` should hold pictures ({', '.join(sorted(suffixes))}). Found none, in the folders in it "
            "neither."
        )
    _refuse_clashes(items, out)
    return sorted(items, key=lambda item: item.path)


def _refuse_clashes(items: list[Item], out: Path) -> None:
    makers: dict[str, str] = {}
    sources = {item.source.resolve() for item in items}
    for item in items:
        other = makers.setdefault(item.output, item.path)
        if other != item.path:
            raise ConfigError(
                f"Pictures should become files of different names. Found `{other}` and `{item.path}`, which would both "
                f"become `{item.output}`. Rename one of them."
            )
        if (out / item.output).resolve() in sources:
            raise ConfigError(
                f"`out` should be another folder than that of the pictures. Found `{out}`, where `{item.output}` would "
                "replace an original. Name another folder."
            )
