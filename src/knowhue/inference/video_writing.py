"""Video files written through FFmpeg's libraries: frames encoded by the colours of the original, all else as it was."""

import heapq
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.error import ArgumentError, FFmpegError, InvalidDataError, PatchWelcomeError
from av.stream import Disposition

from knowhue.errors import ConfigError, RunError
from knowhue.inference.video_formats import (
    CODECS,
    Codec,
    address,
    concessions,
    pixel_format,
    written_metadata,
)
from knowhue.inference.video_reading import EXACT, FULL, MATRICES, Frame, Video, is_attached
from knowhue.storage import unwritable
from knowhue.temporary import temporary_folder

_MATROSKA = (".mkv", ".webm")
_WRITERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""FFmpeg's own choice for .m4v takes neither covers nor much of the sound that .mp4 does."""
_WITH_COVERS = {".mp4": ("mjpeg", "png", "bmp"), ".m4v": ("mjpeg", "png", "bmp")}
_IMAGES = {"mjpeg": ("jpg", "jpeg"), "png": ("png", "png"), "bmp": ("bmp", "bmp"), "gif": ("gif", "gif")}
"""Suffix and MIME type of attached images, by FFmpeg's name of their codec."""
_NEVER_READ = 48  # FFmpeg's mark of a stream that only its demuxer needs, such as the text of chapters


def write_video(video: Video, out: Path, suffix: str, frames: Iterable[Frame]) -> list[str]:
    """Write a video: coloured frames, and all else as it was in the original.

    The head of the file is written before the first frame is asked for, so that what the container does not take is
    known before any work.

    Args:
        video: the original.
        out: the file, whatever it is called.
        suffix: of the kind of container, one of `CODECS`.
        frames: coloured, (H, W, 3), in the order of presentation.

    Returns:
        What could not be kept, in words.

    Raises:
        ConfigError: the container takes no sound or subtitles of that kind.
        RunError: the file cannot be written.
    """
    covers, codec = video.covers(), CODECS[suffix]
    try:
        with _open_output(video, address(out), suffix) as file:
            streams = _write_head(video, codec, file, suffix, covers)
            encoded = _encoded(video, file.streams[0], suffix, frames)
            copied = video.packets(streams, hidden=suffix not in _MATROSKA)
            lost = _mux(file, heapq.merge(encoded, copied, key=lambda packet: packet.dts * packet.time_base))
    except _TakesNot as error:
        raise _refusal(video, suffix, error, covers) from None
    except OSError as error:  # FFmpeg's own for what the system says, too
        raise unwritable(out, error) from None
    except FFmpegError as error:
        raise RunError(f"Cannot write `{out}`: {error.strerror or error}. Name another file.") from None
    notes = [*concessions(video, codec), *_left_out(video, suffix)]
    if video.is_stereoscopic and suffix not in _MATROSKA:
        notes.append("its stereoscopic layout was left out; .mkv keeps it")
    notes += [f"{lost} damaged pieces of sound or subtitles were left out"] * bool(lost)
    return notes + (_lost_metadata(video, out) if covers else [])


class _TakesNot(Exception):
    """A container has no way to hold one of the streams."""


def _open_output(video: Video, target: str, suffix: str) -> Any:
    """Open a container for writing; beside a cover, .mp4 holds metadata of the usual names alone."""
    if suffix in _MATROSKA:  # else they shift the frames where a sound begins before them
        options = {"avoid_negative_ts": "disabled"}
    else:
        has_covers = any(is_attached(each) and _takes_cover(each, suffix) for each in video.others())
        # faststart: the index comes first, so that a player can begin before it has the whole file
        options = {"movflags": "+faststart" + "+use_metadata_tags" * (not has_covers)}
    return av.open(target, "w", format=_WRITERS[suffix], options=options, metadata_errors="replace")


def _write_head(
    video: Video, codec: Codec, file: Any, suffix: str, covers: dict[int, bytes]
) -> dict[int, Any]:
    """Write all that comes before the packets; the copied streams of the output, by the original's index."""
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
    return _add_streams(video.others(), file, suffix, covers)


def _add_streams(others: Iterable[Any], file: Any, suffix: str, covers: dict[int, bytes]) -> dict[int, Any]:
    """Add a video's other streams to an output, and begin it; the new streams by the old ones' index."""
    added: dict[int, Any] = {}
    attached: list[Any] = []
    try:
        for each in others:
            if not _has_place(each, suffix):
                continue
            if is_attached(each) and suffix == ".mkv":
                file.add_attachment(*_attachment(each), covers[each.index])
                continue
            new = file.add_stream_from_template(each, opaque=True)
            new.metadata.update(written_metadata(each))
            new.disposition = each.disposition
            if is_attached(each):
                packet = av.Packet(covers[each.index])
                packet.stream, packet.pts, packet.dts, packet.is_keyframe = new, 0, 0, True
                attached.append(packet)
            else:
                added[each.index] = new
        file.start_encoding()
    except ArgumentError as error:  # whose text names the file, too
        raise _TakesNot(str(error.strerror)) from None
    except ValueError as error:
        raise _TakesNot(str(error)) from None
    for packet in attached:
        file.mux(packet)
    return added


