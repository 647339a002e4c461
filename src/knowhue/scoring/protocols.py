"""PROTOCOLS: how images are processed before comparison and how numbers are judged, as settings with a hash."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator
from scipy.sparse import csr_array

from knowhue.config import Images, PositiveFloat, Section, digest
from knowhue.errors import ConfigError, one_of
from knowhue.images.image import Image, Pixels, to_8_bits
from knowhue.metric_table import OF_CLASSIFIER
from knowhue.plan import Alpha
from knowhue.presets import checked
from knowhue.settings_text import read_yaml
from knowhue.statistics import ALPHA

MARGINS = {
    "ciede2000": 0.25,
    "ab_l1": 0.25,
    "ab_auc": 0.0025,
    "psnr_rgb": 0.25,
    "ssim_rgb": 0.0025,
    "mean_colourfulness_difference": 1.0,
    "mean_colourfulness_difference_absolute": 1.0,
    "lpips_alex": 0.005,
    "recognition": 0.01,
    "top1_accuracy": 0.01,
    "top1_agreement": 0.01,
}
"""Smallest differences of interest, in each metric's unit; our choice, because no paper that we know of states any."""


class Protocol(Section):
    """How images are compared. All settings are part of the hash."""

    LISTED = "A page of `knowhue score` prints them all."
    name: Annotated[str, Field(min_length=1, max_length=60)]
    """name of the protocol"""
    geometry: Literal["stretch", "crop", "original"]
    """stretch (resize to a square regardless of the aspect ratio), crop (cut out the central square and resize it), or
    original (do not resize)"""
    size_px: Annotated[int, Field(ge=11, le=4096)] | None
    """side of the square, in pixels; null for original"""
    interpolation: Literal["bilinear", "area", "none"]
    """bilinear (without antialiasing, like OpenCV's INTER_LINEAR), area (mean over the area of a pixel), or none"""
    codes: Literal["8-bit", "as-stored"]
    """8-bit (sRGB codes 0 to 255, also after resizing, like published numbers) or as-stored (16 bits stay 16)"""
    colour: Literal["sRGB to CIELAB, D65, 2 degree observer"] = "sRGB to CIELAB, D65, 2 degree observer"
    """conversion to L*a*b*"""
    equal_psnr_db: Annotated[float, Field(gt=0, le=1000)] = 100.0
    """PSNR of an image that equals the true one, in dB, so that means stay finite"""
    lightness_tolerance: Annotated[float, Field(ge=0)] = 1.0
    """difference in L* above which a pixel counts as changed; 1 is about the just noticeable difference"""
    near_gray_below: Annotated[float, Field(ge=0)] = Images().min_colourfulness
    """true images with a lower colourfulness (M3, signed) are reported as near-gray, but still scored"""
    primary: str = "ciede2000"
    """metric of the main conclusion"""
    alpha: Alpha = ALPHA
    """family-wise error rate of all differences in a table (Bonferroni)"""
    margins: Annotated[Mapping[str, PositiveFloat], Field(min_length=1)] = MARGINS
    """smallest difference of interest for each metric, in its unit"""

    @model_validator(mode="after")
    def _size_goes_with_geometry(self) -> "Protocol":
        is_original = self.geometry == "original"
        if is_original != (self.size_px is None) or is_original != (self.interpolation == "none"):
            raise ValueError(
                "`size_px` and `interpolation` should be null and none where `geometry = original`, and given "
                f"elsewhere. Found `geometry = {self.geometry}`, `size_px = {self.size_px}`, `interpolation = "
                f"{self.interpolation}`."
            )
        return self

    @model_validator(mode="after")
    def _margins_are_of_metrics(self) -> "Protocol":
        for name in self.margins:
            if name not in MARGINS:
                raise ValueError(one_of("margins", name, MARGINS))
        if self.primary not in self.margins:
            raise ValueError(one_of("primary", self.primary, self.margins))
        return self

    @property
    def digest(self) -> str:
        return digest(self)


PROTOCOLS: Mapping[str, Protocol] = {
    each.name: each
    for each in (
        Protocol(
            name="stretch-256", geometry="stretch", size_px=256, interpolation="bilinear", codes="8-bit"
        ),
        Protocol(name="crop-256", geometry="crop", size_px=256, interpolation="area", codes="8-bit"),
        Protocol(name="original", geometry="original", size_px=None, interpolation="none", codes="as-stored"),
    )
}
"""stretch-256 has the geometry of DDColor and MultiColor, crop-256 of L-CAD and ColTran, original of ColorMF."""


