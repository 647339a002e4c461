"""The commands of `knowhue`. Each imports what is slow to import, such as torch, only when it runs."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import Field
from typer.core import TyperCommand

from knowhue.apps import models, serve, use
from knowhue.apps.exporting import export, log_command
from knowhue.apps.program import (
    JobOptions,
    OneInput,
    Options,
    app,
    command_line,
    require_folder,
    say,
    score_line,
    with_options,
)
from knowhue.apps.progress import cell_lines, showing_progress
from knowhue.apps.score import score
from knowhue.apps.verdict import verdict_command
from knowhue.config import Config
from knowhue.engines.executor import await_leftover_jobs, share_out
from knowhue.errors import ConfigError, few, plural
from knowhue.locks import is_first_process, locked, read_holders
from knowhue.plan import RESERVED, Plan, make_comparison, make_plan, read_cells, read_plan, read_tuning
from knowhue.presets import DEFAULT_PRESET, METHODS, arm_config, edit, load_config, read_setting
from knowhue.runs import FROZEN, read_frozen, require_no_run, training_settings
from knowhue.setting_effects import changed, differing, require_effect
from knowhue.statistics import MIN_SEEDS
from knowhue.storage import file_digest, read_json, real_path, require_outputs

MOST_SEEDS = 10_000  # larger numbers are typing errors, and would take all memory

_Value = TypeVar("_Value")
_Function = TypeVar("_Function", bound=Callable[..., Any])
setting_option = partial(typer.Option, rich_help_panel="Settings")
SettingOption = Annotated[_Value, setting_option()]
design_option = partial(typer.Option, rich_help_panel="Design of the study")
DesignOption = Annotated[_Value, design_option()]
power_option = partial(typer.Option, rich_help_panel="Power: how much seeds and images vary")
"""Options that are needed less often have their own panels in `--help`."""


def command(example: str, cls: type[TyperCommand] | None = None) -> Callable[[_Function], _Function]:
    """Return what makes a function the command that an example begins with, see `with_options`."""

    def add(function: _Function) -> _Function:
        first = next(iter(function.__annotations__.values()))
        run = with_options(function) if isinstance(first, type) and issubclass(first, Options) else function
        app.command(example.split(maxsplit=1)[0], cls=cls, epilog=f"Example: `knowhue {example}`")(run)
        return function

    return add


def _require_out(out: Path) -> Path:
    """Return the folder of a study, which holds no images or folders of others; a log or a plan may be there."""
    from knowhue.images.image import SUFFIXES

    entries = [each for each in out.iterdir() if each.name[0] != "."] if os.path.isdir(out) else []
    others = sorted(each.name for each in entries if each.is_dir() or each.suffix.lower() in SUFFIXES)
    if others and not {*RESERVED, FROZEN} & {each.name for each in entries}:
        raise ConfigError(
            "`--out` should be the folder of a study, or one without images and folders. Found `--out "
            f"{out}`, which holds {few(others, 3)}. Name another folder."
        )
    return require_folder(out)


OutOption = Annotated[
    Path,
    # checked at once, because the code that writes there takes seconds to import
    typer.Option(callback=_require_out),
    Field(description="Folder of the study. The same command resumes a study that was stopped."),
]
StudyArgument = Annotated[Path, typer.Argument(help="Study folder.")]


class SettingsOptions(Options):
    """The options that give settings and images."""

    images: Annotated[str | None, typer.Argument()] = None
    """folder with a folder for each class, `<class>/`, or with `train/<class>/` and `val/<class>/`; images in
    `unlabelled/` train colour only"""
    preset: Annotated[str | None, setting_option(show_default="unet")] = None
    """named settings to start from: `unet`, `poster`, `poster-imagenet`, `label-fraction`, `demo`, or a method of
    `knowhue compare` such as `palette-rgb`"""
    config: SettingOption[list[Path] | None] = None
    """YAML file with settings, which override the preset; may be repeated"""
    set_: SettingOption[list[str] | None] = None
    """a single setting, such as `training.heads.epochs=3`, which overrides preset and files; may be repeated"""
    start_from: SettingOption[str | None] = None
    """a trained model whose encoder and matching heads are the initial weights: `built-in`, the folder of a run or a
    study, or an exported file. Its settings replace the defaults"""

    def settings(self) -> Config:
        """Return all settings, without checking that the images exist."""
        sources = self.config or [], self.set_ or []
        if self.start_from is None:
            settings = load_config(self.preset or DEFAULT_PRESET, *sources)
        else:
            from knowhue.training import start

            settings = start.start_from(self.start_from, self.preset, *sources)
        if self.images is None:
            return settings
        # a folder named on the command line replaces the drawn images of a preset
        drawn = settings.images.source == "drawn"
        return edit(settings, {"images": {"path": self.images, **({"source": "folder"} if drawn else {})}})

    def settings_with_images(self) -> Config:
        """Return all settings; raises a `KnowhueError` if no images are named or they do not exist."""
        from knowhue.data.sources import require_source

        config = self.settings()
        require_source(config.images)
        return config

    def require_set_effect(self, configs: Iterable[Config]) -> None:
        """Make sure that every --set has an effect on this command; settings of a preset may be without effect."""
        written = [differing(read_setting(text)) for text in self.set_ or ()]
        require_effect(dict.fromkeys(name for each in written for name in each), list(configs))


class EngineOptions(JobOptions, SettingsOptions):
    """The settings, and where the work is done."""

    out: OutOption = Path("runs/study")


class PlanOptions(SettingsOptions):
    """The options that describe a study."""

    arms: DesignOption[str | None] = None
    """arms to compare, separated by commas; `colour,class,multi` by default, unless the preset has others"""
    seeds: Annotated[
        int | None,
        Field(
            ge=1,
            le=MOST_SEEDS,
            description=f"number of seeds, the first is the setting `seed`; by default 1; a verdict needs {MIN_SEEDS}",
        ),
    ] = None
    task_weight_grid: Annotated[str | None, design_option("--grid")] = None
    """further weights of the class task, each for another multi-task arm, such as `1,100`"""
    tuning: DesignOption[bool] = False
    """run a study for choosing settings: it scores the validation split and gives no verdict"""
    tuned_on: DesignOption[Path | None] = None
    """folder of the tuning study by which these settings were chosen; needs a test split and other seeds"""

    def as_plan(self) -> Plan:
        """Return the plan of the study."""
        from knowhue.apps.planning import grid_weights

        config = self.settings_with_images()
        tuning_seeds = [] if self.tuned_on is None else read_tuning(self.tuned_on)["seeds"]
        numbers = range(config.seed, config.seed + (self.seeds or 1))
        chosen = None if self.arms is None else self.arms.split(",")
        weights = grid_weights(self.task_weight_grid)
        plan = make_plan(config, chosen, numbers, weights, self.tuning, tuning_seeds)
        self.require_set_effect(map(plan.arm_settings, plan.arms))
        return plan


class StudyOptions(EngineOptions, PlanOptions):
    """Arguments and options of `knowhue study`."""

    plan: DesignOption[Path | None] = None
    """study file, as `knowhue plan` prints it, or the `study.json` of a study, instead of all other options for images,
    settings and design"""


@command("study photos/ --seeds 10 --out runs/photos")
def study_command(options: StudyOptions) -> None:
    """Train every arm with every seed, compare them, and answer the two questions in a report."""
    plan = options.as_plan() if options.plan is None else _read_plan_option(options.plan, options)
    preset = {"preset": options.preset or DEFAULT_PRESET} if options.plan is None else {}
    _run_study(options, plan, preset, options.tuned_on)


class MethodOptions(SettingsOptions):
    """The options that describe a comparison of methods."""

    methods: str | None = None
    """methods to compare, separated by commas: `l1`, `l2`, `classification`, `gan`, `unet`, `pix2pix`, `palette-rgb`,
    `palette-ab` (by default all of these), or in the size of their papers `pix2pix-paper`, `palette-rgb-paper`,
    `palette-ab-paper`"""
    reference: DesignOption[str | None] = None
    """the method that the others are compared with; by default `gan`, or the first if `gan` is not compared"""
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)] = 3
    """number of seeds, the first is the setting `seed`"""
    budget: Annotated[DesignOption[float | None], Field(ge=0.001, le=1e9)] = None
    """seconds that each method trains at equal wall-clock; by default the time that the reference takes at equal
    images"""


class CompareOptions(EngineOptions, MethodOptions):
    """Arguments and options of `knowhue compare`."""

    out: OutOption = Path("runs/compare")


@command("compare photos/ --methods l1,gan,unet --out runs/compare")
def compare_command(options: CompareOptions) -> None:
    """Train methods of colouring for equal epochs, then for equal seconds, and compare quality and cost."""
    config = options.settings_with_images()
    chosen = options.methods.split(",") if options.methods is not None else tuple(METHODS)
    numbers = range(config.seed, config.seed + options.seeds)
    plan = make_comparison(config, chosen, options.reference, numbers, options.budget)
    options.require_set_effect(map(plan.arm_settings, plan.arms))
    _run_study(options, plan, {})


def _run_study(
    options: StudyOptions | CompareOptions, plan: Plan, preset: dict[str, str], tuned_on: Path | None = None
) -> None:
    # before importing torch, so that mistakes are reported at once
    out, executor = options.out, options.open_engine(options.out)
    _require_weights(plan.run_config(arm, plan.seeds[0]) for arm in plan.arms)
    description = {"name": real_path(out).name, "command": command_line(), **preset}
    with showing_progress() as report:
        from knowhue.report.reading import read_study
        from knowhue.report.results import conclude
        from knowhue.study import run_study

        page = run_study(plan, out, executor, description, report, tuned_on)
    if is_first_process():
        say(*conclude(read_study(out)).lines, "", f"Report: {page}")


class PowerOptions(PlanOptions):
    """Arguments and options of `knowhue plan`."""

    variances: Annotated[Path | None, power_option()] = None
    """folder of an earlier study, or a sealed study, whose variances over seeds and images are assumed for this one"""
    seed_sd: Annotated[str | None, power_option()] = None
    """instead, standard deviations of paired differences over seeds, in the unit of each metric, such
    as `colour=.08,class=.01`"""
    image_sd: Annotated[str | None, power_option()] = None
    """and standard deviations over images, such as `colour=1.45,class=.2`"""
    test_images: Annotated[int | None, Field(ge=20), power_option("--images")] = None
    """number of images to report on; by default as many as in the study of --variances"""


@command("plan photos/ --seeds 20 > study.yaml")
def plan_command(options: PowerOptions) -> None:
    """Print a study file for `knowhue study --plan`, and which effects the study can detect."""
    from knowhue.apps.planning import commented_yaml, known_variances, power_lines
    from knowhue.data.listing import require_images

    plan, images = options.as_plan(), options.test_images
    require_images(plan.config.images)
    sds = options.seed_sd, options.image_sd
    known, count = known_variances(options.variances, *sds, images, plan.questions)
    say(*power_lines(plan, known, count, None if images else options.variances), *commented_yaml(plan))


@command("status runs/photos")
def status_command(study: StudyArgument) -> None:
    """Show the progress of every run of a study or comparison, and which processes work on it."""
    signs = read_holders(study)
    if signs and not (study / FROZEN).exists():
        say("no plan yet; it is written when the images are prepared", *signs)
        return
    plan, digest = read_plan(study), read_frozen(study)["hash"]
    say(f"plan {digest[:12]}, {plural(len(plan.arms), 'arm')} x {plural(len(plan.seeds), 'seed')}")
    say(*cell_lines(read_cells(study, plan)), *signs)


@command("prepare photos/ --set images.size_px=128 --out runs/a")
def prepare_command(options: EngineOptions) -> None:
    """Check, split and resize the images; `images/manifest.csv` lists which were left out and why."""
    config, out = options.settings_with_images(), options.out
    from knowhue.data.prepare import prepare as run

    require_effect((name for name in changed(config) if name.startswith("images.")), [config])
    executor = options.open_engine(out)
    with showing_progress() as report, locked(out, "prepare", engine=executor.name) as left:
        await_leftover_jobs(executor, left, out, report)
        run(config.images, out / "images", report, share_out=share_out(executor, "prepare"))
    summary = read_json(out / "images" / "prepared.json")
    for split, counts in summary["counts"].items():
        if any(counts.values()):
            say(f"{split}: " + ", ".join(f"{name} {count}" for name, count in counts.items() if count))
    say(f"Prepared: {out / 'images'}")


class TrainOptions(SettingsOptions):
    """Arguments and options of `knowhue train`."""

    arm: str = "multi"
    """the arm to train: `class`, `colour`, `multi`, or another arm of a study"""
    out: OutOption = Path("runs/study")


@command("train photos/ --arm multi --out runs/photos")
def train_command(options: TrainOptions) -> None:
    """Train one arm with one seed (`--set seed=1`)."""
    config, arm, out = options.settings_with_images(), options.arm, options.out
    settings = arm_config(config, arm)
    options.require_set_effect([settings])
    _require_in_plan(out, arm, config, settings)
    _require_weights([settings])
    with showing_progress() as report:
        from knowhue.training.run import train as run

        folder = run(config, out, arm, report)
    if is_first_process():
        _print_scores(folder)


def _require_weights(configs: Iterable[Config]) -> None:
    from knowhue.data.listing import images_first
    from knowhue.models.weights import require_weights

    for config in configs:
        with images_first(config.images):
            require_weights(config)


def _require_in_plan(out: Path, arm: str, config: Config, settings: Config) -> None:
    """Make sure that a run in a study's folder belongs to its plan, because the report would count it."""
    if not (out / FROZEN).exists():
        require_effect(changed(config), [config, settings])
        return
    plan = read_plan(out)
    given = edit(settings, {"training": {"precision": plan.config.training.precision}})
    planned = plan.run_config(arm, config.seed) if arm in plan.arms else None
    if planned is None or training_settings(given) != training_settings(planned):
        raise ConfigError(
            f"`--out {out}` holds a study, and `{arm}` with these settings is not in its plan. Name another "
            "folder, or give the study's own settings."
        )


