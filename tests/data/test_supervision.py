"""Hidden labels, shuffled labels and exchanged colours affect only training images."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from knowhue.config import Supervision
from knowhue.data.loaders import ProcessShare, TrainingBatches, find_targets

CPU = torch.device("cpu")


@pytest.fixture
def prepared(make_prepared):
    return make_prepared(count=64, size_px=16, classes=4, unlabelled=5)


@pytest.mark.parametrize("placebo", ["none", "labels", "colours"])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_validation_keeps_the_truth(prepared, placebo, share):
    targets = find_targets(prepared, Supervision(placebo=placebo, labelled_share=share), seed=3)
    held = prepared.positions("validation")
    assert np.array_equal(targets.label[held], prepared.label[held])
    assert np.array_equal(targets.colour_of[held], held)


def test_without_a_placebo_everything_is_the_truth(prepared):
    targets = find_targets(prepared, Supervision(), seed=0)
    assert np.array_equal(targets.label, prepared.label)
    assert np.array_equal(targets.colour_of, np.arange(64))


def test_shuffled_labels_keep_their_counts_and_lose_their_images(prepared):
    targets = find_targets(prepared, Supervision(placebo="labels"), seed=0)
    train = prepared.positions("train")
    assert np.array_equal(np.sort(targets.label[train]), np.sort(prepared.label[train]))
    assert np.array_equal(targets.label < 0, prepared.label < 0)
    assert (targets.label[train] == prepared.label[train]).mean() < 0.6
    assert np.array_equal(targets.colour_of, np.arange(64))


def test_no_image_keeps_its_own_colours(prepared):
    targets = find_targets(prepared, Supervision(placebo="colours"), seed=0)
    train = prepared.positions("train")
    assert not (targets.colour_of[train] == train).any()
    assert np.array_equal(np.sort(targets.colour_of[train]), train)  # each gives its colours once
    assert np.array_equal(targets.label, prepared.label)


@pytest.mark.parametrize("placebo", ["labels", "colours"])
def test_placebos_follow_their_seed(prepared, placebo):
    first, again, other = (
        find_targets(prepared, Supervision(placebo=placebo), seed=seed) for seed in (0, 0, 1)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_known_labels_are_nested_and_stratified(prepared):
    known = {
        share: find_targets(prepared, Supervision(labelled_share=share), seed=0).label >= 0
        for share in (0.01, 0.3, 0.6)
    }
    assert not (known[0.01] & ~known[0.3]).any()
    assert not (known[0.3] & ~known[0.6]).any()
    for number in range(4):
        members = (prepared.split == "train") & (prepared.label == number)
        assert (known[0.01] & members).sum() == 1
        assert (known[0.6] & members).sum() == round(0.6 * members.sum())


@pytest.mark.parametrize("labelled_share", [1.0, 0.3])
def test_images_of_a_share_are_nested_and_stratified(prepared, labelled_share):
    used = {
        share: find_targets(prepared, Supervision(image_share=share, labelled_share=labelled_share), seed=5)
        for share in (0.01, 0.3, 0.6, 1.0)
    }
    assert np.array_equal(used[1.0].train, prepared.positions("train"))
    for smaller, larger in pairwise(used):
        assert set(used[smaller].train) < set(used[larger].train)
    train = prepared.positions("train")
    for number in range(-1, 4):  # the unlabelled count as a class
        members = set(train[prepared.label[train] == number])
        assert len(members & set(used[0.6].train)) == round(0.6 * len(members))
        assert len(members & set(used[0.01].train)) == 1


def test_share_of_images_is_drawn_anew_per_seed_only_if_asked(prepared):
    def drawn(seed, **settings):
        return find_targets(prepared, Supervision(image_share=0.3, **settings), seed).train.tolist()

    assert drawn(0) == drawn(1)
    assert drawn(0, resample=True) == drawn(0, resample=True) != drawn(1, resample=True)


def test_resampling_all_images_is_refused():
    with pytest.raises(ValueError, match=r"image_share` should be below 1 where .*Found .* = 1`"):
        Supervision(resample=True)


@pytest.mark.parametrize("placebo", ["none", "labels", "colours"])
def test_what_is_not_in_the_share_is_never_seen(prepared, placebo):
    targets = find_targets(
        prepared, Supervision(image_share=0.4, placebo=placebo, labelled_share=0.5), seed=0
    )
    batches = [TrainingBatches(prepared, 4, 0, epoch, 0, ProcessShare(), CPU, targets) for epoch in range(6)]
    seen = {int(position) for epoch in batches for batch, _ in epoch for position in batch.position}
    assert seen == set(targets.train.tolist())
    assert set(targets.colour_of[targets.train]) == set(targets.train)


def test_batches_teach_the_targets_with_one_augmentation(prepared):
    colours = find_targets(prepared, Supervision(placebo="colours"), seed=0)
    plain, taught = (
        {
            int(position): (light, chroma)
            for epoch in range(2)
            for batch, _ in TrainingBatches(prepared, 12, 0, epoch, 0, ProcessShare(), CPU, targets)
            for position, light, chroma in zip(batch.position, batch.lightness, batch.chroma, strict=True)
        }
        for targets in (None, colours)
    )
    for position, (light, chroma) in taught.items():
        assert torch.equal(light, plain[position][0])
        assert not torch.equal(chroma, plain[position][1])


def test_batches_weigh_the_labels_that_are_known(prepared):
    hidden = find_targets(prepared, Supervision(labelled_share=0.3), seed=0)
    for batch, _ in TrainingBatches(prepared, 12, 0, 0, 0, ProcessShare(), CPU, hidden):
        assert torch.equal(batch.label >= 0, batch.label_weight > 0)
        assert np.array_equal(batch.label.numpy(), hidden.label[batch.position.numpy()])