NETWORK_CHOICES = ("lite0", "inception", "lpips", "recognition")


class NetworkOptions(NamedTuple):
    """The networks to score with."""

    networks: str | None = None
    """some of `NETWORK_CHOICES`, separated by commas, or None"""
    classifier: str | None = None
    """`timm:NAME`, perhaps with its weights, see `evaluation.recognition.open_classifier`"""
    classes: Path | None = None
    """file with the folder that each output of the classifier stands for, see `networks.open_folder_classifier`"""
    inception_weights: Path | None = None
    """file of weights; None downloads them"""
    lpips_weights: Path | None = None

    @property
    def names(self) -> list[str]:
        """The networks, each once; `ConfigError` for an unknown one."""
        names = self.networks.split(",") if self.networks else []
        names = list(dict.fromkeys(name.strip() for name in names))
        for name in names:
            if name not in NETWORK_CHOICES:
                raise ConfigError(one_of("--networks", name, NETWORK_CHOICES))
        return names


_OF_NETWORKS = {"lpips_alex": "lpips", "recognition": "recognition"}
"""Metrics that need a network, with its name in `--networks`."""


def require_networks(protocol: Protocol, options: NetworkOptions) -> None:
    """Raise `ConfigError` for an unknown network, or if the primary metric needs one that is not requested."""
    needed, requested = _OF_NETWORKS.get(protocol.primary), options.names
    missing = f"--networks {needed}" if needed and needed not in requested else ""
    if protocol.primary in OF_CLASSIFIER and not options.classifier:
        missing = "--classifier"
    if missing:
        raise ConfigError(
            f"`primary` of the protocol should be measured. Found `primary = {protocol.primary}`: give {missing}."
        )


def read_protocol(name: str) -> Protocol:
    """A protocol of `PROTOCOLS`, or one from a YAML file with the same fields; else a `ConfigError`."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    if Path(name).suffix.lower() in (".yaml", ".yml"):
        found = checked(Protocol, read_yaml(Path(name), "--protocol"))
        if found != PROTOCOLS.get(found.name, found):
            raise ConfigError(
                f"`name` of {name} should be one of its own: `{found.name}` is knowhue's protocol, and this is another."
            )
        return found
    raise ConfigError(f"{one_of('--protocol', name, PROTOCOLS)} Or name a YAML file of your own.")


def to_protocol(image: Image, protocol: Protocol, given_as: tuple[int, int] | None = None) -> Pixels:
    """The pixels (H, W, 3) of an image as a protocol compares them; a grayscale image gets three equal channels.

    An image of height and width `given_as` is not resized: a system may store its colourings at the protocol's size.
    """
    pixels = image.pixels if image.pixels.shape[2] == 3 else np.repeat(image.pixels[..., :1], 3, axis=2)
    if protocol.codes == "8-bit":
        pixels = to_8_bits(pixels)
    if protocol.size_px is None or pixels.shape[:2] == given_as:
        return pixels
    if protocol.geometry == "crop":
        side = min(pixels.shape[:2])
        top, left = ((size - side) // 2 for size in pixels.shape[:2])
        pixels = pixels[top : top + side, left : left + side]
    return _resized(pixels, protocol.size_px, protocol.interpolation)


def _resized(pixels: Pixels, side: int, interpolation: str) -> Pixels:
    height, width = pixels.shape[:2]
    if (height, width) == (side, side):
        return np.ascontiguousarray(pixels)
    down, across = (_weights(size, side, interpolation) for size in (height, width))
    narrow = across @ pixels.transpose(1, 0, 2).reshape(width, -1).astype(np.float64)
    small = down @ narrow.reshape(side, height, 3).transpose(1, 0, 2).reshape(height, -1)
    # halves are rounded up, as in OpenCV; np.round would round them to even numbers
    return np.floor(small.reshape(side, side, 3) + 0.5).astype(pixels.dtype)


@lru_cache(64)
def _weights(size: int, side: int, interpolation: str) -> csr_array:
    """Resampling weights, (side, size): the share of each old pixel in each new one; rows add up to 1."""
    step, pixels = size / side, np.arange(size)
    if interpolation == "area":
        edges = np.arange(side + 1) * step
        ends = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        return csr_array(np.maximum(ends, 0) / step)
    centre = np.clip((np.arange(side) + 0.5) * step - 0.5, 0, size - 1)
    return csr_array(np.maximum(1 - abs(centre[:, None] - pixels), 0))
