"""What keeps a picture out, and how the rest is split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowhue.data.checks import checksum, colourfulness, find_duplicates, stratified_split

labels = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=60)


def reference_colourfulness(rgb):
    """Hasler and Suesstrunk 2003, section 7, as most code on the web has it."""
    red, green, blue = (rgb[..., i].astype(float) for i in range(3))
    rg, yb = red - green, 0.5 * (red + green) - blue
    return np.sqrt(rg.var() + yb.var()) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)


def test_colourfulness_is_the_papers():
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert colourfulness(noise) == pytest.approx(reference_colourfulness(noise))


@pytest.mark.parametrize(
    ("rgb", "value"), [((255, 0, 0), 0.3 * 285.09), ((0, 0, 255), 0.3 * 255), ((7, 7, 7), 0)]
)
def test_colourfulness_of_one_colour_is_its_distance_from_gray(rgb, value):
    assert colourfulness(np.full((3, 3, 3), rgb, np.uint8)) == pytest.approx(value, abs=0.01)


def test_checksum_is_of_the_pixels():
    noise = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    assert checksum(noise) == checksum(np.asfortranarray(noise)) != checksum(noise[::-1])


def test_training_copy_goes_wherever_it_stands():
    found = find_duplicates(["a", "b", "c"], ["train", "validation", "train"], ["x", "x", "x"])
    assert found == {0: "duplicate of b (validation)", 2: "duplicate of b (validation)"}


def test_first_copy_stays_within_a_part():
    assert find_duplicates(["a", "b"], ["train"] * 2, ["x", "x"]) == {1: "duplicate of a (train)"}
    assert find_duplicates(["a", "b"], ["train"] * 2, ["x", "y"]) == {}


@given(labels, st.floats(0.05, 0.95), st.integers(0, 100))
def test_every_class_gives_its_share(labels, share, seed):
    parts = stratified_split(labels, share, np.random.default_rng(seed))
    assert len(parts) == len(labels)
    for name in {"a", "b", "c"} & set(labels):
        own = [part for part, label in zip(parts, labels, strict=True) if label == name]
        assert own.count("validation") == max(1, round(share * len(own)))
    unlabelled = {part for part, label in zip(parts, labels, strict=True) if label is None}
    assert unlabelled <= {"train"}


@given(labels, st.integers(0, 100))
def test_split_is_reproducible(labels, seed):
    first, second = (stratified_split(labels, 0.3, np.random.default_rng(seed)) for _ in range(2))
    assert first == second


def test_another_seed_splits_otherwise():
    splits = {tuple(stratified_split(["a", "b"] * 20, 0.3, np.random.default_rng(seed))) for seed in range(5)}
    assert len(splits) == 5
