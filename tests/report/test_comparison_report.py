"""The report of a comparison of methods, from synthetic runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic_comparison import ERRORS, write_comparison

from knowhue.presets import ALL_METHODS, METHODS
from knowhue.report.methods import (
    Comparison,
    comparison_figures,
    comparison_results,
    cost_table,
    marks,
    quality_table,
    terminal_lines,
)
from knowhue.report.page import write_report
from knowhue.report.reading import read_study
from knowhue.report.results import conclude
from knowhue.report.text import TableCell, terminal_table
from knowhue.statistics.crossed import crossed
from knowhue.statistics.paired import t_interval
from knowhue.storage import SEAL, write_json


@pytest.fixture
def folder(tmp_path):
    return write_comparison(tmp_path)


@pytest.fixture
def without_drawings(monkeypatch):
    """Write reports with an empty drawing, for tests of texts and numbers."""
    empty = {"trade_off": Figure()}
    monkeypatch.setattr("knowhue.report.methods.comparison_figures", lambda _: empty)


@pytest.fixture
def comparison(folder):
    return Comparison(read_study(folder))


def test_differences_are_paired_by_seed(comparison):
    found = comparison.tests["images"]["l1", "ab_l1"]
    differences = [-1.0, -0.5, -1.0]
    own = comparison_results(comparison.study)["regimes"]["images"]["methods"]["l1"]["scores"]["ab_l1"]
    assert own["mean"] == pytest.approx(12.0)
    assert found.found.estimate == pytest.approx(np.mean(differences))
    assert found.bounds.interval == pytest.approx(t_interval(differences))
    assert found.bounds.over == "seeds"


def test_only_seeds_of_which_both_have_a_score_count(comparison):
    found, regime = comparison.tests["images"], comparison.regimes["images"]
    palette = found["palette-ab", "ciede2000"].found
    assert sorted(comparison.scores(regime, "palette-ab", "ciede2000")) == [0, 1]
    assert (palette.estimate, palette.seeds) == (pytest.approx(4.25), (0, 1))
    assert found["pix2pix", "ab_l1"].found.estimate == pytest.approx((3.0 + 2.0) / 2)


def test_a_diverged_run_stays_in_with_the_score_declared_for_it(comparison):
    palette = comparison.tests["images"]["palette-ab", "ab_l1"].found
    assert palette.scores.tolist() == [[12.0, 17.0], [12.5, 16.0], [14.0, 14.0]]  # gray is 14.0
    assert palette.diverged == (("palette-ab", 2),)
    own = comparison.scores(comparison.regimes["images"], "palette-ab", "ab_l1")
    assert own == {0: pytest.approx(17.0), 1: pytest.approx(16.0)}


def test_with_scores_of_single_images_the_interval_is_over_seeds_and_images(tmp_path):
    folder = write_comparison(tmp_path)
    images = np.random.default_rng(1).normal(size=40)
    for method in ("l1", "gan"):
        for seed in range(3):
            moved = (images - images.mean()) * (method == "l1")
            write_images(folder, method, seed, ERRORS[method][seed] + moved)
    comparison = Comparison(read_study(folder))
    found = comparison.tests["images"]["l1", "ab_l1"]
    differences = np.array([-1.0, -0.5, -1.0])[:, None] + images - images.mean()
    assert found.bounds.over == "seeds and images"
    assert found.bounds.interval == pytest.approx(crossed(differences).interval(0.95), abs=1e-4)


def test_three_seeds_give_no_verdict_and_nothing_is_bold(comparison):
    words = {method: word(comparison, method) for method in ERRORS}
    assert words == {"l1": "no verdict", "gan": None, "palette-ab": "no verdict", "pix2pix": "no verdict"}
    assert not any(
        cell.clear for row in quality_table(comparison, comparison.regimes["images"]) for cell in row
    )


def word(comparison, method):
    found = comparison.verdict(comparison.regimes["images"], method)
    return found and found.word


def write_images(folder, method, seed, scores):
    """Scores of single images of a run."""
    rows = [f"{n},x.png,a,{score:.6f}" for n, score in enumerate(scores)]
    path = next((folder / method).glob(f"seed-{seed}-*")) / "per_image.csv"
    path.write_text("\n".join(["index,path,label,ab_l1", *rows]))


def judged_comparison(folder, errors, baselines=None, images=None):
    """Ten seeds; `errors` gives a method's error by seed: None where it diverged, or "missing"."""
    known = {method: tuple(of_seed(seed) for seed in range(10)) for method, of_seed in errors.items()}
    write_comparison(folder, known, baselines or {"gray": {"ab_l1": 20.0}})
    for method, by_seed in known.items() if images else ():
        for seed, error in enumerate(by_seed):
            write_images(folder, method, seed, [error + images(method, n) for n in range(40)])
    return Comparison(read_study(folder))


