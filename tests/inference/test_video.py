"""Videos keep size, timing, sound and lightness; their colours are stable over time."""

import subprocess
import sys
import threading
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fake_network import FakeNetwork
from videos import FRAMES, UNEVEN, Kind, drawn, make_video, packets, play

from knowhue.errors import ConfigError, ExtraError, ImageError
from knowhue.inference import video_formats, video_reading
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.networks import Predictions
from knowhue.inference.video import VideoSummary, colorize_video

LOSSLESS = video_formats.Codec("ffv1", {}, True, True, True)


EARLIER: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _earlier_threads():
    """Other tests of this process may have left servers to the garbage collector, with threads of their own."""
    EARLIER.clear()
    EARLIER.update(threading.enumerate())


class Wavering(FakeNetwork):
    """Colours that depend on lightness, and waver from frame to frame by what each shows."""

    def predict(self, lightness: np.ndarray) -> Predictions:
        answers = super().predict(lightness)
        assert answers.chroma is not None
        waver = 200 * (lightness.mean((1, 2)) % 0.1)
        chroma = answers.chroma + (lightness / 20 + waver[:, None, None])[..., None].astype(np.float32)
        return answers._replace(chroma=chroma)


def colour(source: Path, out: Path, network: FakeNetwork | None = None, **changes: Any) -> VideoSummary:
    return colorize_video(Colorizer(network or Wavering()), source, out, **changes)


@pytest.fixture
def lossless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(video_formats.CODECS, ".mkv", LOSSLESS)


@pytest.mark.parametrize(
    ("source", "out", "sound"),
    [
        (".mkv", ".mkv", "aac"),
        (".mp4", ".mp4", "aac"),
        (".mov", ".mp4", "aac"),
        (".mp4", ".mkv", "libmp3lame"),
        (".webm", ".webm", "libopus"),
    ],
)
def test_size_times_sound_and_words_are_kept(tmp_path: Path, source: str, out: str, sound: str):
    codec = "libvpx-vp9" if source == ".webm" else "libx264"
    video = make_video(tmp_path / f"in{source}", kind=Kind(codec, sound=sound), times=UNEVEN)
    target = tmp_path / f"out{out}"
    summary = colour(video, target)
    before, after = play(video), play(target)
    assert summary.frames == len(after.pixels) == FRAMES
    assert after.pixels[0].shape == (*before.pixels[0].shape[:2], 3)
    assert after.seconds == pytest.approx(before.seconds, abs=0.0011 if out != ".mp4" else 1e-6)
    sounds, kept = packets(video, "audio"), packets(target, "audio")
    assert len(sounds) > 10
    assert [data for _, data in kept] == [data for _, data in sounds]
    assert [time for time, _ in kept] == pytest.approx([time for time, _ in sounds], abs=0.0011)
    with av.open(str(video)) as old, av.open(str(target)) as new:
        assert new.metadata["title" if "title" in new.metadata else "TITLE"] == "Gray days"
        assert new.streams.audio[0].language == "fra"
        aspects = [file.streams.video[0].sample_aspect_ratio for file in (old, new)]
        assert aspects == [Fraction(1) if out == ".webm" else Fraction(4, 3)] * 2
        assert [c["metadata"] for c in new.chapters()] == [c["metadata"] for c in old.chapters()]
    assert [path.name for path in tmp_path.iterdir()].count(target.name) == 1
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "gray", "yuv420p10le", "gray10le"])
@pytest.mark.parametrize(("matrix", "told"), [(1, 1), (6, 1), (1, 2)])
def test_lightness_is_kept_whatever_the_codes_mean(
    tmp_path: Path, lossless: None, pixels: str, matrix: int, told: int
):
    video = make_video(tmp_path / "in.mkv", drawn(3), Kind("ffv1", pixels, matrix, told))
    colour(video, tmp_path / "out.mkv")
    before, after = play(video), play(tmp_path / "out.mkv")
    error = np.abs(after.lightness - before.lightness)
    deep = "10" in pixels
    assert after.pixels[0].dtype == (np.uint16 if deep else np.uint8)
    assert np.ptp(before.lightness) > 50
    assert error.max() < 1.6  # beside edges: chroma has half the size
    assert error.mean() < (0.2 if deep else 0.4)
    red, _, blue = np.stack(after.pixels).reshape(-1, 3).mean(0) / np.iinfo(after.pixels[0].dtype).max
    assert red > blue + 0.04
    with av.open(str(tmp_path / "out.mkv")) as file:
        context: Any = file.streams.video[0].codec_context
        assert context.colorspace == matrix
        assert context.color_range == (told if pixels[0] == "y" else 1)


