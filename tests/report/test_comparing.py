"""The report of a comparison, of runs that were never made."""

import numpy as np
import pytest
from synthetic_comparison import ERRORS, write_comparison

from knowhue.errors import RunError
from knowhue.methods import METHODS
from knowhue.report.comparing.figure import MARKS
from knowhue.report.comparing.page import figures, write_comparison_report
from knowhue.report.comparing.reading import read_comparison
from knowhue.report.comparing.summary import results, score
from knowhue.report.comparing.table import cost_table, markdown_tables, quality_table
from knowhue.statistics.paired import t_interval


@pytest.fixture
def folder(tmp_path):
    return write_comparison(tmp_path)


@pytest.fixture
def comparison(folder):
    return read_comparison(folder)


def test_differences_are_paired_by_seed(comparison):
    found = score(comparison, "pictures", "l1", "ab_l1")
    differences = [-1.0, -0.5, -1.0]
    assert found.mean == pytest.approx(12.0)
    assert found.difference.mean == pytest.approx(np.mean(differences))
    assert found.difference.interval == pytest.approx(t_interval(differences))
    assert found.difference.excludes_zero


def test_only_seeds_that_both_finished_count(comparison):
    palette = score(comparison, "pictures", "palette-ab", "ab_l1")
    assert sorted(palette.by_seed) == [0, 1]
    assert (palette.difference.mean, palette.difference.seeds) == (pytest.approx(4.25), 2)
    pix2pix = score(comparison, "pictures", "pix2pix", "ab_l1")
    assert pix2pix.difference.mean == pytest.approx((3.0 + 2.0) / 2)


def test_the_reference_is_not_compared_with_itself(comparison):
    assert score(comparison, "pictures", "gan", "ab_l1").difference is None


def test_what_did_not_finish_is_named(comparison, folder):
    expected = ["palette-ab, seed 2: diverged", "pix2pix, seed 0: missing"]
    assert comparison.unfinished("pictures") == expected
    page = write_comparison_report(folder).read_text()
    assert "; ".join(expected) in page
    assert "; ".join(expected) in markdown_tables(comparison)


def test_tables_have_a_row_a_method_and_as_many_cells_everywhere(comparison):
    for rows in (quality_table(comparison, "pictures"), cost_table(comparison, "pictures")):
        assert len({len(row) for row in rows}) == 1
        assert [row[0].value for row in rows[1 : 1 + len(ERRORS)]] == [METHODS[name].title for name in ERRORS]
    heads = [cell.value for cell in quality_table(comparison, "pictures")[0]]
    assert not any("FID" in head for head in heads)  # computed by nobody
    lines = [line for line in markdown_tables(comparison).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines if "epochs" in line or " + " in line} == {8}


def test_an_interval_that_excludes_0_is_clear(comparison):
    row = quality_table(comparison, "pictures")[1]
    assert row[1].value == "12.00"
    assert row[1].below == "−0.83 ± 0.72"
    assert row[1].clear


def test_the_page_says_every_number_and_asks_nobody(folder):
    page = write_comparison_report(folder).read_text()
    for cell in (cell for row in quality_table(read_comparison(folder), "pictures") for cell in row):
        assert cell.value in page.replace("&#39;", "'")
    assert "&lt;somebody &amp; others&gt;" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_results_are_what_the_tables_say(comparison):
    found = results(comparison)["regimes"]["pictures"]["methods"]
    assert found["l1"]["scores"]["ab_l1"]["mean"] == pytest.approx(12.0)
    assert found["l1"]["cost"]["train_s"] == pytest.approx(31.0)
    assert found["palette-ab"]["scores"]["ab_l1"]["by_seed"] == {0: 17.0, 1: 16.0}


def test_figures_are_drawn_of_whatever_is_there(comparison):
    assert set(figures(comparison)) == {"trade_off", "samples_pictures"}


def test_every_method_has_a_look_of_its_own():
    assert set(METHODS) <= set(MARKS)
    assert len(set(MARKS.values())) == len(MARKS)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"folder of a comparison.*comparison\.json"):
        read_comparison(tmp_path)
