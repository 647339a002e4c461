"""`knowhue`: one subcommand a public verb. Heavy imports wait until a command needs them."""

import math
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from knowhue import __version__
from knowhue.apps import use
from knowhue.apps.compare import compare
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
    read_settings,
    read_settings_with_images,
)
from knowhue.apps.serve import serve
from knowhue.apps.terminal import say, settle_streams
from knowhue.errors import KnowhueError
from knowhue.statistics import MIN_SEEDS

INTERRUPTED = 130


def _print_version(asked: bool) -> None:
    if asked:
        say(f"knowhue {__version__}")
        raise typer.Exit


app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Does a model colour better when it knows what it is looking at?\n\n"
    "Train a colorizer and a classifier on one shared encoder, alone and together: do they help each other?",
    epilog="Start with: `knowhue study --preset demo --out runs/demo`",
)


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


PlanOption = Annotated[
    Path | None, typer.Option("--plan", help="Study file, as `knowhue plan` prints it; it says everything.")
]
ArmsOption = Annotated[
    str | None,
    typer.Option(help="Arms to compare, separated by commas; `colour,class,multi` unless the preset says."),
]
SeedsOption = Annotated[
    int | None,
    typer.Option(
        min=1, max=MOST_SEEDS, help=f"How many seeds, from `seed` on; a claim needs {MIN_SEEDS} or more."
    ),
]
GridOption = Annotated[
    str | None, typer.Option(help="Further class-task weights to try in multi-task arms, such as `1,100`.")
]


TuningOption = Annotated[
    bool,
    typer.Option(
        "--tuning", help="Settings will be chosen by it: scores the validation split, gives no verdict."
    ),
]
TunedOnOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the tuning study that chose these settings; asks for a test split and other seeds."
    ),
]


@app.command(epilog="Example: `knowhue study photos/ --preset poster --seeds 10 --out runs/photos`")
def study(
    ctx: typer.Context,
    images: ImagesArgument = None,
    preset: PresetOption = "poster",
    config: ConfigOption = None,
    set_: SetOption = None,
    plan: PlanOption = None,
    arms: ArmsOption = None,
    seeds: SeedsOption = None,
    grid: GridOption = None,
    tuning: TuningOption = False,
    tuned_on: TunedOnOption = None,
    workers: Annotated[
        int, typer.Option(min=1, max=MOST_WORKERS, help="Cells that run side by side on this machine.")
    ] = 1,
    out: OutOption = Path("runs/study"),
) -> None:
    """Train the models with every seed, compare them, answer the two questions in a report."""
    if plan is None:
        asked = _plan(images, preset, config, set_, arms, seeds, grid, tuning, tuned_on)
        description = {"preset": preset}
    else:
        asked = _plan_file(plan, images, _given(ctx, "preset"), config, set_, arms, seeds, grid, tuning)
        description = {}
    from knowhue.apps.progress import showing_progress
    from knowhue.report.answers import WORDINGS
    from knowhue.storage import read_json
    from knowhue.study import run_study

    description |= {"name": out.resolve().name, "command": command_line()}
    with showing_progress() as report:
        page = run_study(asked, out, workers, description, report, tuned_on)
    if not is_main():
        return
    for question, sentence in read_json(out / "results.json")["answers"].items():
        say("", WORDINGS[question].question, f"  {sentence}")
    say("", f"Report: {page}")


app.command(epilog="Example: `knowhue compare photos/ --methods l1,gan,unet --seeds 3 --out runs/compare`")(
    compare
)


