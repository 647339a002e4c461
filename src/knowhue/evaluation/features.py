"""Metrics by pretrained networks: DISTANCES between the features of two sets of images, and LPIPS."""

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
from knowhue.errors import WeightsError, first_line, install_command, is_machine_failure
from knowhue.metric_table import METRICS
from knowhue.models.encoder import Weights, pretrained_features, read_weights, weights_digest
from knowhue.storage import expand_user
from knowhue.tensors import RGB

Features = NDArray[np.floating[Any]]
"""Features (N, D), one row per image."""


class ImageNetwork(NamedTuple):
    """A loaded network.

    `compute` maps colourings, sRGB (B, 3, H, W), 0 to 1, float32, to features (B, D); for LPIPS, colourings and true
    images to distances (B,), 0 if equal. `provenance` (network, weights, resizing, tool) belongs to each number.
    """

    compute: Callable[..., Tensor]
    provenance: dict[str, Any]


class Opener(NamedTuple):
    """How to load a network: its name in messages, a function of a file of weights or None, its library's extra."""

    name: str
    open: Callable[[str | None, torch.device], ImageNetwork]
    extra: str


class Unavailable(NamedTuple):
    """A network that could not be loaded, or that the settings leave out, and the reason."""

    reason: str


@cache
def open_once(
    opener: Opener, file: str | None, device: torch.device, _stamp: tuple[int, ...] = ()
) -> ImageNetwork | Unavailable:
    """Load a network, once per process; if its weights are missing or damaged, return the reason in one line.

    `_stamp` is the file's `_stamp_of`, so that a new or replaced file is loaded again. Failures of the machine raise.
    """
    try:
        return opener.open(file, device)
    except ImportError as error:
        return Unavailable(f"not computed: {error}; {install_command(opener.extra)}")
    # a missing or damaged file, a file of other weights, or no network for the download
    except (OSError, RuntimeError, WeightsError) as error:
        if is_machine_failure(error):
            raise
        return Unavailable(
            f"not computed: the weights of {opener.name} could not be loaded ({first_line(error)})"
        )


def _stamp_of(file: str | None) -> tuple[int, ...]:
    """Size, time and inode of a file, which change when it is replaced; empty if there is none."""
    try:
        status = expand_user(file).stat() if file else None
    except OSError:
        status = None
    return (status.st_size, status.st_mtime_ns, status.st_ino) if status else ()


