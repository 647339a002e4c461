"""`colorized.jsonl`: what was done in a folder, one line an image, so that a killed job goes on without double work.

An image is put in its place between the writing of its line and of the line's end. A whole line thus means a
whole image; a line without an end is decided, when the file is opened again, by whether its image is there.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from knowhue.errors import RunError
from knowhue.images.image import LEDGER
from knowhue.inference.judgement import is_noted
from knowhue.storage import replacing, writing

if TYPE_CHECKING:
    from knowhue.inference.colorizer import ColorizeOptions, Colorizer

JOB = {
    "source": "from another place (`{}`)",
    "model": "made by another model",
    "suffix": "written in another format",
    "saturation": "made with saturation {}",
    "uncertainty": "made {} `uncertainty`",
    "sample": "made as another sample",
    "sizes": "seen at another number of sizes ({}; 1 is that of --fast)",
    "unknown_below": "judged with another `unknown_below`",
    "reference": "made with another reference, or without one",
    "album": "made {} --album",
}
"""What a line's `job` holds, and how to say that it differs, perhaps with what was found."""


class Stamp(NamedTuple):
    """What changes when a file does."""

    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """Of a file; where there is none, that of no file."""
        try:
            status = path.stat()
        except OSError:
            return cls(-1, -1)
        return cls(status.st_size, status.st_mtime_ns)


class Ledger:
    """The lines of one output folder, which its user has locked."""

    def __init__(self, out: Path, job: dict[str, Any], overwrite: bool) -> None:
        """Read what was done, repair what a kill left, and open the file to go on.

        Raises:
            RunError: it is another job's, or it cannot be read or written.
        """
        self.out = out
        self.job = job
        self._overwrite = overwrite
        last = _last(self._read())
        self.records: dict[str, dict[str, Any]] = {
            path: record | {"job": job}
            for path, record in last.items()
            if is_same_job(out, record["job"], job, overwrite)
        }
        """of the images that are done, by this job, by path"""
        self._replaces_others = len(self.records) < len(last)
        self._rewrite(last)
        self._file = FileIO(out / LEDGER, "a")  # without a buffer: `commit` depends on the order on disk

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        is_empty = not self._file.seek(0, os.SEEK_END)
        self._file.close()
        if self._replaces_others:
            self._rewrite(_last(self._read()))
        if is_empty:  # of a job that was refused: nothing of it stays in somebody's folder
            (self.out / LEDGER).unlink(missing_ok=True)

    def _rewrite(self, last: dict[str, dict[str, Any]]) -> None:
        """One line an image, without failures; of an image that waits to be replaced its former line."""
        with replacing(self.out / LEDGER) as file:
            file.writelines(
                line_of(record | self.records.get(path, {})) + "\n" for path, record in last.items()
            )

    def has(self, path: str, output: str, stamp: Stamp) -> bool:
        """Whether an image was done as it is now, and its output is there; as it was made, where it may be replaced."""
        if self._stamp(path, output, 0) != stamp:
            return False
        return self.made(path, output) if self._overwrite else (self.out / output).exists()

    def made(self, path: str, output: str) -> bool:
        """Whether an output is as this job made it for that image, and may thus be replaced."""
        return self._stamp(path, output, 1) == Stamp.of(self.out / output)

    def _stamp(self, path: str, output: str, which: int) -> Stamp | None:
        """What a line says of its image (0) or its output (1); None if there is none of these names."""
        record = self.records.get(path)
        return Stamp(*record["stamps"][which]) if record is not None and record["output"] == output else None

    def in_the_way(self, path: str, output: str) -> bool:
        """Whether there is a file where an image is to go, which this job did not make and may not replace."""
        # lexists: a link to nothing would be written through, to wherever it points
        return not self._overwrite and os.path.lexists(self.out / output) and not self.made(path, output)

    def commit(self, record: dict[str, Any], stamp: Stamp, written: Path) -> None:
        """Put a written image in its place and its line into the file; both are there afterwards, or neither.

        Args:
            record: of the image, with `path` and `output`.
            stamp: of the source, before it was read.
            written: the image, on the same disk; it is moved.

        Raises:
            RunError: the image cannot be moved, or the line not written.
        """
        record = record | {"job": self.job, "stamps": [stamp, Stamp.of(written)]}
        output = self.out / record["output"]
        begin = self._file.seek(0, os.SEEK_END)  # where the line goes away again if the image cannot be moved
        try:
            with writing(output):
                output.parent.mkdir(parents=True, exist_ok=True)
                # The line, the image, the line's end: killed between any two, what is there shows how far it came.
                self._write(line_of(record))
                os.replace(written, output)
        except RunError:
            self._file.truncate(begin)
            raise
        self._write("\n")

    def fail(self, path: str, error: str) -> None:
        self._write(line_of({"path": path, "error": error, "job": self.job}) + "\n")

    def _write(self, text: str) -> None:
        left = memoryview(text.encode())
        with writing(self.out / LEDGER):
            while left:  # a disk that is nearly full takes a part
                left = left[self._file.write(left) or 0 :]

    def _read(self) -> list[dict[str, Any]]:
        """All lines; the last, if it has no end, only if its image came to its place."""
        path = self.out / LEDGER
        try:
            *whole, torn = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
            records = read_lines(whole, _is_line)
        except (OSError, ValueError) as error:
            raise RunError(
                f"`{path}` should hold the lines that knowhue writes there. Found {error}. Move the file away, or name "
                "another folder."
            ) from None
        with suppress(ValueError):
            (record,) = read_lines([torn], _is_line)
            if "error" not in record and Stamp(*record["stamps"][1]) == Stamp.of(self.out / record["output"]):
                records.append(record)
        return records


