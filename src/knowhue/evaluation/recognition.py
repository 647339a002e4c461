"""Recognition of colourings, by a linear probe fitted to true-colour images or by a classifier of timm."""

from collections.abc import Callable
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
from knowhue.evaluation.features import Features
from knowhue.images.image import Pixels, to_8_bits
from knowhue.models.encoder import Weights, downloaded, packaged, read_weights, weights_digest
from knowhue.randomness import stream
from knowhue.storage import expand_user

Labels = NDArray[np.int64]
PENALTY = 100.0
"""The value from 0.1 to 10,000 that recognised true images best in five-fold cross-validation on the training split."""

MOST_FITTED = 20_000
"""Greatest number of images to fit a probe to: features of EfficientNet-Lite0 take 0.2 GB in float64, twice."""


class Probe(NamedTuple):
    """Multinomial logistic regression on standardised features.

    `mean` and `deviation` (D,) are those of the training features, with a deviation of 1 for constant ones; `weight` is
    (D, classes), `bias` (classes,).
    """

    mean: Features
    deviation: Features
    weight: Features
    bias: Features

    def predict(self, features: Features) -> Labels:
        """The most probable class of each row, (N, D) to (N,)."""
        return (((features - self.mean) / self.deviation) @ self.weight + self.bias).argmax(1)


def fitted_images(labels: Labels, most: int = MOST_FITTED) -> NDArray[np.int64]:
    """Indices, ascending, of the images to fit a probe to: all with a label, or a sample with every class if many.

    >>> fitted_images(np.array([0, -1, 1])).tolist()
    [0, 2]
    """
    known = np.flatnonzero(labels >= 0)
    if len(known) <= most:
        return known
    shuffled = stream(0, "recognition-probe").permutation(known)
    _, first = np.unique(labels[shuffled], return_index=True)
    shuffled = np.concatenate((shuffled[first], np.delete(shuffled, first)))
    return np.sort(shuffled[: max(most, len(first))])


def fit_probe(features: Features, labels: Labels, classes: int, penalty: float = PENALTY) -> Probe:
    """Fit a probe to convergence in float64, as Kornblith, Shlens and Le (CVPR 2019) do to compare networks.

    The loss is the mean cross-entropy plus `penalty |weight|^2 / (2 N)`, scikit-learn's with C = 1 / penalty, on
    standardised features. It is convex, so the solution is unique. `features` are (N, D), `labels` (N,), from 0 to
    `classes` - 1, each with an image, or -1 for images that are left out.
    """
    from sklearn.linear_model import LogisticRegression  # a second to import
    from sklearn.preprocessing import StandardScaler

    known = labels >= 0
    x, y = np.asarray(features[known], np.float64), labels[known]
    # standardised, so that the penalty affects all features equally
    scaler = StandardScaler().fit(x)
    # for two classes scikit-learn fits the difference of their weights, whose square is twice the sum of their squares
    strength = (2 if classes == 2 else 1) / penalty
    fitted = LogisticRegression(C=strength, tol=1e-7, max_iter=2000).fit(scaler.transform(x), y)
    weight, bias = fitted.coef_.T, fitted.intercept_
    if classes == 2:
        weight, bias = np.hstack((-weight, weight)) / 2, np.hstack((-bias, bias)) / 2
    return Probe(np.asarray(scaler.mean_), np.asarray(scaler.scale_), weight, bias)


def recognised(probe: Probe, features: Features, labels: Labels) -> dict[str, Any]:
    """Accuracy of the probe on colourings: their "semantic interpretability".

    Zhang, Isola and Efros (ECCV 2016, section 3.2) measure it with a VGG network trained on ImageNet; here the probe
    classifies the study's own classes, and was not fitted to colourings. Images with label -1 are left out. Returns
    `accuracy` and `balanced_accuracy`, 0 to 1 or None without labels, over `labelled` images.
    """
    truth = labels[labels >= 0]
    if not len(truth):
        return {"accuracy": None, "balanced_accuracy": None, "labelled": 0}
    correct = probe.predict(features[labels >= 0]) == truth
    balanced = float(np.mean([correct[truth == label].mean() for label in np.unique(truth)]))
    return {"accuracy": float(correct.mean()), "balanced_accuracy": balanced, "labelled": len(truth)}


LIKELIEST = 5  # number of most likely outputs that a classifier returns
_PREFIX = "timm:"
_FORMS = "timm:NAME, timm:NAME=FILE with its .safetensors or .pth file, or timm:NAME=package"


class ImageClassifier(NamedTuple):
    """A classifier of images."""

    name: str
    """as the user wrote it, without its file"""
    predict: Callable[[Pixels], NDArray[np.int64]]
    """from pixels (H, W, 3) to the `LIKELIEST` most likely outputs, most likely first; fewer if it has fewer"""
    synsets: tuple[str, ...]
    """WordNet id of each output; empty unless the number of outputs is one of ImageNet's"""
    outputs: int
    provenance: dict[str, Any]
    """identifies network, weights and input, and must be quoted with each number"""


def open_classifier(option: str) -> ImageClassifier:
    """Open a classifier of timm, which preprocesses images as in timm's evaluation: size, crop and normalisation.

    `timm:NAME` downloads its weights, `timm:NAME=package` uses those of a pip package (`models.encoder.PACKAGES`). A
    `ConfigError` is raised if there is no such network, or its weights cannot be loaded.
    """
    name, _, source = option.removeprefix(_PREFIX).partition("=")
    if not option.startswith(_PREFIX) or not name:
        raise ConfigError(f"`--classifier` should be {_FORMS}. Found `{shown(option)}`.")
    if not timm.is_model(name.partition(".")[0]):
        near = did_you_mean(name, timm.list_models())
        raise ConfigError(f"`--classifier` should name a network of timm. Found `{shown(name)}`.{near}")
    try:
        network = _with_weights(name, _weights(name, source))
    except WeightsError as error:
        raise ConfigError(
            f"`--classifier {shown(option)}`: {str(error).rstrip('.')}. It can be {_FORMS}."
        ) from None
    network.requires_grad_(False).eval()
    config = resolve_data_config(model=network, use_test_size=True)
    transform = cast(Callable[[Pillow.Image], torch.Tensor], create_transform(**config))

    def predict(pixels: Pixels) -> NDArray[np.int64]:
        scores = network(transform(Pillow.fromarray(to_8_bits(pixels)))[None])[0].double().numpy()
        if not np.isfinite(scores).all():
            raise ConfigError(
                f"`--classifier {shown(option)}` should give finite scores. Found NaN or infinity."
            )
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
    return ImageClassifier(_PREFIX + name, predict, tuple(synsets), outputs, provenance)


def _weights(name: str, source: str) -> Weights:
    if source in ("", "package"):
        return packaged(name) if source else downloaded(name)
    return read_weights(expand_user(source))


def _with_weights(name: str, weights: Weights) -> nn.Module:
    """Create the network with as many outputs as the weights have, and load the weights, all of which must fit."""
    try:
        config = cast(Any, timm.get_pretrained_cfg(name))
    except RuntimeError:
        raise WeightsError(f"timm has no weights of that name for `{name.partition('.')[0]}`.") from None
    layers = getattr(config, "classifier", None) or ""
    last = layers if isinstance(layers, str) else layers[0]  # distilled networks have two
    last_weight = weights.get(f"{last}.weight")
    if last_weight is None:
        raise WeightsError(f"The weights should hold the last layer of `{name}`. Found no `{last}.weight`.")
    outputs = last_weight.shape[0]
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
