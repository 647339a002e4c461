"""Verdicts: every wording, their order, and error rates over seeds and images."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from knowhue.statistics.crossed import Crossed, Part, crossed
from knowhue.statistics.paired import sign_flip_p, t_interval
from knowhue.statistics.verdicts import (
    Word,
    at_limit,
    delta_m,
    fewest_seeds,
    is_clear,
    judge,
    more_images_needed,
    needed,
    posterior,
)

SESOI, ALPHA = 0.25, 0.025
STUDIES = 600


def said(low: float, high: float, p: float = 0.004, seeds: int = 10, inner: float = 0.0, **how):
    """The word of an interval at 97.5 %, and of a 95 % one that is `inner` narrower on either side."""

    def interval(level: float):
        return (low, high) if level > 0.96 else (low + inner, high - inner)

    return judge(seeds, p, interval, SESOI, ALPHA, **{"lower_is_better": True, **how})


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-0.9, -0.26, Word.HELPS),
        (0.26, 0.9, Word.HURTS),
        (-0.9, -0.25, Word.HELPS_UNKNOWN_SIZE),
        (-0.9, -0.01, Word.HELPS_UNKNOWN_SIZE),
        (0.01, 0.9, Word.HURTS_UNKNOWN_SIZE),
        (-0.24, -0.01, Word.HELPS_LITTLE),
        (0.01, 0.24, Word.HURTS_LITTLE),
        (-0.24, 0.24, Word.EQUIVALENT),
        (-0.25, 0.1, Word.INCONCLUSIVE),
        (-0.1, 0.25, Word.INCONCLUSIVE),
        (-0.9, 0.0, Word.INCONCLUSIVE),
    ],
)
def test_every_word_and_both_its_edges(low: float, high: float, word: Word):
    assert said(low, high) == word
    mirrored = {"helps": "hurts", "hurts": "helps"}.get(word.direction, word.direction)
    assert said(-high, -low).direction == mirrored
    assert said(low, high, lower_is_better=False).direction == mirrored


@pytest.mark.parametrize(("before", "after"), [(0.8, 0.81), (0.05, 0.06), (0.06, 0.07), (0.98, 0.99)])
def test_what_touches_the_smallest_effect_does_so_however_it_is_rounded(before: float, after: float):
    found = crossed(np.full((10, 30), after - before))
    assert found is not None
    word = judge(10, 0.002, found.interval, 0.01, ALPHA, lower_is_better=False)
    assert word == Word.HELPS_UNKNOWN_SIZE
    assert posterior(found, 0.01, lower_is_better=False, level=0.95).equal == 1


def test_rounding_grows_with_the_levels():
    touched = 1e6 + 1e-4 - 1e6
    assert abs(touched - 1e-4) > 1e-9 * 1e-4
    ends = {"interval": lambda _: (touched, touched), "sesoi": 1e-4, "alpha": ALPHA, "lower_is_better": False}
    assert judge(10, 0.002, **ends, scale=1e6) == Word.HELPS_UNKNOWN_SIZE
    assert judge(10, 0.002, **ends) != Word.HELPS_UNKNOWN_SIZE


def test_a_claim_needs_the_sign_flip_test_as_well():
    assert said(-0.9, -0.3, p=0.026) == Word.INCONCLUSIVE
    assert said(-0.2, -0.1, p=0.026) == Word.EQUIVALENT
    assert said(-0.9, -0.3, p=0.025) == Word.HELPS


def test_what_is_small_is_so_by_the_inner_interval():
    helps, little, equal, open_ = (
        said(*ends, inner=0.03) for ends in ((-0.9, -0.3), (-0.27, -0.01), (-0.27, 0.2), (-0.3, 0.2))
    )
    # at 1 - 2 alpha; a difference is one by the outer interval
    assert (helps, helps.is_small) == (Word.HELPS, False)
    assert (little, little.is_small) == (Word.HELPS_LITTLE, True)
    assert (equal, equal.is_small) == (Word.EQUIVALENT, True)
    assert (open_, open_.is_small) == (Word.INCONCLUSIVE, False)


def test_what_forbids_a_word_goes_before_it():
    assert said(-0.9, -0.3, complete=False, at_limit=True) == Word.NO_VERDICT
    assert said(-0.9, -0.3, seeds=7) == Word.NO_VERDICT
    assert said(-0.9, -0.3, at_limit=True) == Word.CANNOT_TELL
    assert said(-0.1, 0.1, at_limit=True) == Word.CANNOT_TELL
    assert judge(10, 0.001, lambda _: None, SESOI, ALPHA, True) == Word.INCONCLUSIVE


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.025, 0.0125, 0.004, 0.001])
def test_with_the_fewest_seeds_the_test_can_reject(alpha: float):
    fewest = fewest_seeds(alpha)
    assert fewest >= 8
    assert sign_flip_p([1.0] * fewest) <= alpha
    assert fewest == 8 or sign_flip_p([1.0] * (fewest - 1)) > alpha


def table(rng: np.random.Generator, n: int, m: int, effect: float, seed=0.076, image=1.45, rest=0.5):
    return (
        effect + seed * rng.normal(size=(n, 1)) + image * rng.normal(size=m) + rest * rng.normal(size=(n, m))
    )


def words(effect: float, n: int, m: int, studies: int = STUDIES, **spreads) -> list[Word]:
    rng = np.random.default_rng(n * m + int(100 * abs(effect)))
    found = []
    for _ in range(studies):
        d = table(rng, n, m, effect, **spreads)
        parts = crossed(d)
        assert parts is not None
        found.append(judge(n, sign_flip_p(d.mean(axis=1)), parts.interval, SESOI, ALPHA, True))
    return found


def above(rate: float, count: int) -> float:
    """What a true rate shows at most, but for one simulation in 5000."""
    return rate + 3.5 * (rate * (1 - rate) / count) ** 0.5


@pytest.mark.parametrize(("n", "m"), [(8, 250), (20, 60)])
def test_an_effect_as_large_as_the_smallest_of_interest_is_rarely_called_equivalent(n: int, m: int):
    """Over the population of images; by the seeds alone it is, in a quarter to a third of the studies."""
    false = sum(word in (Word.EQUIVALENT, Word.HELPS_LITTLE) for word in words(-SESOI, n, m))
    assert false / STUDIES <= above(ALPHA, STUDIES)


@pytest.mark.parametrize(("n", "m"), [(8, 250), (20, 60)])
def test_no_effect_is_rarely_said_to_help_or_hurt(n: int, m: int):
    claims = sum(bool(word.direction) for word in words(0.0, n, m))
    assert claims / STUDIES <= above(ALPHA, STUDIES)


def test_two_questions_together_make_false_claims_of_any_kind_in_at_most_alpha():
    """One without effect, one at the smallest of interest: two Holm families made 8.8 %."""
    kinds = [
        [bool(word.direction) for word in words(0.0, 8, 250, seed=0.4)],
        [word in (Word.EQUIVALENT, Word.HELPS_LITTLE) for word in words(-SESOI, 20, 250, image=0.2)],
    ]
    assert np.mean(np.any(kinds, axis=0)) <= above(2 * ALPHA, STUDIES)


def test_a_large_effect_is_found():
    found = words(-3 * SESOI, 8, 250, 100)
    assert found.count(Word.HELPS) >= 95


def parts(seed: float, image: float, rest: float = 0.0, n: int = 8, m: int = 250) -> Crossed:
    cell = rest**2 / n / m
    return Crossed(
        0.0, n, m, Part(seed**2 / n + cell, n - 1), Part(image**2 / m + cell, m - 1), Part(cell, 1e3)
    )


@pytest.mark.parametrize(("alpha", "seeds"), [(0.05, 36), (0.025, 44)])
def test_needed_seeds_are_those_of_equivalence_at_half_a_standard_deviation(alpha: float, seeds: int):
    assert needed(parts(0.5, 0.0), 0.25, alpha).seeds == seeds


@pytest.mark.parametrize(("seed", "image", "m"), [(0.4, 1.0, 1500), (0.3, 0.0, 250), (0.35, 1.45, 800)])
def test_needed_seeds_find_an_effect_and_show_its_absence_four_times_in_five(seed, image, m):
    n = needed(parts(seed, image, m=m), SESOI, ALPHA).seeds
    assert n is not None
    some, none = ([word for word in _drawn(effect, n, m, seed, image)] for effect in (-SESOI, 0.0))
    assert np.mean([word.direction == "helps" for word in some]) > 0.77
    assert 0.75 < np.mean([word == Word.EQUIVALENT for word in none]) < 0.87


def _drawn(effect: float, n: int, m: int, seed: float, image: float) -> list[Word]:
    """Studies by their means alone, which is all that a study without a residual has."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(500):
        means = effect + seed * rng.normal(size=n) + image / m**0.5 * rng.normal()
        images = image**2 * rng.chisquare(m - 1) / (m - 1) / m
        cell = Crossed(
            means.mean(), n, m, Part(means.var(ddof=1) / n, n - 1), Part(images, m - 1), Part(0, 1)
        )
        low, high = cell.interval(1 - ALPHA)
        p = 1.0 if low <= 0 <= high else 0.0  # with so many seeds the test agrees with the interval
        found.append(judge(n, p, cell.interval, SESOI, ALPHA, True))
    return found


