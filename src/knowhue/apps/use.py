"""`knowhue colorize`: colours and classes by a trained model."""

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from pydantic import Field

from knowhue.apps.models import ModelOptions, announce, deploy_once, open_model, require_choice
from knowhue.apps.program import JobOptions, OverwriteOption, Rare, WorkOption, require_folder, say, say_json
from knowhue.apps.progress import showing_progress
from knowhue.config import MAX_SATURATION, digest
from knowhue.errors import ConfigError, ImageError, few, shown, system_reason
from knowhue.images.image import STATE, SUFFIXES, broken_link
from knowhue.inference.description import model_as_used
from knowhue.inference.video_formats import VIDEO_SUFFIXES, codec_of, writable_video_suffix
from knowhue.runs import path_hint
from knowhue.settings_text import plain_name
from knowhue.storage import is_url, require_outputs

if TYPE_CHECKING:
    from knowhue.images.image import Image
    from knowhue.inference.colorizer import ColorizeOptions, Colorizer
    from knowhue.inference.listing import Listing, Summary
    from knowhue.inference.video import VideoSummary


_OF_KINDS = {
    "hint": ("image",), "hints": ("image", "folder"), "strokes": ("image",), "samples": ("image",),
    "uncertainty": ("image",), "reference": ("image", "folder"), "layers": ("image", "folder", "archive"),
    "unknown_below": ("image", "folder", "video", "archive"), "album": ("folder",), "on_error": ("folder",),
    "workers": ("archive",), "engine": ("archive",), "engine_set": ("archive",),
    "fast": ("image", "folder", "archive"),
}  # fmt: skip
"""Kinds of input that an option applies to; options that are not listed apply to all."""
_ARTICLES = {
    "image": "an image",
    "folder": "a folder",
    "video": "a video",
    "archive": "an archive (--shards, or a URL)",
}
_Value = TypeVar("_Value")
ColourOption = Annotated[_Value, typer.Option(rich_help_panel="Choosing colours")]


class ColorizeArguments(JobOptions, ModelOptions):
    """Arguments and options of `knowhue colorize`."""

    file: Annotated[str, typer.Argument(metavar="INPUT")]
    """an image, a video, a folder of images, or the URL of an object store such as `s3://bucket/photos`"""
    out: Annotated[str | None, typer.Option("--out", "-o")] = None
    """file or folder to write; by default INPUT's name with `-colour`. Required if INPUT is a URL"""
    hint: ColourOption[list[str] | None] = None
    """a colour at a point, x and y from the top left in pixels or per cent: `120,80=#c83232` or `30%,40%=orange`; may
    be repeated"""
    hints: ColourOption[Path | None] = None
    """table of hints, .csv or .json, with columns `x`, `y`, `colour`; a table for a folder also needs `file`"""
    strokes: ColourOption[Path | None] = None
    """transparent PNG of the size of the photo; painted pixels give the colours there"""
    reference: ColourOption[Path | None] = None
    """colour photo of the same or a similar scene, whose colours are used"""
    album: ColourOption[bool] = False
    """give all photos of a folder a similar mean colour"""
    saturation: Annotated[ColourOption[float], Field(ge=0, le=MAX_SATURATION)] = 1.0
    """factor for the chroma of the colours; 0 is gray"""
    layers: bool = False
    """write OpenRaster (.ora) with the gray photo and, above it, its colours as a layer"""
    samples: Annotated[ColourOption[int], Field(ge=1, le=16)] = 1
    """number of different colourings of a photo, to choose from; the first is the default one"""
    uncertainty: Path | None = None
    """image file to write with a map of the uncertainty of the colours, 5 gray levels per CIELAB unit"""
    unknown_below: Annotated[Rare[float | None], Field(ge=0, le=1)] = None
    """report the class as `unknown` if its probability is below this; by default the model decides"""
    json_: bool = False
    """print JSON instead of text, one line for each image, or one for a folder, a video or an archive"""
    overwrite: OverwriteOption = False
    on_error: Rare[Literal["skip", "stop"]] = "skip"
    """in a folder, skip images that cannot be read, or stop at the first; images that were begun are finished"""
    shards: Annotated[WorkOption[int | None], Field(ge=1)] = None
    """number of jobs that the images of a folder or an object store are divided into (docs/scale.md)"""

    @property
    def inputs(self) -> list[Path]:
        """All files that are read; INPUT is the first."""
        return [Path(self.file), *(each for each in (self.hints, self.strokes, self.reference) if each)]

    @property
    def suffix(self) -> str | None:
        """The suffix of all outputs; None keeps the format of each image."""
        from knowhue.images.writing import OPENRASTER

        return OPENRASTER if self.layers else None

    def restricted(self) -> list[str]:
        """Return the names of the given options that `_OF_KINDS` restricts."""
        fields = type(self).model_fields
        return [name for name in _OF_KINDS if getattr(self, name) != fields[name].default]

    def options(self) -> "ColorizeOptions":
        """Return the options that apply to every image; hints, strokes and the reference are read later."""
        from knowhue.inference.colorizer import ColorizeOptions

        return ColorizeOptions((), self.saturation, self.uncertainty is not None, self.unknown_below)


