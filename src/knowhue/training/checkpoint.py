"""Checkpoints: the complete training state after an epoch, in one file that is replaced atomically and checksummed."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from knowhue.errors import RunError, first_line
from knowhue.storage import replacing

# checkpoints of other versions are rejected, not converted, because nothing has been released
_VERSION = 5
_STATE = "state.pt"
"""Name of the file: a line with the SHA-256 of the rest, a line of JSON, then the output of `torch.save`."""


def save_checkpoint(
    folder: Path,
    epoch: int,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Any],
    golden_step: str,
    log: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Save the state after `epoch`, replacing the previous checkpoint; a crash leaves the previous one intact."""
    header = {"version": _VERSION, "epoch": epoch, "golden_step": golden_step, "log": list(log)}
    content = io.BytesIO()
    content.write(json.dumps(header, allow_nan=False).encode() + b"\n")
    states = [{name: part.state_dict() for name, part in parts.items()} for parts in (modules, optimizers)]
    torch.save(states, content)
    with replacing(folder / _STATE, "wb") as file:
        file.write(hashlib.sha256(content.getbuffer()).hexdigest().encode() + b"\n")
        file.write(content.getbuffer())


def restore_checkpoint(
    folder: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, Any], golden_step: str
) -> tuple[int, list[dict[str, Any]]]:
    """Load the checkpoint into modules and optimizers; return the number of epochs done and their log entries.

    A checkpoint that is damaged, of another version, or not computed with `golden_step` raises a `RunError`.
    """
    path = folder / _STATE
    if not path.exists():
        return 0, []
    try:
        header, content = _read(path)
        if header["version"] != _VERSION:
            raise RunError(f"`{path}` is of another version of knowhue. Remove `{folder}` to start again.")
        if (recorded := header["golden_step"]) != golden_step:
            raise RunError(
                f"`{path}` was computed with another processor, other threads, libraries or code (golden step "
                f"{recorded[:12]}, not {golden_step[:12]}). Continue there, or remove `{folder}` to start again."
            )
        # weights_only, because a pickle could run code; on the CPU, because `load_state_dict` copies to the device
        states = torch.load(content, map_location="cpu", weights_only=True)
        for parts, saved in zip((modules, optimizers), states, strict=True):
            for name, part in parts.items():
                part.load_state_dict(saved[name])
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise RunError(
            f"`{path}` is damaged: {first_line(error)}. Remove `{folder}` to start this run again."
        ) from None
    return header["epoch"], header["log"]


def _read(path: Path) -> tuple[dict[str, Any], io.BytesIO]:
    """Read a checkpoint's header, and the output of `torch.save`; a wrong checksum raises a ValueError."""
    with path.open("rb") as file:
        checksum, content = file.readline(), io.BytesIO(file.read())
    if hashlib.sha256(content.getbuffer()).hexdigest().encode() != checksum.strip():
        raise ValueError("its checksum is wrong")
    return json.loads(content.readline()), io.BytesIO(content.read())


def computed_with(folder: Path) -> str | None:
    """Return the golden step that computed the checkpoint; None if there is none or it cannot be read."""
    try:
        return _read(folder / _STATE)[0]["golden_step"]
    except (OSError, ValueError):
        return None


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    with replacing(path, "wb") as file:
        # safetensors requires contiguous tensors, which channels-last weights are not
        file.write(to_bytes({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}))
