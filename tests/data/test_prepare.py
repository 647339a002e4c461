"""Pictures are read, checked, split and resized once; what is left out is named."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps

from knowhue.config import Pictures
from knowhue.data import prepare as module
from knowhue.data.checks import checksum
from knowhue.data.drawn import draw
from knowhue.data.prepare import COLUMNS, load_prepared, prepare
from knowhue.errors import ConfigError, PictureError, RunError
from knowhue.storage import read_json


def rules(path=None, **changes):
    return Pictures(**{"path": path and str(path), "size_px": 16, "min_per_class": 1} | changes)


def manifest(folder):
    with (folder / "manifest.csv").open(newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


@pytest.fixture
def photos(make_folder):
    return make_folder({"cat": 10, "dog": 5})


def test_flat_folders_are_split_by_class(photos, tmp_path):
    prepared = prepare(rules(photos), tmp_path / "out")
    assert prepared.classes == ("cat", "dog")
    assert prepared.rgb.shape == (15, 16, 16, 3)
    assert prepared.rgb.dtype == np.uint8
    assert np.bincount(prepared.label[prepared.is_train]).tolist() == [8, 4]
    assert np.bincount(prepared.label[~prepared.is_train]).tolist() == [2, 1]
    labels = [prepared.classes[n] for n in prepared.label]
    assert [path.split("/")[0] for path in prepared.paths] == labels


def test_manifest_and_summary_agree_with_the_array(photos, tmp_path):
    prepared = prepare(rules(photos), tmp_path / "out")
    rows = manifest(tmp_path / "out")
    assert tuple(next(iter(rows.values()))) == COLUMNS
    for row in rows.values():
        assert checksum(prepared.rgb[int(row["index"])]) == row["sha256"]
        assert (row["width"], row["height"]) == ("24", "24")
    summary = read_json(tmp_path / "out" / "prepared.json")
    assert summary["counts"]["train"] == {"cat": 8, "dog": 4, "unlabelled": 0}


def test_split_belongs_to_its_seed(photos, tmp_path):
    first, again = (prepare(rules(photos), tmp_path / name).is_train for name in ("a", "b"))
    assert np.array_equal(first, again)
    other = prepare(rules(photos, split_seed=1), tmp_path / "c").is_train
    assert not np.array_equal(first, other)


def test_damaged_picture_does_not_shift_the_split(photos, tmp_path):
    before = prepare(rules(photos), tmp_path / "a")
    gone = before.paths[0]
    (photos / gone).write_bytes(b"no picture")
    after = prepare(rules(photos), tmp_path / "b")
    part = dict(zip(before.paths, before.is_train, strict=True))
    assert dict(zip(after.paths, after.is_train, strict=True)) == {k: v for k, v in part.items() if k != gone}


def test_text_named_jpg_is_named_in_the_manifest(photos, tmp_path):
    (photos / "cat" / "text.jpg").write_text("hello")
    (photos / "cat" / "notes.txt").write_text("not looked at")
    prepared = prepare(rules(photos), tmp_path / "out")
    row = manifest(tmp_path / "out")["cat/text.jpg"]
    assert (row["status"], row["index"]) == ("left out", "")
    assert row["reason"].startswith("unreadable: cannot identify")
    assert len(prepared.rgb) == 15
    assert [left["path"] for left in read_json(tmp_path / "out" / "prepared.json")["left_out"]] == [
        "cat/text.jpg"
    ]


def test_near_gray_picture_is_left_out_and_named(photos, tmp_path):
    Image.new("RGB", (20, 20), (90, 91, 90)).save(photos / "dog" / "gray.png")
    prepare(rules(photos), tmp_path / "out")
    reason = manifest(tmp_path / "out")["dog/gray.png"]["reason"]
    assert reason.startswith("near-gray: colourfulness ")
    assert "is below 4" in reason
    kept = prepare(rules(photos, min_colourfulness=0), tmp_path / "out")
    assert len(kept.rgb) == 16


def test_duplicate_across_parts_leaves_the_training_copy_out(make_folder, tmp_path):
    root = make_folder({"train/cat": 3, "val/cat": 1, "train/dog": 3, "val/dog": 1})
    shutil.copy(root / "val/dog/00.png", root / "train/cat/copy.png")
    Image.open(root / "val/dog/00.png").save(root / "train/dog/another_format.bmp")
    prepared = prepare(rules(root), tmp_path / "out")
    rows = manifest(tmp_path / "out")
    for name in ("train/cat/copy.png", "train/dog/another_format.bmp"):
        assert rows[name]["reason"] == "duplicate of val/dog/00.png (validation)"
    assert len(prepared.rgb) == 8


def test_near_duplicate_across_parts_leaves_the_training_copy_out(make_folder, tmp_path):
    root = make_folder({"train/cat": 3, "val/cat": 1, "train/dog": 3, "val/dog": 1})
    scene = Image.fromarray(draw(0, 0, 90, class_colour=1.0, seed=0))
    scene.save(root / "val/dog/scene.png")
    ImageOps.mirror(scene).resize((60, 60)).save(root / "train/cat/scene.jpg", quality=50)
    prepared = prepare(rules(root, size_px=32), tmp_path / "a")
    row = manifest(tmp_path / "a")["train/cat/scene.jpg"]
    assert (row["status"], row["reason"]) == ("left out", "near-duplicate of val/dog/scene.png (validation)")
    assert "val/dog/scene.png" in prepared.paths
    only_equal = prepare(rules(root, size_px=32, duplicate_distance_bits=0), tmp_path / "b")
    assert len(only_equal.rgb) == len(prepared.rgb) + 1 == 10


def test_unlabelled_pictures_train_only(make_folder, tmp_path):
    root = make_folder({"cat": 5, "dog": 5, "unlabelled": 4})
    prepared = prepare(rules(root), tmp_path / "out")
    assert prepared.classes == ("cat", "dog")
    assert prepared.is_train[prepared.label == -1].tolist() == [True] * 4
    assert read_json(tmp_path / "out" / "prepared.json")["counts"]["train"]["unlabelled"] == 4


def test_labelled_copy_of_an_unlabelled_picture_stays(make_folder, tmp_path):
    root = make_folder({"train/cat": 3, "val/cat": 1, "train/dog": 3, "val/dog": 1, "unlabelled": 2})
    shutil.copy(root / "train/cat/00.png", root / "unlabelled/copy.png")
    assert "train/cat/00.png" in prepare(rules(root), tmp_path / "out").paths


def test_second_call_reads_no_picture(photos, tmp_path, monkeypatch):
    first = prepare(rules(photos), tmp_path / "out")
    monkeypatch.setattr(module, "_read_all", None)
    second = prepare(rules(photos), tmp_path / "out")
    assert second.fingerprint == first.fingerprint
    assert np.array_equal(second.rgb, first.rgb)


@pytest.mark.parametrize("change", ["picture", "size", "share", "new"])
def test_what_changed_is_read_again(photos, tmp_path, change):
    first = prepare(rules(photos), tmp_path / "out")
    if change == "picture":
        Image.effect_noise((30, 30), 90).convert("RGB").save(photos / "cat" / "00.png")
    elif change == "new":
        Image.new("RGB", (30, 30), (200, 10, 10)).save(photos / "dog" / "new.png")
    changes = {"size": {"size_px": 24}, "share": {"validation_share": 0.4}}.get(change, {})
    second = prepare(rules(photos, **changes), tmp_path / "out")
    assert second.fingerprint != first.fingerprint


def test_interrupted_preparation_is_never_taken_for_the_old_one(photos, tmp_path, monkeypatch):
    first = prepare(rules(photos), tmp_path / "out")
    expected = first.rgb.copy()
    Image.new("RGB", (30, 30), (200, 10, 10)).save(photos / "cat" / "new.png")
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", None)  # stops at the last of the three files
        with pytest.raises(TypeError):
            prepare(rules(photos), tmp_path / "out")
    (photos / "cat" / "new.png").unlink()
    assert np.array_equal(prepare(rules(photos), tmp_path / "out").rgb, expected)


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ({"cat": 10}, {}, r"at least 2 classes.*Found 1: cat.*Put them into <class>/ folders"),
        ({"unlabelled": 10}, {}, r"at least 2 classes.*Found 0: none"),
        ({}, {}, r"should hold pictures as <class>/\*\.jpg.*Found none.*--preset demo"),
        (
            {"cat": 10, "dog": 3},
            {"min_per_class": 4},
            r"at least 4 usable train pictures\. Found dog 2\. Add",
        ),
        (
            {"train/cat": 2, "train/dog": 2, "val/cat": 1},
            {},
            r"at least 1 usable validation pictures\. Found dog 0",
        ),
    ],
)
def test_too_little_says_how_to_mend_it(make_folder, tmp_path, layout, changes, message):
    root = make_folder(layout)
    root.mkdir(exist_ok=True)
    with pytest.raises(PictureError, match=message):
        prepare(rules(root, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_little_after_the_checks_says_what_was_left_out(make_folder, tmp_path):
    root = make_folder({"cat": 4, "dog": 4})
    for path in (root / "dog").iterdir():
        Image.new("RGB", (8, 8), "gray").save(path)
    with pytest.raises(PictureError, match=r"Found dog 0\. Left out: 4 near-gray\."):
        prepare(rules(root), tmp_path / "out")


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (None, ConfigError, r"`pictures\.path` should name a folder.*--preset demo"),
        ("/nowhere/at/all", PictureError, "Found nothing there"),
        (__file__, PictureError, "Found a file there"),
    ],
)
def test_root_that_is_no_folder(tmp_path, path, error, message):
    with pytest.raises(error, match=message):
        prepare(rules(path), tmp_path / "out")


def test_folder_that_cannot_be_written(photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"Cannot write .*--out"):
        prepare(rules(photos), tmp_path / "file" / "out")


def test_nothing_prepared(tmp_path):
    with pytest.raises(RunError, match=r"prepared\.json` should be there\. Found none"):
        load_prepared(tmp_path)


def test_progress_counts_every_picture(photos, tmp_path):
    events = []
    prepare(rules(photos), tmp_path / "out", events.append)
    assert events == [{"stage": "prepare", "done": n, "total": 15} for n in range(1, 16)]
