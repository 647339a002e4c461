"""Sources of images: labels, splits, order, and errors if something is missing."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from odd_files import pillow
from PIL import Image

from knowhue.config import Images
from knowhue.data.items import TRAIN_ONLY
from knowhue.data.listing import list_items
from knowhue.data.prepare import prepare
from knowhue.data.sources import SOURCES, HuggingFace, require_apart
from knowhue.errors import ConfigError, ExtraError, ImageError
from knowhue.images.image import SUFFIXES
from knowhue.inference.listing import list_folder
from knowhue.plan import make_plan
from knowhue.study import run_study


def listed(**settings):
    return [
        (item.name, item.split, item.label) for item in list_items(Images(**settings)) if not item.skipped
    ]


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_train_and_validation_folders(make_folder, validation):
    root = make_folder(
        {"train/b": 1, "train/a": 1, f"{validation}/a": 1, "train/unlabelled": 1, "unlabelled": 1}
    )
    assert listed(path=str(root)) == [
        ("train/a/00.png", "train", "a"),
        ("train/b/00.png", "train", "b"),
        (f"{validation}/a/00.png", "validation", "a"),
        ("train/unlabelled/00.png", "train", None),
        ("unlabelled/00.png", "train", None),
    ]


def test_a_class_whose_accents_are_written_in_two_ways_is_one(make_folder):
    one, other = "\u00e9toile", "e\u0301toile"
    root = make_folder({f"train/{one}": 1, f"train/{other}": 1, f"val/{other}": 1})
    found = listed(path=str(root))
    assert [(split, label) for _, split, label in found] == [("train", one)] * 2 + [("validation", one)]
    assert len({name for name, *_ in found}) == 3  # files keep their names


def test_training_folder_alone_is_split_later(make_folder):
    root = make_folder({"train/a": 1, "train/b": 1})
    assert {split for _, split, _ in listed(path=str(root))} == {"train"}


@pytest.mark.parametrize("test", ["test", "testing"])
def test_three_splits(make_folder, test):
    root = make_folder({f"{part}/{name}": 1 for part in ("train", "val", test) for name in "ab"})
    found = [(name.split("/")[0], split) for name, split, _ in listed(path=str(root))]
    assert found == [("train", "train")] * 2 + [("val", "validation")] * 2 + [(test, "test")] * 2


@pytest.mark.parametrize(
    "parts",
    [
        ("test",),
        ("val", "test"),
        ("train", "val", "valid"),
        ("train", "test", "testing"),
        ("training", "val"),
    ],
)
def test_folders_of_splits_that_cannot_be_meant(make_folder, parts):
    root = make_folder({f"{part}/{name}": 1 for part in parts for name in "ab"})
    with pytest.raises(
        ImageError, match=f"has the folders {', '.join(sorted(parts))}, but should have train/"
    ):
        listed(path=str(root))


@pytest.mark.parametrize("junk", [{}, {"._x.jpg": b"", "raw.cr2": b"x"}])
@pytest.mark.parametrize("home", ["", "train/", "val/", "test/"])
def test_empty_class_folder_is_an_error_that_names_it(make_folder, home, junk):
    root = make_folder({f"{part}{name}": 1 for part in {home, "train/" * bool(home)} for name in "ab"})
    empty = root / home / "empty"
    empty.mkdir()
    for name, content in junk.items():
        (empty / name).write_bytes(content)
    with pytest.raises(ImageError, match=f"{home}empty: no images in this class") as raised:
        listed(path=str(root))
    assert ("1 hidden, 1 of another type (.cr2)" in str(raised.value)) == bool(junk)


@pytest.mark.parametrize("home", ["val/", "test/"])
def test_a_split_without_images_is_an_error_that_names_it(make_folder, home):
    root = make_folder({"train/a": 2, "train/b": 2, home: 2})
    remedy = rf"put them into {home[:-1]}/<class>/, or name \S+/photos/train alone"
    with pytest.raises(
        ImageError, match=rf"{home[:-1]}: no images in this split, but 2 not in a class folder; {remedy}"
    ):
        listed(path=str(root))


@pytest.mark.parametrize("layout", ["a/{}", "photos/{}/a", "train/a/{}", "a/more/{}"])
def test_splits_within_a_class_are_not_drawn_anew(make_folder, layout):
    root = make_folder({layout.format(split): 2 for split in ("train", "Val")} | {"b": 1})
    with pytest.raises(
        ImageError,
        match=r"holds a folder (train|Val), which names a split; .* rename (train|Val)/ if it is not a split",
    ):
        listed(path=str(root))


def test_class_that_is_a_link_to_nowhere_is_an_error(make_folder):
    root = make_folder({"a": 1, "b": 1})
    (root / "c").symlink_to(root / "gone")
    with pytest.raises(ImageError, match=r"/c: no images in this class"):
        listed(path=str(root))


def test_link_in_a_circle_is_no_class(make_folder):
    root = make_folder({"a": 1, "b": 1})
    (root / "again").symlink_to(root)
    (root / "a" / "up").symlink_to(root)
    assert [name for name, _, _ in listed(path=str(root))] == ["a/00.png", "b/00.png"]


def test_class_that_is_a_link_to_another_class_is_an_error(make_folder):
    root = make_folder({"a": 1, "b": 1})
    (root / "c").symlink_to(root / "a")
    with pytest.raises(
        ImageError, match=r"/c: no images in this class, but 1 linking to a folder that is already"
    ):
        listed(path=str(root))


def test_classes_and_splits_may_be_links(make_folder, tmp_path):
    elsewhere = make_folder({"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1}, root="elsewhere")
    root = tmp_path / "linked"
    (root / "train").mkdir(parents=True)
    (root / "val").symlink_to(elsewhere / "val")
    for name in "ab":
        (root / "train" / name).symlink_to(elsewhere / "train" / name)
    assert listed(path=str(root)) == listed(path=str(elsewhere))


def test_files_outside_the_classes_are_named(make_folder):
    root = make_folder(
        {"train/a": 1, "train/b": 1, "train": 1, "extra/c": 1, "val/a": 1, "val/b": 1, "val/unlabelled": 1}
    )
    skipped = {item.name: item.skipped for item in list_items(Images(path=str(root))) if item.skipped}
    assert skipped == {
        "train/00.png": "not in a class folder",
        "extra/c/00.png": "outside train, val",
        "val/unlabelled/00.png": TRAIN_ONLY,
    }


def test_flat_classes_with_folders_inside(make_folder):
    root = make_folder({"a/2024": 1, "a/2025": 1, "b": 1, ".thumbnails": 3})
    assert listed(path=str(root)) == [
        ("a/2024/00.png", "train", "a"),
        ("a/2025/00.png", "train", "a"),
        ("b/00.png", "train", "b"),
    ]


def test_stamp_changes_with_the_file(make_folder):
    root = make_folder({"a": 1})
    before = list_items(Images(path=str(root)))[0].stamp
    Image.new("RGB", (50, 50)).save(root / "a" / "00.png")
    assert list_items(Images(path=str(root)))[0].stamp != before


IDS = {"jellyfish": "n1", "penguin": "n2"}


@pytest.mark.parametrize("prefix", ["", "ILSVRC/Data/CLS-LOC/", "Data/CLS-LOC/"])
def test_imagenet_tree(make_folder, prefix):
    root = make_folder({f"{prefix}{part}/{n}": 1 for part in ("train", "val") for n in ("n1", "n2", "n3")})
    found = listed(source="imagenet", path=str(root), wordnet_ids=IDS)
    assert [(part, label) for _, part, label in found] == [
        ("train", "jellyfish"), ("validation", "jellyfish"), ("train", "penguin"), ("validation", "penguin"),
    ]  # fmt: skip
    assert not any("n3" in name for name, _, _ in found)


def test_imagenet_with_the_flat_validation_folder_of_the_download(make_folder):
    root = make_folder({"train/n1": 2, "train/n2": 2, "val": 3})
    found = listed(source="imagenet", path=str(root), wordnet_ids=IDS)
    assert [(part, label) for _, part, label in found] == [("train", "jellyfish")] * 2 + [
        ("train", "penguin")
    ] * 2


def test_imagenet_class_that_is_not_there_is_named(make_folder):
    root = make_folder({"train/n1": 1})
    with pytest.raises(ImageError, match=r"train/n2: no images of penguin; unpack"):
        listed(source="imagenet", path=str(root), wordnet_ids=IDS)


def test_imagenet_without_ids(make_folder):
    with pytest.raises(ConfigError, match=r"`images\.wordnet_ids` should map.*--preset poster-imagenet"):
        listed(source="imagenet", path=str(make_folder({"train/n1": 1})))


class FakeSplit:
    """The part of `datasets.Dataset` that is used."""

    _fingerprint = "f1"

    def __init__(self, labels, names=("a", "b")):
        number = SimpleNamespace(int2str=lambda value: names[value]) if names else SimpleNamespace()
        self.features = {"image": None, "label": number}
        self.labels = labels

    def __getitem__(self, key):
        if key == "label":
            return self.labels
        generator = np.random.default_rng([key, len(self.labels)])
        return {
            "image": {
                "bytes": pillow(generator.integers(0, 256, (20, 20, 3), dtype=np.uint8), "PNG"),
                "path": None,
            }
        }

    def cast_column(self, column, feature):
        assert (column, feature) == ("image", {"decode": False})
        return self


@pytest.fixture
def hub(monkeypatch):
    """Replace the hub by one that holds the given dataset."""

    def upload(**splits):
        monkeypatch.setitem(
            sys.modules, "datasets", SimpleNamespace(load_dataset=lambda _: splits, Image=dict)
        )

    return upload


def test_huggingface_dataset_with_a_test_split(hub, tmp_path):
    hub(test=FakeSplit([1, 0]), train=FakeSplit([0, 1, 0, 1, 1]))
    settings = {"source": "huggingface", "path": "some/set"}
    assert [split for _, split, _ in listed(**settings)] == ["train"] * 5 + ["test"] * 2
    prepared = prepare(Images(size_px=16, min_per_class=1, **settings), tmp_path / "out")
    assert np.unique(prepared.split, return_counts=True)[1].tolist() == [2, 3, 2]
    assert prepared.reporting_split == "test"


def test_huggingface_dataset(hub, tmp_path):
    hub(train=FakeSplit([0, 1, -1, None, 1]), validation=FakeSplit([1, 0]))
    settings = {"source": "huggingface", "path": "some/set"}
    assert [(part, label) for _, part, label in listed(**settings)] == [
        ("train", "a"), ("train", "b"), ("train", None), ("train", None), ("train", "b"),
        ("validation", "b"), ("validation", "a"),
    ]  # fmt: skip
    prepared = prepare(Images(size_px=16, min_per_class=1, **settings), tmp_path / "out")
    assert prepared.label.tolist() == [0, 1, -1, -1, 1, 1, 0]


def test_huggingface_images_without_a_label_train_only(hub, tmp_path):
    hub(train=FakeSplit([0, 1, 0, 1, 0, -1]), test=FakeSplit([-1, -1]))
    settings = {"source": "huggingface", "path": "some/set"}
    items = list_items(Images(**settings))
    assert [each.name for each in items if each.skipped == TRAIN_ONLY] == [
        "test/0000000", "test/0000001"
    ]  # fmt: skip
    prepared = prepare(Images(size_px=16, min_per_class=1, **settings), tmp_path / "out")
    assert prepared.reporting_split == "validation"


def test_huggingface_split_of_another_name_is_told(hub):
    hub(train=FakeSplit([0, 1]), dev=FakeSplit([0, 1]))
    (skipped,) = [each for each in list_items(Images(source="huggingface", path="x")) if each.skipped]
    assert (skipped.name, skipped.skipped[:23]) == ("dev", "split not named train, ")
    hub(all=FakeSplit([0, 1]))
    with pytest.raises(ImageError, match=r"x: no images in its splits, but 1 split not named train, val"):
        list_items(Images(source="huggingface", path="x"))


def test_huggingface_names_of_classes_that_are_text(hub):
    hub(train=FakeSplit(["cat", "dog", None, "", "-1"], names=None))
    labels = [label for _, _, label in listed(source="huggingface", path="x")]
    assert labels == ["cat", "dog", None, None, None]  # the same values mean `no label` in every source


def test_huggingface_damaged_image_is_left_out(hub, tmp_path):
    class Damaged(FakeSplit):
        def __getitem__(self, key):
            if key == 2:
                raise OSError("image file is truncated")
            return super().__getitem__(key)

    hub(train=Damaged([0, 0, 0, 1, 1, 1]), validation=FakeSplit([0, 1]))
    prepared = prepare(Images(source="huggingface", path="x", size_px=16, min_per_class=1), tmp_path / "out")
    assert len(prepared.rgb) == 7


@pytest.mark.parametrize("empty", [None, {"bytes": None, "path": None}, {"bytes": b"", "path": ""}, {}])
def test_huggingface_row_without_an_image_is_left_out(hub, tmp_path, empty):
    class WithEmptyRow(FakeSplit):
        def __getitem__(self, key):
            return {"image": empty} if key == 2 else super().__getitem__(key)

    hub(train=WithEmptyRow([0, 0, 0, 1, 1, 1]), validation=FakeSplit([0, 1]))
    images = Images(source="huggingface", path="x", size_px=16, min_per_class=1)
    with pytest.raises(ImageError, match=r"^unreadable: no image in this row$"):
        HuggingFace(images).load(list_items(images)[2])
    assert len(prepare(images, tmp_path / "out").rgb) == 7


def test_huggingface_extra_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ExtraError, match=r"pip install -e '\.\[huggingface\]'"):
        listed(source="huggingface", path="some/set")


def test_huggingface_column_that_is_not_there(hub):
    hub(train=FakeSplit([0, 1]))
    with pytest.raises(ConfigError, match=r"columns of the dataset: image, label\. Found `photo`"):
        listed(source="huggingface", path="x", image_column="photo")


def test_huggingface_dataset_out_of_reach(monkeypatch):
    def refuse(_):
        raise ConnectionError("offline")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=refuse))
    with pytest.raises(ImageError, match="some/set: the Hugging Face dataset cannot be loaded: offline"):
        listed(source="huggingface", path="some/set")


def test_drawn_classes_take_turns_and_drawing_is_repeatable(tmp_path):
    settings = Images(source="drawn", drawn_count=15, size_px=16, min_per_class=1)
    items = list_items(settings)
    assert [item.label for item in items[:5]] == [item.label for item in items[5:10]]
    assert len({item.label for item in items}) == 5
    first, again = (prepare(settings, tmp_path / name) for name in ("a", "b"))
    assert np.array_equal(first.rgb, again.rgb)
    other = prepare(settings.model_copy(update={"drawn_seed": 1}), tmp_path / "c")
    assert not np.array_equal(first.rgb, other.rgb)


@pytest.mark.parametrize("source", sorted(SOURCES.keys() - {"webdataset", "parquet"}))  # test_archives.py
def test_every_source_lists_in_the_same_order_twice(source, make_folder, hub):
    hub(train=FakeSplit([0, 1]))
    root = make_folder({"train/n1": 2, "train/n2": 2})
    settings = {"source": source, "path": str(root), "wordnet_ids": IDS, "drawn_count": 55}
    assert listed(**settings) == listed(**settings) != []


def test_training_and_colorize_take_the_same_files(tmp_path):
    junk = ["._a.jpg", "__MACOSX/a.jpg", "@eaDir/a.jpg", "#recycle/a.jpg", "Thumbs.db", "notes.txt"]
    names = [f"sea/{name}" for name in junk + [f"{suffix[1:]}{suffix}" for suffix in sorted(SUFFIXES)]]
    for name in [*names, "reef/y.jpg"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "reef" / "link.jpg").symlink_to("../sea/jpg.jpg")
    (tmp_path / "__MACOSX").mkdir()
    coloured = list_folder(tmp_path, tmp_path / "out").items
    trained = {name for name, _, _ in listed(path=str(tmp_path))}
    assert trained == {item.path for item in coloured}
    assert len(trained) == len(SUFFIXES) + 2


@pytest.mark.parametrize("out", ["photos", "photos/out", "photos/cat", "link", "photos/../photos"])
def test_no_study_goes_among_its_images(make_folder, tmp_path, out):
    """The next study would take the folders of this one for classes."""
    photos = make_folder({"cat": 3, "dog": 3})
    (tmp_path / "link").symlink_to(photos)
    before = sorted(tmp_path.rglob("*"))
    images = Images(path=str(photos), size_px=16, min_per_class=1)
    with pytest.raises(
        ConfigError, match=r"among the images of .*photos.*choose a folder elsewhere$"
    ) as error:
        prepare(images, tmp_path / out / "images")
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["images", "heads", "colour", "heads/colour"])
def test_images_do_not_lie_in_a_studys_own_folders(make_folder, tmp_path, name):
    photos = make_folder({"cat": 3, "dog": 3}, root=name)
    with pytest.raises(ConfigError, match="among the images"):
        require_apart(Images(path=str(photos)), tmp_path)


@pytest.mark.parametrize("out", [".", "photos-2", "runs/photos"])
def test_a_study_beside_or_around_its_images_is_fine(make_folder, tmp_path, out):
    photos = make_folder({"cat": 3, "dog": 3})
    require_apart(Images(path=str(photos)), tmp_path / out)
    require_apart(Images(source="huggingface", path="images"), tmp_path)
    require_apart(Images(source="drawn"), tmp_path)


def test_a_study_is_refused_before_work(make_folder, tiny, monkeypatch):
    photos = make_folder({"cat": 3, "dog": 3})
    monkeypatch.setattr("knowhue.training.run.build_model", None)
    config = tiny(images__source="folder", images__drawn_count=1500, images__path=str(photos))
    with pytest.raises(ConfigError, match="among the images"):
        run_study(make_plan(config, ["class"]), photos)
    assert sorted(path.name for path in photos.iterdir()) == ["cat", "dog"]
