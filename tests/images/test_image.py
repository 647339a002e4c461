"""What counts as an image file is the same for training and for `knowhue colorize FOLDER`."""

import json
import os
from pathlib import Path

import pytest

from knowhue.images.image import (
    FORMATS,
    LEDGER,
    LEDGERS,
    SUFFIXES,
    _is_folder,
    counts_in_words,
    recognise,
    walk,
    why_hidden,
)


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def images(root):
    return {path.relative_to(root).as_posix() for path, skipped in walk(root) if not skipped}


def skipped(root):
    return {path.relative_to(root).as_posix(): why for path, why in walk(root) if why}


JUNK = [
    "._a.jpg", ".hidden.jpg", ".thumbs/a.jpg", "__MACOSX/._a.jpg", "__macosx/a.jpg", "@eaDir/a.jpg/THUMB_M.jpg",
    "#recycle/a.jpg", "#snapshot/a.jpg", "$RECYCLE.BIN/a.jpg", "System Volume Information/a.jpg", "lost+found/a.jpg",
    "Thumbs.db", "thumbs.DB", "desktop.ini", "notes.txt", "raw.cr2", "no_suffix", ".@__thumb/a.jpg", "@Recycle/a.jpg",
]  # fmt: skip


@pytest.mark.parametrize("junk", JUNK)
def test_junk_is_no_image_and_is_named(tmp_path, junk):
    put(tmp_path, "sea/a.jpg", f"sea/{junk}")
    assert images(tmp_path) == {"sea/a.jpg"}
    (named,) = skipped(tmp_path)
    assert f"sea/{junk}".startswith(named)


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_suffix_that_can_be_read_counts_in_either_case(tmp_path, suffix):
    put(tmp_path, f"sea/a{suffix}", f"sea/b{suffix.upper()}")
    assert len(images(tmp_path)) == 2


def test_every_suffix_belongs_to_one_format():
    suffixes = [suffix for known in FORMATS.values() for suffix in known.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in suffixes)


def test_how_a_file_begins_says_its_format():
    for name, known in FORMATS.items():
        assert all(recognise(start + b"more") == name for start in known.starts)
    assert recognise(b"RIFF\0\0\0\0WEBPVP8L") == "WebP"
    assert recognise(b"\0\0\0\x18ftypmif1\0\0\0\0avifmif1") == "AVIF"
    assert recognise(b"\0\0\0\x18ftypisom\0\0\0\0isommp42") is None


def test_reasons_are_counted_by_kind_most_first():
    reasons = ["hidden", "unreadable folder: Permission denied", "hidden", "near-duplicate of sea/a.jpg"]
    assert counts_in_words(reasons) == "2 hidden, 1 unreadable folder, 1 near-duplicate"
    assert counts_in_words([]) == ""


def test_the_rarest_of_many_kinds_are_counted_together():
    reasons = ["hidden", "hidden", *(f"of another type (.{number})" for number in range(500))]
    said = counts_in_words(reasons)
    assert said.startswith("2 hidden, 1 of another type (.0), 1 of an")
    assert said.endswith(" (.4), 495 of other kinds")
    assert counts_in_words(reasons[:7]).count(",") == 5  # without `of other kinds` if there are none


@pytest.mark.parametrize("name", ["@home", "#1", "=cmd", "-x", "$5", "unlabelled", "index"])
def test_odd_names_of_the_users_are_kept(name):
    assert not why_hidden(name)


def test_links_are_followed_once_and_circles_end(tmp_path):
    put(tmp_path, "a/real/1.jpg", "elsewhere/2.jpg")
    root = tmp_path / "a"
    (root / "again").symlink_to(root / "real")
    (root / "up").symlink_to(root)
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "file.jpg").symlink_to(tmp_path / "elsewhere/2.jpg")
    assert images(root) == {"real/1.jpg", "out/2.jpg", "file.jpg"}
    assert set(skipped(root)) == {"again", "up"}


def test_link_to_what_a_folder_lies_in_is_not_entered(tmp_path):
    put(tmp_path, "archive/photos/a.jpg", "archive/other/b.jpg")
    (tmp_path / "archive/photos/up").symlink_to(tmp_path / "archive")
    assert images(tmp_path / "archive/photos") == {"a.jpg"}
    assert skipped(tmp_path / "archive/photos") == {"up": "linking to a folder that contains it"}


def test_link_to_itself_and_pipe_are_left_to_the_reader(tmp_path):
    put(tmp_path, "a.jpg")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert images(tmp_path) == {"a.jpg", "self.jpg", "gone.jpg", "pipe.jpg"}


def test_names_that_are_not_utf_8(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    assert images(tmp_path) == {os.fsdecode(b"\xff.jpg")}


def test_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    scandir = os.scandir

    def refuse(folder):
        if Path(folder).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert images(tmp_path) == {"b/2.jpg"}
    assert skipped(tmp_path) == {"a": "unreadable folder: Permission denied"}


def test_a_link_that_nobody_may_follow_takes_nothing_else_with_it(tmp_path, monkeypatch):
    put(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr("knowhue.images.image._is_folder", _nobody_may_look)
    assert "a/1.jpg" in images(tmp_path)


def _nobody_may_look(entry, real=_is_folder):
    class Closed:
        def is_dir(self):
            raise PermissionError(13, "Permission denied")

    return real(Closed() if entry.name == "link" else entry)


def test_what_knowhue_writes_beside_images_is_passed_over_in_silence(tmp_path):
    for name in ("a.png", LEDGER, "other.jsonl"):
        (tmp_path / name).write_bytes(b"")
    found = {each.path.name: each.skipped for each in walk(tmp_path)}
    assert found == {"a.png": "", "other.jsonl": "of another type (.jsonl)"}


@pytest.mark.parametrize("ledger", [LEDGER, f"{LEDGERS}/000003.jsonl"])
def test_computed_colours_are_no_source_unless_their_folder_is_named_and_originals_beside_them_are(
    tmp_path, ledger
):
    put(tmp_path, "a.jpg", "colours/original.jpg", "colours/b.jpg", "colours/c/d.jpg", f"colours/{ledger}")
    lines = [json.dumps({"path": "x", "output": name}) for name in ("b.jpg", "c/d.jpg")]
    (tmp_path / "colours" / ledger).write_text("\n".join(["torn", *lines, '["another"]', '{"path": 1}']))
    assert images(tmp_path) == {"a.jpg", "colours/original.jpg"}
    found = skipped(tmp_path)
    assert found["colours/b.jpg"] == found["colours/c/d.jpg"] == "coloured by knowhue"
    assert images(tmp_path / "colours") == {"original.jpg", "b.jpg", "c/d.jpg"}
    assert len([path for path, why in walk(tmp_path, with_coloured=True) if not why]) == 4
