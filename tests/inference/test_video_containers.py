"""Written videos have correct timing, streams, names, interlacing fields and notes."""

import re
import struct
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.codec.context import Flags
from av.filter import Graph
from av.stream import Disposition
from fake_network import FakeNetwork
from PIL import Image
from videos import FRAMES, TIME_BASE, Kind, drawn, make_video, packets, play

from knowhue.errors import ConfigError, RunError
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.video import VideoSummary, colorize_video
from knowhue.inference.video_formats import CODECS
from knowhue.inference.video_reading import Video

LENGTH = FRAMES / 24
TICK = 0.0011  # a unit of Matroska's clock


def colour(source: Path, out: Path, **changes: Any) -> VideoSummary:
    return colorize_video(Colorizer(FakeNetwork()), source, out, **changes)


def said(summary: VideoSummary) -> str:
    return "\n".join([*summary.judgement.warnings, *summary.notes])


def span(path: Path) -> tuple[float, float]:
    """Where the first and the last packet of any stream are presented, seconds."""
    times = [time for kind in ("video", "audio") for time, _ in packets(path, kind)]
    return min(times), max(times)


def remux(
    source: Path, target: Path, shift: float = 0, more: Callable[[Any], Any] | None = None, **options: str
) -> Path:
    """The same packets in another container, `shift` seconds later, with what `more` puts in before the first."""
    with av.open(str(source)) as old, av.open(f"file:{target}", "w", options=options) as new:
        kept = [each for each in old.streams if each.type in ("video", "audio", "subtitle")]
        streams = {each.index: new.add_stream_from_template(each, opaque=True) for each in kept}
        first = more(new) if more else None
        if first is not None:
            new.mux(first)
        for packet in old.demux(kept):
            if packet.size and packet.pts is not None:
                ticks = round(Fraction(shift) / packet.time_base)
                packet.pts, packet.dts = (
                    packet.pts + ticks,
                    (packet.pts if packet.dts is None else packet.dts) + ticks,
                )
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return target


def plain(folder: Path, **kind: Any) -> Path:
    return make_video(folder / "plain.mp4", kind=Kind("libx264", **kind))


# The clock