USUAL = {
    "l1": lambda seed: 11 + seed % 3 / 10 - seed / 100,
    "gan": lambda seed: 12 + seed % 3 / 10,
    "palette-ab": lambda seed: 13 + seed % 3 / 10 - seed / 100,
}


def test_ten_seeds_are_judged_as_a_study_is(tmp_path):
    found = judged_comparison(tmp_path, USUAL, images=lambda method, n: 0.01 * (method == "l1") * (n % 2))
    assert word(found, "l1") == "helps, by what matters"
    assert word(found, "palette-ab") == "hurts, by what matters"
    assert found.tests["images"]["l1", "ab_l1"].is_clear
    assert (
        comparison_results(found.study)["regimes"]["images"]["methods"]["l1"]["verdict"]
        == "helps, by what matters"
    )


def test_what_other_images_leave_open_is_not_bold(tmp_path):
    found = judged_comparison(tmp_path, USUAL, images=lambda method, n: 9.0 * (method == "l1") * (-1) ** n)
    l1 = found.tests["images"]["l1", "ab_l1"]
    assert l1.p_adjusted < 0.01
    assert not l1.is_clear
    assert found.tests["images"]["palette-ab", "ab_l1"].is_clear


def test_by_the_seeds_alone_nothing_is_bold_and_the_verdict_is_of_these_images(tmp_path):
    found = judged_comparison(tmp_path, USUAL)
    assert not found.tests["images"]["l1", "ab_l1"].is_clear
    row = quality_table(found, found.regimes["images"])[1]
    assert row[1] == ("helps, by what matters", "on these images", False)
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
    assert ("gan", "ab_l1") not in comparison.tests["images"]


def test_what_did_not_finish_is_named(comparison, folder):
    expected = [
        "palette-ab, seed 2: diverged, and given the score of “gray” as declared",
        "pix2pix, seed 0: missing",
    ]
    assert comparison.unfinished(comparison.regimes["images"]) == expected
    page = write_report(folder).read_text()
    assert "; ".join(expected) in page
    assert f"Not finished: {'; '.join(expected)}" in " ".join(terminal_lines(comparison.study))


def test_tables_have_a_row_a_method_and_as_many_cells_everywhere(comparison):
    for rows in (
        quality_table(comparison, comparison.regimes["images"]),
        cost_table(comparison, comparison.regimes["images"]),
    ):
        assert len({len(row) for row in rows}) == 1
        assert [row[0].value for row in rows[1 : 1 + len(ERRORS)]] == [METHODS[name].title for name in ERRORS]
    heads = [cell.value for cell in quality_table(comparison, comparison.regimes["images"])[0]]
    assert not any("FID" in head for head in heads)  # because it was not computed


def test_a_difference_stands_with_its_interval_below_the_value(comparison):
    row = quality_table(comparison, comparison.regimes["images"])[1]
    assert row[1].value == "no verdict"
    assert row[2].value == "12.00"
    assert row[2].below == "−0.83 (−1.55 to −0.12)†"


def test_the_heading_fits_every_choice_of_methods(folder):
    page = write_report(folder).read_text()
    assert "<h1>How good is each way to colour, and what does it cost?</h1>" in page
    assert "Is the GAN worth it" not in page


