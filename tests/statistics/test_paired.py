"""Paired differences: agreement with scipy and with enumeration, symmetries, and coverage by simulation."""

import itertools
import math
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from knowhue.statistics import paired
from knowhue.statistics.paired import (
    bca_interval,
    benjamini_hochberg,
    bounded_interval,
    flips,
    hedges_dz,
    seed_differences,
    sided_share,
    sign_flip_p,
    sign_flip_p_of_few,
    t_interval,
    wilson_interval,
    wins,
)

# Multiples of 1/64: sums, mirrors and powers of two are exact, so that equality can be asked for.
vectors = st.lists(st.integers(-640, 640).map(lambda value: value / 64), min_size=2, max_size=12)
p_values = st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=6)
SCORES = np.random.default_rng(5).normal(0.1, 1.0, 9)


def counted_p(d: Sequence[float]) -> float:
    """By trying every sign pattern, one after the other."""
    patterns = itertools.product((-1, 1), repeat=len(d))
    sums = np.array([abs(np.dot(pattern, d)) for pattern in patterns])
    return float(np.mean(sums >= abs(sum(d)) - 1e-12))


def samples(count: int, seeds: int, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seeds).normal(mean, 1.0, (count, seeds))


@given(vectors)
@settings(deadline=None, max_examples=50)
def test_t_interval_is_scipy_s(d: list[float]):
    found = t_interval(d, 0.9)
    assert found is not None
    if np.ptp(d) == 0:
        assert found == (d[0], d[0])
    else:
        assert found == pytest.approx(tuple(stats.ttest_1samp(d, 0).confidence_interval(0.9)))


@given(vectors)
@settings(deadline=None, max_examples=40)
def test_sign_flip_p_is_the_share_of_patterns_counted(d: list[float]):
    assert sign_flip_p(d) == counted_p(d)


@pytest.mark.parametrize("seeds", [1, 2, 5, 13, 20])
def test_sign_flip_p_of_one_direction_is_two_patterns(seeds: int):
    assert sign_flip_p(np.linspace(0.1, 0.9, seeds)) == 2 / 2**seeds


@pytest.mark.parametrize("seeds", [1, 2, 7, 12])
def test_sign_flip_p_of_many_rows_is_that_of_each(seeds: int):
    """With ties, zeros and rows of one direction among them; more rows than are counted at once."""
    generator = np.random.default_rng(seeds)
    rows = np.concatenate(
        (generator.normal(0.5, 1, (600, seeds)), generator.integers(-2, 3, (60, seeds)) / 10)
    )
    assert sign_flip_p_of_few(rows).tolist() == [sign_flip_p(row) for row in rows]
    assert sign_flip_p_of_few(rows[:0]).tolist() == []


def test_the_patterns_of_thousands_of_studies_take_little_memory():
    rows = np.random.default_rng(0).normal(0.5, 1, (4000, 12))
    tracemalloc.start()
    try:
        sign_flip_p_of_few(rows)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_sign_flip_p_is_scipy_s_permutation_test():
    expected = stats.permutation_test(
        (SCORES,), np.mean, permutation_type="samples", n_resamples=2**9, alternative="two-sided"
    )
    assert sign_flip_p(SCORES) == pytest.approx(expected.pvalue, abs=1e-12)


@pytest.mark.parametrize(
    ("d", "p"), [([0.1, 0.2, 0.3, -0.3], 0.75), ([0.0, 0.0], 1.0), ([], 1.0), ([1, -1], 1.0)]
)
def test_ties_count_despite_rounding(d: list[float], p: float):
    assert sign_flip_p(d) == p == sign_flip_p(d[::-1])


def test_a_zero_changes_no_sign_flip_p():
    assert sign_flip_p([*SCORES, 0.0, 0.0]) == sign_flip_p(SCORES)


def test_random_patterns_agree_with_exact_ones(monkeypatch: pytest.MonkeyPatch):
    d = np.random.default_rng(2).normal(0.4, 1.0, 24)
    exact = sign_flip_p(d)
    monkeypatch.setattr(paired, "EXACT_SEEDS", 23)
    drawn = sign_flip_p(d)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / paired.RANDOM_PATTERNS))
    assert drawn == sign_flip_p(d)


def test_random_patterns_never_give_0():
    assert sign_flip_p([*np.ones(59), -1e-3]) == 1 / (paired.RANDOM_PATTERNS + 1)


