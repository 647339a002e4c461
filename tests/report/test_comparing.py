"""The report of a comparison, of runs that were never made."""

import json

import numpy as np
import pytest
from synthetic_comparison import ERRORS, write_comparison

from knowhue.errors import RunError
from knowhue.presets import METHODS
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
    found = scores(comparison, "images")["l1", "ab_l1"]
    differences = [-1.0, -0.5, -1.0]
    assert found.mean == pytest.approx(12.0)
    assert found.found.estimate == pytest.approx(np.mean(differences))
    assert found.bounds.interval == pytest.approx(t_interval(differences))
    assert found.bounds.over == "seeds"


def test_only_seeds_of_which_both_have_a_score_count(comparison):
    found = scores(comparison, "images")
    palette = found["palette-ab", "ciede2000"]
    assert sorted(palette.by_seed) == [0, 1]
    assert (palette.found.estimate, palette.found.seeds) == (pytest.approx(4.25), (0, 1))
    assert found["pix2pix", "ab_l1"].found.estimate == pytest.approx((3.0 + 2.0) / 2)


def test_a_diverged_run_stays_in_with_the_score_declared_for_it(comparison):
    palette = scores(comparison, "images")["palette-ab", "ab_l1"]
    assert palette.found.scores.tolist() == [[12.0, 17.0], [12.5, 16.0], [14.0, 14.0]]  # gray is 14.0
    assert [run.seed for run in palette.found.diverged] == [2]
    assert (palette.mean, sorted(palette.by_seed)) == (16.5, [0, 1])


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
    found = scores(read_comparison(folder), "images")["l1", "ab_l1"]
    differences = np.array([-1.0, -0.5, -1.0])[:, None] + images - images.mean()
    assert found.bounds.over == "seeds and images"
    assert found.bounds.interval == pytest.approx(crossed(differences).interval(0.95), abs=1e-4)


def test_three_seeds_give_no_verdict_and_nothing_is_bold(comparison):
    words = {method: word(comparison, method) for method in ERRORS}
    assert words == {"l1": "no verdict", "gan": None, "palette-ab": "no verdict", "pix2pix": "no verdict"}
    assert not any(cell.clear for row in quality_table(comparison, "images") for cell in row)


def word(comparison, method):
    found = verdict(comparison, "images", method)
    return found and found.word


def judged_comparison(folder, errors, baselines=None, images=None):
    """Ten seeds; `errors` gives a method's error by seed: None where it diverged, or "missing"."""
    write_comparison(folder)
    asked = json.loads((folder / "comparison.json").read_text())
    row = next(each for each in asked["runs"] if each["method"] == "l1")
    asked["methods"] = {name: each for name, each in asked["methods"].items() if name in errors}
    asked["seeds"] = list(range(10))
    asked["baselines"] = baselines or {"gray": {"ab_l1": 20.0}}
    asked["runs"] = []
    for method, of_seed in errors.items():
        for seed in range(10):
            error = of_seed(seed)
            state = {None: "diverged", "missing": "missing"}.get(error, "finished")
            known = {} if state != "finished" else row["scores"] | {"ab_l1": error}
            home = folder / method / f"seed-{seed}"
            asked["runs"].append(row | {"method": method, "seed": seed, "state": state, "scores": known,
                                        "samples": f"{method}/seed-{seed}/samples.npz"})  # fmt: skip
            if images is not None and state == "finished":
                home.mkdir(parents=True, exist_ok=True)
                rows = [f"{n},x.png,a,{error + images(method, n):.6f}" for n in range(40)]
                (home / "per_image.csv").write_text("\n".join(["index,path,label,ab_l1", *rows]))
    (folder / "comparison.json").write_text(json.dumps(asked))
    return read_comparison(folder)


USUAL = {
    "gan": lambda seed: 12 + seed % 3 / 10,
    "l1": lambda seed: 11 + seed % 3 / 10 - seed / 100,
    "palette-ab": lambda seed: 13 + seed % 3 / 10 - seed / 100,
}


def test_ten_seeds_are_judged_as_a_study_is(tmp_path):
    found = judged_comparison(tmp_path, USUAL, images=lambda method, n: 0.01 * (method == "l1") * (n % 2))
    assert word(found, "l1") == "helps, by what matters"
    assert word(found, "palette-ab") == "hurts, by what matters"
    assert scores(found, "images")["l1", "ab_l1"].is_clear
    assert results(found)["regimes"]["images"]["methods"]["l1"]["verdict"] == "helps, by what matters"


def test_what_other_images_leave_open_is_not_bold(tmp_path):
    found = judged_comparison(tmp_path, USUAL, images=lambda method, n: 9.0 * (method == "l1") * (-1) ** n)
    l1 = scores(found, "images")["l1", "ab_l1"]
    assert l1.p_adjusted < 0.01
    assert not l1.is_clear
    assert scores(found, "images")["palette-ab", "ab_l1"].is_clear


