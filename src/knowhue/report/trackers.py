"""Writes finished or running runs for TensorBoard, MLflow or Weights & Biases; logging a run twice is harmless.

Each logged run carries its `key`, which never changes, and its `content`, which changes with the log. A run with the
same content is not written again, and a run with other content replaces the earlier one. Nothing leaves this machine
unless the tracker's environment variables say so.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from knowhue.config import digest
from knowhue.errors import RunError
from knowhue.plan import RESERVED
from knowhue.runs import (
    FROZEN,
    NOTHING_THERE,
    path_hint,
    read_config,
    read_frozen,
    read_log,
    read_status,
    require_intact,
    settings_of,
)
from knowhue.setting_effects import dotted
from knowhue.settings_text import inline_yaml
from knowhue.storage import from_json, read_json, real_path, write_json

Scalar = str | int | float | bool


class LoggedNumber(NamedTuple):
    """A value of a metric at one time."""

    metric: str
    step: int
    """epoch over all phases, from 1; for `diagnostics/...` the training step, from 0"""
    seconds: float
    value: float

    @property
    def is_diagnosis(self) -> bool:
        return self.metric.startswith("diagnostics/")


class LoggedRun(NamedTuple):
    """The data of a run that trackers store."""

    name: str
    study: str
    """name of the study, or of the folder around the arm's folder"""
    tags: Mapping[str, str]
    parameters: Mapping[str, Scalar]
    """all settings, with names such as `colour.width`"""
    points: tuple[LoggedNumber, ...]
    scores: Mapping[str, float]
    """final scores by metric; empty before the run has ended"""
    began: float
    """start in seconds since 1970, estimated from the date of the log file"""

    @property
    def key(self) -> str:
        """Identifier of the run, which does not change while it is trained: 16 hex digits."""
        return digest([self.study, self.tags.get("plan", ""), self.name])[:16]

    @property
    def content(self) -> str:
        """SHA-256 of all logged data without dates; a tracker with the same content is up to date."""
        return digest([self.tags, self.parameters, self.points, self.scores])

    @property
    def seconds(self) -> float:
        return self.points[-1].seconds if self.points else 0.0

    def all_points(self) -> list[LoggedNumber]:
        """Return the points of the log, and the final scores as `score/...` at the last epoch."""
        last = max((each.step for each in self.points if not each.is_diagnosis), default=0)
        return [*self.points, *_numbers("score", self.scores, last, self.seconds)]


def read_logged(path: Path) -> list[LoggedRun]:
    """Read the run in a folder, or all runs of a study's folder that have begun; a `RunError` if there is none."""
    files = sorted(path.glob("*/seed-*/config.json"))
    below = [file.parent for file in files if file.parent.parent.name not in RESERVED]
    runs = [_read(folder) for folder in ([path] if (path / "config.json").exists() else below)]
    if not runs:
        hint = path_hint(path) or " Name another, or train one with `knowhue study`."
        found = f"no run that has started.{hint}" if os.path.lexists(path) else NOTHING_THERE
        raise RunError(f"`{path}` should be the folder of a run or a study. Found {found}")
    return runs


def _read(folder: Path) -> LoggedRun:
    require_intact(folder, ("log.jsonl", "scores.json"))
    folder = real_path(folder)  # because `.` has no name
    root, config = folder.parent.parent, read_config(folder)
    frozen = read_frozen(root) if (root / FROZEN).exists() else {}
    scored = read_json(folder / "scores.json") if (folder / "scores.json").exists() else {}
    tags = {
        "arm": folder.parent.name, "seed": str(config.seed), "state": read_status(folder).get("state", "running"),
        "plan": frozen.get("hash"), "split": scored.get("split"),
    }  # fmt: skip
    points = tuple(_points(read_log(folder), config.training.batch_size))
    log = folder / "log.jsonl"
    until = log.stat().st_mtime if log.exists() else 0.0
    parameters = {
        name: value if isinstance(value, Scalar) else inline_yaml(value)
        for name, value in dotted(settings_of(config), is_for_readers=True)
    }
    return LoggedRun(
        f"{folder.parent.name}/{folder.name}",
        frozen.get("name", root.name),
        {name: tag for name, tag in tags.items() if tag is not None},
        parameters,
        points,
        {name: float(value) for name, value in scored.get("metrics", {}).items() if value is not None},
        until - (points[-1].seconds if points else 0.0),
    )