@given(vectors, st.sampled_from([0.25, 2.0, 64.0]))
@settings(deadline=None, max_examples=25)
def test_swapping_the_arms_mirrors_and_units_scale(d: list[float], unit: float):
    for interval in (t_interval, lambda values: bca_interval(values, resamples=99)):
        found, mirrored, scaled = interval(d), interval(-np.array(d)), interval(unit * np.array(d))
        if found is None:
            assert mirrored is scaled is None
            continue
        assert scaled == pytest.approx(tuple(unit * end for end in found), abs=1e-9)
        if interval is t_interval:
            assert mirrored == pytest.approx((-found[1], -found[0]))
    assert sign_flip_p(d) == sign_flip_p(-np.array(d)) == sign_flip_p(unit * np.array(d))
    effect = hedges_dz(d)
    if effect is not None:
        assert hedges_dz(-unit * np.array(d)) == pytest.approx(-effect)


@given(vectors.flatmap(lambda d: st.tuples(st.just(d), st.permutations(d))))
@settings(deadline=None, max_examples=25)
def test_the_order_of_seeds_does_not_matter(pair: tuple[list[float], list[float]]):
    d, other = pair
    assert t_interval(d) == pytest.approx(t_interval(other))
    assert sign_flip_p(d) == sign_flip_p(other)
    assert wins(d, lower_is_better=True) == wins(other, lower_is_better=True)


def test_bca_interval_is_efron_s_formula():
    d = np.random.default_rng(1).exponential(size=20)
    means = np.random.default_rng(8).choice(d, (40_000, 20)).mean(axis=1)
    bias = stats.norm.ppf(np.mean(means < d.mean()))
    left = d.mean() - (d.sum() - d) / 19
    acceleration = np.sum(left**3) / (6 * np.sum(left**2) ** 1.5)
    shifted = bias + stats.norm.ppf([0.025, 0.975])
    levels = stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))
    assert bca_interval(d) == pytest.approx(tuple(np.quantile(means, levels)), abs=0.03)
    assert bca_interval(d) == bca_interval(d) != bca_interval(d, seed=1)


def test_bca_undercovers_with_few_seeds_as_the_protocol_says():
    covered = [
        low < 0 < high
        for low, high in filter(None, (bca_interval(d, resamples=499) for d in samples(1000, 5)))
    ]
    assert 0.78 < np.mean(covered) < 0.89


def test_hedges_dz_is_unbiased():
    effects = [hedges_dz(d) or 0.0 for d in samples(20_000, 6, mean=0.8)]
    naive = [d.mean() / d.std(ddof=1) for d in samples(20_000, 6, mean=0.8)]
    error = 4 * np.std(effects) / math.sqrt(20_000)
    assert np.mean(effects) == pytest.approx(0.8, abs=error)
    assert np.mean(naive) > 0.8 + 4 * error


def test_hedges_correction_is_near_its_approximation():
    d = samples(1, 20)[0]
    assert hedges_dz(d) == pytest.approx(d.mean() / d.std(ddof=1) * (1 - 3 / (4 * 19 - 1)), rel=1e-4)


@pytest.mark.parametrize(("count", "of"), [(0, 5), (3, 7), (20, 20), (1, 1)])
def test_wilson_interval_solves_the_score_equation(count: int, of: int):
    """Its ends are the shares from which the count is exactly 1.96 standard errors away."""
    share, quantile = count / of, stats.norm.ppf(0.975)
    for end in wilson_interval(count, of):
        assert abs(share - end) == pytest.approx(quantile * math.sqrt(end * (1 - end) / of), abs=1e-12)


def test_a_tie_is_neither_a_win_nor_a_loss():
    d = [0.0, 0.0, 1.0, -2.0, -3.0]
    assert wins(d, lower_is_better=True)[:3] == (2, 5, 0.4)
    assert wins(d, lower_is_better=False)[:3] == (1, 5, 0.2)
    assert wins(d, lower_is_better=True).interval == wilson_interval(2, 5)


