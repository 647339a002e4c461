"""Devices, processes and precision; the only module that imports accelerate."""

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object
from torch import Tensor, nn

from knowhue.config import Training
from knowhue.data.loaders import ProcessShare
from knowhue.data.prepare import Prepared
from knowhue.errors import ConfigError, should_be
from knowhue.runs import Report
from knowhue.tensors import Batch

Module = TypeVar("Module", bound=nn.Module)
_Result = TypeVar("_Result")
Counting = Callable[[Iterable[Batch]], Iterator[Batch]]
"""Function that passes batches through and reports the number of images done."""


@contextmanager
def computing_with(threads: int | None) -> Iterator[None]:
    """Set torch's number of threads inside the context; None leaves it. The number can change the order of sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Engine:
    """The device, process group and precision that training runs with."""

    def __init__(self, training: Training) -> None:
        # other processes wait while one prepares images, for which torch's default of half an hour is too short
        timeout = InitProcessGroupKwargs(timeout=timedelta(hours=12))
        _use_deterministic_algorithms()
        # without accelerate's mixed precision, because `autocast` below covers only the networks
        self._accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[timeout])
        self.device: torch.device = self._accelerator.device
        self.share = ProcessShare(self._accelerator.process_index, self._accelerator.num_processes)
        """rank of this process and number of processes"""
        self.precision = resolve_precision(training.precision, self.device)
        """`float32` or `bfloat16`"""
        if training.batch_size % self.share.world:
            wanted = f"a multiple of the {self.share.world} processes"
            raise ConfigError(should_be("training.batch_size", wanted, training.batch_size))

    @property
    def is_main(self) -> bool:
        return self._accelerator.is_main_process

    def autocast(self) -> AbstractContextManager[Any]:
        """Context in which the networks run at `precision`; colour conversion and losses stay in float32."""
        # bfloat16 has float32's range of exponents, so losses need no scaling, unlike with float16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def place(self, module: Module) -> Module:
        """Move a module to the device, in channels-last layout."""
        return module.to(self.device, memory_format=torch.channels_last)  # pyright: ignore

    def release(self) -> None:
        """Free distributed modules and GPU memory of earlier runs."""
        # a single process on a CPU has nothing to free, and garbage collection takes a third of a tiny run
        if self.share.world > 1 or self.device.type != "cpu":
            self._accelerator.free_memory()

    def distribute(self, module: Module) -> Module:
        """Wrap a bare module for several processes; needed again whenever other parameters train."""
        # DDP records which parameters require gradients when it wraps them
        return self._accelerator.prepare_model(module) if self.share.world > 1 else module  # pyright: ignore

    def backward(self, loss: Tensor) -> None:
        """Backpropagate, and average the gradients over the processes."""
        self._accelerator.backward(loss)

    def average(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Mean over the processes of each scalar, by name."""
        if not values:
            return {}
        stacked = torch.stack([value.detach().float() for value in values.values()])
        return dict(zip(values, self.mean(stacked).tolist(), strict=True))

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes of a tensor."""
        return self._accelerator.reduce(values, reduction="mean")  # pyright: ignore[reportReturnType]

    def gather(self, rows: list[Any]) -> list[Any]:
        return gather_object(rows) if self.share.world > 1 else rows

    def on_main(self, function: Callable[[], _Result]) -> _Result:
        """Call a function on the main process and return its result on all, so that they take the same branch."""
        return self.gather([function() if self.is_main else None])[0]

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()

    def environment(self) -> dict[str, Any]:
        """Versions, device and precision, for `environment.json`."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.processor()
        return {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "platform": platform.platform(),
            "device": f"{self.device.type} {name}".strip(),
            "precision": self.precision,
            "processes": self.share.world,
            "cpu_threads": torch.get_num_threads(),
            "cpu_cores": os.cpu_count(),
        }


@dataclass(frozen=True)
class Workspace:
    """What all runs in a study folder share."""

    root: Path
    engine: Engine
    prepared: Prepared
    report: Report
    encoders: Mapping[str, str] = field(default_factory=dict)
    """digests of the weights that the runs start from, by a readable name"""

    def counting(self, stage: str, total: int) -> Counting:
        """Return a function that reports a stage's progress over batches, of `total` images in one or more passes."""
        done = 0

        def count(batches: Iterable[Batch]) -> Iterator[Batch]:
            nonlocal done
            for batch in batches:
                yield batch
                done += len(batch.position)
                self.report({"stage": stage, "done": done, "total": total})

        return count


def _use_deterministic_algorithms() -> None:
    """Make GPU results bitwise reproducible, as the A/A gate and the golden step need; torch warns where it cannot."""
    if torch.cuda.is_available():
        # cuBLAS is deterministic only with a fixed workspace; it reads this variable on first use
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # the backward passes of fused attention are not deterministic, plain matrix products are
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)


def resolve_precision(precision: str, device: torch.device) -> str:
    """Resolve `auto` to bfloat16 if the device supports it in hardware, where it is faster, else to float32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        # without emulation, which older GPUs support
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    is_supported = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if is_supported else "float32"
