"""A deployed model run by torch, from one safetensors file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from knowhue.description import Description
from knowhue.errors import WeightsError
from knowhue.inference.networks.described import KEY, read_description
from knowhue.inference.networks.network import Answers, FloatArray, checked
from knowhue.models.deployed import CHECKSUM, Deployed, build_deployed, checksum


class TorchNetwork:
    """Runs on a GPU where there is one, in float32."""

    runtime = "torch"

    def __init__(self, module: Deployed, description: Description) -> None:
        self.description = description
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.module = module.to(self.device).eval()

    def predict(self, lightness: FloatArray) -> Answers:
        """Answer for L* (B, h, w), 0 to 100; any h and w."""
        with torch.inference_mode():
            answer = self.module(torch.from_numpy(lightness)[:, None].to(self.device))
        chroma = None if answer.chroma is None else _to_numpy(answer.chroma.permute(0, 2, 3, 1))
        probabilities = None if answer.probabilities is None else _to_numpy(answer.probabilities)
        answers = Answers(chroma, probabilities, _to_numpy(answer.novelty))
        return checked(answers, self.description, lightness)


def open_torch(path: Path) -> TorchNetwork:
    """Open a safetensors file that `knowhue export` made; runs no code from it.

    Raises:
        WeightsError: it is missing, damaged, or not such a file.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"`{path}` should be a readable safetensors file. Found: {error}.") from None
    text = metadata.get(KEY)
    description = read_description(text, path)
    if metadata.get(CHECKSUM, "") not in ("", checksum(text or "", stored)):
        raise WeightsError(f"`{path}` is damaged: it is not as it was written. Remove it, and make it again.")
    weights = {name: tensor.float() for name, tensor in stored.items()}
    _check_fit(description, weights, path)
    module = build_deployed(description)
    module.load_state_dict(weights)
    return TorchNetwork(module, description)


def _check_fit(description: Description, weights: Mapping[str, Tensor], path: Path) -> None:
    """The file holds the tensors that it describes; found out before any is made, for it may describe enormous ones.

    Raises:
        WeightsError: it does not.
    """
    try:
        with torch.device("meta"):
            expected = {
                name: tensor.shape for name, tensor in build_deployed(description).state_dict().items()
            }
    except (RuntimeError, OverflowError, TypeError) as error:
        wrong = f"{(str(error).strip().splitlines() or [type(error).__name__])[0]}"
    else:
        found = {name: tensor.shape for name, tensor in weights.items()}
        differing = [
            name for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)
        ]
        if not differing:
            return
        name = differing[0]
        wrong = f"`{name}` of shape {_shape(found.get(name))} where {_shape(expected.get(name))} is described"
    raise WeightsError(
        f"`{path}` should hold the weights that it describes. Found {wrong}. Export its run again."
    )


def _shape(size: torch.Size | None) -> str:
    return "none" if size is None else str(tuple(size))


def _to_numpy(tensor: Tensor) -> FloatArray:
    return tensor.float().contiguous().cpu().numpy()
