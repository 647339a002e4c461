"""Every engine runs each job once, after the jobs that it needs, and stops at the first failure.

Engines by name; cells side by side: the same files as one after another, and nothing computed twice.
"""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pytest
from cluster_jobs import fail, write
from safetensors.torch import load_file

from knowhue.config import Images
from knowhue.data import decode
from knowhue.data.prepare import prepare
from knowhue.engines.executor import (
    ENGINES,
    InProcess,
    Job,
    LocalProcesses,
    open_engine,
    share_out,
)
from knowhue.errors import ConfigError, ExtraError, KnowhueError, RunError
from knowhue.plan import make_plan, read_cells, read_plan
from knowhue.storage import read_json
from knowhue.study import run_study
from knowhue.training import golden
from small_encoder import begin_worker

pytestmark = pytest.mark.usefixtures("module_without_figures")


def job(folder, name, needs=()):
    return Job(name, partial(write, folder / name, needs), tuple(needs))


EVERY_ENGINE = ["in this process", "local", "slurm", "ray"]


@pytest.fixture(params=EVERY_ENGINE)
def engine(request):
    """Every installed engine, with two workers."""
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
    """Don't preload torch and training, which takes seconds and which these jobs don't need."""
    LocalProcesses(2).execute([Job("a", partial(write_imported, tmp_path / "imported"))])
    found = set((tmp_path / "imported").read_text().split("\n"))
    assert {"knowhue.cells", "knowhue.training.run", "kornia.color"} <= found


def test_nothing_to_do_ends_at_once():
    InProcess().execute([])
    LocalProcesses(2).execute([])