def job_of(
    colorizer: "Colorizer", source: str, options: "ColorizeOptions", suffix: str | None, album: bool = False
) -> dict[str, Any]:
    """What makes colours comparable, by the names of `JOB`; of the images' place the name that it has anywhere."""
    return {
        "source": source,
        "model": colorizer.network.description.fingerprint(),
        "sizes": colorizer.sizes,
        "suffix": suffix,
        "saturation": options.saturation,
        "uncertainty": options.uncertainty,
        "sample": options.sample,
        "unknown_below": options.unknown_below,
        "reference": None if options.reference is None else options.reference.digest,
        "album": album,
    }


def is_same_job(out: Path | str, found: Mapping[str, Any], job: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether the colours that a place holds are this job's.

    Where the images came from does not count if overwriting is allowed: they may have been moved.

    Raises:
        RunError: they are not, and may not be replaced.
    """
    differing = [key for key in JOB if found.get(key) != job.get(key)]
    if overwrite or not differing:
        return not {*differing} - {"source"}
    moved = "; images that were only moved are not coloured again" if "source" in differing else ""
    raise RunError(
        f"`{out}` should be empty, or hold the colours of this job. Found colours "
        f"{' and '.join(_differing(key, found.get(key)) for key in differing)}. Name another place, or have them "
        f"replaced with --overwrite{moved}."
    )


def _differing(key: str, value: Any) -> str:
    return JOB[key].format(("without", "with")[value] if isinstance(value, bool) else value)


def read_lines(lines: Iterable[str], is_line: Callable[[object], bool]) -> list[dict[str, Any]]:
    """The lines of a ledger; a `ValueError` where one is not as knowhue writes them, whoever did."""
    try:
        records = [json.loads(line) for line in lines]
        if not all(map(is_line, records)):
            raise ValueError("other lines")
        for record in records:
            line_of(record)  # it is to be written again
    except RecursionError:
        raise ValueError("other lines") from None
    return records


def _is_line(record: Any) -> bool:
    match record:
        case {"path": str(), "error": _}:
            return True
        case {"path": str(), "job": dict(), "output": str(), "stamps": [[int(), int()], [int(), int()]]}:
            return is_noted(record) and ("album" not in record or _is_album(record["album"]))
    return False


def _is_album(found: object) -> bool:
    match found:
        case {"colour": [int() | float(), int() | float()], "own": [int() | float(), int() | float()]}:
            return True
    return False


def _last(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The last line of each image that was done, by path; failures are tried again."""
    return {record["path"]: record for record in records if "error" not in record}


def line_of(record: dict[str, Any]) -> str:
    """JSON in ASCII, so that every file name can be written, and read again."""
    return json.dumps(record, allow_nan=False)
