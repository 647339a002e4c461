"""What the commands that train ask on the command line, and the settings that come of it."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from knowhue.config import Config

ImagesArgument = Annotated[
    str | None,
    typer.Argument(
        help="Folder with `<class>/`, or `train/<class>/` and `val/<class>/`; `unlabelled/` trains colour only."
    ),
]
PresetOption = Annotated[
    str,
    typer.Option(
        help="Where the settings start from: `poster`, `poster-imagenet`, `label-fraction`, `demo`, "
        "or a way to colour such as `palette-rgb`."
    ),
]
ConfigOption = Annotated[
    list[Path] | None, typer.Option("--config", help="YAML file with settings; may be repeated.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting, such as `training.heads.epochs=3`; may be repeated."),
]
OutOption = Annotated[Path, typer.Option(help="Study folder. The same command goes on where it stopped.")]

MOST_SEEDS, MOST_WORKERS = 10_000, 1024
"""More are a slip of the finger, and would take all memory."""


def read_settings(
    images: str | None, preset: str, files: list[Path] | None, settings: list[str] | None
) -> "Config":
    """The settings that a command line asks for, and where its images are."""
    from knowhue.presets import edit, load_config

    loaded = load_config(preset, files or [], settings or [])
    if images is None:
        return loaded
    source = "folder" if loaded.images.source == "drawn" else loaded.images.source
    return edit(loaded, {"images": {"path": images, "source": source}})


def read_settings_with_images(
    images: str | None, preset: str, files: list[Path] | None, settings: list[str] | None
) -> "Config":
    """The same, of a command that needs images.

    Raises:
        ConfigError: none are named, or they are not there.
    """
    from knowhue.data.sources import require_source

    loaded = read_settings(images, preset, files, settings)
    require_source(loaded.images)
    return loaded


def is_main() -> bool:
    """Whether this process, of those that `torch.distributed.run` started, is the one that speaks."""
    from knowhue.runs import is_first_process

    return is_first_process()


def command_line() -> str:
    """This command, as a reader would type it again."""
    name = os.path.basename(sys.argv[0])
    began = ["python", "-m", "knowhue"] if name == "__main__.py" else [name]
    return shlex.join([*began, *sys.argv[1:]])
