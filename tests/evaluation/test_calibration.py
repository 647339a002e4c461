"""Calibration: the fitted temperature, the calibration error, and the threshold for naming a class."""

import numpy as np
import pytest

from knowhue.evaluation.calibration import (
    FEWEST_FOR_TARGET,
    TARGET_ACCURACY,
    calibration_error,
    fit_temperature,
    fit_unknown_below,
    judge_temperature,
)


def draw(temperature: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose true probabilities are softmax(logits / temperature)."""
    generator = np.random.default_rng(0)
    honest = generator.normal(size=(count, 4)) * 2
    label = (honest + generator.gumbel(size=honest.shape)).argmax(1)
    return honest * temperature, label


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_finds_the_temperature_that_the_logits_were_made_with(temperature: float):
    assert fit_temperature(*draw(temperature)) == pytest.approx(temperature, rel=0.06)


@pytest.mark.parametrize("probability", [0.600004, 0.333336, 0.599996, 0.466669])
def test_the_error_is_the_same_of_what_is_written(probability: float):
    """`per_image.csv` holds five decimals; a probability beside an edge of a bin once stood in another one there."""
    others = [{"probability": each, "correct": each > 0.5} for each in (0.59, 0.61, 0.32, 0.34, 0.45, 0.47)]
    scored = [*others, {"probability": probability, "correct": True}]
    written = [row | {"probability": round(row["probability"], 5)} for row in scored]
    assert calibration_error(written) == pytest.approx(calibration_error(scored), abs=1e-5)


def test_the_named_class_stays():
    logits, label = draw(2.0)
    assert ((logits / fit_temperature(logits, label)).argmax(1) == logits.argmax(1)).all()


def test_mends_overconfidence_on_images_it_has_not_seen():
    before, after = judge_temperature(*draw(3.0))
    assert before > 0.1
    assert after < before / 3


def test_harms_little_where_nothing_is_to_mend():
    before, after = judge_temperature(*draw(1.0))
    assert after == pytest.approx(before, abs=0.01)


def test_a_class_is_named_from_where_as_many_are_right_as_are_trusted():
    generator = np.random.default_rng(0)
    probability = generator.random(5000)
    correct = generator.random(5000) < probability
    limit = fit_unknown_below(probability, correct)
    # of calibrated probabilities spread evenly, those above p are right (1 + p) / 2 of the time
    assert limit == pytest.approx(2 * TARGET_ACCURACY - 1, abs=0.03)
    assert correct[probability >= limit].mean() >= TARGET_ACCURACY
    assert correct[probability >= limit - 0.05].mean() < TARGET_ACCURACY


def test_a_class_is_never_named_below_the_least_however_right_it_was():
    assert fit_unknown_below(np.linspace(0.1, 0.4, 200), np.ones(200, bool)) == 0.5


def test_no_class_is_named_where_no_probability_is_high_enough():
    assert fit_unknown_below(np.linspace(0.1, 1, 200), np.zeros(200, bool)) == 1


def test_equal_probabilities_are_named_together_or_not_at_all():
    right_first = np.arange(200) < 150
    assert fit_unknown_below(np.full(200, 0.9), right_first) == 1
    assert fit_unknown_below(np.full(200, 0.9), np.arange(200) < 180) == 0.9


def test_too_few_images_leave_the_least():
    assert (
        fit_unknown_below(np.full(FEWEST_FOR_TARGET - 1, 0.9), np.zeros(FEWEST_FOR_TARGET - 1, bool), 0.6)
        == 0.6
    )
