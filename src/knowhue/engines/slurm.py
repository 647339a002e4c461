"""Jobs as Slurm jobs with dependencies. Only this module imports submitit."""

import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError, pickle_load
from submitit.helpers import Checkpointable

from knowhue.config import fingerprint
from knowhue.engines import executor
from knowhue.engines.executor import Executor, Job, SlurmSettings
from knowhue.errors import ConfigError, RunError, shown
from knowhue.locks import job_of_engine, note_jobs
from knowhue.storage import real_path

FOLDER = ".slurm"  # subfolder of the study or archive for the input and output of Slurm jobs
LOST_S = 60.0
"""Seconds to wait for the result of a job that has left the queue, because network drives are slow."""
_CANCEL_S = 60.0  # seconds to wait for cancelled jobs to end
_SUBMIT_LIMIT = re.compile(r"(Max|Grp)Submit")  # QOSMaxSubmitJobPerUserLimit, AssocGrpSubmitJobsLimit, ...
_COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun")


class SlurmJobs(Executor):
    """Queues each job as a Slurm job, which Slurm holds until the jobs that it needs have succeeded.

    A job that is preempted, reaches its time limit or loses its node is queued again and resumes from its last epoch.
    Queued jobs run on if this process ends.
    """

    name = "slurm"
    is_elsewhere = True

    def __init__(self, root: Path, workers: int | None, settings: SlurmSettings) -> None:
        """See `executor.open_engine`; `ConfigError` if Slurm's commands are not installed here."""
        missing = [command for command in _COMMANDS if shutil.which(command) is None]
        if missing:
            raise ConfigError(
                f"`--engine slurm` should be used on a machine of a Slurm cluster. Found no `{missing[0]}` on the PATH."
            )
        self.threads = settings.cpus
        self.workers = workers
        self._settings = settings
        self._root = real_path(root)
        # separate for each driver, because a reinstalled cluster reuses job ids, by which results are named
        self._folder = self._root / FOLDER / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:8]}"
        self._title = f"knowhue-{fingerprint(str(self._root))}"

    def leftover_jobs(self) -> list[str]:
        return self._of_this_folder(_squeue())

    def execute(self, jobs: Sequence[Job], watch: Callable[[], None] = lambda: None) -> None:
        """See `Executor`; `RunError` if Slurm refuses a job, or a job ends without a result."""
        waiting, queued = list(enumerate(jobs)), dict[str, submitit.Job[Any]]()
        gone_since: dict[str, float] = {}
        try:
            while waiting or queued:
                room = self._room(queued) if waiting else 0
                new, waiting = waiting[:room], waiting[room:]
                for number, job in new:
                    # jobs that have ended are left out, because Slurm soon forgets them
                    needs = [queued[need].job_id for need in job.needs if need in queued]
                    queued[job.id] = self._submit(number, job, needs, len(queued))
                if new:
                    note_jobs(self._root, self.name, [job.job_id for job in queued.values()])
                for name in self._ended(queued, gone_since):
                    del queued[name]
                watch()
                if queued:
                    time.sleep(executor.POLL_SECONDS)
        except BaseException:
            self._cancel([job.job_id for job in queued.values()])
            raise

    def _room(self, queued: Mapping[str, submitit.Job[Any]]) -> int:
        """How many more jobs can be queued; a job with a result may still be in the queue for a moment."""
        if self._settings.queued is None:
            return sys.maxsize
        busy = {job.job_id for job in queued.values()} | {*self._of_this_folder(active_jobs() or {})}
        return max(0, self._settings.queued - len(busy))

    def _of_this_folder(self, active: Mapping[str, str]) -> list[str]:
        return [job for job, name in active.items() if name.startswith(self._title)]

    def _submit(self, number: int, job: Job, needs: Sequence[str], before: int) -> submitit.Job[Any]:
        slurm = submitit.SlurmExecutor(self._folder, max_num_timeout=self._settings.time_limits)
        try:
            slurm.update_parameters(**self._parameters(number, needs))
            return slurm.submit(_Step(job.run))
        except (FailedJobError, FailedSubmissionError) as error:
            lines = [line for line in str(error).splitlines() if line.startswith("sbatch: ")] or [str(error)]
            remedy = ""
            if _SUBMIT_LIMIT.search(str(error)):
                fewer = f"={before}" if before else ""
                remedy = (
                    f" That is the cluster's limit on jobs queued at once; of this command it took {before}. Set "
                    f"`--engine-set slurm.queued{fewer}`, or another `slurm.options.qos`."
                )
            raise RunError(f"Slurm refused a job: {lines[0].removeprefix('sbatch: ')}.{remedy}") from None

    def _parameters(self, number: int, needs: Sequence[str]) -> dict[str, Any]:
        """The options of sbatch, as submitit names them."""
        settings, suffix, waits_for = self._settings, "", [f"afterok:{':'.join(needs)}"] if needs else []
        if self.workers is not None:
            # jobs of one name run one after another, so the number of names limits how many run at once
            suffix, waits_for = f"-{number % self.workers}", [*waits_for, "singleton"]
        # cancel jobs whose needs have failed instead of waiting forever; queue jobs again that lose their node
        options = {"kill-on-invalid-dep": "yes", "requeue": True, **settings.options}
        return {
            "job_name": self._title + suffix,
            "dependency": ",".join(waits_for) or None,
            "partition": settings.partition,
            "cpus_per_task": settings.cpus,
            "gpus_per_node": settings.gpus or None,
            "mem": None if settings.memory_gb is None else f"{round(1024 * settings.memory_gb)}M",
            "time": settings.minutes,
            "signal_delay_s": settings.warning_s,
            "setup": list(settings.setup) or None,
            # submitit would write `--requeue=False`, which sbatch does not accept
            "additional_parameters": {name: value for name, value in options.items() if value is not False},
        }

    def _ended(self, queued: Mapping[str, submitit.Job[Any]], gone_since: dict[str, float]) -> list[str]:
        """Ids of jobs that have succeeded since the last call."""
        active, now, ended = active_jobs(), time.monotonic(), list[str]()
        for name, job in queued.items():  # in the order of their needs, to report the first failure
            if job.paths.result_pickle.exists():
                _require_success(job)
                ended.append(name)
            elif active is None or job.job_id in active:
                gone_since.pop(job.job_id, None)
            elif now - gone_since.setdefault(job.job_id, now) > LOST_S:
                raise RunError(
                    f"Slurm's job {job.job_id} ended without a result: it was cancelled, or killed for lack of memory "
                    f"(--engine-set slurm.memory_gb=...). See `{job.paths.stderr}`. Finished jobs are kept: run "
                    "the same command again."
                )
        return ended

    def _cancel(self, ids: Sequence[str]) -> None:
        """Cancel jobs, and wait until none of them can still write."""
        if not ids:
            return
        subprocess.run(["scancel", *ids], capture_output=True, check=False)
        deadline = time.monotonic() + _CANCEL_S
        while time.monotonic() < deadline:
            active = active_jobs()
            if active is not None and active.keys().isdisjoint(ids):  # None: Slurm did not answer
                return
            time.sleep(1)


