"""What seeds and images can detect: the protocol's tables, and the share of simulated studies that detect it."""

import numpy as np
import pytest
from scipy import stats

from knowhue.statistics import power
from knowhue.statistics.crossed import crossed
from knowhue.statistics.paired import sign_flip_p
from knowhue.statistics.power import (
    Design,
    Variances,
    _near_p,
    chances,
    claimed,
    sign_flip_effect,
    sign_flip_power,
    smallest_effect,
)
from knowhue.statistics.verdicts import Word, judge

OURS = Variances(0.076, 1.45)
"""Of our own study of five ocean classes, CIELAB units."""


@pytest.mark.parametrize(
    ("seeds", "at_5", "at_2_5"),
    [(5, None, None), (7, 1.33, 1.87), (8, 1.19, 1.41), (10, 1.01, 1.17), (20, 0.66, 0.74), (30, 0.53, 0.59)],
)
def test_the_protocols_table(seeds: int, at_5: float | None, at_2_5: float | None):
    for alpha, effect in ((0.05, at_5), (0.025, at_2_5)):
        studies = 2000 if seeds < 20 else 700
        found = sign_flip_effect(seeds, alpha, studies=studies)
        assert found == (effect if effect is None else pytest.approx(effect, abs=0.03))


@pytest.mark.parametrize(("images", "smallest"), [(250, 0.29), (1500, 0.127)])
def test_the_protocols_smallest_effects_of_our_own_study(images: int, smallest: float):
    assert smallest_effect(Design(20, images, 0.25, 0.025), OURS) == pytest.approx(smallest, rel=0.03)


def test_seven_seeds_have_one_rejecting_pattern_at_half_alpha():
    found = sign_flip_power(7, 1.2, 0.025)
    assert found == pytest.approx(stats.norm.cdf(1.2) ** 7, abs=0.02)
    assert sign_flip_power(6, 9.0, 0.025) == 0.0


@pytest.mark.parametrize("seeds", [13, 20])
def test_the_t_tests_p_stands_in_only_where_both_decide_alike(seeds: int):
    rng = np.random.default_rng(seeds)
    rows = rng.normal(size=(300, seeds)) + rng.uniform(0, 1.5, (300, 1))
    for row, near in zip(rows, _near_p(rows, 0.025), strict=True):
        assert (near <= 0.025) == (sign_flip_p(row) <= 0.025)


@pytest.mark.parametrize("seeds", [21, 27])
def test_of_more_seeds_the_t_test_finds_as_many(seeds: int):
    rows = np.random.default_rng(seeds).normal(0.6, 1, (2000, seeds))
    found = np.array([sign_flip_p(row) for row in rows])
    assert np.mean(_near_p(rows, 0.025) <= 0.025) == pytest.approx(np.mean(found <= 0.025), abs=0.005)


def test_many_seeds_are_planned_without_counting_their_patterns(monkeypatch: pytest.MonkeyPatch):
    """One study of 44 seeds takes a tenth of a second to count, and a plan asks for ten thousands."""
    monkeypatch.setattr(power, "sign_flip_p", None)
    assert smallest_effect(Design(44, 1500, 0.25, 0.025), OURS) == pytest.approx(0.119, abs=0.005)
    assert sign_flip_effect(44, 0.025) == pytest.approx(0.48, abs=0.02)


@pytest.mark.parametrize(
    ("design", "variances", "effect"),
    [
        (Design(8, 250, 0.25, 0.025), Variances(0.076, 1.45, 0.8), -0.35),
        (Design(10, 60, 0.25, 0.025), Variances(0.25, 0.5, 1.0), -0.25),
        (Design(20, 100, 0.25, 0.025), Variances(0.05, 0.8, 1.0), 0.0),
    ],
)
def test_chances_are_those_of_studies_drawn_image_by_image(
    design: Design, variances: Variances, effect: float
):
    rng, count = np.random.default_rng(4), 1500
    found = []
    for _ in range(count):
        n, m, sesoi, alpha = design
        d = effect + variances.seed * rng.normal(size=(n, 1)) + variances.image * rng.normal(size=m)
        d = d + variances.residual * rng.normal(size=(n, m))
        table = crossed(d)
        assert table is not None
        found.append(judge(n, sign_flip_p(d.mean(axis=1)), table.interval, sesoi, alpha, True))
    for word, share in chances(design, effect, variances).items():
        spread = (share * (1 - share) * (1 / count + 1 / 4000)) ** 0.5
        assert found.count(word) / count == pytest.approx(share, abs=3.5 * spread + 0.002)


def test_power_grows_with_seeds_images_and_effect_and_no_effect_is_claimed_at_the_level():
    found = [
        claimed(chances(Design(n, m, 0.25, 0.025), -0.25, OURS)) for n, m in ((8, 250), (20, 250), (20, 1500))
    ]
    assert found == sorted(found)
    none = chances(Design(20, 250, 0.25, 0.025), 0.0, OURS)
    assert claimed(none) + claimed(none, "hurts") == pytest.approx(0.025, abs=0.01)
    assert none[Word.EQUIVALENT] == pytest.approx(0.517, abs=0.04)


def test_too_few_seeds_for_a_verdict_find_nothing():
    assert chances(Design(7, 250, 0.25, 0.025), -9.0, OURS, studies=50) == {Word.NO_VERDICT: 1.0}
    assert smallest_effect(Design(7, 250, 0.25, 0.025), OURS) is None
