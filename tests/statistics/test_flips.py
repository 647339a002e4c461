"""Images that change sides: shares that add up to the change of accuracy, and McNemar's exact p."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowhue.statistics.flips import flips


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    before, after = generator.integers(0, 2, (2, draw(st.integers(1, 4)), draw(st.integers(1, 9))))
    return before, after


@given(tables())
@settings(deadline=None, max_examples=30)
def test_flips_add_up_to_the_change_of_accuracy(pair: tuple[np.ndarray, np.ndarray]):
    before, after = pair
    found = flips(before, after)
    assert found.wrong_to_right - found.right_to_wrong == pytest.approx(after.mean() - before.mean())
    assert found.wrong_to_right + found.right_to_wrong == pytest.approx(np.mean(before != after))
    assert np.mean(found.right_to_wrong_by_seed) == pytest.approx(found.right_to_wrong)
    assert found.wrong_to_right_by_seed == pytest.approx(tuple(((after == 1) & (before == 0)).mean(axis=1)))


@given(tables())
@settings(deadline=None, max_examples=30)
def test_swapping_the_arms_swaps_the_flips(pair: tuple[np.ndarray, np.ndarray]):
    found, swapped = flips(*pair), flips(pair[1], pair[0])
    assert found == (swapped[1], swapped[0], swapped[3], swapped[2])
    assert flips(pair[0], pair[0])[:2] == (0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: flips([[0, 1]], [[0, 1], [1, 1]]),
            r"should be of one shape \(seeds, images\), not empty\. Found",
        ),
        (lambda: flips(np.empty((0, 3)), np.empty((0, 3))), "not empty"),
        (lambda: flips([[0, 1]], [[0, np.nan]]), r"`after` should be 0 or 1 everywhere\. Found `nan`\."),
    ],
)
def test_what_cannot_be_meant_is_refused(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()
