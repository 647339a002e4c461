"""Write video files by PyAV: frames encoded with the original's colour tags, all other streams copied."""

import heapq
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.error import ArgumentError, FFmpegError, InvalidDataError, PatchWelcomeError

from knowhue.errors import ConfigError, RunError, plural
from knowhue.inference.video_formats import (
    CODECS,
    Codec,
    address,
    encoding_notes,
    pixel_format,
    written_metadata,
)
from knowhue.inference.video_reading import EXACT, FULL, MATRICES, Frame, Video, is_attached
from knowhue.storage import write_error
from knowhue.temporary import temporary_folder

_MATROSKA = (".mkv", ".webm")
_MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""FFmpeg's muxer per suffix; its default for .m4v takes fewer kinds of sound than .mp4 does."""
_NEVER_READ = 48  # AVDISCARD_ALL, set for streams that only the demuxer needs, such as chapter texts


def write_video(video: Video, out: Path, suffix: str, frames: Iterable[Frame]) -> list[str]:
    """Write a video with coloured frames and the original's other streams.

    The header is written before the first frame is requested, so that streams which the container cannot hold are found
    before any work: a `ConfigError`. The name of `out` need not end in `suffix`. Returns what could not be kept, in
    words. A `RunError` if the file cannot be written.
    """
    codec = CODECS[suffix]
    try:
        with _open_output(address(out), suffix) as file:
            streams = _write_head(video, codec, file, suffix)
            encoded = _encode(video, file.streams[0], suffix, frames)
            copied = video.packets(streams, hidden=suffix not in _MATROSKA)
            lost = _mux(file, heapq.merge(encoded, copied, key=lambda packet: packet.dts * packet.time_base))
    except _UnsupportedStream as error:
        raise _refusal(video, suffix, error) from None
    except OSError as error:  # also FFmpeg's own classes of system errors
        raise write_error(out, error) from None
    except FFmpegError as error:
        raise RunError(f"Cannot write `{out}`: {error.strerror or error}. Name another file.") from None
    notes = [*encoding_notes(video, codec), *_stream_notes(video, suffix)]
    if video.is_stereoscopic and suffix not in _MATROSKA:
        notes.append("its stereoscopic layout was left out; .mkv keeps it")
    if lost:
        notes.append(f"{plural(lost, 'damaged packet')} of sound or subtitles left out")
    return notes


class _UnsupportedStream(Exception):
    """A container cannot hold one of the streams."""


def _open_output(target: str, suffix: str) -> Any:
    # avoid_negative_ts: otherwise Matroska shifts frames if sound begins before them
    # faststart: puts the index first, so that playing can begin before the download ends
    matroska, mp4 = {"avoid_negative_ts": "disabled"}, {"movflags": "+faststart+use_metadata_tags"}
    options = matroska if suffix in _MATROSKA else mp4
    return av.open(target, "w", format=_MUXERS[suffix], options=options, metadata_errors="replace")


def _write_head(video: Video, codec: Codec, file: Any, suffix: str) -> dict[int, Any]:
    """Write the header; returns the output's copied streams by the original's index."""
    stream: Any = file.add_stream(codec.name, video.rate)
    context = stream.codec_context
    context.width, context.height = video.width, video.height
    context.pix_fmt = pixel_format(video, codec)
    context.time_base, context.framerate = video.time_base, video.rate
    context.sample_aspect_ratio = video.aspect
    context.colorspace, context.color_range = video.colours.matrix, video.colours.range
    context.color_trc, context.color_primaries = video.colours.transfer, video.colours.primaries
    context.options = dict(codec.options)
    context.flags |= Flags.global_header | Flags.frame_duration
    stream.time_base = video.time_base
    video.copy_description(file)
    added: dict[int, Any] = {}
    try:
        for original in video.other_streams():
            if _can_hold(original, suffix):
                added[original.index] = copy = file.add_stream_from_template(original, opaque=True)
                copy.metadata.update(written_metadata(original))
                copy.disposition = original.disposition
        file.start_encoding()
    except ArgumentError as error:  # its full text would repeat the file's name
        raise _UnsupportedStream(str(error.strerror)) from None
    except ValueError as error:
        raise _UnsupportedStream(str(error)) from None
    return added