def colorize(arguments: ColorizeArguments) -> None:
    """Colour and classify a photo, a folder, a video or an archive, keeping size, depth, lightness and metadata."""
    kind, restricted = _kind_of(arguments), arguments.restricted()
    _require_kind(arguments.file, kind, restricted)
    require_choice(arguments.choice, restricted)
    if kind == "image":
        _image(arguments)
        return
    summary = {"archive": _archive, "folder": _folder, "video": _video}[kind](arguments)
    _say_result(summary.as_record(), summary.lines(), arguments.json_)
    # so that a script notices; all other images have been written
    if summary.failed:
        raise typer.Exit(1)


def _require_kind(source: str, kind: str, options: Iterable[str]) -> None:
    for name in options:
        if kind not in _OF_KINDS[name]:
            kinds = " or ".join(_ARTICLES[each] for each in _OF_KINDS[name])
            table = "; name its images in a table, --hints" if (name, kind) == ("hint", "folder") else ""
            raise ConfigError(f"`{name}` applies to {kinds}; {source} is {_ARTICLES[kind]}{table}")


def _kind_of(arguments: ColorizeArguments) -> str:
    from knowhue.images.reading import is_image

    if is_url(arguments.file) and Path(arguments.file).suffix.lower() in SUFFIXES:
        remedy = "download it, and name the file. A URL must name a folder, such as s3://bucket/photos"
        raise ConfigError(f"{arguments.file}: a single image; {remedy}")
    if arguments.shards is not None or is_url(arguments.file) or is_url(arguments.out or ""):
        return "archive"
    source = Path(arguments.file)
    try:
        mode = source.stat().st_mode
    except OSError as error:
        if isinstance(error, FileNotFoundError) and source.is_symlink():
            raise ImageError(f"{source}: {broken_link(source)}") from None
        if arguments.file == "-":
            raise ImageError("-: standard input is not read; save the image as a file first") from None
        raise ImageError(f"{source}: {system_reason(error)}") from None
    if stat.S_ISDIR(mode):
        return "folder"
    if not stat.S_ISREG(mode):  # opening a pipe could block forever
        raise ImageError(f"{source}: a device or a pipe, not a file; save it as a file first")
    if is_image(source):  # by its content, not its name
        return "image"
    if hint := path_hint(source):
        raise ImageError(f"{source}: not an image.{hint}")
    # an input without a video suffix counts as a video if the output has one
    names = source, Path(arguments.out or "")
    return "video" if any(each.suffix.lower() in VIDEO_SUFFIXES for each in names) else "image"


def _output_files(arguments: ColorizeArguments, image: "Image | None" = None) -> list[Path]:
    """Return the output files: one, or one for each sample with its number in the name; `image` is None for a video."""
    from knowhue.images.writing import MARK, OPENRASTER, check_output_suffix, kind_of, writable_suffix

    source, out = Path(arguments.file), arguments.out
    suffix = (writable_video_suffix if image is None else writable_suffix)(source.suffix)
    suffix = arguments.suffix or suffix
    # a folder that does not exist is made, like the parents of a file
    is_folder = out is not None and (os.path.isdir(out) or out.endswith(("/", os.sep)))
    target = source.with_name(f"{source.stem}{MARK}{suffix}") if out is None else Path(out)
    if is_folder:
        target = require_folder(target, named=str(out)) / source.with_suffix(suffix).name
    if arguments.layers and target.suffix.lower() != OPENRASTER:
        raise ConfigError(f"--layers writes OpenRaster: --out should end in {OPENRASTER}; {target} does not")
    if image is None:
        codec_of(target)
    else:
        check_output_suffix(target.suffix, image)
    files = [target.with_stem(f"{target.stem}-{number}") for number in range(1, arguments.samples + 1)]
    files = files if arguments.samples > 1 else [target]
    maps = [] if arguments.uncertainty is None else [arguments.uncertainty]
    for path in maps:
        kind_of(path.suffix, image)
    require_outputs({"--out": files, "--uncertainty": maps}, arguments.inputs, overwrite=arguments.overwrite)
    return files


