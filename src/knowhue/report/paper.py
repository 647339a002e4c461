"""The paper kit of a study: figures as PDF and SVG; tables, methods and results as LaTeX; references as BibTeX."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowhue.errors import ConfigError, plural
from knowhue.report.answers import Answer, answers
from knowhue.report.figures import FIGURES, facts
from knowhue.report.findings import Findings, find
from knowhue.report.integrity import cells_sentence, image_sentences, machine_sentence, plan_sentence
from knowhue.report.latex import (
    PREAMBLE,
    WORKS,
    bibliography,
    breakable,
    plain_label,
    tex,
    tex_citing,
    tex_table,
)
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
_FLOATS = 4
"""Figures and tables between two page breaks: LaTeX holds only so many back."""


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
            _write_drawing(drawing, out / "figures" / f"{plain_label(name)}.{kind}")
    return [out / name for name in (*texts, *images)]


def _write_drawing(drawing: "Drawing", path: Path) -> None:
    import matplotlib

    # fonts as outlines of TrueType, which publishers ask for; no date, so that the same study gives the same bytes
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
    methods = methods_paragraph(findings)
    cited = "".join((methods, *figures.values(), *tables.values()))
    floats = [name.removesuffix(".tex") for name in (*figures, *tables)]
    return {
        "paper.tex": _paper(findings.study, floats),
        "preamble.tex": PREAMBLE,
        "methods.tex": methods,
        "results.tex": results_paragraphs(findings, answers(findings)),
        "references.bib": bibliography(name for name in WORKS if name in cited),
        **figures,
        **tables,
    }


def _paper(study: Study, floats: list[str]) -> str:
    lines = []
    for place, name in enumerate(floats, 1):
        lines.append(rf"\input{{{name}}}")
        if place % _FLOATS == 0:
            lines.append(r"\clearpage")
    inputs = "\n".join(lines)
    return rf"""% pdflatex paper && bibtex paper && pdflatex paper && pdflatex paper
\documentclass[10pt]{{article}}
\usepackage[textwidth=5.5in,textheight=9in]{{geometry}}
\input{{preamble}}
\begin{{document}}
\section*{{{tex(str(study.settings.get("name") or "Study"))}}}
\subsection*{{Methods}}
\input{{methods}}
\subsection*{{Results}}
\input{{results}}
\bibliographystyle{{plain}}
\bibliography{{references}}
\clearpage
{inputs}
\end{{document}}
"""


def _figure(study: Study, name: str, drawings: "Mapping[str, Drawing]") -> str:
    figure = FIGURES[name]
    texts = [rf"\textbf{{{tex(figure.title)}}} {tex_citing(figure.caption.format(**facts(study)))}"]
    labels = [rf"\label{{fig:{plain_label(name)}}}"]
    pages = _pages(drawings)
    for _ in pages[1:]:
        texts.append(rf"\textbf{{{tex(figure.title)}}} Continued.")
        labels.append("")
    return "".join(
        f"\\begin{{figure}}[htbp]\n\\centering\n{included}\n\\caption{{{text}}}{label}\n\\end{{figure}}\n"
        for included, text, label in zip(pages, texts, labels, strict=True)
    )


def _pages(drawings: "Mapping[str, Drawing]") -> list[str]:
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
    return ["\\\\[1ex]\n".join(each) for each in pages]


def _tables(findings: Findings) -> Any:
    for name in _TABLE_NAMES:
        table = TABLES[name]
        rows = table.text(findings)
        if table.has_numbers(rows):
            caption = f"{table.title}. {table.note}".strip()
            yield f"tables/{plain_label(name)}.tex", tex_table(rows, caption, plain_label(name))


def results_paragraphs(findings: Findings, answered: Mapping[str, Answer]) -> str:
    """Every answer as a paragraph, as the page says it; nothing is added to it."""
    return "\n\n".join(
        f"\\paragraph{{{tex(each.question)}}} {tex(each.sentence)}" for each in answered.values()
    ) + "\n"  # fmt: skip


def methods_paragraph(findings: Findings) -> str:
    """How it was measured, with the hash of the plan and what to cite."""
    study = findings.study
    sentences = [
        tex(_questions_sentence(study)),
        tex(_training_sentence(study)),
        *map(tex, image_sentences(study)),
        *_statistics(study),
        _with_hash(study),
        *map(tex, filter(None, (cells_sentence(study), machine_sentence(study)))),
    ]
    return "\n".join(sentences) + "\n"


def _questions_sentence(study: Study) -> str:
    asked = "; ".join(_asked(study, name) for name in study.questions)
    return f"{'The questions are' if len(study.questions) > 1 else 'The question is'}: {asked}."


def _training_sentence(study: Study) -> str:
    config = study.config
    heads, tuned = (config("training", phase, "epochs") for phase in ("heads", "finetune"))
    return (
        f"Arms are paired by seed ({plural(len(study.seeds), 'seed')}): those of a seed begin with the same weights "
        f"and see the same images in the same steps. Images have {config('images', 'size_px')} pixels a side; the "
        f"encoder is {config('encoder', 'name') or 'none'}. Heads train on the frozen encoder for "
        f"{plural(heads, 'epoch')}, then everything for {tuned}."
    )


def _statistics(study: Study) -> list[str]:
    """What decides, in the order in which it does, with the works that it is from."""
    alpha, own = study.settings.get("alpha", ALPHA), study.alpha
    parts = (
        ("The mean difference has an interval over the populations of seeds and of images", ()),
        (" (two-way layout with random rows and columns", ("cornfield1956", "satterthwaite1946")),
        ("); where no image has a score of its own, over seeds, on these test images alone.", ()),
        (f" Of alpha {alpha:g}, shared out among the questions, each has {own:g}:", ()),
        (" a difference is claimed where the exact sign-flip test", ("fisher1935",)),
        (f" rejects and the interval at {100 * (1 - own):g} % excludes 0; equivalence", ("schuirmann1987",)),
        (f" where the one at {100 * (1 - 2 * own):g} % lies within the smallest effect of interest.", ()),
        (" Further metrics are adjusted for their number", ("benjamini1995",)),
        ("; effect sizes are paired and freed of small-sample bias", ("hedges1981",)),
        ("; probabilities have the smallest effect of interest as region of equivalence", ("benavoli2017",)),
        ("; the mean relative gain is that of multi-task papers", ("maninis2019",)),
        (".", ()),
    )
    return ["".join(tex(text) + _cite(*names) for text, names in parts)]


def _asked(study: Study, name: str) -> str:
    asked = study.questions[name]
    measured = measure(study.metrics, asked)
    side = "lower" if study.table.lower_is_better(asked.metric) else "higher"
    return (
        f"{measured.title} of the arm “{asked.multi}” against “{asked.single}” ({side} is better; smallest effect of "
        f"interest {measured.amount(asked.sesoi)})"
    )


def _with_hash(study: Study) -> str:
    """What the plan's hash says, by the report's own check of it."""
    sentence, digest = plan_sentence(study), str(study.settings.get("hash") or "")
    if not digest or digest not in sentence:
        return tex(sentence)
    before, _, after = sentence.rpartition(digest)
    return tex(before) + breakable(digest) + tex(after)


def _cite(*names: str) -> str:
    return rf"~\cite{{{','.join(names)}}}" if names else ""
