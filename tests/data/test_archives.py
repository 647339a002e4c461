"""Tars and parquet files give the same images, labels, splits, order and errors as folders."""

import gzip
import io
import json
import os
import shutil
import sys
import tarfile
from collections import Counter
from decimal import Decimal

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from knowhue.config import Images
from knowhue.data.archives import archives
from knowhue.data.drawn import draw
from knowhue.data.listing import list_items, open_listing
from knowhue.data.prepare import MANIFEST, kept_rows, prepare
from knowhue.errors import ConfigError, ExtraError, ImageError
from knowhue.storage import read_csv

CLASSES = ("cat", "dog")
SPLITS = {"train": "train", "val": "validation", "test": "test"}


def files_of(root, split):
    """The images of a split in the order of their names, and their classes."""
    paths = sorted((root / split).rglob("*.*"))
    return [(path, None if path.parent.name == "unlabelled" else path.parent.name) for path in paths]


def as_tars(root, out, label="cls", a_tar=5):
    """WebDataset's layout, `a_tar` samples per tar."""
    for split in SPLITS:
        samples = files_of(root, split)
        for first in range(0, len(samples), a_tar):
            (out / split).mkdir(parents=True, exist_ok=True)
            with tarfile.open(out / split / f"{first:05d}.tar", "w") as tar:
                for number, (path, name) in enumerate(samples[first : first + a_tar], first):
                    if label == "path":
                        put(tar, f"{number:05d}/{name or 'unlabelled'}/0{path.suffix}", path.read_bytes())
                        continue
                    put(tar, f"{number:05d}{path.suffix}", path.read_bytes())
                    text = (name or "-1") if label == "cls" else json.dumps({"label": name, "caption": "x"})
                    put(tar, f"{number:05d}.{label}", text.encode())
    return out