@pytest.mark.parametrize("need", [8, 13, 29])
def test_the_range_of_needed_seeds_holds_the_need_nine_times_in_ten(need: int):
    seed = next(
        s for s in np.arange(0.02, 1.0, 0.002) if (needed(parts(s, 0.0), SESOI, ALPHA).seeds or 0) >= need
    )
    rng = np.random.default_rng(need)
    held = []
    for _ in range(300):
        sample = float(seed * rng.normal(size=8).std(ddof=1))
        found = needed(parts(sample, 0.0), SESOI, ALPHA)
        held.append(found.low <= need <= found.high)
    assert 0.84 < np.mean(held) <= (1.0 if need == 8 else 0.96)


def test_the_range_stays_open_where_the_residual_hides_the_seeds():
    """The seeds' component is then 0, and a range of it alone was one number."""
    rng = np.random.default_rng(3)
    hidden = 0
    for _ in range(40):
        found = crossed(rng.normal(size=40) + 9 * rng.normal(size=(8, 40)))
        need = needed(found, 1.5, ALPHA)
        hidden += found.components[0] == 0
        assert need.low < need.seeds < (need.high or np.inf)
    assert hidden > 10


@pytest.mark.parametrize("seed", [0.0, 0.3, 1.0])
def test_the_range_holds_the_need_also_where_the_residual_is_large(seed: float):
    image, rest, m = 1.0, 6.0, 60
    need = needed(parts(seed, image, rest, m=m), 1.0, ALPHA).seeds
    rng = np.random.default_rng(1)
    held = []
    for _ in range(200):
        d = seed * rng.normal(size=(8, 1)) + image * rng.normal(size=m) + rest * rng.normal(size=(8, m))
        found = needed(crossed(d), 1.0, ALPHA)
        held.append((found.low or np.inf) <= need <= (found.high or np.inf))
    assert np.mean(held) > 0.84


