"""The whole state after an epoch, in one folder that appears at once and is checked when it is read."""

import pickle
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from knowhue.errors import DamagedError, RunError
from knowhue.storage import file_digest, read_json, replacing, replacing_folder, write_json

# another version's states are refused, never converted: nothing was released
_VERSION = 4
_STATE = "state.json"
_OPTIMIZERS = "optimizers.pt"
_DAMAGE = (OSError, KeyError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError)
_NAME = re.compile(r"epoch-(\d{4,})")


def save_checkpoint(
    folder: Path,
    epoch: int,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Any],
    golden_step: str,
    log: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Keep the state after `epoch` and drop older ones; a crash leaves the older one whole."""
    with replacing_folder(folder / f"epoch-{epoch:04d}") as home:
        for name, module in modules.items():
            save_weights(home / f"{name}.safetensors", module.state_dict())
        with replacing(home / _OPTIMIZERS, "wb") as file:
            # not safetensors, which holds flat tensors only: an optimizer's state is nested
            torch.save({name: optimizer.state_dict() for name, optimizer in optimizers.items()}, file)
        content = {path.name: file_digest(path) for path in sorted(home.iterdir())}
        state = {"version": _VERSION, "epoch": epoch, "golden_step": golden_step}
        write_json(home / _STATE, {**state, "content": content, "log": list(log)})
    # only now that the new one is in place: a crash before this leaves the older one to go on from
    for older, path in _epochs(folder):
        if older != epoch:
            shutil.rmtree(path, ignore_errors=True)


def restore_checkpoint(
    folder: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, Any], golden_step: str
) -> tuple[int, list[dict[str, Any]]]:
    """Load the newest state into modules and optimizers.

    Returns:
        The epoch that it was saved after, 0 if there is none, and the entries of the log until then.

    Raises:
        RunError: the state is damaged, of another version, or was not computed with `golden_step`.
    """
    epochs = _epochs(folder)
    if not epochs:
        return 0, []
    epoch, home = epochs[0]
    try:
        state = _checked_state(home, epoch)
        if (recorded := state["golden_step"]) != golden_step:
            raise RunError(
                f"`{home}` was computed otherwise than this process computes (golden step {recorded[:12]}, not "
                f"{golden_step[:12]}: another processor, other threads, libraries or code), and one run is computed "
                f"alike. Go on there, or remove `{folder}` to start this run anew."
            )
        for name, module in modules.items():
            module.load_state_dict(load_file(home / f"{name}.safetensors"))
        # weights_only, since a pickle may run code; to the CPU, since `load_state_dict` moves it to the parameters
        states = torch.load(home / _OPTIMIZERS, map_location="cpu", weights_only=True)
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(states[name])
    except _DAMAGE as error:
        raise RunError(f"`{home}` is damaged: {error}. Remove `{folder}` to start this run anew.") from None
    return epoch, state["log"]


def _checked_state(home: Path, epoch: int) -> dict[str, Any]:
    """What a state says of itself, once its files are as they were written.

    Raises:
        RunError: it is of another version.
        ValueError: it is damaged.
    """
    try:
        state = read_json(home / _STATE)
    except RunError as error:
        raise ValueError(f"{home / _STATE} cannot be read ({error})") from None
    if state["version"] != _VERSION:
        raise RunError(
            f"`{home}` was written by another version of knowhue. Remove `{home.parent}` to start it anew."
        )
    if state["epoch"] != epoch:
        raise ValueError(f"it is the state after epoch {state['epoch']} under another's name")
    for name, content in state["content"].items():
        if not (home / name).is_file() or file_digest(home / name) != content:
            raise ValueError(f"{name} is not as it was written")
    return state


def computed_with(folder: Path) -> str | None:
    """The golden step that computed the newest state; None where there is none, or it cannot be read."""
    try:
        return next((read_json(path / _STATE).get("golden_step") for _, path in _epochs(folder)), None)
    except RunError:
        return None


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file, whole or not at all."""
    with replacing(path, "wb") as file:
        # safetensors refuses tensors that are not contiguous, as channels_last weights are
        file.write(to_bytes({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}))


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file that a run wrote.

    Raises:
        DamagedError: it is gone, cut, or another file.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedError(path, str(error)) from None


def _epochs(folder: Path) -> list[tuple[int, Path]]:
    """The states, newest first."""
    found = [(_NAME.fullmatch(path.name), path) for path in folder.glob("epoch-*")]
    return sorted([(int(name[1]), path) for name, path in found if name], reverse=True)
