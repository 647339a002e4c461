"""No command replaces an input, writes two outputs to one file, or replaces a file without --overwrite."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from knowhue.apps import use
from knowhue.inference.colorizer import Colorizer


@pytest.fixture(scope="session")
def built_in():
    return Colorizer.load()


@pytest.fixture
def place(tmp_path, monkeypatch, built_in):
    """The current folder: a photo, something precious, a folder; and a model that opens at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(use, "open_model", lambda *_: built_in)
    Image.fromarray(np.arange(12 * 20, dtype=np.uint8).reshape(12, 20)).save("p.png")
    (tmp_path / "there.png").write_bytes(b"precious")
    (tmp_path / "sub").mkdir()
    return tmp_path


@pytest.fixture
def sealed(place, monkeypatch):
    """The same, where opening a model is a fault: it should not come to that."""
    monkeypatch.setattr(use, "open_model", lambda *_: pytest.fail("the model was opened"))
    return place


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refuses(knowhue, folder, arguments, *said):
    """One line on standard error, code 2, and every file as it was."""
    before = contents(folder)
    code, out, err = knowhue("colorize", *arguments)
    lines = err.splitlines()
    assert code == 2, (out, err)
    assert contents(folder) == before
    assert [line for line in lines if line.startswith("knowhue: ")] == lines[-1:]
    assert [part for part in said if part not in lines[-1]] == []


def called_as_a_file(out):
    return f"`--out` should name a folder, because many files are written to it. Found `--out {out}`"


def link(folder, name="link.png"):
    (folder / name).symlink_to("p.png")
    return name


def hard(folder):
    os.link(folder / "p.png", folder / "hard.png")
    return "hard.png"


