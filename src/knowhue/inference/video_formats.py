"""Video formats: codecs, pixel formats, orientation, metadata, and notes on what cannot be kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.errors import ConfigError

if TYPE_CHECKING:
    from knowhue.inference.video_reading import Video


_INTERNAL = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})
_STATISTICS = ("BPS", "NUMBER_OF_FRAMES", "NUMBER_OF_BYTES")
"""Tags that mkvmerge writes for each stream, sometimes with a language appended, besides `_STATISTICS_...`."""
_ALPHA_MODE, _STEREO_MODE = "alpha_mode", "stereo_mode"
"""Tags of WebM and Matroska: a frame has a second image with its transparency, which no decoder here reads; the layout
of a frame with images for both eyes."""


def is_stereoscopic(stream: Any) -> bool:
    """Whether a stream has Matroska's tag for a stereoscopic layout."""
    return any(key.lower() == _STEREO_MODE for key in stream.metadata)


def image_metadata(stream: Any) -> dict[str, str]:
    """The metadata that remains true for a stream after its images are re-encoded."""
    return {
        key: value
        for key, value in written_metadata(stream).items()
        if not (key.startswith("_STATISTICS_") or key.partition("-")[0] in (*_STATISTICS, "DURATION"))
        and key.lower() != _ALPHA_MODE
    }


def address(path: Path) -> str:
    """A path as a `file:` URL for FFmpeg, which would take `take 1:sea.mp4` for a protocol."""
    return f"file:{path}"


def written_metadata(holder: Any) -> dict[str, str]:
    """The metadata of a container or a stream, without tags that FFmpeg writes itself."""
    return {key: value for key, value in holder.metadata.items() if key.lower() not in _INTERNAL}


_INTERLACED = (2, 3, 4, 5)
"""AVFieldOrder values of interlaced frames."""
_UNLIKE_SRGB = {8: "linear light", 16: "PQ (high dynamic range)", 18: "HLG (high dynamic range)"}
_LOST = {
    "A53_CC": "closed captions were",
    "STEREO3D": "stereoscopic layout was",
    "SPHERICAL": "spherical projection was",
    **dict.fromkeys(
        (
            "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "DYNAMIC_HDR_PLUS", "DYNAMIC_HDR_VIVID",
            "DOVI_RPU_BUFFER", "DOVI_METADATA",
        ),
        "high dynamic range metadata were",
    ),
}  # fmt: skip
"""Side data of frames that are not written, by FFmpeg's names."""


def reading_notes(stream: Any, frame: Any) -> tuple[str, ...]:
    """What cannot be read exactly or is not kept, in words."""
    notes = []
    if frame.interlaced_frame or stream.codec_context.field_order in _INTERLACED:
        notes.append(
            "interlaced: both fields of a frame were coloured and written as one image, so players will show combing; "
            "deinterlace it first"
        )
    if frame.color_trc in _UNLIKE_SRGB:
        notes.append(f"{_UNLIKE_SRGB[frame.color_trc]}: its values were read as if they were sRGB")
    has_alpha_mode = any(key.lower() == _ALPHA_MODE and text == "1" for key, text in stream.metadata.items())
    if has_alpha_mode or any(part.is_alpha for part in frame.format.components):
        notes.append("its transparency was left out")
    carried = dict.fromkeys(_LOST[name] for data in frame.side_data if (name := data.type.name) in _LOST)
    if is_stereoscopic(stream):  # some containers keep it; `write_video` reports the others
        carried.pop(_LOST["STEREO3D"], None)
    notes += [f"its {lost} left out" for lost in carried]
    return tuple(notes)


class Margins(NamedTuple):
    """Pixels at the edges of a decoded frame that the container tells players to crop."""

    bottom: int = 0
    top: int = 0
    left: int = 0
    right: int = 0

    def cut(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values (H, W, ...) without the margins."""
        height, width = values.shape[:2]
        return np.ascontiguousarray(values[self.top : height - self.bottom, self.left : width - self.right])


class Orientation(NamedTuple):
    """How to turn stored frames upright: first transpose, then mirror."""

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
        """Stored values (h, w, ...) as they are displayed."""
        return self._mirrored(values.swapaxes(0, 1) if self.transposed else values).copy()

    def stored(self, values: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `upright`."""
        values = self._mirrored(values)
        return (values.swapaxes(0, 1) if self.transposed else values).copy()

    def _mirrored(self, values: NDArray[Any]) -> NDArray[Any]:
        return values[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1]


class Codec(NamedTuple):
    """One of FFmpeg's encoders, with its options."""

    name: str
    options: dict[str, str]
    deep: bool
    """whether it supports 10 bits"""
    odd: bool
    """whether it supports odd sizes with 4:2:0 chroma"""
    aspect: bool
    """whether it supports pixels that are not square"""


_H264 = Codec("libx264", {"crf": "18", "preset": "medium"}, deep=True, odd=False, aspect=True)
# b=0 makes `crf` the constant quality; with another bitrate libvpx takes it as a bound
_VP9_OPTIONS = {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
CODECS: dict[str, Codec] = {
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".mkv"), _H264),
    ".webm": Codec("libvpx-vp9", _VP9_OPTIONS, deep=False, odd=True, aspect=False),
}

VIDEO_SUFFIXES = frozenset({
    *CODECS, ".3g2", ".3gp", ".asf", ".avi", ".dv", ".f4v", ".flv", ".m2ts", ".m2v", ".mpe", ".mpeg", ".mpg", ".mts",
    ".mxf", ".ogv", ".qt", ".ts", ".vob", ".wmv",
})  # fmt: skip
"""Lower-case suffixes of files that are treated as videos."""


def writable_video_suffix(suffix: str) -> str:
    """The suffix itself if it can be written, otherwise `.mkv`, which holds nearly all kinds of sound and subtitles.

    >>> writable_video_suffix(".MP4"), writable_video_suffix(".avi")
    ('.MP4', '.mkv')
    """
    return suffix if suffix.lower() in CODECS else ".mkv"


def codec_of(target: Path) -> Codec:
    """The codec of a file, by its suffix; a `ConfigError` if files with this suffix cannot be written."""
    suffix = target.suffix.lower()
    if suffix not in CODECS:
        raise ConfigError(
            f"{target}: a video should end in one of {', '.join(CODECS)}; .mkv holds nearly all kinds of sound and "
            "subtitles"
        )
    return CODECS[suffix]


def pixel_format(video: "Video", codec: Codec) -> str:
    """FFmpeg's pixel format of the output: 4:2:0 chroma if the size allows it, 10 bits for more than 8."""
    chroma = "yuv444p" if _is_odd(video) and not codec.odd else "yuv420p"
    return chroma + ("10le" if video.deep and codec.deep else "")


def encoding_notes(video: "Video", codec: Codec) -> list[str]:
    """How encoding changes the video or limits its players, in words."""
    notes = []
    if _is_odd(video) and not codec.odd:
        notes.append(
            f"the odd size {video.width} x {video.height} needs 4:4:4 chroma, which some players do not support"
        )
    if video.aspect != 1 and not codec.aspect:
        notes.append(f"its pixel aspect ratio of {video.aspect} is lost in .webm; .mp4 and .mkv keep it")
    if video.deep and codec.deep:
        notes.append("more than 8 bits: written with 10, which some players do not support")
    elif video.deep:
        notes.append("more than 8 bits: written with 8; H.264 (.mp4, .mkv, .mov) would keep 10")
    return notes


def _is_odd(video: "Video") -> bool:
    return bool(video.height % 2 or video.width % 2)
