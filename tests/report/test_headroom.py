"""The possible gain: its sign, its interval, and a sentence that claims no more than the interval shows."""

import dataclasses

import numpy as np
import pytest

from knowhue.report.answers import headroom_sentences
from knowhue.report.findings import headrooms
from knowhue.report.study import Run, Study
from knowhue.report.text import measure
from knowhue.statistics.verdicts import Word

METRICS = {"ab_l1": {"better": "lower"}, "balanced_accuracy": {"better": "higher", "unit": "share"}}
BASELINES = {"gray": {"ab_l1": 15.0}, "majority_class": {"balanced_accuracy": 0.2}, "real": {"ab_l1": 0.0}}


def study(gain: float, spread: float = 0.05, metric: str = "ab_l1", level: float = 12.0) -> Study:
    """Nine seeds whose oracle is better by `gain`; the spread is lopsided, so that a turned interval shows."""
    sign = -1 if metric == "ab_l1" else 1
    chance = np.array([0, 0, 0, 0, 0, 0, 0, 0, 9.0]) - 1
    single = "colour" if metric == "ab_l1" else "class"
    runs = {
        single: {n: scored(single, n, metric, level) for n in range(9)},
        "oracle": {
            n: scored("oracle", n, metric, level + sign * (gain + spread * d)) for n, d in enumerate(chance)
        },
    }
    return Study({"seeds": list(range(9))}, runs, baselines=BASELINES, metrics=METRICS)


def headroom(study: Study, question: str, word: Word) -> list[str]:
    asked = study.questions[question]
    return headroom_sentences(headrooms(study, question), measure(study.metrics, asked), asked.sesoi, word)


def scored(arm: str, seed: int, metric: str, value: float) -> Run:
    return Run(arm, seed, "finished", scores={"metrics": {metric: value}})


@pytest.mark.parametrize(
    ("question", "metric", "level"), [("colour", "ab_l1", 12.0), ("class", "balanced_accuracy", 0.5)]
)
@pytest.mark.parametrize("gain", [0.12, -0.05])
def test_the_interval_is_turned_with_the_gain(question: str, metric: str, level: float, gain: float):
    oracle, _ = headrooms(study(gain, 0.01, metric, level), question)
    low, high = oracle.bounds.interval
    assert oracle.gain == pytest.approx(gain)
    assert (low + high) / 2 == pytest.approx(gain)
    assert low < gain < high


@pytest.mark.parametrize(
    ("gain", "spread", "said"),
    [
        (0.1, 0.01, "by less than what matters (+0.10"),
        (-0.6, 0.01, "no better than single-task (−0.60"),
    ],
)
def test_a_gain_shown_to_be_small_is_said_beside_equivalent_alone(gain: float, spread: float, said: str):
    (sentence, _) = headroom(study(gain, spread), "colour", Word.EQUIVALENT)
    assert sentence.startswith("Even the arm that is given the true class is")
    assert said in sentence
    assert sentence.endswith("the label could hardly have helped by more.")
    for word in set(Word) - {Word.EQUIVALENT}:
        assert "hardly" not in headroom(study(gain, spread), "colour", word)[0]


@pytest.mark.parametrize("gain", [0.2, -0.1])
def test_a_small_gain_that_the_interval_leaves_open_is_not_shown(gain: float):
    (sentence, _) = headroom(study(gain, 0.3), "colour", Word.EQUIVALENT)
    assert sentence.endswith("that it could not have helped by what matters is not shown.")
    assert "hardly" not in sentence


def test_a_large_gain_is_said_as_a_share():
    (sentence, _) = headroom(study(0.5, 0.01), "colour", Word.EQUIVALENT)
    assert sentence.startswith(
        "The smallest effect of interest is 50 % of what the true class gives (+0.50, 95 %"
    )
    assert sentence.endswith("positive is better).")


def test_no_interval_shows_nothing():
    found = study(0.1)
    runs = {arm: {0: own[0]} for arm, own in found.runs.items()}
    (sentence, _) = headroom(dataclasses.replace(found, runs=runs), "colour", Word.EQUIVALENT)
    assert "no interval: one seed has no interval" in sentence
    assert "is not shown" in sentence


def test_a_baseline_that_is_not_beaten_leaves_no_share():
    assert headroom(study(0.1, level=12.0), "colour", Word.INCONCLUSIVE)[1] == (
        "The smallest effect of interest is 8 % of what single-task gains over “gray” (3.00 CIELAB units)."
    )
    assert headroom(study(0.1, level=15.5), "colour", Word.INCONCLUSIVE)[1] == (
        "Single-task gains nothing over “gray” (−0.50 CIELAB units)."
    )
