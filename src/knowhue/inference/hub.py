"""A model for the hub of Hugging Face: a folder with its weights and its card, and its upload."""

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCardData
from huggingface_hub.errors import OfflineModeIsEnabled
from jinja2 import Environment, PackageLoader, StrictUndefined

from knowhue.config import Config
from knowhue.errors import ConfigError, RunError, first_line
from knowhue.inference.description import Description
from knowhue.inference.export import export_safetensors
from knowhue.inference.judgement import can_tell_novelty
from knowhue.inference.networks import TorchNetwork
from knowhue.metric_table import METRICS
from knowhue.models.encoder import hub_resolves
from knowhue.presets import edit
from knowhue.runs import WEIGHTS, require_no_run
from knowhue.storage import replacing

CONFIG_FILE, CARD_FILE = "config.json", "README.md"
HUB_FILES = (CARD_FILE, CONFIG_FILE, WEIGHTS)
VERBS = {"colour": "colours", "class": "classifies"}
LICENCES = frozenset(
    {"mit", "apache-2.0", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"}
)
"""Identifiers of the hub; any other text becomes `other` with its words."""


def export_hub_folder(network: TorchNetwork, folder: Path, precision: str = "float32") -> dict[str, float]:
    """Write a folder for the hub: weights, settings for reading, and a model card.

    `model.safetensors` alone is what loads; it predicts as the network does. The folder's name becomes the model's, and
    of paths on this machine only last names are kept.

    Returns:
        What `export_safetensors` returns.

    Raises:
        ConfigError: `folder` is a run's, or the precision unknown.
        WeightsError: the weights are too large for the precision.
        RunError: the folder cannot be written.
    """
    require_no_run(folder)
    description = _without_paths(network.description, folder.resolve().name)
    differences = export_safetensors(network, folder / WEIGHTS, precision, description)
    stored = description.model_copy(update={"precision": precision})
    with replacing(folder / CONFIG_FILE) as file:
        file.write(stored.model_dump_json(indent=1) + "\n")
    with replacing(folder / CARD_FILE) as file:
        file.write(model_card(stored))
    return differences


def upload(folder: Path, repository: str, hub: Any = None) -> str:
    """Put a folder that `export_hub_folder` made on the hub, in one commit; a new repository is private.

    Args:
        folder: with weights, settings and card; other files in it stay here.
        repository: `owner/name`.
        hub: a `huggingface_hub.HfApi`; one that knows the user by `hf auth login` if None.

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
        if hub is None and not hub_resolves():  # the client itself would try for half a minute
            raise OfflineModeIsEnabled
        # not `PyTorchModelHubMixin`: a base class of the model, it would load settings from a file beside the weights
        hub = hub or HfApi()
        hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(HUB_FILES),
            commit_message="Upload a knowhue model",
        )
    except Exception as error:  # the hub client raises its own, httpx' and OS errors
        reason = first_line(error).rstrip(".")
        # its own text blames a variable that the user has not set
        if isinstance(error, OfflineModeIsEnabled):
            reason = "the hub cannot be reached, or HF_HUB_OFFLINE is set"
        raise RunError(
            f"`{folder}` could not be uploaded to `{repository}`: {reason}. The folder is whole; with a connection and "
            f"`hf auth login`, upload it by: hf upload {repository} {folder}"
        ) from None
    return f"https://huggingface.co/{repository}"


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
    if config.images.source == "huggingface":  # its path is a name on the hub, and no secret
        del changes["images"]
    public: Config = edit(config, changes)
    start = description.start and description.start.model_copy(
        update={"model": _last(description.start.model)}
    )
    return description.model_copy(update={"config": public, "name": name, "start": start})


def _last(path: str | None) -> str | None:
    return path and Path(path).name


def model_card(description: Description) -> str:
    """Markdown with the hub's front matter, by the template `card.md`.

    Args:
        description: of the model; what it does not know is called unknown.
    """
    environment = Environment(
        loader=PackageLoader("knowhue.inference", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    unknown = dict.fromkeys(("source", "train", "validation", "fingerprint"), "unknown")
    fields = {name: getattr(description, name) for name in Description.model_fields}
    return environment.get_template("card.md").render(
        fields,
        images=unknown | {"measured_on": "validation"} | description.images,
        front_matter=_front_matter(description).to_yaml(),
        does=" and ".join(VERBS[task] for task in description.tasks),
        tasks=description.tasks,
        scores=[(*_title(name), score) for name, score in description.metrics.items()],
        can_tell_novelty=can_tell_novelty(description),
    )


def _title(name: str) -> tuple[str, str]:
    """What a score is called in Markdown, and its better direction; a description may hold any name."""
    if name not in METRICS:
        return name, ""
    title, unit, better, *_ = METRICS[name]
    return (title if unit == "share" else f"{title}, {unit}").replace("*", "\\*"), better


def _front_matter(description: Description) -> ModelCardData:
    licence, tasks = description.licence, description.tasks
    is_known = licence.lower() in LICENCES
    tag_of = {"colour": "image-colorization", "class": "image-classification"}
    return ModelCardData(
        license=licence.lower() if is_known else "other" if licence else "unknown",
        license_name=licence if licence and not is_known else None,
        library_name="knowhue",
        pipeline_tag="image-to-image" if "colour" in tasks else "image-classification",
        tags=["knowhue", *(tag_of[task] for task in tasks)],
    )