def put(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def as_parquet(root, out, kind="number", group=4):
    """Hugging Face's layout: an image column of structs, labels as numbers with names in the metadata, or as text."""
    out.mkdir()
    for split in SPLITS:
        samples = files_of(root, split)
        images = [{"bytes": path.read_bytes(), "path": path.name} for path, _ in samples]
        labels = [name for _, name in samples]
        feature = {"_type": "ClassLabel", "names": list(CLASSES)}
        metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
        if kind == "number":
            labels = [-1 if name is None else CLASSES.index(name) for name in labels]
        table = pyarrow.table({"image": images, "label": labels})
        table = table.replace_schema_metadata(metadata if kind == "number" else None)
        parquet.write_table(table, out / f"{split}-00000-of-00001.parquet", row_group_size=group)
    return out


@pytest.fixture
def photos(make_folder):
    """Also with images that folders leave out: a damaged file, a near-gray image, a copy and a near-duplicate."""
    root = make_folder(
        {f"{split}/{name}": 4 for split in SPLITS for name in CLASSES} | {"train/unlabelled": 3}
    )
    (root / "train/cat/02.png").write_bytes(b"no image")
    Image.new("RGB", (20, 20), (90, 91, 90)).save(root / "train/dog/gray.png")
    shutil.copy(root / "test/dog/00.png", root / "train/cat/copy.png")
    scene = Image.fromarray(draw(0, 0, 90, class_colour=1.0, seed=0))
    scene.save(root / "val/dog/scene.png")
    scene.resize((60, 60)).save(root / "train/cat/scene.jpg", quality=60)
    return root


def settings(path, source):
    return Images(source=source, path=str(path), size_px=32, min_per_class=1)


WRITERS = {
    "tars, class in .cls": ("webdataset", as_tars, {}),
    "tars, class in .json": ("webdataset", as_tars, {"label": "json"}),
    "tars, class as folder": ("webdataset", as_tars, {"label": "path"}),
    "tars of one sample": ("webdataset", as_tars, {"a_tar": 1}),
    "parquet, classes by number": ("parquet", as_parquet, {}),
    "parquet, classes by name": ("parquet", as_parquet, {"kind": "text"}),
    "parquet, one group of rows": ("parquet", as_parquet, {"group": 1000}),
}


@pytest.mark.parametrize(("source", "write", "options"), WRITERS.values(), ids=WRITERS)
def test_the_same_images_give_the_same_arrays(photos, tmp_path, source, write, options):
    expected = prepare(settings(photos, "folder"), tmp_path / "a")
    found = prepare(settings(write(photos, tmp_path / "packed", **options), source), tmp_path / "b")
    assert np.array_equal(found.rgb, expected.rgb)
    assert np.array_equal(found.label, expected.label)
    assert np.array_equal(found.split, expected.split)
    assert found.classes == expected.classes == CLASSES
    assert found.fingerprint == expected.fingerprint
    kinds = [
        sorted(
            row["reason"].partition(" of ")[0]
            for row in read_csv(tmp_path / name / MANIFEST)
            if row["reason"]
        )
        for name in "ab"
    ]
    assert kinds[0] == kinds[1]
    assert len(kinds[0]) == 4
    assert [row["source_sha256"] for row in kept_rows(tmp_path / "a")] == [
        row["source_sha256"] for row in kept_rows(tmp_path / "b")
    ]


@pytest.mark.parametrize("source", ["webdataset", "parquet"])
def test_one_file_is_a_source_and_its_splits_are_drawn(photos, tmp_path, source):
    packed = (
        as_tars(photos, tmp_path / "p", a_tar=99)
        if source == "webdataset"
        else as_parquet(photos, tmp_path / "p")
    )
    (path,) = [
        path for path in packed.rglob("*.*") if path.relative_to(packed).as_posix().startswith("train")
    ]
    prepared = prepare(settings(path, source), tmp_path / "out")
    assert set(prepared.split) == {"train", "validation"}


def test_splits_by_folder_or_first_word(tmp_path):
    expected = {
        "a-0.tar": "train", "train-0.tar": "train", "val-000001.tar": "validation", "Test_3.tar": "test",
        "data/validation.0.tar": "validation", "test/val-0.tar": "test", "set/trainers.tar": "train",
    }  # fmt: skip
    for name in expected:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "readme.md").touch()
    (tmp_path / ".hidden.tar").touch()
    found = list(archives(tmp_path, ".tar"))
    assert {each.name: each.split for each in found if not each.skipped} == expected
    assert {each.name: each.skipped for each in found if each.skipped} == {
        "readme.md": "of another type (.md)", ".hidden.tar": "hidden",
    }  # fmt: skip


