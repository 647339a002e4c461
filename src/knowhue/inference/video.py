"""Colour a video without flicker, keeping sound and all other streams.

At the network's size, each frame's chroma is averaged with that of the previous frame, warped along the motion. Motion
is estimated from lightness (optical flow by iterated Lucas and Kanade over a pyramid, Le Besnerais and Champagnat
2005). The past counts only where its warped lightness agrees with the frame's, and is dropped at a cut.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.ndimage import map_coordinates, uniform_filter
from skimage.registration import optical_flow_ilk

from knowhue.color import FloatArray
from knowhue.errors import needing, plural
from knowhue.images.image import Image
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.judgement import Judgement, is_novel, judge_image, warnings_of_many
from knowhue.inference.networks import Predictions
from knowhue.inference.pipeline import Limits, Stages, run
from knowhue.inference.pixels import PaintStats, paint, paint_compiled
from knowhue.inference.recipes import RecipeDescription
from knowhue.inference.video_formats import codec_of
from knowhue.locks import locked
from knowhue.pace import Pace
from knowhue.runs import Report
from knowhue.storage import hidden_sibling, put_in_place, require_outputs

if TYPE_CHECKING:
    from knowhue.inference.video_reading import Frame, Video

STRENGTH = 0.8
"""Share of the past where it agrees, 0 to below 1; 0.8 averages over about five frames (`benchmarks/flicker.py`)."""
_TOLERANCE = 4.0
"""Difference of L*, beyond that of noise, at which the past's share has fallen to 0.6 of `STRENGTH`."""
_MIN_AGREEMENT = 0.8
"""Mean agreement, 0 to 1, below which a frame begins another scene; cuts between photos reach 0.8, fast pans 0.9."""
_MAX_BRIGHTNESS_CHANGE = 20.0
"""Change of the image's median L* above which a frame begins another scene."""
_MOST_GRAIN = 3.0  # L*; a larger change is not grain
_RADIUS_PX, _ITERATIONS = 10, 2
"""Optical flow: a smaller window mistakes grain for motion, more rounds gain nothing (`benchmarks/flicker.py`)."""


class Past(NamedTuple):
    """The previous frame."""

    lightness: FloatArray
    """L* (h, w)"""
    chroma: FloatArray
    """steadied a*b* (h, w, 2)"""


class Steadier:
    """Steadies the chroma of one video, frame by frame in order; `strength` is the share of the past."""

    def __init__(self, strength: float = STRENGTH) -> None:
        self.past: Past | None = None
        """the previous frame; None before the first. Never changed in place."""
        self.cuts = 0
        """number of scenes after the first"""
        self._strength = strength

    def step(self, lightness: FloatArray, chroma: FloatArray) -> FloatArray:
        """The steadied a*b* (h, w, 2) of the next frame, from its L* (h, w) and its own a*b*."""
        answer = chroma
        if self.past is not None and self._strength > 0:
            flow = motion(self.past.lightness, lightness)
            warped = warp(self.past.lightness, flow)
            trusted = agreement(warped, lightness)
            if is_cut(warped, lightness, trusted):
                self.cuts += 1
            else:
                share = np.float32(self._strength) * trusted[..., None]
                answer = (chroma + share * (warp(self.past.chroma, flow) - chroma)).astype(np.float32)
        self.past = Past(lightness, answer)  # the steadied chroma, so that the average reaches back further
        return answer


def agreement(warped: FloatArray, lightness: FloatArray) -> FloatArray:
    """How far the past can be trusted (h, w), 0 to 1, from its warped L* (h, w) and the frame's.

    A change of the whole image's brightness does not count, nor does noise up to twice the image's median difference.
    """
    difference = lightness - warped
    difference = uniform_filter(difference - np.median(difference), 3, mode="nearest")
    noise = min(2 * np.median(np.abs(difference)), _MOST_GRAIN)
    beyond = np.maximum(np.abs(difference) - noise, 0) / _TOLERANCE
    return np.exp(-0.5 * beyond * beyond).astype(np.float32)


def is_cut(warped: FloatArray, lightness: FloatArray, trusted: FloatArray) -> bool:
    """Whether a frame shows another scene than the previous one, whose L* was warped to it."""
    return bool(
        trusted.mean() < _MIN_AGREEMENT or abs(np.median(lightness - warped)) > _MAX_BRIGHTNESS_CHANGE
    )


def motion(past: FloatArray, lightness: FloatArray) -> FloatArray:
    """Optical flow (h, w, 2): rows and columns to add to a pixel's place to find it in the previous frame, `past`."""
    past = (past + np.median(lightness - past)).astype(np.float32)  # a flickering lamp is not motion
    flow = optical_flow_ilk(lightness, past, radius=_RADIUS_PX, num_warp=_ITERATIONS)
    return flow.transpose(1, 2, 0)


