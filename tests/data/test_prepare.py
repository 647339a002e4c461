"""Images are read, checked, split and resized once, and every left-out image is listed."""

import csv
import shutil
import sys
import threading
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image, ImageOps

from knowhue.config import Images
from knowhue.data import prepare as module
from knowhue.data.checks import checksum
from knowhue.data.drawn import draw
from knowhue.data.prepare import MANIFEST_COLUMNS, load_prepared, prepare
from knowhue.errors import ConfigError, ImageError, RunError
from knowhue.storage import file_digest, read_json, write_json


def rules(path=None, **changes):
    return Images(**{"path": path and str(path), "size_px": 16, "min_per_class": 1} | changes)


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
    assert np.bincount(prepared.label[prepared.split == "train"]).tolist() == [8, 4]
    assert np.bincount(prepared.label[prepared.split == "validation"]).tolist() == [2, 1]
    labels = [prepared.classes[n] for n in prepared.label]
    assert [path.split("/")[0] for path in prepared.paths] == labels


def test_manifest_and_summary_agree_with_the_array(photos, tmp_path):
    prepared = prepare(rules(photos), tmp_path / "out")
    rows = manifest(tmp_path / "out")
    assert tuple(next(iter(rows.values()))) == MANIFEST_COLUMNS
    for row in rows.values():
        assert checksum(prepared.rgb[int(row["index"])]) == row["sha256"]
        assert (row["width"], row["height"]) == ("24", "24")
    summary = read_json(tmp_path / "out" / "prepared.json")
    assert summary["counts"]["train"] == {"cat": 8, "dog": 4, "unlabelled": 0}
    assert summary["images"] == 15


def test_split_belongs_to_its_seed(photos, tmp_path):
    first, again = (prepare(rules(photos), tmp_path / name).split for name in ("a", "b"))
    assert np.array_equal(first, again)
    other = prepare(rules(photos, split_seed=1), tmp_path / "c").split
    assert not np.array_equal(first, other)


def splits_of(prepared):
    return dict(zip(prepared.paths, prepared.split.tolist(), strict=True))


def damage(root):
    (root / "cat" / "00a.png").write_bytes(b"no image")


