"""`colorized.jsonl`: one line per coloured image of a folder, so that a killed job resumes without repeating work.

An image is moved to its place after its line is written and before the line's newline. A complete line therefore means
a complete image. A last line without newline counts, on reopening, if its image is in place.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from knowhue.errors import RunError
from knowhue.images.image import LEDGER
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.judgement import is_judgement_record
from knowhue.storage import from_json, replacing, writing

JOB = {
    "source": "from another place (`{}`)",
    "model": "made by another model",
    "suffix": "written in another format",
    "saturation": "made with saturation {}",
    "uncertainty": "made {} `uncertainty`",
    "sample": "made as another sample",
    "sizes": "predicted at another number of sizes ({}; 1 with --fast)",
    "unknown_below": "judged with another `unknown_below`",
    "reference": "made with another reference, or without one",
    "album": "made {} --album",
}
"""Keys of a line's `job`, with the words for a difference; `{}` is the value found."""


class Stamp(NamedTuple):
    """Size and time of a file, which change when the file does."""

    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """The stamp of a file; (-1, -1) if there is none."""
        try:
            status = path.stat()
        except OSError:
            return cls(-1, -1)
        return cls(status.st_size, status.st_mtime_ns)


class Ledger:
    """The ledger of one output folder, which the caller must have locked."""

    def __init__(self, out: Path, job: dict[str, Any], overwrite: bool) -> None:
        """Read the ledger, repair a line left by a kill, and open the file for appending.

        A `RunError` if the ledger is another job's, or cannot be read or written.
        """
        self.out = out
        self.job = job
        self._overwrite = overwrite
        last = _latest(self._read())
        self.records: dict[str, dict[str, Any]] = {
            path: record | {"job": job}
            for path, record in last.items()
            if is_same_job(out, record["job"], job, overwrite)
        }
        """records of the images done by this job, by path"""
        self._replaces_others = len(self.records) < len(last)
        self._rewrite(last)
        self._file = FileIO(out / LEDGER, "a")  # without a buffer: `commit` depends on the order on disk

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        is_empty = not self._file.seek(0, os.SEEK_END)
        self._file.close()
        if self._replaces_others:
            self._rewrite(_latest(self._read()))
        if is_empty:  # the job was refused: remove its ledger from the user's folder
            (self.out / LEDGER).unlink(missing_ok=True)

    def _rewrite(self, last: dict[str, dict[str, Any]]) -> None:
        """Write one line per image, without failures; an image still to be replaced keeps its former line."""
        with replacing(self.out / LEDGER) as file:
            file.writelines(
                line_of(record | self.records.get(path, {})) + "\n" for path, record in last.items()
            )

    def is_done(self, path: str, output: str, stamp: Stamp) -> bool:
        """Whether an unchanged image has its output; with `overwrite` the output must be unchanged, too."""
        if self._recorded_stamp(path, output, 0) != stamp:
            return False
        return self.is_unchanged(path, output) if self._overwrite else (self.out / output).exists()

    def is_unchanged(self, path: str, output: str) -> bool:
        """Whether an output is unchanged since this job made it, and can therefore be replaced."""
        return self._recorded_stamp(path, output, 1) == Stamp.of(self.out / output)

    def _recorded_stamp(self, path: str, output: str, which: int) -> Stamp | None:
        """The recorded stamp of an image (0) or its output (1); None without a record of both names."""
        record = self.records.get(path)
        return Stamp(*record["stamps"][which]) if record is not None and record["output"] == output else None

    def is_blocked(self, path: str, output: str) -> bool:
        """Whether the place of an output is taken by a file that this job did not make and must not replace."""
        # lexists: a dangling link is in the way, too, because writing would follow it
        exists = os.path.lexists(self.out / output)
        return exists and not self._overwrite and not self.is_unchanged(path, output)

    def commit(self, record: dict[str, Any], stamp: Stamp, written: Path) -> None:
        """Move a written image to its place on the same disk, and add its line to the file: both happen, or neither.

        `record` has `path` and `output`; `stamp` is that of the source before it was read. A `RunError` if the image
        cannot be moved, or its line cannot be written.
        """
        record = record | {"job": self.job, "stamps": [stamp, Stamp.of(written)]}
        output = self.out / record["output"]
        begin = self._file.seek(0, os.SEEK_END)  # to remove the line again if the image cannot be moved
        try:
            with writing(output):
                output.parent.mkdir(parents=True, exist_ok=True)
                # line, image, newline: after a kill between any two of them, the files show how far it came
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
            while left:  # a nearly full disk may accept only a part
                left = left[self._file.write(left) or 0 :]

    def _read(self) -> list[dict[str, Any]]:
        """All records; a last line without newline counts only if its image is in place."""
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
    colorizer: Colorizer, source: str, options: ColorizeOptions, suffix: str | None, album: bool = False
) -> dict[str, Any]:
    """Everything that decides the colours, by the keys of `JOB`; `source` is the images' absolute name."""
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
    """Whether the images already in a folder or store were coloured by this job; if not, it is an error, a `RunError`.

    With `overwrite` it is none, and the source does not count, because the images may have been moved.
    """
    differing = [key for key in JOB if found.get(key) != job.get(key)]
    if overwrite or not differing:
        return not {*differing} - {"source"}
    moved = "; images that were only moved are not coloured again" if "source" in differing else ""
    raise RunError(
        f"`{out}` should be empty, or hold images coloured by this job. Found images "
        f"{' and '.join(_describe_difference(key, found.get(key)) for key in differing)}. Name another place, or "
        f"replace them with --overwrite{moved}."
    )


def _describe_difference(key: str, value: Any) -> str:
    return JOB[key].format(("without", "with")[value] if isinstance(value, bool) else value)


def read_lines(lines: Iterable[str], is_line: Callable[[object], bool]) -> list[dict[str, Any]]:
    """The records of a ledger's lines; raises `ValueError` for a line that knowhue does not write."""
    records = [from_json(line, parse_float=_finite, parse_constant=_finite) for line in lines]
    if not all(map(is_line, records)):
        raise ValueError("other lines")
    return records


def _finite(text: str) -> float:
    """A finite number of a record; 1e999, which is infinity, could not be written again."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"the number {text}")
    return number


def _is_line(record: Any) -> bool:
    match record:
        case {"path": str(), "error": _}:
            return True
        case {"path": str(), "job": dict(), "output": str(), "stamps": [[int(), int()], [int(), int()]]}:
            return is_judgement_record(record) and (
                "album" not in record or _is_album_record(record["album"])
            )
    return False


def _is_album_record(found: object) -> bool:
    match found:
        case {"colour": [int() | float(), int() | float()], "own": [int() | float(), int() | float()]}:
            return True
    return False


def _latest(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The last record of each image that was done, by path; failed images are tried again."""
    return {record["path"]: record for record in records if "error" not in record}


def line_of(record: dict[str, Any]) -> str:
    """A record as JSON in ASCII, which holds every file name, even one that is not UTF-8."""
    return json.dumps(record, allow_nan=False)
