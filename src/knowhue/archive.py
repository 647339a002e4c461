"""Archives: more images than one folder's job can take, coloured in shards on any engine.

The driver lists the source once, as a stream, assigns images to shards by the hash of their path, and runs one job per
shard on the engine. All state is in the output below `STATE`, so that any driver can resume.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import uuid4

from knowhue.config import digest
from knowhue.engines.executor import Executor, InProcess, Job
from knowhue.errors import ConfigError, ImageError, RunError, few, plural
from knowhue.images.image import ARCHIVE_PLAN, LEDGERS, STATE
from knowhue.images.writing import check_output_suffix
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.description import ModelChoice
from knowhue.inference.ledger import is_same_job, job_of
from knowhue.inference.listing import ImageTable, Summary, as_bytes, outputs_exist, summarise
from knowhue.inference.shard import MOST_FAILURES, ShardTask, colour_shard, end_path, manifest_path
from knowhue.inference.store import PARTS, FolderStore, Store, hide_password, open_store
from knowhue.pace import Pace
from knowhue.runs import BUILT_IN, Report
from knowhue.storage import from_json, is_url, real_path
from knowhue.temporary import tables_on_disk

_CREATE_EXISTING = "CREATE TABLE existing (path TEXT PRIMARY KEY, stamp TEXT) WITHOUT ROWID"
_SELECT_SHARDS = """
SELECT hash % ?, images.path, images.stamp, output, existing.stamp
FROM images LEFT JOIN existing ON existing.path = output ORDER BY hash % ?, images.path
"""


class ArchiveListing(ImageTable):
    """The images of an archive, their outputs, and the files that the output already holds."""

    def add_existing(self, source: Store, out: Store) -> None:
        """Add every file of the output, and remove unfinished files of killed workers; `ConfigError` for a bad link."""
        roots = None
        if isinstance(source, FolderStore) and isinstance(out, FolderStore):
            roots = real_path(source.root), real_path(out.root)
        self.rows.execute(_CREATE_EXISTING)
        last = ""
        for path, stamp, _ in out.files():
            if path.startswith(f"{PARTS}/"):
                out.remove(path)
            elif not path.startswith(f"{STATE}/"):
                folder = path.rpartition("/")[0]
                if roots and folder != last:  # files come folder by folder
                    real = real_path(Path(out.url, folder))
                    if real.is_relative_to(roots[0]) and not real.is_relative_to(roots[1]):
                        raise ConfigError(
                            f"`{Path(out.url, folder)}` leads into the folder of the images. Name another output."
                        )
                last = folder
                self.rows.execute("INSERT INTO existing VALUES (CAST(? AS TEXT), ?)", (as_bytes(path), stamp))

    def require_no_outputs(self, out: str) -> None:
        """Raise a `RunError` if files of the output already have the names of outputs."""
        existing = "SELECT count(*), min(output) FROM images JOIN existing ON existing.path = output"
        count, first = self.rows.execute(existing).fetchone()
        if count:
            raise outputs_exist(out, count, first)

    def write_manifests(self, out: Store, shards: int) -> Iterator[int]:
        """Write the manifest of every shard that has images, and yield its number."""
        rows = self.rows.execute(_SELECT_SHARDS, (shards, shards))
        for shard, images in groupby(rows, key=lambda row: row[0]):
            text = "".join(json.dumps(row[1:]) + "\n" for row in images)
            out.write(manifest_path(shard), text.encode())
            yield shard


SHARD_IMAGES = 2000  # images of a shard if the number of shards is not given: some minutes of work
_SCHEMA = {"name": "knowhue-archive", "version": 1}
_ENDS_FOLDER = f"{STATE}/ended"


def colorize_archive(
    source: str,
    out: str,
    *,
    model: ModelChoice,
    options: ColorizeOptions = ColorizeOptions(),
    suffix: str | None = None,
    shards: int | None = None,
    executor: Executor | None = None,
    overwrite: bool = False,
    report: Report = lambda _: None,
) -> Summary:
    """Colour all images below a folder or a prefix of an object store; after a kill the same call resumes.

    An image is coloured again if it has changed or its output is gone. Outputs appear whole; after a kill at most
    `shard.FLUSH_SECONDS` of a worker's work are repeated, with the same result. A file that this job did not make is
    not replaced, and fails its image. An output that was changed since is kept and reported, unless `overwrite` is set.
    The state is in `out/.knowhue`: the plan, and of each shard its manifest, its ledger with a line per image like that
    of `colorize_folder`, and its end.

    Args:
        source: a folder, or a URL such as `s3://bucket/photos`; credentials come from the environment.
        out: another folder or URL. Folders must be the same on every machine of the engine.
        model: the model and how it is used; its name must mean the same on every machine.
        options: `saturation` and `unknown_below`; options of single images or albums are refused.
        suffix: suffix of all outputs; None keeps the formats.
        shards: number of jobs; None is that of the last run, or one job per `SHARD_IMAGES` images.
        executor: runs the jobs; None is this process.
        overwrite: whether files that this job did not make, and colours of another job, can be replaced.
        report: called with `done`, `total`, `failed` and `per_second`, counted in images, whenever a shard has ended,
            and with notes before.

    Raises:
        ConfigError: an option does not suit an archive, or the output is the source, contains it, or leads into it.
        ImageError: there is no image.
        RunError: a store does not answer, or the output is in use, or holds other files or another job's colours.
    """
    _check_options(options, suffix, shards)
    places = _absolute_name(source), _absolute_name(out)
    images, colours = map(open_store, places)
    source, out = hide_password(source), hide_password(out)
    inside = _inside(images, colours, source, out)
    executor = executor or InProcess()
    colorizer = Colorizer.load(*model)
    colorizer.require_options(options)
    started = time.monotonic()
    report({"stage": "note", "text": f"looking for images in {source}"})
    with colours.hold() as note:
        if left := executor.leftover_jobs():
            raise RunError(f"Jobs of a killed command still run: {few(left)}. Wait for them or cancel them.")
        with tables_on_disk() as tables:
            listing = ArchiveListing(tables, suffix)
            listing.add_images(images, inside)
            listing.add_existing(images, colours)
            original = images.place if isinstance(images, FolderStore) else images.url
            plan = _plan(colours, listing, job_of(colorizer, original, options, suffix), shards, overwrite)
            numbers, total = list(listing.write_manifests(colours, plan["shards"])), len(listing)
        if model.model != BUILT_IN and Path(model.model).exists():
            model = model._replace(model=_absolute_name(model.model))
        # without the source, because `_plan` decides whether another source is accepted
        job_digest = digest({**plan["job"], "source": None, "shards": plan["shards"]})
        task = ShardTask(
            *places, model=model, shard=0, options=options, overwrite=overwrite, job=job_digest, run=uuid4().hex,
            threads=executor.threads or 0,
        )  # fmt: skip
        ends = _execute(executor, [task._replace(shard=number) for number in numbers], colours, total, report)
    counts = sum((Counter(end["counts"]) for end in ends), Counter(failed=len(listing.unreadable)))
    failures = [*listing.unreadable, *((path, error) for end in ends for path, error in end["failures"])]
    changed = [output for end in ends for output in end["changed"]]
    notes = [*colorizer.notes, *filter(None, [note]), *listing.notes]
    return summarise(
        colorizer, source, out, counts, sorted(failures)[:MOST_FAILURES], changed, notes,
        time.monotonic() - started, shards=plan["shards"],
    )  # fmt: skip


def _check_options(options: ColorizeOptions, suffix: str | None, shards: int | None) -> None:
    options.require_shared("an archive", "Colour those images as a folder, or one by one.")
    if suffix is not None:
        check_output_suffix(suffix)
    if shards is not None and not 1 <= shards <= 10**6:
        raise ConfigError(f"`shards` should be 1 to 1000000. Found `shards = {shards}`.")


def _inside(images: Store, colours: Store, source: str, out: str) -> str:
    """Check both places, and return the output's path below the source, or an empty text if it is elsewhere."""
    if isinstance(images, FolderStore) and not images.root.is_dir():
        raise ImageError(f"`source` should be a folder of images, or a URL. Found `{source}`.")
    # if the output contained the source, an output could replace an original of the same name
    if f"{images.place}/".startswith(f"{colours.place}/"):
        raise ConfigError(f"`out` should not be or contain the place of the images. Found `{out}`.")
    below = f"{images.place}/"
    return colours.place.removeprefix(below) if colours.place.startswith(below) else ""


