"""One shard of an archive, coloured by one worker.

The manifest and the ledger of a shard hold a line of JSON per image. The ledger records what is done and is rewritten
every `FLUSH_SECONDS`. Before the first output it lists all planned ones, so that after a kill an output without a
record is known to be the shard's own, and is made again.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from knowhue.errors import ImageError, RunError
from knowhue.images.image import LEDGERS, STATE
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.description import ModelChoice
from knowhue.inference.judgement import count_notable, is_judgement_record
from knowhue.inference.ledger import line_of, read_lines
from knowhue.inference.pipeline import Limits, usable_cores
from knowhue.inference.pixels import paint_compiled
from knowhue.inference.requests import ImageReply, ImageRequest, colour_many
from knowhue.inference.store import open_store
from knowhue.storage import from_json, is_url

FLUSH_SECONDS = 30.0
"""Maximum seconds of work that a kill can cost."""
WAITING_THREADS = 4
"""Threads per core for remote images, because most of them wait for the store."""
MOST_FAILURES = 20
"""Maximum number of failures in a shard's end; its ledger has all."""


class ListedImage(NamedTuple):
    """A line of a shard's manifest."""

    path: str
    stamp: str
    """stamp of the image when it was listed"""
    output: str
    existing: str | None
    """stamp of the file at `output` when the image was listed; None if there was none"""


class ShardTask(NamedTuple):
    """A worker's task; names and numbers only, because the worker can be on another machine."""

    source: str
    out: str
    model: ModelChoice
    shard: int
    options: ColorizeOptions
    overwrite: bool
    job: str
    """digest of everything that decides the colours; ledgers of another job do not count"""
    run: str
    """id of the command that made the task"""
    threads: int = 0
    """threads that the engine gives the worker; 0 for all cores"""


def manifest_path(shard: int) -> str:
    return f"{STATE}/manifests/{shard:06d}.jsonl"


def ledger_path(shard: int) -> str:
    return f"{LEDGERS}/{shard:06d}.jsonl"


def end_path(shard: int) -> str:
    return f"{STATE}/ended/{shard:06d}.json"


def colour_shard(task: ShardTask) -> None:
    """Colour the images of a shard that are not coloured yet; after a kill the same call resumes.

    A `RunError` if the store or the model fails, which would affect every other image, too.
    """
    _Shard(task).colour()


