"""The ledger records each finished image, survives a kill at any byte, and detects changed files."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from knowhue.errors import RunError
from knowhue.images.image import LEDGER
from knowhue.inference.ledger import JOB, Ledger, Stamp

NOTED = ("novelty", "label", "warnings", "found_in_reference")
"""What `judgement.count_notable` counts by."""
OF_ALBUM = ("colour", "own")
THIS = dict.fromkeys(JOB, "this")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "in.jpg").write_bytes(b"original")
    return tmp_path / "out"


def opened(out: Path, *, overwrite: bool = False, **changes: Any) -> Ledger:
    return Ledger(out, THIS | changes, overwrite)


def stamp(out: Path) -> Stamp:
    found = Stamp.of(out.parent / "in.jpg")
    assert found is not None
    return found


def commit(ledger: Ledger, name: str = "a/x.jpg", **said: Any) -> None:
    written = ledger.out / "written"
    written.write_bytes(b"colours of " + os.fsencode(name))
    ledger.commit(
        {"path": name, "output": name, **dict.fromkeys(NOTED), "warnings": [], **said},
        stamp(ledger.out),
        written,
    )


def lines(out: Path) -> list[dict[str, Any]]:
    text = (out / LEDGER).read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_an_image_and_its_line_are_there_and_are_known_again(out: Path):
    with opened(out) as ledger:
        assert not ledger.is_done("a/x.jpg", "a/x.jpg", stamp(out))
        commit(ledger, label="coral", probability=0.75)
    assert (out / "a/x.jpg").read_bytes() == b"colours of a/x.jpg"
    assert not (out / "written").exists()
    assert lines(out)[0]["label"] == "coral"
    with opened(out) as ledger:
        assert ledger.is_done("a/x.jpg", "a/x.jpg", stamp(out))
        assert ledger.is_unchanged("a/x.jpg", "a/x.jpg")


@pytest.mark.parametrize("what", ["changed", "gone", "renamed"])
def test_an_image_is_done_again_when(out: Path, what: str):
    with opened(out) as ledger:
        commit(ledger)
    if what == "changed":
        (out.parent / "in.jpg").write_bytes(b"retouched!")
    if what == "gone":
        (out / "a/x.jpg").unlink()
    with opened(out) as ledger:
        assert not ledger.is_done("a/x.jpg", "a/x.png" if what == "renamed" else "a/x.jpg", stamp(out))


def test_an_output_that_somebody_changed_is_no_longer_ours(out: Path):
    with opened(out) as ledger:
        commit(ledger)
    (out / "a/x.jpg").write_bytes(b"retouched by hand")
    with opened(out) as ledger:
        assert ledger.is_done("a/x.jpg", "a/x.jpg", stamp(out))  # nothing to do
        assert not ledger.is_unchanged("a/x.jpg", "a/x.jpg")  # nothing to replace, should there be


def test_a_kill_at_any_byte_leaves_an_image_with_its_line_or_neither(out: Path):
    with opened(out) as ledger:
        commit(ledger, "first.jpg")
        commit(ledger, "second.jpg", warnings=["räre"])
    whole, image = (out / LEDGER).read_bytes(), (out / "second.jpg").read_bytes()
    begin = whole.index(b"\n") + 1
    for length in range(begin, len(whole) + 1, 7):
        (out / LEDGER).write_bytes(whole[:length])
        with opened(out) as ledger:
            # of the last line its end alone may be missing, as the image is there
            assert list(ledger.records) == ["first.jpg", "second.jpg"][: 1 + (length >= len(whole) - 1)]
        assert len(lines(out)) == len(ledger.records)
    (out / LEDGER).write_bytes(whole[:-1])  # killed after the image came to its place
    assert (out / "second.jpg").read_bytes() == image
    with opened(out) as ledger:
        assert list(ledger.records) == ["first.jpg", "second.jpg"]
    (out / LEDGER).write_bytes(whole[:-1])  # killed before
    (out / "second.jpg").unlink()
    with opened(out) as ledger:
        assert list(ledger.records) == ["first.jpg"]


@pytest.mark.parametrize("blocked", ["a", "a/x.jpg"])
def test_an_image_that_cannot_come_to_its_place_leaves_no_line(out: Path, blocked: str):
    if blocked == "a":
        (out / "a").write_bytes(b"a file where a folder should be")
    else:
        (out / "a/x.jpg").mkdir(parents=True)
    with opened(out) as ledger:
        commit(ledger, "b.jpg")
        with pytest.raises(RunError, match="Cannot write"):
            commit(ledger)
        commit(ledger, "c.jpg")
    assert [record["path"] for record in lines(out)] == ["b.jpg", "c.jpg"]


@pytest.mark.parametrize("moved", [True, False])
def test_a_kill_before_or_after_the_move_is_told_apart(
    out: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
):
    def die(written: Path, output: Path) -> None:
        if moved:
            written.rename(output)
        raise KeyboardInterrupt

    with opened(out) as ledger, monkeypatch.context() as patched:
        patched.setattr("knowhue.inference.ledger.os.replace", die)
        with pytest.raises(KeyboardInterrupt):
            commit(ledger)
    with opened(out) as ledger:
        assert list(ledger.records) == ["a/x.jpg"] * moved
        assert not ledger.is_blocked("a/x.jpg", "a/x.jpg")


@pytest.mark.parametrize("lost", ["path", "job", "output", "stamps", *NOTED, *OF_ALBUM])
def test_a_line_that_lacks_something_is_none_that_knowhue_wrote(out: Path, lost: str):
    with opened(out) as ledger:
        commit(ledger, album=dict.fromkeys(OF_ALBUM, (1.0, 2.0)))
    (line,) = lines(out)
    del (line["album"] if lost in OF_ALBUM else line)[lost]
    (out / LEDGER).write_text(json.dumps(line) + "\n")
    with pytest.raises(RunError, match=r"Found other lines\. Move the file away"):
        opened(out)
    (out / LEDGER).write_text(json.dumps(line))  # killed before the line's end
    with opened(out) as ledger:
        assert not ledger.records


@pytest.mark.parametrize(
    "wrong",
    [
        *({key: value} for key in ("path", "output", "job") for value in (1, None, ["a"])),
        *({"stamps": value} for value in (7, None, "ab", [], [1, 2], [[1], [2]], [[1, 2, 3]] * 2, {"0": [1, 2]})),
        *({"novelty": value} for value in ("far", [1], {})),
        *({"warnings": value} for value in (None, 3, "dark")),
        *({key: [1]} for key in NOTED if key != "warnings"),
        *({"album": value} for value in (None, [], "red", {"colour": 1, "own": 2})),
        *({"album": {"colour": [1.0, 2.0], "own": value}} for value in (None, [1.0], ["a", "b"], [1, 2, 3])),
    ],
)  # fmt: skip
def test_a_line_of_another_shape_is_none_that_knowhue_wrote(out: Path, wrong: dict[str, Any]):
    with opened(out) as ledger:
        commit(ledger)
    (line,) = lines(out)
    (out / LEDGER).write_text(json.dumps(line | wrong) + "\n")
    with pytest.raises(RunError, match=r"Found other lines\. Move the file away"):
        opened(out)
    (out / LEDGER).write_text(json.dumps(line | wrong))  # killed before the line's end
    with opened(out) as ledger:
        assert not ledger.records


@pytest.mark.parametrize(
    "text",
    [
        '{"path": "a", "planned": true}',
        json.dumps({"path": "a", "made": "1", "stamp": "2", **dict.fromkeys(NOTED), "warnings": []}),
        '{"path": "a", "error": 1e999}',
        "[" * 100_000,
    ],
    ids=["planned", "a shard's", "no JSON again", "deep"],
)
def test_a_line_that_is_not_a_folders_is_refused_whoever_wrote_it(out: Path, text: str):
    (out / LEDGER).write_text(text + "\n")
    with pytest.raises(RunError, match=r"should hold the lines that knowhue writes there\. Found "):
        opened(out)
    (out / LEDGER).write_text(text)  # killed before the line's end
    with opened(out) as ledger:
        assert not ledger.records


@pytest.mark.parametrize(
    "torn", ["1", "null", "[]", '"a"', '{"path": "a", "error": 1, "output": 2, "stamps": 3}']
)
def test_a_last_line_that_is_none_of_an_image_is_left_out(out: Path, torn: str):
    (out / LEDGER).write_text(torn)
    with opened(out) as ledger:
        assert not ledger.records


def test_a_failure_is_noted_and_forgotten_by_the_next_run(out: Path):
    with opened(out) as ledger:
        ledger.fail("bad.jpg", "no image")
        commit(ledger)
    assert lines(out)[0] | {"job": {}} == {"path": "bad.jpg", "error": "no image", "job": {}}
    with opened(out) as ledger:
        assert list(ledger.records) == ["a/x.jpg"]
    assert len(lines(out)) == 1


@pytest.mark.parametrize("key", JOB)
def test_another_jobs_colours_are_refused_and_left_alone(out: Path, key: str):
    with opened(out) as ledger:
        commit(ledger)
    before = (out / LEDGER).read_bytes()
    with pytest.raises(RunError, match=re.escape(JOB[key].format(THIS.get(key)))):
        Ledger(out, THIS | {key: "other"}, overwrite=False)
    assert (out / LEDGER).read_bytes() == before
    with opened(out, overwrite=True, **{key: "other"}) as ledger:
        assert list(ledger.records) == (["a/x.jpg"] if key == "source" else [])


def test_failures_alone_hinder_no_other_job(out: Path):
    with opened(out) as ledger:
        ledger.fail("bad.jpg", "no image")
    with opened(out, model="other"):
        pass


def test_every_name_can_be_written_and_read(out: Path):
    odd = "line\nbreak \udcff \N{SNOWMAN}.jpg"
    with opened(out) as ledger:
        commit(ledger, odd)
    with opened(out) as ledger:
        assert ledger.is_done(odd, odd, stamp(out))


@pytest.mark.parametrize("text", ["something else\n{}\n", "[]\n", '{"a": 1}\n', "\xff\xfe\n"])
def test_a_file_that_is_not_ours_is_left_alone(out: Path, text: str):
    (out / LEDGER).write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match="should hold the lines that knowhue writes"):
        opened(out)
    assert (out / LEDGER).read_bytes() == text.encode("latin-1")
