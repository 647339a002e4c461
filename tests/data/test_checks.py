"""What keeps an image out, and how the rest is split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowhue.data.checks import (
    checksum,
    refuse_odd_names,
    stratified_split,
)
from knowhue.errors import ImageError

labels = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=60)


def test_checksum_is_of_the_pixels():
    noise = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    assert checksum(noise) == checksum(np.asfortranarray(noise)) != checksum(noise[::-1])


def names_of(labels):
    return [f"{label}/{i}.jpg" for i, label in enumerate(labels)]


@given(labels, st.floats(0.01, 0.45), st.floats(0.0, 0.45), st.integers(0, 5))
def test_split_takes_the_share_of_every_class(labels, validation, test, seed):
    shares = {"test": test, "validation": validation} if test else {"validation": validation}
    splits = stratified_split(labels, names_of(labels), shares, seed)
    for name in {label for label in labels if label}:
        own = [split for split, label in zip(splits, labels, strict=True) if label == name]
        left = len(own)
        for split, share in shares.items():
            assert own.count(split) == min(max(1, round(share * len(own))), left)
            left -= own.count(split)
    assert all(split == "train" for split, label in zip(splits, labels, strict=True) if label is None)


@given(labels, st.integers(0, 5), st.randoms())
def test_split_does_not_depend_on_the_order_of_the_images(labels, seed, random):
    names, shares = names_of(labels), {"validation": 0.3}
    splits = dict(zip(names, stratified_split(labels, names, shares, seed), strict=True))
    mixed = random.sample(range(len(labels)), len(labels))
    again = stratified_split([labels[i] for i in mixed], [names[i] for i in mixed], shares, seed)
    assert [splits[names[i]] for i in mixed] == again


@given(labels, st.integers(0, 5), st.data())
def test_an_image_less_moves_at_most_one_other(labels, seed, data):
    names, shares = names_of(labels), {"validation": 0.3}
    gone = data.draw(st.integers(0, len(labels) - 1))
    before = dict(zip(names, stratified_split(labels, names, shares, seed), strict=True))
    rest = [i for i in range(len(labels)) if i != gone]
    after = stratified_split([labels[i] for i in rest], [names[i] for i in rest], shares, seed)
    assert sum(before[names[i]] != split for i, split in zip(rest, after, strict=True)) <= 1


def test_seeds_differ():
    names = names_of("ab" * 20)
    splits = {tuple(stratified_split("ab" * 20, names, {"validation": 0.3}, seed)) for seed in range(5)}
    assert len(splits) == 5


@pytest.mark.parametrize(
    "name", ["bad\udcff", "a\x1bb", "a\nb", "tab\t", "", " ", "a\u2028b", "\x7f", "a\x85"]
)
def test_class_names_that_no_figure_can_hold_are_refused_in_one_line(name):
    with pytest.raises(ImageError, match="name of a class should be printable text") as raised:
        refuse_odd_names(["fine", name])
    assert str(raised.value).isprintable()


def test_other_odd_class_names_are_kept():
    refuse_odd_names(
        ["=cmd|calc!A1", "@home", "-rf", "+1", "<b>", "珊瑚", "🐠", "a\u200db", "Ä", '"', "'", "a,b;c"]
    )
