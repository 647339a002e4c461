"""Runs written for TensorBoard, MLflow or Weights & Biases, after the fact: each once, however often it is asked for.

What was written carries the run's `key`, which stays, and its `content`, which changes with the log. Of the same
content nothing is written again; what an earlier log gave is replaced. Nothing leaves this machine unless the tracker's
own environment variables say so.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from knowhue.errors import RunError
from knowhue.report.logged_runs import LoggedRun
from knowhue.storage import write_json

MARK_FILE = "knowhue.json"
"""In a folder that was written here: the content of its run."""
KEY_TAG, CONTENT_TAG = "knowhue.key", "knowhue.content"
_MOST_METRICS, _MOST_PARAMETERS, _LONGEST_PARAMETER = 1000, 100, 6000  # MLflow's, in a call; characters
_ENDED_AS = {"finished": "FINISHED", "diverged": "FAILED"}


class Logged(NamedTuple):
    """What came of logging.

    Attributes:
        written: names of the runs that were written or replaced.
        already: names of those that were there.
        see: how to look at them.
    """

    written: list[str]
    already: list[str]
    see: str


class Tracker(Protocol):
    """Where runs are logged.

    Attributes:
        see: how to look at them.
        errors: that its library raises where it cannot be reached, or refuses a run.
        remedy: what to look at then.
    """

    see: str
    remedy: str

    @property
    def errors(self) -> tuple[type[Exception], ...]: ...

    def has(self, run: LoggedRun) -> bool:
        """Whether a run is there as it is now."""
        ...

    def write(self, run: LoggedRun) -> None:
        """Log a run in place of what an earlier log of it gave."""
        ...


def log_runs(tracker: str, runs: Sequence[LoggedRun], out: Path, project: str | None = None) -> Logged:
    """Log runs that are not there yet as they are.

    Args:
        tracker: one of `TRACKERS`.
        runs: of one study or several.
        out: folder for what the tracker keeps on this machine.
        project: project or experiment; the study's name if None.

    Raises:
        ImportError: the tracker's package is not installed.
        RunError: other files are in the way, or the tracker does not answer.
    """
    opened = TRACKERS[tracker](out, project)
    result = Logged([], [], opened.see)
    for run in runs:
        try:
            is_there = opened.has(run)
            if not is_there:
                opened.write(run)
        except opened.errors as error:
            text = " ".join(str(error).split())[:300]
            raise RunError(f"{tracker} does not take `{run.name}`: {text}. {opened.remedy}") from None
        (result.already if is_there else result.written).append(run.name)
    return result


class TensorBoard:
    """A folder of events a run, `out/tensorboard/PROJECT/ARM/RUN`, with its settings for the page of parameters."""

    errors, remedy = (), ""

    def __init__(self, out: Path, project: str | None) -> None:
        import tensorboard.summary.writer.event_file_writer  # noqa: F401 - at once, for what is missing

        self._top, self._project = out / "tensorboard", project
        self.see = f"tensorboard --logdir {self._top}"

    def has(self, run: LoggedRun) -> bool:
        """As of a tracker.

        Raises:
            RunError: the run's folder is nobody's that was written here.
        """
        folder = self._folder(run)
        if folder.exists() and _mark(folder) is None:
            raise RunError(
                f"`{folder}` should hold what `knowhue log` writes. Found other files. Name another --out."
            )
        return _mark(folder) == run.content

    def write(self, run: LoggedRun) -> None:
        """As of a tracker; whole or not at all, for TensorBoard reads what it finds."""
        folder, begun = self._folder(run), self._top / f".{run.key}"
        shutil.rmtree(begun, ignore_errors=True)
        begun.mkdir(parents=True)
        self._write_events(run, begun)
        _put_mark(begun, run)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        begun.replace(folder)

    def _folder(self, run: LoggedRun) -> Path:
        return self._top / (self._project or run.study) / run.name

    @staticmethod
    def _write_events(run: LoggedRun, folder: Path) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        event, summary = event_pb2.Event, summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]
        writer = EventFileWriter(str(folder))
        settings = {**run.parameters, "arm": run.tags["arm"]}
        settings = hparams_pb(settings, trial_id=run.key, start_time_secs=run.began)
        writer.add_event(event(wall_time=run.began, summary=settings))
        for metric, step, seconds, value in run.all_points():
            scalar = summary(value=[summary.Value(tag=metric, simple_value=value)])
            writer.add_event(event(wall_time=run.began + seconds, step=step, summary=scalar))
        writer.close()


class MLflow:
    """A run of MLflow each, in `out/mlflow.db`, or where `MLFLOW_TRACKING_URI` says."""

    def __init__(self, out: Path, project: str | None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # of seven, minutes pass without a word
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self.errors, self.remedy = (MlflowException,), "`MLFLOW_TRACKING_URI` says where it is."

        for chatty in ("mlflow", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        elsewhere = os.environ.get("MLFLOW_TRACKING_URI")
        where = elsewhere or f"sqlite:///{(out / 'mlflow.db').resolve()}"
        self._artifacts = None if elsewhere else (out / "mlflow-artifacts").resolve().as_uri()
        self._client, self._project = MlflowClient(tracking_uri=where), project
        self.see = f"mlflow ui --backend-store-uri {where}"

    def has(self, run: LoggedRun) -> bool:
        """As of a tracker."""
        return any(each.data.tags.get(CONTENT_TAG) == run.content for each in self._found(run))

    def write(self, run: LoggedRun) -> None:
        """As of a tracker; a run without its content's tag was cut, and is made anew."""
        from mlflow.entities import Metric, Param, RunTag

        for each in self._found(run):
            self._client.delete_run(each.info.run_id)
        began = round(1000 * run.began)
        tags = {**run.tags, KEY_TAG: run.key}
        made = self._client.create_run(self._experiment(run), began, tags, run.name).info.run_id
        parameters = [Param(name, str(value)[:_LONGEST_PARAMETER]) for name, value in run.parameters.items()]
        for part in _parts(parameters, _MOST_PARAMETERS):
            self._client.log_batch(made, params=part)
        metrics = [
            Metric(metric, value, began + round(1000 * seconds), step)
            for metric, step, seconds, value in run.all_points()
        ]
        for part in _parts(metrics, _MOST_METRICS):
            self._client.log_batch(made, metrics=part)
        self._client.log_batch(made, tags=[RunTag(CONTENT_TAG, run.content)])
        if (state := run.tags["state"]) in _ENDED_AS:
            self._client.set_terminated(made, _ENDED_AS[state], began + round(1000 * run.seconds))

    def _found(self, run: LoggedRun) -> list[Any]:
        return list(
            self._client.search_runs([self._experiment(run)], filter_string=f"tags.`{KEY_TAG}` = '{run.key}'")
        )

    def _experiment(self, run: LoggedRun) -> str:
        name = self._project or run.study
        found = self._client.get_experiment_by_name(name)
        return (
            found.experiment_id
            if found
            else self._client.create_experiment(name, artifact_location=self._artifacts)
        )


