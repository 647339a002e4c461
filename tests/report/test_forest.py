"""The forest plot compares every multi-task arm with each single-task arm, adjusted for their number."""

import dataclasses
import math
import re

import numpy as np
import pytest
from matplotlib.text import Text
from scipy import stats

from knowhue.plan import QUESTIONS
from knowhue.presets import ARMS
from knowhue.report.differences import forest, forest_rows
from knowhue.report.study import Run, Study, arm_name
from knowhue.report.style import to_svg
from knowhue.report.text import Measure
from knowhue.statistics.paired import benjamini_hochberg, hedges_dz, sign_flip_p

NAMES = ("colour", "class", "multi", "placebo-labels", "placebo-colours", "multi-pcgrad")
SHIFTS = {"multi": -0.3, "placebo-labels": 0.05, "placebo-colours": 0.02, "multi-pcgrad": -0.25}
BASELINES = {"gray": {"ab_l1": 15.6}, "majority_class": {"balanced_accuracy": 0.2}}


def make_study(seeds: int = 8, names: tuple[str, ...] = NAMES, **diverged: int) -> Study:
    """A study without files: arms are shifted by `SHIFTS`, and by a twentieth of it down in accuracy."""
    runs = {}
    for arm in names:
        noise = np.random.default_rng(list(arm.encode())).normal(size=(seeds, 2))
        runs[arm] = {}
        for seed in range(seeds):
            shift = SHIFTS.get(arm, 0)
            metrics = {"ab_l1": 12 + shift + 0.1 * noise[seed, 0]} if arm != "class" else {}
            if arm != "colour":
                placebo = -0.5 * (arm == "placebo-labels")
                metrics["balanced_accuracy"] = 0.8 - shift / 20 + placebo + 0.01 * noise[seed, 1]
            lost = diverged.get(arm.replace("-", "_")) == seed
            state = "diverged" if lost else "finished"
            runs[arm][seed] = Run(arm, seed, state, scores={} if lost else {"metrics": metrics})
    settings = {"seeds": list(range(seeds)), "arms": {name: ARMS[name] for name in names}}
    return Study(settings, runs, baselines=BASELINES)


def records(study: Study) -> dict[tuple[str, str], dict]:
    return {(row["question"], row["arm"]): row for row in forest_rows(study)}


def words(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(Text))


def draw(study: Study, question: str = "colour"):
    return forest(study)[f"forest_{question}"]


def drawn(figure, label: str) -> dict[float, np.ndarray]:
    lines = (line for line in figure.axes[0].lines if line.get_label() == label)
    return {line.get_ydata()[0]: line.get_xdata() for line in lines}


def differences(study: Study, metric: str, single: str, arm: str) -> np.ndarray:
    return np.array(
        [study.runs[arm][s].metric(metric) - run.metric(metric) for s, run in study.runs[single].items()]
    )


@pytest.mark.parametrize(("question", "scale"), [("colour", 1), ("class", 100)])
def test_every_arm_has_its_mean_difference_and_interval(question: str, scale: int):
    study = make_study()
    figure, table = draw(study, question), records(study)
    dots, bars = drawn(figure, "estimate"), drawn(figure, "interval")
    beyond = drawn(figure, "beyond")
    asked = QUESTIONS[question]
    for height, arm in enumerate(NAMES[2:]):
        d = differences(study, asked.metric, asked.single, arm)
        row = table[question, arm]
        assert row["difference"] == pytest.approx(d.mean())
        assert (row["low"], row["high"]) == pytest.approx(stats.t.interval(0.975, 7, d.mean(), stats.sem(d)))
        assert (row["p"], row["d_z"]) == (pytest.approx(sign_flip_p(d)), pytest.approx(hedges_dz(d)))
        assert row["wins"] == np.sum(d < 0 if question == "colour" else d > 0)
        if height not in beyond:
            assert dots[height] == pytest.approx([scale * d.mean()])
            np.testing.assert_allclose(bars[height], np.array([row["low"], row["high"]]) * scale)
    assert list(beyond) == ([1] if question == "class" else [])


def test_the_band_is_the_smallest_effect_of_interest():
    for question, margin in (("colour", 0.25), ("class", 1.0)):
        ax = draw(make_study(), question).axes[0]
        band = ax.patches[0].get_extents().transformed(ax.transData.inverted())
        np.testing.assert_allclose([band.x0, band.x1], [-margin, margin])


def test_the_line_of_no_difference_passes_every_arm_and_no_name():
    study = make_study()
    for name in (f"multi-{number}" for number in range(30)):
        study.runs[name] = study.runs["multi"]
        study.settings["arms"][name] = ARMS["multi"]
    figure = draw(study)
    (ax,) = figure.axes
    figure.draw_without_rendering()
    (line,) = [each.arrow_patch for each in ax.texts if getattr(each, "arrow_patch", None)]
    top = line.get_window_extent().y1
    (name,) = [each for each in ax.texts if each.get_text() == "too small to matter"]
    rows = [ax.transData.transform((0, height))[1] for height in drawn(figure, "interval")]
    assert len(rows) > 30
    assert max(rows) < top < name.get_window_extent().y0


