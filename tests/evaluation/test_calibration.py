import numpy as np
import pytest

from knowhue.evaluation.calibration import fit_temperature, judge_temperature


def draw(temperature: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose true probabilities are softmax(logits / temperature)."""
    generator = np.random.default_rng(0)
    honest = generator.normal(size=(count, 4)) * 2
    label = (honest + generator.gumbel(size=honest.shape)).argmax(1)
    return honest * temperature, label


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_finds_the_temperature_that_the_logits_were_made_with(temperature: float):
    assert fit_temperature(*draw(temperature)) == pytest.approx(temperature, rel=0.06)


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
