"""Which colouring belongs to which true image, and errors if that is unclear."""

import shutil
import unicodedata

import numpy as np
import pytest
from odd_files import ODD_FILES
from PIL import Image
from score_folders import colourings, picture, true_images, write_images

from knowhue.errors import ConfigError, ImageError
from knowhue.scoring.pairing import named_folders, pair
from knowhue.scoring.parts import measure_rows
from knowhue.scoring.protocols import PROTOCOLS


def test_pairs_go_by_relative_path_whatever_the_extension(folders, tmp_path):
    theirs = write_images(tmp_path / "tiff", colourings(true_images(), 0.5), ".tif")
    pairs = pair(folders.truth, [str(folders.ours), f"B={theirs}"])
    assert [each.name for each in pairs.systems] == ["ours", "B"]
    assert named_folders([f"{folders.ours}/", f"{theirs}/."]) == [("ours", folders.ours), ("tiff", theirs)]
    assert list(pairs.truth) == sorted(true_images())
    assert pairs.clusters == ("class0",) * 3 + ("class1",) * 3
    assert pairs.notes == ()
    assert all(
        each.samples[name][0].path.stem == name.split("/")[1]
        for each in pairs.systems
        for name in pairs.truth
    )


def test_accents_are_the_same_however_a_file_system_writes_them(tmp_path):
    name = "café"
    truth = write_images(tmp_path / "t", {unicodedata.normalize("NFC", name): picture(0)})
    made = write_images(tmp_path / "m", {unicodedata.normalize("NFD", name): picture(1)})
    assert list(pair(truth, [str(made)]).truth) == [name]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f.ours / "class0/image0.png").unlink(), "ours: no colouring of class0/image0 (1 in all); or pass"),
        (
            lambda f: write_images(f.ours, {"class0/other": picture(9)}),
            "ours: files that belong to no true image: class0/other (1 in all); or pass --common",
        ),
        (
            lambda f: write_images(f.ours, {"class0/image0": picture(9)}, ".tif"),
            "ours: 1 image stored twice (image0.png and image0.tif); keep one of each",
        ),
        (
            lambda f: write_images(f.truth, {"class0/image0": picture(9)}, ".jpg"),
            "--truth: 1 image stored twice (image0.jpg and image0.png); keep one of each",
        ),
        (
            lambda f: write_images(f.ours, {"class0/image0-2": picture(9)}),
            "class0/image2, class0/image4, class1/image1 and 2 more (5 in all) have fewer than the 2 samples",
        ),
        (lambda f: shutil.rmtree(f.ours), "`ours` should be a folder of images"),
        (lambda f: shutil.rmtree(f.truth), "`--truth` should be a folder of images"),
        (lambda f: [p.unlink() for p in f.ours.rglob("*.png")], "should hold images"),
        (
            lambda f: [p.rename(p.with_name(f"x{p.name}")) for p in f.ours.rglob("*.png")],
            "ours: none of its 6 files is named like a true image (class0/ximage0, class0/ximage2, ",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(folders, spoil, said):
    spoil(folders)
    with pytest.raises(ImageError) as refused:
        pair(folders.truth, [str(folders.ours), str(folders.theirs)])
    assert len(refused.value.args) == 1
    assert said in str(refused.value)


def test_only_what_is_common_is_scored_if_asked_and_that_is_said(folders):
    (folders.ours / "class0/image0.png").unlink()
    write_images(folders.theirs, {"other": picture(9)})
    pairs = pair(folders.truth, [str(folders.ours), str(folders.theirs)], common=True)
    assert len(pairs.truth) == 5
    assert all(set(each.samples) == set(pairs.truth) for each in pairs.systems)
    notes = " ".join(pairs.remarks)
    assert "5 of 6 true images are scored" in notes
    assert "theirs: files that belong to no true image: other (1 in all)" in notes


def test_other_files_are_counted_once_by_whose_they_are(folders):
    for folder in (folders.truth, folders.ours):
        (folder / "notes.txt").write_text("x")
    notes = pair(folders.truth, [str(folders.ours)]).remarks
    other = "1 other file left alone: 1 of another type (.txt)"
    assert notes == (f"true images: {other}", f"ours: {other}")


@pytest.mark.parametrize("given", [["{ours}", "ours={theirs}"], ["{truth}"], ["={ours}"]])
def test_names_are_needed_once_and_the_truth_is_no_system(folders, given):
    paths = [each.format(**{k: str(v) for k, v in folders._asdict().items()}) for each in given]
    with pytest.raises(ConfigError) as refused:
        pair(folders.truth, paths)
    assert len(refused.value.args) == 1


@pytest.mark.parametrize("layout", ["sample-{}/{}", "{1}-{0}"])
def test_several_samples_in_folders_or_by_number(folders, tmp_path, layout):
    true = true_images()
    for number in (1, 2, 3):
        made = {
            layout.format(number, name): value for name, value in colourings(true, 0.5, 10 * number).items()
        }
        write_images(tmp_path / "many", made)
    (system,) = pair(folders.truth, [str(tmp_path / "many")]).systems
    assert {len(each) for each in system.samples.values()} == {3}


def test_copies_jpegs_and_the_truths_own_files_are_said(tmp_path):
    true = {"a": picture(0), "b": picture(0), "c": picture(1)}
    truth = write_images(tmp_path / "truth", true)
    made = write_images(tmp_path / "made", {"a": picture(5)}, ".jpg")
    shutil.copy(truth / "b.png", made / "b.png")
    Image.fromarray(picture(2)).save(made / "c.png", "JPEG")  # whatever its name says
    pairs = pair(truth, [str(made)])
    notes = " ".join(pairs.notes)
    assert "repeated true images: 1 (b)" in notes
    assert "made: 2 colourings in JPEG" in " ".join(pairs.remarks)
    shutil.copytree(made, tmp_path / "other")
    remarks = pair(truth, [str(made), str(tmp_path / "other")]).remarks
    assert [each.partition(":")[0] for each in remarks] == ["made, other"]  # said once
    assert "made: 1 colouring with the same bytes as the true image (b)" in notes


def test_two_systems_of_the_same_bytes_are_said(folders, tmp_path):
    shutil.copytree(folders.ours, tmp_path / "copy")
    notes = pair(folders.truth, [str(folders.ours), str(tmp_path / "copy"), str(folders.theirs)]).notes
    assert notes == ("ours and copy are the same files, byte for byte: their comparison says nothing",)


def test_three_systems_of_the_same_bytes_are_said_once(folders, tmp_path):
    systems = [str(folders.ours), f"a={folders.ours}", str(folders.theirs), f"b={folders.ours}"]
    notes = pair(folders.truth, systems).notes
    assert notes == ("ours, a and b are the same files, byte for byte: their comparison says nothing",)


UNREADABLE = [name for name, odd in ODD_FILES.items() if odd.error]
READABLE = [name for name, odd in ODD_FILES.items() if not odd.error]


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("side", ["truth", "made"])
def test_a_file_that_cannot_be_read_is_one_line_on_either_side(tmp_path, name, side):
    odd = ODD_FILES[name]
    folders = {each: write_images(tmp_path / each, {"good": picture(1)}) for each in ("truth", "made")}
    for each, folder in folders.items():
        if each == side:
            (folder / f"odd{odd.suffix}").write_bytes(odd.data())
        else:
            write_images(folder, {"odd": picture(2)})

    def run():
        return measure_rows(
            pair(folders["truth"], [str(folders["made"])]), PROTOCOLS["original"], tmp_path / "c", 1
        )

    with pytest.raises(ImageError) as refused:
        run()
    assert len(refused.value.args) == 1
    assert "\n" not in refused.value.args[0]
    assert "odd" in refused.value.args[0]


@pytest.mark.parametrize("name", READABLE[::4])
def test_whatever_can_be_read_is_scored(tmp_path, name):
    odd = ODD_FILES[name]
    for each in ("truth", "made"):
        (tmp_path / each).mkdir()
        (tmp_path / each / f"odd{odd.suffix}").write_bytes(odd.data())
    pairs = pair(tmp_path / "truth", [str(tmp_path / "made")])
    found = measure_rows(pairs, PROTOCOLS["stretch-256"], tmp_path / "cache", 1)
    np.testing.assert_array_equal(found["made"].columns["ciede2000"], [0.0])


def test_another_size_is_one_line(folders, tmp_path):
    write_images(folders.ours, {"class0/image0": picture(0, 20)})
    pairs = pair(folders.truth, [str(folders.ours)])
    with pytest.raises(ImageError) as refused:
        measure_rows(pairs, PROTOCOLS["stretch-256"], tmp_path / "cache", 1)
    (line,) = refused.value.args
    assert line.startswith(
        "ours, class0/image0: it has 20 x 20 pixels; its true image has 24 x 24, or 256 x 256 as"
    )
