"""Models in one .onnx file, run by ONNX Runtime without torch or onnx, and checks of untrusted files.

A file can come from anybody, so it is checked before the runtime loads it, its memory is limited, and it is abandoned
if it takes too long. A tensor can refer to another file or to an address in memory, and an operator can contain a graph
and repeat it; the runtime would do both.
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

# set before the import: the runtime would send telemetry about opened models, and cache it below ~/.cache
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from knowhue.color import FloatArray
from knowhue.errors import WeightsError, first_line, shown, system_reason
from knowhue.inference.description import KEY, Description, read_description
from knowhue.inference.networks import (
    COLOUR_LOGITS,
    FEATURES,
    Predictions,
    check_predictions,
    require_activations,
)
from knowhue.storage import kind_of_bytes

PARITY_KEY = "knowhue.parity"
"""Metadata key of the largest differences from torch, measured at export; JSON."""
INT8_KEY = "knowhue.int8"
"""Metadata key of the measured cost of 8 bits; JSON."""
INPUT = "lightness"
OUTPUTS = ("chroma", "probabilities", "novelty")
TASK_OF = {"chroma": "colour", "probabilities": "class"}

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
SECONDS, SECONDS_A_PIXEL = 10.0, 1e-4
"""Time limit of an untrusted file, per call and in addition per pixel: some hundred times what a normal one takes."""
_GRACE_SECONDS = 1.0  # after `terminate`, which the runtime checks only between two operators
_MOST_BYTES = 8 << 30
_FATAL = 4  # log level of the runtime
_TOO_SLOW = "took many times as long as a normal one"
_T = TypeVar("_T")


class Session:
    """A graph with a limit on time and memory, which is not run again after it took too long; thread-safe."""

    def __init__(self, session: Any, seconds_a_pixel: float | None) -> None:
        """Wrap the runtime's session; there is no time limit if `seconds_a_pixel` is None."""
        self.inputs, self.outputs = session.get_inputs(), session.get_outputs()
        """descriptions by the runtime, each with `name`, `type` and `shape`"""
        self.metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
        self.signature = f"{_shapes(self.inputs)} and {_shapes(self.outputs)}"
        """inputs and outputs as messages show them, such as `input: float (1, 1, 256, 256) and output: float (...)`"""
        self._session = session
        self._seconds_a_pixel = seconds_a_pixel
        self._is_stuck = False

    def run(self, outputs: Sequence[str], inputs: Mapping[str, FloatArray]) -> list[FloatArray]:
        """Compute some outputs by name; a `WeightsError` if that fails or takes too long or too much memory."""
        if self._is_stuck:
            raise WeightsError(f"The model {_TOO_SLOW}, and is not run again.")
        options = onnxruntime.RunOptions()
        options.log_severity_level = _FATAL
        pixels = sum(values.size / values.shape[1] for values in inputs.values())
        a_pixel = self._seconds_a_pixel
        try:
            return run_with_timeout(
                None if a_pixel is None else SECONDS + a_pixel * pixels,
                lambda: self._session.run(outputs, inputs, options),
                lambda: setattr(options, "terminate", True),
            )
        except TimeoutError:
            self._is_stuck = True
            raise WeightsError(f"The model {_TOO_SLOW}. Use another model.") from None
        except Exception as error:  # the runtime's errors have no other common base class
            raise WeightsError(
                f"The model failed in ONNX Runtime: {_reason(error)}. Use another model."
            ) from None


def _shapes(tensors: Sequence[Any]) -> str:
    listed = "; ".join(f"{each.name}: {each.type[7:-1]} {tuple(each.shape)}" for each in tensors)
    return shown(listed, 200) or "none"


class OnnxNetwork:
    """Runs on a GPU if the installed runtime supports it, else on the CPU; from `open_graph`, always on the CPU."""

    runtime = "onnx"

    def __init__(self, session: Session, description: Description, uses_one_core: bool = False) -> None:
        self.description = description
        self.uses_one_core = uses_one_core
        self._session = session
        self.activation_names = tuple(
            each.name
            for each in session.outputs
            if (each.name == COLOUR_LOGITS or re.fullmatch(rf"{FEATURES}[1-9]\d*", each.name))
            and (each.type, len(each.shape)) == ("tensor(float)", 4)
        )
        self.outputs = [name for name in OUTPUTS if TASK_OF.get(name) in (None, *description.tasks)]

    def predict(self, lightness: FloatArray, names: Sequence[str] = ()) -> Predictions:
        """See `Network`."""
        require_activations(names, self)
        outputs = [*self.outputs, *names]
        found = dict(zip(outputs, self._session.run(outputs, {INPUT: lightness[:, None]}), strict=True))
        activations = {name: found[name] for name in names}
        answers = Predictions(found.get("chroma"), found.get("probabilities"), found["novelty"], activations)
        return check_predictions(answers, self.description, lightness)