def _say_if_format_changes(arguments: ColorizeArguments, out: Path) -> None:
    """Tell the user that the input's format cannot be written and another is used, unless --out named that."""
    suffix = Path(arguments.file).suffix
    if arguments.suffix is None and out.suffix not in (suffix, Path(arguments.out or "").suffix):
        say(f"{suffix or 'This format'} can be read but not written; writing {out.name}", err=True)


def _list_folder(arguments: ColorizeArguments) -> "Listing":
    """List the images of a folder with their outputs and hints."""
    from knowhue.inference.hints import read_hints
    from knowhue.inference.listing import default_folder, list_folder

    source, *others = arguments.inputs
    out = default_folder(source) if arguments.out is None else Path(arguments.out)
    require_folder(out)
    # read now, so that wrong hints are refused before a model is opened
    hints = {} if arguments.hints is None else read_hints(arguments.hints)
    listing = list_folder(source, out, arguments.suffix, hints)
    lost = {os.path.realpath(out / item.output) for item in listing.items}
    for each in others:
        if os.path.realpath(each) in lost:
            raise ConfigError(f"{each} would be replaced by a colouring; name another folder with --out")
    return listing


def _hints_of(source: Path, file: Path | None) -> Sequence[str]:
    """Return the hints of a table for one image: those without a file name, and those that match most of its path."""
    from knowhue.inference.hints import read_hints

    if file is None:
        return []
    listed = read_hints(file)
    path = plain_name(f"/{source.absolute().as_posix()}")
    matching = [name for name in map(plain_name, listed) if name and path.endswith(f"/{name}")]
    # in a table for a folder, `a.png` and `deep/a.png` are different images
    nearest = max(matching, key=len, default="")
    found = [text for name, texts in listed.items() if plain_name(name) in ("", nearest) for text in texts]
    if not found:
        names = f"its column `file` names {few([*map(shown, listed)])}"
        remedy = f"Write {source.name} there, or leave the column out"
        raise ConfigError(f"{file} has no hint for {source.name}; {names}. {remedy}")
    return found


def _image(arguments: ColorizeArguments) -> None:
    """Colour an image, once for each sample, and print the results; lines that samples share are printed once."""
    from knowhue.images.reading import read_image
    from knowhue.images.writing import write_image
    from knowhue.inference.colorizer import write_colorized
    from knowhue.inference.colour_distribution import require_sample
    from knowhue.inference.hints import parse_hints, strokes_of

    source, strokes, map_file = Path(arguments.file), arguments.strokes, arguments.uncertainty
    hints = [*(arguments.hint or ()), *_hints_of(source, arguments.hints)]
    # the image comes first, because its size places the hints; wrong hints are refused before a model is opened
    image = read_image(source)
    files = _output_files(arguments, image)
    _say_if_format_changes(arguments, files[0])
    height, width = image.pixels.shape[:2]
    options = arguments.options()._replace(
        hints=parse_hints(hints, width, height),
        strokes=None if strokes is None else strokes_of(read_image(strokes), str(strokes), width, height),
    )
    colorizer, options = _open_with_reference(arguments, options)
    require_sample(len(files), colorizer.network)
    require_free = partial(require_outputs, inputs=arguments.inputs, overwrite=arguments.overwrite)
    first_of: dict[str, int] = {}
    printed: set[str] = set()
    for number, out in enumerate(files, 1):
        # the uncertainty is the same for all samples
        sample_options = options._replace(sample=number, uncertainty=options.uncertainty and number == 1)
        colorized = colorizer.colorize(image, sample_options)
        # No lock is needed: files are replaced atomically, so with two commands the later one wins.
        require_free({"--out": [out]})  # a file may have appeared meanwhile
        notes = write_colorized(image, colorized.image, out)
        record = {"path": str(source), "output": str(out), **colorized.judgement.as_record()}
        record["warnings"] += notes
        first = first_of.setdefault(hashlib.sha256(colorized.image.pixels.tobytes()).hexdigest(), number)
        if first < number:
            why = "the model is sure, the photo is black or white, or reference, hints, strokes or saturation decide"
            record["warnings"].append(f"the same as sample {first}: samples do not differ where {why}")
        if colorized.uncertainty is not None and map_file is not None:
            require_free({"--uncertainty": [map_file]})
            write_image(colorized.uncertainty_map(), map_file)
            mean = round(float(colorized.uncertainty.mean()), 3)
            record["uncertainty"] = {"mean": mean, "map": str(map_file)}
        record |= {"model": colorizer.network.description.name, "fast": colorized.fast}
        lines = _sentences(record, colorized.judgement.headline())
        _say_result(record, [line for line in lines if line not in printed], arguments.json_)
        printed.update(lines)


