"""What the frames of a video mean: codes to sRGB-encoded pixels, orientation, fields; in FFmpeg's numbers, by PyAV."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from av.error import FFmpegError
from av.filter import Graph
from av.sidedata.sidedata import Type as SideData
from numpy.typing import NDArray

from knowhue.images.image import Pixels

LIMITED, FULL = 1, 2  # FFmpeg's MPEG and JPEG ranges of codes
# SWS_BICUBIC | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP | SWS_ACCURATE_RND
EXACT = 4 | 0x2000 | 0x4000 | 0x40000
"""How FFmpeg's converter is to work: bicubic, full chroma in and out, accurate rounding."""
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""Matrices as videos are tagged, to those of FFmpeg's converter."""
_LIMITED_UNLESS_TAGGED = frozenset({"h264", "hevc"})
"""Codecs whose standard says what an untagged range is; other gray videos use all codes."""
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
_FIELDS = {2: "tff", 3: "bff", 4: "tff", 5: "bff"}
"""By FFmpeg's number, as its own program and decoders take it."""


class Colours(NamedTuple):
    """How the codes of a video are to be read, in FFmpeg's numbers."""

    matrix: int
    range: int
    transfer: int
    primaries: int


class Orientation(NamedTuple):
    """From frames as they are stored to frames as they are shown: first transposed, then mirrored."""

    transposed: bool = False
    left_right: bool = False
    up_down: bool = False

    @classmethod
    def of(cls, matrix: Sequence[int]) -> "Orientation":
        """The quarter turn nearest to a display matrix: 9 numbers, row by row, x' = m0 x + m3 y, y' = m1 x + m4 y.

        >>> import numpy as np
        >>> Orientation.of([0, 1, 0, -1, 0, 0, 0, 0, 1]).upright(np.array([[1, 2], [3, 4]])).tolist()
        [[3, 1], [4, 2]]
        """
        if abs(matrix[0]) >= abs(matrix[1]):
            return cls(False, matrix[0] < 0, matrix[4] < 0)
        return cls(True, matrix[3] < 0, matrix[1] < 0)

    def upright(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values (h, w, ...) as they are shown."""
        return self._mirrored(values.swapaxes(0, 1) if self.transposed else values).copy()

    def stored(self, values: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `upright`."""
        values = self._mirrored(values)
        return (values.swapaxes(0, 1) if self.transposed else values).copy()

    def _mirrored(self, values: NDArray[Any]) -> NDArray[Any]:
        return values[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1]


def gray_pixels(codes: NDArray[Any], bits: int, tagged: int, codec: str) -> Pixels:
    """Gray codes (H, W) as (H, W, 1) of full range: uint8 for 8 bits, uint16 for more.

    >>> gray_pixels(np.array([[16, 235]], np.uint8), 8, LIMITED, "ffv1").ravel().tolist()
    [0, 255]
    """
    limited = tagged == LIMITED or (tagged != FULL and codec in _LIMITED_UNLESS_TAGGED)
    low, high = (16 << bits - 8, 235 << bits - 8) if limited else (0, (1 << bits) - 1)
    top, dtype = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    values = np.arange(1 << bits, dtype=np.float64)
    table = ((values - low) / (high - low) * top).round().clip(0, top).astype(dtype)
    return np.take(table, codes)[..., None]


def pixels_of(frame: Any, codec: str) -> Pixels:
    """A frame as sRGB-encoded pixels, (H, W, 1) if it is gray; 16 bits if it has more than 8."""
    bits = depth_bits(frame)
    if _is_gray(frame):
        codes = frame.to_ndarray().reshape(frame.height, frame.width)
        return gray_pixels(codes, bits, frame.color_range, codec)
    is_rgb = frame.format.is_rgb
    made = frame.reformat(
        format="rgb24" if bits == 8 else "rgb48le",
        src_colorspace=None if is_rgb else MATRICES[_matrix_of(frame)],
        src_color_range=FULL if is_rgb or _is_full(frame) else LIMITED,
        dst_color_range=FULL,
        interpolation=EXACT,
    )
    return np.ascontiguousarray(made.to_ndarray())


def colours_to_write(frame: Any) -> Colours:
    """Those of the original; range limited for gray and RGB, as players expect it of YCbCr."""
    full = _is_full(frame) and not frame.format.is_rgb and not _is_gray(frame)
    return Colours(_matrix_of(frame), FULL if full else LIMITED, frame.color_trc, frame.color_primaries)


def _matrix_of(frame: Any) -> int:
    """As tagged; else BT.709 from 720 lines or 1280 columns on, BT.601 below, as players guess."""
    if frame.colorspace in MATRICES and not frame.format.is_rgb:
        return frame.colorspace
    return 1 if frame.height >= 720 or frame.width >= 1280 else 5


def _is_full(frame: Any) -> bool:
    """Whether YCbCr uses all codes."""
    # yuvj: the old names of formats that are full by definition
    return frame.color_range == FULL or frame.format.name.startswith("yuvj")


def _is_gray(frame: Any) -> bool:
    return frame.format.name.startswith("gray")


def depth_bits(frame: Any) -> int:
    return max(part.bits for part in frame.format.components)


def display_matrix(frame: Any) -> list[int] | None:
    for data in frame.side_data:
        if data.type == SideData.DISPLAYMATRIX:
            return np.frombuffer(bytes(data), np.int32)[:9].tolist()
    return None


def field_order(stream: Any, frame: Any) -> str:
    """Which field of a video's frames comes first, `tff` or `bff`; empty if they are whole images."""
    if frame.interlaced_frame:
        return "tff" if _is_top_first(stream, frame) else "bff"
    return _FIELDS.get(stream.codec_context.field_order, "")


def _is_top_first(stream: Any, frame: Any) -> bool:
    """By a filter, as PyAV does not say."""
    graph = Graph()
    nodes = (
        graph.add_buffer(template=stream),
        graph.add("select", "eq(interlace_type\\,1)"),  # 1: the top field first
        graph.add("buffersink"),
    )
    graph.link_nodes(*nodes).configure()
    for each in (frame, None):
        graph.vpush(each)
    try:
        graph.vpull()
    except (FFmpegError, EOFError):
        return False
    return True


def doubts(frame: Any) -> tuple[str, ...]:
    """What a user should know of how a video is read."""
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