def test_the_page_says_every_number_and_asks_nobody(tmp_path):
    folder = write_comparison(tmp_path, name="<somebody & others>")
    study, page = Comparison(read_study(folder)), write_report(folder).read_text()
    for cell in (cell for row in quality_table(study, study.regimes["images"]) for cell in row):
        assert cell.value.replace(" %", "\N{NO-BREAK SPACE}%") in page.replace("&#39;", "'")
    assert "&lt;somebody &amp; others&gt;" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_results_are_what_the_tables_say(comparison):
    found = comparison_results(comparison.study)["regimes"]["images"]["methods"]
    assert found["l1"]["scores"]["ab_l1"]["mean"] == pytest.approx(12.0)
    assert found["l1"]["cost"]["train_s"] == pytest.approx(31.0)
    assert found["palette-ab"]["scores"]["ab_l1"]["by_seed"] == {0: 17.0, 1: 16.0}


def test_a_terminal_shows_plain_tables_of_80_columns(tmp_path):
    compared = judged_comparison(tmp_path, USUAL, images=lambda method, n: 0.01 * (method == "l1") * (n % 2))
    lines = conclude(read_study(tmp_path)).lines
    assert lines == ["", *terminal_lines(compared.study)]
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert not any(mark in text for mark in ("|", "<br>", "**", "###"))
    words = " ".join(text.split())
    regime = compared.regimes["images"]
    rows = [*quality_table(compared, regime)[1:], *cost_table(compared, regime)[1:]]
    assert any(cell.clear for row in rows for cell in row)
    for cell in (cell for row in rows for cell in row[1:]):
        assert cell.value in words
        assert cell.below + "*" * cell.clear in words
    for method in compared.methods.values():
        first = next(line for line in lines if line.startswith(method.title[:16]))
        assert len(first) > len(method.title)


def test_columns_that_do_not_fit_into_a_terminal_follow_below():
    wide = [TableCell("1.00", "−0.83 (−1.55 to −0.12)", place == 3) for place in range(4)]
    heads = [TableCell(head) for head in ("", "error", "in many words", "distance", "share")]
    lines = terminal_table([heads, [TableCell("a title of more than 24 characters"), *wide]])
    assert lines == [
        "                                          error           in many words",
        "a title of more than 24                    1.00                    1.00",
        "  characters             −0.83 (−1.55 to −0.12)  −0.83 (−1.55 to −0.12)",
        "",
        "                                       distance                    share",
        "a title of more than 24                    1.00                     1.00",
        "  characters             −0.83 (−1.55 to −0.12)  −0.83 (−1.55 to −0.12)*",
    ]


def test_figures_are_drawn_of_whatever_is_there(comparison):
    assert set(comparison_figures(comparison.study)) == {"trade_off", "samples_images", "drawn_images"}


def test_every_method_has_a_look_of_its_own(tmp_path):
    errors = {method: (12.0,) for method in ALL_METHODS}
    looks = marks(Comparison(read_study(write_comparison(tmp_path, errors))))
    assert list(looks) == list(ALL_METHODS)
    assert len(set(looks.values())) == len(looks)
    assert looks["gan"].colour == looks["unet"].colour != looks["l1"].colour


