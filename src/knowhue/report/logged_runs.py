"""Run folders as what an experiment tracker holds of a run: parameters, tags, numbers by epoch, final scores."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from knowhue.config import digest
from knowhue.errors import DamagedError, RunError
from knowhue.plan import RESERVED
from knowhue.runs import FROZEN, damaged_files, read_config, read_frozen, read_log, read_status, settings_of
from knowhue.storage import read_json

Scalar = str | int | float | bool


class LoggedNumber(NamedTuple):
    """A number at a time.

    Attributes:
        metric: such as `validation/ab_l1`.
        step: epoch, counted over all phases from 1; of `diagnostics/...` the training step, from 0.
        seconds: of training until then.
    """

    metric: str
    step: int
    seconds: float
    value: float


class LoggedRun(NamedTuple):
    """A run as it is logged.

    Attributes:
        name: its arm and folder, such as `multi/seed-0-1a2b3c4d`.
        study: name of the study, or of the folder that it lies in.
        tags: what it is: arm, seed, state, split, its plan's hash.
        parameters: every setting, `colour.width` and the like.
        points: the log, in its order.
        scores: final ones by metric; empty before the end.
        began: seconds since 1970, as far as the log's date tells.
    """

    name: str
    study: str
    tags: Mapping[str, str]
    parameters: Mapping[str, Scalar]
    points: tuple[LoggedNumber, ...]
    scores: Mapping[str, float]
    began: float

    @property
    def key(self) -> str:
        """What tells this run from others, whatever is known of it by now: 16 hex digits."""
        return digest([self.study, self.tags.get("plan", ""), self.name])[:16]

    @property
    def content(self) -> str:
        """The SHA-256 of all that is logged, by which a tracker knows whether it has it already; no dates count."""
        return digest([self.tags, self.parameters, self.points, self.scores])

    @property
    def last_step(self) -> int:
        """The last epoch."""
        return max(
            (each.step for each in self.points if not each.metric.startswith("diagnostics/")), default=0
        )

    @property
    def seconds(self) -> float:
        """Of training, in all."""
        return self.points[-1].seconds if self.points else 0.0

    def all_points(self) -> list[LoggedNumber]:
        """The log's, and the final scores as `score/...` of the last epoch."""
        last, seconds = self.last_step, self.seconds
        final = [LoggedNumber(f"score/{name}", last, seconds, value) for name, value in self.scores.items()]
        return [*self.points, *final]


def read_logged(path: Path) -> list[LoggedRun]:
    """The runs that a path means: itself, or all of a study's folder that have begun.

    Raises:
        RunError: there is none, or another version wrote it.
        DamagedError: a log is not as it was written.
    """
    folders = [path] if (path / "config.json").exists() else _runs_below(path)
    runs = [_read(folder) for folder in folders]
    if not runs:
        raise RunError(
            f"`{path}` should be the folder of a run or a study. Found no run that has begun. Name another, or "
            "train one with `knowhue study`."
        )
    return runs


def _runs_below(root: Path) -> list[Path]:
    found = sorted(file.parent for file in root.glob("*/seed-*/config.json"))
    return [folder for folder in found if folder.parent.name not in RESERVED]


def _read(folder: Path) -> LoggedRun:
    for path in damaged_files(folder, ("log.jsonl", "scores.json")):
        raise DamagedError(path, "it is gone, or not as it was written")
    folder = folder.resolve()  # `.` has no name of its own
    root, config = folder.parent.parent, read_config(folder)
    frozen = read_frozen(root) if (root / FROZEN).exists() else {}
    scored = read_json(folder / "scores.json") if (folder / "scores.json").exists() else {}
    tags = {
        "arm": folder.parent.name,
        "seed": str(config.seed),
        "state": read_status(folder).get("state", "running"),
    }
    tags |= {"plan": frozen["hash"]} if frozen else {}
    tags |= {"split": scored["split"]} if scored else {}
    points = tuple(_points(read_log(folder), config.training.batch_size))
    log = folder / "log.jsonl"
    until = log.stat().st_mtime if log.exists() else 0.0
    return LoggedRun(
        f"{folder.parent.name}/{folder.name}",
        frozen.get("name", root.name),
        tags,
        dict(_flat(settings_of(config))),
        points,
        {name: float(value) for name, value in scored.get("metrics", {}).items() if value is not None},
        until - (points[-1].seconds if points else 0.0),
    )


def _points(log: list[dict[str, Any]], batch_size: int) -> Iterator[LoggedNumber]:
    """Of a log; numbers that were not finite are not there."""
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


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Scalar]]:
    """Settings by their dotted names, as `--set` takes them; lists as text."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield (
                above + name,
                value if isinstance(value, Scalar) else "null" if value is None else str(value),
            )
