"""Named random streams: every draw belongs to a (seed, purpose), so arms share what they share.

One global generator would not do: an extra head consumes numbers and shifts every later batch.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # a model run without torch draws, too
    from torch import device


def stream_seed(seed: int, *purpose: str | int) -> int:
    """The 63-bit seed of a stream.

    >>> stream_seed(0, "order", 1) == stream_seed(0, "order", 1) != stream_seed(1, "order", 1)
    True
    """
    text = "/".join(map(str, (seed, *purpose)))
    # Python's own `hash` of text differs from process to process; a file's name may hold bytes that are no UTF-8
    found = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    return int.from_bytes(found.digest()[:8], "big") >> 1


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """The generator of a stream, at its beginning."""
    return np.random.default_rng(stream_seed(seed, *purpose))


@contextmanager
def initialised_by(seed: int, *purpose: str | int) -> Iterator[None]:
    """Draw torch's initial weights from a stream and leave its global generators as they were."""
    import torch

    # initial weights are drawn on the CPU; `torch.manual_seed` would seed every GPU that is in use, too
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(stream_seed(seed, *purpose))
        yield


@contextmanager
def drawing_from(device: "device", seed: int, *purpose: str | int) -> Iterator[None]:
    """Let dropout and noise draw from a stream, and leave torch's global generators as they were."""
    import torch

    # `torch.manual_seed` seeds devices of every kind, and notes the whole stack for a GPU that is not in use yet
    seeding = torch.default_generator.manual_seed if device.type == "cpu" else torch.manual_seed
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seeding(stream_seed(seed, "draws", *purpose))
        yield
