"""An archive coloured in shards equals its folder coloured at once; nothing is lost or replaced."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_network import FakeNetwork
from PIL import Image

from knowhue.archive import ArchiveListing, colorize_archive
from knowhue.engines.executor import InProcess
from knowhue.errors import ConfigError, ImageError, RunError
from knowhue.images.image import LEDGER, STATE
from knowhue.inference import shard
from knowhue.inference import store as store_file
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.description import ModelChoice
from knowhue.inference.folder import colorize_folder
from knowhue.inference.listing import list_folder
from knowhue.inference.store import FolderStore, StoredFile, open_store
from knowhue.storage import is_url
from knowhue.temporary import tables_on_disk

NAMES = [f"{number % 3}/p{number}.{kind}" for number, kind in enumerate(["png", "jpg", "tif"] * 6)]


@pytest.fixture(autouse=True)
def model(monkeypatch) -> Iterator[None]:
    """Every model is replaced by a fake network."""
    shard._open.cache_clear()
    monkeypatch.setattr(Colorizer, "load", classmethod(lambda cls, *names: cls(FakeNetwork())))
    yield
    shard._open.cache_clear()


@pytest.fixture
def photos(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for name in NAMES:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 28), dtype=np.uint8)).save(path)
    (tmp_path / "in" / "notes.txt").write_text("no photo")
    return tmp_path / "in"


def archive(source: Any, out: Any, **changes: Any):
    return colorize_archive(str(source), str(out), **{"shards": 7, "model": ModelChoice("fake"), **changes})


def files_of(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and STATE not in path.parts and path.name not in ("colorized.jsonl", ".lock")
    }


def test_all_shards_together_are_the_folder_file_for_file(photos, tmp_path):
    options = ColorizeOptions(saturation=0.5)
    colorize_folder(Colorizer.load("fake"), list_folder(photos, tmp_path / "whole"), options=options)
    events: list[dict[str, Any]] = []
    summary = archive(photos, tmp_path / "out", options=options, report=events.append)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert (summary.made, summary.already, summary.failed, summary.shards) == (18, 0, 0, 7)
    assert "1 other file left out: 1 of another type (.txt)" in summary.notes
    assert events.pop(0) == {"stage": "note", "text": f"looking for images in {photos}"}
    assert [event["done"] for event in events] == sorted(event["done"] for event in events)
    assert (events[-1]["done"], events[-1]["total"]) == (18, 18)
    again = archive(photos, tmp_path / "out", options=options)
    assert (again.made, again.already) == (0, 18)


def test_every_photo_has_its_line_in_one_ledger(photos, tmp_path):
    archive(photos, tmp_path / "out")
    lines = [
        json.loads(line)
        for path in (tmp_path / "out" / STATE / "ledgers").iterdir()
        for line in path.read_text().splitlines()[1:]
    ]
    assert sorted(line["path"] for line in lines) == sorted(NAMES)
    assert {(line["width"], line["height"]) for line in lines} == {(28, 20)}


def test_what_is_said_of_a_photo_is_what_a_folder_says_of_it(photos, tmp_path):
    (photos / NAMES[0]).rename(photos / "misnamed.jpg")
    (photos / "empty.png").touch()
    (photos / "text.png").write_text("no photo")
    (photos / "lost.png").symlink_to("nowhere")
    os.mkfifo(photos / "pipe.png")
    colorize_folder(Colorizer.load("fake"), list_folder(photos, tmp_path / "whole"))
    archive(photos, tmp_path / "out", shards=1)
    whole, shard_ = (
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (tmp_path / "whole" / LEDGER, tmp_path / "out" / STATE / "ledgers" / "000000.jsonl")
    )
    ours = {"job", "stamps", "stamp", "made", "seconds"}
    said, same = (
        {line["path"]: {name: line[name] for name in line if name not in ours} for line in lines}
        for lines in (whole, shard_[1:])
    )
    assert said == same
    assert "it is PNG, whatever its name says" in said["misnamed.jpg"]["warnings"]
    assert said["lost.png"]["error"] == "a broken link (nowhere does not exist)"


def test_the_seconds_of_a_photo_have_those_of_its_fetching(photos, tmp_path, monkeypatch):
    read = FolderStore.read

    def slow(store, path):
        if path == NAMES[0]:
            time.sleep(0.4)
        return read(store, path)

    monkeypatch.setattr(FolderStore, "read", slow)
    archive(photos, tmp_path / "out", shards=1)
    (ledger,) = (tmp_path / "out" / STATE / "ledgers").iterdir()
    seconds = {line["path"]: line["seconds"] for line in map(json.loads, ledger.read_text().splitlines()[1:])}
    assert seconds[NAMES[0]] > 0.4


@pytest.mark.parametrize("after", [0, 1, 5, 17])
def test_what_ended_early_goes_on_and_is_as_if_it_never_had(photos, tmp_path, monkeypatch, after):
    archive(photos, tmp_path / "whole")
    write, written = FolderStore.write, []

    def dying(store: FolderStore, path: str, data: bytes, replace: bool = True) -> str:
        if not path.startswith(STATE):
            if len(written) == after:
                raise RunError("The disk is full.")
            written.append(path)
        return write(store, path, data, replace)

    monkeypatch.setattr(FolderStore, "write", dying)
    with pytest.raises(RunError, match="disk is full"):
        archive(photos, tmp_path / "out")
    monkeypatch.setattr(FolderStore, "write", write)
    summary = archive(photos, tmp_path / "out")
    assert (summary.made + summary.already, summary.failed) == (18, 0)
    assert summary.already <= after
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert archive(photos, tmp_path / "out").already == 18


def test_what_is_changed_is_done_again_and_what_is_not_the_jobs_stays(photos, tmp_path):
    out = tmp_path / "out"
    archive(photos, out)
    shutil.copy(photos / NAMES[3], photos / NAMES[0])
    (out / NAMES[6]).unlink()
    (out / NAMES[9]).write_bytes(b"by hand")
    for made in (2, 0):
        summary = archive(photos, out)
        assert (summary.made, summary.already, summary.failed) == (made, 18 - made, 0)
        assert "1 coloured image found changed or damaged" in summary.notes[0]
        assert (out / NAMES[9]).read_bytes() == b"by hand"
    assert (out / NAMES[0]).read_bytes() == (out / NAMES[3]).read_bytes()
    assert archive(photos, out, overwrite=True).made == 1
    assert (out / NAMES[9]).read_bytes() != b"by hand"
    assert not any("damaged" in note for note in archive(photos, out).notes)


def test_other_files_in_the_way_are_refused_at_first_and_stay_later(photos, tmp_path):
    stranger = tmp_path / "out" / NAMES[4]
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"precious")
    with pytest.raises(RunError, match=f"1 other file where outputs would be written, such as `{NAMES[4]}`"):
        archive(photos, tmp_path / "out")
    assert list(files_of(tmp_path / "out")) == [NAMES[4]]
    stranger.rename(tmp_path / "away")
    archive(photos, tmp_path / "out")
    (tmp_path / "away").rename(stranger)
    for _ in range(2):
        summary = archive(photos, tmp_path / "out")
        assert (summary.already, summary.failed) == (18, 0)
        assert "1 coloured image found changed" in summary.notes[0]
        assert stranger.read_bytes() == b"precious"


def test_each_core_predicts_its_own_photo_if_a_prediction_uses_one(photos, tmp_path, monkeypatch):
    together = threading.Barrier(2)
    network = FakeNetwork(lambda lightness: together.wait(60))  # breaks if one waits alone
    network.uses_one_core = True
    monkeypatch.setattr(shard, "usable_cores", lambda: 2)
    monkeypatch.setattr(Colorizer, "load", classmethod(lambda cls, *names: cls(network)))
    assert archive(photos, tmp_path / "out", shards=1).failed == 0


def test_the_built_in_model_colours_a_photo_alike_in_every_shard(tmp_path, monkeypatch):
    monkeypatch.undo()
    shard._open.cache_clear()
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(9):  # more than a batch of a folder
        smooth = Image.fromarray(rng.integers(0, 256, (6, 9), dtype=np.uint8)).resize((150, 100))
        smooth.save(tmp_path / "in" / f"{number}.jpg")
    model = ModelChoice("built-in")
    colorize_folder(Colorizer.load(), list_folder(tmp_path / "in", tmp_path / "whole"))
    for shards in (1, 3):
        archive(tmp_path / "in", tmp_path / f"{shards}", shards=shards, model=model)
        assert files_of(tmp_path / f"{shards}") == files_of(tmp_path / "whole")


def test_what_cannot_be_read_fails_alone_and_is_tried_again(photos, tmp_path):
    (photos / "bad.png").write_bytes(b"no image")
    summary = archive(photos, tmp_path / "out")
    assert (summary.made, summary.failed) == (18, 1)
    assert summary.failures[0] == ("bad.png", summary.failures[0][1])
    assert "it is none of JPEG" in summary.failures[0][1]
    shutil.copy(photos / NAMES[0], photos / "bad.png")
    assert archive(photos, tmp_path / "out").made == 1


def test_another_job_and_other_shards_are_refused_unless_all_is_to_be_replaced(photos, tmp_path):
    archive(photos, tmp_path / "out")
    with pytest.raises(RunError, match="images made with saturation 1"):
        archive(photos, tmp_path / "out", options=ColorizeOptions(saturation=2))
    with pytest.raises(RunError, match=r"was divided into 7 shards\. Found `--shards 3`"):
        archive(photos, tmp_path / "out", shards=3)
    assert archive(photos, tmp_path / "out", shards=None).already == 18
    assert archive(photos, tmp_path / "out", shards=3, overwrite=True).made == 18
    assert archive(photos, tmp_path / "out", shards=None).shards == 3


def test_a_source_that_was_moved_is_said_and_nothing_of_it_coloured_again(photos, tmp_path):
    archive(photos, tmp_path / "out")
    moved = photos.rename(tmp_path / "moved")
    with pytest.raises(
        RunError,
        match=rf"Found images from another place \(`{photos}`\)\. .* only moved are not coloured again",
    ):
        archive(moved, tmp_path / "out")
    assert archive(moved, tmp_path / "out", shards=None, overwrite=True).already == 18
    assert archive(moved, tmp_path / "out").already == 18


def test_what_is_to_be_known_of_the_images_is_counted_over_shards_and_runs(photos, tmp_path):
    options = ColorizeOptions(unknown_below=1.0)
    for already in (0, 18):
        summary = archive(photos, tmp_path / "out", options=options)
        assert (summary.already, summary.unknown) == (already, 18)
        assert f"  of 18 images, class unknown: 18, warnings: {summary.warned}; see " in "\n".join(
            summary.lines()
        )
    ledgers = (tmp_path / "out" / STATE / "ledgers").glob("*.jsonl")
    records = [json.loads(line) for path in ledgers for line in path.read_text().splitlines()[1:]]
    assert sum(bool(record["warnings"]) for record in records) == summary.warned


def test_colours_within_the_source_are_not_coloured_again_by_another_job(photos, tmp_path):
    archive(photos, photos / "colours")
    summary = archive(photos, tmp_path / "out")
    assert summary.made == 18
    assert any("18 coloured by knowhue" in note for note in summary.notes)


def test_what_an_archive_cannot_be(photos, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="should not be or contain the place of the images"):
        archive(photos, photos)
    with pytest.raises(ConfigError, match=r"only `saturation` and `unknown_below`\. Found `sample`\."):
        archive(photos, out, options=ColorizeOptions(sample=2, saturation=2))
    with pytest.raises(ConfigError, match=r"`saturation` should be 0 .* Found `saturation = -1`"):
        archive(photos, out, options=ColorizeOptions(saturation=-1))
    with pytest.raises(ConfigError, match="`shards` should be 1 to"):
        archive(photos, out, shards=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file` is a file, not a folder\. Name another folder"):
        archive(photos, tmp_path / "file")
    with pytest.raises(ImageError, match="should be a folder of images"):
        archive(tmp_path / "nothing", out)
    shutil.copy(photos / NAMES[0], photos / "0" / "p0.jpg")
    with pytest.raises(ConfigError, match=r"`0/p0\.ora` would be made from `0/p0\.jpg` and `0/p0\.png`"):
        archive(photos, out, suffix=".ora")
    assert not list(out.rglob("*.ora"))


def test_an_output_within_the_source_and_what_was_made_beside_it_are_no_photos(photos):
    shutil.copy(photos / NAMES[0], photos / "0" / "p0-colour.png")
    for made, already in ((18, 0), (0, 18)):
        summary = archive(photos, photos / "colours")
        assert (summary.made, summary.already) == (made, already)
    assert "1 image left out, made by knowhue from images beside them: 0/p0-colour.png" in summary.notes


def test_a_model_that_fails_ends_the_shard_with_its_own_words(photos, tmp_path, monkeypatch):
    def fail(seen: np.ndarray) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Colorizer, "load", classmethod(lambda cls, *names: cls(FakeNetwork(fail))))
    with pytest.raises(RuntimeError, match="out of memory"):
        archive(photos, tmp_path / "out")
    assert not files_of(tmp_path / "out")


def test_what_is_waited_for_while_workers_open_the_model_is_said(photos, tmp_path):
    class Elsewhere:
        threads = None

        def leftover_jobs(self) -> list[str]:
            return []

        def execute(self, jobs, watch):
            said.append([event.get("text") for event in events])
            for job in jobs:
                job.run()
            watch()

    events: list[dict[str, Any]] = []
    said: list[list[str | None]] = []
    archive(photos, tmp_path / "out", executor=Elsewhere(), report=events.append)
    # of seven one has no image
    first = (
        "starting 6 shards: each worker opens the model first, and images are counted when their shard ends"
    )
    assert said == [[f"looking for images in {photos}", None, first]]
    assert (events[-1]["done"], events[-1]["total"]) == (18, 18)


def test_shards_that_an_engine_did_not_finish_are_named(photos, tmp_path):
    class Idle(InProcess):
        def execute(self, jobs, watch=lambda: None) -> None:
            pass

    with pytest.raises(RunError, match=r"^1 shard did not finish: 0\. Run the command again\.$"):
        archive(photos, tmp_path / "out", shards=1, executor=Idle())


def test_jobs_of_a_killed_command_are_waited_for(photos, tmp_path):
    class Busy(InProcess):
        def leftover_jobs(self) -> list[str]:
            return ["17", "18"]

    with pytest.raises(RunError, match="still run: 17, 18"):
        archive(photos, tmp_path / "out", executor=Busy())


def test_from_and_to_an_object_store_that_refuses_every_twentieth_request(photos, tmp_path, monkeypatch):
    s3_server = pytest.importorskip("s3_server")
    archive(photos, tmp_path / "whole")
    with s3_server.running_s3(monkeypatch, every=20) as server:
        source, out = open_store("s3://bucket/in"), open_store("s3://bucket/out")
        for name in NAMES:
            source.write(name, (photos / name).read_bytes())
        summary = archive(source.url, out.url)
        assert (summary.made, summary.failed) == (18, 0)
        found = {each.path: out.read(each.path) for each in out.files() if not each.path.startswith(STATE)}
        assert found == files_of(tmp_path / "whole")
        assert archive(source.url, out.url).already == 18
        assert server.refused >= 5
        out.write("1/original.png", (photos / NAMES[0]).read_bytes())
        within = archive(
            "s3://bucket", tmp_path / "all"
        )  # results are not sources, but an original among them is
        assert within.made == 19
        assert (tmp_path / "all" / "out" / "1" / "original.png").exists()
        assert any("18 coloured by knowhue" in note for note in within.notes)
        for name in ("made.png", "original.png"):
            source.write(f"2020/{name}", (photos / NAMES[0]).read_bytes())
        source.write(f"2020/{LEDGER}", json.dumps({"path": "x.png", "output": "made.png"}).encode())
        beside = archive(source.url, tmp_path / "beside")
        assert beside.made == 19
        assert any("1 coloured by knowhue" in note for note in beside.notes)


KILLED = """
import sys; sys.path[:0] = {path!r}
import test_archive as t
from knowhue.inference.colorizer import Colorizer
from knowhue.images.image import STATE
from knowhue.inference.store import FolderStore
import os
Colorizer.load = classmethod(lambda cls, *names: cls(t.FakeNetwork()))
write, count = FolderStore.write, []
def dying(store, path, data, replace=True):
    made = write(store, path, data, replace)
    count.append(path)
    if len([each for each in count if not each.startswith(STATE)]) == 5:
        os.kill(os.getpid(), 9)
    return made