def warp(values: FloatArray, flow: FloatArray) -> FloatArray:
    """Values (h, w) or (h, w, C) of the previous frame, warped by `flow` with nearest borders."""
    places = np.indices(flow.shape[:2], np.float32) + flow.transpose(2, 0, 1)
    planes = values.reshape(*flow.shape[:2], -1).transpose(2, 0, 1)
    warped = [map_coordinates(plane, places, order=1, mode="nearest") for plane in planes]
    return np.stack(warped, -1).reshape(values.shape).astype(np.float32, copy=False)


_BATCH = 8
_HELD_BYTES = 256 << 20  # maximum bytes of the frames that are predicted together


class VideoSummary(NamedTuple):
    """The result of colouring a video."""

    source: Path
    out: Path
    width: int
    """width of a stored frame, before rotation, in pixels"""
    height: int
    frames: int
    frames_per_second: float
    scenes: int
    """number of scenes, separated by cuts"""
    novel: int
    """frames unlike the training images"""
    judgement: Judgement
    """means over all frames"""
    notes: tuple[str, ...]
    """what could not be read or written as it was, in words"""
    seconds: float
    model: str

    failed = 0  # a video that cannot be coloured raises an error

    def as_record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        record = self._asdict() | {"path": str(self.source), "output": str(self.out)}
        for key in ("source", "out", "judgement", "notes"):
            del record[key]
        judgement = self.judgement.as_record()
        judgement["warnings"] += list(self.notes)
        digits = {"seconds": round(self.seconds, 3), "frames_per_second": round(self.frames_per_second, 3)}
        return {**record, **judgement, **digits}

    def lines(self) -> list[str]:
        """The lines that the command prints."""
        per_second = self.frames / self.seconds if self.seconds else 0.0
        lines = [
            f"{plural(self.frames, 'frame')} of {self.width} x {self.height} -> {self.out}",
            f"  coloured in {self.seconds:.0f} s ({per_second:.1f} a second)",
        ]
        lines += [f"  note: {warning}" for warning in (*self.judgement.warnings, *self.notes)]
        if (headline := self.judgement.headline()) is not None:
            lines.append(f"  class: {headline}, mean over {plural(self.scenes, 'scene')}")
        return [*lines, f"  model: {self.model}"]


def colorize_video(
    colorizer: Colorizer,
    source: Path,
    out: Path,
    *,
    options: ColorizeOptions = ColorizeOptions(),
    overwrite: bool = False,
    strength: float = STRENGTH,
    report: Report = lambda _: None,
) -> VideoSummary:
    """Colour a video. An incomplete output is a hidden file beside `out`; after a kill the same call starts again.

    Size, frame times, sound, subtitles, chapters, metadata and orientation are kept. Frames are written as H.264, or as
    VP9 for .webm. The model sees frames at one size, because averaging over frames replaces averaging over three sizes.

    Args:
        colorizer: a model with a colour head.
        source: a video that FFmpeg's libraries read.
        out: .mp4, .m4v, .mov, .mkv or .webm.
        options: `saturation` and `unknown_below`; others are refused.
        overwrite: whether `out` can be replaced.
        strength: strength of steadying, 0 (each frame alone) to below 1.
        report: called with `done`, `total` (0 if unknown), `per_second`, `seconds_left` after every frame.

    Raises:
        ExtraError: PyAV is not installed.
        ImageError: the video is missing, damaged, or has no moving images.
        ConfigError: `out` cannot be written, is of an unknown kind or cannot hold all streams; or an option is refused.
        RunError: the disk is full, or another process writes `out`.
    """
    started = time.monotonic()
    colorizer.require_options(options)
    reading, writing = _by_pyav()
    options.require_shared("a video", "Colour a single image.")
    codec_of(out)  # raises an error for an unknown kind
    require_outputs({"--out": out}, [source], overwrite=overwrite)
    # hidden and without a video's suffix, so that nobody takes it for the complete video
    partial, lock = (hidden_sibling(out, ending) for ending in (".colorizing", ".lock"))
    with locked(out.parent, "colorize", name=lock.name), closing(reading.Video(source)) as video:
        job = _VideoJob(colorizer.at_one_size(), video, options, Steadier(strength), report)
        try:
            with closing(job.frames()) as frames:
                notes = writing.write_video(video, partial, out.suffix.lower(), frames)
            require_outputs({"--out": out}, [source], overwrite=overwrite)  # hours may have passed
            put_in_place(partial, out)
        finally:
            partial.unlink(missing_ok=True)
        return job.summary(out, notes, time.monotonic() - started)


