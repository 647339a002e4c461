"""Read video files by PyAV: frames as sRGB-encoded pixels, packets of all other streams.

All times count from the beginning of the video, whatever its container's clock shows there.
"""

import re
from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.error import FFmpegError, InvalidDataError
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from numpy.typing import NDArray

from knowhue.errors import ImageError, system_reason
from knowhue.images.image import Pixels
from knowhue.inference.video_formats import (
    Margins,
    Orientation,
    address,
    image_metadata,
    is_stereoscopic,
    reading_notes,
    written_metadata,
)

_CLOCKS = frozenset({"mpegts", "mpeg"})
"""Formats whose clock can begin anywhere, is negative after an overflow, and restarts where recordings were joined."""
_JUMPS_SECONDS = (-0.2, 10)
"""Steps of a clock outside this range are jumps; 10 s is the limit of the ffmpeg program."""
_SHORT_SECONDS, _SHORT_SHARE = Fraction(1), Fraction(1, 50)
"""A file is called cut short if frames end earlier than announced, by both 1 s and a fiftieth of the length."""
_TIME = re.compile(r"(\d+):(\d+):(\d+\.?\d*)")


class Frame(NamedTuple):
    """A decoded or coloured frame."""

    pixels: Pixels
    """(H, W, 1 or 3) in stored orientation"""
    pts: int
    """presentation time since the video's beginning, in units of `Video.time_base`; strictly increasing"""
    duration: int
    """in the same units; 0 if unknown"""
    damaged: int
    """damaged packets since the previous frame, including those of this frame"""


