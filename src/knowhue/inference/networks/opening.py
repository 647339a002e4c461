"""Which file a model's name means, and who runs it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from knowhue.errors import RunError, WeightsError
from knowhue.inference.networks.network import FloatArray, Network
from knowhue.runs import DEPLOYED, finished_run, read_status

BUILT_IN = "built-in"
HUB_FILE = "model.safetensors"
_TRIAL: FloatArray = np.tile(np.linspace(0, 100, 47, dtype=np.float32), (2, 32, 1))
"""Two small images, neither square nor a whole number of strides."""


def open_network(source: str | Path = BUILT_IN) -> Network:
    """Open a model by what it is stored as, and let it answer once.

    Args:
        source: `built-in`; a file that `knowhue export` made, `.safetensors` or `.onnx`; a folder for the hub; a
            run folder, or a study's, that has been exported once.

    Raises:
        WeightsError: there is none, it cannot be read, or it answers what no model should.
        ExtraError: it needs a package that is not installed.
    """
    path = find_model(source)
    if path.suffix not in OPENERS:
        raise WeightsError(
            f"`model` should be a {' or '.join(OPENERS)} file, a run folder or `{BUILT_IN}`. Found `{source}`."
        )
    network = OPENERS[path.suffix](path)
    try:
        network.predict(_TRIAL)
    except WeightsError as error:
        raise WeightsError(f"`{path}` cannot be used. {error}") from None
    return network


def find_model(source: str | Path) -> Path:
    """The file that a model's name means.

    Raises:
        WeightsError: there is none.
    """
    if str(source) == BUILT_IN:
        return Path(__file__).parent.parent / "built_in.safetensors"
    path = Path(source)
    if not str(source) or not path.exists():
        raise WeightsError(
            f"`model` should be `{BUILT_IN}`, a run folder, or a file that `knowhue export` made. Found no `{source}`."
        )
    return _in_folder(path) if path.is_dir() else path


def needs_deployment(source: str | Path) -> Path | None:
    """The finished run that `source` means, if it has not been exported yet."""
    path = Path(source)
    if str(source) == BUILT_IN or not path.is_dir() or _exported(path):
        return None
    try:
        run = finished_run(path)
    except RunError:
        return None  # `find_model` says what is wrong
    return None if _exported(run) else run


def _exported(path: Path) -> Path | None:
    """The file of an exported run, or of a folder made for the hub, which unlike a run has no status."""
    if (path / DEPLOYED).exists() and read_status(path).get("state") != "diverged":
        return path / DEPLOYED
    is_hub = (path / HUB_FILE).exists() and not (path / "status.json").exists()
    return path / HUB_FILE if is_hub else None


def _in_folder(path: Path) -> Path:
    found = _exported(path)
    if found is not None:
        return found
    try:
        run = finished_run(path)
    except RunError as error:
        raise WeightsError(str(error)) from None
    if not (run / DEPLOYED).exists():
        raise WeightsError(
            f"`{run}` should have been exported once, which fits its class probabilities: "
            f"`knowhue export {run}`, or `knowhue.deploy(Path({str(run)!r}))`."
        )
    return run / DEPLOYED


def _open_torch(path: Path) -> Network:
    from knowhue.inference.networks.torch_network import open_torch

    return open_torch(path)


def _open_onnx(path: Path) -> Network:
    from knowhue.inference.networks.onnx_network import open_onnx

    return open_onnx(path)


OPENERS: dict[str, Callable[[Path], Network]] = {".safetensors": _open_torch, ".onnx": _open_onnx}
