"""`knowhue score`: colourings from any source against the true images."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import Field

from knowhue.apps.program import Options, OverwriteOption, Rare, command_line, rare_option, say
from knowhue.apps.progress import showing_progress
from knowhue.errors import ConfigError, few, one_of, plural
from knowhue.metric_table import RECOGNITION
from knowhue.storage import replacing, require_outputs, write_csv, write_json
from knowhue.temporary import temporary_folder

if TYPE_CHECKING:
    from knowhue.scoring.pairing import Pairs
    from knowhue.scoring.protocols import NetworkOptions, Protocol
    from knowhue.scoring.table import Scores

_Value = TypeVar("_Value")
NetworkOption = Annotated[
    _Value, typer.Option(rich_help_panel="Scores by networks, which need torch and time")
]
CACHE = ".knowhue-score"
MOST_THREADS = 256


class ScoreArguments(Options):
    """Arguments and options of `knowhue score`."""

    systems: Annotated[list[str], typer.Argument()]
    """folders of colourings, or NAME=FOLDER. Several samples of an image are in `sample-1/`, `sample-2/` and so on, or
    are named `photo-1.png`, `photo-2.png` and so on"""
    truth: Path
    """folder of the true images, which are paired by relative path without the suffix"""
    protocol: Annotated[str | None, typer.Option(show_default="stretch-256")] = None
    """how images are compared: `stretch-256`, `crop-256`, `original`, or a YAML file with the fields of a protocol"""
    out: Annotated[Path | None, typer.Option("--out", "-o", show_default="score.html")] = None
    """page to write, `.html`; `.json`, `.tex` and `.per_image.csv` are written next to it"""
    reference: str | None = None
    """name of the system that the others are compared with; by default the first"""
    check: Path | None = None
    """compute the numbers of an earlier `.json` again, without writing anything; exits with 1 if any differs"""
    networks: NetworkOption[str | None] = None
    """networks to score with, separated by commas: `lite0` (Fréchet and kernel distance), `inception` (FID, KID),
    `lpips`, `recognition` (by a probe of true colours, with folders as classes); by default none"""
    classifier: NetworkOption[str | None] = None
    """classifier from timm that classifies the colourings: `timm:resnet50` (downloaded), `timm:resnet50=FILE`
    (.safetensors, .pth), or `timm:tf_efficientnet_lite0=package`"""
    classes: NetworkOption[Path | None] = None
    """text file with a line for each output of the classifier: the folder of that class, or empty. By default folders
    are named by WordNet ids"""
    inception_weights: NetworkOption[Path | None] = None
    """weights of torch-fidelity's Inception-v3; downloaded by default"""
    lpips_weights: NetworkOption[Path | None] = None
    """weights of torchvision's AlexNet; downloaded by default"""
    common: Rare[bool] = False
    """score only the images that all systems have, instead of refusing incomplete systems"""
    beside: Rare[list[Path] | None] = None
    """an earlier `.json` whose systems are added to the tables; may be repeated"""
    workers: Annotated[int | None, Field(ge=1, le=MOST_THREADS), rare_option(show_default="all cores")] = None
    """number of threads; results do not depend on it"""
    cache: Annotated[Path | None, rare_option(show_default=f"{CACHE} next to the page")] = None
    """folder for measurements, which are used again by later commands"""
    overwrite: OverwriteOption = False

    @property
    def page(self) -> Path:
        return self.out or Path("score.html")

    @property
    def cache_folder(self) -> Path:
        return self.cache or self.page.parent / CACHE

    @property
    def network_options(self) -> "NetworkOptions":
        """The networks to score with, and their files."""
        from knowhue.scoring.protocols import NetworkOptions

        return NetworkOptions(*(getattr(self, name) for name in NetworkOptions._fields))


def score(arguments: ScoreArguments) -> None:
    """Score colourings of several systems against the true images, pair by pair, with intervals and a page."""
    from knowhue.scoring.files import read_earlier_scores
    from knowhue.scoring.pairing import pair
    from knowhue.scoring.protocols import read_protocol

    if arguments.classes is not None and arguments.classifier is None:
        raise ConfigError("`--classes` names the outputs of `--classifier`. Give both, or neither.")
    if arguments.check is not None:
        _require_check_alone(arguments)
        _check(arguments, arguments.check)
        return
    chosen, beside = read_protocol(arguments.protocol or "stretch-256"), arguments.beside or []
    outputs = _outputs(arguments.page)
    _require_arguments(arguments, chosen)
    require_outputs({"--out": list(outputs.values())}, beside, overwrite=arguments.overwrite)
    pairs = pair(arguments.truth, arguments.systems, arguments.common)
    earlier, notes = read_earlier_scores(beside, chosen, pairs)
    scores = _measure(arguments, pairs, chosen, "--beside", beside)
    _write(scores._replace(beside=earlier, beside_notes=notes), outputs)


def _require_check_alone(arguments: ScoreArguments) -> None:
    taken = ("protocol", "out", "reference", "networks", "beside", "cache", "overwrite")
    if unused := [name for name in taken if getattr(arguments, name)]:
        why = f"takes options from {arguments.check} and writes nothing"
        raise ConfigError(f"`--check` {why}. Found `--{unused[0]}`: leave it out.")


def _outputs(page: Path) -> dict[str, Path]:
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"`--out` should end in .html. Found `{page}`.")
    beside = {"json": ".json", "tex": ".tex", "csv": ".per_image.csv"}
    return {"page": page} | {name: page.with_suffix(suffix) for name, suffix in beside.items()}