def test_without_images_none_are_promised(folder):
    (folder / "images" / "samples.npz").unlink()
    write_report(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "Quality against training time" in text
    assert "The same images." not in text


@pytest.mark.usefixtures("without_drawings")
def test_the_head_counts_images_with_a_comma_in_thousands(tmp_path):
    folder = write_comparison(tmp_path)
    write_json(folder / "images" / "prepared.json", {"counts": {"train": {"a": 4995, "b": 1}}, "size_px": 8})
    assert "4,996 training images, " in write_report(folder).read_text(encoding="utf-8")


def test_methods_with_settings_of_their_own_go_by_their_names_in_the_plan(tmp_path):
    """A user's plan: a head that `l1` does not have, and adversarial weights."""
    arms = {
        "l1": {"colour": {"method": "feedforward", "decoder": "transposed", "loss": "l1"}},
        "gan-10": {"colour": {"method": "gan", "adversarial_weight": 10}},
        "gan": ALL_METHODS["gan"].edits,
    }
    errors = {"l1": (11.0, 12.0), "gan-10": (12.5, 13.0), "gan": (12.0, 12.5)}
    study = read_study(write_comparison(tmp_path, errors, arms=arms))
    compared = Comparison(study)
    titles = {name: method.title for name, method in compared.methods.items()}
    assert titles == {"l1": "l1", "gan-10": "gan-10", "gan": ALL_METHODS["gan"].title}
    assert any(line.startswith("gan-10  ") for line in terminal_lines(study))
    assert compared.methods["gan-10"].source == "colour.method = gan, colour.adversarial_weight = 10"
    assert set(comparison_figures(study)) >= {"trade_off", "samples_images"}


def test_equal_wall_clock_is_a_second_regime_of_the_same_tables(tmp_path):
    later = {method: (10.0, 11.0, 12.0) for method in ERRORS}
    study = Comparison(read_study(write_comparison(tmp_path, clock=later)))
    assert list(study.regimes) == ["images", "clock"]
    clock = study.regimes["clock"]
    assert (clock.budget_s, clock.arms["gan"]) == (45.0, "gan-clock")
    assert study.tests["clock"]["l1", "ab_l1"].found.estimate == 0
    assert study.tests["images"]["l1", "ab_l1"].found.estimate == pytest.approx(-2.5 / 3)
    assert "Equal wall-clock (45 s)" in terminal_lines(study.study)
    assert set(comparison_figures(study.study)) >= {"samples_clock", "drawn_clock"}


@pytest.mark.usefixtures("without_drawings")
@pytest.mark.parametrize(("budget_s", "shown"), [(0.38, "0.4"), (0.004, "0.004"), (2.0, "2.0"), (44.6, "45")])
def test_a_short_budget_of_wall_clock_is_not_rounded_to_nothing(tmp_path, budget_s, shown):
    folder = write_comparison(tmp_path, clock={method: (10.0, 11.0, 12.0) for method in ERRORS})
    described = json.loads((folder / "study.json").read_text())
    described.pop(SEAL)
    described["wall_clock"]["budget_s"] = budget_s
    write_json(folder / "study.json", described)
    assert f"Equal wall-clock ({shown} s)" in terminal_lines(read_study(folder))
    assert f"At equal wall-clock: {shown} seconds</h2>" in write_report(folder).read_text()


@pytest.mark.usefixtures("without_drawings")
def test_the_results_of_a_comparison_hold_the_tables_and_every_run(folder):
    write_report(folder)
    found = json.loads((folder / "results.json").read_text())
    assert found["answers"] == found["verdicts"] == {}
    assert found["arms"]["l1"]["seeds"]["1"]["metrics"]["ab_l1"] == 12.0
    own = found["comparison"]["regimes"]["images"]["methods"]["l1"]
    assert own["scores"]["fd_lite0"]["mean"] == 10.0
    assert own["cost"] == {
        "train_s": 31.0, "train_s_per_image": 0.31, "predict_s_per_image": 0.01, "images_seen": 100.0,
        "parameters": 2_000_000,
    }  # fmt: skip


def test_a_seed_computed_in_several_ways_is_not_compared(folder):
    for method, step in (("l1", "a"), ("gan", "b"), ("palette-ab", "a")):
        write_json(next((folder / method).glob("seed-1-*")) / "environment.json", {"golden_step": step})
    study = Comparison(read_study(folder))
    assert study.tests["images"]["l1", "ab_l1"].found.seeds == (0, 2)
    assert "l1, seed 1: unpaired" in study.unfinished(study.regimes["images"])


def test_damaged_sample_images_are_named_and_leave_the_numbers(folder):
    (next((folder / "l1").glob("seed-0-*")) / "samples.npz").write_bytes(b"")
    study = Comparison(read_study(folder))
    assert "l1, seed 0: its images are damaged" in study.unfinished(study.regimes["images"])
    assert sorted(study.scores(study.regimes["images"], "l1", "ab_l1")) == [0, 1, 2]
    assert write_report(folder).is_file()


def test_a_comparison_s_alpha_is_its_plan_s(comparison):
    others = len(comparison.methods) - 1
    assert comparison.alpha == pytest.approx(0.05 / (2 * others))
    strict = Comparison(replace(comparison.study, settings={**comparison.study.settings, "alpha": 0.01}))
    assert strict.alpha == pytest.approx(0.01 / (2 * others))
    judged = strict.verdict(strict.regimes["images"], "l1")
    assert judged is not None
    assert judged.alpha == strict.alpha
