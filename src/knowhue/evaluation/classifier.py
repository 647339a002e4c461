"""Any classifier of timm, with the weights that a user names: the likeliest classes of an image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from timm.data.config import resolve_data_config
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from timm.data.transforms_factory import create_transform
from torch import nn

from knowhue.errors import ConfigError, WeightsError, did_you_mean, shown
from knowhue.images.image import Pixels
from knowhue.models.encoder import ENCODERS, Weights, downloaded, read_weights, weights_digest

LIKELIEST = 5
_PREFIX = "timm:"
_FORMS = "timm:NAME, timm:NAME=FILE with its .safetensors or .pth file, or timm:NAME=package"


class ImageClassifier(NamedTuple):
    """A network that names what an image shows.

    Attributes:
        name: as it was given, without its file.
        answer: pixels (H, W, 3) to its `LIKELIEST` likeliest outputs, the likeliest first; fewer if it has fewer.
        synsets: the WordNet id of each output; empty where it has another number of them than ImageNet's lists.
        outputs: how many it has.
        provenance: what a number must be quoted with.
    """

    name: str
    answer: Callable[[Pixels], NDArray[np.int64]]
    synsets: tuple[str, ...]
    outputs: int
    provenance: dict[str, Any]


def open_classifier(given: str) -> ImageClassifier:
    """Open a classifier of timm and show it images as timm evaluates it: its own size, crop and normalisation.

    Args:
        given: `timm:NAME`, whose weights are downloaded; `timm:NAME=FILE`; or `timm:NAME=package` for those of a pip
            package, see `models.encoder.ENCODERS`.

    Raises:
        ConfigError: no such network, or its weights cannot be loaded.
    """
    name, _, source = given.removeprefix(_PREFIX).partition("=")
    if not given.startswith(_PREFIX) or not name:
        raise ConfigError(f"`--classifier` should be {_FORMS}. Found `{shown(given)}`.")
    if not timm.is_model(name.partition(".")[0]):
        near = did_you_mean(name, timm.list_models())
        raise ConfigError(f"`--classifier` should name a network of timm. Found `{shown(name)}`.{near}")
    try:
        network = _with_weights(name, _weights(name, source))
    except WeightsError as error:
        raise ConfigError(
            f"`--classifier {shown(given)}`: {str(error).rstrip('.')}. It may be {_FORMS}."
        ) from None
    network.requires_grad_(False).eval()
    config = resolve_data_config(model=network, use_test_size=True)
    show = cast(Callable[[Pillow.Image], torch.Tensor], create_transform(**config))

    def answer(pixels: Pixels) -> NDArray[np.int64]:
        codes = pixels if pixels.dtype == np.uint8 else np.round(pixels / 257).astype(np.uint8)
        scores = network(show(Pillow.fromarray(codes))[None])[0].double().numpy()
        if not np.isfinite(scores).all():
            raise ConfigError(f"`--classifier {shown(given)}` should give numbers. Found some that are none.")
        return np.argsort(-scores, kind="stable")[:LIKELIEST]

    subset = infer_imagenet_subset(network)
    synsets = ImageNetInfo(subset).label_names() if subset else ()
    outputs = int(cast(Any, network).num_classes)
    shape = " x ".join(str(side) for side in config["input_size"][1:])
    provenance = {
        "network": name,
        "weights": weights_digest(network)[:16],
        "outputs": outputs,
        "input": f"the pixels that the protocol compares, in 8 bits: {shape} of a {config['crop_mode']} crop of "
        f"{config['crop_pct']:g}, {config['interpolation']}; mean {_listed(config['mean'])}, "
        f"deviation {_listed(config['std'])}",
        "tool": "timm",
    }
    return ImageClassifier(_PREFIX + name, answer, tuple(synsets), outputs, provenance)


def _weights(name: str, source: str) -> Weights:
    if not source:
        return downloaded(name)
    if source != "package":
        return read_weights(Path(source).expanduser())
    package = ENCODERS[name].package if name in ENCODERS else None
    if package is None:
        having = ", ".join(each for each, backbone in ENCODERS.items() if backbone.package)
        raise WeightsError(f"No pip package has the weights of `{name}`, only of {having}.")
    return package()


def _with_weights(name: str, weights: Weights) -> nn.Module:
    """The network with as many outputs as its weights have; every tensor must fit."""
    try:
        usual = cast(Any, timm.get_pretrained_cfg(name))
    except RuntimeError:
        raise WeightsError(f"timm knows no weights of that name for `{name.partition('.')[0]}`.") from None
    layers = getattr(usual, "classifier", None) or ""
    last = layers if isinstance(layers, str) else layers[0]  # of distilled networks the first
    found = weights.get(f"{last}.weight")
    if found is None:
        raise WeightsError(
            f"The weights should hold the last layer of `{name}`, `{last}.weight`. Found none."
        )
    outputs = found.shape[0]
    overlay = {"state_dict": dict(weights), "num_classes": outputs, "label_offset": 0}
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=outputs)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"The weights should be those of `{name}`. Found others: {reason[:160]}."
        ) from None


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{each:g}" for each in values)
