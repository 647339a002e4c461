"""`knowhue colorize`: a trained model put to work."""

import stat
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knowhue.apps.archive import (
    ArchiveEngineOption,
    ArchiveEngineSetOption,
    ShardsOption,
    SideBySideOption,
    colorize_shards,
    is_archive,
)
from knowhue.apps.models import (
    ModelChoice,
    ModelOption,
    RecipeOption,
    Sha256Option,
    announce,
    open_model,
    rare_option,
    require_choice,
)
from knowhue.apps.program import say, say_json
from knowhue.errors import ConfigError, ImageError, few
from knowhue.images.files import dangling

if TYPE_CHECKING:
    from knowhue.inference.colorizer import Colorized, ColorizeOptions, Colorizer
    from knowhue.inference.summary import Summary
    from knowhue.inference.video import VideoSummary


class OnError(StrEnum):
    """What an image that cannot be read does to a folder's job."""

    skip = "skip"
    stop = "stop"


OutputOption = Annotated[
    str | None,
    typer.Option(
        "--out", "-o", help="Where to write; INPUT's name with `-colour` if not given; of a URL it must be."
    ),
]
HintOption = Annotated[
    list[str] | None,
    typer.Option(help="A point and its colour, `120,80=#c83232` or `30%,40%=orange`; may be repeated."),
]
HintsOption = Annotated[
    Path | None,
    rare_option(
        help="Table of hints, .csv or .json: `x`, `y`, `colour`, and `file` for the images of a folder."
    ),
]
StrokesOption = Annotated[
    Path | None,
    rare_option(help="Transparent PNG as large as the photo; what is painted on it is met there."),
]
ReferenceOption = Annotated[
    Path | None,
    typer.Option(help="Colour photo of the same scene or of like things, whose colours are taken."),
]
AlbumOption = Annotated[
    bool, rare_option("--album", help="Folders: one look, not warm here and cool there, for all photos.")
]
SaturationOption = Annotated[float, typer.Option(min=0, max=4, help="Factor on the predicted chroma.")]
LayersOption = Annotated[
    bool,
    rare_option(
        "--layers", help="Write OpenRaster (.ora): the gray photo, and above it its colours as a layer."
    ),
]
SamplesOption = Annotated[
    int,
    typer.Option(
        min=1,
        max=16,
        help="How many different answers for a photo, to choose from; the first is the usual one.",
    ),
]
UncertaintyOption = Annotated[
    Path | None,
    rare_option(help="Image file for a map of how uncertain the colours are; 5 gray levels a CIELAB unit."),
]
UnknownOption = Annotated[
    float | None, rare_option(min=0, max=1, help="Answer `unknown` for a class less probable than this.")
]
JsonOption = Annotated[bool, rare_option("--json", help="Print one line of JSON an image instead of words.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
OnErrorOption = Annotated[
    OnError,
    rare_option(
        help="Folders: skip images that cannot be read, or stop at the first one; those on their way are finished."
    ),
]
GOES_WITH = {
    "--hint": ("image",), "--strokes": ("image",), "--samples": ("image",), "--uncertainty": ("image",),
    "--hints": ("image", "folder"), "--reference": ("image", "folder"), "--layers": ("image", "folder", "archive"),
    "--album": ("folder",), "--on-error stop": ("folder",), "--workers": ("archive",), "--engine": ("archive",),
    "--engine-set": ("archive",), "--unknown-below": ("image", "folder", "video", "archive"),
}  # fmt: skip
"""What options go with; others go with every input."""
_OPTIONS = {
    "--hint": "hints", "--hints": "hints", "--strokes": "strokes", "--reference": "reference", "--samples": "sample",
    "--uncertainty": "uncertainty", "--unknown-below": "unknown_below",
}  # fmt: skip
"""Which of `ColorizeOptions` options of the command line set; not every model can do them."""
_ARTICLES = {
    "image": "an image",
    "folder": "a folder",
    "video": "a video",
    "archive": "an archive (--shards, or a URL)",
}


def colorize(
    file: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="An image, a folder of images or a store's URL, a video."),
    ],
    out: OutputOption = None,
    model: ModelOption = "built-in",
    hint: HintOption = None,
    hints: HintsOption = None,
    strokes: StrokesOption = None,
    reference: ReferenceOption = None,
    album: AlbumOption = False,
    saturation: SaturationOption = 1.0,
    layers: LayersOption = False,
    samples: SamplesOption = 1,
    uncertainty: UncertaintyOption = None,
    unknown_below: UnknownOption = None,
    json_: JsonOption = False,
    overwrite: OverwriteOption = False,
    on_error: OnErrorOption = OnError.skip,
    recipe: RecipeOption = None,
    sha256: Sha256Option = None,
    shards: ShardsOption = None,
    workers: SideBySideOption = None,
    engine: ArchiveEngineOption = "local",
    engine_set: ArchiveEngineSetOption = None,
) -> None:
    """Colour and classify a photo, a folder, a video or an archive; size, depth, lightness and metadata stay."""
    kind = "archive" if is_archive(file, out, shards) else _kind_of(file)
    choice = ModelChoice(model, recipe, sha256)
    given = {
        "--hint": hint, "--hints": hints, "--strokes": strokes, "--samples": samples > 1, "--uncertainty": uncertainty,
        "--reference": reference, "--unknown-below": unknown_below is not None, "--layers": layers, "--album": album,
        "--on-error stop": on_error is OnError.stop, "--workers": workers, "--engine": engine != "local",
        "--engine-set": engine_set,
    }  # fmt: skip
    asked = [name for name, value in given.items() if value]
    _require_kind(file, kind, asked)
    require_choice(choice, {_OPTIONS[name]: name for name in asked if name in _OPTIONS})
    how: dict[str, Any] = {"overwrite": overwrite}
    if kind in ("folder", "archive"):
        from knowhue.images.openraster import OPENRASTER

        how["suffix"] = OPENRASTER if layers else None
    if kind == "archive":
        how |= {"shards": shards, "workers": workers, "engine": engine, "engine_set": engine_set or ()}
        summary = colorize_shards(file, out, choice, _plain(saturation, unknown_below), **how)
    else:
        from knowhue.inference.written_hints import read_hints

        inputs = [Path(file), *(each for each in (hints, strokes, reference) if each)]
        outputs = _settle(
            kind, inputs, None if out is None else Path(out), uncertainty, overwrite, layers, samples
        )
        listed = {} if hints is None else read_hints(hints)
        options = _plain(saturation, unknown_below, uncertainty is not None)
        if kind == "image":
            texts = [*(hint or ()), *_hints_of(inputs[0], hints, listed)]
            made = _image(choice, inputs, outputs, options, texts, strokes, reference, overwrite)
            _say_each(made, json_)
            return
        if kind == "folder":
            how |= {"on_error": on_error.value, "hints": listed, "album": album}
        target = outputs["--out"]
        assert isinstance(target, Path)  # several are an image's samples
        summary = _many(choice, kind, inputs[0], target, options, reference, **how)
    _say_what_was_made(summary.as_record(), summary.lines(), json_)
    # a script should notice; what could be read is written
    if summary.failed:
        raise typer.Exit(1)


