"""Colour a folder of images into another folder, several images at a time; a stopped job resumes."""

import shutil
import time
from contextlib import closing
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from knowhue.errors import ConfigError, few
from knowhue.images.reading import read_image
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.judgement import count_notable
from knowhue.inference.ledger import Ledger, Stamp, job_of
from knowhue.inference.listing import Item, Listing, Summary, outputs_exist, summarise
from knowhue.inference.networks import Predictions
from knowhue.inference.pipeline import Limits, Stages, usable_cores
from knowhue.inference.pixels import paint_compiled
from knowhue.inference.reference import AlbumColour, colour_of_album, photo_colour
from knowhue.inference.requests import ImageReply, ImageRequest, colour_many, run_on_cores
from knowhue.locks import locked
from knowhue.pace import Pace
from knowhue.runs import Report
from knowhue.storage import real_path, write_through, writing

_COMPILE_FROM_IMAGES = 16  # from this many images on, compiling pays even if they are small
# enough for small images to form a batch: cores share it, or eight together cost torch two thirds of eight alone
_BATCH_WAIT_SECONDS = 0.2
STAGING = ".colorizing"
"""Folder in the output folder where images are written before they are moved to their place."""


def colorize_folder(
    colorizer: Colorizer,
    listing: Listing,
    *,
    options: ColorizeOptions = ColorizeOptions(),
    album: bool = False,
    overwrite: bool = False,
    stops: bool = False,
    limits: Limits = Limits(),
    report: Report = lambda _: None,
) -> Summary:
    """Colour all images of a folder and its subfolders; after a kill the same call resumes.

    `out/colorized.jsonl` gets one line of JSON per image once its output is in place: `path`, `output`, `width`,
    `height`, the fields of `Judgement`, `seconds` of work, `model`. A failed image gets `path` and `error`. An image is
    coloured again if its file has changed or its output is gone. An output that was changed since is kept and reported,
    unless `overwrite` is set.

    Args:
        colorizer: a model with a colour head.
        listing: the folder's images and hints, from `list_folder`.
        options: options of every image, such as one reference for all; without hints and strokes.
        album: give all photos one look, see `reference.AlbumColour`; added or removed photos can change all colours.
        overwrite: whether files that this job did not make can be replaced.
        stops: stop after the first failure.
        limits: threads and memory.
        report: called after every image with the fields of `Pace.after`, and `failed`, which `done` includes.

    Raises:
        ConfigError: the options hold hints or strokes, or the model has no colour head.
        RunError: `out` holds other files or another job's colours, is in use, or cannot be written.
    """
    started = time.monotonic()
    colorizer.require_options(options)
    if refused := [f"`{name}`" for name in options.changed() if name in ("hints", "strokes")]:
        raise ConfigError(
            "`options` of a folder should hold no hints and no strokes, because they belong to one image. Found "
            f"{few(refused)}. Pass hints to `list_folder`, or colour that image alone."
        )
    key = job_of(colorizer, str(real_path(listing.source)), options, listing.suffix, album)
    with locked(listing.out, "colorize"), Ledger(listing.out, key, overwrite) as ledger:
        job = _FolderJob(colorizer, options, listing, ledger, stops, report)
        job.run(limits, album)
    return job.summary(time.monotonic() - started)


