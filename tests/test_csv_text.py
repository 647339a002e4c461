"""CSV: no cell is a formula, and every text is read back unchanged."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowhue.csv_text import from_csv, read_rows, to_csv
from knowhue.errors import RunError
from knowhue.storage import read_csv, write_csv

FORMULAS = ["=cmd|calc!A1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", " =1", "|x", "＝1", "'=1", "\r=1", "%0A"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formula_is_text_in_a_spreadsheet(text):
    cell = to_csv([[text]]).strip('"\n')
    assert cell.startswith("'")


@pytest.mark.parametrize("number", [-0.5, 3, "-12", "+1.5e-3", "-.5", ""])
def test_numbers_are_left_alone(number):
    assert to_csv([[number, 0]]) == f"{number},0\n"


TEXT = st.text(
    st.one_of(st.sampled_from("=+-@'\t\r\n;, \""), st.characters(exclude_categories=["Cs"])), max_size=6
)


@given(st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(TEXT, min_size=width, max_size=width))))
def test_reading_gives_what_was_written(rows):
    header = [f"=column {i}" for i in range(len(rows[0]) if rows else 1)]
    assert list(read_rows(io.StringIO(to_csv([header, *rows]), newline=""))) == [header, *rows]


def test_file_keeps_line_ends_within_cells(tmp_path):
    write_csv(tmp_path / "a.csv", [["name", "x"], ["one\r\ntwo\rthree\nfour", 1]])
    assert read_csv(tmp_path / "a.csv") == [{"name": "one\r\ntwo\rthree\nfour", "x": "1"}]


@pytest.mark.parametrize(
    "text",
    ["sep=;\na;b\n1,5;2\n", "SEP=;\r\na;b\r\n1,5;2\r\n", '"sep=;"\na;b\n1,5;2\n', "sep=\t\na\tb\n1,5\t2\n"],
)
def test_the_first_line_of_excel_says_what_separates(text):
    assert from_csv(text) == [(2, {"a": "1,5", "b": "2"})]


@pytest.mark.parametrize("above", ["", "\n", "\r\n\r\n", "  \n", "{0}\n{0}{0}\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_rows_without_text_are_counted_and_left_out(above, separator):
    above = above.format(separator)
    table = f"{above}a{separator}b\n1{separator}2\n\n{separator}\n3{separator}4\n\n"
    header = above.count("\n") + 1
    assert from_csv(table) == [(header + 1, {"a": "1", "b": "2"}), (header + 4, {"a": "3", "b": "4"})]


def test_a_fault_is_said_of_its_row():
    with pytest.raises(ValueError, match=r"^row 5: "):
        from_csv('\na,b\n1,2\n\n"1,2\n')
    with pytest.raises(ValueError, match=r"^row 4 has 1 cells, but row 2 has 2"):
        from_csv("\na,b\n\n1\n")


@pytest.mark.parametrize("text", ["a,b\n1\n", "a,b\n1,2,3\n", 'a,b\n"1,2\n'])
def test_damaged_table_is_one_line(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(RunError, match=r"a\.csv` is damaged: no table") as raised:
        read_csv(tmp_path / "a.csv")
    assert "\n" not in str(raised.value)