class _Shard:
    def __init__(self, task: ShardTask) -> None:
        self.task = task
        self.source, self.out = open_store(task.source), open_store(task.out)
        self.began = self._flushed = time.monotonic()
        lines = self.out.read(manifest_path(task.shard)).decode().splitlines()
        self.images = [ListedImage(*json.loads(line)) for line in lines]
        self._is_retry = False  # whether this command's engine began the shard before and believed it lost
        self.records = self._read_ledger()
        self.made = 0
        self._blocked = 0
        self._changed: list[str] = []
        self._owned: set[str] = set()
        self.failures: list[tuple[str, str]] = []

    def _read_ledger(self) -> dict[str, dict[str, Any]]:
        path = ledger_path(self.task.shard)
        try:
            data = self.out.read(path)
        except ImageError:  # none yet
            return {}
        try:
            first, *lines = data.decode().splitlines()
            head = from_json(first)
            if head["job"] != self.task.job:
                return {}
            self._is_retry = head["run"] == self.task.run
            records = read_lines(lines, _is_line)
            listed = {image.path for image in self.images}
            return {record["path"]: record for record in records if record["path"] in listed}
        except (ValueError, KeyError, TypeError):
            raise RunError(
                f"`{path}` of `{self.out.url}` is damaged: it recorded what is done. Remove it, and colour its images "
                "again with --overwrite."
            ) from None

    def colour(self) -> None:
        """Colour the waiting images and write the shard's end."""
        waiting = list(self._waiting())
        if waiting:
            self._flush()
            self._colour(waiting)
        self._flush()
        end = {
            "run": self.task.run,
            "counts": {
                **count_notable(record for record in self.records.values() if "made" in record),
                "made": self.made,
                "already": len(self.images) - len(waiting) - self._blocked,
                "failed": len(self.failures),
            },
            "failures": sorted(self.failures)[:MOST_FAILURES],
            "changed": self._changed,
            "seconds": round(time.monotonic() - self.began, 3),
        }
        self.out.write(end_path(self.task.shard), json.dumps(end).encode())

    def _waiting(self) -> Iterator[ListedImage]:
        """The images to be coloured; an image whose output is another job's file fails at once."""
        for image in self.images:
            record = self.records.get(image.path, {})
            is_owned = image.existing is not None and record.get("made") == image.existing
            if "made" in record and record["stamp"] == image.stamp:
                # the listing is older than the outputs of this command's first attempt
                if is_owned or self._is_retry:
                    continue
                # changed since; kept, as in `folder`
                if image.existing is not None and not self.task.overwrite:
                    self._changed.append(image.output)
                    continue
            if image.existing is not None and (is_owned or record.get("planned")):
                self._owned.add(image.path)
            if image.existing is None or image.path in self._owned or self.task.overwrite:
                self.records[image.path] = {"path": image.path, "output": image.output, "planned": True}
                yield image
                continue
            self._blocked += 1
            self._fail(image, f"`{image.output}` already exists, not made by this job; see --overwrite")

    def _colour(self, waiting: Sequence[ListedImage]) -> None:
        cores = self.task.threads or usable_cores()
        is_remote = is_url(self.task.source) or is_url(self.task.out)
        colorizer = _open(self.task.model)
        predictors = cores if colorizer.network.uses_one_core else max(1, cores // 4)
        limits = Limits(cores * (WAITING_THREADS if is_remote else 1), predictors=predictors, batch=1)
        paint_compiled()  # for all images, because otherwise shards would round differently
        with closing(colour_many(colorizer, waiting, limits, self._request, self._put)) as outcomes:
            for image, reason, line, made in outcomes:
                if reason:
                    self._fail(image, reason)
                else:
                    self.records[image.path] = line | {"stamp": image.stamp, "made": made}
                    self.made += 1
                if time.monotonic() - self._flushed > FLUSH_SECONDS:
                    self._flush()

    def _fail(self, image: ListedImage, reason: str) -> None:
        self.failures.append((image.path, reason))
        record = {"path": image.path, "error": reason}
        # nothing was written, so an existing output is the job's own only if it was before
        self.records[image.path] = record | ({"planned": True} if image.path in self._owned else {})

    def _flush(self) -> None:
        """Rewrite the ledger, because an object store cannot append to a file."""
        head = {"job": self.task.job, "run": self.task.run, "shard": self.task.shard}
        text = "".join(line_of(line) + "\n" for line in (head, *self.records.values()))
        self.out.write(ledger_path(self.task.shard), text.encode())
        self._flushed = time.monotonic()

    def _request(self, image: ListedImage) -> ImageRequest:
        try:
            data = self.source.read(image.path)
        except RunError as error:
            # fails this image only; if the store is down, writing the ledger fails and ends the job
            raise ImageError(str(error)) from None
        return ImageRequest(data, self.task.options, suffix=PurePosixPath(image.output).suffix)

    def _put(self, image: ListedImage, reply: ImageReply, *_: object) -> str:
        replace = self.task.overwrite or image.path in self._owned
        return self.out.write(image.output, reply.data, replace)


def _is_line(record: Any) -> bool:
    match record:
        case {"path": str(), "made": str(), "stamp": str()}:
            return is_judgement_record(record)
        case {"path": str(), "error": _} | {"path": str(), "planned": True}:
            return "made" not in record
    return False


@lru_cache(maxsize=1)
def _open(model: ModelChoice) -> Colorizer:
    """The model, opened once per process for all of its shards."""
    return Colorizer.load(*model)