def _points(log: list[dict[str, Any]], batch_size: int) -> Iterator[LoggedNumber]:
    """Return the points of a log; values that were not finite are left out."""
    seconds, done = 0.0, 0
    for entry in log:
        begun, seconds = seconds, seconds + entry["seconds"]
        steps = max(1, entry["images"] // batch_size)
        for each in entry.get("diagnostics", ()):
            at = begun + entry["train_seconds"] * each["step"] / steps
            yield from _numbers("diagnostics", each, done + each["step"], at, besides=("step", "seconds"))
        done += steps
        for part in ("train", "validation"):
            yield from _numbers(part, entry[part], entry["epoch"], seconds)
        speed = {"seconds": entry["seconds"], "images_per_second": entry["images_per_second"]}
        yield from _numbers("speed", speed, entry["epoch"], seconds)


def _numbers(
    part: str, values: Mapping[str, float | None], step: int, seconds: float, besides: tuple[str, ...] = ()
) -> Iterator[LoggedNumber]:
    for name, value in values.items():
        if value is not None and name not in besides:
            yield LoggedNumber(f"{part}/{name}", step, seconds, float(value))


MARK_FILE = "knowhue.json"
"""File in each folder written by this module, with the key and content of its run."""
KEY_TAG, CONTENT_TAG = "knowhue.key", "knowhue.content"
_MOST_METRICS, _MOST_PARAMETERS, _LONGEST_PARAMETER = 1000, 100, 6000  # MLflow's limits: per call; characters
_ENDED_AS = {"finished": "FINISHED", "diverged": "FAILED"}


class Logged(NamedTuple):
    """The result of logging: runs that were written, runs that were up to date, and a command that shows them."""

    written: list[str]
    already: list[str]
    see: str


def log_runs(tracker: str, runs: Sequence[LoggedRun], out: Path, project: str | None = None) -> Logged:
    """Log the runs of one study or several that are not up to date with a tracker of `TRACKERS`.

    Its files on this machine go into the folder `out`; without a project (or experiment), each run goes into that of
    its study's name. An `ImportError` if the tracker's package is not installed; a `RunError` if the folder has files
    of another origin, or the tracker does not answer.
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
    """Writes a folder of events per run, `out/tensorboard/PROJECT/ARM/RUN`, with its settings as hyperparameters."""

    errors, remedy = (), ""

    def __init__(self, out: Path, project: str | None) -> None:
        import tensorboard.summary.writer.event_file_writer  # noqa: F401 - fails at once if missing

        self._top, self._project = out / "tensorboard", project
        self.see = f"tensorboard --logdir {self._top}"

    def has(self, run: LoggedRun) -> bool:
        """See `TRACKERS`; raises RunError where the run's folder was not written by this class."""
        folder = self._folder(run)
        if folder.exists() and _mark(folder) is None:
            raise RunError(
                f"`{folder}` should hold what `knowhue log` writes. Found other files. Name another folder."
            )
        return _mark(folder) == run.content

    def write(self, run: LoggedRun) -> None:
        """See `TRACKERS`; the folder appears only when complete, because TensorBoard reads unfinished ones, too."""
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        event, summary = event_pb2.Event, summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]
        folder, begun = self._folder(run), self._top / f".{run.key}"
        shutil.rmtree(begun, ignore_errors=True)
        begun.mkdir(parents=True)
        writer = EventFileWriter(str(begun))
        settings = {**run.parameters, "arm": run.tags["arm"]}
        settings = hparams_pb(settings, trial_id=run.key, start_time_secs=run.began)
        writer.add_event(event(wall_time=run.began, summary=settings))
        for metric, step, seconds, value in run.all_points():
            scalar = summary(value=[summary.Value(tag=metric, simple_value=value)])
            writer.add_event(event(wall_time=run.began + seconds, step=step, summary=scalar))
        writer.close()
        _put_mark(begun, run)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        begun.replace(folder)

    def _folder(self, run: LoggedRun) -> Path:
        return self._top / (self._project or run.study) / run.name