def _open_with_reference(
    arguments: ColorizeArguments, options: "ColorizeOptions"
) -> "tuple[Colorizer, ColorizeOptions]":
    """Open the model, and add the reference, which is read before, to the options."""
    from knowhue.images.reading import read_image

    photo = None if arguments.reference is None else read_image(arguments.reference)
    announce([arguments.choice])
    colorizer = open_model(arguments.choice, "colour")
    if photo is not None:
        options = options._replace(reference=colorizer.reference(photo, str(arguments.reference)))
    return colorizer, options


def _video(arguments: ColorizeArguments) -> "VideoSummary":
    from knowhue.inference.video import colorize_video, require_video

    source = Path(arguments.file)
    (out,) = _output_files(arguments)  # --samples is refused for videos
    require_video(source)
    _say_if_format_changes(arguments, out)
    colorizer, options = _open_with_reference(arguments, arguments.options())
    with showing_progress() as report:
        return colorize_video(
            colorizer, source, out, options=options, overwrite=arguments.overwrite, report=report
        )


def _folder(arguments: ColorizeArguments) -> "Summary":
    from knowhue.inference.folder import colorize_folder

    listing = _list_folder(arguments)
    colorizer, options = _open_with_reference(arguments, arguments.options())
    with showing_progress() as report:
        return colorize_folder(
            colorizer, listing, options=options, album=arguments.album, overwrite=arguments.overwrite,
            stops=arguments.on_error == "stop", report=report,
        )  # fmt: skip


def _archive(arguments: ColorizeArguments) -> "Summary":
    from knowhue.archive import colorize_archive
    from knowhue.inference.listing import default_folder

    source = arguments.file
    if not is_url(source) and not Path(source).is_dir():
        found = f"Found `{source}`, which is not a folder"
        raise ConfigError(f"`--shards` and object stores need a folder of images as input. {found}.")
    if arguments.out is None and is_url(source):
        places = "another URL such as s3://bucket/colours, or a folder"
        raise ConfigError(f"`--out` should be given for the URL of a store: {places}.")
    out = arguments.out if arguments.out is not None else str(default_folder(Path(source)))
    if not is_url(out):
        require_folder(Path(out))
    # an engine's files for its jobs need a folder that all machines share
    root = Path(STATE) / digest(out)[:12] if is_url(out) else Path(out) / STATE
    executor = arguments.open_engine(root)
    announce([arguments.choice])
    deploy_once(arguments.choice, "colour")
    with showing_progress() as report:
        return colorize_archive(
            source, out, model=arguments.choice, options=arguments.options(), suffix=arguments.suffix,
            shards=arguments.shards, executor=executor, overwrite=arguments.overwrite, report=report,
        )  # fmt: skip


def _sentences(record: dict, headline: str | None) -> list[str]:
    lines = [f"{record['path']} -> {record['output']}"]
    lines += [f"  note: {warning}" for warning in record["warnings"]]
    if headline is not None:
        lines.append(f"  class: {headline}")
    lines.append(f"  colourfulness {record['colourfulness']:.1f}, mean chroma {record['chroma']:.1f}")
    if record["found_in_reference"] is not None:
        lines.append(f"  found in the reference: {100 * record['found_in_reference']:.0f} % of the photo")
    if found := record.get("uncertainty"):
        lines.append(f"  uncertainty {found['mean']:.1f} units on average: {found['map']}")
    return [*lines, f"  model: {model_as_used(record['model'], record['fast'])}"]


def _say_result(record: dict[str, Any], lines: Iterable[str], as_json: bool) -> None:
    if as_json:
        say_json(record)
    else:
        say(*lines)
