"""`knowhue log`: runs shown where people look at their runs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from knowhue.apps.program import rare_option, say
from knowhue.errors import missing_extra


class TrackerName(StrEnum):
    """What `knowhue log` can write for."""

    tensorboard = "tensorboard"
    mlflow = "mlflow"
    wandb = "wandb"


def log_command(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of a study: all of its runs.")],
    to: Annotated[TrackerName, typer.Option(help="What to write for; each is an extra of that name.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write to; the tracker's own folder is made in it.")
    ] = Path("logs"),
    project: Annotated[
        str | None,
        rare_option(help="Project or experiment.", show_default="the study's name"),
    ] = None,
) -> None:
    """Write finished or running runs for TensorBoard, MLflow or W&B: settings, curves, scores; each run once."""
    from knowhue.locks import locked
    from knowhue.report.logged_runs import read_logged
    from knowhue.report.trackers import log_runs
    from knowhue.runs import require_no_run

    runs = read_logged(run)
    require_no_run(out)
    with locked(out, "log"):
        try:
            found = log_runs(to.value, runs, out, project)
        except ImportError as error:
            raise (missing_extra(error, f"log --to {to.value}", to.value) or error) from None
    say(
        *(f"{name}: written" for name in found.written), *(f"{name}: there already" for name in found.already)
    )
    say(f"To see them: {found.see}")
