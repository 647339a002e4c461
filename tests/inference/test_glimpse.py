import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowhue.inference.glimpse import LONGEST, glimpse, working_size


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(32, 256))
def test_the_short_side_is_the_networks_and_the_long_one_bounded(height: int, width: int, size_px: int):
    found = working_size(height, width, size_px)
    assert min(found) == size_px
    assert max(found) <= LONGEST * size_px


@given(st.integers(50, 5000), st.integers(50, 5000))
def test_the_aspect_stays_within_a_pixel(height: int, width: int):
    found = working_size(height, width, 96)
    if max(found) < LONGEST * 96:
        assert found[1] / found[0] == pytest.approx(width / height, rel=1 / 96)


def test_sees_lightness_in_l_units():
    image = np.zeros((40, 60, 1), np.uint8)
    image[:, 30:] = 255
    seen = glimpse(image, 32)
    assert seen.shape == (32, 48)
    assert seen.dtype == np.float32
    assert seen[:, :16].max() < 2
    assert seen[:, -16:].min() > 98


def test_gray_and_equal_rgb_look_alike():
    gray = np.random.default_rng(0).integers(0, 256, (50, 70, 1), np.uint8)
    assert np.allclose(glimpse(gray, 32), glimpse(np.repeat(gray, 3, 2), 32), atol=0.05)


def test_sixteen_bits_look_as_eight():
    gray = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    assert np.allclose(glimpse(gray, 32), glimpse(gray.astype(np.uint16) * 257, 32), atol=0.6)


def test_less_oversampling_sees_nearly_the_same_in_the_same_place():
    y, x = np.mgrid[:900, :1203]
    scene = (127 + 60 * np.sin(x / 40) + 60 * np.cos(y / 50))[..., None].round().astype(np.uint8)
    exact, quick = glimpse(scene, 96), glimpse(scene, 96, oversampling=1)
    assert quick.shape == exact.shape
    assert np.abs(quick - exact).max() < 2
    assert np.abs((quick - exact).mean()) < 0.05
