"""The page and the numbers of a verdict on anybody's table, by the code that judges a study."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from knowhue.report.answers import Answer, answers
from knowhue.report.findings import Findings, find
from knowhue.report.page import PageSection, answer_parts, data_link, fill, filled_sections
from knowhue.report.results import results_table
from knowhue.report.study import Study
from knowhue.report.table_study import notices
from knowhue.report.tables import TABLES
from knowhue.report.text import TableCell
from knowhue.storage import replacing, write_json

_SECTIONS = (
    PageSection("The difference, seed by seed", ("transfer",), of_several_seeds=True),
    PageSection("Questions", tables=("questions",)),
    PageSection("Further metrics", tables=("further",)),
    PageSection("Secondary readings", tables=("probabilities", "delta_m"), of_several_seeds=True),
)


class TableVerdict(NamedTuple):
    """What a table says.

    Attributes:
        findings: as of a study.
        answers: by question, in words.
        results: the content of `results.json`.
        notices: what a reader should know first, a sentence each.
    """

    findings: Findings
    answers: dict[str, Answer]
    results: dict[str, Any]
    notices: list[str]


def judge_table(study: Study) -> TableVerdict:
    """Judge all questions of a table, see `table_study.read_table`."""
    findings = find(study)
    answered = answers(findings)
    results = results_table(findings, answered) | {"tables": study.settings["tables"]}
    return TableVerdict(findings, answered, results, notices(study))


def further_lines(findings: Findings) -> list[str]:
    """The metrics that no question asks about, a line each, with what the page's table says of them."""
    header, *rows = TABLES["further"].text(findings)
    lines = []
    for row in rows:
        cells = [str(cell.value if isinstance(cell, TableCell) else cell) for cell in row]
        named = (f"{name.lower()} {cell}" for name, cell in zip(header[2:], cells[2:], strict=True))
        lines.append(f"{cells[0]}, {cells[1]}: {', '.join(named)}")
    return lines


def write_verdict(verdict: TableVerdict, page: Path, numbers: Path, command: str = "") -> None:
    """Write the page, one file that needs nothing else, and the numbers.

    Args:
        verdict: what to show.
        page: an `.html` file.
        numbers: a `.json` file.
        command: that makes them again.

    Raises:
        RunError: the folder cannot be written.
    """
    study = verdict.findings.study
    text = fill(
        "verdict.html",
        study=study,
        command=command,
        numbers=numbers.name,
        results_link=data_link("application/json", json.dumps(verdict.results, indent=1, allow_nan=False)),
        notices=verdict.notices,
        sections=filled_sections(verdict.findings, _SECTIONS),
        **answer_parts(study, verdict.answers),
    )
    write_json(numbers, verdict.results)
    with replacing(page) as file:
        file.write(text)
