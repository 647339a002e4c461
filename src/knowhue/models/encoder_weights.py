"""Weights of an encoder from disk: a file of tensors, a finished run's encoder, or one pretrained on gray images."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from knowhue.errors import WeightsError
from knowhue.storage import read_json

Weights = Mapping[str, Tensor]

_BASE = "encoder.body."
_HEADS = ("colour.", "class.", "discriminator.", "oracle.")
"""How a run's `model.safetensors` names its parts."""


def read_base(path: Path) -> Weights:
    """The tensors of an encoder by name.

    Args:
        path: a .safetensors or .pth file of tensors; or the folder of a finished run, or its `model.safetensors`,
            whose fine-tuned encoder is meant.

    Raises:
        WeightsError: there is no such file, or it holds no encoder; or the run has not finished, or kept no encoder.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    if path.is_dir() or (path.parent / "status.json").exists():
        _require_finished(file.parent)
    if not file.is_file():
        raise WeightsError(
            "`encoder.weights` should be a file, the folder of a finished run, `pretrained`, `package` or `none`. "
            f"Found `{file}`, which is no file."
        )
    weights = read_weights(file)
    encoder = {key.removeprefix(_BASE): value for key, value in weights.items() if key.startswith(_BASE)}
    if not encoder and weights and all(key.startswith(_HEADS) for key in weights):
        raise WeightsError(
            f"`{file}` should hold an encoder. Found only heads: the run trained them on a frozen one, and kept none. "
            "Name a run that fine-tuned, such as runs/demo/multi/seed-0-1a2b3c4d."
        )
    return encoder or weights


def read_weights(path: Path) -> Weights:
    """The tensors of a file by name; no code of it is run.

    Raises:
        WeightsError: it is no .safetensors or .pth file of tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"`{path}` should be a .safetensors or .pth file of tensors. Found: {error}"
        ) from None
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise WeightsError(
            f"`{path}` should hold tensors by name, as `model.state_dict()` gives. Found something else."
        )
    return weights


def spread_gray(weights: Weights, own: Weights, deviation: Tensor) -> Weights:
    """Fit an encoder that was pretrained on one gray channel to three equal ones; others stay as they are.

    Its first kernel K is spread over the three in proportion to their deviations d: K d / (3 mean(d)). As channel c
    is shown (gray - m) / d, with m the channel's mean, the network then sees K on (gray - mean(m)) / mean(d) at every
    pixel, and 0 beyond the edge: exactly one normalised gray channel. So gray in 0..1 with mean 0.449 and deviation
    0.226 is what the encoder should have been taught with, for those of ImageNet's usual normalisation.

    Args:
        weights: by the names of `own`.
        own: the tensors of the three-channel encoder, for their shapes.
        deviation: (1, 3, 1, 1), of the normalisation.
    """
    spread = {
        name: weights[name] * deviation / (3 * deviation.mean())
        for name, mine in own.items()
        if mine.shape[1:2] == (3,) and mine.ndim == 4 and _is_gray(weights.get(name), mine)
    }
    return {**weights, **spread}


def _is_gray(kernel: Tensor | None, mine: Tensor) -> bool:
    return kernel is not None and kernel.shape == (len(mine), 1, *mine.shape[2:])


def _require_finished(folder: Path) -> None:
    status = folder / "status.json"
    state = read_json(status).get("state") if status.exists() else None
    if state != "finished":
        raise WeightsError(
            f"`encoder.weights` should be the folder of a finished run, such as runs/demo/multi/seed-0-1a2b3c4d. "
            f"Found `{folder}`, {'which is no run' if state is None else f'which is {state}'}. "
            "Train it to its end with `knowhue study` or `knowhue train`, or name a file."
        )
