"""ONNX Runtime: models in one .onnx file, which needs neither torch nor onnx, and what is not let into it.

A file may be a stranger's: it is searched before it is opened, bounded in memory, and left if it takes too long. A
tensor may say that its values lie in another file or at an address in memory; an operator may hold a graph of its own
and repeat it. The runtime would follow both, so a file is searched before the runtime sees it; message and field
numbers are those of `onnx.proto3` (ONNX 1.23), the encoding is protobuf's.
"""

import functools
import os
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from knowhue.color import FloatArray
from knowhue.errors import WeightsError, first_line
from knowhue.inference.description import KEY, Description, read_description
from knowhue.inference.networks import (
    COLOUR_LOGITS,
    FEATURES,
    Predictions,
    check_activations,
    check_predictions,
    require_activations,
)

PARITY_KEY = "knowhue.parity"
"""Metadata: largest differences to torch, found at export; JSON."""
INT8_KEY = "knowhue.int8"
"""Metadata: what 8 bits cost, measured; JSON."""
INPUT = "lightness"
OUTPUTS = ("chroma", "probabilities", "novelty")
TASK_OF = {"chroma": "colour", "probabilities": "class"}

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
SECONDS, SECONDS_A_PIXEL = 10.0, 1e-4
"""How long a stranger's file may take: to open, and beside it a pixel, some hundred times what an honest one takes."""
_GRACE_SECONDS = 1.0  # after `terminate`, which the runtime hears between two operators only
_MOST_BYTES = 8 << 30
_FATAL = 4  # of the runtime's levels of its log
_LATE = "did not answer in many times the time that an honest one takes"
_T = TypeVar("_T")


class Session:
    """A graph that answers in time and in bounded memory, or is not asked again; threads may share it."""

    def __init__(self, session: Any, seconds_a_pixel: float | None) -> None:
        """Wrap the runtime's session; one whose time is None may take as long as it does."""
        self.inputs, self.outputs = session.get_inputs(), session.get_outputs()
        """as the runtime describes them, each with `name`, `type` and `shape`"""
        self.metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
        """what the file says beside its graph"""
        self._session = session
        self._seconds_a_pixel = seconds_a_pixel
        self._is_stuck = False

    def run(self, outputs: Sequence[str], inputs: Mapping[str, FloatArray]) -> list[FloatArray]:
        """Some outputs by name.

        Raises:
            WeightsError: the file takes too long or too much memory, or fails.
        """
        if self._is_stuck:
            raise WeightsError(f"The model {_LATE}, and is not asked again.")
        options = onnxruntime.RunOptions()
        options.log_severity_level = _FATAL
        pixels = sum(values.size / values.shape[1] for values in inputs.values())
        each = self._seconds_a_pixel
        seconds = None if each is None else SECONDS + each * pixels
        try:
            return within(
                seconds,
                lambda: self._session.run(outputs, inputs, options),
                lambda: setattr(options, "terminate", True),
            )
        except TimeoutError:
            self._is_stuck = True
            raise WeightsError(f"The model {_LATE}. Use another.") from None
        except Exception as error:  # the runtime's errors have no common root but this
            raise WeightsError(f"The model failed in ONNX Runtime: {_reason(error)}. Use another.") from None


class OnnxNetwork:
    """Runs on a GPU where the installed runtime has one, else on the CPU; that of `open_graph` on the CPU alone."""

    runtime = "onnx"

    def __init__(self, session: Session, description: Description) -> None:
        self.description = description
        self._session = session
        self.activation_names = _activations_of(session)
        self._outputs = _outputs_of(description)

    def predict(self, lightness: FloatArray) -> Predictions:
        return self.predict_with(lightness, ())[0]

    def predict_with(
        self, lightness: FloatArray, names: Sequence[str]
    ) -> tuple[Predictions, dict[str, FloatArray]]:
        """See `Network`."""
        require_activations(names, self)
        asked = [*self._outputs, *names]
        found = dict(zip(asked, self._session.run(asked, {INPUT: lightness[:, None]}), strict=True))
        answers = Predictions(found.get("chroma"), found.get("probabilities"), found["novelty"])
        on_the_way = check_activations({name: found[name] for name in names}, lightness)
        return check_predictions(answers, self.description, lightness), on_the_way


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
    # it ends: if it is late, the machine slept or is crowded
    return OnnxNetwork(Session(_open(data, options, ("CPUExecutionProvider",)), None), description)


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