@pytest.mark.parametrize(
    ("levels", "sesoi", "found"),
    [
        ((0.99, 1.0), 0.01, "ceiling"),  # |.99 - 1| is .010000000000000009
        ((0.9899, 1.0), 0.01, ""),
        ((0.2, 0.1 + 0.1), 0.01, "floor"),
        ((0.3, 0.1 + 0.2), 0.01, "floor"),
        ((0.999, 0.1), 0.01, ""),  # one at each end: they can be told apart
        ((0.31, 0.1), 0.01, ""),
    ],
)
def test_a_metric_cannot_tell_where_both_arms_are_at_one_limit(levels, sesoi, found):
    floors = [0.3, 0.1]
    assert at_limit(levels, 1.0, sesoi, floors, False) == found
    mirrored = (1 - levels[0], 1 - levels[1])
    assert at_limit(mirrored, 0.0, sesoi, [1 - each for each in floors], True) == found
    assert at_limit(levels, np.inf, sesoi, [], False) == ""


def test_a_difference_is_clear_only_by_test_and_interval_and_seeds_enough():
    assert is_clear(8, 0.05, (-0.4, -0.1))
    for seeds, p, ends in (
        (7, 0.01, (0.1, 0.4)),
        (8, 0.051, (0.1, 0.4)),
        (8, None, (0.1, 0.4)),
        (8, 0.01, (-0.1, 0.4)),
        (8, 0.01, None),
    ):
        assert not is_clear(seeds, p, ends)


