"""`knowhue colorize` and `knowhue models`: first steps of a new user, and errors."""

import builtins
import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab
from tiny_third_party import painted

from knowhue.apps.serve import ServeArguments, serve_command
from knowhue.errors import ExtraError
from knowhue.inference import listing, store
from knowhue.inference.colour_distribution import MOST_ANSWERS
from knowhue.inference.networks import open_network
from knowhue.presets import arm_config, load_config
from knowhue.runs import RUN_SCHEMA
from knowhue.storage import write_json

CASES = {".jpg": 4.0, ".png": 0.5, ".tif": 0.5}  # JPEG adds its own error


@pytest.fixture
def photo(tmp_path):
    """A gray ramp with a disc, 60 x 90."""
    rows, columns = np.mgrid[:60, :90]
    gray = np.where((rows - 30) ** 2 + (columns - 40) ** 2 < 200, 200, 40 + columns).astype(np.uint8)

    def make(name="photo.png"):
        Image.fromarray(gray).save(tmp_path / name, quality=98)
        return tmp_path / name

    return make


def lightness(path):
    return rgb2lab(np.asarray(Image.open(path).convert("RGB")))[..., 0]


@pytest.mark.parametrize("suffix", CASES)
def test_colours_one_image_and_says_what_it_did(knowhue, photo, tmp_path, suffix):
    out = tmp_path / f"colour{suffix}"
    code, said, _ = knowhue("colorize", photo(), "-o", out)
    assert code == 0
    assert "class:" in said
    assert "model: built-in" in said
    assert np.asarray(Image.open(out)).shape == (60, 90, 3)
    assert np.abs(lightness(out) - lightness(photo())).max() <= CASES[suffix]


def test_without_out_it_writes_beside_the_image(knowhue, photo):
    source = photo()
    knowhue("colorize", source)
    assert source.with_name("photo-colour.png").exists()


def test_what_was_done_fast_is_told_and_written_into_the_file(knowhue, photo, tmp_path):
    _, said, _ = knowhue("colorize", photo(), "-o", tmp_path / "fast.jpg", "--fast")
    assert said.endswith("  model: built-in, at one size (--fast)\n")
    assert b"Knowhue, model built-in, at one size (--fast)" in (tmp_path / "fast.jpg").read_bytes()
    _, said, _ = knowhue("colorize", photo(), "-o", tmp_path / "usual.jpg", "--json")
    assert json.loads(said)["fast"] is False
    assert b"--fast" not in (tmp_path / "usual.jpg").read_bytes()


def test_json_is_one_line(knowhue, photo, tmp_path):
    _, said, _ = knowhue("colorize", photo(), "-o", tmp_path / "c.png", "--json")
    record = json.loads(said)
    assert record["output"] == str(tmp_path / "c.png")
    assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert record["chroma"] > 0


def test_a_hint_changes_the_colour_where_it_is(knowhue, photo, tmp_path):
    plain, hinted = tmp_path / "plain.png", tmp_path / "hinted.png"
    knowhue("colorize", photo(), "-o", plain)
    knowhue("colorize", photo(), "-o", hinted, "--hint", "40,30=#c03030")
    plain, hinted = (rgb2lab(np.asarray(Image.open(path))) for path in (plain, hinted))
    wanted = rgb2lab(np.array([[[0xC0, 0x30, 0x30]]], np.uint8))[0, 0, 1:]
    assert np.abs(hinted[30, 40, 1:] - wanted).max() < np.abs(plain[30, 40, 1:] - wanted).max()
    assert hinted[30, 40, 1] > 20  # as red as sRGB is at this lightness


