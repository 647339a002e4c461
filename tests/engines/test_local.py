"""Cells side by side: the same files as one after another, and nothing computed twice."""

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
from safetensors.torch import load_file

from knowhue.engines.executor import Job, LocalProcesses
from knowhue.errors import KnowhueError, RunError
from knowhue.plan import make_plan, read_cells, read_plan
from knowhue.storage import read_json
from knowhue.study import run_study
from small_encoder import begin_worker

QUICK = {
    "training__heads__epochs": 1, "training__finetune__epochs": 1, "evaluation__networks": (),
    "evaluation__perceptual": (),
}  # fmt: skip
ARMS = ["colour", "class", "multi", "placebo-labels"]


pytestmark = pytest.mark.usefixtures("module_without_figures")


@pytest.fixture(scope="module", autouse=True)
def _workers_know_the_small_encoder():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("knowhue.engines.executor._begin_worker", begin_worker)
        yield


def weights(root):
    return {
        str(path.parent.relative_to(root)): load_file(path)
        for path in sorted(root.rglob("model.safetensors"))
    }


@pytest.fixture(scope="module")
def side_by_side(tiny, tmp_path_factory):
    """A study by two workers, and what it told."""
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
    assert len(list((root / "heads" / "colour").iterdir())) == 2  # one a seed
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


def test_failing_cell_ends_the_study_and_keeps_the_rest(side_by_side, tiny, tmp_path):
    """A folder where a run should be is what a full or foreign disk looks like to it."""
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
    """Left alone, they would write on into a folder that the next command believes to have for itself."""
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
    except FileNotFoundError:
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
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [pid for pid in workers if is_alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def test_features_are_there_before_any_worker_asks_for_them(tiny, tmp_path, monkeypatch):
    """Of all arms: with the settings they share alone, workers filled what the others read, all at once."""
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