def resize(rgb: RGB, side_px: int) -> RGB:
    """Resize bilinearly with antialiasing, which changes the first digit of FID; clipped to 0 to 1."""
    size = (side_px, side_px)
    return interpolate(rgb, size=size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


def _lite0(_: str | None, device: torch.device) -> ImageNetwork:
    """EfficientNet-Lite0 from its pip package; 1280 pooled features."""
    network = pretrained_features("tf_efficientnet_lite0", "package").to(device)
    title = "EfficientNet-Lite0 (ImageNet), 1280 pooled features"
    provenance = _provenance(title, network, _resized(224), "knowhue, timm")
    fold_norms(network).to(memory_format=torch.channels_last)  # pyright: ignore

    def features(rgb: RGB) -> Tensor:
        # on a CPU, four images fit its cache, which is several times as fast
        chunks = rgb.split(4 if rgb.device.type == "cpu" else len(rgb))
        resized = (resize(chunk, 224).contiguous(memory_format=torch.channels_last) for chunk in chunks)
        return torch.cat([network(chunk).float() for chunk in resized])

    return ImageNetwork(features, provenance)


def fold_norms(network: nn.Module) -> nn.Module:
    """Fold every BatchNorm of a frozen timm network into the convolution before it, in place.

    BatchNorm's passes over memory take a quarter of EfficientNet-Lite0's time.
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

    path = None if file is None else str(expand_user(file))
    if path is not None:
        read_weights(Path(path))  # checked here, because the package would unpickle any file
    network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=path)
    network = network.to(device)
    title = "Inception-v3 (2015-12-05), 2048 pooled features"
    provenance = _provenance(title, network, _resized(299), f"torch-fidelity {version}")
    # rounded, because FID's network takes 8-bit images; without rounding the score changes
    return ImageNetwork(
        lambda rgb: network((255 * resize(rgb, 299)).round().to(torch.uint8))[0].float(),
        provenance | {"file": file or "downloaded by torch-fidelity"},
    )


def _provenance(title: str, network: nn.Module, resize: str, tool: str) -> dict[str, Any]:
    return {"network": title, "weights": weights_digest(network)[:16], "resize": resize, "tool": tool}


def _resized(side_px: int) -> str:
    return f"bilinear, antialiased, to {side_px} x {side_px} pixels"


class Distance(NamedTuple):
    """A distance between two sets of features of a network; its title is in `METRICS`."""

    network: str
    between: Callable[[Features, Features], float]


def frechet(first: Features, second: Features) -> float:
    """Frechet distance between Gaussians fitted to two sets of features (Heusel et al. 2017), in float64.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). With S = R^T R from a QR decomposition of the centred
    features, the trace of the root is the sum of the singular values of R1 R2^T. It is at least 0 up to rounding, and
    biased upwards for small samples. Each set needs two images or more.

    >>> round(frechet(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]])), 6)
    9.0
    """
    return frechet_between(gaussian_of([triangle(first)]), gaussian_of([triangle(second)]))


class Gaussian(NamedTuple):
    """Gaussian fitted to features: the mean (D,), and the root R (D, D) of the covariance R^T R, float64."""

    mean: NDArray[np.float64]
    root: NDArray[np.float64]


def triangle(features: Features) -> NDArray[np.float64]:
    """R of the QR decomposition of (1, features), with a column of ones first, computed in chunks of rows.

    `gaussian_of` combines those of several parts of a set.
    """
    r = np.empty((0, features.shape[1] + 1))
    for start in range(0, len(features), _ROWS):
        chunk = np.asarray(features[start : start + _ROWS], np.float64)
        with_ones = np.concatenate((np.ones((len(chunk), 1)), chunk), 1)
        r = np.asarray(np.linalg.qr(np.concatenate((r, with_ones)), mode="r"))
    return r


def gaussian_of(triangles: Sequence[NDArray[np.float64]]) -> Gaussian:
    """Gaussian of the union of sets of features, from the `triangle` of each set."""
    r = triangles[0]
    if len(triangles) > 1:
        r = np.asarray(np.linalg.qr(np.concatenate(triangles), mode="r"))
    # the other columns are orthogonal to that of ones, so they are centred
    count = r[0, 0] ** 2
    return Gaussian(r[0, 1:] / r[0, 0], r[1:, 1:] / np.sqrt(count - 1))


def frechet_between(first: Gaussian, second: Gaussian) -> float:
    """Frechet distance between two Gaussians, see `frechet`."""
    shift = first.mean - second.mean
    # singular values avoid the matrix root of an ill-conditioned product, whose imaginary part would be dropped
    overlap = np.linalg.svd(first.root @ second.root.T, compute_uv=False).sum()
    return float(shift @ shift + sum((each.root**2).sum() for each in (first, second)) - 2 * overlap)


def kernel_distance(first: Features, second: Features) -> float:
    """Unbiased squared MMD with the kernel (x y / D + 1)^3 (Binkowski et al. 2018), in float64.

    Over all pairs of images rather than over random subsets, so it needs no seed. Its expectation is 0 for samples of
    one distribution, so it can be negative. Each set needs two images or more.
    """
    across = kernel_sum(first, second) / (len(first) * len(second))
    return _within(first) + _within(second) - 2 * across


DISTANCES: dict[str, Distance] = {
    "fd_lite0": Distance("lite0", frechet),
    "kd_lite0": Distance("lite0", kernel_distance),
    "fid": Distance("inception", frechet),
    "kid": Distance("inception", kernel_distance),
}
ENOUGH = 2048  # number of images below which a Frechet distance in thousands of dimensions is mostly bias
_BLOCK = 1024  # rows of a block of `kernel_sum`
_ROWS = 4096  # rows of a chunk of `triangle`


def measure_distances(
    features: Mapping[str, Features],
    truth: Mapping[str, Features],
    networks: Mapping[str, ImageNetwork | Unavailable],
) -> dict[str, dict[str, Any]]:
    """Compute all DISTANCES of colourings to true images, with their provenance, or the reason if not computed."""
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
    # a covariance is singular if there are fewer images than features
    smallest, needed = min(sizes.values()), max(ENOUGH, features.shape[1])
    warning = f"{smallest} images are fewer than {needed}: mostly bias; compare only with rows of the same sample sizes"
    details = {**network.provenance, **sizes, **({"warning": warning} if smallest < needed else {})}
    return {"value": between(features, truth), **details}


def _within(x: Features) -> float:
    """Mean of the kernel over all pairs of different images of one set."""
    return (kernel_sum(x, x) - kernel_diagonal(x, x).sum()) / (len(x) * (len(x) - 1))


def kernel_diagonal(x: Features, y: Features) -> NDArray[np.float64]:
    """Kernel of each row of one set with the same row of another, (N,)."""
    return (np.einsum("nd,nd->n", x, y, dtype=np.float64) / x.shape[1] + 1) ** 3


def kernel_sum(x: Features, y: Features) -> float:
    """Sum of the kernel over all pairs, in blocks that bound memory."""
    total = 0.0
    for i in range(0, len(x), _BLOCK):
        block = np.asarray(x[i : i + _BLOCK], np.float64)
        for j in range(0, len(y), _BLOCK):
            kernel = block @ np.asarray(y[j : j + _BLOCK], np.float64).T / x.shape[1] + 1
            total += float((kernel * kernel * kernel).sum())
    return total


LPIPS = "lpips_alex"
LPIPS_TITLE = "LPIPS, AlexNet"
SMALLEST_PX = 64  # side in pixels on which LPIPS was trained; smaller images are enlarged to it
_PIXELS = 2**18  # pixels per pass, of which the first layer makes 64 channels for both images


def describe_lpips(
    network: ImageNetwork | Unavailable, rows: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Mean and provenance of LPIPS, or the reason if not computed; empty if the rows have no colours."""
    if not rows or "ab_l1" not in rows[0]:
        return {}
    metric = {"title": LPIPS_TITLE, "better": "lower"}
    if isinstance(network, Unavailable):
        return {LPIPS: metric | {"value": None, "reason": network.reason}}
    mean = float(np.mean(np.array([row[LPIPS] for row in rows], float)))
    if not np.isfinite(mean):
        return {LPIPS: metric | {"value": None, "reason": "not computed: some colourings are not numbers"}}
    return {LPIPS: metric | {"value": mean, **network.provenance, "images": len(rows)}}


