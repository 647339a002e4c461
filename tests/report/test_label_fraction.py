"""Learning curves over the share of labels: every seed, the mean and its interval, of the right arms."""

import dataclasses
import math
import re

import numpy as np
import pytest
from matplotlib.text import Text
from scipy import stats

from knowhue.plan import QUESTIONS
from knowhue.presets import ARMS, load_config, merge
from knowhue.report.levels import (
    has_label_fractions,
    label_fraction,
    label_fraction_rows,
    label_points,
)
from knowhue.report.study import Run, Study
from knowhue.report.style import to_svg

SHARES = [0.01, 0.05, 0.25, 1.0]
NAMES = load_config("label-fraction").arms
EXTRA = {"placebo-labels": ARMS["placebo-labels"], "multi-pcgrad": ARMS["multi-pcgrad"],
         "multi-class100": merge(ARMS["multi"], {"tasks": {"weights": {"class": 100.0}}})}  # fmt: skip


def make_study(seeds: int = 8, names: tuple[str, ...] = NAMES, **diverged: int) -> Study:
    """A study without files, of these arms and of some that do not belong to the curves."""
    arms = {name: ARMS[name] for name in names} | EXTRA
    runs = {}
    for arm, edits in arms.items():
        share = edits.get("supervision", {}).get("labelled_share", 1.0)
        noise = np.random.default_rng(list(arm.encode())).normal(size=seeds)
        runs[arm] = {}
        for seed in range(seeds):
            value = 0.8 + 0.1 * math.log10(share) + 0.02 * (len(edits["tasks"]) > 1) + 0.01 * noise[seed]
            lost = diverged.get(arm.replace("-", "_")) == seed
            scores = {} if lost or arm == "colour" else {"metrics": {"balanced_accuracy": value}}
            runs[arm][seed] = Run(arm, seed, "diverged" if lost else "finished", scores=scores)
    baselines = {"majority_class": {"balanced_accuracy": 0.2}}
    return Study({"seeds": list(range(seeds)), "arms": arms}, runs, baselines=baselines)


def draw(study: Study):
    return label_fraction(study)["label_fraction"]


def words(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(Text))


def drawn(figure, label: str) -> list[np.ndarray]:
    return [line.get_ydata() for line in figure.axes[0].lines if line.get_label() == label]


def scores(study: Study, arm: str) -> np.ndarray:
    return np.array([run.metric("balanced_accuracy") for run in study.of(arm)])


SINGLE = ["class-labels1", "class-labels5", "class-labels25", "class"]
MULTI = ["multi-labels1", "multi-labels5", "multi-labels25", "multi"]


def test_arms_are_those_that_differ_in_tasks_and_labels_alone():
    points = label_points(make_study())
    assert [point.arm for point in points] == SINGLE + MULTI
    assert [point.share for point in points] == SHARES * 2


def test_means_seeds_and_intervals_are_drawn_in_per_cent():
    study = make_study()
    figure = draw(study)
    for curve, arms in zip(drawn(figure, "mean"), (SINGLE, MULTI), strict=True):
        np.testing.assert_allclose(curve, [100 * scores(study, arm).mean() for arm in arms])
    every = np.concatenate([scores(study, arm) for arm in SINGLE + MULTI])
    np.testing.assert_allclose(np.concatenate(drawn(figure, "seed")), 100 * every)
    for ends, arm in zip(drawn(figure, "interval"), SINGLE + MULTI, strict=True):
        d = 100 * scores(study, arm)
        np.testing.assert_allclose(ends, stats.t.interval(0.95, 7, d.mean(), stats.sem(d)))


def test_ticks_are_the_shares():
    ax = draw(make_study()).axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1 %", "5 %", "25 %", "100 %"]
    assert ax.get_xscale() == "log"


def test_table_holds_the_raw_numbers():
    study = make_study()
    rows = label_fraction_rows(study)
    assert len(rows) == 8 * (8 + 1)
    means = [row for row in rows if row["seed"] == "mean"]
    for row in means:
        values = scores(study, row["arm"])
        assert row["balanced_accuracy"] == pytest.approx(values.mean())
        expected = stats.t.interval(0.95, 7, values.mean(), stats.sem(values))
        assert (row["low"], row["high"]) == pytest.approx(expected)


def test_a_study_has_fractions_only_with_two_shares():
    assert has_label_fractions(make_study())
    assert has_label_fractions(make_study(names=("class", "multi-labels5")))
    plain = make_study(names=("colour", "class", "multi"))
    assert not has_label_fractions(plain)
    assert label_fraction(plain) == {}


def test_a_shared_share_of_the_configuration_counts():
    study = make_study(names=("class", "multi", "class-labels5"))
    settings = {**study.settings, "config": {"supervision": {"labelled_share": 0.25, "placebo": "none"}}}
    found = {point.arm: point.share for point in label_points(dataclasses.replace(study, settings=settings))}
    assert found == {"class": 0.25, "multi": 0.25, "class-labels5": 0.05}


def test_one_seed_has_no_interval_and_one_dot():
    figure = draw(make_study(seeds=1))
    assert not drawn(figure, "interval")
    assert not drawn(figure, "seed")
    assert [len(curve) for curve in drawn(figure, "mean")] == [4, 4]


def test_one_side_alone_is_drawn():
    figure = draw(make_study(names=("class", "class-labels1")))
    text = words(figure)
    assert "Single-task" in text
    assert [len(curve) for curve in drawn(figure, "mean")] == [2]


def test_a_diverged_run_has_the_declared_score_and_is_hollow():
    study = make_study(multi_labels5=3)
    point = next(point for point in label_points(study) if point.arm == "multi-labels5")
    assert point.scores[3] == 0.2
    figure = draw(study)
    hollow = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_markerfacecolor() == "#fefefe"]
    assert hollow == [20.0]
    assert "multi-labels5 seed 3" in words(figure)


def test_colours_follow_the_page():
    text = to_svg(draw(make_study(multi_labels5=3)), "drawing", "")
    assert not set(re.findall(r"(?<!, )#[0-9a-f]{6}", text))
    assert len(re.findall(r' id="([^"]+)"', text)) == len(set(re.findall(r' id="([^"]+)"', text)))


def test_nothing_finished_is_not_drawn_and_nan_is_left_out():
    study = make_study(seeds=1)
    empty = {arm: {0: Run(arm, 0)} for arm in study.runs}
    assert label_fraction(dataclasses.replace(study, runs=empty)) == {}
    nan = Run("class", 0, "finished", scores={"metrics": {"balanced_accuracy": math.nan}})
    broken = dataclasses.replace(study, runs={**study.runs, "class": {0: nan}})
    assert [len(curve) for curve in drawn(draw(broken), "mean")] == [3, 4]


def test_the_question_need_not_be_asked():
    study = make_study()
    asked = {"colour": QUESTIONS["colour"].model_dump()}
    figure = draw(dataclasses.replace(study, settings={**study.settings, "questions": asked}))
    assert [len(curve) for curve in drawn(figure, "mean")] == [4, 4]


def test_no_interval_of_a_share_reaches_beyond_one():
    points = label_points(make_study(seeds=2))
    point = dataclasses.replace(points[-1], scores={0: 0.99, 1: 0.7})
    assert stats.t.interval(0.95, 1, loc=0.845, scale=0.145)[1] > 1
    assert point.interval is None
