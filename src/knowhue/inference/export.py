"""Export a trained model as safetensors, ONNX or a hub folder, and measure how far its predictions differ."""

import copy
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from huggingface_hub import HfApi, ModelCardData
from huggingface_hub.errors import OfflineModeIsEnabled
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor, nn

from knowhue.config import Config
from knowhue.errors import ConfigError, RunError, WeightsError, first_line, needing
from knowhue.inference.description import KEY, Description
from knowhue.inference.judgement import can_tell_novelty
from knowhue.inference.networks import FloatArray, Predictions, TorchNetwork, build_deployed, save_model
from knowhue.inference.onnx_network import INPUT, OUTPUTS, PARITY_KEY, TASK_OF, open_onnx_bytes
from knowhue.metric_table import METRICS
from knowhue.models.encoder import Conv2dSame
from knowhue.models.multitask import Deployed, DeployedOutput
from knowhue.models.weights import hub_resolves
from knowhue.presets import edit
from knowhue.runs import WEIGHTS, require_no_run
from knowhue.storage import real_path, replacing

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16}
_ALL_BYTES = 1 << 30  # size limits of constant folding, larger than any tensor here
PARITY_TOLERANCE = {"chroma": 0.01, "probabilities": 1e-4, "novelty": 1e-3}
"""Largest allowed difference from torch, by output; chroma in CIELAB units, a fortieth of a step of 8-bit colour."""
SIZES = ((1, 1, 1), (1, 32, 32), (3, 33, 95), (2, 64, 40), (1, 97, 160))
"""Batch size, height and width of trial images: one pixel, multiples of the stride and others, batches."""

_Predict = Callable[[FloatArray], Predictions]


def export_safetensors(
    network: TorchNetwork, target: Path, precision: str = "float32", description: Description | None = None
) -> dict[str, float]:
    """Write a model's weights and its description, or another one, as one file; an existing file is replaced.

    The weights are stored in a precision of `DTYPES`; computation stays in float32. Returns the largest difference from
    the network's predictions, by output. A `WeightsError` if the weights are too large for the precision; a `RunError`
    if the file cannot be written.
    """
    described = (description or network.description).model_copy(update={"precision": precision})
    weights = {
        name: tensor.detach()
        .to("cpu", DTYPES[precision] if tensor.is_floating_point() else None)
        .contiguous()
        for name, tensor in network.module.state_dict().items()
    }
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            limit = ", up to 65504. Export in float32" if precision == "float16" else ". Train the run again"
            raise WeightsError(
                f"The weights should be finite in {precision}. Found `{name}` beyond its range{limit}."
            )
    # measure the model as it will be read, before a file exists
    again = TorchNetwork(build_deployed(described, weights, "The export"), described)
    differences = largest_differences(network.predict, again.predict)
    save_model(target, described, weights)
    return differences


def export_onnx(network: TorchNetwork, target: Path) -> dict[str, float]:
    """Write a model with all of its heads as one .onnx file, for any batch and image size.

    The largest differences from torch, by output in the units of `PARITY_TOLERANCE`, are stored in it and returned. An
    `ExtraError` if a package of the extra `onnx` is not installed; a `WeightsError`, and no file, if ONNX Runtime
    predicts other values than torch; a `RunError` if the file cannot be written.
    """
    require_packages()
    model = fold_constants(export_graph(network.module))
    # the weights might have been read from float16; the graph stores float32
    described = network.description.model_copy(update={"precision": "float32"})
    model.metadata_props.add(key=KEY, value=described.model_dump_json())
    made = open_onnx_bytes(model.SerializeToString(), target, threads=1)
    # on the CPU, because GPUs can round products to 10 bits
    on_cpu = TorchNetwork(copy.deepcopy(network.module), network.description, "cpu")
    differences = largest_differences(on_cpu.predict, made.predict)
    # not `any(... > ...)`, which is false for NaN
    if not all(difference <= PARITY_TOLERANCE[name] for name, difference in differences.items()):
        found = ", ".join(f"{name} {value:.2g}" for name, value in differences.items())
        allowed = ", ".join(f"{name} {PARITY_TOLERANCE[name]:.2g}" for name in differences)
        raise WeightsError(
            f"ONNX Runtime should give the results of torch, within {allowed}. Found differences up to {found}. "
            f"`{target}` was not written; use the model as safetensors, and report this."
        )
    model.metadata_props.add(key=PARITY_KEY, value=json.dumps(differences))
    with replacing(target, "wb") as file:
        file.write(model.SerializeToString())
    return differences