def test_what_rounding_leaves_of_a_tie_is_no_win_and_of_the_margin_none_beyond_it():
    right = [[0.6, 0.64, 0.94], [0.6, 0.94, 0.64], [0.94, 0.6, 0.64]]  # by class, of three models
    levels = [sum(each) / 3 for each in right]
    assert len(set(levels)) > 1
    tied = seed_differences(levels, levels[1:] + levels[:1])
    assert tied.tolist() == [0.0] * 3
    assert wins([*(np.array(levels) - levels[0]), 0.01], lower_is_better=False).count == 1
    assert wins(tied, lower_is_better=False).count == 0
    for margin, pairs in {0.01: [(0.84, 0.83), (0.98, 0.97), (0.57, 0.56)], 0.1: [(0.93, 0.83)]}.items():
        lost = [after - before for before, after in pairs]
        assert max(-each for each in lost) > margin  # as floats have it
        assert sided_share(lost, margin, lower_is_better=False).count == 0
        assert sided_share([each * 1.001 for each in lost], margin, lower_is_better=False).share == 1.0


@pytest.mark.parametrize("odd", [np.inf, np.nan])
def test_a_score_that_is_not_finite_makes_no_tie_of_others(odd: float):
    assert seed_differences([0.0, 0.25], [odd, 0.5]).tolist()[1] == 0.25


@given(vectors, st.sampled_from([1e-300, 1e-60, 1e-3, 1.0, 1e60, 1e290]))
@settings(deadline=None, max_examples=25)
def test_differences_are_those_of_their_scores(d: list[float], unit: float):
    level = np.full(len(d), 12.5 * unit)
    assert seed_differences(level, level + np.array(d) * unit) == pytest.approx(
        np.array(d) * unit, abs=1e-11 * unit
    )
    assert seed_differences([], []).tolist() == []


@given(vectors, st.sampled_from([0.0, 0.25, 3.0]), st.booleans())
@settings(deadline=None, max_examples=25)
def test_wins_ties_and_losses_are_all_seeds(d: list[float], margin: float, lower: bool):
    better, worse = sided_share(d, margin, not lower), sided_share(d, margin, lower)
    assert better.count + worse.count + sum(abs(value) <= margin for value in d) == len(d)
    assert wins(d, lower) == sided_share(d, 0.0, not lower)
    assert worse.interval[0] <= worse.share <= worse.interval[1]


def test_equal_seeds_are_not_rounded_into_a_spread():
    d = [0.1] * 3
    assert np.std(d, ddof=1) > 0
    assert t_interval(d) == (0.1, 0.1)
    assert hedges_dz(d) is bca_interval(d) is None


@pytest.mark.parametrize("d", [[], [0.3]])
def test_one_seed_says_nothing_about_spread(d: list[float]):
    assert t_interval(d) is bca_interval(d) is hedges_dz(d) is None
    assert sign_flip_p(d) == 1.0
    assert hedges_dz([0.1, 0.4]) is None


@pytest.mark.parametrize(("seeds", "mean"), [(7, 0.3), (20, -2.0)])
def test_t_interval_covers_the_planted_mean_at_its_nominal_rate(seeds: int, mean: float):
    intervals = [t_interval(d) or (0, 0) for d in samples(4000, seeds, mean)]
    covered = np.mean([low < mean < high for low, high in intervals])
    assert covered == pytest.approx(0.95, abs=3.5 * math.sqrt(0.95 * 0.05 / 4000))


@pytest.mark.parametrize(("seeds", "said"), [(8, 0.83), (10, 0.84), (20, 0.87)])
def test_of_one_sided_seeds_it_covers_less_as_the_documentation_says(seeds: int, said: float):
    draws = np.random.default_rng(5).lognormal(size=(6000, seeds))
    ends = np.array([t_interval(d) for d in draws])
    covered = np.mean((ends[:, 0] < math.sqrt(math.e)) & (math.sqrt(math.e) < ends[:, 1]))
    assert covered == pytest.approx(said, abs=0.005 + 3 * math.sqrt(0.16 * 0.84 / 6000))


@pytest.mark.parametrize("draw", ["normal", "laplace", "uniform", "standard_cauchy"])
def test_sign_flip_rejects_a_true_null_as_often_as_it_says(draw: str):
    generator = np.random.default_rng(4)
    p = np.array(
        [sign_flip_p(getattr(generator, draw)(size=10) - 0.5 * (draw == "uniform")) for _ in range(4000)]
    )
    for alpha in (0.01, 0.05, 0.2, 0.5):
        attainable = math.floor(alpha * 2**9) / 2**9
        assert np.mean(p <= alpha) == pytest.approx(attainable, abs=3.5 * math.sqrt(alpha / 4000))


