"""A deployed model run by torch, from one safetensors file."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from knowhue.description import Description
from knowhue.errors import WeightsError
from knowhue.inference.networks.described import KEY, read_description
from knowhue.inference.networks.network import Answers, FloatArray
from knowhue.models.deployed import Deployed, build_deployed


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
        return Answers(chroma, probabilities, _to_numpy(answer.novelty))


def open_torch(path: Path) -> TorchNetwork:
    """Open a safetensors file that `knowhue export` made; runs no code from it.

    Raises:
        WeightsError: it is missing, damaged, or not such a file.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"`{path}` should be a readable safetensors file. Found: {error}.") from None
    description = read_description(text, path)
    module = build_deployed(description)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise WeightsError(f"`{path}` should hold the weights that it describes. Found: {first}") from None
    return TorchNetwork(module, description)


def _to_numpy(tensor: Tensor) -> FloatArray:
    return tensor.float().contiguous().cpu().numpy()
