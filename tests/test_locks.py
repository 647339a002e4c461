"""Only one process at a time writes to a folder; a second one learns who, where and since when."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from knowhue.errors import RunError
from knowhue.locks import LOCK, locked, note_jobs, read_holders, working_on
from knowhue.runs import remove_if_empty, write_config, write_status
from knowhue.training.run import evaluate_run, train

DRIVER = """
import sys, time
from pathlib import Path
from knowhue.locks import locked, note_jobs
with locked(Path(sys.argv[1]), "study", engine="slurm"):
    note_jobs(Path(sys.argv[1]), "slurm", ["12", "13"])
    print("held", flush=True)
    time.sleep(60)
"""
WORKER = """
import sys, time
from pathlib import Path
from knowhue.locks import job_of_engine, working_on
job_of_engine.set("slurm 14")
with working_on(Path(sys.argv[1]) / "multi" / "seed-0-abc", "arm multi"):
    print("held", flush=True)
    time.sleep(60)
"""
HOLDER = """
import sys, time
from pathlib import Path
from knowhue.locks import locked
with locked(Path(sys.argv[1]), "study"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def begin(tmp_path):
    """Start a process that locks something in `out`."""
    begun = []

    def begin(script):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
        )
        begun.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield begin
    for process in begun:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def held(tmp_path, begin):
    """A folder that another process has locked, and that process."""
    return tmp_path / "out", begin(HOLDER)


def enter(folder: Path, what: str = "study") -> None:
    with locked(folder, what, wait_s=0.01):
        pass


def test_the_second_process_is_told_who_where_and_since_when(held):
    folder, process = held
    with pytest.raises(RunError) as refused:
        enter(folder)
    text = str(refused.value)
    when = r"since \d{4}-\d\d-\d\d \d\d:\d\d UTC"
    assert re.search(rf"out` is in use by \S+@\S+, process {process.pid}, {when} \(", text)
    assert "UTC (study). " in text
    assert text.endswith("Wait for that to end, or name another folder or file.")
    assert "\n" not in text


def test_a_killed_process_locks_nobody_out(held):
    folder, process = held
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / LOCK).exists()
    enter(folder)
    assert not (folder / LOCK).exists()


@pytest.mark.parametrize("content", ["", "half of the", "[]", '{"user": 1}', "\udcff"])
def test_a_lock_file_alone_is_no_lock(tmp_path, content):
    (tmp_path / LOCK).write_bytes(os.fsencode(content))
    enter(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"half of the", b"[" * 100_000, b"[]", b"\xff", b'{"user": "ada"}', b"null"],
    ids=lambda each: str(len(each)),
)
def test_a_holder_that_cannot_be_read_holds_all_the_same(held, content):
    folder, _ = held
    (folder / LOCK).write_bytes(content)
    with pytest.raises(RunError, match="in use by another process"):
        enter(folder)


def test_other_threads_are_kept_out_and_the_same_may_lock_again(tmp_path):
    refused: list[str] = []

    def other() -> None:
        try:
            enter(tmp_path)
        except RunError as error:
            refused.append(str(error))

    with locked(tmp_path, "study"):
        enter(tmp_path, "train")  # leaves the outer lock where it is
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    enter(tmp_path)


def test_what_is_done_under_the_lock_is_no_content(tmp_path):
    with locked(tmp_path / "new", "study"):
        remove_if_empty(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    enter(tmp_path / "old")
    assert list((tmp_path / "old").iterdir()) == []
    with locked(tmp_path / "kept", "study"):
        (tmp_path / "kept" / "result").touch()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["result"]


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt, SystemExit])
def test_work_that_fails_lets_go(tmp_path, raised):
    with pytest.raises(raised), locked(tmp_path / "out", "study"):
        raise raised
    assert not (tmp_path / "out").exists()
    enter(tmp_path)


