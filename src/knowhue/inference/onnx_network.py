"""A deployed model run by ONNX Runtime, from one .onnx file; needs neither torch nor onnx.

The file may be a stranger's, so it is searched and run as `onnx_session` says.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from knowhue.errors import WeightsError
from knowhue.inference.description import KEY, Description, read_description
from knowhue.inference.networks import (
    COLOUR_LOGITS,
    FEATURES,
    FloatArray,
    Predictions,
    check_activations,
    check_predictions,
    require_activations,
)
from knowhue.inference.onnx_session import (
    OPERATORS,
    Session,
    open_own,
    open_session,
    read_bytes,
    refuse_unsafe,
    session_options,
)

PARITY_KEY = "knowhue.parity"
"""Metadata: largest differences to torch, found at export; JSON."""
INT8_KEY = "knowhue.int8"
"""Metadata: what 8 bits cost, measured; JSON."""
INPUT = "lightness"
OUTPUTS = ("chroma", "probabilities", "novelty")
TASK_OF = {"chroma": "colour", "probabilities": "class"}


class OnnxNetwork:
    """Runs on a GPU where the installed runtime has one, else on the CPU; that of `open_graph` on the CPU alone."""

    runtime = "onnx"

    def __init__(self, session: Session, description: Description) -> None:
        self.description = description
        self._session = session
        self.activation_names = _activations_of(session)
        self._outputs = _outputs_of(description)

    def predict(self, lightness: FloatArray) -> Predictions:
        """Predict for L* (B, h, w), 0 to 100; any h and w.

        Raises:
            WeightsError: the file takes too long, unless it is ours, or too much memory, or answers what no model
                should.
        """
        return self.predict_with(lightness, ())[0]

    def predict_with(
        self, lightness: FloatArray, names: Sequence[str]
    ) -> tuple[Predictions, dict[str, FloatArray]]:
        """Both, see `Network`."""
        require_activations(names, self)
        found = self._run([*self._outputs, *names], lightness)
        answers = Predictions(found.get("chroma"), found.get("probabilities"), found["novelty"])
        on_the_way = check_activations({name: found[name] for name in names}, lightness)
        return check_predictions(answers, self.description, lightness), on_the_way

    def activations(self, lightness: FloatArray, names: Sequence[str]) -> dict[str, FloatArray]:
        """What the network computes on the way, see `Network`; errors as of `predict`, too."""
        require_activations(names, self)
        return check_activations(self._run(names, lightness), lightness)

    def _run(self, outputs: Sequence[str], lightness: FloatArray) -> dict[str, FloatArray]:
        arrays = self._session.run(outputs, {INPUT: lightness[:, None]})
        return dict(zip(outputs, arrays, strict=True))


def open_onnx(path: Path, threads: int = 0) -> OnnxNetwork:
    """Open a .onnx file that `knowhue export` made; runs no code from it, reads no other file, never waits for ever.

    Args:
        path: the file.
        threads: for the work within an image; 0 takes one a core.

    Raises:
        WeightsError: it is missing, damaged, or not such a file.
    """
    return network_of(read_bytes(path), path, threads)


def network_of(data: bytes, path: Path, threads: int = 0) -> OnnxNetwork:
    """What `open_onnx` does, of bytes; `path` is for the messages.

    Raises:
        WeightsError: damaged, or not a file that `knowhue export` made.
    """
    operators, again = "operators that `knowhue export` writes", "Export the run again"
    refuse_unsafe(
        data, path, OPERATORS, operators, f"{again}.", f"{again}; another's model goes with its `recipe`."
    )
    session = open_session(data, path, threads)
    description = read_description(session.metadata.get(KEY), path)
    _check_signature(session, description, path)
    return OnnxNetwork(session, description)


def open_graph(path: Path, description: Description, weights: Mapping[str, NDArray[Any]]) -> OnnxNetwork:
    """Run a graph of our own, whose weights lie in another file, in one thread of the CPU, however long it takes."""
    data = path.read_bytes()
    options = session_options(threads=1)
    used = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values, np.float32))
        for name, values in weights.items()
        if name.encode() in data
    }
    options.add_external_initializers(list(used), list(used.values()))
    return OnnxNetwork(open_own(data, options), description)


def _outputs_of(description: Description) -> list[str]:
    return [name for name in OUTPUTS if TASK_OF.get(name) in (None, *description.tasks)]


def _activations_of(session: Session) -> tuple[str, ...]:
    """Names of what a graph gives beside the answers, as far as it is what such a name means."""
    return tuple(
        each.name
        for each in session.outputs
        if (each.name == COLOUR_LOGITS or re.fullmatch(rf"{FEATURES}[1-9]\d*", each.name))
        and (each.type, len(each.shape)) == ("tensor(float)", 4)
    )


def _check_signature(session: Session, description: Description, path: Path) -> None:
    """The graph takes and gives what its description says."""
    inputs = [(each.name, each.type, len(each.shape)) for each in session.inputs]
    found = {each.name: each for each in session.outputs}
    # another signature would fail later, with the runtime's words
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
