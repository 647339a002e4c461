"""The paper kit: LaTeX that compiles, with the numbers of the page, and figures one column wide."""

import re
import shutil
import subprocess
from importlib.resources import files

import pytest
from synthetic_study import answer_of, change, table_text, write_study

from knowhue.errors import ConfigError
from knowhue.report.figures import FIGURES
from knowhue.report.latex import IN_TEXTS, tex, tex_citing, tex_table, works
from knowhue.report.paper import write_paper
from knowhue.report.reading import read_study
from knowhue.report.tables import TABLES
from knowhue.report.text import TableCell

SIGNS = {r"\textbackslash{}": "\\", "$-$": "−", r"$\pm$": "±", r"\textdagger{}": "†", "``": "“", "''": "”", "--": "–",
         r"$\downarrow$": "↓", r"$\uparrow$": "↑", "~": " ", r"\textless{}": "<",
         r"\textgreater{}": ">", r"$\Delta$": "Δ"}  # fmt: skip


def untex(text):
    """The characters of the printed page, by an independent table."""
    for command, sign in SIGNS.items():
        text = text.replace(command, sign)
    return re.sub(r"\\([%&#_{}$])", r"\1", re.sub(r"\{\\scriptsize (?:\\textbf\{)?([^{}]*)\}+", r"\1", text))


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """A kit of eight seeds in which every figure shows something."""
    folder = tmp_path_factory.mktemp("paper")
    arms = ("class", "colour", "multi", "oracle")
    write_study(folder / "study", seeds=tuple(range(8)), arms=arms, gain=0.5)
    names = {"name": r"50 % of a_b & {c} $x^2$ \end{document} # ~ 糸"}
    change(folder / "study" / "study.json", lambda study: study.update(names))
    write_paper(folder / "study", folder / "kit")
    return folder


def test_the_tables_hold_what_the_page_shows(kit):
    study = read_study(kit / "study")
    for name in ("colour_scores", "class_scores", "seeds", "probabilities", "delta_m"):
        text = (kit / "kit" / "tables" / f"{name.replace('_', '-')}.tex").read_text(encoding="utf-8")
        assert text.count("\\toprule") == text.count("\\midrule") == text.count("\\bottomrule") == 1
        rows = [
            untex(line.removesuffix(r" \\")).split(" & ")
            for line in text.splitlines()
            if line.endswith(r" \\")
        ]
        shown = [
            [f"{cell.value} {cell.below}".strip() if isinstance(cell, TableCell) else "–" if cell is None else str(cell)
             for cell in row]
            for row in table_text(study, name)
        ]  # fmt: skip
        assert rows == shown


def test_methods_and_results_say_what_the_page_says(kit):
    study, methods = read_study(kit / "study"), (kit / "kit" / "methods.tex").read_text(encoding="utf-8")
    assert study.settings["hash"] in methods.replace(r"\allowbreak{}", "")
    assert "0.025 each" in methods
    assert "interval at 97.5~\\% excludes 0" in methods
    results = untex((kit / "kit" / "results.tex").read_text(encoding="utf-8"))
    for question in study.questions:
        assert answer_of(study, question).sentence.replace("\N{NO-BREAK SPACE}", " ") in results


def test_every_work_that_is_cited_is_in_the_bibliography_and_none_else(kit):
    bib = (kit / "kit" / "references.bib").read_text(encoding="utf-8")
    texts = "".join(path.read_text(encoding="utf-8") for path in (kit / "kit").rglob("*.tex"))
    cited = {key for group in re.findall(r"\\cite\{([^}]*)\}", texts) for key in group.split(",")}
    assert set(re.findall(r"^@\w+\{(\w+),", bib, re.MULTILINE)) == cited
    assert all(entry.count("year = {") == 1 for entry in works().values())
    assert (
        len(works()) == files("knowhue.report").joinpath("references.bib").read_text("utf-8").count("\n@") + 1
    )


def test_every_work_that_a_caption_names_is_cited(kit):
    texts = "".join(path.read_text(encoding="utf-8") for path in (kit / "kit").rglob("*.tex"))
    assert not re.search(r"et al\. \d{4}", texts)
    captions = " ".join(
        [*(each.caption for each in FIGURES.values()), *(each.note for each in TABLES.values())]
    )
    assert set(re.findall(r"[A-Z]\w+ (?:et al\. )?(?:19|20)\d\d", captions)) <= set(IN_TEXTS)
    assert set(IN_TEXTS.values()) <= set(works())
    assert tex_citing("a_b (Guo et al. 2017)") == r"a\_b (Guo et al.~\cite{guo2017})"


