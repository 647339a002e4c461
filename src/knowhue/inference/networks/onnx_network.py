"""A deployed model run by ONNX Runtime, from one .onnx file; needs neither torch nor onnx."""

import json
from pathlib import Path
from typing import Any

from knowhue.description import Description
from knowhue.errors import ExtraError, WeightsError
from knowhue.inference.networks.described import KEY, read_description
from knowhue.inference.networks.network import Answers, FloatArray
from knowhue.inference.networks.onnx_guard import reads_elsewhere

PARITY_KEY = "knowhue.parity"
"""Metadata: largest differences to torch, found at export; JSON."""
INT8_KEY = "knowhue.int8"
"""Metadata: what 8 bits cost, measured; JSON."""
INPUT = "lightness"
OUTPUTS = ("chroma", "probabilities", "novelty")
TASK_OF = {"chroma": "colour", "probabilities": "class"}
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_FATAL = 4


class OnnxNetwork:
    """Runs on a GPU where the installed runtime has one, else on the CPU.

    Attributes:
        measured: what was measured when the file was made: by `parity`, largest differences to torch; by `int8`,
            what 8 bits cost.
    """

    runtime = "onnx"

    def __init__(self, session: Any, description: Description, measured: dict[str, Any]) -> None:
        self.description = description
        self.measured = measured
        self._session = session
        self._outputs = _outputs_of(description)

    def predict(self, lightness: FloatArray) -> Answers:
        """Answer for L* (B, h, w), 0 to 100; any h and w."""
        found = dict(
            zip(self._outputs, self._session.run(self._outputs, {INPUT: lightness[:, None]}), strict=True)
        )
        return Answers(found.get("chroma"), found.get("probabilities"), found["novelty"])


def open_onnx(path: Path, threads: int = 0) -> OnnxNetwork:
    """Open a .onnx file that `knowhue export` made; runs no code from it, reads no other file.

    Args:
        path: the file.
        threads: for the work within a picture; 0 takes one a core.

    Raises:
        WeightsError: it is missing, damaged, or not such a file.
        ExtraError: ONNX Runtime is not installed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"`{path}` should be a readable .onnx file. Found: {error.strerror}.") from None
    return network_of(data, path, threads)


def network_of(data: bytes, path: Path, threads: int = 0) -> OnnxNetwork:
    """What `open_onnx` does, of bytes; `path` is for the messages.

    Raises:
        WeightsError: damaged, or not a file that `knowhue export` made.
        ExtraError: ONNX Runtime is not installed.
    """
    runtime = _runtime()
    _refuse_references(data, path)
    try:
        session = runtime.InferenceSession(data, _options(runtime, threads), providers=_providers(runtime))
    except Exception as error:  # the runtime's errors have no common root but this
        raise WeightsError(
            f"`{path}` should be a readable .onnx file. Found: {_first_line(error)}."
        ) from None
    metadata = session.get_modelmeta().custom_metadata_map
    description = read_description(metadata.get(KEY), path)
    _check_signature(session, description, path)
    measured = {
        name: json.loads(metadata[key])
        for name, key in (("parity", PARITY_KEY), ("int8", INT8_KEY))
        if key in metadata
    }
    return OnnxNetwork(session, description, measured)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ExtraError(
            "An .onnx model needs ONNX Runtime. Install it with: pip install 'knowhue[onnx]'"
        ) from None
    return onnxruntime


def _options(runtime: Any, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _FATAL  # what goes wrong is raised; twice is too often
    options.add_session_config_entry(
        "session.load_model_format", "ONNX"
    )  # not the runtime's own, unchecked one
    return options


def _providers(runtime: Any) -> list[str]:
    return [name for name in PROVIDERS if name in runtime.get_available_providers()]


def _outputs_of(description: Description) -> list[str]:
    return [name for name in OUTPUTS if TASK_OF.get(name) in (None, *description.tasks)]


def _refuse_references(data: bytes, path: Path) -> None:
    try:
        refused = reads_elsewhere(data)
    except ValueError as error:
        raise WeightsError(f"`{path}` should be a readable .onnx file. Found {error}.") from None
    if refused:
        raise WeightsError(
            f"`{path}` should hold all of its weights, as `knowhue export` writes it. Found weights that are to be "
            "read from elsewhere. Export the run again."
        )


def _check_signature(session: Any, description: Description, path: Path) -> None:
    """The graph takes and gives what its description says."""
    inputs = [(each.name, each.type, len(each.shape)) for each in session.get_inputs()]
    found = {each.name: each for each in session.get_outputs()}
    fits = inputs == [(INPUT, "tensor(float)", 4)] and all(
        name in found and found[name].type == "tensor(float)" for name in _outputs_of(description)
    )
    if "class" in description.tasks and fits:
        fits = found["probabilities"].shape[-1] == len(description.classes)
    if not fits:
        raise WeightsError(
            f"`{path}` should take and give what its description says. Found inputs {[each[0] for each in inputs]} and "
            f"outputs {list(found)}. Export the run again."
        )


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0].rpartition(" : ")[2].rstrip(".")
