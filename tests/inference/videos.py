"""Test videos, which are drawn and encoded here, and decoded as a player would."""

from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from scipy.ndimage import gaussian_filter

from knowhue.inference.pixels import lightness
from knowhue.inference.video_reading import Video

FRAMES, HEIGHT, WIDTH = 12, 32, 48
TIME_BASE = Fraction(1, 600)
UNEVEN = [0, 20, 50, 75, 100, 200, 225, 250, 260, 300, 325, 350]


def drawn(count: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Frames of a smooth gray texture that pans to the right, (T, H, W) uint8."""
    noise = np.random.default_rng(0).random((height, width + 2 * count))
    smooth = gaussian_filter(noise, 3, mode="wrap")
    codes = (smooth - smooth.min()) / np.ptp(smooth) * 200 + 30
    return np.stack([codes[:, 2 * t : 2 * t + width] for t in range(count)]).round().astype(np.uint8)


class Kind(NamedTuple):
    """The format of a video: codecs, tags and streams."""

    codec: str = "ffv1"
    pixels: str = "yuv420p"
    matrix: int = 2
    range: int = 1
    rotation: int = 0
    sound: str = ""
    subtitles: bool = False
    sound_seconds: float = 20480 / 48000


def make_video(path: Path, codes: np.ndarray | None = None, kind: Kind = Kind(), times: Any = None) -> Path:  # noqa: B008
    """Write a gray video with a title, two chapters, and the format and streams of `kind`."""
    codes = drawn() if codes is None else codes
    times = range(0, 25 * len(codes), 25) if times is None else times
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(
            kind.codec, Fraction(24), options={"crf": "1"} if "x264" in kind.codec else {}
        )
        stream.width, stream.height, stream.pix_fmt = codes.shape[2], codes.shape[1], kind.pixels
        stream.codec_context.time_base = TIME_BASE
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        stream.codec_context.colorspace = kind.matrix
        stream.codec_context.color_range = kind.range
        if kind.rotation:
            stream.set_display_rotation(kind.rotation)
        others = _others(file, kind)
        file.metadata["title"] = "Gray days"
        if path.suffix in (".mkv", ".mp4", ".mov"):
            half = {
                "id": 1,
                "start": 0,
                "end": 250,
                "time_base": Fraction(1, 1000),
                "metadata": {"title": "One"},
            }
            file.set_chapters(
                [half, {**half, "id": 2, "start": 250, "end": 500, "metadata": {"title": "Two"}}]
            )
        for code, time in zip(codes, times, strict=True):
            frame = av.VideoFrame.from_ndarray(code, "gray")
            if kind.pixels != "gray" or kind.range == 1:
                frame = frame.reformat(format=kind.pixels, src_color_range=2, dst_color_range=kind.range)
            frame.pts, frame.time_base, frame.color_range, frame.colorspace = (
                time,
                TIME_BASE,
                kind.range,
                kind.matrix,
            )
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        for each in others:
            file.mux(each)
    return path


def _others(file: Any, kind: Kind) -> list[Any]:
    packets: list[Any] = []
    if kind.sound:
        sound: Any = file.add_stream(kind.sound, 48000)
        sound.metadata["language"] = "fra"
        for start in range(0, round(48000 * kind.sound_seconds), 1024):
            tone = np.sin(np.arange(start, start + 1024) / 20).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(np.stack([tone, tone]), "fltp", "stereo")
            if kind.sound == "libopus":
                frame = av.AudioFrame.from_ndarray(np.stack([tone, tone], 1).reshape(1, -1), "flt", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
            packets += sound.encode(frame)
        packets += sound.encode(None)
    return packets


class Played(NamedTuple):
    """The decoded frames of a video."""

    pixels: list[np.ndarray]
    seconds: list[float]
    lightness: np.ndarray


def play(path: Path) -> Played:
    """Decode all frames of a video."""
    with closing(Video(path)) as video:
        frames = list(video.frames())
        seconds = [float(frame.pts * video.time_base) for frame in frames]
    return Played([f.pixels for f in frames], seconds, np.stack([lightness(f.pixels) for f in frames]))


def packets(path: Path, kind: str) -> list[tuple[float, bytes]]:
    """Time in seconds and bytes of every packet of the streams of a kind."""
    with av.open(str(path)) as file:
        streams = [each for each in file.streams if each.type == kind]
        return [
            (float((packet.pts or 0) * packet.time_base), bytes(packet))
            for packet in file.demux(streams)
            if packet.size
        ]
