"""`knowhue colorize --shards`, run as a command."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photo(tmp_path):
    def make(name="a.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 28), dtype=np.uint8)).save(
            tmp_path / name
        )
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shards", "2", "--album"], "`--album` applies to a folder;"),
        (["--shards", "2", "--samples", "3"], "`--samples` applies to an image;"),
        (["--shards", "2", "--on-error", "stop"], "`--on-error` applies to a folder;"),
        (["--workers", "2"], "`--workers` applies to an archive (--shards, or a URL);"),
        (["--engine", "ray"], "`--engine` applies to an archive (--shards, or a URL);"),
        (["--shards", "2", "--engine", "cloud"], "`--engine` should be"),
        (["--shards", "2", "-o", "foo://there"], "`foo://there`"),
    ],
)
def test_what_does_not_go_together_is_one_line(knowhue, tmp_path, photo, options, message):
    photo()
    code, said, err = knowhue("colorize", tmp_path, *options)
    assert (code, said) == (2, "")
    assert message in err.splitlines()[-1]


def test_what_is_no_folder_is_told_before_anything_is_opened(knowhue, photo):
    code, _, err = knowhue("colorize", photo(), "--shards", "2")
    assert (code, err.count("\n")) == (2, 1)
    assert "need a folder of images as input" in err
    code, _, err = knowhue("colorize", "s3://bucket/photos")
    assert (code, err.count("\n")) == (2, 1)
    assert "`--out` should be given for the URL of a store: another URL such as s3://bucket/colours" in err
    code, _, err = knowhue("colorize", "https://example.com/a.JPG", "-o", photo().with_name("b.jpg"))
    assert (code, err.count("\n")) == (2, 1)
    assert "a.JPG: a single image; download it, and name the file" in err


def test_a_folder_is_dealt_out_and_what_failed_is_named(knowhue, tmp_path, photo):
    photo("a.png")
    photo("b.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    out = tmp_path / "out"
    code, said, _ = knowhue("colorize", tmp_path, "--shards", "2", "-o", out, "--json")
    record = json.loads(said)
    assert (code, record["made"], record["failed"], record["shards"]) == (1, 2, 1, 2)
    assert [each["path"] for each in record["failures"]] == ["bad.png"]
    (tmp_path / "bad.png").unlink()
    code, said, _ = knowhue("colorize", tmp_path, "--shards", "2", "-o", out)
    assert (code, "  already done: 2" in said) == (0, True)
