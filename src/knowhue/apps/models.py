"""`knowhue models`, and how every command names and opens a model."""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from knowhue.apps.program import Options, Rare, say, score_line
from knowhue.config import Task
from knowhue.errors import plural, spaced
from knowhue.inference.description import Description, Fast, ModelChoice
from knowhue.inference.networks import find_model, needs_deployment
from knowhue.runs import BUILT_IN

if TYPE_CHECKING:
    from knowhue.inference.colorizer import Colorizer


class ModelOptions(Options):
    """The options that name a model."""

    model: str = "built-in"
    """the model: `built-in`, a run or study folder, or a file or folder that `knowhue export` wrote"""
    recipe: Rare[str | None] = None
    """how to run a published model, whose .onnx file --model names: `siggraph17`, `eccv16`, `ddcolor` or
    `deoldify` (docs/colorize.md)"""
    sha256: Rare[str | None] = None
    """SHA-256 that the file of --recipe must have"""
    fast: Fast = False

    @property
    def choice(self) -> ModelChoice:
        return ModelChoice(self.model, self.recipe, self.sha256, self.fast)


def models(
    model: Annotated[
        list[str] | None,
        typer.Argument(help="Run or study folders, or exported files; by default the built-in model."),
    ] = None,
) -> None:
    """Describe a model: tasks, classes, data, scores with intervals, calibration."""
    for name in model or [BUILT_IN]:
        say(*_describe(open_model(ModelChoice(name))))


def announce(choices: Collection[ModelChoice]) -> None:
    """Print that models are being opened, which takes seconds; raises a `WeightsError` if one does not exist."""
    for model, recipe, *_ in choices:
        if recipe is not None:
            from knowhue.inference.recipes import find_recipe_file

            find_recipe_file(model, recipe)
        elif needs_deployment(model) is None:
            find_model(model)
    say(f"Opening {', '.join(each.model for each in choices)} ...", err=True)


def open_model(choice: ModelChoice, task: Task | None = None) -> "Colorizer":
    """Open a model, checking that it does a task if one is given; a run is made ready for use the first time."""
    from knowhue.inference.colorizer import Colorizer

    deploy_once(choice, task)
    colorizer = Colorizer.load(*choice)
    for note in colorizer.notes:
        say(f"note: {note}", err=True)
    if task is not None:
        colorizer.require(task)
    return colorizer


def deploy_once(choice: ModelChoice, task: Task | None = None) -> None:
    """Make a run ready for use unless it is already; other models always are."""
    run = needs_deployment(choice.model) if choice.recipe is None else None
    if run is not None:
        from knowhue.training.deploy import deploy, require_deployable

        require_deployable(run, task)
        say(f"Making {run} ready for use; this is done once.", err=True)
        deploy(run)


def require_choice(choice: ModelChoice, given: Iterable[str]) -> None:
    """Make sure, before a model is opened, that its recipe supports the given arguments (see `require_supported`)."""
    if choice.recipe is not None:
        from knowhue.inference.recipes import require_recipe, require_supported

        require_recipe(choice.recipe, choice.sha256)
        fields = {"hint": "hints", "samples": "sample"}  # the others have the names of `ColorizeOptions`
        require_supported(choice.recipe, {fields.get(name, name): name for name in given})


def _describe(colorizer: "Colorizer") -> list[str]:
    from knowhue.inference.judgement import warnings_of_many

    described = colorizer.network.description
    assert isinstance(described, Description)  # a recipe has another class
    images = described.images
    measured_on = str(images.get("measured_on", "validation"))
    trained, measured = (int(images.get(split, 0)) for split in ("train", measured_on))
    lines = [
        described.name,
        f"  tasks: {' and '.join(described.tasks)}, at {described.size_px} px; {described.precision}",
        f"  encoder: {described.config.encoder.name}; trained on {plural(trained, 'image')} "
        f"({images.get('source')}), measured on {measured:,} ({measured_on}, 95 % intervals)",
    ]
    if described.start is not None:
        lines.append(f"  {described.start.sentence()}")
    if "class" in described.tasks:
        lines.append(f"  classes: {', '.join(map(spaced, described.classes))}")
    lines += [
        f"  {score_line(name, score.value, (score.low, score.high))}"
        for name, score in described.metrics.items()
    ]
    lines += [f"  {caveat}" for caveat in warnings_of_many(described, 0, 1, "image")]
    if described.calibration is not None:
        lines.append(f"  class probabilities: {described.calibration.sentence()}")
    return [*lines, f"  licence: {described.licences or 'not stated'}"]
