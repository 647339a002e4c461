"""The crossed interval: its components by analysis of variance, its limits, and its coverage by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from knowhue.statistics import crossed as module
from knowhue.statistics.paired import Interval, t_interval

random_seeds = st.integers(0, 2**31)
CLASSES = np.repeat(range(6), (12, 18, 25, 40, 60, 95))
"""A test part of 250 images in classes of unequal size."""


def crossed_interval(d, groups=None, confidence: float = 0.95, binary: bool = False) -> Interval | None:
    found = module.crossed(d, groups, binary)
    return found and found.interval(confidence)


def crossed(
    generator: np.random.Generator,
    shape: tuple[int, int],
    spreads: tuple[float, float, float],
    mean: float = 0.0,
) -> np.ndarray:
    """Mean plus independent effects of the seed, of the image, and of both."""
    rows, columns = shape
    return (
        mean
        + spreads[0] * generator.standard_normal((rows, 1))
        + spreads[1] * generator.standard_normal((1, columns))
        + spreads[2] * generator.standard_normal((rows, columns))
    )


def coverage(intervals: list[Interval | None], truth: float) -> float:
    return float(
        np.mean([interval is not None and interval[0] < truth < interval[1] for interval in intervals])
    )


def below(rate: float, count: int) -> float:
    """What a true rate shows at least, but for one simulation in 5000."""
    return rate - 3.5 * math.sqrt(rate * (1 - rate) / count)


def test_it_is_the_analysis_of_variance_by_hand():
    d = crossed(np.random.default_rng(0), (6, 9), (1, 1, 0.5))
    rows, columns = 9 * d.mean(axis=1).var(ddof=1), 6 * d.mean(axis=0).var(ddof=1)
    total = d.var() * d.size
    residual = (total - 5 * rows - 8 * columns) / 40
    variance = (rows + columns - residual) / 54
    freedom = variance**2 / sum(
        (square / 54) ** 2 / f for square, f in ((rows, 5), (columns, 8), (residual, 40))
    )
    half = stats.t.ppf(0.95, freedom) * math.sqrt(variance)
    half = max(
        half, stats.t.ppf(0.95, 5) * math.sqrt(rows / 54), stats.t.ppf(0.95, 8) * math.sqrt(columns / 54)
    )
    assert crossed_interval(d, confidence=0.9) == pytest.approx((d.mean() - half, d.mean() + half))


def test_images_that_are_all_alike_leave_the_interval_over_seeds():
    over_seeds = np.array([0.3, 0.1, -0.2, 0.4])
    d = np.repeat(over_seeds[:, None], 50, axis=1)
    assert crossed_interval(d) == pytest.approx(t_interval(over_seeds))
    assert crossed_interval(d.T) == pytest.approx(t_interval(over_seeds))
    assert crossed_interval(np.full((3, 4), 0.1)) == pytest.approx((0.1, 0.1))


@given(random_seeds)
@settings(deadline=None, max_examples=25)
def test_it_is_never_narrower_than_the_interval_over_one_population(seed: int):
    generator = np.random.default_rng(seed)
    d = crossed(generator, (generator.integers(2, 6), 8), tuple(generator.uniform(0, 1, 3)))
    low, high = crossed_interval(d) or (0, 0)
    for means in (d.mean(axis=0), d.mean(axis=1)):
        inner = t_interval(means) or (0, 0)
        assert low <= inner[0] + 1e-12
        assert inner[1] <= high + 1e-12


@given(random_seeds, st.sampled_from([0.5, 8.0]), st.booleans())
@settings(deadline=None, max_examples=25)
def test_mirror_unit_order_and_names_of_classes(seed: int, unit: float, grouped: bool):
    generator = np.random.default_rng(seed)
    d, groups = crossed(generator, (4, 9), (1, 1, 1)), np.repeat([0, 1, 2], (2, 3, 4)) if grouped else None
    low, high = crossed_interval(d, groups) or (0, 0)
    assert crossed_interval(-unit * d, groups) == pytest.approx((-unit * high, -unit * low))
    assert crossed_interval(d + 3, groups) == pytest.approx((low + 3, high + 3))
    columns = generator.permutation(9)
    renamed = None if groups is None else np.array(["cat", "ant", "bee"])[groups][columns]
    assert crossed_interval(d[generator.permutation(4)][:, columns], renamed) == pytest.approx((low, high))


def test_without_groups_seeds_and_images_are_alike():
    d = crossed(np.random.default_rng(1), (7, 12), (1, 0.5, 1))
    assert crossed_interval(d) == pytest.approx(crossed_interval(d.T))


def test_one_class_is_no_class_and_equal_classes_keep_the_centre():
    d = crossed(np.random.default_rng(2), (5, 12), (1, 1, 1))
    assert crossed_interval(d, np.full(12, 3)) == crossed_interval(d)
    low, high = crossed_interval(d, np.arange(12) % 3) or (0, 0)
    assert (low + high) / 2 == pytest.approx(d.mean())


def test_the_centre_is_the_mean_of_class_means():
    d = np.zeros((3, 12)) + np.r_[np.full(10, 1.0), np.full(2, 4.0)]
    assert crossed_interval(d, np.repeat([0, 1], (10, 2))) == pytest.approx((2.5, 2.5))


def test_what_cannot_be_judged_has_no_interval():
    d = crossed(np.random.default_rng(3), (4, 6), (1, 1, 1))
    assert crossed_interval(d[:1]) is crossed_interval(d[:, :1]) is crossed_interval(np.empty((3, 0))) is None
    assert crossed_interval(d, [0, 0, 0, 0, 0, 1]) is None
    d[2, 3] = math.nan
    assert crossed_interval(d) is None


# Spreads of the effects of seed, image and both, from one cause alone to the protocol's mixture, of which the
# images' part is such that an interval over seeds covers about 85 %.
@pytest.mark.parametrize(
    ("shape", "spreads"),
    [
        ((7, 50), (0, 0, 1)),
        ((7, 50), (1, 0, 1)),
        ((7, 50), (0, 1, 1)),
        ((10, 30), (1, 1, 1)),
        ((20, 60), (1, 1.6, 2)),
        ((20, 20), (0.2, 0.2, 1)),
    ],
)
def test_it_covers_the_planted_mean(shape: tuple[int, int], spreads: tuple[float, float, float]):
    generator = np.random.default_rng(6)
    found = [crossed_interval(crossed(generator, shape, spreads, 0.5)) for _ in range(1500)]
    assert coverage(found, 0.5) >= below(0.95, 1500)


def test_it_covers_where_an_interval_over_seeds_does_not():
    generator = np.random.default_rng(7)
    tables = [crossed(generator, (20, 250), (1, 3.3, 2), -0.4) for _ in range(1000)]
    assert 0.82 < coverage([t_interval(d.mean(axis=1)) for d in tables], -0.4) < 0.88
    assert below(0.95, 1000) <= coverage([crossed_interval(d) for d in tables], -0.4) < 0.98


def right_or_wrong(generator: np.random.Generator, gain_spread: float) -> np.ndarray:
    """After minus before of 20 seeds: images differ in difficulty and in what the second task gains them."""
    difficulty = generator.normal(0.5, 2.0, len(CLASSES))
    gain = generator.normal(0.3, gain_spread, len(CLASSES))
    before, after = generator.normal(0, 0.2, (2, 20, 6))[:, :, CLASSES]
    chance = generator.random((2, 20, len(CLASSES)))
    return (chance[1] < special.expit(difficulty + gain + after)).astype(float) - (
        chance[0] < special.expit(difficulty + before)
    )


def mean_chance(mean: float, spread: float) -> float:
    """Chance of right over all images and seeds, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    return float(weights @ special.expit(mean + spread * nodes) / weights.sum())


