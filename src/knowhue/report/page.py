"""Write the report: one HTML file that needs nothing else, and `results.json` with every number in it."""

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from knowhue.csv_text import to_csv
from knowhue.report import scores
from knowhue.report.answers import Answer, answers
from knowhue.report.contrasts import lower_is_better
from knowhue.report.exhibits import EXHIBITS, Exhibit, facts
from knowhue.report.figures import FIGURES
from knowhue.report.findings import Findings, find
from knowhue.report.forest import forest_rows
from knowhue.report.integrity import frozen_sentences, image_sentences, warnings
from knowhue.report.label_fraction import has_label_fractions
from knowhue.report.method_figures import page_content
from knowhue.report.methods import comparison_results
from knowhue.report.results import results_table
from knowhue.report.samples import has_second
from knowhue.report.study import Study, read_study
from knowhue.report.svg import to_svg
from knowhue.report.tables import TABLES, has_numbers
from knowhue.report.template import fill
from knowhue.report.text import difference, measure, number
from knowhue.runs import REPORT_LOCK, REPORT_S, locked, read_frozen
from knowhue.statistics.verdicts import fewest_seeds
from knowhue.storage import replacing, write_json

CHAPTERS = {
    "Where it helped, and where it hurt": ("seeds", "classes", "flips", "equal_train_loss"),
    "What it costs": ("equal_images", "equal_time", "deployment"),
    "What the choice of an epoch would have added": ("best_epochs", "after_heads"),
    "How the tasks pull at the encoder": ("diagnostics", "predictions"),
}
"""Everything behind a verdict that one number hides: tables by the heading that they stand under."""
_LONGEST_LIST = 300
"""Left-out images listed by name; the rest is counted and stands in `prepared.json`."""


def write_report(folder: Path) -> Path:
    """Write `results.json` and `report.html` of a study, in whatever state it is.

    Args:
        folder: the study folder.

    Returns:
        The path of the page: one file without links to anything outside of it.

    Raises:
        RunError: the folder is no study, or cannot be written.
    """
    read_frozen(folder)  # before a lock is laid into any folder
    page = folder / "report.html"
    with locked(folder, "report", name=REPORT_LOCK, wait_s=REPORT_S):
        findings = find(read_study(folder))
        answered = answers(findings)
        results = results_table(findings, answered)
        if findings.study.is_comparison:
            results["comparison"] = comparison_results(findings.study)
        write_json(folder / "results.json", results)
        with replacing(page) as file:
            file.write(render_page(findings, answered, results))
    return page


def render_page(findings: Findings, answered: dict[str, Answer], results: dict[str, Any]) -> str:
    """Return the page as HTML.

    Args:
        findings: what to show.
        answered: its `answers`.
        results: its `results_table`.
    """
    text = json.dumps(results, indent=1, allow_nan=False)
    link = _data_link("application/json", text)
    if findings.study.is_comparison:
        return fill("methods.html", results_link=link, **page_content(findings.study))
    return fill("page.html", results=results, results_link=link, answers=answered, **_content(findings))


def _content(findings: Findings) -> dict[str, Any]:
    """Return all that the template shows, ready as text."""
    study = findings.study
    first = next((run for arm in study.runs for run in study.finished(arm)), None)
    left_out = study.prepared.get("left_out", ())
    chapters = {title: _tables(findings, names) for title, names in CHAPTERS.items()}
    return {
        "study": study,
        "chapters": {title: tables for title, tables in chapters.items() if tables},
        "frozen_sentences": frozen_sentences(study),
        "frozen_tables": [
            each for each in _texts(findings, ("cells", "exploratory")) if len(each["rows"]) > 1
        ],
        "many_seeds": len(study.seeds) > 1,
        "many_arms": len({row.arm for row in forest_rows(study)}) > 1,
        "label_fractions": has_label_fractions(study),
        "min_seeds": fewest_seeds(study.alpha),
        "words": {question: measure(study.metrics, asked) for question, asked in study.questions.items()},
        "lower": {
            question: lower_is_better(study.metrics, asked.metric)
            for question, asked in study.questions.items()
        },
        "figures": {name: _figure(study, exhibit) for name, exhibit in EXHIBITS.items()},
        "gradients": _tables(findings, ("gradients",)),
        "scores": scores.score_tables(findings),
        "number": number,
        "difference": difference,
        "distances": scores.distance_table(study),
        "perceptual": scores.perceptual_provenance(study),
        "not_computed": scores.not_computed(study),
        "has_fid": scores.has_fid(study),
        "classes": scores.class_table(study),
        "counts": scores.count_table(study),
        "split": study.split,
        "image_sentences": image_sentences(study),
        "left_out_counts": scores.left_out_counts(study),
        "left_out": left_out[:_LONGEST_LIST],
        "left_out_more": max(len(left_out) - _LONGEST_LIST, 0),
        "warnings": warnings(study),
        "settings": scores.setting_rows(study.settings.get("config", {})),
        "environment": first.environment if first else {},
        "images": first.scores.get("images") if first else None,
        "times": scores.time_table(study),
    }


def _tables(findings: Findings, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return tables as text; those without a number are left out."""
    return [each for each in _texts(findings, names) if has_numbers(each["rows"])]


def _texts(findings: Findings, names: Iterable[str]) -> list[dict[str, Any]]:
    found = [TABLES[name] for name in names]
    return [{"title": each.title, "note": each.note, "rows": each.text(findings)} for each in found]


def _figure(study: Study, exhibit: Exhibit) -> dict[str, Any]:
    caption = exhibit.caption.format(**facts(study))
    names = [name for name in exhibit.figures if name != "more_samples" or has_second(study)]
    drawn = [(name, FIGURES[name](study)) for name in names]
    return {
        "title": exhibit.title,
        "caption": caption,
        "wide": exhibit.wide,
        "in_columns": len(exhibit.figures) > 1,
        "drawings": [Markup(to_svg(figure, name, f"{exhibit.title} {caption}")) for name, figure in drawn],
        "data": None if exhibit.is_drawing else _data_link("text/csv", to_csv(exhibit.data(study))),
        "file": f"{exhibit.figures[0]}.csv",
    }


def _data_link(kind: str, text: str) -> str:
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
