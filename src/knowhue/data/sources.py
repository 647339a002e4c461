"""Sources of images: class folders, ImageNet, Hugging Face datasets, archives, and the built-in scenes."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from PIL import Image

from knowhue.config import Images
from knowhue.data import drawn
from knowhue.data.archives import Parquet, WebDataset
from knowhue.data.items import (
    SPLIT_NAMES,
    TRAIN_ONLY,
    UNLABELLED,
    ImageSource,
    SourceItem,
    file_stamp,
    found_instead,
    parse_label,
    read_training_image,
    require_columns,
    source_root,
)
from knowhue.errors import ConfigError, ImageError, needing, should_be
from knowhue.images.image import LINK_LOOP, walk, why_hidden
from knowhue.plan import RESERVED
from knowhue.presets import ARMS
from knowhue.storage import expand_user, real_path

MORE_DRAWN = "Raise `images.drawn_count`"


def require_source(images: Images) -> None:
    """Check the settings of the source and its folder before heavy packages are loaded; errors as `open_listing`."""
    if images.source != "huggingface":
        SOURCES[images.source](images)  # opens no image
    elif not images.path:
        raise ConfigError("`images.path` should name the Hugging Face dataset. Found none.")


def require_apart(images: Images, root: Path) -> None:
    """Check that a study's folder is not among its images, where its files would count as a class.

    Raises:
        ConfigError: `root` is the folder of images or inside it, or that folder is one that the study writes.
    """
    if images.source == "drawn" or not images.path:
        return
    source, out = real_path(expand_user(images.path)), real_path(root)
    if not source.is_dir():
        return  # the name of a dataset, or an error that is reported elsewhere
    reserved = {out / name for name in (*RESERVED, *ARMS)}
    if source in (out, *out.parents) or not reserved.isdisjoint((source, *source.parents)):
        raise ConfigError(
            f"{root} would hold a study among the images of {images.path}, which are never changed; choose a "
            "folder elsewhere"
        )


class Folder:
    """`train/<class>/`, `val/<class>/` and `test/<class>/`, or `<class>/` alone; `unlabelled/` trains colour only."""

    is_sorted: ClassVar[bool] = False

    def __init__(self, images: Images) -> None:
        self.root = source_root(images)

    def items(self) -> Iterator[SourceItem]:
        """Every file below the root."""
        splits, root = _splits_of(self.root), self.root
        # numbers of files by reason to skip them (empty for images), for each class folder and each split folder
        skipped: dict[str, Counter[str]] = defaultdict(Counter)
        depth = 2 if splits else 1
        for found in walk(root):
            item = _item_in_folder(root, found.path, found.skipped, splits)
            folders = item.name.split("/", depth)
            for count in range(1, depth + 1):
                skipped["/".join(folders[:count])][item.skipped] += 1
            yield item
        for home in splits or [""]:
            _require_images(root, home, skipped)

    def load(self, item: SourceItem) -> Image.Image:
        return read_training_image(self.root / item.name)


def _splits_of(root: Path) -> dict[str, str]:
    """The splits by name of their folders; empty if the root holds class folders."""
    names = {*SPLIT_NAMES, "training"}
    named = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name.lower() in names)
    known = {name: SPLIT_NAMES[name] for name in named if name in SPLIT_NAMES}
    if named and (len(set(known.values())) < len(named) or "train" not in known):
        raise ImageError(
            f"{root}: has the folders {', '.join(named)}, but should have train/<class>/, and optionally val/<class>/ "
            "and test/<class>/, or else <class>/ alone; rename them, or move folders that are not used elsewhere"
        )
    return known


def _item_in_folder(root: Path, path: Path, skipped: str, splits: Mapping[str, str]) -> SourceItem:
    """The item of a file below the root, with the split and class that its folders name."""
    below = path.parts[len(root.parts) :]  # takes a fifth of the time of `relative_to`
    folders = below[:-1]
    split, label = "train", None
    if folders and folders[0] in splits:
        split, folders = splits[folders[0]], folders[1:]
    elif splits and folders[:1] != (UNLABELLED,):
        skipped = skipped or "outside " + ", ".join(splits)
    if not folders:
        skipped = skipped or "not in a class folder"
    elif folders[0] != UNLABELLED:
        label = folders[0]
        if not skipped:
            _refuse_split_within(root, folders)
    elif split != "train":
        skipped = skipped or TRAIN_ONLY
    return SourceItem("/".join(below) or ".", split, label, file_stamp(path), skipped)


def _refuse_split_within(root: Path, folders: tuple[str, ...]) -> None:
    """Refuse splits inside a class folder, which would otherwise be ignored."""
    if within := [name for name in folders[1:] if name.lower() in SPLIT_NAMES]:
        raise ImageError(
            f"{root}: its class {folders[0]} holds a folder {within[0]}, which names a split; put classes into splits "
            f"({within[0]}/{folders[0]}/), name the folder whose own folders are train/ and so on, or rename "
            f"{within[0]}/ if it is not a split"
        )


def _require_images(root: Path, home: str, skipped: Mapping[str, Counter[str]]) -> None:
    """Refuse split and class folders without images, so that none disappears unnoticed."""
    if home and not skipped[home][""]:
        alone = "" if home == "train" else f", or name {root / 'train'} alone, which is then split"
        found = found_instead(skipped[home].elements())
        raise ImageError(
            f"{root / home}: no images in this split{found}; put them into {home}/<class>/{alone}"
        )
    for folder in sorted((root / home).iterdir()):
        is_folder = folder.is_dir() or (folder.is_symlink() and not folder.exists() and not folder.suffix)
        if folder.name == UNLABELLED or not is_folder or why_hidden(folder.name):
            continue
        inside = skipped[folder.relative_to(root).as_posix()]
        if not inside[""] and inside != {LINK_LOOP: 1}:
            found = found_instead(inside.elements())
            raise ImageError(
                f"{folder}: no images in this class{found}; put some there, or remove the folder"
            )


class ImageNet:
    """Some classes of a local ImageNet tree (`train/<WordNet id>/`, `val/<WordNet id>/`)."""

    is_sorted: ClassVar[bool] = True

    def __init__(self, images: Images) -> None:
        self.root, self.wordnet_ids = source_root(images), images.wordnet_ids
        if not self.wordnet_ids:
            raise ConfigError(
                "`images.wordnet_ids` should map class names to WordNet ids. Found none. "
                "Use --preset poster-imagenet, or --set images.wordnet_ids='{jellyfish: n01910747, ...}'"
            )

    def items(self) -> Iterator[SourceItem]:
        """The files of each class and split."""
        root = self.root
        below = (root / place for place in (".", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC"))
        data = next((place for place in below if (place / "train").is_dir()), root)
        train = data / "train" if (data / "train").is_dir() else data
        given = [  # the raw ILSVRC validation folder has no class folders, and is not used
            (data / folder, split)
            for folder, split in SPLIT_NAMES.items()
            if split != "train" and all((data / folder / word).is_dir() for word in self.wordnet_ids.values())
        ]
        for name, word in sorted(self.wordnet_ids.items()):
            for home, split in ((train, "train"), *given):
                files = sorted(walk(home / word)) if (home / word).is_dir() else []
                if all(skipped for _, skipped in files):
                    found = found_instead(skipped for _, skipped in files)
                    raise ImageError(
                        f"{home / word}: no images of {name}{found}; unpack that class there, or change its id in "
                        "`images.wordnet_ids`"
                    )
                for path, skipped in files:
                    file = path.relative_to(root).as_posix()
                    yield SourceItem(file, split, name, file_stamp(path), skipped)

    def load(self, item: SourceItem) -> Image.Image:
        return read_training_image(self.root / item.name)


class HuggingFace:
    """A Hugging Face dataset, by hub name or local folder, through the extra `huggingface`."""

    is_sorted: ClassVar[bool] = True

    def __init__(self, images: Images) -> None:
        with needing("`images.source: huggingface`", "huggingface"):
            import datasets  # pyright: ignore[reportMissingImports]
        require_source(images)
        try:
            # raises all kinds of exceptions of the hub, the cache and file formats
            splits = datasets.load_dataset(images.path)
        except Exception as error:
            raise ImageError(f"{images.path}: the Hugging Face dataset cannot be loaded: {error}") from None
        self.image_column, self.label_column = images.image_column, images.label_column
        self.others = [name for name in splits if name not in SPLIT_NAMES]
        train_first = sorted(splits, key=lambda name: SPLIT_NAMES.get(name) != "train")
        self.splits = {name: splits[name] for name in train_first if name in SPLIT_NAMES}
        as_file = datasets.Image(decode=False)  # decoded by Knowhue, as in `colorize`
        self.encoded = {}
        for name, dataset in self.splits.items():
            require_columns(dataset.features, images)
            self.encoded[name] = dataset.cast_column(images.image_column, as_file)

    def items(self) -> Iterator[SourceItem]:
        """The rows of each split, and splits that are skipped because of their names."""
        for name in self.others:
            yield SourceItem(name, "train", None, "", f"split not named {', '.join(SPLIT_NAMES)}")
        for name, dataset in self.splits.items():
            feature = dataset.features[self.label_column]
            stamp = dataset._fingerprint  # private, but the only digest of the dataset's content
            for row, value in enumerate(dataset[self.label_column]):
                label = parse_label(value)
                if label is not None and hasattr(feature, "int2str"):  # class labels are stored as numbers
                    label = feature.int2str(value)
                yield SourceItem(f"{name}/{row:07d}", SPLIT_NAMES[name], label, stamp)

    def load(self, item: SourceItem) -> Image.Image:
        """Read the image of a row."""
        name, _, row = item.name.rpartition("/")
        try:
            # an undecoded image is the bytes of its file or the file's path; a row can be empty
            found = self.encoded[name][int(row)][self.image_column] or {}
            source = found.get("bytes") or Path(found.get("path") or "")
        except Exception as error:  # the library may download it now, and raises all kinds of exceptions
            raise ImageError(f"unreadable: {error}") from None
        if source == Path():
            raise ImageError("unreadable: no image in this row")
        return read_training_image(source)


class Drawing:
    """The built-in underwater scenes, drawn when they are loaded; classes alternate."""

    is_sorted: ClassVar[bool] = True

    def __init__(self, images: Images) -> None:
        """Check that each class can have enough training images, and one to evaluate on."""
        needed = len(drawn.CLASSES) * (images.min_per_class + 1)
        if images.drawn_count < needed:
            wanted = f"at least {needed}, {images.min_per_class + 1} for each class"
            remedy = f"{MORE_DRAWN}, or lower `images.min_per_class`."
            raise ImageError(should_be("images.drawn_count", wanted, images.drawn_count, remedy))
        self.images = images

    def items(self) -> Iterator[SourceItem]:
        """The scenes, in order of their numbers."""
        drawing = f"drawn {drawn.DRAWING}"
        for index in range(self.images.drawn_count):
            label = drawn.CLASSES[index % len(drawn.CLASSES)]
            # without the palette: the same scene in other colours does not count as unseen
            origin = f"{drawing} {self.images.drawn_seed} {index}"
            yield SourceItem(f"drawn/{index:05d}", "train", label, drawing, origin=origin)

    def load(self, item: SourceItem) -> Image.Image:
        """Draw a scene."""
        index, images = int(item.name.rpartition("/")[2]), self.images
        label = index % len(drawn.CLASSES)
        scene = drawn.draw(index, label, images.size_px, images.class_colour, images.drawn_seed)
        return Image.fromarray(scene)


SOURCES: dict[str, Callable[[Images], ImageSource]] = {
    "folder": Folder,
    "imagenet": ImageNet,
    "huggingface": HuggingFace,
    "webdataset": WebDataset,
    "parquet": Parquet,
    "drawn": Drawing,
}
