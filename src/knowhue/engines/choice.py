"""Which engine runs jobs, and its settings: `--engine slurm --engine-set slurm.partition=gpu`."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from knowhue.config import Count, CountOrNone, NotNegative, Positive, Section
from knowhue.engines import executor
from knowhue.engines.executor import Executor, InProcess
from knowhue.errors import ConfigError, KnowhueError, RunError, few, missing_extra, one_of
from knowhue.locks import LOCK, Left, note_jobs
from knowhue.presets import checked, merge, read_setting
from knowhue.runs import Report


class SlurmSettings(Section):
    """What Slurm gives each job, and for how long."""

    partition: str | None = None
    """partition that jobs go to; the cluster's default unless given"""
    cpus: Count = 1
    """cores of a job, and its threads"""
    gpus: CountOrNone = 0
    """GPUs of a job"""
    memory_gb: Positive | None = None
    """memory of a job, GB; the cluster's default unless given"""
    minutes: Count = 240
    """time limit of a job, after which it is queued again and goes on from its last epoch"""
    warning_s: Count = 90
    """seconds before the time limit in which it is queued again"""
    time_limits: CountOrNone = 1000
    """how often a job may come to its time limit"""
    queued: Count | None = None
    """jobs that are queued at once, where the cluster limits them (`MaxSubmitJobs`); all of them unless given"""
    setup: tuple[str, ...] = ()
    """lines of shell before a job begins, such as `module load cuda`"""
    options: dict[str, str | int | bool] = Field(default_factory=dict)
    """further options of sbatch, such as `slurm.options.qos=long`"""


class RaySettings(Section):
    """Where Ray runs, and what each task needs of it."""

    address: str = "local"
    """of a cluster: `auto` on one of its machines, or `host:6379`; `local` starts one on this machine"""
    cpus: Count = 1
    """cores of a task, and its threads"""
    gpus: NotNegative = 0
    """GPUs of a task; of a part, such as 0.5, several tasks share one"""
    memory_gb: Positive | None = None
    """memory that is set apart for a task, GB; none unless given"""
    autoscaling: bool = False
    """whether machines may come that the cluster has not yet"""


class EngineSettings(Section):
    """The settings of the engines that have any."""

    slurm: SlurmSettings = SlurmSettings()
    ray: RaySettings = RaySettings()


def _open_local(root: Path, workers: int | None, settings: EngineSettings) -> Executor:
    del root, settings
    if workers is None or workers == 1:
        return InProcess()
    from knowhue.engines.executor import LocalProcesses

    return LocalProcesses(workers)


def _open_slurm(root: Path, workers: int | None, settings: EngineSettings) -> Executor:
    from knowhue.engines.slurm import SlurmJobs

    return SlurmJobs(root, workers, settings.slurm)


def _open_ray(root: Path, workers: int | None, settings: EngineSettings) -> Executor:
    del root
    from knowhue.engines.ray import RayTasks

    return RayTasks(workers, settings.ray)


ENGINES: Mapping[str, Callable[[Path, int | None, EngineSettings], Executor]] = {
    "local": _open_local,
    "slurm": _open_slurm,
    "ray": _open_ray,
}
"""What opens an engine for a folder. The library of an engine is imported when that is opened."""


def open_engine(
    name: str = "local", root: Path = Path(), workers: int | None = None, settings: Sequence[str] = ()
) -> Executor:
    """The engine that is to run the jobs of a study or an archive.

    Args:
        name: a key of `ENGINES`.
        root: the folder that they work for, which all machines of the engine see by the same path.
        workers: jobs side by side; None is one on this machine, and as many as there is room for elsewhere.
        settings: like `slurm.partition=gpu`.

    Raises:
        ConfigError: an unknown engine or setting, a setting of another engine, or there is no such engine here.
        ExtraError: its library is not installed.
    """
    if name not in ENGINES:
        raise ConfigError(one_of("engine", name, ENGINES))
    if workers is not None and workers < 1:
        raise ConfigError(f"`workers` should be 1 or more. Found `workers = {workers}`.")
    values: dict[str, Any] = {}
    for text in settings:
        nested = read_setting(text, "--engine-set", "slurm.partition=gpu")
        _require_known(name, text.partition("=")[0].strip())
        values = merge(values, nested)
    try:
        return ENGINES[name](root, workers, checked(EngineSettings, values))
    except ImportError as error:
        raise missing_extra(error, f"... --engine {name}", name) or error from None


def _require_known(engine: str, key: str) -> None:
    section = EngineSettings.model_fields.get(engine)
    own = [f"{engine}.{name}" for name in type(section.default).model_fields] if section else []
    if not own:
        raise ConfigError(f"`--engine-set` should be left out with `--engine {engine}`. Found `{key}`.")
    # `options` holds what sbatch knows, and we do not
    if key not in own and not key.startswith(f"{engine}.options."):
        raise ConfigError(one_of("--engine-set", key, own))


def await_jobs(own: Executor, left: Left | None, root: Path, report: Report) -> None:
    """Wait for the jobs that a driver which was killed has left with an engine: they write to the folder."""
    engines = {own.name: own}
    if left is not None and left.engine not in engines:
        try:
            engines[left.engine] = open_engine(left.engine, root)
        except KnowhueError as error:
            raise RunError(
                f"Jobs of `{root}` may still run: a command with `--engine {left.engine}` was killed. {error} Or, if "
                f"none runs, remove `{root / LOCK}`."
            ) from None
    told: list[str] = []
    while jobs := [f"{name} {job}" for name, engine in engines.items() for job in engine.left()]:
        if jobs != told:
            text = f"waiting for jobs that an earlier command has left: {few(jobs)}; cancel them to stop them"
            report({"stage": "note", "text": text})
        told = jobs
        time.sleep(executor.POLL_SECONDS)
    if left is not None:
        note_jobs(root, own.name, [])
