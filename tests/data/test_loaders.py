"""Batches: the same images in the same steps for every arm and any number of processes; simulated old photos."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from knowhue.color import rgb_to_lab
from knowhue.data.loaders import (
    FADED_BLACK,
    FADED_WHITE,
    GRAIN,
    ORTHOCHROMATIC,
    Damage,
    ProcessShare,
    TrainingBatches,
    augment,
    degrade,
    draw_augmentation,
    draw_damage,
    grain,
    label_weights,
    reflect,
    split_batches,
)
from knowhue.data.prepare import Prepared
from knowhue.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def batches(make_prepared):
    prepared = make_prepared(count=48, size_px=16, unlabelled=7)  # 36 for training

    def make(seed=0, epoch=0, shift_px=3, share=None, batch_size=12, degraded=0.5):
        share = share or ProcessShare()
        return list(
            TrainingBatches(prepared, batch_size, seed, epoch, shift_px, share, CPU, degraded_share=degraded)
        )

    return make


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_together_are_one_process_batch(batches, world):
    whole = batches()
    shares = [batches(share=ProcessShare(rank, world)) for rank in range(world)]
    assert len(whole) == 3
    for step, (batch, mirrored) in enumerate(whole):
        for rank, share in enumerate(shares):
            part, part_mirrored = share[step]
            mine = slice(rank, None, world)
            assert np.array_equal(mirrored[mine], part_mirrored)
            pairs = zip(batch[:5], part[:5], strict=True)
            assert all(torch.equal(full[mine], own) for full, own in pairs)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_mean_over_processes_is_the_mean_over_the_labelled(batches, world):
    score = torch.arange(48.0)
    for step, (batch, _) in enumerate(batches()):
        labelled = batch.position[batch.label >= 0]
        parts = [batches(share=ProcessShare(rank, world))[step][0] for rank in range(world)]
        means = [(score[part.position] * part.label_weight).mean() for part in parts]
        torch.testing.assert_close(torch.stack(means).mean(), score[labelled].mean())


def test_degraded_images_keep_their_colours(batches):
    found, clean = batches(), batches(degraded=0)
    changed = [
        (a.lightness != b.lightness).any((1, 2, 3)) for (a, _), (b, _) in zip(found, clean, strict=True)
    ]
    assert 0.2 < torch.cat(changed).float().mean() < 0.8
    assert all(torch.equal(a.chroma, b.chroma) for (a, _), (b, _) in zip(found, clean, strict=True))


def orders(batches):
    return [batch.position.tolist() for batch, _ in batches]


def test_order_belongs_to_seed_and_epoch_alone(batches):
    reference = orders(batches())
    assert orders(batches(shift_px=0)) == reference
    assert orders(batches(seed=1)) != reference
    assert orders(batches(epoch=1)) != reference


def test_reading_twice_gives_the_same(make_prepared):
    passes = TrainingBatches(make_prepared(), 4, 0, 0, 2, ProcessShare(), CPU)
    first, second = list(passes), list(passes)
    assert all(torch.equal(a[0].lightness, b[0].lightness) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("batch_size", "steps", "seen"), [(12, 3, 36), (10, 3, 30), (36, 1, 36), (100, 1, 36)]
)
def test_last_smaller_batch_is_dropped(batches, batch_size, steps, seen):
    passes = batches(batch_size=batch_size)
    assert len(passes) == steps
    assert sum(map(len, orders(passes))) == seen


@st.composite
def samplings(draw):
    """(labelled images, unlabelled images, batch size, processes, least labelled share of a batch)."""
    world = draw(st.integers(1, 3))
    labelled, unlabelled = draw(st.integers(1, 20)), draw(st.integers(0, 30))
    assume(labelled + unlabelled >= world)
    return labelled, unlabelled, world * draw(st.integers(1, 8)), world, draw(st.floats(0.05, 0.95))


@pytest.fixture(scope="module")
def sample():
    """The positions of every step of an epoch; the first images are the labelled ones."""

    def make(labelled, unlabelled, batch_size, world, least, epoch=0, seed=0, rank=None):
        count = labelled + unlabelled
        prepared = Prepared(
            classes=("a", "b"),
            rgb=np.zeros((count, 2, 2, 3), np.uint8),
            label=np.where(np.arange(count) < labelled, np.arange(count) % 2, -1),
            split=np.full(count, "train"),
            paths=("",) * count,
            fingerprint="",
        )
        share = ProcessShare(rank or 0, world)
        made = TrainingBatches(prepared, batch_size, seed, epoch, 0, share, CPU, None, least)
        if rank is None:
            return made.order.reshape(len(made), -1)
        return np.array([batch.position.numpy() for batch, _ in made])

    return make


def counts(positions, pool):
    return np.bincount(positions.ravel(), minlength=max(pool) + 1)[list(pool)]


@given(samplings())
def test_no_step_is_without_labels_and_every_step_has_as_many(sample, sampling):
    labelled, unlabelled, batch_size, _, least = sampling
    order = sample(*sampling)
    assert order.shape[0] == (labelled + unlabelled) // order.shape[1] >= 1
    assert order.shape[1] <= batch_size
    known = (order < labelled).sum(1)
    assert known.min() == known.max() >= 1
    natural = labelled / (labelled + unlabelled)
    assert abs(known[0] - max(least, natural) * order.shape[1]) <= 1
    if unlabelled and order.shape[1] > 1:
        assert known[0] < order.shape[1]


@given(samplings(), st.integers(1, 4))
def test_images_of_a_pool_come_equally_often_over_all_epochs(sample, sampling, epochs):
    labelled, unlabelled = sampling[:2]
    order = np.concatenate([sample(*sampling, epoch=epoch) for epoch in range(epochs)])
    allowed = epochs if not unlabelled else 1  # a single pool drops its incomplete batch in each epoch
    for pool in (range(labelled), range(labelled, labelled + unlabelled)):
        assert not pool or np.ptp(counts(order, pool)) <= allowed


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3))
def test_all_labelled_is_the_usual_epoch(sample, images, batch_size, epoch):
    order = sample(images, 0, batch_size, 1, 0.5, epoch=epoch)
    assert (
        len(set(order.ravel())) == order.size == images // min(batch_size, images) * min(batch_size, images)
    )


@given(samplings())
def test_processes_share_one_batch_whatever_the_pools(sample, sampling):
    whole, world = sample(*sampling), sampling[3]
    for rank in range(world):
        assert np.array_equal(sample(*sampling, rank=rank), whole[:, rank::world])


def test_few_labels_repeat_while_the_rest_passes_once(sample):
    order = sample(20, 980, 32, 1, 0.5)
    assert order.shape == (31, 32)
    assert np.ptp(counts(order, range(20))) <= 1
    assert counts(order, range(20)).min() == 24  # 31 steps of 16 for 20 images
    assert counts(order, range(20, 1000)).max() == 1


def test_a_few_unlabelled_images_do_not_crowd_out_the_labelled(sample):
    order = sample(300, 3, 32, 1, 0.5)
    assert (order >= 300).sum(1).tolist() == [1] * 9


def test_fewer_images_than_processes_is_one_plain_error(sample):
    with pytest.raises(
        ConfigError, match=r"as many training images as processes\. Found 2 images for 3 processes"
    ):
        sample(2, 0, 3, 3, 0.5)


def test_no_validation_image_is_trained_on(make_prepared, batches):
    prepared = make_prepared(count=48, size_px=16, unlabelled=7)
    trained = {p for epoch in range(3) for batch in orders(batches(epoch=epoch)) for p in batch}
    assert trained == set(prepared.positions("train").tolist())


@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_covers_each_image_exactly_once(make_prepared, world):
    prepared = make_prepared(count=40, size_px=16)
    seen = [
        position
        for rank in range(world)
        for batch in split_batches(prepared, "validation", 4, ProcessShare(rank, world), CPU)
        for position in batch.position.tolist()
    ]
    assert sorted(seen) == prepared.positions("validation").tolist()


def test_batches_are_the_images(make_prepared):
    from knowhue.color import lab_to_rgb

    prepared = make_prepared()
    (batch,) = split_batches(prepared, "validation", 8, ProcessShare(), CPU)
    rgb = (lab_to_rgb(batch.lightness, batch.chroma) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(rgb, prepared.rgb[prepared.positions("validation")])


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=20))
def test_label_weights_average_over_the_labelled(labels):
    label = np.array(labels)
    weight = label_weights(label)
    assert not weight[label < 0].any()
    if (label >= 0).any():
        assert weight.mean() == pytest.approx(1.0)
        assert len(set(weight[label >= 0])) == 1


def images(count=3, size=8):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_mirrored_is_reversed_columns():
    still = np.zeros((3, 2), dtype=np.int64)
    out = augment(images(), np.array([True, False, True]), still)
    assert np.array_equal(out[0], images()[0][:, ::-1])
    assert np.array_equal(out[1], images()[1])


@given(st.integers(-7, 7), st.integers(-7, 7), st.booleans())
def test_shift_is_a_crop_of_the_reflected_image(down, right, mirrored):
    shift = np.array([[down, right]])
    out = augment(images(1), np.array([mirrored]), shift)[0]
    source = images(1)[0]
    padded = np.pad(source, ((7, 7), (7, 7), (0, 0)), mode="reflect")
    expected = padded[7 + down : 15 + down, 7 + right : 15 + right]
    if mirrored:
        expected = np.pad(source[:, ::-1], ((7, 7), (7, 7), (0, 0)), mode="reflect")
        expected = expected[7 + down : 15 + down, 7 + right : 15 + right]
    assert np.array_equal(out, expected)


def test_reflect_is_numpys():
    assert np.array_equal(reflect(np.arange(-7, 15), 8), np.pad(np.arange(8), 7, mode="reflect"))


def test_augmentation_uses_its_whole_range():
    mirrored, shift = draw_augmentation(seed=0, epoch=0, count=2000, shift_px=2)
    assert set(shift.ravel()) == {-2, -1, 0, 1, 2}
    assert 0.45 < mirrored.mean() < 0.55
    again, still = draw_augmentation(seed=0, epoch=0, count=2000, shift_px=0)
    assert np.array_equal(mirrored, again)  # shifts do not change which images are mirrored
    assert not still.any()


SIDE = 24


def undamaged(count, **changes):
    """Degradations that are applied with strength 0, except for `changes`."""
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
