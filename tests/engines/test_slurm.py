"""Slurm jobs: their options, requeueing at a time limit, and errors of lost jobs."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace

import fake_slurm
import pytest
from cluster_jobs import divide, wait_for_a_second_start

pytest.importorskip("submitit", reason="submitit is not installed")

from knowhue.engines import slurm as engine
from knowhue.engines.executor import InProcess, Job, await_leftover_jobs, open_engine
from knowhue.errors import RunError
from knowhue.locks import LOCK, locked


def options_of(root, number):
    text = (root.parent / "slurm" / f"job-{number}" / "options").read_text()
    return dict(line.split("=", 1) for line in text.splitlines())


def test_jobs_ask_for_what_the_settings_say(slurm):
    settings = [
        "slurm.partition=gpu",
        "slurm.cpus=4",
        "slurm.gpus=1",
        "slurm.memory_gb=1.5",
        "slurm.minutes=30",
        "slurm.options.qos=long",
    ]
    open_engine("slurm", slurm, settings=settings).execute([Job("a", print), Job("b", print, ("a",))])
    first, second = options_of(slurm, 1), options_of(slurm, 2)
    asked = {
        "partition": "gpu", "cpus-per-task": "4", "gpus-per-node": "1", "mem": "1536M", "time": "30",
        "qos": "long", "kill-on-invalid-dep": "yes", "requeue": "", "signal": "USR2@90",
    }  # fmt: skip
    assert asked.items() <= first.items()
    assert "dependency" not in first
    assert second["dependency"] == "afterok:1"
    assert first["job-name"] == second["job-name"]


def test_an_option_that_is_off_is_left_out(slurm):
    settings = ["slurm.options.requeue=false", "slurm.options.exclusive=true"]
    open_engine("slurm", slurm, settings=settings).execute([Job("a", print)])
    asked = options_of(slurm, 1)
    assert "requeue" not in asked
    assert asked["exclusive"] == ""


def test_jobs_that_slurm_says_nothing_of_are_not_taken_for_ended(slurm, monkeypatch):
    answers = iter([None, {"7": "knowhue-x"}, {}])
    monkeypatch.setattr(engine, "active_jobs", lambda: next(answers))
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: None))
    open_engine("slurm", slurm)._cancel(["7"])
    assert next(answers, "asked until they were gone") == "asked until they were gone"


def test_so_many_run_at_a_time_as_there_are_names(slurm):
    open_engine("slurm", slurm, 2).execute([Job(name, print) for name in "abc"])
    names = [options_of(slurm, number)["job-name"] for number in (1, 2, 3)]
    assert len(set(names)) == 2
    assert names[0] == names[2]
    assert options_of(slurm, 3)["dependency"] == "singleton"


def test_results_of_an_earlier_cluster_do_not_count(slurm, tmp_path):
    """A reinstalled cluster numbers its jobs from 1 again."""
    for name in ("first", "second"):
        open_engine("slurm", slurm).execute([Job(name, (tmp_path / name).touch)])
        assert (tmp_path / name).exists()
        shutil.rmtree(tmp_path / "slurm")
        fake_slurm.install(tmp_path / "slurm")


def test_two_studies_never_share_a_name(slurm):
    one, two = (open_engine("slurm", slurm / name)._title for name in ("a", "b"))
    assert one != two


def test_a_job_at_its_time_limit_is_queued_again_and_goes_on(slurm, tmp_path):
    sign = tmp_path / "started"

    def warn():
        while not sign.exists() or not sign.read_text().endswith("\n"):
            time.sleep(0.05)
        os.kill(int(sign.read_text()), signal.SIGUSR2)

    warner = threading.Thread(target=warn)
    warner.start()
    open_engine("slurm", slurm).execute([Job("a", partial(wait_for_a_second_start, sign))])
    warner.join()
    first, second = sign.read_text().split()
    assert first != second


def test_a_job_that_was_cancelled_by_others_is_said(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "LOST_S", 0.3)
    sign = tmp_path / "started"

    def cancel():
        while not sign.exists():
            time.sleep(0.05)
        subprocess.run(["scancel", "1"], check=True)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(RunError, match=r"Slurm's job 1 ended without a result: it was cancelled, or killed"):
        open_engine("slurm", slurm).execute([Job("a", partial(wait_for_a_second_start, sign))])
    canceller.join()


DRIVER = """
import sys
from functools import partial
from types import SimpleNamespace
from pathlib import Path
from knowhue.engines.executor import open_engine
from knowhue.engines.executor import Job
from knowhue.locks import locked
from cluster_jobs import wait_for_a_second_start
root = Path(sys.argv[1])
with locked(root, "study", engine="slurm"):
    open_engine("slurm", root).execute([Job("a", partial(wait_for_a_second_start, Path(sys.argv[2])))])