class _Worker:
    """A thread that does one thing after the other; it keeps the runtime's scratch memory warm between them."""

    def __init__(self) -> None:
        self._todo: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._run, name="knowhue-onnx", daemon=True).start()

    def do(self, work: Callable[[], _T]) -> "Future[_T]":
        done: Future[_T] = Future()
        self._todo.put((work, done))
        return done

    def end(self) -> None:
        """Do no more, once what was begun is done, if ever."""
        self._todo.put(None)

    def _run(self) -> None:
        while (given := self._todo.get()) is not None:
            work, done = given
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)
            del given, work, done  # an idle worker must not hold the last images


_idle: list[_Worker] = []  # a pool of threads would wait at exit for one that hangs


def within(seconds: float | None, work: Callable[[], _T], stop: Callable[[], None] = lambda: None) -> _T:
    """What some work returns or raises, if it does in time.

    It is done in a thread, for the runtime hears neither signals nor, within one operator, that it should stop; a
    thread that does not end is left, and ends with the process.

    Args:
        seconds: allowed; None for as many as it takes.
        work: what is to be done.
        stop: asks the work to end, once the time is up.

    Raises:
        TimeoutError: it did not.

    >>> within(9, lambda: 6 * 7)
    42
    """
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    done = worker.do(work)
    wait([done], seconds)
    if not done.done():  # the worker is lost, and not used again
        stop()
        wait([done], _GRACE_SECONDS)
        worker.end()
        raise TimeoutError
    _idle.append(worker)
    return done.result()


def open_session(
    data: bytes, path: Path, threads: int = 0, seconds_a_pixel: float = SECONDS_A_PIXEL
) -> Session:
    """Open the bytes of a file that was searched; it never waits for ever.

    Args:
        data: of the file.
        path: for the messages.
        threads: for the work within an image; 0 takes one a core.
        seconds_a_pixel: how long it may take to answer.

    Raises:
        WeightsError: the runtime cannot read it, or not in time.
    """
    try:
        session = within(
            SECONDS + len(data) * 1e-7, functools.partial(_open, data, session_options(threads), PROVIDERS)
        )
    except TimeoutError:
        raise WeightsError(
            f"`{path}` should be a readable .onnx file. Found one that takes too long to open."
        ) from None
    except Exception as error:  # the runtime's errors have no common root but this
        raise WeightsError(f"`{path}` should be a readable .onnx file. Found: {_reason(error)}.") from None
    return Session(session, seconds_a_pixel)


def _open(data: bytes, options: onnxruntime.SessionOptions, providers: Sequence[str]) -> Any:
    _bound_memory()
    return onnxruntime.InferenceSession(
        data,
        options,
        providers=[name for name in providers if name in onnxruntime.get_available_providers()],
        disabled_optimizers=["ConstantFolding"],  # it would compute here, beyond any bound of memory
    )


@functools.cache
def _bound_memory() -> None:
    """Let all sessions of this process compute within one store of at most half the machine's memory."""
    most = min(_MOST_BYTES, _memory_bytes() // 2)
    kind = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    exactly_as_asked = 1
    bounds = {"max_mem": most, "arena_extend_strategy": exactly_as_asked}
    onnxruntime.create_and_register_allocator(kind, onnxruntime.OrtArenaCfg(bounds))


def _memory_bytes() -> int:
    """Of the machine; twice the bound where the system does not say, as Windows does not."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2 * _MOST_BYTES


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Of a session that takes the one bounded store of memory, and the runtime's own format for none."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _FATAL  # what goes wrong is raised; twice is too often
    # not the runtime's own format, which is not checked here
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # the one bounded store of `_bound_memory`, not another for each session
    options.add_session_config_entry("session.use_env_allocators", "1")
    return options


def _reason(error: Exception) -> str:
    # before it stand the names of the runtime and of its error, parted by colons
    return first_line(error).rpartition(" : ")[2].rstrip(".")


OPERATORS = frozenset({
    "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose",
    "DequantizeLinear", "Div", "Einsum", "Equal", "Erf", "Exp", "Expand", "Flatten", "Gather", "GatherND",
    "Gelu", "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization",
    "LayerNormalization", "LeakyRelu", "Log", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Pad", "Pow",
    "QuantizeLinear", "Range", "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum", "Relu",
    "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh",
    "TopK", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
"""What our exporter and quantiser write, and their like: none repeats a graph, none is random."""
_DOMAINS = frozenset({"", "ai.onnx"})
_PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {4: "operator", 5: "attribute", 7: "domain"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "elsewhere", 14: "location"},
}
"""By kind of message, which fields lead to an operator, or to a tensor's `external_data` or `data_location`."""

_VARINT, _EIGHT_BYTES, _MESSAGE, _FOUR_BYTES = 0, 1, 2, 5
_FIXED = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}


