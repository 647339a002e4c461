"""What came of many images, a folder's or an archive's."""

from typing import Any, NamedTuple

from knowhue.errors import plural
from knowhue.inference.store import STATE


class Summary(NamedTuple):
    """What came of many images.

    Attributes:
        source: where they lie, as it was named.
        out: where the coloured ones lie.
        made: coloured by this run, and `already` by earlier ones.
        failed: that could not be; the same call tries them again.
        failures: their paths, and why; of an archive those of the first ones.
        novel: of those that are there now, unlike the training images.
        notes: what a user should know before trusting them, in words.
        left: of a folder, not begun, because the run was to stop at the first failure.
        shards: of an archive.
    """

    source: str
    out: str
    made: int
    already: int
    failed: int
    failures: tuple[tuple[str, str], ...]
    novel: int
    notes: tuple[str, ...]
    seconds: float
    model: str
    left: int | None = None
    shards: int | None = None

    def as_record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        record = {name: value for name, value in self._asdict().items() if value is not None}
        failures = [{"path": path, "error": error} for path, error in self.failures]
        seconds = round(self.seconds, 3)
        return record | {"failures": failures, "notes": list(self.notes), "seconds": seconds}

    def lines(self) -> list[str]:
        """What the command prints."""
        time = f"{self.seconds:.1f} s" if self.seconds < 10 else f"{self.seconds:.0f} s"
        what = f"{plural(self.made, 'image')} coloured in {time} "
        what += f"({self.made / max(self.seconds, 1e-9):.1f} a second)"
        shards = f", {plural(self.shards, 'shard')}" if self.shards else ""
        lines = [f"{what if self.made else 'no image coloured'}{shards} -> {self.out}"]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  already done: {self.already}"] * (self.already > 0)
        lines += [f"  {self.failed} failed; the same command tries them again:"] * (self.failed > 0)
        lines += [f"    {path}: {error}" for path, error in self.failures]
        more = self.failed - len(self.failures)
        lines += [f"    and {more} more, in {self.out}/{STATE}/ledgers"] * (more > 0)
        lines += [f"  stopped: {self.left} not begun; the same command goes on"] * bool(self.left)
        return [*lines, f"  model: {self.model}"]
