"""The steadier: camera motion, moving chroma with it, scene cuts, and damping of flicker."""

import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, shift
from skimage.registration import phase_cross_correlation

from knowhue.inference.video import Steadier, agreement, is_cut, motion, warp
from knowhue.inference.video_reading import Orientation

SHAPE = (48, 64)


def scene(seed: int, shape: tuple[int, int] = (64, 96)) -> np.ndarray:
    """L* with detail of several sizes."""
    noise = np.random.default_rng(seed).random(shape)
    detail = sum(size * gaussian_filter(noise, size) for size in (1.5, 3, 6))
    return ((detail - detail.min()) / np.ptp(detail) * 80 + 10).astype(np.float32)


def panned(seed: int, down: float, right: float) -> tuple[np.ndarray, np.ndarray]:
    """Two frames of a scene, the second of which looks at what lies further down and right."""
    whole = scene(seed)
    moved = shift(whole, (-down, -right), order=3, mode="nearest")
    rows, columns = slice(8, 8 + SHAPE[0]), slice(16, 16 + SHAPE[1])
    return whole[rows, columns], moved[rows, columns]


@pytest.mark.parametrize(("down", "right"), [(0, 0), (0, 1), (0.5, -1.5), (-1, 2), (3, 6)])
def test_motion_is_that_of_the_camera_as_an_independent_method_finds_it(down: float, right: float):
    past, now = panned(1, down, right)
    flow = motion(past, now)
    inside = flow[6:-6, 8:-8].reshape(-1, 2)
    assert np.abs(np.median(inside, 0) - [down, right]).max() < 0.1
    found, *_ = phase_cross_correlation(past, now, upsample_factor=10, normalization=None)
    assert np.abs(np.median(inside, 0) - found).max() < 1.0


def test_motion_does_not_mistake_a_brighter_lamp_for_movement():
    past, now = panned(2, 0, 1)
    assert np.abs(motion(past, now + 8) - motion(past, now)).max() < 1e-3


def test_carrying_brings_the_past_to_its_place():
    past, now = panned(3, -1, 2)
    carried = warp(past, motion(past, now))
    assert np.abs(carried - now)[4:-4, 4:-4].mean() < 0.25 * np.abs(past - now)[4:-4, 4:-4].mean()


@given(st.integers(0, 99), st.floats(0, 0.95), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_steadied_chroma_stays_between_the_extremes_of_what_was_predicted(
    seed: int, strength: float, count: int
):
    generator = np.random.default_rng(seed)
    steadier = Steadier(strength)
    chroma = generator.uniform(-50, 50, (count, *SHAPE, 2)).astype(np.float32)
    for each in chroma:
        answer = steadier.step(scene(seed, SHAPE), each)
    assert answer.dtype == np.float32
    assert answer.min() >= chroma.min() - 1e-3
    assert answer.max() <= chroma.max() + 1e-3


def test_a_still_scene_is_averaged_exactly_as_the_strength_says():
    lightness, generator = scene(4, SHAPE), np.random.default_rng(0)
    chroma = generator.normal(0, 10, (6, *SHAPE, 2)).astype(np.float32)
    steadier, expected = Steadier(0.75), chroma[0]
    for each in chroma:
        expected = 0.75 * expected + 0.25 * each
        assert np.allclose(steadier.step(lightness, each), expected, atol=1e-3)


def test_without_strength_each_frame_stands_alone():
    steadier = Steadier(0)
    for seed in range(3):
        chroma = np.random.default_rng(seed).normal(0, 10, (*SHAPE, 2)).astype(np.float32)
        assert np.array_equal(steadier.step(scene(5, SHAPE), chroma), chroma)


@pytest.mark.parametrize("grain", [0.0, 2.0])
def test_a_cut_forgets_the_past_and_nothing_else_does(grain: float):
    generator = np.random.default_rng(0)
    orange, blue = (np.full((*SHAPE, 2), value, np.float32) for value in (40, -40))
    steadier = Steadier(0.8)
    for right in range(5):  # a pan with grain and a lamp that flickers
        frame = panned(6, 0, right)[1] + grain * generator.standard_normal(SHAPE) + generator.normal(0, 3)
        steadier.step(frame.astype(np.float32), orange)
    assert steadier.cuts == 0
    assert np.array_equal(steadier.step(scene(7, SHAPE), blue), blue)
    assert steadier.cuts == 1


def test_fading_to_black_is_no_cut_but_a_flash_is():
    lightness = scene(8, SHAPE)
    fading = [lightness * share for share in np.linspace(1, 0, 12, dtype=np.float32)]
    pairs = [*pairwise(fading), (fading[-1], np.full(SHAPE, 90, np.float32))]
    assert [is_cut(*pair, agreement(*pair)) for pair in pairs] == [False] * 11 + [True]


def test_what_appears_takes_its_own_colour_at_once():
    before, now = scene(9, SHAPE), scene(9, SHAPE)
    now[16:32, 20:40] = 95 - now[16:32, 20:40]
    orange, blue = (np.full((*SHAPE, 2), value, np.float32) for value in (40, -40))
    steadier = Steadier(0.9)
    steadier.step(before, orange)
    answer = steadier.step(now, blue)
    assert answer[20:28, 25:35].mean() < -20  # new here
    assert answer[:10, :10].mean() > 25  # as before
    assert agreement(before, now)[20:28, 25:35].mean() < 0.3


def test_it_steadies_what_wavers():
    generator = np.random.default_rng(1)
    frames = [panned(10, 0, t / 2)[1] + generator.normal(0, 1, SHAPE).astype(np.float32) for t in range(8)]
    chroma = [
        generator.normal(20, 5, (1, 1, 2)).astype(np.float32) + np.zeros((*SHAPE, 2), np.float32)
        for _ in frames
    ]
    steadier = Steadier()
    steadied = [steadier.step(*pair) for pair in zip(frames, chroma, strict=True)]
    wavering, held = (
        np.mean([np.abs(b - a).mean() for a, b in pairwise(series[2:])]) for series in (chroma, steadied)
    )
    assert held < 0.4 * wavering


def test_what_was_kept_is_never_changed():
    steadier = Steadier()
    steadier.step(scene(11, SHAPE), np.ones((*SHAPE, 2), np.float32))
    kept = steadier.past
    assert kept is not None
    copies = [part.copy() for part in kept]
    steadier.step(scene(11, SHAPE), np.zeros((*SHAPE, 2), np.float32))
    assert all(np.array_equal(a, b) for a, b in zip(kept, copies, strict=True))


@pytest.mark.parametrize("shape", [(32, 32), (33, 128), (128, 32)])
def test_any_shape_that_a_network_looks_at(shape: tuple[int, int]):
    steadier = Steadier()
    for seed in (1, 1, 2):
        assert steadier.step(scene(seed, shape), np.ones((*shape, 2), np.float32)).shape == (*shape, 2)


def test_flicker_counts_only_the_same_places():
    flicker = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "flicker.py"))["flicker"]
    now, before = np.zeros((2, 2, 2), np.float32), np.full((2, 2, 2), 3, np.float32)
    before[0] = 100
    assert flicker(now, before, np.array([[False, False], [True, True]])) == 3
    assert np.isnan(flicker(now, before, np.zeros((2, 2), bool)))


@pytest.mark.parametrize("turned", [Orientation(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)])  # pyright: ignore
def test_turning_there_and_back(turned: Orientation):
    values = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(turned.stored(turned.upright(values)), values)