def test_a_table_of_hints_is_as_many_hints(knowhue, photo, tmp_path):
    table = tmp_path / "hints.csv"
    table.write_text("file,x,y,colour\nphoto.png,40,30,#c03030\nphoto.png,80,5,blue\nother.png,1,1,red\n")
    given = ("--hint", "40,30=#c03030", "--hint", "80,5=blue")
    assert knowhue("colorize", photo(), "-o", tmp_path / "a.png", "--hints", table)[0] == 0
    assert knowhue("colorize", photo(), "-o", tmp_path / "b.png", *given)[0] == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    code, _, err = knowhue("colorize", photo("third.png"), "--hints", table)
    assert (code, "no hint for third.png; its column `file` names photo.png, other.png" in err) == (2, True)
    _, _, err = knowhue("colorize", photo("othr.png"), "--hints", table)
    assert "Write othr.png there, or leave the column out" in err
    _, _, err = knowhue("colorize", photo(), "--on-error", "sotp")
    assert "'sotp' is not one of 'skip', 'stop'. Did you mean `stop`?" in " ".join(
        err.replace("│", " ").split()
    )
    assert "Value error" not in err


def test_a_table_of_hints_serves_a_folder(knowhue, photo, tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    photo("in/deep/a.png")
    photo("in/b.png")
    photo("in/a.png")  # another image than deep/a.png
    table = tmp_path / "hints.csv"
    table.write_text("file,x,y,colour\na.png,40,30,blue\ndeep/a.png,40,30,#c03030\n")
    assert knowhue("colorize", tmp_path / "in", "-o", tmp_path / "out", "--hints", table)[0] == 0
    assert knowhue("colorize", tmp_path / "in/deep/a.png", "-o", tmp_path / "a.png", "--hints", table)[0] == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "out/deep/a.png").read_bytes()
    table.write_text("file,x,y,colour\nc.png,40,30,#c03030\n")
    code, _, err = knowhue("colorize", tmp_path / "in", "-o", tmp_path / "out", "--hints", table)
    assert (code, "Found `c.png`" in err) == (2, True)
    table.write_text("file,x,y,colour\nb.png,1200,30,red\n")
    code, _, err = knowhue("colorize", tmp_path / "in", "-o", tmp_path / "new", "--hints", table)
    words = f"b.png: {table}, row 2: A hint should lie in the image, 0 to 89 pixels. Found `1200`"
    assert (code, words in err, (tmp_path / "new").exists()) == (2, True, False)


def test_a_folder_is_listed_once_and_its_hints_are_checked_once_and_before_the_model(
    knowhue, photo, tmp_path, monkeypatch
):
    listed = []
    own = store.walk
    monkeypatch.setattr(
        store, "walk", lambda *given, **options: listed.append(given) or own(*given, **options)
    )
    (tmp_path / "in").mkdir()
    photo("in/a.png")
    assert knowhue("colorize", tmp_path / "in", "-o", tmp_path / "out")[0] == 0
    assert len(listed) == 1
    checked = []
    require = listing.match_hints
    monkeypatch.setattr(listing, "match_hints", lambda *given: checked.append(given) or require(*given))
    (tmp_path / "hints.csv").write_text("file,x,y,colour\na.png,40,30,red\n")
    table = ("--hints", tmp_path / "hints.csv")
    assert knowhue("colorize", tmp_path / "in", "-o", tmp_path / "out", *table)[0] == 0
    assert (len(listed), len(checked)) == (2, 1)
    (tmp_path / "hints.csv").write_text("file,x,y,colour\na.png,40,30,rde\nb.png,1,1,red\n")
    given = (*table, "--model", tmp_path / "none.onnx")
    code, _, err = knowhue("colorize", tmp_path / "in", "-o", tmp_path / "out", *given)
    assert (code, "row 2: A hint should name" in err, "Found `b.png`" in err) == (2, True, True)


