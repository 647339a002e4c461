"""`knowhue`: one command a public verb. Heavy imports wait until a command needs them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knowhue.apps import models, serve, use
from knowhue.apps.exporting import export, log_command
from knowhue.apps.program import OneInput, OverwriteOption, app, command_line, say, with_options
from knowhue.apps.score import score
from knowhue.apps.verdict import verdict_command
from knowhue.errors import ConfigError, plural
from knowhue.statistics import MIN_SEEDS
from knowhue.storage import read_json

if TYPE_CHECKING:
    from knowhue.config import Config
    from knowhue.engines.executor import Executor
    from knowhue.plan import Plan

MOST_SEEDS, MOST_WORKERS = 10_000, 1024
"""More would be a typing error, and take all memory."""

settings_option = partial(typer.Option, rich_help_panel="Settings")
design_option = partial(typer.Option, rich_help_panel="Design of the study")
engine_option = partial(typer.Option, rich_help_panel="Where the work is done")
power_option = partial(typer.Option, rich_help_panel="Power: how much seeds and images vary")
"""What is needed less often has panels of its own in `--help`."""

OutOption = Annotated[Path, typer.Option(help="Study folder. The same command goes on where it stopped.")]
StudyArgument = Annotated[Path, typer.Argument(help="Study folder.")]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_WORKERS,
        help="Jobs side by side: 1, or as many as an engine has room for, unless given.",
    ),
]
EngineOption = Annotated[
    str, engine_option(help="`local` is this machine; `slurm` and `ray` are clusters (docs/scale.md).")
]
EngineSetOption = Annotated[
    list[str] | None,
    engine_option("--engine-set", help="Its settings, such as `slurm.partition=gpu`; may be repeated."),
]


def read_settings(
    images: Annotated[
        str | None,
        typer.Argument(
            help="Folder with `<class>/`, or `train/<class>/` and `val/<class>/`; `unlabelled/` trains colour only."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        settings_option(
            show_default="unet",
            help="Where the settings start from: `unet`, `poster`, `poster-imagenet`, `label-fraction`, `demo`, or "
            "another method such as `palette-rgb`.",
        ),
    ] = None,
    config: Annotated[
        list[Path] | None,
        settings_option(help="YAML file with settings; may be repeated."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        settings_option("--set", help="One setting, such as `training.heads.epochs=3`; may be repeated."),
    ] = None,
    start_from: Annotated[
        str | None,
        settings_option(
            help="A trained model to go on from, its encoder and the heads that fit: `built-in`, the folder of a run "
            "or a study, or an exported file. Its settings stand in for the defaults."
        ),
    ] = None,
) -> "Config":
    """The settings of a command line, and where its images are."""
    from knowhue.presets import DEFAULT_PRESET, edit, load_config

    given = config or [], set_ or []
    if start_from is None:
        settings = load_config(preset or DEFAULT_PRESET, *given)
    else:
        from knowhue.training import start

        settings = start.start_from(start_from, preset, *given)
    if images is None:
        return settings
    # a preset may draw its images; a folder that is named on the command line wins
    drawn = settings.images.source == "drawn"
    return edit(settings, {"images": {"path": images, **({"source": "folder"} if drawn else {})}})


@with_options(read_settings)
def read_settings_with_images(settings: Callable[[], "Config"]) -> "Config":
    """The same, of a command that needs images.

    Raises:
        ConfigError, ImageError: none are named, or they are not there.
    """
    from knowhue.data.sources import require_source

    config = settings()
    require_source(config.images)
    return config


@with_options(read_settings_with_images)
def read_plan_options(
    settings: "partial[Config]",
    arms: Annotated[
        str | None,
        design_option(
            help="Arms to compare, separated by commas; `colour,class,multi` unless the preset names others."
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_SEEDS, help=f"How many seeds, from `seed` on; a claim needs {MIN_SEEDS} or more."
        ),
    ] = None,
    grid: Annotated[
        str | None,
        design_option(help="Further class-task weights to try in multi-task arms, such as `1,100`."),
    ] = None,
    tuning: Annotated[
        bool,
        design_option(
            "--tuning", help="A study to choose settings by: scores the validation split, gives no verdict."
        ),
    ] = False,
    tuned_on: Annotated[
        Path | None,
        design_option(
            help="Folder of the tuning study that chose these settings; needs a test split and other seeds."
        ),
    ] = None,
) -> "Plan":
    """The plan of a study as a command line describes it."""
    from knowhue.apps.planning import grid_weights, require_set_effect
    from knowhue.plan import make_plan, read_tuning

    config = settings()
    tuning_seeds = [] if tuned_on is None else read_tuning(tuned_on)["seeds"]
    numbers = range(config.seed, config.seed + (seeds or 1))
    chosen = None if arms is None else arms.split(",")
    plan = make_plan(config, chosen, numbers, grid_weights(grid), tuning, tuning_seeds)
    require_set_effect(settings.keywords["set_"], [plan.arm_settings(each) for each in plan.arms])
    return plan


@app.command("study", epilog="Example: `knowhue study photos/ --seeds 10 --out runs/photos`")
@with_options(read_plan_options)
def study_command(
    options: "partial[Plan]",
    plan: Annotated[
        Path | None,
        design_option(
            help="Study file, as `knowhue plan` prints it, in place of all other options of images, settings and "
            "design."
        ),
    ] = None,
    workers: WorkersOption = None,
    engine: EngineOption = "local",
    engine_set: EngineSetOption = None,
    out: OutOption = Path("runs/study"),
) -> None:
    """Train the models with every seed, compare them, answer the two questions in a report."""
    given = options.keywords
    # before the imports that load torch: mistakes are reported at once
    from knowhue.engines.executor import open_engine

    wanted = options() if plan is None else _read_plan_file(plan, given)
    executor = open_engine(engine, out, workers, engine_set or [])
    from knowhue.presets import DEFAULT_PRESET

    description = {"name": out.resolve().name, "command": command_line()}
    if plan is None:
        description["preset"] = given["preset"] or DEFAULT_PRESET
    _run_study(wanted, out, executor, description, given["tuned_on"])


@app.command(
    "compare", epilog="Example: `knowhue compare photos/ --methods l1,gan,unet --seeds 3 --out runs/compare`"
)
@with_options(read_settings_with_images)
def compare_command(
    settings: "partial[Config]",
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
        design_option(help="The method that the others are compared with; `gan`, or the first without it."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=MOST_SEEDS, help="How many seeds, from `seed` on.")] = 3,
    budget: Annotated[
        float | None,
        design_option(
            min=0.001,
            max=1e9,
            help="Seconds of training at equal wall-clock; unless named, what the reference takes at equal images.",
        ),
    ] = None,
    workers: WorkersOption = None,
    engine: EngineOption = "local",
    engine_set: EngineSetOption = None,
    out: OutOption = Path("runs/compare"),
) -> None:
    """Train ways to colour for equal epochs, then for equal seconds, and compare quality and cost."""
    config = settings()
    from knowhue.apps.planning import require_set_effect
    from knowhue.engines.executor import open_engine
    from knowhue.plan import make_comparison
    from knowhue.presets import METHODS

    chosen = methods.split(",") if methods is not None else tuple(METHODS)
    plan = make_comparison(config, chosen, reference, range(config.seed, config.seed + seeds), budget)
    require_set_effect(settings.keywords["set_"], [plan.arm_settings(each) for each in plan.arms])
    executor = open_engine(engine, out, workers, engine_set or [])
    _run_study(plan, out, executor, {"name": out.resolve().name, "command": command_line()})


def _run_study(
    plan: "Plan", out: Path, executor: "Executor", description: dict[str, Any], tuned_on: Path | None = None
) -> None:
    """Run it, and say what it answers."""
    from knowhue.apps.progress import showing_progress
    from knowhue.locks import is_first_process
    from knowhue.report.page import summary
    from knowhue.study import run_study

    with showing_progress() as report:
        page = run_study(plan, out, executor, description, report, tuned_on)
    if is_first_process():
        say(*summary(out), "", f"Report: {page}")


@app.command("plan", epilog="Example: `knowhue plan photos/ --seeds 20 > study.yaml`")
@with_options(read_plan_options)
def plan_command(
    options: Callable[[], "Plan"],
    variances: Annotated[
        Path | None,
        power_option(
            help="Earlier study, or a sealed one, whose variation over seeds and images is taken as that of this one."
        ),
    ] = None,
    seed_sd: Annotated[
        str | None,
        power_option(help="Or numbers: sd of paired differences over seeds, such as `colour=.08,class=.01`."),
    ] = None,
    image_sd: Annotated[
        str | None,
        power_option(help="And over images, such as `colour=1.45,class=.2`."),
    ] = None,
    test_images: Annotated[
        int | None,
        power_option(
            "--images", min=20, help="Images that are reported on; those of --variances if not given."
        ),
    ] = None,
) -> None:
    """Print a study file to edit and run with `knowhue study --plan`, and what effects it can detect."""
    from knowhue.apps.planning import commented_yaml, known_variances, power_lines

    wanted = options()
    known, count = known_variances(variances, seed_sd, image_sd, test_images)
    say(*power_lines(wanted, known, count, None if test_images else variances), *commented_yaml(wanted))


@app.command("status", epilog="Example: `knowhue status runs/photos`")
def status_command(study: StudyArgument) -> None:
    """Show how far every run of a study, or of a comparison, is, and who works on it; needs no torch."""
    from knowhue.apps.progress import cell_lines
    from knowhue.locks import read_signs
    from knowhue.plan import read_cells, read_plan
    from knowhue.runs import read_frozen

    plan, digest = read_plan(study), read_frozen(study)["hash"]
    say(f"plan {digest[:12]}, {plural(len(plan.arms), 'arm')} x {plural(len(plan.seeds), 'seed')}")
    say(*cell_lines(read_cells(study, plan)), *(sign.sentence() for sign in read_signs(study)))


@app.command(
    "prepare", epilog="Example: `knowhue prepare photos/ --out runs/photos --set images.size_px=128`"
)
@with_options(read_settings_with_images)
def prepare_command(
    settings: Callable[[], "Config"],
    workers: WorkersOption = None,
    engine: EngineOption = "local",
    engine_set: EngineSetOption = None,
    out: OutOption = Path("runs/study"),
) -> None:
    """Check, split and resize the images; `images/manifest.csv` lists which were left out, and why."""
    config = settings()
    from knowhue.apps.progress import showing_progress
    from knowhue.data.prepare import prepare as run
    from knowhue.engines.executor import await_jobs, open_engine, share_out
    from knowhue.locks import locked
    from knowhue.setting_effects import changed, require_effect

    require_effect((name for name in changed(config) if name.startswith("images.")), [config])
    executor = open_engine(engine, out, workers, engine_set or [])
    with showing_progress() as report, locked(out, "prepare", engine=executor.name) as left:
        await_jobs(executor, left, out, report)
        run(config.images, out / "images", report, share_out=share_out(executor, "prepare"))
    summary = read_json(out / "images" / "prepared.json")
    for split, counts in summary["counts"].items():
        if any(counts.values()):
            say(f"{split}: " + ", ".join(f"{name} {count}" for name, count in counts.items() if count))
    say(f"Prepared: {out / 'images'}")


@app.command("train", epilog="Example: `knowhue train photos/ --arm multi --out runs/photos`")
@with_options(read_settings_with_images)
def train_command(
    settings: "partial[Config]",
    arm: Annotated[
        str, typer.Option(help="`class`, `colour`, `multi`, or another arm of a study.")
    ] = "multi",
    out: OutOption = Path("runs/study"),
) -> None:
    """Train one arm with one seed (`--set seed=1`)."""
    from knowhue.apps.planning import require_set_effect
    from knowhue.presets import arm_config

    config = settings()
    own = arm_config(config, arm)
    require_set_effect(settings.keywords["set_"], [own])
    _require_planned(out, arm, config, own)
    from knowhue.apps.progress import showing_progress
    from knowhue.locks import is_first_process
    from knowhue.training.run import train as run

    with showing_progress() as report:
        folder = run(config, out, arm, report)
    if is_first_process():
        _print_scores(folder)


def _require_planned(out: Path, arm: str, config: "Config", own: "Config") -> None:
    """Make sure that a run which joins a study is one of it: whoever names the study would get a stray one."""
    from knowhue.plan import read_plan
    from knowhue.presets import edit
    from knowhue.runs import trained_by
    from knowhue.setting_effects import changed, require_effect

    if not (out / "study.json").exists():
        require_effect(changed(config), [config, own])
        return
    plan = read_plan(out)
    wanted = edit(own, {"training": {"precision": plan.config.training.precision}})
    if arm not in plan.arms or trained_by(wanted) != trained_by(plan.run_config(arm, config.seed)):
        raise ConfigError(
            f"`--out {out}` holds a study, and `{arm}` with these settings is not of it. Name another folder, or "
            "give the study's own settings."
        )


@app.command("evaluate", epilog="Example: `knowhue evaluate runs/demo/multi/seed-0-1a2b3c4d`")
def evaluate_command(run: Annotated[Path, typer.Argument(help="Run folder of a trained arm.")]) -> None:
    """Score a trained run again, on the split that its study reports on."""
    from knowhue.training.run import evaluate_run

    evaluate_run(run)
    _print_scores(run)


@app.command("report", epilog="Example: `knowhue report runs/demo --figures talk/`")
def report_command(
    study: StudyArgument,
    figures: Annotated[Path | None, typer.Option(help="Write the figures here too, as PNG files.")] = None,
    paper: Annotated[
        Path | None,
        typer.Option(
            help="Write a paper kit here: figures as PDF and SVG, LaTeX tables, methods, references."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace figures that exist.")] = False,
) -> None:
    """Make the report of a study, or of a comparison, again from the run folders; needs no torch."""
    from knowhue.report.figures import write_figures
    from knowhue.report.page import write_report

    # what may be refused first; the report itself is always made anew
    if paper:
        from knowhue.report.paper import write_paper

        files = write_paper(study, paper, overwrite)
        say(f"Paper: {files[0]}, {len(files)} files")
    for path in write_figures(study, figures, overwrite) if figures else ():
        say(f"Figure: {path}")
    say(f"Report: {write_report(study)}")


@app.command("pack", epilog="Example: `knowhue pack runs/photos -o photos.zip`")
def pack_command(
    study: StudyArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write, `.zip`; named as the study if not given."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Seal a finished study: plan, results, scores of every image and report in one file, without images or weights."""
    from knowhue.runs import read_frozen
    from knowhue.sealing import pack
    from knowhue.storage import file_digest, require_outputs

    out = out or Path(f"{study.resolve().name}.zip")
    read_frozen(study)  # whether it is a study comes before what is in the way
    require_outputs({"--out": out}, overwrite=overwrite)
    files = pack(study, out)
    say(f"Sealed: {out}, {files} files, SHA-256 {file_digest(out)}")