def _plain(saturation: float, unknown_below: float | None, uncertainty: bool = False) -> "ColorizeOptions":
    from knowhue.inference.colorizer import ColorizeOptions

    return ColorizeOptions((), saturation, uncertainty, unknown_below)


def _say_each(made: Iterable[tuple[dict[str, Any], str | None]], as_json: bool) -> None:
    """Say of each sample what became of it; what holds of all is printed once."""
    printed: set[str] = set()
    for record, headline in made:
        lines = [line for line in _sentences(record, headline) if line not in printed]
        printed.update(lines)
        _say_what_was_made(record, lines, as_json)


def _require_kind(source: str, kind: str, given: Iterable[str]) -> None:
    """Make sure that the options that were given go with the input."""
    for name in given:
        kinds, article = GOES_WITH[name], _ARTICLES
        if kind not in kinds:
            table = "; name its images in a table, --hints" if (name, kind) == ("--hint", "folder") else ""
            raise ConfigError(
                f"{name} goes with {' or '.join(map(article.__getitem__, kinds))}; {source} is {article[kind]}{table}"
            )


def _say_if_renamed(suffix: str, writable: str, out: Path) -> None:
    """Of a file that was recognised, that a format is read but not written; nobody named the output."""
    if writable != suffix and out.suffix == writable:
        say(f"{suffix or 'This'} can be read but not written: {out.name} is made", err=True)


