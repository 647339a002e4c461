"""Reads files of scores from any source as one stream of rows: CSV, JSON, JSON lines or parquet, tidy or wide.

Tidy: columns `arm, seed, metric, value`, and optionally `image, class, state, better, sesoi, against, secondary, unit,
split`. Wide: a row per run and a column per metric, as Weights & Biases and MLflow export their tables of runs.
"""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from knowhue.csv_text import table_rows
from knowhue.errors import TableError, did_you_mean, few, needing, plural, quoted, shown, system_reason
from knowhue.runs import path_hint
from knowhue.settings_text import parse_json, plain_name

RowCells = Sequence[Any]
Rows = Iterator[tuple[int, dict[str, Any]]]
"""Unchecked scores of a file: the row number as in a spreadsheet (of a JSON record, from 1), and the cells by the
column names of the tidy form, without empty cells."""
MOST_ROWS = 20_000_000
MOST_JSON_BYTES = 256 * 2**20
"""JSON is parsed as a whole, which takes about ten times its size in memory."""
TIDY = ("arm", "seed", "metric", "value")
ABOUT = ("image", "class", "state", "better", "sesoi", "against", "secondary", "unit", "split")
_OF_TIDY = (*TIDY[2:], *ABOUT)
_ARM_NAMES = ("arm", "group", "name", "run_name", "runname", "run name", "run")
"""Columns that can name the arm, the first that exists; the seed is removed from the names of runs."""
_UNSURE_NAMES = ("method", "model")
"""Columns that can name the arm, or something that all arms share; next to one of them, `run` can be a number."""
_SEED_NAMES = ("seed", "random_seed", "random seed")
_STATES = ("state", "status")
NO_SCORE = "no score"
"""State of a finished run of a wide table without any score."""
FINISHED = ("finished", "success", "completed")
"""States of a run whose scores count; an empty state counts as finished, too."""
ONLY_MEANS = (
    "A mean over seeds gives no verdict, with its deviation or without: runs are compared seed by seed. Give one row "
    "per run (arm, seed, metric, value): from the logs, the tracker's export, or whoever published the table"
)
"""The remedy for tables without seeds."""
_PREFIX = re.compile(r"^(params|config|tags\.mlflow|tags|metrics|summary)[./](?=.)")
_PARAMETERS = tuple(f"{name}{sign}" for name in ("params", "config", "tags") for sign in "./")


def read_scores(
    path: Path, wanted: Collection[str], arm_column: str | None = None, seed_column: str | None = None
) -> tuple[Rows, dict[str, str]]:
    """Read a file of scores; a `TableError` if it is missing, not a table, or has neither form.

    Args:
        path: `.csv` (or `.tsv`, `.txt`), `.json`, `.jsonl`, `.parquet`.
        wanted: metrics to look for in the columns of a wide table; a tidy table names its own.
        arm_column: the column with the arm, if it has none of the usual names.
        seed_column: the same for the seed.

    Returns:
        The scores; and the unused columns, each with a suggestion such as "Did you mean ...?", or an empty text.
    """
    header, rows = _open(path)
    columns = _Columns(path, header, arm_column, seed_column)
    if columns.is_tidy:
        return columns.tidy_rows(rows), columns.unused(_OF_TIDY)
    metrics = columns.metrics(wanted)
    if metrics:
        return columns.wide_rows(metrics, rows), columns.unused(_STATES, metrics)
    if "metric" in columns.places:
        raise TableError(
            f"{path}: a column `metric`, but no column `value`. Found {few(header, 12)}. Rename the column with the "
            "scores to `value`."
        )
    unused = columns.unused(())
    # a misspelt `metric` of a tidy table, or a misspelt metric of a wide one
    meant = next(filter(None, (did_you_mean(name, unused) for name in (*TIDY[2:], *wanted))), "")
    raise TableError(
        f"{path}: no columns `metric` and `value`, and no column of a known metric "
        f"({', '.join(f'`{name}`' for name in wanted) or 'none'}). Found {few(header, 12)}.{meant} Name metrics with "
        f"--better, such as --better {quoted(next(iter(unused), 'NAME'))}=higher, or =lower."
    )


