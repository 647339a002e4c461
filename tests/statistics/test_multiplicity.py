"""Adjusted p values: names and order kept, and the error rate they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from knowhue.statistics.multiplicity import benjamini_hochberg

tables = st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=6)


@given(tables, st.randoms())
@settings(deadline=None, max_examples=25)
def test_names_and_order_are_kept_and_no_p_is_lowered(p: dict[str, float], random):
    adjusted = benjamini_hochberg(p)
    assert list(adjusted) == list(p)
    assert all(p[name] - 1e-12 <= value <= 1 for name, value in adjusted.items())
    names = list(p)
    random.shuffle(names)
    assert benjamini_hochberg({name: p[name] for name in names}) == pytest.approx(adjusted)


def test_one_metric_is_not_adjusted():
    assert benjamini_hochberg({"psnr": 0.03}) == {"psnr": 0.03}
    assert benjamini_hochberg({}) == {}


def test_benjamini_hochberg_keeps_the_share_of_false_positives():
    """Six true nulls among ten metrics: the expected share is 0.6 of the level."""
    generator = np.random.default_rng(1)
    p = 2 * stats.norm.sf(np.abs(generator.standard_normal((3000, 10)) + np.r_[np.zeros(6), np.full(4, 3.0)]))
    found = np.array([list(benjamini_hochberg(dict(enumerate(row))).values()) for row in p]) <= 0.1
    shares = found[:, :6].sum(axis=1) / np.maximum(found.sum(axis=1), 1)
    assert shares.mean() == pytest.approx(0.06, abs=3.5 * shares.std() / np.sqrt(3000))


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_what_is_no_p_is_refused(bad: float):
    with pytest.raises(ValueError, match="between 0 and 1"):
        benjamini_hochberg({"psnr": bad})