def test_where_the_images_decide_more_seeds_are_no_help():
    assert more_images_needed(parts(0.076, 1.45))
    assert not more_images_needed(parts(0.4, 1.45))
    assert needed(parts(0.076, 1.45), SESOI, ALPHA).seeds is None
    assert needed(parts(0.076, 1.45, m=1500), SESOI, ALPHA).seeds == 8


@given(st.integers(8, 30), st.floats(0.01, 2), st.floats(-1, 1))
@settings(deadline=None, max_examples=50)
def test_one_study_gets_one_word_and_a_wider_interval_claims_no_more(n: int, spread: float, shift: float):
    d = shift + spread * np.random.default_rng(n).normal(size=n)
    p = sign_flip_p(d)
    found = [
        judge(n, p, lambda level, f=factor: _scaled(t_interval(d, level), f), SESOI, ALPHA, True)
        for factor in (1.0, 1.5, 4.0)
    ]
    order = {Word.INCONCLUSIVE: 0}
    for narrow, wide in itertools.pairwise(found):
        assert not (narrow == Word.INCONCLUSIVE and order.get(wide, 1))
        assert not (narrow.direction and wide.direction and narrow.direction != wide.direction)


def _scaled(ends, factor: float):
    centre, half = sum(ends) / 2, (ends[1] - ends[0]) / 2
    return centre - factor * half, centre + factor * half


def over_seeds(d):
    """What contrasts make of differences without scores of single images."""
    d = np.asarray(d, float)
    return Crossed(
        d.mean(), len(d), 2, Part(d.var(ddof=1) / len(d), len(d) - 1), Part(0, 1), Part(0, len(d) - 1)
    )


def correlated_t_test(d, rope, rho):
    """Benavoli et al. 2017, section 4.1: P(left), P(rope), P(right) of n differences with correlation rho."""
    n, mean = len(d), np.mean(d)
    scale = np.sqrt(np.var(d, ddof=1) * (1 / n + rho / (1 - rho)))
    left, right = stats.t.cdf(-rope, n - 1, mean, scale), 1 - stats.t.cdf(rope, n - 1, mean, scale)
    return left, 1 - left - right, right


@pytest.mark.parametrize("seed", range(6))
def test_without_a_variance_of_images_it_is_the_correlated_t_test_with_correlation_0(seed):
    rng = np.random.default_rng(seed)
    d, rope = rng.normal(rng.normal(0, 0.5), 0.4, rng.integers(3, 30)), 0.25
    left, rope_, right = correlated_t_test(d, rope, 0.0)
    assert posterior(over_seeds(d), rope, lower_is_better=False, level=0.95) == pytest.approx(
        (left, rope_, right)
    )
    assert posterior(over_seeds(d), rope, lower_is_better=True, level=0.95) == pytest.approx(
        (right, rope_, left)
    )


def test_images_that_all_differ_alike_change_nothing():
    d = np.random.default_rng(0).normal(0.1, 0.3, 9)
    table = crossed(np.repeat(d[:, None], 50, axis=1))
    assert table is not None
    assert posterior(table, 0.2, False, 0.95) == pytest.approx(posterior(over_seeds(d), 0.2, False, 0.95))


