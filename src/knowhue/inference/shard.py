"""One shard of an archive, coloured by one worker: its images, what was done of them, and what came of it.

An output appears whole. What a shard has done stands in its ledger, a file that is written anew every `FLUSH_SECONDS`:
before the first output it names all that will be made, so that after a kill what is there is known to be the shard's
own, and is made again where its line had not come. Manifest and ledger have a line of JSON an image.
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
from knowhue.inference.judgement import is_noted, noteworthy
from knowhue.inference.ledger import line_of, read_lines
from knowhue.inference.pipeline import Limits, usable_cores
from knowhue.inference.pixels import paint_compiled
from knowhue.inference.requests import ImageReply, ImageRequest, colour_many
from knowhue.inference.store import open_store
from knowhue.storage import from_json, is_url

FLUSH_SECONDS = 30.0
"""Of work that a kill may cost."""
WAITING_THREADS = 4
"""Threads a core where images come from afar: most of them wait for the store."""
MOST_FAILURES = 20
"""That a shard's end names; its ledger has all."""


class ListedImage(NamedTuple):
    """A line of a shard's manifest."""

    path: str
    """of the image in the source"""
    stamp: str
    """of it, when it was listed"""
    output: str
    """path of the coloured one in the output"""
    taken: str | None
    """stamp of what was there under that name when it was listed; None if nothing was"""


_IN_THE_WAY = "`{}` is there already, and not made by this job; see --overwrite."


class ShardTask(NamedTuple):
    """What a worker is told, which may be another machine: names and numbers alone."""

    source: str
    out: str
    model: ModelChoice
    """of the network that colours"""
    shard: int
    options: ColorizeOptions
    overwrite: bool
    job: str
    """digest of all that makes colours comparable; ledgers of another job do not count"""
    run: str
    """of the command that hands it out"""
    threads: int = 0
    """that the engine gives it; 0 for all cores"""


def manifest_path(shard: int) -> str:
    return f"{STATE}/manifests/{shard:06d}.jsonl"


def ledger_path(shard: int) -> str:
    return f"{LEDGERS}/{shard:06d}.jsonl"


def end_path(shard: int) -> str:
    return f"{STATE}/ended/{shard:06d}.json"


def colour_shard(task: ShardTask) -> None:
    """Colour the images of a shard that are not coloured yet; run again after a kill, it goes on.

    Raises:
        RunError: the store or the model fails, which every other image would meet, too.
    """
    _Shard(task).colour()


class _Shard:
    def __init__(self, task: ShardTask) -> None:
        self.task = task
        self.source, self.out = open_store(task.source), open_store(task.out)
        self.began = self._flushed = time.monotonic()
        lines = self.out.read(manifest_path(task.shard)).decode().splitlines()
        self.images = [ListedImage(*json.loads(line)) for line in lines]
        self._is_again = False  # begun by this very command: the engine took it for lost
        self.records = self._read_ledger()
        self.made = 0
        self._in_the_way = 0
        self._changed: list[str] = []
        self._own: set[str] = set()
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
            self._is_again = head["run"] == self.task.run
            records = read_lines(lines, _is_line)
            listed = {image.path for image in self.images}
            return {record["path"]: record for record in records if record["path"] in listed}
        except (ValueError, KeyError, TypeError):
            raise RunError(
                f"`{path}` of `{self.out.url}` is damaged: it said what is done. Remove it, and have its images "
                "coloured anew with --overwrite."
            ) from None

    def colour(self) -> None:
        """Colour what waits, and say what came of it."""
        waiting = list(self._waiting())
        if waiting:
            self._flush()
            self._colour(waiting)
        self._flush()
        end = {
            "run": self.task.run,
            "counts": {
                **noteworthy(record for record in self.records.values() if "made" in record),
                "made": self.made,
                "already": len(self.images) - len(waiting) - self._in_the_way,
                "failed": len(self.failures),
            },
            "failures": sorted(self.failures)[:MOST_FAILURES],
            "changed": self._changed,
            "seconds": round(time.monotonic() - self.began, 3),
        }
        self.out.write(end_path(self.task.shard), json.dumps(end).encode())

    def _waiting(self) -> Iterator[ListedImage]:
        """What is to be coloured; what somebody else has put in its way fails at once."""
        for image in self.images:
            record = self.records.get(image.path, {})
            is_own = image.taken is not None and record.get("made") == image.taken
            if "made" in record and record["stamp"] == image.stamp:
                # what the command has listed is older than what its own first try has made
                if is_own or self._is_again:
                    continue
                if image.taken is not None and not self.task.overwrite:  # as of a folder's job
                    self._changed.append(image.output)
                    continue
            if image.taken is not None and (is_own or record.get("planned")):
                self._own.add(image.path)
            if image.taken is None or image.path in self._own or self.task.overwrite:
                self.records[image.path] = {"path": image.path, "output": image.output, "planned": True}
                yield image
                continue
            self._in_the_way += 1
            self._fail(image, _IN_THE_WAY.format(image.output))

    def _colour(self, waiting: Sequence[ListedImage]) -> None:
        cores = self.task.threads or usable_cores()
        afar = is_url(self.task.source) or is_url(self.task.out)
        limits = Limits(cores * (WAITING_THREADS if afar else 1), predictors=max(1, cores // 4), batch=1)
        colorizer = _open(self.task.model)
        paint_compiled()  # from the first image on, or the same image would be rounded otherwise in another shard
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
        # nothing was written now: what is there is the job's own only if it was so before
        still = {"planned": True} if image.path in self._own else {}
        self.records[image.path] = {"path": image.path, "error": reason} | still

    def _flush(self) -> None:
        """Write the ledger anew: a store can add nothing to a file."""
        head = {"job": self.task.job, "run": self.task.run, "shard": self.task.shard}
        lines = [head, *self.records.values()]
        text = "".join(line_of(line) + "\n" for line in lines)
        self.out.write(ledger_path(self.task.shard), text.encode())
        self._flushed = time.monotonic()

    def _request(self, image: ListedImage) -> ImageRequest:
        try:
            data = self.source.read(image.path)
        except RunError as error:
            # of this image; where the store is down, the ledger is what cannot be written
            raise ImageError(str(error)) from None
        return ImageRequest(data, self.task.options, suffix=PurePosixPath(image.output).suffix)

    def _put(self, image: ListedImage, reply: ImageReply, *_: object) -> str:
        replace = self.task.overwrite or image.path in self._own
        return self.out.write(image.output, reply.data, replace)


def _is_line(record: Any) -> bool:
    match record:
        case {"path": str(), "made": str(), "stamp": str()}:
            return is_noted(record)
        case {"path": str(), "error": _} | {"path": str(), "planned": True}:
            return "made" not in record
    return False


@lru_cache(maxsize=1)
def _open(model: ModelChoice) -> Colorizer:
    """The model, once a process however many shards that is given."""
    return Colorizer.load(*model)
