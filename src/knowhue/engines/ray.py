"""Jobs as Ray tasks, on this machine or a cluster. Only this module imports Ray, when it is first used."""

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from knowhue.engines.executor import Executor, Job, RaySettings, run_jobs
from knowhue.errors import ConfigError, RunError, first_line, should_be
from knowhue.locks import job_of_engine

_CANCEL_S = 60.0
_ANSWER_S = 10.0
_OBJECTS_BYTES = 80 * 2**20  # the minimum of Ray, because jobs share files, not objects


class RayTasks(Executor):
    """Runs each job as a Ray task, at most `workers` at a time.

    Ray places tasks by their resources, and repeats those of lost nodes or processes without limit.
    """

    name = "ray"
    is_elsewhere = True

    def __init__(self, workers: int | None, settings: RaySettings) -> None:
        import ray  # pyright: ignore[reportMissingImports]  # noqa: F401  to fail now if it is missing

        self.threads = settings.cpus
        self.workers = workers
        self._settings = settings

    def execute(self, jobs: Sequence[Job], watch: Callable[[], None] = lambda: None) -> None:
        """See `Executor`; `ConfigError` if there is no cluster, or none of its machines can run a task."""
        import ray  # pyright: ignore[reportMissingImports]

        if not jobs:
            return
        settings = self._settings
        self._connect()
        # Ray itself would wait silently for such a machine
        if settings.address == "local" or not settings.autoscaling:
            _require_resources(settings, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        needs = {
            "num_cpus": settings.cpus,
            "num_gpus": settings.gpus,
            "memory": None if settings.memory_gb is None else round(settings.memory_gb * 2**30),
        }
        task = ray.remote(_run)
        tasks: list[Any] = []

        def submit(job: Job) -> Future[object]:
            tasks.append(task.options(name=job.id, max_retries=-1, **needs).remote(job.run))
            return tasks[-1].future()

        try:
            run_jobs(jobs, self.workers or len(jobs), submit, _result, watch)
        except BaseException:
            for reference in tasks:  # has no effect on tasks that have ended
                ray.cancel(reference, force=True)
            ray.wait(tasks, num_returns=len(tasks), timeout=_CANCEL_S)
            raise

    def _connect(self) -> None:
        """Connect to the cluster, or start one on this machine, unless this process is already connected."""
        import ray  # pyright: ignore[reportMissingImports]

        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        settings = self._settings
        options: dict[str, Any] = {}
        if settings.address == "local":
            cpus = settings.cpus * self.workers if self.workers else max(settings.cpus, os.cpu_count() or 1)
            options = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _OBJECTS_BYTES}
        try:
            _require_reachable(settings.address)
            ray.init(settings.address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # Ray raises a bare Exception if a node does not answer in time
            reason = first_line(error)
            if settings.address == "local":
                raise RunError(
                    f"Ray did not start on this machine: {reason.rstrip('.')}. Run it again, or use `--engine local`."
                ) from None
            wanted = "that of a running cluster, or `local`"
            raise ConfigError(should_be("ray.address", wanted, settings.address, reason)) from None


def _require_resources(settings: RaySettings, machines: Sequence[Mapping[str, float]]) -> None:
    """Raise `ConfigError` unless at least one machine has the resources of a task."""
    wanted = {"cpus": settings.cpus, "gpus": settings.gpus, "memory_gb": settings.memory_gb or 0.0}
    scales = {"cpus": ("CPU", 1), "gpus": ("GPU", 1), "memory_gb": ("memory", 2**30)}
    found = [{name: each.get(key, 0) / unit for name, (key, unit) in scales.items()} for each in machines]
    if any(all(each[name] >= wanted[name] for name in wanted) for each in found):
        return
    place, remedy = "This machine", ""
    if settings.address != "local":
        place = "One machine of the cluster"
        remedy = " Start one that has it; or, if the cluster will, set `ray.autoscaling=true`."
    together = ", ".join(f"`ray.{name} = {value:g}`" for name, value in wanted.items() if value)
    most = ", ".join(f"{max((each[name] for each in found), default=0):.4g} {name}" for name in wanted)
    raise ConfigError(f"{place} should have {together}. Found at most {most}.{remedy}")


def _require_reachable(address: str) -> None:
    """Raise `OSError` if the cluster does not answer: Ray itself retries for two minutes and then ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()


def _run(run: Callable[[], object]) -> None:
    """Run a job in a task, without transferring its result."""
    import ray  # pyright: ignore[reportMissingImports]

    job_of_engine.set(f"ray {(ray.get_runtime_context().get_task_id() or '')[:16]}")
    run()


def _result(future: "Future[object]") -> None:
    from ray.exceptions import RayError, RayTaskError  # pyright: ignore[reportMissingImports]

    try:
        future.result()
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if not isinstance(cause, RayError):
            raise cause from None
        raise RunError(
            f"Ray gave up a job: {first_line(cause)} Finished jobs are kept: run the command again."
        ) from None
