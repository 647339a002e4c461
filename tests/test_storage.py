"""Files appear complete or not at all, and damage is detected and reported."""

import errno
import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from knowhue.errors import ConfigError, DamagedError, RunError
from knowhue.storage import (
    RUN_FILES,
    allocate,
    cached,
    file_digest,
    finite_or_none,
    hidden_sibling,
    read_array,
    read_arrays,
    read_csv,
    read_json,
    replacing,
    require_outputs,
    require_writable_folder,
    write_arrays,
    write_csv,
    write_json,
    write_through,
)


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_file_is_replaced_when_all_is_written(tmp_path, mode):
    path = tmp_path / "new" / "file"
    for content in ("first", "second"):
        with replacing(path, mode) as file:
            file.write(content if mode == "w" else content.encode())
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == content
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_interrupted_writing_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def write():
        with replacing(path) as file:
            file.write("half of the n")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_full_disk_is_said(tmp_path):
    with (
        pytest.raises(RunError, match=r"No space left on device\. Free some space"),
        replacing(tmp_path / "file"),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunError, match=r"Cannot write `.*file/below/x\.json`: .*Name another folder\.$"),
        replacing(tmp_path / "file" / "below" / "x.json"),
    ):
        pytest.fail("nothing to write to")


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
WRITERS = {
    "json": lambda file: file.write(json.dumps(NOISE.tolist()).encode()),
    "torch": lambda file: torch.save({"a": torch.zeros(9999)}, file),
    "npy": lambda file: np.save(file, NOISE),
    "npz": lambda file: np.savez(file, a=NOISE),
    "png": lambda file: Image.fromarray(NOISE).save(file, "png"),
    "jpeg": lambda file: Image.fromarray(NOISE).resize((640, 640)).save(file, "jpeg", quality=100),
    "tiff": lambda file: Image.fromarray(NOISE).save(file, "tiff"),
    "webp": lambda file: Image.fromarray(NOISE).save(file, "webp", lossless=True),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_full_disk_in_any_writer_is_said_and_leaves_the_old_file(tmp_path, small_disk, writer):
    path = tmp_path / "file"
    path.write_text("old")
    with (
        pytest.raises(RunError, match=r"Cannot write .*file`: .*\. Free some space"),
        replacing(path, "wb") as file,
    ):
        WRITERS[writer](file)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error", [ValueError("a fault of ours"), RuntimeError("of a library"), MemoryError()]
)
def test_other_errors_are_not_called_a_full_disk(tmp_path, error):
    with pytest.raises(type(error)), replacing(tmp_path / "file"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_files_and_their_names_are_on_the_disk_before_they_count(tmp_path, monkeypatch):
    """A power cut can come at any moment: the content is on the disk before the new name, and the folder at the end."""
    done, (fsync, replace) = [], (os.fsync, os.replace)

    def synced(descriptor):
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def replaced(*names):
        done.append("name")
        replace(*names)

    monkeypatch.setattr("knowhue.storage.os.fsync", synced)
    monkeypatch.setattr("knowhue.storage.os.replace", replaced)
    write_json(tmp_path / "a.json", {})
    assert done == ["file", "name", "folder"]
    done.clear()
    write_through(tmp_path / "b", b"moved later")
    assert done == ["file"]
    assert (tmp_path / "b").read_bytes() == b"moved later"


def test_a_file_that_the_disk_has_no_room_for_is_said(tmp_path):
    full = tmp_path / "file"
    full.symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"No space left on device\. Free some space"):
        write_through(full, b"x")


@pytest.mark.parametrize("value", [{"a": math.nan}, {"b": math.inf}, {"c": [1, {"a": -math.inf}]}])
def test_what_json_cannot_hold_is_refused(tmp_path, value):
    write_json(tmp_path / "file.json", {"old": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == {"old": 1}


@pytest.mark.parametrize("value", [{}, {"a": (1, 2.5, None), "1": {"b": "\u00e4"}}, {"x": 1e-300, "y": -0.0}])
def test_json_reads_back(tmp_path, value):
    write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\0", b"[]", b"1", b'"text"', b"null", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b'{"a": NaN}',
     b'{"a": ' + b"9" * 5000 + b"}", b'{"a": 1}'],
)  # fmt: skip
def test_json_that_is_not_ours(tmp_path, content):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(DamagedError, match=r"file\.json` is damaged: .*Remove it, and run") as error:
        read_json(tmp_path / "file.json")
    assert len(str(error.value)) < 500


def test_every_flipped_bit_of_json_is_found(tmp_path):
    path, value = tmp_path / "file.json", {"mean": 0.25, "name": "coral", "seeds": [0, 1]}
    write_json(path, value)
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            found = read_json(path)
        except DamagedError:
            continue
        assert found == value  # only white space was changed