class _Columns:
    """The columns of a table: the positions of arm, seed, and the others."""

    def __init__(self, path: Path, header: Sequence[str], arm: str | None, seed: str | None) -> None:
        self.path, self.header = path, header
        plain = [_plain(name) for name in header]
        self._require_one(name for name in (*TIDY, *ABOUT) if plain.count(name) > 1)
        # reversed, so that the first of two equal names wins, such as a parameter and its summary
        self.places = {name: place for place, name in reversed(list(enumerate(plain)))}
        self.is_tidy = {"metric", "value"} <= self.places.keys()
        usual = [name for name in _ARM_NAMES if name != "run" or self.places.keys().isdisjoint(_UNSURE_NAMES)]
        self.seed = self._named("--seed-column", seed, _SEED_NAMES)
        self.arm = self._named("--arm-column", arm, ["arm"] if self.is_tidy else usual)
        # the name of a run contains its seed, unless the user declares that the column names the arm
        self._holds_seed = arm is None and _plain(self.header[self.arm]) in _ARM_NAMES[2:]
        read = {self.header[self.arm], self.header[self.seed], *_STATES}
        self._require_one(name for name in read if self.header.count(name) > 1)

    def _require_one(self, twice: Iterable[str]) -> None:
        if names := sorted(twice):
            raise TableError(f"{self.path}: more than one column is named {few(names)}. Rename all but one.")

    def _named(self, option: str, given: str | None, usual: Sequence[str]) -> int:
        if given in self.header:
            return self.header.index(given)
        for name in usual if given is None else [_plain(given)]:
            if name in self.places:
                return self.places[name]
        means = f" {ONLY_MEANS}." if option == "--seed-column" else ""
        columns = [] if means else self.header
        unsure = next((f" {quoted(name)}" for name in columns if _plain(name) in _UNSURE_NAMES), "")
        meant = "" if given is None and unsure else did_you_mean(given or usual[0], self.header)
        raise TableError(
            f"{self.path}: no column `{shown(given or usual[0])}`. Found {few(self.header, 12)}. Name it with "
            f"{option}{unsure}, or give a table whose first row, without a title above it, names the "
            f"columns arm, seed, metric, value.{meant}{means}"
        )

    def metrics(self, wanted: Collection[str]) -> dict[str, int]:
        """Return the column of each wanted metric that a wide table has; two columns of a metric are a `TableError`."""
        found = defaultdict[str, list[int]](list)
        for place, name in enumerate(self.header):
            metric = name if name in wanted else metric_name(name)  # a prefix stays if it is wanted
            if metric in wanted and place not in (self.arm, self.seed):
                found[metric].append(place)
        for metric, places in found.items():
            if len(places) > 1:
                columns = ", ".join(f"`{shown(self.header[place])}` ({place + 1})" for place in places)
                raise TableError(
                    f"{self.path}: {len(places)} columns hold `{shown(metric)}`: {columns}. Remove all but one, or "
                    "rename them."
                )
        return {metric: place for metric, (place,) in found.items()}

    def unused(self, names: Collection[str], metrics: Collection[str] = ()) -> dict[str, str]:
        """Return the columns that are neither arm nor seed, `names` nor `metrics`, each with a suggestion."""
        return {
            # pandas writes its index as a column without a name
            name or f"{place + 1} (without a name)": did_you_mean(name, ABOUT) if self.is_tidy else ""
            for place, name in enumerate(self.header)
            if place not in (self.arm, self.seed)
            and _plain(name) not in names
            and not {name, metric_name(name)} & {*metrics}
        }

    def tidy_rows(self, rows: Iterable[tuple[int, RowCells]]) -> Rows:
        places = {"arm": self.arm, "seed": self.seed}
        places |= {name: self.places[name] for name in _OF_TIDY if name in self.places}
        for number, cells in rows:
            yield number, {name: cells[at] for name, at in places.items() if not _is_empty(cells[at])}

    def wide_rows(self, metrics: dict[str, int], rows: Iterable[tuple[int, RowCells]]) -> Rows:
        """Return a row for each score of each run; of a run without scores, one row without a value."""
        if holds_seed := self._holds_seed:
            rows = list(rows)
            # a name with several seeds is the name of an arm, such as `model-1`
            runs = {(str(cells[self.arm]), str(cells[self.seed])) for _, cells in rows}
            holds_seed = len({name for name, _ in runs}) == len(runs)
        places = {"seed": self.seed}
        if found := [self.places[name] for name in _STATES if name in self.places]:
            places["state"] = found[0]
        for number, cells in rows:
            shared = {name: cells[at] for name, at in places.items() if not _is_empty(cells[at])}
            arm, seed = cells[self.arm], str(cells[self.seed])
            if not _is_empty(arm):
                shared["arm"] = without_seed(str(arm), seed) if holds_seed else arm
            scored = {metric: cells[at] for metric, at in metrics.items() if not _is_empty(cells[at])}
            for metric, value in scored.items():
                yield number, {**shared, "metric": metric, "value": value}
            # its seed must not be forgotten: a run of which nothing is known prevents a verdict
            nothing = {**shared, "metric": next(iter(metrics))}
            if not scored and str(shared.get("state", "")).lower() not in ("", *FINISHED):
                yield number, nothing
            elif not scored and "seed" in shared:
                yield number, nothing | {"state": NO_SCORE}