def _encoded(video: Video, stream: Any, suffix: str, frames: Iterable[Frame]) -> Iterator[Any]:
    """Packets of the frames, in the order of decoding."""
    first = 0
    for number, frame in enumerate(chain(frames, [None])):  # None: what the encoder still holds
        if number == 0 and frame is not None:
            first = frame.pts
        for packet in stream.encode(frame and _to_encode(video, stream, frame)):
            if suffix in _MATROSKA:  # they know no decoding times, and shift all for one below zero
                packet.dts = max(packet.dts, first)
            yield packet


def _to_encode(video: Video, stream: Any, frame: Frame) -> Any:
    kind = "rgb24" if frame.pixels.dtype == np.uint8 else "rgb48le"
    made = av.VideoFrame.from_ndarray(frame.pixels, kind).reformat(
        format=stream.codec_context.pix_fmt,
        src_color_range=FULL,
        dst_color_range=video.colours.range,
        dst_colorspace=MATRICES[video.colours.matrix],
        interpolation=EXACT,
    )
    made.pts, made.duration, made.time_base = frame.pts, frame.duration, video.time_base
    return made


def _mux(file: Any, packets: Iterable[Any]) -> int:
    """Write packets; the count of those of copied streams that are so damaged that they cannot be."""
    # Damaged sound must not cost the hours that the frames took.
    lost = 0
    for packet in packets:
        try:
            file.mux(packet)
        except (InvalidDataError, PatchWelcomeError, ArgumentError):
            if packet.stream.index == 0:
                raise
            lost += 1
    return lost


def _refusal(video: Video, suffix: str, error: Exception, covers: dict[int, bytes]) -> ConfigError:
    """Name what takes all streams, as found by trying."""
    able = [each for each in CODECS if each != suffix and _takes(video, each, covers)]
    named = " or ".join(filter(None, (", ".join(able[:-1]), *able[-1:])))
    remedy = f"End its name in {named}." if able else "No kind does; take that stream out first."
    return ConfigError(
        f"`out` should be a file that takes all streams of the video. Found `{suffix}`: {error}. {remedy}"
    )


def _takes(video: Video, suffix: str, covers: dict[int, bytes]) -> bool:
    with temporary_folder("The head of a video") as folder:
        try:
            with _open_output(video, address(folder / "head"), suffix) as file:
                _write_head(video, CODECS[suffix], file, suffix, covers)
        except (_TakesNot, FFmpegError) as error:
            if isinstance(error, OSError):  # of the disk, not of what a container takes
                raise
            return False
    return True


def _has_place(stream: Any, suffix: str) -> bool:
    """Whether a container takes such streams at all; which sound and subtitles it takes, its writer says."""
    if is_attached(stream):
        return _takes_cover(stream, suffix)
    return stream.type in ("audio", "subtitle", "video") or (stream.type == "attachment" and suffix == ".mkv")


def _takes_cover(stream: Any, suffix: str) -> bool:
    if stream.disposition & Disposition.timed_thumbnails:  # as many images as there are chapters
        return False
    return suffix == ".mkv" or stream.codec_context.name in _WITH_COVERS.get(suffix, ())


def _attachment(cover: Any) -> tuple[str, str]:
    """File name and MIME type, as Matroska wants them; `cover` is the name that players look for."""
    metadata = {key.lower(): value for key, value in cover.metadata.items()}
    suffix, kind = _IMAGES.get(cover.codec_context.name, (cover.codec_context.name,) * 2)
    return metadata.get("filename", f"cover.{suffix}"), metadata.get("mimetype", f"image/{kind}")


def _left_out(video: Video, suffix: str) -> list[str]:
    """Which streams of a video have no place in a kind of container, and which other images stay gray, in words."""
    copied = [
        f"stream {each.index} (video) was copied as it is: one stream of images is coloured"
        for each in video.others()
        if each.type == "video" and not is_attached(each)
    ]
    return copied + [
        f"stream {each.index} ({'cover or other attached image' if is_attached(each) else each.type}) has no place in "
        f"{suffix} and was left out"
        for each in video.others()
        if not _has_place(each, suffix) and not _is_written_anew(each)
    ]


def _is_written_anew(stream: Any) -> bool:
    """Whether it holds what is written otherwise: the text of chapters, or the time code of the frames."""
    if stream.type != "data":
        return False
    tagged = any("timecode" in each.metadata for each in stream.container.streams.video)
    return ("timecode" in stream.metadata and tagged) or int(stream.discard) >= _NEVER_READ


def _lost_metadata(video: Video, out: Path) -> list[str]:
    """Which of a video's metadata are not in what was written, in words."""
    with av.open(address(out), metadata_errors="replace") as file:
        held = {key.lower() for key in file.metadata}
    lost = [key for key in video.metadata() if key.lower() not in held]
    return [f"metadata that have no place beside a cover were left out: {', '.join(lost)}"] if lost else []
