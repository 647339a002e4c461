"""Film files read through FFmpeg's libraries, by PyAV; `writing` and `tracks` are its only other importers.

Frames become sRGB-encoded pixels by the matrix and range that the film names. An untagged film is of BT.709 from 720
lines or 1280 columns on, of BT.601 below, as players guess.

All times are counted from where the film begins, whatever its container's clock says then.
"""

import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.error import FFmpegError, InvalidDataError
from av.sidedata.sidedata import Type as SideData

from knowhue.errors import ImageError
from knowhue.images.image import Pixels
from knowhue.inference.films.colours import (
    EXACT,
    FULL,
    LIMITED,
    MATRICES,
    colours_to_write,
    depth_bits,
    doubts,
    gray_pixels,
    is_full,
    is_gray,
    matrix_of,
)
from knowhue.inference.films.formats import Codec, field_options, pixel_format
from knowhue.inference.films.tracks import (
    address,
    dated,
    field_order,
    is_attached,
    joined,
    may_jump,
    origin_of,
    words,
)
from knowhue.inference.films.turn import Turn


class Frame(NamedTuple):
    """A decoded frame.

    Attributes:
        pixels: (H, W, 1 or 3) as stored, perhaps not upright.
        pts: presentation time since the film's beginning, in its time base; rises.
        duration: likewise; 0 if unknown.
        damaged: packets since the frame before that could not be decoded.
    """

    pixels: Pixels
    pts: int
    duration: int
    damaged: int

    def checksum(self) -> int:
        """Of the pixels."""
        return zlib.crc32(np.ascontiguousarray(self.pixels).data)


