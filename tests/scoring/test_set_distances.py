"""Intervals of distances between sets: the jackknife's formulas, and its coverage by simulation."""

import numpy as np
import pytest

from knowhue.evaluation.features import frechet
from knowhue.scoring.networks import PER_FEATURE, TrueImages
from knowhue.statistics.clustered import deal_groups, jackknifed

MIXING = np.random.default_rng(0).normal(size=(6, 6)) / 6**0.5 * np.linspace(1.5, 0.2, 6)


def features(count, seed):
    """Of true images, and of two systems' colourings of them: pairs that go together."""
    random = np.random.default_rng(seed)
    true = random.normal(size=(count, 6)) @ MIXING
    near, far = (random.normal(size=true.shape) for _ in range(2))
    return true, 0.8 * true + 0.25 * near + 0.1, 0.7 * true + 0.45 * far


def kernel_of_different_images(x, y):
    """Gretton et al. 2012, equation 4, written out."""
    total, count = 0.0, len(x)
    for i in range(count):
        for j in range(count):
            if i != j:
                of = ((x[i], x[j], 1), (y[i], y[j], 1), (x[i], y[j], -1), (x[j], y[i], -1))
                total += sum(sign * (one @ other / x.shape[1] + 1) ** 3 for one, other, sign in of)
    return total / (count * (count - 1))


def test_what_is_left_out_is_what_the_others_have():
    true, made, _ = features(40, 1)
    groups = deal_groups(40, [f"class{number % 7}" for number in range(40)])
    truth = TrueImages(true, groups)
    for found, distance in ((truth.frechet(made), frechet), (truth.kernel(made), kernel_of_different_images)):
        assert found[0] == pytest.approx(distance(made, true), rel=1e-9)
        expected = [distance(made[groups != number], true[groups != number]) for number in range(7)]
        np.testing.assert_allclose(found[1:], expected, rtol=1e-9)


def test_a_frechet_distance_needs_images_for_its_features():
    true, made, _ = features(PER_FEATURE * 6 + 20, 1)
    wide = np.tile(true, 10)
    assert TrueImages(true, deal_groups(len(true))).frechet(made) is not None
    assert TrueImages(wide, deal_groups(len(true))).frechet(wide) is None


def test_groups_that_leave_too_few_images_give_no_interval():
    true, made, _ = features(PER_FEATURE * 6 + 1, 1)
    alone = TrueImages(true, np.array([0] * (len(true) - 1) + [1]))
    assert alone.frechet(made) is None
    assert alone.kernel(made) is None
    most = TrueImages(true, np.array([0] * (len(true) - 2) + [1, 1])).kernel(made)
    assert most is not None
    assert np.isfinite(most).all()


def test_swapping_systems_flips_signs_exactly():
    true, one, other = features(60, 1)
    truth = TrueImages(true, deal_groups(60))
    found = truth.frechet(one), truth.frechet(other)
    gaps = found[0] - found[1], found[1] - found[0]
    ahead, back = (jackknifed(gap[0], gap[1:], truth.sizes) for gap in gaps)
    assert (ahead.estimate, ahead.error) == (-back.estimate, back.error)
    none = found[0] - found[0]
    same = jackknifed(none[0], none[1:], truth.sizes)
    assert (same.estimate, same.error, same.p) == (0, 0, 1)


def test_intervals_hold_the_truth_at_about_the_nominal_rate():
    """Normal features, whose distance over all images is known; the plain one is biased, the corrected one is not."""
    covariance = MIXING.T @ MIXING
    noise, repeats = np.eye(6), 200

    def expected(share, spread, shift):
        first, second = covariance, share**2 * covariance + spread**2 * noise
        values = np.linalg.eigvals(first @ second).real.clip(0)
        return 6 * shift**2 + np.trace(first + second) - 2 * np.sqrt(values).sum()

    ours, theirs = expected(0.8, 0.25, 0.1), expected(0.7, 0.45, 0.0)
    held, plain, freed, kernels = [], [], [], []
    for seed in range(repeats):
        true, one, other = features(120, 100 + seed)
        truth = TrueImages(true, deal_groups(120))
        found = truth.frechet(one), truth.frechet(other)
        judged = [jackknifed(each[0], each[1:], truth.sizes) for each in (found[1], found[1] - found[0])]
        plain.append(found[1][0])
        freed.append(judged[0].estimate)
        ends = [each.interval(0.95) for each in judged]
        held.append(
            [low < value < high for (low, high), value in zip(ends, (theirs, theirs - ours), strict=True)]
        )
        gap = truth.kernel(other) - truth.kernel(one)
        kernels.append(jackknifed(gap[0], gap[1:], truth.sizes))
    error = np.std(freed) / repeats**0.5
    assert abs(np.mean(freed) - theirs) < 4 * error < abs(np.mean(plain) - theirs)
    least = 0.95 - 4 * (0.95 * 0.05 / repeats) ** 0.5
    assert (np.mean(held, 0) > least).all()
    # unbiased, so its mean over all is what each interval should hold
    middle = np.mean([each.estimate for each in kernels])
    ends = [each.interval(0.95) for each in kernels]
    assert np.mean([low < middle < high for low, high in ends]) > least
