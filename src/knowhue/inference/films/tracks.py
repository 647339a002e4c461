"""What becomes of a film's sound, subtitles, covers, words and clock in another container."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import ArgumentError, FFmpegError
from av.filter import Graph
from av.stream import Disposition

_INTERNAL = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})
_WRITERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""FFmpeg's own choice for .m4v takes neither covers nor much of the sound that .mp4 does."""
_CLOCKS = frozenset({"mpegts", "mpeg"})
"""Formats whose clock may begin anywhere, below zero once it has run over, and anew where recordings were joined."""
_JUMPS_SECONDS = (-0.2, 10)  # back and ahead; the latter as FFmpeg's own program has it
_WITH_COVERS = {".mp4": ("mjpeg", "png", "bmp"), ".m4v": ("mjpeg", "png", "bmp")}
_IMAGES = {"mjpeg": ("jpg", "jpeg"), "png": ("png", "png"), "bmp": ("bmp", "bmp"), "gif": ("gif", "gif")}
"""Suffix and MIME type of attached images, by FFmpeg's name of their codec."""
_FIELDS = {2: "tff", 3: "bff", 4: "tff", 5: "bff"}
"""By FFmpeg's number, as its own program and decoders take it."""
_NEVER_READ = 48  # FFmpeg's mark of a stream that only its demuxer needs, such as the text of chapters


class TakesNot(Exception):
    """A container has no way to hold one of the streams."""


def address(path: Path) -> str:
    """What FFmpeg is to be told, so that a name such as `take 1:sea.mp4` is a file's and never a protocol's."""
    return f"file:{path}"


def origin_of(container: Any) -> Fraction:
    """Seconds on a container's clock at which its sound or images begin.

    What lies a little below zero elsewhere is an encoder's delay, not the film's beginning.
    """
    starts = [
        each.start_time * each.time_base
        for each in container.streams
        if each.type in ("audio", "video") and not is_attached(each) and each.start_time is not None
    ]
    start = min(starts, default=Fraction(0))
    return start if may_jump(container) else max(start, Fraction(0))


def may_jump(container: Any) -> bool:
    """Whether a container's clock may begin anew on its way."""
    return container.format.name in _CLOCKS


def joined(packets: Iterable[Any]) -> Iterator[Any]:
    """Packets of all streams in the order of the file, on one clock: where it jumps, what follows is joined on."""
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


def is_attached(stream: Any) -> bool:
    """Whether it is an image that belongs to the film and is none of it, such as a cover."""
    return bool(stream.disposition & Disposition.attached_pic)


def field_order(stream: Any, frame: Any) -> str:
    """Which field of a film's frames comes first, `tff` or `bff`; empty if they are whole images."""
    if frame.interlaced_frame:
        return "tff" if _is_top_first(stream, frame) else "bff"
    return _FIELDS.get(stream.codec_context.field_order, "")


def _is_top_first(stream: Any, frame: Any) -> bool:
    """Ask a filter, as PyAV does not tell."""
    graph = Graph()
    nodes = (
        graph.add_buffer(template=stream),
        graph.add("select", "eq(interlace_type\\,1)"),
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


def mark_fields(frame: Any, fields: str) -> Any:
    """The frame, saying which of its two fields comes first, `tff` or `bff`; by a filter, as PyAV has no way to."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1)
    )
    graph.link_nodes(source, graph.add("setfield", fields), graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


def open_output(footage: Any, address: str, suffix: str) -> Any:
    """Open a container for writing; beside a cover, .mp4 holds metadata of the usual names alone.

    Args:
        footage: what will be written.
        address: of the file.
        suffix: of its name.
    """
    if suffix in (".mkv", ".webm"):  # else they shift the images where a sound begins before them
        options = {"avoid_negative_ts": "disabled"}
    else:
        has_covers = any(is_attached(each) and _takes_cover(each, suffix) for each in footage.others())
        options = {"movflags": "+faststart" + "+use_metadata_tags" * (not has_covers)}
    return av.open(address, "w", format=_WRITERS[suffix], options=options, metadata_errors="replace")


def adopt(others: Iterable[Any], file: Any, suffix: str, covers: dict[int, bytes]) -> dict[int, Any]:
    """Add a film's other streams to an output, and begin it; the new streams by the old ones' index.

    Raises:
        TakesNot: it does not take one of them.
    """
    adopted: dict[int, Any] = {}
    attached: list[Any] = []
    try:
        for each in others:
            if not _has_place(each, suffix):
                continue
            if is_attached(each) and suffix == ".mkv":
                file.add_attachment(*_attachment(each), covers[each.index])
                continue
            new = file.add_stream_from_template(each, opaque=True)
            new.metadata.update(words(each.metadata))
            new.disposition = each.disposition
            if is_attached(each):
                packet = av.Packet(covers[each.index])
                packet.stream, packet.pts, packet.dts, packet.is_keyframe = new, 0, 0, True
                attached.append(packet)
            else:
                adopted[each.index] = new
        file.start_encoding()
    except ArgumentError as error:  # whose text names the file, too
        raise TakesNot(str(error.strerror)) from None
    except ValueError as error:
        raise TakesNot(str(error)) from None
    for packet in attached:
        file.mux(packet)
    return adopted


def left_out(footage: Any, suffix: str) -> list[str]:
    """Which streams of a film have no place in a kind of container, in words."""
    return [
        f"stream {each.index} ({_kind(each)}) has no place in {suffix} and was left out"
        for each in footage.others()
        if not _has_place(each, suffix) and not _is_written_anew(each)
    ]


def lost_words(had: dict[str, str], address: str) -> list[str]:
    """Which of a film's metadata are not in what was written, in words."""
    with av.open(address, metadata_errors="replace") as file:
        held = {key.lower() for key in file.metadata}
    lost = [key for key in had if key.lower() not in held]
    return [f"metadata that have no place beside a cover were left out: {', '.join(lost)}"] if lost else []


def dated(packets: Iterable[Any]) -> Iterator[Any]:
    """Packets with both times, in an order that writers take.

    Where a stream's first have none for decoding, they count back from one that has. Of images and sound it rises.
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
        yield from _before(packet, waiting.pop(index, []))
        yield packet
    for held in waiting.values():
        for packet in held:
            packet.dts = packet.pts
            yield packet


def _before(packet: Any, held: list[Any]) -> list[Any]:
    for back, each in enumerate(reversed(held), 1):
        each.dts = packet.dts - back * max(1, packet.duration or 0)
    return held


def words(metadata: dict[str, str]) -> dict[str, str]:
    """What people wrote; the rest is the container's to write anew."""
    return {key: value for key, value in metadata.items() if key.lower() not in _INTERNAL}


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
    told = {key.lower(): value for key, value in cover.metadata.items()}
    suffix, kind = _IMAGES.get(cover.codec_context.name, (cover.codec_context.name,) * 2)
    return told.get("filename", f"cover.{suffix}"), told.get("mimetype", f"image/{kind}")


def _kind(stream: Any) -> str:
    return "cover or other attached image" if is_attached(stream) else stream.type


def _is_written_anew(stream: Any) -> bool:
    """Whether it holds what is written in another way: the text of chapters, or the time code of the images."""
    if stream.type != "data":
        return False
    images = stream.container.streams.video
    told = "timecode" in stream.metadata and any("timecode" in each.metadata for each in images)
    return told or int(stream.discard) >= _NEVER_READ