def test_threads_are_shared_out(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [LocalProcesses(workers).threads for workers in (2, 3, 16)] == [4, 2, 1]


def test_the_local_engine_is_this_process_or_several():
    assert isinstance(open_engine(), InProcess)
    assert isinstance(open_engine("local", workers=1), InProcess)
    found = open_engine("local", workers=3)
    assert isinstance(found, LocalProcesses)
    assert found.workers == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "slrm"},
            "`engine` should be one of local, slurm, ray. Found `engine = slrm`. Did you mean `slurm`?",
        ),
        (
            {"settings": ["slurm.cpus=2"]},
            "`--engine-set` should be left out with `--engine local`. Found `--engine-set slurm.cpus=2`.",
        ),
        ({"name": "ray", "settings": ["ray.gpu=1"]}, "Did you mean `ray.gpus`?"),
        (
            {"name": "ray", "settings": ["slurm.gpus=1"]},
            "`--engine-set` should be `ray.NAME=VALUE` with `--engine ray`. Found `--engine-set slurm.gpus=1`.",
        ),
        ({"name": "ray", "settings": ["gpus"]}, "`--engine-set` should look like `slurm.partition=gpu`."),
        (
            {"name": "ray", "settings": ["gpus=1"]},
            "`--engine-set` should be `ray.NAME=VALUE` with `--engine ray`. Found `--engine-set gpus=1`.",
        ),
        ({"name": "ray", "settings": ["ray=1"]}, "`ray` should be a section of `key: value` lines"),
        (
            {"name": "ray", "settings": ["ray.gpus=-1"]},
            "`ray.gpus` should be greater than or equal to 0. Found `ray.gpus = -1`.",
        ),
        ({"name": "slurm", "settings": ["slurm.cpus=many"]}, "`slurm.cpus` should be a whole number."),
        ({"name": "slurm", "settings": ["slurm.minutes=0"]}, "`slurm.minutes` should be greater than"),
        (
            {"name": "slurm", "settings": ["slurm.options=long"]},
            "`slurm.options` should be `key: value` lines",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_opened(options, message, monkeypatch):
    monkeypatch.setattr(
        "knowhue.engines.executor.ENGINES", dict.fromkeys(ENGINES, lambda *_: pytest.fail("opened"))
    )
    with pytest.raises(ConfigError) as refused:
        open_engine(**options)
    assert message in str(refused.value)


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_an_engine_whose_library_is_not_installed_says_how_to_install_it(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"knowhue.engines.{name}", raising=False)
    with pytest.raises(ExtraError, match=rf"`knowhue ... --engine {name}` needs `{package}`.*\.\[{name}\]"):
        open_engine(name)


def test_no_library_of_an_engine_is_imported_for_another():
    script = (
        "import sys; from knowhue.engines.executor import open_engine; open_engine(); open_engine(workers=2);"
        "print({'submitit', 'ray', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_slurm_is_refused_where_its_commands_are_not(monkeypatch, tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"a machine of a Slurm cluster. Found no `sbatch` on the PATH"):
        open_engine("slurm", tmp_path)


QUICK = {
    "training__heads__epochs": 1, "training__finetune__epochs": 1, "training__batch_size": 7,
    "evaluation__networks": (), "evaluation__perceptual": (),
}  # fmt: skip
ARMS = ["colour", "class", "multi", "placebo-labels"]


@pytest.fixture(scope="module")
def workers_know_the_small_encoder():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("knowhue.engines.executor._start_worker", begin_worker)
        yield


def weights(root):
    return {
        str(path.parent.relative_to(root)): load_file(path)
        for path in sorted(root.rglob("model.safetensors"))
    }


@pytest.fixture(scope="module")
def side_by_side(tiny, tmp_path_factory, workers_know_the_small_encoder):
    """A study by two workers, and its reports."""
    root, told = tmp_path_factory.mktemp("side"), []
    run_study(make_plan(tiny(**QUICK), ARMS, [0, 1]), root, LocalProcesses(2), report=told.append)
    return root, told


def test_two_workers_make_what_one_makes(side_by_side, tiny, tmp_path):
    root, _ = side_by_side
    run_study(make_plan(tiny(**QUICK), ARMS, [0, 1]), tmp_path)
    one, two = weights(tmp_path), weights(root)
    assert one.keys() == two.keys()
    assert all((one[run][name] == two[run][name]).all() for run in one for name in one[run])


def test_heads_are_shared_by_the_arms(side_by_side):
    root, _ = side_by_side
    assert len(list((root / "heads" / "colour").iterdir())) == 2  # one per seed
    assert len(list((root / "heads" / "class").iterdir())) == 4  # true and shuffled labels


def test_cells_are_told_until_all_have_ended(side_by_side):
    root, told = side_by_side
    cells = [event["cells"] for event in told if event["stage"] == "cells"]
    assert [cell.state for cell in cells[-1]] == ["finished"] * 8
    assert read_cells(root, read_plan(root)) == cells[-1]
    assert all(cell.epochs == cell.of == 2 for cell in cells[-1])


def test_every_block_tried_the_gate(side_by_side):
    root, _ = side_by_side
    gates = [read_json(root / "gate" / f"seed-{seed}.json") for seed in (0, 1)]
    assert [gate[part]["differ"] for gate in gates for part in gate if part != "proved"] == [[]] * 6


def test_failing_cell_ends_the_study_and_keeps_the_rest(side_by_side, tiny, tmp_path, monkeypatch):
    """The run's folder cannot be written, as on a full or read-only disk."""
    monkeypatch.setattr(
        "knowhue.engines.executor._start_worker", partial(begin_worker, digests=golden._digests)
    )
    plan = make_plan(tiny(**QUICK), ["colour", "class"], [0])
    (tmp_path / "colour").write_text("not a folder")
    with pytest.raises(KnowhueError, match="Cannot write"):
        run_study(plan, tmp_path, LocalProcesses(2))
    (tmp_path / "colour").unlink()
    run_study(plan, tmp_path, LocalProcesses(2))
    assert {cell.state for cell in read_cells(tmp_path, plan)} == {"finished"}


def stay(path):
    path.write_text(str(os.getpid()))
    time.sleep(60)


def fail_once_there_is(path):
    while not path.exists():
        time.sleep(0.05)
    raise RunError("failed")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_a_job_that_fails_ends_those_beside_it_before_it_is_said(tmp_path):
    """Otherwise they would continue to write into a folder that the next command locks."""
    sign = tmp_path / "pid"
    with pytest.raises(RunError, match=r"^failed$"):
        LocalProcesses(2).execute(
            [Job("a", partial(stay, sign)), Job("b", partial(fail_once_there_is, sign))]
        )
    assert not is_alive(int(sign.read_text()))


PARENT = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from knowhue.engines import executor

def stay(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)

if __name__ == "__main__":
    executor._PRELOADED = ()  # torch is not needed to sleep
    with ProcessPoolExecutor(2, executor._context(), executor.end_with_parent) as pool:
        list(pool.map(stay, sys.argv[1:]))
"""


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second if it ends between opening and reading
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    signs = [tmp_path / "one", tmp_path / "two"]
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py", *signs])
    try:
        deadline = time.monotonic() + 120
        while not all(sign.exists() and sign.read_text() for sign in signs) and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = [int(sign.read_text()) for sign in signs]
        assert all(is_alive(pid) for pid in workers)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 60
    while any(is_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [pid for pid in workers if is_alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def test_features_are_there_before_any_worker_asks_for_them(tiny, tmp_path, monkeypatch):
    """Prepared for all arms: with only the shared settings, several workers wrote the same files at once."""
    plan = make_plan(tiny(**QUICK), ["class", "colour"], [0])
    reads_more = {"colour": {**plan.arms["colour"], "colour": {"method": "unet"}}}
    plan = plan.model_copy(update={"arms": {**plan.arms, **reads_more}})
    monkeypatch.setattr(
        "knowhue.engines.executor.ProcessPoolExecutor", lambda *_: pytest.fail("workers began")
    )
    with pytest.raises(pytest.fail.Exception, match="workers began"):
        run_study(plan, tmp_path, LocalProcesses(2))
    assert {path.name for path in (tmp_path / "features").glob("*/tap-*.npy")} == {
        f"tap-{n}.npy" for n in range(5)
    }


def test_a_pool_that_breaks_before_the_next_job_is_said_plainly(monkeypatch):
    def submit(*_):
        raise BrokenProcessPool("A child process terminated abruptly")

    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit)
    with pytest.raises(RunError, match=r"A worker was killed.*run the same command again"):
        LocalProcesses(2).execute([Job("a", print)])
