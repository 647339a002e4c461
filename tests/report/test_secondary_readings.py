"""What `results.json` and the page say beside a verdict."""

import json

import numpy as np
import pytest
from scipy import stats
from synthetic_study import change, results_of, table_text, write_study

from knowhue.report.reading import read_study


def test_probabilities_agree_with_the_interval_that_they_are_of(eight_seeds):
    results = results_of(read_study(eight_seeds))
    for question, found in results["probabilities"].items():
        test = results["tests"][question]
        low, high = test["intervals"][0]["interval"]
        assert found["worse"] + found["equal"] + found["better"] == pytest.approx(1)
        assert found["over"] == "seeds and images"
        # better by what matters is claimed where the interval lies beyond: the probability is at least its level's
        sign = -1 if question == "colour" else 1
        if min(sign * low, sign * high) > test["sesoi"]:
            assert found["better"] > 1 - test["alpha"] / 2
    json.dumps(results, allow_nan=False)


def test_delta_m_is_over_the_primary_metrics_by_seed(eight_seeds):
    study = read_study(eight_seeds)
    results = results_of(study)
    (row,) = results["delta_m"]
    by_hand = []
    for seed in range(8):
        own = {arm: study.runs[arm][seed].metrics for arm in ("colour", "class", "multi")}
        error = [own[arm]["ab_l1"] for arm in ("colour", "multi")]
        right = [own[arm]["balanced_accuracy"] for arm in ("class", "multi")]
        by_hand.append((-(error[1] / error[0] - 1) + (right[1] / right[0] - 1)) / 2)
    assert row["by_seed"] == pytest.approx(by_hand)
    t = stats.ttest_1samp(by_hand, 0).confidence_interval(0.95)
    assert row["interval"] == pytest.approx((t.low, t.high))
    assert row["mean"] == pytest.approx(np.mean(by_hand))
    header, cells = table_text(study, "delta_m")
    assert header[1:3] == ["Over the metrics", "Δm, %"]
    assert cells[0] == "Multi-task"
    assert cells[2] == f"{100 * np.mean(by_hand):+.1f}"


def test_one_seed_and_a_tuning_study_have_no_probabilities(one_seed, tmp_path):
    found = results_of(read_study(one_seed))["probabilities"]
    assert {each["better"] for each in found.values()} == {None}
    folder = write_study(tmp_path / "study", seeds=tuple(range(8)))
    change(folder / "study.json", lambda study: study.update(purpose="tuning"))
    change(folder / "study.json", lambda study: study["config"]["evaluation"].update(split="validation"))
    found = results_of(read_study(folder))
    assert (found["probabilities"], found["delta_m"]) == ({}, [])


def test_the_page_says_that_it_is_no_second_verdict(eight_seeds):
    text = table_text(read_study(eight_seeds), "probabilities")
    assert text[0] == ["Question", "Metric", "Smallest effect", "P(worse)", "P(equal)", "P(better)", "Over"]
    assert [row[0] for row in text[1:]] == ["Colouring", "Classification"]
    assert all(float(row[5].lstrip("<>")) <= 1 for row in text[1:])