@pytest.mark.parametrize(("told", "expected"), [(1, (0, 130)), (2, (16, 128))])
def test_gray_codes_are_read_by_their_range(tmp_path: Path, told: int, expected: tuple[int, int]):
    codes = np.full((2, 32, 48), 128, np.uint8)
    codes[:, :16] = 16
    video = make_video(tmp_path / "in.mkv", codes, Kind("ffv1", "gray", 2, told))
    with closing(video_reading.Video(video)) as found:
        dark, light = next(iter(found.frames())).pixels[[0, 20], 0, 0]
    assert (dark, light) == expected


def test_an_odd_size_stays_odd(tmp_path: Path):
    video = make_video(tmp_path / "in.mkv", drawn(3, 33, 47), Kind("ffv1"))
    for suffix in (".mp4", ".webm"):
        summary = colour(video, tmp_path / f"out{suffix}")
        after = play(tmp_path / f"out{suffix}")
        assert after.pixels[0].shape == (33, 47, 3)
        assert np.abs(after.lightness - play(video).lightness).mean() < 1.5
        assert any("odd" in note for note in summary.notes) == (suffix == ".mp4")


class Upward(FakeNetwork):
    """Orange above, blue below, whatever is shown."""

    def predict(self, lightness: np.ndarray) -> Predictions:
        answers = super().predict(lightness)
        assert answers.chroma is not None
        middle = lightness.shape[1] // 2
        answers.chroma[:, middle:] *= -1
        return answers


@pytest.mark.parametrize(("rotation", "side"), [(90, (1, False)), (-90, (1, True)), (180, (0, False))])
def test_a_turned_video_is_looked_at_upright_and_stays_turned(
    tmp_path: Path, rotation: int, side: tuple[int, bool]
):
    video = make_video(tmp_path / "in.mp4", drawn(3), Kind("libx264", rotation=rotation))
    colour(video, tmp_path / "out.mp4", Upward())
    with (
        closing(video_reading.Video(video)) as old,
        closing(video_reading.Video(tmp_path / "out.mp4")) as new,
    ):
        assert new.matrix == old.matrix is not None
        pixels = new.orientation.upright(next(iter(new.frames())).pixels).astype(int)
    warmth = pixels[..., 0] - pixels[..., 2]
    third = len(warmth) // 3
    assert warmth[:third].mean() > 10
    assert warmth[-third:].mean() < -10


def stopping(after: int) -> Any:
    def report(event: dict[str, Any]) -> None:
        if event["stage"] == "video" and event["done"] == after:
            raise KeyboardInterrupt

    return report


def assert_shows_the_same(video: Path, other: Path):
    """By their frames, of a lossless codec: x264 does not always write the same bytes, even in one thread."""
    first, second = play(video), play(other)
    assert first.seconds == second.seconds
    assert len(first.pixels) == FRAMES
    assert all(map(np.array_equal, first.pixels, second.pixels))