def test_samples_of_a_tar(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in {
            "sea/1.jpg": b"x", "sea/1.mask.png": b"x", "sea/1.txt": b"a caption",
            "sea/2.txt": b"no image", "._3.jpg": b"x",
            "land/1.JPG": b"x", "land/1.json": b'{"caption": "no label"}',
            "land/2.webp": b"x", "land/2.cls": b" \n", "../sets/../land/3.jpg": b"x", "../4.jpg": b"x",
        }.items():  # fmt: skip
            put(tar, name, content)
    found = list_items(settings(tmp_path, "webdataset"))
    assert [(item.name, item.label, item.skipped) for item in found] == [
        ("a.tar/land/1.JPG", "land", ""),
        ("a.tar/land/3.jpg", "land", ""),
        ("a.tar/sea/1.jpg", "sea", ""),
        ("a.tar/4.jpg", None, ""),
        ("a.tar/land/2.webp", None, ""),
        ("a.tar/._3.jpg", None, "hidden"),
        ("a.tar/sea/2.txt", None, "in a sample without an image"),
    ]


def test_a_tar_of_a_whole_set_has_its_splits_within_it(photos, tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(photos, "photos")
    packed, lying = (
        list_items(settings(tmp_path / "photos.tar", "webdataset")),
        list_items(Images(path=str(photos))),
    )
    found, expected = (
        [(each.split, each.label) for each in items if not each.skipped] for items in (packed, lying)
    )
    assert Counter(found) == Counter(expected)


@pytest.mark.parametrize("beside", [[], ["1.cls"]])
def test_a_folder_of_a_split_is_no_class(tmp_path, beside):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("train/1.jpg", *(f"train/{each}" for each in beside), "val/2.jpg", "val/2.cls"):
            put(tar, name, b"sea")
    found = {each.split: each.label for each in list_items(settings(tmp_path, "webdataset"))}
    assert found == {"train": "sea" if beside else None, "validation": "sea"}


def test_splits_within_a_class_of_a_tar_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("photos/Val/1.jpg", "photos/Val/1.cls", "cat/train/2.jpg"):
            put(tar, name, b"sea")
    with pytest.raises(
        ImageError, match=r"cat/train/2\.jpg lies in train/, which names a split; put .*train/cat/"
    ):
        list_items(settings(tmp_path, "webdataset"))


def labels_of(folder, labels, metadata=None):
    """The classes listed for a Parquet file with these labels."""
    table = pyarrow.table({"image": [b"x"] * len(labels), "label": labels}).replace_schema_metadata(metadata)
    parquet.write_table(table, folder / "a.parquet")
    listed = {each.name: each.label for each in list_items(settings(folder, "parquet"))}
    return [listed[name] for name in sorted(listed)]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([1.0, -1.0, float("nan"), 2.0, None], ["1", None, None, "2", None]),
        ([b"cat", b"", b"-1"], ["cat", None, None]),
        (["cat", "unlabelled", "1.0"], ["cat", None, "1.0"]),
        ([True, False], ["True", "False"]),
        ([Decimal("1.00"), Decimal("-1.00")], ["1", None]),
    ],
)
def test_a_label_is_the_same_however_it_is_stored(tmp_path, labels, classes):
    assert labels_of(tmp_path, labels) == classes


def test_labels_that_are_no_class_are_refused(tmp_path):
    with pytest.raises(
        ImageError, match=r"A label should be the name of a class, .* Found `\['cat', 'dog'\]`"
    ):
        labels_of(tmp_path, [["cat", "dog"], ["cat"]])
    with pytest.raises(
        ImageError, match=r"or a whole number\. Found `0\.73`\. .* --set images\.label_column="
    ):
        labels_of(tmp_path, [0.73, 1.0])
    with pytest.raises(ImageError, match=r"or a whole number\. Found `2\.5`"):
        labels_of(tmp_path, [Decimal("2.5"), Decimal(1)])
    names = {"huggingface": json.dumps({"info": {"features": {"label": {"names": list(CLASSES)}}}})}
    with pytest.raises(ImageError, match=r"should be the number of a class, below 2.* Found `2`"):
        labels_of(tmp_path, [0, 2], names)
    with pytest.raises(
        ImageError, match=r"below 2.* Found `9{80}\.\.\.`"
    ):  # Python refuses to parse such a number
        labels_of(tmp_path, ["0", "9" * 5000], names)


@pytest.mark.parametrize(
    "described",
    [
        "",
        "no JSON",
        pytest.param("[" * 100_000, id="deep"),
        "[]",
        '{"info": null}',
        '{"info": {"features": {"label": [{"names": ["x"]}]}}}',
        '{"info": {"features": {"label": {"names": "xy"}}}}',
    ],
)
def test_metadata_that_names_no_classes_says_nothing(tmp_path, described):
    assert labels_of(tmp_path, [0, 1], {"huggingface": described}) == ["0", "1"]


@pytest.mark.parametrize("images", [["a.png"], [[1, 2]], [[b"x"]], [{"path": "a.png"}], [1]])
def test_a_column_that_holds_no_files_is_refused(tmp_path, images):
    parquet.write_table(pyarrow.table({"image": images, "label": ["cat"]}), tmp_path / "a.parquet")
    with pytest.raises(
        ConfigError, match=r"should name a column with the bytes of image files.* Found `image` of"
    ):
        list_items(settings(tmp_path, "parquet"))


