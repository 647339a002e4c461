"""Pretrained networks: features, DISTANCES between those of two sets of images, LPIPS (Zhang et al. 2018)."""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from knowhue.config import Evaluation
from knowhue.errors import WeightsError, first_line, install_command, of_the_machine
from knowhue.metric_table import METRICS
from knowhue.models.encoder import pretrained_features, read_weights, weights_digest
from knowhue.storage import path_of_setting
from knowhue.tensors import RGB

Features = NDArray[np.floating[Any]]
"""(N, D): one row an image."""


class ImageNetwork(NamedTuple):
    """A network that is there. It is asked about images, RGB (B, 3, H, W), 0 to 1, in float32.

    Of colourings it gives features, (B, D); LPIPS of colourings and true images (B,), 0 where they are equal.
    `provenance` is what a number must be quoted with: network, weights, resize, tool.
    """

    ask: Callable[..., Tensor]
    provenance: dict[str, Any]


class Opener(NamedTuple):
    """How a network is opened: its name in messages, `open` from a file or a download, the extra of its package."""

    name: str
    open: Callable[[str | None, torch.device], ImageNetwork]
    extra: str


class Unavailable(NamedTuple):
    """A network that cannot be opened, or that the settings do not name, and why."""

    reason: str


@cache
def open_once(
    opener: Opener, file: str | None, device: torch.device, _stamp: tuple[int, ...] = ()
) -> ImageNetwork | Unavailable:
    """What `opener` opens from a file, or downloads, once a process; or in one line why its weights are not there.

    By the file's `_stamp_of` one that was replaced, or is there by now, is opened again.

    Raises:
        OSError: too little memory, as the next; the weights may well be there.
        RuntimeError: the GPU failed.
    """
    try:
        return opener.open(file, device)
    except ImportError as error:
        return Unavailable(f"not computed: {error}; {install_command(opener.extra)}")
    # a missing, damaged or foreign file, or a download without a network
    except (OSError, RuntimeError, WeightsError) as error:
        if of_the_machine(error):
            raise
        return Unavailable(
            f"not computed: the weights of {opener.name} could not be loaded ({first_line(error)})"
        )


def _stamp_of(file: str | None) -> tuple[int, ...]:
    """What changes when a file does; nothing of none."""
    try:
        status = path_of_setting(file).stat() if file else None
    except OSError:
        status = None
    return (status.st_size, status.st_mtime_ns, status.st_ino) if status else ()


def resize(rgb: RGB, side_px: int) -> RGB:
    """Bilinear with antialiasing, which FID depends on in the first digit; clipped to 0 to 1."""
    size = (side_px, side_px)
    return interpolate(rgb, size=size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


def _lite0(_: str | None, device: torch.device) -> ImageNetwork:
    """EfficientNet-Lite0 of its pip package; 1280 pooled features."""
    network = pretrained_features("tf_efficientnet_lite0", "package").to(device)
    title = "EfficientNet-Lite0 (ImageNet), 1280 pooled features"
    provenance = _provenance(title, network, _resized(224), "knowhue, timm")
    fold_norms(network).to(memory_format=torch.channels_last)  # pyright: ignore

    def features(rgb: RGB) -> Tensor:
        # without a GPU, what fits the CPU's cache is several times as fast
        few = rgb.split(4 if rgb.device.type == "cpu" else len(rgb))
        last = (resize(each, 224).contiguous(memory_format=torch.channels_last) for each in few)
        return torch.cat([network(each).float() for each in last])

    return ImageNetwork(features, provenance)


def fold_norms(network: nn.Module) -> nn.Module:
    """Put every BatchNorm of a frozen timm network into the convolution before it, in place: the same function.

    A quarter of the time of EfficientNet-Lite0 is its passes over memory.
    """
    for parent in list(network.modules()):
        convolution = ""
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d):
                convolution = name
            elif isinstance(child, nn.BatchNorm2d):
                folded = fuse_conv_bn_eval(getattr(parent, convolution), child)
                setattr(parent, convolution, folded)
                setattr(parent, name, getattr(child, "act", nn.Identity()))
    return network


def _inception(file: str | None, device: torch.device) -> ImageNetwork:
    """The Inception-v3 of the original FID, as torch-fidelity converts it; 2048 pooled features."""
    from torch_fidelity import __version__ as version
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = None if file is None else str(path_of_setting(file))
    if path is not None:  # the package unpickles it without this check
        read_weights(Path(path))
    network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=path)
    network = network.to(device)
    title = "Inception-v3 (2015-12-05), 2048 pooled features"
    provenance = _provenance(title, network, _resized(299), f"torch-fidelity {version}")
    # FID's network was given 8-bit images, and without rounding the score is another
    return ImageNetwork(
        lambda rgb: network((255 * resize(rgb, 299)).round().to(torch.uint8))[0].float(),
        provenance | {"file": file or "downloaded by torch-fidelity"},
    )


def _provenance(title: str, network: nn.Module, resize: str, tool: str) -> dict[str, Any]:
    return {"network": title, "weights": weights_digest(network)[:16], "resize": resize, "tool": tool}


