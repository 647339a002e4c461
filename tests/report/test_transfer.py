"""The figure of a question shows every seed, the mean, its intervals and the margin."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from scipy import stats

from knowhue.plan import QUESTIONS
from knowhue.presets import THREE_ARMS
from knowhue.report.contrasts import primary
from knowhue.report.differences import stacked, transfer, transfer_rows
from knowhue.report.reading import read_study
from knowhue.report.study import Run, Study
from knowhue.report.style import to_svg

SCALE = {"colour": 1, "class": 100}
BASELINES = {"gray": {"ab_l1": 15.6}, "majority_class": {"balanced_accuracy": 0.2}}


def make_study(differences: list[float], **states: dict[int, str]) -> Study:
    """A study without files: multi-task differs from single-task by these, and by a tenth of them in accuracy."""
    runs = {}
    for arm in THREE_ARMS:
        runs[arm] = {}
        for seed, difference in enumerate(differences):
            more = difference * (arm == "multi")
            metrics = {"ab_l1": 12 + 0.1 * seed + more, "balanced_accuracy": 0.8 + 0.01 * seed + more / 10}
            state = states.get(arm, {}).get(seed, "finished")
            runs[arm][seed] = Run(
                arm, seed, state, scores={"metrics": metrics} if state == "finished" else {}
            )
    settings = {"seeds": list(range(len(differences))), "arms": THREE_ARMS}
    return Study(settings, runs, baselines=BASELINES)


def draw(study: Study, question: str = "colour"):
    return transfer(study)[f"transfer_{question}"]


def lines(figure, panel: int, label: str) -> list[np.ndarray]:
    return [line.get_xydata() for line in figure.axes[panel].lines if line.get_label() == label]


def words(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(Text))


SOME = [-0.3, -0.5, 0.1, -0.2, -0.45, 0.0, -0.35, -0.1]


@pytest.mark.parametrize("question", SCALE)
@pytest.mark.parametrize("differences", [SOME, [0.2, 0.2], [-0.4] * 20], ids=len)
def test_every_seed_is_drawn_with_its_scores(question: str, differences: list[float]):
    study = make_study(differences)
    figure = draw(study, question)
    scores = SCALE[question] * primary(study, question).scores
    np.testing.assert_allclose([line[:, 1] for line in lines(figure, 0, "seed")], scores)
    np.testing.assert_allclose(lines(figure, 0, "mean")[0][:, 1], scores.mean(axis=0))
    dots = np.concatenate(lines(figure, 1, "difference"))
    np.testing.assert_allclose(dots[:, 0], scores[:, 1] - scores[:, 0])
    np.testing.assert_allclose(lines(figure, 1, "estimate")[0][0, 0], np.diff(scores).mean())


@pytest.mark.parametrize("question", SCALE)
def test_intervals_are_those_of_the_statistics(question: str, eight_seeds: Path):
    study = read_study(eight_seeds)
    drawn = lines(draw(study, question), 1, "interval")
    for line, level in zip(drawn, (0.975, 0.95), strict=True):
        expected = primary(study, question).crossed.interval(level)
        np.testing.assert_allclose(line[:, 0], SCALE[question] * np.array(expected))


@pytest.mark.parametrize("question", SCALE)
@pytest.mark.parametrize("differences", [SOME, [-9.0, -8.0, -8.5]], ids=len)
def test_the_whole_band_of_what_is_too_small_is_in_the_panel(question: str, differences: list[float]):
    ax = draw(make_study(differences), question).axes[1]
    margin = SCALE[question] * QUESTIONS[question].sesoi
    band = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    np.testing.assert_allclose([band.x0, band.x1], [-margin, margin])
    low, high = ax.get_xlim()
    assert low < -margin < margin < high


def test_only_seeds_that_improve_have_the_colour_of_improvement():
    for question, better in (("colour", np.array(SOME) < 0), ("class", np.array(SOME) > 0)):
        ax = draw(make_study(SOME), question).axes[0]
        seeds = [line for line in ax.lines if line.get_label() == "seed"]
        assert [line.get_color() == "#c8500a" for line in seeds] == better.tolist()


def test_one_seed_is_not_drawn_and_a_single_pair_says_that_it_has_no_interval():
    assert transfer(make_study([-0.3])) == {}
    figure = draw(make_study([-0.3, -0.3], colour={1: "running"}))
    assert not lines(figure, 1, "interval")
    assert "no interval" in words(figure)
    assert "1 of 2\nseeds" in words(figure)


def test_a_diverged_run_is_hollow_and_named_and_has_the_declared_score():
    study = make_study(SOME, multi={3: "diverged"})
    figure = draw(study)
    hollow = [line.get_xdata()[0] for line in figure.axes[1].lines if line.get_markerfacecolor() == "#fefefe"]
    np.testing.assert_allclose(hollow, 15.6 - 12.3)
    assert "multi-task seed 3 (“gray”)" in words(figure)
    assert [row.get("diverged", "") for row in transfer_rows(study)[:9]] == [
        "",
        "",
        "",
        "multi",
        "",
        "",
        "",
        "",
        "",
    ]


def test_seeds_without_a_pair_or_a_number_are_counted_as_missing():
    study = make_study(SOME, colour={0: "running"})
    unreadable = dataclasses.replace(study.runs["multi"][4], scores={"metrics": {"ab_l1": math.nan}})
    multi = {**study.runs["multi"], 4: unreadable}
    study = dataclasses.replace(study, runs={**study.runs, "multi": multi})
    figure = draw(study)
    assert len(lines(figure, 0, "seed")) == 6
    assert "6 of 8\nseeds" in words(figure)
    assert ">nan" not in to_svg(figure, "drawing", "").lower()


def test_without_a_pair_nothing_is_drawn():
    study = make_study(SOME, multi=dict.fromkeys(range(8), "running"))
    assert transfer(study) == {}
    assert transfer_rows(study) == []
    assert transfer(Study({"seeds": [0], "arms": {}}, {})) == {}


def test_colours_follow_the_page():
    text = to_svg(draw(make_study(SOME, multi={3: "diverged"})), "drawing", "")
    assert not set(re.findall(r"(?<!, )#[0-9a-f]{6}", text))
    assert len(re.findall(r' id="([^"]+)"', text)) == len(set(re.findall(r' id="([^"]+)"', text)))


def test_a_question_that_was_not_asked_is_not_drawn():
    asked = {"colour": QUESTIONS["colour"].model_dump()}
    study = make_study(SOME)
    study = dataclasses.replace(study, settings={**study.settings, "questions": asked})
    assert list(transfer(study)) == ["transfer_colour"]


def test_table_holds_the_raw_numbers():
    rows = transfer_rows(make_study(SOME))
    table = {(row["question"], row["seed"]): row for row in rows}
    assert len(rows) == 2 * (8 + 1)
    for seed, difference in enumerate(SOME):
        assert table["colour", seed]["difference"] == pytest.approx(difference)
        assert table["class", seed]["difference"] == pytest.approx(difference / 10)
    assert table["colour", "mean"]["difference"] == pytest.approx(np.mean(SOME))
    mean = table["colour", "mean"]
    for name, level in (("", 0.975), ("_inner", 0.95)):
        low, high = stats.t.interval(level, 7, np.mean(SOME), stats.sem(SOME))
        assert (mean[f"low{name}"], mean[f"high{name}"]) == pytest.approx((low, high))
    assert mean["over"] == "seeds"


@pytest.mark.parametrize("seed", range(5))
def test_no_dot_of_a_stack_covers_another(seed: int):
    values = np.random.default_rng(seed).normal(size=40).round(1)
    levels = np.array(stacked(values, width=0.3))
    for level in range(levels.max() + 1):
        assert (np.diff(np.sort(values[levels == level])) >= 0.3 - 1e-9).all()
    assert 0 in levels