def require_video(source: Path) -> None:
    """Check that a file is a video, before a model is opened; errors as of `colorize_video`."""
    _by_pyav()[0].Video(source).close()


@dataclass
class _VideoJob:
    """The state of one call: the stages that a batch of frames passes, and sums over finished frames."""

    colorizer: Colorizer
    video: "Video"
    options: ColorizeOptions
    steadier: Steadier
    report: Report
    done: int = 0
    damaged: int = 0
    novel: int = 0
    sums: Any = 0.0  # of novelty, statistics of painting and probabilities

    def frames(self) -> Generator["Frame"]:
        """All frames, coloured, in the order of presentation."""
        pace = Pace()
        paint_compiled()
        # weight 0, because only a few batches are in the pipeline and `_batches` bounds each
        stages = Stages(lambda batch: 0, self._decode, self._predict, self._paint)
        # one thread per stage keeps the order, on which steadying depends; PyAV has its own threads
        with closing(run(stages, self._batches(), Limits(threads=1, batch=1))) as batches:
            for _, future in batches:
                for frame, stats, answer in future.result():
                    yield frame
                    self._add(frame, stats, answer, pace)

    def summary(self, out: Path, notes: list[str], seconds: float) -> VideoSummary:
        """Means over all frames; `notes` says what could not be kept."""
        count, description, video = self.done, self.colorizer.network.description, self.video
        novelty, *means = (self.sums / count).tolist()
        stats, probabilities = PaintStats(*means[:3]), np.array(means[3:], np.float32)
        judgement = judge_image(
            description,
            probabilities if "class" in description.tasks else None,
            None if isinstance(description, RecipeDescription) else novelty,
            stats,
            video.notes,
            self.options.unknown_below,
            self.options.saturation,
        )
        if self.novel:
            notes = [*warnings_of_many(description, self.novel, count, "frame"), *notes]
        notes = [*notes, *video.shortage()]
        if self.damaged:
            notes.append(
                f"{plural(self.damaged, 'damaged part')} of the video: frames may be missing or damaged"
            )
        return VideoSummary(
            video.path, out, video.width, video.height, count, float(video.rate), self.steadier.cuts + 1, self.novel,
            judgement, tuple(notes), seconds, description.name,
        )  # fmt: skip

    def _batches(self) -> Iterator[list["Frame"]]:
        frame_bytes = self.video.height * self.video.width * (6 if self.video.deep else 3)
        size = min(_BATCH, max(1, _HELD_BYTES // frame_bytes))
        with closing(self.video.frames()) as frames:
            while batch := list(islice(frames, size)):
                yield batch

    def _decode(self, batch: list["Frame"]) -> list[FloatArray]:
        return [self.colorizer.network_input(Image(frame.pixels)) for frame in batch]

    def _predict(self, batches: Sequence[list[FloatArray]]) -> list[list[Predictions]]:
        """For each frame the prediction of the upright frame."""
        (inputs,) = batches  # `Limits.batch` is 1
        return [self.colorizer.predict([self.video.orientation.upright(lightness) for lightness in inputs])]

    def _paint(
        self, batch: list["Frame"], inputs: list[FloatArray], answers: list[Predictions]
    ) -> list[tuple["Frame", PaintStats, Predictions]]:
        """Steady the frames here, while the next ones are predicted, which takes as long, and paint them."""
        painted, orientation = [], self.video.orientation
        for frame, lightness, answer in zip(batch, inputs, answers, strict=True):
            steadied = self.steadier.step(orientation.upright(lightness), answer.colours[0])
            chroma = orientation.stored(steadied)
            pixels, stats = paint(frame.pixels, chroma, lightness, saturation=self.options.saturation)
            painted.append((frame._replace(pixels=pixels), stats, answer))
        return painted

    def _add(self, frame: "Frame", stats: PaintStats, answer: Predictions, pace: Pace) -> None:
        """Add an encoded frame to the sums, and report progress."""
        self.done += 1
        self.damaged += frame.damaged
        novelty = 0.0 if answer.novelty is None else float(answer.novelty[0])
        self.novel += is_novel(novelty)
        probabilities = () if answer.probabilities is None else answer.probabilities[0].tolist()
        self.sums += np.array([novelty, *stats, *probabilities])
        total = max(self.video.total, self.done) if self.video.total else 0
        self.report({"stage": "video"} | pace.after(self.done, total))


def _by_pyav() -> tuple[Any, Any]:
    """The two modules that need PyAV."""
    with needing("A video", "video"):
        from knowhue.inference import video_reading, video_writing
    return video_reading, video_writing