def _kind_of(file: str) -> str:
    """`image`, `folder` or `video`."""
    from knowhue.inference.video_formats import VIDEO_SUFFIXES

    if not file:  # a path of no letters is the current folder
        raise ConfigError("INPUT is empty; name an image, a folder or a video")
    source = Path(file)
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
    return "video" if source.suffix.lower() in VIDEO_SUFFIXES else "image"


def _settle(
    kind: str,
    inputs: list[Path],
    out: Path | None,
    uncertainty: Path | None,
    overwrite: bool,
    layers: bool,
    samples: int,
) -> dict[str, Path | list[Path]]:
    """Where the results go, by their options, made sure of before a model is opened; the first input is coloured.

    Of several samples each is `--out` with its number in its name.
    """
    from knowhue.images.openraster import OPENRASTER, check_output_suffix
    from knowhue.images.writing import MARK, OUTPUT_SUFFIXES, kind_of, writable_suffix
    from knowhue.inference.listing import default_folder, list_folder
    from knowhue.inference.video_formats import VIDEO_SUFFIXES, codec_of, writable_video_suffix
    from knowhue.storage import require_outputs

    source = inputs[0]
    if kind == "folder":
        out = out or default_folder(source)
        files = {*OUTPUT_SUFFIXES, OPENRASTER, *VIDEO_SUFFIXES}
        if not out.is_dir() and (out.exists() or out.suffix.lower() in files):
            raise ConfigError(f"{source} is a folder, so --out should be one; {out} names a file")
        require_outputs({"--out": out / "colorized.jsonl"}, overwrite=True)
        # whose clashes are refused at once
        listing = list_folder(source, out, lambda suffix: OPENRASTER if layers else writable_suffix(suffix))
        lost = {(out / item.output).resolve() for item in listing.items}
        for each in inputs[1:]:
            if each.resolve() in lost:
                raise ConfigError(f"{each} would be replaced by a colouring; name another folder with --out")
        return {"--out": out}
    suffix = (writable_video_suffix if kind == "video" else writable_suffix)(source.suffix)
    suffix = OPENRASTER if layers else suffix
    target = out or source.with_name(f"{source.stem}{MARK}{suffix}")
    if out is not None and out.is_dir():
        target = out / source.with_suffix(suffix).name
    if layers and target.suffix.lower() != OPENRASTER:
        raise ConfigError(
            f"--layers writes OpenRaster, so --out should end in {OPENRASTER}; {target} does not"
        )
    # raise for what cannot be written
    (codec_of(target) if kind == "video" else check_output_suffix(target.suffix))
    outputs: dict[str, Path | list[Path]] = {"--out": target}
    if samples > 1:
        outputs["--out"] = [target.with_stem(f"{target.stem}-{number}") for number in range(1, samples + 1)]
    if uncertainty is not None:
        kind_of(uncertainty.suffix)
        outputs["--uncertainty"] = uncertainty
    require_outputs(outputs, inputs, overwrite=overwrite)
    return outputs


def _hints_of(source: Path, file: Path | None, listed: Mapping[str, list[str]]) -> list[str]:
    """What a table says of a single image: all that names none, and what names this one, by any end of its path."""
    path = f"/{source.absolute().as_posix()}"
    found = [
        text for name, texts in listed.items() if not name or path.endswith(f"/{name}") for text in texts
    ]
    if file is not None and not found:
        raise ConfigError(f"{file} has no hint for {source.name}; its column `file` names {few([*listed])}")
    return found