def _plain(name: str) -> str:
    return _PREFIX.sub("", name.strip().lower())


def metric_name(column: str) -> str:
    """Return the name of a wide table's column without a tracker's prefix; a parameter, which is no metric, keeps it.

    >>> metric_name("summary.accuracy"), metric_name("config.loss")
    ('accuracy', 'config.loss')
    """
    return column if column.startswith(_PARAMETERS) else _PREFIX.sub("", column)


def without_seed(name: str, seed: str) -> str:
    """Return the name of an arm: the name of its run without the seed.

    >>> without_seed("multi-seed-3", "3"), without_seed("multi_s3", "3"), without_seed("resnet50", "3")
    ('multi', 'multi', 'resnet50')
    """
    seed = re.escape(re.sub(r"\.0+$", "", seed))
    found = re.sub(rf"(?i)[-_ ./:]+(seed|s)?[-_ =:]*0*{seed}$", "", name)
    return found or name


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _rows(path: Path) -> Iterator[tuple[int, RowCells]]:
    """Return the numbered rows of a table, the header first; every row must have the header's length."""
    readers = {".json": _json, ".jsonl": _json, ".ndjson": _json, ".parquet": _parquet}
    try:
        if path.is_dir():
            raise TableError(
                f"{path}: a folder. `knowhue export {quoted(path)} --to table -o scores.csv` makes a table of a study."
            )
        # it could be read only once, and the checksum needs a second read
        if path.exists() and not path.is_file():
            raise TableError(f"{path}: a device or a pipe. Save it as a file first.")
        header: RowCells | None = None
        for count, (number, cells) in enumerate(readers.get(path.suffix.lower(), _csv)(path)):
            if count > MOST_ROWS:
                raise TableError(
                    f"{path}: more than {MOST_ROWS:,} rows. Remove metrics that no question is about, or give fewer "
                    "images."
                )
            header = header or cells
            if len(cells) != len(header):
                raise TableError(
                    f"{path}, row {number}: {plural(len(cells), 'cell')}, where the first row has {len(header)} "
                    f"({shown(', '.join(map(str.strip, header)))}). Quote cells that contain a separator, and remove a "
                    "title above the row that names the columns."
                )
            yield number, [plain_name(cell) if isinstance(cell, str) else cell for cell in cells]
    except OSError as error:
        raise TableError(f"{path}: {system_reason(error)}") from None


