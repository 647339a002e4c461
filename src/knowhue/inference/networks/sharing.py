"""Giving a model away: one file of weights, or a folder with its card, as the hub of Hugging Face expects it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save
from torch import Tensor

from knowhue.config import Config
from knowhue.description import Description
from knowhue.errors import ConfigError, RunError, WeightsError
from knowhue.inference.networks.card import model_card
from knowhue.inference.networks.described import KEY
from knowhue.inference.networks.opening import HUB_FILE
from knowhue.inference.networks.parity import largest_differences
from knowhue.inference.networks.torch_network import TorchNetwork, open_torch
from knowhue.models.deployed import CHECKSUM, build_deployed, checksum
from knowhue.models.encoder import asking_hub
from knowhue.presets import edit
from knowhue.storage import replacing, require_no_run

PRECISIONS: dict[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16}
CONFIG_FILE, CARD_FILE = "config.json", "README.md"
HUB_FILES = (CARD_FILE, CONFIG_FILE, HUB_FILE)


def export_safetensors(
    source: Path | TorchNetwork, target: Path, precision: str = "float32"
) -> dict[str, float]:
    """Write a model as one file of weights with its description.

    Args:
        source: a file that `knowhue export` made, or what `open_torch` opened.
        target: .safetensors file to write; replaced if it is there.
        precision: of the stored weights, a key of `PRECISIONS`; they are computed with in float32.

    Returns:
        Largest difference to the source's answers by output: chroma in CIELAB units, probabilities and novelty.

    Raises:
        ConfigError: unknown precision.
        WeightsError: the source cannot be read, or its weights are too large for the precision.
        RunError: the file cannot be written.
    """
    network = _opened(source)
    return _write(network, network.description, target, precision)


def export_hub_folder(
    source: Path | TorchNetwork, folder: Path, precision: str = "float32"
) -> dict[str, float]:
    """Write a folder for the hub: weights, settings for reading, and a model card.

    `model.safetensors` alone is what loads; it answers as the source does. The folder's name becomes the model's, and
    of paths on this machine only last names are kept.

    Returns:
        What `export_safetensors` returns.

    Raises:
        ConfigError: `folder` is a run's, or the precision unknown.
        WeightsError: the source cannot be read, or its weights are too large for the precision.
        RunError: the folder cannot be written.
    """
    require_no_run(folder)
    network = _opened(source)
    description = _without_paths(network.description, folder.resolve().name)
    differences = _write(network, description, folder / HUB_FILE, precision)
    stored = description.model_copy(update={"precision": precision})
    with replacing(folder / CONFIG_FILE) as file:
        file.write(stored.model_dump_json(indent=1) + "\n")
    with replacing(folder / CARD_FILE) as file:
        file.write(model_card(stored))
    return differences


class Hub(Protocol):
    """What is asked of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
        """Make a repository unless it is there."""
        ...

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], commit_message: str
    ) -> Any:
        """Make one commit of a folder's files."""
        ...


def upload(folder: Path, repository: str, hub: Hub | None = None) -> str:
    """Put a folder that `export_hub_folder` made on the hub, in one commit; a new repository is private.

    The hub's own `PyTorchModelHubMixin` would make the same files, but as a base class of the model, and would load
    with settings from a file instead of those stored with the weights.

    Args:
        folder: with weights, settings and card; other files in it stay here.
        repository: `owner/name`.
        hub: who is asked; the hub itself, as `hf auth login` lets it know the user, if None.

    Returns:
        The address of the model.

    Raises:
        ConfigError: no such folder.
        RunError: the hub cannot be reached or refuses.
    """
    missing = [name for name in HUB_FILES if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"`folder` should be a folder that `knowhue export --to hub-folder` made. Found no {', '.join(missing)} in "
            f"`{folder}`."
        )
    try:
        with asking_hub():
            hub = hub or _hub()
            hub.create_repo(repository, private=True, exist_ok=True)
            hub.upload_folder(
                repo_id=repository,
                folder_path=folder,
                allow_patterns=list(HUB_FILES),
                commit_message="Upload a knowhue model",
            )
    except Exception as error:  # the hub client raises its own, httpx' and OS errors
        reason = _reason(error)
        raise RunError(
            f"`{folder}` could not be uploaded to `{repository}`: {reason}. The folder is whole; with a connection and "
            f"`hf auth login`, upload it by: hf upload {repository} {folder}"
        ) from None
    return f"https://huggingface.co/{repository}"


def _hub() -> Hub:
    from huggingface_hub import HfApi

    return HfApi()


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):  # its own text blames a variable that the user has not set
        return "the hub cannot be reached, or HF_HUB_OFFLINE is set"
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _opened(source: Path | TorchNetwork) -> TorchNetwork:
    return source if isinstance(source, TorchNetwork) else open_torch(source)


def _write(network: TorchNetwork, description: Description, target: Path, precision: str) -> dict[str, float]:
    if precision not in PRECISIONS:
        raise ConfigError(
            f"`precision` should be one of {', '.join(PRECISIONS)}. Found `precision = {precision}`."
        )
    described = description.model_copy(update={"precision": precision})
    weights = {
        name: tensor.detach()
        .to("cpu", PRECISIONS[precision] if tensor.is_floating_point() else None)
        .contiguous()
        for name, tensor in network.module.state_dict().items()
    }
    _refuse_infinite(weights, precision)
    differences = largest_differences(network.predict, _rebuilt(described, weights).predict)
    text = described.model_dump_json()
    with replacing(target, "wb") as file:
        file.write(save(weights, {"format": "pt", KEY: text, CHECKSUM: checksum(text, weights)}))
    return differences


def _rebuilt(description: Description, weights: Mapping[str, Tensor]) -> TorchNetwork:
    module = build_deployed(description)
    module.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return TorchNetwork(module, description)


def _refuse_infinite(weights: Mapping[str, Tensor], precision: str) -> None:
    lost = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if lost:
        raise WeightsError(
            f"The weights should be finite in {precision}. Found `{lost[0]}` beyond its range"
            + (", up to 65504. Export in float32." if precision == "float16" else ". Train the run again.")
        )


def _without_paths(description: Description, name: str) -> Description:
    """A description for strangers: last names of paths on this machine."""
    config = description.config
    changes = {
        "images": {"path": _last(config.images.path)},
        "encoder": {"weights": _last(config.encoder.weights)},
        "evaluation": {
            "inception_weights": _last(config.evaluation.inception_weights),
            "lpips_weights": _last(config.evaluation.lpips_weights),
        },
    }
    if config.images.source == "huggingface":
        del changes["images"]
    public: Config = edit(config, changes)
    return description.model_copy(update={"config": public, "name": name})


def _last(path: str | None) -> str | None:
    return path and Path(path).name
