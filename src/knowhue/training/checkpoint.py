"""The whole state after an epoch, in one file that appears at once and is checked when it is read."""

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

# another version's states are refused, never converted: nothing was released
_VERSION = 5
_STATE = "state.pt"
"""A line with the SHA-256 of all that follows, a line of JSON, and what `torch.save` writes."""


def save_checkpoint(
    folder: Path,
    epoch: int,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Any],
    golden_step: str,
    log: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Keep the state after `epoch` in the place of the one before it; a crash leaves that one whole."""
    about = {"version": _VERSION, "epoch": epoch, "golden_step": golden_step, "log": list(log)}
    content = io.BytesIO()
    content.write(json.dumps(about, allow_nan=False).encode() + b"\n")
    torch.save(
        [{name: each.state_dict() for name, each in own.items()} for own in (modules, optimizers)], content
    )
    with replacing(folder / _STATE, "wb") as file:
        file.write(hashlib.sha256(content.getbuffer()).hexdigest().encode() + b"\n")
        file.write(content.getbuffer())


def restore_checkpoint(
    folder: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, Any], golden_step: str
) -> tuple[int, list[dict[str, Any]]]:
    """Load the newest state into modules and optimizers.

    Returns:
        The epoch that it was saved after, 0 if there is none, and the entries of the log until then.

    Raises:
        RunError: the state is damaged, of another version, or was not computed with `golden_step`.
    """
    path = folder / _STATE
    if not path.exists():
        return 0, []
    try:
        about, content = _read(path)
        if about["version"] != _VERSION:
            raise RunError(
                f"`{path}` was written by another version of knowhue. Remove `{folder}` to start it anew."
            )
        if (recorded := about["golden_step"]) != golden_step:
            raise RunError(
                f"`{path}` was computed otherwise than this process computes (golden step {recorded[:12]}, not "
                f"{golden_step[:12]}: another processor, other threads, libraries or code), and one run is computed "
                f"alike. Go on there, or remove `{folder}` to start this run anew."
            )
        # weights_only, since a pickle may run code; to the CPU, since `load_state_dict` moves it to the parameters
        states = torch.load(content, map_location="cpu", weights_only=True)
        for own, kept in zip((modules, optimizers), states, strict=True):
            for name, each in own.items():
                each.load_state_dict(kept[name])
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise RunError(
            f"`{path}` is damaged: {first_line(error)}. Remove `{folder}` to start this run anew."
        ) from None
    return about["epoch"], about["log"]


def _read(path: Path) -> tuple[dict[str, Any], io.BytesIO]:
    """What a state says of itself, and its tensors as `torch.save` wrote them.

    Raises:
        ValueError: it is not as it was written.
    """
    with path.open("rb") as file:
        checksum, content = file.readline(), io.BytesIO(file.read())
    if hashlib.sha256(content.getbuffer()).hexdigest().encode() != checksum.strip():
        raise ValueError("it is not as it was written")
    return json.loads(content.readline()), io.BytesIO(content.read())


def computed_with(folder: Path) -> str | None:
    """The golden step that computed the newest state; None where there is none, or it cannot be read."""
    try:
        return _read(folder / _STATE)[0]["golden_step"]
    except (OSError, ValueError):
        return None


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    with replacing(path, "wb") as file:
        # safetensors refuses tensors that are not contiguous, as channels_last weights are
        file.write(to_bytes({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}))
