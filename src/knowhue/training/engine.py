"""Devices, processes and arithmetic: the only importer of accelerate."""

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
from knowhue.errors import ConfigError
from knowhue.runs import Report
from knowhue.tensors import Batch

Module = TypeVar("Module", bound=nn.Module)
_Found = TypeVar("_Found")
Counting = Callable[[Iterable[Batch]], Iterator[Batch]]
"""Hands batches on and reports how many of a stage's images are done."""


@contextmanager
def computing_with(threads: int | None) -> Iterator[None]:
    """Within it torch computes with so many threads, None as many as before: others may sum in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Engine:
    """One process of one or many, on its device."""

    def __init__(self, training: Training) -> None:
        # the others wait while one prepares images: torch's default gives up within half an hour
        patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))
        _sum_in_one_order()
        # no mixed precision of accelerate's: the autocast below covers the networks alone
        self._accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[patience])
        self.device: torch.device = self._accelerator.device
        self.share = ProcessShare(self._accelerator.process_index, self._accelerator.num_processes)
        """which process of how many"""
        self.precision = resolve_precision(training.precision, self.device)
        """`float32` or `bfloat16`, as resolved for this device"""
        if training.batch_size % self.share.world:
            raise ConfigError(
                f"`training.batch_size` should be a multiple of the {self.share.world} processes. "
                f"Found `training.batch_size = {training.batch_size}`."
            )

    @property
    def is_main(self) -> bool:
        return self._accelerator.is_main_process

    def autocast(self) -> AbstractContextManager[Any]:
        """The networks' arithmetic; colour conversion and losses stay in float32."""
        # bfloat16 has the exponents of float32, so losses need no scaling as with float16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def place(self, module: Module) -> Module:
        """Move a module here, in the memory layout that convolutions like."""
        return module.to(self.device, memory_format=torch.channels_last)  # pyright: ignore

    def release(self) -> None:
        """Let go of modules distributed before, and of a GPU's memory; a study has many runs.

        One process on a CPU has nothing to let go of, and is spared the search for garbage: a third of a tiny run.
        """
        if self.share.world > 1 or self.device.type != "cpu":
            self._accelerator.free_memory()

    def distribute(self, module: Module) -> Module:
        """Wrap for several processes; of a bare module, anew whenever what trains has changed."""
        # DDP notes only when it wraps which parameters require gradients
        return self._accelerator.prepare_model(module) if self.share.world > 1 else module  # pyright: ignore

    def backward(self, loss: Tensor) -> None:
        """Backpropagate; gradients come out averaged over the processes."""
        self._accelerator.backward(loss)

    def average(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Mean over the processes of scalars they all have."""
        if not values:
            return {}
        stacked = torch.stack([value.detach().float() for value in values.values()])
        return dict(zip(values, self.mean(stacked).tolist(), strict=True))

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes of a tensor that they all have."""
        return self._accelerator.reduce(values, reduction="mean")  # pyright: ignore[reportReturnType]

    def gather(self, rows: list[Any]) -> list[Any]:
        return gather_object(rows) if self.share.world > 1 else rows

    def as_main_finds(self, find: Callable[[], _Found]) -> _Found:
        """What the main process finds, for all, so that they take the same branch."""
        return self.gather([find() if self.is_main else None])[0]

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()

    def environment(self) -> dict[str, Any]:
        """What a reader needs to know of this machine to judge the numbers."""
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
    """What every run in a study folder shares."""

    root: Path
    engine: Engine
    prepared: Prepared
    report: Report
    encoders: Mapping[str, str] = field(default_factory=dict)
    """digest of the weights of each encoder that the runs start from"""

    def counting(self, stage: str, total: int) -> Counting:
        """Return what reports the progress of a stage of one or more passes over images, `total` of them in all."""
        done = 0

        def count(batches: Iterable[Batch]) -> Iterator[Batch]:
            nonlocal done
            for batch in batches:
                yield batch
                done += len(batch.position)
                self.report({"stage": stage, "done": done, "total": total})

        return count


def _sum_in_one_order() -> None:
    """Have a GPU choose algorithms that give the same bits again: the A/A gate and the golden step compare bits.

    Where an operation has none, torch says so.
    """
    if torch.cuda.is_available():
        # cuBLAS repeats its bits with a fixed workspace only, and reads this when it is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # the backward passes of fused attention may sum in any order; plain matrix products do not
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)


def resolve_precision(wanted: str, device: torch.device) -> str:
    """`auto` is bfloat16 where the device multiplies it in hardware: there it measures faster, elsewhere slower."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        # torch says yes of older GPUs too, which emulate it
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    has_it = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if has_it else "float32"
