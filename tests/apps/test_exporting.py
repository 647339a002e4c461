"""`knowhue export`: written models load again, and contradictory options are refused before any work."""

import pytest
from PIL import Image
from synthetic_study import change, run_of, write_study

from knowhue.inference.colorizer import Colorizer
from knowhue.inference.quantize import QuantizationCost

UPLOAD = "knowhue.inference.export.upload"
REFUSED = {
    "int8 without images": (["--to", "onnx", "--precision", "int8"], "--calibrate"),
    "float16 in onnx": (["--to", "onnx", "--precision", "float16"], "float32 or int8"),
    "suffix": (["--out", "model.bin"], ".safetensors"),
    "upload of a file": (["--upload", "owner/name"], "hub-folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_contradictions_are_refused(knowhue, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    arguments, said = REFUSED[case]
    code, _, err = knowhue("export", "built-in", *arguments)
    assert code == 2
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_not_there_is_said(knowhue, tmp_path):
    code, _, err = knowhue("export", tmp_path / "none")
    assert (code, "Found no" in err) == (2, True)


def test_a_file_with_a_licence_loads_again(knowhue, tmp_path):
    out = tmp_path / "model.safetensors"
    code, said, _ = knowhue("export", "built-in", "-o", out, "--precision", "float16", "--licence", "CC0-1.0")
    assert code == 0
    assert "largest difference" in said
    assert Colorizer.load(out).network.description.licence == "CC0-1.0"
    assert out.stat().st_size < 20e6


def test_a_hub_folder_loads_again(knowhue, tmp_path):
    assert knowhue("export", "built-in", "--to", "hub-folder", "-o", tmp_path / "drawn")[0] == 0
    assert Colorizer.load(tmp_path / "drawn").network.description.name == "drawn"
    assert "drawn" in (tmp_path / "drawn" / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def colour_images(tmp_path):
    """A folder of so many images in colour."""

    def make(count):
        (tmp_path / "images").mkdir()
        for number in range(count):
            Image.new("RGB", (16, 16), (number, 90, 200)).save(tmp_path / "images" / f"{number}.png")
        return tmp_path / "images"

    return make


def test_too_few_images_for_int8_are_told_before_the_graph_is_written(
    knowhue, tmp_path, monkeypatch, colour_images
):
    monkeypatch.setattr("knowhue.inference.export.export_onnx", lambda *_: pytest.fail("written"))
    folder = colour_images(15)
    arguments = ("export", "built-in", "--to", "onnx", "--precision", "int8", "--calibrate", folder)
    code, _, err = knowhue(*arguments, "-o", tmp_path / "m.onnx")
    assert (code, "at least 16 colour images, better some hundreds. Found 15" in err) == (2, True)
    Image.new("L", (16, 16)).save(folder / "gray.png")
    code, _, err = knowhue(*arguments, "-o", tmp_path / "m.onnx")
    assert (
        code,
        "at least 8 in colour to calibrate on, and as many to measure on. Found 7 in colour among 8" in err,
    ) == (2, True)


@pytest.mark.parametrize(("left_out", "chroma"), [(0, 0.1), (10, 2.4)])
def test_int8_says_what_was_left_out_and_what_is_seen(
    knowhue, tmp_path, monkeypatch, colour_images, left_out, chroma
):
    def quantize(_, target, __):
        target.write_bytes(b"")
        return QuantizationCost(chroma, 13.1, 13.2, 0.99, None, None, 128, 137, left_out)

    monkeypatch.setattr("knowhue.inference.export.export_onnx", lambda *_: {"chroma": 0.0})
    monkeypatch.setattr("knowhue.inference.quantize.quantize", quantize)
    code, said, _ = knowhue(
        *("export", "built-in", "--to", "onnx", "--precision", "int8"),
        *("--calibrate", colour_images(16), "-o", tmp_path / "m.onnx"),
    )
    assert code == 0
    assert "on 137 images (calibrated on 128 others)" in said
    assert ("  10 more were left out: gray images, and those beyond 128 for calibration" in said) == bool(
        left_out
    )
    assert ("This difference is visible." in said) == (chroma > 2.3)


def test_an_export_is_exported_again_only_from_its_weights(knowhue, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"onnx")
    code, _, err = knowhue("export", tmp_path / "m.onnx", "-o", tmp_path / "again.safetensors")
    assert code == 2
    assert "cannot be exported again" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx"]


def test_a_folder_is_uploaded_after_it_was_written(knowhue, tmp_path, monkeypatch):
    sent = []

    def upload(folder, repository):
        sent.append((sorted(path.name for path in folder.iterdir()), repository))
        return f"https://hub/{repository}"

    monkeypatch.setattr(UPLOAD, upload)
    arguments = ("--to", "hub-folder", "-o", tmp_path / "drawn", "--upload", "owner/name")
    code, said, _ = knowhue("export", "built-in", *arguments)
    assert code == 0
    assert said.splitlines()[-1] == "uploaded: https://hub/owner/name"
    assert sent == [(["README.md", "config.json", "model.safetensors"], "owner/name")]


def test_nothing_is_uploaded_where_the_folder_could_not_be_written(knowhue, tmp_path, monkeypatch):
    monkeypatch.setattr(UPLOAD, lambda *_: pytest.fail("uploaded"))
    (tmp_path / "drawn").write_text("a file")
    arguments = ("--to", "hub-folder", "-o", tmp_path / "drawn", "--upload", "owner/name", "--overwrite")
    assert knowhue("export", "built-in", *arguments)[0] == 2
    assert (tmp_path / "drawn").read_text() == "a file"


def test_a_study_becomes_a_table_that_the_verdict_reads(knowhue, tmp_path):
    folder, out = write_study(tmp_path / "study", seeds=(0, 1)), tmp_path / "runs.csv"
    code, said, err = knowhue("export", folder, "--to", "table", "-o", out)
    assert (code, err) == (0, "")
    assert (
        said
        == f"{out}: {len(out.read_text().splitlines()) - 1} rows; what they mean: {tmp_path}/runs.dictionary.csv\n"
    )
    code, said, _ = knowhue("verdict", out)
    assert code == 0
    assert said.count("No verdict yet") == 2
    assert knowhue("export", folder, "--to", "table", "-o", out)[0] == 2
    assert knowhue("export", folder, "--to", "table", "-o", out, "--overwrite")[0] == 0


def test_runs_that_have_not_finished_are_named(knowhue, tmp_path):
    folder = write_study(tmp_path / "study", seeds=(0, 1))
    change(run_of(folder, "multi", 1) / "status.json", lambda status: status.update(state="running"))
    code, _, err = knowhue("export", folder, "--to", "table", "-o", tmp_path / "runs.csv")
    assert (code, err) == (0, "without scores, because they have not finished: multi seed 1\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "runs.xlsx"], "should end in .csv or .parquet"),
        (["--licence", "MIT"], "should be given without --precision"),
        ([], "no study"),
    ],
)
def test_a_table_is_of_a_study_and_of_nothing_else(knowhue, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = knowhue("export", tmp_path, "--to", "table", *options)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []
