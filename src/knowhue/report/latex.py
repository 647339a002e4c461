r"""LaTeX that pdflatex takes: text with every sign escaped or spelt out, tables; and the cited works as BibTeX."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from knowhue.report.text import MISSING, TableCell

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "Δ": r"$\Delta$", "α": r"$\alpha$", "≤": r"$\leq$",
    "†": r"\textdagger{}", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\rightarrow$", "←": r"$\leftarrow$",
    "✗": r"$\times$", "“": "``", "”": "''", "‘": "`", "’": "'", "–": "--", "—": "---", "…": r"\ldots{}",
    "\N{NO-BREAK SPACE}": "~", "\N{THIN SPACE}": r"\,", "○": r"$\circ$", "²": r"$^2$", "√": r"$\surd$",
}  # fmt: skip
_MOST_ROWS = 40
"""A table of more breaks over pages."""
_BROAD = 18
"""Letters of a cell before it is broken into lines."""
_LATIN = 0x17F
"""Up to here pdflatex has glyphs for letters."""


def tex(text: str) -> str:
    r"""A text as LaTeX prints it; a letter that no font of pdflatex has is spelt as its code point.

    >>> tex("50 % of a_b: −0.5 ± 0.1"), tex("\u7cf8"), tex("--arm")
    ('50~\\% of a\\_b: $-$0.5 $\\pm$ 0.1', '[U+7CF8]', '-{}-arm')
    """
    # no line breaks between a number and its per cent; two hyphens, as of options, would be printed as a dash
    signs = text.replace(" %", "\N{NO-BREAK SPACE}%")
    return "".join(
        ("{}" if sign == before == "-" else "") + (_SPECIAL.get(sign) or _letter(sign))
        for before, sign in zip(" " + signs, signs, strict=False)
    )


def _letter(sign: str) -> str:
    if sign.isspace():
        return " "
    return sign if sign.isprintable() and ord(sign) <= _LATIN else f"[U+{ord(sign):04X}]"


def tex_citing(text: str) -> str:
    """A text as LaTeX, with a citation where it names a work by author and year."""
    found = tex(text)
    for named, key in IN_TEXTS.items():
        found = found.replace(named, rf"{named.rpartition(' ')[0]}~\cite{{{key}}}")
    return found


def breakable(digest: str) -> str:
    """A long checksum in the type of code, which may break after every eight digits."""
    parts = [digest[place : place + 8] for place in range(0, len(digest), 8)]
    return r"\texttt{" + r"\allowbreak{}".join(map(tex, parts)) + "}"


def tex_row(cells: Sequence[str]) -> str:
    r"""A row of a table, of cells that are LaTeX already.

    >>> print(tex_row(["[a]", "1"]))
    {}[a] & 1 \\
    """
    # to the end of the row before, or to \midrule, a bracket or a star would be an argument
    guard = "{}" if cells[0].startswith(("[", "*")) else ""
    return guard + " & ".join(cells) + r" \\"


def tex_table(rows: Sequence[Sequence[Any]], caption: str, label: str) -> str:
    """A table with its caption: `tabular` between the rules of booktabs, as wide as the column at most.

    Args:
        rows: the header first; text, numbers, `TableCell` or None.
        caption: plain text; works that it names are cited.
        label: a plain word; the table is `tab:<label>`.
    """
    lines = [tex_row([_cell(cell) for cell in row]) for row in rows]
    kinds = "".join(_column([row[place] for row in rows], place == 0) for place in range(len(rows[0])))
    head = rf"\caption{{{tex_citing(caption)}}}\label{{tab:{label}}}"
    body = "\n".join(lines[1:])
    if len(rows) - 1 > _MOST_ROWS:
        return (
            f"{{\\scriptsize\\setlength{{\\tabcolsep}}{{3pt}}\n\\begin{{longtable}}{{{kinds}}}\n{head}\\\\\n\\toprule\n"
            f"{lines[0]}\n\\midrule\n\\endhead\n{body}\n\\bottomrule\n\\end{{longtable}}}}\n"
        )
    return (
        f"\\begin{{table}}[htbp]\n\\centering\\footnotesize\\setlength{{\\tabcolsep}}{{4pt}}\n{head}\n\\fitcolumn{{\\begin{{tabular}}{{{kinds}}}\n\\toprule\n"
        f"{lines[0]}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}}}\n\\end{{table}}\n"
    )


def _column(cells: Sequence[Any], is_first: bool) -> str:
    """A column as wide as its longest number or word, whose longer texts break into lines."""
    texts = [f"{cell.value} {cell.below}" if isinstance(cell, TableCell) else str(cell) for cell in cells]
    longest = max(map(len, texts[1:]), default=0)
    # what `tex` holds together is one word
    held = (text.replace(" %", "_%").replace("\N{NO-BREAK SPACE}", "_") for text in texts)
    word = max(len(each) for text in held for each in text.split() or [""])
    side = "raggedright" if is_first else "raggedleft"
    return rf">{{\{side}\arraybackslash}}p{{{0.56 * max(word, min(longest, _BROAD)) + 0.5:.1f}em}}"


def _cell(cell: Any) -> str:
    if cell is None:
        return tex(MISSING)
    if not isinstance(cell, TableCell):
        return tex(str(cell))
    below = tex(cell.below)
    below = rf"\textbf{{{below}}}" if cell.clear else below
    return f"{tex(cell.value)} {{\\scriptsize {below}}}" if below else tex(cell.value)


PREAMBLE = r"""\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{array,booktabs,graphicx,longtable}
% a table that is wider than the column is made as wide as it
\newsavebox{\fitbox}
\setlength{\belowcaptionskip}{5pt}
\providecommand{\fitcolumn}[1]{\sbox{\fitbox}{#1}%
  \ifdim\wd\fitbox>\linewidth\resizebox{\linewidth}{!}{\usebox{\fitbox}}\else\usebox{\fitbox}\fi}
"""


def plain_label(name: str) -> str:
    """A name as a label of LaTeX or of a file takes it.

    >>> plain_label("transfer_ab l1")
    'transfer-ab-l1'
    """
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")


WORKS: dict[str, tuple[str, dict[str, str]]] = {
    "fisher1935": (
        "book",
        {
            "author": "Fisher, Ronald A.", "title": "The Design of Experiments", "publisher": "Oliver and Boyd",
            "address": "Edinburgh", "year": "1935",
        },
    ),
    "cornfield1956": (
        "article",
        {
            "author": "Cornfield, Jerome and Tukey, John W.",
            "title": "Average Values of Mean Squares in Factorials",
            "journal": "The Annals of Mathematical Statistics", "volume": "27", "number": "4", "pages": "907--949",
            "year": "1956",
        },
    ),
    "satterthwaite1946": (
        "article",
        {
            "author": "Satterthwaite, Franklin E.",
            "title": "An Approximate Distribution of Estimates of Variance Components",
            "journal": "Biometrics Bulletin", "volume": "2", "number": "6", "pages": "110--114", "year": "1946",
        },
    ),
    "schuirmann1987": (
        "article",
        {
            "author": "Schuirmann, Donald J.",
            "title": "A Comparison of the Two One-Sided Tests Procedure and the Power Approach for Assessing the "
            "Equivalence of Average Bioavailability",
            "journal": "Journal of Pharmacokinetics and Biopharmaceutics", "volume": "15", "number": "6",
            "pages": "657--680", "year": "1987",
        },
    ),
    "benjamini1995": (
        "article",
        {
            "author": "Benjamini, Yoav and Hochberg, Yosef",
            "title": "Controlling the False Discovery Rate: A Practical and Powerful Approach to Multiple Testing",
            "journal": "Journal of the Royal Statistical Society, Series B", "volume": "57", "number": "1",
            "pages": "289--300", "year": "1995",
        },
    ),
    "hedges1981": (
        "article",
        {
            "author": "Hedges, Larry V.",
            "title": "Distribution Theory for {Glass}'s Estimator of Effect Size and Related Estimators",
            "journal": "Journal of Educational Statistics", "volume": "6", "number": "2", "pages": "107--128",
            "year": "1981",
        },
    ),
    "benavoli2017": (
        "article",
        {
            "author": r"Benavoli, Alessio and Corani, Giorgio and Dem{\v{s}}ar, Janez and Zaffalon, Marco",
            "title": "Time for a Change: a Tutorial for Comparing Multiple Classifiers Through {Bayesian} Analysis",
            "journal": "Journal of Machine Learning Research", "volume": "18", "number": "77", "pages": "1--36",
            "year": "2017",
        },
    ),
    "guo2017": (
        "inproceedings",
        {
            "author": "Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.",
            "title": "On Calibration of Modern Neural Networks",
            "booktitle": "Proceedings of the 34th International Conference on Machine Learning",
            "pages": "1321--1330", "year": "2017",
        },
    ),
    "fifty2021": (
        "inproceedings",
        {
            "author": "Fifty, Christopher and Amid, Ehsan and Zhao, Zhe and Yu, Tianhe and Anil, Rohan and "
            "Finn, Chelsea",
            "title": "Efficiently Identifying Task Groupings for Multi-Task Learning",
            "booktitle": "Advances in Neural Information Processing Systems", "volume": "34", "pages": "27503--27516",
            "year": "2021",
        },
    ),
    "maninis2019": (
        "inproceedings",
        {
            "author": "Maninis, Kevis-Kokitsi and Radosavovic, Ilija and Kokkinos, Iasonas",
            "title": "Attentive Single-Tasking of Multiple Tasks",
            "booktitle": "Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition",
            "pages": "1851--1860", "year": "2019",
        },
    ),
}  # fmt: skip
"""What a study's statistics rest on, by key: the kind of entry, and its fields."""
IN_TEXTS = {
    "Benavoli et al. 2017": "benavoli2017",
    "Fifty et al. 2021": "fifty2021",
    "Guo et al. 2017": "guo2017",
    "Maninis et al. 2019": "maninis2019",
}
"""How captions name a work, and its key."""


def bibliography(names: Iterable[str]) -> str:
    """The entries of some of `WORKS` as BibTeX."""
    return "\n".join(_entry(name) for name in names)


def _entry(name: str) -> str:
    kind, fields = WORKS[name]
    lines = "".join(f"  {field} = {{{value}}},\n" for field, value in fields.items())
    return f"@{kind}{{{name},\n{lines}}}\n"
