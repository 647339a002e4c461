"""Every engine runs jobs once, after what they need, and stops at the first that fails; small real processes."""

import sys
from functools import partial

import pytest
from cluster_jobs import fail, write

from knowhue.config import Images
from knowhue.data import decode
from knowhue.data.prepare import prepare
from knowhue.engines.executor import InProcess, Job, LocalProcesses, each_once, open_engine, share_out
from knowhue.errors import RunError


def job(folder, name, needs=()):
    return Job(name, partial(write, folder / name, needs), tuple(needs))


ENGINES = ["in this process", "local", "slurm", "ray"]


@pytest.fixture(params=ENGINES)
def engine(request):
    """Every engine that is here, with two places."""
    match request.param:
        case "in this process":
            return InProcess()
        case "local":
            return LocalProcesses(2)
        case "slurm":
            return open_engine("slurm", request.getfixturevalue("slurm"), 2)
        case "ray":
            request.getfixturevalue("ray")
            return open_engine("ray", workers=2)


def test_each_job_runs_once_and_after_what_it_needs(engine, tmp_path):
    tmp_path = tmp_path / "written"
    tmp_path.mkdir()
    jobs = [
        job(tmp_path, "head"),
        job(tmp_path, "arm", ["head"]),
        job(tmp_path, "head"),
        job(tmp_path, "other"),
    ]
    engine.execute([*jobs, job(tmp_path, "last", ["arm", "other"])])
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == dict.fromkeys(("head", "arm", "other", "last"), "done\n")


def test_images_are_prepared_to_the_same_bytes_by_every_engine(engine, make_folder, tmp_path, monkeypatch):
    photos = make_folder({"train/cat": 6, "train/dog": 5, "test/cat": 2, "test/dog": 2})
    images = Images(path=str(photos), size_px=16, min_per_class=1)
    prepare(images, tmp_path / "here" / "images")
    monkeypatch.setattr(decode, "_PART_IMAGES", 4)
    told = []
    prepare(images, tmp_path / "there" / "images", told.append, share_out=share_out(engine, "prepare"))
    here, there = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "images").iterdir()}
        for name in ("here", "there")
    )
    assert {"images.npy", "manifest.csv", "prepared.json"} <= set(here)
    assert here == there
    assert told[-1] == {"stage": "prepare", "done": 15, "total": 15}


def test_a_job_that_fails_ends_it_and_what_needs_it_never_begins(engine, tmp_path):
    tmp_path = tmp_path / "written"
    tmp_path.mkdir()
    bad = Job("bad", partial(fail, tmp_path / "bad"), ("before",))
    jobs = [job(tmp_path, "before"), bad, job(tmp_path, "after", ["bad"])]
    with pytest.raises(RunError, match=r"^bad failed$"):
        engine.execute(jobs)
    assert {path.name for path in tmp_path.iterdir()} == {"before"}


def write_imported(path):
    path.write_text("\n".join(sys.modules))


def test_workers_begin_with_what_cells_import(tmp_path):
    """This job needs none of it: each worker would import torch and training for itself, for seconds."""
    LocalProcesses(2).execute([Job("a", partial(write_imported, tmp_path / "imported"))])
    assert {"knowhue.cells", "knowhue.training.run"} <= set((tmp_path / "imported").read_text().split("\n"))


def test_the_first_of_several_jobs_with_one_id_keeps_its_place():
    jobs = [Job("a", print), Job("b", print), Job("a", repr, ("b",))]
    assert each_once(jobs) == jobs[:2]


def test_nothing_to_do_ends_at_once():
    InProcess().execute([])
    LocalProcesses(2).execute([])


def test_threads_are_shared_out(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [LocalProcesses(workers).threads for workers in (2, 3, 16)] == [4, 2, 1]
