"""`knowhue colorize`, `models`, `export`: the commands that put a trained model to work."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from knowhue.errors import ConfigError

if TYPE_CHECKING:
    from knowhue.inference.colorizer import Colorized, Colorizer, Wishes

ModelOption = Annotated[
    str,
    typer.Option(
        help="`built-in`, a run or study folder, or a file or folder that `knowhue export` made.",
    ),
]
FILMS = frozenset({".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv"})


class OnError(StrEnum):
    """What a picture that cannot be read does to a folder's job."""

    skip = "skip"
    stop = "stop"


class Kind(StrEnum):
    """What `knowhue export` can write."""

    safetensors = "safetensors"
    onnx = "onnx"
    hub_folder = "hub-folder"


def colorize(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A picture, a folder of pictures, or a film.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where to write; INPUT's name with `-colour` if not given."),
    ] = None,
    model: ModelOption = "built-in",
    hint: Annotated[
        list[str] | None,
        typer.Option(help="A point and its colour, `120,80=#c83232` or `30%,40%=orange`; may be repeated."),
    ] = None,
    saturation: Annotated[float, typer.Option(min=0, help="Factor on the predicted chroma.")] = 1.0,
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            help="Write a map of how unsure the colours are to this picture file; 10 a CIELAB unit."
        ),
    ] = None,
    unknown_below: Annotated[
        float | None, typer.Option(min=0, max=1, help="Answer `unknown` for a class less probable than this.")
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON a picture instead of words.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace pictures that are already there.")] = False,
    on_error: Annotated[
        OnError, typer.Option(help="Folders: what an unreadable picture does.")
    ] = OnError.skip,
) -> None:
    """Colour and classify a photo, a folder or a film; size, depth, lightness and metadata stay."""
    from knowhue.inference.colorizer import Wishes
    from knowhue.inference.hints import parse_hint

    if not source.exists():
        raise ConfigError(f"`INPUT` should be a picture, a folder or a film. Found no `{source}`.")
    single = source.is_file() and source.suffix.lower() not in FILMS
    if not single and (uncertainty or hint):
        raise ConfigError(
            "`--uncertainty` and `--hint` should go with a single picture. Found a folder or a film."
        )
    out = out or source.with_name(f"{source.stem}-colour{source.suffix}")
    if single and out.is_dir():
        out = out / source.name
    if single and out.exists() and not overwrite:
        raise ConfigError(f"`{out}` is there already. Name another file with --out, or add --overwrite.")
    colorizer = load(model)
    colorizer.require("colour")
    if single:
        from knowhue.inference.files.media import read_picture

        picture = read_picture(source)
        height, width = picture.pixels.shape[:2]
        hints = tuple(parse_hint(text, width, height) for text in hint or ())
        wishes = Wishes(hints, saturation, uncertainty is not None, unknown_below)
        _one(colorizer, colorizer.colorize(picture, wishes), source, out, uncertainty, json_)
        return
    many = _folder if source.is_dir() else _film
    many(colorizer, source, out, Wishes((), saturation, False, unknown_below), json_, overwrite, on_error)


def models(
    model: Annotated[
        list[str] | None, typer.Argument(help="Files or folders; the built-in model if none.")
    ] = None,
) -> None:
    """Say what a model is: tasks, classes, data, scores with intervals, calibration."""
    from knowhue.inference.networks.opening import BUILT_IN

    for name in model or [BUILT_IN]:
        typer.echo("\n".join(_describe(load(name))))


def export(
    source: Annotated[str, typer.Argument(help="Run or study folder, exported file, or `built-in`.")],
    to: Annotated[Kind, typer.Option(help="What to write.")] = Kind.safetensors,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File or folder to write.")] = None,
    precision: Annotated[
        str, typer.Option(help="`float32`; `float16` for safetensors; `int8` for onnx, with --calibrate.")
    ] = "float32",
    calibrate: Annotated[
        Path | None, typer.Option(help="Folder of colour pictures that int8 is calibrated and measured on.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the model card.")] = "",
    upload: Annotated[
        str | None, typer.Option(help="Hub repository, `owner/name`, to upload the folder to.")
    ] = None,
) -> None:
    """Write a trained model as one file or folder that needs nothing else."""
    from knowhue.apps.exporting import run_export

    _deploy_once(source)
    for line in run_export(source, to.value, out, precision, calibrate, licence, upload):
        typer.echo(line)


