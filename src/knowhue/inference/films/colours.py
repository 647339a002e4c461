"""What the codes of a film mean, in FFmpeg's numbers, and what is guessed where it does not say."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.images.image import Pixels

LIMITED, FULL = 1, 2
EXACT = 4 | 0x2000 | 0x4000 | 0x40000
"""How FFmpeg's converter is to work: bicubic, full chroma in and out, accurate rounding."""
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""Matrices as films are tagged, to those of FFmpeg's converter."""
_LIMITED_UNLESS_TOLD = frozenset({"h264", "hevc"})
"""Codecs whose standard says what an untagged range is; other gray films use all codes."""
_HDR = {16: "PQ", 18: "HLG"}
_LOST = {
    "A53_CC": "closed captions",
    "STEREO3D": "stereoscopic layout",
    "SPHERICAL": "spherical projection",
    **dict.fromkeys(
        (
            "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "DYNAMIC_HDR_PLUS", "DYNAMIC_HDR_VIVID",
            "DOVI_RPU_BUFFER", "DOVI_METADATA",
        ),
        "high dynamic range metadata",
    ),
}  # fmt: skip
"""What a frame carries beside its codes, by FFmpeg's names, and is not written again."""


class Colours(NamedTuple):
    """How the codes of a film are to be read."""

    matrix: int
    range: int
    transfer: int
    primaries: int


def colours_to_write(frame: Any) -> Colours:
    """Those of the original; range limited for gray and RGB, as players expect it of YCbCr."""
    full = is_full(frame) and not frame.format.is_rgb and not is_gray(frame)
    return Colours(matrix_of(frame), FULL if full else LIMITED, frame.color_trc, frame.color_primaries)


def matrix_of(frame: Any) -> int:
    """As tagged; else BT.709 from 720 lines or 1280 columns on, BT.601 below."""
    if frame.colorspace in MATRICES and not frame.format.is_rgb:
        return frame.colorspace
    return 1 if frame.height >= 720 or frame.width >= 1280 else 5


def is_full(frame: Any) -> bool:
    """Whether YCbCr uses all codes."""
    return frame.color_range == FULL or frame.format.name.startswith("yuvj")


def is_gray(frame: Any) -> bool:
    """Whether there is lightness alone."""
    return frame.format.name.startswith("gray")


def depth_bits(frame: Any) -> int:
    """Of the deepest channel."""
    return max(part.bits for part in frame.format.components)


def gray_pixels(codes: NDArray[Any], bits: int, told: int, codec: str) -> Pixels:
    """Gray codes (H, W) as (H, W, 1) of full range: uint8 for 8 bits, uint16 for more.

    >>> gray_pixels(np.array([[16, 235]], np.uint8), 8, LIMITED, "ffv1").ravel().tolist()
    [0, 255]
    """
    limited = told == LIMITED or (told != FULL and codec in _LIMITED_UNLESS_TOLD)
    low, high = (16 << bits - 8, 235 << bits - 8) if limited else (0, (1 << bits) - 1)
    top, dtype = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    values = np.arange(1 << bits, dtype=np.float64)
    table = ((values - low) / (high - low) * top).round().clip(0, top).astype(dtype)
    return np.take(table, codes)[..., None]


def doubts(frame: Any) -> tuple[str, ...]:
    """What a user should know of how a film is read."""
    notes = []
    if frame.interlaced_frame:
        notes.append(
            "interlaced: both fields of a frame were coloured and written together; deinterlace it first for the best"
        )
    if frame.color_trc in _HDR:
        notes.append(
            f"{_HDR[frame.color_trc]} (high dynamic range): its codes were read as if they were sRGB's"
        )
    if any(part.is_alpha for part in frame.format.components):
        notes.append("its transparency was left out")
    carried = dict.fromkeys(_LOST[name] for data in frame.side_data if (name := data.type.name) in _LOST)
    notes += [f"its {lost} {'was' if lost.endswith(('n', 't')) else 'were'} left out" for lost in carried]
    return tuple(notes)