def test_it_covers_the_change_of_balanced_accuracy():
    truth = mean_chance(0.8, math.sqrt(4 + 1 + 0.04)) - mean_chance(0.5, math.sqrt(4 + 0.04))
    generator = np.random.default_rng(8)
    tables = [right_or_wrong(generator, 1.0) for _ in range(800)]
    balanced = [np.mean([d[:, k == CLASSES].mean(axis=1) for k in range(6)], axis=0) for d in tables]
    assert coverage([t_interval(d) for d in balanced], truth) < 0.85
    assert coverage([crossed_interval(d, CLASSES) for d in tables], truth) >= below(0.95, 800)


def test_components_are_the_planted_ones():
    found = module.crossed(crossed(np.random.default_rng(9), (400, 600), (0.5, 1.5, 2.0)))
    assert found.components == pytest.approx((0.5, 1.5, 2.0), rel=0.06)


def test_models_that_agree_on_every_image_are_not_shown_to_agree_on_all_others():
    """By the rule of three a change of 1 % of the images escapes 250 of them in one study of twelve."""
    few, many = (module.crossed(np.zeros((8, m)), binary=True).interval(0.95) for m in (250, 2500))
    assert few[0] < -0.01
    assert few[1] > 0.01
    assert -0.002 < many[0] < 0 < many[1] < 0.002
    assert module.crossed(np.zeros((8, 250))).interval(0.95) == (0.0, 0.0)


def test_where_many_images_change_two_more_add_little():
    d = right_or_wrong(np.random.default_rng(10), 1.0)
    plain, more = (module.crossed(d, CLASSES, binary=each).over_images.variance for each in (False, True))
    assert plain < more < 1.25 * plain


def test_a_change_in_few_images_is_covered_from_both_sides():
    """One image in a hundred changes, of 250: without the two more 4 % of the upper ends are too low."""
    generator, level, truth = np.random.default_rng(11), 0.95, -0.01
    ends = []
    for _ in range(1500):
        chance = np.where(generator.random(250) < 0.02, 0.5, 0.0)
        ends.append(
            crossed_interval(-(generator.random((20, 250)) < chance).astype(float), None, level, True)
        )
    low, high = np.array(ends).T
    assert max(np.mean(low > truth), np.mean(high < truth)) <= 1 - below(0.975, 1500)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: crossed_interval([1.0, 2.0]),
            r"`differences` should be of shape \(seeds, images\)\. Found",
        ),
        (lambda: crossed_interval(np.zeros((2, 3)), [0, 1]), r"`groups` should be of shape \(3,\)\. Found"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()