def resource_forks(root):
    for path in list(root.rglob("*.png")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")


def macosx(root):
    shutil.copytree(root / "cat", root / "__MACOSX" / "cat")


def synology(root):
    for path in list(root.rglob("*.png")):
        thumb = path.parent / "@eaDir" / path.name / "SYNOPHOTO_THUMB_XL.jpg"
        thumb.parent.mkdir(parents=True)
        Image.open(path).save(thumb)


def near_gray(root):
    for n in range(4):
        Image.fromarray(np.full((20, 20, 3), 60 + 20 * n, np.uint8)).save(root / "dog" / f"0{n}gray.png")


def copies(root):
    for n in range(6):
        shutil.copy(root / "cat" / f"0{n}.png", root / "cat" / f"0{n} (1).png")
        Image.open(root / "cat" / f"0{n}.png").save(root / "cat" / f"0{n}-copy.bmp")


@pytest.mark.parametrize("spoil", [damage, resource_forks, macosx, synology, near_gray, copies])
@pytest.mark.parametrize("test_share", [0.0, 0.2])
def test_what_is_left_out_never_moves_the_split(photos, tmp_path, spoil, test_share):
    before = splits_of(prepare(rules(photos, test_share=test_share), tmp_path / "a"))
    spoil(photos)
    assert splits_of(prepare(rules(photos, test_share=test_share), tmp_path / "b")) == before


def test_image_that_is_damaged_later_moves_at_most_one_other(photos, tmp_path):
    before = splits_of(prepare(rules(photos), tmp_path / "a"))
    gone = next(iter(before))
    (photos / gone).write_bytes(b"no image")
    after = splits_of(prepare(rules(photos), tmp_path / "b"))
    assert after.keys() == before.keys() - {gone}
    assert sum(before[path] != split for path, split in after.items()) <= 1


def test_text_named_jpg_is_named_in_the_manifest(photos, tmp_path):
    (photos / "cat" / "text.jpg").write_text("hello")
    (photos / "cat" / "notes.txt").write_text("not looked at")
    prepared = prepare(rules(photos), tmp_path / "out")
    row = manifest(tmp_path / "out")["cat/text.jpg"]
    assert (row["status"], row["index"]) == ("left out", "")
    assert row["reason"].startswith("unreadable: it is none of JPEG")
    assert len(prepared.rgb) == 15
    assert [left["path"] for left in read_json(tmp_path / "out" / "prepared.json")["left_out"]] == [
        "cat/text.jpg"
    ]


def test_near_gray_image_is_left_out_and_named(photos, tmp_path):
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


def test_the_same_photo_in_two_classes_is_told(photos, tmp_path):
    shutil.copy(photos / "cat/00.png", photos / "dog/again.png")
    shutil.copy(photos / "dog/00.png", photos / "dog/once more.png")
    notes = []
    prepare(rules(photos), tmp_path / "out", notes.append)
    (text,) = [each["text"] for each in notes if each["stage"] == "note"]
    assert "2 of 17 images left out (2 duplicate)" in text
    assert "1 of them in another class than the image that is kept, such as dog/again.png, a copy of" in text
    assert "cat/00.png" in text


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_share_of_a_split_that_is_given_is_told(make_folder, tmp_path, split):
    root = make_folder({f"{part}/{name}": 3 for part in ("train", split) for name in ("cat", "dog")})
    notes = []
    prepare(rules(root, validation_share=0.3, test_share=0.3), tmp_path / "out", notes.append)
    assert [each["text"] for each in notes if each["stage"] == "note"] == [
        f"The images have a {split} split of their own: `images.{split}_share = 0.3` has no effect"
    ]


def test_classes_that_may_be_meant_as_one_are_told(make_folder, tmp_path):
    notes = []
    prepare(rules(make_folder({"Sea lion": 3, "reef": 3, "sea_lion": 3})), tmp_path / "out", notes.append)
    assert [each["text"] for each in notes if each["stage"] == "note"] == [
        "The classes `Sea lion` and `sea_lion` are different; if they should be one, give them one name"
    ]


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


def test_unlabelled_images_train_only(make_folder, tmp_path):
    root = make_folder({"cat": 5, "dog": 5, "unlabelled": 4})
    prepared = prepare(rules(root), tmp_path / "out")
    assert prepared.classes == ("cat", "dog")
    assert prepared.split[prepared.label == -1].tolist() == ["train"] * 4
    assert read_json(tmp_path / "out" / "prepared.json")["counts"]["train"]["unlabelled"] == 4


def test_labelled_copy_of_an_unlabelled_image_stays(make_folder, tmp_path):
    root = make_folder({"train/cat": 3, "val/cat": 1, "train/dog": 3, "val/dog": 1, "unlabelled": 2})
    shutil.copy(root / "train/cat/00.png", root / "unlabelled/copy.png")
    assert "train/cat/00.png" in prepare(rules(root), tmp_path / "out").paths


def test_second_call_reads_no_image(photos, tmp_path, monkeypatch):
    first = prepare(rules(photos), tmp_path / "out")
    monkeypatch.setattr(module, "read_all", None)
    second = prepare(rules(photos), tmp_path / "out")
    assert second.fingerprint == first.fingerprint
    assert np.array_equal(second.rgb, first.rgb)


@pytest.mark.parametrize(
    "name", ["a.jfif", "a.jpe", "a.ppm", "a.pgm", "a.pnm", "a.dib", "a.j2k", "a.apng", "a.JPEG"]
)
def test_every_suffix_that_colorize_reads_is_trained_on(photos, tmp_path, name):
    kind = {
        "a.pgm": "PPM",
        "a.pnm": "PPM",
        "a.ppm": "PPM",
        "a.dib": "BMP",
        "a.j2k": "JPEG2000",
        "a.apng": "PNG",
    }
    noise = np.random.default_rng(1).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "cat" / name, format=kind.get(name, "JPEG"))
    assert f"cat/{name}" in prepare(rules(photos), tmp_path / "out").paths


