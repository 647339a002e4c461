"""PROTOCOLS: what is done to images before they are compared, and how numbers count; data that a hash names."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator
from scipy.sparse import csr_array

from knowhue.config import Images, Positive, Section, digest
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
"""Smallest differences of interest, in each metric's unit; ours, for no paper that we know of names any."""


class Protocol(Section):
    """How images are compared. All of it is in the hash."""

    LISTED = "A page of `knowhue score` prints them all."
    name: Annotated[str, Field(min_length=1, max_length=60)]
    """what people call it"""
    geometry: Literal["stretch", "crop", "original"]
    """stretch: to a square, whatever the shape; crop: the middle square first; original: left as it is"""
    size_px: Annotated[int, Field(ge=11, le=4096)] | None
    """side of the square, pixels; null for original"""
    interpolation: Literal["bilinear", "area", "none"]
    """bilinear: two taps a side at half-pixel centres, no antialiasing (OpenCV's INTER_LINEAR); area: mean of what a
    pixel covers"""
    codes: Literal["8-bit", "as-stored"]
    """8-bit: sRGB codes of 0 to 255, after resizing too, as published numbers are; as-stored: 16 bits stay 16"""
    colour: Literal["sRGB to CIELAB, D65, 2 degree observer"] = "sRGB to CIELAB, D65, 2 degree observer"
    """the way to L*a*b*"""
    equal_psnr_db: Annotated[float, Field(gt=0, le=1000)] = 100.0
    """what an image equal to the true one counts, lest one make a mean infinite"""
    lightness_tolerance: Annotated[float, Field(ge=0)] = 1.0
    """change of L* above which a pixel counts as changed; 1 is about just noticeable"""
    near_gray_below: Annotated[float, Field(ge=0)] = Images().min_colourfulness
    """colourfulness (signed, M3) of a true image below which it is called near-gray; it counts all the same"""
    primary: str = "ciede2000"
    """metric that the first sentence speaks of"""
    alpha: Alpha = ALPHA
    """rate of false claims over all differences of a table, by Bonferroni"""
    margins: Annotated[Mapping[str, Positive], Field(min_length=1)] = MARGINS
    """smallest differences of interest by metric"""

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
"""stretch-256 is the geometry of DDColor and MultiColor, crop-256 of L-CAD and ColTran, original of ColorMF."""


NETWORK_CHOICES = ("lite0", "inception", "lpips", "recognition")


class Wanted(NamedTuple):
    """Which networks to ask."""

    networks: str | None = None
    """some of `NETWORK_CHOICES`, separated by commas; or none"""
    classifier: str | None = None
    """see `evaluation.recognition.open_classifier`"""
    classes: Path | None = None
    """a file that says which folder each of its outputs stands for, see `recognition.open_judge`"""
    inception_weights: Path | None = None
    """a file; downloaded if None"""
    lpips_weights: Path | None = None

    @property
    def names(self) -> list[str]:
        """The networks, each once; an unknown one is a `ConfigError`."""
        names = (
            list(dict.fromkeys(name.strip() for name in self.networks.split(","))) if self.networks else []
        )
        for name in names:
            if name not in NETWORK_CHOICES:
                raise ConfigError(one_of("--networks", name, NETWORK_CHOICES))
        return names


_OF_NETWORKS = {"lpips_alex": "lpips", "recognition": "recognition"}
"""Metrics that take a network, and its name in `--networks`."""


def require_networks(protocol: Protocol, wanted: Wanted) -> None:
    """Make sure, before work, that networks are known, and that the metric of the first sentence will be measured.

    Raises:
        ConfigError: a network is unknown, or the metric takes one that is not asked.
    """
    needed, asked = _OF_NETWORKS.get(protocol.primary), wanted.names
    missing = f"--networks {needed}" if needed and needed not in asked else ""
    if protocol.primary in OF_CLASSIFIER and not wanted.classifier:
        missing = "--classifier"
    if missing:
        raise ConfigError(
            f"`primary` of the protocol should be measured. Found `primary = {protocol.primary}`: give {missing}."
        )


def read_protocol(name: str) -> Protocol:
    """A protocol of `PROTOCOLS`, or one from a YAML file with the same fields.

    Raises:
        ConfigError: there is no such, or the file holds something else.
    """
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
    """The pixels (H, W, 3) of an image as a protocol compares them; a gray one gets three equal channels.

    Height and width of `given_as` are left as they are: the protocol's own size, where a system made it.
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
    # halves go up, as in OpenCV; numpy's own rounding takes them to even numbers
    return np.floor(small.reshape(side, side, 3) + 0.5).astype(pixels.dtype)


@lru_cache(64)
def _weights(size: int, side: int, interpolation: str) -> csr_array:
    """(side, size): what of each pixel is in each of the new ones; rows add up to 1."""
    step = size / side
    if interpolation == "area":
        edges, pixels = np.arange(side + 1) * step, np.arange(size)
        ends = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        return csr_array(np.maximum(ends, 0) / step)
    centre = np.clip((np.arange(side) + 0.5) * step - 0.5, 0, size - 1)
    low = np.minimum(centre.astype(int), max(size - 2, 0))
    rows, high = np.arange(side), np.minimum(low + 1, size - 1)
    share = centre - low
    values = np.concatenate((1 - share, share))
    return csr_array((values, (np.tile(rows, 2), np.concatenate((low, high)))), shape=(side, size))
