"""`knowhue colorize` with `--shards`, or from or to an object store: an archive, on any engine."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knowhue.apps.models import ModelChoice, announce, deploy_once
from knowhue.config import digest
from knowhue.errors import ConfigError

if TYPE_CHECKING:
    from knowhue.inference.colorizer import ColorizeOptions
    from knowhue.inference.summary import Summary

_archive_option = partial(typer.Option, rich_help_panel="Archives: many images, an object store, a cluster")
ShardsOption = Annotated[
    int | None,
    _archive_option(
        min=1, help="Jobs that the images of a folder or an object store are dealt out to (docs/scale.md)."
    ),
]
SideBySideOption = Annotated[int | None, _archive_option(min=1, max=1024, help="Jobs side by side.")]
ArchiveEngineOption = Annotated[str, _archive_option(help="Where they run: `local`, `slurm` or `ray`.")]
ArchiveEngineSetOption = Annotated[
    list[str] | None,
    _archive_option("--engine-set", help="Its settings, such as `slurm.partition=gpu`; may be repeated."),
]


def is_archive(source: str, out: str | None, shards: int | None) -> bool:
    """Whether an input is coloured as an archive."""
    from knowhue.inference.store import is_url

    return shards is not None or is_url(source) or is_url(out or "")


def colorize_shards(
    source: str,
    out: str | None,
    choice: ModelChoice,
    options: "ColorizeOptions",
    *,
    shards: int | None,
    workers: int | None,
    engine: str,
    engine_set: Sequence[str],
    **how: Any,
) -> "Summary":
    """Colour an archive on an engine, see `colorize_archive` for how."""
    from knowhue.apps.progress import showing_progress
    from knowhue.archive import colorize_archive
    from knowhue.engines.choice import open_engine
    from knowhue.inference.listing import default_folder
    from knowhue.inference.store import STATE, is_url

    if not is_url(source) and not Path(source).is_dir():
        raise ConfigError(
            f"`--shards` and an object store go with a folder. Found `{source}`, which is none."
        )
    if out is None and is_url(source):
        raise ConfigError(
            f"Where the colours of {source} go should be said: --out s3://bucket/colours, or a folder."
        )
    target = out if out is not None else str(default_folder(Path(source)))
    # what an engine writes down for its jobs needs a folder that all machines see
    root = Path(STATE) / digest(target)[:12] if is_url(target) else Path(target) / STATE
    executor = open_engine(engine, root, workers, engine_set)
    announce([choice])
    deploy_once(choice, "colour")
    given: dict[str, Any] = {"options": options, "shards": shards, "executor": executor, **how}
    with showing_progress() as report:
        return colorize_archive(source, target, model=choice, report=report, **given)
