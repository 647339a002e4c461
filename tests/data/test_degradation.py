import numpy as np
import pytest
import torch

from knowhue.color import rgb_to_lab
from knowhue.data.loaders import (
    FADED_BLACK,
    FADED_WHITE,
    GRAIN,
    ORTHOCHROMATIC,
    Damage,
    degrade,
    draw_damage,
    grain,
)

SIDE = 24


def undamaged(count, **changes):
    """Damage of strength 0 that is done all the same, but for `changes`."""
    ones, zeros = np.ones(count, np.float32), np.zeros(count, np.float32)
    scratches = np.zeros((count, 1, 5), np.float32)
    return Damage(ones > 0, zeros, ones, zeros, 100 * ones, zeros, scratches)._replace(**changes)


def of_each(value, count=2):
    return np.full(count, value, np.float32)


@pytest.fixture
def photos():
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def degraded(photos, damage, noise):
    return degrade(rgb_to_lab(photos)[0], photos, damage, noise)


def without_grain(photos, damage):
    return degraded(photos, damage, torch.zeros(len(photos), 1, SIDE, SIDE))


def test_damage_of_no_strength_is_none(photos):
    assert torch.allclose(without_grain(photos, undamaged(2)), rgb_to_lab(photos)[0], atol=1e-3)


def test_an_image_that_is_not_degraded_stays_to_the_bit(photos):
    damage = draw_damage(0, 0, 2, 1.0)._replace(degraded=np.array([True, False]))
    found, true = degraded(photos, damage, grain(0, 0, 0, (2, 1, SIDE, SIDE))), rgb_to_lab(photos)[0]
    assert torch.equal(found[1], true[1])
    assert (found[0] - true[0]).abs().max() > 1


def test_fading_raises_black_and_lowers_white():
    black_and_white = torch.tensor([0.0, 1.0]).repeat(SIDE, SIDE // 2).expand(2, 3, SIDE, SIDE)
    found = without_grain(black_and_white, undamaged(2, black=of_each(20), white=of_each(80)))
    assert found.unique().tolist() == pytest.approx([20, 80], abs=1e-3)


def test_the_tone_curve_moves_the_middle_alone():
    gray = torch.tensor([0.0, 0.5, 1.0]).repeat(SIDE, SIDE // 3).expand(2, 3, SIDE, SIDE)
    before = rgb_to_lab(gray)[0][0, 0, 0, :3]
    after = without_grain(gray, undamaged(2, exponent=of_each(2)))[0, 0, 0, :3]
    assert after.tolist() == pytest.approx((before**2 / 100).tolist(), abs=0.01)


def test_plates_are_blind_to_red_and_see_grays_as_they_are():
    colours = torch.tensor([[1.0, 0, 0], [0.2, 0.4, 1], [0.5, 0.5, 0.5]]).T[None, :, None, :]
    photo = colours.repeat(1, 1, SIDE, SIDE // 3)
    true = rgb_to_lab(photo)[0][0, 0, 0].tolist()
    found = without_grain(photo, undamaged(1, emulsion=of_each(1, 1)))[0, 0, 0].tolist()
    assert sum(ORTHOCHROMATIC) == 1
    assert found[0] < 1 < true[0]
    assert found[1] > true[1] + 10
    assert found[2] == pytest.approx(true[2], abs=0.01)


def test_grain_is_as_rough_as_asked():
    gray = torch.full((1, 3, 200, 200), 0.5)
    found = degraded(gray, undamaged(1, grain=of_each(GRAIN, 1)), grain(0, 0, 0, (1, 1, 200, 200)))
    assert found.std().item() == pytest.approx(GRAIN, rel=0.02)


def test_a_scratch_is_a_line_between_its_ends():
    line = np.array([[[0.5, 0, 0.25, 0.75, 30]]], np.float32)
    gray = torch.full((1, 3, SIDE, SIDE), 0.5)
    changed = without_grain(gray, undamaged(1, scratches=line))[0, 0] - rgb_to_lab(gray)[0][0, 0]
    rows, columns = (changed > 29.9).nonzero().unbind(1)
    assert columns.unique().tolist() == [SIDE // 2]
    assert (rows.min().item(), rows.max().item()) == (6, 17)
    assert changed[changed < 29.9].abs().max() < 1e-4


def test_draws_lie_within_their_bounds_and_hit_the_share():
    drawn = draw_damage(3, 1, 4000, 0.25)
    assert drawn.degraded.mean() == pytest.approx(0.25, abs=0.03)
    for values, low, high in (
        (drawn.emulsion, 0, 1),
        (drawn.black, 0, FADED_BLACK),
        (drawn.white, FADED_WHITE, 100),
        (drawn.grain, 0, GRAIN),
    ):
        assert values.min() == pytest.approx(low, abs=0.02 * (high - low))
        assert values.max() == pytest.approx(high, abs=0.02 * (high - low))
    assert (drawn.emulsion == 0).mean() == pytest.approx(0.5, abs=0.03)


def test_an_epoch_draws_its_own_and_always_the_same():
    first, again, next_epoch = (draw_damage(0, epoch, 5, 1.0) for epoch in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.black, next_epoch.black)


def test_lightness_stays_within_its_range(photos):
    hard = undamaged(2, grain=of_each(500))
    found = degraded(photos, hard, grain(0, 0, 0, (2, 1, SIDE, SIDE)))
    assert (found.min(), found.max()) == (0, 100)