def _resized(side_px: int) -> str:
    return f"bilinear, antialiased, to {side_px} x {side_px} pixels"


class Distance(NamedTuple):
    """A number for two sets of features, and whose they are; what it is called is in `METRICS`."""

    network: str
    between: Callable[[Features, Features], float]


def frechet(first: Features, second: Features) -> float:
    """Frechet distance between the Gaussians of two sets of two images or more (Heusel et al. 2017), in float64.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). With S = R^T R from a QR decomposition of the centred
    features, the trace of the root is the sum of the singular values of R1 R2^T. It is at least 0 up to rounding, and
    biased upwards by small samples.

    >>> round(frechet(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]])), 6)
    9.0
    """
    return frechet_between(gaussian_of([triangle(first)]), gaussian_of([triangle(second)]))


class Gaussian(NamedTuple):
    """Of a set of features: its mean (D,), and R of its covariance R^T R, float64."""

    mean: NDArray[np.float64]
    root: NDArray[np.float64]


def triangle(features: Features) -> NDArray[np.float64]:
    """R of the QR decomposition of features with a column of ones before them, some rows at a time.

    Those of the parts of a set make that of the whole: `gaussian_of`.
    """
    found = np.empty((0, features.shape[1] + 1))
    for start in range(0, len(features), _ROWS):
        part = np.asarray(features[start : start + _ROWS], np.float64)
        with_ones = np.concatenate((np.ones((len(part), 1)), part), 1)
        found = np.asarray(np.linalg.qr(np.concatenate((found, with_ones)), mode="r"))
    return found


def gaussian_of(triangles: Sequence[NDArray[np.float64]]) -> Gaussian:
    """The mean and covariance of the features of some `triangle`s."""
    found = triangles[0]
    if len(triangles) > 1:
        found = np.asarray(np.linalg.qr(np.concatenate(triangles), mode="r"))
    # the column of ones takes the mean out of all others
    count = found[0, 0] ** 2
    return Gaussian(found[0, 1:] / found[0, 0], found[1:, 1:] / np.sqrt(count - 1))


def frechet_between(first: Gaussian, second: Gaussian) -> float:
    """See `frechet`."""
    shift = first.mean - second.mean
    # no root of an ill-conditioned product is taken, and no imaginary part dropped
    overlap = np.linalg.svd(first.root @ second.root.T, compute_uv=False).sum()
    return float(shift @ shift + sum((each.root**2).sum() for each in (first, second)) - 2 * overlap)


def kernel_distance(first: Features, second: Features) -> float:
    """Unbiased squared MMD with the kernel (x y / D + 1)^3 (Binkowski et al. 2018), in float64.

    Over all pairs of images of sets of two or more rather than over random subsets, so it has no seed. It is 0 on
    average between samples of one distribution, so it may be negative.
    """
    across = kernel_sum(first, second) / (len(first) * len(second))
    return _within(first) + _within(second) - 2 * across


DISTANCES: dict[str, Distance] = {
    "fd_lite0": Distance("lite0", frechet),
    "kd_lite0": Distance("lite0", kernel_distance),
    "fid": Distance("inception", frechet),
    "kid": Distance("inception", kernel_distance),
}
ENOUGH = 2048
"""Images below which a Frechet distance in thousands of dimensions is mostly bias."""
_BLOCK = 1024
_ROWS = 4096


def measure_distances(
    features: Mapping[str, Features],
    truth: Mapping[str, Features],
    networks: Mapping[str, ImageNetwork | Unavailable],
) -> dict[str, dict[str, Any]]:
    """Every distance of `DISTANCES` with all that it must be quoted with, or why there is none."""
    return {
        name: {"title": METRICS[name].title, "better": METRICS[name].better}
        | _measure(distance.between, features.get(key), truth.get(key), networks[key])
        for name, distance in DISTANCES.items()
        for key in [distance.network]
    }


def _measure(
    between: Callable[[Features, Features], float],
    features: Features | None,
    truth: Features | None,
    network: ImageNetwork | Unavailable,
) -> dict[str, Any]:
    if isinstance(network, Unavailable):
        return {"value": None, "reason": network.reason}
    if features is None or truth is None or min(len(features), len(truth)) < 2:
        return {"value": None, "reason": "not computed: fewer than two images"}
    if not np.isfinite(features).all():
        return {"value": None, "reason": "not computed: some colourings are not numbers"}
    sizes = {"images": len(features), "reference_images": len(truth)}
    # with fewer images than features a covariance is singular
    smallest, needed = min(sizes.values()), max(ENOUGH, features.shape[1])
    warning = f"{smallest} images are fewer than {needed}: mostly bias; compare only with rows of the same sample sizes"
    about = {**network.provenance, **sizes, **({"warning": warning} if smallest < needed else {})}
    return {"value": between(features, truth), **about}


def _within(x: Features) -> float:
    """Mean kernel of different images of one set."""
    return (kernel_sum(x, x) - kernel_diagonal(x, x).sum()) / (len(x) * (len(x) - 1))


