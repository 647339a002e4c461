"""Painting keeps lightness, hue and everything else that is not chroma."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.color import lab2rgb, rgb2lab

from knowhue.evaluation.fidelity import colourfulness
from knowhue.inference import pixels as module
from knowhue.inference.pixels import enlarge, lightness, paint
from knowhue.inference.upsampling import UPSAMPLINGS

LARGEST = {np.uint8: 0.5, np.uint16: 0.01}


def scene(seed: int, shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    """Noise with black, white and flat parts."""
    found = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    found[: shape[0] // 4] = 0
    found[-(shape[0] // 4) :] = np.iinfo(dtype).max
    return found


def small(seed: int, height: int = 5, width: int = 7, largest: float = 150) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    chroma = generator.uniform(-largest, largest, (height, width, 2)).astype(np.float32)
    return chroma, generator.uniform(0, 100, (height, width)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1, 3]),
    st.sampled_from([np.uint8, np.uint16]),
    st.sampled_from(list(UPSAMPLINGS)),
)
def test_lightness_is_kept_whatever_the_chroma(seed, height, width, channels, dtype, upsampling):
    picture = scene(seed, (height, width, channels), dtype)
    painted, _ = paint(picture, *small(seed), upsampling=upsampling)
    assert painted.shape == (height, width, 3)
    assert painted.dtype == dtype
    assert np.abs(lightness(painted) - lightness(picture)).max() <= LARGEST[dtype]


@given(arrays.arrays(np.uint8, (4, 6, 3)))
@settings(max_examples=30, deadline=None)
def test_lightness_agrees_with_scikit_image(picture):
    assert np.allclose(lightness(picture), rgb2lab(picture)[..., 0], atol=1e-3)


def test_sixteen_bits_agree_with_scikit_image():
    picture = scene(0, (40, 40, 3), np.uint16)
    assert np.allclose(lightness(picture), rgb2lab(picture / 65535)[..., 0], atol=1e-3)


def test_colours_in_gamut_agree_with_scikit_image():
    gray = np.linspace(60, 190, 40 * 40).reshape(40, 40, 1).astype(np.uint8)
    chroma = np.full((1, 1, 2), (12, -18), np.float32)
    painted, reach = paint(gray, chroma, np.full((1, 1), 50, np.float32), upsampling="bilinear")
    lab = np.concatenate([lightness(gray)[..., None], np.broadcast_to(chroma, (40, 40, 2))], -1)
    assert np.abs(painted - lab2rgb(lab.astype(np.float64)) * 255).max() < 0.6
    assert reach.reduced == 0
    assert reach.chroma == pytest.approx(np.hypot(12, 18), rel=1e-4)


def test_a_colour_that_srgb_lacks_keeps_its_hue():
    gray = np.full((8, 8, 1), 120, np.uint16) * 257
    chroma = np.full((1, 1, 2), (90, 90), np.float32)
    painted, reach = paint(gray, chroma, np.full((1, 1), 50, np.float32), upsampling="bilinear")
    found = rgb2lab(painted / 65535)[0, 0]
    assert reach.reduced == 1
    assert np.degrees(np.arctan2(found[2], found[1])) == pytest.approx(45, abs=0.3)
    assert 60 < np.hypot(*found[1:]) < np.hypot(90, 90)


def test_black_and_white_stay():
    ends = np.array([[[0], [255]]], np.uint8)
    painted, reach = paint(ends, *small(0))
    assert painted[0, 0].tolist() == [0, 0, 0]
    assert painted[0, 1].tolist() == [255, 255, 255]
    assert reach.chroma < 0.1


def test_no_chroma_gives_gray():
    picture = scene(1, (20, 20, 1))
    painted, reach = paint(picture, np.zeros((3, 3, 2), np.float32), np.ones((3, 3), np.float32))
    assert (painted == picture).all()
    assert reach.colourfulness == 0


def test_saturation_is_a_factor():
    picture = np.full((10, 10, 1), 128, np.uint8)
    chroma, guide = np.full((2, 2, 2), 10, np.float32), np.full((2, 2), 50, np.float32)
    assert paint(picture, chroma, guide, saturation=0)[1].chroma == 0
    assert paint(picture, chroma, guide, saturation=2)[1].chroma == pytest.approx(200**0.5 * 2, rel=1e-3)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_a_mirrored_picture_is_painted_mirrored(upsampling):
    picture = scene(2, (33, 47, 3))
    chroma, guide = small(2, largest=40)
    straight, _ = paint(picture, chroma, guide, upsampling=upsampling)
    turned, _ = paint(picture[:, ::-1].copy(), chroma[:, ::-1], guide[:, ::-1], upsampling=upsampling)
    assert np.abs(turned[:, ::-1].astype(int) - straight).max() <= 1


def test_a_step_of_chroma_lands_where_it_is():
    chroma = np.zeros((1, 8, 2), np.float32)
    chroma[:, 4:, 0] = 40
    picture = np.full((4, 80, 1), 128, np.uint8)
    painted, _ = paint(picture, chroma, np.full((1, 8), 50, np.float32), upsampling="bilinear")
    redness = rgb2lab(painted)[0, :, 1]
    assert redness[34] < 1
    assert redness[45] > 39
    assert redness[39:41].mean() == pytest.approx(20, abs=1)


def test_threads_do_not_change_the_numbers(monkeypatch):
    picture = scene(3, (64, 50, 3))
    whole = paint(picture, *small(3))
    monkeypatch.setattr(module, "BAND_PIXELS", 500)
    banded = paint(picture, *small(3))
    assert (banded[0] == whole[0]).all()
    assert banded[1] == pytest.approx(whole[1])
    assert (lightness(picture) == lightness(picture.copy())).all()


def test_colourfulness_is_the_evaluations():
    import torch

    painted, reach = paint(scene(4, (30, 30, 1)), *small(4, largest=60))
    theirs = colourfulness(torch.from_numpy(painted).permute(2, 0, 1)[None].float() / 255)
    assert reach.colourfulness == pytest.approx(theirs.item(), rel=1e-4)


@pytest.mark.parametrize(
    "picture", [np.zeros((3, 3), np.uint8), np.zeros((3, 3, 2), np.uint8), np.zeros((3, 3, 3))]
)
def test_other_shapes_and_types_are_refused(picture):
    with pytest.raises(ValueError, match="`pixels` should be"):
        lightness(picture)


def test_enlarging_keeps_flat_maps_and_ends():
    assert (enlarge(np.full((2, 3), 4, np.float32), 20, 31) == 4).all()
    ramp = enlarge(np.array([[0, 1]], np.float32), 1, 100)
    assert ramp[0, 0] == 0
    assert ramp[0, -1] == 1
    assert (np.diff(ramp) >= 0).all()