@app.command(epilog="Example: `knowhue plan photos/ --seeds 20 > study.yaml`")
def plan(
    images: ImagesArgument = None,
    preset: PresetOption = "poster",
    config: ConfigOption = None,
    set_: SetOption = None,
    arms: ArmsOption = None,
    seeds: SeedsOption = None,
    grid: GridOption = None,
    tuning: TuningOption = False,
    tuned_on: TunedOnOption = None,
    variances: Annotated[
        Path | None,
        typer.Option(help="An earlier study: how much its seeds and images vary says what this one finds."),
    ] = None,
    seed_sd: Annotated[
        str | None,
        typer.Option(help="Or stated: sd of paired differences over seeds, `colour=.08,class=.01`."),
    ] = None,
    image_sd: Annotated[str | None, typer.Option(help="And over images, `colour=1.45,class=.2`.")] = None,
    test_images: Annotated[
        int | None,
        typer.Option(
            "--images", min=20, help="Images that are reported on; those of --variances if not given."
        ),
    ] = None,
) -> None:
    """Print a study file, filled in, with what it can find, to be changed and given to `knowhue study --plan`."""
    from knowhue.apps.planning import known_variances, power_lines
    from knowhue.apps.settings import explain

    asked = _plan(images, preset, config, set_, arms, seeds, grid, tuning, tuned_on)
    known, count = known_variances(variances, seed_sd, image_sd, test_images)
    say(*power_lines(asked, known, count), *explain(asked).split("\n"))


@app.command(epilog="Example: `knowhue status runs/photos`")
def status(study: Annotated[Path, typer.Argument(help="Study folder.")]) -> None:
    """Show how far every cell of a study, or of a comparison, is; needs no torch."""
    from knowhue.apps.cells import cell_lines
    from knowhue.plan import read_cells

    for title, asked in _plans(study).items():
        say(f"{title}, {_counted(len(asked.arms), 'arm')} x {_counted(len(asked.seeds), 'seed')}")
        say(*cell_lines(read_cells(study, asked)))


@app.command(epilog="Example: `knowhue prepare photos/ --out runs/photos --set images.size_px=128`")
def prepare(
    images: ImagesArgument = None,
    preset: PresetOption = "poster",
    config: ConfigOption = None,
    set_: SetOption = None,
    out: OutOption = Path("runs/study"),
) -> None:
    """Check, split and resize the images; `images/manifest.csv` says of each what became of it."""
    settings = read_settings_with_images(images, preset, config, set_)
    from knowhue.apps.progress import showing_progress
    from knowhue.data.prepare import prepare as run
    from knowhue.runs import locked
    from knowhue.storage import read_json

    with locked(out, "prepare"), showing_progress() as report:
        run(settings.images, out / "images", report)
    summary = read_json(out / "images" / "prepared.json")
    for split, counts in summary["counts"].items():
        if any(counts.values()):
            say(f"{split}: " + ", ".join(f"{name} {count}" for name, count in counts.items() if count))
    say(f"Prepared: {out / 'images'}")


@app.command(epilog="Example: `knowhue train photos/ --arm multi --out runs/photos`")
def train(
    images: ImagesArgument = None,
    arm: Annotated[str, typer.Option(help="`class`, `colour` or `multi`.")] = "multi",
    preset: PresetOption = "poster",
    config: ConfigOption = None,
    set_: SetOption = None,
    out: OutOption = Path("runs/study"),
) -> None:
    """Train one arm with one seed (`--set seed=1`)."""
    settings = read_settings_with_images(images, preset, config, set_)
    from knowhue.apps.progress import showing_progress
    from knowhue.training.train import train as run

    with showing_progress() as report:
        folder = run(settings, out, arm, report)
    if is_main():
        _print_scores(folder)


@app.command(epilog="Example: `knowhue evaluate runs/demo/multi/seed-0-1a2b3c4d`")
def evaluate(run: Annotated[Path, typer.Argument(help="Run folder of a trained arm.")]) -> None:
    """Score a trained run on its study's validation images again."""
    from knowhue.training.train import evaluate_run

    evaluate_run(run)
    _print_scores(run)


@app.command(epilog="Example: `knowhue report runs/demo --figures talk/`")
def report(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    figures: Annotated[Path | None, typer.Option(help="Write the figures here too, as PNG files.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace figures that exist.")] = False,
) -> None:
    """Make the report of a study, or of a comparison, again from the run folders; needs no torch."""
    from knowhue.report.comparing import page as comparing
    from knowhue.report.images import write_comparison_figures, write_figures
    from knowhue.report.page import write_report

    compared = _is_comparison(study)
    say(f"Report: {(comparing.write_comparison_report if compared else write_report)(study)}")
    draw = write_comparison_figures if compared else write_figures
    for path in draw(study, figures, overwrite) if figures else ():
        say(f"Figure: {path}")


