"""Video files read through FFmpeg's libraries by PyAV: frames as sRGB-encoded pixels, all other streams as they are.

All times are counted from where the video begins, whatever its container's clock says then.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition

from knowhue.errors import ImageError
from knowhue.images.image import Pixels
from knowhue.inference.video_frames import (
    Orientation,
    colours_to_write,
    depth_bits,
    display_matrix,
    doubts,
    field_order,
    pixels_of,
)

_CLOCKS = frozenset({"mpegts", "mpeg"})
"""Formats whose clock may begin anywhere, below zero once it has run over, and anew where recordings were joined."""
_JUMPS_SECONDS = (-0.2, 10)  # back and ahead; the latter as FFmpeg's own program has it
_INTERNAL = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})


class Frame(NamedTuple):
    """A decoded frame."""

    pixels: Pixels
    """(H, W, 1 or 3) as stored, perhaps not upright"""
    pts: int
    """presentation time since the video's beginning, in its time base; rises"""
    duration: int
    """likewise; 0 if unknown"""
    damaged: int
    """packets since the frame before that could not be decoded"""


class Video:
    """An open video file. Frames and other streams are read by readers of their own, so both can be read at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._container = self._open()
        try:
            self._stream = self._stream_in(self._container)
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

        Raises:
            ImageError: the size of the frames changes, or the file ends in the middle of its structure.
        """
        with self._open() as container:
            stream = self._stream_in(container)
            last, step = None, max(1, round(1 / (self.rate * self.time_base)))
            begin = round(self._origin / self.time_base)
            for frame, damaged in self._decoded(container, stream):
                missing = 0 if last is None else last + step
                pts = missing if frame.pts is None else frame.pts - begin
                last = pts if last is None else max(pts, last + 1)  # encoders take rising times alone
                self._require_size(frame)
                pixels = pixels_of(frame, stream.codec_context.name)
                yield Frame(pixels, last, int(frame.duration or 0), damaged)

    def others(self) -> list[Any]:
        """All streams but the one that is coloured."""
        return [each for each in self._container.streams if each.index != self._stream.index]

    def covers(self) -> dict[int, bytes]:
        """The files of attached images, such as a cover, by their stream's index."""
        found: dict[int, bytes] = {}
        with self._open() as container:
            wanted = [each for each in container.streams if is_attached(each)]
            for packet in container.demux(wanted) if wanted else ():  # they come before all else
                if packet.size:
                    found.setdefault(packet.stream.index, bytes(packet))
                if len(found) == len(wanted):
                    break
        return found

    def metadata(self) -> dict[str, str]:
        """What people wrote of the whole video."""
        return written_metadata(self._container)

    def copy_description(self, out: Any) -> None:
        """Copy metadata, chapters, and what the container says of the frames, to an output container."""
        out.metadata.update(self.metadata())
        out.set_chapters([self._moved(each) for each in self._container.chapters()])
        stream = out.streams[0]
        stream.metadata.update(written_metadata(self._stream))
        stream.disposition = self._stream.disposition
        if self.matrix:
            stream.set_display_matrix(self.matrix)

    def packets(self, streams: dict[int, Any], hidden: bool) -> Iterator[Any]:
        """Packets of other streams, readdressed to those of an output, which are given by the video's index.

        `hidden`: those that an edit list hides go along, as the output will have one, too.
        """
        with self._open() as container:
            wanted = [each for each in container.streams if each.index in streams]
            for packet in _dated(_packets(container, wanted) if wanted else ()):
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

    def _stream_in(self, container: Any) -> Any:
        moving = [each for each in container.streams.video if not is_attached(each)]
        if not moving:
            raise ImageError(
                f"`{self.path}` should be a video. Found no moving images in it. Name a file that has some."
            )
        moving[0].thread_type = "AUTO"  # PyAV's default shares out the slices of one frame alone
        return moving[0]

    def _describe(self, first: av.VideoFrame) -> None:
        stream: Any = self._stream
        self.height, self.width = first.height, first.width
        """of a frame as stored, pixels"""
        self.time_base: Fraction = stream.time_base
        """seconds in a unit of time"""
        self.rate: Fraction = stream.average_rate or stream.guessed_rate or Fraction(24)
        """frames a second, on average"""
        counts = stream.frames, self._estimate()  # the first counts what an edit list hides, too
        self.total = min(filter(None, counts), default=0)
        """how many frames there should be; 0 if unknown"""
        self.matrix = display_matrix(first)
        """its display matrix of 9 numbers, or None"""
        self.orientation = Orientation.of(self.matrix) if self.matrix else Orientation()
        """that of `matrix`"""
        self.deep = depth_bits(first) > 8
        """whether it has more than 8 bits"""
        self.colours = colours_to_write(first)
        """of the output"""
        self.aspect: Fraction = stream.sample_aspect_ratio or Fraction(1)
        """width of a pixel over its height"""
        self.fields = field_order(stream, first)
        """`tff` or `bff` if its frames are two fields each, the top or the bottom one first; else empty"""
        self.notes = doubts(first)
        """what a user should know of how it is read"""

    def _decoded(self, container: Any, stream: Any) -> Iterator[tuple[av.VideoFrame, int]]:
        """Frames, each with the count of damaged packets before it."""
        damaged = 0
        try:
            for packet in _packets(container, [stream]):
                try:
                    frames = packet.decode()
                except InvalidDataError:
                    damaged += 1
                    continue
                for frame in frames:
                    yield frame, damaged
                    damaged = 0
        except FFmpegError as error:
            raise self._damaged(error) from None

    def _require_size(self, frame: av.VideoFrame) -> None:
        if (frame.height, frame.width) != (self.height, self.width):
            raise ImageError(
                f"`{self.path}` should keep its size. Found {frame.width} x {frame.height} after {self.width} x "
                f"{self.height}. Cut it where the size changes."
            )

    def _estimate(self) -> int:
        if self._stream.duration and self._stream.time_base:
            seconds = self._stream.duration * self._stream.time_base
        else:
            seconds = Fraction(self._container.duration or 0, 1_000_000)
            if "matroska" in self._container.format.name:  # it has the end, not the length
                seconds -= self._origin
        return round(seconds * self.rate)

    def _moved(self, chapter: Any) -> Any:
        begin = round(self._origin / chapter["time_base"])
        return {**chapter, **{end: max(0, chapter[end] - begin) for end in ("start", "end")}}

    def _damaged(self, error: object) -> ImageError:
        reason = getattr(error, "strerror", None) or error
        return ImageError(
            f"`{self.path}` should be a whole video. Found it missing, damaged or of another kind ({reason}). Copy it "
            "again from where it came from."
        )


