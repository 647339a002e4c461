"""What is said of a coloured film."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from knowhue.inference.colorizer import ColorizeOptions, Colorizer, Judgement, caveats_of_many, judge
from knowhue.inference.films.reels import Progress
from knowhue.inference.pixels import PaintStats

if TYPE_CHECKING:
    from knowhue.inference.films.footage import Footage


class Summary(NamedTuple):
    """What came of a film.

    Attributes:
        source: its file.
        out: the coloured film.
        width: of a frame, pixels.
        height: likewise.
        frames: how many.
        already: that earlier runs had done.
        frames_per_second: on average.
        scenes: told apart by their cuts.
        novel: frames unlike the training images.
        judgement: of the whole: means over all frames.
        notes: what a user should know of how it was read and written.
        seconds: that this run took.
        model: name.
    """

    source: Path
    out: Path
    width: int
    height: int
    frames: int
    already: int
    frames_per_second: float
    scenes: int
    novel: int
    judgement: Judgement
    notes: tuple[str, ...]
    seconds: float
    model: str

    @property
    def failed(self) -> int:
        """None; a film that cannot be coloured raises an error."""
        return 0

    def as_record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        record = self._asdict() | {"path": str(self.source), "output": str(self.out)}
        for key in ("source", "out", "judgement", "notes"):
            del record[key]
        said = self.judgement.as_record()
        said["warnings"] += list(self.notes)
        digits = {"seconds": round(self.seconds, 3), "frames_per_second": round(self.frames_per_second, 3)}
        return {**record, **said, **digits}

    def lines(self) -> list[str]:
        """For people."""
        done = self.frames - self.already
        rate = done / self.seconds if self.seconds else 0.0
        lines = [
            f"{self.frames} frames of {self.width} x {self.height} -> {self.out}",
            f"  {done} coloured in {self.seconds:.0f} s ({rate:.1f} a second)",
        ]
        lines += [f"  {self.already} were done by earlier runs"] * (self.already > 0)
        lines += [f"  note: {warning}" for warning in (*self.judgement.warnings, *self.notes)]
        if (headline := self.judgement.headline()) is not None:
            scenes = "1 scene" if self.scenes == 1 else f"{self.scenes} scenes"
            lines.append(f"  class: {headline}, mean over {scenes}")
        return [*lines, f"  model: {self.model}"]


def summarise(
    colorizer: Colorizer,
    film: "Footage",
    out: Path,
    progress: Progress,
    already: int,
    options: ColorizeOptions,
    notes: list[str],
    seconds: float,
) -> Summary:
    """Means over all frames, and what went into them.

    Args:
        colorizer: that coloured it.
        film: the original.
        out: what was made of it.
        progress: after its last frame.
        already: frames that earlier runs had done.
        options: of the user.
        notes: what could not be kept.
        seconds: that this run took.
    """
    count = progress.frames
    probabilities = progress.probabilities / count if len(progress.probabilities) else None
    painted = PaintStats(*(float(each) for each in progress.painted / count))
    description = colorizer.network.description
    judgement = judge(
        description,
        None if probabilities is None else probabilities.astype(np.float32),
        progress.novelty / count,
        painted,
        film.notes,
        options.unknown_below,
        options.saturation,
    )
    if progress.novel:
        notes = [*caveats_of_many(description, progress.novel, count, "frames"), *notes]
    if progress.damaged:
        notes = [
            *notes,
            f"{progress.damaged} damaged pieces of the film could not be decoded and were left out",
        ]
    return Summary(
        film.path,
        out,
        film.width,
        film.height,
        count,
        already,
        float(film.rate),
        progress.cuts + 1,
        progress.novel,
        judgement,
        tuple(notes),
        seconds,
        description.name,
    )