def test_by_the_seeds_alone_nothing_is_bold_and_the_verdict_is_of_these_images(tmp_path):
    found = judged_comparison(tmp_path, USUAL)
    assert not scores(found, "images")["l1", "ab_l1"].is_clear
    row = quality_table(found, "images")[1]
    assert row[1] == ("helps, by what matters", "on these test images", False)
    assert not any(cell.clear for cell in row)


def test_one_method_at_the_ceiling_and_one_at_the_floor_can_be_told_apart(tmp_path):
    errors = {"gan": lambda seed: 15 + seed / 100, "l1": lambda _: 0.2}
    found = judged_comparison(tmp_path, errors, {"gray": {"ab_l1": 14.5}})
    assert word(found, "l1") == "helps, by what matters"


@pytest.mark.parametrize("name", ["gray", "mean_colour", "median_colour"])
def test_neither_better_than_any_trivial_baseline_cannot_tell(tmp_path, name):
    baselines = {"gray": {"ab_l1": 20.0}, "real": {"ab_l1": 0.0}, name: {"ab_l1": 10.0}}
    assert word(judged_comparison(tmp_path, USUAL, baselines), "l1") == "cannot tell"


def test_no_method_is_judged_while_another_has_runs_to_come(tmp_path):
    errors = USUAL | {"pix2pix": lambda seed: "missing" if seed == 3 else 15.0}
    found = judged_comparison(tmp_path, errors)
    assert {word(found, method) for method in ("l1", "palette-ab", "pix2pix")} == {"no verdict"}


def test_a_diverged_run_is_judged_with_the_score_declared_for_it(tmp_path):
    errors = USUAL | {"l1": lambda seed: None if seed == 4 else 11 + seed % 3 / 10 - seed / 100}
    found = judged_comparison(tmp_path, errors)
    assert word(found, "l1") == "inconclusive"  # 20.0 with seed 4: not dropped
    assert word(found, "palette-ab") == "hurts, by what matters"
    (tmp_path / "undeclared").mkdir()
    assert (
        word(judged_comparison(tmp_path / "undeclared", errors, {"real": {}}), "palette-ab") == "no verdict"
    )


def test_the_reference_is_not_compared_with_itself(comparison):
    assert scores(comparison, "images")["gan", "ab_l1"].found is None


def test_what_did_not_finish_is_named(comparison, folder):
    expected = [
        "palette-ab, seed 2: diverged, and given the score of “gray” as declared",
        "pix2pix, seed 0: missing",
    ]
    assert comparison.unfinished("images") == expected
    page = write_comparison_report(folder).read_text()
    assert "; ".join(expected) in page
    assert "; ".join(expected) in markdown_tables(comparison)


def test_tables_have_a_row_a_method_and_as_many_cells_everywhere(comparison):
    for rows in (quality_table(comparison, "images"), cost_table(comparison, "images")):
        assert len({len(row) for row in rows}) == 1
        assert [row[0].value for row in rows[1 : 1 + len(ERRORS)]] == [METHODS[name].title for name in ERRORS]
    heads = [cell.value for cell in quality_table(comparison, "images")[0]]
    assert not any("FID" in head for head in heads)  # computed by nobody
    lines = [line for line in markdown_tables(comparison).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines if "epochs" in line or " + " in line} == {8}


def test_a_difference_stands_with_its_interval_below_the_value(comparison):
    row = quality_table(comparison, "images")[1]
    assert row[1].value == "no verdict"
    assert row[2].value == "12.00"
    assert row[2].below == "−0.83 (−1.55 to −0.12)†"


def test_the_heading_fits_every_choice_of_methods(folder):
    page = write_comparison_report(folder).read_text()
    assert "<h1>What does each way to colour give, and what does it cost?</h1>" in page
    assert "Is the GAN worth it" not in page


def test_the_page_says_every_number_and_asks_nobody(folder):
    page = write_comparison_report(folder).read_text()
    for cell in (cell for row in quality_table(read_comparison(folder), "images") for cell in row):
        assert cell.value in page.replace("&#39;", "'")
    assert "&lt;somebody &amp; others&gt;" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_results_are_what_the_tables_say(comparison):
    found = results(comparison)["regimes"]["images"]["methods"]
    assert found["l1"]["scores"]["ab_l1"]["mean"] == pytest.approx(12.0)
    assert found["l1"]["cost"]["train_s"] == pytest.approx(31.0)
    assert found["palette-ab"]["scores"]["ab_l1"]["by_seed"] == {0: 17.0, 1: 16.0}


def test_figures_are_drawn_of_whatever_is_there(comparison):
    assert set(figures(comparison)) == {"trade_off", "samples_images"}


def test_every_method_has_a_look_of_its_own():
    assert set(METHODS) <= set(MARKS)
    assert len(set(MARKS.values())) == len(MARKS)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"folder of a comparison.*comparison\.json"):
        read_comparison(tmp_path)