@dataclass
class _FolderJob:
    """The state of one call: images done and failed, and what the pipeline's threads call."""

    colorizer: Colorizer
    options: ColorizeOptions
    listing: Listing
    ledger: Ledger
    stops: bool
    report: Report

    def __post_init__(self) -> None:
        self._staging = self.listing.out / STAGING
        self._numbers = count()
        # taken before any work: an image that changes from now on is coloured again by the next run
        self._stamps = {item: Stamp.of(item.source) for item in self.listing.items}
        self._done = {item for item in self.listing.items if self._is_done(item)}
        self._already = 0
        self._failures: list[tuple[str, str]] = []

    def _waiting(self) -> list[Item]:
        return [item for item in self.listing.items if item not in self._done]

    def _find_album_colour(self, limits: Limits) -> None:
        """Find the album's colour; images coloured without it, or by another one, wait again."""
        albums = {item: self.ledger.records[item.path].get("album") for item in self._done}
        # an image that became readable only after an earlier run's survey was coloured without an album
        albums = {item: album for item, album in albums.items() if album is not None}
        self._done = set(albums)
        colours = [*self._survey(limits), *(AlbumColour(*album["own"]) for album in albums.values())]
        if colours:  # otherwise no image can be read, and each one is reported on its own
            colour = colour_of_album(colours)
            self.options = self.options._replace(album=colour)
            self._done = {item for item, album in albums.items() if album["colour"] == list(colour)}

    def _survey(self, limits: Limits) -> list[AlbumColour]:
        """The mean predicted colour of each waiting image that can be read.

        Images are read and predicted as for colouring, but only two numbers are kept of each.
        """
        stages = Stages(
            lambda item: self.colorizer.weigh(item.source),
            lambda item: self.colorizer.network_input(read_image(item.source)),
            self.colorizer.predict,
            lambda item, network_input, answer: photo_colour(answer.colours[0]),
            lambda network_input: network_input.shape,
        )
        colours: list[AlbumColour] = []
        waiting, pace = self._waiting(), Pace()
        with closing(run_on_cores(self.colorizer, stages, waiting, limits)) as outcomes:
            for done, (_, future) in enumerate(outcomes, 1):
                # an image that fails here fails again when it is coloured, and is reported then
                if future.exception() is None:
                    colours.append(future.result())
                self.report({"stage": "album"} | pace.after(done, len(waiting)))
        return colours

    def _is_done(self, item: Item) -> bool:
        """Whether the image and its hints are unchanged since it was coloured."""
        is_done = self.ledger.is_done(item.path, item.output, self._stamps[item])
        return is_done and self.ledger.records[item.path].get("hints") == self.listing.hints.get(item.path)

    def run(self, limits: Limits, album: bool) -> None:
        """Colour the waiting images. With `stops`, those submitted before the first failure are still finished."""
        blocked = [item.output for item in self._waiting() if self.ledger.is_blocked(item.path, item.output)]
        if blocked:
            raise outputs_exist(self.listing.out, len(blocked), blocked[0])
        shutil.rmtree(self._staging, ignore_errors=True)  # left by a killed run
        with writing(self._staging):
            self._staging.mkdir()
        # a quarter as many threads predict as decode, because more would make batches smaller
        predictors = max(1, (limits.threads or usable_cores()) // 4)
        limits = limits._replace(predictors=predictors, batch_wait_seconds=_BATCH_WAIT_SECONDS)
        try:
            if album:
                self._find_album_colour(limits)
            self._pace = Pace()  # of colouring, without the album's survey
            waiting, self._already = self._waiting(), len(self._done)
            done = [item for item in self.listing.items if item in self._done]
            unchanged = self.ledger.is_unchanged
            self._changed = [item.output for item in done if not unchanged(item.path, item.output)]
            self._notable = count_notable(self.ledger.records[item.path] for item in done)
            self._report_progress()
            # all images count, not just waiting ones, so that a resumed run rounds as an uninterrupted one
            if waiting and len(self.listing.items) >= _COMPILE_FROM_IMAGES:
                paint_compiled()
            items = takewhile(lambda _: not (self._failures and self.stops), waiting)
            with closing(colour_many(self.colorizer, items, limits, self._request, self._write)) as outcomes:
                for outcome in outcomes:
                    self._finish(*outcome)
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)

    def summary(self, seconds: float) -> Summary:
        listing, already = self.listing, self._already
        failures = [*listing.unreadable, *self._failures]
        made = len(self._done) - already
        counts = {**self._notable, "made": made, "already": already, "failed": len(failures)}
        left = len(listing.items) - len(self._done) - len(self._failures)
        return summarise(
            self.colorizer, str(listing.source), str(listing.out), counts, failures, self._changed, listing.notes,
            seconds, left=left,
        )  # fmt: skip

    def _request(self, item: Item) -> ImageRequest:
        hints = self.listing.hints.get(item.path, ())
        return ImageRequest(item.source, self.options, hints, suffix=Path(item.output).suffix)

    def _write(self, item: Item, reply: ImageReply, line: dict[str, Any], answer: Predictions) -> Path:
        """Write an image to the staging folder, and add to its line what resuming compares."""
        # numbered, because images of different folders can have the same name
        written = self._staging / f"{next(self._numbers)}{reply.suffix}"
        write_through(written, reply.data)
        if item.path in self.listing.hints:
            line["hints"] = self.listing.hints[item.path]
        if self.options.album is not None:
            line["album"] = {"colour": self.options.album, "own": photo_colour(answer.colours[0])}
        if reply.colorized is not None and reply.colorized.uncertainty is not None:
            line["uncertainty"] = round(float(reply.colorized.uncertainty.mean()), 3)
        return written

    def _finish(self, item: Item, reason: str, record: dict[str, Any], written: Path) -> None:
        """Move an image to its place, or record its failure."""
        # checked again, because the listing may be hours old
        if not reason and self.ledger.is_blocked(item.path, item.output):
            reason = f"another program wrote `{item.output}` meanwhile"
        if not reason:
            self.ledger.commit(record, self._stamps[item], written)
            self._done.add(item)
            self._notable.update(count_notable([record]))
        else:
            self.ledger.fail(item.path, reason)
            self._failures.append((item.path, reason))
        self._report_progress()

    def _report_progress(self) -> None:
        failed, total = len(self._failures), len(self.listing.items)
        here = len(self._done) - self._already + failed
        self.report({"stage": "folder", "failed": failed} | self._pace.after(here, total, self._already))
