"""Where images come from. Each source lists names, splits and labels at once and decodes later."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from knowhue.config import Images
from knowhue.data import drawn
from knowhue.errors import ConfigError, ExtraError, ImageError, install_command
from knowhue.images.files import CIRCLE, counted, walk, why_hidden
from knowhue.images.image import to_rgb8
from knowhue.images.reading import read_image
from knowhue.plan import RESERVED
from knowhue.presets import ARMS

UNLABELLED = "unlabelled"
SPLIT_NAMES = {
    "train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test",
    "testing": "test",
}  # fmt: skip
"""Names of folders, and of a dataset's splits, and the split that they hold."""


class SourceItem(NamedTuple):
    """One image before it is read, or a file that is skipped.

    Attributes:
        name: unique among the items of a source.
        split: `train`, `validation` or `test`; what the source does not give is split off from `train`.
        label: class name, or None where unknown.
        load: reads the image.
        stamp: changes when the image does.
        skipped: why a file is not read; empty for images.
        origin: distinguishes an image that is made at the size asked for; empty where it has a size of its own.
    """

    name: str
    split: str
    label: str | None
    load: Callable[[], Image.Image]
    stamp: str
    skipped: str = ""
    origin: str = ""


def list_items(images: Images) -> list[SourceItem]:
    """All images of the configured source, and what lies among them and is skipped, in a fixed order.

    Raises:
        ImageError: nothing there; the message says what was looked for.
        ConfigError: the source needs a setting that is missing.
    """
    items = SOURCES[images.source](images)
    if all(item.skipped for item in items):
        others = _others([item.skipped for item in items])
        raise ImageError(
            f"{images.path}: no images in <class>/, or in train/<class>/ and val/<class>/{others}; check the path, or "
            "try the built-in set: knowhue study --preset demo"
        )
    return items


def require_source(images: Images) -> None:
    """Say at once, before anything heavy is loaded, if there is no such folder.

    Raises:
        ImageError, ConfigError: as `list_items` would.
    """
    if images.source in ("folder", "imagenet"):
        _root(images)


def require_apart(images: Images, root: Path) -> None:
    """Say at once if a study would write among the images that it is made of: they would be taken for a class.

    Args:
        images: where the images come from.
        root: the study folder.

    Raises:
        ConfigError: `root` is the images' folder or lies in it, or that is one of the study's own folders.
    """
    if images.source == "drawn" or not images.path:
        return
    source, out = Path(images.path).expanduser().resolve(), root.resolve()
    if not source.is_dir():
        return  # the name of a dataset, or a mistake that is reported elsewhere
    own = {out / name for name in (*RESERVED, *ARMS)}
    if source in (out, *out.parents) or not own.isdisjoint((source, *source.parents)):
        raise ConfigError(
            f"{root} would hold a study among the images of {images.path}, which are left as they are; name a folder "
            "elsewhere with --out"
        )


def from_folder(images: Images) -> list[SourceItem]:
    """`train/<class>/`, `val/<class>/` and `test/<class>/`, or `<class>/` alone; `unlabelled/` trains colour only."""
    root = _root(images)
    splits = _splits_of(root)
    items = [_placed(root, found.path, found.skipped, splits) for found in walk(root)]
    for home in splits or [""]:
        _require_images(root, home, items)
    # the order of the array; which of two copies stays is decided by `checks.order_of_choice`
    place = ("train", "validation", "test").index
    return sorted(items, key=lambda item: (item.label is None, place(item.split), item.name))


def _splits_of(root: Path) -> dict[str, str]:
    """Folders that are splits, and which; none where the classes lie in the root."""
    names = {*SPLIT_NAMES, "training"}
    named = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name.lower() in names)
    known = {name: SPLIT_NAMES[name] for name in named if name in SPLIT_NAMES}
    if named and (len(set(known.values())) < len(named) or "train" not in known):
        raise ImageError(
            f"{root}: holds the folders {', '.join(named)}, but is to hold train/<class>/, and val/<class>/ and "
            "test/<class>/ if there are any, or <class>/ alone; rename them, or move what is not to be used elsewhere"
        )
    return known