def test_a_reference_gives_its_colours_to_a_photo_and_to_a_folder(knowhue, photo, tmp_path):
    gray = np.asarray(Image.open(photo()))
    red = np.stack([gray // 2 + 100, gray // 2, gray // 2], -1).astype(np.uint8)
    Image.fromarray(red).save(tmp_path / "red.png")
    arguments = ("--reference", tmp_path / "red.png", "-o")
    code, said, _ = knowhue("colorize", photo(), *arguments, tmp_path / "c.png")
    assert code == 0
    assert re.search(r"found in the reference: (9\d|100) % of the photo", said)
    found, wanted = (
        rgb2lab(np.asarray(Image.open(tmp_path / name)))[..., 1:] for name in ("c.png", "red.png")
    )
    assert np.abs(found - wanted).mean() < 8  # of about 30
    (tmp_path / "in").mkdir()
    photo("in/photo.png")
    assert knowhue("colorize", tmp_path / "in", *arguments, tmp_path / "out")[0] == 0
    assert (tmp_path / "out/photo.png").read_bytes() == (tmp_path / "c.png").read_bytes()


def test_one_look_for_a_folder_and_for_nothing_else(knowhue, photo, tmp_path):
    (tmp_path / "in").mkdir()
    photo("in/a.png")
    Image.fromarray(np.full((60, 90), 90, np.uint8)).save(tmp_path / "in/b.png")
    assert knowhue("colorize", tmp_path / "in", "-o", tmp_path / "out", "--album")[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "out/colorized.jsonl").read_text().splitlines()]
    assert {line["path"] for line in lines if "own" in line["album"]} == {"a.png", "b.png"}
    code, _, err = knowhue("colorize", photo(), "-o", tmp_path / "c.png", "--album")
    assert (code, "`--album` applies to a folder" in err) == (2, True)


def test_what_is_no_reference_is_refused_in_one_line(knowhue, photo, tmp_path):
    (tmp_path / "text.jpg").write_text("no photo")
    for name, words in (
        ("text.jpg", "text.jpg"),
        ("nowhere.jpg", "nowhere.jpg: no such file"),
        ("photo.png", "photo.png has no colours to take; name a colour photo"),
    ):
        source = photo()
        code, _, err = knowhue("colorize", source, "-o", tmp_path / "c.jpg", "--reference", tmp_path / name)
        assert (code, words in err.splitlines()[-1]) == (2, True)
        assert not (tmp_path / "c.jpg").exists()


def test_strokes_are_met_where_they_were_painted(knowhue, photo, tmp_path):
    strokes = Image.new("RGBA", (90, 60))
    strokes.paste((190, 60, 60, 255), (30, 25, 50, 30))
    strokes.save(tmp_path / "strokes.png")
    arguments = ("colorize", photo(), "--strokes", tmp_path / "strokes.png", "-o")
    assert knowhue(*arguments, tmp_path / "c.png")[0] == 0
    wanted = rgb2lab(np.array([[[190, 60, 60]]], np.uint8))[0, 0, 1:]
    found = rgb2lab(np.asarray(Image.open(tmp_path / "c.png")))[26:29, 32:48, 1:]
    hue = np.arctan2(found[..., 1], found[..., 0])
    assert (
        np.abs(hue - np.arctan2(wanted[1], wanted[0])).max() < 0.1
    )  # as much of it as sRGB has at that lightness
    code, _, err = knowhue(*arguments, tmp_path / "strokes.png", "--overwrite")
    assert (code, "strokes.png" in err) == (2, True)


def test_saturation_0_is_the_gray_image(knowhue, photo, tmp_path):
    knowhue("colorize", photo(), "-o", tmp_path / "c.png", "--saturation", "0")
    gray = np.asarray(Image.open(photo()))
    assert (np.asarray(Image.open(tmp_path / "c.png")) == gray[..., None]).all()


def test_the_uncertainty_map_has_the_images_size(knowhue, photo, tmp_path):
    _, said, _ = knowhue("colorize", photo(), "-o", tmp_path / "c.png", "--uncertainty", tmp_path / "u.png")
    unsure = np.asarray(Image.open(tmp_path / "u.png"))
    assert unsure.shape == (60, 90)
    assert unsure.std() > 0
    assert "uncertainty" in said


def test_samples_are_different_answers_the_first_the_usual_one_and_the_same_each_time(
    knowhue, photo, tmp_path
):
    source, out = photo(), tmp_path / "c.png"
    knowhue("colorize", source, "-o", tmp_path / "usual.png")
    code, said, _ = knowhue(
        "colorize", source, "-o", out, "--samples", 3, "--uncertainty", tmp_path / "u.png"
    )
    files = [tmp_path / f"c-{number}.png" for number in (1, 2, 3)]
    made = [each.read_bytes() for each in files]
    assert code == 0
    assert len({*made}) == 3
    assert made[0] == (tmp_path / "usual.png").read_bytes()
    assert all(str(each) in said for each in files)
    assert said.count("model: built-in") == said.count("uncertainty") == 1
    assert all(np.abs(lightness(each) - lightness(source)).max() <= CASES[".png"] for each in files)
    code, said, _ = knowhue("colorize", source, "-o", out, "--samples", 3, "--json", "--overwrite")
    assert [each.read_bytes() for each in files] == made
    assert [json.loads(line)["output"] for line in said.splitlines()] == [str(each) for each in files]


def test_one_sample_is_named_as_any_output(knowhue, photo, tmp_path):
    knowhue("colorize", photo(), "-o", tmp_path / "c.png", "--samples", 1)
    assert (tmp_path / "c.png").exists()


def test_samples_that_are_all_the_same_are_said_to_be(knowhue, photo, tmp_path):
    source, out = photo(), tmp_path / "c.png"
    same = (
        "the same as sample 1: samples do not differ where the model is sure, the photo is black or white, or "
        "reference, hints, strokes or saturation decide"
    )
    code, said, _ = knowhue("colorize", source, "-o", out, "--samples", 3, "--saturation", 0)
    assert (code, said.count(f"  note: {same}")) == (0, 1)
    Image.new("L", (32, 32)).save(tmp_path / "black.png")
    _, said, _ = knowhue("colorize", tmp_path / "black.png", "-o", tmp_path / "d.png", "--samples", 2)
    assert said.count(f"  note: {same}") == 1
    gray = np.asarray(Image.open(source))
    Image.fromarray(np.stack([gray // 2 + 100, gray // 2, gray // 2], -1).astype(np.uint8)).save(
        tmp_path / "red.png"
    )
    again = ("--reference", tmp_path / "red.png", "--json", "--overwrite")
    code, said, _ = knowhue("colorize", source, "-o", out, "--samples", 3, *again)
    files = [Image.open(tmp_path / f"c-{number}.png").tobytes() for number in (1, 2, 3)]
    records = [json.loads(line) for line in said.splitlines()]
    assert [same in each["warnings"] for each in records] == [
        False,
        files[1] == files[0],
        files[2] == files[0],
    ]


def test_nothing_is_written_where_one_of_the_samples_is_in_the_way(knowhue, photo, tmp_path):
    (tmp_path / "c-2.png").write_bytes(b"mine")
    code, _, err = knowhue("colorize", photo(), "-o", tmp_path / "c.png", "--samples", 2)
    assert (code, (tmp_path / "c-2.png").read_bytes()) == (2, b"mine")
    assert "c-2.png already exists" in err
    assert not (tmp_path / "c-1.png").exists()


def test_samples_are_of_a_single_image(knowhue, photo, tmp_path):
    photo()
    code, _, err = knowhue("colorize", tmp_path, "--samples", 2)
    assert code == 2
    assert "`--samples` applies to an image;" in err


def layers_in(path):
    with zipfile.ZipFile(path) as archive:
        return [
            np.asarray(Image.open(io.BytesIO(archive.read(f"data/{name}.png"))))
            for name in ("photo", "colour")
        ]


def test_layers_are_the_gray_photo_and_its_colours(knowhue, photo, tmp_path):
    source = photo()
    assert knowhue("colorize", source, "--layers")[0] == 0
    assert knowhue("colorize", source, "-o", tmp_path / "plain.png")[0] == 0
    below, above = layers_in(tmp_path / "photo-colour.ora")
    assert (below == np.asarray(Image.open(source))[..., None]).all()
    assert (above == np.asarray(Image.open(tmp_path / "plain.png"))).all()


def test_the_suffix_alone_asks_for_layers_too(knowhue, photo, tmp_path):
    assert knowhue("colorize", photo(), "-o", tmp_path / "c.ora")[0] == 0
    assert layers_in(tmp_path / "c.ora")[0].shape == (60, 90, 3)


def test_layers_of_a_folder_are_made_once(knowhue, photo, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("photos/a.png", "photos/b.jpg"):
        photo(name)
    code, said, _ = knowhue("colorize", tmp_path / "photos", "--layers")
    assert (code, "2 images coloured" in said) == (0, True)
    assert layers_in(tmp_path / "photos-colour/b.ora")[1].shape == (60, 90, 3)
    assert "already done: 2" in knowhue("colorize", tmp_path / "photos", "--layers")[1]
    code, _, err = knowhue("colorize", tmp_path / "photos")
    assert (code, "another format" in err) == (2, True)


def test_layers_are_written_as_openraster_alone_and_not_of_videos(knowhue, photo, tmp_path):
    code, _, err = knowhue("colorize", photo(), "--layers", "-o", tmp_path / "c.png")
    assert (code, "--out should end in .ora" in err) == (2, True)
    (tmp_path / "video.mp4").touch()
    code, _, err = knowhue("colorize", tmp_path / "video.mp4", "--layers")
    assert (code, "`--layers` applies to an image or a folder or an archive" in err) == (2, True)


def test_nothing_is_replaced_unless_asked(knowhue, photo, tmp_path):
    out = tmp_path / "c.png"
    out.write_bytes(b"precious")
    code, _, err = knowhue("colorize", photo(), "-o", out)
    assert (code, out.read_bytes()) == (2, b"precious")
    assert "--overwrite" in err
    assert knowhue("colorize", photo(), "-o", out, "--overwrite")[0] == 0
    assert out.read_bytes() != b"precious"


def broken(tmp_path, photo):
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.png").touch()
    return {
        "missing": ([tmp_path / "none.jpg"], "none.jpg: no such file or directory"),
        "text": ([tmp_path / "text.jpg"], "text.jpg: it is none of JPEG"),
        "empty": ([tmp_path / "empty.png"], "empty"),
        "suffix": ([photo(), "-o", tmp_path / "c.xyz"], ".png"),
        "model": ([photo(), "-o", tmp_path / "c.png", "--model", tmp_path / "none"], "Found no"),
        "no model": ([photo(), "-o", tmp_path / "c.png", "--model", tmp_path], "knowhue study"),
        "hint": ([photo(), "-o", tmp_path / "c.png", "--hint", "nonsense"], "hint"),
        "outside": ([photo(), "-o", tmp_path / "c.png", "--hint", "900,1=red"], "900"),
        "threshold": ([photo(), "-o", tmp_path / "c.png", "--unknown-below", "2"], "unknown-below"),
        "samples": ([photo(), "-o", tmp_path / "c.png", "--samples", MOST_ANSWERS + 1], f"{MOST_ANSWERS}"),
    }


@pytest.mark.parametrize(
    "case",
    ["missing", "text", "empty", "suffix", "model", "no model", "hint", "outside", "threshold", "samples"],
)
def test_what_is_wrong_is_said_in_one_line(knowhue, photo, tmp_path, case):
    arguments, said = broken(tmp_path, photo)[case]
    code, _, err = knowhue("colorize", *arguments)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "c.png").exists()


def test_a_folder_is_coloured_and_listed(knowhue, photo, tmp_path):
    for name in ("a.png", "b.jpg"):
        photo(name)
    source = tmp_path / "photos"
    source.mkdir()
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).rename(source / name)
    (source / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    code, said, _ = knowhue("colorize", source, "-o", tmp_path / "out")
    assert code == 1
    assert "broken.jpg" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"a.png", "b.jpg"}


def test_models_says_what_the_built_in_model_is(knowhue):
    code, said, _ = knowhue("models")
    assert code == 0
    for part in ("built-in", "portrait", "9,455 images", "temperature", "research use"):
        assert part in said
    assert re.search(
        r"Mean absolute error of a\*b\*: 10.\d+ CIELAB units \[[\d.]+ to [\d.]+\] \(lower is better\)", said
    )
    assert re.search(r"Accuracy: 69.8 % \[[\d.]+ % to [\d.]+ %\] \(higher is better\)", said)


WATCHED = """
import sys

class Watch:
    def find_spec(self, name, *_):
        if name == "onnxruntime":
            print("now onnxruntime is imported", file=sys.stderr)

sys.meta_path.insert(0, Watch())
from knowhue.apps.program import main
main()
"""


def test_a_line_is_printed_before_anything_heavy_is_imported(photo, tmp_path):
    command = [sys.executable, "-c", WATCHED, "colorize", str(photo()), "-o", str(tmp_path / "c.png")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    assert lines[0] == "Opening built-in ..."
    assert "now onnxruntime is imported" in lines[1:]


def test_a_run_is_made_ready_in_words_that_fit_every_model(knowhue, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("knowhue.apps.models.needs_deployment", lambda _: "runs/a/colour/seed-0")
    monkeypatch.setattr("knowhue.training.deploy.deploy", lambda _: None)
    monkeypatch.setattr("knowhue.training.deploy.require_deployable", lambda *_: None)
    code, _, err = knowhue("colorize", photo(), "-o", tmp_path / "c.png")
    assert code == 0
    assert "Making runs/a/colour/seed-0 ready for use; this is done once." in err
    assert "class" not in err


def test_an_image_unlike_the_training_images_gets_no_class_and_the_caveat_first(knowhue, tmp_path):
    side = np.arange(96) // 4
    Image.fromarray(((side[:, None] + side) % 2 * 255).astype(np.uint8)).save(tmp_path / "squares.png")
    code, said, _ = knowhue("colorize", tmp_path / "squares.png", "-o", tmp_path / "c.png")
    lines = said.splitlines()
    assert code == 0
    assert lines[1].startswith("  note: unlike the images that the model was trained on")
    assert "  class: unknown" in lines
    assert not [name for name in open_network().description.classes if name in said]
    _, said, _ = knowhue(
        "colorize", tmp_path / "squares.png", "-o", tmp_path / "c.png", "--overwrite", "--json"
    )
    record = json.loads(said)
    assert (record["label"], record["warnings"][0][:6]) == ("unknown", "unlike")


def test_gray_that_was_asked_for_is_not_called_a_failure(knowhue, photo, tmp_path):
    _, said, _ = knowhue("colorize", photo(), "-o", tmp_path / "c.png", "--saturation", "0")
    assert "nearly gray" not in said


@pytest.mark.parametrize(
    ("name", "content"), [("study.yaml", b"arms: [multi]"), ("photo.bmp", b"none"), ("video.avi", b"none")]
)
def test_a_new_name_is_promised_only_of_what_was_recognised(knowhue, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    code, _, err = knowhue("colorize", tmp_path / name)
    assert code == 2
    assert "is made" not in err
    assert "Opening" not in err


def test_a_new_name_is_said_of_an_image_that_can_only_be_read(knowhue, photo):
    _, _, err = knowhue("colorize", photo("photo.bmp"))
    assert ".bmp can be read but not written; writing photo-colour.png" in err


def test_what_is_wrong_with_the_input_is_said_before_a_model_is_opened(knowhue, photo, tmp_path):
    album = tmp_path / "album"
    album.mkdir()
    for name in ("p1.gif", "p1.png"):
        photo(name).rename(album / name)
    for arguments in ([photo(), "--hint", "nonsense"], [photo(), "--hint", "900,1=red"], [album]):
        code, _, err = knowhue("colorize", *arguments)
        assert code == 2
        assert len(err.splitlines()) == 1


def test_a_folder_says_what_was_left_out_and_what_a_link_to_nothing_is(knowhue, photo, tmp_path):
    album = tmp_path / "album"
    album.mkdir()
    photo("a.png").rename(album / "a.png")
    for name in ("._a.png", ".hidden", "notes.txt", "a.svg"):
        (album / name).touch()
    (album / "above").symlink_to(tmp_path)
    (album / "gone.png").symlink_to(tmp_path / "nowhere")
    _, said, _ = knowhue("colorize", album, "-o", tmp_path / "out")
    kinds = (
        "2 hidden, 1 of another type (.svg), 1 linking to a folder that contains it, 1 of another type (.txt)"
    )
    assert f"note: 5 other files left out: {kinds}" in said
    assert "gone.png: a broken link" in said
    code, _, err = knowhue("colorize", album / "gone.png")
    assert (code, "a broken link" in err) == (2, True)


@pytest.mark.parametrize(
    ("arm", "said"), [("class", "should have a colour head"), ("oracle", "of an oracle")]
)
def test_a_run_that_cannot_colour_is_refused_before_it_is_made_ready(knowhue, photo, tmp_path, arm, said):
    run = tmp_path / "study" / arm / "seed-0-1a2b3c4d"
    run.mkdir(parents=True)
    config = arm_config(load_config("demo"), arm).model_dump(mode="json", by_alias=True)
    write_json(run / "config.json", {**RUN_SCHEMA, **config})
    write_json(run / "status.json", {"state": "finished"})
    before = sorted(run.iterdir())
    code, _, err = knowhue("colorize", photo(), "--model", run)
    assert code == 2
    assert said in err
    assert "Making" not in err
    assert sorted(run.iterdir()) == before


def test_serving_says_a_line_before_the_work(knowhue, monkeypatch, tmp_path):
    """The first seconds are torch's and the model's: a line says so at once."""
    opened = []

    def open_model(path):
        opened.append(path)
        raise KeyboardInterrupt

    monkeypatch.setattr("knowhue.apps.serve.open_model", open_model)
    (tmp_path / "there.onnx").touch()
    _, _, err = knowhue(
        "serve", "--port", 0, "--model", "built-in", "--model", f"old={tmp_path / 'there.onnx'}"
    )
    assert err.splitlines()[0] == f"Opening built-in, {tmp_path / 'there.onnx'} ..."
    assert [each.model for each in opened] == ["built-in"]


@pytest.mark.parametrize(
    "command",
    [("colorize", "{photo}", "--model"), ("export",), ("serve", "--model"), ("models",)],
    ids=lambda command: command[0],
)
def test_a_model_that_is_not_there_is_said_before_any_is_opened(knowhue, photo, command):
    code, said, err = knowhue(*(part.format(photo=photo()) for part in command), "nowhere")
    assert (code, said) == (2, "")
    (line,) = err.splitlines()
    typed = "--model" if "--model" in command else "model"  # an argument has no other name
    assert line.startswith(f"knowhue: `{typed}` should be `built-in`, the folder of a run or a study, ")
    assert line.endswith("Found no `nowhere`.")


@pytest.mark.parametrize("option", [("--host", "0.0.0.0"), ("--study", "nowhere"), ("--model", "=x")])
def test_what_cannot_be_served_is_said_alone(knowhue, option):
    code, _, err = knowhue("serve", *option)
    assert code == 2
    assert len(err.splitlines()) == 1


def failing(monkeypatch: pytest.MonkeyPatch, error: ImportError) -> None:
    """Importing the server fails."""
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "knowhue.serving.run":
            raise error
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_a_missing_package_is_named_with_the_command_that_brings_it(monkeypatch):
    failing(monkeypatch, ModuleNotFoundError("No module named 'fastapi.routing'", name="fastapi.routing"))
    with pytest.raises(ExtraError, match=r"needs `fastapi`, .* not installed: pip install -e '\.\[serve\]'"):
        serve_command(ServeArguments())


def test_a_package_of_another_version_is_not_called_missing(monkeypatch):
    failing(monkeypatch, ImportError("cannot import name 'FastAPI' from 'fastapi'", name="fastapi"))
    with pytest.raises(ExtraError, match=r"another version .*cannot import name 'FastAPI'") as raised:
        serve_command(ServeArguments())
    assert "not installed" not in str(raised.value)


@pytest.mark.parametrize("name", ["knowhue.serving.other", "knowhue", None])
@pytest.mark.parametrize("kind", [ImportError, ModuleNotFoundError])
def test_a_fault_of_our_own_is_not_blamed_on_an_extra(monkeypatch, kind, name):
    failing(monkeypatch, kind("cannot import name 'x'", name=name))
    with pytest.raises(kind, match="cannot import name 'x'") as raised:
        serve_command(ServeArguments())
    assert not isinstance(raised.value, ExtraError)


def test_a_reference_among_the_outputs_of_a_folder_is_not_replaced(knowhue, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for folder in ("in", "out"):
        Image.fromarray(np.full((8, 8), 99, np.uint8)).save(tmp_path / folder / "a.png")
    before = (tmp_path / "out" / "a.png").read_bytes()
    asked = (
        "colorize",
        tmp_path / "in",
        "--out",
        tmp_path / "out",
        "--reference",
        tmp_path / "out" / "a.png",
    )
    code, _, err = knowhue(*asked, "--overwrite")
    assert (code, "a.png would be replaced by a colouring" in err) == (2, True)
    assert (tmp_path / "out" / "a.png").read_bytes() == before


def test_anothers_model_is_named_with_its_checksum_and_does_no_more_than_it_can(knowhue, photo, tmp_path):
    model = painted(tmp_path / "other.onnx", "siggraph17", (20, 15))
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    other = ("--model", model, "--recipe", "siggraph17")
    code, said, _ = knowhue("colorize", photo(), "-o", tmp_path / "c.png", *other, "--sha256", digest)
    assert (code, said.splitlines()[-1]) == (0, f"  model: siggraph17 (SHA-256 {digest})")
    assert "class:" not in said
    assert f"model siggraph17 (SHA-256 {digest})".encode() in (tmp_path / "c.png").read_bytes()
    assert np.abs(lightness(tmp_path / "c.png") - lightness(photo())).max() <= 0.5
    _, said, _ = knowhue("colorize", photo(), "-o", tmp_path / "d.png", *other, "--json")
    assert json.loads(said)["model"] == f"siggraph17 (SHA-256 {digest})"
    made = sorted(tmp_path.iterdir())
    refused = {
        ("--hint", "1,1=red"): "`--hint` is more than the recipe `siggraph17` can do",
        ("--samples", "2"): "`--samples` is more than",
        ("--uncertainty", tmp_path / "map.png"): "`--uncertainty` is more than",
        ("--unknown-below", "0"): "it has no class",
        ("--reference", photo()): "`--reference` is more than",
        ("--sha256", "0" * 64): f"should have the SHA-256 {'0' * 64}. Found {digest}",
        ("--sha256", "12"): "`--sha256` should be 64 hex digits",
        ("--recipe", "sigraph17"): "Did you mean `siggraph17`?",
        ("--recipe", "ddcolor"): "as the recipe `ddcolor` does. Found input: float (1, 1, 256, 256)",
        ("--model", "built-in"): "a third-party .onnx file for the recipe `siggraph17`",
    }
    for options, words in refused.items():
        code, said, err = knowhue("colorize", photo(), "-o", tmp_path / "e.png", *other, *options)
        assert (code, said) == (2, "")
        assert words in err.splitlines()[-1]
    assert sorted(tmp_path.iterdir()) == made


def test_anothers_model_without_a_recipe_is_told_of_it(knowhue, photo, tmp_path):
    model = painted(tmp_path / "other.onnx", "siggraph17", (20, 15))
    code, _, err = knowhue("colorize", photo(), "--model", model)
    assert code == 2
    assert "for a third-party .onnx file, name its recipe" in err.splitlines()[-1]


@pytest.mark.parametrize("name", ["clip.mts", "clip.M2TS", "clip.3gp", "clip.vob", "clip.flv", "clip.ogv"])
def test_a_video_is_known_by_any_of_its_usual_names(knowhue, tmp_path, name):
    (tmp_path / name).write_bytes(b"G" * 400)
    code, _, err = knowhue("colorize", tmp_path / name, "-o", tmp_path / "out.jpg")
    assert code == 2
    assert "should end in one of .mp4" in err


def test_what_a_video_is_to_be_made_of_is_taken_for_one(knowhue, tmp_path):
    (tmp_path / "clip").write_bytes(b"G" * 400)
    code, _, err = knowhue("colorize", tmp_path / "clip", "-o", tmp_path / "out.mkv")
    assert code == 2
    assert "clip: not a video, damaged or cut short" in " ".join(err.split())


def test_a_photo_that_is_called_a_video_is_a_photo(knowhue, photo, tmp_path):
    source = photo().rename(tmp_path / "photo.mov")
    code, said, _ = knowhue("colorize", source, "-o", tmp_path / "out.png")
    assert code == 0
    assert "it is PNG, whatever its name says" in " ".join(said.split())
