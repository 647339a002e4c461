"""A folder of images coloured into another: many at a time, resumable, nothing lost and nothing done twice."""

import shutil
import time
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from knowhue.config import fingerprint
from knowhue.errors import ConfigError, RunError
from knowhue.images.files import SUFFIXES
from knowhue.images.writing import OUTPUT_SUFFIXES
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.folders.ledger import LEDGER, Ledger, Stamp
from knowhue.inference.folders.listing import Item, list_folder
from knowhue.inference.folders.pipeline import Limits, Stages, flow
from knowhue.inference.folders.stages import ALONE, ImageStages
from knowhue.inference.folders.tally import Progress, Summary
from knowhue.inference.judgement import caveats_of_many, is_novel
from knowhue.inference.naming import writable_suffix
from knowhue.runs import Report, locked

STAGING = ".colorizing"
"""Folder in the output folder where images are written before they are put in their place."""


def colorize_folder(
    colorizer: Colorizer,
    source: Path,
    out: Path,
    *,
    options: ColorizeOptions = ColorizeOptions(),  # noqa: B008
    suffix: str | None = None,
    overwrite: bool = False,
    on_error: Literal["skip", "stop"] = "skip",
    limits: Limits = Limits(),  # noqa: B008
    report: Report = lambda _: None,
) -> Summary:
    """Colour all images of a folder and the folders in it; the same call goes on after a kill.

    `out/colorized.jsonl` gets one line of JSON an image when that is in its place: `path`, `output`, `width`,
    `height`, what is said of the image (see `Judgement`), `seconds` of work, `model`. A failed one gets `path` and
    `error`. An image is done again when its file has changed since, or its output is gone.

    Args:
        colorizer: a model with a colour head.
        source: folder of images.
        out: folder of colourings, with the names of the originals.
        options: for every image; without hints.
        suffix: that all outputs get, such as `.png`; None keeps the formats.
        overwrite: whether files that this job did not make may be replaced.
        on_error: whether to go on after an image that fails, or to begin no other.
        limits: threads and memory.
        report: told `done` (with those of earlier runs and the failed), `total`, `failed`, `per_second` and
            `seconds_left` after every image.

    Raises:
        ImageError: no folder, or no image in it.
        ConfigError: names that clash, hints, or a model without a colour head.
        RunError: `out` holds other files or another job's colours, another process writes to it, or it cannot be
            written (any more).
    """
    started = time.monotonic()
    colorizer.require("colour")
    _check(options, suffix, on_error)
    items, own, unreadable, left_out = list_folder(
        source, out, SUFFIXES, lambda given: suffix or writable_suffix(given)
    )
    with locked(out, "colorize"), Ledger(out, _job(colorizer, source, options, suffix), overwrite) as ledger:
        waiting = [item for item in items if not ledger.has(item.path, item.output, Stamp.of(item.source))]
        _refuse_strangers(waiting, ledger)
        progress = Progress(ledger, len(items), len(items) - len(waiting), on_error == "stop", report)
        staging = out / STAGING
        stages = ImageStages(colorizer, options, staging).as_stages()
        with ALONE.get(colorizer.network.runtime, nullcontext)():
            _work_through(waiting, stages, limits, progress, staging)
        there = (ledger.records[item.path]["novelty"] for item in set(items) - set(waiting))
        novel = progress.novel + sum(map(is_novel, there))
    described, done = colorizer.network.description, progress.made + progress.already
    return Summary(
        source,
        out,
        progress.made,
        progress.already,
        (*unreadable, *progress.failures),
        len(waiting) - progress.made - len(progress.failures),
        novel,
        (
            *(f"{caveat}; see {LEDGER}" for caveat in caveats_of_many(described, novel, done, "images")),
            *_left_alone(own),
            *[left_out] * bool(left_out),
        ),
        time.monotonic() - started,
        described.name,
    )


def _work_through(
    items: list[Item], stages: Stages, limits: Limits, progress: Progress, staging: Path
) -> None:
    """Do all, or all up to the first failure and what has begun by then; a full disk ends it at once."""
    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
    progress.tell()
    outcomes = flow(takewhile(lambda _: progress.goes_on, items), stages, limits)
    try:
        for outcome in outcomes:
            if isinstance(outcome.error, RunError):
                raise outcome.error
            progress.note(outcome)
    finally:
        outcomes.close()
        shutil.rmtree(staging, ignore_errors=True)


def _check(options: ColorizeOptions, suffix: str | None, on_error: str) -> None:
    if options.hints:
        raise ConfigError(
            "`options.hints` should be empty for a folder: they are points of one image. Found "
            f"{len(options.hints)}. Colour that image alone."
        )
    if suffix is not None and suffix not in OUTPUT_SUFFIXES:
        raise ConfigError(f"`suffix` should be one of {', '.join(OUTPUT_SUFFIXES)}. Found `{suffix}`.")
    if on_error not in ("skip", "stop"):
        raise ConfigError(f"`on_error` should be `skip` or `stop`. Found `{on_error}`.")


def _job(colorizer: Colorizer, source: Path, options: ColorizeOptions, suffix: str | None) -> dict[str, Any]:
    """What makes colours comparable; the description holds fitted numbers, and so tells two trainings apart."""
    described = colorizer.network.description.model_dump(mode="json", exclude={"name", "licence"})
    return {
        "source": str(source.resolve()),
        "model": fingerprint(described),
        "suffix": suffix,
        "saturation": options.saturation,
        "uncertainty": options.uncertainty,
        "unknown_below": options.unknown_below,
    }


def _left_alone(own: list[str]) -> list[str]:
    if not own:
        return []
    what = "1 image was" if len(own) == 1 else f"{len(own)} images were"
    return [
        f"{what} left alone, made by knowhue from images beside them: {', '.join(own[:3])}{', ...' * (len(own) > 3)}"
    ]


def _refuse_strangers(items: list[Item], ledger: Ledger) -> None:
    strangers = [item.output for item in items if ledger.in_the_way(item.path, item.output)]
    if strangers:
        raise RunError(
            f"`{ledger.out}` should have room for what is made. Found {len(strangers)} other files in the way, such as "
            f"`{strangers[0]}`. Name another folder, or have them replaced with --overwrite."
        )