class Video:
    """An open video file. `frames` and `packets` each open the file again, so both can be read concurrently."""

    def __init__(self, path: Path) -> None:
        """Open a video, until `close`; an `ImageError` if it is missing, damaged, or has no moving images."""
        self.path = path
        self._end = Fraction(0)  # end of the frames read so far, in seconds
        self._container = self._open()
        try:
            self._stream = self._choose_stream(self._container)
            self._origin = _origin_of(self._container)
            first = next(self._decoded(self._container, self._stream), None)
            if first is None:
                raise self._damaged("not one whole frame")
            self._describe(first[0])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._container.close()

    def frames(self) -> Generator[Frame]:
        """All frames in the order of presentation.

        An `ImageError` if the size of the frames changes, or the file ends in the middle of its structure.
        """
        with self._open() as container:
            stream = self._choose_stream(container)
            last, step = None, max(1, round(1 / (self.rate * self.time_base)))
            begin = round(self._origin / self.time_base)
            for frame, damaged in self._decoded(container, stream):
                expected = 0 if last is None else last + step
                pts = expected if frame.pts is None else frame.pts - begin
                last = pts if last is None else max(pts, last + 1)  # encoders need increasing times
                if (frame.height, frame.width) != self._decoded_size:
                    (height, width), found = self._decoded_size, f"{frame.width} x {frame.height}"
                    raise ImageError(
                        f"{self.path}: its size changes from {width} x {height} to {found}; cut it there"
                    )
                pixels = self.margins.cut(pixels_of(frame, stream.codec_context.name))
                duration = int(frame.duration or 0)
                yield Frame(pixels, last, duration, damaged)
                self._end = (last + duration) * self.time_base

    def shortage(self) -> list[str]:
        """A note, after `frames`, if they or all streams end long before the announced time."""
        announced = min(filter(None, (self._seconds(), self._container_seconds())), default=Fraction(0))
        latest = announced - max(_SHORT_SECONDS, _SHORT_SHARE * announced)
        # the announced length of a transport stream is only a guess
        if self._container.format.name in _CLOCKS or self._end > latest:
            return []
        end = self._end if self._stream.duration else self._end_of_all()
        if end > latest:
            return []
        times = f"{float(end):.1f} s, and the file announces {float(announced):.1f} s"
        return [f"it ends at {times}: it may be cut short"]

    def _end_of_all(self) -> Fraction:
        """End of the longest stream in seconds. Matroska announces that, and frames can end before the sound."""
        with self._open() as container:
            packets = (packet for packet in container.demux() if packet.pts is not None)
            ends = ((packet.pts + (packet.duration or 0)) * packet.time_base for packet in packets)
            return max(ends, default=self._origin) - self._origin

    def other_streams(self) -> list[Any]:
        """All streams except the coloured one."""
        return [stream for stream in self._container.streams if stream.index != self._stream.index]

    def copy_description(self, out: Any) -> None:
        """Copy metadata, chapters, disposition and display matrix to an output container."""
        out.metadata.update(written_metadata(self._container))
        chapters = self._container.chapters()
        for chapter in chapters:
            begin = round(self._origin / chapter["time_base"])
            chapter.update({key: max(0, chapter[key] - begin) for key in ("start", "end")})
        out.set_chapters(chapters)
        stream = out.streams[0]
        stream.metadata.update(image_metadata(self._stream))
        stream.disposition = self._stream.disposition
        if self.matrix:
            stream.set_display_matrix(self.matrix)

    def packets(self, streams: dict[int, Any], hidden: bool) -> Iterator[Any]:
        """Packets of other streams, assigned to an output's `streams`, which are given by the index in this video.

        `hidden` includes packets that an edit list hides; the output must then have one, too.
        """
        with self._open() as container:
            wanted = [stream for stream in container.streams if stream.index in streams]
            for packet in _with_timestamps(_packets(container, wanted) if wanted else ()):
                if hidden or not packet.is_discard:
                    begin = round(self._origin / packet.time_base)
                    packet.pts, packet.dts = packet.pts - begin, packet.dts - begin
                    packet.stream = streams[packet.stream.index]
                    yield packet

    def _open(self) -> Any:
        try:
            return av.open(address(self.path), "r", metadata_errors="replace")
        except (FFmpegError, OSError) as error:
            raise self._damaged(error) from None

    def _choose_stream(self, container: Any) -> Any:
        """The video stream to colour: the default one, or else the first."""
        streams = [stream for stream in container.streams.video if not is_attached(stream)]
        if not streams:
            raise ImageError(f"{self.path}: no moving images in it; name a video")
        chosen = next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])
        chosen.thread_type = "AUTO"  # PyAV's default only parallelises the slices of a frame
        return chosen

    def _describe(self, first: Any) -> None:
        stream: Any = self._stream
        self.margins = margins_of(stream)
        """margins of a decoded frame that are cut off"""
        self._decoded_size = first.height, first.width
        self.height, self.width = self.margins.cut(np.empty(self._decoded_size, bool)).shape
        """pixels of a stored frame without its margins"""
        self.time_base: Fraction = stream.time_base
        """seconds per unit of `pts`"""
        self.rate: Fraction = stream.average_rate or stream.guessed_rate or Fraction(24)
        """average frames per second"""
        # `stream.frames` includes frames that an edit list hides
        counts = stream.frames, round((self._tagged_seconds() or self._seconds()) * self.rate)
        self.total = min(filter(None, counts), default=0)
        """expected number of frames; 0 if unknown"""
        matrices = (bytes(data) for data in first.side_data if data.type == SideData.DISPLAYMATRIX)
        self.matrix = next((np.frombuffer(matrix, np.int32)[:9].tolist() for matrix in matrices), None)
        """display matrix of 9 numbers, or None"""
        self.orientation = Orientation.of(self.matrix) if self.matrix else Orientation()
        self.deep = depth_bits(first) > 8
        self.colours = colours_to_write(first)
        self.aspect: Fraction = stream.sample_aspect_ratio or Fraction(1)
        """pixel aspect ratio, width over height"""
        self.is_stereoscopic = is_stereoscopic(stream)
        self.notes = reading_notes(stream, first)
        if any(self.margins):
            self.notes += ("cropped as its container specifies, as players do",)
        """what cannot be read exactly or is not kept, in words"""

    def _decoded(self, container: Any, stream: Any) -> Iterator[tuple[av.VideoFrame, int]]:
        """Frames, each with the number of damaged packets since the previous one."""
        damaged = 0
        try:
            for packet in _packets(container, [stream]):
                try:
                    frames = packet.decode()
                    # such as at a gap of a transport stream, which decoders conceal
                    damaged += packet.is_corrupt
                except InvalidDataError:
                    damaged += 1
                    continue
                for frame in frames:
                    yield frame, damaged or int(frame.is_corrupt)
                    damaged = 0
        except FFmpegError as error:
            raise self._damaged(error) from None

    def _seconds(self) -> Fraction:
        """Announced duration of the frames; 0 if unknown."""
        if self._stream.duration and self._stream.time_base:
            return self._stream.duration * self._stream.time_base
        return self._container_seconds()

    def _tagged_seconds(self) -> Fraction:
        # Matroska's tag of each stream, to which mkvmerge appends the language, `DURATION-eng`
        tags = (text for name, text in self._stream.metadata.items() if name.partition("-")[0] == "DURATION")
        found = _TIME.fullmatch(next(tags, ""))
        hours, minutes, seconds = map(Fraction, found.groups() if found else (0, 0, 0))
        return max(3600 * hours + 60 * minutes + seconds - self._origin, Fraction(0))

    def _container_seconds(self) -> Fraction:
        seconds = Fraction(self._container.duration or 0, 1_000_000)
        # Matroska states the end, not the duration
        return seconds - self._origin * (seconds > 0 and "matroska" in self._container.format.name)

    def _damaged(self, error: object) -> ImageError:
        if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
            return ImageError(f"{self.path}: {system_reason(error)}")
        reason = getattr(error, "strerror", None) or error
        return ImageError(
            f"{self.path}: not a video, damaged or cut short ({reason}); copy it again from its source"
        )


