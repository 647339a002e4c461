"""Is an image recognised from its colours? By a linear probe fitted to true-colour images, or a classifier of timm."""

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
from knowhue.storage import path_of_setting

Labels = NDArray[np.int64]
PENALTY = 100.0
"""Of 0.1 to 10,000, what recognised true images best in five-fold cross-validation of the training split alone."""

MOST_FITTED = 20_000
"""Images that a study's probe is fitted to: 0.2 GB of features of EfficientNet-Lite0 in float64, twice."""


class Probe(NamedTuple):
    """Multinomial logistic regression on standardised features.

    `mean` and `deviation` of the training features, (D,), 1 where one never varies; `weight` (D, classes), `bias`
    (classes,).
    """

    mean: Features
    deviation: Features
    weight: Features
    bias: Features

    def predict(self, features: Features) -> Labels:
        """(N, D) to the most probable class of each, (N,)."""
        return (((features - self.mean) / self.deviation) @ self.weight + self.bias).argmax(1)


def fitted_images(labels: Labels, most: int = MOST_FITTED) -> NDArray[np.int64]:
    """Which images a probe is fitted to, ascending: all with a known label, or of very many a sample with every class.

    >>> fitted_images(np.array([0, -1, 1])).tolist()
    [0, 2]
    """
    known = np.flatnonzero(labels >= 0)
    if len(known) <= most:
        return known
    drawn = stream(0, "recognition-probe").permutation(known)
    _, first = np.unique(labels[drawn], return_index=True)
    drawn = np.concatenate((drawn[first], np.delete(drawn, first)))
    return np.sort(drawn[: max(most, len(first))])


def fit_probe(features: Features, labels: Labels, classes: int, penalty: float = PENALTY) -> Probe:
    """Fit in float64, to convergence, as Kornblith, Shlens and Le (CVPR 2019) compare networks; by scikit-learn.

    The loss is the mean cross-entropy plus `penalty |weight|^2 / (2 N)`: the usual one of C = 1 / penalty. Features
    are standardised first. It is convex, so there is one answer.

    Args:
        features: (N, D), of true-colour images.
        labels: (N,), 0 to classes - 1, or -1 where unknown, which are left out.
        classes: 2 or more; each has an image.
        penalty: above 0.
    """
    from sklearn.linear_model import LogisticRegression  # a second to import
    from sklearn.preprocessing import StandardScaler

    known = labels >= 0
    x, y = np.asarray(features[known], np.float64), labels[known]
    # so that the penalty presses on all features alike
    scaler = StandardScaler().fit(x)
    # of two classes scikit-learn fits the difference of their weights, whose square is twice the sum of theirs
    strength = (2 if classes == 2 else 1) / penalty
    fitted = LogisticRegression(C=strength, tol=1e-7, max_iter=2000).fit(scaler.transform(x), y)
    weight, bias = fitted.coef_.T, fitted.intercept_
    if classes == 2:
        weight, bias = np.hstack((-weight, weight)) / 2, np.hstack((-bias, bias)) / 2
    return Probe(np.asarray(scaler.mean_), np.asarray(scaler.scale_), weight, bias)


def recognised(probe: Probe, features: Features, labels: Labels) -> dict[str, Any]:
    """How often the probe gives a colouring its image's class: "semantic interpretability".

    So Zhang, Isola and Efros (ECCV 2016, section 3.2) ask whether colours make sense, with a VGG network on all of
    ImageNet; here a classifier of the study's own classes that has never seen a colouring. Labels of -1 are unknown
    and do not count.

    Returns:
        `accuracy` and `balanced_accuracy`, 0 to 1 or None without labels, over `labelled` images.
    """
    truth = labels[labels >= 0]
    if not len(truth):
        return {"accuracy": None, "balanced_accuracy": None, "labelled": 0}
    right = probe.predict(features[labels >= 0]) == truth
    balanced = float(np.mean([right[truth == label].mean() for label in np.unique(truth)]))
    return {"accuracy": float(right.mean()), "balanced_accuracy": balanced, "labelled": len(truth)}


LIKELIEST = 5
_PREFIX = "timm:"
_FORMS = "timm:NAME, timm:NAME=FILE with its .safetensors or .pth file, or timm:NAME=package"


class ImageClassifier(NamedTuple):
    """A network that names what an image shows."""

    name: str
    """as it was given, without its file"""
    answer: Callable[[Pixels], NDArray[np.int64]]
    """pixels (H, W, 3) to its `LIKELIEST` likeliest outputs, the likeliest first; fewer if it has fewer"""
    synsets: tuple[str, ...]
    """the WordNet id of each output; empty where it has another number of them than ImageNet's lists"""
    outputs: int
    """how many it has"""
    provenance: dict[str, Any]
    """what a number must be quoted with"""


def open_classifier(given: str) -> ImageClassifier:
    """Open a classifier of timm and show it images as timm evaluates it: its own size, crop and normalisation.

    `timm:NAME` downloads its weights, `timm:NAME=package` takes those of a pip package (`models.encoder.BACKBONES`).

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
        scores = network(show(Pillow.fromarray(to_8_bits(pixels)))[None])[0].double().numpy()
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
    if source in ("", "package"):
        return packaged(name) if source else downloaded(name)
    return read_weights(path_of_setting(source))


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