def test_a_column_of_splits_is_followed(tmp_path):
    table = {"image": [b"x"] * 4, "label": [*"abab"], "split": ["train", "Val", "test", None]}
    as_bytes = [b"train", b"Val", b"test", b""]
    for splits in (table["split"], as_bytes, pyarrow.array(table["split"]).dictionary_encode()):
        parquet.write_table(pyarrow.table(table | {"split": splits}), tmp_path / "train.parquet")
        found = list_items(settings(tmp_path, "parquet"))
        assert Counter(item.split for item in found) == {"train": 2, "validation": 1, "test": 1}
    parquet.write_table(pyarrow.table({**table, "split": ["x"] * 4}), tmp_path / "train.parquet")
    with pytest.raises(ImageError, match=r"A column `split` should name splits: train, val.* Found `x`"):
        list_items(settings(tmp_path, "parquet"))


def test_a_further_image_of_a_sample_is_told(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("sea/1.jpg", "sea/1.png", "sea/2.png"):
            put(tar, name, b"x")
    found = {item.name: item.skipped for item in list_items(settings(tmp_path, "webdataset"))}
    assert found == {
        "a.tar/sea/1.jpg": "", "a.tar/sea/2.png": "", "a.tar/sea/1.png": "after the first image of a sample",
    }  # fmt: skip


def test_files_of_a_tar_that_differ_in_case_are_both_named(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("sea/1.jpg", "sea/1.JPG"):
            put(tar, name, b"x")
    said = (
        r"a\.tar/sea/1\.JPG: is in its archive twice \(as sea/1\.jpg\), .*; write the archive again, with one"
    )
    with pytest.raises(ImageError, match=said):
        list_items(settings(tmp_path, "webdataset"))


@pytest.mark.parametrize(
    ("names", "twice"),
    [
        (("1.jpg", "2.jpg", "1.jpg"), "a.tar/1.jpg"),
        (("1.jpg", "1.jpg"), "a.tar/1.jpg"),
        (("1.jpg", "1.cls", "1.cls"), "a.tar/1.cls"),
    ],
)
def test_a_file_that_was_added_to_a_tar_again_is_refused(tmp_path, names, twice):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in names:
            put(tar, name, b"x")
    said = pytest.raises(ImageError, match=f"{twice}: is in its archive twice")
    with said, open_listing(settings(tmp_path, "webdataset")):
        pytest.fail("it was listed")


@pytest.mark.parametrize(
    "names", [("1.jpg", "2.jpg", "1.cls", "2.cls"), ("1.jpg", "2.json", "1.cls", "2.jpg")]
)
def test_a_label_that_does_not_lie_beside_its_image_is_refused(tmp_path, names):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in names:
            put(tar, name, b'"sea"')
    with pytest.raises(
        ImageError, match=r"a\.tar: the label of [12]\.jpg is not next to it.* tar --sort=name"
    ):
        list_items(settings(tmp_path, "webdataset"))


@pytest.mark.parametrize(
    ("kind", "name"),
    [(tarfile.LNKTYPE, "2.cls"), (tarfile.SYMTYPE, "2.jpg"), (tarfile.GNUTYPE_SPARSE, "2.jpg")],
)
def test_a_link_in_the_place_of_an_image_or_a_label_is_refused(tmp_path, kind, name):
    """Its label would be lost silently; links that do not belong to a sample are skipped."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        put(tar, "1.jpg", b"x")
        for each in ("readme.txt", name):
            member = tarfile.TarInfo(each)
            member.type, member.linkname = kind, "1.jpg"
            tar.addfile(member)
    with pytest.raises(ImageError, match=rf"a\.tar: {name} is a link or sparse.* tar --dereference"):
        list_items(settings(tmp_path, "webdataset"))


def test_a_folder_whose_name_ends_as_an_image_does_is_none(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("cat.jpg")
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
        put(tar, "cat.jpg/1.png", b"x")
    assert [item.name for item in list_items(settings(tmp_path, "webdataset"))] == ["a.tar/cat.jpg/1.png"]


@pytest.mark.parametrize("spoil", ["cut", "compressed", "no tar"])
def test_a_damaged_tar_is_one_line_that_names_it(photos, tmp_path, spoil):
    path = next(as_tars(photos, tmp_path / "packed").rglob("*.tar"))
    content = path.read_bytes()
    spoilt = {
        "cut": content[: len(content) // 2],
        "no tar": b"x" * 2048,
        "compressed": gzip.compress(content),
    }
    path.write_bytes(spoilt[spoil])
    message = r"it is compressed, damaged or cut short \(.*\); decompress it to a plain \.tar, .*, or copy it again$"
    with pytest.raises(ImageError, match=f"{path.name}: {message}") as raised:
        list_items(settings(tmp_path / "packed", "webdataset"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("described", [b"{", b"[" * 200_000], ids=["cut", "deep"])
def test_a_label_that_is_no_json_is_named(tmp_path, described):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        put(tar, "1.jpg", b"x")
        put(tar, "1.json", described)
    with pytest.raises(ImageError, match=r"a\.tar: 1\.json is not JSON"):
        list_items(settings(tmp_path, "webdataset"))


@pytest.mark.parametrize(("source", "suffix"), [("webdataset", ".tar"), ("parquet", ".parquet")])
@pytest.mark.parametrize("make", [lambda path: path.symlink_to("nowhere"), os.mkfifo], ids=["link", "pipe"])
def test_a_broken_link_and_a_pipe_are_refused_by_name(tmp_path, source, suffix, make):
    make(tmp_path / f"a{suffix}")
    with pytest.raises(ImageError, match=rf"a{suffix}: it is a device, a pipe or a broken link; save it"):
        list_items(settings(tmp_path, source))


def test_damaged_parquet_is_one_line_that_names_it(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ImageError, match=r"a\.parquet: it is damaged or not Parquet") as raised:
        list_items(settings(tmp_path, "parquet"))
    assert "\n" not in str(raised.value)


def test_a_row_without_an_image_and_pages_that_are_damaged_are_left_out(photos, tmp_path):
    path = as_parquet(photos, tmp_path / "packed") / "train-00000-of-00001.parquet"
    table = parquet.read_table(path)
    images = table["image"].to_pylist()
    images[0] = None
    images[1] = {"bytes": None, "path": "elsewhere.png"}
    parquet.write_table(table.set_column(0, "image", [images]), path, row_group_size=4, use_dictionary=False)
    with parquet.ParquetFile(path) as file:
        column = file.metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    prepare(settings(tmp_path / "packed", "parquet"), tmp_path / "out")
    rows = {row["path"]: row["reason"] for row in read_csv(tmp_path / "out" / MANIFEST)}
    reasons = [rows[f"{path.name}/{row:07d}"] for row in range(8)]
    assert reasons[:2] == ["unreadable: no image in this row"] * 2
    assert all(reason.startswith("unreadable: ") for reason in reasons[4:])
    assert not rows[f"{path.name}/0000009"]


def test_a_column_that_is_not_there_and_a_package_that_is_missing(photos, tmp_path, monkeypatch):
    as_parquet(photos, tmp_path / "packed")
    images = settings(tmp_path / "packed", "parquet")
    with pytest.raises(ConfigError, match=r"columns of the dataset: image, label\. Found `photo`"):
        list_items(images.model_copy(update={"image_column": "photo"}))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ExtraError, match=r"`images\.source: parquet` needs `pyarrow`.*pip install -e '\.\[parquet\]'"
    ):
        list_items(images)


@pytest.mark.parametrize("source", ["webdataset", "parquet"])
def test_a_folder_without_such_files_says_what_was_looked_for(make_folder, source):
    suffix = {"webdataset": ".tar", "parquet": ".parquet"}[source]
    with pytest.raises(
        ImageError, match=rf"no images in its {suffix} files, but 2 of another type \(\.png\); check the path"
    ):
        list_items(settings(make_folder({"a": 1, "b": 1}), source))