def is_attached(stream: Any) -> bool:
    """Whether a stream is an attached image, such as a cover."""
    return bool(stream.disposition & Disposition.attached_pic)


def _origin_of(container: Any) -> Fraction:
    """Seconds on a container's clock at which its sound or frames begin.

    In formats other than `_CLOCKS` a negative start is an encoder's delay, and the video begins at 0.
    """
    starts = [
        stream.start_time * stream.time_base
        for stream in container.streams
        if stream.type in ("audio", "video") and not is_attached(stream) and stream.start_time is not None
    ]
    start = min(starts, default=Fraction(0))
    return start if container.format.name in _CLOCKS else max(start, Fraction(0))


def _packets(container: Any, streams: list[Any]) -> Iterator[Any]:
    """Packets of some streams in file order, on one clock."""
    if container.format.name not in _CLOCKS:
        yield from container.demux(streams)
        return
    wanted = {stream.index for stream in streams}
    for packet in _on_one_clock(container.demux()):
        if packet.stream.index in wanted:
            yield packet


def _on_one_clock(packets: Iterable[Any]) -> Iterator[Any]:
    """Packets of all streams on one clock: after a jump, packets continue where the stream ended."""
    offset: Fraction = Fraction(0)
    ends: dict[int, Fraction] = {}
    for packet in packets:
        if packet.dts is not None:
            moment, index = packet.dts * packet.time_base + offset, packet.stream.index
            if not _JUMPS_SECONDS[0] < moment - ends.get(index, moment) < _JUMPS_SECONDS[1]:
                offset += ends[index] - moment
                moment = ends[index]
            ends[index] = moment + (packet.duration or 0) * packet.time_base
        ticks = round(offset / packet.time_base) if offset else 0
        if ticks:
            packet.dts = None if packet.dts is None else packet.dts + ticks
            packet.pts = None if packet.pts is None else packet.pts + ticks
        yield packet


