"""Write the report: one self-contained HTML file, and `results.json` with every number in it."""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from knowhue.arguments import checked_arguments
from knowhue.csv_text import to_csv
from knowhue.errors import plural
from knowhue.locks import REPORT_LOCK, REPORT_S, locked
from knowhue.report import integrity, methods
from knowhue.report import results as numbers
from knowhue.report.contrasts import wording
from knowhue.report.figures import FIGURES
from knowhue.report.findings import Findings
from knowhue.report.reading import read_study
from knowhue.report.results import Conclusion, conclude
from knowhue.report.study import Study, tidy_scores
from knowhue.report.style import to_svg
from knowhue.report.table_study import notices
from knowhue.report.tables import TABLES
from knowhue.report.text import MISSING, measure, seconds_text
from knowhue.runs import read_frozen
from knowhue.setting_effects import dotted
from knowhue.settings_text import inline_yaml
from knowhue.statistics.verdicts import fewest_seeds
from knowhue.storage import replacing, write_json

RESULTS = "results.json"
_LONGEST_LIST = 300
"""Most left-out images that are listed by name; `prepared.json` has all."""
_TYPED = re.compile(r"`([^`]+)`")

_DRAWINGS_OF_METHODS = {
    "trade": "Quality of each method over its training time",
    "samples": "Colourings at {}",
    "drawn": "Samples at {}",
}


@dataclass(frozen=True)
class PageSection:
    """A section of the page; it is left out if it has nothing to show."""

    title: str
    figures: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    part: str = ""
    """name of the template's macro for further content"""
    is_open: bool = False
    of_several_seeds: bool = False


# what a reader needs in five minutes comes first, unfolded: answers, differences, images and scores
SECTIONS = (
    PageSection(
        "The difference, seed by seed", ("transfer", "forest", "label_fraction"), is_open=True, of_several_seeds=True
    ),
    PageSection("What the models see and predict", ("samples",), is_open=True),
    PageSection("Scores", tables=("colour_scores", "class_scores"), part="scores", is_open=True),
    PageSection("Warnings", part="warnings"),
    PageSection("How it was measured", ("setup",), part="images"),
    PageSection("Training", ("error", "accuracy", "losses"), ("after_heads",)),
    PageSection("Distance from real images", tables=("distances",), part="distances"),
    PageSection("Class by class", ("per_class", "confusion", "reliability"), ("classes",)),
    PageSection("Best and worst colourings", ("extremes",)),
    PageSection(
        "Where it helped and where it hurt", tables=("seeds", "flips", "equal_train_loss"),
        of_several_seeds=True,
    ),
    PageSection("Secondary analyses", tables=("probabilities", "delta_m"), of_several_seeds=True),
    PageSection("What it costs", tables=("equal_images", "equal_time", "deployment"), of_several_seeds=True),
    PageSection("Gradients of both tasks", tables=("diagnostics", "predictions"), of_several_seeds=True),
    PageSection("What trained the encoder", tables=("gradients",)),
    PageSection("What was fixed beforehand", tables=("exploratory",), part="frozen"),
    PageSection("How to reproduce it", part="again"),
)  # fmt: skip
_TABLE_SECTIONS = (
    PageSection("The difference, seed by seed", ("transfer",), of_several_seeds=True),
    PageSection("Questions", tables=("questions",)),
    PageSection("Further metrics", tables=("further",)),
    PageSection("Secondary analyses", tables=("probabilities", "delta_m"), of_several_seeds=True),
)
"""Sections of the page of `knowhue verdict`."""


@checked_arguments
def write_report(folder: str | Path, note: str = "") -> Path:
    """Write `results.json` and `report.html` of a study, finished or not.

    Returns:
        The path of the page, one self-contained file.

    Raises:
        RunError: the folder is not a study or cannot be written.
    """
    folder = Path(folder)
    read_frozen(folder)  # raises before a lock file is written into a folder that is not a study
    page = folder / "report.html"
    with locked(folder, "report", name=REPORT_LOCK, wait_s=REPORT_S):
        found = conclude(read_study(folder))
        write_json(folder / RESULTS, found.results)
        with replacing(page) as file:
            file.write(render_page(found, note))
    return page


def render_page(found: Conclusion, note: str = "") -> str:
    """Return the page of a study, or of a comparison, as HTML."""
    study = found.findings.study
    first = next(iter(study.finished_runs), None)
    shared = {
        "study": study, "results_link": _results_link(found), "note": note,
        "environment": first.environment if first else {}, "images": first.scores.get("images") if first else None,
    }  # fmt: skip
    if study.is_comparison:
        return fill("methods.html", **shared, **_methods_content(study))
    # without the scores of single images, which are too many for a page
    scores = [("arm", "seed", "metric", "value", "class"), *(row[:5] for row in tidy_scores(study))]
    return fill(
        "page.html",
        **shared,
        results=found.results,
        scores_link=_data_link("text/csv", to_csv(scores)),
        warnings=integrity.warnings(study),
        answers=_answers(found),
        sections=_sections(found.findings),
        fewest_seeds=fewest_seeds(study.alpha),
        numbers=numbers,
        integrity=integrity,
        longest_list=_LONGEST_LIST,
        settings=dotted(study.settings.get("config", {}), is_for_readers=True),
    )