def _placed(root: Path, path: Path, skipped: str, splits: Mapping[str, str]) -> SourceItem:
    """What a file below the root is, by the folders that it lies in."""
    folders = path.relative_to(root).parts[:-1]
    split, label = "train", None
    if folders and folders[0] in splits:
        split, folders = splits[folders[0]], folders[1:]
    elif splits and folders[:1] != (UNLABELLED,):
        skipped = skipped or "outside " + ", ".join(splits)
    if not folders:
        skipped = skipped or "in no folder of a class"
    elif folders[0] != UNLABELLED:
        label = folders[0]
    elif split != "train":
        skipped = skipped or "unlabelled images train only"
    return _item(root, path, split, label, skipped)


def _item(root: Path, path: Path, split: str, label: str | None, skipped: str) -> SourceItem:
    try:
        status = path.stat()
        stamp = f"{status.st_size}-{status.st_mtime_ns}"
    except OSError as error:  # a link that leads nowhere; whoever reads it will say so
        stamp = str(error.errno)
    name, load = path.relative_to(root).as_posix(), partial(read_training_image, path)
    return SourceItem(name, split, label, load, stamp, skipped)


def _require_images(root: Path, home: str, items: Iterable[SourceItem]) -> None:
    """No class may vanish because its folder is empty, holds other kinds of files, or is a link that leads nowhere."""
    depth = len(Path(home).parts) + 1
    skipped: dict[str, list[str]] = defaultdict(list)
    for item in items:
        skipped["/".join(item.name.split("/", depth)[:depth])].append(item.skipped)
    for folder in sorted((root / home).iterdir()):
        is_folder = folder.is_dir() or (folder.is_symlink() and not folder.exists() and not folder.suffix)
        if folder.name == UNLABELLED or not is_folder or why_hidden(folder.name):
            continue
        inside = skipped[folder.relative_to(root).as_posix()]
        if all(inside) and inside != [CIRCLE]:
            raise ImageError(
                f"{folder}: no images of a class{_others(inside)}; put some there, or remove the folder"
            )


def _others(skipped: Sequence[str]) -> str:
    return f", but {counted(skipped)}" if skipped else ""


