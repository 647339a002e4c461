"""Folders: outputs mirror inputs, a second run resumes, and files of others are never replaced."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_network import FakeNetwork
from fake_server import MatchingNetwork
from PIL import Image

from knowhue.color import srgb_to_lab
from knowhue.errors import ConfigError, ImageError, RunError
from knowhue.images.image import LEDGER
from knowhue.images.image import Image as KnowhueImage
from knowhue.inference import folder, requests
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.folder import STAGING, colorize_folder
from knowhue.inference.hints import Hint
from knowhue.inference.ledger import JOB
from knowhue.inference.listing import Summary, list_folder
from knowhue.inference.networks import Predictions
from knowhue.inference.pipeline import Limits
from knowhue.inference.reference import AlbumColour
from knowhue.locks import LOCK

EARLIER: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _earlier_threads():
    """Other tests of this process may have left servers to the garbage collector, with threads of their own."""
    EARLIER.clear()
    EARLIER.update(threading.enumerate())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_images(tmp_path / "in", ["a.png", "b.png", "deep/a.png", "deep/er/c.jpg"])


def make_images(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (20, 24 + 8 * (number % 3)), np.uint8)
        Image.fromarray(noise).save(folder / name)
    return folder


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def colour(source: Path, out: Path, network: FakeNetwork | None = None, **changes: Any) -> Summary:
    named = {name: changes.pop(name) for name in ("suffix", "hints") if name in changes}
    return colorize_folder(Colorizer(network or FakeNetwork()), list_folder(source, out, **named), **changes)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / LEDGER).read_text().splitlines()]


def tree(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in tree(out) if name != LEDGER}


def test_the_output_mirrors_the_input_and_has_a_line_for_each(source: Path, tmp_path: Path):
    summary = colour(source, tmp_path / "out")
    assert tree(tmp_path / "out") == sorted([*tree(source), LEDGER])
    assert (summary.made, summary.already, summary.failed, summary.left) == (4, 0, 0, 0)
    assert not list((tmp_path / "out").glob(".*"))
    found = {line["path"]: line for line in lines(tmp_path / "out")}
    for name in tree(source):
        line, image = found[name], pixels(tmp_path / "out" / name)
        assert line["output"] == name
        assert (line["height"], line["width"]) == image.shape[:2] == pixels(source / name).shape
        assert line["label"] in ("bright", "dark", "unknown")
        assert line["model"] == "fake"
        assert line["seconds"] > 0
        red, _, blue = image.reshape(-1, 3).mean(0)
        assert red > blue + 10  # orange, where sRGB has it


def test_the_same_colours_as_one_at_a_time(source: Path, tmp_path: Path):
    colour(source, tmp_path / "out", limits=Limits(3, 4))
    for name in ("a.png", "deep/a.png"):
        alone = Colorizer(FakeNetwork()).colorize(source / name).image.pixels
        assert np.array_equal(pixels(tmp_path / "out" / name), alone)


def test_all_that_a_job_is_made_by_is_compared(source: Path, tmp_path: Path):
    colour(source, tmp_path / "out")
    assert lines(tmp_path / "out")[0]["job"].keys() == JOB.keys()


def test_the_second_run_has_nothing_to_do(source: Path, tmp_path: Path):
    colour(source, tmp_path / "out")
    before, network = contents(tmp_path / "out"), FakeNetwork()
    summary = colour(source, tmp_path / "out", network)
    assert (summary.made, summary.already) == (0, 4)
    assert network.batches == []
    assert contents(tmp_path / "out") == before
    assert len(lines(tmp_path / "out")) == 4


def test_what_changed_came_or_went_is_done_and_nothing_else(source: Path, tmp_path: Path):
    colour(source, tmp_path / "out")
    make_images(source, ["new.png", "b.png"])  # another b
    (tmp_path / "out/deep/a.png").unlink()
    untouched = (tmp_path / "out/a.png").stat().st_mtime_ns
    summary = colour(source, tmp_path / "out")
    assert (summary.made, summary.already) == (3, 2)
    assert (tmp_path / "out/a.png").stat().st_mtime_ns == untouched
    assert tree(tmp_path / "out") == sorted([*tree(source), LEDGER])


def test_what_somebody_else_made_is_not_replaced(source: Path, tmp_path: Path):
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    (out / "deep/a.png").write_bytes(b"mine")
    with pytest.raises(RunError, match=r"1 other file where outputs .*, such as `deep/a.png`.*--overwrite"):
        colour(source, out)
    assert contents(out) == {"deep/a.png": b"mine"}
    assert not (out / LEDGER).exists()
    assert colour(source, out, overwrite=True).made == 4
    assert (out / "deep/a.png").read_bytes() != b"mine"


def test_what_comes_meanwhile_is_not_replaced(source: Path, tmp_path: Path):
    def put(event: dict[str, Any]) -> None:
        if event["done"] == 0:
            (tmp_path / "out/b.png").write_bytes(b"mine")

    summary = colour(source, tmp_path / "out", report=put)
    assert summary.failures == (("b.png", "another program wrote `b.png` meanwhile"),)
    assert (tmp_path / "out/b.png").read_bytes() == b"mine"


def test_a_retouched_colouring_is_not_replaced_when_its_original_changes(source: Path, tmp_path: Path):
    colour(source, tmp_path / "out")
    (tmp_path / "out/b.png").write_bytes(b"retouched")
    assert colour(source, tmp_path / "out").made == 0
    make_images(source, ["x.png", "b.png"])
    with pytest.raises(RunError, match=r"where outputs would be written, such as `b.png`"):
        colour(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network": FakeNetwork(novelty_limit=2.0)}, "another model"),
        ({"options": ColorizeOptions(saturation=0.5)}, "made with saturation 1"),
        ({"suffix": ".png"}, "another format"),
        ({"suffix": ".ora"}, "another format"),
    ],
)
def test_another_jobs_folder_is_refused_or_done_anew(source: Path, tmp_path: Path, change: dict, said: str):
    colour(source, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(RunError, match=f"{said}.*--overwrite"):
        colour(source, tmp_path / "out", **change)
    assert contents(tmp_path / "out") == before
    assert colour(source, tmp_path / "out", overwrite=True, **change).made == 4
    assert colour(source, tmp_path / "out", overwrite=True, **change).made == 0  # resumable, too


def test_a_folder_that_was_moved_is_said_and_nothing_of_it_coloured_again(source: Path, tmp_path: Path):
    colour(source, tmp_path / "out")
    moved = source.rename(tmp_path / "moved")
    with pytest.raises(
        RunError,
        match=rf"Found images from another place \(`{source}`\)\. .* only moved are not coloured again",
    ):
        colour(moved, tmp_path / "out")
    assert colour(moved, tmp_path / "out", overwrite=True).made == 0


def test_colours_within_the_folder_are_not_coloured_again_by_another_job(source: Path, tmp_path: Path):
    colour(source, source / "colours")
    summary = colour(source, tmp_path / "out")
    assert summary.made == 4
    assert "4 other files left out: 4 coloured by knowhue" in summary.notes
    assert colour(source / "colours", tmp_path / "again").made == 4  # who names them wants it


def test_the_lines_of_another_job_stay_until_their_images_are_replaced(source: Path, tmp_path: Path):
    out = tmp_path / "out"
    colour(source, out)
    former = lines(out)

    class Stopped(Exception):
        pass

    def stop(event: dict) -> None:
        if event["done"] == 1:
            raise Stopped

    vivid = {"options": ColorizeOptions(saturation=0.5), "limits": Limits(threads=1, batch=1)}
    with pytest.raises(Stopped):
        colour(source, out, overwrite=True, report=stop, **vivid)
    found = {each["path"]: each for each in lines(out)}
    assert len(lines(out)) == len(found) == len(former)
    saturations = sorted(each["job"]["saturation"] for each in found.values())
    assert saturations == [0.5, 1.0, 1.0, 1.0]
    assert colour(source, out, overwrite=True, **vivid).made == 3
    assert [each["job"]["saturation"] for each in lines(out)] == [0.5] * 4


def test_a_damaged_output_is_said_and_made_anew_if_wanted(source: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert not colour(source, out).notes
    before = contents(out)
    (out / "b.png").write_bytes(b"damaged")
    kept = colour(source, out)
    assert (kept.made, kept.already) == (0, 4)
    assert any("1 coloured image found changed or damaged, and kept (" in note for note in kept.notes)
    assert colour(source, out, overwrite=True).made == 1
    assert contents(out) == before
    for name in before:
        (out / name).write_bytes(b"damaged")
    (note,) = colour(source, out).notes
    assert "(a.png, b.png, deep/a.png and 1 more)" in note


def test_hints_count_for_their_image_alone_and_when_they_change_it_is_done_again(
    source: Path, tmp_path: Path
):
    out = tmp_path / "out"
    assert colour(source, out).made == 4
    before = contents(out)
    first = {"deep/a.png": ["50%,50%=blue"]}
    summary = colour(source, out, hints=first)
    assert (summary.made, summary.already) == (1, 3)
    assert {name for name, data in contents(out).items() if data != before[name]} == {"deep/a.png"}
    hinted = Colorizer(FakeNetwork()).colorize(
        source / "deep/a.png", ColorizeOptions((Hint(0.5, 0.5, *srgb_to_lab(np.array([0, 0, 1.0]))[1:]),))
    )
    assert np.array_equal(pixels(out / "deep/a.png"), hinted.image.pixels)
    assert colour(source, out, hints=first).made == 0
    assert colour(source, out, hints={"deep/a.png": ["50%,50%=green"]}).made == 1
    assert colour(source, out).made == 1
    assert contents(out) == before


def test_a_reference_serves_a_folder_and_another_one_is_another_job(tmp_path: Path):
    source, out = make_images(tmp_path / "in", ["a.png", "b.png"]), tmp_path / "out"
    colorizer = Colorizer(MatchingNetwork())
    drawn = np.random.default_rng(7).integers(0, 256, (2, 48, 64, 3), np.uint8)
    first, second = (ColorizeOptions(reference=colorizer.reference(KnowhueImage.of(each))) for each in drawn)
    made = colorize_folder(colorizer, list_folder(source, out), options=first)
    assert made.made == 2
    assert [each["found_in_reference"] for each in lines(out)] == [0, 0]  # noise
    assert any("hardly anything of 2 of 2 images was found" in note for note in made.notes)
    assert colorize_folder(colorizer, list_folder(source, out), options=first).notes == made.notes
    assert np.array_equal(pixels(out / "b.png"), colorizer.colorize(source / "b.png", first).image.pixels)
    assert colorize_folder(colorizer, list_folder(source, out), options=first).already == 2
    for other in (second, ColorizeOptions()):
        with pytest.raises(RunError, match="images made with another reference"):
            colorize_folder(colorizer, list_folder(source, out), options=other)


class Coloured(FakeNetwork):
    """As warm as an image is light."""

    def predict(self, lightness: np.ndarray) -> Predictions:
        answers = super().predict(lightness)
        light = lightness.mean((1, 2))[:, None, None, None] / 100
        return answers._replace(chroma=answers.chroma * light.astype(np.float32))


def make_album(folder: Path, codes: Sequence[int]) -> Path:
    folder.mkdir()
    for code in codes:
        Image.new("L", (24, 20), code).save(folder / f"{code:03}.png")
    return folder


def test_an_album_gets_one_look_and_is_done_again_when_its_colour_changes(tmp_path: Path):
    source, out = make_album(tmp_path / "in", (100, 130, 160)), tmp_path / "out"
    alone = colour(source, tmp_path / "alone", Coloured())
    summary = colour(source, out, Coloured(), album=True)
    assert alone.made == summary.made == 3
    kept, drawn = (np.array([line["chroma"] for line in lines(folder)]) for folder in (Path(alone.out), out))
    assert np.ptp(drawn) < 0.7 * np.ptp(kept)
    assert np.array_equal(pixels(out / "130.png"), pixels(Path(alone.out) / "130.png"))  # the median itself
    album = AlbumColour(*lines(out)[0]["album"]["colour"])
    made = Colorizer(Coloured()).colorize(source / "160.png", ColorizeOptions(album=album))
    assert np.array_equal(pixels(out / "160.png"), made.image.pixels)
    assert colour(source, out, Coloured(), album=True).already == 3
    with pytest.raises(RunError, match="Found images made with --album"):
        colour(source, out, Coloured())
    make_album(tmp_path / "more", (200, 210))
    for path in (tmp_path / "more").iterdir():
        path.rename(source / path.name)
    assert colour(source, out, Coloured(), album=True).made == 5  # the median is another
    whole = colour(source, tmp_path / "at once", Coloured(), album=True)
    assert contents(out) == contents(Path(whole.out))


def test_an_album_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path):
    source = make_album(tmp_path / "in", range(40, 240, 10))
    (source / "bad.png").write_bytes(b"no image")

    def stop(event: dict[str, Any]) -> None:
        if event["stage"] == "folder" and event["done"] == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        colour(source, tmp_path / "out", Coloured(), album=True, report=stop)
    before = len(lines(tmp_path / "out"))
    assert 5 < before < 20
    summary = colour(source, tmp_path / "out", Coloured(), album=True)
    assert summary.failed == 1
    assert summary.made <= 20 - before + 1
    whole = colour(source, tmp_path / "whole", Coloured(), album=True)
    assert contents(tmp_path / "out") == contents(Path(whole.out))


def test_the_name_of_a_model_does_not_count(source: Path, tmp_path: Path):
    colour(source, tmp_path / "out")
    moved = FakeNetwork()
    moved.description = moved.description.model_copy(update={"name": "moved elsewhere"})
    assert colour(source, tmp_path / "out", moved).already == 4


def test_a_bad_file_among_good_ones_is_told_and_tried_again(source: Path, tmp_path: Path):
    (source / "bad.png").write_bytes(b"no image")
    (source / "deep/broken.png").symlink_to(tmp_path / "nowhere")
    (source / "cut.png").write_bytes((source / "a.png").read_bytes()[:200])
    summary = colour(source, tmp_path / "out")
    assert (summary.made, summary.failed) == (4, 3)
    failures = dict(summary.failures)
    assert {line["path"]: line["error"] for line in lines(tmp_path / "out") if "error" in line} == failures
    assert [*failures] == ["bad.png", "cut.png", "deep/broken.png"]
    assert all(summary.lines()[-5 + k].count(".png") == 1 for k in range(3))  # each file is named once
    assert not any(reason.startswith(path) for path, reason in failures.items())
    assert any("bad.png: " in line for line in summary.lines())
    assert summary.as_record()["failed"] == 3
    make_images(source, ["bad.png"])
    summary = colour(source, tmp_path / "out")
    assert (summary.made, summary.already, summary.failed) == (1, 4, 2)
    assert len(lines(tmp_path / "out")) == 7


def test_stops_at_the_first_failure_and_goes_on_later(tmp_path: Path):
    source = make_images(tmp_path / "in", [f"{n:03}.png" for n in range(60)])
    good = (source / "005.png").read_bytes()
    (source / "005.png").write_bytes(b"no image")
    summary = colour(source, tmp_path / "out", stops=True, limits=Limits(1, 1))
    assert summary.failed == 1
    assert 5 <= summary.made < 59
    assert summary.made + summary.left == 59
    assert "not started" in "\n".join(summary.lines())
    assert len(contents(tmp_path / "out")) == summary.made  # what was in flight was finished
    (source / "005.png").write_bytes(good)
    again = colour(source, tmp_path / "out", stops=True)
    assert (again.made, again.already, again.left) == (60 - summary.made, summary.made, 0)


def test_a_fault_in_the_program_ends_it_and_loses_nothing(source: Path, tmp_path: Path):
    def fail(lightness: np.ndarray) -> None:
        raise MemoryError("out of memory")

    with pytest.raises(MemoryError, match="out of memory"):
        colour(source, tmp_path / "out", FakeNetwork(on_predict=fail))
    assert not list((tmp_path / "out").glob(".*"))
    assert colour(source, tmp_path / "out").made == 4


def test_an_odd_error_of_one_image_is_told_with_its_name(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = requests.read_image

    def read(path: Path, **options: Any) -> Any:
        if path.name == "b.png":
            raise ZeroDivisionError("odd")
        return real(path, **options)

    monkeypatch.setattr(requests, "read_image", read)
    assert colour(source, tmp_path / "out").failures == (("b.png", "ZeroDivisionError: odd"),)


def test_a_full_disk_ends_it_at_once(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> Any:
        raise RunError("Cannot write `x`: No space left on device.")

    monkeypatch.setattr(folder, "write_through", full)
    with pytest.raises(RunError, match="No space left"):
        colour(source, tmp_path / "out")
    assert contents(tmp_path / "out") == {}
    monkeypatch.undo()
    assert colour(source, tmp_path / "out").made == 4


def test_ctrl_c_ends_it_cleanly(tmp_path: Path):
    source = make_images(tmp_path / "in", [f"{n:03}.png" for n in range(60)])

    def press(event: dict[str, Any]) -> None:
        if event["done"] == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        colour(source, tmp_path / "out", report=press)
    assert not [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("knowhue_") and thread not in EARLIER
    ]
    assert len(contents(tmp_path / "out")) == len(lines(tmp_path / "out")) == 10
    assert colour(source, tmp_path / "out").made == 50


def test_tells_how_far_it_is(source: Path, tmp_path: Path):
    (source / "bad.png").write_bytes(b"no image")
    events: list[dict[str, Any]] = []
    colour(source, tmp_path / "out", report=events.append)
    assert [event["done"] for event in events] == [0, 1, 2, 3, 4, 5]
    assert {event["total"] for event in events} == {5}
    assert events[-1]["failed"] == 1
    assert events[-1]["per_second"] > 0
    assert events[-1]["seconds_left"] == 0


def test_images_of_one_shape_are_predicted_together(tmp_path: Path):
    source = make_images(tmp_path / "in", [f"{n}.png" for n in range(0, 24)])
    network = FakeNetwork(on_predict=lambda lightness: time.sleep(0.02))
    colour(source, tmp_path / "out", network, limits=Limits(2, 8))
    assert sum(network.batches) == 24
    assert max(network.batches) > 1


def test_gif_becomes_png_and_a_forced_suffix_counts_for_all(tmp_path: Path):
    source = make_images(tmp_path / "in", ["a.gif", "b.jpg"])
    colour(source, tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {"a.png", "b.jpg"}
    colour(source, tmp_path / "webp", suffix=".webp")
    assert set(contents(tmp_path / "webp")) == {"a.webp", "b.webp"}


def test_what_cannot_be_is_said_before_work(source: Path, tmp_path: Path):
    make_images(source, ["a.jpg"])
    (tmp_path / "empty").mkdir()
    for error, said, changes in [
        (ConfigError, "`a.webp` would be made from `a.jpg` and `a.png`", {"suffix": ".webp"}),
        (ConfigError, "should end in one of .jpg", {"suffix": ".xyz"}),
        (
            ConfigError,
            r"no hints and no strokes, .* Found `hints`\.",
            {"options": ColorizeOptions(hints=("a hint",))},  # pyright: ignore
        ),
        (
            ConfigError,
            "Found `deep/A.png`. Did you mean `deep/a.png`",
            {"hints": {"deep/A.png": ["0,0=red"]}},
        ),
        (ConfigError, "Found one without a name", {"hints": {"": ["0,0=red"]}}),
        (ImageError, "should hold images", {"source": tmp_path / "empty"}),
        (ImageError, "should be a folder", {"source": source / "a.png"}),
    ]:
        with pytest.raises(error, match=said):
            colour(**{"source": source, "out": tmp_path / "out"} | changes)
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_said(source: Path, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match="Cannot write"):
        colour(source, tmp_path / "file")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal on this system")
def test_killed_at_random_moments_it_goes_on_without_loss_or_double_work(tmp_path: Path):
    source = make_images(tmp_path / "in", [f"{n // 40}/{n:03}.png" for n in range(120)])
    out, generator, done = tmp_path / "out", random.Random(0), 0
    job = [sys.executable, str(Path(__file__).with_name("colouring_job.py")), str(source), str(out)]
    made: dict[str, int] = {}
    for _ in range(2):
        process = subprocess.Popen(job, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
        deadline, wanted = time.monotonic() + 60, done + generator.randint(5, 30)
        while count_lines(out) < wanted and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.0005)
        time.sleep(generator.uniform(0, 0.02))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        for name in tree(out):  # nothing is half written
            if name not in (LEDGER, LOCK) and not name.startswith(STAGING):
                assert pixels(out / name).size
                assert (
                    made.setdefault(name, (out / name).stat().st_mtime_ns) == (out / name).stat().st_mtime_ns
                )
        done = len(made)
    summary = colour(source, out, FakeNetwork())
    assert (summary.made, summary.already) == (120 - done, done)
    assert tree(out) == sorted([*tree(source), LEDGER])
    assert len({line["path"] for line in lines(out)}) == len(lines(out)) == 120
    assert all((out / name).stat().st_mtime_ns == moment for name, moment in made.items())


def count_lines(out: Path) -> int:
    try:
        return (out / LEDGER).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


class Startled(FakeNetwork):
    """Finds dark images unlike the training images."""

    def predict(self, lightness: np.ndarray) -> Any:
        novelty = np.where(lightness.mean((1, 2)) < 30, 1.5, 0.5).astype(np.float32)
        return super().predict(lightness)._replace(novelty=novelty)


def test_how_many_are_unlike_the_training_images_is_said_of_earlier_runs_too(tmp_path: Path):
    source = make_images(tmp_path / "in", ["light.png"])
    for name in ("dark.png", "darker.png"):
        Image.fromarray(np.full((20, 24), 20, np.uint8)).save(source / name)
    for run, made in enumerate((3, 1)):
        summary = colour(source, tmp_path / "out", Startled())
        assert (summary.made, summary.novel) == (made, 2)
        assert "  note: 2 of 3 images are unlike the images that this model was trained on" in "\n".join(
            summary.lines()
        )
        warned = sum({line["path"]: bool(line["warnings"]) for line in lines(tmp_path / "out")}.values())
        last = f"  of 3 images, class unknown: 2, warnings: {warned}; see {tmp_path / 'out' / LEDGER}"
        assert last in summary.lines()
        (tmp_path / "out" / ("dark.png", "light.png")[run]).unlink()
    labels = {line["path"]: line["label"] for line in lines(tmp_path / "out")}
    assert (labels["dark.png"], labels["darker.png"]) == ("unknown", "unknown")
    assert labels["light.png"] in ("bright", "dark")


def test_what_is_left_out_is_said(source: Path, tmp_path: Path):
    make_images(source, ["a-colour.png", "b-colour.png"])
    (source / "notes.txt").write_text("of a journey")
    summary = colour(source, tmp_path / "out")
    assert summary.made == 4
    assert any(
        "2 images left out, made by knowhue" in note and "a-colour.png, b-colour.png" in note
        for note in summary.notes
    )
    assert any("1 other file left out: 1 of another type" in note for note in summary.notes)


def test_what_a_format_does_not_hold_is_that_images_failure(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = requests.paint_request

    def paint(colorizer: Any, decoded: Any, answer: Any) -> Any:
        if decoded.request.suffix == ".jpg":
            raise RunError("too wide for it")
        return real(colorizer, decoded, answer)

    monkeypatch.setattr(requests, "paint_request", paint)
    summary = colour(source, tmp_path / "out")
    assert summary.failures == (("deep/er/c.jpg", "too wide for it"),)
    assert summary.made == 3


def test_a_model_that_fails_for_one_fails_for_all_and_ends_the_folder(source: Path, tmp_path: Path):
    def fail(lightness: np.ndarray) -> None:
        raise ZeroDivisionError("a broken model")

    with pytest.raises(ZeroDivisionError, match="a broken model"):
        colour(source, tmp_path / "out", FakeNetwork(on_predict=fail))
    assert tree(tmp_path / "out") == []


def test_uncertainty_is_in_the_line(source: Path, tmp_path: Path):
    colour(source, tmp_path / "out", options=ColorizeOptions(uncertainty=True))
    assert all(line["uncertainty"] == 0 for line in lines(tmp_path / "out"))


def test_torch_predicts_on_one_core_for_each_thread_and_is_given_all_back(source: Path, tmp_path: Path):
    import torch

    class Torch(FakeNetwork):
        runtime = "torch"

    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        network = Torch(on_predict=lambda lightness: seen.append(torch.get_num_threads()))
        colour(source, tmp_path / "out", network)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("count", "calls"), [(15, 0), (16, 1)])
def test_many_images_are_painted_by_compiled_code_from_the_first(tmp_path: Path, monkeypatch, count, calls):
    (tmp_path / "in").mkdir()
    for k in range(count):
        Image.fromarray(np.full((8, 8), k, np.uint8)).save(tmp_path / "in" / f"{k}.png")
    called = []
    monkeypatch.setattr("knowhue.inference.folder.paint_compiled", lambda: called.append(1))
    assert colour(tmp_path / "in", tmp_path / "out").made == count
    assert len(called) == calls
    assert colour(tmp_path / "in", tmp_path / "out").already == count
    assert len(called) == calls  # nothing is left to paint
    (tmp_path / "out" / "0.png").unlink()
    assert colour(tmp_path / "in", tmp_path / "out").made == 1
    assert len(called) == 2 * calls  # the last one is painted as the others were
