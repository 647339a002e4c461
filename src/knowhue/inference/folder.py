"""A folder of images coloured into another: many at a time, resumable, nothing lost and nothing done twice."""

import shutil
import time
from collections.abc import Collection
from contextlib import closing
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from knowhue.errors import ConfigError
from knowhue.images.reading import read_image
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.judgement import noteworthy
from knowhue.inference.ledger import Ledger, Stamp, job_of
from knowhue.inference.listing import Item, Listing, Summary, no_room, summarise
from knowhue.inference.networks import Predictions
from knowhue.inference.pipeline import Limits, Stages, usable_cores
from knowhue.inference.pixels import paint_compiled
from knowhue.inference.reference import AlbumColour, colour_of_album, photo_colour
from knowhue.inference.requests import ImageReply, ImageRequest, colour_many, run_on_cores
from knowhue.locks import locked
from knowhue.pace import Pace
from knowhue.runs import Report
from knowhue.storage import write_through, writing

_MANY = 16  # images, from which on compiled code pays, even if they are small
# small images come within it: eight together cost the network two thirds of one by one
_BATCH_WAIT_SECONDS = 0.2
STAGING = ".colorizing"
"""Folder in the output folder where images are written before they are put in their place."""


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
    """Colour all images of a folder and the folders in it; the same call goes on after a kill.

    `out/colorized.jsonl` gets one line of JSON an image when that is in its place: `path`, `output`, `width`,
    `height`, what is to be said of the image (see `Judgement`), `seconds` of work, `model`. A failed one gets `path`
    and `error`. An image is done again when its file has changed since, or its output is gone. An output that was
    changed since stays unless `overwrite`, and that is said.

    Args:
        colorizer: a model with a colour head.
        listing: of the folder with its hints, by `list_folder`.
        options: for every image, such as one reference for all; without hints and strokes.
        album: whether all get one look, see `reference.drawn_to`; where photos came or went, all may be done again.
        overwrite: whether files that this job did not make may be replaced.
        stops: whether no other image is begun after one that fails.
        limits: threads and memory.
        report: called after every image with what `Pace.after` says, and `failed`, which `done` counts, too.

    Raises:
        ConfigError: hints among the options, or a model without a colour head.
        RunError: `out` holds other files or another job's colours, is in use, or cannot be written.
    """
    started = time.monotonic()
    colorizer.require_options(options)
    if options.hints or options.strokes is not None:
        raise ConfigError(
            "`options` should hold no hints and no strokes for a folder: they are of one image. Found some. Name the "
            "images in the `hints` of `list_folder`, or colour that image alone."
        )
    job = job_of(colorizer, str(listing.source.resolve()), options, listing.suffix, album)
    with locked(listing.out, "colorize"), Ledger(listing.out, job, overwrite) as ledger:
        work = _Work(colorizer, options, listing, ledger, stops, report)
        work.run(limits, album)
    return work.summary(time.monotonic() - started)