READERS = {"a.npz": read_arrays, "a.npy": read_array, "a.csv": read_csv}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *(("a.npz", change) for change in ("cut", "empty", "flipped", "text")),
        *(("a.npy", change) for change in ("cut", "empty", "text")),
        ("a.csv", "cut"),  # other damage of a CSV is only detected by a checksum stored elsewhere
    ],
)
def test_other_files_that_are_not_ours(tmp_path, name, change):
    path = tmp_path / name
    with replacing(path, "wb") as file:
        if name == "a.npz":
            np.savez(file, a=NOISE)
        elif name == "a.npy":
            np.save(file, NOISE)
    if name == "a.csv":
        write_csv(path, [["index", "path"], [0, "a,b"], [1, "c,d"]])
    data = path.read_bytes()
    half = len(data) // 2 if name != "a.csv" else len(data) - 3
    path.write_bytes(
        {
            "cut": data[:half],
            "empty": b"",
            "text": b"text",
            "flipped": data[:half] + b"\xff" + data[half + 1 :],
        }[change]
    )
    with pytest.raises(DamagedError, match=rf"{name}` is damaged"):
        READERS[name](path)


def test_what_is_not_finite_is_none():
    values = {"a": 1.0, "b": math.nan, "c": -math.inf, "d": None}
    assert finite_or_none(values) == {"a": 1.0, "b": None, "c": None, "d": None}


def test_every_flipped_byte_of_arrays_is_found_or_changes_nothing(tmp_path):
    path, arrays = tmp_path / "a.npz", {"index": np.arange(3), "rgb": NOISE[:2, :2]}
    with replacing(path, "wb") as file:
        np.savez(file, **arrays)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            found = read_arrays(path)
        except DamagedError:
            continue
        assert all(np.array_equal(found[name], arrays[name]) for name in found.keys() & arrays.keys())


def test_arrays_that_are_not_those_that_were_written_are_damaged(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, {"a": np.arange(3), "b": np.ones(2)})
    assert sorted(read_arrays(path, sealed=True)) == ["a", "b"]
    with np.load(path) as whole:
        arrays = dict(whole)
    for others in ({"a"}, {"a", "b", "c"}):
        kept = {name: each for name, each in arrays.items() if name not in ("a", "b")}  # the list of names
        np.savez(path, **kept, **dict.fromkeys(others, np.zeros(1)))
        with pytest.raises(DamagedError, match="it should hold a, b, and holds a"):
            read_arrays(path)
    np.savez(path, a=arrays["a"], b=arrays["b"])
    assert sorted(read_arrays(path)) == ["a", "b"]  # written by another program
    with pytest.raises(DamagedError, match="no list of its arrays"):
        read_arrays(path, sealed=True)


@pytest.mark.parametrize("text", ["{}", '{"number": 7}', "[]", "", '{"number": 7'])
def test_what_is_kept_is_made_anew_where_something_else_stands_there(tmp_path, text):
    path = tmp_path / "kept.json"
    path.write_text(text)
    assert cached(path, read_json, lambda to: write_json(to, {"number": 1})) == {"number": 1}


@pytest.mark.parametrize("read", [read_json, read_arrays, read_array, read_csv, file_digest])
def test_file_that_is_not_there(tmp_path, read):
    with pytest.raises(RunError, match=r"file` should exist\. Found none\. Is `.*` the right folder"):
        read(tmp_path / "file")
    (tmp_path / "file").mkdir()
    with pytest.raises(RunError, match=r"Cannot read `.*file`: Is a directory"):
        read(tmp_path / "file")


# reading it at its beginning is an input/output error
UNREADABLE = Path("/proc/self/mem")


@pytest.mark.skipif(not UNREADABLE.exists(), reason="no file that cannot be read")
@pytest.mark.parametrize("read", [read_json, read_arrays, read_array, read_csv, file_digest])
def test_a_file_that_the_disk_does_not_give_is_not_damaged(tmp_path, read):
    path = tmp_path / "file"
    path.symlink_to(UNREADABLE)
    with pytest.raises(RunError, match=r"Cannot read `.*file`: Input/output error") as caught:
        read(path)
    assert not isinstance(caught.value, DamagedError)
    with pytest.raises(RunError, match="Cannot read"):  # and the file stays
        cached(path, read, lambda _: pytest.fail("made anew"))


@pytest.mark.parametrize("error", [MemoryError(), TypeError("a slip of ours")])
def test_what_is_no_fault_of_a_file_goes_through(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    write_json(tmp_path / "a.json", {})
    monkeypatch.setattr("knowhue.storage.json.loads", fail)
    monkeypatch.setattr("knowhue.storage.hashlib.file_digest", fail)
    for read in (read_json, file_digest):
        with pytest.raises(type(error)):
            read(tmp_path / "a.json")
    if isinstance(error, MemoryError):
        monkeypatch.setattr("knowhue.storage.np.load", fail)
        for read in (read_array, read_arrays):
            with pytest.raises(MemoryError):
                read(tmp_path / "a.json")


def test_arrays_whose_directory_leads_to_before_the_file_are_damaged(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, index=np.arange(3))
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\5\6") + 16  # the start of the directory, set too far on
    data[place + 2] = 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="damaged: no arrays"):
        read_arrays(path)