FolderStore.write = dying
t.archive({source!r}, {out!r})
"""


def test_a_process_that_is_killed_leaves_nothing_half_and_nothing_in_the_way(photos, tmp_path):
    archive(photos, tmp_path / "whole")
    out, here = tmp_path / "out", Path(__file__).parent
    script = KILLED.format(path=[str(here), str(here / "inference")], source=str(photos), out=str(out))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    there, whole = files_of(out), files_of(tmp_path / "whole")
    assert 5 <= len(there) < 18
    assert there.items() <= whole.items()
    summary = archive(photos, out)
    assert (summary.made + summary.already, summary.failed) == (18, 0)
    assert files_of(out) == whole
    assert not list((out / STATE / "parts").iterdir())


def test_workers_with_another_current_folder_find_everything(photos, tmp_path, monkeypatch):
    class Elsewhere(InProcess):
        def execute(self, jobs, watch=lambda: None):
            monkeypatch.chdir("/")
            super().execute(jobs, watch)

    monkeypatch.chdir(tmp_path)
    assert archive("in", "out", executor=Elsewhere()).made == 18
    assert len(files_of(tmp_path / "out")) == 18


def test_a_listing_does_not_fill_the_memory():
    """A list would need several hundred bytes per name."""

    class Many(FolderStore):
        count = 0

        def images(self, avoid: str = "") -> Iterator[StoredFile]:
            for number in range(self.count):
                yield StoredFile(f"{number % 1000}/{number:09d}-a-name-of-some-length.jpg", "1")

    peaks = []
    for count in (1_000, 12_000):
        source = Many(Path("nowhere"))
        source.count = count
        with tables_on_disk() as tables:
            listing = ArchiveListing(tables)
            tracemalloc.start()
            listing.add_images(source)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert len(listing) == count
    assert peaks[1] < peaks[0] + 100_000


def test_a_linked_folder_of_the_output_that_leads_among_the_photos_is_refused(photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "0").symlink_to(photos / "0")
    before = files_of(photos)
    with pytest.raises(ConfigError, match="leads into the folder of the images"):
        archive(photos, tmp_path / "out", overwrite=True)
    assert files_of(photos) == before


def test_where_nothing_could_be_read_at_first_photos_are_dealt_out_later(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    with open(os.fsencode(source) + b"/caf\xe9.png", "wb") as file:
        file.write(b"")
    assert (
        archive(source, tmp_path / "out", shards=None).failed,
        archive(source, tmp_path / "out", shards=None).made,
    ) == (1, 0)
    Image.fromarray(np.zeros((20, 28), np.uint8)).save(source / "a.png")
    assert archive(source, tmp_path / "out", shards=None).made == 1


def test_folders_are_told_from_urls_and_a_folders_files_come_whole(tmp_path):
    assert not is_url(str(tmp_path))
    store = open_store(str(tmp_path))
    stamp = store.write("a/b.txt", b"12")
    assert [(each.path, each.stamp) for each in store.files()] == [("a/b.txt", stamp)]
    os.utime(tmp_path / "a" / "b.txt", ns=(0, 0))
    assert [each.stamp for each in store.files()] != [stamp]
    store.remove("a/b.txt")
    store.remove("a/b.txt")
    with pytest.raises(ImageError, match="it is gone"):
        store.read("a/b.txt")
    with store.hold(), pytest.raises(RunError, match="is in use by"):
        _held_elsewhere(tmp_path)


def _held_elsewhere(root: Path) -> None:
    caught: list[BaseException] = []

    def hold() -> None:
        try:
            with open_store(str(root)).hold():
                pass
        except RunError as error:
            caught.append(error)

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    raise caught[0]


def test_a_file_that_comes_after_the_listing_is_not_replaced(photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    predict = FakeNetwork.predict

    def meanwhile(network: FakeNetwork, *seen: Any) -> Any:
        for name in (NAMES[2], NAMES[5]):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            if not (out / name).exists():
                (out / name).write_bytes(b"precious")
        return predict(network, *seen)

    monkeypatch.setattr(FakeNetwork, "predict", meanwhile)
    for _ in range(2):
        summary = archive(photos, out)
        assert {path for path, _ in summary.failures} == {NAMES[2], NAMES[5]}
        assert (out / NAMES[2]).read_bytes() == (out / NAMES[5]).read_bytes() == b"precious"


@pytest.mark.parametrize("after", [0, 5, 18])
def test_a_shard_that_the_engine_begins_again_goes_on(photos, tmp_path, monkeypatch, after):
    archive(photos, tmp_path / "whole", shards=1)
    out, there = tmp_path / "out", []
    write = FolderStore.write

    def lost(store: FolderStore, path: str, data: bytes, replace: bool = True) -> str:
        """A store that stops writing after some images, and writes only its first ledger."""
        if len(files_of(out)) >= after and not path.endswith("manifests/000000.jsonl"):
            raise RunError("lost")
        return write(store, path, data, replace)

    class Twice(InProcess):
        """An engine that assumes that its first attempt was lost."""

        def execute(self, jobs, watch=lambda: None):
            with monkeypatch.context() as patched:
                if after:
                    patched.setattr(FolderStore, "write", lost)
                with contextlib.suppress(RunError):
                    jobs[0].run()
            there.append(len(files_of(out)))
            super().execute(jobs, watch)

    summary = archive(photos, out, shards=1, executor=Twice())
    assert (after or 18) <= there[0] <= min(after or 18, 16) + 2  # several threads write
    assert (summary.made + summary.already, summary.failed) == (18, 0)
    assert summary.already == (0 if after else 18)  # if the ledger was written last, nothing is repeated
    assert files_of(out) == files_of(tmp_path / "whole")
    assert archive(photos, out, shards=1).already == 18


def test_what_is_gone_from_the_source_is_not_counted(photos, tmp_path):
    archive(photos, tmp_path / "out", shards=1)
    for name in NAMES[:4]:
        (photos / name).unlink()
    archive(photos, tmp_path / "out", shards=1)
    lines = (tmp_path / "out" / STATE / "ledgers" / "000000.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 14


def test_what_failed_gives_no_right_to_replace(photos, tmp_path):
    (photos / "bad.png").write_bytes(b"no image")
    archive(photos, tmp_path / "out")
    (tmp_path / "out" / "bad.png").write_bytes(b"by hand")
    shutil.copy(photos / NAMES[0], photos / "bad.png")
    assert archive(photos, tmp_path / "out").failed == 1
    assert (tmp_path / "out" / "bad.png").read_bytes() == b"by hand"


def test_what_lies_behind_a_linked_folder_of_the_output_is_seen(photos, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / Path(NAMES[0]).name).write_bytes(b"precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "0").symlink_to(elsewhere)
    with pytest.raises(RunError, match="1 other file where outputs would be written"):
        archive(photos, tmp_path / "out")
    (elsewhere / Path(NAMES[0]).name).rename(tmp_path / "mine")
    assert archive(photos, tmp_path / "out").made == 18
    assert archive(photos, tmp_path / "out").already == 18
    assert (tmp_path / "mine").read_bytes() == b"precious"


def test_one_photo_with_an_impossible_place_fails_alone(photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "0").write_text("a file where a folder should be")
    (out / NAMES[1]).mkdir(parents=True)
    os.mkfifo(photos / "2" / "pipe.png")
    for made, already in ((11, 0), (0, 11)):
        summary = archive(photos, out)
        assert (summary.made, summary.already, summary.failed) == (made, already, 8)
    assert any("device or a pipe" in why for _, why in summary.failures)


def test_names_that_are_no_text_are_kept_and_folders_that_cannot_be_read_are_named(
    photos, tmp_path, monkeypatch
):
    shutil.copy(photos / NAMES[0], os.fsencode(photos) + b"/caf\xe9.png")
    (tmp_path / "out").mkdir()
    with open(os.fsencode(tmp_path / "out") + b"/\xe9.txt", "w") as file:
        file.write("a stranger's")
    walk = store_file.walk

    def closed(root: Path, avoid: Path | None = None) -> Iterator[Any]:
        yield from walk(root, avoid=avoid)
        yield root / "secret", "unreadable folder: Permission denied"

    monkeypatch.setattr(store_file, "walk", closed)
    summary = archive(photos, tmp_path / "out")
    assert (summary.made, summary.failed) == (19, 1)
    assert summary.failures[0][1] == "unreadable folder: Permission denied"
    assert os.path.getsize(os.fsencode(tmp_path / "out") + b"/caf\xe9.png")
    assert archive(photos, tmp_path / "out").already == 19


def test_an_output_around_the_photos_is_refused(photos, tmp_path):
    with pytest.raises(ConfigError, match="should not be or contain the place"):
        archive(photos, tmp_path, overwrite=True)


def test_originals_are_replaced_under_no_other_name_of_their_place(photos):
    pytest.importorskip("obstore")
    before = files_of(photos)
    for out in (photos.as_uri(), photos.as_uri().replace("file", "File"), photos.parent.as_uri()):
        with pytest.raises(ConfigError, match="should not be or contain the place"):
            archive(photos, out, overwrite=True)
    for out in ("s3a://bucket/photos/", "https://bucket.s3.eu-west-1.amazonaws.com"):
        with pytest.raises(ConfigError, match="should not be or contain the place"):
            archive("s3://bucket/photos", out, overwrite=True)
    assert files_of(photos) == before


@pytest.mark.parametrize(
    ("file", "message"), [("archive.json", "should hold a plan"), ("ledgers", "is damaged")]
)
def test_damage_is_one_line(photos, tmp_path, file, message):
    archive(photos, tmp_path / "out")
    path = tmp_path / "out" / STATE / file
    path = next(path.iterdir()) if path.is_dir() else path
    path.write_bytes(b"")
    with pytest.raises(RunError, match=message) as caught:
        archive(photos, tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lost", ["schema", "job", "shards"])
def test_a_plan_that_lacks_something_is_damage(photos, tmp_path, lost):
    archive(photos, tmp_path / "out")
    path = tmp_path / "out" / STATE / "archive.json"
    plan = json.loads(path.read_text())
    del plan[lost]
    path.write_text(json.dumps(plan))
    with pytest.raises(RunError, match="should hold a plan"):
        archive(photos, tmp_path / "out")


@pytest.mark.parametrize("lost", ["stamp", "novelty", "warnings"])
def test_a_line_of_a_ledger_that_lacks_something_is_damage(photos, tmp_path, lost):
    archive(photos, tmp_path / "out", shards=1)
    (ledger,) = (tmp_path / "out" / STATE / "ledgers").iterdir()
    head, first, *others = ledger.read_text().splitlines()
    line = json.loads(first)
    del line[lost]
    ledger.write_text("\n".join([head, json.dumps(line), *others]) + "\n")
    with pytest.raises(RunError, match="is damaged: it recorded what is done"):
        archive(photos, tmp_path / "out", shards=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": 1},
        {"made": 7},
        {"planned": True, "stamp": 1},
        {"error": "", "warnings": 0},
        {"stamp": None},
        {"novelty": "far"},
        {"warnings": 3},
        {"label": []},
    ],
    ids=str,
)
def test_a_line_of_a_ledger_of_another_shape_is_damage(photos, tmp_path, wrong):
    archive(photos, tmp_path / "out", shards=1)
    (ledger,) = (tmp_path / "out" / STATE / "ledgers").iterdir()
    head, first, *others = ledger.read_text().splitlines()
    ledger.write_text("\n".join([head, json.dumps(json.loads(first) | wrong), *others]) + "\n")
    with pytest.raises(RunError, match="is damaged: it recorded what is done"):
        archive(photos, tmp_path / "out", shards=1)


def test_a_folder_that_is_called_as_the_built_in_model_is_not_it(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "built-in").mkdir()
    asked: list[str] = []

    def load(cls: type[Colorizer], name: str, *more: Any) -> Colorizer:
        asked.append(name)
        return Colorizer(FakeNetwork())

    monkeypatch.setattr(Colorizer, "load", classmethod(load))
    colorize_archive(str(photos), str(tmp_path / "out"), model=ModelChoice("built-in"), shards=2)
    assert set(asked) == {"built-in"}