@pytest.mark.usefixtures("lossless")
def test_a_stopped_video_leaves_nothing_and_begins_anew(tmp_path: Path):
    video = make_video(tmp_path / "in.mkv", kind=Kind("libx264", sound="aac"), times=UNEVEN)
    colour(video, tmp_path / "whole.mkv")
    with pytest.raises(KeyboardInterrupt):
        colour(video, tmp_path / "out.mkv", report=stopping(8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "whole.mkv"]
    assert not [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("knowhue_") and thread not in EARLIER
    ]
    network = Wavering()
    assert colour(video, tmp_path / "out.mkv", network).frames == sum(network.batches) == FRAMES
    assert_shows_the_same(tmp_path / "out.mkv", tmp_path / "whole.mkv")
    assert packets(tmp_path / "out.mkv", "audio") == packets(tmp_path / "whole.mkv", "audio")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal on this system")
@pytest.mark.usefixtures("lossless")
def test_killed_its_part_is_hidden_and_replaced_by_the_next(tmp_path: Path):
    video = make_video(tmp_path / "in.mp4", kind=Kind("libx264"))
    program = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from test_video import colour
def report(event):
    if event.get("done") == 8:
        os.kill(os.getpid(), signal.SIGKILL)
colour(Path(sys.argv[2]), Path(sys.argv[3]), report=report)
"""
    arguments = [str(Path(__file__).parent), str(video), str(tmp_path / "out.mkv")]
    command = [sys.executable, "-c", program, *arguments]
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == -9
    assert not (tmp_path / "out.mkv").exists()
    assert (tmp_path / ".out.mkv.colorizing").exists()
    assert colour(video, tmp_path / "out.mkv").frames == FRAMES
    colour(video, tmp_path / "whole.mkv")
    assert_shows_the_same(tmp_path / "out.mkv", tmp_path / "whole.mkv")
    assert not list(tmp_path.glob(".*"))


def test_videos_are_painted_by_compiled_code_from_the_first_frame(tmp_path: Path, monkeypatch):
    called = []
    monkeypatch.setattr("knowhue.inference.video.paint_compiled", lambda: called.append(1))
    colour(make_video(tmp_path / "in.mkv", drawn(4)), tmp_path / "out.mkv")
    assert called == [1]


def test_frames_are_predicted_in_whole_batches_and_reported_in_order(tmp_path: Path):
    video = make_video(tmp_path / "in.mkv", drawn(20))
    network, events = Wavering(), []
    colour(video, tmp_path / "out.mkv", network, report=events.append)
    assert network.batches == [8, 8, 4]
    assert [event["done"] for event in events] == list(range(1, 21))
    assert {event["total"] for event in events} == {20}
    assert events[-1]["seconds_left"] == 0


def test_a_model_that_fails_ends_the_video_and_leaves_nothing(tmp_path: Path):
    def fail(lightness: np.ndarray) -> None:
        raise MemoryError("out of memory")

    video = make_video(tmp_path / "in.mkv")
    with pytest.raises(MemoryError, match="out of memory"):
        colour(video, tmp_path / "out.mkv", FakeNetwork(on_predict=fail))
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_the_steadied_video_wavers_less(tmp_path: Path, lossless: None):
    video = make_video(
        tmp_path / "in.mkv",
        np.repeat(drawn(1), FRAMES, 0) + np.arange(FRAMES, dtype=np.uint8)[:, None, None] % 3,
    )
    wavering = []
    for strength in (0.0, 0.8):
        colour(video, tmp_path / f"{strength}.mkv", strength=strength)
        frames = np.stack(play(tmp_path / f"{strength}.mkv").pixels).astype(float)
        warmth = frames[..., 0] - frames[..., 2]
        wavering.append(np.abs(np.diff(warmth, axis=0)).mean())
    assert wavering[1] < 0.5 * wavering[0]


def test_one_class_for_the_video_is_the_mean_over_frames(tmp_path: Path):
    dark, light = np.full((4, 32, 48), 20, np.uint8), np.full((8, 32, 48), 240, np.uint8)
    video = make_video(tmp_path / "in.mkv", np.concatenate([dark, light]))
    summary = colour(video, tmp_path / "out.mkv", FakeNetwork())
    expected = play(video).lightness.mean() / 100
    assert summary.judgement.probabilities["bright"] == pytest.approx(expected, abs=0.005)
    assert summary.scenes == 2
    assert summary.failed == 0
    record = summary.as_record()
    assert record["label"] == "bright"
    assert (record["frames"], record["width"], record["height"]) == (12, 48, 32)
    assert "class: bright" in "\n".join(summary.lines())


class Startled(FakeNetwork):
    """Finds dark frames unlike the training images."""

    def predict(self, lightness: np.ndarray) -> Predictions:
        novelty = np.where(lightness.mean((1, 2)) < 30, 1.5, 0.5).astype(np.float32)
        return super().predict(lightness)._replace(novelty=novelty)


def test_frames_unlike_the_training_images_are_counted(tmp_path: Path):
    dark, light = np.full((4, 32, 48), 20, np.uint8), np.full((8, 32, 48), 240, np.uint8)
    video = make_video(tmp_path / "in.mkv", np.concatenate([dark, light]))
    summary = colour(video, tmp_path / "out.mkv", Startled())
    assert summary.novel == 4
    assert "  note: 4 of 12 frames are unlike the images" in "\n".join(summary.lines())
    assert "class: bright" in "\n".join(summary.lines())
    video = make_video(tmp_path / "dark.mkv", dark)
    said = "\n".join(colour(video, tmp_path / "dark-out.mkv", Startled()).lines())
    assert "class: unknown, mean" in said
    assert said.index("unlike") < said.index("class:")


def test_subtitles_are_kept(tmp_path: Path):
    video = make_video(tmp_path / "in.mkv")
    (tmp_path / "in.srt").write_text("1\n00:00:00,100 --> 00:00:00,400\nIt was blue.\n\n")
    with (
        av.open(str(video)) as old,
        av.open(str(tmp_path / "in.srt")) as text,
        av.open(str(tmp_path / "both.mkv"), "w") as new,
    ):
        for each in (old, text):
            new.add_stream_from_template(each.streams[0], opaque=True)
        for each, stream in zip((old, text), new.streams, strict=True):
            for packet in each.demux():
                if packet.size:
                    packet.stream = stream
                    new.mux(packet)
    colour(tmp_path / "both.mkv", tmp_path / "out.mkv")
    kept = packets(tmp_path / "out.mkv", "subtitle")
    assert kept == packets(tmp_path / "both.mkv", "subtitle")
    assert kept[0] == (pytest.approx(0.1), b"It was blue.")
    with pytest.raises(ConfigError, match=r"End its name in \.mkv\.$"):
        colour(tmp_path / "both.mkv", tmp_path / "out.mp4")


def test_a_damaged_piece_is_left_out_and_told(tmp_path: Path):
    video = make_video(tmp_path / "in.mkv", kind=Kind("mjpeg", "yuvj420p", 5, 2))
    whole = [data for _, data in packets(video, "video")]
    data = bytearray(video.read_bytes())
    place = data.find(whole[5])
    assert place > 0
    data[place : place + len(whole[5])] = bytes(len(whole[5]))
    video.write_bytes(data)
    summary = colour(video, tmp_path / "out.mp4")
    assert summary.frames == FRAMES - 1
    assert "1 damaged" in "\n".join(summary.lines())


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_video_that_was_cut_short_is_told_by_its_length(tmp_path: Path, suffix: str):
    times = range(0, 25 * 24 * FRAMES, 25 * 24)  # a frame a second
    whole = make_video(tmp_path / "in.mkv", kind=Kind("mjpeg", "yuvj420p", 5, 2), times=times)
    video = tmp_path / f"whole{suffix}"
    with av.open(str(whole)) as old, av.open(str(video), "w", options={"movflags": "faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    assert "cut short" not in "\n".join(colour(video, tmp_path / "a.mkv").lines())
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    summary = colour(video, tmp_path / "b.mkv")
    assert summary.frames < FRAMES
    assert "it may be cut short" in "\n".join(summary.lines())
    assert any("it may be cut short" in each for each in summary.as_record()["warnings"])


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_images_that_end_before_their_sound_are_whole(tmp_path: Path, suffix: str):
    video = tmp_path / f"in{suffix}"
    make_video(video, kind=Kind("mjpeg", "yuvj420p", 5, 2, sound="aac", sound_seconds=4))
    told: list[dict[str, Any]] = []
    summary = colour(video, tmp_path / "a.mkv", report=told.append)
    assert "cut short" not in "\n".join(summary.lines())
    assert {each["total"] for each in told} == {FRAMES}
    data = video.read_bytes()
    if suffix == ".mkv":  # of MP4 the index, which is behind, would be lost
        video.write_bytes(data[: len(data) // 2])
        assert "it ends at" in "\n".join(colour(video, tmp_path / "b.mkv").lines())


def test_attachments_stay_in_mkv_and_are_missed_elsewhere(tmp_path: Path):
    video = make_video(tmp_path / "in.mkv", kind=Kind("ffv1", sound="aac"))
    with av.open(str(video)) as old, av.open(str(tmp_path / "two.mkv"), "w") as new:
        streams: dict[int, Any] = {s.index: new.add_stream_from_template(s, opaque=True) for s in old.streams}
        new.add_attachment("font.ttf", "font/ttf", b"glyphs")
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    colour(tmp_path / "two.mkv", tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as file:
        assert [each.type for each in file.streams] == ["video", "audio", "attachment"]
    summary = colour(tmp_path / "two.mkv", tmp_path / "out.mp4")
    assert any("attachment" in note for note in summary.notes)


def test_what_cannot_be_is_said_before_work(tmp_path: Path):
    video = make_video(tmp_path / "in.mp4", kind=Kind("libx264", sound="aac"))
    (tmp_path / "there.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:900])
    sound_only(tmp_path / "sound.mp4")
    for error, said, changes in [
        (ConfigError, "should end in one of .mp4", {"out": tmp_path / "out.avi"}),
        (ConfigError, "already exists", {"out": tmp_path / "there.mp4"}),
        (ConfigError, "is an input, which is never replaced", {"out": video, "overwrite": True}),
        (ConfigError, "can hold all streams", {"out": tmp_path / "out.webm"}),
        (
            ConfigError,
            "should hold only `saturation` and `unknown_below`. Found `uncertainty`. Colour a single image.",
            {"options": ColorizeOptions(uncertainty=True)},
        ),
        (ImageError, "not a video, damaged or cut short", {"source": tmp_path / "text.mp4"}),
        (ImageError, "not a video, damaged or cut short", {"source": tmp_path / "cut.mp4"}),
        (ImageError, "none.mp4: no such file or directory", {"source": tmp_path / "none.mp4"}),
        (ImageError, "no moving images", {"source": tmp_path / "sound.mp4"}),
    ]:
        network = FakeNetwork()
        with pytest.raises(error, match=said):
            colour(**{"source": video, "out": tmp_path / "out.mp4", "network": network} | changes)
        assert network.batches == []
    assert not list(tmp_path.glob(".*"))


def sound_only(path: Path) -> None:
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("aac", 48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import knowhue.inference

    monkeypatch.setitem(sys.modules, "av", None)
    for name in ("video_reading", "video_writing"):
        monkeypatch.delitem(sys.modules, f"knowhue.inference.{name}", raising=False)
        monkeypatch.delattr(knowhue.inference, name, raising=False)
    with pytest.raises(ExtraError, match=r"pip install -e '\.\[video\]'"):
        colour(tmp_path / "in.mp4", tmp_path / "out.mp4")


@pytest.mark.parametrize(
    ("curve", "said"), [(16, "PQ (high dynamic range): its"), (8, "linear light: its values")]
)
def test_what_is_read_otherwise_than_meant_is_said(tmp_path: Path, curve: int, said: str):
    with av.open(str(tmp_path / "in.mkv"), "w") as file:
        stream: Any = file.add_stream("ffv1", Fraction(24))
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuva420p"
        stream.codec_context.color_trc = curve
        for number, codes in enumerate(drawn(2)):
            frame = av.VideoFrame.from_ndarray(codes, "gray").reformat(format="yuva420p")
            frame.pts, frame.color_trc = number, curve
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    warnings = colour(tmp_path / "in.mkv", tmp_path / "out.mkv").judgement.warnings
    assert any(said in warning for warning in warnings)
    assert "its transparency was left out" in warnings


def test_a_video_without_classes_or_times_is_coloured(tmp_path: Path):
    class Classless(Wavering):
        def predict(self, lightness: np.ndarray) -> Any:
            return super().predict(lightness)._replace(probabilities=None)

    network = Classless()
    tasks = network.description.config.tasks.model_copy(update={"names": ("colour",)})
    config = network.description.config.model_copy(update={"tasks": tasks})
    network.description = network.description.model_copy(update={"config": config})
    summary = colour(make_video(tmp_path / "in.mkv"), tmp_path / "out.mkv", network)
    assert summary.judgement.label is None
    assert not any("class:" in line for line in summary.lines())


def test_few_frames_are_held_however_long_the_video_is(tmp_path: Path):
    network, ahead = Wavering(), []
    video = make_video(tmp_path / "in.mkv", drawn(150))
    report = lambda event: ahead.append(sum(network.batches) - event["done"])  # noqa: E731
    assert colour(video, tmp_path / "out.mkv", network, report=report).frames == 150
    assert max(ahead) <= 5 * 8