SPELLINGS = {
    "its name": lambda folder: "p.png",
    "its whole name": lambda folder: folder / "p.png",
    "a way round": lambda folder: "sub/../p.png",
    "a dot": lambda folder: "./p.png",
    "its folder": lambda folder: ".",
    "a link": link,
    "a link to a link": lambda folder: (
        (link(folder) and os.symlink("link.png", "second.png")) or "second.png"
    ),
    "a link to its folder": lambda folder: os.symlink(".", "here") or "here/p.png",
    "a hard link": hard,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("option", ["--out", "--uncertainty"])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_the_original_is_never_replaced(knowhue, sealed, spelling, option, overwrite):
    target = SPELLINGS[spelling](sealed)
    is_folder = (option, spelling) == ("--uncertainty", "its folder")  # a map has no name in it yet
    said = "should end in one of" if is_folder else "is an input, which is never replaced"
    refuses(knowhue, sealed, ["p.png", option, target, *overwrite], said)


def test_the_original_behind_a_link_is_never_replaced(knowhue, sealed):
    refuses(knowhue, sealed, [link(sealed), "-o", "p.png", "--overwrite"], "p.png is an input")


TWICE = {
    "one name": ("c.png", "c.png"),
    "another spelling": ("c.png", "./sub/../c.png"),
    "another case": ("c.png", "C.PNG"),
    "another form of an accent": ("\u00e9.png", "e\u0301.png"),
}


@pytest.mark.parametrize("case", TWICE)
def test_two_outputs_are_two_files(knowhue, sealed, case):
    out, uncertainty = TWICE[case]
    refuses(
        knowhue,
        sealed,
        ["p.png", "-o", out, "--uncertainty", uncertainty],
        "written twice, by --out and --unc",
    )


@pytest.mark.parametrize("option", ["--out", "--uncertainty"])
def test_what_exists_is_replaced_only_if_asked(knowhue, place, option):
    refuses(knowhue, place, ["p.png", option, "there.png"], "there.png already exists", "--overwrite")
    (place / "dangling.png").symlink_to("nowhere.png")
    refuses(knowhue, place, ["p.png", option, "dangling.png"], "dangling.png already exists")
    assert knowhue("colorize", "p.png", option, "there.png", "--overwrite")[0] == 0
    assert (place / "there.png").read_bytes() != b"precious"


def test_what_comes_while_it_is_coloured_is_not_replaced(knowhue, place, monkeypatch, built_in):
    def load(*_):
        (place / "c.png").write_bytes(b"precious")
        return built_in

    monkeypatch.setattr(use, "open_model", load)
    code, _, err = knowhue("colorize", "p.png", "-o", "c.png")
    assert (code, "c.png already exists" in err) == (2, True)
    assert (place / "c.png").read_bytes() == b"precious"


def test_a_folder_that_is_named_as_one_is_made_for_a_single_photo(knowhue, place):
    assert knowhue("colorize", "p.png", "-o", "new/deep/")[0] == 0
    assert (place / "new" / "deep" / "p.png").is_file()


def test_a_link_is_replaced_and_its_target_stays(knowhue, place):
    (place / "linked.png").symlink_to("there.png")
    assert knowhue("colorize", "p.png", "-o", "linked.png", "--overwrite")[0] == 0
    assert (place / "there.png").read_bytes() == b"precious"
    assert not (place / "linked.png").is_symlink()


UNWRITABLE = {
    "an unknown suffix": (["p.png", "-o", "c.xyz"], "should end in one of .jpg"),
    "no suffix": (["p.png", "-o", "c"], "no suffix"),
    "a video of a photo": (["p.png", "-o", "c.mp4"], "should end in one of .jpg"),
    "a map of an unknown suffix": (
        ["p.png", "-o", "c.png", "--uncertainty", "u.bmp"],
        "should end in one of .jpg",
    ),
    "a map that is a folder": (["p.png", "-o", "c.png", "--uncertainty", "dir.png"], "is a folder"),
    "below a file": (
        ["p.png", "-o", "there.png/c.png"],
        "there.png` is a file, not a folder. Name another folder with --out",
    ),
    "far below a file": (
        ["p.png", "-o", "there.png/a/b/c.png"],
        "there.png` is a file, not a folder. Name another folder with --out",
    ),
    "a file for a folder of one photo": (
        ["p.png", "-o", "there.png/"],
        "`--out` should name a folder, because it ends in a slash. Found `--out there.png/`, the name of a file. "
        "Leave the",
    ),
    "a device": (["p.png", "-o", "device.png", "--overwrite"], "is a device, a pipe or a socket"),
    "a long name": (["p.png", "-o", "c" * 300 + ".png"], "File name too long. Name another file with --out"),
    "an image for a folder": (
        ["sub", "-o", "nothere.jpg"],
        called_as_a_file("nothere.jpg"),
    ),
    "a video for a folder": (
        ["sub", "-o", "nothere.mkv"],
        called_as_a_file("nothere.mkv"),
    ),
    "a file for a folder": (
        ["sub", "-o", "there.png"],
        called_as_a_file("there.png"),
    ),
    "an image for an archive": (
        ["sub", "--shards", "2", "-o", "nothere.jpg"],
        called_as_a_file("nothere.jpg"),
    ),
    "a file for an archive": (
        ["sub", "--shards", "2", "-o", "there.png"],
        called_as_a_file("there.png"),
    ),
    "an image for a bucket": (
        ["s3://bucket/photos", "-o", "nothere.jpg"],
        called_as_a_file("nothere.jpg"),
    ),
    "a file's name for a folder": (
        ["sub", "-o", "nothere.zip"],
        "Found `--out nothere.zip`, the name of a file",
    ),
    "a folder below a file": (
        ["sub", "-o", "there.png/out"],
        "there.png` is a file, not a folder. Name another",
    ),
    "a folder of the system": (
        ["sub", "-o", "/proc/x"],
        "Cannot write `/proc/x`: `/proc` takes no files. Name another folder with --out.",
    ),
    "a long name far below": (
        ["p.png", "-o", f"x/{'c' * 300}.png"],
        "File name too long. Name another file with --out",
    ),
    "a folder of a long name": (["sub", "-o", "c" * 300], "File name too long. Name another folder"),
    "a folder of a long name far below": (["sub", "-o", f"x/{'c' * 300}"], "too long. Name another folder"),
    "a photo for a video": (["clip.mp4", "-o", "c.png"], "should end in one of .mp4"),
    "a video as it is": (["clip.mp4", "-o", "clip.mp4", "--overwrite"], "is an input"),
    "a video that exists": (["clip.mp4", "-o", "other.mp4"], "already exists"),
    "a map of a video": (["clip.mp4", "--uncertainty", "u.png"], "clip.mp4 is a video"),
    "a pipe": (["pipe.png"], "pipe.png: a device or a pipe"),
    "standard input": (["-"], "-: standard input is not read; save the image as a file first"),
    "a pipe of a video": (["pipe.mp4"], "pipe.mp4: a device or a pipe"),
    "a loop": (["loop.png"], "loop.png: too many levels of symbolic links"),
    "a long side": (["long.png", "-o", "c.webp"], "16,383 pixels per side"),
    "a wrong hint": (["p.png", "-o", "c.png", "--hint", "900,1=red"], "900"),
}


@pytest.mark.parametrize("case", UNWRITABLE)
def test_what_cannot_be_written_is_said_before_a_model_is_opened(knowhue, sealed, case):
    (sealed / "dir.png").mkdir()
    (sealed / "clip.mp4").write_bytes(b"video")
    (sealed / "other.mp4").write_bytes(b"video")
    for name in ("device.png", "pipe.png", "pipe.mp4"):
        os.mkfifo(sealed / name)
    (sealed / "loop.png").symlink_to("loop.png")
    Image.fromarray(np.zeros((1, 16_400), np.uint8)).save("long.png")
    arguments, said = UNWRITABLE[case]
    refuses(knowhue, sealed, arguments, said)


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".ppm", ".jp2", ".BMP"])
def test_a_format_that_can_only_be_read_becomes_png_in_one_line(knowhue, place, suffix):
    with Image.open("p.png") as photo:
        photo.save(f"photo{suffix}")
    code, said, err = knowhue("colorize", f"photo{suffix}")
    assert (code, (place / "photo-colour.png").exists()) == (0, True)
    assert f"{suffix} can be read but not written; writing photo-colour.png" in err
    assert "photo-colour.png" in said
    code, _, err = knowhue("colorize", f"photo{suffix}", "-o", "sub")
    assert (code, (place / "sub" / "photo.png").exists()) == (0, True)
    assert "not written; writing photo.png" in err
    # a name or a format that the user requested
    for asked in (["-o", "sub/other.png"], ["--layers"]):
        code, _, err = knowhue("colorize", f"photo{suffix}", *asked)
        assert (code, "not written" in err) == (0, False)


