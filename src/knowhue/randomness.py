"""Named random streams: every draw comes from a stream identified by (seed, purpose).

With one global generator, an extra head would consume numbers and change every later batch. Named streams give all
arms of a seed the same batches and the same initial weights.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # models that run without torch draw random numbers too
    from torch import device


def stream_seed(seed: int, *purpose: str | int) -> int:
    """Return the 63-bit seed of a stream.

    >>> stream_seed(0, "order", 1) == stream_seed(0, "order", 1) != stream_seed(1, "order", 1)
    True
    """
    text = "/".join(map(str, (seed, *purpose)))
    # not Python's `hash`, which differs between processes; file names may contain bytes that are not UTF-8
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return a new generator at the start of a stream."""
    return np.random.default_rng(stream_seed(seed, *purpose))


@contextmanager
def initialised_by(seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed torch's initial weights from a stream, and restore the global generators afterwards."""
    import torch

    # initial weights are drawn on the CPU; `torch.manual_seed` would also seed every GPU in use
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(stream_seed(seed, *purpose))
        yield


@contextmanager
def drawing_from(device: "device", seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed dropout and noise from a stream, and restore torch's global generators afterwards."""
    import torch

    # `torch.manual_seed` seeds every device, and records the call stack for a GPU that is not initialised yet
    manual_seed = torch.default_generator.manual_seed if device.type == "cpu" else torch.manual_seed
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        manual_seed(stream_seed(seed, "draws", *purpose))
        yield