def test_of_many_processes_the_first_locks_for_all(held, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    enter(held[0])


@pytest.mark.parametrize("world", [None, "", "1"])
def test_a_rank_alone_lets_nobody_in(held, monkeypatch, world):
    """Schedulers set RANK for single processes as well."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if world is not None:
        monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(RunError, match="in use"):
        enter(held[0])


def test_who_waits_long_is_told_for_whom(held, monkeypatch):
    monkeypatch.setattr("knowhue.locks.QUIET_S", 0.02)
    told = []
    with (
        pytest.raises(RunError, match="in use"),
        locked(held[0], "features", wait_s=0.2, report=told.append),
    ):
        pass
    (note,) = told
    assert note["stage"] == "note"
    assert re.fullmatch(r"waiting for \S+out, in use by .*, process \d+, since .*", note["text"])


def test_who_waits_shortly_is_told_nothing(held):
    folder, process = held
    process.kill()
    process.wait()
    told = []
    with locked(folder, "features", wait_s=1.0, report=told.append):
        pass
    assert told == []


def test_a_link_to_a_folder_is_that_folder(held, tmp_path):
    (tmp_path / "link").symlink_to(held[0])
    with pytest.raises(RunError, match="in use"):
        enter(tmp_path / "link")


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(
            RunError, match=r"^Cannot write .*/file` is a file, not a folder\. Name another folder\.$"
        ):
            enter(out)
    with pytest.raises(RunError, match=r"File name too long\. Name another folder\.$"):
        enter(tmp_path / ("x" * 300))


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="a folder of the system that takes no files")
def test_a_folder_that_takes_no_files_is_not_said_to_be_in_use():
    with pytest.raises(
        RunError, match=r"^Cannot write `/proc`: `/proc` takes no files\. Name another folder\.$"
    ):
        enter(Path("/proc"))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_work_goes_on(tmp_path, monkeypatch, number):
    def without(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("filelock._unix.fcntl.flock", without)
    with pytest.warns(UserWarning, match="cannot lock .*no other process writes to it"):
        enter(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_full_disk_is_said(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("knowhue.locks.Path.write_text", full)
    with pytest.raises(RunError, match="No space left"):
        enter(tmp_path / "out")


def test_folders_made_on_the_way_are_removed_again_if_nothing_was_left(tmp_path):
    with locked(tmp_path / "runs" / "a", "study"):
        pass
    assert not (tmp_path / "runs").exists()
    with locked(tmp_path / "runs" / "a", "study"):
        (tmp_path / "runs" / "a" / "kept").touch()
    assert (tmp_path / "runs" / "a" / "kept").exists()


def test_a_driver_that_was_killed_has_left_its_engine_and_jobs(begin, tmp_path):
    driver, folder = begin(DRIVER), tmp_path / "out"
    with pytest.raises(RunError, match=r"in use by \S+, process \d+, slurm 12, 13, since .* \(study\)"):
        enter(folder)
    driver.kill()
    driver.wait()
    with locked(folder, "study", engine="local") as left:
        assert left == "slurm"
    # the last command ended before it asked for these jobs
    with locked(folder, "study", engine="local") as left:
        assert left == "slurm"
        note_jobs(folder, "local", [])
    with locked(folder, "study", engine="local") as left:
        assert not left


def test_training_and_scoring_do_not_work_beside_jobs_that_a_killed_driver_left(begin, tmp_path, tiny):
    driver, folder = begin(DRIVER), tmp_path / "out"
    driver.kill()
    driver.wait()
    run = folder / "multi" / "seed-0-1"
    run.mkdir(parents=True)
    write_config(run, tiny())
    write_status(run, {"state": "finished"})
    for work in (lambda: train(tiny(), folder), lambda: evaluate_run(run)):
        with pytest.raises(RunError, match=r"may still run: a command with `--engine slurm` was killed"):
            work()
        assert left_in(folder) == "slurm"  # the next driver still learns of them


def left_in(folder: Path) -> str:
    with locked(folder, "study", engine="local") as left:
        return left


def test_a_driver_that_ended_has_left_nothing(tmp_path):
    with locked(tmp_path, "study", engine="slurm"):
        note_jobs(tmp_path, "slurm", ["12"])
    with locked(tmp_path, "study") as left:
        assert not left


def test_a_part_that_another_process_works_on_is_waited_for(begin, tmp_path, monkeypatch):
    """An engine can assume that a running job is lost, and then runs it twice."""
    monkeypatch.setattr("knowhue.locks.QUIET_S", 0.1)
    worker, part, told = begin(WORKER), tmp_path / "out" / "multi" / "seed-0-abc", []
    threading.Timer(0.8, worker.kill).start()
    with working_on(part, "arm multi", report=told.append):
        assert worker.wait() == -signal.SIGKILL
        (part / "result").touch()
    (note,) = told
    assert re.search(
        r"seed-0-abc, in use by \S+, process \d+, slurm 14, since .* \(arm multi\)", note["text"]
    )
    # the file is not removed, because on NFS a lock on a removed file has no effect
    assert (part / LOCK).read_bytes() == b""


def test_a_part_that_came_to_nothing_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), working_on(tmp_path / "part", "arm multi"):
        raise KeyboardInterrupt
    assert not (tmp_path / "part").exists()


def test_signs_say_who_works_and_who_was_lost_and_since_when(begin, tmp_path):
    driver, worker, root = begin(DRIVER), begin(WORKER), tmp_path / "out"
    study, part = read_holders(root)
    assert re.fullmatch(r"study: \S+@\S+, process \d+, slurm 12, 13, since .* UTC \(\w+\)", study)
    assert re.fullmatch(
        rf"multi/seed-0-abc: \S+@\S+, process {worker.pid}, slurm 14, since .* UTC \(arm multi\)", part
    )
    worker.kill()
    worker.wait()
    os.utime(root / "multi/seed-0-abc" / LOCK, (1e9, 1e9))
    assert read_holders(root)[0] == study
    lost = part.replace(": ", ": no sign of life since 2001-09-09 01:46 UTC; started by ", 1)
    assert read_holders(root)[1] == lost.replace("slurm 14, since ", "slurm 14, at ")
    with working_on(root / "multi/seed-0-abc", "arm multi"):
        (root / "multi/seed-0-abc/result").touch()
    assert read_holders(root) == [study]
    assert driver.poll() is None


def test_a_gate_is_called_by_its_block(tmp_path):
    with working_on(tmp_path / "gate", "A/A gate", name=".seed-3.lock"):
        (sign,) = read_holders(tmp_path)
    assert sign.startswith("gate/seed-3: ")


def test_a_worker_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr("knowhue.locks.HEARTBEAT_S", 0.05)
    with working_on(tmp_path, "gate multi", name=".seed-3.lock"):
        path = tmp_path / ".seed-3.lock"
        os.utime(path, (1e9, 1e9))
        deadline = time.monotonic() + 60
        while path.stat().st_mtime == 1e9 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert abs(path.stat().st_mtime - time.time()) < 10


def test_of_many_processes_the_first_gives_signs_for_all(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("knowhue.locks.HEARTBEAT_S", 0.01)
    path = tmp_path / LOCK
    path.touch()
    os.utime(path, (1e9, 1e9))
    with working_on(tmp_path, "arm multi"):
        time.sleep(0.1)
    assert path.stat().st_mtime == 1e9
