"""The paper kit of a study: figures as PDF and SVG; tables, methods and results as LaTeX; references as BibTeX."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowhue.errors import ConfigError, plural
from knowhue.report.answers import answers
from knowhue.report.figures import FIGURES
from knowhue.report.findings import Findings, find
from knowhue.report.integrity import cells_sentence, image_sentences, machine_sentence, plan_sentence
from knowhue.report.latex import Latex, breakable, fill_latex, plain_label, tex, tex_citing, tex_table, works
from knowhue.report.page import SECTIONS
from knowhue.report.reading import read_study
from knowhue.report.study import Study
from knowhue.report.style import lay_out
from knowhue.report.tables import TABLES
from knowhue.report.text import measure
from knowhue.statistics import ALPHA
from knowhue.storage import replacing, require_outputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_TABLE_NAMES = (
    "questions",
    *(name for section in SECTIONS for name in section.tables if name != "exploratory"),
)
_PAGE_INCHES = 7.5
"""Of a page, for drawings; the rest is their caption's."""


def write_paper(folder: Path, out: Path, overwrite: bool = False) -> list[Path]:
    """Write the paper kit of a study; `pdflatex paper`, `bibtex paper` and `pdflatex paper` twice make a PDF of it.

    Figures are five inches wide and have type of 8 and 9 points: they are to be included at their own size.

    Returns:
        The files, `paper.tex` first.

    Raises:
        ConfigError: a file exists, or the study is a comparison of methods.
        RunError: `folder` is no study, or `out` cannot be written.
    """
    study = read_study(folder)
    if study.is_comparison:
        raise ConfigError(
            f"`--paper` should go with a study that asks questions. Found a comparison of methods in `{folder}`; its "
            "figures are written by --figures."
        )
    findings = find(study)
    drawn = {name: own for name, figure in FIGURES.items() if (own := figure.draw(study))}
    texts = _texts(findings, drawn)
    drawings = {each: drawing for own in drawn.values() for each, drawing in own.items()}
    images = [f"figures/{plain_label(name)}.{kind}" for name in drawings for kind in ("pdf", "svg")]
    # all of them, before the first is written
    for name in (*texts, *images):
        require_outputs({"--paper": out / name}, overwrite=overwrite)
    for name, text in texts.items():
        with replacing(out / name) as file:
            file.write(text)
    for name, drawing in drawings.items():
        lay_out(drawing)
        for kind in ("pdf", "svg"):
            write_drawing(drawing, out / "figures" / f"{plain_label(name)}.{kind}")
    return [out / name for name in (*texts, *images)]


def write_drawing(drawing: "Drawing", path: Path) -> None:
    """Write a laid out figure as `.pdf` or `.svg`, text as text, on white; the same figure gives the same bytes."""
    import matplotlib

    # fonts as outlines of TrueType, which publishers ask for
    settings: dict[Any, Any] = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": path.stem}
    date = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}[path.suffix[1:]]
    drawing.patch.set_visible(True)  # paper is white, also where a dark page shows it
    with matplotlib.rc_context(settings), replacing(path, "wb") as file:
        drawing.savefig(file, format=path.suffix[1:], metadata=date, facecolor="white")


def _texts(findings: Findings, drawn: "Mapping[str, Mapping[str, Drawing]]") -> dict[str, str]:
    """Every text file by name, `paper.tex` first."""
    tables = dict(_tables(findings))
    figures = {
        f"figures/{plain_label(name)}.tex": _figure(findings.study, name, own) for name, own in drawn.items()
    }
    methods = methods_paragraph(findings.study)
    cited = "".join((methods, *figures.values(), *tables.values()))
    floats = [name.removesuffix(".tex") for name in (*figures, *tables)]
    return {
        "paper.tex": fill_latex(
            "paper.tex", name=findings.study.settings.get("name") or "Study", floats=floats
        ),
        "preamble.tex": fill_latex("preamble.tex"),
        "methods.tex": methods,
        "results.tex": fill_latex("results.tex", answers=answers(findings).values()),
        "references.bib": "\n".join(entry for key, entry in works().items() if key in cited),
        **figures,
        **tables,
    }


def _figure(study: Study, name: str, drawings: "Mapping[str, Drawing]") -> str:
    figure = FIGURES[name]
    caption = tex_citing(figure.caption_of(study))
    return fill_latex(
        "figure.tex", pages=_pages(drawings), title=figure.title, caption=caption, label=plain_label(name)
    )


def _pages(drawings: "Mapping[str, Drawing]") -> list[Latex]:
    """Drawings at their own size, so that type of 8 points stays so; what is higher than a page is made smaller."""
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


def _tables(findings: Findings) -> Any:
    for name in _TABLE_NAMES:
        table = TABLES[name]
        rows = table.text(findings)
        if table.has_numbers(rows):
            caption = f"{table.title}. {table.note}".strip()
            yield f"tables/{plain_label(name)}.tex", tex_table(rows, caption, plain_label(name))


def methods_paragraph(study: Study) -> str:
    """How it was measured, with the hash of the plan and what to cite."""
    asked = [
        (each, measure(study.metrics, each), study.table.lower_is_better(each.metric))
        for each in study.questions.values()
    ]
    heads, tuned = (study.config("training", phase, "epochs") for phase in ("heads", "finetune"))
    return fill_latex(
        "methods.tex",
        asked=asked,
        config=study.config,
        seeds=plural(len(study.seeds), "seed"),
        heads=plural(heads, "epoch"),
        tuned=tuned,
        images=image_sentences(study),
        alpha=study.settings.get("alpha", ALPHA),
        own=study.alpha,
        sentences=filter(None, (_with_hash(study), cells_sentence(study), machine_sentence(study))),
    )


def _with_hash(study: Study) -> str:
    """What the plan's hash says, by the report's own check of it."""
    sentence, digest = plan_sentence(study), str(study.settings.get("hash") or "")
    if not digest or digest not in sentence:
        return sentence
    before, _, after = sentence.rpartition(digest)
    return Latex(tex(before) + breakable(digest) + tex(after))