def test_figures_are_five_inches_wide_and_the_same_bytes_again(kit):
    figures = kit / "kit" / "figures"
    names = {path.stem for path in figures.glob("*.pdf")}
    assert names == {path.stem for path in figures.glob("*.svg")}
    assert {"transfer-colour", "transfer-class", "samples", "setup", "forest-colour"} <= names
    for path in figures.glob("*.pdf"):
        data = path.read_bytes()
        (width,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ", data)
        assert float(width) == pytest.approx(360)
        assert b"/Type3" not in data
    change(kit / "study" / "study.json", lambda study: None)
    write_paper(kit / "study", kit / "again")
    for path in sorted(kit.glob("kit/**/*.*")):
        assert (kit / "again" / path.relative_to(kit / "kit")).read_bytes() == path.read_bytes(), path.name


def test_figures_have_a_white_ground_on_a_dark_page_too(kit):
    for path in (kit / "kit" / "figures").glob("*.svg"):
        assert re.search(r'<g id="patch_1">\s*<path d="[^"]*"\s*style="fill: #ffffff', path.read_text()), path


def test_nothing_is_written_over_and_nothing_before_all_is_known_to_be_free(kit, tmp_path, monkeypatch):
    monkeypatch.setattr("knowhue.report.paper.FIGURES", {"setup": FIGURES["setup"]})
    taken = tmp_path / "figures" / "setup.svg"
    taken.parent.mkdir()
    taken.write_text("mine")
    with pytest.raises(ConfigError, match=r"setup.svg already exists"):
        write_paper(kit / "study", tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [taken]
    write_paper(kit / "study", tmp_path, overwrite=True)
    assert taken.read_text(encoding="utf-8") != "mine"


def test_a_comparison_of_methods_has_none(tmp_path):
    write_study(tmp_path, arms=("colour",))
    change(tmp_path / "study.json", lambda study: study.update(reference="colour", questions={}))
    with pytest.raises(ConfigError, match="asks questions"):
        write_paper(tmp_path, tmp_path / "kit")


def test_no_sign_of_a_text_is_a_command():
    assert tex(r"\input{x} 5 % $y_1^2$ & #~") == (
        r"\textbackslash{}input\{x\} 5~\% \$y\_1\textasciicircum{}2\$ \& \#\textasciitilde{}"
    )
    table = tex_table([["Class", "n"], ["糸", 1], ["*", 2]], "All", "all")
    assert all(line not in table for line in ("\n[U", "\n*"))
    assert "\n{}[U+7CF8] & 1" in table
    assert tex("糸\n\x1b") == "[U+7CF8] [U+001B]"


def test_a_long_table_breaks_over_pages_and_a_short_one_floats():
    rows = [["Class", "n"], *([f"c{place}", place] for place in range(41))]
    assert "\\begin{longtable}" in tex_table(rows, "All", "all")
    assert "\\begin{table}" in tex_table(rows[:41], "All", "all")


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="needs pdflatex: apt-get install texlive-latex-recommended"
)
def test_it_compiles_and_nothing_sticks_out(kit):
    for command in (["pdflatex"], ["bibtex"], ["pdflatex"], ["pdflatex"]):
        options = ["-interaction=nonstopmode", "-halt-on-error"] * (command == ["pdflatex"])
        done = subprocess.run(
            [*command, *options, "paper"], cwd=kit / "kit", capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    log = (kit / "kit" / "paper.log").read_text(errors="replace")
    assert not re.findall(r"undefined|Overfull \\[hv]box|Float too large|Missing character", log)
    assert (kit / "kit" / "paper.pdf").stat().st_size > 100_000


def test_a_word_of_200_letters_is_broken_and_leaves_its_table_readable():
    table = tex_table([["Arm", "n"], ["a" * 200, 1]], "All", "all")
    assert r"\allowbreak{}".join(["a" * 8] * 10) in table
    assert "a" * 41 not in table
    assert tex("a" * 40 + ".").endswith("a" * 8 + ".")  # no line begins with the full stop
    assert max(float(width) for width in re.findall(r"p\{([0-9.]+)em", table)) < 25
