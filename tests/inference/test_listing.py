"""Listing a folder: its images, their output files, and summaries of many images."""

import os
from pathlib import Path

import pytest

from knowhue.errors import ConfigError, ImageError
from knowhue.inference.listing import Summary, default_folder, list_folder


def names(source: Path, out: Path, suffix: str | None = None) -> dict[str, str]:
    items = list_folder(source, out, suffix).items
    assert all(item.source == source / item.path for item in items)
    return {item.path: item.output for item in items}


def put(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")


def test_the_tree_is_kept_and_only_images_are_taken(tmp_path: Path):
    put(tmp_path / "in", "b.JPG", "a/x.png", "a/c/y.jpg", "a/readme.txt", "a/folder.jpg/z.png")
    expected = ["a/c/y.jpg", "a/folder.jpg/z.png", "a/x.png", "b.JPG"]
    assert list(names(tmp_path / "in", tmp_path / "out")) == expected
    assert names(tmp_path / "in", tmp_path / "out", ".png")["b.JPG"] == "b.png"


def test_hidden_files_and_the_output_inside_are_left_out(tmp_path: Path):
    put(tmp_path, "a.jpg", ".b.jpg", ".cache/c.jpg", "out/a.jpg", "out/deep/d.jpg", "outer/e.jpg")
    assert list(names(tmp_path, tmp_path / "out")) == ["a.jpg", "outer/e.jpg"]


def test_links_are_followed_once_and_loops_end(tmp_path: Path):
    put(tmp_path, "in/z/a.jpg", "elsewhere/b.jpg")
    for name in ("a_link", "zz_link"):  # the folder has a name of its own
        (tmp_path / "in" / name).symlink_to(tmp_path / "in" / "z")
    (tmp_path / "in" / "z" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in" / "z")
    assert list(names(tmp_path / "in", tmp_path / "out")) == ["other/b.jpg", "z/a.jpg"]


def test_a_broken_link_is_an_image_that_will_fail(tmp_path: Path):
    put(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "nowhere")
    assert list(names(tmp_path, tmp_path / "out")) == ["a.jpg", "b.jpg"]


def test_two_images_never_become_one_file(tmp_path: Path):
    put(tmp_path, "a/x.jpg", "a/x.png", "b/x.jpg")
    assert len(names(tmp_path, tmp_path / "out")) == 3
    with pytest.raises(ConfigError, match=r"`a/x\.png` would be made from `a/x\.jpg` and `a/x\.png`"):
        names(tmp_path, tmp_path / "out", ".png")


def test_a_name_that_is_no_text_is_kept(tmp_path: Path):
    name = os.fsdecode(b"caf\xe9.bmp")
    put(tmp_path / "in", name)
    assert names(tmp_path / "in", tmp_path / "out") == {name: f"{name[:-3]}png"}


def test_an_original_is_never_replaced(tmp_path: Path):
    put(tmp_path, "in/x.jpg", "out/sub/y.jpg", "a.jpg")
    for suffix in (None, ".png"):
        with pytest.raises(ConfigError, match="would be among the originals"):
            names(tmp_path / "in", tmp_path / "in", suffix)
    put(tmp_path, "out/sub/sub/y.jpg")  # what is made of sub/sub/y.jpg is sub/y.jpg, one of the images
    with pytest.raises(ConfigError, match="would replace an original"):
        names(tmp_path / "out" / "sub", tmp_path / "out")
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    with pytest.raises(ConfigError, match="would be among the originals"):
        names(tmp_path / "in", tmp_path / "linked")


def test_no_folder_and_no_image_are_said(tmp_path: Path):
    put(tmp_path, "in/a.txt", "a.jpg")
    with pytest.raises(
        ImageError,
        match=r"should hold images \(.*\.jpg, .*\.png.*\)\. Found none there or below; 1 other file left out",
    ):
        names(tmp_path / "in", tmp_path / "out")
    for wrong in ("a.jpg", "nowhere"):
        with pytest.raises(ImageError, match="should be a folder of images"):
            names(tmp_path / wrong, tmp_path / "out")


def test_what_is_named_as_coloured_from_another_image_there_is_left_alone(tmp_path):
    """A format that can only be read becomes PNG; a name with the mark and without an original is an image."""
    put(
        tmp_path,
        "sky.bmp",
        "sky-colour.png",
        "sea-colour.png",
        "reef.JPG",
        "reef-colour.JPG",
        "reef-colour.png",
    )
    listing = list_folder(tmp_path, tmp_path / "out")
    named = "made by knowhue from images beside them: reef-colour.JPG, sky-colour.png"
    assert listing.notes == [f"2 images left out, {named}"]
    assert [item.path for item in listing.items] == [
        "reef-colour.png",
        "reef.JPG",
        "sea-colour.png",
        "sky.bmp",
    ]


def test_the_folder_of_what_is_made_lies_beside_the_originals(tmp_path):
    assert default_folder(tmp_path / "album") == tmp_path / "album-colour"
    with pytest.raises(ConfigError, match="has no name to which -colour could be added"):
        default_folder(Path("/"))


DONE = Summary("in", "out", 0, 3, 0, (), 0, 0, 0, ("a note",), 12.3456, "built-in", left=0)


def test_where_nothing_was_left_to_colour_no_pace_is_told():
    assert DONE.lines() == [
        "no image coloured -> out",
        "  note: a note",
        "  already done: 3",
        "  model: built-in",
    ]


def test_what_was_done_fast_says_so():
    hurried = DONE._replace(fast=True)
    assert hurried.lines()[-1] == "  model: built-in, at one size (--fast)"
    assert (DONE.as_record()["fast"], hurried.as_record()["fast"]) == (False, True)


def test_of_many_failures_of_an_archive_the_first_are_told_and_where_the_others_stand():
    lines = DONE._replace(made=25, failed=9, failures=(("a.png", "it is gone"),), shards=1, left=None).lines()
    assert lines[0] == "25 images coloured in 12 s (2.0 a second), 1 shard -> out"
    assert lines[-4:-1] == [
        "  9 failed; the same command tries them again:",
        "    a.png: it is gone",
        "    and 8 more, in out/.knowhue/ledgers",
    ]


def test_how_many_have_no_class_and_how_many_a_warning_is_told_once_and_where_each_stands():
    line = DONE._replace(unknown=2, warned=3).lines()[-2]
    assert line == "  of 3 images, class unknown: 2, warnings: 3; see out/colorized.jsonl"
    for out in ("out", "out/"):
        line = DONE._replace(out=out, warned=1, shards=1).lines()[-2]
        assert line == "  of 3 images, warnings: 1; see out/.knowhue/ledgers"


def test_a_record_holds_what_a_folder_or_an_archive_has():
    assert DONE.as_record() == {
        "source": "in", "out": "out", "made": 0, "already": 3, "failed": 0, "failures": [], "novel": 0,
        "unknown": 0, "warned": 0,
        "notes": ["a note"], "seconds": 12.346, "model": "built-in", "fast": False, "left": 0,
    }  # fmt: skip
    assert "left" not in DONE._replace(left=None, shards=2).as_record()


def test_an_image_that_would_lie_where_others_need_a_folder_is_refused(tmp_path: Path):
    put(tmp_path / "in", "a.bmp", "a.png/deep/x.jpg")
    with pytest.raises(
        ConfigError,
        match=r"`a\.png` would be made from `a\.bmp`, and is a folder that `a\.png/deep/x\.jpg` needs",
    ):
        names(tmp_path / "in", tmp_path / "out")
    assert names(tmp_path / "in", tmp_path / "out", ".webp")["a.bmp"] == "a.webp"


def test_all_images_that_would_become_one_file_are_told_at_once(tmp_path: Path):
    put(
        tmp_path / "in",
        "a.jpg",
        "a.png",
        "a.tif",
        *(f"b{n}{suffix}" for n in range(9) for suffix in (".bmp", ".png")),
    )
    with pytest.raises(ConfigError) as raised:
        names(tmp_path / "in", tmp_path / "out", ".ora")
    three, two, *_, more = raised.value.args
    assert three == "`a.ora` would be made from `a.jpg` and `a.tif` and 1 more; rename one of them"
    assert two == "`b0.ora` would be made from `b0.bmp` and `b0.png`; rename one of them"
    assert (len(raised.value.args), more) == (9, "and 2 more")
