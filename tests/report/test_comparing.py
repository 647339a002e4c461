"""The report of a comparison, of runs that were never made."""

import json

import numpy as np
import pytest
from synthetic_comparison import ERRORS, write_comparison

from knowhue.errors import RunError
from knowhue.methods import METHODS
from knowhue.report.comparing.figure import MARKS
from knowhue.report.comparing.page import figures, write_comparison_report
from knowhue.report.comparing.reading import read_comparison
from knowhue.report.comparing.summary import results, scores, verdict
from knowhue.report.comparing.table import cost_table, markdown_tables, quality_table
from knowhue.statistics.crossed import crossed
from knowhue.statistics.paired import t_interval


@pytest.fixture
def folder(tmp_path):
    return write_comparison(tmp_path)


@pytest.fixture
def comparison(folder):
    return read_comparison(folder)


def test_differences_are_paired_by_seed(comparison):
    found = scores(comparison, "pictures")["l1", "ab_l1"]
    differences = [-1.0, -0.5, -1.0]
    assert found.mean == pytest.approx(12.0)
    assert found.found.estimate == pytest.approx(np.mean(differences))
    assert found.bounds.interval == pytest.approx(t_interval(differences))
    assert found.bounds.over == "seeds"


def test_only_seeds_that_both_finished_count(comparison):
    found = scores(comparison, "pictures")
    palette = found["palette-ab", "ab_l1"]
    assert sorted(palette.by_seed) == [0, 1]
    assert (palette.found.estimate, palette.found.seeds) == (pytest.approx(4.25), (0, 1))
    assert found["pix2pix", "ab_l1"].found.estimate == pytest.approx((3.0 + 2.0) / 2)


def test_with_scores_of_single_images_the_interval_is_over_seeds_and_images(tmp_path):
    folder = write_comparison(tmp_path)
    images = np.random.default_rng(1).normal(size=40)
    for method in ("l1", "gan"):
        for seed in range(3):
            moved = ERRORS[method][seed] + images * (method == "l1")
            rows = [
                f"{n},x.png,a,{value:.5f}" for n, value in enumerate(moved - images.mean() * (method == "l1"))
            ]
            path = folder / method / f"seed-{seed}" / "per_image.csv"
            path.write_text("\n".join(["index,path,label,ab_l1", *rows]))
    found = scores(read_comparison(folder), "pictures")["l1", "ab_l1"]
    differences = np.array([-1.0, -0.5, -1.0])[:, None] + images - images.mean()
    assert found.bounds.over == "seeds and images"
    assert found.bounds.interval == pytest.approx(crossed(differences).interval(0.95), abs=1e-4)


def test_three_seeds_give_no_verdict_and_nothing_is_bold(comparison):
    words = {method: verdict(comparison, "pictures", method) for method in ERRORS}
    assert words == {"l1": "no verdict", "gan": None, "palette-ab": "no verdict", "pix2pix": "no verdict"}
    assert not any(cell.clear for row in quality_table(comparison, "pictures") for cell in row)


def test_ten_seeds_are_judged_as_a_study_is(tmp_path):
    folder = write_comparison(tmp_path)
    asked = json.loads((folder / "comparison.json").read_text())
    asked["seeds"] = list(range(10))
    row = next(each for each in asked["runs"] if each["method"] == "l1")
    asked["runs"] = [
        row
        | {"method": method, "seed": seed, "scores": row["scores"] | {"ab_l1": 12 + seed % 3 / 10 - shift}}
        for seed in range(10)
        for method, shift in (("gan", 0.0), ("l1", 1.0 + seed / 100), ("palette-ab", -1.0 + seed / 100))
    ]
    (folder / "comparison.json").write_text(json.dumps(asked))
    found = read_comparison(folder)
    assert verdict(found, "pictures", "l1") == "helps, by what matters"
    assert verdict(found, "pictures", "palette-ab") == "hurts, by what matters"
    assert scores(found, "pictures")["l1", "ab_l1"].is_clear
    assert results(found)["regimes"]["pictures"]["methods"]["l1"]["verdict"] == "helps, by what matters"


def test_the_reference_is_not_compared_with_itself(comparison):
    assert scores(comparison, "pictures")["gan", "ab_l1"].found is None


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


def test_a_difference_stands_with_its_interval_below_the_value(comparison):
    row = quality_table(comparison, "pictures")[1]
    assert row[1].value == "no verdict"
    assert row[2].value == "12.00"
    assert row[2].below == "−0.83 (−1.55 to −0.12)†"


def test_the_heading_fits_every_choice_of_methods(folder):
    page = write_comparison_report(folder).read_text()
    assert "<h1>What does each way to colour give, and what does it cost?</h1>" in page
    assert "Is the GAN worth it" not in page


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