def test_adjusted_p_is_that_of_all_secondary_comparisons_with_the_same_targets():
    rows = records(make_study())
    family = {
        f"{q} {arm}": row["p"] for (q, arm), row in rows.items() if arm != "multi" and row["same_targets"]
    }
    assert len(family) == 4
    expected = benjamini_hochberg(family)
    found = {
        f"{q} {arm}": row["p_adjusted"] for (q, arm), row in rows.items() if row["p_adjusted"] is not None
    }
    assert found == expected


def test_a_placebo_is_another_target_only_for_its_own_task():
    rows = records(make_study())
    other = {key for key, row in rows.items() if not row["same_targets"]}
    assert other == {("colour", "placebo-colours"), ("class", "placebo-labels")}


def test_few_labels_are_another_target_only_for_classification():
    names = ("colour", "class", "multi", "multi-labels5", "class-labels5")
    rows = records(make_study(names=names))
    assert {arm for _, arm in rows} == {"multi", "multi-labels5"}
    assert [key for key, row in rows.items() if not row["same_targets"]] == [("class", "multi-labels5")]


def test_a_shared_setting_is_no_difference():
    study = make_study(names=("colour", "class", "multi", "multi-pcgrad"))
    settings = {**study.settings, "config": {"supervision": {"labelled_share": 0.05, "placebo": "none"}}}
    assert all(row["same_targets"] for row in records(dataclasses.replace(study, settings=settings)).values())


def test_one_seed_has_numbers_but_no_interval():
    figure = draw(make_study(seeds=1))
    assert not drawn(figure, "interval")
    assert len(drawn(figure, "estimate")) == 4
    assert "(one seed)" in words(figure)
    assert records(make_study(seeds=1))["colour", "multi"]["d_z"] is None


def test_any_diverged_arm_has_the_declared_score_and_is_named():
    study = make_study(placebo_labels=2)
    row = records(study)["colour", "placebo-labels"]
    assert (row["seeds"], row["diverged"]) == (8, 1)
    d = [
        (run.metric("ab_l1") or 15.6) - study.runs["colour"][seed].metric("ab_l1")
        for seed, run in study.runs["placebo-labels"].items()
    ]
    assert row["difference"] == pytest.approx(np.mean(d))
    figure = draw(study)
    hollow = {line.get_ydata()[0] for line in figure.axes[0].lines if line.get_markerfacecolor() == "#fefefe"}
    assert hollow == {1}
    assert "placebo: shuffled labels seed 2" in words(figure)


def test_an_arm_without_the_metric_has_no_row():
    study = make_study()
    lost = {
        s: dataclasses.replace(r, scores={"metrics": {"ab_l1": 12.0}})
        for s, r in study.runs["multi-pcgrad"].items()
    }
    broken = {
        s: dataclasses.replace(r, scores={"metrics": {"ab_l1": math.nan}})
        for s, r in study.runs["multi"].items()
    }
    study = dataclasses.replace(study, runs={**study.runs, "multi-pcgrad": lost, "multi": broken})
    keys = set(records(study))
    assert ("class", "multi-pcgrad") not in keys
    assert ("colour", "multi-pcgrad") in keys
    assert not {("colour", "multi"), ("class", "multi")} & keys
    assert ">nan" not in to_svg(draw(study), "drawing", "").lower()


@pytest.mark.parametrize("names", [("colour",), ("class", "multi"), ("colour", "class"), ()])
def test_without_two_arms_to_compare_nothing_is_drawn(names: tuple[str, ...]):
    assert forest(make_study(names=names)) == {}


def test_a_question_has_rows_for_its_own_arms_alone():
    names = {question: figure.axes[0].get_yticklabels() for question, figure in forest(with_oracle()).items()}
    rows = {question: [label.get_text() for label in labels] for question, labels in names.items()}
    assert rows["forest_colour"] == ["multi-task", "oracle: true class given"]
    assert rows["forest_class"] == ["multi-task"]


def with_oracle() -> Study:
    study = make_study(names=("colour", "class", "multi", "oracle"))
    colours = {
        seed: dataclasses.replace(run, scores={"metrics": {"ab_l1": run.metric("ab_l1")}})
        for seed, run in study.runs["oracle"].items()
    }
    return dataclasses.replace(study, runs={**study.runs, "oracle": colours})


def test_colours_follow_the_page():
    text = to_svg(draw(make_study(placebo_labels=2)), "drawing", "")
    assert not set(re.findall(r"(?<!, )#[0-9a-f]{6}", text))
    assert len(re.findall(r' id="([^"]+)"', text)) == len(set(re.findall(r' id="([^"]+)"', text)))


def test_every_arm_of_ours_with_both_tasks_has_a_name_in_words():
    ours = [arm for arm, edits in ARMS.items() if len(edits["tasks"]) > 1]
    assert all(arm_name(arm) != arm for arm in ours)
    assert arm_name("multi-labels5") == "multi-task, 5 % of the labels"


def test_numbers_have_the_digits_of_the_smallest_effect():
    share = Measure("", "%", "percentage points", 100, 1)
    assert (share.signed(-0.0123), share.signed(0.0001), share.signed(-0.0001)) == ("−1.2", "+0.01", "−0.01")
    assert not re.search("-", share.signed(-0.5))
