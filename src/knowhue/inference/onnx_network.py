"""ONNX Runtime: models in one .onnx file, which needs neither torch nor onnx, and what is not let into it.

A file may be a stranger's: it is searched before the runtime sees it, bounded in memory, and left if it takes too
long. A tensor may say that its values lie in another file or at an address in memory; an operator may hold a graph of
its own and repeat it. The runtime would follow both.
"""

import functools
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

# before it is loaded, or it sends what models are opened to its makers, and keeps that below ~/.cache meanwhile
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from knowhue.color import FloatArray
from knowhue.errors import WeightsError, first_line
from knowhue.inference.description import KEY, Description, read_description
from knowhue.inference.networks import (
    COLOUR_LOGITS,
    FEATURES,
    Predictions,
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
        """Some outputs by name; a `WeightsError` if the file takes too long or too much memory, or fails."""
        if self._is_stuck:
            raise WeightsError(f"The model {_LATE}, and is not asked again.")
        options = onnxruntime.RunOptions()
        options.log_severity_level = _FATAL
        pixels = sum(values.size / values.shape[1] for values in inputs.values())
        each = self._seconds_a_pixel
        try:
            return within(
                None if each is None else SECONDS + each * pixels,
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
        self._outputs = [name for name in OUTPUTS if TASK_OF.get(name) in (None, *description.tasks)]

    def predict(self, lightness: FloatArray, names: Sequence[str] = ()) -> Predictions:
        """See `Network`."""
        require_activations(names, self)
        asked = [*self._outputs, *names]
        found = dict(zip(asked, self._session.run(asked, {INPUT: lightness[:, None]}), strict=True))
        answers = Predictions(
            found.get("chroma"),
            found.get("probabilities"),
            found["novelty"],
            {name: found[name] for name in names},
        )
        return check_predictions(answers, self.description, lightness)


def open_onnx(path: Path, threads: int = 0) -> OnnxNetwork:
    """Open a .onnx file that `knowhue export` made; runs no code from it, reads no other file, never waits for ever.

    An image is worked on by so many threads, 0 for one a core. A `WeightsError` if it is missing, damaged or another.
    """
    return network_of(read_bytes(path), path, threads)


def network_of(data: bytes, path: Path, threads: int = 0) -> OnnxNetwork:
    """What `open_onnx` does, of bytes; `path` is for the messages."""
    refuse_unsafe(data, path)
    session = open_session(data, path, threads)
    return OnnxNetwork(session, read_description(session.metadata.get(KEY), path))


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


def _activations_of(session: Session) -> tuple[str, ...]:
    """Names of what a graph gives beside the answers, as far as it is what such a name means."""
    return tuple(
        each.name
        for each in session.outputs
        if (each.name == COLOUR_LOGITS or re.fullmatch(rf"{FEATURES}[1-9]\d*", each.name))
        and (each.type, len(each.shape)) == ("tensor(float)", 4)
    )


def within(seconds: float | None, work: Callable[[], _T], stop: Callable[[], None] = lambda: None) -> _T:
    """What some work returns or raises, if it does in so many seconds; None for as many as it takes.

    It is done in a thread, for the runtime hears neither signals nor, within one operator, that it should stop; a
    thread that does not end by `stop` is left, and ends with the process: a `TimeoutError`.

    >>> within(9, lambda: 6 * 7)
    42
    """
    done: Future[_T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    # not a pool's, which would wait at exit for one that hangs
    threading.Thread(target=run, name="knowhue-onnx", daemon=True).start()
    wait([done], seconds)
    if not done.done():
        stop()
        wait([done], _GRACE_SECONDS)
        raise TimeoutError
    return done.result()


def open_session(
    data: bytes, path: Path, threads: int = 0, seconds_a_pixel: float = SECONDS_A_PIXEL
) -> Session:
    """Open the bytes of a file that was searched, or raise a `WeightsError`; it never waits for ever.

    `path` is for the messages; an image is worked on by so many threads, 0 for one a core.
    """
    try:
        session = within(
            SECONDS + len(data) * 1e-7, functools.partial(_open, data, session_options(threads), PROVIDERS)
        )
        return Session(session, seconds_a_pixel)  # a damaged file's metadata may be no text
    except TimeoutError:
        raise WeightsError(
            f"`{path}` should be a readable .onnx file. Found one that takes too long to open."
        ) from None
    except Exception as error:  # the runtime's errors have no common root but this
        raise WeightsError(f"`{path}` should be a readable .onnx file. Found: {_reason(error)}.") from None


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
    "Abs", "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat",
    "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "CumSum", "DepthToSpace", "DequantizeLinear", "Div",
    "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND",
    "Gelu", "Gemm", "GlobalAveragePool", "Greater", "GreaterOrEqual", "GroupNormalization", "HardSigmoid", "HardSwish",
    "Identity", "InstanceNormalization", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax",
    "LpNormalization", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "NonZero", "Not",
    "OneHot", "Or", "PRelu", "Pad", "Pow", "QuantizeLinear", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "Round",
    "ScatterElements", "ScatterND", "Selu", "Shape", "Sigmoid", "Sign", "Sin", "Size", "Slice", "Softmax", "Softplus",
    "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "TopK", "Transpose", "Trilu",
    "Unsqueeze", "Upsample", "Where",
})  # fmt: skip
"""What our exporter and others' write: none repeats a graph, none is random."""
_DOMAINS = frozenset({"", "ai.onnx"})
_PARTS = {
    "Model": {"graph": (7, "Graph"), "training": (20, "Training"), "function": (25, "Function")},
    "Training": {"first": (1, "Graph"), "step": (2, "Graph")},
    "Graph": {"node": (1, "Node"), "tensor": (5, "Tensor"), "sparse": (15, "Sparse")},
    "Function": {"node": (7, "Node"), "attribute": (11, "Attribute")},
    "Node": {"operator": (4, "bytes"), "attribute": (5, "Attribute"), "domain": (7, "bytes")},
    "Attribute": {
        "tensor": (5, "Tensor"), "graph": (6, "Graph"), "tensors": (10, "Tensor"), "graphs": (11, "Graph"),
        "sparse": (22, "Sparse"), "sparses": (23, "Sparse"),
    },
    "Sparse": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Tensor": {"elsewhere": (13, "bytes"), "location": (14, "int64")},
}  # fmt: skip
"""Number and type of the fields of `onnx.proto3` (ONNX 1.23) that lead to an operator, or to a tensor's `external_data`
or `data_location`, by kind of message."""


def refuse_unsafe(data: bytes, path: Path) -> None:
    """Raise a `WeightsError` where a file is no ONNX model, reads another file, or does what is not known."""
    from google.protobuf.message import DecodeError

    try:
        elsewhere, foreign = find_unsafe(data)
    except DecodeError:
        raise WeightsError(f"`{path}` should be a readable .onnx file. Found no ONNX model.") from None
    if elsewhere:
        raise WeightsError(
            f"`{path}` should hold all of its weights. Found weights that are to be read from elsewhere. Join them: "
            '`onnx.save(onnx.load("model.onnx"), "joined.onnx")`.'
        )
    if foreign is not None:
        raise WeightsError(
            f"`{path}` should be made of ONNX's own operators, without loops, branches and chance. Found {foreign}. "
            "Export the run again, or another's model anew, traced at one size."
        )


def read_bytes(path: Path) -> bytes:
    """The bytes of a stranger's file; a `WeightsError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"`{path}` should be a readable .onnx file. Found: {error.strerror}.") from None


def find_unsafe(data: bytes) -> tuple[bool, str | None]:
    """Look through all parts of an ONNX model, however deep.

    Returns:
        Whether a tensor says that its values lie outside the file, and the name of an operator that is none of
        `OPERATORS`, or the model's own; None if there is none.

    Raises:
        DecodeError: the bytes are no message of protobuf.
    """
    elsewhere, foreign = False, None
    waiting = [_model().FromString(data)]
    while waiting:
        part = waiting.pop()
        kind = part.DESCRIPTOR.name
        if kind == "Tensor":
            # 0 is here, which files say whose weights were joined
            elsewhere |= bool(part.elsewhere) or any(part.location)
        elif kind == "Function":
            foreign = "a function of its own"
        elif kind == "Node":
            for names, known in ((part.operator, OPERATORS), (part.domain, _DOMAINS)):
                found = [name.decode("utf-8", "replace") for name in names]
                foreign = next((ascii(name)[1:-1][:60] for name in found if name not in known), foreign)
        for field, values in part.ListFields():
            waiting += values if field.message_type is not None else ()
    return elsewhere, foreign


@functools.cache
def _model() -> Any:
    """The class of an ONNX model as far as `_PARTS` goes; `onnx` would bring it whole, and 0.14 s to every start."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="onnx_parts.proto", package="knowhue")
    for part, fields in _PARTS.items():
        message = file.message_type.add(name=part)
        for name, (number, kind) in fields.items():
            # repeated, all of them: of what stands twice a reader may take either
            field = message.field.add(name=name, number=number, label=kinds.LABEL_REPEATED)
            if kind in _PARTS:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".knowhue.{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("knowhue.Model"))
