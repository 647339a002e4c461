"""Write the report: one HTML file that needs nothing else, and `results.json` with every number in it."""

import base64
import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from knowhue.csv_text import to_csv
from knowhue.report import tables
from knowhue.report.answers import Answer, answer
from knowhue.report.contrasts import lower_is_better, question_alpha, questions
from knowhue.report.differences import measure
from knowhue.report.distances import distance_table, has_fid, not_computed, perceptual_provenance
from knowhue.report.evidence import chapters, frozen
from knowhue.report.exhibits import EXHIBITS, Exhibit, facts
from knowhue.report.figures import FIGURES
from knowhue.report.forest import forest_rows
from knowhue.report.gradients import gradient_rows
from knowhue.report.label_fraction import has_label_fractions
from knowhue.report.notices import warnings
from knowhue.report.reading import read_study
from knowhue.report.records import Study
from knowhue.report.results import results_table
from knowhue.report.samples import has_second
from knowhue.report.splits import image_sentences
from knowhue.report.svg import to_svg
from knowhue.report.template import fill
from knowhue.report.verdicts import verdicts
from knowhue.runs import REPORT_LOCK, REPORT_S, locked, read_description
from knowhue.statistics.verdicts import fewest_seeds
from knowhue.storage import replacing, write_json

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
    read_description(folder)  # before a lock is laid into any folder
    page = folder / "report.html"
    with locked(folder, "report", name=REPORT_LOCK, wait_s=REPORT_S):
        study = read_study(folder)
        results = results_table(study)
        write_json(folder / "results.json", results)
        with replacing(page) as file:
            file.write(render_page(study, results))
    return page


def render_page(study: Study, results: dict[str, Any]) -> str:
    """Return the page as HTML.

    Args:
        study: what to show.
        results: its `results_table`.
    """
    text = json.dumps(results, indent=1, allow_nan=False)
    link = _data_link("application/json", text)
    return fill("page.html", results=results, results_link=link, **_content(study))


def _content(study: Study) -> dict[str, Any]:
    """Return all that the template shows, ready as text."""
    first = next((run for arm in study.runs for run in study.finished(arm)), None)
    left_out = study.prepared.get("left_out", ())
    return {
        "study": study,
        "answers": _answers(study),
        "chapters": chapters(study),
        "frozen": frozen(study),
        "many_seeds": len(study.settings.get("seeds", ())) > 1,
        "many_arms": len({row.arm for row in forest_rows(study)}) > 1,
        "label_fractions": has_label_fractions(study),
        "min_seeds": fewest_seeds(question_alpha(study)),
        "words": {question: measure(study, asked) for question, asked in questions(study).items()},
        "lower": {
            question: lower_is_better(study, asked.metric) for question, asked in questions(study).items()
        },
        "figures": {name: _figure(study, exhibit) for name, exhibit in EXHIBITS.items()},
        "gradients": gradient_rows(study),
        "scores": tables.score_tables(study),
        "number": tables.number,
        "difference": tables.difference,
        "distances": distance_table(study),
        "perceptual": perceptual_provenance(study),
        "not_computed": not_computed(study),
        "has_fid": has_fid(study),
        "classes": tables.class_table(study),
        "counts": tables.count_table(study),
        "split": study.split,
        "image_sentences": image_sentences(study),
        "left_out_counts": tables.left_out_counts(study),
        "left_out": left_out[:_LONGEST_LIST],
        "left_out_more": max(len(left_out) - _LONGEST_LIST, 0),
        "warnings": warnings(study),
        "settings": tables.setting_rows(study.settings.get("config", {})),
        "environment": first.environment if first else {},
        "images": first.scores.get("images") if first else None,
        "times": tables.time_table(study),
    }


def _answers(study: Study) -> dict[str, Answer]:
    judged = verdicts(study)
    return {question: answer(study, question, judged) for question in judged}


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
