"""Jobs as jobs of a Slurm cluster, which wait there for what they need: the only importer of submitit."""

import os
import pickle
import shutil
import subprocess
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
from knowhue.engines.choice import SlurmSettings
from knowhue.engines.executor import Job, each_once
from knowhue.errors import ConfigError, RunError
from knowhue.locks import job_of_engine, note_jobs

FOLDER = ".slurm"
"""Of a study: what jobs are made of, and what they print."""
LOST_S = 60.0
"""Seconds in which the result of a job that has left the queue may come to be seen here: network drives are slow."""
_CANCEL_S = 60.0
"""Seconds to wait for jobs that were cancelled to end."""
_COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun")


class SlurmJobs:
    """One Slurm job for each of ours, all queued at once: what needs another is held until that has ended well.

    A job that is preempted, comes to its time limit or loses its node is queued again by Slurm, and goes on from its
    last epoch. What has been queued goes on without this process.
    """

    name = "slurm"
    is_elsewhere = True

    def __init__(self, root: Path, workers: int | None, settings: SlurmSettings) -> None:
        """See `choice.open_engine`.

        Raises:
            ConfigError: Slurm's commands are not here.
        """
        missing = [command for command in _COMMANDS if shutil.which(command) is None]
        if missing:
            raise ConfigError(
                f"`--engine slurm` should be used on a machine of a Slurm cluster. Found no `{missing[0]}` on the PATH."
            )
        self.threads = settings.cpus
        self.workers = workers
        self._settings = settings
        self._root = root.resolve()
        # of this driver alone: a cluster that was set up anew gives ids that results of an earlier one bear
        self._folder = self._root / FOLDER / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:8]}"
        self._title = f"knowhue-{fingerprint(str(self._root))}"

    def left(self) -> list[str]:
        """Jobs are known by their name, which is that of the study folder."""
        living = living_jobs()
        if living is None:
            raise RunError(
                "Slurm does not answer (`squeue` fails here), so jobs that this study may have queued may still run. "
                "Try again on a machine of the cluster where `squeue` works, or use another engine."
            )
        return [job for job, name in living.items() if name.startswith(self._title)]

    def execute(self, jobs: Sequence[Job], watch: Callable[[], None] = lambda: None) -> None:
        """See `Executor`.

        Raises:
            RunError: Slurm refused a job, or it ended without a result.
        """
        queued: dict[str, submitit.Job[Any]] = {}
        try:
            for number, job in enumerate(each_once(jobs)):
                queued[job.id] = self._submit(number, job, [queued[need].job_id for need in job.needs])
            note_jobs(self._root, self.name, [job.job_id for job in queued.values()])
            self._wait(list(queued.values()), watch)
        except BaseException:
            self._cancel([job.job_id for job in queued.values()])
            raise

    def _submit(self, number: int, job: Job, needs: Sequence[str]) -> submitit.Job[Any]:
        slurm = submitit.SlurmExecutor(self._folder, max_num_timeout=self._settings.time_limits)
        try:
            slurm.update_parameters(**self._parameters(number, needs))
            return slurm.submit(_Step(job.run))
        except (FailedJobError, FailedSubmissionError) as error:
            said = [line for line in str(error).splitlines() if line.startswith("sbatch: ")] or [str(error)]
            raise RunError(f"Slurm refused a job: {said[0].removeprefix('sbatch: ')}.") from None

    def _parameters(self, number: int, needs: Sequence[str]) -> dict[str, Any]:
        """The options of sbatch, as submitit names them."""
        given, lane, waits_for = self._settings, "", [f"afterok:{':'.join(needs)}"] if needs else []
        if self.workers is not None:
            # jobs of one name run one after another, so that as many run as there are names
            lane, waits_for = f"-{number % self.workers}", [*waits_for, "singleton"]
        # what needs a job that failed would wait for ever; what loses its node is queued again
        options = {"kill-on-invalid-dep": "yes", "requeue": True, **given.options}
        return {
            "job_name": self._title + lane,
            "dependency": ",".join(waits_for) or None,
            "partition": given.partition,
            "cpus_per_task": given.cpus,
            "gpus_per_node": given.gpus or None,
            "mem": None if given.memory_gb is None else f"{round(1024 * given.memory_gb)}M",
            "time": given.minutes,
            "signal_delay_s": given.warning_s,
            "setup": list(given.setup) or None,
            # submitit would write `--requeue=False`, which is no option of sbatch
            "additional_parameters": {name: value for name, value in options.items() if value is not False},
        }

    def _wait(self, jobs: Sequence[submitit.Job[Any]], watch: Callable[[], None]) -> None:
        waiting, gone_since = list(jobs), dict[str, float]()
        while waiting:
            living, now = living_jobs(), time.monotonic()
            for job in list(waiting):  # in the order of their needs: what failed first is said
                if job.paths.result_pickle.exists():
                    _require_success(job)
                    waiting.remove(job)
                elif living is None or job.job_id in living:
                    gone_since.pop(job.job_id, None)
                elif now - gone_since.setdefault(job.job_id, now) > LOST_S:
                    raise RunError(
                        f"Slurm's job {job.job_id} ended without a result: it was cancelled, or killed, most likely "
                        f"for lack of memory (--engine-set slurm.memory_gb=...). It printed `{job.paths.stderr}`. "
                        "What has ended is kept: run the same command again."
                    )
            watch()
            if waiting:
                time.sleep(executor.POLL_SECONDS)

    def _cancel(self, ids: Sequence[str]) -> None:
        """Stop jobs, and wait until none of them can write any more."""
        if not ids:
            return
        subprocess.run(["scancel", *ids], capture_output=True, check=False)
        deadline = time.monotonic() + _CANCEL_S
        while time.monotonic() < deadline:
            living = living_jobs()
            if living is not None and living.keys().isdisjoint(
                ids
            ):  # Slurm that does not answer says nothing
                return
            time.sleep(1)


class _Step(Checkpointable):
    """What a Slurm job runs. Queued again it is run anew: how far it is stands in files."""

    def __init__(self, run: Callable[[], object]) -> None:
        # as bytes: what they import takes seconds, in which submitit could not catch the signal of a time limit yet
        self._run = pickle.dumps(run)

    def __call__(self) -> None:
        job_of_engine.set(f"slurm {os.environ['SLURM_JOB_ID']}")
        pickle.loads(self._run)()


def living_jobs() -> Mapping[str, str] | None:
    """The names of this user's jobs that wait or run, by their ids; None where Slurm does not answer just now."""
    asked = subprocess.run(
        ["squeue", "--me", "--noheader", "--format=%i %j"], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        return None
    return dict(line.split(" ", 1) for line in asked.stdout.splitlines() if " " in line)


def _require_success(job: submitit.Job[Any]) -> None:
    outcome, trace = pickle_load(job.paths.result_pickle)
    if outcome == "success":
        return
    # a traceback ends with the error's class and message
    _, is_ours, message = str(trace).rpartition("\nknowhue.errors.")
    if is_ours:
        raise RunError(message.partition(": ")[2].strip())
    last = str(trace).strip().splitlines()[-1]
    raise RunError(f"Slurm's job {job.job_id} failed: {last}. It printed `{job.paths.stderr}`.")
