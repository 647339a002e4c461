"""Secondary metrics, adjusted for their number; probabilities, and the gain over all metrics."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic_study import BASELINES, change, results_of, scores_of, table_text, write_study

from knowhue.report.findings import secondaries
from knowhue.report.integrity import warnings
from knowhue.report.reading import read_study
from knowhue.statistics.paired import benjamini_hochberg, t_interval


def test_every_metric_with_a_direction_is_tested_and_the_named_ones_come_first(eight_seeds: Path):
    rows = secondaries(read_study(eight_seeds))
    assert list(rows) == [
        ("colour", "ciede2000"), ("colour", "psnr"), ("colour", "adversarial"), ("class", "accuracy"),
    ]  # fmt: skip


def test_a_metric_without_a_better_direction_is_not_tested(tmp_path: Path):
    write_study(tmp_path, seeds=(0, 1))
    change(tmp_path / "metrics.json", lambda metrics: metrics["psnr"].update(better="neither"))
    assert ("colour", "psnr") not in secondaries(read_study(tmp_path))


def test_p_is_adjusted_within_the_named_and_within_the_exploratory_ones(tmp_path: Path):
    write_study(tmp_path, seeds=tuple(range(8)), gain=0.02, noise=0.1)
    change(tmp_path / "study.json", lambda plan: plan["questions"]["class"].update(secondary=["accuracy"]))
    rows = secondaries(read_study(tmp_path))
    named = {("colour", "ciede2000"), ("class", "accuracy")}
    for keys in (named, rows.keys() - named):
        family = {key: rows[key] for key in rows if key in keys}
        expected = benjamini_hochberg({name: row.found.p for name, row in family.items()})
        assert {name: row.p_adjusted for name, row in family.items()} == pytest.approx(expected)
    stored = results_of(read_study(tmp_path))["secondary"]
    assert {(row["question"], row["metric"]) for row in stored if not row["exploratory"]} == named


def test_intervals_are_over_images_too_where_images_have_scores(eight_seeds: Path):
    found = {metric: row for (_, metric), row in secondaries(read_study(eight_seeds)).items()}
    assert found["accuracy"].bounds.over == "seeds and images"
    assert found["psnr"].bounds.over == "seeds"
    assert found["psnr"].bounds.interval == pytest.approx(t_interval(found["psnr"].found.differences, 0.95))


def test_a_difference_by_the_seeds_alone_is_not_clear(eight_seeds: Path):
    found = {metric: row for (_, metric), row in secondaries(read_study(eight_seeds)).items()}
    assert found["psnr"].p_adjusted <= 0.05
    assert found["psnr"].bounds.interval[0] > 0
    assert not found["psnr"].is_clear
    assert found["accuracy"].is_clear


def test_they_stand_in_the_results_and_in_the_report(eight_seeds: Path):
    study = read_study(eight_seeds)
    stored = {row["metric"]: row for row in json.loads(json.dumps(results_of(study)))["secondary"]}
    assert stored["ciede2000"]["exploratory"] is False
    assert stored["psnr"]["exploratory"] is True
    rows = scores_of(study, "colour") | scores_of(study, "class")
    assert rows["CIEDE2000 ↓"]["role"] == "secondary"
    assert rows["CIEDE2000 ↓"]["Interval"].endswith("(95 %†)")
    assert rows["PSNR over RGB, dB ↑"]["role"] == "exploratory"
    assert rows["Balanced accuracy, % ↑"]["role"] == "primary"


def test_one_seed_has_no_p(one_seed: Path):
    assert {row.p for row in secondaries(read_study(one_seed)).values()} == {None}


def test_warnings_name_every_metric_that_is_worse_than_a_trivial_baseline_once(tmp_path: Path):
    baselines = BASELINES | {
        "gray": {"ab_l1": 15.6, "ciede2000": 9.0, "psnr": 30.0},
        "mean_colour": {"ciede2000": 8.0},
    }
    write_study(tmp_path, baselines=baselines)
    found = warnings(read_study(tmp_path))
    assert [who for who, _ in found].count("CIEDE2000") == 1
    text = dict(found)["CIEDE2000"]
    assert text.startswith("single-task 10.8")
    assert text.endswith("no better than a trivial baseline (gray 9.00, mean colour 8.00).")
    assert "PSNR over RGB, dB" in dict(found)
    assert "Mean absolute error of a*b*, CIELAB units" not in dict(found)


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
    assert header[1:3] == ["Metrics", "Δm, %"]
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
