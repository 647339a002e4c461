"""`knowhue compare`: is the GAN worth it? Ways to colour at equal images and at equal wall-clock."""

from pathlib import Path
from typing import Annotated

import typer

from knowhue.apps.options import (
    MOST_SEEDS,
    MOST_WORKERS,
    ConfigOption,
    ImagesArgument,
    OutOption,
    PresetOption,
    SetOption,
    command_line,
    is_main,
    read_settings_with_images,
)
from knowhue.apps.terminal import say


def compare(
    images: ImagesArgument = None,
    preset: PresetOption = "poster",
    config: ConfigOption = None,
    set_: SetOption = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Ways to colour, separated by commas: `l1`, `l2`, `classification`, `gan`, `unet`, `pix2pix`, "
            "`palette-rgb`, `palette-ab` (all of these unless named), or in their papers' sizes `pix2pix-paper`, "
            "`palette-rgb-paper`, `palette-ab-paper`."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="The method that the others are compared with; `gan`, or the first without it."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=MOST_SEEDS, help="How many seeds, from `seed` on.")] = 3,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1e9,
            help="Seconds of training at equal wall-clock; unless named, what the reference takes at equal images.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            max=MOST_WORKERS,
            help="Runs side by side on this machine; seconds are then of a shared one.",
        ),
    ] = 1,
    out: OutOption = Path("runs/compare"),
) -> None:
    """Train ways to colour for equal epochs, then for equal seconds, and compare quality and cost."""
    from knowhue.apps.progress import showing_progress
    from knowhue.comparison.asked import make_comparison
    from knowhue.comparison.run import compare as run
    from knowhue.presets import METHODS
    from knowhue.report.comparing.reading import read_comparison
    from knowhue.report.comparing.table import markdown_tables

    settings = read_settings_with_images(images, preset, config, set_)
    chosen = methods.split(",") if methods is not None else tuple(METHODS)
    numbers = range(settings.seed, settings.seed + seeds)
    asked = make_comparison(settings, chosen, reference, numbers, budget)
    with showing_progress() as report:
        page = run(asked, out, workers, {"command": command_line()}, report)
    if is_main():
        say("", *markdown_tables(read_comparison(out)).split("\n"), f"Report: {page}")
