"""Prepared images are the same for any number of shards and files, and after a kill at any moment."""

import shutil

import numpy as np
import pytest
from PIL import Image

from knowhue.config import Images
from knowhue.data import decode
from knowhue.data import prepare as module
from knowhue.data.decode import Shards, open_shards, shard_names, writing_shard
from knowhue.data.loaders import ProcessShare, TrainingBatches
from knowhue.data.prepare import load_prepared, prepare
from knowhue.errors import RunError
from knowhue.plan import make_plan
from knowhue.study import run_study

SIDE = 16


@pytest.fixture
def photos(make_folder):
    root = make_folder({"train/cat": 9, "train/dog": 8, "test/cat": 2, "test/dog": 2, "unlabelled": 3})
    (root / "train/cat/05.png").write_bytes(b"no image")
    shutil.copy(root / "test/dog/00.png", root / "train/cat/copy.png")
    Image.new("RGB", (20, 20), (90, 91, 90)).save(root / "train/dog/gray.png")
    return root


def rules(photos):
    return Images(path=str(photos), size_px=SIDE, min_per_class=1)


def lower(monkeypatch, images, side=SIDE):
    monkeypatch.setattr(decode, "SHARD_BYTES", images * 3 * side * side)


ARRAY = np.random.default_rng(0).integers(0, 256, (11, 2, 2, 3), dtype=np.uint8)
KEYS = {
    "in order": np.arange(11),
    "shuffled, some twice": np.array([10, 3, 0, 3, 4, 7]),
    "from the end": np.array([-1, -11, 5]),
    "none": np.zeros(0, np.int64),
    "a list": [2, 9],
    "a slice": slice(1, 10, 3),
    "a mask": np.arange(11) % 3 == 1,
    "a table": np.array([[1, 2], [8, 0]]),
    "one": 6,
}


@pytest.mark.parametrize("ends", [[11], [1, 2, 11], [4, 8, 11]])
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_shards_are_indexed_as_one_array_is(ends, key):
    found = Shards(np.split(ARRAY, ends[:-1]))
    assert np.array_equal(found[key], ARRAY[key])
    assert found[key].shape == ARRAY[key].shape
    assert (len(found), found.shape) == (len(ARRAY), ARRAY.shape)


@pytest.mark.parametrize("position", [11, -12])
def test_an_image_that_is_not_there_is_no_other_one(position):
    with pytest.raises(IndexError):
        Shards([ARRAY[:4], ARRAY[4:]])[[0, position]]


@pytest.mark.parametrize(("count", "files"), [(0, 1), (1, 1), (5, 1), (6, 2), (10, 2), (11, 3)])
def test_names_say_how_many_files_there_are(monkeypatch, count, files):
    lower(monkeypatch, 5)
    names = shard_names(count, SIDE)
    assert len(names) == files
    assert names == sorted(names)
    assert (names == ["images.npy"]) == (files == 1)


def test_a_file_of_images_is_an_array_of_numpy(tmp_path):
    with writing_shard(tmp_path / "a.npy", (11, 2)) as write:
        for block in np.split(ARRAY, [3, 4]):
            write(block)
    assert np.array_equal(np.load(tmp_path / "a.npy"), ARRAY)
    assert np.array_equal(open_shards([tmp_path / "a.npy"]), ARRAY)


@pytest.mark.parametrize("images", [1, 2, 7, 20])
def test_many_shards_hold_what_one_does(photos, tmp_path, monkeypatch, images):
    whole = prepare(rules(photos), tmp_path / "a")
    lower(monkeypatch, images)
    parts = prepare(rules(photos), tmp_path / "b")
    assert parts.fingerprint == whole.fingerprint
    assert np.array_equal(parts.rgb[:], whole.rgb)
    assert np.array_equal(parts.label, whole.label)
    assert np.array_equal(parts.split, whole.split)
    assert parts.paths == whole.paths
    first, second = ((tmp_path / name / "manifest.csv").read_bytes() for name in "ab")
    assert first == second
    files = sorted(path.name for path in (tmp_path / "b").glob("*"))
    arrays = shard_names(len(whole.rgb), SIDE)
    assert files == [*arrays, "manifest.csv", "prepared.json"]
    assert sum(len(np.load(tmp_path / "b" / name)) for name in arrays) == len(whole.rgb)


def test_batches_do_not_depend_on_shards(photos, tmp_path, monkeypatch):
    def batches(prepared):
        import torch

        drawn = TrainingBatches(prepared, 4, 3, 1, 2, ProcessShare(0, 1), torch.device("cpu"))
        return [batch for batch, _ in drawn]

    whole = batches(prepare(rules(photos), tmp_path / "a"))
    lower(monkeypatch, 3)
    parts = batches(prepare(rules(photos), tmp_path / "b"))
    for one, other in zip(whole, parts, strict=True):
        for tensor, same in zip(one, other, strict=True):
            assert tensor is same is None or (tensor == same).all()