def open_video(path: Path) -> closing[Video]:
    """Open a video, until the context ends.

    Raises:
        ImageError: it is missing, damaged, or has no moving images.
    """
    return closing(Video(path))


def address(path: Path) -> str:
    """How FFmpeg must be given a path, so that a name such as `take 1:sea.mp4` is a file's and never a protocol's."""
    return f"file:{path}"


def is_attached(stream: Any) -> bool:
    """Whether it is an image that belongs to the video and is none of it, such as a cover."""
    return bool(stream.disposition & Disposition.attached_pic)


def written_metadata(holder: Any) -> dict[str, str]:
    """What people wrote of a container or a stream; the rest is the container's to write anew."""
    return {key: value for key, value in holder.metadata.items() if key.lower() not in _INTERNAL}


# Clocks


def _origin_of(container: Any) -> Fraction:
    """Seconds on a container's clock at which its sound or frames begin.

    What lies a little below zero elsewhere is an encoder's delay, not the video's beginning.
    """
    starts = [
        each.start_time * each.time_base
        for each in container.streams
        if each.type in ("audio", "video") and not is_attached(each) and each.start_time is not None
    ]
    start = min(starts, default=Fraction(0))
    return start if container.format.name in _CLOCKS else max(start, Fraction(0))


def _packets(container: Any, streams: list[Any]) -> Iterator[Any]:
    """Packets of some streams in the order of the file, on one clock."""
    if container.format.name not in _CLOCKS:
        yield from container.demux(streams)
        return
    wanted = {each.index for each in streams}
    for packet in _joined(container.demux()):
        if packet.stream.index in wanted:
            yield packet


def _joined(packets: Iterable[Any]) -> Iterator[Any]:
    """Packets of all streams on one clock: where it jumps, what follows is joined on."""
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


def _dated(packets: Iterable[Any]) -> Iterator[Any]:
    """Packets with both times, in an order that writers take.

    Where a stream's first have none for decoding, they count back from one that has. Of frames and sound it rises.
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
        held = waiting.pop(index, [])
        for back, each in zip(range(len(held), 0, -1), held, strict=True):
            each.dts = packet.dts - back * max(1, packet.duration or 0)
        yield from held
        yield packet
    for held in waiting.values():
        for packet in held:
            packet.dts = packet.pts
            yield packet