def _absolute_name(name: str) -> str:
    """An absolute name of a store or a file, for workers with another current folder."""
    return name if is_url(name) else str(Path(name).absolute())


def _plan(
    out: Store, listing: ArchiveListing, job: dict[str, Any], shards: int | None, overwrite: bool
) -> dict[str, Any]:
    """Resume the plan that the output holds, or begin one if no other files are in the way."""
    found = _read_plan(out)
    if found is None and not overwrite:
        listing.require_no_outputs(out.url)
    resumes = False
    if found is not None and is_same_job(out.url, found["job"], job, overwrite):
        resumes = shards in (None, found["shards"])
        if not resumes and not overwrite:
            raise RunError(
                f"`{out.url}` was divided into {found['shards']} shards. Found `--shards {shards}`. Leave it out to "
                "continue, or start again with --overwrite."
            )
        shards = shards or found["shards"]
    plan = {"schema": _SCHEMA, "job": job, "shards": shards or max(1, -(-len(listing) // SHARD_IMAGES))}
    out.write(ARCHIVE_PLAN, json.dumps(plan, indent=1).encode())
    for path, *_ in list(() if resumes else out.files(LEDGERS)):
        out.remove(path)  # ledgers of another job, or of another number of shards
    return plan


def _read_plan(out: Store) -> dict[str, Any] | None:
    """The plan that the output holds, or None."""
    try:
        found = from_json(out.read(ARCHIVE_PLAN))
        if found["schema"] == _SCHEMA and isinstance(found["job"], dict) and isinstance(found["shards"], int):
            return found
    except ImageError:
        return None
    except (ValueError, KeyError, TypeError):
        pass
    raise RunError(
        f"`{ARCHIVE_PLAN}` of `{out.url}` should hold a plan of this version. Name another place, or remove `{STATE}`."
    )


def _execute(
    executor: Executor, tasks: list[ShardTask], out: Store, total: int, report: Report
) -> list[dict[str, Any]]:
    """Run one job per shard, report progress, and return the ends of all shards."""
    if not tasks:
        return []
    ends: dict[str, dict[str, Any]] = {}
    reported: list[int] = []
    pace = Pace()

    def watch() -> None:
        for path, *_ in out.files(_ENDS_FOLDER):
            if path not in ends:
                end = json.loads(out.read(path))
                if end["run"] == tasks[0].run:
                    ends[path] = end
        counts = [end["counts"] for end in ends.values()]
        made, failed, already = (sum(each[name] for each in counts) for name in ("made", "failed", "already"))
        if reported != [made + failed, already]:
            reported[:] = made + failed, already
            report({"stage": "folder", "failed": failed} | pace.after(made + failed, total, already))

    for path, *_ in list(out.files(_ENDS_FOLDER)):  # of earlier commands
        out.remove(path)
    watch()
    if not isinstance(executor, InProcess):
        what = "each worker opens the model first, and images are counted when their shard ends"
        report({"stage": "note", "text": f"starting {plural(len(tasks), 'shard')}: {what}"})
    executor.execute([Job(f"shard-{task.shard}", partial(colour_shard, task)) for task in tasks], watch)
    watch()
    lost = [task.shard for task in tasks if end_path(task.shard) not in ends]
    if lost:
        raise RunError(f"{plural(len(lost), 'shard')} did not finish: {few(lost)}. Run the command again.")
    return [ends[end_path(task.shard)] for task in tasks]
