"""`knowhue export` and `knowhue log`: models as single files, scores as a table, runs for trackers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from knowhue.apps.models import announce, deploy_once
from knowhue.apps.program import Options, OverwriteOption, Rare, rare_option, require_folder, say
from knowhue.errors import ConfigError, few, needing, quoted, should_be
from knowhue.inference.description import ModelChoice
from knowhue.inference.networks import TorchNetwork, find_model, needs_deployment, open_torch
from knowhue.locks import locked
from knowhue.report.trackers import log_runs, read_logged
from knowhue.runs import require_no_run
from knowhue.statistics import ALPHA
from knowhue.storage import real_path, require_outputs
from knowhue.temporary import temporary_folder

UNITS = {"chroma": "CIELAB units", "probabilities": "", "novelty": ""}
_VISIBLE = 2.3  # just noticeable difference in CIELAB units (Mahy, Van Eycken and Oosterlinck 1994)
_WEIGHTS = ("float32", "float16")
PRECISIONS_OF = {"safetensors": _WEIGHTS, "hub-folder": _WEIGHTS, "onnx": ("float32", "int8")}


class ExportArguments(Options):
    """Arguments and options of `knowhue export`."""

    source: Annotated[str, typer.Argument()]
    """run or study folder, exported file, or `built-in`; a study folder for --to table"""
    to: Literal["safetensors", "onnx", "hub-folder", "table"] = "safetensors"
    """format to write"""
    out: Annotated[Path | None, typer.Option("--out", "-o")] = None
    """file or folder to write; by default it has the name of the source"""
    precision: Rare[str] = "float32"
    """precision of the weights: `float32`; `float16` for safetensors and hub-folder; `int8` for onnx, with
    --calibrate"""
    calibrate: Rare[Path | None] = None
    """folder of colour images to calibrate int8 with, and to measure its cost"""
    licence: Rare[str] = ""
    """licence of the weights, as the model card states it; by default the licence in the model"""
    overwrite: OverwriteOption = False
    upload: Rare[str | None] = None
    """repository on the Hugging Face hub, `owner/name`, to upload the folder to"""


def export(arguments: ExportArguments) -> None:
    """Write a trained model as a self-contained file or folder, or the scores of a study as a table."""
    _check(arguments)
    if arguments.to == "table":
        _export_table(Path(arguments.source), arguments.out, arguments.overwrite)
        return
    kind, source = arguments.to, arguments.source
    target = arguments.out or Path(real_path(source).name + ("" if kind == "hub-folder" else f".{kind}"))
    _require_target(kind, target, source, arguments.overwrite)
    announce([ModelChoice(source)])
    deploy_once(ModelChoice(source))
    network = _open(source, arguments.licence)
    with locked(target.parent, "export", name=f".{target.name}.lock"):
        _require_target(kind, target, source, arguments.overwrite)  # a file may have appeared meanwhile
        if kind == "onnx":
            _export_onnx(network, target, arguments.calibrate)
        else:
            _export_weights(network, target, arguments.precision, kind)
        if arguments.upload is not None:
            from knowhue.inference.export import upload

            say(f"uploaded: {upload(target, arguments.upload)}")


def _export_table(study: Path, out: Path | None, overwrite: bool) -> None:
    from knowhue.report.reading import read_study
    from knowhue.report.table_export import dictionary_path, metrics_without_images, write_table

    target = out or Path(f"{real_path(study).name}.csv")
    if target.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"`--out` should end in .csv or .parquet for --to table. Found `{target}`.")
    dictionary = dictionary_path(target)
    found = read_study(study)
    require_outputs({"--out": target, "the dictionary next to it": dictionary}, overwrite=overwrite)
    say(f"{target}: {write_table(found, target)} rows; what they mean: {dictionary}")
    runs = (run for arm in found.runs for run in found.of(arm))
    if without := [f"{run.arm} seed {run.seed}" for run in runs if not run.finished]:
        say(f"without scores, because they have not finished: {few(without)}", err=True)
    if lacking := sorted(metrics_without_images(found)):
        say(f"without rows for single images, because some have no score: {', '.join(lacking)}", err=True)
    alpha = found.settings.get("alpha", ALPHA)
    if alpha != ALPHA:
        say(f"alpha is {alpha:g}, so judge it by: knowhue verdict {quoted(target)} --alpha {alpha:g}")


def _check(arguments: ExportArguments) -> None:
    kind, precision = arguments.to, arguments.precision
    calibrate, upload = arguments.calibrate, arguments.upload
    if kind == "table":
        if (precision, calibrate, arguments.licence, upload) != ("float32", None, "", None):
            raise ConfigError(
                "`--to table` should be given without --precision, --calibrate, --licence and --upload, which are for "
                "models."
            )
        return
    if precision not in PRECISIONS_OF[kind]:
        wanted = f"{' or '.join(PRECISIONS_OF[kind])} for --to {kind}"
        raise ConfigError(should_be("precision", wanted, precision))
    if (precision == "int8") != (calibrate is not None):
        raise ConfigError(
            "`--precision int8` and `--calibrate FOLDER` should be given together: one half of the images is for "
            "calibration, the other for measuring the cost of 8 bits."
        )
    if upload is not None and kind != "hub-folder":
        raise ConfigError("`--upload` should be given with `--to hub-folder`, whose files the hub takes.")


def _open(source: str, licence: str) -> TorchNetwork:
    path = find_model(source)
    if path.suffix != ".safetensors":
        why = "it is not a run, study or .safetensors file; export its run"
        raise ConfigError(f"{source} cannot be exported again, because {why}")
    network = open_torch(path)
    stated = {"licence": licence} if licence else {}
    return TorchNetwork(network.module, network.description.model_copy(update=stated))


def _require_target(kind: str, target: Path, source: str, overwrite: bool) -> None:
    """Make sure, before a model is opened, that the output can be written."""
    if kind == "hub-folder":
        from knowhue.inference.export import HUB_FILES

        require_no_run(require_folder(target))
        outputs = [target / name for name in HUB_FILES]
    else:
        if target.suffix != f".{kind}":
            raise ConfigError(f"`--out` should end in .{kind} for --to {kind}. Found `{target}`.")
        outputs = [target]
    inputs = [] if needs_deployment(source) else [find_model(source)]
    require_outputs({"--out": outputs}, inputs, overwrite=overwrite)


def _export_weights(network: TorchNetwork, target: Path, precision: str, kind: str) -> None:
    from knowhue.inference.export import HUB_FILES, export_hub_folder, export_safetensors

    is_folder = kind == "hub-folder"
    differences = (export_hub_folder if is_folder else export_safetensors)(network, target, precision)
    made = f"{target}: {', '.join(HUB_FILES)}" if is_folder else _size(target)
    say(made, _differences(differences, "the original"))


def _export_onnx(network: TorchNetwork, target: Path, calibrate: Path | None) -> None:
    from knowhue.inference.export import export_onnx
    from knowhue.inference.quantize import CALIBRATED_ON, MEASURED_ON, quantize, read_examples

    # before the graph is written, which takes half a minute
    examples = None if calibrate is None else read_examples(calibrate, network.description.size_px)
    say("Writing the graph, and comparing ONNX Runtime with torch ...", err=True)
    if examples is None:
        differences = export_onnx(network, target)
        say(_size(target), _differences(differences, "torch"))
        return
    with temporary_folder("The graph before 8 bits") as folder:
        whole = folder / "float32.onnx"
        differences = export_onnx(network, whole)
        say(f"Calibrating 8 bits on half of the images of {calibrate}, measuring on the others ...", err=True)
        cost = quantize(whole, target, examples)
    say(_size(target), _differences(differences, "torch, before 8 bits"))
    say(f"in 8 bits, measured on {cost.measured_on} images (calibrated on {cost.calibrated_on} others):")
    if cost.left_out:
        most = f"{CALIBRATED_ON} for calibration and {MEASURED_ON} for measuring"
        say(f"  {cost.left_out} more were left out: gray images, and those beyond {most}")
    if cost.chroma is not None:
        say(
            f"  a*b* differ by {cost.chroma:.2f} CIELAB units on average",
            f"  a*b* error {cost.ab_l1_after:.2f} instead of {cost.ab_l1_before:.2f} CIELAB units",
        )
        if cost.chroma > _VISIBLE:
            are_few = cost.calibrated_on < CALIBRATED_ON
            more = f"calibrate on up to {CALIBRATED_ON} images, or " * are_few
            say(f"  This difference is visible. Where it matters, {more}export float32, without --precision.")
    if cost.agreement is not None:
        say(f"  the same class for {100 * cost.agreement:.1f} % of the images")
    if cost.accuracy_before is not None and cost.accuracy_after is not None:
        say(f"  accuracy {100 * cost.accuracy_after:.1f} % instead of {100 * cost.accuracy_before:.1f} %")


def _size(target: Path) -> str:
    return f"{target}: {target.stat().st_size / 1e6:.1f} MB"


def _differences(differences: Mapping[str, float], other: str) -> str:
    parts = [f"{name} {value:.2g} {UNITS.get(name, '')}".strip() for name, value in differences.items()]
    return f"largest difference to {other}: {', '.join(parts)}"


TrackerName = Literal["tensorboard", "mlflow", "wandb"]


class LogArguments(Options):
    """Arguments and options of `knowhue log`."""

    run: Annotated[Path, typer.Argument()]
    """folder of a run, or of a study for all its runs"""
    to: TrackerName
    """tracker to write for; each needs the extra of that name, as in `pip install -e '.[mlflow]'`"""
    out: Annotated[Path, typer.Option("--out", "-o")] = Path("logs")
    """folder in which the tracker's own folder is made"""
    project: Annotated[str | None, rare_option(show_default="the study's name")] = None
    """name of the project (W&B) or experiment (MLflow)"""


def log_command(arguments: LogArguments) -> None:
    """Write settings, curves and scores of runs for TensorBoard, MLflow or W&B; each run is written once."""
    runs, out, to = read_logged(arguments.run), arguments.out, arguments.to
    require_no_run(require_folder(out))
    with locked(out, "log"), needing(f"`knowhue log --to {to}`", to):
        found = log_runs(to, runs, out, arguments.project)
    lines = [f"{name}: written" for name in found.written]
    lines += [f"{name}: already there" for name in found.already]
    say(*lines, f"To see them: {found.see}")