def load(model: str) -> "Colorizer":
    """Open a model; a run is fitted for use the first time it is asked for."""
    from knowhue.inference.colorizer import Colorizer

    _deploy_once(model)
    return Colorizer.load(model)


def _deploy_once(model: str) -> None:
    from knowhue.inference.networks.opening import needs_deployment

    run = needs_deployment(model)
    if run is not None:
        from knowhue.training.deploy import deploy

        typer.echo(f"Fitting class probabilities of {run}, once.", err=True)
        deploy(run)


def _one(
    colorizer: "Colorizer",
    made: "Colorized",
    source: Path,
    out: Path,
    uncertainty: Path | None,
    as_json: bool,
) -> None:
    from knowhue.inference.files.media import write_picture

    notes = write_picture(made.picture, out)
    record = {"path": str(source), "output": str(out), **made.judgement.as_record()}
    record["warnings"] += notes
    if made.uncertainty is not None and uncertainty is not None:
        _write_map(made, uncertainty)
        record["uncertainty"] = {"mean": round(float(made.uncertainty.mean()), 3), "map": str(uncertainty)}
    record["model"] = colorizer.network.description.name
    lines = _sentences(record, made.judgement.headline())
    typer.echo(json.dumps(record, ensure_ascii=False) if as_json else "\n".join(lines))


def _write_map(made: "Colorized", path: Path) -> None:
    """The uncertainty at the picture's size, 10 codes a CIELAB unit, up to 25.5 units."""
    import numpy as np

    from knowhue.inference.files.media import write_picture
    from knowhue.inference.files.picture import Picture
    from knowhue.inference.pixels import enlarge

    assert made.uncertainty is not None
    height, width = made.picture.pixels.shape[:2]
    codes = (enlarge(made.uncertainty, height, width) * 10).clip(0, 255).round().astype(np.uint8)
    write_picture(Picture.of(codes[..., None]), path)


def _folder(
    colorizer, source: Path, out: Path, wishes: "Wishes", as_json: bool, overwrite: bool, on_error: OnError
):
    from knowhue.apps.progress import showing_progress
    from knowhue.inference.folders.folder import colorize_folder

    with showing_progress() as report:
        summary = colorize_folder(
            colorizer, source, out, wishes=wishes, overwrite=overwrite, on_error=on_error.value, report=report
        )
    _tell(summary, as_json)


def _film(colorizer, source: Path, out: Path, wishes: "Wishes", as_json: bool, overwrite: bool, _: OnError):
    from knowhue.apps.progress import showing_progress
    from knowhue.inference.films.film import colorize_film

    with showing_progress() as report:
        summary = colorize_film(colorizer, source, out, wishes=wishes, overwrite=overwrite, report=report)
    _tell(summary, as_json)


def _tell(summary, as_json: bool) -> None:
    typer.echo(json.dumps(summary.as_record(), ensure_ascii=False) if as_json else "\n".join(summary.lines()))
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
    described = colorizer.network.description
    lines = [
        described.name,
        f"  does: {' and '.join(described.tasks)}, looking at {described.size_px} px; {described.precision}",
        f"  base: {described.config.encoder.name}; trained on {described.pictures.get('train')} pictures "
        f"({described.pictures.get('source')}), measured on {described.pictures.get('validation')}",
    ]
    if "class" in described.tasks:
        lines.append(f"  classes: {', '.join(described.classes)}")
    lines += [
        f"  {name}: {score.value:.3f} ({score.low:.3f} to {score.high:.3f})"
        for name, score in described.metrics.items()
    ]
    if described.calibration is not None:
        lines.append(f"  class probabilities: {described.calibration.sentence()}")
    return [*lines, f"  licence: {described.licence or 'not stated'}"]