def dvd(path: Path) -> Path:
    """MPEG-2 and MP2, whose clock never begins at 0."""
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("mpeg2video", 25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        sound: Any = file.add_stream("mp2", 48000)
        for k, codes in enumerate(drawn()):
            frame = av.VideoFrame.from_ndarray(codes, "gray").reformat(format="yuv420p")
            frame.pts = k
            tone = av.AudioFrame.from_ndarray(np.full((1, 2 * 1152), 99, np.int16), "s16", "stereo")
            tone.sample_rate, tone.pts, tone.time_base = 48000, 1152 * k, Fraction(1, 48000)
            file.mux([*stream.encode(frame), *sound.encode(tone)])
        file.mux([*stream.encode(None), *sound.encode(None)])
    return path


def late_video(folder: Path, suffix: str, start: float) -> Path:
    if suffix == ".mpg":
        return dvd(folder / "late.mpg")
    return remux(plain(folder, sound="aac"), folder / f"late{suffix}", output_ts_offset=str(start))


TURN = 2**33 / 90_000  # when the clock of a broadcast runs over


@pytest.mark.parametrize("out", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(
    ("suffix", "start"), [(".ts", 50_000), (".ts", 0), (".ts", TURN - 0.3), (".mpg", 0), (".mkv", 50_000)]
)
def test_a_video_begins_at_0_whenever_its_containers_clock_does(
    tmp_path: Path, suffix: str, start: float, out: str
):
    late = late_video(tmp_path, suffix, start)
    before = span(late)
    assert abs(before[0]) > 0.05
    summary = colour(late, tmp_path / f"out{out}")
    after = span(tmp_path / f"out{out}")
    assert after[0] == pytest.approx(0, abs=2 * TICK)
    assert after[1] - after[0] == pytest.approx(before[1] - before[0], abs=2 * TICK)
    sound, image = (packets(late, kind)[0][0] for kind in ("audio", "video"))
    written = [packets(tmp_path / f"out{out}", kind)[0][0] for kind in ("audio", "video")]
    assert written[1] - written[0] == pytest.approx(image - sound, abs=2 * TICK)
    with av.open(str(tmp_path / f"out{out}")) as file:
        assert (file.duration or 0) / 1e6 < LENGTH + 0.2
    assert summary.frames == FRAMES
    assert not summary.notes


def test_damaged_sound_is_left_out_and_told(tmp_path: Path):
    video = remux(plain(tmp_path, sound="aac"), tmp_path / "video.ts")
    data = bytearray(video.read_bytes())
    heads = [k for k in range(len(data) - 1) if data[k : k + 2] == b"\xff\xf1"]
    data[heads[5] : heads[5] + 7] = b"\xff\xf0\x00\x00\x00\x00\x03"
    video.write_bytes(data)
    summary = colour(video, tmp_path / "out.mp4")
    assert summary.frames == FRAMES
    assert "of sound or subtitles left out" in said(summary)
    assert len(packets(tmp_path / "out.mp4", "audio")) > 10


def test_a_gap_in_a_transport_stream_is_told_though_its_frames_are_decoded(tmp_path: Path):
    video = remux(plain(tmp_path), tmp_path / "video.ts")
    data = bytearray(video.read_bytes())
    # the third frame's continued packet of the video (PID 0x100)
    place = [k for k in range(0, len(data), 188) if data[k + 1 : k + 3] == b"\x01\x00"][-1]
    video.write_bytes(data[:place] + data[place + 188 :])
    summary = colour(video, tmp_path / "out.mp4")
    assert summary.frames == FRAMES
    assert "1 damaged part of the video: frames may be missing or damaged" in said(summary)


@pytest.mark.parametrize("out", [".mp4", ".mkv"])
@pytest.mark.parametrize("starts", [(1000, 20), (20, 1000), (50, 50)])
def test_recordings_that_were_joined_play_one_after_the_other(
    tmp_path: Path, starts: tuple[int, int], out: str
):
    video = plain(tmp_path, sound="aac")
    parts = [
        remux(video, tmp_path / f"{k}.ts", output_ts_offset=str(start)) for k, start in enumerate(starts)
    ]
    (tmp_path / "joined.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    summary = colour(tmp_path / "joined.ts", tmp_path / f"out{out}")
    assert summary.frames == 2 * FRAMES
    assert span(tmp_path / f"out{out}") == pytest.approx((0, 2 * LENGTH), abs=0.2)
    times = sorted(time for time, _ in packets(tmp_path / f"out{out}", "video"))
    if starts[0] != starts[1]:
        assert np.diff(times) == pytest.approx(1 / 24, abs=0.05)


def test_chapters_of_a_late_video_stay_at_their_images(tmp_path: Path):
    def chapters(file: Any) -> None:
        one = {
            "id": 1,
            "start": 1900,
            "end": 2250,
            "time_base": Fraction(1, 1000),
            "metadata": {"title": "One"},
        }
        file.set_chapters([one, {**one, "id": 2, "start": 2250, "end": 2500}])

    late = remux(plain(tmp_path, sound="aac"), tmp_path / "late.mkv", 2, chapters)
    colour(late, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as file:
        starts = [float(each["start"] * each["time_base"]) for each in file.chapters() if each["time_base"]]
    begun = span(late)[0]
    assert 1.9 < begun < 2.01
    assert starts == pytest.approx([0, 2.25 - begun], abs=TICK)


def trimmed(folder: Path) -> Path:
    """A clip of which 0.25 s were cut away without encoding: an edit list hides them."""
    return remux(plain(folder, sound="aac"), folder / "cut.mp4", -0.25, avoid_negative_ts="disabled")


@pytest.mark.parametrize("out", [".mp4", ".mov", ".mkv"])
def test_what_was_cut_away_does_not_come_back(tmp_path: Path, out: str):
    video = trimmed(tmp_path)
    frames = len(play(video).pixels)
    assert frames == FRAMES / 2
    told: list[dict[str, Any]] = []
    summary = colour(video, tmp_path / f"out{out}", report=told.append)
    assert summary.frames == frames
    assert told[-1]["total"] == told[-1]["done"] == frames
    with av.open(str(tmp_path / f"out{out}")) as file:
        assert (file.start_time or 0) / 1e6 == pytest.approx(0, abs=0.025)
        heard = [frame for frame in file.decode(audio=0) if frame.time is not None]
    assert heard[0].time == pytest.approx(0, abs=0.025)
    sound = sum(frame.samples for frame in heard) / 48_000
    assert sound == pytest.approx(20 * 1024 / 48_000 - 0.25, abs=0.05)


# Streams


def image_bytes(kind: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", (16, 12), "teal").save(file, kind)
    return file.getvalue()


def with_cover(folder: Path, suffix: str, kind: str = "JPEG", sound: str = "aac") -> tuple[Path, bytes]:
    """A video with a cover: an attached image, or an attachment where the container has these."""
    data, video = image_bytes(kind), plain(folder, sound=sound)

    def attach(file: Any) -> Any:
        if suffix == ".mkv":
            file.add_attachment(f"cover.{'jpg' if kind == 'JPEG' else 'png'}", f"image/{kind.lower()}", data)
            return None
        cover = file.add_stream("mjpeg" if kind == "JPEG" else "png")
        cover.width, cover.height, cover.pix_fmt = 16, 12, "yuvj420p" if kind == "JPEG" else "rgb24"
        cover.disposition = Disposition.attached_pic
        packet = av.Packet(data)
        packet.stream, packet.is_keyframe, packet.pts, packet.dts = cover, True, 0, 0
        return packet

    return remux(video, folder / f"cover{suffix}", more=attach), data


def covers(path: Path) -> list[bytes]:
    with av.open(str(path)) as file:
        held = [each for each in file.streams if each.disposition & Disposition.attached_pic]
        return [bytes(packet) for packet in file.demux(held) if packet.size] if held else []


def moving(path: Path) -> int:
    """Streams of moving images."""
    with av.open(str(path)) as file:
        return sum(not each.disposition & Disposition.attached_pic for each in file.streams.video)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("out", [".mp4", ".webm", ".mov", ".mkv"])
@pytest.mark.parametrize("source", [".mp4", ".mkv"])
def test_a_cover_is_missed(tmp_path: Path, source: str, out: str, kind: str):
    video, data = with_cover(tmp_path, source, kind, sound="" if out == ".webm" else "aac")
    assert covers(video) == [data]
    summary = colour(video, tmp_path / f"out{out}")
    assert moving(tmp_path / f"out{out}") == 1
    assert covers(tmp_path / f"out{out}") == []
    assert "(cover or other attached image) was left out" in said(summary)


def test_metadata_of_any_name_are_kept(tmp_path: Path):
    def tell(file: Any) -> Any:
        file.metadata.update({"title": "Gray days", "catalogue": "F 12"})

    told = remux(plain(tmp_path), tmp_path / "told.mkv", more=tell)
    colour(told, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert file.metadata["title"] == "Gray days"
        assert "F 12" in file.metadata.values()


def test_every_packet_of_a_second_video_track_is_kept(tmp_path: Path):
    with av.open(str(plain(tmp_path))) as old:
        more = [packet for packet in old.demux(old.streams.video[0]) if packet.size]
        assert any(packet.dts != packet.pts for packet in more)
        with av.open(str(tmp_path / "two.mkv"), "w") as new:
            streams = [new.add_stream_from_template(old.streams.video[0]) for _ in range(2)]
            for packet in more:
                times = packet.pts, packet.dts
                for stream in streams:
                    packet.stream, (packet.pts, packet.dts), packet.time_base = stream, times, TIME_BASE
                    new.mux(packet)
    colour(tmp_path / "two.mkv", tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as file:
        kept = [bytes(packet) for packet in file.demux(file.streams.video[1]) if packet.size]
    assert kept == [bytes(packet) for packet in more]


# Names


@pytest.mark.parametrize(
    "name", ["Nosferatu:1922.mp4", "http:x.mp4", "pipe:1.mp4", "concat:a|b.mp4", "./data:,.mp4"]
)
def test_a_name_is_never_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(tmp_path)
    plain(tmp_path).rename(tmp_path / name)
    assert colour(Path(name), Path("out.mp4")).frames == FRAMES
    (tmp_path / name).rename("plain.mp4")
    assert colour(Path("plain.mp4"), Path(name)).frames == FRAMES
    assert len(play(tmp_path / name).pixels) == FRAMES
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["out.mp4", "plain.mp4", Path(name).name]
    )


@pytest.mark.parametrize("name", ["take 1, sea %03d [a].mp4", "-y.mp4", "a?b#c=d&e.mp4", "caf\udce9.mp4"])
def test_a_name_is_taken_letter_by_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(tmp_path)
    plain(tmp_path).rename(tmp_path / name)
    assert colour(Path(name), Path(f"out {name}")).frames == FRAMES
    assert len(play(tmp_path / f"out {name}").pixels) == FRAMES


# Fields


def even(path: Path) -> Path:
    """A video of three frames on a clock of 24 a second."""
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("libx264", Fraction(24))
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for frame in marked("prog", "yuv420p"):
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def marked(order: str, pixels: str) -> list[Any]:
    """Three frames that say what their fields are."""
    graph = Graph()
    source = graph.add_buffer(width=48, height=32, format=av.VideoFormat(pixels), time_base=Fraction(1, 24))
    graph.link_nodes(source, graph.add("setfield", order), graph.add("buffersink")).configure()
    frames = []
    for k, codes in enumerate(drawn(3)):
        frame = av.VideoFrame.from_ndarray(codes, "gray").reformat(format=pixels)
        frame.pts, frame.time_base = k, Fraction(1, 24)
        graph.vpush(frame)
        frames.append(graph.vpull())
    return frames


def field_order(path: Path) -> tuple[int, bool]:
    """As the container or codec tells it (FFmpeg's number), and whether frames say that they are interlaced."""
    with av.open(str(path)) as file:
        frame = next(file.decode(video=0))
        return file.streams.video[0].codec_context.field_order, frame.interlaced_frame


def declared(path: Path, order: str, number: int) -> Path:
    """A container that tells an order by number; or none (0), but frames that do."""
    codec, pixels = ("rawvideo", "uyvy422") if number else ("ffv1", "yuv420p")
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, Fraction(24))
        stream.width, stream.height, stream.pix_fmt = 48, 32, pixels
        stream.codec_context.flags |= Flags.interlaced_dct
        stream.codec_context.field_order = number
        for frame in marked(order, pixels):
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("number", [2, 3, 4, 5, 0])
def test_of_fields_it_is_said_that_they_become_one_image(tmp_path: Path, number: int):
    video = declared(tmp_path / ("in.mov" if number else "in.avi"), "bff" if number % 2 else "tff", number)
    assert field_order(video) == (number, True)
    summary = colour(video, tmp_path / "out.mp4")
    assert field_order(tmp_path / "out.mp4") == (1, False)
    assert "interlaced: both fields" in said(summary)
    assert "deinterlace it first" in said(summary)


def test_a_progressive_video_stays_progressive(tmp_path: Path):
    summary = colour(plain(tmp_path), tmp_path / "out.mp4")
    assert field_order(tmp_path / "out.mp4") == (1, False)
    assert not summary.notes


# Notes and remedies


STYLES = b"[Script Info]\nScriptType: v4.00+\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\nStyle: Default,Arial,16\n"


def with_words(folder: Path, suffix: str) -> Path:
    """A video with subtitles: mov_text in .mp4, SRT in .mkv."""
    (folder / "in.srt").write_text("1\n00:00:00,100 --> 00:00:00,400\nIt was blue.\n\n")
    with av.open(str(folder / "in.srt")) as text:
        line = next(bytes(packet) for packet in text.demux() if packet.size)

        def add(file: Any) -> Any:
            if suffix == ".mkv":
                stream = file.add_stream_from_template(text.streams[0])
                packet = av.Packet(line)
            else:
                stream = file.add_stream("mov_text")
                stream.codec_context.subtitle_header = STYLES
                packet = av.Packet(len(line).to_bytes(2, "big") + line)
            packet.pts, packet.dts, packet.duration, packet.time_base = 100, 100, 300, Fraction(1, 1000)
            packet.stream = stream
            return packet

        return remux(plain(folder), folder / f"words{suffix}", more=add)


@pytest.mark.parametrize(("source", "takers"), [(".mp4", {".mp4", ".m4v", ".mov"}), (".mkv", {".mkv"})])
def test_the_remedy_is_what_takes_all_and_never_what_was_tried(tmp_path: Path, source: str, takers: set[str]):
    video = with_words(tmp_path, source)
    for tried in CODECS:
        if tried in takers:
            colour(video, tmp_path / f"out{tried}")
            with av.open(str(tmp_path / f"out{tried}")) as file:
                assert [each.type for each in file.streams] == ["video", "subtitle"]
        else:
            with pytest.raises(ConfigError) as caught:
                colour(video, tmp_path / f"out{tried}")
            assert set(re.findall(r"\.\w+", str(caught.value).rsplit("End its name in", 1)[1])) == takers


def test_where_no_container_takes_all_streams_none_is_named(tmp_path: Path):
    text = with_words(tmp_path, ".mp4")
    with av.open(str(text)) as old, av.open(str(tmp_path / "two.mov"), "w") as new:
        streams = [new.add_stream_from_template(each, opaque=True) for each in old.streams]
        sound: Any = new.add_stream("pcm_mulaw", 48000)  # .mp4 does not take it, nor .mkv the text
        sound.layout = "mono"
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
        for packet in sound.encode(silence()):
            new.mux(packet)
    with pytest.raises(ConfigError, match=r"End its name in \.mov\.$"):
        colour(tmp_path / "two.mov", tmp_path / "out.mkv")
    with pytest.raises(ConfigError, match=r"End its name in \.mov\.$"):
        colour(tmp_path / "two.mov", tmp_path / "out.mp4")


def silence() -> Any:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), "s16", "mono")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    return frame


@pytest.mark.parametrize("out", [".mp4", ".mov", ".mkv"])
def test_a_timecode_is_kept_and_not_missed(tmp_path: Path, out: str):
    def tell(file: Any) -> None:
        file.streams[0].metadata["timecode"] = "01:02:03:04"

    video = remux(even(tmp_path / "even.mp4"), tmp_path / "tc.mov", more=tell)
    with av.open(str(video)) as file:
        assert [each.type for each in file.streams] == ["video", "data"]
    summary = colour(video, tmp_path / f"out{out}")
    with av.open(str(tmp_path / f"out{out}")) as file:
        told = {k.lower(): v for each in file.streams for k, v in each.metadata.items()} | {
            k.lower(): v for k, v in file.metadata.items()
        }
    assert told["timecode"] == "01:02:03:04"
    assert not summary.notes


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_not_mended_by_another_name(tmp_path: Path):
    (tmp_path / ".out.mkv.colorizing").symlink_to("/dev/full")
    with pytest.raises(
        RunError, match=r"No space left on device\. Free some space and run the same command again"
    ):
        colour(plain(tmp_path), tmp_path / "out.mkv")
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "out.mkv").exists()


def test_a_video_may_have_as_long_a_name_as_names_may_be(tmp_path: Path):
    out = tmp_path / f"{'x' * 251}.mkv"
    colour(plain(tmp_path), out)
    assert out.stat().st_size
    assert not list(tmp_path.glob(".*"))


def test_pixels_are_as_they_were_whatever_the_container(tmp_path: Path):
    video = plain(tmp_path)
    late = remux(video, tmp_path / "late.mkv", 100)
    assert np.array_equal(play(late).lightness, play(video).lightness)


@pytest.mark.parametrize("tag", ["DURATION", "DURATION-eng"])
def test_the_length_that_matroska_tags_a_stream_with_is_found_in_any_language(tmp_path: Path, tag: str):
    """mkvmerge names the language, ffmpeg doesn't; it counts from 0, wherever the images begin."""
    path = tmp_path / "tagged.mkv"
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("ffv1", 24)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.metadata[tag] = "00:01:02.500000000"
        for k in range(12, 20):
            frame = av.VideoFrame(48, 32, "yuv420p")
            frame.pts, frame.time_base = k, Fraction(1, 24)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    if tag == "DURATION":  # which ffmpeg writes anew
        path.write_bytes(re.sub(rb"00:00:00\.\d{9}", b"00:01:02.500000000", path.read_bytes()))
    video = Video(path)
    video.close()
    assert video.total == 62 * 24


# What a container says of its images


def tagged(folder: Path, suffix: str = ".mkv", **metadata: str) -> Path:
    """A plain video whose images' stream says more of itself."""

    def add(new: Any) -> None:
        new.streams.video[0].metadata.update(metadata)

    return remux(plain(folder), folder / f"tagged{suffix}", more=add)


def image_tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as file:
        return {key.lower(): value for key, value in file.streams.video[0].metadata.items()}


@pytest.mark.parametrize("out", [".mkv", ".mp4"])
def test_transparency_in_a_second_image_of_each_frame_is_missed_and_not_announced(tmp_path: Path, out: str):
    summary = colour(tagged(tmp_path, alpha_mode="1"), tmp_path / f"out{out}")
    assert "its transparency was left out" in said(summary)
    assert "alpha_mode" not in image_tags(tmp_path / f"out{out}")


def test_statistics_of_the_old_images_are_not_kept(tmp_path: Path):
    old = {"BPS": "1", "NUMBER_OF_BYTES-eng": "4242", "NUMBER_OF_FRAMES": "7", "_STATISTICS_TAGS": "BPS"}
    colour(tagged(tmp_path, **old, title="Sea"), tmp_path / "out.mkv")
    kept = image_tags(tmp_path / "out.mkv")
    assert kept["title"] == "Sea"
    assert not {name.lower() for name in old} & kept.keys()


@pytest.mark.parametrize(("out", "is_missed"), [(".mkv", False), (".mp4", True)])
def test_a_layout_of_two_eyes_is_missed_where_it_is_lost(tmp_path: Path, out: str, is_missed: bool):
    summary = colour(tagged(tmp_path, stereo_mode="left_right"), tmp_path / f"out{out}")
    assert ("stereoscopic" in said(summary)) == is_missed
    assert (image_tags(tmp_path / f"out{out}").get("stereo_mode") == "left_right") != is_missed


def test_of_several_tracks_the_default_one_is_coloured_and_others_are_said_to_stay(tmp_path: Path):
    small = make_video(tmp_path / "small.mkv", drawn(height=32, width=48))
    target = tmp_path / "two.mkv"
    with (
        av.open(str(plain(tmp_path))) as first,
        av.open(str(small)) as second,
        av.open(str(target), "w") as new,
    ):
        streams = [new.add_stream_from_template(each.streams.video[0]) for each in (first, second)]
        streams[0].disposition, streams[1].disposition = Disposition(0), Disposition.default
        for source, stream in zip((first, second), streams, strict=True):
            for packet in source.demux(source.streams.video[0]):
                if packet.size:
                    packet.stream = stream
                    new.mux(packet)
    summary = colour(tmp_path / "two.mkv", tmp_path / "out.mkv")
    assert (summary.height, summary.width) == (32, 48)
    assert "stream 0 (video) was copied as it is" in said(summary)


BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")


def with_clean_aperture(folder: Path, width: int, height: int) -> Path:
    """An MP4 whose `clap` (ISO/IEC 14496-12, 12.1.4) shows the middle of its frames alone."""
    data = bytearray(remux(plain(folder), folder / "whole.mp4").read_bytes())
    place, end, starts = 0, len(data), []
    for kind in BOXES:
        while data[place + 4 : place + 8] != kind:
            place += int.from_bytes(data[place : place + 4], "big")
            assert place < end
        starts.append(place)
        end = place + int.from_bytes(data[place : place + 4], "big")
        place += 16 if kind == b"stsd" else 8
    data[end:end] = struct.pack(">I4s8I", 40, b"clap", width, 1, height, 1, 0, 1, 0, 1)
    for start in starts:
        data[start : start + 4] = (int.from_bytes(data[start : start + 4], "big") + 40).to_bytes(4, "big")
    (folder / "cropped.mp4").write_bytes(data)
    return folder / "cropped.mp4"


@pytest.mark.parametrize("source", [".mp4", ".mkv"])
@pytest.mark.parametrize("out", [".mp4", ".mkv"])
def test_margins_that_players_hide_do_not_come_back(tmp_path: Path, source: str, out: str):
    whole = colour(plain(tmp_path), tmp_path / "whole.mkv")
    cropped = with_clean_aperture(tmp_path, whole.width - 12, whole.height - 8)
    if source == ".mkv":
        cropped = remux(cropped, tmp_path / "cropped.mkv")
    summary = colour(cropped, tmp_path / f"out{out}")
    assert (summary.width, summary.height) == (whole.width - 12, whole.height - 8)
    assert "cropped" in said(summary)
    middle = play(tmp_path / "whole.mkv").pixels[0][4:-4, 6:-6].astype(int)
    assert np.abs(play(tmp_path / f"out{out}").pixels[0] - middle).mean() < 6