@command("evaluate runs/demo/multi/seed-0-1a2b3c4d")
def evaluate_command(run: Annotated[Path, typer.Argument(help="Run folder of a trained arm.")]) -> None:
    """Score a trained run again, on the split that its study reports."""
    from knowhue.training.run import evaluate_run

    evaluate_run(run)
    _print_scores(run)


@command("report runs/demo --figures talk/")
def report_command(
    study: StudyArgument,
    figures: Annotated[Path | None, typer.Option(help="Folder to write figures to, as PNG files.")] = None,
    paper: Annotated[
        Path | None,
        typer.Option(
            help="Folder for a paper kit: figures as PDF and SVG, LaTeX tables, methods, references."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Write the report of a study or comparison again, from its run folders."""
    from knowhue.report.figures import write_figures
    from knowhue.report.page import write_report

    # checked before work; the report itself is always replaced
    for option, folder in (("--paper", paper), ("--figures", figures)):
        if folder is not None:
            require_no_run(require_folder(folder, option))
    if paper:
        from knowhue.report.paper import write_paper

        files = write_paper(study, paper, overwrite)
        say(f"Paper: {files[0]}, {len(files)} files")
    for path in write_figures(study, figures, overwrite) if figures else ():
        say(f"Figure: {path}")
    say(f"Report: {write_report(study)}")


@command("pack runs/photos -o photos.zip")
def pack_command(
    study: StudyArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write, `.zip`; by default it has the name of the study."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Seal a finished study: plan, results, scores of every image and report in one file, without images or weights."""
    from knowhue.sealing import pack

    out = out or Path(f"{real_path(study).name}.zip")
    read_frozen(study)  # first whether it is a study, then whether the output exists
    require_outputs({"--out": out}, overwrite=overwrite)
    files = pack(study, out)
    say(f"Sealed: {out}, {files} files, SHA-256 {file_digest(out)}")


@command("check photos.zip")
def check_command(
    sealed: Annotated[Path, typer.Argument(help="Sealed study, a file that `knowhue pack` wrote.")],
) -> None:
    """Compute scores and results of a sealed study again and print its answers; exits with 1 if any number differs."""
    from knowhue.sealing import check, shown_problems

    about, files, numbers, problems, unchecked, summary = check(sealed)
    if problems:
        say(*shown_problems(problems), err=True)
    found = plural(len(problems), "problem") if problems else "all as sealed"
    say(*about, f"{files} files, {numbers:,} numbers computed again: {found}", *summary)
    if unchecked:
        say("", *(f"Not computed again: {each}" for each in unchecked))
    if problems:
        raise typer.Exit(1)


@command("config --preset demo --set training.batch_size=64")
def config_command(options: SettingsOptions) -> None:
    """Print every setting with its value, meaning and unit, as YAML that --config reads."""
    from knowhue.apps.planning import commented_yaml

    say(*commented_yaml(options.settings()))


command("colorize photo.jpg -o colour.jpg", OneInput)(use.colorize)
command("models runs/photos")(models.models)
command("export runs/photos --to onnx -o photos.onnx")(export)
command("verdict runs.csv --against baseline --sesoi accuracy=0.01")(verdict_command)
command("score ours/ theirs/ --truth photos/ -o score.html")(score)
command("log runs/photos --to tensorboard")(log_command)
command("serve --model photos=runs/photos")(serve.serve_command)


def _read_plan_option(path: Path, options: PlanOptions) -> Plan:
    """Return the plan of `--plan`, which must be the only description of the study."""
    from knowhue.apps.planning import read_plan_file
    from knowhue.data.sources import require_source

    # a plan holds the seeds of its tuning study but not the folder, so --tuned-on may be given with it
    others = (getattr(options, name) for name in PlanOptions.model_fields if name != "tuned_on")
    if any(value not in (None, [], False) for value in others):
        raise ConfigError(
            f"`--plan {path}` describes the whole study: images, settings, arms and seeds. Change them in that file "
            "and leave out IMAGES, --preset, --config, --set, --start-from, --arms, --seeds, --grid and --tuning, or "
            "leave out --plan."
        )
    plan = read_plan_file(path)
    require_source(plan.config.images)
    return plan


def _print_scores(folder: Path) -> None:
    scores = read_json(folder / "scores.json")["metrics"]
    say(*(score_line(name, value) for name, value in scores.items()), f"Run: {folder}")