def _image(
    choice: ModelChoice,
    inputs: list[Path],
    outputs: Mapping[str, Path | list[Path]],
    options: "ColorizeOptions",
    hints: list[str],
    strokes: Path | None,
    reference: Path | None,
    overwrite: bool,
) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Colour one image once, or several times: the record of each for --json, and its class in words, if it has one."""
    from knowhue.images.openraster import check_output_suffix
    from knowhue.images.reading import read_image
    from knowhue.images.writing import writable_suffix
    from knowhue.inference.colorizer import write_colorized
    from knowhue.inference.colour_distribution import require_sample
    from knowhue.inference.written_hints import parse_hint, read_strokes
    from knowhue.storage import require_outputs

    source = inputs[0]
    # hints are placed by the image's size, and refused before a model is opened
    image = read_image(source)
    map_file, out = outputs.get("--uncertainty"), outputs["--out"]
    files = [out] if isinstance(out, Path) else out
    _say_if_renamed(source.suffix, writable_suffix(source.suffix), files[0])
    height, width = image.pixels.shape[:2]
    options = options._replace(
        hints=tuple(parse_hint(text, width, height) for text in hints),
        strokes=None if strokes is None else read_strokes(strokes, width, height),
    )
    for path in (*files, *([map_file] if isinstance(map_file, Path) else ())):
        check_output_suffix(path.suffix, image)  # raises where the format cannot hold this image
    colorizer, options = _open_with_reference(choice, options, reference)
    require_sample(len(files), colorizer.network)
    require_outputs(outputs, inputs, overwrite=overwrite)  # one may have appeared while the model was opened
    for number, out in enumerate(files, 1):
        # the uncertainty is the model's, whichever answer is asked for
        wanted = options._replace(sample=number, uncertainty=options.uncertainty and number == 1)
        made = colorizer.colorize(image, wanted)
        # No lock: files appear whole by replacing, so of two commands with one output the later one's image stands.
        require_outputs({"--out": out}, inputs, overwrite=overwrite)  # it may have appeared meanwhile
        notes = write_colorized(image, made.image, out)
        record = {"path": str(source), "output": str(out), **made.judgement.as_record()}
        record["warnings"] += notes
        if made.uncertainty is not None and isinstance(map_file, Path):
            require_outputs({"--uncertainty": map_file}, inputs, overwrite=overwrite)
            record["uncertainty"] = _write_uncertainty(made, map_file)
        record["model"] = colorizer.network.description.name
        yield record, made.judgement.headline()


def _write_uncertainty(made: "Colorized", target: Path) -> dict[str, Any]:
    from knowhue.images.writing import write_image

    assert made.uncertainty is not None
    write_image(made.uncertainty_map(), target)
    return {"mean": round(float(made.uncertainty.mean()), 3), "map": str(target)}


def _open_with_reference(
    choice: ModelChoice, options: "ColorizeOptions", reference: Path | None
) -> "tuple[Colorizer, ColorizeOptions]":
    """A model that colours, and the options with the reference as it sees that, which is read before it is opened."""
    from knowhue.images.reading import read_image

    photo = None if reference is None else read_image(reference)
    announce([choice])
    colorizer = open_model(choice, "colour")
    return colorizer, options if photo is None else options._replace(reference=colorizer.reference(photo))


def _many(
    choice: ModelChoice,
    kind: str,
    source: Path,
    out: Path,
    options: "ColorizeOptions",
    reference: Path | None,
    **how: Any,
) -> "Summary | VideoSummary":
    """Colour a folder or a video, see `colorize_folder` and `colorize_video` for how."""
    from knowhue.apps.progress import showing_progress

    if kind == "video":
        from knowhue.inference.video import colorize_video as run
        from knowhue.inference.video import require_video
        from knowhue.inference.video_formats import writable_video_suffix

        require_video(source)
        _say_if_renamed(source.suffix, writable_video_suffix(source.suffix), out)
    else:
        from knowhue.inference.folder import colorize_folder as run
    colorizer, options = _open_with_reference(choice, options, reference)
    with showing_progress() as report:
        return run(colorizer, source, out, options=options, **how, report=report)


def _sentences(record: dict, headline: str | None) -> list[str]:
    lines = [f"{record['path']} -> {record['output']}"]
    lines += [f"  note: {warning}" for warning in record["warnings"]]
    if headline is not None:
        lines.append(f"  class: {headline}")
    lines.append(f"  colourfulness {record['colourfulness']:.1f}, mean chroma {record['chroma']:.1f}")
    if record["found_in_reference"] is not None:
        lines.append(f"  found in the reference: {100 * record['found_in_reference']:.0f} % of the photo")
    if "uncertainty" in record:
        lines.append(
            f"  uncertainty {record['uncertainty']['mean']:.1f} units on average: {record['uncertainty']['map']}"
        )
    return [*lines, f"  model: {record['model']}"]


def _say_what_was_made(record: dict[str, Any], lines: Iterable[str], as_json: bool) -> None:
    if as_json:
        say_json(record)
    else:
        say(*lines)