"""


def test_jobs_of_a_driver_that_was_killed_are_waited_for_by_the_next(slurm, tmp_path):
    """It waits with any engine, because these jobs write to the folder."""
    sign, told = tmp_path / "started", []
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, slurm, sign])
    deadline = time.monotonic() + 120
    while not sign.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    while '"jobs": ["1"]' not in (slurm / LOCK).read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.kill()
    driver.wait()

    def report(event):
        told.append(event["text"])
        with sign.open("a") as file:  # lets the job end
            file.write("told\n")

    with locked(slurm, "study", engine="local") as left:
        await_leftover_jobs(InProcess(), left, slurm, report)
        assert open_engine("slurm", slurm).leftover_jobs() == []
    assert told == ["waiting for jobs that an earlier command has left: slurm 1; cancel them to stop them"]


def test_where_slurm_cannot_be_asked_a_study_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        RunError, match=r"Jobs of .* may still run: .*Found no `sbatch` on the PATH.* remove `.*lock`"
    ):
        await_leftover_jobs(InProcess(), "slurm", tmp_path, print)


def test_a_queue_that_does_not_answer_is_no_empty_one(slurm):
    found = open_engine("slurm", slurm)
    (slurm.parent / "slurm" / "squeue").write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: refused' >&2\nexit 1\n"
    )
    with pytest.raises(RunError) as caught:
        await_leftover_jobs(found, "", slurm, print)
    assert str(caught.value) == (
        "No Slurm cluster answers here: `squeue` says `slurm_load_jobs error: refused`. Run this on a machine of the "
        "cluster where `squeue` lists jobs, or leave `--engine slurm` out."
    )
    # an earlier command is mentioned only if there was one
    with pytest.raises(
        RunError, match=r"^Jobs of .* may still run: .* was killed\. No Slurm cluster answers here"
    ):
        await_leftover_jobs(found, "slurm", slurm, print)


def test_a_fault_of_a_job_is_said_with_where_it_stands(slurm):
    with pytest.raises(
        RunError, match=r"job 1 failed: ZeroDivisionError: no such luck. Its log is `.*1_0_log"
    ):
        open_engine("slurm", slurm).execute([Job("a", divide)])


def test_a_job_that_slurm_refuses_is_said_and_what_was_queued_is_stopped(slurm):
    with pytest.raises(RunError, match=r"^Slurm refused a job: .*invalid partition specified: nowhere"):
        open_engine("slurm", slurm, settings=["slurm.partition=nowhere"]).execute([Job("a", print)])


def test_a_limit_on_queued_jobs_is_said_with_the_remedy(slurm):
    (slurm.parent / "slurm" / "limit").write_text("2")
    with pytest.raises(RunError) as refused:
        open_engine("slurm", slurm).execute([Job(name, partial(time.sleep, 60)) for name in "abc"])
    assert str(refused.value) == (
        "Slurm refused a job: error: QOSMaxSubmitJobPerUserLimit. That is the cluster's limit on jobs queued at once; "
        "of this command it took 2. Set `--engine-set slurm.queued=2`, or another `slurm.options.qos`."
    )
    assert engine.active_jobs() == {}


def test_no_more_are_queued_at_once_than_is_said(slurm, tmp_path):
    """A job does not wait for a job that has ended, because Slurm soon forgets it."""
    (slurm.parent / "slurm" / "limit").write_text("2")
    jobs = [
        Job(name, (tmp_path / name).touch, needs)
        for name, needs in zip("abcd", [(), "a", "ab", "c"], strict=True)
    ]
    open_engine("slurm", slurm, settings=["slurm.queued=2"]).execute(jobs)
    assert all((tmp_path / name).exists() for name in "abcd")
    assert options_of(slurm, 2)["dependency"] == "afterok:1"
    assert options_of(slurm, 4).get("dependency") in (None, "afterok:3")


def test_whoever_stops_the_driver_stops_its_jobs(slurm, tmp_path):
    sign = tmp_path / "started"

    def stop():
        if sign.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_engine("slurm", slurm).execute([Job("a", partial(wait_for_a_second_start, sign))], watch=stop)
    assert engine.active_jobs() == {}