def test_heic_without_its_decoder_is_named_with_the_remedy(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (photos / "cat" / "a.heic").write_bytes(b"....ftypheic")
    prepare(rules(photos), tmp_path / "out")
    assert "pip install pillow-heif" in manifest(tmp_path / "out")["cat/a.heic"]["reason"]
    # once the decoder is installed, the same command reads the image; this one is damaged
    decoder = SimpleNamespace(
        open_heif=Mock(side_effect=OSError("cut")), __spec__=ModuleSpec("pillow_heif", None)
    )
    monkeypatch.setitem(sys.modules, "pillow_heif", decoder)
    prepare(rules(photos), tmp_path / "out")
    assert "pip install" not in manifest(tmp_path / "out")["cat/a.heic"]["reason"]


def test_a_folder_whose_name_begins_with_a_tilde_is_one(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match=r"^~photos: no such folder"):
        prepare(rules("~photos"), tmp_path / "out")
    photos.rename("~photos")
    assert "cat/00.png" in prepare(rules("~photos"), tmp_path / "out").paths


def test_a_link_to_itself_is_no_folder(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(ImageError, match="loop: no such folder"):
        prepare(rules(loop), tmp_path / "out")


def test_what_is_left_out_and_skipped_is_said_in_one_line_each_time(photos, tmp_path):
    near_gray(photos)
    resource_forks(photos)
    (photos / "cat" / "notes.txt").touch()
    for _ in range(2):
        events = []
        prepare(rules(photos), tmp_path / "images", events.append)
        (note,) = [event["text"] for event in events if event["stage"] == "note"]
        assert note == (
            "4 of 19 images left out (4 near-gray); 20 other files skipped (19 hidden, 1 of another type (.txt)); "
            "see images/manifest.csv"
        )
    assert manifest(tmp_path / "images")["cat/notes.txt"]["status"] == "skipped"


def test_a_file_that_is_no_image_changes_nothing(photos, tmp_path, monkeypatch):
    first = prepare(rules(photos), tmp_path / "out")
    (photos / "cat" / ".DS_Store").touch()
    (photos / "dog" / "Thumbs.db").touch()
    monkeypatch.setattr(module, "read_all", None)  # nothing is read again
    assert prepare(rules(photos), tmp_path / "out").fingerprint == first.fingerprint


def test_nothing_left_out_is_no_line(photos, tmp_path):
    events = []
    prepare(rules(photos), tmp_path / "out", events.append)
    assert {event["stage"] for event in events} == {"prepare"}


def test_three_splits_of_the_source_and_a_copy_stays_where_it_is_reported_on(make_folder, tmp_path):
    root = make_folder({f"{part}/{name}": 3 for part in ("train", "val", "test") for name in ("cat", "dog")})
    shutil.copy(root / "test/dog/00.png", root / "train/cat/a.png")
    shutil.copy(root / "test/dog/00.png", root / "val/cat/a.png")
    shutil.copy(root / "val/dog/01.png", root / "train/dog/b.png")
    prepared = prepare(rules(root), tmp_path / "out")
    rows = manifest(tmp_path / "out")
    assert rows["train/cat/a.png"]["reason"] == "duplicate of test/dog/00.png (test)"
    assert rows["val/cat/a.png"]["reason"] == "duplicate of test/dog/00.png (test)"
    assert rows["train/dog/b.png"]["reason"] == "duplicate of val/dog/01.png (validation)"
    assert [len(prepared.positions(split)) for split in ("train", "validation", "test")] == [6, 6, 6]
    assert prepared.reporting_split == "test"


@pytest.mark.parametrize("given", ["", "val", "test"])
def test_splits_that_the_source_does_not_give_are_split_off_from_training(make_folder, tmp_path, given):
    root = make_folder(
        {"train/cat": 20, "train/dog": 10} | ({f"{given}/cat": 2, f"{given}/dog": 2} if given else {})
    )
    prepared = prepare(rules(root, test_share=0.3), tmp_path / "out")
    counts = read_json(tmp_path / "out" / "prepared.json")["counts"]
    expected = {"validation": (4, 2), "test": (6, 3), "train": (10, 5)}
    expected |= {
        "val": {"validation": (2, 2), "train": (14, 7)},
        "test": {"test": (2, 2), "train": (16, 8)},
    }.get(given, {})
    for split, (cats, dogs) in expected.items():
        assert counts[split] == {"cat": cats, "dog": dogs, "unlabelled": 0}
    assert prepared.reporting_split == "test"


def test_reporting_split_is_validation_without_a_test_split_and_while_tuning(photos, tmp_path):
    assert prepare(rules(photos), tmp_path / "a").reporting_split == "validation"
    assert prepare(rules(photos, test_share=0.2), tmp_path / "b").reporting_split == "test"
    assert load_prepared(tmp_path / "b", "validation").reporting_split == "validation"


def test_names_in_another_encoding_than_utf_8_are_drawn_into_splits(photos, tmp_path):
    for path in [*photos.rglob("*.png")]:
        path.rename(path.with_name(f"\udce4{path.name}"))
    prepare(rules(photos), tmp_path / "out")
    prepared = load_prepared(tmp_path / "out")
    assert sum(r"\udce4" in path for path in prepared.paths) == 15
    assert np.bincount(prepared.label[prepared.positions("train")]).tolist() == [8, 4]


@pytest.mark.parametrize("name", ["bad\udcff", "esc\x1b"])
def test_class_name_that_no_figure_can_hold_is_refused_before_anything_is_read(photos, tmp_path, name):
    (photos / "dog").rename(photos / name)
    with pytest.raises(ImageError, match="printable text"):
        prepare(rules(photos), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_class_name_that_is_a_formula_comes_back_from_a_manifest_that_runs_nothing(photos, tmp_path):
    (photos / "dog").rename(photos / "=cmd|calc!A1")
    prepare(rules(photos), tmp_path / "out")
    prepared = load_prepared(tmp_path / "out")
    assert prepared.classes == ("=cmd|calc!A1", "cat")
    assert np.bincount(prepared.label).tolist() == [5, 10]
    assert "\n=" not in (text := (tmp_path / "out" / "manifest.csv").read_text())
    assert ",=" not in text


def cut_row(folder):
    lines = (folder / "manifest.csv").read_text().splitlines(keepends=True)
    (folder / "manifest.csv").write_text("".join(lines[:1] + lines[2:]))


def halve(name):
    def cut(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return cut


def flip(name, at):
    def change(folder):
        content = bytearray((folder / name).read_bytes())
        content[at] ^= 1
        (folder / name).write_bytes(content)

    return change


DAMAGES = {
    "a row of the manifest is gone": cut_row,
    "the manifest is cut": halve("manifest.csv"),
    "the manifest is empty": lambda folder: (folder / "manifest.csv").write_text(""),
    "the manifest is gone": lambda folder: (folder / "manifest.csv").unlink(),
    "the array is cut": halve("images.npy"),
    "the array is empty": lambda folder: (folder / "images.npy").write_bytes(b""),
    "the array is gone": lambda folder: (folder / "images.npy").unlink(),
    "a bit of the array is flipped": flip("images.npy", -500),
    "a bit of the array's header is flipped": flip("images.npy", 30),
    "the summary is empty": lambda folder: (folder / "prepared.json").write_text(""),
    "the summary is {}": lambda folder: (folder / "prepared.json").write_text("{}"),
    "the summary is a list": lambda folder: (folder / "prepared.json").write_text("[]"),
    "the summary is cut": halve("prepared.json"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_one_line_that_names_the_file_and_preparing_heals_it(photos, tmp_path, damage):
    first = prepare(rules(photos), tmp_path / "out")
    pixels = first.rgb.copy()
    damage(tmp_path / "out")
    with pytest.raises(
        RunError, match=r"(manifest\.csv|images\.npy|prepared\.json)`.*Delete|prepared\.json"
    ) as raised:
        load_prepared(tmp_path / "out")
    assert "\n" not in str(raised.value)
    healed = prepare(rules(photos), tmp_path / "out")
    assert healed.fingerprint == first.fingerprint
    assert np.array_equal(healed.rgb, pixels)


def swap_rows(folder):
    lines = (folder / "manifest.csv").read_text().splitlines(keepends=True)
    (folder / "manifest.csv").write_text("".join([lines[0], lines[2], lines[1], *lines[3:]]))


def add_an_image(folder):
    pixels = np.load(folder / "images.npy")
    np.save(folder / "images.npy", np.concatenate([pixels, pixels[:1]]))


def add_a_row(folder):
    last = (folder / "manifest.csv").read_text().splitlines()[-1]
    assert ",kept," in last
    with (folder / "manifest.csv").open("a") as file:
        file.write("99" + last[last.index(",") :] + "\n")


@pytest.mark.parametrize("change", [cut_row, swap_rows, add_an_image, add_a_row])
def test_manifest_and_checksum_changed_together_are_found_out(photos, tmp_path, change):
    prepare(rules(photos), tmp_path / "out")
    change(tmp_path / "out")
    summary = read_json(tmp_path / "out" / "prepared.json")
    summary["checksums"]["manifest.csv"] = file_digest(tmp_path / "out" / "manifest.csv")
    write_json(tmp_path / "out" / "prepared.json", summary)
    with pytest.raises(RunError, match=r"manifest\.csv` was changed"):
        load_prepared(tmp_path / "out", thorough=False)


def test_other_images_are_never_written_under_runs_even_if_the_summary_is_lost(photos, tmp_path):
    first = prepare(rules(photos), tmp_path / "out")
    run = tmp_path / "multi" / "seed-0-x"
    run.mkdir(parents=True)
    write_json(run / "environment.json", {"images": first.fingerprint})
    (tmp_path / "out" / "prepared.json").unlink()
    prepare(rules(photos), tmp_path / "out")  # the same images are prepared again
    (tmp_path / "out" / "prepared.json").unlink()
    Image.effect_noise((30, 30), 90).convert("RGB").save(photos / "cat" / "new.png")
    Image.fromarray(draw(0, 0, 30, class_colour=1.0, seed=0)).save(photos / "cat" / "other.png")
    with pytest.raises(RunError, match="trained on other images"):
        prepare(rules(photos), tmp_path / "out")


def test_array_that_somebody_reads_is_not_changed_under_him(photos, tmp_path):
    reading = prepare(rules(photos), tmp_path / "out")
    pixels = reading.rgb.copy()
    Image.fromarray(draw(0, 0, 30, class_colour=1.0, seed=0)).save(photos / "cat" / "new.png")
    other = prepare(rules(photos), tmp_path / "out")
    assert len(other.rgb) == len(pixels) + 1
    assert np.array_equal(reading.rgb, pixels)


def test_two_at_once_are_not_mixed(photos, tmp_path, monkeypatch):
    """A second process that prepares in between is refused, and does not change the first one's files."""
    read_all = module.read_all
    refused = []

    def interleaved(*args):
        if not refused:
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()
        return read_all(*args)

    def second():
        try:
            prepare(rules(photos, size_px=24), tmp_path / "out")
        except RunError as error:
            refused.append(str(error))

    monkeypatch.setattr(module, "read_all", interleaved)
    assert prepare(rules(photos), tmp_path / "out").rgb.shape == (15, 16, 16, 3)
    assert len(refused) == 1
    assert load_prepared(tmp_path / "out").rgb.shape == (15, 16, 16, 3)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "images.npy",
        "manifest.csv",
        "prepared.json",
    }


@pytest.mark.parametrize("change", ["image", "size", "share", "new"])
def test_what_changed_is_read_again(photos, tmp_path, change):
    first = prepare(rules(photos), tmp_path / "out")
    if change == "image":
        Image.effect_noise((30, 30), 90).convert("RGB").save(photos / "cat" / "00.png")
    elif change == "new":
        Image.new("RGB", (30, 30), (200, 10, 10)).save(photos / "dog" / "new.png")
    changes = {"size": {"size_px": 24}, "share": {"validation_share": 0.4}}.get(change, {})
    second = prepare(rules(photos, **changes), tmp_path / "out")
    assert second.fingerprint != first.fingerprint


def test_what_a_killed_preparation_left_is_cleared_away_by_the_next(photos, tmp_path):
    out = tmp_path / "out"
    scratch, half = out / ".images.npy.k1lled", out / ".images.npy.other"
    scratch.mkdir(parents=True)
    (scratch / "images.npy").write_bytes(b"as large as all images")
    half.touch()
    prepare(rules(photos), out)
    assert sorted(path.name for path in out.iterdir()) == ["images.npy", "manifest.csv", "prepared.json"]


def test_files_of_others_are_neither_removed_nor_replaced(photos, tmp_path):
    out = tmp_path / "out"
    (out / ".git").mkdir(parents=True)
    (out / ".DS_Store").touch()
    first = prepare(rules(photos), out)
    (out / "notes.txt").touch()
    assert prepare(rules(photos, size_px=24), out).fingerprint != first.fingerprint
    assert {path.name for path in out.iterdir()} > {".git", ".DS_Store", "notes.txt"}
    other = tmp_path / "other"
    (other / "album").mkdir(parents=True)
    (other / "manifest.csv").write_text("of others")
    with pytest.raises(RunError, match=r"other` should be free for prepared images\. Found album there"):
        prepare(rules(photos), other)
    assert (other / "manifest.csv").read_text() == "of others"


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
        ({"unlabelled": 10}, {}, r"colour alone needs two, too, because validation.*any two folders will do"),
        ({}, {}, r"no images in <class>/, or in train/<class>/.*--preset demo"),
        (
            {"cat": 10, "dog": 3},
            {"min_per_class": 4},
            r"at least 4 usable train images\. Found dog 2 \(of 3 found: 2 train, 1 validation\)\. Add",
        ),
        (
            {"train/cat": 2, "train/dog": 2, "val/cat": 1},
            {},
            r"at least 1 usable validation images\. Found dog 0 \(of 2 found: 2 train\)",
        ),
        # text per image, such as captions, used as classes by mistake
        (
            {f"{k}{'x' * 100}": 1 for k in range(9)},
            {},
            r"Found 0x{79}\.\.\. 0 .* 5x{79}\.\.\. 0 \(.*\) and 3 more",
        ),
    ],
)
def test_too_little_says_how_to_mend_it(make_folder, tmp_path, layout, changes, message):
    root = make_folder(layout)
    root.mkdir(exist_ok=True)
    with pytest.raises(ImageError, match=message):
        prepare(rules(root, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_beside_the_only_folder_are_named_where_classes_are_missing(make_folder, tmp_path):
    root = make_folder({"cat": 3, "dog": 2})
    for photo in sorted((root / "dog").iterdir()):
        photo.rename(root / photo.name)
    (root / "dog").rmdir()
    with pytest.raises(ImageError, match=r"Found 1: cat\. Left out: 2 not in a class folder\. Put them"):
        prepare(rules(root), tmp_path / "out")


def test_too_little_after_the_checks_says_what_was_left_out(make_folder, tmp_path):
    root = make_folder({"cat": 4, "dog": 4})
    for path in (root / "dog").iterdir():
        Image.new("RGB", (8, 8), "gray").save(path)
    with pytest.raises(ImageError, match=r"Found dog 0 \(of 4 found: 4 left out\)\. Left out: 4 near-gray\."):
        prepare(rules(root), tmp_path / "out")


def test_all_gray_folder_is_told_what_helps(make_folder, tmp_path):
    root = make_folder({"cat": 4, "dog": 4})
    for path in root.rglob("*.png"):
        Image.new("RGB", (8, 8), "gray").save(path)
    with pytest.raises(ImageError, match=r"should be in colour, .* Found 8 images, all of them near-gray"):
        prepare(rules(root), tmp_path / "out")


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (None, ConfigError, r"`images\.path` should name a folder.*--preset demo"),
        ("/nowhere/at/all", ImageError, "/nowhere/at/all: no such folder"),
        (__file__, ImageError, "a file, not a folder of images$"),
    ],
)
def test_root_that_is_no_folder(tmp_path, path, error, message):
    with pytest.raises(error, match=message):
        prepare(rules(path), tmp_path / "out")


@pytest.mark.parametrize(("suffix", "source"), [("tar", "webdataset"), ("parquet", "parquet")])
@pytest.mark.parametrize("place", ["part.{}", "train/part.{}", "cats/part.{}", "alone.{}"])
def test_files_of_many_images_are_told_how_they_are_read(tmp_path, suffix, source, place):
    path = tmp_path / "in" / place.format(suffix)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    named = path if path.stem == "alone" else tmp_path / "in"
    with pytest.raises(ImageError, match=rf"\.{suffix} files are read with --set images\.source={source}"):
        prepare(rules(named), tmp_path / "out")


@pytest.mark.parametrize(
    ("place", "remedy"),
    [
        ("labels.csv", r"tables of labels \(\.csv\) are not read: put .* columns image, label and split"),
        ("images.tar.gz", r"\.gz files are not read: unpack them; .* images\.source=webdataset"),
        ("images.zip", r"\.zip files are not read: unpack them"),
    ],
)
@pytest.mark.parametrize("photos", [{}, {"unlabelled": 2}])
@pytest.mark.parametrize("is_named", [True, False])
def test_what_is_no_folder_a_class_is_told_how_to_become_one(
    make_folder, tmp_path, place, remedy, photos, is_named
):
    root = make_folder(photos)
    root.mkdir(exist_ok=True)
    (root / place).write_bytes(b"image,label\n")
    with pytest.raises(ImageError, match=remedy):
        prepare(rules(root / place if is_named else root), tmp_path / "out")


def test_folder_that_cannot_be_written(photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"Cannot write .*Name another folder"):
        prepare(rules(photos), tmp_path / "file" / "out")


def test_nothing_prepared(tmp_path):
    with pytest.raises(RunError, match=r"prepared\.json` should exist\. Found none"):
        load_prepared(tmp_path)


def test_progress_counts_every_image(photos, tmp_path):
    events = []
    prepare(rules(photos), tmp_path / "out", events.append)
    assert events[0] == {"stage": "prepare", "done": 0, "total": 0}  # while they are listed
    assert events[1:] == [{"stage": "prepare", "done": n, "total": 15} for n in range(1, 16)]


def test_too_few_drawn_images_are_refused_before_any_is_drawn(tmp_path):
    told = []
    with pytest.raises(ImageError, match=r"`images\.drawn_count` should be at least 55, 11 for each"):
        prepare(Images(source="drawn", drawn_count=3), tmp_path / "images", report=told.append)
    assert told == []
    few = Images(source="drawn", drawn_count=60, size_px=16, validation_share=0.4)
    with pytest.raises(
        ImageError, match=r"at least 10 usable train images\. .*Raise `images\.drawn_count`, or"
    ):
        prepare(few, tmp_path / "images")
