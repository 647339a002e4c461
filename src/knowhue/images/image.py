"""A decoded image: pixels in their own depth, transparency, and all that is needed to write it as it came."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]
"""(H, W, 1 or 3) uint8 or uint16, C-contiguous, upright, sRGB-encoded."""
Metadata = tuple[tuple[str, bytes | str], ...]
"""EXIF, XMP, IPTC and comments, by their names in libvips."""


class ComputedBy(NamedTuple):
    """What computed the colours of an image.

    Attributes:
        model: its name.
        fingerprint: what tells it from other models of that name.
    """

    model: str
    fingerprint: str


class Origin(NamedTuple):
    """Where an image comes from, and what its file said beside the pixels.

    Attributes:
        suffix: of its format, such as `.jpg`, whatever the file was called.
        profile: ICC profile that it is to be written with: its own if that describes RGB, that of sRGB if it had
            another, None if it had none.
        metadata: what else the file said. Its orientation is no longer true.
        pixels_per_mm: horizontal and vertical resolution, of the upright image; 72 to the inch if the file names none.
        bits: of a channel in the file.
        is_lossless: whether a format that can lose something (WebP) did not.
        notes: what a user should know of how it was read.
        computed_by: what its colours are from, if they are not those of its file.
    """

    suffix: str = ""
    profile: bytes | None = None
    metadata: Metadata = ()
    pixels_per_mm: tuple[float, float] = (2.835, 2.835)
    bits: int = 8
    is_lossless: bool = False
    notes: tuple[str, ...] = ()
    computed_by: ComputedBy | None = None


class Image(NamedTuple):
    """An image.

    Attributes:
        pixels: (H, W, 1 or 3); 1 if its file says gray, 3 else, whatever the colours.
        alpha: (H, W) of the same type, 0 where nothing is seen, or None.
        origin: what else its file said.
    """

    pixels: Pixels
    alpha: NDArray[Any] | None = None
    origin: Origin = Origin()

    @classmethod
    def of(cls, pixels: Pixels) -> "Image":
        """An image that comes from no file."""
        return cls(np.ascontiguousarray(pixels))


def over_white(pixels: Pixels, alpha: NDArray[Any]) -> Pixels:
    """Pixels (H, W, C) over white, by their transparency (H, W)."""
    top = np.iinfo(pixels.dtype).max
    share = alpha[..., None].astype(np.float32) / top
    return (pixels * share + top * (1 - share)).round().astype(pixels.dtype)


def flattened(image: Image) -> Pixels:
    """Pixels as a network is shown them, in their own depth: over white, so that nothing hidden counts."""
    alpha = image.alpha
    if alpha is None or alpha.min() == np.iinfo(alpha.dtype).max:
        return image.pixels
    return over_white(image.pixels, alpha)


def to_rgb8(image: Image) -> NDArray[np.uint8]:
    """An image as networks are trained on it: (H, W, 3) sRGB in 8 bits, over white.

    >>> to_rgb8(Image.of(np.full((1, 1, 1), 65535, np.uint16))).tolist()
    [[[255, 255, 255]]]
    """
    pixels = flattened(image)
    if pixels.dtype == np.uint16:
        # 257 = 65535 / 255; dropping the low byte would darken by half a code
        pixels = (pixels / 257).round().astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))  # a view: gray is not copied three times