class _Graph(nn.Module):
    """The exported computation: pads images by their edges to whole strides, and leaves out absent heads."""

    def __init__(self, deployed: Deployed) -> None:
        super().__init__()
        self.deployed = deployed
        self.stride = deployed.model.encoder.strides[-1]

    def forward(self, lightness: Tensor) -> tuple[Tensor, ...]:
        """Map L* (B, 1, H, W) to the outputs of the heads; chroma is (B, H, W, 2)."""
        height, width = lightness.shape[2:]
        # edges repeat up to whole strides
        rows, columns = (
            torch.arange((length + self.stride - 1) // self.stride * self.stride).clamp(max=length - 1)
            for length in (height, width)
        )
        # by index, because the exporter does not support `F.pad` with dynamic sizes
        answer: DeployedOutput = self.deployed(lightness[:, :, rows][:, :, :, columns])
        if answer.chroma is not None:
            answer = answer._replace(chroma=answer.chroma.permute(0, 2, 3, 1)[:, :height, :width])
        *answers, activations = answer
        return *(each for each in answers if each is not None), *activations.values()


def export_graph(module: Deployed, *, optimize: bool = True) -> Any:
    """The ONNX model of a deployed model, with its weights; `optimize` lets torch's exporter simplify it."""
    module = _simplify_for_export(copy.deepcopy(module).cpu().eval())
    model = module.model
    has = {"colour": model.colour is not None, "class": model.classifier is not None}
    # smaller sizes are padded to one stride; without `min`, torch finds that out and traces a second time
    sides = [torch.export.Dim(side, min=model.encoder.strides[-1] + 1) for side in ("height", "width")]
    program = torch.onnx.export(
        _Graph(module).eval(),
        # not multiples of each other or of a stride, which the exporter could mistake for constants
        (torch.rand(2, 1, 70, 50) * 100,),
        dynamo=True,
        verbose=False,
        optimize=optimize,
        input_names=[INPUT],
        output_names=[
            *(name for name in OUTPUTS if has.get(TASK_OF.get(name, ""), True)),
            *module.activation_names,
        ],
        dynamic_shapes={INPUT: {0: torch.export.Dim("batch"), 2: sides[0], 3: sides[1]}},
    )
    assert program is not None
    return program.model_proto


def fold_constants(model: Any) -> Any:
    """Fold everything that depends only on weights into constants, because readers do not do it."""
    from onnxscript.optimizer import optimize

    model = optimize(model, input_size_limit=_ALL_BYTES, output_size_limit=_ALL_BYTES)
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")  # the source files and lines that nodes came from
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    return model


class _BatchNorm(nn.BatchNorm2d):
    """Batch normalisation as one operator; of torch's own, tracing dynamic sizes would take a quarter of the export."""

    def forward(self, input: Tensor) -> Tensor:
        tensors = (input, self.weight, self.bias, self.running_mean, self.running_var)
        normalised = torch.onnx.ops.symbolic(
            "BatchNormalization",
            cast(Any, tensors),
            {"epsilon": self.eps},
            dtype=input.dtype,
            shape=tuple(input.shape),
            version=18,
        )
        # timm's layers contain an activation
        return getattr(self, "act", nn.Identity())(normalised)


def _simplify_for_export(module: Deployed) -> Deployed:
    """Change a network in place so that it exports quickly, with the same results.

    Convolutions that pad by the size of their input (TensorFlow's "same") get a fixed padding: if the input is a
    multiple of the stride s, a kernel of k needs k - s more pixels, the odd one at the end. With formulas of a dynamic
    size, the export would take half an hour.
    """
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Conv2d) and type(layer) is not nn.Conv2d:
            pads_by_size = isinstance(layer, Conv2dSame)
            layer.__class__ = nn.Conv2d  # has the same weights and no padding by size
            if pads_by_size:
                height, width = (max(k - s, 0) for k, s in zip(layer.kernel_size, layer.stride, strict=True))
                edges = (width // 2, width - width // 2, height // 2, height - height // 2)
                module.set_submodule(name, nn.Sequential(nn.ZeroPad2d(edges), layer))
        elif isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = _BatchNorm
        elif getattr(layer, "inplace", False):
            cast(Any, layer).inplace = False  # reversing it would take a quarter of the export
    return module.eval()


def require_packages() -> None:
    """Raise an `ExtraError` if a package of the extra `onnx` is missing."""
    with needing("Export to ONNX", "onnx"):
        for name in ("onnx", "onnxscript"):
            if find_spec(name) is None:
                raise ModuleNotFoundError(name=name)


def largest_differences(expected: _Predict, found: _Predict) -> dict[str, float]:
    """Largest absolute difference by output, in its unit, over `trial_images`.

    It is infinite if shapes differ or only one of them gives an output, and NaN if a value is.
    """
    worst: dict[str, float] = {}
    for lightness in trial_images():
        answers = expected(lightness), found(lightness)
        for name in OUTPUTS:
            one, other = (getattr(each, name) for each in answers)
            if one is None and other is None:
                continue
            difference = np.inf
            if one is not None and other is not None and one.shape == other.shape:
                difference = np.abs(one - other).max()
            worst[name] = float(np.maximum(worst.get(name, 0.0), difference))  # unlike `max`, it keeps NaN
    return worst


def trial_images() -> list[FloatArray]:
    """L* (B, h, w) of all `SIZES`, noise and smooth waves, the same every time."""
    generator = np.random.default_rng(0)
    images = []
    for count, height, width in SIZES:
        images.append(generator.uniform(0, 100, (count, height, width)).astype(np.float32))
        rows, columns = np.linspace(0, 3, height)[:, None], np.linspace(0, 2, width)
        turns = generator.uniform(0, 6, (count, 1, 1))
        images.append((50 + 50 * np.sin(rows + turns) * np.cos(columns)).astype(np.float32))
    return images


CONFIG_FILE, CARD_FILE = "config.json", "README.md"
HUB_FILES = (CARD_FILE, CONFIG_FILE, WEIGHTS)
VERBS = {"colour": "colours", "class": "classifies"}
LICENCES = frozenset(
    {"mit", "apache-2.0", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"}
)
"""Licence identifiers of the hub; any other text becomes `other` with that text as the name."""


def export_hub_folder(network: TorchNetwork, folder: Path, precision: str = "float32") -> dict[str, float]:
    """Write a folder for the hub: weights, settings to read, and a model card.

    Only `model.safetensors` is loaded; it predicts as the network does. The model is named after the folder, and
    paths on this machine are cut to their last part. Returns and raises like `export_safetensors`; a `ConfigError` if
    `folder` is a run folder.
    """
    require_no_run(folder)
    description = _without_paths(network.description, real_path(folder).name)
    differences = export_safetensors(network, folder / WEIGHTS, precision, description)
    stored = description.model_copy(update={"precision": precision})
    with replacing(folder / CONFIG_FILE) as file:
        file.write(stored.model_dump_json(indent=1) + "\n")
    with replacing(folder / CARD_FILE) as file:
        file.write(model_card(stored))
    return differences


def upload(folder: Path, repository: str, hub: Any = None) -> str:
    """Upload a folder that `export_hub_folder` made in one commit, and return the model's URL.

    A new repository, `owner/name`, is private; other files in the folder are not uploaded. `hub` is a
    `huggingface_hub.HfApi`; None: one with the login of `hf auth login`. A `RunError` if that fails.
    """
    missing = [name for name in HUB_FILES if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"`folder` should be a folder that `knowhue export --to hub-folder` made. Found no {', '.join(missing)} in "
            f"`{folder}`."
        )
    try:
        if hub is None and not hub_resolves():  # the client would retry for half a minute
            raise OfflineModeIsEnabled
        # not `PyTorchModelHubMixin`: it is a base class, and loads settings from another file than the weights
        hub = hub or HfApi()
        hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(HUB_FILES),
            commit_message="Upload a knowhue model",
        )
    except Exception as error:  # the client raises its own errors, those of httpx and OSError
        reason = first_line(error).rstrip(".")
        # its own text names a variable that the user has not set
        if isinstance(error, OfflineModeIsEnabled):
            reason = "the hub cannot be reached, or HF_HUB_OFFLINE is set"
        raise RunError(
            f"`{folder}` could not be uploaded to `{repository}`: {reason}. The folder is whole; with a connection and "
            f"`hf auth login`, upload it by: hf upload {repository} {folder}"
        ) from None
    return f"https://huggingface.co/{repository}"


def _without_paths(description: Description, name: str) -> Description:
    """A description to publish: paths on this machine are cut to their last part."""
    config = description.config
    changes = {
        "images": {"path": _last_part(config.images.path)},
        "encoder": {"weights": _last_part(config.encoder.weights)},
        "evaluation": {
            "inception_weights": _last_part(config.evaluation.inception_weights),
            "lpips_weights": _last_part(config.evaluation.lpips_weights),
        },
    }
    if config.images.source == "huggingface":  # its path is a name on the hub
        del changes["images"]
    public: Config = edit(config, changes)
    start = description.start and description.start.model_copy(
        update={"model": _last_part(description.start.model)}
    )
    return description.model_copy(update={"config": public, "name": name, "start": start})


def _last_part(path: str | None) -> str | None:
    return path and Path(path).name


def model_card(description: Description) -> str:
    """The model card, Markdown with the hub's front matter, from `card.md`; missing facts become "unknown"."""
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
    """The title of a score in Markdown, and its better direction."""
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