def open_onnx(path: Path, threads: int = 0) -> OnnxNetwork:
    """Open an .onnx file that `knowhue export` made, without running code from it or reading other files.

    `threads` work on an image, 0: one per core. Raises like `Colorizer.load`.
    """
    return open_onnx_bytes(read_bytes(path), path, threads)


def open_onnx_bytes(data: bytes, path: Path, threads: int = 0) -> OnnxNetwork:
    """Like `open_onnx`, for the bytes of a file; messages name `path`."""
    refuse_unsafe(data, path)
    session = open_session(data, path, threads)
    network = OnnxNetwork(session, read_description(session.metadata.get(KEY), path))
    _require_signature(session, network.outputs, path)
    return network


def _require_signature(session: Session, outputs: Sequence[str], path: Path) -> None:
    """Raise a `WeightsError` if a graph takes other inputs, takes images of one size only, or lacks an output."""
    inputs = [(each.name, each.type, len(each.shape)) for each in session.inputs]
    is_any_size = inputs == [(INPUT, "tensor(float)", 4)] and not any(
        isinstance(session.inputs[0].shape[axis], int) for axis in (0, 2, 3)
    )
    if not is_any_size or not {*outputs} <= {each.name for each in session.outputs}:
        raise WeightsError(
            f"`{path}` cannot be used. It should take `{INPUT}: float (batch, 1, height, width)` of any size and give "
            f"{', '.join(outputs)}. Found {session.signature}. Export its run again."
        )


def open_graph(path: Path, description: Description, weights: Mapping[str, NDArray[Any]]) -> OnnxNetwork:
    """Open a trusted graph whose weights are in another file: one CPU thread, no time limit."""
    data = path.read_bytes()
    options = session_options(threads=1)
    initializers = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values, np.float32))
        for name, values in weights.items()
        if name.encode() in data
    }
    options.add_external_initializers(list(initializers), list(initializers.values()))
    # no time limit: a trusted graph is late only if the machine slept or is busy
    session = Session(_open(data, options, ("CPUExecutionProvider",)), None)
    return OnnxNetwork(session, description, uses_one_core=True)


