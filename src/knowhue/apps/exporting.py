"""What `knowhue export` does, and says."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from knowhue.errors import ConfigError
from knowhue.inference.networks.opening import find_model, needs_deployment
from knowhue.inference.networks.sharing import HUB_FILES
from knowhue.inference.networks.torch_network import TorchNetwork, open_torch
from knowhue.runs import locked
from knowhue.storage import require_no_run, require_outputs

UNITS = {"chroma": "CIELAB units", "probabilities": "", "novelty": ""}
PRECISIONS = {
    "safetensors": ("float32", "float16"),
    "hub-folder": ("float32", "float16"),
    "onnx": ("float32", "int8"),
}


def run_export(
    source: str,
    kind: str,
    out: Path | None,
    precision: str,
    calibrate: Path | None,
    licence: str,
    upload: str | None,
    overwrite: bool,
    prepare: Callable[[str], None],
) -> Iterator[str]:
    """Write a model; lines that say what was written and how it was checked.

    `prepare` makes a run ready for use, once all else is right.

    Raises:
        ConfigError: the settings contradict each other, the source cannot be exported again, or what would be written
            exists.
    """
    _check(kind, precision, calibrate, upload)
    target = out or Path(f"{Path(source).resolve().name}{'' if kind == 'hub-folder' else '.' + kind}")
    _settle(kind, target, source, overwrite)
    prepare(source)
    path = find_model(source)
    if path.suffix != ".safetensors":
        raise ConfigError(
            f"`source` should be a run, a study or a .safetensors file. Found `{source}`: export its run again."
        )
    network = _licensed(open_torch(path), licence)
    with locked(target.parent, "export", name=f".{target.name}.lock"):
        _settle(kind, target, source, overwrite)  # nobody has come in between
        yield from EXPORTS[kind](network, target, precision, calibrate)
        if upload is not None:
            from knowhue.inference.networks.sharing import upload as send

            yield f"uploaded: {send(target, upload)}"


def _check(kind: str, precision: str, calibrate: Path | None, upload: str | None) -> None:
    if precision not in PRECISIONS[kind]:
        raise ConfigError(
            f"`--precision` should be {' or '.join(PRECISIONS[kind])} for --to {kind}. Found `{precision}`."
        )
    if (precision == "int8") != (calibrate is not None):
        raise ConfigError(
            "`--precision int8` and `--calibrate FOLDER` should go together: 8 bits are fitted to images, and what "
            "they cost is measured on others of them."
        )
    if upload is not None and kind != "hub-folder":
        raise ConfigError("`--upload` should go with `--to hub-folder`, which makes what the hub takes.")


def _licensed(network: TorchNetwork, licence: str) -> TorchNetwork:
    if not licence:
        return network
    return TorchNetwork(network.module, network.description.model_copy(update={"licence": licence}))


def _settle(kind: str, target: Path, source: str, overwrite: bool) -> None:
    """Make sure, before a model is opened, that it can be written where it is wanted."""
    if kind == "hub-folder":
        require_no_run(target)
        if target.exists() and not target.is_dir():
            raise ConfigError(f"{target} is a file; name a folder with --out")
        outputs = [target / name for name in HUB_FILES]
    else:
        if target.suffix != f".{kind}":
            raise ConfigError(f"`--out` should end in .{kind} for --to {kind}. Found `{target}`.")
        if target.exists() and (target.parent / "status.json").exists():
            require_no_run(target.parent)
        outputs = [target]
    inputs = [] if needs_deployment(source) else [find_model(source)]
    for each in outputs:
        require_outputs({"--out": each}, inputs, overwrite=overwrite)


def _safetensors(network: TorchNetwork, target: Path, precision: str, _: Path | None) -> Iterator[str]:
    from knowhue.inference.networks.sharing import export_safetensors

    differences = export_safetensors(network, target, precision)
    yield f"{target}: {target.stat().st_size / 1e6:.1f} MB"
    yield _said(differences, "the original")


def _hub_folder(network: TorchNetwork, target: Path, precision: str, _: Path | None) -> Iterator[str]:
    from knowhue.inference.networks.sharing import export_hub_folder

    differences = export_hub_folder(network, target, precision)
    yield f"{target}: README.md, config.json, model.safetensors"
    yield _said(differences, "the original")


def _onnx(network: TorchNetwork, target: Path, precision: str, calibrate: Path | None) -> Iterator[str]:
    from knowhue.inference.networks.onnx_export import export_onnx

    if precision == "float32":
        differences = export_onnx(network, target)
        yield f"{target}: {target.stat().st_size / 1e6:.1f} MB"
        yield _said(differences, "torch")
        return
    from knowhue.inference.networks.onnx_int8 import CALIBRATED_ON, MEASURED_ON, quantize

    assert calibrate is not None  # checked before
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "float32.onnx"
        differences = export_onnx(network, whole)
        lost = quantize(whole, target, calibrate)
    yield f"{target}: {target.stat().st_size / 1e6:.1f} MB"
    yield _said(differences, "torch, before 8 bits")
    yield f"in 8 bits, on {lost.measured_on} images ({lost.calibrated_on} others were calibrated on):"
    if lost.left_out:
        yield (
            f"  {lost.left_out} more were left out: at most {CALIBRATED_ON} are calibrated on and {MEASURED_ON} "
            "measured on, and none that are gray"
        )
    if lost.chroma is not None:
        yield f"  a*b* differ by {lost.chroma:.2f} CIELAB units on average"
        yield f"  a*b* error {lost.ab_l1_after:.2f} instead of {lost.ab_l1_before:.2f} CIELAB units"
    if lost.agreement is not None:
        yield f"  the same class in {lost.agreement:.1%}"
    if lost.accuracy_before is not None:
        yield f"  accuracy {lost.accuracy_after:.1%} instead of {lost.accuracy_before:.1%}"


def _said(differences: Mapping[str, float], other: str) -> str:
    parts = [f"{name} {value:.2g} {UNITS.get(name, '')}".strip() for name, value in differences.items()]
    return f"largest difference to {other}: {', '.join(parts)}"


EXPORTS: dict[str, Callable[[TorchNetwork, Path, str, Path | None], Iterator[str]]] = {
    "safetensors": _safetensors,
    "onnx": _onnx,
    "hub-folder": _hub_folder,
}
