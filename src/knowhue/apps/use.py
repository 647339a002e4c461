"""`knowhue colorize` and `models`: the commands that put a trained model to work."""

import stat
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from knowhue.apps.printing import say, say_json
from knowhue.errors import ConfigError, ImageError
from knowhue.images.files import dangling

if TYPE_CHECKING:
    from knowhue.config import Task
    from knowhue.inference.colorizer import ColorizeOptions, Colorizer

ModelOption = Annotated[
    str,
    typer.Option(
        help="`built-in`, a run or study folder, or a file or folder that `knowhue export` made.",
    ),
]


class OnError(StrEnum):
    """What an image that cannot be read does to a folder's job."""

    skip = "skip"
    stop = "stop"


def colorize(
    file: Annotated[str, typer.Argument(metavar="INPUT", help="An image, a folder of images, or a film.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where to write; INPUT's name with `-colour` if not given."),
    ] = None,
    model: ModelOption = "built-in",
    hint: Annotated[
        list[str] | None,
        typer.Option(help="A point and its colour, `120,80=#c83232` or `30%,40%=orange`; may be repeated."),
    ] = None,
    saturation: Annotated[float, typer.Option(min=0, max=4, help="Factor on the predicted chroma.")] = 1.0,
    uncertainty: Annotated[
        Path | None,
        typer.Option(help="Write a map of how unsure the colours are to this image file; 10 a CIELAB unit."),
    ] = None,
    unknown_below: Annotated[
        float | None, typer.Option(min=0, max=1, help="Answer `unknown` for a class less probable than this.")
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON an image instead of words.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace images that are already there.")] = False,
    on_error: Annotated[OnError, typer.Option(help="Folders: what an unreadable image does.")] = OnError.skip,
) -> None:
    """Colour and classify a photo, a folder or a film; size, depth, lightness and metadata stay."""
    if not file:  # a path of no letters is the current folder
        raise ConfigError("INPUT is empty; name an image, a folder or a film")
    source = Path(file)
    kind = _kind_of(source)
    if kind != "image" and (uncertainty or hint):
        raise ConfigError(f"--uncertainty and --hint go with a single image; {source} is a {kind}")
    out = _settle(kind, source, out, uncertainty, overwrite)
    from knowhue.inference.colorizer import ColorizeOptions

    options = ColorizeOptions((), saturation, uncertainty is not None, unknown_below)
    if kind == "image":
        _image(model, source, out, uncertainty, options, hint or [], json_, overwrite)
        return
    if kind == "film":
        from knowhue.inference.films.film import require_film

        require_film(source)
        _say_if_renamed(source, out)
    many = _folder if kind == "folder" else _film
    many(_colorizer(model), source, out, options, json_, overwrite, on_error)


def models(
    model: Annotated[
        list[str] | None, typer.Argument(help="Files or folders; the built-in model if none.")
    ] = None,
) -> None:
    """Say what a model is: tasks, classes, data, scores with intervals, calibration."""
    from knowhue.inference.networks import BUILT_IN

    for name in model or [BUILT_IN]:
        say(*_describe(load(name)))


def load(model: str, task: "Task | None" = None) -> "Colorizer":
    """Open a model; a run is fitted for use the first time it is asked for, unless it cannot do the task."""
    from knowhue.inference.colorizer import Colorizer

    deploy_once(model, task)
    return Colorizer.load(model)


def deploy_once(model: str, task: "Task | None" = None) -> None:
    """Fit a run for use if it was not yet; other models are ready."""
    from knowhue.inference.networks import needs_deployment

    run = needs_deployment(model)
    if run is not None:
        from knowhue.training.deploy import deploy, require_deployable

        require_deployable(run, task)
        say(f"Making {run} ready for use, once.", err=True)
        deploy(run)


def _colorizer(model: str) -> "Colorizer":
    say(f"Opening the model {model} ...", err=True)
    colorizer = load(model, "colour")
    colorizer.require("colour")
    return colorizer


def _say_if_renamed(source: Path, out: Path) -> None:
    """Of a file that was recognised, that a format is read but not written; nobody named the output."""
    from knowhue.inference.naming import writable_suffix

    suffix = source.suffix
    if writable_suffix(suffix) != suffix and out.suffix == writable_suffix(suffix):
        say(f"{suffix or 'This'} can be read but not written: {out.name} is made", err=True)


def _kind_of(source: Path) -> str:
    """`image`, `folder` or `film`.

    Raises:
        ImageError: nothing is there, or nothing that can be read.
    """
    from knowhue.inference.films.formats import VIDEO_SUFFIXES

    try:
        mode = source.stat().st_mode
    except OSError as error:
        if isinstance(error, FileNotFoundError) and source.is_symlink():
            raise ImageError(f"{source}: {dangling(source)}") from None
        raise ImageError(f"{source}: {(error.strerror or str(error)).lower()}") from None
    if stat.S_ISDIR(mode):
        return "folder"
    if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
        raise ImageError(f"{source}: a device or a pipe, not a file; save it as a file first")
    return "film" if source.suffix.lower() in VIDEO_SUFFIXES else "image"


def _settle(kind: str, source: Path, out: Path | None, uncertainty: Path | None, overwrite: bool) -> Path:
    """Where the result goes, made sure of before a model is opened.

    Raises:
        ConfigError: it is an input, exists, cannot be written there, or not in that format.
    """
    from knowhue.images.writing import OUTPUT_SUFFIXES, kind_of
    from knowhue.inference.films.formats import VIDEO_SUFFIXES, codec_of
    from knowhue.inference.folder import list_folder
    from knowhue.inference.naming import default_folder, default_output, writable_suffix
    from knowhue.storage import require_outputs

    if kind == "folder":
        out = out or default_folder(source)
        if not out.is_dir() and (out.exists() or out.suffix.lower() in (*OUTPUT_SUFFIXES, *VIDEO_SUFFIXES)):
            raise ConfigError(f"{source} is a folder, so --out should be one; {out} names a file")
        require_outputs({"--out": out / "colorized.jsonl"}, overwrite=True)
        list_folder(source, out, writable_suffix)  # whose clashes are told at once
        return out
    target = out or default_output(source)
    if out is not None and out.is_dir():
        target = out / source.with_suffix(writable_suffix(source.suffix)).name
    (codec_of(target) if kind == "film" else kind_of(target.suffix))  # raise for what cannot be written
    outputs = {"--out": target}
    if uncertainty is not None:
        kind_of(uncertainty.suffix)
        outputs["--uncertainty"] = uncertainty
    require_outputs(outputs, [source], overwrite=overwrite)
    return target


def _image(
    model: str,
    source: Path,
    out: Path,
    uncertainty: Path | None,
    options: "ColorizeOptions",
    hints: list[str],
    as_json: bool,
    overwrite: bool,
) -> None:
    from knowhue.images.reading import read_image
    from knowhue.images.writing import fitting_kind, write_image
    from knowhue.inference.hints import parse_hint
    from knowhue.storage import require_outputs

    image = read_image(source)
    _say_if_renamed(source, out)
    height, width = image.pixels.shape[:2]
    options = options._replace(hints=tuple(parse_hint(text, width, height) for text in hints))
    outputs = {"--out": out} | ({"--uncertainty": uncertainty} if uncertainty else {})
    for path in outputs.values():
        fitting_kind(path.suffix, image)
    colorizer = _colorizer(model)
    made = colorizer.colorize(image, options)
    require_outputs(outputs, [source], overwrite=overwrite)  # nobody has come in between
    notes = write_image(made.image, out)
    record = {"path": str(source), "output": str(out), **made.judgement.as_record()}
    record["warnings"] += notes
    if made.uncertainty is not None and uncertainty is not None:
        write_image(made.uncertainty_map(), uncertainty)
        record["uncertainty"] = {"mean": round(float(made.uncertainty.mean()), 3), "map": str(uncertainty)}
    record["model"] = colorizer.network.description.name
    if as_json:
        say_json(record)
    else:
        say(*_sentences(record, made.judgement.headline()))


def _folder(
    colorizer,
    source: Path,
    out: Path,
    options: "ColorizeOptions",
    as_json: bool,
    overwrite: bool,
    on_error: OnError,
):
    from knowhue.apps.progress import showing_progress
    from knowhue.inference.folder import colorize_folder

    with showing_progress() as report:
        summary = colorize_folder(
            colorizer,
            source,
            out,
            options=options,
            overwrite=overwrite,
            on_error=on_error.value,
            report=report,
        )
    _tell(summary, as_json)


def _film(
    colorizer, source: Path, out: Path, options: "ColorizeOptions", as_json: bool, overwrite: bool, _: OnError
):
    from knowhue.apps.progress import showing_progress
    from knowhue.inference.films.film import colorize_film

    with showing_progress() as report:
        summary = colorize_film(colorizer, source, out, options=options, overwrite=overwrite, report=report)
    _tell(summary, as_json)


def _tell(summary, as_json: bool) -> None:
    if as_json:
        say_json(summary.as_record())
    else:
        say(*summary.lines())
    if summary.failed:
        raise typer.Exit(1)


def _sentences(record: dict, headline: str | None) -> list[str]:
    lines = [f"{record['path']} -> {record['output']}"]
    lines += [f"  note: {warning}" for warning in record["warnings"]]
    if headline is not None:
        lines.append(f"  class: {headline}")
    lines.append(f"  colourfulness {record['colourfulness']:.1f}, mean chroma {record['chroma']:.1f}")
    if "uncertainty" in record:
        lines.append(
            f"  uncertainty {record['uncertainty']['mean']:.1f} units on average: {record['uncertainty']['map']}"
        )
    return [*lines, f"  model: {record['model']}"]


def _describe(colorizer: "Colorizer") -> list[str]:
    from knowhue.apps.printing import score_line
    from knowhue.inference.colorizer import caveats_of_many

    described = colorizer.network.description
    measured_on = str(described.images.get("measured_on", "validation"))
    lines = [
        described.name,
        f"  does: {' and '.join(described.tasks)}, looking at {described.size_px} px; {described.precision}",
        f"  encoder: {described.config.encoder.name}; trained on {described.images.get('train')} images "
        f"({described.images.get('source')}), measured on {described.images.get(measured_on)} ({measured_on})",
    ]
    if "class" in described.tasks:
        lines.append(f"  classes: {', '.join(described.classes)}")
    lines += [
        f"  {score_line(name, score.value, (score.low, score.high))}"
        for name, score in described.metrics.items()
    ]
    lines += [f"  {caveat}" for caveat in caveats_of_many(described, 0, 1, "images")]
    if described.calibration is not None:
        lines.append(f"  class probabilities: {described.calibration.sentence()}")
    return [*lines, f"  licence: {described.licence or 'not stated'}"]
