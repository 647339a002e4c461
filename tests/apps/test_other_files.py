"""A command that is given a file of another kind names the command for that file."""

import gzip
import tarfile
import zipfile

import pytest
from synthetic_study import write_own_scores, write_study

from knowhue.runs import BUILT_IN_FILE, path_hint
from knowhue.sealing import pack

SAID = {
    "sealed.zip": "It is a sealed study: `knowhue check ",
    "images.zip": "It is an archive: unpack it, and name the folder.",
    "images": "It is an archive: unpack it, and name the folder.",  # a ZIP without its suffix
    "images.tar": "It is an archive: unpack it, and name the folder.",
    "images.tar.gz": "It is an archive: unpack it, and name the folder.",
    "model.safetensors": "It is a model: `knowhue models ",
}
COMMANDS = (
    "report FILE",
    "report FILE --paper OUT",
    "report FILE --figures OUT",
    "status FILE",
    "pack FILE -o OUT.zip",
    "evaluate FILE",
    "log FILE --to tensorboard -o OUT",
    "export FILE --to table -o OUT.csv",
    "colorize FILE -o OUT.jpg",
    "plan FILE",
    "study FILE --out OUT",
    "prepare FILE --out OUT",
    "serve --study FILE --port 0",
    "score FILE --truth FOLDER",
    "score FOLDER --truth FILE",
    "verdict FILE",
)
OF_MODELS = ("models FILE", "export FILE -o OUT.onnx --to onnx", "colorize PHOTO --model FILE -o OUT.jpg")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_own_scores(study := write_study(folder / "study"))
    pack(study, folder / "sealed.zip")
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        archive.writestr("reef.jpg", b"")
    (folder / "images").symlink_to("images.zip")
    (folder / "reef.jpg").write_bytes(b"\xff\xd8")
    for name, mode in (("images.tar", "w"), ("images.tar.gz", "w:gz")):
        with tarfile.open(folder / name, mode) as archive:
            archive.add(folder / "reef.jpg", "reef.jpg")
    (folder / "model.safetensors").symlink_to(BUILT_IN_FILE)
    return folder


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("command", [*COMMANDS, *OF_MODELS])
def test_the_command_that_takes_a_file_is_named(knowhue, files, make_folder, tmp_path, command, name):
    if name == "model.safetensors" and command in OF_MODELS:
        assert knowhue("models", files / name)[0] == 0
        return
    photos = make_folder({"cat": 1})
    places = {
        "FILE": files / name, "FOLDER": photos, "PHOTO": next(photos.rglob("*.png")), "OUT": tmp_path / "out",
    }  # fmt: skip
    words = [str(places.get(each, each)).replace("OUT", str(tmp_path / "out")) for each in command.split()]
    code, _, err = knowhue(*words)
    assert code == 2
    assert SAID[name] in err
    assert err.count("\n") == 1
    assert not [*tmp_path.glob("out*")]


def test_a_photo_is_one_whatever_its_name_says(knowhue, make_folder, tmp_path):
    photo = next(make_folder({"cat": 1}).rglob("*.png"))
    for name in ("photo.zip", "photo.onnx"):
        (tmp_path / name).write_bytes(photo.read_bytes())
        assert knowhue("colorize", tmp_path / name, "-o", tmp_path / f"{name}.png")[0] == 0


def test_a_model_and_images_are_no_sealed_study(knowhue, files):
    code, _, err = knowhue("check", files / "model.safetensors")
    assert (code, SAID["model.safetensors"] in err) == (2, True)
    code, _, err = knowhue("check", files / "images.zip")
    assert (code, "not a sealed study" in err) == (2, True)


def test_of_what_is_missing_or_damaged_nothing_is_said(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "folder.zip").mkdir()
    for name in ("torn.zip", "torn.tar", "torn.gz"):
        (tmp_path / name).write_bytes(b"no archive")
    (tmp_path / "short.gz").write_bytes(gzip.compress(bytes(range(256)))[:40])
    for name in (
        "a.txt",
        "folder.zip",
        "torn.zip",
        "torn.tar",
        "torn.gz",
        "short.gz",
        "none.zip",
        "none.onnx",
    ):
        assert path_hint(tmp_path / name) == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_system_cannot_find_is_refused_in_one_line(knowhue, make_folder, tmp_path, command):
    (tmp_path / "loop").symlink_to("loop")
    photos = make_folder({"cat": 1})
    for wrong in (tmp_path / "loop", tmp_path / ("long" * 100)):
        out = str(tmp_path / "out")
        words = [{"FILE": wrong, "FOLDER": photos}.get(each, each) for each in command.split()]
        code, _, err = knowhue(*(str(each).replace("OUT", out) for each in words))
        assert (code, err.count("\n"), err.startswith("knowhue: ")) == (2, 1, True)
