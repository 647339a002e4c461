"""Film files written through FFmpeg's libraries: frames encoded by the colours of the original, all else as it was."""

import errno
import heapq
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.error import ArgumentError, FFmpegError, InvalidDataError, PatchWelcomeError
from numpy.typing import NDArray

from knowhue.errors import ConfigError, RunError
from knowhue.images.image import Pixels
from knowhue.inference.films.colours import EXACT, FULL, MATRICES
from knowhue.inference.films.footage import Footage
from knowhue.inference.films.formats import CODECS, Codec, concessions, field_options
from knowhue.inference.films.reels import Packet, decoding_times
from knowhue.inference.films.tracks import (
    TakesNot,
    address,
    adopt,
    left_out,
    lost_words,
    mark_fields,
    open_output,
)

_MATROSKA = (".mkv", ".webm")


class Encoder:
    """Encodes the frames of one reel, which can be decoded without any other."""

    def __init__(self, footage: Footage, codec: Codec) -> None:
        self._colours = footage.colours
        self._time_base = footage.time_base
        self._context: Any = av.CodecContext.create(codec.name, "w")
        self._context.flags |= Flags.global_header | Flags.frame_duration
        self._format = footage.shape(self._context, codec)
        self._fields = footage.fields if field_options(footage, codec) else ""
        self._packets: list[Packet] = []

    def add(self, pixels: Pixels, pts: int, duration: int) -> None:
        """Encode (H, W, 3)."""
        kind = "rgb24" if pixels.dtype == np.uint8 else "rgb48le"
        frame = av.VideoFrame.from_ndarray(pixels, kind).reformat(
            format=self._format,
            src_color_range=FULL,
            dst_color_range=self._colours.range,
            dst_colorspace=MATRICES[self._colours.matrix],
            interpolation=EXACT,
        )
        if self._fields:
            frame = mark_fields(frame, self._fields)
        frame.pts, frame.duration, frame.time_base = pts, duration, self._time_base
        self._keep(self._context.encode(frame))

    def finish(self) -> list[Packet]:
        """All packets, in the order of decoding."""
        self._keep(self._context.encode(None))
        return self._packets

    def _keep(self, packets: list[Any]) -> None:
        self._packets += [
            Packet(bytes(each), each.pts, each.duration or 0, bool(each.is_keyframe)) for each in packets
        ]


def assemble(
    footage: Footage, codec: Codec, out: Path, packets: Iterable[Packet], times: NDArray[np.int64]
) -> list[str]:
    """Write a film: encoded images, and all else as it was in the original.

    Without packets only the head is written, which tells whether the container takes everything.

    Returns:
        What could not be kept, in words.

    Raises:
        ConfigError: the container takes no sound or subtitles of that kind.
        RunError: the file cannot be written.
    """
    covers, lost = footage.covers(), 0
    try:
        with open_output(footage, address(out), out.suffix) as file:
            streams = _head(footage, codec, file, out.suffix, covers)
            if len(times):
                images = _addressed(packets, times, file.streams[0], footage.time_base, out.suffix)
                sounds = footage.packets(streams, hidden=out.suffix not in _MATROSKA)
                lost = _mux(file, heapq.merge(images, sounds, key=_moment))
    except TakesNot as error:
        raise _refusal(footage, out.suffix, error, covers) from None
    except (FFmpegError, OSError) as error:
        remedy = "Free some space." if error.errno == errno.ENOSPC else "Name another file with --out."
        raise RunError(f"Cannot write `{out}`: {error.strerror or error}. {remedy}") from None
    notes = [f"{lost} damaged pieces of sound or subtitles were left out"] if lost else []
    if covers and len(times):
        notes += lost_words(footage.words(), address(out))
    return [*concessions(footage, codec), *left_out(footage, out.suffix), *notes]


def _mux(file: Any, packets: Iterable[Any]) -> int:
    """Write packets; the count of those of other streams that are so damaged that they cannot be."""
    lost = 0
    for packet in packets:
        try:
            file.mux(packet)
        except (InvalidDataError, PatchWelcomeError, ArgumentError):
            if packet.stream.index == 0:
                raise
            lost += 1
    return lost


def _head(footage: Footage, codec: Codec, file: Any, suffix: str, covers: dict[int, bytes]) -> dict[int, Any]:
    """Write all that comes before the packets; the output's streams by the index of the original's.

    Raises:
        TakesNot: the container does not take one of the streams.
    """
    stream: Any = file.add_stream(codec.name, footage.rate)
    footage.shape(stream.codec_context, codec)
    stream.time_base = footage.time_base
    footage.describe(file)
    return adopt(footage.others(), file, suffix, covers)


def _refusal(footage: Footage, suffix: str, error: Exception, covers: dict[int, bytes]) -> ConfigError:
    """Name what takes all streams, as found by trying."""
    able = [each for each in CODECS if each != suffix and _takes(footage, each, covers)]
    named = " or ".join(filter(None, (", ".join(able[:-1]), *able[-1:])))
    remedy = f"End its name in {named}." if able else "No kind does; take that stream out first."
    return ConfigError(
        f"`out` should be a file that takes all streams of the film. Found `{suffix}`: {error}. {remedy}"
    )


def _takes(footage: Footage, suffix: str, covers: dict[int, bytes]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            with open_output(footage, address(Path(folder) / "head"), suffix) as file:
                _head(footage, CODECS[suffix], file, suffix, covers)
        except (TakesNot, FFmpegError):
            return False
    return True


def _addressed(
    packets: Iterable[Packet], times: NDArray[np.int64], stream: Any, time_base: Fraction, suffix: str
) -> Iterator[Any]:
    decoding = decoding_times(times)
    if suffix in _MATROSKA:  # they know no decoding times, and shift all for one below zero
        decoding = np.maximum(decoding, times.min())
    for packet, dts in zip(packets, decoding, strict=True):
        new = av.Packet(packet.data)
        new.pts, new.dts, new.duration = packet.pts, int(dts), packet.duration
        new.time_base, new.is_keyframe, new.stream = time_base, packet.is_key, stream
        yield new


def _moment(packet: Any) -> Fraction:
    return packet.dts * packet.time_base
