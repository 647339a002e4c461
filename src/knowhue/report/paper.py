"""Files for a paper on a study: figures as PDF and SVG; tables, methods and results as LaTeX; references as BibTeX."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from knowhue.errors import ConfigError, plural
from knowhue.report.answers import answers
from knowhue.report.figures import FIGURES, write_drawing
from knowhue.report.findings import Findings, find
from knowhue.report.integrity import cells_sentence, image_sentences, machine_sentence, plan_sentence
from knowhue.report.latex import Latex, fill_latex, plain_label, tex_citing, tex_table, works
from knowhue.report.page import SECTIONS
from knowhue.report.reading import read_study
from knowhue.report.study import Study
from knowhue.report.tables import TABLES
from knowhue.report.text import measure
from knowhue.statistics import ALPHA
from knowhue.storage import replacing, require_outputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_TABLE_NAMES = ("questions", *(name for each in SECTIONS for name in each.tables if name != "exploratory"))
_PAGE_INCHES = 7.5
"""Height of a page that drawings may fill; the rest is for the caption."""


def write_paper(folder: Path, out: Path, overwrite: bool = False) -> list[Path]:
    """Write a study's files for a paper, `paper.tex` first, and return their paths.

    `pdflatex paper`, `bibtex paper` and `pdflatex paper` twice make a PDF. Figures are five inches wide with type of 8
    and 9 points, and are meant to be included without scaling. A `ConfigError` if a file exists, or the study is a
    comparison of methods; a `RunError` if `folder` is no study, or `out` cannot be written.
    """
    study = read_study(folder)
    if study.is_comparison:
        raise ConfigError(
            f"`--paper` should go with a study that asks questions. Found a comparison of methods in `{folder}`; its "
            "figures are written by --figures."
        )
    findings = find(study)
    drawn = {name: drawings for name, figure in FIGURES.items() if (drawings := figure.draw(study))}
    texts = _texts(findings, drawn)
    images = {
        f"figures/{plain_label(name)}.{kind}": drawing
        for drawings in drawn.values()
        for name, drawing in drawings.items()
        for kind in ("pdf", "svg")
    }
    # check all files before writing the first
    for name in (*texts, *images):
        require_outputs({"--paper": out / name}, overwrite=overwrite)
    for name, text in texts.items():
        with replacing(out / name) as file:
            file.write(text)
    for name, drawing in images.items():
        write_drawing(drawing, out / name)
    return [out / name for name in (*texts, *images)]


def _texts(findings: Findings, drawn: "Mapping[str, Mapping[str, Drawing]]") -> dict[str, str]:
    """Return the content of every text file by name, `paper.tex` first."""
    study, figures, tables = findings.study, {}, {}
    for name, drawings in drawn.items():
        figure, label = FIGURES[name], plain_label(name)
        caption = tex_citing(figure.caption_of(study))
        figures[f"figures/{label}.tex"] = fill_latex(
            "figure.tex", pages=_pages(drawings), title=figure.title, caption=caption, label=label
        )
    for name in _TABLE_NAMES:
        table, label = TABLES[name], plain_label(name)
        if table.has_numbers(rows := table.text(findings)):
            tables[f"tables/{label}.tex"] = tex_table(rows, f"{table.title}. {table.note}".strip(), label)
    methods = methods_paragraph(study)
    cited = "".join((methods, *figures.values(), *tables.values()))
    floats = [name.removesuffix(".tex") for name in (*figures, *tables)]
    return {
        "paper.tex": fill_latex("paper.tex", name=study.settings.get("name") or "Study", floats=floats),
        "preamble.tex": fill_latex("preamble.tex"),
        "methods.tex": methods,
        "results.tex": fill_latex("results.tex", answers=answers(findings).values()),
        "references.bib": "\n".join(entry for key, entry in works().items() if key in cited),
        **figures,
        **tables,
    }


def _pages(drawings: "Mapping[str, Drawing]") -> list[Latex]:
    """Split drawings into pages, without scaling; only a drawing higher than a page is made smaller."""
    pages: list[list[str]] = [[]]
    left = _PAGE_INCHES
    for name, drawing in drawings.items():
        height = float(drawing.get_figheight())
        if height > left and pages[-1]:
            pages.append([])
            left = _PAGE_INCHES
        left -= height
        size = rf"[height={_PAGE_INCHES}in]" if height > _PAGE_INCHES else ""
        pages[-1].append(rf"\includegraphics{size}{{figures/{plain_label(name)}}}")
    return [Latex("\\\\[1ex]\n".join(each)) for each in pages]


def methods_paragraph(study: Study) -> str:
    """Return the methods section, with the hash of the plan and citations."""
    questions = [
        (each, measure(study.metrics, each), study.table.lower_is_better(each.metric))
        for each in study.questions.values()
    ]
    heads, tuned = (study.config("training", phase, "epochs") for phase in ("heads", "finetune"))
    return fill_latex(
        "methods.tex",
        questions=questions,
        config=study.config,
        seeds=plural(len(study.seeds), "seed"),
        heads=plural(heads, "epoch"),
        tuned=tuned,
        images=image_sentences(study),
        alpha=study.settings.get("alpha", ALPHA),
        question_alpha=study.alpha,
        sentences=filter(None, (plan_sentence(study), cells_sentence(study), machine_sentence(study))),
    )
