"""The whole state after an epoch, in one folder that appears at once; weights as safetensors."""

import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from knowhue.errors import RunError

VERSION = 1


def save(folder: Path, epoch: int, modules: Mapping[str, nn.Module], optimizers: Mapping[str, Any]) -> None:
    """Keep the state after `epoch` and drop older ones; a crash leaves the older one whole.

    Raises:
        RunError: the folder cannot be written.
    """
    target = folder / f"epoch-{epoch:04d}"
    temporary = folder / f".epoch-{epoch:04d}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, module in modules.items():
            save_weights(temporary / f"{name}.safetensors", module.state_dict())
        states = {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
        torch.save({"version": VERSION, "optimizers": states}, temporary / "optimizers.pt")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except OSError as error:
        raise RunError(
            f"Cannot write `{target}`: {error}. Free some space and run the same command again."
        ) from None
    for older in _epochs(folder):
        if older != epoch:
            shutil.rmtree(folder / f"epoch-{older:04d}", ignore_errors=True)


def restore(folder: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, Any]) -> int:
    """Load the newest state into modules and optimizers.

    Returns:
        The epoch it was saved after, or 0 if there is none.

    Raises:
        RunError: the state is damaged or of another version.
    """
    epochs = _epochs(folder)
    if not epochs:
        return 0
    home = folder / f"epoch-{epochs[-1]:04d}"
    try:
        state = torch.load(home / "optimizers.pt", map_location="cpu", weights_only=True)
        if state["version"] != VERSION:
            raise RunError(
                f"`{home}` was written by another version of knowhue. Remove `{folder}` to start it anew."
            )
        for name, module in modules.items():
            module.load_state_dict(load_file(home / f"{name}.safetensors"))
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
    except (OSError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise RunError(f"`{home}` is damaged: {error}. Remove `{folder}` to start this run anew.") from None
    return epochs[-1]


def clear(folder: Path) -> None:
    """Forget all states of a run that has ended."""
    shutil.rmtree(folder, ignore_errors=True)


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, path)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"Cannot write `{path}`: {error}. Free some space and run the same command again."
        ) from None


def _epochs(folder: Path) -> list[int]:
    return sorted(int(p.name[6:]) for p in folder.glob("epoch-*")) if folder.is_dir() else []