@app.command(epilog="Example: `knowhue config --preset demo --set training.batch_size=64`")
def config(preset: PresetOption = "poster", config: ConfigOption = None, set_: SetOption = None) -> None:
    """Print every setting with its value, meaning and unit, as YAML that --config reads."""
    from knowhue.apps.settings import explain

    say(*explain(read_settings(None, preset, config, set_)).split("\n"))


app.command(epilog="Example: `knowhue colorize photo.jpg -o colour.jpg`")(use.colorize)
app.command(epilog="Example: `knowhue models runs/photos`")(use.models)
app.command(epilog="Example: `knowhue export runs/photos --to onnx -o photos.onnx`")(use.export)

app.command(epilog="Example: `knowhue serve --model photos=runs/photos`")(serve)


def main() -> NoReturn:
    """Run the command line; what a user can mend is one line and exit code 2."""
    settle_streams()
    try:
        app(standalone_mode=True)
    except KnowhueError as error:
        say(f"knowhue: {error.args[0]}", *map(str, error.args[1:]), err=True)
        sys.exit(2)
    except SystemExit as end:  # typer turns Ctrl-C into this one
        if end.code == INTERRUPTED:
            say("", "knowhue: stopped. The same command goes on where it stopped.", err=True)
        raise
    except OSError as error:
        where = "standard output" if error.filename is None else error.filename
        say(f"knowhue: {where}: {(error.strerror or str(error)).lower()}", err=True)
        sys.exit(2)
    sys.exit(0)


def _plan(
    images: str | None,
    preset: str,
    files: list[Path] | None,
    settings: list[str] | None,
    arms: str | None,
    seeds: int | None,
    grid: str | None,
    tuning: bool = False,
    tuned_on: Path | None = None,
):
    from knowhue.plan import make_plan

    config = read_settings_with_images(images, preset, files, settings)
    chosen = None if arms is None else arms.split(",")
    numbers = range(config.seed, config.seed + (seeds or 1))
    return make_plan(config, chosen, numbers, _weights(grid), tuning, _tuning_seeds(tuned_on))


def _tuning_seeds(folder: Path | None) -> list[int]:
    from knowhue.plan import read_tuning

    return [] if folder is None else read_tuning(folder)["seeds"]


def _plan_file(path: Path, images: str | None, *others: object):
    from knowhue.data.sources import require_source
    from knowhue.errors import ConfigError
    from knowhue.plan import Plan
    from knowhue.presets import checked
    from knowhue.yaml_text import read_yaml

    if images is not None or any(others):
        raise ConfigError(
            f"`--plan {path}` says all that a study asks: images, settings, arms and seeds. Change them there, and "
            "give no IMAGES, --preset, --config, --set, --arms, --seeds or --grid, or leave --plan out."
        )
    asked = checked(Plan, read_yaml(path, "--plan"))
    require_source(asked.config.images)
    return asked


def _is_comparison(folder: Path) -> bool:
    return (folder / "comparison.json").exists()


def _plans(folder: Path):
    from knowhue.comparison.asked import read_frozen, read_plans
    from knowhue.plan import read_plan
    from knowhue.runs import read_description

    if _is_comparison(folder):
        return read_plans(read_frozen(folder))
    return {f"plan {read_description(folder)['hash'][:12]}": read_plan(folder)}


def _weights(grid: str | None) -> list[float]:
    from knowhue.errors import ConfigError, shown

    try:
        weights = [] if grid is None else [float(weight) for weight in grid.split(",")]
    except ValueError:
        weights = [0.0]
    if any(not 0 < weight < math.inf for weight in weights) or len(set(weights)) < len(weights):
        raise ConfigError(
            f"`--grid` should be different numbers above 0, such as `1,100`. Found `--grid {shown(grid)}`."
        )
    return weights


def _print_scores(folder: Path) -> None:
    from knowhue.apps.scores import score_lines
    from knowhue.storage import read_json

    say(*score_lines(read_json(folder / "scores.json")["metrics"]), f"Run: {folder}")


def _given(ctx: typer.Context, option: str) -> str | None:
    """What was given for an option, None where its default stands."""
    source = ctx.get_parameter_source(option)
    return ctx.params[option] if source is not None and source.name != "DEFAULT" else None


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
