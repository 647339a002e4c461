"""What a network sees of an image: its size, its lightness, the same by arrays and by compiled code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from knowhue.inference import pixels as module
from knowhue.inference.pixels import LONGEST, network_input, taps, working_size

COMPILED = module.kernels.compiled()
ONE_CODE = 0.004  # L* between neighbours of 16 bits, at the steepest


def seen_by(way: str, pixels: np.ndarray, size_px: int) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COMPILED_FROM", {"arrays": 2**62, "compiled code": 0}[way])
        patch.setattr(module, "_work", module._Work())
        patch.setattr(module.kernels, "compiled", lambda: COMPILED)
        return network_input(pixels, size_px)


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
    seen = network_input(image, 32)
    assert seen.shape == (32, 48)
    assert seen.dtype == np.float32
    assert seen[:, :16].max() < 2
    assert seen[:, -16:].min() > 98


def test_gray_and_equal_rgb_look_alike():
    gray = np.random.default_rng(0).integers(0, 256, (50, 70, 1), np.uint8)
    assert np.allclose(network_input(gray, 32), network_input(np.repeat(gray, 3, 2), 32), atol=0.05)


def test_sixteen_bits_look_as_eight():
    gray = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    assert np.allclose(network_input(gray, 32), network_input(gray.astype(np.uint16) * 257, 32), atol=0.6)


def test_less_oversampling_sees_nearly_the_same_in_the_same_place():
    y, x = np.mgrid[:900, :1203]
    scene = (127 + 60 * np.sin(x / 40) + 60 * np.cos(y / 50))[..., None].round().astype(np.uint8)
    exact, quick = network_input(scene, 96), network_input(scene, 96, oversampling=1)
    assert quick.shape == exact.shape
    assert np.abs(quick - exact).max() < 2
    assert np.abs((quick - exact).mean()) < 0.05


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 700),
    st.integers(1, 700),
    st.sampled_from([1, 3]),
    st.sampled_from([np.uint8, np.uint16]),
)
def test_arrays_and_compiled_code_see_the_same(seed, height, width, channels, dtype):
    """Whole blocks are averaged before, from 384 pixels a side on."""
    generator, top = np.random.default_rng(seed), np.iinfo(dtype).max
    pixels = generator.integers(0, top, (height, width, channels), dtype, endpoint=True)
    by_arrays, by_code = seen_by("arrays", pixels, 32), seen_by("compiled code", pixels, 32)
    assert by_code.dtype == by_arrays.dtype
    assert np.abs(by_code - by_arrays).max() < ONE_CODE
    assert np.mean(np.abs(by_code - by_arrays) > 1e-4) < 0.02


@pytest.mark.parametrize("way", ["arrays", "compiled code"])
def test_one_colour_stays_one(way):
    seen = seen_by(way, np.full((1000, 301, 3), 119, np.uint8), 32)
    assert np.ptp(seen) < 1e-4
    assert seen.mean() == pytest.approx(50.03, abs=0.01)


@pytest.mark.parametrize(("old", "new"), [(240, 96), (241, 96), (96, 96), (7, 96), (5000, 32), (1, 1)])
def test_values_are_weighted_as_pillow_does(old, new):
    row = np.random.default_rng(0).uniform(0, 255, old).astype(np.float32)
    places, weights = taps(old, old, new)
    expected = Image.fromarray(row[None]).resize((new, 1), Image.Resampling.LANCZOS)
    assert (row[places] * weights).sum(1) == pytest.approx(np.asarray(expected)[0], abs=1e-4)
