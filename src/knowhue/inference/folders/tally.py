"""What has come of a folder's images: so far, and in the end."""

import time
from pathlib import Path
from typing import Any, NamedTuple

from knowhue.errors import ImageError, KnowhueError
from knowhue.inference.folders.ledger import Ledger
from knowhue.inference.folders.pipeline import Outcome
from knowhue.inference.judgement import is_novel
from knowhue.runs import Report


class Summary(NamedTuple):
    """What came of a folder.

    Attributes:
        source: folder of the images.
        out: folder of the colourings, with `colorized.jsonl`.
        made: images coloured by this run.
        already: that earlier runs had done.
        failures: paths, and why.
        left: not begun, because the run was to stop at the first failure.
        novel: of those that are there now, unlike the training images.
        notes: what a user should know before trusting them, in words.
        seconds: that it took.
        model: name.
    """

    source: Path
    out: Path
    made: int
    already: int
    failures: tuple[tuple[str, str], ...]
    left: int
    novel: int
    notes: tuple[str, ...]
    seconds: float
    model: str

    @property
    def failed(self) -> int:
        """How many images could not be coloured."""
        return len(self.failures)

    def as_record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        record = self._asdict() | {"source": str(self.source), "out": str(self.out), "failed": self.failed}
        record["notes"] = list(self.notes)
        record["failures"] = [{"path": path, "error": error} for path, error in self.failures]
        return record | {"seconds": round(self.seconds, 3)}

    def lines(self) -> list[str]:
        """For people."""
        rate = self.made / self.seconds if self.seconds else 0.0
        what = "1 image" if self.made == 1 else f"{self.made} images"
        time = f"{self.seconds:.1f} s" if self.seconds < 10 else f"{self.seconds:.0f} s"
        lines = [f"{what} coloured in {time} ({rate:.1f} a second) -> {self.out}"]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  there already: {self.already}"] * (self.already > 0)
        lines += [f"  {self.failed} failed; the same command tries them again:"] * (self.failed > 0)
        lines += [f"    {path}: {error}" for path, error in self.failures]
        lines += [f"  stopped: {self.left} not begun; the same command goes on"] * (self.left > 0)
        return [*lines, f"  model: {self.model}"]


class Progress:
    """What has come of the images so far: noted in the ledger, told to who asked."""

    def __init__(self, ledger: Ledger, total: int, already: int, stops: bool, report: Report) -> None:
        self.made = 0
        self.already = already
        self.novel = 0
        self.failures: list[tuple[str, str]] = []
        self.goes_on = True
        self._ledger = ledger
        self._total = total
        self._stops = stops
        self._report = report
        self._started = time.monotonic()

    def note(self, outcome: Outcome) -> None:
        """Put an image in its place, or its failure on the list."""
        item, made, error = outcome
        if error is None and self._ledger.in_the_way(item.path, item.output):
            error = ImageError(f"`{item.output}` was put in its place by somebody else meanwhile.")
        if error is None:
            self._ledger.commit(made.record, made.stamp, made.written)
            self.made += 1
            self.novel += is_novel(made.record["novelty"])
        else:
            reason = _reason(error)
            self._ledger.fail(item.path, reason)
            self.failures.append((item.path, reason))
            self.goes_on = not self._stops
        self.tell()

    def tell(self) -> None:
        """Say how far it is."""
        here = self.made + len(self.failures)
        rate = here / max(time.monotonic() - self._started, 1e-9)
        done = self.already + here
        event = {"stage": "folder", "done": done, "total": self._total, "failed": len(self.failures)}
        left = (self._total - done) / rate if rate else None
        self._report(event | {"per_second": rate, "seconds_left": left})


def _reason(error: Exception) -> str:
    """In one line; an error that is not a user's to mend with its name."""
    text = " ".join(str(error).split())
    return text if isinstance(error, KnowhueError) else f"{type(error).__name__}: {text}"
