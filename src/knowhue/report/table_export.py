"""Writes a study as a tidy table for other tools, with a data dictionary of its columns and metrics."""

import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from knowhue.errors import needing, spaced
from knowhue.metric_table import IMAGE_COLUMNS
from knowhue.report.score_rows import DIVERGED
from knowhue.report.study import Score, Study, flat_scores, tidy_scores
from knowhue.report.text import measure
from knowhue.runs import OTHER_SETTINGS
from knowhue.statistics import ALPHA
from knowhue.storage import replacing, write_csv

COLUMNS = {
    "arm": "what was trained; of a trivial baseline its name",
    "seed": "of the run; runs of one seed are a pair; empty for a trivial baseline, which has no model",
    "metric": "what was measured",
    "value": "the score; empty where the run has none",
    "image": "index of the single image in the prepared images; empty for a score of many images",
    "class": "of the single image, or of all images that the score is of; empty for all classes",
    "state": "finished; diverged: the value was declared beforehand for such a run; else there is no score",
    "unit": "of the value; share: 0 to 1",
    "better": "lower or higher; empty where neither is",
    "sesoi": "smallest effect of interest, in the unit; only metrics with a question have one",
    "against": "the arm that this one is compared with in this metric",
    "secondary": "the metric of the question that names this one as secondary",
    "split": "of the images that the value is of: test or validation",
}
_TUNING = "tuning"
"""State of all rows of a tuning study: they must not be used for a verdict."""
_OF_MODELS = ("seed", "sesoi", "against", "secondary")
"""Columns that are empty in rows of trivial baselines."""
_CHUNK = 50_000


def study_rows(study: Study) -> Iterator[dict[str, Any]]:
    """Return all scores of a study as rows with the keys `COLUMNS`, without empty cells.

    The order: trivial baselines, scores over all images and over classes, scores of single images.
    """
    state, lost = (_TUNING, _TUNING) if study.is_tuning else ("finished", DIVERGED)
    for name, values in study.baselines.items():
        for metric, value in flat_scores(values).items():
            if value is not None and math.isfinite(value):
                row = _row(study, Score(name, 0, metric, value), "finished")
                yield {column: cell for column, cell in row.items() if column not in _OF_MODELS}
    yield from (_row(study, score, state) for score in tidy_scores(study))
    yield from (_row(study, score, lost) for score in study.declared_scores())
    yield from _rows_without_a_score(study)
    without = metrics_without_images(study)
    for run in study.finished_runs:
        yield from (_row(study, score, state) for score in run.image_scores() if score.metric not in without)


def _row(study: Study, score: Score, state: str) -> dict[str, Any]:
    row = {
        "arm": score.arm, "seed": score.seed, "metric": score.metric, "value": score.value, "class": score.label,
        "state": state, "split": study.split,
    }  # fmt: skip
    if score.image is not None:
        row["image"] = score.image
    else:
        about, questions = study.about(score.metric), study.questions.values()
        row["unit"] = about.get("unit", "")
        row["better"] = about["better"] if about.get("better") in ("lower", "higher") else ""
        row["secondary"] = next((each.metric for each in questions if score.metric in each.secondary), "")
        specs = [each for each in questions if each.metric == score.metric and not score.label]
        row["sesoi"] = next((each.sesoi for each in specs), "")
        if not study.is_comparison:
            row["against"] = next((each.single for each in specs if each.multi == score.arm), "")
    return {name: cell for name, cell in row.items() if cell != ""}


def _rows_without_a_score(study: Study) -> Iterator[dict[str, Any]]:
    """Return a row for each planned run without a score, so that a missing run is visible."""
    declared = {(row.arm, row.seed) for row in study.declared_scores()}
    for arm in study.runs:
        # the metric of the arm's question, or else of any
        specs = sorted(study.questions.values(), key=lambda spec: arm not in (spec.single, spec.multi))
        metric = specs[0].metric if specs else "ab_l1"
        for run in study.of(arm):
            if not run.finished and (arm, run.seed) not in declared:
                state = run.state if run.state != "finished" else OTHER_SETTINGS
                state = "no score" if state == DIVERGED else state
                yield {"arm": arm, "seed": run.seed, "metric": metric, "state": state, "split": study.split}


def metrics_without_images(study: Study) -> set[str]:
    """Return the metrics in which some run lacks the score of an image; their single images get no rows."""
    lacking: set[str] = set()
    first: dict[str, set[int | None]] = {}
    for run in study.finished_runs:
        images: dict[str, set[int | None]] = defaultdict(set)
        for score in run.image_scores():
            images[score.metric].add(score.image)
            if not math.isfinite(score.value):
                lacking.add(score.metric)
        # the file of single images can be missing or cut short while the total is known
        known = {*images, *(name for name in IMAGE_COLUMNS if run.metric(name) is not None)}
        lacking |= {name for name in known if first.setdefault(name, images[name]) != images[name]}
    return lacking


def dictionary_rows(study: Study) -> list[list[Any]]:
    """Return the data dictionary of columns, metrics, questions and plan; the header first."""
    rows: list[list[Any]] = [["name", "kind", "meaning", "unit", "better"]]
    rows += [[name, "column", meaning, "", ""] for name, meaning in COLUMNS.items()]
    for name in dict.fromkeys(score.metric for score in tidy_scores(study)):
        about = {"title": spaced(name), "unit": "", "better": "", **study.about(name)}
        rows.append([name, "metric", about["title"], about["unit"], about["better"]])
    for task, spec in study.questions.items():
        effect = measure(study.metrics, spec).amount(spec.sesoi)
        meaning = f"{spec.multi} against {spec.single} in {spec.metric}, smallest effect of interest {effect}"
        rows.append([task, "question", meaning, "", ""])
    alpha, plan = study.settings.get("alpha", ALPHA), study.settings.get("hash")
    rows.append(["alpha", "plan", f"{alpha:g}, divided among the questions", "", ""])
    return rows + ([["hash", "plan", plan, "", ""]] if plan else [])


def dictionary_path(table: Path) -> Path:
    return table.with_name(f"{table.stem}.dictionary.csv")


def write_table(study: Study, path: Path) -> int:
    """Write the tidy table of a study, and its data dictionary next to it; return the number of rows.

    An `ExtraError` if pyarrow is not installed; a `RunError` if the folder is not writable.
    """
    numbers = count()
    # `zip` takes a number only after a row, so that the next number is the count of rows
    rows = (row for row, _ in zip(study_rows(study), numbers, strict=False))
    if path.suffix == ".parquet":
        _write_parquet(path, rows)
    else:
        write_csv(path, chain([list(COLUMNS)], ([row.get(name, "") for name in COLUMNS] for row in rows)))
    write_csv(dictionary_path(path), dictionary_rows(study))
    return next(numbers)


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with needing(f"{path}: parquet", "parquet"):
        import pyarrow
        from pyarrow import parquet
    whole, real = pyarrow.int64(), pyarrow.float64()
    kinds = {"seed": whole, "value": real, "image": whole, "sesoi": real}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])
    buffer = pyarrow.BufferOutputStream()
    with parquet.ParquetWriter(buffer, schema) as writer:
        while chunk := list(islice(rows, _CHUNK)):
            writer.write_batch(pyarrow.RecordBatch.from_pylist(chunk, schema=schema))
    with replacing(path, "wb") as file:
        file.write(buffer.getvalue())