class Footage:
    """An open film.

    Attributes:
        path: its file.
        height: of a frame as stored, pixels.
        width: likewise.
        time_base: seconds in a unit of time.
        rate: frames a second, on average.
        total: how many frames there should be; 0 if unknown.
        turn: to upright.
        deep: whether it has more than 8 bits.
        aspect: width of a pixel over its height.
        fields: `tff` or `bff` if its frames are two fields each, the top or the bottom one first; else empty.
        colours: of the output.
        notes: what a user should know of how it is read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()
        try:
            first = next(self._decoded(), None)
        except FFmpegError as error:
            raise self._damaged(error) from None
        if first is None:
            raise self._damaged("not one whole frame")
        self.height, self.width = first[0].height, first[0].width
        assert self._stream.time_base is not None
        self.time_base: Fraction = self._stream.time_base
        self.rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(24)
        counts = self._stream.frames, self._estimate()  # the first counts what an edit list hides, too
        self.total = min(filter(None, counts), default=0)
        self.matrix = _display_matrix(first[0])
        self.turn = Turn.of(self.matrix) if self.matrix else Turn()
        self.deep = depth_bits(first[0]) > 8
        self.colours = colours_to_write(first[0])
        self.aspect = self._stream.sample_aspect_ratio or Fraction(1)
        self.fields = field_order(self._stream, first[0])
        self.notes = doubts(first[0])

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def frames(self, count: int = 0, pts: int = 0, checksum: int = 0) -> Iterator[Frame]:
        """Frames in the order of presentation, from the first or from behind one that was read before.

        Args:
            count: of frames that were read before.
            pts: presentation time of the last of them.
            checksum: of its pixels.

        Raises:
            ImageError: that frame is not there any more, or the file ends in the middle of its structure.
        """
        try:
            if not count:
                self._open()
                yield from self._timed(self._decoded(), None)
                return
            rest = self._behind(pts + self._begin, checksum) or self._behind_counted(count, checksum)
            yield from self._timed(rest, pts)
        except FFmpegError as error:
            raise self._damaged(error) from None

    def _open(self) -> None:
        with suppress(AttributeError):
            self._container.close()
        try:
            self._container = av.open(address(self.path), "r", metadata_errors="replace")
        except (FFmpegError, OSError) as error:
            raise self._damaged(error) from None
        images = [each for each in self._container.streams.video if not is_attached(each)]
        if not images:
            self._container.close()
            raise ImageError(
                f"`{self.path}` should be a film. Found no moving images in it. Name a file that has some."
            )
        self._stream = images[0]
        self._stream.thread_type = "AUTO"
        self._origin = origin_of(self._container)
        assert self._stream.time_base is not None
        self._begin = round(self._origin / self._stream.time_base)

    def _decoded(self) -> Iterator[tuple[av.VideoFrame, int]]:
        """Frames, each with the count of damaged packets before it."""
        damaged = 0
        for packet in self._packets([self._stream]):
            try:
                frames = packet.decode()
            except InvalidDataError:
                damaged += 1
                continue
            for frame in frames:
                yield frame, damaged
                damaged = 0

    def _packets(self, streams: list[Any]) -> Iterator[Any]:
        if not may_jump(self._container):
            yield from self._container.demux(streams)
            return
        wanted = {each.index for each in streams}
        for packet in joined(self._container.demux()):
            if packet.stream.index in wanted:
                yield packet

    def _behind(self, pts: int, checksum: int) -> Iterator[tuple[av.VideoFrame, int]] | None:
        """Frames behind one that is found by jumping there; None if it is not found that way."""
        frames = self._decoded()
        if may_jump(self._container):
            return None
        try:
            self._open()
            self._container.seek(pts, stream=self._stream)
            frames = self._decoded()
            for frame, _ in frames:
                if frame.pts is None or frame.pts > pts:
                    return None
                if frame.pts == pts:
                    return frames if self._read(frame, pts, 0).checksum() == checksum else None
        except FFmpegError:
            pass
        return None

    def _behind_counted(self, count: int, checksum: int) -> Iterator[tuple[av.VideoFrame, int]]:
        """Frames behind the first `count`, all decoded again."""
        self._open()
        frames = self._decoded()
        last = next(islice(frames, count - 1, None), None)
        if last is None or self._read(last[0], 0, 0).checksum() != checksum:
            raise ImageError(
                f"`{self.path}` should be as it was when its colouring began. Found other frames. Colour it to another "
                "file."
            )
        return frames

    def _timed(self, frames: Iterable[tuple[av.VideoFrame, int]], last: int | None) -> Iterator[Frame]:
        """Frames with times that rise; a missing one is the last and a frame's length."""
        step = max(1, round(1 / (self.rate * self.time_base)))
        for frame, damaged in frames:
            missing = 0 if last is None else last + step
            pts = missing if frame.pts is None else frame.pts - self._begin
            last = pts if last is None else max(pts, last + 1)
            yield self._read(frame, last, damaged)

    def _read(self, frame: av.VideoFrame, pts: int, damaged: int) -> Frame:
        if (frame.height, frame.width) != (self.height, self.width):
            raise ImageError(
                f"`{self.path}` should keep its size. Found {frame.width} x {frame.height} after {self.width} x "
                f"{self.height}. Cut it where the size changes."
            )
        return Frame(_pixels(frame, self._stream.codec_context.name), pts, int(frame.duration or 0), damaged)

    def _estimate(self) -> int:
        if self._stream.duration and self._stream.time_base:
            seconds = self._stream.duration * self._stream.time_base
        else:
            seconds = Fraction(self._container.duration or 0, 1_000_000)
            if "matroska" in self._container.format.name:  # it tells the end, not the length
                seconds -= self._origin
        return round(seconds * self.rate)

    def _damaged(self, error: object) -> ImageError:
        reason = getattr(error, "strerror", None) or error
        return ImageError(
            f"`{self.path}` should be a whole film. Found it missing, damaged or of another kind ({reason}). Copy it "
            "again from where it came from."
        )

    # What the output takes over from this film.

    def others(self) -> list[Any]:
        """All streams but the one that is coloured."""
        return [each for each in self._container.streams if each.index != self._stream.index]

    def covers(self) -> dict[int, bytes]:
        """The files of attached images, such as a cover, by their stream's index."""
        self._open()
        found: dict[int, bytes] = {}
        wanted = [each for each in self._container.streams if is_attached(each)]
        for packet in self._container.demux(wanted) if wanted else ():  # they come before all else
            if packet.size:
                found.setdefault(packet.stream.index, bytes(packet))
            if len(found) == len(wanted):
                break
        return found

    def words(self) -> dict[str, str]:
        """What people wrote of the whole film."""
        return words(self._container.metadata)

    def describe(self, out: Any) -> None:
        """Copy metadata, chapters, and what the container says of the images, to an output container."""
        out.metadata.update(self.words())
        out.set_chapters([self._moved(each) for each in self._container.chapters()])
        stream = out.streams[0]
        stream.metadata.update(words(self._stream.metadata))
        stream.disposition = self._stream.disposition
        if self.matrix:
            stream.set_display_matrix(self.matrix)

    def _moved(self, chapter: Any) -> Any:
        begin = round(self._origin / chapter["time_base"])
        return {**chapter, **{end: max(0, chapter[end] - begin) for end in ("start", "end")}}

    def shape(self, context: Any, codec: Codec) -> str:
        """Set up an encoder for frames like these; its pixel format."""
        context.width, context.height = self.width, self.height
        context.pix_fmt = pixel_format(self, codec)
        context.time_base, context.framerate = self.time_base, self.rate
        context.sample_aspect_ratio = self.aspect
        context.colorspace, context.color_range = self.colours.matrix, self.colours.range
        context.color_trc, context.color_primaries = self.colours.transfer, self.colours.primaries
        context.options = {**codec.options, **field_options(self, codec)}
        return context.pix_fmt

    def packets(self, streams: dict[int, Any], hidden: bool) -> Iterator[Any]:
        """Packets of other streams, by their index, readdressed to those of an output.

        Args:
            streams: of the output, by the index of the film's.
            hidden: whether those go along that an edit list hides, as the output will have one, too.
        """
        self._open()
        wanted = [each for each in self._container.streams if each.index in streams]
        for packet in dated(self._packets(wanted) if wanted else ()):
            if hidden or not packet.is_discard:
                begin = round(self._origin / packet.time_base)
                packet.pts, packet.dts = packet.pts - begin, packet.dts - begin
                packet.stream = streams[packet.stream.index]
                yield packet


@contextmanager
def open_footage(path: Path) -> Iterator[Footage]:
    """Open a film.

    Raises:
        ImageError: it is missing, damaged, or has no moving images.
    """
    footage = Footage(path)
    try:
        yield footage
    finally:
        footage.close()


def _display_matrix(frame: Any) -> list[int] | None:
    for data in frame.side_data:
        if data.type == SideData.DISPLAYMATRIX:
            return np.frombuffer(bytes(data), np.int32)[:9].tolist()
    return None


def _pixels(frame: av.VideoFrame, codec: str) -> Pixels:
    """A frame as sRGB-encoded pixels, (H, W, 1) if it is gray; 16 bits if it has more than 8."""
    bits = depth_bits(frame)
    if is_gray(frame):
        codes = frame.to_ndarray().reshape(frame.height, frame.width)
        return gray_pixels(codes, bits, frame.color_range, codec)
    is_rgb = frame.format.is_rgb
    made = frame.reformat(
        format="rgb24" if bits == 8 else "rgb48le",
        src_colorspace=None if is_rgb else MATRICES[matrix_of(frame)],
        src_color_range=FULL if is_rgb or is_full(frame) else LIMITED,
        dst_color_range=FULL,
        interpolation=EXACT,
    )
    return np.ascontiguousarray(made.to_ndarray())