class MLflow:
    """Writes an MLflow run per run, to `out/mlflow.db` or to `MLFLOW_TRACKING_URI`."""

    def __init__(self, out: Path, project: str | None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the default takes minutes
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self.errors, self.remedy = (MlflowException,), "`MLFLOW_TRACKING_URI` says where it is."
        for chatty in ("mlflow", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        elsewhere = os.environ.get("MLFLOW_TRACKING_URI")
        where = elsewhere or f"sqlite:///{real_path(out / 'mlflow.db')}"
        self._artifacts = None if elsewhere else real_path(out / "mlflow-artifacts").as_uri()
        self._client, self._project = MlflowClient(tracking_uri=where), project
        self.see = f"mlflow ui --backend-store-uri {where}"

    def has(self, run: LoggedRun) -> bool:
        return any(each.data.tags.get(CONTENT_TAG) == run.content for each in self._found(run))

    def write(self, run: LoggedRun) -> None:
        """See `TRACKERS`; the tag with the content comes last, so an interrupted run is written again."""
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.utils import chunk_list

        for each in self._found(run):
            self._client.delete_run(each.info.run_id)
        began = round(1000 * run.began)
        tags = {**run.tags, KEY_TAG: run.key}
        made = self._client.create_run(self._experiment(run), began, tags, run.name).info.run_id
        parameters = [Param(name, str(value)[:_LONGEST_PARAMETER]) for name, value in run.parameters.items()]
        for part in chunk_list(parameters, _MOST_PARAMETERS):
            self._client.log_batch(made, params=part)
        points = run.all_points()
        metrics = [
            Metric(each.metric, each.value, began + round(1000 * each.seconds), each.step) for each in points
        ]
        for part in chunk_list(metrics, _MOST_METRICS):
            self._client.log_batch(made, metrics=part)
        self._client.log_batch(made, tags=[RunTag(CONTENT_TAG, run.content)])
        if (state := run.tags["state"]) in _ENDED_AS:
            self._client.set_terminated(made, _ENDED_AS[state], began + round(1000 * run.seconds))

    def _found(self, run: LoggedRun) -> list[Any]:
        has_key = f"tags.`{KEY_TAG}` = '{run.key}'"
        return list(self._client.search_runs([self._experiment(run)], filter_string=has_key))

    def _experiment(self, run: LoggedRun) -> str:
        name = self._project or run.study
        if found := self._client.get_experiment_by_name(name):
            return found.experiment_id
        return self._client.create_experiment(name, artifact_location=self._artifacts)


class Wandb:
    """Writes a W&B run per run, to `out/wandb` for `wandb sync`; `WANDB_MODE=online` sends it at once.

    Online, W&B appends to an existing run after its last row.
    """

    def __init__(self, out: Path, project: str | None) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self._wandb: Any = wandb
        self.errors, self.remedy = (wandb.Error,), "`WANDB_MODE=offline` keeps runs here."
        # the same run in another project is another run, and gets another folder
        self._out, self._project = (out / project if project else out), project
        self._mode = os.environ.get("WANDB_MODE", "offline")
        self._is_local = self._mode == "offline"
        self.see = f"wandb sync {self._out / 'wandb'}/offline-run-*" if self._is_local else "where wandb says"

    def has(self, run: LoggedRun) -> bool:
        # online, only W&B knows
        return any(_mark(folder) == run.content for folder in self._earlier(run))

    def write(self, run: LoggedRun) -> None:
        """See `TRACKERS`."""
        for folder in self._earlier(run):
            shutil.rmtree(folder)
        tags = [run.tags["arm"], f"seed-{run.tags['seed']}", run.tags["state"]]
        opened = self._wandb.init(
            project=self._project or run.study,
            id=run.key,
            name=run.name,
            group=run.tags.get("plan"),
            job_type=run.tags["arm"],
            tags=tags,
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


TRACKERS = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": Wandb}
"""The trackers: `has` tells whether a run is up to date, `write` logs it and replaces an earlier log, `see` is a
command that shows the runs; `errors` are the library's exceptions if the tracker does not answer, `remedy` is the
advice then."""


def _rows(run: LoggedRun) -> list[dict[str, float]]:
    """Return one row of metrics per epoch or training step."""
    by_step = groupby(run.points, lambda each: (each.is_diagnosis, each.step))
    return [
        {"training_step" if is_diagnosis else "epoch": step} | {each.metric: each.value for each in points}
        for (is_diagnosis, step), points in by_step
    ]


def _mark(folder: Path) -> str | None:
    try:
        return from_json((folder / MARK_FILE).read_text(encoding="utf-8"))["content"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _put_mark(folder: Path, run: LoggedRun) -> None:
    write_json(folder / MARK_FILE, {"key": run.key, "content": run.content})