def _encode(video: Video, stream: Any, suffix: str, frames: Iterable[Frame]) -> Iterator[Any]:
    """Encoded packets of the frames, in decoding order."""
    first = 0
    for number, frame in enumerate(chain(frames, [None])):  # None flushes the encoder
        if number == 0 and frame is not None:
            first = frame.pts
        for packet in stream.encode(frame and _encoder_frame(video, stream, frame)):
            if suffix in _MATROSKA:  # has no decoding times, and shifts all packets if one is below zero
                packet.dts = max(packet.dts, first)
            yield packet


def _encoder_frame(video: Video, stream: Any, frame: Frame) -> Any:
    rgb = "rgb24" if frame.pixels.dtype == np.uint8 else "rgb48le"
    converted = av.VideoFrame.from_ndarray(frame.pixels, rgb).reformat(
        format=stream.codec_context.pix_fmt,
        src_color_range=FULL,
        dst_color_range=video.colours.range,
        dst_colorspace=MATRICES[video.colours.matrix],
        interpolation=EXACT,
    )
    converted.pts, converted.duration, converted.time_base = frame.pts, frame.duration, video.time_base
    return converted


def _mux(file: Any, packets: Iterable[Any]) -> int:
    """Write packets; returns the number of packets of copied streams that are too damaged to write."""
    # damaged sound must not waste the hours that the frames took
    lost = 0
    for packet in packets:
        try:
            file.mux(packet)
        except (InvalidDataError, PatchWelcomeError, ArgumentError):
            if packet.stream.index == 0:
                raise
            lost += 1
    return lost


def _refusal(video: Video, suffix: str, error: Exception) -> ConfigError:
    """The error for a container that cannot hold all streams; names those that can, found by trying."""
    able = [other for other in CODECS if other != suffix and _holds_all(video, other)]
    names = " or ".join(filter(None, (", ".join(able[:-1]), *able[-1:])))
    remedy = f"End its name in {names}." if able else "No kind can hold them; remove that stream first."
    return ConfigError(
        f"`out` should be a kind of file that can hold all streams of the video. Found `{suffix}`: {error}. {remedy}"
    )


def _holds_all(video: Video, suffix: str) -> bool:
    with temporary_folder("The head of a video") as folder:
        try:
            with _open_output(address(folder / "head"), suffix) as file:
                _write_head(video, CODECS[suffix], file, suffix)
        except (_UnsupportedStream, FFmpegError) as error:
            if isinstance(error, OSError):  # the disk's error, not the container's
                raise
            return False
    return True


def _can_hold(stream: Any, suffix: str) -> bool:
    """Whether a container can hold such streams; for kinds of sound and subtitles, its muxer decides."""
    if is_attached(stream):
        return False
    return stream.type in ("audio", "subtitle", "video") or (stream.type == "attachment" and suffix == ".mkv")


def _stream_notes(video: Video, suffix: str) -> list[str]:
    """Notes on streams that the container cannot hold, and on other video streams, which stay gray."""
    copied, lost = [], []
    for stream in video.other_streams():
        if is_attached(stream):
            lost.append(f"stream {stream.index} (cover or other attached image) was left out")
        elif stream.type == "video":
            copied.append(
                f"stream {stream.index} (video) was copied as it is, because only one video stream is coloured"
            )
        elif not _can_hold(stream, suffix) and not _is_rewritten(stream):
            lost.append(
                f"stream {stream.index} ({stream.type}) was left out, because {suffix} cannot hold it"
            )
    return copied + lost


def _is_rewritten(stream: Any) -> bool:
    """Whether the output has the stream's content in another form: chapter texts, or the frames' time code."""
    if stream.type != "data":
        return False
    tagged = any("timecode" in video.metadata for video in stream.container.streams.video)
    return ("timecode" in stream.metadata and tagged) or int(stream.discard) >= _NEVER_READ