@pytest.mark.parametrize("suffix", [".avi", ".mpg", ".ts", ".wmv"])
def test_a_video_that_can_only_be_read_becomes_mkv(knowhue, sealed, suffix):
    (sealed / f"clip{suffix}").write_bytes(b"video")
    (sealed / "clip-colour.mkv").write_bytes(b"precious")
    refuses(knowhue, sealed, [f"clip{suffix}"], "clip-colour.mkv already exists")


def test_without_out_a_folder_is_coloured_beside_itself(knowhue, place, monkeypatch):
    shutil.copy("p.png", "sub/p.png")
    monkeypatch.chdir(place / "sub")
    assert knowhue("colorize", ".")[0] == 0
    assert (place / "sub-colour" / "p.png").exists()
    code, _, err = knowhue("colorize", "/")
    assert (code, "name a folder for the coloured images" in err) == (2, True)


def test_what_was_made_of_an_image_is_left_alone_later(knowhue, place):
    for name in ("a.png", "b.bmp", "sea-colour.png"):
        with Image.open("p.png") as photo:
            photo.save(place / "sub" / name)
    for name in ("a.png", "b.bmp"):
        assert knowhue("colorize", f"sub/{name}")[0] == 0
    code, said, _ = knowhue("colorize", "sub", "-o", "out")
    assert code == 0
    assert sorted(path.name for path in (place / "out").glob("*.png")) == ["a.png", "b.png", "sea-colour.png"]
    assert "2 images left out, made by knowhue from images beside them: a-colour.png, b-colour.png" in said


