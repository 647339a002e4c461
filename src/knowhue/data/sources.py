"""Where pictures come from. Each source lists names, parts and labels at once and decodes later."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from knowhue.config import Pictures
from knowhue.data import drawn
from knowhue.data.decode import SUFFIXES, decode, to_srgb
from knowhue.errors import ConfigError, PictureError

UNLABELLED = "unlabelled"
VALIDATION_NAMES = ("val", "valid", "validation")
PART_NAMES = frozenset({*VALIDATION_NAMES, "train", "training", "test", "testing"})


class Item(NamedTuple):
    """One picture before it is read.

    `part` is `train`, `validation`, or None where the source leaves the split to us; `label` is a class
    name, or None where unknown; `stamp` changes when the picture does.
    """

    name: str
    part: str | None
    label: str | None
    load: Callable[[], Image.Image]
    stamp: str


def list_items(pictures: Pictures) -> list[Item]:
    """All pictures of the configured source, in a fixed order.

    Raises:
        PictureError: nothing there; the message says what was looked for.
        ConfigError: the source needs a setting that is missing.
    """
    items = SOURCES[pictures.source](pictures)
    if not items:
        raise PictureError(
            f"`{pictures.path}` should hold pictures as <class>/*.jpg, or train/<class>/ and val/<class>/. "
            "Found none. Check the path, or try the built-in set: knowhue study --preset demo"
        )
    return items


def require_source(pictures: Pictures) -> None:
    """Say at once, before anything heavy is loaded, if there is no such folder.

    Raises:
        PictureError, ConfigError: as `list_items` would.
    """
    if pictures.source in ("folder", "imagenet"):
        _root(pictures)


def from_folder(pictures: Pictures) -> list[Item]:
    """`train/<class>/` and `val/<class>/`, or `<class>/` alone; `unlabelled/` trains colour only."""
    root = _root(pictures)
    unlabelled = _folder_items(root, root / UNLABELLED, "train", None)
    train, validation = root / "train", _first_existing(root, VALIDATION_NAMES)
    parts = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name.lower() in PART_NAMES)
    if set(parts) - {"train", *VALIDATION_NAMES} or (parts and not train.is_dir()):
        raise PictureError(
            f"`{root}` should hold train/<class>/ and val/<class>/, or <class>/ alone. Found the folders "
            f"{', '.join(parts)}. Rename them, or move what should not be used elsewhere."
        )
    if not train.is_dir():
        return _class_items(root, root, None, skip={UNLABELLED}) + unlabelled
    unlabelled += _folder_items(root, train / UNLABELLED, "train", None)
    items = _class_items(root, train, "train" if validation else None, skip={UNLABELLED})
    items += _class_items(root, validation, "validation", skip={UNLABELLED}) if validation else []
    return items + unlabelled  # last: of two equal pictures the first stays, and should be the labelled one


def from_imagenet(pictures: Pictures) -> list[Item]:
    """Some classes of a local ImageNet tree (`train/<WordNet id>/`, `val/<WordNet id>/`)."""
    root = _root(pictures)
    if not pictures.wordnet_ids:
        raise ConfigError(
            "`pictures.wordnet_ids` should map class names to WordNet ids. Found none. "
            "Use --preset poster-imagenet, or --set pictures.wordnet_ids='{jellyfish: n01910747, ...}'"
        )
    data = next(
        (p for p in (root, root / "ILSVRC/Data/CLS-LOC", root / "Data/CLS-LOC") if (p / "train").is_dir()),
        root,
    )
    train = data / "train" if (data / "train").is_dir() else data
    validation = _first_existing(data, VALIDATION_NAMES)
    labelled = {
        name: word
        for name, word in pictures.wordnet_ids.items()
        if validation and (validation / word).is_dir()
    }
    split_ourselves = len(labelled) < len(pictures.wordnet_ids)  # the raw ILSVRC validation folder is flat
    items: list[Item] = []
    for name, word in sorted(pictures.wordnet_ids.items()):
        found = _folder_items(root, train / word, None if split_ourselves else "train", name)
        if not found:
            raise PictureError(
                f"`{train / word}` should hold the pictures of {name}. Found none. Unpack that class there, "
                "or change its id in `pictures.wordnet_ids`."
            )
        items += found
        if validation and not split_ourselves:
            items += _folder_items(root, validation / word, "validation", name)
    return items


def from_huggingface(pictures: Pictures) -> list[Item]:
    """A Hugging Face dataset, by hub name or local folder, through the extra `huggingface`."""
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise ConfigError(
            "`pictures.source: huggingface` needs an extra: pip install 'knowhue[huggingface]'"
        ) from None
    if not pictures.path:
        raise ConfigError("`pictures.path` should name the Hugging Face dataset. Found none.")
    try:
        splits = datasets.load_dataset(pictures.path)
    except Exception as error:
        raise PictureError(
            f"`{pictures.path}` should be a Hugging Face dataset that can be reached. {error}"
        ) from None
    validation = next((name for name in (*VALIDATION_NAMES, "test") if name in splits), None)
    items: list[Item] = []
    for part in filter(None, ("train", validation)):
        ours = None if validation is None else ("train" if part == "train" else "validation")
        items += _dataset_items(splits[part], part, ours, pictures)
    return items


def from_drawing(pictures: Pictures) -> list[Item]:
    """The built-in underwater scenes, drawn on the spot; classes take turns."""
    return [_drawn_item(index, pictures) for index in range(pictures.drawn_count)]


SOURCES: dict[str, Callable[[Pictures], list[Item]]] = {
    "folder": from_folder,
    "imagenet": from_imagenet,
    "huggingface": from_huggingface,
    "drawn": from_drawing,
}


def _root(pictures: Pictures) -> Path:
    if not pictures.path:
        raise ConfigError(
            "`pictures.path` should name a folder of pictures. Found none. "
            "Name it on the command line, or use the built-in set: --preset demo"
        )
    root = Path(pictures.path).expanduser()
    if not root.is_dir():
        raise PictureError(
            f"`{root}` should be a folder of pictures. Found {'a file' if root.exists() else 'nothing'} there."
        )
    return root


def _first_existing(root: Path, names: Iterable[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _class_items(
    root: Path, parent: Path, part: str | None, skip: frozenset[str] | set[str] = frozenset()
) -> list[Item]:
    folders = sorted(
        p for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name not in skip
    )
    return [item for folder in folders for item in _folder_items(root, folder, part, folder.name)]


def _folder_items(root: Path, folder: Path, part: str | None, label: str | None) -> list[Item]:
    files = (
        sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if folder.is_dir()
        else []
    )
    return [Item(str(p.relative_to(root)), part, label, partial(decode, p), _stamp(p)) for p in files]


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def _drawn_item(index: int, pictures: Pictures) -> Item:
    label = index % len(drawn.CLASSES)

    def load() -> Image.Image:
        return Image.fromarray(
            drawn.draw(index, label, pictures.size_px, pictures.class_colour, pictures.drawn_seed)
        )

    return Item(f"drawn/{index:05d}", None, drawn.CLASSES[label], load, "")


def _dataset_items(split, name: str, part: str | None, pictures: Pictures) -> list[Item]:
    for column in (pictures.image_column, pictures.label_column):
        if column not in split.features:
            raise ConfigError(
                f"`pictures.image_column` and `label_column` should be columns of the dataset: "
                f"{', '.join(split.features)}. Found `{column}`."
            )
    feature, labels = split.features[pictures.label_column], split[pictures.label_column]
    names = [
        str(feature.int2str(v)) if hasattr(feature, "int2str") and v is not None and v >= 0 else v
        for v in labels
    ]

    def load(index: int) -> Image.Image:
        try:
            return to_srgb(split[index][pictures.image_column])
        except Exception as error:  # the library decodes on access and raises whatever Pillow does
            raise PictureError(f"unreadable: {error}") from None

    stamp = split._fingerprint
    return [
        Item(f"{name}/{i:07d}", part, None if label in (None, -1) else str(label), partial(load, i), stamp)
        for i, label in enumerate(np.asarray(names, dtype=object).tolist())
    ]
