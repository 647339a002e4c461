"""`knowhue export`: what is written loads again, and contradictions are refused before work."""

import pytest

from knowhue.inference.colorizer import Colorizer
from knowhue.inference.quantize import Loss

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
    assert out.stat().st_size < 10e6


def test_a_hub_folder_loads_again(knowhue, tmp_path):
    assert knowhue("export", "built-in", "--to", "hub-folder", "-o", tmp_path / "drawn")[0] == 0
    assert Colorizer.load(tmp_path / "drawn").network.description.name == "drawn"
    assert "drawn" in (tmp_path / "drawn" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("left_out", [0, 10])
def test_int8_says_what_was_left_out(knowhue, tmp_path, monkeypatch, left_out):
    def quantize(_, target, __):
        target.write_bytes(b"")
        return Loss(0.1, 13.1, 13.2, 0.99, None, None, 128, 137, left_out)

    monkeypatch.setattr("knowhue.inference.export.export_onnx", lambda *_: {"chroma": 0.0})
    monkeypatch.setattr("knowhue.inference.quantize.quantize", quantize)
    code, said, _ = knowhue(
        *("export", "built-in", "--to", "onnx", "--precision", "int8"),
        *("--calibrate", tmp_path, "-o", tmp_path / "m.onnx"),
    )
    assert code == 0
    assert "on 137 images (128 others were calibrated on)" in said
    assert ("  10 more were left out: at most 128 are calibrated on" in said) == bool(left_out)
