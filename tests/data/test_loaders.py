"""Batches: the same pictures in the same steps for every arm and any number of processes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from knowhue.data.loaders import (
    Augmentation,
    Share,
    TrainingBatches,
    augment,
    draw_augmentation,
    label_weights,
    reflect,
    validation_batches,
)

CPU = torch.device("cpu")


@pytest.fixture
def batches(make_prepared):
    prepared = make_prepared(count=48, size_px=16, unlabelled=7)  # 36 for training

    def make(seed=0, epoch=0, shift_px=3, share=None, batch_size=12):
        return list(TrainingBatches(prepared, batch_size, seed, epoch, shift_px, share or Share(), CPU))

    return make


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_together_are_one_process_batch(batches, world):
    whole = batches()
    shares = [batches(share=Share(rank, world)) for rank in range(world)]
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
        parts = [batches(share=Share(rank, world))[step][0] for rank in range(world)]
        means = [(score[part.position] * part.label_weight).mean() for part in parts]
        torch.testing.assert_close(torch.stack(means).mean(), score[labelled].mean())


def orders(batches):
    return [batch.position.tolist() for batch, _ in batches]


def test_order_belongs_to_seed_and_epoch_alone(batches):
    reference = orders(batches())
    assert orders(batches(shift_px=0)) == reference
    assert orders(batches(seed=1)) != reference
    assert orders(batches(epoch=1)) != reference


def test_reading_twice_gives_the_same(make_prepared):
    passes = TrainingBatches(make_prepared(), 4, 0, 0, 2, Share(), CPU)
    first, second = list(passes), list(passes)
    assert all(torch.equal(a[0].lightness, b[0].lightness) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("batch_size", "steps", "seen"), [(12, 3, 36), (10, 3, 30), (36, 1, 36), (100, 1, 36)]
)
def test_last_smaller_batch_is_dropped(batches, batch_size, steps, seen):
    passes = batches(batch_size=batch_size)
    positions = [p for batch in orders(passes) for p in batch]
    assert len(passes) == steps
    assert len(positions) == len(set(positions)) == seen


def test_no_validation_picture_is_trained_on(make_prepared, batches):
    prepared = make_prepared(count=48, size_px=16, unlabelled=7)
    assert {p for batch in orders(batches()) for p in batch} == set(prepared.positions("train").tolist())


@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_covers_each_picture_exactly_once(make_prepared, world):
    prepared = make_prepared(count=40, size_px=16)
    seen = [
        position
        for rank in range(world)
        for batch in validation_batches(prepared, 4, Share(rank, world), CPU)
        for position in batch.position.tolist()
    ]
    assert sorted(seen) == prepared.positions("validation").tolist()


def test_batches_are_the_pictures(make_prepared):
    from knowhue.color import lab_to_rgb

    prepared = make_prepared()
    (batch,) = validation_batches(prepared, 8, Share(), CPU)
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


def pictures(count=3, size=8):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_mirrored_is_reversed_columns():
    still = np.zeros((3, 2), dtype=np.int64)
    out = augment(pictures(), Augmentation(np.array([True, False, True]), still))
    assert np.array_equal(out[0], pictures()[0][:, ::-1])
    assert np.array_equal(out[1], pictures()[1])


@given(st.integers(-7, 7), st.integers(-7, 7), st.booleans())
def test_shift_is_a_crop_of_the_reflected_picture(down, right, mirrored):
    shift = np.array([[down, right]])
    out = augment(pictures(1), Augmentation(np.array([mirrored]), shift))[0]
    source = pictures(1)[0]
    padded = np.pad(source, ((7, 7), (7, 7), (0, 0)), mode="reflect")
    expected = padded[7 + down : 15 + down, 7 + right : 15 + right]
    if mirrored:
        expected = np.pad(source[:, ::-1], ((7, 7), (7, 7), (0, 0)), mode="reflect")
        expected = expected[7 + down : 15 + down, 7 + right : 15 + right]
    assert np.array_equal(out, expected)


def test_reflect_is_numpys():
    assert np.array_equal(reflect(np.arange(-7, 15), 8), np.pad(np.arange(8), 7, mode="reflect"))


def test_augmentation_uses_its_whole_range():
    drawn = draw_augmentation(seed=0, epoch=0, count=2000, shift_px=2)
    assert set(drawn.shift.ravel()) == {-2, -1, 0, 1, 2}
    assert 0.45 < drawn.mirrored.mean() < 0.55
    again = draw_augmentation(seed=0, epoch=0, count=2000, shift_px=0)
    assert np.array_equal(drawn.mirrored, again.mirrored)  # moving or not does not change what is mirrored
    assert not again.shift.any()