class Wandb:
    """A run of Weights & Biases each, in `out/wandb`, to be sent by `wandb sync`; `WANDB_MODE=online` sends it at once.

    Online, W&B goes on with a run that is there, from its last row.
    """

    def __init__(self, out: Path, project: str | None) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self._wandb: Any = wandb
        self.errors, self.remedy = (wandb.Error,), "`WANDB_MODE=offline` keeps runs here."
        # of another project they are other runs, in the folder, too
        self._out, self._project = (out / project if project else out), project
        self._mode = os.environ.get("WANDB_MODE", "offline")
        self._is_local = self._mode == "offline"
        self.see = f"wandb sync {self._out / 'wandb'}/offline-run-*" if self._is_local else "where wandb says"

    def has(self, run: LoggedRun) -> bool:
        """As of a tracker; online it is W&B that knows."""
        return any(_mark(folder) == run.content for folder in self._earlier(run))

    def write(self, run: LoggedRun) -> None:
        """As of a tracker."""
        for folder in self._earlier(run):
            shutil.rmtree(folder)
        opened = self._wandb.init(
            project=self._project or run.study,
            id=run.key,
            name=run.name,
            group=run.tags.get("plan"),
            job_type=run.tags["arm"],
            tags=[run.tags["arm"], f"seed-{run.tags['seed']}", run.tags["state"]],
            config=dict(run.parameters),
            dir=str(self._out),
            mode=self._mode,
            resume="allow",
            settings=self._wandb.Settings(console="off", silent=True),
        )
        opened.define_metric("*", step_metric="epoch")
        opened.define_metric("diagnostics/*", step_metric="training_step")
        for row in _rows(run)[opened.step :]:
            opened.log(row)
        opened.summary.update({f"score/{name}": value for name, value in run.scores.items()})
        opened.finish()
        if self._is_local:
            _put_mark(Path(opened.dir).parent, run)

    def _earlier(self, run: LoggedRun) -> list[Path]:
        return list((self._out / "wandb").glob(f"offline-run-*-{run.key}")) if self._is_local else []


TRACKERS: dict[str, Callable[[Path, str | None], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": Wandb,
}


def _rows(run: LoggedRun) -> list[dict[str, float]]:
    """What belongs to one epoch, or one training step, together."""
    rows = []
    for (is_diagnosis, step), points in groupby(
        run.points, lambda each: (each.metric.startswith("diagnostics/"), each.step)
    ):
        axis = "training_step" if is_diagnosis else "epoch"
        rows.append({axis: step, **{each.metric: each.value for each in points}})
    return rows


def _parts(values: list[Any], size: int) -> list[list[Any]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _mark(folder: Path) -> str | None:
    try:
        return json.loads((folder / MARK_FILE).read_text(encoding="utf-8"))["content"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _put_mark(folder: Path, run: LoggedRun) -> None:
    write_json(folder / MARK_FILE, {"key": run.key, "content": run.content})