def refuse_unsafe(
    data: bytes, path: Path, known: Collection[str], operators: str, joining: str, mending: str
) -> None:
    """Make sure that a stranger's file reads no other one, and does nothing but what is known.

    Raises:
        WeightsError: it does not keep to that, or is no ONNX model.
    """
    try:
        elsewhere, operator = reads_elsewhere(data), foreign_operator(data, known)
    except ValueError as error:
        raise WeightsError(f"`{path}` should be a readable .onnx file. Found {error}.") from None
    if elsewhere:
        raise WeightsError(
            f"`{path}` should hold all of its weights. Found weights that are to be read from elsewhere. {joining}"
        )
    if operator is not None:
        raise WeightsError(f"`{path}` should be made of {operators}. Found {operator}. {mending}")


def read_bytes(path: Path) -> bytes:
    """The bytes of a stranger's file.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"`{path}` should be a readable .onnx file. Found: {error.strerror}.") from None


def reads_elsewhere(data: bytes) -> bool:
    """Whether any tensor of an ONNX model, however deep, says that its values lie outside the file.

    Raises:
        ValueError: the bytes are not the encoding of a message.
    """
    return any(
        part == "elsewhere" or (part == "location" and not _is_here(data, encoding, first, last))
        for part, encoding, first, last in _parts(data)
    )


def _is_here(data: bytes, encoding: int, first: int, last: int) -> bool:
    """Whether a `data_location` is 0, which files say whose weights were joined."""
    return encoding == _VARINT and _varint(data, first, last)[0] == 0


def foreign_operator(data: bytes, known: Collection[str]) -> str | None:
    """The name of an operator of an ONNX model, however deep, that is none of the known; None if there is none.

    An operator that the model defines itself is foreign, too.

    Raises:
        ValueError: the bytes are not the encoding of a message.
    """
    for part, encoding, first, last in _parts(data):
        if part == "function":
            return "a function of its own"
        if part in ("operator", "domain") and encoding == _MESSAGE:
            name = data[first:last].decode("utf-8", "replace")
            if name not in (known if part == "operator" else _DOMAINS):
                return ascii(name)[1:-1][:60]
    return None


def _parts(data: bytes) -> Iterator[tuple[str, int, int, int]]:
    """What `_PARTS` names, encoding, first byte and end of each such field, wherever it lies."""
    waiting = [("model", 0, len(data))]  # a stack, not recursion: messages may lie a million deep
    while waiting:
        kind, start, end = waiting.pop()
        for number, encoding, first, last in _fields(data, start, end):
            part = _PARTS[kind].get(number)
            if part is not None:
                yield part, encoding, first, last
            if part in _PARTS and encoding == _MESSAGE:
                waiting.append((part, first, last))


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, encoding, first byte and end of each field of the message at `start` to `end`."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        first = at
        if tag & 7 == _VARINT:
            _, at = _varint(data, at, end)
        elif tag & 7 == _MESSAGE:
            length, first = _varint(data, at, end)
            at = first + length
        elif tag & 7 in _FIXED:
            at += _FIXED[tag & 7]
        else:
            raise ValueError(f"protobuf wire type {tag & 7} at byte {first}")
        if at > end:
            raise ValueError(f"a field beyond its message at byte {first}")
        yield tag >> 3, tag & 7, first, at


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at `at`, and where the next byte is."""
    value = shift = 0
    while at < end and shift < 70:  # 64 bits are ten bytes; longer numbers are an attack
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError(f"an endless number at byte {at}")
