"""Where pictures come from: each source's labels, parts, order, and what it says when something is missing."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from knowhue.config import Pictures
from knowhue.data.prepare import prepare
from knowhue.data.sources import SOURCES, list_items
from knowhue.errors import ConfigError, PictureError


def listed(**settings):
    return [(item.name, item.part, item.label) for item in list_items(Pictures(**settings))]


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_train_and_validation_folders(make_folder, validation):
    root = make_folder(
        {"train/b": 1, "train/a": 1, f"{validation}/a": 1, "train/unlabelled": 1, "unlabelled": 1}
    )
    assert listed(path=str(root)) == [
        ("train/a/00.png", "train", "a"),
        ("train/b/00.png", "train", "b"),
        (f"{validation}/a/00.png", "validation", "a"),
        ("unlabelled/00.png", "train", None),
        ("train/unlabelled/00.png", "train", None),
    ]


def test_training_folder_alone_is_split_later(make_folder):
    root = make_folder({"train/a": 1, "train/b": 1})
    assert {part for _, part, _ in listed(path=str(root))} == {None}


def test_flat_classes_with_folders_inside(make_folder):
    root = make_folder({"a/2024": 1, "a/2025": 1, "b": 1, ".thumbnails": 3})
    assert listed(path=str(root)) == [
        ("a/2024/00.png", None, "a"),
        ("a/2025/00.png", None, "a"),
        ("b/00.png", None, "b"),
    ]


def test_stamp_changes_with_the_file(make_folder):
    root = make_folder({"a": 1})
    before = list_items(Pictures(path=str(root)))[0].stamp
    Image.new("RGB", (50, 50)).save(root / "a" / "00.png")
    assert list_items(Pictures(path=str(root)))[0].stamp != before


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
    assert [(part, label) for _, part, label in found] == [(None, "jellyfish")] * 2 + [(None, "penguin")] * 2


def test_imagenet_class_that_is_not_there_is_named(make_folder):
    root = make_folder({"train/n1": 1})
    with pytest.raises(
        PictureError, match=r"train/n2` should hold the pictures of penguin\. Found none\. Unpack"
    ):
        listed(source="imagenet", path=str(root), wordnet_ids=IDS)


def test_imagenet_without_ids(make_folder):
    with pytest.raises(ConfigError, match=r"`pictures\.wordnet_ids` should map.*--preset poster-imagenet"):
        listed(source="imagenet", path=str(make_folder({"train/n1": 1})))


class FakeSplit:
    """As much of `datasets.Dataset` as is used."""

    _fingerprint = "f1"

    def __init__(self, labels, names=("a", "b")):
        number = SimpleNamespace(int2str=lambda value: names[value]) if names else SimpleNamespace()
        self.features = {"image": None, "label": number}
        self.labels = labels

    def __getitem__(self, key):
        if key == "label":
            return self.labels
        generator = np.random.default_rng([key, len(self.labels)])
        return {"image": Image.fromarray(generator.integers(0, 256, (20, 20, 3), dtype=np.uint8))}


@pytest.fixture
def hub(monkeypatch):
    """Put a dataset on a hub that is not there."""

    def upload(**splits):
        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda _: splits))

    return upload


@pytest.mark.parametrize("validation", ["validation", "test"])
def test_huggingface_dataset(hub, validation, tmp_path):
    hub(**{"train": FakeSplit([0, 1, -1, None, 1]), validation: FakeSplit([1, 0])})
    settings = {"source": "huggingface", "path": "some/set"}
    assert [(part, label) for _, part, label in listed(**settings)] == [
        ("train", "a"), ("train", "b"), ("train", None), ("train", None), ("train", "b"),
        ("validation", "b"), ("validation", "a"),
    ]  # fmt: skip
    prepared = prepare(Pictures(size_px=16, min_per_class=1, **settings), tmp_path)
    assert prepared.label.tolist() == [0, 1, -1, -1, 1, 1, 0]


def test_huggingface_names_of_classes_that_are_text(hub):
    hub(train=FakeSplit(["cat", "dog", None], names=None))
    assert [label for _, _, label in listed(source="huggingface", path="x")] == ["cat", "dog", None]


def test_huggingface_damaged_picture_is_left_out(hub, tmp_path):
    class Damaged(FakeSplit):
        def __getitem__(self, key):
            if key == 2:
                raise OSError("image file is truncated")
            return super().__getitem__(key)

    hub(train=Damaged([0, 0, 0, 1, 1, 1]), validation=FakeSplit([0, 1]))
    prepared = prepare(Pictures(source="huggingface", path="x", size_px=16, min_per_class=1), tmp_path)
    assert len(prepared.rgb) == 7


def test_huggingface_extra_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'knowhue\[huggingface\]'"):
        listed(source="huggingface", path="some/set")


def test_huggingface_column_that_is_not_there(hub):
    hub(train=FakeSplit([0, 1]))
    with pytest.raises(ConfigError, match=r"columns of the dataset: image, label\. Found `photo`"):
        listed(source="huggingface", path="x", image_column="photo")


def test_huggingface_dataset_out_of_reach(monkeypatch):
    def refuse(_):
        raise ConnectionError("offline")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=refuse))
    with pytest.raises(PictureError, match=r"`some/set` should be a Hugging Face dataset.*offline"):
        listed(source="huggingface", path="some/set")


def test_drawn_classes_take_turns_and_drawing_is_repeatable(tmp_path):
    settings = Pictures(source="drawn", drawn_count=15, size_px=16, min_per_class=1)
    items = list_items(settings)
    assert [item.label for item in items[:5]] == [item.label for item in items[5:10]]
    assert len({item.label for item in items}) == 5
    first, again = (prepare(settings, tmp_path / name) for name in ("a", "b"))
    assert np.array_equal(first.rgb, again.rgb)
    other = prepare(settings.model_copy(update={"drawn_seed": 1}), tmp_path / "c")
    assert not np.array_equal(first.rgb, other.rgb)


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_lists_in_the_same_order_twice(source, make_folder, hub):
    hub(train=FakeSplit([0, 1]))
    root = make_folder({"train/n1": 2, "train/n2": 2})
    settings = {"source": source, "path": str(root), "wordnet_ids": IDS, "drawn_count": 4}
    assert listed(**settings) == listed(**settings) != []