class _Step(Checkpointable):
    """The callable of a Slurm job. When queued again, it is simply called again, because its progress is in files."""

    def __init__(self, run: Callable[[], object]) -> None:
        # as bytes, because unpickling imports for seconds, in which submitit cannot yet catch a time limit's signal
        self._run = pickle.dumps(run)

    def __call__(self) -> None:
        job_of_engine.set(f"slurm {os.environ['SLURM_JOB_ID']}")
        pickle.loads(self._run)()


def active_jobs() -> Mapping[str, str] | None:
    """Names of this user's waiting and running jobs by id; None if Slurm does not answer at the moment."""
    try:
        return _squeue()
    except RunError:
        return None


def _squeue() -> Mapping[str, str]:
    command = ["squeue", "--me", "--noheader", "--format=%i %j"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        reason, *_ = found.stderr.strip().splitlines() or ["nothing"]
        raise RunError(
            f"No Slurm cluster answers here: `squeue` says `{shown(reason)}`. Run this on a machine of the cluster "
            "where `squeue` lists jobs, or leave `--engine slurm` out."
        )
    return dict(line.split(" ", 1) for line in found.stdout.splitlines() if " " in line)


def _require_success(job: submitit.Job[Any]) -> None:
    outcome, trace = pickle_load(job.paths.result_pickle)
    if outcome == "success":
        return
    # a traceback ends with the error's class and message
    _, is_ours, message = str(trace).rpartition("\nknowhue.errors.")
    if is_ours:
        raise RunError(message.partition(": ")[2].strip())
    last = str(trace).strip().splitlines()[-1]
    raise RunError(f"Slurm's job {job.job_id} failed: {last}. Its log is `{job.paths.stderr}`.")
