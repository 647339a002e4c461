"""A deployed model run by ONNX Runtime, from one .onnx file; needs neither torch nor onnx.

The file may be a stranger's: its operators are looked through before the runtime sees it, its memory is bounded, and
what does not answer in time is left.
"""

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from knowhue.errors import ExtraError, WeightsError, install_command
from knowhue.inference.networks import KEY, Answers, Description, FloatArray, checked, read_description
from knowhue.inference.onnx_guard import foreign_operator, reads_elsewhere

PARITY_KEY = "knowhue.parity"
"""Metadata: largest differences to torch, found at export; JSON."""
INT8_KEY = "knowhue.int8"
"""Metadata: what 8 bits cost, measured; JSON."""
INPUT = "lightness"
OUTPUTS = ("chroma", "probabilities", "novelty")
TASK_OF = {"chroma": "colour", "probabilities": "class"}
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
SECONDS, SECONDS_A_PIXEL = 10.0, 1e-4
"""How long a file may take: to open, and beside it for each pixel, some hundred times what an honest one takes."""
_GRACE_SECONDS = 1.0
_MOST_BYTES = 8 << 30
_FATAL = 4
_MEASURED: TypeAdapter[dict[str, float | int | None]] = TypeAdapter(dict[str, float | int | None])
_LATE = "did not answer in many times the time that an honest one takes"
T = TypeVar("T")


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
        self._is_stuck = False

    def predict(self, lightness: FloatArray) -> Answers:
        """Answer for L* (B, h, w), 0 to 100; any h and w.

        Raises:
            WeightsError: the file takes too long or too much memory, or answers what no model should.
        """
        if self._is_stuck:
            raise WeightsError(f"The model {_LATE}, and is not asked again.")
        options = _runtime().RunOptions()
        options.log_severity_level = _FATAL

        def run() -> list[FloatArray]:
            return self._session.run(self._outputs, {INPUT: lightness[:, None]}, options)

        try:
            arrays = within(
                SECONDS + SECONDS_A_PIXEL * lightness.size, run, lambda: setattr(options, "terminate", True)
            )
        except TimeoutError:
            self._is_stuck = True
            raise WeightsError(f"The model {_LATE}. Use another.") from None
        except Exception as error:  # the runtime's errors have no common root but this
            raise WeightsError(
                f"The model failed in ONNX Runtime: {_first_line(error)}. Use another."
            ) from None
        found = dict(zip(self._outputs, arrays, strict=True))
        answers = Answers(found.get("chroma"), found.get("probabilities"), found["novelty"])
        return checked(answers, self.description, lightness)


class _Worker:
    """A thread that does one thing after the other; it keeps the runtime's scratch memory warm between them."""

    def __init__(self) -> None:
        self._todo: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._run, name="knowhue-onnx", daemon=True).start()

    def do(self, work: Callable[[], T]) -> "Future[T]":
        """Begin."""
        done: Future[T] = Future()
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


_idle: list[_Worker] = []


def within(seconds: float, work: Callable[[], T], stop: Callable[[], None] = lambda: None) -> T:
    """What some work returns or raises, if it does in time.

    It is done in a thread, for the runtime hears neither signals nor, within one operator, that it should stop; a
    thread that does not end is left, and ends with the process.

    Args:
        seconds: allowed.
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
    if not done.done():
        stop()
        wait([done], _GRACE_SECONDS)
        worker.end()
        raise TimeoutError
    _idle.append(worker)
    return done.result()


def open_onnx(path: Path, threads: int = 0) -> OnnxNetwork:
    """Open a .onnx file that `knowhue export` made; runs no code from it, reads no other file, never waits for ever.

    Args:
        path: the file.
        threads: for the work within an image; 0 takes one a core.

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
    _refuse_foreign(data, path)
    try:
        session = within(SECONDS + len(data) * 1e-7, functools.partial(_session, runtime, data, threads))
    except TimeoutError:
        raise WeightsError(
            f"`{path}` should be a readable .onnx file. Found one that takes too long to open."
        ) from None
    except Exception as error:  # the runtime's errors have no common root but this
        raise WeightsError(
            f"`{path}` should be a readable .onnx file. Found: {_first_line(error)}."
        ) from None
    metadata = session.get_modelmeta().custom_metadata_map
    description = read_description(metadata.get(KEY), path)
    _check_signature(session, description, path)
    measured = {
        name: _measured(metadata[key], path)
        for name, key in (("parity", PARITY_KEY), ("int8", INT8_KEY))
        if key in metadata
    }
    return OnnxNetwork(session, description, measured)


def _session(runtime: Any, data: bytes, threads: int) -> Any:
    _bound_memory()
    return runtime.InferenceSession(
        data,
        _options(runtime, threads),
        providers=_providers(runtime),
        disabled_optimizers=["ConstantFolding"],  # it would compute here, beyond any bound of memory
    )


@functools.cache
def _bound_memory() -> None:
    """Let all sessions of this process compute within one store of at most half the machine's memory."""
    runtime = _runtime()
    most = min(_MOST_BYTES, _memory_bytes() // 2)
    kind = runtime.OrtMemoryInfo(
        "Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT
    )
    exactly_as_asked = 1
    bounds = {"max_mem": most, "arena_extend_strategy": exactly_as_asked}
    runtime.create_and_register_allocator(kind, runtime.OrtArenaCfg(bounds))


def _memory_bytes() -> int:
    """Of the machine; twice the bound where the system does not tell, as Windows does not."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2 * _MOST_BYTES


def _measured(text: str, path: Path) -> dict[str, float | int | None]:
    try:
        return _MEASURED.validate_json(text)
    except ValidationError:
        raise WeightsError(
            f"`{path}` should say what was measured as `knowhue export` does. Found something else. "
            "Export its run again."
        ) from None


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ExtraError(
            f"An .onnx model needs ONNX Runtime. Install it with: {install_command('onnx')}"
        ) from None
    return onnxruntime


def _options(runtime: Any, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _FATAL  # what goes wrong is raised; twice is too often
    options.add_session_config_entry(
        "session.load_model_format", "ONNX"
    )  # not the runtime's own, unchecked one
    options.add_session_config_entry("session.use_env_allocators", "1")
    return options


def _providers(runtime: Any) -> list[str]:
    return [name for name in PROVIDERS if name in runtime.get_available_providers()]


def _outputs_of(description: Description) -> list[str]:
    return [name for name in OUTPUTS if TASK_OF.get(name) in (None, *description.tasks)]


def _refuse_foreign(data: bytes, path: Path) -> None:
    try:
        refused, operator = reads_elsewhere(data), foreign_operator(data)
    except ValueError as error:
        raise WeightsError(f"`{path}` should be a readable .onnx file. Found {error}.") from None
    if refused:
        raise WeightsError(
            f"`{path}` should hold all of its weights, as `knowhue export` writes it. Found weights that are to be "
            "read from elsewhere. Export the run again."
        )
    if operator is not None:
        raise WeightsError(
            f"`{path}` should be made of operators that `knowhue export` writes. Found {operator}. "
            "Export the run again."
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
