r"""LaTeX that pdflatex takes: templates that escape or spell out every sign, tables; and the cited works as BibTeX."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from knowhue.report.text import MISSING, TableCell

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "Δ": r"$\Delta$", "α": r"$\alpha$", "≤": r"$\leq$",
    "†": r"\textdagger{}", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\rightarrow$", "←": r"$\leftarrow$",
    "✗": r"$\times$", "“": "``", "”": "''", "‘": "`", "’": "'", "–": "--", "—": "---", "…": r"\ldots{}",
    "\N{NO-BREAK SPACE}": "~", "\N{THIN SPACE}": r"\,", "○": r"$\circ$", "²": r"$^2$", "√": r"$\surd$",
    "\N{ZERO WIDTH SPACE}": r"\allowbreak{}", "\N{ZERO WIDTH NON-JOINER}": "{}",
}  # fmt: skip
_MOST_ROWS = 40
"""A table of more breaks over pages."""
_BROAD = 18
"""Letters of a cell before it is broken into lines."""
_LONGEST_WORD = 40
"""Letters of a word from which on it may be broken, or a table with one of 200 would be shrunk to illegible type."""
_LATIN = 0x17F  # up to here pdflatex has glyphs for letters


class Latex(str):
    """A text that is LaTeX already; templates print every other one by `tex`."""


def fill_latex(template: str, **values: Any) -> str:
    r"""A template of this package as LaTeX: in `\VAR{}` it escapes what it is given, and refuses what it is not."""
    return _templates().get_template(template).render(**values)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("knowhue.report", "."),
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Latex) else tex(str(value)),
        # braces and per cent signs are LaTeX's own
        block_start_string=r"\BLOCK{",
        block_end_string="}",
        variable_start_string=r"\VAR{",
        variable_end_string="}",
        comment_start_string=r"\COMMENT{",
        comment_end_string="}",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def tex(text: str) -> str:
    r"""A text as LaTeX prints it; a letter that no font of pdflatex has is spelt as its code point.

    >>> tex("50 % of a_b: −0.5 ± 0.1"), tex("\u7cf8"), tex("--arm")
    ('50~\\% of a\\_b: $-$0.5 $\\pm$ 0.1', '[U+7CF8]', '-{}-arm')
    """
    # a checksum or a long name may break after every eight signs but the last, a number never before its %
    text = re.sub(
        rf"\S{{{_LONGEST_WORD},}}", lambda word: re.sub(".{8}(?=..)", "\\g<0>\u200b", word[0]), text
    )
    # two hyphens, as of options, would be joined to a dash
    text = re.sub("-(?=-)", "-\u200c", text.replace(" %", "\N{NO-BREAK SPACE}%"))
    return "".join(_SPECIAL.get(sign) or _letter(sign) for sign in text)


def _letter(sign: str) -> str:
    if sign.isspace():
        return " "
    return sign if sign.isprintable() and ord(sign) <= _LATIN else f"[U+{ord(sign):04X}]"


def tex_citing(text: str) -> Latex:
    """A text as LaTeX, with a citation where it names a work by author and year."""
    found = tex(text)
    for named, key in IN_TEXTS.items():
        found = found.replace(named, rf"{named.rpartition(' ')[0]}~\cite{{{key}}}")
    return Latex(found)


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
    head, *lines = (Latex(tex_row([_cell(cell) for cell in row])) for row in rows)
    kinds = "".join(_column([row[place] for row in rows], place == 0) for place in range(len(rows[0])))
    return fill_latex(
        "table.tex", head=head, rows=lines, most_rows=_MOST_ROWS, kinds=Latex(kinds), caption=tex_citing(caption),
        label=label,
    )  # fmt: skip


def _column(cells: Sequence[Any], is_first: bool) -> str:
    """A column as wide as its longest number or word, whose longer texts break into lines."""
    texts = [f"{cell.value} {cell.below}" if isinstance(cell, TableCell) else str(cell) for cell in cells]
    longest = max(map(len, texts[1:]), default=0)
    # what `tex` holds together is one word
    held = (text.replace(" %", "_%").replace("\N{NO-BREAK SPACE}", "_") for text in texts)
    word = min(max(len(each) for text in held for each in text.split() or [""]), _LONGEST_WORD)
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


def plain_label(name: str) -> str:
    """A name as a label of LaTeX or of a file takes it.

    >>> plain_label("transfer_ab l1")
    'transfer-ab-l1'
    """
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")


IN_TEXTS = {
    "Benavoli et al. 2017": "benavoli2017",
    "Fifty et al. 2021": "fifty2021",
    "Guo et al. 2017": "guo2017",
    "Maninis et al. 2019": "maninis2019",
}
"""How captions name a work, and its key."""


@cache
def works() -> dict[str, str]:
    """What a study's statistics rest on: the entries of `references.bib` by key."""
    entries = re.findall(r"(@\w+\{(\w+),\n.*?\n\}\n)", fill_latex("references.bib"), re.DOTALL)
    return {key: entry for entry, key in entries}