def _with_timestamps(packets: Iterable[Any]) -> Iterator[Any]:
    """Packets with both pts and dts, as muxers require: dts increases, for subtitles weakly, and is at most pts.

    First packets of a stream without dts count back from the first packet that has one.
    """
    last: dict[int, int] = {}
    waiting: dict[int, list[Any]] = {}
    for packet in packets:
        index = packet.stream.index
        if not packet.size or (packet.pts is None and packet.dts is None):
            continue
        if packet.dts is None and index not in last:
            waiting.setdefault(index, []).append(packet)
            continue
        if packet.dts is None:
            packet.dts = last[index]
        packet.dts = max(packet.dts, last.get(index, packet.dts - 1) + (packet.stream.type != "subtitle"))
        packet.pts = max(packet.dts, packet.dts if packet.pts is None else packet.pts)
        last[index] = packet.dts
        earlier = waiting.pop(index, [])
        for back, undated in zip(range(len(earlier), 0, -1), earlier, strict=True):
            undated.dts = packet.dts - back * max(1, packet.duration or 0)
        yield from earlier
        yield packet
    for earlier in waiting.values():
        for packet in earlier:
            packet.dts = packet.pts
            yield packet


LIMITED, FULL = 1, 2  # AVCOL_RANGE_MPEG and AVCOL_RANGE_JPEG
# SWS_BICUBIC | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP | SWS_ACCURATE_RND
EXACT = 4 | 0x2000 | 0x4000 | 0x40000
"""Flags for libswscale: bicubic, full chroma in and out, accurate rounding."""
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""Matrix tag of a video (AVColorSpace) -> matrix of libswscale (SWS_CS)."""
_LIMITED_UNLESS_TAGGED = frozenset({"h264", "hevc"})
"""Codecs whose standard makes an untagged range limited; gray videos of other codecs are full range."""


class Colours(NamedTuple):
    """Colour tags of a video, as FFmpeg's numbers."""

    matrix: int
    range: int
    transfer: int
    primaries: int


def gray_pixels(codes: NDArray[Any], bits: int, tagged: int, codec: str) -> Pixels:
    """Gray codes (H, W) as full-range pixels (H, W, 1): uint8 for 8 bits, uint16 for more.

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
    """A frame as sRGB-encoded pixels, (H, W, 3), or (H, W, 1) if gray; uint16 if it has more than 8 bits."""
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
    """The original's colour tags; limited range for gray and RGB, because players assume it for YCbCr."""
    full = _is_full(frame) and not frame.format.is_rgb and not _is_gray(frame)
    return Colours(_matrix_of(frame), FULL if full else LIMITED, frame.color_trc, frame.color_primaries)


def _matrix_of(frame: Any) -> int:
    """The tagged matrix; if untagged, BT.709 from 720 lines or 1280 columns on, else BT.601, as players assume."""
    if frame.colorspace in MATRICES and not frame.format.is_rgb:
        return frame.colorspace
    return 1 if frame.height >= 720 or frame.width >= 1280 else 5


def _is_full(frame: Any) -> bool:
    """Whether YCbCr has full range."""
    # yuvj: old names of formats that are full range by definition
    return frame.color_range == FULL or frame.format.name.startswith("yuvj")


def _is_gray(frame: Any) -> bool:
    return frame.format.name.startswith("gray")


def depth_bits(frame: Any) -> int:
    return max(part.bits for part in frame.format.components)


_MARGIN = {0xAA: "bottom", 0xBB: "top", 0xCC: "left", 0xDD: "right"}
"""Edge by the second byte of Matroska's PixelCrop element (RFC 9559, 5.1.4.1.28)."""
_MARGINS = re.compile(rb"((?:\x54[\xaa\xbb\xcc\xdd](?:\x81.|\x82..))+)\x54\xb2", re.DOTALL)


def margins_of(stream: Any) -> Margins:
    """The margins of a stream, also by the `clap` of MP4 and MOV.

    PyAV does not expose them, so they are read from a Matroska header written for the stream.
    """
    head = BytesIO()
    try:
        with av.open(head, "w", format="matroska") as file:
            file.add_stream_from_template(stream, opaque=True)
            file.start_encoding()
    except (FFmpegError, ValueError):  # Matroska cannot hold such a stream
        return Margins()
    found = _MARGINS.search(head.getvalue())
    sizes = re.findall(rb"\x54(.)(?:\x81(.)|\x82(..))", found[1], re.DOTALL) if found else []
    return Margins(**{_MARGIN[name[0]]: int.from_bytes(short or long, "big") for name, short, long in sizes})
