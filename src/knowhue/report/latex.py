r"""LaTeX for pdflatex: templates that escape every character, tables, and the cited works as BibTeX."""

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
"""A table with more rows may break over pages."""
_BROAD = 18
"""Characters of a cell that fit on one line."""
_LONGEST_WORD = 40
"""Words of this many characters or more may be broken; a table with a word of 200 would shrink to illegible type."""
_LATIN = 0x17F
"""Last code point of the letters that pdflatex's fonts have."""


class Latex(str):
    """Text that is LaTeX already; templates escape every other text by `tex`."""


def fill_latex(template: str, **values: Any) -> str:
    r"""Fill a template of this package; `\VAR{}` escapes its value, and an undefined name is an error."""
    return _templates().get_template(template).render(**values)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("knowhue.report", "."),
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Latex) else tex(str(value)),
        # LaTeX uses Jinja's usual braces and per cent signs itself
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
    r"""Escape a text for LaTeX; a character that pdflatex's fonts lack becomes its code point.

    >>> tex("50 % of a_b: −0.5 ± 0.1"), tex("\u7cf8"), tex("--arm")
    ('50~\\% of a\\_b: $-$0.5 $\\pm$ 0.1', '[U+7CF8]', '-{}-arm')
    """
    # a checksum or a long name may break after every eight characters, except before the last one
    long_words = rf"\S{{{_LONGEST_WORD},}}"
    text = re.sub(long_words, lambda word: re.sub(".{8}(?=..)", "\\g<0>\u200b", word[0]), text)
    # LaTeX would join two hyphens, as in options, to a dash
    text = re.sub("-(?=-)", "-\u200c", text.replace(" %", "\N{NO-BREAK SPACE}%"))
    return "".join(_SPECIAL.get(sign) or _letter(sign) for sign in text)


def _letter(sign: str) -> str:
    if sign.isspace():
        return " "
    return sign if sign.isprintable() and ord(sign) <= _LATIN else f"[U+{ord(sign):04X}]"


def tex_citing(text: str) -> Latex:
    """Escape a text for LaTeX, and cite the works that it names by author and year."""
    found = tex(text)
    for named, key in IN_TEXTS.items():
        found = found.replace(named, rf"{named.rpartition(' ')[0]}~\cite{{{key}}}")
    return Latex(found)


def tex_row(cells: Sequence[str]) -> str:
    r"""Return a row of a table, from cells that are LaTeX already.

    >>> print(tex_row(["[a]", "1"]))
    {}[a] & 1 \\
    """
    # a leading bracket or star would be read as an argument of the previous row's end or of \midrule
    guard = "{}" if cells[0].startswith(("[", "*")) else ""
    return guard + " & ".join(cells) + r" \\"


def tex_table(rows: Sequence[Sequence[Any]], caption: str, label: str) -> str:
    """Return a table in the style of booktabs with its caption, at most as wide as the text column.

    Args:
        rows: header first; cells are text, numbers, `TableCell` or None.
        caption: plain text; works that it names are cited.
        label: the table's label is `tab:<label>`.
    """
    head, *lines = (Latex(tex_row([_cell(cell) for cell in row])) for row in rows)
    kinds = "".join(_column([row[place] for row in rows], place == 0) for place in range(len(rows[0])))
    return fill_latex(
        "table.tex", head=head, rows=lines, most_rows=_MOST_ROWS, kinds=Latex(kinds), caption=tex_citing(caption),
        label=label,
    )  # fmt: skip


def _column(cells: Sequence[Any], is_first: bool) -> str:
    """Return the column type: as wide as the longest number or word; longer texts break into lines."""
    texts = [f"{cell.value} {cell.below}" if isinstance(cell, TableCell) else str(cell) for cell in cells]
    longest = max(map(len, texts[1:]), default=0)
    # `tex` does not break lines at these spaces either
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
    """Return a name in characters that are valid in LaTeX labels and file names.

    >>> plain_label("transfer_ab l1")
    'transfer-ab-l1'
    """
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")


IN_TEXTS = {
    "Benavoli et al. 2017": "benavoli2017", "Fifty et al. 2021": "fifty2021", "Guo et al. 2017": "guo2017",
    "Maninis et al. 2019": "maninis2019",
}  # fmt: skip
"""Keys of `references.bib` by the words with which captions name a work."""


@cache
def works() -> dict[str, str]:
    """Return the entries of `references.bib` by key."""
    entries = re.findall(r"(@\w+\{(\w+),\n.*?\n\}\n)", fill_latex("references.bib"), re.DOTALL)
    return {key: entry for entry, key in entries}
