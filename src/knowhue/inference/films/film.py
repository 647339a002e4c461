"""A film coloured: steady from frame to frame, sound and all else kept, and gone on with after a kill."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from knowhue.config import fingerprint
from knowhue.errors import ConfigError, ExtraError, KnowhueError, install_command
from knowhue.images.image import Image
from knowhue.inference.colorizer import ColorizeOptions, Colorizer, is_novel
from knowhue.inference.films.ahead import ahead
from knowhue.inference.films.formats import Codec, codec_of
from knowhue.inference.films.reels import Progress, Reels
from knowhue.inference.films.steady import STRENGTH, Past, Steadier
from knowhue.inference.films.summary import Summary, summarise
from knowhue.inference.networks import Answers, FloatArray
from knowhue.inference.pixels import PaintStats, paint
from knowhue.runs import Report, locked
from knowhue.storage import require_outputs

if TYPE_CHECKING:
    from knowhue.inference.films.footage import Footage, Frame

REEL_FRAMES = 240
BATCH = 8
_HELD_BYTES = 256 << 20  # of the frames that are predicted together
_FORMAT = 2  # raised when reels come to mean something else


def colorize_film(
    colorizer: Colorizer,
    source: Path,
    out: Path,
    *,
    options: ColorizeOptions = ColorizeOptions(),  # noqa: B008
    overwrite: bool = False,
    strength: float = STRENGTH,
    reel_frames: int = REEL_FRAMES,
    report: Report = lambda _: None,
) -> Summary:
    """Colour a film; the same call goes on after a kill, from the last reel that was kept.

    Size, frame times, sound, subtitles, chapters, metadata and the way up are kept. H.264 (VP9 for .webm) is written.

    Args:
        colorizer: a model with a colour head.
        source: any film that FFmpeg's libraries read.
        out: .mp4, .m4v, .mov, .mkv or .webm.
        options: saturation and `unknown_below`; no hints, no uncertainty.
        overwrite: whether `out` may be replaced.
        strength: of steadying, 0 (each frame alone) to below 1.
        reel_frames: encoded and kept together, in a hidden folder beside `out` until the film is done.
        report: told `done`, `total` (0 if unknown), `per_second`, `seconds_left` now and then.

    Raises:
        ExtraError: PyAV is not installed.
        ImageError: the film is missing, damaged, or has no moving images.
        ConfigError: `out` cannot be written to, is of an unknown kind or takes not all streams; or other options.
        RunError: the disk is full.
    """
    started = time.monotonic()
    colorizer.require("colour")
    footage, writing = _by_pyav()
    codec = _check(source, out, options, overwrite)
    with locked(out.parent, "colorize", name=f".{out.name}.lock"), footage.open_footage(source) as film:
        job = _job(colorizer, source, options, codec, strength, reel_frames)
        reels = Reels(out.with_name(f".{out.name}.colorizing"), job)
        if reels.began_anew:
            report({"stage": "note", "text": "began anew: the film, the model or the options have changed"})
        made = reels.folder / f"film{out.suffix.lower()}"
        _rehearse(lambda: writing.assemble(film, codec, made, (), np.zeros(0, np.int64)), reels)
        already = reels.progress.frames
        if not reels.progress.complete:
            work = _Work(colorizer, film, codec, options, strength, reel_frames)
            work.go_on(reels, _Teller(report, already, film.total))
        notes = writing.assemble(film, codec, made, reels.packets(), reels.times())
        require_outputs({"--out": out}, [source], overwrite=overwrite)  # hours may have passed
        os.replace(made, out)
        reels.remove()
        seconds = time.monotonic() - started
        return summarise(colorizer, film, out, reels.progress, already, options, notes, seconds)


def require_film(source: Path) -> None:
    """Make sure, before a model is opened, that a file is a film.

    Raises:
        ExtraError: PyAV is not installed.
        ImageError: it is missing, damaged, or has no moving images.
    """
    with _by_pyav()[0].open_footage(source):
        pass


class _Coloured(NamedTuple):
    """A frame with its steadied chroma (as stored, not upright), and what is known after it."""

    frame: "Frame"
    lightness: FloatArray
    chroma: FloatArray
    past: Past | None
    cuts: int
    answer: Answers


class _Work:
    """Decoding, predicting and encoding, side by side."""

    def __init__(
        self,
        colorizer: Colorizer,
        film: "Footage",
        codec: Codec,
        options: ColorizeOptions,
        strength: float,
        reel_frames: int,
    ) -> None:
        self._colorizer = colorizer
        self._film = film
        self._codec = codec
        self._saturation = options.saturation
        self._strength = strength
        self._reel_frames = reel_frames
        frame_bytes = film.height * film.width * (6 if film.deep else 3)
        self._batch = min(BATCH, max(1, _HELD_BYTES // frame_bytes))

    def go_on(self, reels: Reels, teller: "_Teller") -> None:
        """Make the reels that are missing."""
        progress = reels.progress
        frames = self._film.frames(progress.frames, progress.pts, progress.checksum)
        steadier = Steadier(self._strength, progress.past, progress.cuts)
        seen = ahead(self._look(frames), self._batch)
        coloured = ahead(self._predict(seen, steadier), self._batch)
        try:
            while not reels.progress.complete:
                self._make_reel(coloured, reels, teller)
        finally:
            coloured.close()

    def _look(self, frames: Iterable["Frame"]) -> Iterator[tuple["Frame", FloatArray]]:
        for frame in frames:
            yield frame, self._colorizer.network_input(Image(frame.pixels))

    def _predict(self, seen: Iterator[tuple["Frame", FloatArray]], steadier: Steadier) -> Iterator[_Coloured]:
        """In batches that begin with a reel, so that a resumed film has the same ones; upright, as it was trained."""
        turn, place = self._film.turn, 0
        while batch := list(islice(seen, min(self._batch, self._reel_frames - place))):
            place = (place + len(batch)) % self._reel_frames
            upright = [turn.upright(lightness) for _, lightness in batch]
            answers = self._colorizer.predict(upright)
            for (frame, lightness), shown, answer in zip(batch, upright, answers, strict=True):
                assert answer.chroma is not None  # `require` was called
                chroma = turn.stored(steadier.step(shown, answer.chroma[0]))
                yield _Coloured(frame, lightness, chroma, steadier.past, steadier.cuts, answer)

    def _make_reel(self, coloured: Iterator[_Coloured], reels: Reels, teller: "_Teller") -> None:
        from knowhue.inference.films.writing import Encoder

        progress, encoder, last = reels.progress, Encoder(self._film, self._codec), None
        for last in islice(coloured, self._reel_frames):
            pixels, painted = paint(
                last.frame.pixels, last.chroma, last.lightness, saturation=self._saturation
            )
            encoder.add(pixels, last.frame.pts, last.frame.duration)
            progress = _after(progress, last, painted)
            teller.tell(progress.frames)
        made = progress.frames - reels.progress.frames
        if last is not None:
            progress = progress._replace(checksum=last.frame.checksum())
        packets = encoder.finish() if made else []
        reels.add(packets, progress._replace(complete=made < self._reel_frames))


def _after(progress: Progress, coloured: _Coloured, painted: PaintStats) -> Progress:
    frame, answer = coloured.frame, coloured.answer
    seen = np.zeros(0) if answer.probabilities is None else answer.probabilities[0].astype(np.float64)
    return Progress(
        frames=progress.frames + 1,
        pts=frame.pts,
        damaged=progress.damaged + frame.damaged,
        past=coloured.past,
        cuts=coloured.cuts,
        probabilities=seen if progress.frames == 0 else progress.probabilities + seen,
        novelty=progress.novelty + float(answer.novelty[0]),
        novel=progress.novel + is_novel(float(answer.novelty[0])),
        painted=progress.painted + np.array(painted),
    )


class _Teller:
    """Says how far it is."""

    def __init__(self, report: Report, already: int, total: int) -> None:
        self._report = report
        self._already = already
        self._total = total
        self._started = time.monotonic()

    def tell(self, done: int) -> None:
        """After a frame."""
        rate = (done - self._already) / max(time.monotonic() - self._started, 1e-9)
        left = max(self._total - done, 0) / rate if self._total else None
        event = {"stage": "film", "done": done, "total": max(self._total, done) if self._total else 0}
        self._report(event | {"per_second": rate, "seconds_left": left})


def _by_pyav() -> tuple[Any, Any]:
    """What needs PyAV."""
    try:
        from knowhue.inference.films import footage, writing
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise ExtraError(f"Films need PyAV. Found it not installed: {install_command('film')}") from None
    return footage, writing


def _check(source: Path, out: Path, options: ColorizeOptions, overwrite: bool) -> Codec:
    if options.hints or options.uncertainty:
        raise ConfigError(
            "`options` should hold neither hints nor `uncertainty` for a film. Found some. Colour a single image."
        )
    codec = codec_of(out)
    require_outputs({"--out": out}, [source], overwrite=overwrite)
    return codec


def _rehearse(assemble: Callable[[], Any], reels: Reels) -> None:
    """Find out before the work whether its result can be put together, and leave no trace if not."""
    try:
        assemble()
    except KnowhueError:
        if not reels.count:
            reels.remove()
        raise


def _job(
    colorizer: Colorizer,
    source: Path,
    options: ColorizeOptions,
    codec: Codec,
    strength: float,
    reel_frames: int,
) -> dict[str, Any]:
    """What reels depend on."""
    described = colorizer.network.description.model_dump(mode="json", exclude={"name", "licence"})
    status = source.stat() if source.exists() else None
    return {
        "format": _FORMAT,
        "source": str(source.resolve()),
        "stamp": status and [status.st_size, status.st_mtime_ns],
        "model": fingerprint(described),
        "runtime": colorizer.network.runtime,
        "saturation": options.saturation,
        "codec": [codec.name, codec.options],
        "strength": strength,
        "reel_frames": reel_frames,
    }
