"""Adjusted p values: parity with closed testing and scipy, and the error rates they promise."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from knowhue.statistics.multiplicity import benjamini_hochberg, holm

tables = st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=6)


@given(tables)
@settings(deadline=None, max_examples=50)
def test_holm_is_closed_testing_with_bonferroni(p: dict[str, float]):
    """Each question's adjusted p is the largest Bonferroni p of all sets of questions that hold it."""
    names = list(p)
    sets = [chosen for size in range(1, len(names) + 1) for chosen in itertools.combinations(names, size)]
    for name, adjusted in holm(p).items():
        bonferroni = [
            min(1.0, len(chosen) * min(p[other] for other in chosen)) for chosen in sets if name in chosen
        ]
        assert adjusted == pytest.approx(max(bonferroni), abs=1e-12)


@given(tables.filter(len))
@settings(deadline=None, max_examples=50)
def test_benjamini_hochberg_is_scipy_s(p: dict[str, float]):
    expected = stats.false_discovery_control(list(p.values()), method="bh")
    assert list(benjamini_hochberg(p).values()) == pytest.approx(list(expected), abs=1e-12)


@given(tables)
@settings(deadline=None, max_examples=50)
def test_adjusting_keeps_names_and_order_and_never_lowers(p: dict[str, float]):
    first, second = holm(p), benjamini_hochberg(p)
    assert list(first) == list(second) == list(p)
    for name, value in p.items():
        assert value <= second[name] + 1e-12
        assert second[name] <= first[name] + 1e-12 <= 1 + 1e-12
    for one, other in itertools.combinations(p, 2):
        if p[one] <= p[other]:
            assert first[one] <= first[other]
            assert second[one] <= second[other]


@given(tables, st.randoms())
@settings(deadline=None, max_examples=25)
def test_the_order_of_questions_does_not_matter(p: dict[str, float], random):
    names = list(p)
    random.shuffle(names)
    shuffled = {name: p[name] for name in names}
    assert holm(shuffled) == holm(p)
    assert benjamini_hochberg(shuffled) == benjamini_hochberg(p)


def test_one_question_is_not_adjusted():
    assert holm({"colour": 0.03}) == benjamini_hochberg({"colour": 0.03}) == {"colour": 0.03}
    assert holm({}) == benjamini_hochberg({}) == {}


def test_holm_keeps_the_chance_of_any_false_positive():
    p = np.random.default_rng(0).random((4000, 2))
    any_false = np.mean([min(holm(dict(enumerate(row))).values()) <= 0.05 for row in p])
    assert any_false == pytest.approx(1 - 0.975**2, abs=3.5 * np.sqrt(0.05 * 0.95 / 4000))


def test_benjamini_hochberg_keeps_the_share_of_false_positives():
    """Six true nulls among ten metrics: the expected share is 0.6 of the level."""
    generator = np.random.default_rng(1)
    p = 2 * stats.norm.sf(np.abs(generator.standard_normal((3000, 10)) + np.r_[np.zeros(6), np.full(4, 3.0)]))
    found = np.array([list(benjamini_hochberg(dict(enumerate(row))).values()) for row in p]) <= 0.1
    shares = found[:, :6].sum(axis=1) / np.maximum(found.sum(axis=1), 1)
    assert shares.mean() == pytest.approx(0.06, abs=3.5 * shares.std() / np.sqrt(3000))


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_what_is_no_p_is_refused(adjust, bad: float):
    with pytest.raises(ValueError, match=r"`p` should be in 0\.\.1\. Found `p = \{'colour': "):
        adjust({"colour": bad})
