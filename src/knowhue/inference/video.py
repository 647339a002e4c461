"""A video coloured: steady from frame to frame, with its sound and all else kept."""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from knowhue.errors import ConfigError, few, missing_package
from knowhue.images.image import Image, Pixels
from knowhue.inference.colorizer import EVERYWHERE, ColorizeOptions, Colorizer
from knowhue.inference.judgement import Judgement, caveats_of_many, is_novel, judge_image
from knowhue.inference.networks import FloatArray, Predictions
from knowhue.inference.pipeline import Limits, Stages, progress, run
from knowhue.inference.pixels import PaintStats, paint, paint_compiled
from knowhue.inference.recipes import RecipeDescription
from knowhue.inference.steady import STRENGTH, Steadier
from knowhue.inference.video_formats import codec_of
from knowhue.locks import locked
from knowhue.runs import Report
from knowhue.storage import put_in_place, require_outputs

if TYPE_CHECKING:
    from knowhue.inference.video_reading import Frame, Video
    from knowhue.inference.video_writing import ColouredFrame

_BATCH = 8
_HELD_BYTES = 256 << 20  # of the frames that are predicted together


class VideoSummary(NamedTuple):
    """What came of a video.

    Attributes:
        width, height: of a frame as stored, pixels.
        frames_per_second: on average.
        scenes: told apart by their cuts.
        novel: frames unlike the training images.
        judgement: of the whole: means over all frames.
        notes: what a user should know of how it was read and written.
    """

    source: Path
    out: Path
    width: int
    height: int
    frames: int
    frames_per_second: float
    scenes: int
    novel: int
    judgement: Judgement
    notes: tuple[str, ...]
    seconds: float
    model: str

    @property
    def failed(self) -> int:
        """None; a video that cannot be coloured raises an error."""
        return 0

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
        """What the command prints."""
        per_second = self.frames / self.seconds if self.seconds else 0.0
        lines = [
            f"{self.frames} frames of {self.width} x {self.height} -> {self.out}",
            f"  coloured in {self.seconds:.0f} s ({per_second:.1f} a second)",
        ]
        lines += [f"  note: {warning}" for warning in (*self.judgement.warnings, *self.notes)]
        if (headline := self.judgement.headline()) is not None:
            scenes = "1 scene" if self.scenes == 1 else f"{self.scenes} scenes"
            lines.append(f"  class: {headline}, mean over {scenes}")
        return [*lines, f"  model: {self.model}"]


def colorize_video(
    colorizer: Colorizer,
    source: Path,
    out: Path,
    *,
    options: ColorizeOptions = ColorizeOptions(),  # noqa: B008
    overwrite: bool = False,
    strength: float = STRENGTH,
    report: Report = lambda _: None,
) -> VideoSummary:
    """Colour a video. Until it is whole it is a hidden file beside `out`; the same call after a kill begins anew.

    Size, frame times, sound, subtitles, chapters, metadata and orientation are kept. H.264 (VP9 for .webm) is written.

    Args:
        colorizer: a model with a colour head.
        source: any video that FFmpeg's libraries read.
        out: .mp4, .m4v, .mov, .mkv or .webm.
        options: saturation and `unknown_below`; all else as it is.
        overwrite: whether `out` may be replaced.
        strength: of steadying, 0 (each frame alone) to below 1.
        report: called with `done`, `total` (0 if unknown), `per_second`, `seconds_left` after every frame.

    Raises:
        ExtraError: PyAV is not installed.
        ImageError: the video is missing, damaged, or has no moving images.
        ConfigError: `out` cannot be written to, is of an unknown kind or takes not all streams; or other options.
        RunError: the disk is full.
    """
    started = time.monotonic()
    colorizer.require_options(options)
    reading, writing = _by_pyav()
    if others := options.changed(but=EVERYWHERE):
        raise ConfigError(
            f"`options` should hold `saturation` and `unknown_below` alone for a video. Found {few(others)}. Colour a "
            "single image."
        )
    codec_of(out)  # raises for what cannot be written
    require_outputs({"--out": out}, [source], overwrite=overwrite)
    # Hidden and without a video's suffix, so that no player or folder takes it for the whole.
    partial = out.with_name(f".{out.name}.colorizing")
    with locked(out.parent, "colorize", name=f".{out.name}.lock"), reading.open_video(source) as video:
        work = _Work(colorizer, video, options, strength, report)
        try:
            with closing(work.frames()) as frames:
                notes = writing.write_video(video, partial, out.suffix.lower(), frames)
            require_outputs({"--out": out}, [source], overwrite=overwrite)  # hours may have passed
            put_in_place(partial, out)
        finally:
            partial.unlink(missing_ok=True)
        return work.summary(out, notes, time.monotonic() - started)


def require_video(source: Path) -> None:
    """Make sure, before a model is opened, that a file is a video; errors as of `colorize_video`."""
    with _by_pyav()[0].open_video(source):
        pass