def test_seven_seeds_are_the_first_that_can_pass_the_level_of_two_questions():
    assert sign_flip_p(np.ones(6)) > 0.025 > sign_flip_p(np.ones(7))
    assert sign_flip_p(np.ones(5)) == 0.0625


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: t_interval(np.zeros((2, 2))),
            r"`differences` should be finite, of shape \(seeds,\)\. Found",
        ),
        (lambda: sign_flip_p([0.1, math.nan]), "`differences` should be finite"),
        (lambda: sided_share([0.1], -1.0, True), r"`margin` should be at least 0\. Found `margin = -1.0`\."),
        (
            lambda: wins([], True),
            r"`count` should be in 0\.\.of, and `of` above 0\. Found `count = 0, of = 0`\.",
        ),
        (lambda: wilson_interval(3, 2), r"Found `count = 3, of = 2`"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


@st.composite
def right_and_wrong(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    before, after = generator.integers(0, 2, (2, draw(st.integers(1, 4)), draw(st.integers(1, 9))))
    return before, after


@given(right_and_wrong())
@settings(deadline=None, max_examples=30)
def test_flips_add_up_to_the_change_of_accuracy(pair: tuple[np.ndarray, np.ndarray]):
    before, after = pair
    lost, won = flips(before, after)
    assert won.mean() - lost.mean() == pytest.approx(after.mean() - before.mean())
    assert won.mean() + lost.mean() == pytest.approx(np.mean(before != after))
    assert won.tolist() == pytest.approx(((after == 1) & (before == 0)).mean(axis=1))


@given(right_and_wrong())
@settings(deadline=None, max_examples=30)
def test_swapping_the_arms_swaps_the_flips(pair: tuple[np.ndarray, np.ndarray]):
    (lost, won), (won_back, lost_back) = flips(*pair), flips(pair[1], pair[0])
    assert (lost.tolist(), won.tolist()) == (lost_back.tolist(), won_back.tolist())
    assert not np.any(flips(pair[0], pair[0]))


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
def test_flips_of_other_shapes_or_values_are_refused(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12).map(
        lambda answers: tuple(np.array(answers, float).T)
    )
)
def test_mcnemar_is_the_share_of_patterns_counted(pair: tuple[np.ndarray, np.ndarray]):
    """Each image that differs is the first's or the second's by the throw of a coin."""
    first, second = pair
    found = paired.mcnemar(first, second)
    assert found.only_first - found.only_second == first.sum() - second.sum()
    differing = int((first != second).sum())
    split = abs(2 * found.only_first - differing)
    as_far = [abs(2 * sum(each) - differing) >= split for each in itertools.product((0, 1), repeat=differing)]
    assert found.p == pytest.approx(np.mean(as_far))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1] * 6, [0], r"of one shape \(images\), not empty"),
        ([0.9], [0.1], "`first` should be 0 or 1"),
        ([1.0], [np.nan], "`second` should be 0 or 1"),
        ([], [], "not empty"),
    ],
)
def test_mcnemar_of_other_shapes_or_values_is_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        paired.mcnemar(first, second)


def test_mcnemar_is_scipy_s_binomial_and_symmetric():
    first, second = np.random.default_rng(1).integers(0, 2, (2, 400))
    one, other = int((first > second).sum()), int((first < second).sum())
    found = paired.mcnemar(first, second)
    assert found == (one, other, pytest.approx(2 * stats.binom.cdf(min(one, other), one + other, 0.5)))
    assert paired.mcnemar(second, first) == (other, one, pytest.approx(found.p))


@given(p_values, st.randoms())
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


@pytest.mark.parametrize(
    ("values", "is_possible"),
    [([0.4, 0.5, 0.6], True), ([0.93, 0.97, 0.99], False), ([0.01, 0.03, 0.07], False), ([1.0, 1.0], True)],
)
def test_an_interval_beyond_either_limit_is_none(values: list[float], is_possible: bool):
    expected = t_interval(values) if is_possible else None
    assert bounded_interval(values, (0.0, 1.0)) == expected
    assert bounded_interval([-value for value in values], (-1.0, 0.0)) == (
        None if expected is None else (-expected[1], -expected[0])
    )


def test_differences_that_are_equal_but_for_rounding_have_no_effect_size():
    d = [0.82 - 0.8, 0.81 - 0.79, 0.93 - 0.91]
    assert len(set(d)) > 1
    assert hedges_dz(d) is None
    assert t_interval(d) == (d[0], d[0])
    assert hedges_dz([0.02, 0.02, 0.02001]) is not None