def test_over_images_the_interval_of_the_verdict_is_the_central_part_of_the_posterior():
    rng = np.random.default_rng(1)
    found = crossed(rng.normal(0.1, 1, (1, 60)) + rng.normal(0, 0.2, (9, 1)) + rng.normal(0, 0.5, (9, 60)))
    assert found is not None
    for level in (0.9, 0.975):
        low, high = found.interval(level)
        # a region from -high to high, seen from the estimate, leaves a tail of (1 - level) / 2 above
        centred = found._replace(estimate=0.0)
        tails = posterior(centred, (high - low) / 2, False, level)
        assert tails == pytest.approx(((1 - level) / 2, level, (1 - level) / 2))


def test_probabilities_are_the_integrals_of_the_density():
    found = Crossed(0.3, 10, 40, Part(0.04, 9), Part(0.09, 39), Part(0.01, 351))
    part = found.widest(0.95)
    density = stats.t(part.freedom, 0.3, part.variance**0.5).pdf
    edges = (-np.inf, -0.25, 0.25, np.inf)
    expected = [integrate.quad(density, *ends)[0] for ends in itertools.pairwise(edges)]
    assert posterior(found, 0.25, False, 0.95) == pytest.approx(expected, abs=1e-7)
    assert part.variance > 0.09  # both chances count


@pytest.mark.parametrize(("estimate", "expected"), [(0.1, (0, 1, 0)), (0.3, (0, 0, 1)), (-0.3, (1, 0, 0))])
def test_without_any_spread_it_is_certain(estimate, expected):
    assert posterior(over_seeds([estimate] * 8), 0.25, False, 0.95) == expected


def test_far_tails_keep_their_digits():
    tiny = posterior(over_seeds(5 + np.linspace(-0.01, 0.01, 30)), 0.1, False, 0.95)
    assert 0 < tiny.worse < 1e-50
    assert tiny.better == pytest.approx(1)


def test_delta_m_is_the_formula_of_the_papers():
    rng = np.random.default_rng(2)
    error, accuracy = rng.uniform(10, 13, (7, 2)), rng.uniform(0.4, 0.9, (7, 2))
    expected = [
        100 / 2 * (-(e[1] - e[0]) / e[0] + (a[1] - a[0]) / a[0]) for e, a in zip(error, accuracy, strict=True)
    ]
    found = delta_m([error, accuracy], [True, False])
    assert found is not None
    assert (100 * found).tolist() == pytest.approx(expected)


def test_delta_m_of_scores_that_are_no_ratios_is_none_and_of_other_shapes_refused():
    assert delta_m([[[0.0, 1.0]]], [True]) is None
    assert delta_m([[[-3.0, -2.0]]], [False]) is None
    with pytest.raises(ValueError, match="longer"):
        delta_m([[[1.0, 1.0]]], [True, False])
    with pytest.raises(ValueError, match="unpack"):
        delta_m([[[1.0, 1.0, 1.0]]], [True])
    with pytest.raises(ValueError, match="inhomogeneous"):
        delta_m([[[1.0, 1.0]], [[1.0, 1.0]] * 2], [True, True])


@pytest.mark.parametrize("unit", [1e-69, 1e-40, 1e69])
def test_seeds_that_are_needed_depend_on_no_unit(unit: float):
    """Down to the smallest scores that a table may hold, whose variances have squares that vanish."""
    d = np.random.default_rng(0).normal(0.1, 0.3, (10, 200)) + np.random.default_rng(1).normal(
        0, 0.1, (10, 1)
    )
    found, same = crossed(d), crossed(d * unit)
    assert found is not None
    assert same is not None
    assert needed(same, 0.2 * unit, ALPHA) == needed(found, 0.2, ALPHA)
    tiny = crossed(np.full((10, 200), unit) * (1 + np.arange(200) * 1e-15))
    assert tiny is not None
    assert needed(tiny, unit, ALPHA).seeds == 8