def _require_arguments(arguments: ScoreArguments, protocol: "Protocol") -> None:
    """Make sure, before work, that everything needed for scoring is there."""
    from knowhue.scoring.pairing import require_folders
    from knowhue.scoring.protocols import require_networks

    require_networks(protocol, arguments.network_options)
    if arguments.cache_folder.is_file():
        found = f"Found the file `{arguments.cache_folder}`. Name another, or move the file."
        raise ConfigError(f"`--cache` should be a folder. {found}")
    names = require_folders(arguments.truth, arguments.systems)
    if arguments.reference is not None and arguments.reference not in names:
        raise ConfigError(one_of("reference", arguments.reference, names))


def _measure(
    arguments: ScoreArguments, pairs: "Pairs", protocol: "Protocol", option: str, others: Sequence[Path]
) -> "Scores":
    """Measure, and score with networks, which must be those of the earlier scores that an option names."""
    from knowhue.scoring.files import require_same_networks
    from knowhue.scoring.parts import measure_rows
    from knowhue.scoring.table import make_scores

    opened = found = None
    if arguments.networks is not None or arguments.classifier is not None:
        from knowhue.scoring.networks import open_scorers

        opened = open_scorers(arguments.network_options, pairs, protocol.primary)
    require_same_networks(option, others, opened.about if opened else {})
    began, threads = time.monotonic(), arguments.workers or os.cpu_count() or 1
    cache_folder = arguments.cache_folder
    with showing_progress() as report:
        measured = measure_rows(pairs, protocol, cache_folder, threads, report)
        if opened is not None:
            from knowhue.scoring.networks import run_networks

            found = run_networks(pairs, protocol, measured, opened, arguments.reference, cache_folder, report)
    images = plural(len(pairs.truth), "image")
    say(f"{images}, {len(measured)} rows: {time.monotonic() - began:.1f} s", err=True)
    return make_scores(pairs, protocol, measured, arguments.reference, found)


def _write(scores: "Scores", outputs: Mapping[str, Path]) -> None:
    from knowhue.scoring.files import image_rows, to_json
    from knowhue.scoring.page import render, sentence, to_latex

    write_csv(outputs["csv"], image_rows(scores))
    for name, text in (("tex", to_latex(scores)), ("page", render(scores, command_line()))):
        with replacing(outputs[name]) as file:
            file.write(text)
    write_json(outputs["json"], to_json(scores))
    say(*(f"note: {each}" for each in (*scores.all_notes, *scores.all_remarks)), err=True)
    primary = [each for each in scores.differences if each.measure == scores.protocol.primary]
    sentences = [sentence(scores, each) for each in primary]
    say(*_lines(scores), *sentences, f"Protocol: {scores.protocol.name}, SHA-256 {scores.protocol.digest}")
    say(f"Page: {outputs['page']}")


def _lines(scores: "Scores") -> list[str]:
    from knowhue.report.text import TableCell, terminal_table
    from knowhue.scoring.files import shown_value

    main = ("ciede2000", "ab_l1", "psnr_rgb", "ssim_rgb", "colourfulness", *RECOGNITION)
    shown = {name: scores.measures[name] for name in main if name in scores.measures}
    rows = [["", *(each.short for each in shown.values())]]
    for row, values in scores.rows.items():
        rows.append([row, *(shown_value(each, values.get(name)) for name, each in shown.items())])
    return terminal_table([list(map(TableCell, row)) for row in rows])


def _check(arguments: ScoreArguments, path: Path) -> None:
    from knowhue.scoring.files import compare_json, read_score_file, to_json
    from knowhue.scoring.pairing import named_folders, pair
    from knowhue.scoring.protocols import Protocol

    earlier = read_score_file(path)
    folders, names = dict(named_folders(arguments.systems)), [each["name"] for each in earlier["systems"]]
    if set(folders) != set(names):
        raise ConfigError(f"The systems should be those of `{path}`: {few(names)}. Found {few([*folders])}.")
    chosen = Protocol.model_validate(earlier["protocol"]["settings"])
    _require_classifier(arguments, earlier, path)
    with temporary_folder("What is measured again") as empty:
        changes = {
            "systems": [f"{name}={folders[name]}" for name in names],  # in the order of the file
            "networks": earlier["networks"].get("asked") or None,
            "reference": earlier["reference"],
            "cache": empty,  # so that everything is measured again
        }
        arguments = arguments.model_copy(update=changes)
        _require_arguments(arguments, chosen)
        pairs = pair(arguments.truth, arguments.systems, arguments.common)
        scores = _measure(arguments, pairs, chosen, "--check", [path])
    count, problems = compare_json(earlier, to_json(scores))
    say(*problems, err=True)
    found = f"{len(problems)} differ" if problems else "all as stored"
    say(f"{path}: {count} numbers computed again: {found}")
    if problems:
        raise typer.Exit(1)


def _require_classifier(arguments: ScoreArguments, earlier: Mapping[str, Any], path: Path) -> None:
    """Make sure that a classifier is given if the earlier score had one, because its file does not name the weights."""
    about = earlier["networks"].get("classifier")
    if about is not None and arguments.classifier is None:
        raise ConfigError(
            f"`{path}` was made with a classifier. Give it again, with the =FILE or =package that it had, and its "
            f"--classes: --classifier timm:{about['network']}"
        )
    if about is None and arguments.classifier is not None:
        raise ConfigError(f"`{path}` was made without a classifier. Found `--classifier`: leave it out.")