class _Work:
    """The images of a folder on their way: stages, run by several threads, and what has come of them so far."""

    def __init__(
        self,
        colorizer: Colorizer,
        options: ColorizeOptions,
        listing: Listing,
        ledger: Ledger,
        stops: bool,
        report: Report,
    ) -> None:
        self._colorizer, self._options, self._ledger = colorizer, options, ledger
        self._listing, self._hints = listing, listing.hints
        self._stops, self._report = stops, report
        self._staging = listing.out / STAGING
        self._numbers = count()
        # Asked once, before any work: an image that changes from now on is done again by the next run.
        self._stamps = {item: Stamp.of(item.source) for item in listing.items}
        self._divide({item for item in listing.items if self._is_done(item)})
        self.made = 0
        self.failures: list[tuple[str, str]] = []

    def _divide(self, done: Collection[Item]) -> None:
        """The images into those that are done and those that wait."""
        self._done = done
        self.waiting = [item for item in self._listing.items if item not in done]
        self.already = len(done)
        self._changed = [item.output for item in done if not self._ledger.made(item.path, item.output)]
        self._noteworthy = noteworthy(self._ledger.records[item.path] for item in done)

    def _set_album_colour(self, limits: Limits) -> None:
        """Look at all images, and have those coloured that were not, or by another album's colour."""
        # one that came while the others were looked at was coloured without
        self._divide({item for item in self._done if "album" in self._ledger.records[item.path]})
        kept = {item: self._ledger.records[item.path]["album"] for item in self._done}
        own = [*self._survey(limits), *(AlbumColour(*each["own"]) for each in kept.values())]
        if not own:
            return  # none can be read, which is told of each
        colour = colour_of_album(own)
        self._options = self._options._replace(album=colour)
        self._divide({item for item, each in kept.items() if each["colour"] == list(colour)})

    def _survey(self, limits: Limits) -> list[AlbumColour]:
        """The mean predicted colour of each image that waits, without those that cannot be read.

        They are read and predicted as for colouring, and nothing is kept of them but two numbers each.
        """
        stages = Stages(
            lambda item: self._colorizer.weigh(item.source),
            lambda item: self._colorizer.network_input(read_image(item.source)),
            self._colorizer.predict,
            lambda item, coarse, answer: photo_colour(answer.colours[0]),
            lambda coarse: coarse.shape,
        )
        found: list[AlbumColour] = []
        pace = Pace()
        with closing(run_on_cores(self._colorizer, stages, self.waiting, limits)) as outcomes:
            for done, (_, future) in enumerate(outcomes, 1):
                # what fails here fails again when it is to be coloured, and is told then
                if future.exception() is None:
                    found.append(future.result())
                self._report({"stage": "album"} | pace.after(done, len(self.waiting)))
        return found

    def _is_done(self, item: Item) -> bool:
        """Whether an image was coloured as it is now, and by the same hints."""
        if not self._ledger.has(item.path, item.output, self._stamps[item]):
            return False
        return self._ledger.records[item.path].get("hints") == self._hints.get(item.path)

    def run(self, limits: Limits, album: bool) -> None:
        """Colour all, or all up to the first failure and what was submitted by then; a full disk ends it at once."""
        outputs = (item.output for item in self.waiting if self._ledger.in_the_way(item.path, item.output))
        if strangers := list(outputs):
            raise no_room(self._listing.out, len(strangers), strangers[0])
        shutil.rmtree(self._staging, ignore_errors=True)  # of a run that was killed
        with writing(self._staging):
            self._staging.mkdir()
        # A quarter as many threads predict as decode: more would make smaller batches.
        predictors = max(1, (limits.threads or usable_cores()) // 4)
        limits = limits._replace(predictors=predictors, batch_wait_seconds=_BATCH_WAIT_SECONDS)
        try:
            if album:
                self._set_album_colour(limits)
            self._pace = Pace()  # of colouring alone
            self._report_progress()
            # of all, so that a kill changes no rounding
            if self.waiting and len(self._listing.items) >= _MANY:
                paint_compiled()
            items = takewhile(lambda _: not (self.failures and self._stops), self.waiting)
            with closing(colour_many(self._colorizer, items, limits, self._request, self._write)) as outcomes:
                for outcome in outcomes:
                    self._note(*outcome)
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)

    def summary(self, seconds: float) -> Summary:
        listing = self._listing
        failures = [*listing.unreadable, *self.failures]
        counts = {**self._noteworthy, "made": self.made, "already": self.already, "failed": len(failures)}
        left = len(self.waiting) - self.made - len(self.failures)
        return summarise(
            self._colorizer, str(listing.source), str(listing.out), counts, failures, self._changed, listing.notes,
            seconds, left=left,
        )  # fmt: skip

    def _request(self, item: Item) -> ImageRequest:
        hints = self._hints.get(item.path, ())
        return ImageRequest(item.source, self._options, hints, suffix=Path(item.output).suffix)

    def _write(self, item: Item, reply: ImageReply, line: dict[str, Any], answer: Predictions) -> Path:
        """Write an image beside its place."""
        # Numbered, as two images of different folders may have one name.
        written = self._staging / f"{next(self._numbers)}{reply.suffix}"
        write_through(written, reply.data)
        if item.path in self._hints:
            line["hints"] = self._hints[item.path]
        if self._options.album is not None:
            line["album"] = {"colour": self._options.album, "own": photo_colour(answer.colours[0])}
        if reply.colorized is not None and reply.colorized.uncertainty is not None:
            line["uncertainty"] = round(float(reply.colorized.uncertainty.mean()), 3)
        return written

    def _note(self, item: Item, reason: str, record: dict[str, Any], written: Path) -> None:
        """Put an image in its place, or its failure on the list."""
        # asked again: hours may lie between the listing and this image
        if not reason and self._ledger.in_the_way(item.path, item.output):
            reason = f"`{item.output}` was put in its place by somebody else meanwhile."
        if not reason:
            self._ledger.commit(record, self._stamps[item], written)
            self.made += 1
            self._noteworthy.update(noteworthy([record]))
        else:
            self._ledger.fail(item.path, reason)
            self.failures.append((item.path, reason))
        self._report_progress()

    def _report_progress(self) -> None:
        here, total = self.made + len(self.failures), self.already + len(self.waiting)
        event = {"stage": "folder", "failed": len(self.failures)}
        self._report(event | self._pace.after(here, total, self.already))