def _lpips(file: str | None, device: torch.device) -> ImageNetwork:
    """LPIPS with AlexNet (Zhang et al. 2018)."""
    # the private class, because the public one downloads AlexNet and cannot load a file
    from torchmetrics.functional.image.lpips import _LPIPS

    stored = _read_alexnet(file)  # first, because the network takes longer to build
    network = _LPIPS(net="alex", pnet_rand=True)
    # for example, slice2.3.weight is torchvision's features.3.weight
    names = {name: f"features.{name.partition('.')[2]}" for name in network.net.state_dict()}
    if missing := [name for name in names.values() if name not in stored]:
        raise WeightsError(f"the file has no tensor {missing[0]}")
    network.net.load_state_dict({name: stored[stored_name] for name, stored_name in names.items()})
    network = network.to(device)
    resized = f"not resized, but bilinear to {SMALLEST_PX} x {SMALLEST_PX} pixels if smaller"
    provenance = _provenance(LPIPS_TITLE, network, resized, f"torchmetrics {version('torchmetrics')}")
    return ImageNetwork(
        partial(_lpips_distance, network), provenance | {"file": file or "downloaded by torchvision"}
    )


def _lpips_distance(network: nn.Module, colouring: RGB, truth: RGB) -> Tensor:
    """LPIPS (B,) of pairs of images, in passes that bound memory."""
    if min(truth.shape[2:]) < SMALLEST_PX:
        colouring, truth = resize(colouring, SMALLEST_PX), resize(truth, SMALLEST_PX)
    count = max(1, _PIXELS // truth[0, 0].numel())
    pairs = zip(colouring.split(count), truth.split(count), strict=True)
    # `normalize` scales from 0..1 to -1..1
    return torch.cat([network(*pair, normalize=True).flatten(1).squeeze(1) for pair in pairs])


def _read_alexnet(file: str | None) -> Weights:
    """Read ImageNet weights from a file in torchvision's format, or from its download with its hash checked."""
    if file is not None:
        return read_weights(expand_user(file))
    from torchvision.models import AlexNet_Weights

    with redirect_stdout(io.StringIO()):  # hides torch's message about the download
        return AlexNet_Weights.IMAGENET1K_V1.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )


NETWORKS: dict[str, Opener] = {
    "lite0": Opener("lite0", _lite0, "fid"),
    "inception": Opener("inception", _inception, "fid"),
    "lpips": Opener("lpips", _lpips, "perceptual"),
}


def open_networks(settings: Evaluation, device: torch.device) -> dict[str, ImageNetwork | Unavailable]:
    """Open all networks of `NETWORKS` that the settings name, each once per process; or the reasons why not."""
    files = {"inception": settings.inception_weights, "lpips": settings.lpips_weights}
    networks: dict[str, ImageNetwork | Unavailable] = {}
    for name, opener in NETWORKS.items():
        file = files.get(name)
        setting = "perceptual" if name == "lpips" else "networks"
        if name in getattr(settings, setting):
            networks[name] = open_once(opener, file, device, _stamp_of(file))
        else:
            networks[name] = Unavailable(f"not computed: `evaluation.{setting}` does not name {name}")
    return networks


def available_networks(settings: Evaluation, device: torch.device) -> dict[str, ImageNetwork]:
    """The networks that were opened, without LPIPS, which gives no features."""
    networks = open_networks(settings, device)
    del networks["lpips"]
    return {name: network for name, network in networks.items() if isinstance(network, ImageNetwork)}