def test_a_folder_never_replaces_an_original_by_any_link(knowhue, place):
    shutil.copy("p.png", "sub/p.png")
    (place / "out").mkdir()
    os.link("sub/p.png", "out/p.png")
    before = contents(place)
    code, _, err = knowhue("colorize", "sub", "-o", "out", "--overwrite")
    assert (code, "would replace an original" in err) == (2, True)
    assert contents(place) == before


EXPORTS = {"safetensors": "m.safetensors", "hub-folder": "m", "onnx": "m.onnx"}


@pytest.mark.parametrize("to", EXPORTS)
def test_an_export_is_replaced_only_if_asked(knowhue, tmp_path, monkeypatch, to):
    out = tmp_path / EXPORTS[to]
    precious = out / "README.md" if to == "hub-folder" else out
    precious.parent.mkdir(exist_ok=True)
    precious.write_bytes(b"precious")
    with monkeypatch.context() as sealing:
        sealing.setattr(
            "knowhue.inference.networks.open_torch",
            lambda _: pytest.fail("the model was opened"),
        )
        code, _, err = knowhue("export", "built-in", "--to", to, "-o", out)
    assert (code, f"{precious.name} already exists" in err, "--overwrite" in err) == (2, True, True)
    assert precious.read_bytes() == b"precious"
    if to != "onnx":
        assert knowhue("export", "built-in", "--to", to, "-o", out, "--overwrite")[0] == 0
        assert precious.read_bytes() != b"precious"


def test_an_export_replaces_neither_its_source_nor_a_run(knowhue, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert knowhue("export", "built-in", "-o", "m.safetensors")[0] == 0
    assert knowhue("export", "built-in", "--to", "hub-folder", "-o", "hub")[0] == 0
    run = tmp_path / "run"
    run.mkdir()
    (run / "status.json").write_text("{}")
    (run / "model.safetensors").write_bytes(b"weights")
    before = contents(tmp_path)
    for arguments, said in [
        (["m.safetensors", "-o", "m.safetensors"], "is an input"),
        (["hub", "-o", "hub/model.safetensors"], "is an input"),
        (["hub", "--to", "hub-folder", "-o", "hub"], "is an input"),
        (["built-in", "-o", "run/model.safetensors"], "in the folder of a run or a study"),
        (["built-in", "--to", "hub-folder", "-o", "run"], "holds a run or a study"),
        (["built-in", "--to", "hub-folder", "-o", "m.safetensors"], "m.safetensors`, the name of a file"),
    ]:
        code, _, err = knowhue("export", *arguments, "--overwrite")
        assert (code, said in err) == (2, True), err
    assert contents(tmp_path) == before


def test_json_names_what_was_written(knowhue, place):
    _, said, _ = knowhue("colorize", "p.png", "-o", "c.png", "--uncertainty", "u.png", "--json")
    record = json.loads(said)
    assert (record["output"], record["uncertainty"]["map"]) == ("c.png", "u.png")
    assert (place / "c.png").exists()
    assert (place / "u.png").exists()


def test_a_folder_that_cannot_be_is_refused_before_anything_is_loaded(make_folder, tmp_path):
    code = """
import sys
from knowhue.apps.program import main

photos, *folders = sys.argv[1:]
for out in folders:
    for command in ("study", "compare", "prepare", "train"):
        sys.argv = ["knowhue", command, photos, "--out", out]
        try:
            main()
        except SystemExit as end:
            assert end.code == 2
print("torch" in sys.modules)
"""
    (tmp_path / "small").touch()
    found = f"`{tmp_path / 'small'}` is a file, not a folder. Name another folder with --out."
    messages = {
        "small": f"Cannot write `{tmp_path / 'small'}`: {found}",
        "small/out": f"Cannot write `{tmp_path / 'small/out'}`: {found}",
        "small.jpg": "`--out` should name a folder, because many files are written to it. "
        f"Found `--out {tmp_path / 'small.jpg'}`, "
        "the name of a file. Name a folder.",
    }
    command = [
        sys.executable,
        "-c",
        code,
        make_folder({"a": 2, "b": 2}),
        *(tmp_path / out for out in messages),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stderr == "".join(f"knowhue: {message}\n" * 4 for message in messages.values())
    assert run.stdout == "False\n"