class _Painted(NamedTuple):
    """A frame that can be encoded, and what is known of it."""

    frame: "Frame"
    pixels: Pixels
    stats: PaintStats
    answer: Predictions


class _Work:
    """Frames of one video on their way through the pipeline, in batches, and sums over those that are done."""

    def __init__(
        self, colorizer: Colorizer, video: "Video", options: ColorizeOptions, strength: float, report: Report
    ) -> None:
        self._colorizer = colorizer
        self._video = video
        self._options = options
        self._report = report
        self._steadier = Steadier(strength)
        self._done = self._damaged = self._novel = 0
        self._novelty = 0.0
        self._probabilities = np.zeros(len(colorizer.network.description.classes))
        self._stats = np.zeros(len(PaintStats._fields))

    def frames(self) -> Generator["ColouredFrame"]:
        """All frames, coloured, in the order of presentation."""
        from knowhue.inference.video_writing import ColouredFrame

        started = time.monotonic()
        paint_compiled()
        # weighed as nothing: few batches are on their way, and `_batches` bounds each
        stages = Stages(lambda batch: 0, self._decode, self._predict, self._paint)
        # One thread a stage keeps the order, on which steadying depends; PyAV has threads of its own.
        with closing(run(stages, self._batches(), Limits(threads=1, batch=1))) as batches:
            for _, future in batches:
                for painted in future.result():
                    yield ColouredFrame(painted.pixels, painted.frame.pts, painted.frame.duration)
                    self._add(painted, started)

    def summary(self, out: Path, notes: list[str], seconds: float) -> VideoSummary:
        """Means over all frames; `notes` say what could not be kept."""
        count, description, video = self._done, self._colorizer.network.description, self._video
        judgement = judge_image(
            description,
            (self._probabilities / count).astype(np.float32) if "class" in description.tasks else None,
            None if isinstance(description, RecipeDescription) else self._novelty / count,
            PaintStats(*(float(each) for each in self._stats / count)),
            video.notes,
            self._options.unknown_below,
            self._options.saturation,
        )
        if self._novel:
            notes = [*caveats_of_many(description, self._novel, count, "frames"), *notes]
        if self._damaged:
            damage = f"{self._damaged} damaged pieces of the video could not be decoded and were left out"
            notes = [*notes, damage]
        return VideoSummary(
            video.path,
            out,
            video.width,
            video.height,
            count,
            float(video.rate),
            self._steadier.cuts + 1,
            self._novel,
            judgement,
            tuple(notes),
            seconds,
            description.name,
        )

    def _batches(self) -> Iterator[list["Frame"]]:
        frame_bytes = self._video.height * self._video.width * (6 if self._video.deep else 3)
        size = min(_BATCH, max(1, _HELD_BYTES // frame_bytes))
        with closing(self._video.frames()) as frames:
            while batch := list(islice(frames, size)):
                yield batch

    def _decode(self, batch: list["Frame"]) -> list[FloatArray]:
        return [self._colorizer.network_input(Image(frame.pixels)) for frame in batch]

    def _predict(self, batches: Sequence[list[FloatArray]]) -> list[list[tuple[FloatArray, Predictions]]]:
        """Steadied chroma as stored, and what was predicted of the frame upright, as the model was trained."""
        return [list(self._steadied(inputs)) for inputs in batches]

    def _steadied(self, inputs: list[FloatArray]) -> Iterator[tuple[FloatArray, Predictions]]:
        orientation = self._video.orientation
        upright = [orientation.upright(lightness) for lightness in inputs]
        for lightness, answer in zip(upright, self._colorizer.predict(upright), strict=True):
            assert answer.chroma is not None  # `require` was called
            yield orientation.stored(self._steadier.step(lightness, answer.chroma[0])), answer

    def _paint(
        self, batch: list["Frame"], inputs: list[FloatArray], predicted: list[tuple[FloatArray, Predictions]]
    ) -> list[_Painted]:
        painted = []
        for frame, lightness, (chroma, answer) in zip(batch, inputs, predicted, strict=True):
            pixels, stats = paint(frame.pixels, chroma, lightness, saturation=self._options.saturation)
            painted.append(_Painted(frame, pixels, stats, answer))
        return painted

    def _add(self, painted: _Painted, started: float) -> None:
        """Count a frame that was encoded, and report."""
        frame, _, stats, answer = painted
        self._done += 1
        self._damaged += frame.damaged
        if answer.novelty is not None:
            self._novelty += float(answer.novelty[0])
            self._novel += is_novel(float(answer.novelty[0]))
        self._stats += np.array(stats)
        if answer.probabilities is not None:
            self._probabilities += answer.probabilities[0].astype(np.float64)
        total = max(self._video.total, self._done) if self._video.total else 0
        self._report({"stage": "video"} | progress(started, self._done, total))


def _by_pyav() -> tuple[Any, Any]:
    """The two modules that need PyAV."""
    try:
        from knowhue.inference import video_reading, video_writing
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise missing_package("A video", "av", "video") from None
    return video_reading, video_writing
