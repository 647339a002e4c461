"""Which images are left out, and how the others are split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowhue.data.checks import (
    check_class_names,
    checksum,
    split_off,
)
from knowhue.errors import ImageError

names = st.integers(1, 60).map(lambda count: [f"{number}.jpg" for number in range(count)])


def test_checksum_is_of_the_pixels():
    noise = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    assert checksum(noise) == checksum(np.asfortranarray(noise)) != checksum(noise[::-1])


@given(names, st.floats(0.01, 0.45), st.floats(0.0, 0.45), st.integers(0, 5))
def test_each_split_takes_its_share_of_a_class(names, validation, test, seed):
    shares = {"test": test, "validation": validation} if test else {"validation": validation}
    splits, left = split_off(names, shares, seed), len(names)
    for split, share in shares.items():
        count = min(max(1, round(share * len(names))), left)
        assert list(splits.values()).count(split) == count
        left -= count
    assert splits.keys() <= set(names)
    assert set(splits.values()) <= shares.keys()


@given(names, st.integers(0, 5), st.randoms())
def test_a_split_does_not_depend_on_the_order_of_the_images(names, seed, random):
    mixed = random.sample(names, len(names))
    assert split_off(mixed, {"validation": 0.3}, seed) == split_off(names, {"validation": 0.3}, seed)


@given(names, st.integers(0, 5), st.data())
def test_an_image_less_moves_at_most_one_other(names, seed, data):
    gone = data.draw(st.sampled_from(names))
    before = split_off(names, {"validation": 0.3}, seed).keys() - {gone}
    after = split_off([name for name in names if name != gone], {"validation": 0.3}, seed).keys()
    assert len(before ^ after) <= 1


def test_seeds_differ():
    names = [f"{number}.jpg" for number in range(40)]
    assert len({tuple(split_off(names, {"validation": 0.3}, seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize(
    "name", ["bad\udcff", "a\x1bb", "a\nb", "tab\t", "", " ", "a\u2028b", "\x7f", "a\x85"]
)
def test_class_names_that_no_figure_can_hold_are_refused_in_one_line(name):
    with pytest.raises(ImageError, match="name of a class should be printable text") as raised:
        check_class_names(["fine", name])
    assert str(raised.value).isprintable()


def test_a_class_that_would_read_as_none_is_refused():
    for name in ("unknown", "unlabeled", "Unlabelled", "un-labeled"):
        with pytest.raises(ImageError, match=rf"not be called `{name}`, because .* are called `unlabelled`"):
            check_class_names(["fine", name])
    check_class_names(["Unknown", "unknown bird", "labelled"])


def test_other_odd_class_names_are_kept():
    check_class_names(
        ["=cmd|calc!A1", "@home", "-rf", "+1", "<b>", "珊瑚", "🐠", "a\u200db", "Ä", '"', "'", "a,b;c"]
    )