def _open(path: Path) -> tuple[list[str], Iterator[tuple[int, RowCells]]]:
    """Return the header of a table, without blanks around the names, and its numbered rows."""
    rows = _rows(path)
    header = [str(name).strip() for name in next(rows, (1, ()))[1]]
    if not any(header):
        raise TableError(
            f"{path}: not a table; the first row should name the columns arm, seed, metric, value."
        )
    if len(header) == 1:
        raise TableError(
            f"{path}: one column, `{shown(header[0])}`. Commas, semicolons or tabs should stand between columns, such "
            "as arm,seed,metric,value, in the first row: remove a title above it."
        )
    return header, rows


def _csv(path: Path) -> Iterator[tuple[int, RowCells]]:
    """Return the numbered rows of a CSV file, without empty ones."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from table_rows(file)
    except UnicodeDecodeError:
        remedy = path_hint(path) or " Save it as CSV in UTF-8."
        raise TableError(f"{path}: not text in UTF-8.{remedy}") from None
    except ValueError as error:
        raise TableError(f"{path}: not CSV ({error}). Save it as CSV again.") from None


def _json(path: Path) -> Iterator[tuple[int, RowCells]]:
    """Return the rows of a JSON file: a list of records, `columns` and `data`, or a record per line."""
    if path.stat().st_size > MOST_JSON_BYTES:
        raise TableError(f"{path}: more than {MOST_JSON_BYTES >> 20} MB of JSON. Give it as CSV or parquet.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = parse_json(text) if path.suffix.lower() == ".json" else _json_lines(path, text)
        json.dumps(found, ensure_ascii=False).encode()  # refuses lone surrogates, which no page can contain
    except (ValueError, RecursionError) as error:
        raise TableError(f"{path}: not JSON ({str(error)[:80]}).") from None
    if isinstance(found, dict) and all(isinstance(found.get(name), list) for name in ("columns", "data")):
        rows = [row if isinstance(row, list) else [row] for row in found["data"]]
        yield from enumerate([[str(name) for name in found["columns"]], *rows])
        return
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise TableError(
            f"{path}: should hold a list of records, such as "
            '[{"arm": "a", "seed": 0, "metric": "accuracy", "value": 0.9}].'
        )
    records = [_flat(each) for each in found]
    names = list(dict.fromkeys(name for each in records for name in each))
    yield from enumerate([names, *([each.get(name) for name in names] for each in records)])


def _json_lines(path: Path, text: str) -> list[Any]:
    found = []
    # `splitlines` would also split at separators that JSON allows inside a string
    for number, line in enumerate(text.split("\n"), 1):
        try:
            found += [parse_json(line)] if line.strip() else []
        except ValueError as error:
            raise TableError(f"{path}, row {number}: not JSON ({str(error)[:80]}).") from None
    return found


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Flatten a record's groups into prefixes: `config.seed`, `summary.accuracy`."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        is_group = isinstance(value, dict)
        flat |= {f"{name}.{key}": each for key, each in value.items()} if is_group else {name: value}
    return flat


def _parquet(path: Path) -> Iterator[tuple[int, RowCells]]:
    with needing(f"{path}: parquet", "parquet"):
        from pyarrow import ArrowException, int64, parquet, string, types

    def cells(column: Any) -> list[Any]:
        if types.is_duration(column.type):
            column = column.cast(int64())  # durations cannot be cast to text directly
        is_time = types.is_temporal(column.type) and not types.is_interval(column.type)
        return (column.cast(string()) if is_time else column).to_pylist()

    try:
        file = parquet.ParquetFile(path)
        batches = (zip(*map(cells, batch.columns), strict=True) for batch in file.iter_batches())
        yield from enumerate(chain([file.schema_arrow.names], chain.from_iterable(batches)))
    # some damaged files raise OSError; Python's times lack nanoseconds and years after 9999
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # an error of the disk, not of the content
        raise TableError(
            f"{path}: not a parquet file, or with cells of an unknown type ({str(error)[:80]})."
        ) from None