def test_digest_is_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert (
        file_digest(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@pytest.mark.parametrize(("shape", "dtype"), [((3, 4), "float16"), ((5,), "uint8"), ((0, 7), "float32")])
def test_an_array_is_filled_through_memory_and_read_back(tmp_path, shape, dtype):
    path = tmp_path / "new" / "a.npy"
    array = allocate(path, shape, dtype)
    array[:] = np.arange(math.prod(shape)).reshape(shape)
    array.flush()
    found = read_array(path)
    assert (found.shape, found.dtype) == (shape, np.dtype(dtype))
    assert np.array_equal(found, array)
    assert os.stat(path).st_blocks * 512 >= array.nbytes  # all its disk space is reserved


def test_an_array_for_which_the_disk_has_no_room_is_refused_before_it_is_filled(tmp_path, monkeypatch):
    monkeypatch.setattr("knowhue.storage.shutil.disk_usage", lambda _: SimpleNamespace(free=2**20 - 1))
    with pytest.raises(
        RunError, match=r"Cannot write .*a\.npy`: 1 MiB: No space left on device\. Free some space"
    ):
        allocate(tmp_path / "a.npy", (1024, 1024), "uint8")
    assert list(tmp_path.iterdir()) == []


def test_an_array_that_fills_the_disk_leaves_nothing(tmp_path, small_disk):
    with pytest.raises(RunError, match="Cannot write"):
        allocate(tmp_path / "a.npy", (1024, 1024), "uint8")
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_is_made_once_and_anew_only_when_it_is_damaged(tmp_path):
    path, made = tmp_path / "kept.json", []

    def write(to):
        made.append(to)
        write_json(to, {"number": len(made)})

    assert [cached(path, read_json, write)["number"] for _ in range(3)] == [1, 1, 1]
    path.write_text("{")
    assert [cached(path, read_json, write)["number"] for _ in range(2)] == [2, 2]
    path.unlink()
    assert cached(path, read_json, write) == {"number": 3}
    assert made == [path] * 3


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_only_a_drive_that_knows_no_syncing_of_folders_goes_without(tmp_path, monkeypatch, number):
    real = os.fsync

    def refuse(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr("knowhue.storage.os.fsync", refuse)
    if number == errno.EIO:
        with pytest.raises(RunError, match="Input/output error"):
            write_json(tmp_path / "a.json", {})
    else:
        write_json(tmp_path / "a.json", {"kept": 1})
        assert read_json(tmp_path / "a.json") == {"kept": 1}


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="a folder of the system that takes no files")
def test_a_folder_of_the_system_is_told_whoever_writes_there_and_what_to_name_instead(tmp_path):
    for write in (
        lambda: write_json(Path("/proc/x.json"), {}),
        lambda: write_json(Path("/proc/x/y.json"), {}),
    ):
        with pytest.raises(RunError, match=r": `/proc` takes no files\. Name another folder\.$"):
            write()
    with pytest.raises(RunError, match=r"`/proc` takes no files\. Name another folder\.$"):
        require_writable_folder(Path("/proc/x"))


def test_a_name_that_is_too_long_is_that_of_a_file_or_of_a_folder(tmp_path):
    long = "x" * 300
    for path, noun in ((tmp_path / long, "file"), (tmp_path / long / "a.json", "folder")):
        with pytest.raises(RunError, match=rf"File name too long\. Name another {noun}\.$"):
            write_json(path, {})
    with pytest.raises(RunError, match=r"File name too long\. Name another folder\.$"):
        require_writable_folder(tmp_path / long)


def test_what_is_written_beside_a_file_has_a_name_that_fits(tmp_path):
    names = ["film.mp4", "x" * 251 + ".mp4", "x" * 250 + "y.mp4", "\N{GRINNING FACE}" * 62 + ".mp4"]
    beside = [hidden_sibling(tmp_path / name, ".colorizing") for name in names]
    assert beside[0] == tmp_path / ".film.mp4.colorizing"
    assert len(set(beside)) == len(names)
    for path in beside:
        path.touch()


def test_a_path_that_cannot_be_reached_is_refused_before_work(tmp_path):
    with pytest.raises(RunError, match=r"File name too long\. Name another file with --out\.$"):
        require_outputs({"--out": tmp_path / ("x" * 300)})
    (tmp_path / "file").touch()
    with pytest.raises(
        RunError,
        match=r"^Cannot write .*: `.*/file` is a file, not a folder\. Name another folder with --map\.$",
    ):
        require_outputs({"--map": tmp_path / "file" / "map.png"})
    with pytest.raises(ConfigError, match=r"is a folder; name a file with --out$"):
        require_outputs({"--out": tmp_path})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"is a device, a pipe or a socket; name a file with --out$"):
        require_outputs({"--out": tmp_path / "pipe"}, overwrite=True)
    require_outputs({"--out": tmp_path / "new" / "deep" / "c.png"})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", RUN_FILES)
def test_a_file_of_a_run_or_a_study_is_not_replaced_even_with_overwrite(tmp_path, name):
    (tmp_path / name).touch()
    for output in (name, "scores.csv"):
        (tmp_path / output).touch()
        with pytest.raises(ConfigError, match="folder of a run or a study, whose files are never replaced"):
            require_outputs({"--out": tmp_path / output}, overwrite=True)
    require_outputs({"--out": tmp_path / "new.zip"})