def test_a_study_of_many_shards_gives_the_same_bytes(tiny, tmp_path, monkeypatch, without_figures):
    config = tiny(training__heads__epochs=1, training__finetune__epochs=1)
    one, many = tmp_path / "one", tmp_path / "many"
    run_study(make_plan(config, ["multi"]), one)
    lower(monkeypatch, 3, side=config.images.size_px)
    run_study(make_plan(config, ["multi"]), many)
    assert len(list((many / "images").glob("images-*-of-*.npy"))) > 3
    kinds = ("per_image.csv", "scores.json", "golden.json", "*.safetensors", "*.npz")
    files = sorted(path.relative_to(one) for kind in kinds for path in one.rglob(kind))
    assert any(path.suffix == ".safetensors" for path in files)
    for path in files:
        assert (one / path).read_bytes() == (many / path).read_bytes(), path


@pytest.mark.parametrize("killed_at", [1, 5, 6, 14, 24, 26])
def test_a_killed_preparation_goes_on_and_reads_no_finished_shard_again(
    photos, tmp_path, monkeypatch, killed_at
):
    whole = prepare(rules(photos), tmp_path / "whole")
    lower(monkeypatch, 5)
    read, read_one = [], decode._read

    def counted(source, images, item):
        read.append(item.name)
        return read_one(source, images, item)

    def kill(event):
        if event["done"] == killed_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(decode, "_read", counted)
    with pytest.raises(KeyboardInterrupt):
        prepare(rules(photos), tmp_path / "out", kill)
    finished = (killed_at - 1) // 5 * 5  # a shard counts when all of it was reported
    assert finished < len(read) <= finished + 5
    read.clear()
    prepared = prepare(rules(photos), tmp_path / "out")
    assert len(read) == 26 - finished
    assert prepared.fingerprint == whole.fingerprint
    assert np.array_equal(prepared.rgb[:], whole.rgb)
    assert not list((tmp_path / "out").glob(".*"))


def test_parts_that_others_have_read_are_not_read_again(photos, tmp_path, monkeypatch):
    whole = prepare(rules(photos), tmp_path / "whole")
    lower(monkeypatch, 5)
    told: list[int] = []

    def report(event):
        if event["stage"] == "prepare" and event["total"]:
            told.append(event["done"])

    def stopped(pieces, watch):
        for piece in pieces[:1:-1]:
            piece(1)
            watch()
        raise KeyboardInterrupt

    def others(pieces, watch):
        for piece in pieces:
            piece(2)

    with pytest.raises(KeyboardInterrupt):
        prepare(rules(photos), tmp_path / "out", report, share_out=stopped)
    assert told == [1, 6, 11, 16]
    told.clear()
    prepared = prepare(rules(photos), tmp_path / "out", report, share_out=others)
    assert told == [16, 26]
    assert prepared.fingerprint == whole.fingerprint
    assert np.array_equal(prepared.rgb[:], whole.rgb)


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_a_finished_shard_that_was_damaged_is_read_again(photos, tmp_path, monkeypatch, suffix):
    whole = prepare(rules(photos), tmp_path / "whole")
    lower(monkeypatch, 5)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", None)  # stops when all is read
        with pytest.raises(TypeError):
            prepare(rules(photos), tmp_path / "out")
    (path,) = (tmp_path / "out").glob(f".reading-*/00001{suffix}")
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)
    assert np.array_equal(prepare(rules(photos), tmp_path / "out").rgb[:], whole.rgb)


@pytest.mark.parametrize("damage", ["removed", "changed"])
def test_damage_of_one_shard_is_found_and_heals(photos, tmp_path, monkeypatch, damage):
    lower(monkeypatch, 5)
    out = tmp_path / "out"
    before = prepare(rules(photos), out).rgb[:]
    second = out / shard_names(len(before), SIDE)[1]
    if damage == "removed":
        second.unlink()
    else:
        content = bytearray(second.read_bytes())
        content[-7] ^= 1
        second.write_bytes(content)
    with pytest.raises(RunError, match=rf"images-00002-of-00005\.npy` was {damage}"):
        load_prepared(out)
    assert np.array_equal(prepare(rules(photos), out).rgb[:], before)


def test_shards_of_other_images_do_not_stay(photos, tmp_path, monkeypatch):
    lower(monkeypatch, 5)
    prepare(rules(photos), tmp_path / "out")
    lower(monkeypatch, 50)
    (photos / "train/cat/00.png").unlink()
    prepare(rules(photos), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.npy")) == ["images.npy"]