@app.command("check", epilog="Example: `knowhue check photos.zip`")
def check_command(sealed: Annotated[Path, typer.Argument(help="What `knowhue pack` made.")]) -> None:
    """Compute the scores and results of a sealed study again, and print its answers; ends with 1 if any differs."""
    from knowhue.sealing import check, shown_problems

    files, numbers, problems, unchecked, summary = check(sealed)
    say(*shown_problems(problems), *(f"not computed again: {each}" for each in unchecked), err=True)
    found = plural(len(problems), "problem") if problems else "all as sealed"
    say(f"{files} files, {numbers} numbers computed again: {found}", *summary)
    if problems:
        raise typer.Exit(1)


@app.command("config", epilog="Example: `knowhue config --preset demo --set training.batch_size=64`")
@with_options(read_settings)
def config_command(settings: Callable[[], "Config"]) -> None:
    """Print every setting with its value, meaning and unit, as YAML that --config reads."""
    from knowhue.apps.planning import commented_yaml

    say(*commented_yaml(settings()))


app.command(cls=OneInput, epilog="Example: `knowhue colorize photo.jpg -o colour.jpg`")(use.colorize)
app.command(epilog="Example: `knowhue models runs/photos`")(models.models)
app.command(epilog="Example: `knowhue export runs/photos --to onnx -o photos.onnx`")(export)
app.command("verdict", epilog="Example: `knowhue verdict runs.csv --against baseline --sesoi accuracy=0.01`")(
    verdict_command
)
app.command(epilog="Example: `knowhue score ours/ theirs/ --truth photos/ -o score.html`")(score)
app.command("log", epilog="Example: `knowhue log runs/photos --to tensorboard`")(log_command)
app.command("serve", epilog="Example: `knowhue serve --model photos=runs/photos`")(serve.serve_command)


def _read_plan_file(path: Path, others: dict[str, Any]) -> "Plan":
    from knowhue.data.sources import require_source
    from knowhue.plan import Plan, with_effect
    from knowhue.presets import checked
    from knowhue.settings_text import read_yaml

    # a plan holds the seeds of its tuning study, not the folder, which --tuned-on must name
    if any(value not in (None, [], False) for name, value in others.items() if name != "tuned_on"):
        raise ConfigError(
            f"`--plan {path}` is the whole study: images, settings, arms and seeds. Change them there, and "
            "give no IMAGES, --preset, --config, --set, --start-from, --arms, --seeds, --grid or --tuning, or leave "
            "--plan out."
        )
    plan = with_effect(checked(Plan, read_yaml(path, "--plan")))
    require_source(plan.config.images)
    return plan


def _print_scores(folder: Path) -> None:
    from knowhue.apps.program import score_lines

    say(*score_lines(read_json(folder / "scores.json")["metrics"]), f"Run: {folder}")