def from_imagenet(images: Images) -> list[SourceItem]:
    """Some classes of a local ImageNet tree (`train/<WordNet id>/`, `val/<WordNet id>/`).

    Raises:
        ConfigError: `images.path` or `images.wordnet_ids` is missing.
        ImageError: there is no such folder, or a class without images.
    """
    root = _root(images)
    if not images.wordnet_ids:
        raise ConfigError(
            "`images.wordnet_ids` should map class names to WordNet ids. Found none. "
            "Use --preset poster-imagenet, or --set images.wordnet_ids='{jellyfish: n01910747, ...}'"
        )
    below = (root / place for place in (".", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC"))
    data = next((place for place in below if (place / "train").is_dir()), root)
    train = data / "train" if (data / "train").is_dir() else data
    given = [  # the raw ILSVRC validation folder is flat: then the split is ours
        (data / folder, split)
        for folder, split in SPLIT_NAMES.items()
        if split != "train" and all((data / folder / word).is_dir() for word in images.wordnet_ids.values())
    ]
    items: list[SourceItem] = []
    for name, word in sorted(images.wordnet_ids.items()):
        for home, split in ((train, "train"), *given):
            files = sorted(walk(home / word)) if (home / word).is_dir() else []
            if all(skipped for _, skipped in files):
                raise ImageError(
                    f"{home / word}: no images of {name}{_others([skipped for _, skipped in files])}; unpack that "
                    "class there, or change its id in `images.wordnet_ids`"
                )
            items += [_item(root, path, split, name, skipped) for path, skipped in files]
    return items


def from_huggingface(images: Images) -> list[SourceItem]:
    """A Hugging Face dataset, by hub name or local folder, through the extra `huggingface`.

    Raises:
        ConfigError: the extra is missing, or `images.path`, or the dataset has no such column.
        ImageError: no dataset is there, or it cannot be reached.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        command = install_command("huggingface")
        raise ConfigError(f"`images.source: huggingface` needs an extra: {command}") from None
    if not images.path:
        raise ConfigError("`images.path` should name the Hugging Face dataset. Found none.")
    try:
        # raises whatever the hub, the cache or a file's format does
        splits = datasets.load_dataset(images.path)
    except Exception as error:
        raise ImageError(f"{images.path}: no Hugging Face dataset that can be reached: {error}") from None
    items: list[SourceItem] = []
    as_file = datasets.Image(decode=False)  # the library's own decoding is not colorize's
    for name in splits:
        if name in SPLIT_NAMES:
            items += _dataset_items(splits[name], as_file, name, SPLIT_NAMES[name], images)
    return sorted(items, key=lambda item: item.split != "train")


def from_drawing(images: Images) -> list[SourceItem]:
    """The built-in underwater scenes, drawn on the spot; classes take turns."""
    drawing = f"drawn {drawn.DRAWING}"

    def item(index: int) -> SourceItem:
        label = index % len(drawn.CLASSES)

        def load() -> Image.Image:
            pixels = drawn.draw(index, label, images.size_px, images.class_colour, images.drawn_seed)
            return Image.fromarray(pixels)

        # the palette has no part in it: the same scene in other colours is no unseen image
        origin = f"{drawing} {images.drawn_seed} {index}"
        return SourceItem(f"drawn/{index:05d}", "train", drawn.CLASSES[label], load, drawing, origin=origin)

    return [item(index) for index in range(images.drawn_count)]


SOURCES: dict[str, Callable[[Images], list[SourceItem]]] = {
    "folder": from_folder,
    "imagenet": from_imagenet,
    "huggingface": from_huggingface,
    "drawn": from_drawing,
}


def _root(images: Images) -> Path:
    if not images.path:
        raise ConfigError(
            "`images.path` should name a folder of images. Found none. "
            "Name it on the command line, or use the built-in set: --preset demo"
        )
    # no shell expands `~` in a file of settings
    root = Path(images.path).expanduser()
    if not root.is_dir():
        raise ImageError(f"{root}: {'a file, not a folder of images' if root.exists() else 'no such folder'}")
    return root


def read_training_image(source: Path | bytes) -> Image.Image:
    """An image as `colorize` would read it, in 8 bits over white: a network learns from what it will be shown.

    Returns:
        At full size, upright, mode `RGB`, sRGB.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        return Image.fromarray(to_rgb8(read_image(source, name="")))
    except (ImageError, ExtraError) as error:
        raise ImageError(f"unreadable: {error}") from None


def _dataset_items(dataset, as_file, name: str, split: str, images: Images) -> list[SourceItem]:
    for column in (images.image_column, images.label_column):
        if column not in dataset.features:
            raise ConfigError(
                f"`images.image_column` and `label_column` should be columns of the dataset: "
                f"{', '.join(dataset.features)}. Found `{column}`."
            )
    feature, labels = dataset.features[images.label_column], dataset[images.label_column]
    names = [
        # class labels are stored as numbers, and unknown ones as -1
        str(feature.int2str(v)) if hasattr(feature, "int2str") and v is not None and v >= 0 else v
        for v in labels
    ]

    encoded = dataset.cast_column(images.image_column, as_file)

    def load(index: int) -> Image.Image:
        try:
            # not decoded, an image is the bytes of its file, or the path where it lies on disk; a row may be empty
            found = encoded[index][images.image_column] or {}
            source = found.get("bytes") or Path(found.get("path") or "")
        except Exception as error:  # the library may fetch it now, and raises whatever that does
            raise ImageError(f"unreadable: {error}") from None
        if source == Path():
            raise ImageError("unreadable: no image in this row")
        return read_training_image(source)

    stamp = dataset._fingerprint  # private, but the library's own name for what a dataset holds
    known = [None if label in (None, -1) else str(label) for label in names]
    return [
        SourceItem(f"{name}/{i:07d}", split, label, partial(load, i), stamp) for i, label in enumerate(known)
    ]