def run_with_timeout(
    seconds: float | None, work: Callable[[], _T], stop: Callable[[], None] = lambda: None
) -> _T:
    """Return or raise what `work` does, or raise a `TimeoutError` after some seconds; None: no limit.

    The work runs in a thread, because the runtime ignores signals and, within one operator, requests to stop. A thread
    that `stop` does not end is abandoned and ends with the process.

    >>> run_with_timeout(9, lambda: 6 * 7)
    42
    """
    if seconds is None and threading.current_thread() is not threading.main_thread():
        return work()  # no signal arrives here, and each thread's freed memory stays its own
    done: Future[_T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    # not a thread of a pool, which would wait for it at exit
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
    """Open the bytes of a file that `refuse_unsafe` accepted; a `WeightsError` if that fails or takes too long.

    Messages name `path`; `threads` work on an image, 0: one per core.
    """
    try:
        session = run_with_timeout(
            SECONDS + len(data) * 1e-7, functools.partial(_open, data, session_options(threads), PROVIDERS)
        )
        return Session(session, seconds_a_pixel)  # raises if the metadata of a damaged file is not text
    except TimeoutError:
        raise _unreadable(path, "one that takes too long to open") from None
    except Exception as error:  # the runtime's errors have no other common base class
        raise _unreadable(path, kind_of_bytes(data[:1024]) or _reason(error)) from None


def _unreadable(path: Path, found: str) -> WeightsError:
    return WeightsError(f"`{path}` should be a readable .onnx file. Found: {found}. Copy or export it again.")


def _open(data: bytes, options: onnxruntime.SessionOptions, providers: Sequence[str]) -> Any:
    _bound_memory()
    return onnxruntime.InferenceSession(
        data,
        options,
        providers=[name for name in providers if name in onnxruntime.get_available_providers()],
        disabled_optimizers=["ConstantFolding"],  # it would compute while loading, without the memory limit
    )


@functools.cache
def _bound_memory() -> None:
    """Make all sessions of this process share one memory arena, limited to 8 GiB and to half the machine's memory."""
    kind = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    same_as_requested = 1
    bounds = {"max_mem": _memory_limit(), "arena_extend_strategy": same_as_requested}
    onnxruntime.create_and_register_allocator(kind, onnxruntime.OrtArenaCfg(bounds))


def _memory_limit() -> int:
    return min(_MOST_BYTES, _memory_bytes() // 2)


def _memory_bytes() -> int:
    """Memory of the machine; twice the limit if the system does not report it, as on Windows."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2 * _MOST_BYTES


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options of a session that uses the shared memory arena and loads only ONNX."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _FATAL  # errors are raised; do not log them, too
    # not the runtime's own format, which `refuse_unsafe` does not check
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # the shared arena of `_bound_memory`, not one per session
    options.add_session_config_entry("session.use_env_allocators", "1")
    return options


def _reason(error: Exception) -> str:
    line = first_line(error)
    if "BFCArena" in line:
        return f"it needs more memory than the limit of {_memory_limit() / 2**30:.1f} GiB"
    # remove the prefix "[ONNXRuntimeError] : CODE : NAME : "
    return line.rpartition(" : ")[2].rstrip(".")


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
"""Operators that our exporter and others write; none of them repeats a graph or is random."""
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
"""Number and type of the fields of `onnx.proto3` (ONNX 1.23), by message, that lead to an operator or to a tensor's
`external_data` or `data_location`."""


def refuse_unsafe(data: bytes, path: Path) -> None:
    """Raise a `WeightsError` if a file is not an ONNX model, refers to another file or uses unknown operators."""
    from google.protobuf.message import DecodeError

    try:
        elsewhere, foreign = find_unsafe(data)
    except DecodeError:
        raise _unreadable(path, kind_of_bytes(data[:1024]) or "no ONNX model") from None
    if elsewhere:
        raise WeightsError(
            f"`{path}` should contain all of its weights. Found weights to be read from elsewhere. Join them: "
            '`onnx.save(onnx.load("model.onnx"), "joined.onnx")`.'
        )
    if foreign is not None:
        raise WeightsError(
            f"`{path}` should consist of ONNX's own operators, without loops, branches and random numbers. Found "
            f"{foreign}. Export the run again; export a third-party model traced at one size."
        )


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; a `WeightsError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, system_reason(error)) from None


def find_unsafe(data: bytes) -> tuple[bool, str | None]:
    """Whether a tensor's values lie outside an ONNX model, and an operator that is not in `OPERATORS`, or None.

    All parts are searched, at any depth; a `DecodeError` if the bytes are not a protobuf message.
    """
    is_elsewhere, foreign = False, None
    queue = [_model().FromString(data)]
    while queue:
        part = queue.pop()
        kind = part.DESCRIPTOR.name
        if kind == "Tensor":
            # location 0 means in this file; `onnx.save` writes it after joining weights
            is_elsewhere |= bool(part.elsewhere) or any(part.location)
        elif kind == "Function":
            foreign = "a function of its own"
        elif kind == "Node":
            for names, known in ((part.operator, OPERATORS), (part.domain, _DOMAINS)):
                found = [name.decode("utf-8", "replace") for name in names]
                foreign = next((ascii(name)[1:-1][:60] for name in found if name not in known), foreign)
        for field, values in part.ListFields():
            queue += values if field.message_type is not None else ()
    return is_elsewhere, foreign


@functools.cache
def _model() -> Any:
    """Protobuf class of an ONNX model with the fields of `_PARTS`; importing `onnx` would add 0.14 s to every start."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="onnx_parts.proto", package="knowhue")
    for part, fields in _PARTS.items():
        message = file.message_type.add(name=part)
        for name, (number, kind) in fields.items():
            # all repeated: if a field occurs twice, readers differ in which one they take
            field = message.field.add(name=name, number=number, label=kinds.LABEL_REPEATED)
            if kind in _PARTS:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".knowhue.{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("knowhue.Model"))