def kernel_diagonal(x: Features, y: Features) -> NDArray[np.float64]:
    """The kernel of each row of one set and the same row of another, (N,)."""
    return (np.einsum("nd,nd->n", x, y, dtype=np.float64) / x.shape[1] + 1) ** 3


def kernel_sum(x: Features, y: Features) -> float:
    """Sum over all pairs, block by block so that memory stays small."""
    total = 0.0
    for start in range(0, len(x), _BLOCK):
        some = np.asarray(x[start : start + _BLOCK], np.float64)
        for other in range(0, len(y), _BLOCK):
            kernel = some @ np.asarray(y[other : other + _BLOCK], np.float64).T / x.shape[1] + 1
            total += float((kernel * kernel * kernel).sum())
    return total


LPIPS = "lpips_alex"
"""The metric and the column of its values."""
TITLE = "LPIPS, AlexNet"
SMALLEST_PX = 64
"""The side that it was trained on; smaller images are enlarged to it."""
_PIXELS = 2**18
"""Pixels a pass: the first layer makes 64 channels of them, of both images."""


def describe(
    network: ImageNetwork | Unavailable, rows: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What the column's numbers must be quoted with, or why there are none; nothing without colours."""
    if not rows or "ab_l1" not in rows[0]:
        return {}
    about = {"title": TITLE, "better": "lower"}
    if isinstance(network, Unavailable):
        return {LPIPS: about | {"value": None, "reason": network.reason}}
    mean = float(np.mean(np.array([row[LPIPS] for row in rows], float)))
    if not np.isfinite(mean):
        return {LPIPS: about | {"value": None, "reason": "not computed: some colourings are not numbers"}}
    return {LPIPS: about | {"value": mean, **network.provenance, "images": len(rows)}}


def _lpips(file: str | None, device: torch.device) -> ImageNetwork:
    # the public class downloads AlexNet while it is made, and takes no file
    from torchmetrics.functional.image.lpips import _LPIPS

    network = _LPIPS(net="alex", pnet_rand=True)
    _fill(network.net, file)
    network = network.to(device)
    resized = f"not resized, but bilinear to {SMALLEST_PX} x {SMALLEST_PX} pixels if smaller"
    provenance = _provenance(TITLE, network, resized, f"torchmetrics {version('torchmetrics')}")
    return ImageNetwork(
        partial(_distance, network), provenance | {"file": file or "downloaded by torchvision"}
    )


def _distance(network: nn.Module, colouring: RGB, truth: RGB) -> Tensor:
    """In passes of bounded size."""
    if min(truth.shape[2:]) < SMALLEST_PX:
        colouring, truth = resize(colouring, SMALLEST_PX), resize(truth, SMALLEST_PX)
    count = max(1, _PIXELS // truth[0, 0].numel())
    pairs = zip(colouring.split(count), truth.split(count), strict=True)
    # `normalize`: they come as 0 to 1, and the network was trained on -1 to 1
    return torch.cat([network(*pair, normalize=True).flatten(1).squeeze(1) for pair in pairs])


def _fill(alexnet: nn.Module, file: str | None) -> None:
    """Load ImageNet's weights from a file in torchvision's form, or its download, checked by its hash."""
    if file is not None:
        stored = read_weights(path_of_setting(file))
    else:
        from torchvision.models import AlexNet_Weights

        with redirect_stdout(io.StringIO()):  # torch prints that it downloads
            stored = AlexNet_Weights.IMAGENET1K_V1.get_state_dict(
                progress=False, check_hash=True, weights_only=True
            )
    # slice2.3.weight is torchvision's features.3.weight
    names = {name: f"features.{name.partition('.')[2]}" for name in alexnet.state_dict()}
    if missing := [name for name in names.values() if name not in stored]:
        raise WeightsError(f"the file has no tensor {missing[0]}")
    alexnet.load_state_dict({own: stored[name] for own, name in names.items()})


NETWORKS: dict[str, Opener] = {
    "lite0": Opener("lite0", _lite0, "fid"),
    "inception": Opener("inception", _inception, "fid"),
    "lpips": Opener("lpips", _lpips, "perceptual"),
}


def open_networks(settings: Evaluation, device: torch.device) -> dict[str, ImageNetwork | Unavailable]:
    """Every network of `NETWORKS`, or why it is not there; each is opened once a process."""
    files = {"inception": settings.inception_weights, "lpips": settings.lpips_weights}
    found: dict[str, ImageNetwork | Unavailable] = {}
    for name, opener in NETWORKS.items():
        file = files.get(name)
        setting = "perceptual" if name == "lpips" else "networks"
        if name in getattr(settings, setting):
            found[name] = open_once(opener, file, device, _stamp_of(file))
        else:
            found[name] = Unavailable(f"not computed: `evaluation.{setting}` does not ask for {name}")
    return found


def available_networks(settings: Evaluation, device: torch.device) -> dict[str, ImageNetwork]:
    """Those of `open_networks` that are there and give features."""
    networks = open_networks(settings, device)
    del networks["lpips"]
    return {name: network for name, network in networks.items() if isinstance(network, ImageNetwork)}