def _methods_content(study: Study) -> dict[str, Any]:
    """Return the values of the comparison's template: drawings as SVG, and the objects that it queries."""
    compared, drawings = methods.Comparison(study), {}
    for name, figure in methods.comparison_figures(study).items():
        kind, _, regime = name.rpartition("_")
        title = compared.regimes[regime].title if regime in compared.regimes else ""
        description = _DRAWINGS_OF_METHODS[kind].format(title)
        drawings[name] = Markup(to_svg(figure, name.replace("_", "-"), description))
    return {
        "compared": compared, "drawings": drawings, "methods": methods, "fewest": fewest_seeds(compared.alpha),
        "seconds_text": seconds_text,
    }  # fmt: skip


def write_verdict(found: Conclusion, page: Path, numbers_file: Path, command: str = "") -> None:
    """Write the page of `knowhue verdict`, one self-contained file, and the numbers as JSON."""
    study = found.findings.study
    text = fill(
        "verdict.html",
        study=study,
        command=command,
        numbers=numbers_file.name,
        results_link=_results_link(found),
        notices=notices(study),
        sections=_sections(found.findings, _TABLE_SECTIONS),
        answers=_answers(found),
    )
    write_json(numbers_file, found.results)
    with replacing(page) as file:
        file.write(text)


def _results_link(found: Conclusion) -> str:
    # browsers cannot read NaN in JSON
    return _data_link("application/json", json.dumps(found.results, indent=1, allow_nan=False))


def _answers(found: Conclusion) -> list[tuple[Any, ...]]:
    study = found.findings.study
    lower = study.table.lower_is_better
    return [
        (found.answers[name], measure(study.metrics, spec), lower(spec.metric), wording(study, name))
        for name, spec in study.questions.items()
    ]


def fill(template: str, **values: Any) -> str:
    """Fill a template of this package; values are escaped, and an undefined name is an error."""
    text = _templates().get_template(template).render(**values)
    # no line breaks before a per cent sign, as in `95 %` and `Accuracy, %`
    return re.sub(r"(?<=[\d,]) %", "\N{NO-BREAK SPACE}%", text)


@cache
def _templates() -> Environment:
    """Return the templates, each compiled once per process."""
    environment = Environment(
        loader=PackageLoader("knowhue.report", "."),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name is an error, not an empty cell
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sentence"] = _sentence
    environment.filters["command"] = _command
    environment.filters["plural"] = plural
    environment.filters["yaml"] = inline_yaml
    environment.globals["text_columns"] = _text_columns
    # Markup, because escaping would break the quotes of this file
    environment.globals["css"] = Markup(environment.loader.get_source(environment, "page.css")[0])  # type: ignore[union-attr]
    return environment


def _sentence(text: str) -> Markup:
    """Return a sentence as HTML: text between backticks is a command, and no line breaks within `p = .01`."""
    return Markup("".join(
        _command(part) if place % 2 else escape(part.replace("p = .", "p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}."))
        for place, part in enumerate(_TYPED.split(text))
    ))  # fmt: skip


def _command(text: str) -> Markup:
    """Return a command as HTML, each word in a span, because browsers break lines after the hyphens of an option."""
    words = Markup(" ").join(Markup("<span>{}</span>").format(word) for word in text.split(" "))
    return Markup("<code>{}</code>").format(words)


def _text_columns(rows: Sequence[Sequence[Any]]) -> list[bool]:
    """Return for each column of a table, header first, whether its cells are words, which are aligned to the left."""

    def initial(cell: Any) -> str:
        return str(getattr(cell, "value", cell) or "").lstrip("“\"'(")[:1].replace(MISSING, "")

    return ["".join(map(initial, column[1:])).isalpha() for column in zip(*rows, strict=True)]


def _sections(findings: Findings, wanted: Sequence[PageSection] = SECTIONS) -> list[dict[str, Any]]:
    """Return the sections that have something to show, with their figures as SVG and their tables as text."""
    study, shown, count = findings.study, [], 0
    for section in wanted:
        if section.of_several_seeds and len(study.seeds) < 2:
            continue
        figures = [each for name in section.figures if (each := _figure(study, name))]
        for each in figures:
            each["number"] = count = count + 1
        texts = [(TABLES[name], TABLES[name].text(findings)) for name in section.tables]
        tables = [(table, rows) for table, rows in texts if table.has_numbers(rows)]
        # a study may have no distances and no reason to report for it
        is_empty = section.part == "distances" and not (tables or numbers.not_computed(study))
        part = "" if is_empty else section.part
        if figures or tables or part:
            shown.append({
                "title": section.title, "is_open": section.is_open, "figures": figures, "tables": tables, "part": part,
            })  # fmt: skip
    return shown


def _figure(study: Study, name: str) -> dict[str, Any]:
    """Return a figure for the macro `show`; empty if it would show no numbers."""
    figure = FIGURES[name]
    drawn = figure.draw(study)
    if not drawn:
        return {}
    caption, rows = figure.caption_of(study).strip(), figure.rows(study) if figure.rows else []
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = [[row.get(name) for name in names] for row in rows]
    description = f"{figure.title} {caption}"
    return {
        "name": name, "title": figure.title, "caption": caption,
        "drawings": [Markup(to_svg(drawing, each, description)) for each, drawing in drawn.items()],
        "data": _data_link("text/csv", to_csv([names, *table])) if table else "",
    }  # fmt: skip


def _data_link(kind: str, text: str) -> str:
    # a data URL, because the page is one self-contained file
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
